"""The demo from end to end on a few clips, and when it is repeated, changed, broken or stopped."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sda.commands.demo
from sda.commands.demo import (
    DemoConfig,
    Signatures,
    Step,
    demo_steps,
    run_demo,
    run_steps,
    same_frames_pairs,
)
from sda.commands.report import ModelScores, accuracy_rows
from sda.data.datasets import open_dataset
from sda.data.transforms import TransformConfig
from sda.foundation.errors import RunError
from sda.moves.classes import PAIRS
from sda.moves.render import render
from sda.networks.checkpoints import load_model
from sda.testing.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--epochs", "1", "--train", "2", "--val", "1", "--test", "1"]
CONFIG = DemoConfig(epochs=1, train=2, val=1, test=1)


def start(folder, *words):
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "TQDM_DISABLE")}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "sda", "demo", *SMALL, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=folder, env=env, text=True, **pipes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished demo: its folder, stdout and stderr."""
    folder = tmp_path_factory.mktemp("demo with blank")
    process = start(folder)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return folder, out, err


def steps_said(config):
    """Run the demo in this process; the lines it says."""
    said = []
    run_demo(config, said.append, progress=False)
    return said


def test_pairs_of_the_report_consist_of_the_same_frames():
    def frames(name):
        return sorted(frame.tobytes() for frame in render(name).frames)

    assert (
        same_frames_pairs() == [pair for pair in PAIRS if frames(pair[0]) == frames(pair[1])]
        and len(same_frames_pairs()) == 8
    )


def test_within_pairs_a_network_of_single_frames_is_at_chance():
    """The report says that such a network cannot tell such pairs apart: no pair that it can is averaged."""
    net = load_model(ROOT / "sda/assets/checkpoints/tsn_moves.safetensors")
    data = open_dataset(
        ROOT / "sda/assets/moves_sample", "test", "segments", TransformConfig.from_dict(net.card.transform)
    )
    tsn = ModelScores("TSN", evaluate(net, data, batch_size=10, progress=False))
    assert accuracy_rows([tsn], pairs=same_frames_pairs()).loc["TSN", "within pairs"] == 0.5
    assert accuracy_rows([tsn], pairs=PAIRS).loc["TSN", "within pairs"] > 0.5


@pytest.mark.slow
def test_demo_ends_in_a_report(done):
    folder, out, err = done
    assert out == "Report: runs/demo/report.html\n" and "Traceback" not in err
    page = (folder / "runs/demo/report.html").read_text(encoding="utf-8")
    for word in (
        "TSN",
        "SDA-TSN",
        "within pairs",
        "the mean over 8 pairs",
        "without S122",
        "Grad-CAM",
        "A weight is not an effect",
    ):
        assert word in page
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    files = [link for link in links if not link.startswith(("#", "data:image/png;base64,"))]
    assert len(files) == 12 and all((folder / "runs/demo" / name).is_file() for name in files)
    assert not re.search(r"https?://|/tmp/|/home/|/root/", re.sub(r"base64,[^\"]*", "", page))
    records = [json.loads(p.read_text()) for p in (folder / "runs/demo/records").iterdir()]
    assert {r["model"] for r in records} == {"tsn_tiny", "sda_tsn_tiny"} and all(
        r["metrics"]["n"] == 20 for r in records
    )


@pytest.mark.slow
def test_progress_of_both_trainings_is_shown(done):
    assert all(re.search(rf"train {name}: +\d+%", done[2]) for name in ("tsn_tiny", "sda_tsn_tiny"))


@pytest.mark.slow
def test_a_repeat_run_reuses_everything(done, monkeypatch):
    monkeypatch.chdir(done[0])
    assert [line.endswith("done before") for line in steps_said(CONFIG)] == [True] * 6


@pytest.mark.slow
def test_what_is_missing_is_done_again(done, monkeypatch):
    monkeypatch.chdir(done[0])
    page = Path("runs/demo/report.html")
    whole = page.read_bytes()
    page.unlink()
    monkeypatch.setattr(sda.commands.demo, "report", lambda config: page.write_bytes(whole))
    said = steps_said(CONFIG)
    assert [line.endswith("done before") for line in said] == [True] * 5 + [False, False]
    assert page.exists()


@pytest.mark.slow
def test_a_failing_training_is_named_and_nothing_goes_on(done, monkeypatch):
    monkeypatch.chdir(done[0])

    def out_of_memory(*args, **options):
        raise MemoryError("no memory")

    monkeypatch.setattr(sda.commands.demo, "train", out_of_memory)
    config = dataclasses.replace(CONFIG, epochs=2, out=Path("runs/other"), data=CONFIG.data_folder())
    with pytest.raises(RunError) as told:
        run_demo(config, lambda line: None, progress=False)
    assert told.value.subject == "tsn_tiny" and told.value.remedy
    assert isinstance(told.value.__cause__, MemoryError)
    assert not Path("runs/other/report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_stopped_training_goes_on_where_it_was(done, tmp_path):
    words = ["--out", str(tmp_path), "--data", str(CONFIG.data_folder())]
    process = start(done[0], *words, "--epochs", "900")
    end = time.monotonic() + 120
    while not (tmp_path / "tsn_tiny/state.pt").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from here" in err and "Traceback" not in err
    assert (tmp_path / "tsn_tiny/state.pt").exists(), "the training saved what it had"
    assert not json.loads((tmp_path / "steps/tsn_tiny.json").read_text())["done"]


def test_a_damaged_signature_is_not_believed(tmp_path):
    ran = []
    step = Step("one", "do one thing", {}, [], lambda: ran.append(1), "")
    for damage in (None, "", "[]", "{}"):
        if damage is not None:
            (tmp_path / "steps/one.json").write_text(damage)
        run_steps([step], Signatures(tmp_path))
    assert len(ran) == 4
    run_steps([step], Signatures(tmp_path))
    assert len(ran) == 4


def test_the_recipe_and_the_library_are_in_every_key(tmp_path, monkeypatch):
    def keys(**changes):
        return [s.key for s in demo_steps(DemoConfig(out=tmp_path, **changes), Signatures(tmp_path), False)]

    usual = keys()
    assert keys() == usual and keys(recipe="moves_fast_query")[0] == usual[0]
    assert all(a != b for a, b in zip(keys(recipe="moves_fast_query")[1:], usual[1:], strict=True))
    monkeypatch.setattr("sda.__version__", "9")
    assert all(a != b for a, b in zip(keys(), usual, strict=True))
