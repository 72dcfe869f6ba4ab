"""What prints, writes or serves what is known: `sda inspect`, `app`, `table`, `models` and `profile`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assets import EXAMPLES, GATED_MODEL, PUBLISHED, model_file
from ..foundation.files import write_atomic
from ..foundation.runs import load_records
from ..networks.backbones import create_model, list_models
from ..networks.checkpoints import read_card
from ..networks.cost import profile
from .options import Command, CommandLineError, ComputeCommand, read_options


@dataclass
class Inspect(ComputeCommand):
    """Write a page about some clips: answer, selection, and the answers to every click of a reader."""

    clips: tuple[Path, ...]  # video files, folders of frames, or folders with any of these below
    # model file, or the name of one that ships (default: sda_tsn_moves_gated)
    checkpoint: Path | None = None
    out: Path = Path("report.html")  # the page; replaced if it exists
    draws: int = 10  # random controls of every intervention
    label: str = ""  # true class of the clips, by name or number; effects and maps are of it
    target: str = ""  # class to ask about, by name or number: why not that one?

    def run(self) -> None:
        """Write the page and say where it is."""
        if not self.clips:
            raise CommandLineError("name at least one video file, or a folder of them: sda inspect clip.mp4")
        if self.draws < 1:
            raise CommandLineError(f"--draws {self.draws} gives no control: ask for 1 or more")
        from ..inspector.page import inspect_clips

        done = inspect_clips(
            list(self.clips),
            self.checkpoint or GATED_MODEL,
            self.out,
            label=self.label,
            target=self.target,
            draws=self.draws,
            progress=not self.quiet,
            device=self.device,
            precision=self.precision,
        )
        print(f"Report: {self.out} ({len(done.shown)} of {len(done.shown) + len(done.failed)} clips)")


@dataclass
class App(ComputeCommand):
    """Serve the inspector on this machine and open the browser."""

    folder: tuple[Path, ...]  # dataset, folder of videos, or videos (default: the clips that ship)
    # model file, or the name of one that ships (default: sda_tsn_moves_gated)
    checkpoint: Path | None = None
    other: Path | None = None  # another one, to stand beside it
    split: str = "test"  # of a dataset: list in trainValTest/
    port: int = 0  # on 127.0.0.1 (0: any that is free)
    no_browser: bool = False  # print the address alone

    def run(self) -> None:
        """Serve until Ctrl-C."""
        from ..inspector.app import serve

        for path in self.folder:
            if not path.exists():
                raise CommandLineError(f"there is no {path}", subject=str(path))
        words: dict[str, Any] = {"split": self.split, "device": self.device, "precision": self.precision}
        if self.other:
            words["other"] = str(model_file(self.other).resolve())
        clips = list(self.folder) or [EXAMPLES]
        serve(self.checkpoint or GATED_MODEL, clips, self.port, not self.no_browser, **words)


@dataclass
class Table(Command):
    """Print measured accuracies from a folder of records, and published ones beside them."""

    records: Path | None = None  # folder of records, e.g. the --out of sda test (default: data/results)
    published: bool = False  # the published tables too, with their known errors noted
    dataset: str = ""  # only this dataset, e.g. something-v1
    markdown: bool = False  # print markdown, for a README
    html: Path | None = None  # also write a page whose columns sort on a click

    def run(self) -> None:
        """Print one table, and write the page if asked for."""
        folder = self.records or Path("data/results")
        if not folder.is_dir() and (self.records or not self.published):
            raise CommandLineError(f"there is no folder {folder}: name one with --records")
        if self.html and not self.html.parent.is_dir():
            raise CommandLineError(f"there is no folder {self.html.parent} for the page")
        from ..testing.results import choose_table, load_published, to_markdown, to_page

        records = load_records(folder, "test")
        table = choose_table(records, load_published(PUBLISHED) if self.published else None, self.dataset)
        print(to_markdown(table) if self.markdown else table.to_string(index=False))
        if self.html:
            write_atomic(self.html, to_page(table, self.dataset or "Results"))


@dataclass
class Models(Command):
    """List the networks that can be trained, or what a model file holds."""

    patterns: tuple[str, ...]  # which ones, e.g. "*_tiny"; or model files, by path or name
    cost: bool = False  # also count parameters and multiply-adds (174 classes, 8 frames; a second each)

    def run(self) -> None:
        """Print the names, or the cards of model files."""
        for pattern in self.patterns or ("*",):
            if model_file(pattern).suffix == ".safetensors":
                print(read_card(pattern))
            elif names := list_models(pattern):
                for name in names:
                    print(f"{name:20} {count(name)}" if self.cost else name)
            else:
                known = list_models()
                raise CommandLineError(
                    f"no network fits {pattern!r}; there are {', '.join(known)}",
                    subject=pattern,
                    choices=known,
                )


@dataclass
class Profile(Command):
    """Count a network's parameters and multiply-adds, block by block."""

    model: str  # network, one of `sda models`
    options: tuple[str, ...] = ()  # options of the network, e.g. reduction=8 "dependencies=[LST,LT]"
    classes: int = 174  # classes of the classifier
    frames: int = 8  # frames per clip
    size: int = 0  # height and width of a frame, pixels (0: 64 for tiny networks, else 224)
    blocks: bool = False  # one row per block too

    def run(self) -> None:
        """Print the sum, and the blocks if asked."""
        found = count(self.model, self.classes, self.frames, self.size, **read_options(self.options))
        print(f"{self.model}: {found}")
        if self.blocks:
            print(found.per_block.to_string())


def count(
    name: str,  # network, one of `sda models`
    classes: int = 174,  # classes of the classifier
    frames: int = 8,  # frames per clip
    size: int = 0,  # height and width of a frame, pixels (0: 64 for tiny networks, else 224)
    **options: Any,  # of the network, e.g. reduction=8
) -> Any:  # `sda.networks.backbones.Profile`
    """Parameters and multiply-adds of a network; frames of its usual size unless told."""
    size = size or (64 if name.endswith("_tiny") else 224)
    return profile(create_model(name, classes, frames, **options), size, frames)
