"""Time and memory of the SDA block, published form against exported form: `python benchmarks/blocks.py`.

Both forms run the same weights and the same clip in turns, so that a busy machine burdens both; medians are
reported. Writes data/results/bench_blocks.json. Memory is what autograd saves for backward: unique
storages, parameters left out.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from naive import naive_sda  # noqa: E402

from sda.foundation.runs import new_record, save_record  # noqa: E402
from sda.networks.blocks import SDA  # noqa: E402

SIZES = (
    (64, 56),
    (128, 28),
    (256, 14),
    (512, 7),
)  # channels, height and width of the four stages at 224 pixels


def saved_bytes(forward: Callable[[], torch.Tensor], block: torch.nn.Module) -> int:
    """Bytes of the storages that one forward pass saves for backward, each counted once, parameters not at
    all."""
    sizes = {}
    own = {p.untyped_storage().data_ptr() for p in block.parameters()}

    def keep(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = forward()
    del out
    return sum(n for pointer, n in sizes.items() if pointer not in own)


def milliseconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each run, taken in turns after one round of warm-up."""
    times = {name: [] for name in runs}
    for k in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if k:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def measure(channels: int, size: int, clips: int, frames: int, repeats: int) -> dict:
    """One row: naive and exported, forward and forward with backward, and memory."""
    torch.manual_seed(0)
    block = SDA(channels, frames)
    x = torch.randn(clips * frames, channels, size, size, requires_grad=True)
    grad = torch.randn_like(x)
    forms = {"naive": lambda: naive_sda(block, x, frames), "exported": lambda: block(x, frames)}
    row = {
        "channels": channels,
        "size": size,
        "clips": clips,
        "frames": frames,
        "threads": torch.get_num_threads(),
    }
    with torch.no_grad():
        times = milliseconds(forms, repeats)
    both = milliseconds({name: lambda f=f: f().backward(grad) for name, f in forms.items()}, repeats)
    memory = {name: saved_bytes(f, block) / 2**20 for name, f in forms.items()}
    for label, values in (("forward_ms", times), ("both_ms", both), ("saved_mib", memory)):
        row[label] = {name: round(v, 2) for name, v in values.items()}
        row[label]["ratio"] = round(values["exported"] / values["naive"], 3)
    return row


def main() -> None:
    """Measure, print the table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--clips", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/bench_blocks.json")
    args = parser.parse_args()
    print("threads clips  block      forward ms          forward+backward ms  saved for backward MiB")
    rows = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for clips in args.clips:
            for channels, size in SIZES:
                row = measure(channels, size, clips, 8, args.repeats)
                rows.append(row)
                cells = "  ".join(
                    "{naive:7.1f} > {exported:6.1f} {ratio:4.2f}".format(**row[k])
                    for k in ("forward_ms", "both_ms", "saved_mib")
                )
                print(f"{threads:7d} {clips:5d}  {channels:3d}/{size:<3d}{cells}", flush=True)
    save_record(
        new_record(
            "benchmark",
            model="SDA",
            name="blocks",
            metrics={},
            device="cpu",
            repeats=args.repeats,
            protocol="interleaved, median, float32, training mode",
            rows=rows,
            command="python " + " ".join(["benchmarks/blocks.py", *sys.argv[1:]]),
        ),
        args.out,
    )


if __name__ == "__main__":
    main()
