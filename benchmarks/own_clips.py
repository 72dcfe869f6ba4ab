"""Find and show how far the recipe `own_clips` comes on a hundred real clips, on a processor, in minutes.

    python benchmarks/own_clips.py CLIPS [--search NAME ...] [--folds 0 1 2 3 4] [--models tsn_tiny ...]
        [--epochs 20] [--scratch] [--runs runs/own_clips]

CLIPS is a folder with clips.csv (columns path, label, take), such as the 120 segmented recordings of
UT-Interaction. The takes, in their order, make five folds of equally many: one fold is tested, the others
train. Without --search the four tiny networks are trained on each fold with the recipe as it stands, started
from the shipped weights or, with --scratch, from new ones, and tested once. With --search, candidates of the
recipe are tried, never on a test take: two parts of the clips are looked at, each inside the training part of
the other's fold. Resumable: what has a record in data/results/own_clips is skipped, an interrupted training
goes on, and several of these processes share the work.
"""

import argparse
import copy
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from shipped_models import rows

from sda.data.crops import MultiCrop
from sda.data.datasets import ClipDataset
from sda.data.extract import extract
from sda.data.lists import Record
from sda.foundation.runs import new_record, save_record
from sda.networks.checkpoints import load_model
from sda.testing.evaluate import evaluate
from sda.testing.predictions import Predictions, summary
from sda.training.config import TrainConfig
from sda.training.recipes import plain_settings, recipe
from sda.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results" / "own_clips"
SHIPPED = ROOT / "sda" / "assets" / "checkpoints"
# the shipped weights that each network starts from: TSM has the weights of TSN and shifts features between
STARTS = {
    "sda_tsn_tiny": "sda_tsn_moves",
    "tsn_tiny": "tsn_moves",
    "sda_tsm_tiny": "sda_tsn_moves",
    "tsm_tiny": "tsn_moves",
}
FOLDS = 5
HEIGHT = 96  # of the extracted pictures, pixels: what the smallest training crops need
# Candidates of the recipe: a network, the part looked at, and what differs from `BASE`
BASE: dict[str, Any] = dict(
    batch_size=8,
    epochs=20,
    lr=2e-3,
    warmup=0.1,
    resize=64,
    crop="resized",
    area=(0.4, 1.0),
    colour="none",
    flip=True,
    label_smoothing=0.1,
    threads=1,
)


@dataclass(frozen=True)
class Trial:
    """One training of the search."""

    model: str
    part: int  # fold whose takes are looked at, 0 or 1; the other of the two stays out of the training
    changes: dict[str, Any]  # of `BASE`
    start: bool = True  # from the shipped weights
    seed: int = 0


TRIALS: dict[str, Trial] = {
    "base": Trial("sda_tsn_tiny", 1, {}),
    "lr4": Trial("sda_tsn_tiny", 1, dict(lr=4e-3)),
    "scratch": Trial("sda_tsn_tiny", 1, dict(lr=4e-3), start=False),
    "batch4": Trial("sda_tsn_tiny", 1, dict(lr=3e-3, batch_size=4)),
}


class Chosen:
    """Some clips of a cache of all."""

    def __init__(self, cache: Any, numbers: list[int]):
        self.cache = cache
        self.numbers = numbers

    def clip(self, index: int) -> Any:
        """The frames of one of them."""
        return self.cache.clip(self.numbers[index])


