"""One command, `sda`, whose options are read off dataclasses and whose errors are one clear line."""

__all__ = [
    "log",
    "COMMANDS",
    "UsageError",
    "Command",
    "command",
    "Moves",
    "open_clips",
    "read_options",
    "seconds_per_clip",
    "expected_seconds",
    "dry_run",
    "settings_text",
    "first_process",
    "Train",
    "TestOptions",
    "Scored",
    "score_model",
    "joined",
    "record_of",
    "further_answers",
    "Test",
    "shipped_model",
    "Predict",
    "Inspect",
    "Table",
    "Models",
    "count",
    "Profile",
    "Demo",
    "Extract",
    "released",
    "Data",
    "parse",
    "build_machine",
    "explain",
    "main",
]

import json
import logging
import math
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pandas as pd
import torch
import yaml
from accelerate import Accelerator
from tqdm.auto import tqdm

import sda

from ..assets import DEFAULT_MODEL, PUBLISHED
from ..data.annotations import check_dataset, read_diving48_vocabulary, save_check
from ..data.crops import MultiCrop
from ..data.datasets import ClipDataset, open_dataset, source_of
from ..data.extract import extract
from ..data.lists import read_classes
from ..data.make import DATASETS, make_dataset
from ..data.sampling import Sampling
from ..data.transforms import TransformConfig
from ..foundation.runs import load_records, new_record, write_record
from ..inspector.report import check_writable, inspect_clips
from ..moves.make import CLASSES, make_moves
from ..networks.backbones import VideoNet, create_model, list_models
from ..networks.cost import profile
from ..networks.checkpoints import class_hash, load_model, read_card
from ..testing.evaluate import Predictions, actions, compare, ensemble, evaluate, predict, protocol, slide
from ..testing.results import choose_table, load_published, to_markdown, to_page
from ..training.trainer import (
    TrainConfig,
    build_model,
    load_config,
    make_accelerator,
    recipe,
    scaled_lr,
    seed_everything,
    train,
)
from ..training.tricks import memory_estimate
from .demo import DemoConfig, run_demo

log = logging.getLogger(__name__)


class UsageError(ValueError):
    """Words after `sda` that make no sense; exit status 2."""


COMMANDS: dict[str, type] = {}  # name -> dataclass with `run`, in the order of the help


@dataclass
class Command:
    """What every subcommand understands."""

    debug: bool = field(default=False, kw_only=True)  # show the whole traceback of an error
    verbose: bool = field(default=False, kw_only=True)  # tell what the library does while it does it
    quiet: bool = field(default=False, kw_only=True)  # no progress bars


def command(cls: type) -> type:
    """Enter a subcommand; its name is the class's in small letters."""
    COMMANDS[cls.__name__.lower()] = cls
    return cls


@command
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


def open_clips(
    root: Path,  # folder with category.txt, img/ and trainValTest/
    split: str,  # name of a list in trainValTest/
    sampling: Sampling,  # which frames
    transform: TransformConfig | MultiCrop,  # what happens to them
    cache: str = "auto",  # "yes", "no", or "auto": when they are small
    progress: bool = True,  # show a bar while decoding
) -> ClipDataset:
    """One split of a dataset, decoded into a cache when asked or when small."""
    chosen = {"yes": True, "no": False, "auto": "auto"}[cache]
    return open_dataset(root, split, sampling, transform, cache=chosen, progress=progress)


_ELSEWHERE = {
    "num_classes": "the dataset's category.txt says how many classes there are",
    "num_frames": "use --num-frames",
    "dropout": "use --dropout",
    "pretrained": "use --pretrained or --no-pretrained",
}


def read_options(
    words: Sequence[
        str
    ],  # e.g. "reduction=8"; UsageError for words of another form and values that are no YAML
) -> dict[str, Any]:  # name -> value
    """`name=value` words as a dict of plain values."""
    options = {}
    for word in words:
        name, sign, value = word.partition("=")
        if name.strip() in _ELSEWHERE:
            raise UsageError(f"{word!r} is no option of its own here: {_ELSEWHERE[name.strip()]}")
        if not sign or not name:
            raise UsageError(f"the option {word!r} should look like name=value, e.g. reduction=8")
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as err:
            raise UsageError(f"the value in {word!r} is not plain: quote it") from err
    return options


