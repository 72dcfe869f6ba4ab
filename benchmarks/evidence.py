"""Train and test the networks that the claims of this project rest on, all under one recipe.

    python benchmarks/evidence.py [--only FAMILY ...] [--list] [--data sets/moves] [--threads 1]
        [--runs runs/evidence]

    python benchmarks/evidence.py --explain [--only seeds]
    python benchmarks/evidence.py --more sets/moves-more-test --only whole

Resumable: what has a record in data/results/evidence is skipped, an interrupted training goes on where it
stood, and several of these processes share the work. Each run leaves a record (settings, metrics by class,
need and pair, history, what the selection did over training, seconds, machine, commit) and its logits on
the test split. With --explain, the trained networks are then questioned clip by clip: where their
class-activation maps point, beside controls; and, those with four dependencies, weights, contributions,
gradient x weight, the answer with every coalition of dependencies, with equal weights, and without each
dependency in each block. With --more, trained networks are asked about a test split four times as large,
of the same seed: 500 clips resolve differences of four points, 2,000 of two.
"""

import argparse
import os
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shipped_models
import torch
from filelock import FileLock, Timeout
from shipped_models import rows

from sda.data.datasets import open_dataset
from sda.explaining.answers import logits_of, partner_index, readings
from sda.explaining.effects import ablation_map, attribute, coalitions
from sda.explaining.faithfulness import clip_masks, control_maps, pointing_game
from sda.explaining.interventions import keep, uniform
from sda.explaining.trace import trace_clips
from sda.foundation.runs import new_record, save_record, seed_everything
from sda.moves.assembly import make_moves
from sda.moves.classes import CLASSES, PAIRS
from sda.networks.backbones import create_model, list_models, sda_blocks
from sda.networks.blocks import DEPENDENCIES
from sda.networks.checkpoints import class_hash, load_model
from sda.testing.evaluate import evaluate
from sda.testing.predictions import by_class, pair_accuracy, summary
from sda.training.callbacks import Callback
from sda.training.recipes import recipe
from sda.training.trainer import train

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results" / "evidence"
# The recipe `moves`, shortened for all alike so that a laptop can run the whole grid: half as many epochs
# of batches half as large, in bfloat16, which CPUs and GPUs of today both have.
RECIPE = dict(epochs=8, batch_size=16, precision="bf16")
# What carries a claim of its own is trained a little longer, at twice the rate, which it reaches sooner:
# SDA-TSN gets .80 of the validation clips right after 8 epochs at that rate, .74 at the rate of `moves`
# (seed 0). The comparison of all methods keeps the latter, at which every one of them but RubiksNet trains.
LONGER = dict(epochs=10, lr=0.008, warmup=0.15)
# Nothing shortened: `moves` as it stands.
WHOLE = {name: getattr(recipe("moves"), name) for name in RECIPE | LONGER}


@dataclass(frozen=True)
class Run:
    """One training: what differs from the others."""

    name: str
    model: str
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # of `create_model`
    changes: dict[str, Any] = field(default_factory=dict)  # of the recipe


def one_each(names: list[str]) -> list[Run]:
    """One training of each network."""
    return [Run(f"{n}-s0", n) for n in names]


def with_seeds(stem: str, model: str, seeds: int, options: dict | None = None, **changes: Any) -> list[Run]:
    """The same training from several seeds."""
    return [Run(f"{stem}-s{s}", model, s, options or {}, LONGER | changes) for s in range(seeds)]


def families() -> dict[str, list[Run]]:
    """Every training of the evidence, by the claim it serves; the same run may serve several."""
    net = "sda_tsn_tiny"

    def alike(stem, options=None, seeds=1, **changes):
        return with_seeds(stem, net, seeds, options, **changes)

    rest = {d: [x for x in DEPENDENCIES if x != d] for d in DEPENDENCIES}
    ablation = [
        *(alike(f"only_{d}", {"dependencies": [d]}, 3) for d in DEPENDENCIES),
        *(alike(f"without_{d}", {"dependencies": rest[d]}, 3) for d in DEPENDENCIES),
        alike("averaged", {"attention": "uniform"}, 3),
        alike("sda_tsn", seeds=3),
    ]
    return {
        # RubiksNet stays at chance under the common recipe; its own asks for a lower rate
        "methods": [
            *one_each(list_models("*_tiny")),
            Run("rubiks_tiny_lr0.001-s0", "rubiks_tiny", changes={"lr": 0.001}),
        ],
        "seeds": by_seed([with_seeds(m, f"{m}_tiny", 5) for m in ("tsn", "sda_tsn", "tsm", "sda_tsm")]),
        "dependencies": by_seed(ablation),
        # the reduced width is never under 16, so in the tiny network 4, 8 and 16 are the same block
        "reduction": [
            *alike("reduction1", {"reduction": 1}),
            *alike("reduction2", {"reduction": 2}),
            *alike("sda_tsn"),
        ],
        "frames": [
            *alike("frames4", num_frames=4),
            *alike("frames16", seeds=3, num_frames=16),
            *alike("frames16_split8", {"split": 8}, 3, num_frames=16),
            *alike("sda_tsn", seeds=3),
        ],
        "query": [
            *(r for x in (3, 10, 30) for r in alike(f"query_lr{x}", seeds=3, query_lr=float(x))),
            *(r for x in (0.1, 0.3) for r in alike(f"temperature{x}", {"temperature": x})),
            *alike("sda_tsn", seeds=3),
        ],
        "whole": by_seed(
            [
                *(with_seeds(f"whole_{m}", f"{m}_tiny", 5, **WHOLE) for m in ("tsm", "sda_tsm", "sda_tsn")),
                alike("whole_averaged", {"attention": "uniform"}, 5, **WHOLE),
            ]
        ),
    }


