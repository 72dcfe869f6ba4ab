"""Search for a selection that can be believed: one recipe after the other, judged on validation clips.

    python benchmarks/selection_search.py [--list] [--only NAME ...] [--data sets/moves] [--threads 1]
        [--runs runs/selection]

Every try starts from the shipped network of the published query and goes on for a few epochs with another
attention. Resumable: what has a record in data/results/selection is skipped, an interrupted training goes on
where it stood. A record holds options, settings, history, seconds and what `faithfulness` says of the
selection on validation clips. With --test the final tries are asked the same about the untouched test
split; its clips play no part in choosing.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sda.data.datasets import open_dataset
from sda.foundation.runs import seed_everything
from sda.moves.classes import CLASSES
from sda.networks.backbones import create_model
from sda.training.config import recipe
from sda.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
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


def perform(one: Try, data: Path, runs: Path, threads: int) -> None:
    """Train a try; a finished one is returned as it is."""
    config = recipe("moves", **(RECIPE | one.changes), threads=threads, seed=one.seed)

    def clips(split):
        return open_dataset(data, split, config.sampling(), config.transform(), cache=True)

    seed_everything(one.seed)
    options: dict[str, Any] = dict(attention=one.attention, temperature=one.temperature)
    if one.options:
        options["attention_options"] = one.options
    net = create_model("sda_tsn_tiny", len(CLASSES), num_frames=8, dropout=0.0, **options)
    done = train(config, net, clips("train"), clips("val"), runs / one.name, progress=False)
    print(one.name, done.history.to_string(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("sets/moves"))
    parser.add_argument("--runs", type=Path, default=Path("runs/selection"))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for one in TRIES:
        if not options.only or one.name in options.only:
            perform(one, options.data, options.runs, options.threads)
