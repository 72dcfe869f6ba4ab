"""The recipe that the search chose, from several seeds, judged on the test split beside the published query.

    python benchmarks/selection_seeds.py [--seeds 0 1 2] [--networks sda_tsn] [--count 80]
        [--data sets/moves] [--runs runs] [--threads 1]

Each seed is a network of its own: trained with the published query as in `benchmarks/evidence.py`, then as
many epochs more as the search took: once with gates, once with the published query, which is the control.
`whole` stands for the shipped network, trained under the whole recipe; what its gates learn ships too.
Resumable. Records and arrays go to data/results/selection/seeds; the test split is looked at here for the
first time.
"""

import argparse
from pathlib import Path
from typing import Any

import evidence
import selection_search as search
import shipped_models
import torch
from shipped_models import rows

from sda.foundation.runs import seed_everything
from sda.moves.assembly import make_moves
from sda.moves.classes import CLASSES
from sda.networks.backbones import create_model
from sda.training.recipes import plain_settings, recipe
from sda.training.trainer import train

RESULTS = search.RESULTS / "seeds"
SHIPPED = "sda_tsn_moves_gated"  # file name in sda/assets/checkpoints
KINDS = {
    "query": search.Try("query", "the control", "query", changes=search.CONTROL),
    "gated": search.Try("gated", "as chosen", "gated", search.CHOSEN_OPTIONS, 0.5, search.CHOSEN),
}


def base(name: str, seed: int, data: search.Data, runs: Path, threads: int) -> Path:
    """The network with the published query that a seed starts from."""
    out = runs / "evidence" / f"{name}-s{seed}"
    if not (out / "model.safetensors").exists():
        config = recipe("moves", **(evidence.RECIPE | evidence.LONGER), threads=threads, seed=seed)
        seed_everything(seed)
        net = create_model(f"{name}_tiny", len(CLASSES), num_frames=8, dropout=config.dropout)
        train(config, net, data["train"], None, out, progress=False)
    return out / "model.safetensors"


def perform(kind: str, name: str, seed: str, start: Path, data: search.Data, options: Any) -> None:
    """Go on from the start under one of KINDS, and judge."""
    label = f"{name}-{kind}-s{seed}"
    if (RESULTS / f"{label}.json").exists():
        return
    one = KINDS[kind]
    number = 0 if seed == "whole" else int(seed)
    changes = search.RECIPE | one.changes | dict(init=str(start))
    config = recipe("moves", **changes, threads=options.threads, seed=number)
    seed_everything(number)
    trained = train(
        config, search.network(name, one), data["train"], None, options.runs / "seeds" / label, progress=False
    )
    search.question(
        label,
        trained.model,
        data,
        options.count,
        "test",
        RESULTS,
        recipe="moves, continued",
        seed=number,
        train_seconds=round(trained.seconds, 1),
        run=label,
        why=one.why,
        config=plain_settings(config),
        history=rows(trained.history),
    )
    if kind == "gated" and seed == "whole":  # with the scales it was judged with
        shipped_models.leave(SHIPPED, trained, "moves, continued", data["test"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("sets/moves"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--networks", nargs="+", default=["sda_tsn"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=80, help="clips whose selection is asked about")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make_moves(options.data)
    data = search.datasets(options.data, "test")
    for name in options.networks:
        for seed in options.seeds:
            if seed == "whole":
                start = search.START.with_name(f"{name}_moves.safetensors")
            else:
                start = base(name, int(seed), data, options.runs, options.threads)
            for kind in KINDS:
                perform(kind, name, seed, start, data, options)
