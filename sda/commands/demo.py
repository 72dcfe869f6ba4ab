"""From nothing to a report in a chain of steps; each is done once, fails by name, and can be repeated."""

__all__ = [
    "log",
    "StepError",
    "Step",
    "Signatures",
    "fail",
    "run_steps",
    "Child",
    "stop",
    "watch",
    "DemoConfig",
    "label",
    "open_split",
    "make_clips",
    "train_command",
    "train_both",
    "ordered_twins",
    "test_model",
    "trace_model",
    "report",
    "demo_steps",
    "run_demo",
]

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd
from tqdm.auto import tqdm

import sda

from ..data.datasets import ClipDataset, open_dataset
from ..explaining.trace import Trace, trace_clips
from ..foundation.runs import load_records, new_record, save_record
from ..inspector.report import Tested, check_writable, choose_clips, knock_outs, view_clip, write_report
from ..moves.classes import CLASSES, PAIRS
from ..moves.make import make_moves
from ..networks.checkpoints import load_model
from ..testing.evaluate import Predictions, class_needs, evaluate, protocol, summary
from ..training.config import TrainConfig, recipe

log = logging.getLogger(__name__)


class StepError(RuntimeError):
    """A step that failed: which one, what happened, what to do."""


@dataclass
class Step:
    """One thing to do, once."""

    name: str  # short, also the name of its signature file
    title: str  # in words, for people
    settings: dict  # everything the result depends on: plain values
    files: list[Path]  # what it leaves behind
    run: Callable[[], None]  # does it
    remedy: str  # what to do when it fails

    @property
    def key(self) -> str:
        """Hash of the settings: 16 hexadecimal digits."""
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Signatures:
    """Which steps are done, and with which settings; one small file per step."""

    def __init__(self, folder: Path):  # folder: of the demo
        self.folder = check_writable(Path(folder) / "steps")

    def read(
        self,
        name: str,  # of the step
    ) -> dict:
        """The signature of a step; empty when there is none or it is damaged."""
        try:
            sign = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
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
        part = self.folder / f".{step.name}.part"
        part.write_text(
            json.dumps(
                dict(key=step.key, done=done, seconds=round(seconds, 1), settings=step.settings),
                indent=1,
                default=str,
            ),
            encoding="utf-8",
        )
        os.replace(part, self.folder / f"{step.name}.json")


def fail(
    step: Step,  # that failed
    err: object,  # exception, or the reason in words
) -> StepError:
    """The error of a step in words."""
    said = str(err).strip() or type(err).__name__
    return StepError(
        f"The step '{step.title}' failed: {said}\nWhat to do: {step.remedy}\nFinished steps are kept; the "
        "same command goes on from here."
    )


def run_steps(
    steps: Sequence[Step],  # in order
    signatures: Signatures,  # of the folder
    say: Callable[[str], None] = log.info,  # where progress is told, a line at a time
) -> None:
    """Do what is not done yet; stop at the first failure with a `StepError`."""
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.title}"
        if signatures.done(step):
            say(f"{head}: done before")
            continue
        say(f"{head} ...")
        start = time.perf_counter()
        try:
            step.run()
        except StepError:
            raise
        except Exception as err:
            raise fail(step, err) from err
        if missing := [f.name for f in step.files if not f.exists()]:
            raise fail(step, f"it ended without writing {', '.join(missing)}")
        signatures.write(step, done=True, seconds=time.perf_counter() - start)
        say(f"{head}: {time.perf_counter() - start:.0f} s")


_BAR = re.compile(r"(\d+)/(\d+) \[[^\]]*?(epoch=[^\]]*)\]")  # a progress bar's count, total and remarks