def seconds_per_clip(
    model: VideoNet,  # on the accelerator's device
    clips: torch.Tensor,  # [B,T,3,H,W]
    accelerator: Accelerator,  # device and precision
    train: bool = True,  # backward too
) -> float:  # the best of three
    """Seconds of a clip through the model on its device: forward, and backward too for training."""
    model.train(train)
    clips = clips.to(accelerator.device)
    times = []
    for _ in range(3):  # the first one warms up
        start = time.perf_counter()
        with torch.set_grad_enabled(train), accelerator.autocast():
            loss = model(clips).float().sum()
            if train:
                loss.backward()
        loss.item()  # waits for a GPU
        times.append((time.perf_counter() - start) / len(clips))
    return min(times)


def expected_seconds(
    config: TrainConfig,  # settings of the run
    model: VideoNet,  # is moved to the device of the run
    data: ClipDataset,  # training clips, one at least
    val: ClipDataset,  # validation clips
) -> tuple[float, float, str]:
    """Seconds of an epoch on this machine: computing, reading without a cache; and the kind of device."""
    accelerator = make_accelerator(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    start = time.perf_counter()
    clips = torch.stack([data[i % len(data)]["clip"] for i in range(2)])
    reading = (time.perf_counter() - start) / 2 * (len(data) + len(val)) / max(config.num_workers, 1)
    model = model.to(accelerator.device)
    step, look = (seconds_per_clip(model, clips, accelerator, train) for train in (True, False))
    return len(data) * step + len(val) * look, reading, accelerator.device.type


def dry_run(
    config: TrainConfig,  # settings of the run
    model: VideoNet,  # network as it would be trained
    data: ClipDataset,  # training clips
    val: ClipDataset,  # validation clips
) -> str:  # six lines
    """What a run would be: model, multiply-adds, clips, batches, learning rate, memory, time of an epoch here."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    at_once = -(-config.batch_size // (config.accumulate * processes))
    cost = profile(model, config.size, config.num_frames)
    memory = memory_estimate(
        model,
        at_once,
        config.num_frames,
        config.size,
        config.optimizer,
        config.precision != "fp32",
        bool(config.ema),
    )
    computing, reading, device = expected_seconds(config, model, data, val)
    return "\n".join(
        [
            f"model    {model.name}: {cost.params / 1e6:.3f} M parameters, {cost.macs / 1e9:.3f} G multiply-adds a clip",
            f"clips    {len(data)} for training, {len(val)} for validation, {len(data.class_names)} classes; each of "
            f"{config.num_frames} frames of {config.size}x{config.size}",
            f"batches  {-(-len(data) // config.batch_size)} an epoch of {config.batch_size} clips, {at_once} at once on each of "
            f"{processes} process{'es' * (processes > 1)}; {config.epochs} epochs",
            f"rate     {scaled_lr(config)[1]}; {config.schedule}, {config.optimizer}, {config.precision}",
            f"memory   about {memory['total']:.2f} GB a process, {memory['activations']:.2f} GB of it activations",
            f"time     about {computing / processes / 60:.1f} min an epoch on this {device}, and {reading / processes / 60:.1f} min "
            "to read the clips, once if they are cached",
        ]
    )


def settings_text(
    config: TrainConfig,  # settings of the run
) -> str:  # lines of at most 116 letters
    """Every setting of a run in lines that fit a terminal, and the arithmetic of its learning rate."""
    words = "; ".join(f"{name} {value}" for name, value in asdict(config).items())
    return f"{textwrap.fill(words, 116)}\n{scaled_lr(config)[1]}"


def first_process() -> bool:
    """Whether this is the process that talks, when `torchrun` started several."""
    return os.environ.get("RANK", "0") == "0"


@command
@dataclass
class Train(Command):
    """Train a network and leave model, history and record in a folder; an interrupted run goes on."""

    model: str = "sda_tsn_tiny"  # network, one of `sda models`
    options: tuple[str, ...] = ()  # options of the network, e.g. reduction=8 "dependencies=[LST,LT]"
    data: Path = Path("sets/moves")  # dataset folder: category.txt, img/, trainValTest/
    # list in trainValTest/ to validate on; Diving48 has no val: name test, or hold some clips out
    val: str = "val"
    out: Path | None = None  # folder of the run (default: runs/MODEL-RECIPE-seedSEED)
    # decode each clip once into DATA/cache; auto: when they are small
    cache: Literal["auto", "yes", "no"] = "auto"
    # auto: go on with the run in the folder; no: forget it and start again
    resume: Literal["auto", "no"] = "auto"
    # train nothing: tell model, multiply-adds, batches, memory and expected time of an epoch
    dry_run: bool = False
    settings: Path | None = None  # YAML file to take the settings below from, instead of a recipe
    config: TrainConfig = field(
        default_factory=lambda: recipe("moves")
    )  # settings; --recipe NAME sets their defaults

    def run(self) -> None:
        """Open the clips, make the network, train."""
        c = self.config
        progress = not self.quiet
        cache = "no" if self.dry_run else self.cache
        out = self.out or Path("runs") / f"{self.model}-{c.recipe}-seed{c.seed}"
        if not self.dry_run:
            check_writable(out)
        data, val = (
            open_clips(self.data, split, c.sampling(), c.transform(), cache, progress)
            for split in ("train", self.val)
        )
        if self.dry_run:
            return print(
                dry_run(c, build_model(c, self.network(data.class_names), data.class_names), data, val)
            )
        if first_process():
            print(settings_text(c))
        result = train(
            c, self.network(data.class_names), data, val, out, resume=self.resume == "auto", progress=progress
        )
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if not first_process():
            return
        last = result.history.iloc[-1]
        print(
            f"{self.model}{f' on {val.source}' * bool(val.source)}: validation accuracy {last.val_top1:.3f} after "
            f"{len(result.history)} epochs, "
            f"{result.seconds:.0f} s{' (trained before)' if result.reused else ''}; {out / 'model.safetensors'}"
        )

    def network(
        self,
        class_names: list[str],  # of the dataset
    ) -> str | VideoNet:
        """The network's name, or the network when it has options of its own."""
        if not self.options:
            return self.model
        seed_everything(self.config.seed)
        try:
            return create_model(
                self.model,
                len(class_names),
                self.config.num_frames,
                self.config.pretrained,
                dropout=self.config.dropout,
                **read_options(self.options),
            )
        except TypeError as err:
            raise UsageError(f"{self.model} cannot be made with {' '.join(self.options)}: {err}") from err


@dataclass
class TestOptions(Command):
    """What is tested, how it is seen, and what is asked of the scores."""

    models: tuple[Path, ...]  # model files, e.g. runs/demo/sda_tsn_tiny/model.safetensors
    data: Path = Path("sets/moves")  # dataset folder: category.txt, img/, trainValTest/
    split: str = "test"  # name of a list in trainValTest/
    # crops by name: 3x256to224, or 3x72to64 for a network of 64 pixels (default: one centre crop)
    views: str = ""
    clips: int = 0  # clips per video, e.g. 2 (0: as the model file says)
    # what is averaged over views; both: report both
    average: Literal["logits", "probabilities", "both"] = "logits"
    weights: tuple[float, ...] = ()  # of the networks in an ensemble, e.g. 1 2 (default: equal)
    # logits (.npz) of another run on the same clips: difference, interval, McNemar's test
    compare: Path | None = None
    nouns: Path | None = None  # EPIC-KITCHENS: logits (.npz) of the noun run; the network here is of verbs
    # Diving48: Diving48_vocab.json; also accuracy by take-off, somersault, twist, position
    attributes: Path | None = None
    other_classes: bool = False  # accept a network whose class names are not those of the dataset
    out: Path | None = None  # folder for logits, tables and record; an interrupted test goes on from there
    batch_size: int = 32  # views at a time
    num_workers: int = 0  # processes that read clips (0: this process)
    # decode each clip once into DATA/cache; auto: when they are small
    cache: Literal["auto", "yes", "no"] = "no"
    # where to compute; torchrun shares the clips among processes
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def examine(self) -> None:
        """What can be wrong is said before the first clip is read."""
        if not self.models:
            raise UsageError("name at least one model file: sda test runs/mine/model.safetensors")
        if self.weights and len(self.weights) != len(self.models):
            raise UsageError(
                f"{len(self.weights)} weights for {len(self.models)} networks: give one each, or none"
            )
        if self.weights and (min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf):
            raise UsageError("weights must not be negative, and one must be positive")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size cannot be {self.batch_size}: give at least 1")
        for file in (self.compare, self.nouns, self.attributes):
            if file and not file.is_file():
                raise UsageError(f"there is no file {file}")
        for file in filter(None, (self.compare, self.nouns)):
            Predictions.load(file)  # a damaged one is told now
        if self.attributes:
            read_diving48_vocabulary(self.attributes)
        if self.out:
            check_writable(self.out)


@dataclass
class Scored:
    """A network's scores, and how they came about."""

    net: VideoNet  # network with its card
    found: Predictions  # logits per view
    sampling: Sampling  # frames
    protocol: str  # name of crops and clips
    stem: str  # of its files
    source: str = ""  # dataset and release of the clips, e.g. "Diving48 V2 (by file name)"
    parts: Path | None = None  # folder of the clips tested so far, kept until everything is written


def score_model(
    path: Path,  # model file; ValueError unless its card says how clips are sampled and cropped
    options: TestOptions,  # clips, views and folder
    device: torch.device,  # where to compute
    taken: Sequence[str] = (),  # stems of files that networks before this one have
) -> Scored:
    """Test one model file as the options say; its logits are kept if there is a folder for them."""
    net = load_model(path, device=device)
    first = first_process()
    if not net.card.transform or not net.card.sampling:
        raise ValueError(
            f"{path} does not say how its clips were sampled and cropped: use a file that sda train wrote"
        )
    sampling, crops, name = protocol(net.card, options.views, options.clips)
    data = open_clips(
        options.data, options.split, sampling, crops, options.cache, first and not options.quiet
    )
    words = [net.name, options.split, options.views, f"{options.clips}clips" * (options.clips > 1)]
    stem = "-".join(filter(None, words))
    stem += f"-{len(taken) + 1}" * (stem in taken)
    parts = options.out / f".{stem}-parts" if options.out else None
    found = evaluate(
        net, data, options.batch_size, not options.quiet, options.num_workers, options.other_classes, parts
    )
    if parts and first:
        found.save(options.out / f"{stem}.npz")
    return Scored(net, found, sampling, name, stem, data.source, parts)


def joined(
    several: Sequence[Scored],  # one network or more, on the same clips
    weights: Sequence[float],  # of the networks; none for equal ones
    average: str,  # over views: "logits" or "probabilities"
) -> Predictions:
    """Views averaged, then several networks' probabilities averaged by clip."""
    each = [ensemble([one.found], average=average) for one in several]
    return each[0] if len(each) == 1 else ensemble(each, list(weights) or None)


def record_of(
    several: Sequence[Scored],  # one network, or those of an ensemble
    found: dict[str, Predictions],  # average over views -> scores; the first one's accuracy is the record's
    options: TestOptions,  # how they were tested
) -> dict[str, Any]:
    """The record of one network, or of an ensemble, from its scores by average."""
    average = next(iter(found))
    alone = several[0] if len(several) == 1 else None

    def each(values: list[Any]) -> Any:
        return values[0] if alone else " + ".join(map(str, values))

    recipes = [one.net.card.recipe for one in several]

    def common(values: list[Any]) -> Any:
        return values[0] if values.count(values[0]) == len(values) else each(values)

    name = " + ".join(dict.fromkeys(one.protocol for one in several)) + f"; {average} averaged" * (
        average != "logits"
    )
    both = {a: {"top1": p.accuracy(), "top5": p.accuracy(5)} for a, p in found.items()}
    return new_record(
        "test",
        model=each([one.net.name for one in several]),
        options=alone.net.options if alone else {},
        recipe=each([r.get("recipe") for r in recipes]),
        seed=recipes[0].get("seed") if alone else None,
        config={k: common([r.get(k) for r in recipes]) for k in recipes[0]},
        dataset=options.data.resolve().name,
        source=several[0].source,
        split=options.split,
        protocol=name,
        views=options.views or "centre",
        metrics=found[average].summary() | {"averages": both},
        sampling=[asdict(one.sampling) for one in several],
        logits=[f"{one.stem}.npz" for one in several],
        weights=list(options.weights),
    )


def further_answers(
    found: Predictions,  # scores of the last network, or of the ensemble
    options: TestOptions,  # names the files to compare or join with
) -> list[str]:  # none where nothing was asked
    """What was asked of the scores besides accuracy, in lines."""
    lines = []
    if options.compare:
        c = compare(Predictions.load(options.compare), found)
        lines += [
            f"against {options.compare.name}: {c['first']:.3f} there, {c['second']:.3f} here, difference "
            f"{c['difference']:+.3f} (95 % interval {c['low']:+.3f} to {c['high']:+.3f})",
            f"  right only there {c['only_first']}, only here {c['only_second']}; McNemar p = {c['p']:.2g}",
        ]
    tables = [actions(found, Predictions.load(options.nouns))] if options.nouns else []
    if options.attributes:
        tables.append(found.by_attribute(read_diving48_vocabulary(options.attributes)[1]))
    return lines + [table.to_string(index=False, float_format="%.3f") for table in tables]


@command
@dataclass
class Test(TestOptions):
    """Test a trained network on a split of a dataset; several networks are tested each and as an ensemble."""

    def run(self) -> None:
        """Load, test, tell, and write what was asked for."""
        self.examine()
        accelerator = make_accelerator(TrainConfig(device=self.device))
        several = []
        for path in self.models:
            several.append(score_model(path, self, accelerator.device, [s.stem for s in several]))
        if first_process():
            self.tell(several)
            for one in several:
                if one.parts:
                    shutil.rmtree(one.parts)
        if accelerator.num_processes > 1:
            accelerator.end_training()

    def tell(
        self,
        several: list[Scored],  # the networks, in the order of the command
    ) -> None:
        """Print each network, the ensemble, and what else was asked for; write the records."""
        averages = ("logits", "probabilities") if self.average == "both" else (self.average,)
        for group in [[one] for one in several] + ([several] if len(several) > 1 else []):
            found = {a: joined(group, self.weights if len(group) > 1 else (), a) for a in averages}
            record = record_of(group, found, self)
            for average, scores in found.items():
                title = f"{record['model']} ({record['protocol'].split(';')[0]}, {average} averaged)"
                clips = (
                    f"{len(scores)} clips of {self.data.name}/{self.split}"
                    + f", {record['source']}" * bool(record["source"])
                )
                print(*scores.describe(f"{title} on {clips}"), sep="\n")
            if not self.out:
                continue
            found[averages[0]].save_tables(
                self.out / (group[0].stem if len(group) == 1 else f"ensemble-{self.split}")
            )
            print(f"record in {write_record(record, self.out)}")
        print(
            *further_answers(found[averages[0]], self),
            sep="\n",
            end="\n" * any((self.compare, self.nouns, self.attributes)),
        )


def shipped_model() -> Path:
    """The model file that predicts when none is named."""
    return DEFAULT_MODEL


@command
@dataclass
class Predict(Command):
    """Say what happens in video files: the most probable classes of each."""

    clips: tuple[Path, ...]  # video files, or folders of frames
    checkpoint: Path | None = None  # model file; --model means the same (default: the one that ships)
    top: int = 5  # classes to list per video
    # slide over long videos in windows of so many frames, half overlapping (0: each video as a whole)
    window: int = 0
    batch_size: int = 8  # videos or windows at a time
    json: bool = False  # print JSON instead of a table

    def run(self) -> None:
        """Predict the videos, a batch at a time."""
        if not self.clips:
            raise UsageError("name at least one video file: sda predict clip.mp4")
        for name, value in (("top", self.top), ("batch-size", self.batch_size)):
            if value < 1:
                raise UsageError(f"--{name} {value} makes no sense: ask for 1 or more")
        if self.window < 0:
            raise UsageError(f"--window {self.window} covers nothing: ask for a number of frames")
        path = self.checkpoint or shipped_model()
        rows = self.rows(load_model(path), progress=len(self.clips) > 3 and not self.quiet)
        if self.json:
            found = {"model": path.name, "predictions": rows.to_dict("records")}
            print(json.dumps(found, indent=1, ensure_ascii=False))
            return
        for video, part in rows.groupby("video", sort=False):
            print(video)
            for row in part.to_dict("records"):
                when = f"{row['start']:6}-{row['end']:<6}" if self.window else ""
                print(f"  {when}{row['probability']:6.3f}  {row['class']}")

    def rows(
        self,
        net: VideoNet,  # network with its card
        progress: bool,  # show a bar over the videos; the windows of a video have their own
    ) -> pd.DataFrame:  # video, class, probability; with windows also start and end, in frames
        """A table of all videos, or of all windows of all videos."""
        if not self.window:
            return predict(list(self.clips), net, self.top, progress, self.batch_size)
        return pd.concat(
            [
                slide(
                    clip, net, self.window, top=self.top, batch_size=self.batch_size, progress=not self.quiet
                ).assign(video=str(clip))
                for clip in self.clips
            ]
        )


@command
@dataclass
class Inspect(Command):
    """Write a page about some clips: answer, selection, and what the network does without each dependency."""

    clips: tuple[Path, ...]  # video files, or folders of frames
    checkpoint: Path | None = None  # model file (default: the one that ships)
    out: Path = Path("report.html")  # the page; replaced if it exists
    draws: int = 10  # random controls of every intervention

    def run(self) -> None:
        """Write the page and say where it is."""
        if not self.clips:
            raise UsageError("name at least one video file: sda inspect clip.mp4")
        if self.draws < 1:
            raise UsageError(f"--draws {self.draws} gives no control: ask for 1 or more")
        path = self.checkpoint or shipped_model()
        done = inspect_clips([*self.clips], path, self.out, draws=self.draws, progress=not self.quiet)
        print(f"Report: {self.out} ({len(self.clips) - len(done.failed)} of {len(self.clips)} clips)")


@command
@dataclass
class Table(Command):
    """Print measured accuracies from a folder of records, and published ones beside them."""

    records: Path = Path("data/results")  # folder of records, e.g. the --out of sda test
    published: bool = False  # the published tables too, with their known errors noted
    dataset: str = ""  # only this dataset, e.g. something-v1
    markdown: bool = False  # print markdown, for a README
    html: Path | None = None  # also write a page whose columns sort on a click

    def run(self) -> None:
        """Print one table, and write the page if asked for."""
        if not self.records.is_dir():
            raise UsageError(f"there is no folder {self.records}: name one with --records")
        if self.html and not self.html.parent.is_dir():
            raise UsageError(f"there is no folder {self.html.parent} for the page")
        records = load_records(self.records, "test")
        table = choose_table(records, load_published(PUBLISHED) if self.published else None, self.dataset)
        print(to_markdown(table) if self.markdown else table.to_string(index=False))
        if self.html:
            self.html.write_text(to_page(table, self.dataset or "Results"), encoding="utf-8")


@command
@dataclass
class Models(Command):
    """List the networks that can be trained, or what a model file holds."""

    patterns: tuple[str, ...]  # which ones, e.g. "*_tiny"; or model files
    cost: bool = False  # also count parameters and multiply-adds (174 classes, 8 frames; a second each)

    def run(self) -> None:
        """Print the names, or the cards of model files."""
        for pattern in self.patterns or ("*",):
            if Path(pattern).suffix == ".safetensors":
                print(read_card(pattern))
            elif names := list_models(pattern):
                for name in names:
                    print(f"{name:20} {count(name) if self.cost else ''}".rstrip())
            else:
                raise UsageError(f"no network fits {pattern!r}; there are {', '.join(list_models())}")


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


@command
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


@command
@dataclass
class Demo(Command):
    """Make clips, train a network without and with SDA, test both, and write report.html. Minutes; can be repeated."""

    config: DemoConfig = field(default_factory=DemoConfig)  # settings

    def run(self) -> None:
        """Run the chain and say where the report is."""
        page = run_demo(self.config, lambda line: tqdm.write(line, file=sys.stderr), progress=not self.quiet)
        print(f"Report: {page}")


@command
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


def released(
    root: Path,  # dataset folder
) -> list[str]:  # a line per list
    """Which release each list of a dataset folder was made from, in words; nothing about clips of your own."""
    splits = sorted(file.stem for file in (root / "trainValTest").glob("*.txt"))
    found = {split: source_of(root, split) for split in splits}
    return [f"made from {source} ({split}.txt)" for split, source in found.items() if source]


@command
@dataclass
class Data(Command):
    """Check a dataset folder line by line, or make its lists from official annotation files or a folder of clips."""

    action: Literal[
        "check", "make"
    ]  # check: count what is wrong, status 1 if anything is; make: write the lists
    name: Path  # dataset folder, or its name in sets/
    num_frames: int = 8  # check: frames a network takes; clips with fewer are called short
    # make: whose files they are; folder: your clips, one sub-folder per class
    source: Literal[DATASETS] = "folder"
    # make: folder of the official annotation files; with --source csv the table itself
    annotations: Path | None = None
    media: Path | None = None  # make: folder of the clips; NAME/img becomes a link to it
    target: Literal["verb", "noun"] = "verb"  # make: classes of EPIC-KITCHENS
    frames: bool = False  # make: the clips are folders of frames, not videos
    # make: column of the table whose equal values stay in one split, e.g. the source video
    group: str | None = None
    # make: share of train that becomes val where there is no val (Diving48), whole sources
    hold_out: float = 0.0
    seed: int = 0  # make: of the split of your own clips
    overwrite: bool = False  # make: replace lists that say something else

    def run(self) -> None:
        """Do what was asked for; a fault found is status 1."""
        (self.check if self.action == "check" else self.make)()

    def check(self) -> None:
        """Examine every line and every clip; the report is kept as check.txt and check.json."""
        root = self.name if self.name.exists() else Path("sets") / self.name
        if not root.is_dir():
            raise UsageError(f"there is no dataset folder {self.name}, nor {root}")
        report = check_dataset(root, self.num_frames, progress=not self.quiet)
        print(
            report,
            *released(root),
            f"class names {class_hash(read_classes(root / 'category.txt'))}",
            sep="\n",
        )
        if os.access(root, os.W_OK):
            print(f"report in {save_check(report).with_name('check.txt')}")
        if not report.ok:
            raise SystemExit(1)

    def make(self) -> None:
        """Write category.txt and the lists."""
        reports = make_dataset(
            self.name,
            self.source,
            self.annotations,
            self.media,
            self.target,
            self.frames,
            self.seed,
            self.overwrite,
            not self.quiet,
            self.group,
            self.hold_out,
        )
        for split, parts in reports.items():
            print(f"{split}.txt", *parts, "", sep="\n")
        print(
            *released(self.name),
            f"lists in {self.name}, class names {class_hash(read_classes(self.name / 'category.txt'))}",
            sep="\n",
        )


def _word_after(args: Sequence[str], name: str) -> str | None:
    """The word after `--name`, or after `--name=`."""
    for word, after in zip(args, [*args[1:], None], strict=True):
        if word == name:
            return after
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


_ALIASES = {"predict": {"--model": "--checkpoint"}}  # subcommand -> other names of its options


def _first_names(args: Sequence[str]) -> list[str]:
    """The words, with other names of options replaced."""
    first = _ALIASES.get(args[0], {}) if args else {}
    parts = [word.partition("=") for word in args]
    return ["".join((first.get(name, name), *rest)) for name, *rest in parts]


def _defaults(args: Sequence[str]) -> dict[str, Command]:
    """Subcommands whose defaults depend on the words: `train` starts from a recipe or a file."""
    if not args or args[0] != "train":
        return {}
    settings = _word_after(args, "--settings")
    name = _word_after(args, "--recipe")
    if settings and name:
        raise UsageError(f"give --settings or --recipe: a file may name its recipe (recipe: {name})")
    if settings and settings.startswith("--"):
        raise UsageError("--settings needs a file, e.g. --settings my_run.yaml")
    return {"train": Train(config=load_config(settings) if settings else recipe(name or "moves"))}


def parse(
    args: Sequence[str],  # words after `sda`
) -> Command:  # the subcommand with its values
    """Read the command line; help and mistakes end in SystemExit with status 0 or 2."""
    try:
        import tyro
    except ImportError as err:
        raise ImportError("the command line needs tyro: pip install tyro") from err
    args = _first_names(args)
    defaults = _defaults(args)
    kinds = [
        Annotated[
            cls,
            tyro.conf.subcommand(
                name,
                description=cls.__doc__,
                prefix_name=False,
                **({"default": defaults[name]} if name in defaults else {}),
            ),
        ]
        for name, cls in COMMANDS.items()
    ]
    flat = (
        tyro.conf.PositionalRequiredArgs,
        tyro.conf.OmitArgPrefixes,
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.FlagCreatePairsOff,
    )
    return tyro.cli(Union[tuple(kinds)], prog="sda", args=args, description=sda.__doc__, config=flat)  # noqa: UP007


class _Lines(logging.Handler):
    """Log lines that do not cut through progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to stderr."""
        tqdm.write(self.format(record), file=sys.stderr)


def _listen(options: Command) -> None:
    """Say what the library says: warnings, or everything with --verbose."""
    logger = logging.getLogger("sda")
    handler = _Lines()
    for old in [h for h in logger.handlers if isinstance(h, _Lines)]:
        logger.removeHandler(old)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if options.verbose else logging.WARNING)


