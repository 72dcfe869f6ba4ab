"""From nothing to a report in a chain of steps; each is done once, fails by name, and can be repeated."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm.auto import tqdm

import sda

from ..data.datasets import ClipDataset, open_dataset
from ..explaining.effects import ablation_table
from ..explaining.trace import Trace, trace_clips
from ..foundation.errors import RunError, lacks_memory
from ..foundation.files import check_folder, csv_text, disk_remedy, lock, system_error, write_atomic
from ..foundation.reading import read_json
from ..foundation.runs import load_records, new_record, save_record
from ..moves.assembly import make_moves
from ..moves.classes import CLASSES, GROUPS, PAIRS
from ..networks.backbones import VideoNet
from ..networks.checkpoints import load_model
from ..networks.inference import prepare_for_inference
from ..testing.evaluate import evaluate, protocol
from ..testing.predictions import Predictions, summary
from ..training.config import TrainConfig
from ..training.recipes import recipe
from ..training.trainer import train
from .options import Command
from .report import ModelScores, choose_clips, view_clip, write_report

__all__ = ["DemoConfig", "run_demo"]

log = logging.getLogger(__name__)


@dataclass
class Step:
    """One thing to do, once."""

    name: str  # short, also the name of its signature file
    title: str  # in words, for people
    settings: dict[str, Any]  # everything the result depends on: plain values
    files: list[Path]  # what it leaves behind
    run: Callable[[], None]  # does it
    remedy: str = "look at the lines above; if they do not help, run `sda demo --debug`"  # when it fails

    @property
    def key(self) -> str:
        """Hash of the settings: 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True, default=str).encode()).hexdigest()[
            :16
        ]


class Signatures:
    """Which steps are done, and with which settings; one small file per step."""

    def __init__(self, folder: Path):  # folder: of the demo
        self.folder = check_folder(Path(folder) / "steps")

    def read(
        self,
        name: str,  # of the step
    ) -> dict:
        """The signature of a step; empty when there is none or it is damaged."""
        try:
            sign = read_json(self.folder / f"{name}.json")
        except (OSError, ValueError):
            return {}
        return sign if isinstance(sign, dict) else {}

    def done(
        self,
        step: Step,  # as it would be run now
    ) -> bool:
        """Whether the step was finished with these very settings and all its files are there."""
        sign = self.read(step.name)
        return sign.get("key") == step.key and sign.get("done", False) and all(f.exists() for f in step.files)

    def write(
        self,
        step: Step,  # with its settings
        done: bool,  # False: begun
        seconds: float = 0.0,  # it took
    ) -> None:
        """Sign a step as begun or as done."""
        signature = dict(key=step.key, done=done, seconds=round(seconds, 1), settings=step.settings)
        text = json.dumps(signature, indent=1, default=str)
        write_atomic(self.folder / f"{step.name}.json", text)


def failed(
    step: Step,  # that failed
    err: object,  # exception, or the reason in words
) -> RunError:  # to be raised
    """The error of a step in words; what to do about it follows from the error where that says so."""
    said = str(err).strip() or type(err).__name__
    remedy = getattr(err, "remedy", None)
    if isinstance(err, OSError) and system_error(err) and not remedy:
        remedy = disk_remedy(err)
    if isinstance(err, BaseException) and lacks_memory(err):
        remedy = "close other programs, or take a machine with more memory"
    remedy = remedy or step.remedy
    return RunError(
        f"The step '{step.title}' failed: {said}\nWhat to do: {remedy}\nFinished steps are kept; the "
        "same command goes on from here.",
        subject=step.name,
        remedy=remedy,
    )


def run_steps(
    steps: Sequence[Step],  # in order
    signatures: Signatures,  # of the folder
    say: Callable[[str], None] = log.info,  # where progress is told, a line at a time
) -> None:
    """Do what is not done yet; stop at the first failure with an error that names it."""
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.title}"
        if signatures.done(step):
            say(f"{head}: done before")
            continue
        say(f"{head} ...")
        start = time.perf_counter()
        try:
            step.run()
        except Exception as err:
            raise failed(step, err) from err
        if missing := [f.name for f in step.files if not f.exists()]:
            raise failed(step, f"it ended without writing {', '.join(missing)}")
        signatures.write(step, done=True, seconds=time.perf_counter() - start)
        say(f"{head}: {time.perf_counter() - start:.0f} s")


