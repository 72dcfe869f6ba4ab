"""How cost grows: one curve for each thing that can grow, with its slope in a double logarithmic plot.

    python benchmarks/growth.py                       # everything, about ten minutes
    python benchmarks/growth.py --only frames batch   # some curves; the others stay in the record

A slope of 1 is linear: twice as much takes twice as long. It is that of a straight line through the upper
half of a curve, where fixed costs weigh little. Curves of a network are seconds of a forward pass, those of a
data set CPU seconds of a process of its own, with the memory that it took at most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(ROOT))

MODEL = "sda_tsn_resnet18"
NETWORK = {
    "frames": (4, 8, 16, 32, 64),  # of a clip of 112 pixels
    "batch": (1, 2, 4, 8, 16, 32),  # clips of 4 frames of 112 pixels
    "resolution": (112, 160, 224, 320),  # pixels a side, 4 frames; the curve is over pixels of a frame
    "classes": (10, 100, 1000),  # 4 frames of 112 pixels
}
CLIPS = (1_000, 10_000, 100_000, 1_000_000)  # lines of a list
PER_FILE = 100  # lines that share a video, as the actions of a kitchen video do
DATA = ("check", "open", "sampling", "predictions", "compare")


def slope(
    sizes: list[float],  # rising
    costs: list[float],  # of each, positive
) -> float:
    """The slope of the upper half of a curve, both axes logarithmic."""
    many = max(len(sizes) // 2 + 1, 2)
    return float(np.polyfit(np.log(sizes[-many:]), np.log(costs[-many:]), 1)[0])


def network_curves(names: list[str], repeats: int) -> dict[str, dict]:
    """Median seconds of a forward pass over each size, all curves taken in turns."""
    import torch

    from sda.foundation.devices import place_model
    from sda.networks.backbones import create_model

    torch.set_num_threads(1)
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    models = {k: place_model(create_model(MODEL, k), "cpu", "fp32") for k in {20, *NETWORK["classes"]}}

    def run(classes: int, batch: int, frames: int, side: int) -> Callable[[], object]:
        clips = torch.rand(batch, frames, 3, side, side)
        return lambda: models[classes](clips)

    for name in names:
        for size in NETWORK[name]:
            asked = {"classes": 20, "batch": 1, "frames": 4, "resolution": 112} | {name: size}
            runs[name, size] = run(*(asked[k] for k in ("classes", "batch", "frames", "resolution")))
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    with torch.inference_mode():
        for model in models.values():
            model.eval()
        for turn in range(repeats + 1):
            for key, forward in runs.items():
                start = time.perf_counter()
                forward()
                if turn:
                    seconds[key].append(time.perf_counter() - start)
    curves = {}
    for name in names:
        sizes = [float(s**2 if name == "resolution" else s) for s in NETWORK[name]]
        costs = [statistics.median(seconds[name, size]) for size in NETWORK[name]]
        curves[name] = {"sizes": list(NETWORK[name]), "seconds": costs, "slope": slope(sizes, costs)}
    return curves


def write_set(root: Path, lines: int) -> None:
    """A data set of many lines and few files: actions in long videos, with their beginnings."""
    (root / "img").mkdir(parents=True)
    (root / "trainValTest").mkdir()
    (root / "category.txt").write_text("".join(f"class {k}\n" for k in range(100)))
    files = max(lines // PER_FILE, 1)
    for k in range(files):
        (root / "img" / f"video{k:06d}.mp4").touch()
    (root / "trainValTest" / "train.txt").write_text(
        "".join(f"video{k % files:06d}.mp4 {8 * (k // files)} 8 {k % 100}\n" for k in range(lines))
    )


class Long:
    """Stands for an opened video: what opening costs is measured elsewhere."""

    def __init__(self, path: str):
        self.path = path

    def __len__(self) -> int:
        return 8 * PER_FILE


def check(root: Path, lines: int) -> Callable[[], object]:
    """`sda data check` over the lines, without opening the videos."""
    from sda.data.check import check_dataset

    return lambda: check_dataset(root, opener=Long).text()


def open_(root: Path, lines: int) -> Callable[[], object]:
    """A data set from its folder."""
    from sda.data.datasets import open_dataset

    return lambda: open_dataset(root, "train")


def sampling(root: Path, lines: int) -> Callable[[], object]:
    """The plan of an epoch with balanced classes, and the frames of every hundredth clip."""
    import torch

    from sda.data.datasets import clip_shares, epoch_plan
    from sda.data.sampling import Sampling

    frames = Sampling("segments", 8)
    some = torch.Generator().manual_seed(0)

    def run() -> object:
        shares = clip_shares([k % 100 for k in range(lines)], "balanced")
        plan = epoch_plan(lines, 32, shares=shares)
        return plan, [frames.indices(80, True, some) for _ in range(lines // 100)]

    return run


def scores(lines: int, seed: int) -> object:
    """Scores of one view and ten classes."""
    from sda.testing.predictions import Predictions

    rng = np.random.default_rng(seed)
    ids = [f"video{k:07d}.mp4" for k in range(lines)]
    return Predictions(ids, rng.normal(size=(lines, 10)), np.arange(lines) % 10, list("abcdefghij"))


def predictions(root: Path, lines: int) -> Callable[[], object]:
    """Scores are made, written, read and summed up."""
    from sda.testing.predictions import Predictions, by_class, summary

    def run() -> object:
        scores(lines, 0).save(root / "scores.npz", replace=True)
        found = Predictions.load(root / "scores.npz")
        return summary(found), by_class(found)

    return run


def compare_(root: Path, lines: int) -> Callable[[], object]:
    """Two sets of scores compared."""
    from sda.testing.compare import compare

    first = scores(lines, 0)
    second = scores(lines, 1)
    return lambda: compare(first, second)


def measure(name: str, lines: int) -> dict[str, float]:
    """CPU seconds and most memory of one step, in this process."""
    make = {"check": check, "open": open_, "sampling": sampling, "predictions": predictions}.get(
        name, compare_
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        if name in ("check", "open"):
            write_set(root, lines)
        run = make(root, lines)
        start = time.process_time()
        kept = run()
        seconds = time.process_time() - start
        del kept
    return {"seconds": seconds, "megabytes": most_memory() / 1024}


def most_memory() -> int:
    """Kilobytes that this process had at most; what `getrusage` says begins with those of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def data_curve(name: str, sizes: list[int]) -> dict[str, object]:
    """One curve of a data set, each point in a process of its own."""
    points = []
    for lines in sizes:
        words = [sys.executable, __file__, "--one", name, str(lines)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
        points.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = [point["seconds"] for point in points]
    return {
        "sizes": sizes,
        "seconds": seconds,
        "megabytes": [round(point["megabytes"]) for point in points],
        "slope": slope([float(s) for s in sizes], seconds),
    }


def main() -> None:
    """Measure, print the table, write the record."""
    from sda.foundation.runs import new_record, save_record

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*NETWORK, *DATA]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="curves to measure")
    parser.add_argument("--most", type=int, default=CLIPS[-1], help="lines of the longest list")
    parser.add_argument("--repeats", type=int, default=3, help="forward passes of each size")
    parser.add_argument("--one", nargs=2, metavar=("CURVE", "LINES"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/growth.json")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    curves = json.loads(args.out.read_text())["curves"] if args.out.exists() else {}
    curves |= network_curves([n for n in NETWORK if n in args.only], args.repeats)
    for name in DATA:
        if name in args.only:
            curves[name] = data_curve(name, [size for size in CLIPS if size <= args.most])
    for name in [n for n in names if n in curves]:
        curve = curves[name]
        told = "  ".join(f"{s:g}: {t:.3g} s" for s, t in zip(curve["sizes"], curve["seconds"], strict=True))
        most = f"  {curve['megabytes'][-1]} MB" if "megabytes" in curve else ""
        print(f"{name:12s} slope {curve['slope']:5.2f}  {told}{most}")
    record = new_record(
        "benchmark",
        model=MODEL,
        name="growth",
        metrics={},
        device="cpu",
        curves=curves,
        repeats=args.repeats,
        protocol="forward passes taken in turns, medians, one thread; lists each in a process of its own",
        command="python benchmarks/growth.py",
    )
    save_record(record, args.out)


if __name__ == "__main__":
    main()
