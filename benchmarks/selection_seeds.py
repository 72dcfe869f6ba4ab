"""The recipe that the search chose, from several seeds, judged on the test split beside the published query.

    python benchmarks/selection_seeds.py [--seeds 0 1 2] [--networks sda_tsn] [--count 80]
        [--data sets/moves] [--more sets/moves-more-test] [--runs runs] [--threads 1]
    python benchmarks/selection_seeds.py --clips CLIPS [--folds 0 1 2 3 4]

Each seed is a network of its own: trained with the published query as in `benchmarks/evidence.py`, then as
many epochs more as the search took: once with gates, once with the published query, which is the control.
`whole` stands for the shipped network, trained under the whole recipe; what its gates learn ships too.
Resumable. Records and arrays go to data/results/selection/seeds; the test split is looked at here for the
first time. With --more, accuracy is also asked of a test split four times as large, of the same seed.

With --clips, a folder of real recordings as in `benchmarks/own_clips.py`: SDA-TSN starts from the shipped
network and learns the clips of four folds under the recipe `own_clips`, once with the published query and
once with gates, and is asked about the fifth. There is no teacher, for the start knows other classes.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import evidence
import own_clips
import selection_search as search
import shipped_models
import torch
from shipped_models import rows

from sda.foundation.runs import seed_everything
from sda.moves.classes import CLASSES
from sda.moves.make import make_moves
from sda.networks.backbones import create_model
from sda.training.config import plain_settings, recipe
from sda.training.trainer import train

RESULTS = search.RESULTS / "seeds"
SHIPPED = "sda_tsn_moves_gated"  # file name in sda/assets/checkpoints
# the rate of queries that the search found, at the rate of `own_clips`; no teacher
OWN: dict[str, Any] = dict(lr=0.004, query_lr=5.0, distill=0.0, epochs=recipe("own_clips").epochs)
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


def perform_fold(kind: str, number: int, clips: own_clips.Clips, options: Any) -> None:
    """Learn four folds of real clips under one of KINDS, and judge by the fifth."""
    label = f"own_clips-{kind}-fold{number}"
    if (RESULTS / f"{label}.json").exists():
        return
    one = KINDS[kind]
    asked = search.CHOSEN | OWN if kind == "gated" else {}
    config = recipe("own_clips", **asked, init=str(search.START))
    held_out = clips.folds()[number]
    rest = [take for k, some in enumerate(clips.folds()) for take in some if k != number]
    seed_everything(config.seed)
    net = search.network("sda_tsn", one, len(clips.names), config.dropout)
    trained = train(
        config, net, clips.of(rest, config, True), None, options.runs / "seeds" / label, progress=False
    )
    found = own_clips.answers(trained.model, clips, held_out, config)
    test = clips.of(held_out, config)
    search.question(
        label,
        trained.model,
        {"test": test, "fit": clips.of(rest, config)},
        len(test),
        "test",
        RESULTS,
        recipe="own_clips",
        dataset="UT-Interaction",
        protocol="centre crop; top1_crops: three crops",
        seed=config.seed,
        train_seconds=round(trained.seconds, 1),
        run=label,
        held_out=held_out,
        why="real clips",
        config=plain_settings(config),
        history=rows(trained.history),
        more=dict(top1_crops=found.accuracy()),
        more_arrays=dict(crops_right=found.correct()),
    )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("sets/moves"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--networks", nargs="+", default=["sda_tsn"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=80, help="clips whose selection is asked about")
    parser.add_argument("--more", type=Path, help="a larger set of the same seed: accuracy on its test clips")
    parser.add_argument("--clips", type=Path, help="folder of real recordings, with clips.csv")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(own_clips.FOLDS)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.clips:
        clips = own_clips.Clips(options.clips, options.runs / "own_clips")
        for number, kind in product(options.folds, KINDS):
            perform_fold(kind, number, clips, options)
        return
    make_moves(options.data)
    data = search.datasets(options.data, "test")
    if options.more:
        make_moves(options.more, train=1, val=1, test=100)
        data["more"] = search.datasets(options.more, "test")["test"]
    for name in options.networks:
        for seed in options.seeds:
            if seed == "whole":
                start = search.START.with_name(f"{name}_moves.safetensors")
            else:
                start = base(name, int(seed), data, options.runs, options.threads)
            for kind in KINDS:
                perform(kind, name, seed, start, data, options)


if __name__ == "__main__":
    main()
