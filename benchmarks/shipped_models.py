"""Make what ships in data/: three small networks trained on Moves, and the records of how they did.

    python benchmarks/shipped_models.py [--data sets/moves] [--runs runs/shipped] [--only NAME]

Each network is trained (an interrupted run goes on, a finished one is taken as it is), stored in half
precision under sda/assets/checkpoints/, loaded again from that file and tested on the untouched test split.
data/results/ receives the record of the training, the record of the test (accuracy by need, by class and by
pair, and for SDA what is left when a dependency is removed), and the trace of all test clips.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from sda.data.datasets import open_dataset
from sda.explaining.effects import ablation_table
from sda.explaining.trace import trace_clips
from sda.foundation.runs import new_record, record_name, save_record
from sda.moves.assembly import make_moves
from sda.moves.classes import GROUPS, PAIRS
from sda.networks.checkpoints import load_model, save_model
from sda.testing.evaluate import evaluate, protocol
from sda.testing.predictions import by_class, pair_accuracy, summary
from sda.training.recipes import recipe
from sda.training.run import TrainResult
from sda.training.trainer import train

DATA = Path(__file__).resolve().parents[1] / "data"
SHIPPED = {
    "tsn_moves": ("tsn_tiny", "moves"),
    "sda_tsn_moves": ("sda_tsn_tiny", "moves"),
    "sda_tsn_moves_fast_query": ("sda_tsn_tiny", "moves_fast_query"),
}  # file name -> network, recipe


def keep(record: dict, name: str) -> None:
    """One record per network and kind in data/results: a new run replaces the old."""
    for old in (DATA / "results").glob(f"{name}-{record['kind']}*.json"):
        old.unlink()
    save_record(record, DATA / "results" / f"{name}-{record_name(record)}")


def rows(table: pd.DataFrame) -> list[dict]:
    """A data frame as plain records, rounded, absent values left out."""
    plain = table.reset_index() if any(table.index.names) else table
    return [
        {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if v == v}
        for row in plain.to_dict("records")
    ]


def make(name: str, data: Path, runs: Path) -> None:
    """Train, store, test and trace one network."""
    network, recipe_name = SHIPPED[name]
    config = recipe(recipe_name)

    def clips(split):
        return open_dataset(data, split, config.sampling(), config.transform(), cache=True)

    done = train(config, network, clips("train"), clips("val"), runs / name)
    leave(name, done, recipe_name, clips("test"))


def leave(name: str, done: TrainResult, recipe_name: str, test: Any, seconds: float | None = None) -> None:
    """Store a trained network, test it and trace it, and leave the records; `seconds` of all its steps."""
    keep(done.record, name)
    shutil.copy(done.out / "history.csv", DATA / "results" / f"{name}-history.csv")
    path = save_model(
        DATA.parent / "sda" / "assets" / "checkpoints" / f"{name}.safetensors",
        done.model,
        done.model.card,
        half=True,
    )
    net = load_model(path)
    found = evaluate(net, test, batch_size=50)
    metrics = summary(found) | {
        "by_pair": rows(pair_accuracy(found, PAIRS)),
        "by_class": rows(by_class(found)),
    }
    extra = {}
    if net.name.startswith("sda"):
        trace_clips(net, test).save(DATA / "results" / f"{name}-trace.npz")
        extra["knock_outs"] = rows(ablation_table(net, test, GROUPS["need"], PAIRS))
    keep(
        new_record(
            "test",
            model=net.name,
            options=net.options,
            recipe=recipe_name,
            seed=net.card.recipe["seed"],
            dataset="moves",
            split="test",
            protocol=protocol(net.card)[2],
            metrics=metrics,
            train_seconds=done.seconds if seconds is None else seconds,
            config=net.card.recipe,
            **extra,
        ),
        name,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("sets/moves"), help="dataset folder, made when missing"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/shipped"), help="folder for the training runs"
    )
    parser.add_argument("--only", choices=SHIPPED, help="one of the networks")
    options = parser.parse_args()
    make_moves(options.data)
    for one in [options.only] if options.only else SHIPPED:
        make(one, options.data, options.runs)