class Clips:
    """The recordings by take, decoded once."""

    def __init__(self, source: Path, work: Path):
        with (source / "clips.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        self.names = sorted({row["label"] for row in table})
        self.takes = [row["take"] for row in table]
        frames = work / "frames"
        if not (frames / "extract.json").exists():
            extract(source, frames, [row["path"] for row in table], height=HEIGHT)
        self.records = [
            Record(row["path"], str((frames / row["path"]).with_suffix("")), self.names.index(row["label"]))
            for row in table
        ]
        self.cache = work / "cache"

    def folds(self) -> list[list[str]]:
        """The takes of each fold, in the order of their names."""
        return [some.tolist() for some in np.array_split(sorted(set(self.takes)), FOLDS)]

    def of(
        self, takes: Any, config: TrainConfig, is_train: bool = False, transform: Any = None
    ) -> ClipDataset:
        """The clips of some takes."""
        kind = (config.sampling(), transform or config.transform(), is_train)
        whole = ClipDataset(self.records, self.names, *kind, cache=self.cache, short_side=None)
        numbers = [i for i, take in enumerate(self.takes) if take in takes]
        some = copy.copy(whole)
        some.records = [self.records[i] for i in numbers]
        some.cache = Chosen(whole.cache, numbers)
        return some


def answers(net: Any, clips: Clips, takes: list[str], config: TrainConfig) -> Predictions:
    """Scores of three crops side by side, for the clips are wider than high; the last is the centre."""
    crops = MultiCrop(f"3x{config.size}", resize=config.resize, size=config.size)
    return evaluate(net, clips.of(takes, config, transform=crops), progress=False)


def accuracies(found: Predictions) -> dict[str, float]:
    """With the three crops, and with the centre alone."""
    centre = Predictions(found.ids, found.logits[:, -1:], found.labels, found.class_names)
    return {"top1": found.accuracy(), "top1_centre": centre.accuracy(), "n": len(found)}


def search(name: str, clips: Clips, runs: Path) -> dict[str, Any]:
    """One trial: trained on the takes of the folds 2, 3 and 4, judged by those of fold 0 or 1."""
    trial = TRIALS[name]
    config = recipe("moves", **(BASE | trial.changes), seed=trial.seed)
    if trial.start:
        config.init = str(SHIPPED / f"{STARTS[trial.model]}.safetensors")
    folds = clips.folds()
    rest = [take for fold in folds[2:] for take in fold]
    data = clips.of(rest, config, True), clips.of(folds[trial.part], config)
    done = train(config, trial.model, *data, runs / f"search-{name}", progress=False)
    found = answers(load_model(done.out / "model.safetensors"), clips, folds[trial.part], config)
    return new_record(
        "benchmark",
        name=f"search-{name}",
        model=trial.model,
        seed=trial.seed,
        start=STARTS[trial.model] if trial.start else None,
        looked_at=folds[trial.part],
        trained_on=rest,
        config=plain_settings(config),
        metrics=accuracies(found),
        history=rows(done.history),
        train_seconds=round(done.seconds, 1),
    )


def run_name(model: str, number: int, epochs: int, start: str | None) -> str:
    """Of folder and record: tsn_tiny-fold0; tsn_tiny-scratch-60epochs-fold0 where both differ."""
    other = "" if start else "-scratch"
    other += f"-{epochs}epochs" if epochs != recipe("own_clips").epochs else ""
    return f"{model}{other}-fold{number}"


def fold(
    model: str, number: int, epochs: int, start: str | None, clips: Clips, runs: Path, results: Path
) -> dict[str, Any]:
    """Train on four folds to the last epoch, test the fifth once."""
    init = {"init": str(SHIPPED / f"{start}.safetensors")} if start else {}
    config = recipe("own_clips", epochs=epochs, **init)
    folds = clips.folds()
    rest = [take for k, some in enumerate(folds) for take in some if k != number]
    name = run_name(model, number, epochs, start)
    data = clips.of(rest, config, True)
    begun = time.process_time()
    done = train(config, model, data, None, runs / name, progress=False)
    spent = time.process_time() - begun
    found = answers(load_model(done.out / "model.safetensors"), clips, folds[number], config)
    found.save(results / f"{name}.npz")
    return new_record(
        "test",
        model=model,
        name=name,
        recipe="own_clips",
        seed=config.seed,
        start=start,
        dataset="UT-Interaction",
        split=f"fold {number}",
        protocol="1 clip, 3 crops",
        held_out=folds[number],
        clips=len(clips.records) - len(found),
        config=plain_settings(config),
        metrics=summary(found) | accuracies(found),
        history=rows(done.history),
        train_seconds=round(done.seconds, 1),
        processor_seconds=round(spent, 1),
    )


def once(name: str, perform: Callable[[], dict[str, Any]], runs: Path, results: Path) -> None:
    """A run, unless it has a record or another process is at it."""
    runs.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / f"{name}.lock", timeout=0):
            if not (results / f"{name}.json").exists():
                record = perform()
                save_record(record, results / f"{name}.json")
                told = {k: round(v, 3) for k, v in record["metrics"].items() if k.startswith("top1")}
                print(name, told, flush=True)
    except Timeout:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, help="folder of the recordings, with clips.csv")
    parser.add_argument("--search", nargs="+", choices=TRIALS, metavar="NAME", help="try candidates instead")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)), choices=range(FOLDS))
    parser.add_argument("--models", nargs="+", default=list(STARTS), choices=STARTS, metavar="MODEL")
    parser.add_argument("--epochs", type=int, default=recipe("own_clips").epochs, help="of each training")
    parser.add_argument("--scratch", action="store_true", help="start from new weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/own_clips"), help="for frames and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for records and logits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = Clips(options.clips, options.runs)
    for name in options.search or []:
        perform = partial(search, name, clips, options.runs)
        once(f"search-{name}", perform, options.runs, options.results)
    for model, number in [] if options.search else product(options.models, options.folds):
        start = None if options.scratch else STARTS[model]
        perform = partial(fold, model, number, options.epochs, start, clips, options.runs, options.results)
        once(run_name(model, number, options.epochs, start), perform, options.runs, options.results)


if __name__ == "__main__":
    main()