@dataclass
class Child:
    """A training in a process of its own."""

    title: str  # in words
    command: list[str]  # what runs
    log: Path  # all it says, but for progress
    process: subprocess.Popen | None = None  # once started
    at: tuple[int, int, str] = (0, 0, "")  # clips done, clips in all, remarks
    listener: threading.Thread | None = None  # reads its pipe

    def start(self) -> "Child":
        """Start it and listen."""
        env = {
            **os.environ,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(Path(sda.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")])
            ),
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=env,
        )
        self.listener = threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True)
        self.listener.start()
        return self

    def _listen(self, pipe: IO[bytes]) -> None:
        """Sort what it says into progress and the rest."""
        text = ""
        with self.log.open("w", encoding="utf-8") as log_file:
            log_file.write(" ".join(self.command) + "\n")
            while chunk := pipe.read(4096):
                *lines, text = re.split(r"[\r\n]+", text + chunk.decode("utf-8", "replace"))
                for line in lines:
                    if found := _BAR.search(line):
                        self.at = (int(found[1]), int(found[2]), found[3])
                    elif line.strip() and "it/s" not in line and "clip/s" not in line:
                        log_file.write(line + "\n")
                log_file.flush()
            log_file.write(text)

    def last_words(self) -> str:
        """The last line of its log, which is the error when it failed."""
        if self.listener:
            self.listener.join(5)
        lines = [line for line in self.log.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return lines[-1] if lines else f"it ended with status {self.process.returncode} and said nothing"


def stop(
    children: Sequence[Child],  # running or not
    patience: float = 20.0,  # seconds to wait for each
) -> None:
    """Ask every running child to end; after `patience` seconds make it."""
    running = [c.process for c in children if c.process and c.process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(
    children: Sequence[Child],  # not started
    together: int = 2,  # how many at once
    progress: bool = True,  # show a bar for each
    ended: Callable[[Child], None] = lambda child: None,  # called when one has ended well
) -> Child | None:  # the child that failed, if one did
    """Run children until all have ended well, or one has not."""
    waiting = list(children)
    running = []
    bars = {
        c.title: tqdm(total=1, desc=c.title, position=i, unit="clip", disable=not progress)
        for i, c in enumerate(children)
    }
    try:
        while waiting or running:
            while waiting and len(running) < together:
                running.append(waiting.pop(0).start())
            time.sleep(0.2)
            for child in list(running):
                status = child.process.poll()
                bar = bars[child.title]
                if child.at[1]:
                    bar.total = child.at[1]
                    bar.n = child.at[0]
                bar.set_postfix_str(child.at[2])
                if status is None:
                    continue
                if status:
                    return child
                running.remove(child)
                ended(child)
    finally:
        stop(running)
        for bar in bars.values():
            bar.close()
    return None


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
    together: int = 0  # trainings at the same time (0: two where there are four cores, else one)
    fresh: bool = False  # do every step again

    def data_folder(self) -> Path:
        """Where the clips go."""
        usual = DemoConfig(out=self.out)
        counts = [self.train, self.val, self.test, self.seed]
        same = counts == [usual.train, usual.val, usual.test, usual.seed]
        return self.data or Path("sets") / ("moves" if same else "moves-{}-{}-{}-seed{}".format(*counts))

    def parallel(self) -> tuple[int, int]:
        """Trainings at the same time, and threads of each; more than four do not help networks this small."""
        cores = os.cpu_count() or 1
        together = self.together or (2 if cores >= 4 else 1)
        return together, max(1, min(4, cores // together))

    def training(self) -> TrainConfig:
        """The description of both trainings."""
        return recipe(self.recipe, seed=self.seed, **({"epochs": self.epochs} if self.epochs else {}))


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


def train_command(
    config: DemoConfig,  # recipe, clips and folder
    model: str,  # name of the network
    restart: bool,  # forget what lies in its folder
) -> list[str]:
    """The command that trains one network; it can be repeated by hand."""
    command = [
        sys.executable,
        "-m",
        "sda",
        "train",
        "--model",
        model,
        "--data",
        str(config.data_folder()),
        "--out",
        str(config.out / model),
        "--recipe",
        config.recipe,
        "--epochs",
        str(config.training().epochs),
        "--threads",
        str(config.parallel()[1]),
        "--seed",
        str(config.seed),
        "--cache",
        "yes",
        "--verbose",
    ]
    return [*command, "--resume", "no"] if restart else command


def train_both(
    config: DemoConfig,  # recipe, clips and folder
    steps: Sequence[Step],  # one per network, named after it; StepError when one fails
    signatures: Signatures,  # of the demo; each training signs for itself
    progress: bool,  # show a bar for each
) -> None:
    """Train the networks that are not trained yet, side by side."""
    todo = {}
    started = {}
    for step in steps:
        if signatures.done(step):
            continue
        other = signatures.read(step.name).get("key") != step.key  # what lies there is of other settings
        signatures.write(step, done=False)
        child = Child(
            step.title, train_command(config, step.name, other), config.out / step.name / "train.log"
        )
        todo[child.title], started[child.title] = (step, child), time.perf_counter()

    def ended(child: Child) -> None:
        signatures.write(todo[child.title][0], done=True, seconds=time.perf_counter() - started[child.title])

    failed = watch([child for _, child in todo.values()], config.parallel()[0], progress, ended)
    if failed:
        raise fail(todo[failed.title][0], failed.last_words())


def ordered_twins() -> list[tuple[str, str]]:  # pairs of class names
    """The twins of Moves that consist of the same frames in another order."""
    made_of = {c.name: (c.source, c.variant) for c in CLASSES}
    return [(one, other) for one, other in PAIRS if made_of[one] == made_of[other]]


def test_model(
    config: DemoConfig,  # clips and folder
    model: str,  # name of a trained network
    progress: bool,  # show a bar
) -> None:
    """Test one network and write predictions and record."""
    net = load_model(config.out / model / "model.safetensors")
    data = open_split(config, "test")
    found = evaluate(net, data, batch_size=50, progress=progress)
    trained = json.loads((config.out / model / "record.json").read_text(encoding="utf-8"))
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
    found.save(config.out / model / "test.npz")
    save_record(record, config.out / "records" / f"test-{model}.json")


def trace_model(
    config: DemoConfig,  # clips and folder
    progress: bool,  # show bars
) -> None:
    """Record the selections on all test clips, and what the network can do without."""
    net = load_model(config.out / config.model / "model.safetensors")
    data = open_split(config, "test")
    trace_clips(net, data, batch_size=50, progress=progress).save(config.out / "trace.npz")
    effects = knock_outs(net, data, class_needs(), ordered_twins(), progress=progress)
    effects.to_csv(config.out / "knock_outs.csv")


def report(
    config: DemoConfig,  # folder of a demo whose other steps are done
) -> None:
    """Put everything on one page."""
    names = (config.baseline, config.model)
    out = config.out
    records = {r["model"]: r for r in load_records(out / "records", kind="test")}
    tested = [Tested(label(n), Predictions.load(out / n / "test.npz"), records[n]) for n in names]
    needs = class_needs()
    trace = Trace.load(out / "trace.npz")
    net = load_model(out / config.model / "model.safetensors")
    data = open_split(config, "test")
    views = [view_clip(net, data, i, tested, trace) for i in choose_clips(tested, needs)]
    effects = pd.read_csv(out / "knock_outs.csv", index_col="selection")
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
        ordered_twins(),
        [*files, out / "trace.npz", out / "knock_outs.csv"],
        f"What {label(config.model)} selects on Moves",
    )


_AGAIN = "look at the lines above; if they do not help, run `sda demo --debug` and report the last lines"


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
    trainings = [
        Step(
            name,
            f"train {label(name)}",
            training | dict(model=name),
            [out / name / "model.safetensors"],
            lambda: None,
            f"read {out / name / 'train.log'}; if memory ran out, use --together 1",
        )
        for name in both
    ]
    models = training | dict(models=both)
    seen = models | dict(pairs=ordered_twins())
    return [
        Step(
            "clips",
            "make the clips",
            clips,
            [config.data_folder() / "category.txt"],
            lambda: make_clips(config, progress),
            "check that the folder can be written and has 3 GB free",
        ),
        Step(
            "train",
            f"train {label(both[0])} and {label(both[1])}",
            models,
            [f for s in trainings for f in s.files],
            lambda: train_both(config, trainings, signatures, progress),
            _AGAIN,
        ),
        Step(
            "test",
            "test both",
            models,
            [out / "records" / f"test-{name}.json" for name in both],
            lambda: [test_model(config, name, progress) for name in both],
            _AGAIN,
        ),
        Step(
            "trace",
            "record the selections",
            seen,
            [out / "trace.npz", out / "knock_outs.csv"],
            lambda: trace_model(config, progress),
            _AGAIN,
        ),
        Step("report", "write the report", seen, [out / "report.html"], lambda: report(config), _AGAIN),
    ]


def run_demo(
    config: DemoConfig,  # what and where
    say: Callable[[str], None] = log.info,  # where progress is told, a line at a time
    progress: bool = True,  # show bars
) -> Path:  # report.html
    """Make clips, train, test, trace and report; what is there already is reused."""
    for folder in (config.out, config.data_folder().parent):
        check_writable(folder)
    if config.fresh:
        shutil.rmtree(config.out / "steps", ignore_errors=True)
    signatures = Signatures(config.out)
    run_steps(demo_steps(config, signatures, progress), signatures, say)
    return config.out / "report.html"
