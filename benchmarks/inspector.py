"""Time to the first picture of the inspector: from a kept trace, and computed.

    python benchmarks/inspector.py [--repeats 3] [--threads 2]

Each turn is a process of its own, as a notebook's kernel is; imports are timed apart. Wall seconds and CPU
seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TURN = """
import json, sys, time
start = [time.perf_counter(), time.process_time()]
def passed():
    now = [time.perf_counter(), time.process_time()]
    spent = [a - b for a, b in zip(now, start)]
    start[:] = now
    return spent
import ipywidgets, sda.inspector.view
from sda.inspector import inspect_folder
found = {"import": passed()}
kept = {"trace": sys.argv[1]} if sys.argv[1] else {}
MODEL = "sda/assets/checkpoints/sda_tsn_moves.safetensors"
inspector = inspect_folder("sda/assets/moves_sample", MODEL, **kept)
inspector.png("strip")
found["strip"] = passed()
inspector.show()
found["whole panel"] = [a + b for a, b in zip(found["strip"], passed())]
print(json.dumps(found))
"""


def turn(trace, threads):
    """One process: {what: [wall seconds, CPU seconds]}, strip and panel counted from the call that opens."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TURN, trace], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main():
    """Take turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trace = str(Path(folder) / "trace.npz")
        turn(trace, options.threads)  # writes it, and warms the disk
        turns = [(turn("", options.threads), turn(trace, options.threads)) for _ in range(options.repeats)]
    for k, name in enumerate(("computed", "from a kept trace")):
        for what in ("import", "strip", "whole panel"):
            wall, cpu = (statistics.median(one[k][what][i] for one in turns) for i in (0, 1))
            print(f"{name:18} {what:12} {wall:6.2f} s wall {cpu:6.2f} s CPU")


if __name__ == "__main__":
    main()