def by_seed(groups: list[list[Run]]) -> list[Run]:
    """Seed 0 of every group first, so that an unfinished grid is a whole one with fewer seeds."""
    return [run for runs in zip(*groups, strict=True) for run in runs]


class SelectionOverTraining(Callback):
    """Mean weight of each dependency in each block, and entropy, over some validation clips after each
    epoch."""

    def __init__(self, data: Any, file: Path):
        self.data = data
        self.file = file
        self.clips = None

    def epoch_end(self, run: Any) -> None:
        """Add the rows of the epoch."""
        if self.clips is None:
            some = np.random.default_rng(0).permutation(len(self.data))[: len(self.data) // 5]
            self.clips = torch.stack([self.data[i]["clip"] for i in sorted(some)])
        trace = trace_clips(run.network, self.clips)
        entropy = trace.entropy().mean(0)
        table = pd.DataFrame(trace.weights.mean(0), columns=list(trace.dependencies)).round(4)
        table.insert(0, "block", trace.blocks)
        table.insert(0, "epoch", run.state.epoch)
        table.assign(entropy=entropy.round(4)).to_csv(
            self.file, mode="a", header=not self.file.exists(), index=False
        )

    def rows(self) -> list[dict]:
        """All epochs so far; one that was trained twice because the run was interrupted counts once."""
        return rows(pd.read_csv(self.file).drop_duplicates(["epoch", "block"], keep="last"))


def tested(run: Run, net: Any, found: Any, dataset: str, **measured: Any) -> dict[str, Any]:
    """The record of a network that was asked about the test split of a set."""
    return new_record(
        "test",
        model=run.model,
        options=net.options,
        recipe="moves" if run.changes == WHOLE else "moves, shortened",
        seed=run.seed,
        dataset=dataset,
        split="test",
        protocol="1 view, centre crop",
        classes=class_hash(found.class_names),
        run=run.name,
        **measured,
    )


def perform(run: Run, data: Path, runs: Path, threads: int, results: Path) -> None:
    """Train, test, and leave a record and the logits."""
    config = recipe("moves", **(RECIPE | run.changes), threads=threads, seed=run.seed)

    def clips(split):
        return open_dataset(data, split, config.sampling(), config.transform(), cache=True)

    seed_everything(run.seed)
    net = create_model(
        run.model, len(CLASSES), num_frames=config.num_frames, dropout=config.dropout, **run.options
    )
    val = clips("val")
    looks = [SelectionOverTraining(val, runs / f"{run.name}-selection.csv")] if sda_blocks(net) else []
    done = train(config, net, clips("train"), val, runs / run.name, callbacks=looks)
    net = load_model(done.out / "model.safetensors")
    found = evaluate(net, clips("test"), batch_size=50)
    results.mkdir(parents=True, exist_ok=True)
    found.save(results / f"{run.name}.npz", replace=True)
    metrics = summary(found) | dict(by_class=rows(by_class(found)), by_pair=rows(pair_accuracy(found, PAIRS)))
    record = tested(
        run,
        net,
        found,
        "moves",
        metrics=metrics,
        train_seconds=round(done.seconds, 1),
        config=asdict(config),
        history=rows(done.history),
        selection=looks[0].rows() if looks else [],
    )
    save_record(record, results / f"{run.name}.json")


def perform_once(run: Run, data: Path, runs: Path, threads: int, results: Path) -> None:
    """The run, unless it has a record or another process is at it; a dead process holds no lock."""
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / f"{run.name}.lock", timeout=0):
            if not (results / f"{run.name}.json").exists():
                perform(run, data, runs, threads, results)
    except Timeout:
        pass


