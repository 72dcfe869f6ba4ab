"""Time and memory of a training step in the real shape: `python benchmarks/steps.py`.

Synthetic clips of 8 x 224 x 224 through ResNet-50, with the recipes' own optimisers, in float32 and
bfloat16, compiled or not, on the CPU and on CUDA when there is one. Every measurement is a process of its
own, so that its peak memory is its own. Compiled, only the first recipe is measured: compiling takes
minutes. Writes data/results/bench_steps.json.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sda.foundation.runs import new_record, save_record  # noqa: E402
from sda.networks.backbones import create_model  # noqa: E402
from sda.training.norms import training_mode  # noqa: E402
from sda.training.recipes import recipe  # noqa: E402
from sda.training.step import TrainingStep  # noqa: E402

RECIPES = (
    "paper_something",
    "paper_something_tsm",
    "finetune_small",
)  # the others differ in data, not in the step
MODELS = {"paper_something": "sda_tsm_{}", "paper_something_tsm": "tsm_{}", "finetune_small": "sda_tsn_{}"}


def peak_mib(device: str) -> float:
    """Most memory in use so far, MiB: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(job: dict) -> dict:
    """One measurement, in this process: seconds per step (median), seconds of the first, peak memory."""
    torch.set_num_threads(job["threads"])
    config = recipe(
        job["recipe"],
        batch_size=job["clips"],
        precision=job["precision"],
        compile=job["compile"],
        device=job["device"],
        pretrained=False,
        num_workers=0,
        threads=job["threads"],
    )
    torch.manual_seed(0)
    model = create_model(job["model"], 174, config.num_frames, dropout=config.dropout)
    batch = {
        "clip": torch.randn(job["clips"], config.num_frames, 3, job["size"], job["size"]),
        "label": torch.arange(job["clips"]) % 174,
        "id": [str(i) for i in range(job["clips"])],
    }
    before = peak_mib("cpu")
    update = TrainingStep(config, model)
    training_mode(model, config.partial_bn)
    times = []
    for _ in range(job["steps"] + 1):
        start = time.perf_counter()
        result = update([batch], job["clips"], 0.01)
        if job["device"] == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return job | {
        "first_s": round(times[0], 3),
        "step_s": round(statistics.median(times[1:]), 3),
        "peak_mib": round(peak_mib(job["device"])),
        "before_mib": round(before),
        "loss": round(float(result.sums[0]), 3),
    }


def run(job: dict, limit: int) -> dict:
    """The measurement in a process of its own; what stops it is written into the row."""
    if (
        job["compile"]
        and job["device"] == "cpu"
        and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    ):
        return job | {
            "failed": "torch.compile on a CPU needs a C++ compiler (g++ or clang++), and there is none here"
        }
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return job | {"failed": f"not done after {limit} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.strip().splitlines()
    return job | {
        "failed": said[-1][:200] if said else f"ended with {done.returncode}, out of memory perhaps"
    }


def jobs(args: argparse.Namespace) -> list[dict]:
    """All combinations that were asked for."""
    devices = args.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        dict(
            recipe=r,
            model=MODELS[r].format(args.backbone),
            device=d,
            precision=p,
            compile=c,
            clips=args.clips,
            size=args.size,
            steps=args.steps,
            threads=args.threads,
        )
        for d in devices
        for r in args.recipes
        for c in (False, True)[: 1 + args.compile]
        for p in args.precisions
        if not c or r == args.recipes[0]
    ]


def main() -> None:
    """Measure, print the table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--devices", nargs="+", help="default: cpu, and cuda where there is one")
    parser.add_argument("--backbone", default="resnet50", help="tiny for a trial")
    parser.add_argument("--clips", type=int, default=2, help="clips per step")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=3, help="after one of warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--limit", type=int, default=240, help="seconds for one measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/bench_steps.json")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        return print(json.dumps(measure(json.loads(args.job))))
    rows = []
    for job in jobs(args):
        rows.append(row := run(job, args.limit))
        found = row.get("failed") or "{step_s:8.2f} s/step  {first_s:8.2f} s first  {peak_mib:6d} MiB".format(
            **row
        )
        print(
            "{recipe:20} {model:14} {device:4} {precision:4} {0:8} ".format(
                "compiled" if row["compile"] else "plain", **row
            ),
            found,
            flush=True,
        )
    save_record(
        new_record(
            "benchmark",
            model=args.backbone,
            name="steps",
            metrics={},
            rows=rows,
            protocol=f"one process a measurement, median of {args.steps} steps after one of warm-up, "
            f"random clips of 8 x {args.size} x {args.size}, 174 classes",
            command="python " + " ".join(["benchmarks/steps.py", *sys.argv[1:]]),
        ),
        args.out,
    )


if __name__ == "__main__":
    main()