@dataclass
class DemoConfig:
    """What the demo makes, and where."""

    out: Path = Path("runs/demo")  # folder for models, records and report.html
    # folder of the clips (default: sets/moves, or a name that tells the counts and the seed)
    data: Path | None = None
    baseline: str = "tsn_tiny"  # network that looks at frames one by one
    model: str = "sda_tsn_tiny"  # network whose selection is shown
    recipe: str = "moves"  # training recipe of both
    # passes over the training clips (0: as many as the recipe says, which is better and longer)
    epochs: int = 12
    train: int = 80  # training clips per class
    val: int = 25  # validation clips per class
    test: int = 25  # test clips per class
    seed: int = 0  # every random choice follows from this number
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where to compute
    # number format of tests and explanations; training has that of its recipe
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    fresh: bool = False  # do every step again

    def data_folder(self) -> Path:
        """Where the clips go."""
        usual = DemoConfig(out=self.out)
        counts = [self.train, self.val, self.test, self.seed]
        same = counts == [usual.train, usual.val, usual.test, usual.seed]
        return self.data or Path("sets") / ("moves" if same else "moves-{}-{}-{}-seed{}".format(*counts))

    def training(self) -> TrainConfig:
        """The description of both trainings."""
        changes = {"epochs": self.epochs} if self.epochs else {}
        return recipe(self.recipe, seed=self.seed, **changes)


def label(
    model: str,  # name of a network, e.g. "sda_tsn_tiny"
) -> str:
    """A model's name as people say it: sda_tsn_tiny is SDA-TSN."""
    return model.rsplit("_", 1)[0].upper().replace("_", "-")


def open_split(
    config: DemoConfig,  # what the demo makes, and where
    split: str,  # "train", "val" or "test"
    progress: bool = False,  # show a bar while decoding
) -> ClipDataset:
    """One split of the demo's clips as the networks are trained and tested on them."""
    training = config.training()
    return open_dataset(
        config.data_folder(), split, training.sampling(), training.transform(), cache=True, progress=progress
    )


def make_clips(
    config: DemoConfig,  # number of clips, seed and folder
    progress: bool,  # show bars
) -> None:
    """Make the clips and decode them into the cache."""
    make_moves(config.data_folder(), config.train, config.val, config.test, config.seed, progress)
    for split in ("train", "val", "test"):
        open_split(config, split, progress)


def train_model(
    config: DemoConfig,  # recipe, clips and folder
    model: str,  # name of the network
    resume: bool,  # go on with what lies in its folder; False: it is of other settings
    progress: bool,  # show a bar
) -> None:
    """Train one network, or go on where its training was stopped."""
    # more than four threads do not help networks this small
    threads = min(4, os.cpu_count() or 1)
    training = dataclasses.replace(config.training(), threads=threads, device=config.device)
    data, val = (open_split(config, split) for split in ("train", "val"))
    train(training, model, data, val, config.out / model, resume=resume, progress=progress)


def open_model(
    config: DemoConfig,  # device, precision and folder
    model: str,  # name of a trained network
) -> VideoNet:
    """A network of the demo, as it is tested and explained."""
    net = load_model(config.out / model / "model.safetensors")
    return prepare_for_inference(net, config.precision, config.device)


def same_frames_pairs() -> list[tuple[str, str]]:  # pairs of class names
    """The pairs of Moves whose classes consist of the same frames in another order."""
    made_of = {c.name: (c.source, c.variant) for c in CLASSES}
    return [(one, other) for one, other in PAIRS if made_of[one] == made_of[other]]


def test_model(
    config: DemoConfig,  # clips and folder
    model: str,  # name of a trained network
    progress: bool,  # show a bar
) -> None:
    """Test one network and write predictions and record."""
    net = open_model(config, model)
    data = open_split(config, "test")
    found = evaluate(net, data, batch_size=50, progress=progress)
    trained = read_json(config.out / model / "record.json")
    record = new_record(
        "test",
        model=model,
        recipe=config.recipe,
        seed=config.seed,
        dataset="moves",
        split="test",
        protocol=protocol(net.card)[2],
        metrics=summary(found),
        train_seconds=trained["seconds"],
        epochs=config.training().epochs,
    )
    found.save(config.out / model / "test.npz", replace=True)
    save_record(record, config.out / "records" / f"test-{model}.json")