def read(logits: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """What a row of answers says about the true classes, in half precision: files stay small, ranks stay."""
    said = readings(logits, labels, partner_index(names, PAIRS))
    return {
        name.replace(" ", "_"): said[name].astype(np.float16)
        for name in ("probability", "margin", "pair margin")
    }


def question(net: Any, test: Any) -> dict[str, Any]:
    """Weight, contribution, gradient x weight and effects of a network with the four dependencies, clip by
    clip."""
    trace = trace_clips(net, test)
    worth = np.stack(
        [logits_of(net, test, *([] if len(some) == 4 else [keep(*some)])) for some in coalitions()]
    )
    equal = logits_of(net, test, uniform())
    blocks = ablation_map(net, test, reading="pair margin", pairs=PAIRS)
    said = {f"coalition_{k}": v for k, v in read(worth, trace.labels, trace.class_names).items()}
    said |= {f"equal_{k}": v for k, v in read(equal, trace.labels, trace.class_names).items()}
    arrays = dict(
        weights=trace.weights,
        contribution=trace.contribution(),
        gradient=attribute(net, test, "gradient x weight").values,
        block_effect=blocks.values,
    )
    return dict(
        blocks=trace.blocks,
        coalitions=["+".join(some) for some in coalitions()],
        **said,
        **{name: values.astype(np.float16) for name, values in arrays.items()},
    )


def point(net: Any, test: Any, data: Path) -> dict[str, Any]:
    """Pointing and energy of LayerCAM at the third stage and of its controls, [maps, masks, clips, 3:
    point, energy, area]."""
    clips = torch.stack([test[i]["clip"] for i in range(len(test))])
    maps = control_maps(
        net, clips, [r.label for r in test.records], layer="layer3", method="layercam", score="logit"
    )
    masks = clip_masks(test, data)
    found = [[pointing_game(values, mask).to_numpy() for mask in masks.values()] for values in maps.values()]
    return dict(maps=list(maps), masks=list(masks), pointing=np.array(found, np.float16))


@cache
def test_clips(data: Path, num_frames: int) -> Any:
    """The test clips of a set, decoded once for all networks of so many frames."""
    config = recipe("moves", num_frames=num_frames)
    return open_dataset(data, "test", config.sampling(), config.transform(), cache=True)


def explain(run: Run, data: Path, runs: Path, results: Path) -> None:
    """Question the trained network about every test clip; arrays go to NAME-explain.npz."""
    out = results / f"{run.name}-explain.npz"
    if out.exists() or not (runs / run.name / "model.safetensors").exists():
        return
    net = load_model(runs / run.name / "model.safetensors")
    test = test_clips(data, net.num_frames)
    blocks = sda_blocks(net).values()
    whole = blocks and all(len(b.dependencies) == 4 and b.split is None for b in blocks)
    asked = point(net, test, data) | (question(net, test) if whole else {})
    part = out.with_name(f".{out.name}")
    np.savez_compressed(
        part,
        videos=[r.id for r in test.records],
        labels=[r.label for r in test.records],
        class_names=test.class_names,
        **asked,
    )
    os.replace(part, out)


def ask_more(run: Run, data: Path, runs: Path, results: Path) -> None:
    """Test the trained network on further clips: a record and which clips it gets right, in `more`."""
    out = results / "more" / f"{run.name}.json"
    if out.exists() or not (runs / run.name / "model.safetensors").exists():
        return
    net = load_model(runs / run.name / "model.safetensors")
    found = evaluate(net, test_clips(data, net.num_frames), batch_size=50)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out.with_suffix(".npz"), right=found.correct(), labels=found.labels.astype(np.int16))
    record = tested(run, net, found, "moves, test split four times as large", metrics=summary(found))
    save_record(record, out)


def shipped(data: Path) -> None:
    """The networks in sda/assets/checkpoints: the same trainings under the whole recipe, which leave more
    than a record."""
    for name in shipped_models.SHIPPED:
        if not list(RESULTS.parent.glob(f"{name}-test-*.json")):
            shipped_models.make(name, data, Path("runs/shipped"))


def main() -> None:
    grid = families() | {"shipped": []}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("sets/moves"), help="dataset folder, made when missing"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/evidence"), help="folder for the training runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for records and logits")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=grid,
        metavar="FAMILY",
        help=f"some of the families: {', '.join(grid)} (all; with --explain: seeds and query)",
    )
    parser.add_argument("--runs-named", nargs="+", metavar="RUN", help="only these runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of this process")
    parser.add_argument(
        "--explain", action="store_true", help="question the trained networks instead of training"
    )
    parser.add_argument(
        "--more", type=Path, help="ask the trained networks about the test clips of this larger set"
    )
    parser.add_argument("--list", action="store_true", help="only tell what is there and what is missing")
    options = parser.parse_args()
    chosen = options.only or (["seeds", "query"] if options.explain else list(grid))
    wanted = list({run.name: run for family in chosen for run in grid[family]}.values())
    if options.runs_named:
        wanted = [run for run in wanted if run.name in options.runs_named]
    if options.list:
        for run in wanted:
            print("done   " if (options.results / f"{run.name}.json").exists() else "missing", run.name)
        return
    make_moves(options.data)
    torch.set_num_threads(options.threads)
    if options.explain:
        for run in wanted:
            explain(run, options.data, options.runs, options.results)
        return
    if options.more:
        make_moves(options.more, train=1, val=1, test=100)
        for run in wanted:
            ask_more(run, options.more, options.runs, options.results)
        return
    for run in wanted:
        perform_once(run, options.data, options.runs, options.threads, options.results)
    if "shipped" in chosen and not options.runs_named:
        shipped(options.data)


if __name__ == "__main__":
    main()
