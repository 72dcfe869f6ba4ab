"""The recipe that the search chose, from several seeds, judged on the test split beside the softmax query.

    python benchmarks/selection_seeds.py [--seeds 0 1 2] [--networks sda_tsn]
        [--kinds start gated ordered budget sparse query settled] [--count 80]
        [--data sets/moves] [--more sets/moves-more-test] [--runs runs] [--threads 1] [--split test]
    python benchmarks/selection_seeds.py --clips CLIPS [--folds 0 1 2 3 4]

Each seed is a network of its own, trained with the softmax query as in `benchmarks/evidence.py`: the start.
From it six go on for as many epochs as the search took: one with gates, one with gates that are also to be
the wider the more their closing costs, one with gates that have no price below a budget, one with sparsemax,
and two controls with the softmax query: one that learns on in one course, and one in the two steps of the
gates, the second at their higher rate and with frozen queries.
`whole` stands for a network trained under the whole recipe: the shipped SDA-TSN, whose gates ship too, and
the first SDA-TSM of `python benchmarks/evidence.py --only whole`; `whole-1` and so on for the next ones.
Resumable. Records and arrays go to data/results/selection/seeds. With --more, accuracy is also asked of a
test split four times as large, of the same seed. With --split val everything is asked of validation clips,
and goes to data/results/selection/validation: so the budget was found, from `whole-1`, `whole-2` of SDA-TSM.

With --clips, a folder of real recordings as in `benchmarks/own_clips.py`: SDA-TSN starts from the shipped
network, learns the clips of four folds under the recipe `own_clips` with the softmax query, and is asked
about the fifth; from there it goes on with gates, for as many steps and with the same teacher as above.
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
from sda.moves.assembly import make_moves
from sda.moves.classes import CLASSES
from sda.networks.backbones import create_model
from sda.networks.checkpoints import load_model
from sda.training.recipes import plain_settings, recipe
from sda.training.run import TrainResult
from sda.training.trainer import train

RESULTS = search.RESULTS / "seeds"
SHIPPED = "sda_tsn_moves_gated"  # file name in sda/assets/checkpoints
KINDS = {
    "start": search.Try("start", "the softmax query, before", "query"),
    "gated": search.Try("gated", "as chosen", "gated", search.CHOSEN_OPTIONS, 0.5),
    "ordered": search.Try("ordered", "and asked for the order", "gated", search.CHOSEN_OPTIONS, 0.5),
    "budget": search.Try("budget", "no price below a budget", "gated", search.CHOSEN_OPTIONS, 0.5),
    "sparse": search.Try("sparse", "half of the dependencies, in the steps of the gates", "sparsemax"),
    "query": search.Try("query", "the control", "query"),
    "settled": search.Try(
        "settled", "the control in two steps, with the rates and epochs of the gates", "query"
    ),
}
# What changes in the recipe, step by step: gates learn first, then the rest under them.
Steps = list[dict[str, Any]]
MOVES_STEPS: dict[str, Steps] = {
    "budget": [search.CHOSEN | dict(gate_budget=search.BUDGET), search.SETTLE],
    "sparse": [search.TAUGHT | search.SLOW | dict(epochs=4), search.SETTLE],
    "query": [search.CONTROL],
    "settled": [search.CONTROL | dict(epochs=4), search.SETTLE],
    "gated": [search.CHOSEN, search.SETTLE],
    "ordered": [search.CHOSEN | dict(gate_order=2.0), search.SETTLE],
}
# Four folds of real clips are 12 batches.
CLIPS_STEPS: dict[str, Steps] = {
    "query": [{}],
    "gated": [search.CHOSEN | dict(epochs=33), search.SETTLE | dict(epochs=25)],
}


def base(name: str, seed: int, data: search.Data, runs: Path, threads: int) -> Path:
    """The network with the softmax query that a seed starts from."""
    out = runs / "evidence" / f"{name}-s{seed}"
    if not (out / "model.safetensors").exists():
        config = recipe("moves", **(evidence.RECIPE | evidence.LONGER), threads=threads, seed=seed)
        seed_everything(seed)
        net = create_model(f"{name}_tiny", len(CLASSES), num_frames=8, dropout=config.dropout)
        train(config, net, data["train"], None, out, progress=False)
    return out / "model.safetensors"


def whole(name: str, which: str, runs: Path) -> Path:
    """A network of the whole recipe: the one that ships, or one of `evidence.py --only whole`."""
    shipped = search.START.with_name(f"{name}_moves.safetensors")
    if which == "whole" and shipped.exists():
        return shipped
    seed = which.removeprefix("whole").lstrip("-") or "0"
    return runs / "evidence" / f"whole_{name}-s{seed}" / "model.safetensors"


def fit(name: str, steps: Steps, make: Any, data: Any, out: Path, **changes: Any) -> tuple[TrainResult, dict]:
    """Go on from `init` under a recipe, step by step; and what a record says about it."""
    told: list[dict[str, Any]] = []
    for number, asked in enumerate(steps, 1):
        folder = out if number == len(steps) else out / f"step{number}"
        config = recipe(name, **(changes | asked))
        seed_everything(config.seed)
        done = train(config, make(), data, None, folder, progress=False)
        changes["init"] = str(folder / "model.safetensors")
        told.append(dict(config=plain_settings(config), history=rows(done.history), seconds=done.seconds))
    seconds = round(sum(one.pop("seconds") for one in told), 1)
    before = dict(before=told[:-1]) if told[1:] else {}
    return done, dict(train_seconds=seconds, seed=config.seed, **told[-1], **before)


def perform(kind: str, name: str, seed: str, start: Path, data: search.Data, options: Any) -> None:
    """Go on from the start under one of KINDS, and judge."""
    label = f"{name}-{kind}-s{seed}"
    results = RESULTS if options.split == "test" else search.RESULTS / "validation"
    if (results / f"{label}.json").exists():
        return
    one = KINDS[kind]
    number = 0 if seed.startswith("whole") else int(seed)
    changes = search.RECIPE | dict(init=str(start), threads=options.threads, seed=number)
    trained = None
    if kind == "start":
        net, about = load_model(start), dict(recipe="moves", seed=number)
    else:
        out = options.runs / "seeds" / label
        trained, told = fit(
            "moves", MOVES_STEPS[kind], lambda: search.network(name, one), data["train"], out, **changes
        )
        net, about = trained.model, dict(recipe="moves, continued", **told)
    search.question(label, net, data, options.count, options.split, results, run=label, why=one.why, **about)
    ships = (kind, name, seed, options.split) == ("gated", "sda_tsn", "whole", "test")
    if ships:  # with the scales it was judged with
        shipped_models.leave(SHIPPED, trained, "moves, continued", data["test"], told["train_seconds"])


def perform_fold(kind: str, number: int, clips: own_clips.Clips, options: Any) -> None:
    """Learn four folds of real clips under one of KINDS, and judge by the fifth."""
    label = f"own_clips-{kind}-fold{number}"
    if (RESULTS / f"{label}.json").exists():
        return
    one = KINDS[kind]
    held_out = clips.folds()[number]
    rest = [take for k, some in enumerate(clips.folds()) for take in some if k != number]
    config = recipe("own_clips")
    runs = options.runs / "seeds"
    start = search.START if kind == "query" else runs / f"own_clips-query-fold{number}" / "model.safetensors"
    trained, about = fit(
        "own_clips",
        CLIPS_STEPS[kind],
        lambda: search.network("sda_tsn", one, len(clips.names), config.dropout),
        clips.of(rest, config, True),
        runs / label,
        init=str(start),
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
        run=label,
        held_out=held_out,
        why="real clips",
        **about,
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
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--split", default="test", choices=("test", "val"), help="clips that are asked about")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=80, help="clips whose selection is asked about")
    parser.add_argument("--more", type=Path, help="a larger set of the same seed: accuracy on its test clips")
    parser.add_argument("--clips", type=Path, help="folder of real recordings, with clips.csv")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(own_clips.FOLDS)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.clips:
        clips = own_clips.Clips(options.clips, options.runs / "own_clips")
        for number, kind in product(options.folds, ("query", "gated")):
            perform_fold(kind, number, clips, options)
        return
    make_moves(options.data)
    data = search.datasets(options.data, options.split)
    if options.more:
        make_moves(options.more, **(dict(train=1, val=1, test=1) | {options.split: 100}))
        data["more"] = search.datasets(options.more, options.split)[options.split]
    for name in options.networks:
        for seed in options.seeds:
            if seed.startswith("whole"):
                start = whole(name, seed, options.runs)
            else:
                start = base(name, int(seed), data, options.runs, options.threads)
            for kind in options.kinds:
                perform(kind, name, seed, start, data, options)


if __name__ == "__main__":
    main()
