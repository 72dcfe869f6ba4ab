"""What questions to a network cost, in forward passes: `python benchmarks/questions.py`.

Every question is asked in two ways in turns, plainly (a whole pass for every change) and as the library
asks it, with plain passes between; medians are reported, and the multiply-adds of both in units of one pass.
Exactness is the largest difference of a probability between the two ways. `--error` measures how far the
first-order estimate is from the ablation that it foretells. The ResNet-50 has random weights: its selections
and answers are those of no trained network. Writes data/results/questions.json; a part that is measured
again replaces what was there; `--plainly` asks only some of the changes plainly, the others counting alike.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from sda.data.datasets import open_dataset  # noqa: E402
from sda.data.transforms import TransformConfig  # noqa: E402
from sda.explaining.answers import load_clips, logits_of, readings  # noqa: E402
from sda.explaining.effects import attribute, coalitions  # noqa: E402
from sda.explaining.interventions import drop, keep  # noqa: E402
from sda.explaining.variants import logits_under  # noqa: E402
from sda.foundation.runs import new_record, save_record  # noqa: E402
from sda.foundation.statistics import softmax  # noqa: E402
from sda.networks.backbones import create_model, sda_blocks  # noqa: E402
from sda.networks.blocks import DEPENDENCIES  # noqa: E402
from sda.networks.checkpoints import load_model  # noqa: E402
from sda.networks.cost import profile  # noqa: E402

ASSETS = ROOT / "sda/assets"
OUT = ROOT / "data/results/questions.json"
ERRORS = ("probability", "margin")  # readings that the estimate is judged by
SHIPPED = ("sda_tsn_moves", "sda_tsn_moves_fast_query")


def resnet() -> nn.Module:
    """SDA-TSM on ResNet-50 with random weights whose answers differ between clips and changes."""
    torch.manual_seed(0)
    net = create_model("sda_tsm_resnet50", 174)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    nn.init.normal_(net.fc.weight, std=0.05)
    return net.eval()


def subject(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network and the clips [N,T,3,H,W] it is asked about."""
    if name == "sda_tsm_resnet50":
        return resnet(), torch.randn(1, 8, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    net = load_model(ASSETS / f"checkpoints/{name}.safetensors")
    data = open_dataset(
        ASSETS / "moves_sample", "test", "segments", TransformConfig.from_dict(net.card.transform)
    )
    return net, load_clips(data)[0]


def questions(net: nn.Module) -> dict[str, list]:
    """Question -> its changes, () for the network as it is."""
    blocks = list(sda_blocks(net))
    deep = [drop(d, where=blocks[-2]) for d in DEPENDENCIES]
    return {
        "ablation, every block": [(), *(drop(d, where=b) for b in blocks for d in DEPENDENCIES)],
        "coalitions, all blocks": [(), *(keep(*some) for some in coalitions()[:-1])],
        f"interventions at {blocks[-2]}": [(), *deep, *(one.random(s) for one in deep for s in range(3))],
    }


def worth(net: nn.Module, clips: torch.Tensor, changes: list) -> float:
    """Multiply-adds of the changes in units of one pass: small frames through every block, counted."""
    table = profile(create_model(net.name, net.num_classes), clips.shape[-1], clips.shape[1]).per_block.macs
    seen = dict.fromkeys(table.index, 0)

    def note(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            seen[name] += len(output)

        return hook

    modules = {"stem": "conv1"} | {name: name for name in table.index if name != "stem"}
    handles = [net.get_submodule(part).register_forward_hook(note(name)) for name, part in modules.items()]
    try:
        logits_under(net, clips[..., :32, :32], changes)
    finally:
        for handle in handles:
            handle.remove()
    frames = clips.shape[0] * clips.shape[1]
    return sum(seen[name] / frames * macs for name, macs in table.items()) / table.sum()


def plain(net: nn.Module, clips: torch.Tensor, changes: list) -> np.ndarray:
    """Logits [D,N,K], a whole pass for every change."""
    return np.stack([logits_of(net, clips, *([] if one == () else [one])) for one in changes])


def timed(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each run, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def asked(name: str, question: str, repeats: int, plainly: int) -> dict:
    """One row: seconds, passes' worth and exactness of a question both ways."""
    net, clips = subject(name)
    clips = clips[:1]
    changes = questions(net)[question]
    some = changes[:: -(-len(changes) // plainly)] if plainly else changes
    logits_of(net, clips)
    found: dict[str, np.ndarray] = {}
    runs = {
        "one pass": lambda: logits_of(net, clips),
        "library": lambda: found.update(library=logits_under(net, clips, changes)),
        "one pass again": lambda: logits_of(net, clips),
        "plain": lambda: found.update(plain=plain(net, clips, some)),
    }
    seconds = timed(runs, repeats)
    one = statistics.mean([seconds.pop("one pass"), seconds.pop("one pass again")])
    seconds["plain"] *= len(changes) / len(some)  # every one of them is a whole pass
    same = [changes.index(change) for change in some]
    apart = np.abs(softmax(found["library"][same]) - softmax(found["plain"])).max()
    return {
        "network": name,
        "question": question,
        "changes": len(changes) - 1,
        "asked_plainly": len(some),
        "pass_s": round(one, 4),
        "seconds": {way: round(s, 3) for way, s in seconds.items()},
        "ratio": round(seconds["library"] / seconds["plain"], 3),
        "passes_of_time": {way: round(s / one, 1) for way, s in seconds.items()},
        "passes_of_multiply_adds": {
            "plain": len(changes),
            "library": round(worth(net, clips, changes), 2),
        },
        "largest_difference_of_a_probability": float(apart),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def errors_of(name: str) -> list[dict]:
    """How far the first-order estimate of all cells is from the ablation, for every reading of ERRORS."""
    net, clips = subject(name)
    changes = questions(net)["ablation, every block"]
    found: dict[str, np.ndarray] = {}
    runs = {
        "one pass": lambda: logits_of(net, clips),
        "ablation": lambda: found.update(logits=logits_under(net, clips, changes)),
        **{
            r: lambda r=r: found.update({r: attribute(net, clips, "first-order", reading=r).values})
            for r in ERRORS
        },
    }
    seconds = timed(runs, 1)
    rows = []
    for reading in ERRORS:
        read = readings(found["logits"], found["logits"][0].argmax(1))[reading]
        exact = (read[0] - read[1:]).T
        told = found[reading].reshape(exact.shape)
        pairs = list(zip(told, exact, strict=True))
        row = {
            "network": name,
            "reading": reading,
            "clips": len(clips),
            "cells": told.size,
            "correlation": round(float(np.corrcoef(told.ravel(), exact.ravel())[0, 1]), 3),
            "correlation_within_clips": round(
                float(np.nanmean([np.corrcoef(a, b)[0, 1] for a, b in pairs])), 3
            ),
            "largest_cell_agrees": round(float(np.mean([a.argmax() == b.argmax() for a, b in pairs])), 3),
            "mean_abs_error": float(f"{np.abs(told - exact).mean():.3g}"),
            "mean_abs_effect": float(f"{np.abs(exact).mean():.3g}"),
            "passes_of_time": {k: round(seconds[k] / seconds["one pass"], 1) for k in (reading, "ablation")},
        }
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print the rows, and put them into the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=[SHIPPED[0], "sda_tsm_resnet50"])
    parser.add_argument("--questions", default="", help="how the names of questions begin")
    parser.add_argument("--error", action="store_true", help="the error of the estimate, not the questions")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plainly", type=int, default=0, help="ask only so many changes plainly; 0: all")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    rows = {(r["network"], r["question"]): r for r in before.get("rows", [])}
    errors = {(r["network"], r["reading"]): r for r in before.get("errors", [])}
    for name in args.networks:
        if args.error:
            for row in errors_of(name):
                errors[name, row["reading"]] = row
                print(json.dumps(row, indent=1), flush=True)
            continue
        for question in questions(subject(name)[0]):
            if question.startswith(args.questions):
                rows[name, question] = asked(name, question, args.repeats, args.plainly)
                print(json.dumps(rows[name, question], indent=1), flush=True)
    save_record(
        new_record(
            "benchmark",
            model="sda_tsn_tiny, sda_tsm_resnet50",
            name="questions",
            metrics={},
            device="cpu",
            protocol="taken in turns, medians, float32, one clip; errors over the sample clips",
            threads=args.threads,
            rows=list(rows.values()),
            errors=list(errors.values()),
            command="python " + " ".join(["benchmarks/questions.py", *sys.argv[1:]]),
        ),
        OUT,
    )


if __name__ == "__main__":
    main()
