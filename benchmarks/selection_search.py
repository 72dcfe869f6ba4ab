"""Search for a selection that can be believed: one recipe after the other, judged on validation clips.

    python benchmarks/selection_search.py [--only NAME ...] [--data sets/moves] [--threads 1]
        [--runs runs/selection] [--every 5]

First the shipped networks of the published query are asked, as the baseline. Then every try starts from one
of them and goes on for a few epochs with another attention. Resumable: what has a record in
data/results/selection is skipped, an interrupted training goes on where it stood. A record holds what was
tried and why, settings, history, and what `sda.explaining.faithful_selection` says about the selection on
every fifth validation clip; NAME.npz beside it holds weights, losses and logits of these clips. The test
split plays no part in choosing.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shipped_models import rows

from sda.data.datasets import open_dataset
from sda.explaining.answers import load_clips
from sda.explaining.faithful_selection import left_out, silence, stability, sufficiency, truth_table
from sda.foundation.runs import new_record, save_record, seed_everything
from sda.moves.classes import CLASSES
from sda.moves.make import make_moves
from sda.networks.backbones import create_model
from sda.networks.checkpoints import load_model
from sda.training.config import plain_settings, recipe
from sda.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results" / "selection"
START = ROOT / "sda" / "assets" / "checkpoints" / "sda_tsn_moves.safetensors"
# three epochs of 100 steps: the shipped network had 15 of 50
RECIPE: dict[str, Any] = dict(
    epochs=3, batch_size=16, precision="bf16", lr=0.002, warmup=0.15, dropout=0.0, init=str(START)
)


@dataclass(frozen=True)
class Try:
    """One training: what differs from the others, and why it is tried."""

    name: str
    why: str
    attention: str = "gated"
    options: dict[str, Any] = field(default_factory=dict)  # of the attention
    temperature: float = 1.0
    changes: dict[str, Any] = field(default_factory=dict)  # of the recipe
    seed: int = 0


GATES: dict[str, Any] = dict(bias=1.0, noise=False)
ASKED: dict[str, Any] = dict(
    query_lr=10.0, gate_price=0.1, gate_follow=1.5, gate_order=2.0, distill=1.0, selection_ramp=0.3
)

TRIES = [
    Try("gates", "all ideas together, gates without noise", options=GATES, temperature=0.5, changes=ASKED),
]


BASELINES = ("sda_tsn_moves", "sda_tsn_moves_fast_query")


def question(name: str, net: Any, data: Any, every: int, **about: Any) -> None:
    """Ask a network about some validation clips, and leave a record and the arrays."""
    clips, labels, ids = load_clips(data, range(0, len(data), every))
    found = left_out(net, clips, labels)
    RESULTS.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        RESULTS / f"{name}.npz",
        videos=ids,
        labels=found.labels,
        blocks=found.blocks,
        weights=found.weights.astype(np.float32),
        losses=found.losses.astype(np.float32),
        logits=found.logits.astype(np.float32),
    )
    metrics = dict(
        top1=float(found.right.mean()),
        n=len(labels),
        necessity=truth_table(found),
        silence=silence(found),
        sufficiency=sufficiency(net, clips, found),
        stability=stability(net, clips),
    )
    record = new_record(
        "benchmark",
        model=net.name,
        options=net.options,
        recipe=about.pop("recipe", "moves"),
        seed=about.pop("seed", 0),
        dataset="moves",
        split="val",
        protocol=f"1 view, centre crop, every {every}th clip",
        metrics=metrics,
        **about,
    )
    save_record(record, RESULTS / f"{name}.json")


def done(name: str) -> bool:
    """Whether a network was asked before."""
    return (RESULTS / f"{name}.json").exists()


def perform(one: Try, data: Path, runs: Path, threads: int, every: int) -> None:
    """Train a try and ask it."""
    config = recipe("moves", **(RECIPE | one.changes), threads=threads, seed=one.seed)

    def clips(split):
        return open_dataset(data, split, config.sampling(), config.transform(), cache=True)

    seed_everything(one.seed)
    options: dict[str, Any] = dict(attention=one.attention, temperature=one.temperature)
    if one.options:
        options["attention_options"] = one.options
    net = create_model("sda_tsn_tiny", len(CLASSES), num_frames=8, dropout=0.0, **options)
    trained = train(config, net, clips("train"), clips("val"), runs / one.name, progress=False)
    about = dict(why=one.why, config=plain_settings(config), history=rows(trained.history))
    question(
        one.name,
        trained.model,
        clips("val"),
        every,
        recipe="moves, continued",
        seed=one.seed,
        train_seconds=round(trained.seconds, 1),
        **about,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("sets/moves"))
    parser.add_argument("--runs", type=Path, default=Path("runs/selection"))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=5, help="ask about one of so many validation clips")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make_moves(options.data)
    for name in BASELINES:
        if (not options.only or name in options.only) and not done(name):
            net = load_model(START.with_name(f"{name}.safetensors"))
            config = recipe("moves")
            data = open_dataset(options.data, "val", config.sampling(), config.transform(), cache=True)
            question(name, net, data, options.every, why="the published query, as shipped")
    for one in TRIES:
        if (not options.only or one.name in options.only) and not done(one.name):
            perform(one, options.data, options.runs, options.threads, options.every)
