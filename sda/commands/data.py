"""What makes and checks datasets: `sda moves`, `extract` and `data`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..data.assembly import make_dataset
from ..data.check import check_dataset
from ..data.datasets import source_of
from ..data.extract import extract
from ..data.lists import read_classes
from ..data.official import DATASETS
from ..data.transforms import mirror_notes
from ..foundation.errors import listed
from ..moves.assembly import make_moves
from ..moves.classes import CLASSES
from ..networks.checkpoints import class_hash
from .options import Command, CommandLineError

__all__ = ["Moves"]

if TYPE_CHECKING:
    Source = str
else:
    Source = Literal[DATASETS]  # the names stand in `make`, once


@dataclass
class Moves(Command):
    """Make the Moves clips: 20 classes of generated mp4 files, with the truth about each clip."""

    out: Path = Path("sets/moves")  # folder of the set: new, empty, or made by this command before
    train: int = 80  # training clips per class
    val: int = 25  # validation clips per class
    test: int = 25  # test clips per class
    seed: int = 0  # same seed, same clips

    def run(self) -> None:
        """Make the set, or reuse a complete one."""
        folder = make_moves(self.out, self.train, self.val, self.test, self.seed, progress=not self.quiet)
        print(
            f"{(self.train + self.val + self.test) * len(CLASSES)} clips of {len(CLASSES)} classes in "
            f"{os.path.relpath(folder)}"
        )


@dataclass
class Extract(Command):
    """Turn videos into folders of JPEG frames; an interrupted run goes on where it was."""

    source: Path  # folder of videos, searched to the bottom
    target: Path  # folder for the frames: TARGET/a/b/00001.jpg for SOURCE/a/b.mp4
    height: int = 256  # height of the pictures in pixels, width in proportion (0: as they are)
    fps: float = 0  # pictures per second (0: every frame)
    quality: int = 90  # JPEG quality, 1 to 95
    workers: int = 0  # videos at a time (0: one per core)

    def run(self) -> None:
        """Extract, and tell what could not be."""
        report = extract(
            self.source,
            self.target,
            height=self.height or None,
            fps=self.fps or None,
            quality=self.quality,
            workers=self.workers or None,
            progress=not self.quiet,
        )
        print(report)
        if not report.ok:
            raise SystemExit(1)


@dataclass
class Data(Command):
    """Check a dataset folder line by line, or make its lists.

    Lists are made from official annotation files, or from a folder of clips.
    """

    action: Literal[
        "check", "make"
    ]  # check: count what is wrong, status 1 if anything is; make: write the lists
    name: Path  # dataset folder, or its name in sets/
    num_frames: int = 8  # check: frames a network takes; clips with fewer are called short
    decode: bool = False  # check: decode every frame of every clip; else what opening a clip tells
    workers: int = 0  # check: clips opened at a time (0: one per core)
    # make: whose files they are; auto: seen from the files; folder: your clips, one sub-folder per class
    source: Source = "auto"
    # make: folder of the official annotation files, or a table of clips; without: a table among the clips
    annotations: Path | None = None
    media: Path | None = None  # make: folder of the clips; NAME/img becomes a link to it
    target: Literal["verb", "noun"] = "verb"  # make: classes of EPIC-KITCHENS
    frames: bool = False  # make: the clips are folders of frames, not videos
    # make: column of the table whose equal values stay in one split, e.g. the take or the person;
    # without: seen from columns, folders and file names; none: every clip for itself
    group: str | None = None
    # make: shares of train and val, or of train, val and test, of your own clips (.8 .2)
    share: tuple[float, ...] = ()
    hold_out_group: tuple[str, ...] = ()  # make: takes or persons that become test, e.g. seq17 seq18
    # make: share of train that becomes val where there is no val (Diving48, UCF101), whole sources
    hold_out: float = 0.0
    # make: column that says train, val or test; without: the one called split; none: the split is drawn
    split_column: str | None = None
    # make: columns of a table without header in order, e.g. path label take (- for others);
    # or what they are called, e.g. path=Filename label=Gesture
    columns: tuple[str, ...] = ()
    delimiter: str | None = None  # make: between columns: a character, comma, semicolon, tab, space or bar
    fold: int = 1  # make: official split of UCF101 and HMDB51: 1, 2 or 3
    seed: int = 0  # make: of the split of your own clips
    overwrite: bool = False  # make: replace lists that say something else

    def run(self) -> None:
        """Do what was asked for; a fault found is status 1."""
        if self.action == "check":
            self.check()
        else:
            self.make()

    def check(self) -> None:
        """Examine every line and every clip; the report is kept as check.txt and check.json."""
        root = self.name if self.name.exists() else Path("sets") / self.name
        if not root.is_dir():
            raise CommandLineError(f"there is no dataset folder {self.name}, nor {root}")
        report = check_dataset(
            root, self.num_frames, progress=not self.quiet, decode=self.decode, workers=self.workers
        )
        print(
            report,
            *released(root),
            f"class names {class_hash(read_classes(root / 'category.txt'))}",
            sep="\n",
        )
        if os.access(root, os.W_OK):
            print(f"report in {report.save().with_name('check.txt')}")
        if not report.ok:
            raise SystemExit(1)

    def make(self) -> None:
        """Write category.txt and the lists."""
        reports = make_dataset(
            self.name,
            self.source,
            self.annotations,
            self.media,
            target=self.target,
            frames=self.frames,
            seed=self.seed,
            overwrite=self.overwrite,
            progress=not self.quiet,
            group=self.group,
            hold_out=self.hold_out,
            share=self.share,
            hold_out_group=self.hold_out_group,
            split_column=self.split_column,
            columns=self.columns,
            delimiter=self.delimiter,
            fold=self.fold,
        )
        for split, parts in reports.items():
            print(f"{split}.txt", *parts, "", sep="\n")
        names = read_classes(self.name / "category.txt")
        print(
            *released(self.name),
            *mirror_notes(names),
            f"{len(names)} classes: {listed(names, 8)}",
            f"lists in {self.name}, class names {class_hash(names)}",
            sep="\n",
        )


def released(
    root: Path,  # dataset folder
) -> list[str]:  # a line per list
    """Which release each list of a dataset folder was made from; nothing about clips of your own."""
    splits = sorted(file.stem for file in (root / "trainValTest").glob("*.txt"))
    found = {split: source_of(root, split) for split in splits}
    return [f"made from {source} ({split}.txt)" for split, source in found.items() if source]
