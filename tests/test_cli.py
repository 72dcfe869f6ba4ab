"""The command `sda`: its words, its errors, its exit status, and a training that is stopped and goes on."""
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sda
from sda.backbones import create_model
from sda.checkpoints import ModelCard, save_model
from sda.cli import COMMANDS, main, parse, should_cache
from sda.datasets import open_dataset, read_classes
from sda.demo import DemoConfig
from sda.sampling import Sampling
from sda.trainer import RECIPES, TrainConfig
from sda.transforms import TransformConfig

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data/moves_sample"
SETTINGS = {"train": (TrainConfig,), "demo": (DemoConfig,)}
PLACES = {"extract": ("source", "target"), "data": ("action", "name")}  # words without a name
CLIPS = sorted((SAMPLE / "img").glob("*.mp4"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    names = read_classes(SAMPLE / "category.txt")
    model = create_model("sda_tsn_tiny", len(names), dropout=0.0)
    card = ModelCard.of(model, names, transform=TransformConfig(size=64, resize=72).to_dict(),
                        sampling=Sampling().to_dict(), recipe={"recipe": "none", "seed": 0})
    return str(save_model(tmp_path_factory.mktemp("model") / "model.safetensors", model, card))


@pytest.fixture
def small_set(tmp_path):
    """A dataset with five training and five validation clips, taken from the sample."""
    root = tmp_path / "small set"
    (root / "trainValTest").mkdir(parents=True)
    (root / "img").symlink_to(SAMPLE / "img")
    (root / "category.txt").write_text((SAMPLE / "category.txt").read_text())
    lines = (SAMPLE / "trainValTest/test.txt").read_text().splitlines()
    for split in ("train", "val", "test"): (root / f"trainValTest/{split}.txt").write_text("\n".join(lines[:5]) + "\n")
    return root


def run(capsys, *words):
    """Exit status, stdout, stderr of a command in this process."""
    capsys.readouterr()
    status = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return status, out, err


def start(*words, **options):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "sda", *map(str, words)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"sda {sda.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "220")
    status, out, _ = run(capsys, name, "--help")
    assert status == 0 and COMMANDS[name].__doc__.split(":")[0] in out
    flat = re.sub(r"[│\s]+", " ", out).partition("show this help message and exit")[2]
    for option in {f.name.replace("_", "-") for cls in (COMMANDS[name], *SETTINGS.get(name, ()))
                   for f in dataclasses.fields(cls)} - {"config", "clips", "patterns", "model", *PLACES.get(name, ())}:
        text = re.search(rf"--(?:no-)?{option} (.*?)\(default", flat)
        words = text and re.sub(r"[A-Z]{3,}|\{.*?\}|[\[\]|]", "", text[1]).split()
        assert words and len(words) >= 2, f"--{option} has no sentence: {text}"


def test_every_setting_of_a_training_is_an_option():
    words = ["train"]
    for f in dataclasses.fields(TrainConfig):
        if f.type is int or f.type == "int": words += [f"--{f.name.replace('_', '-')}", "7"]
    config = parse(words).config
    assert {getattr(config, f.name) for f in dataclasses.fields(TrainConfig) if f.type in (int, "int")} == {7}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_the_defaults(name):
    assert parse(["train", "--recipe", name]).config == RECIPES[name]
    assert parse(["train", f"--recipe={name}", "--seed", "5"]).config == dataclasses.replace(RECIPES[name], seed=5)


@pytest.mark.parametrize(("name", "value", "bars"), [("CI", "true", False), ("TQDM_DISABLE", "1", False), ("CI", "", True)])
def test_no_progress_bars_where_nobody_watches(capsys, tmp_path, monkeypatch, name, value, bars):
    for other in ("CI", "TQDM_DISABLE"): monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    status, out, err = run(capsys, "moves", "--out", tmp_path / "set", "--train", "1", "--val", "0", "--test", "0")
    assert status == 0 and out.startswith("20 clips of 20 classes") and bool(err) == bars


def test_words_that_make_no_sense(capsys):
    for words, said in [(["tarin"], "tarin"), (["train", "--epoch", "3"], "--epochs"), (["profile"], "required"),
                        (["predict"], "at least one video"), (["models", "resnext"], "resnext"),
                        (["profile", "tsn_tiny", "--options", "reduction"], "name=value"),
                        (["train", "--epochs", "many"], "many")]:
        status, out, err = run(capsys, *words)
        assert status == 2 and said in out + err, words


@pytest.mark.parametrize(("words", "said"), [
    (["profile", "sda_tsn_tyni"], "sda_tsn_tiny"),
    (["train", "--recipe", "movse"], "did you mean 'moves'"),
    (["train", "--settings", "none.yaml"], "none.yaml"),
    (["train", "--data", "nowhere"], "nowhere"),
    (["train", "--out", "/dev/null/run"], "choose another folder"),
    (["test", "none.safetensors"], "none.safetensors"),
    (["demo", "--out", "/dev/null/demo"], "choose another folder"),
    (["moves", "--out", "/dev/null/moves", "--train", "1"], "/dev/null/moves"),
    (["predict", "x.mp4", "--model", "none.safetensors"], "none.safetensors"),
])
def test_errors_are_one_line_with_a_name(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 1 and said in err and err.count("\n") == 1 and "Traceback" not in err
    assert err.startswith(f"sda {words[0]}: ") and not out


def test_debug_shows_where():
    with pytest.raises(FileNotFoundError): main(["predict", "x.mp4", "--model", "none.safetensors", "--debug"])


def test_predict_lists_classes_of_every_clip(capsys, model_file):
    status, out, _ = run(capsys, "predict", *CLIPS[:2], "--model", model_file, "--top", "3")
    assert status == 0 and all(str(path) in out for path in CLIPS[:2])
    assert len(re.findall(r"^  +0\.\d{3}  \w", out, re.M)) == 6


def test_predict_json(capsys, model_file):
    status, out, _ = run(capsys, "predict", *CLIPS[:2], "--model", model_file, "--top", "20", "--json")
    rows = json.loads(out)["predictions"]
    assert status == 0 and len(rows) == 40
    assert sum(row["probability"] for row in rows) == pytest.approx(2, abs=1e-4)


def test_predict_names_the_broken_clip(capsys, model_file, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(CLIPS[0].read_bytes()[:300])
    status, out, err = run(capsys, "predict", CLIPS[0], tmp_path / "broken.mp4", "--model", model_file)
    assert status == 1 and "broken.mp4" in err and "Traceback" not in err and not out


def test_test_writes_logits_and_record(capsys, model_file, tmp_path):
    status, out, _ = run(capsys, "test", model_file, "--data", SAMPLE, "--out", tmp_path, "--quiet")
    assert status == 0 and "20 clips of moves_sample/test" in out and "motion" in out
    records = [json.loads(p.read_text()) for p in tmp_path.glob("*.json")]
    assert [r["metrics"]["n"] for r in records] == [20] and records[0]["dataset"] == "moves_sample"
    assert list(tmp_path.glob("*.npz"))


def test_models_shows_a_card(capsys, model_file):
    status, out, _ = run(capsys, "models", model_file)
    assert status == 0 and json.loads(out)["model"] == "sda_tsn_tiny"


def test_profile_counts_the_published_network(capsys):
    status, out, _ = run(capsys, "profile", "sda_tsn_resnet50")
    assert status == 0 and "25.77 M parameters, 33.71 G multiply-adds" in out


def test_train_reads_settings_and_options(capsys, small_set, tmp_path):
    (tmp_path / "run.yaml").write_text("epochs: 1\nbatch_size: 5\nlr: 1e-3\n")
    words = ["train", "--settings", tmp_path / "run.yaml", "--data", small_set, "--out", tmp_path / "run", "--cache", "no",
             "--options", "reduction=8", "--quiet"]
    status, out, err = run(capsys, *words)
    assert status == 0, err
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["config"]["lr"] == 1e-3 and record["options"]["reduction"] == 8
    status, out, _ = run(capsys, *words)
    assert status == 0 and "trained before" in out


def test_small_sets_are_cached_and_large_ones_are_not():
    data = open_dataset(SAMPLE, "test")
    need = sum(r.num_frames for r in data.records) * 72 * 72 * 3
    assert should_cache(data, need) and not should_cache(data, need - 1)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_so_and_goes_on(small_set, tmp_path, sent, status):
    out = tmp_path / "run"
    process = start("train", "--model", "tsn_tiny", "--data", small_set, "--out", out, "--epochs", "500", "--cache", "no")
    end = time.monotonic() + 60
    while not (out / "state.pt").exists() and process.poll() is None and time.monotonic() < end: time.sleep(.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in err, err
    assert (out / "state.pt").exists() and not (out / "record.json").exists()


def test_a_closed_pipe_is_no_error():
    process = start("models", "--cost")
    process.stdout.close()
    assert process.wait(60) == 0 and "Traceback" not in process.stderr.read()


def test_data_check_counts_faults_and_ends_with_status_one(capsys, small_set, monkeypatch):
    status, out, _ = run(capsys, "data", "check", small_set, "--quiet")  # the small set repeats its clips in all splits
    assert status == 1 and "not ready" in out and "in two splits" in out
    for split in ("val", "test"): (small_set / f"trainValTest/{split}.txt").unlink()
    monkeypatch.chdir(small_set.parent)
    status, out, _ = run(capsys, "data", "check", small_set.name, "--quiet")
    assert status == 0 and "ready" in out and "class names" in out
    with (small_set / "trainValTest/train.txt").open("a") as file: file.write("nowhere.mp4 24 0\n")
    status, out, _ = run(capsys, "data", "check", small_set, "--quiet")
    assert status == 1 and "missing: img/nowhere.mp4" in out and "nowhere" in (small_set / "check.txt").read_text()
    assert run(capsys, "data", "check", "nothing")[0] == 2


def test_videos_become_frames_lists_and_a_dataset(capsys, tmp_path):
    for k, clip in enumerate(CLIPS[:4]):
        (tmp_path / f"videos/class {k % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / f"videos/class {k % 2}")
    status, out, _ = run(capsys, "extract", tmp_path / "videos", tmp_path / "frames", "--height", "48", "--quiet")
    assert status == 0 and len(list((tmp_path / "frames").rglob("00001.jpg"))) == 4
    made = run(capsys, "data", "make", tmp_path / "set", "--media", tmp_path / "frames", "--quiet")
    assert made[0] == 0 and "class names" in made[1]
    assert run(capsys, "data", "check", tmp_path / "set", "--quiet")[0] == 0
    broken = tmp_path / "videos/class 0/zzz.mp4"
    broken.write_bytes(b"no video")
    status, out, _ = run(capsys, "extract", tmp_path / "videos", tmp_path / "frames", "--height", "48", "--quiet")
    assert status == 1 and "zzz.mp4" in out