def _terminated(number: int, frame: object) -> None:
    """A request to terminate becomes an exception, so that everything on the way out is cleaned up."""
    raise SystemExit(128 + number)


def build_machine() -> bool:
    """Whether nobody watches: CI=true, as build machines say, or TQDM_DISABLE=1. No progress bars then."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes") for name in ("CI", "TQDM_DISABLE"))


def explain(
    err: BaseException,  # what ended the command
) -> str:  # words for the user, without a traceback
    """An error in words for the user."""
    said = str(err.args[0]) if isinstance(err, KeyError) and err.args else str(err)
    if isinstance(err, OSError | ValueError | RuntimeError | ImportError | LookupError) and said.strip():
        return said
    return f"{type(err).__name__}: {said or 'no message'}. This should not happen; --debug shows where it did"


def main(
    args: Sequence[str] | None = None,  # words after `sda`; those of this process if left out
) -> int:  # exit status: 0 done, 1 failed, 2 not understood, 130 stopped
    """Run one command."""
    args = list(sys.argv[1:] if args is None else args)
    if args in (["--version"], ["-V"]):
        return print(f"sda {sda.__version__}") or 0
    if "SIGTERM" in signal.Signals.__members__ and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        options = parse(args or ["--help"])
        options.quiet |= build_machine()
        _listen(options)
        options.run()
        return print(end="", flush=True) or 0
    except KeyboardInterrupt:
        goes_on = args[0] in ("moves", "train", "demo") or (args[0] == "test" and "--out" in args)
        again = "; the same command goes on from here" if goes_on else ""
        return print(f"stopped{again}", file=sys.stderr) or 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BrokenPipeError:  # the reader of a pipe has left: sda models | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as err:
        if "--debug" in args:
            raise
        print(f"sda {args[0] if args else ''}: {explain(err)}", file=sys.stderr)
        return 2 if isinstance(err, UsageError) else 1
