"""The command of one process, with `torchrun` in front, and from a notebook's launcher: the same run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sda.commands.main import main

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sda/assets/moves_sample"
WORDS = [
    "train",
    "--recipe",
    "moves",
    "--model",
    "sda_tsm_tiny",
    "--epochs",
    "1",
    "--batch-size",
    "4",
    "--num-frames",
    "4",
    "--size",
    "48",
    "--optimizer",
    "sgd",
    "--lr",
    "0.01",
    "--schedule",
    "constant",
    "--warmup",
    "0",
    "--sync-bn",
    "--device",
    "cpu",
    "--cache",
    "no",
    "--quiet",
]
LAUNCH = """
import socket, sys
import torch
torch.set_num_threads(1)
import sda.commands.main
from accelerate import notebook_launcher
with socket.socket() as free: free.bind(("127.0.0.1", 0)); port = str(free.getsockname()[1])
notebook_launcher(sda.commands.main.main, (sys.argv[1:],), num_processes=2, use_port=port)
"""
STARTS = {
    "notebook_launcher": ["-c", LAUNCH],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "sda"],
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The words of a command, and the folder of the run that one process makes of them."""
    root = tmp_path_factory.mktemp("machines")
    (root / "trainValTest").mkdir(parents=True)
    (root / "img").symlink_to(SAMPLE / "img")
    (root / "category.txt").write_text((SAMPLE / "category.txt").read_text())
    lines = (SAMPLE / "trainValTest/test.txt").read_text().splitlines()
    for split, part in (("train", lines[:8]), ("val", lines[8:13])):
        (root / f"trainValTest/{split}.txt").write_text("\n".join(part) + "\n")
    words = [*WORDS, "--data", str(root)]
    assert main([*words, "--out", str(root / "alone")]) == 0
    return words, root / "alone"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("start", STARTS)
def test_two_processes_train_like_one(alone, start, tmp_path):
    """`sda train` on two processes: both are there, one writes and talks, the weights are those of one."""
    words, first = alone
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *STARTS[start], *words, "--out", str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("validation accuracy") == done.stdout.count("learning rate 0.01, taken") == 1
    one, two = (json.loads((folder / "record.json").read_text()) for folder in (first, tmp_path))
    assert (one["num_processes"], two["num_processes"]) == (1, 2) and one["metrics"]["val_top1"] == two[
        "metrics"
    ]["val_top1"]
    one, two = (load_file(folder / "model.safetensors") for folder in (first, tmp_path))
    for name, value in one.items():
        # one process sums variances channels last in float32, two gather them: 4e-5 apart after two steps
        assert torch.allclose(two[name], value, rtol=0, atol=1e-4), name
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in first.iterdir())
