"""How long people wait in the inspector: for the first picture, for an answer, for all answers.

    python benchmarks/inspector.py [--repeats 3] [--threads 2] [--resnet]

Each turn is a process of its own, as a notebook's kernel is; imports are timed apart. Wall seconds and CPU
seconds. What a click costs inside the browser is measured by tests/browser.
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
import anywidget, av, gc, matplotlib.figure, sda.inspector.view, sda.inspector.app
from sda import inspect
from sda.inspector.edits import edit
trace, resnet = sys.argv[1], sys.argv[2] == "resnet"
from sda.assets import GATED_MODEL as MODEL
gc.collect()  # what imports leave behind is looked through once, at any time
kept = {"trace": trace} if trace else {}
model = MODEL
if resnet:
    from sda.networks.backbones import create_model
    from sda.networks.checkpoints import ModelCard
    model = create_model("sda_tsn_resnet50", 174, 8)
    names = [f"class {k}" for k in range(174)]
    sampling = {"strategy": "segments", "num_frames": 8, "views": 1}
    frames = {"size": 224, "resize": 256}
    model.card = ModelCard("sda_tsn_resnet50", model.options, 174, 8, names, frames, sampling)
clips = [f"sda/assets/moves_sample/img/test_0000_{name}.mp4" for name in ("shake", "up")]
found = {"import": passed()}
inspector = inspect(model, clips if resnet else "sda/assets/moves_examples", **kept)
inspector.show()
found["first picture"] = passed()
inspector.png()
found["picture for readers without scripts"] = passed()
work = inspector.view.background
while "first" in work.jobs:
    work.step()
    if inspector.view.panel.progress and "losses" not in found:
        found["losses"] = passed()  # the first of them, estimated or measured
found["losses"] = found.get("losses", [0, 0])
found["all losses, finding"] = passed()
inspector.state.edits = [edit("weight", 1, 1, 0.77)]
found["an answer that nobody foresaw"] = passed()
if not resnet:
    while "more" in work.jobs:
        work.step()
    found["all answers"] = passed()
print(json.dumps(found))
"""


def turn(trace, threads, network=""):
    """One process: {what: [wall seconds, CPU seconds]}."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TURN, trace, network]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Take turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resnet", action="store_true", help="a ResNet-50 with random weights instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trace = str(Path(folder) / "trace.npz")
        kinds = {"computed": ("", "")}
        if options.resnet:
            kinds = {"ResNet-50": ("", "resnet")}
        else:
            turn(trace, options.threads)  # writes it, and warms the disk
            kinds["from a kept trace"] = (trace, "")
        rounds = range(options.repeats)
        turns = [{n: turn(t, options.threads, net) for n, (t, net) in kinds.items()} for _ in rounds]
    for name in kinds:
        for what in turns[0][name]:
            wall, cpu = (statistics.median(one[name][what][i] for one in turns) for i in (0, 1))
            print(f"{name:18} {what:36} {wall:6.2f} s wall {cpu:6.2f} s CPU")


if __name__ == "__main__":
    main()
