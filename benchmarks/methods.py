"""What every way of modelling time costs and does: one row a method, with and without SDA on top.

    python benchmarks/methods.py [--part cost reach order speed] [--repeats 5] [--threads 2]
        [--runs runs/evidence]

cost:  parameters and multiply-adds of the ResNet-50 form (174 classes, 8 frames of 224 x 224) and of the
tiny form. reach: frames that feel a change of one frame after the first and after the last stage of the
tiny form. order: what shuffled and reversed frames do to the trained tiny networks of
benchmarks/evidence.py (test split of Moves). speed: forward pass of the ResNet-50 form and training step of
the tiny form; the networks take turns, medians are kept. Rewrites the rows of these parts in
data/results/bench_methods.json and leaves the other parts as they are.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sda.data.datasets import open_dataset
from sda.explaining.answers import logits_of
from sda.explaining.interventions import reverse, shuffle
from sda.foundation.runs import new_record, save_record
from sda.foundation.statistics import softmax
from sda.moves.assembly import make_moves
from sda.networks.backbones import create_model, list_models
from sda.networks.blocks import SDA
from sda.networks.checkpoints import load_model
from sda.networks.cost import profile
from sda.training.recipes import recipe

RECORD = Path(__file__).resolve().parents[1] / "data" / "results" / "bench_methods.json"
TINY = list_models("*_tiny")


def full_name(tiny: str) -> str:
    """The ResNet-50 form of a tiny network; RubiksNet has a network of its own."""
    return "rubiks_large" if tiny == "rubiks_tiny" else tiny.replace("_tiny", "_resnet50")


def cost(tiny: str) -> dict[str, Any]:
    """Parameters and multiply-adds of both forms."""
    full = profile(create_model(full_name(tiny), 174))
    small = profile(create_model(tiny, 20), size=64)
    return dict(
        full=full_name(tiny),
        params=full.params,
        gmacs=round(full.macs / 1e9, 3),
        tiny_params=small.params,
        tiny_mmacs=round(small.macs / 1e6, 2),
    )


def frames_for(tiny: str) -> int:
    """An odd clip has a middle frame; V4D takes multiples of 4, TIN and TAM are built for the 8 they were
    made with."""
    return {"v4d": 12, "tin": 8, "tam": 8}.get(tiny.removeprefix("sda_").rsplit("_", 1)[0], 9)


@torch.no_grad()
def reach(tiny: str) -> dict[str, Any]:
    """Frames that a change of the middle one reaches; parameters are moved off their start, which hides
    some paths."""
    frames = frames_for(tiny)
    net = create_model(tiny, 5, frames).eval()
    for p in net.parameters():
        p += 0.05 * torch.randn_like(p)
    clips = torch.rand(1, frames, 3, 48, 48).repeat(2, 1, 1, 1, 1)
    clips[1, frames // 2] = torch.rand(3, 48, 48)
    felt = []

    def count(module: torch.nn.Module, args: tuple, y: torch.Tensor) -> None:
        first, second = y.unflatten(0, (2, frames))
        felt.append(int(((first - second).abs().flatten(1).amax(1) > 1e-6 * first.abs().max()).sum()))

    for stage in net.stages:
        getattr(net, stage).register_forward_hook(count)
    net(clips)
    return dict(reach_first=felt[0], reach_last=felt[-1], reach_frames=frames)


def order(tiny: str, runs: Path, clips: torch.Tensor, labels: list[int]) -> dict[str, Any]:
    """Accuracy of the trained network on ordered, shuffled (3 draws) and reversed frames, and how far its
    answer moves."""
    net = load_model(runs / f"{tiny}-s0" / "model.safetensors")
    y = torch.tensor(labels)
    intact = torch.from_numpy(softmax(logits_of(net, clips)))
    others = [
        torch.from_numpy(softmax(logits_of(net, clips, change)))
        for change in (reverse(), *(shuffle(s) for s in (0, 1, 2)))
    ]
    right = [(p.argmax(1) == y).float().mean().item() for p in (intact, *others)]
    moved = [(p - intact).abs().sum(1).mean().item() / 2 for p in others]
    return dict(
        ordered=round(right[0], 4),
        reversed=round(right[1], 4),
        shuffled=round(statistics.mean(right[2:]), 4),
        moved_by_reverse=round(moved[0], 5),
        moved_by_shuffle=round(statistics.mean(moved[1:]), 5),
        n=len(y),
    )


def turns(jobs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each job; all jobs take turns, so that a busy moment burdens many a little."""
    for job in jobs.values():
        job()
    seconds = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def forward_job(name: str) -> Callable[[], None]:
    """One clip of 8 x 224 x 224 through the ResNet-50 form."""
    net = create_model(full_name(name), 174).eval()
    clip = torch.rand(1, 8, 3, 224, 224)

    def job() -> None:
        with torch.no_grad():
            net(clip)

    return job


def step_job(name: str, batch: int = 16) -> Callable[[], None]:
    """Forward and backward of the tiny form on a batch of Moves' size, in bfloat16 as in the trainings."""
    net = create_model(name, 20)
    clips = torch.rand(batch, 8, 3, 64, 64)
    labels = torch.arange(batch)

    def job() -> None:
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = net(clips)
        main = out[0] if isinstance(out, tuple) else out
        F.cross_entropy(main.float(), labels).backward()

    return job


def speeds(repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Clips per second of both forms."""
    full = turns({n: forward_job(n) for n in TINY}, repeats)
    step = turns({n: step_job(n) for n in TINY}, repeats)
    for n in TINY:
        yield n, dict(forward_seconds=round(full[n], 4), train_clips_per_second=round(16 / step[n], 2))


def test_clips(data: Path, every: int) -> tuple[torch.Tensor, list[int]]:
    """One in so many clips of the test split, drawn from all classes, as the networks see it."""
    config = recipe("moves")
    test = open_dataset(make_moves(data), "test", config.sampling(), config.transform(), cache=True)
    some = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: len(test) // every]
    items = [test[int(i)] for i in some.sort().values]
    return torch.stack([item["clip"] for item in items]), [int(item["label"]) for item in items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part",
        nargs="+",
        choices=("cost", "reach", "order", "speed"),
        default=["cost", "reach", "order", "speed"],
        help="what to measure",
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of the speed measurement")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--every", type=int, default=2, help="order: take one test clip in so many")
    parser.add_argument("--data", type=Path, default=Path("sets/moves"), help="Moves, made when missing")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="trained networks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    old = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows = {n: next((r for r in old.get("rows", []) if r["model"] == n), {"model": n}) for n in TINY}
    for n in TINY:
        rows[n]["sda"] = any(isinstance(m, SDA) for m in create_model(n, 20).modules())
        if "cost" in options.part:
            rows[n] |= cost(n)
        if "reach" in options.part:
            rows[n] |= reach(n)
    if "order" in options.part:
        clips, labels = test_clips(options.data, options.every)
        for n in TINY:
            rows[n] |= order(n, options.runs, clips, labels)
    if "speed" in options.part:
        for n, row in speeds(options.repeats):
            rows[n] |= row
        old["threads"], old["repeats"] = options.threads, options.repeats
    save_record(
        new_record(
            "benchmark",
            model="all methods",
            name="methods",
            metrics={},
            device="cpu",
            threads=old.get("threads"),
            repeats=old.get("repeats"),
            rows=list(rows.values()),
        ),
        RECORD,
    )


if __name__ == "__main__":
    main()
