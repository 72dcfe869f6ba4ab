"""The command `sda`: its words, its errors, its exit status, and a training that is stopped and goes on."""

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tqdm import tqdm
from warm_kernels import command

import sda
import sda.commands.test
import sda.networks.checkpoints
import sda.testing.evaluate
import sda.testing.results
from sda.assets import shipped
from sda.commands.demo import DemoConfig
from sda.commands.main import COMMANDS, command_class, main, parse
from sda.commands.show import count
from sda.commands.terminal import safe_streams
from sda.data.lists import read_classes
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.data.video import open_video
from sda.foundation.files import lock
from sda.foundation.runs import load_records, new_record, write_record
from sda.inspector import inspect
from sda.inspector.page import Inspection
from sda.networks.backbones import create_model
from sda.networks.checkpoints import ModelCard, load_model, save_model
from sda.testing.compare import ensemble
from sda.testing.evaluate import predict
from sda.testing.predictions import Predictions
from sda.training.config import TrainConfig
from sda.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sda/assets/moves_sample"
SETTINGS = {"train": (TrainConfig,), "demo": (DemoConfig,)}
PLACES = {
    "extract": ("source", "target"),
    "data": ("action", "name"),
    "test": ("models",),
    "app": ("folder",),
}  # words without a name
CLIPS = sorted((SAMPLE / "img").glob("*.mp4"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    names = read_classes(SAMPLE / "category.txt")
    model = create_model("sda_tsn_tiny", len(names), dropout=0.0)
    card = ModelCard.of(
        model,
        names,
        transform=TransformConfig(size=64, resize=72).to_dict(),
        sampling=Sampling().to_dict(),
        recipe={"recipe": "none", "seed": 0},
    )
    return str(save_model(tmp_path_factory.mktemp("model") / "model.safetensors", model, card))


@pytest.fixture
def small_set(tmp_path):
    """A dataset with five training and five validation clips, taken from the sample."""
    root = tmp_path / "small set"
    (root / "trainValTest").mkdir(parents=True)
    (root / "img").symlink_to(SAMPLE / "img")
    (root / "category.txt").write_text((SAMPLE / "category.txt").read_text())
    lines = (SAMPLE / "trainValTest/test.txt").read_text().splitlines()
    for split in ("train", "val", "test"):
        (root / f"trainValTest/{split}.txt").write_text("\n".join(lines[:5]) + "\n")
    return root


def run(capsys, *words):
    """Exit status, stdout, stderr of a command in this process."""
    capsys.readouterr()
    status = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return status, out, err


def kept_by(folder, model="sda_tsn_tiny"):
    """The one record of a network (or of an ensemble) in a folder, and its scores, found by its name."""
    [file] = [p for p in folder.glob("*.json") if json.loads(p.read_text())["model"] == model]
    return json.loads(file.read_text()), Predictions.load(file.with_suffix(".npz"))


@pytest.fixture
def start(warm):
    """Start the command in a process of its own."""

    def process(*words, **variables):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
        line = [*command(warm), *map(str, words)]
        return subprocess.Popen(line, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return process


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"sda {sda.__version__}\n", "")


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_what_needs_no_network_is_instant(word):
    """Nothing heavy is imported, so that half a CPU second is plenty."""
    code = f"""
import sys, time
from sda.commands.main import main
status = main([{word!r}])
heavy = {{"torch", "numpy", "pandas", "accelerate", "tyro", "matplotlib"}} & set(sys.modules)
print(status, sorted(heavy), time.process_time() < 0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 [] True", done.stdout + done.stderr


def test_predicting_imports_nothing_heavy_that_it_does_not_use():
    """Each of these takes as long to import as the whole answer takes to find."""
    clip = ROOT / "sda/assets/moves_sample/img/test_0000_closer.mp4"
    code = f"""
import sys
from sda.commands.main import main
status = main(["predict", {str(clip)!r}])
heavy = {{"torchvision", "torch._dynamo", "sympy", "pandas", "scipy", "matplotlib", "accelerate", "jinja2",
         "huggingface_hub", "IPython", "nbdev"}}
print(status, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_the_help_of_the_command_names_every_subcommand(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0 and all(f"  {name} " in out for name in COMMANDS)
    assert run(capsys) == (status, out, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "220")
    status, out, _ = run(capsys, name, "--help")
    made = command_class(name)
    assert status == 0 and re.split("[:\n]", made.__doc__)[0] in out
    assert made.__doc__.startswith(COMMANDS[name].help), "the line in sda --help"
    flat = re.sub(r"[│\s]+", " ", out).partition("show this help message and exit")[2]
    for option in {
        f.name.replace("_", "-") for cls in (made, *SETTINGS.get(name, ())) for f in dataclasses.fields(cls)
    } - {"config", "clips", "patterns", "model", *PLACES.get(name, ())}:
        text = re.search(rf"--(?:no-)?{option} (.*?)\(default", flat)
        words = text and re.sub(r"[A-Z]{3,}|\{.*?\}|[\[\]|]", "", text[1]).split()
        assert words and len(words) >= 2, f"--{option} has no sentence: {text}"


def test_every_setting_of_a_training_is_an_option():
    words = ["train"]
    for f in dataclasses.fields(TrainConfig):
        if f.type is int or f.type == "int":
            words += [f"--{f.name.replace('_', '-')}", "7"]
    config = parse(words).config
    assert {getattr(config, f.name) for f in dataclasses.fields(TrainConfig) if f.type in (int, "int")} == {7}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_the_defaults(name):
    assert parse(["train", "--recipe", name]).config == RECIPES[name]
    assert parse(["train", f"--recipe={name}", "--seed", "5"]).config == dataclasses.replace(
        RECIPES[name], seed=5
    )


@pytest.mark.parametrize(
    ("name", "value", "bars"), [("CI", "true", False), ("TQDM_DISABLE", "1", False), ("CI", "", True)]
)
def test_no_progress_bars_where_nobody_watches(capsys, tmp_path, monkeypatch, name, value, bars):
    for other in ("CI", "TQDM_DISABLE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    status, out, err = run(
        capsys, "moves", "--out", tmp_path / "set", "--train", "1", "--val", "0", "--test", "0"
    )
    assert status == 0 and out.startswith("20 clips of 20 classes") and bool(err) == bars


def test_words_that_make_no_sense(capsys):
    for words, said in [
        (["tarin"], "tarin"),
        (["train", "--epoch", "3"], "--epochs"),
        (["profile"], "required"),
        (["predict"], "at least one video"),
        (["models", "resnext"], "resnext"),
        (["profile", "tsn_tiny", "--options", "reduction"], "name=value"),
        (["train", "--epochs", "many"], "many"),
        (["test"], "at least one model"),
        (["predict", "a.mp4", "--window", "-1"], "--window -1"),
        (["inspect"], "at least one video"),
        (["inspect", "a.mp4", "--draws", "0"], "--draws 0"),
        (["table", "--records", "none"], "none"),
        (["test", "a", "b", "--weights", "1"], "1 weights for 2"),
        (["test", "a", "--compare", "none.npz"], "no file none.npz"),
    ]:
        status, out, err = run(capsys, *words)
        assert status == 2 and said in out + err, words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["profile", "sda_tsn_tyni"], "sda_tsn_tiny"),
        (["train", "--recipe", "movse"], "did you mean 'moves'"),
        (["train", "--settings", "none.yaml"], "none.yaml"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--out", "/dev/null/run"], "choose another name"),
        (["test", "none.safetensors"], "none.safetensors"),
        (["table", "--records", ".", "--dataset", "something"], "no records of tests"),
        (["table", "--records", ".", "--published", "--dataset", "something"], "something-v1"),
        (["train", "--dry-run", "--data", "nowhere"], "nowhere"),
        (["demo", "--out", "/dev/null/demo"], "choose another name"),
        (["moves", "--out", "/dev/null/moves", "--train", "1"], "/dev/null/moves"),
        (["predict", "x.mp4", "--checkpoint", "none.safetensors"], "none.safetensors"),
        (["inspect", "x.mp4", "--checkpoint", "none.safetensors"], "none.safetensors"),
    ],
)
def test_errors_are_one_line_with_a_name(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 1 and said in err and err.count("\n") == 1 and "Traceback" not in err
    assert err.startswith(f"sda {words[0]}: ") and not out


def test_debug_shows_where():
    with pytest.raises(FileNotFoundError):
        main(["predict", "x.mp4", "--checkpoint", "none.safetensors", "--debug"])


def test_predict_lists_classes_of_every_clip(capsys, model_file):
    status, out, _ = run(capsys, "predict", *CLIPS[:2], "--checkpoint", model_file, "--top", "3")
    assert status == 0 and all(str(path) in out for path in CLIPS[:2])
    assert len(re.findall(r"^  +0\.\d{3}  \w", out, re.M)) == 6


def test_the_model_file_has_one_name(capsys, monkeypatch, model_file):
    """--checkpoint wherever a model file is an option; --model, once its name in sda predict, still works."""
    monkeypatch.setenv("COLUMNS", "220")
    for name in ("predict", "inspect"):
        _, out, _ = run(capsys, name, "--help")
        assert out.count("--checkpoint") == 1 and out.count("--model") == (name == "predict")
    told = [
        run(capsys, "predict", CLIPS[0], *words)
        for words in (["--checkpoint", model_file], ["--model", model_file], [f"--model={model_file}"])
    ]
    assert told[0][0] == 0 and told[0][1] and told == told[:1] * 3
    assert parse(["train", "--model", "tsn_tiny"]).model == "tsn_tiny", "there it is the name of a network"
    assert run(capsys, "inspect", CLIPS[0], "--model", model_file)[0] == 2


def test_predict_takes_folders_and_says_who_answers(capsys, model_file, tmp_path):
    """A folder of videos, of frames, or of both below; the same clip named twice is answered once."""
    videos = tmp_path / "some videos/of today"
    videos.mkdir(parents=True)
    shutil.copy(CLIPS[0], videos / "a.mp4")
    shutil.copy(CLIPS[1], videos / "B.MP4")
    (videos / "notes.txt").write_text("no video")
    (videos / ".hidden.mp4").write_bytes(b"")
    frames = tmp_path / "some videos/frames"
    frames.mkdir()
    for k, frame in enumerate(open_video(CLIPS[2]).frames(list(range(10)))):
        Image.fromarray(frame.numpy()).save(frames / f"{k:03d}.png")
    (tmp_path / "nothing").mkdir()
    words = ("--checkpoint", model_file, "--top", "1", "--quiet", "--json")
    status, out, _ = run(capsys, "predict", videos.parent, videos / "a.mp4", *words)
    told = json.loads(out)
    assert status == 0 and told["network"] == "sda_tsn_tiny"
    assert [row["video"] for row in told["predictions"]] == [
        str(frames),
        str(videos / "B.MP4"),
        str(videos / "a.mp4"),
    ]
    assert "20 classes of drawn clips" in told["about"]
    status, out, _ = run(capsys, "predict", videos, tmp_path / "nothing", *words)
    assert status == 1 and list(json.loads(out)["failed"]) == [str(tmp_path / "nothing")]
    assert predict(videos, model_file, top=1).video.tolist() == [str(videos / "B.MP4"), str(videos / "a.mp4")]
    assert "video" not in predict(frames, model_file, top=1)


def test_no_name_steers_the_terminal(capsys, model_file, tmp_path):
    """Escapes in the names of files and classes, in answers, errors, warnings and JSON."""
    wicked = "a\x1b]0;owned\x07\x9b31m\u202e"
    net = load_model(model_file)
    names = [f"{wicked}{k}" for k in range(20)]
    card = dataclasses.replace(net.card, class_names=names)
    model = save_model(tmp_path / f"{wicked}.safetensors", net, card)
    clip = tmp_path / f"{wicked}.mp4"
    shutil.copy(CLIPS[0], clip)
    broken = tmp_path / f"{wicked} broken.mp4"
    broken.write_bytes(b"no video")
    for words in ((), ("--json",)):
        _, out, err = run(capsys, "predict", clip, broken, "--checkpoint", model, *words)
        assert not set("\x1b\x07\x9b\u202e") & set(out + err) and "\\u001b" in out and "\\u001b" in err
    assert json.loads(out)["predictions"][0]["class"] in names, "and JSON still says what it was"
    _, out, err = run(
        capsys, "inspect", clip, broken, "--checkpoint", model, "--out", tmp_path / "x.html", "--draws", 1
    )
    assert not set("\x1b\x07\x9b\u202e") & set(out + err)
    _, out, err = run(capsys, wicked)
    assert not set("\x1b\x07\x9b\u202e") & set(out + err)


def test_progress_bars_go_back_to_the_start_of_their_line(capsys):
    with safe_streams():
        for _ in tqdm(range(3), desc="outer", mininterval=0, disable=False):
            for _ in tqdm(range(2), desc="inner", mininterval=0, leave=False, disable=False):
                tqdm.write("said\x1b[2J", file=sys.stderr)
    _, err = capsys.readouterr()
    assert "\router" in err and "said\\u001b[2J\n" in err and "\\u000d" not in err


def test_predict_json(capsys, model_file):
    status, out, _ = run(capsys, "predict", *CLIPS[:2], "--checkpoint", model_file, "--top", "20", "--json")
    rows = json.loads(out)["predictions"]
    assert status == 0 and len(rows) == 40
    assert sum(row["probability"] for row in rows) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("window", [[], ["--window", "8"]])
def test_a_broken_clip_does_not_cost_the_others_their_answer(capsys, model_file, tmp_path, window):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(CLIPS[0].read_bytes()[:300])
    words = ["--checkpoint", model_file, *window, "--quiet"]
    _, alone, _ = run(capsys, "predict", CLIPS[0], CLIPS[1], *words)
    status, out, err = run(capsys, "predict", CLIPS[0], broken, CLIPS[1], tmp_path / "gone.mp4", *words)
    assert status == 1 and out == alone and "Traceback" not in err
    assert str(broken) in err and "gone.mp4" in err and "2 of 4 answered" in err
    status, out, err = run(capsys, "predict", CLIPS[0], broken, *words, "--json")
    told = json.loads(out)
    assert status == 1 and list(told["failed"]) == [str(broken)]
    assert {row["video"] for row in told["predictions"]} == {str(CLIPS[0])}


def test_test_writes_logits_and_record(capsys, model_file, tmp_path):
    status, out, _ = run(capsys, "test", model_file, "--data", SAMPLE, "--out", tmp_path, "--quiet")
    assert status == 0 and "20 clips of moves_sample/test" in out and "motion" in out
    records = [json.loads(p.read_text()) for p in tmp_path.glob("*.json")]
    assert [r["metrics"]["n"] for r in records] == [20] and records[0]["dataset"] == "moves_sample"
    record, scores = kept_by(tmp_path)
    [table] = tmp_path.glob("*-clips.csv")
    clips = pd.read_csv(table)
    assert clips["clip"].tolist() == scores.ids and clips.right.mean() == record["metrics"]["top1"]
    assert {
        p.name.removeprefix(table.name.removesuffix("-clips.csv"))[:1] for p in tmp_path.iterdir()
    } == set(".-")


def test_the_same_test_again_overwrites_nothing(capsys, small_set, tmp_path):
    """The scores that a test is compared with lie where its own go, under the same model, split and views."""
    names = read_classes(SAMPLE / "category.txt")
    card = {"transform": TransformConfig(size=64, resize=72).to_dict(), "sampling": Sampling().to_dict()}
    out = tmp_path / "out"
    list_file = small_set / "trainValTest/test.txt"
    list_file.write_text(list_file.read_text().splitlines()[0] + "\n")
    label = int(list_file.read_text().split()[-1])
    for name, answer in (("poor", (label + 1) % 20), ("good", label)):
        net = create_model("tsn_tiny", 20, dropout=0.0)
        weights = net.state_dict()
        bias = next(k for k in reversed(weights) if k.endswith("bias"))
        weights[bias] = torch.full((20,), -100.0)
        weights[bias][answer] = 100.0
        net.load_state_dict(weights)
        save_model(tmp_path / f"{name}.safetensors", net, ModelCard.of(net, names, **card))
    words = ("--data", small_set, "--out", out, "--quiet")
    assert run(capsys, "test", tmp_path / "poor.safetensors", *words)[0] == 0
    [scores] = out.glob("*.npz")
    before = scores.read_bytes()
    status, said, _ = run(capsys, "test", tmp_path / "good.safetensors", *words, "--compare", scores)
    assert status == 0 and "difference +1.000" in said
    assert scores.read_bytes() == before and len(list(out.glob("*.npz"))) == 2
    [compared] = [r["compared"] for r in load_records(out) if "compared" in r]
    assert (compared["with"], compared["first"], compared["difference"]) == (scores.name, 0.0, 1.0)


def test_a_folder_where_another_test_is_at_work(capsys, model_file, small_set, tmp_path):
    with lock(tmp_path / "out", "testing"):
        status, _, err = run(capsys, "test", model_file, "--data", small_set, "--out", tmp_path / "out")
    assert status == 1 and str(os.getpid()) in err


def test_several_views_and_networks(capsys, model_file, small_set, tmp_path):
    """Logits are kept per view; an ensemble joins networks of other lengths; both averages are reported."""
    names = read_classes(SAMPLE / "category.txt")
    torch.manual_seed(1)
    other = create_model("tsn_tiny", 20, num_frames=4, dropout=0.0)
    card = ModelCard.of(
        other,
        names,
        transform=TransformConfig(size=48, resize=60).to_dict(),
        sampling=Sampling("segments", 4).to_dict(),
    )
    save_model(tmp_path / "other.safetensors", other, card)
    out = tmp_path / "out"
    status, said, err = run(
        capsys,
        "test",
        model_file,
        "--data",
        small_set,
        "--views",
        "3x64",
        "--clips",
        "2",
        "--average",
        "both",
        "--out",
        out,
        "--quiet",
    )
    assert (
        status == 0
        and said.count("top-1") == 2
        and "probabilities averaged" in said
        and "8 frames x 3x64 x 2 clips" in said
    )
    record, kept = kept_by(out)
    scores = out / record["scores"]
    assert kept.logits.shape == (5, 6, 20) and not list(out.glob(".*"))
    assert record["metrics"]["averages"]["probabilities"]["top1"] == kept.accuracy(average="probabilities")
    assert record["logits"] == [scores.name] and record["sampling"][0]["strategy"] == "twice"
    assert len(list(out.glob(f"{scores.stem}-*"))) == 5
    both_in = tmp_path / "both"
    status, said, err = run(
        capsys,
        "test",
        model_file,
        tmp_path / "other.safetensors",
        "--weights",
        "2",
        "1",
        "--data",
        small_set,
        "--out",
        both_in,
        "--quiet",
        "--compare",
        scores,
    )
    assert (
        status == 0 and said.count("top-1") == 3 and "sda_tsn_tiny + tsn_tiny" in said and "McNemar p" in said
    )
    (first, one), (second, two) = (kept_by(both_in, name) for name in ("sda_tsn_tiny", "tsn_tiny"))
    both, joined = kept_by(both_in, "sda_tsn_tiny + tsn_tiny")
    assert both["metrics"]["top1"] == ensemble([one, two], [2, 1]).accuracy() and both["weights"] == [2, 1]
    assert both["logits"] == [first["scores"], second["scores"]]
    assert joined.accuracy() == both["metrics"]["top1"]


def test_sixteen_and_eight_frames_through_the_same_views(capsys, model_file, small_set, tmp_path):
    """The ensemble of the published tables: other numbers of frames, crops, clips, weights, joined by id."""
    torch.manual_seed(2)
    longer = create_model("tsm_tiny", 20, num_frames=16, dropout=0.0)
    card = ModelCard.of(
        longer,
        read_classes(SAMPLE / "category.txt"),
        transform=TransformConfig(size=64, resize=72).to_dict(),
        sampling=Sampling("segments", 16).to_dict(),
    )
    save_model(tmp_path / "longer.safetensors", longer, card)
    status, said, err = run(
        capsys,
        "test",
        tmp_path / "longer.safetensors",
        model_file,
        "--weights",
        "3",
        "1",
        "--views",
        "3x64",
        "--clips",
        "2",
        "--data",
        small_set,
        "--out",
        tmp_path,
        "--quiet",
    )
    assert (
        status == 0
        and said.count("top-1") == 3
        and "16 frames x 3x64 x 2 clips + 8 frames x 3x64 x 2 clips" in said
    ), err
    each = [kept_by(tmp_path, name)[1] for name in ("tsm_tiny", "sda_tsn_tiny")]
    both, _ = kept_by(tmp_path, "tsm_tiny + sda_tsn_tiny")
    apart = [ensemble([p], average="logits").scores("probabilities") for p in each]
    right = (3 * apart[0] + apart[1]).argmax(1) == each[0].labels
    assert (
        each[0].ids == each[1].ids and both["metrics"]["top1"] == right.mean() and both["weights"] == [3, 1]
    )
    assert [s["num_frames"] for s in both["sampling"]] == [16, 8] and all(
        p.logits.shape == (5, 6, 20) for p in each
    )


def test_questions_of_diving48_and_epic(capsys, model_file, small_set, tmp_path):
    names = read_classes(SAMPLE / "category.txt")
    (tmp_path / "vocab.json").write_text(json.dumps([["a", "b", "c", name] for name in names]))
    words = ["test", model_file, "--data", small_set, "--quiet"]
    status, out, err = run(capsys, *words, "--attributes", tmp_path / "vocab.json")
    assert status == 1 and "vocabulary the dataset was made with" in err
    assert run(capsys, *words, "--out", tmp_path / "verbs")[0] == 0
    _, verbs = kept_by(tmp_path / "verbs")
    nouns = Predictions(verbs.ids[::-1], np.eye(3)[[0, 1, 2, 0, 1]], [0, 1, 2, 0, 1], ["cup", "pan", "lid"])
    joined = tmp_path / "joined"
    status, out, err = run(capsys, *words, "--nouns", nouns.save(tmp_path / "nouns.npz"), "--out", joined)
    assert (
        status == 0
        and re.search(r"noun +5 +1\.000 +1\.000", out)
        and re.search(rf"action +5 +{verbs.accuracy():.3f}", out)
    )
    record, _ = kept_by(joined)
    assert record["metrics"]["action_top1"] == verbs.accuracy() and record["metrics"]["noun_top1"] == 1
    table = sda.testing.results.accuracy_table([record])
    assert table.action_top1.tolist() == [verbs.accuracy()] and record["nouns"] == "nouns.npz"
    fewer = Predictions(verbs.ids[:4], verbs.logits[:4], verbs.labels[:4], names).save(tmp_path / "fewer.npz")
    status, out, err = run(capsys, *words, "--compare", fewer)
    assert status == 1 and "in one set only" in err


def test_tests_of_other_views_classes_and_clips_say_so(capsys, model_file, small_set):
    words = ["test", model_file, "--data", small_set, "--quiet"]
    status, _, err = run(capsys, *words, "--views", "3x256to224")
    assert status == 1 and "did you mean '3x72to64'" in err
    status, _, err = run(capsys, *words, "--clips", "3")
    assert status == 1 and "3 clips per video do not fit" in err
    names = (small_set / "category.txt").read_text().splitlines()
    (small_set / "category.txt").write_text("\n".join(names[::-1]) + "\n")
    status, _, err = run(capsys, *words)
    assert status == 1 and "category.txt the model was trained with" in err
    assert run(capsys, *words, "--other-classes")[0] == 0
    (small_set / "category.txt").write_text("\n".join([*names, "one more"]) + "\n")
    status, _, err = run(capsys, *words, "--other-classes")
    assert status == 1 and "21 classes" in err and "Traceback" not in err
    (small_set / "category.txt").write_text("\n".join(names) + "\n")
    with (small_set / "trainValTest/test.txt").open("a") as file:
        file.write("nowhere.mp4 24 0\n")
    status, _, err = run(capsys, *words)
    assert status == 1 and "nowhere.mp4" in err


def test_a_stopped_test_goes_on(capsys, model_file, small_set, tmp_path, monkeypatch):
    words = [
        "test",
        model_file,
        "--data",
        small_set,
        "--batch-size",
        "2",
        "--out",
        tmp_path / "out",
        "--quiet",
    ]
    real = sda.testing.evaluate.model_input
    calls = []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("sda.testing.evaluate.model_input", stopping)
    status, _, err = run(capsys, *words)
    assert status == 130 and "goes on from here" in err
    status, out, _ = run(capsys, *words)
    assert status == 0 and len(calls) == 4 and "on 5 clips" in out, (
        "three batches, the first of them not again"
    )
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()] == []


def test_what_was_tested_is_kept_until_everything_is_written(
    capsys, model_file, small_set, tmp_path, monkeypatch
):
    """A test of two networks that dies in the second does not test the first one again."""
    words = [
        "test",
        model_file,
        model_file,
        "--data",
        str(small_set),
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    ]
    seen = []
    real = sda.commands.test.evaluate

    def count_clips(net, data, *more):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(len(list((tmp_path / "out").glob(".*-parts/*"))))
        return real(net, data, *more)

    monkeypatch.setattr(sda.commands.test, "evaluate", count_clips)
    assert main(words) == 130 and list((tmp_path / "out").glob(".*-parts/*")), (
        "the first network's clips are kept"
    )
    monkeypatch.setattr(sda.commands.test, "evaluate", real)
    assert main(words) == 0 and not list((tmp_path / "out").glob(".*-parts"))


@pytest.mark.parametrize(
    "words", [["--weights", "-1", "2"], ["--batch-size", "0"], ["--compare", "spoilt.npz"]]
)
def test_a_test_is_refused_before_its_first_clip(capsys, model_file, small_set, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("spoilt.npz").write_bytes(b"PK and no more")
    monkeypatch.setattr(sda.commands.test, "score_model", lambda *_: pytest.fail("a clip was read"))
    assert main(["test", model_file, model_file, "--data", str(small_set), *words]) in (1, 2)
    assert "should not happen" not in capsys.readouterr().err


def test_records_of_a_test_tell_trainings_apart(model_file, small_set, tmp_path):
    """Two networks of one name and recipe, trained differently, are two rows of the table."""
    files = []
    for rate in (0.1, 0.2):
        net = sda.networks.checkpoints.load_model(model_file)
        net.card.recipe |= {"lr": rate}
        files.append(str(save_model(tmp_path / f"{rate}.safetensors", net, net.card)))
    for file in files:
        assert main(["test", file, "--data", str(small_set), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    table = sda.testing.results.accuracy_table(load_records(tmp_path / "out", "test"))
    assert sorted(table.settings) == ["lr=0.1", "lr=0.2"]


def test_two_processes_test_like_one(start, capsys, model_file, small_set, tmp_path):
    words = ["test", model_file, "--data", small_set, "--quiet", "--device", "cpu", "--verbose", "--out"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = dict(
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(free.getsockname()[1]),
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
        )
    both = [start(*words, tmp_path / "two", RANK=str(r), LOCAL_RANK=str(r), **place) for r in range(2)]
    done = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], done
    assert "process 1 of 2: 3 of 5 clips" in done[0][1] and "process 2 of 2: 2 of 5 clips" in done[1][1]
    assert "on 5 clips" in done[0][0] and not done[1][0] and len(list((tmp_path / "two").glob("*.json"))) == 1
    assert run(capsys, *words, tmp_path / "one")[0] == 0
    (_, one), (_, two) = (kept_by(tmp_path / name) for name in ("one", "two"))
    assert one.ids == two.ids and np.allclose(one.logits, two.logits, atol=1e-5)


def test_dry_run_tells_and_leaves_nothing(capsys, small_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(
        capsys,
        "train",
        "--dry-run",
        "--data",
        small_set,
        "--batch-size",
        "2",
        "--options",
        "reduction=8",
        "--precision",
        "bf16",
    )
    assert status == 0, err
    wide = count("sda_tsn_tiny", 20, reduction=8)
    assert f"{wide.params / 1e6:.3f} M parameters, {wide.macs / 1e9:.3f} G multiply-adds" in out
    assert "5 for training, 5 for validation, 20 classes" in out and "3 an epoch of 2 clips, 2 at once" in out
    assert re.search(r"memory +about \d+\.\d\d GB", out) and re.search(
        r"time +about \d+\.\d min an epoch on this", out
    )
    assert not (tmp_path / "runs").exists() and not (small_set / "cache").exists()


def test_predict_slides_over_a_long_video(capsys, model_file):
    words = ["--checkpoint", model_file, "--quiet"]
    status, out, _ = run(capsys, "predict", CLIPS[0], CLIPS[1], *words, "--window", "8", "--top", "2")
    assert (
        status == 0 and len(re.findall(r"^ +\d+-\d+ +0\.\d{3}  \w", out, re.M)) == 2 * 2 * 5
    )  # 24 frames, every 4
    status, out, _ = run(capsys, "predict", CLIPS[0], *words, "--window", "12", "--top", "1", "--json")
    rows = json.loads(out)["predictions"]
    assert [(r["start"], r["end"]) for r in rows] == [(0, 12), (6, 18), (12, 24)] and rows[0]["video"] == str(
        CLIPS[0]
    )


def test_app_hands_its_words_on_and_names_what_is_missing(capsys, model_file, tmp_path, monkeypatch):
    got = {}
    monkeypatch.setattr("sda.inspector.app.serve", lambda *words, **more: got.update(more, words=words))
    status, _, err = run(capsys, "app", tmp_path / "gone")
    assert status == 2 and "gone" in err and not got
    status, _, _ = run(capsys, "app", tmp_path, "--checkpoint", model_file, "--port", "8899", "--no-browser")
    assert status == 0 and got["words"] == (Path(model_file), [tmp_path], 8899, False)
    assert got["split"] == "test" and "other" not in got


def test_inspect_hands_its_words_on_and_names_what_is_missing(capsys, model_file, tmp_path, monkeypatch):
    status, out, err = run(
        capsys,
        "inspect",
        tmp_path / "gone.mp4",
        "--checkpoint",
        model_file,
        "--out",
        tmp_path / "r.html",
        "--quiet",
    )
    assert (
        status == 1
        and "gone.mp4" in err
        and "Traceback" not in err
        and not out
        and not (tmp_path / "r.html").exists()
    )
    got = {}

    def page(paths, checkpoint, out, **more):
        got.update(more, paths=paths, checkpoint=str(checkpoint), out=out)
        return Inspection(out, ["a.mp4"], {"b.mp4": "broken"})

    monkeypatch.setattr("sda.inspector.page.inspect_clips", page)
    status, out, _ = run(
        capsys, "inspect", "a.mp4", "b.mp4", "--checkpoint", model_file, "--draws", "3", "--quiet"
    )
    assert status == 0 and out == "Report: report.html (1 of 2 clips)\n"
    assert got == dict(
        paths=[Path("a.mp4"), Path("b.mp4")],
        checkpoint=model_file,
        out=Path("report.html"),
        draws=3,
        label="",
        target="",
        progress=False,
        device="auto",
        precision="auto",
    )


def test_table_prints_records_and_published_rows(capsys, tmp_path):
    write_record(
        new_record(
            "test",
            model="m",
            recipe="r",
            seed=3,
            dataset="moves",
            split="test",
            protocol="p",
            metrics={"top1": 0.5, "n": 10},
        ),
        tmp_path,
    )
    status, out, _ = run(capsys, "table", "--records", tmp_path, "--markdown")
    assert status == 0 and out.splitlines()[0].startswith("| model | seeds |") and "| 50.0 |" in out
    status, out, _ = run(capsys, "table", "--records", tmp_path, "--published", "--html", tmp_path / "t.html")
    assert status == 0 and "SDA-TSM ensemble" in out and "m (r)" in out and "400-class" in out
    assert "onclick" in (tmp_path / "t.html").read_text(encoding="utf-8")
    status, out, _ = run(
        capsys, "table", "--records", tmp_path, "--published", "--dataset", "diving48", "--markdown"
    )
    assert status == 0 and out.count("\n") == 8 and "80.2" in out and "something" not in out


def test_models_shows_a_card(capsys, model_file):
    status, out, _ = run(capsys, "models", model_file)
    assert status == 0 and json.loads(out)["model"] == "sda_tsn_tiny"


def test_a_network_that_ships_goes_by_its_name(capsys, small_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = shipped()["tsn_moves"]
    for words in (["models"], ["predict", CLIPS[0], "--checkpoint"], ["test", "--data", small_set]):
        outs = []
        for name in ("tsn_moves", file):
            status, out, err = run(capsys, *words, name, "--quiet")
            assert status == 0, err
            outs.append(out.replace(file.name, file.stem))
        assert outs[0] == outs[1]
    status, out, _ = run(capsys, "export", "tsn_moves", "--to", "torch")
    assert status == 0 and out.startswith("tsn_moves.pt2: ") and (tmp_path / "tsn_moves.pt2").is_file()
    got = {}
    monkeypatch.setattr("sda.inspector.app.serve", lambda *words, **more: got.update(more))
    status, _, _ = run(capsys, "app", "--other", "tsn_moves")
    assert status == 0 and got["other"] == str(file)


def test_a_training_starts_from_a_network_that_ships(capsys, small_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--data", small_set, "--recipe", "own_clips", "--init", "sda_tsn_moves", "--epochs", 1]
    words += ["--cache", "no", "--quiet"]
    status, out, err = run(capsys, *words, "--dry-run")
    assert status == 0 and re.search(r"^init +taken +\d+ tensors", out, re.M), err
    status, out, err = run(capsys, *words, "--out", "own")
    assert status == 0 and "starts from sda_tsn_moves\n" in out, err
    status, out, _ = run(capsys, *words, "--out", "own")
    assert status == 0 and "trained before" in out
    status, _, err = run(capsys, *words, "--init", "sda_moves", "--out", "other")
    assert status == 1 and "sda_moves;" in err and all(name in err for name in shipped())


def test_profile_counts_the_published_network(capsys):
    status, out, _ = run(capsys, "profile", "sda_tsn_resnet50")
    assert status == 0 and "25.77 M parameters, 33.71 G multiply-adds" in out


def test_train_reads_settings_and_options(capsys, small_set, tmp_path):
    (tmp_path / "run.yaml").write_text("epochs: 1\nbatch_size: 5\nlr: 1e-3\n")
    words = [
        "train",
        "--settings",
        tmp_path / "run.yaml",
        "--data",
        small_set,
        "--out",
        tmp_path / "run",
        "--cache",
        "no",
        "--options",
        "reduction=8",
        "--quiet",
    ]
    status, out, err = run(capsys, *words)
    assert status == 0, err
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["config"]["lr"] == 1e-3 and record["options"]["reduction"] == 8
    assert (
        "learning rate 0.001, taken as it is" in out
        and "epochs 1; batch_size 5;" in out
        and "milestones ()" in out
    )
    status, out, _ = run(capsys, *words, "--resume", "auto")
    assert status == 0 and "trained before" in out
    status, out, _ = run(capsys, *words, "--resume", "no")
    assert status == 0 and "trained before" not in out


def test_a_settings_file_and_a_recipe_are_not_mixed(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text("epochs: 3")
    assert main(["train", "--settings", str(tmp_path / "run.yaml"), "--recipe", "paper_something"]) == 2
    assert "give --settings or --recipe" in capsys.readouterr().err
    assert (
        main(["train", "--settings", "--quiet"]) == 2 and "--settings needs a file" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("num_classes=3", "category.txt"),
        ("dropout=0.5", "use --dropout"),
        ("reduction=0", "reduction"),
        ("reduction=8x", "reduction"),
    ],
)
def test_options_that_do_not_fit_are_named(capsys, small_set, tmp_path, option, said):
    status = main(
        ["train", "--data", str(small_set), "--out", str(tmp_path / "run"), "--options", option, "--quiet"]
    )
    err = capsys.readouterr().err
    assert status in (1, 2) and said in err and "should not happen" not in err, err


@pytest.mark.parametrize(
    "words", [["--epochs", "0"], ["--batch-size", "0"], ["--lr", "nan"], ["--accumulate", "0"]]
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_settings_that_mean_nothing_end_in_words(capsys, small_set, tmp_path, words, dry):
    assert (
        main(["train", "--data", str(small_set), "--out", str(tmp_path / "run"), "--quiet", *words, *dry])
        == 1
    )
    assert f"Setting '{words[0][2:].replace('-', '_')}' cannot be" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_so_and_goes_on(start, small_set, tmp_path, sent, status):
    out = tmp_path / "run"
    process = start(
        "train", "--model", "tsn_tiny", "--data", small_set, "--out", out, "--epochs", "500", "--cache", "no"
    )
    end = time.monotonic() + 60
    while not (out / "state.pt").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in err, err
    assert (out / "state.pt").exists() and not (out / "record.json").exists()


def test_a_closed_pipe_is_no_error(start):
    process = start("models")
    process.stdout.close()
    assert process.wait(60) == 0 and "Traceback" not in process.stderr.read()


def test_data_check_counts_faults_and_ends_with_status_one(capsys, small_set, monkeypatch):
    status, out, _ = run(
        capsys, "data", "check", small_set, "--quiet"
    )  # the small set repeats its clips in all splits
    assert status == 1 and "not ready" in out and "in two splits" in out
    for split in ("val", "test"):
        (small_set / f"trainValTest/{split}.txt").unlink()
    monkeypatch.chdir(small_set.parent)
    status, out, _ = run(capsys, "data", "check", small_set.name, "--quiet")
    assert status == 0 and "ready" in out and "class names" in out
    with (small_set / "trainValTest/train.txt").open("a") as file:
        file.write("nowhere.mp4 24 0\n")
    status, out, _ = run(capsys, "data", "check", small_set, "--quiet")
    assert (
        status == 1
        and "missing: img/nowhere.mp4" in out
        and "nowhere" in (small_set / "check.txt").read_text()
    )
    assert run(capsys, "data", "check", "nothing")[0] == 2


def test_videos_become_frames_lists_and_a_dataset(capsys, tmp_path):
    for k, clip in enumerate(CLIPS[:4]):
        (tmp_path / f"videos/class {k % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / f"videos/class {k % 2}")
    status, out, _ = run(
        capsys, "extract", tmp_path / "videos", tmp_path / "frames", "--height", "48", "--quiet"
    )
    assert status == 0 and len(list((tmp_path / "frames").rglob("00001.jpg"))) == 4
    made = run(capsys, "data", "make", tmp_path / "set", "--media", tmp_path / "frames", "--quiet")
    assert made[0] == 0 and "class names" in made[1]
    assert run(capsys, "data", "check", tmp_path / "set", "--quiet")[0] == 0
    broken = tmp_path / "videos/class 0/zzz.mp4"
    broken.write_bytes(b"no video")
    status, out, _ = run(
        capsys, "extract", tmp_path / "videos", tmp_path / "frames", "--height", "48", "--quiet"
    )
    assert status == 1 and "zzz.mp4" in out


def test_a_network_of_torchvision_with_sda_goes_through_every_command(
    capsys, small_set, tmp_path, monkeypatch
):
    """Trained, tested, asked and looked at; no file has the colon of its name in its own."""
    monkeypatch.chdir(tmp_path)
    name = "sda_tsm_torchvision:resnet18"
    short = "--epochs 1 --batch-size 5 --num-frames 2 --size 32 --cache no --threads 1 --quiet".split()
    status, _, err = run(
        capsys, "train", "--model", name, "--options", "where=[layer4]", "--data", small_set, *short
    )
    [model] = Path("runs").rglob("model.safetensors")
    assert status == 0, err
    status, _, err = run(
        capsys, "test", model, "--data", small_set, "--split", "val", "--out", "scores", "--quiet"
    )
    record, scores = kept_by(Path("scores"), name)
    assert status == 0 and record["metrics"]["n"] == len(scores) == 5, err
    status, out, _ = run(capsys, "predict", CLIPS[0], "--checkpoint", model, "--top", "1")
    assert status == 0 and name in out and "20 classes of drawn clips" in out
    status, _, err = run(
        capsys, "inspect", CLIPS[0], "--checkpoint", model, "--out", "page.html", "--draws", "1", "--quiet"
    )
    page = Path("page.html").read_text(encoding="utf-8")
    assert status == 0 and name in page and "20 classes of drawn clips" in page, err
    panel = inspect(model, small_set, split="val", strict=True)
    assert list(panel.session.network.blocks) == ["layer4.0", "layer4.1"] and panel.png().startswith(
        b"\x89PNG"
    )
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]