def trace_model(
    config: DemoConfig,  # clips and folder
    progress: bool,  # show bars
) -> None:
    """Record the selections on all test clips, and what the network can do without."""
    net = open_model(config, config.model)
    data = open_split(config, "test")
    trace_clips(net, data, batch_size=50, progress=progress).save(config.out / "trace.npz")
    effects = ablation_table(net, data, GROUPS["need"], same_frames_pairs(), progress=progress)
    write_atomic(config.out / "ablation.csv", csv_text(effects, "selection"))


def report(
    config: DemoConfig,  # folder of a demo whose other steps are done
) -> None:
    """Put everything on one page."""
    names = (config.baseline, config.model)
    out = config.out
    records = {r["model"]: r for r in load_records(out / "records", kind="test")}
    tested = [ModelScores(label(n), Predictions.load(out / n / "test.npz"), records[n]) for n in names]
    needs = GROUPS["need"]
    trace = Trace.load(out / "trace.npz")
    net = open_model(config, config.model)
    data = open_split(config, "test")
    views = [view_clip(net, data, i, tested, trace) for i in choose_clips(tested, needs)]
    effects = pd.read_csv(out / "ablation.csv", index_col="selection")
    files = [out / "records" / f"test-{n}.json" for n in names] + [
        out / n / f for n in names for f in ("record.json", "history.csv", "model.safetensors", "test.npz")
    ]
    write_report(
        out,
        tested,
        trace,
        views,
        effects,
        needs,
        same_frames_pairs(),
        [*files, out / "trace.npz", out / "ablation.csv"],
        f"What {label(config.model)} selects on Moves",
    )


def demo_steps(
    config: DemoConfig,  # what the demo makes, and where
    signatures: Signatures,  # of its folder
    progress: bool,  # show bars
) -> list[Step]:
    """The steps of the demo in order."""
    out = config.out
    both = (config.baseline, config.model)
    clips = dict(
        library=sda.__version__,
        data=str(config.data_folder()),
        train=config.train,
        val=config.val,
        test=config.test,
        seed=config.seed,
    )
    training = clips | dataclasses.asdict(config.training())

    def training_of(name: str) -> Step:
        def run() -> None:
            resume = signatures.read(name).get("key") == step.key  # what lies there may be of other settings
            signatures.write(step, done=False)
            train_model(config, name, resume, progress)

        files = [out / name / "model.safetensors"]
        step = Step(name, f"train {label(name)}", training | dict(model=name), files, run)
        return step

    def test_both() -> None:
        for name in both:
            test_model(config, name, progress)

    models = training | dict(models=both, precision=config.precision)
    seen = models | dict(pairs=same_frames_pairs())
    return [
        Step(
            "clips",
            "make the clips",
            clips,
            [config.data_folder() / "category.txt"],
            lambda: make_clips(config, progress),
        ),
        *map(training_of, both),
        Step(
            "test",
            "test both",
            models,
            [out / "records" / f"test-{name}.json" for name in both],
            test_both,
        ),
        Step(
            "trace",
            "record the selections",
            seen,
            [out / "trace.npz", out / "ablation.csv"],
            lambda: trace_model(config, progress),
        ),
        Step("report", "write the report", seen, [out / "report.html"], lambda: report(config)),
    ]


def run_demo(
    config: DemoConfig,  # what and where
    say: Callable[[str], None] = log.info,  # where progress is told, a line at a time
    progress: bool = True,  # show bars
) -> Path:  # report.html
    """Make clips, train, test, trace and report; what is there already is reused."""
    for folder in (config.out, config.data_folder().parent):
        check_folder(folder)
    with lock(config.out, "running the demo"):
        if config.fresh:
            shutil.rmtree(config.out / "steps", ignore_errors=True)
        signatures = Signatures(config.out)
        run_steps(demo_steps(config, signatures, progress), signatures, say)
    return config.out / "report.html"


@dataclass
class Demo(Command):
    """Make clips, train a network without and with SDA, test both, and write report.html.

    Takes minutes, and can be repeated: what is there already is reused.
    """

    config: DemoConfig = field(default_factory=DemoConfig)  # settings

    def run(self) -> None:
        """Run the chain and say where the report is."""
        page = run_demo(self.config, lambda line: tqdm.write(line, file=sys.stderr), progress=not self.quiet)
        print(f"Report: {page}")
