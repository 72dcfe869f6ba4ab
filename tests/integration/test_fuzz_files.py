"""Damaged files in every reader but those of videos: a result, or an error that names the file."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from fuzzing import CORPUS, SEED, mutants
from PIL import Image
from unit.training_runs import Clips, small

from sda.data.annotations.layouts import records_csv
from sda.data.cache import FrameCache, build_cache
from sda.data.datasets import source_of
from sda.data.lists import Record, read_classes, read_groups, read_list, read_pairs
from sda.explaining.attribution import Attribution
from sda.explaining.trace import Trace, trace_clips
from sda.foundation.errors import SdaError
from sda.foundation.runs import load_records, new_record, write_record
from sda.networks.backbones import create_model
from sda.networks.checkpoints import ModelCard, load_model, save_model
from sda.networks.weights import read_weights
from sda.testing.predictions import Predictions
from sda.training.identity import run_identity
from sda.training.recipes import load_config, recipe, save_config
from sda.training.resume import load_state
from sda.training.run import finished_run

CASES = 60
CLIPS = Clips(4)
IDENTITY = run_identity(small(), create_model("tsn_tiny", 3), CLIPS)


def model(folder):
    net = create_model("tsn_tiny", 3, num_frames=2)
    save_model(folder / "model.safetensors", net, ModelCard.of(net, list("abc")))


def scores(folder):
    logits = np.random.default_rng(0).normal(size=(4, 1, 3))
    Predictions([f"clip{i}" for i in range(4)], logits, [0, 1, 2, 0], list("abc")).save(folder / "scores.npz")


def trace(folder):
    net = create_model("sda_tsn_tiny", 3, num_frames=2).eval()
    trace_clips(net, torch.rand(2, 2, 3, 32, 32), videos=["a", "b"]).save(folder / "trace.npz")


def attribution(folder):
    Attribution("weight", np.ones((2, 1, 4)), ["a", "b"], ["all"]).save(folder / "attribution.npz")


def state(folder):
    kept = {"identity": IDENTITY, "progress": {"epoch": 1, "best_epoch": 0}, "model": {"w": torch.ones(3)}}
    torch.save(kept, folder / "state.pt")


def foreign(folder):
    torch.save({"state_dict": {"conv1.weight": torch.ones(2)}}, folder / "foreign.pt")


def finished(folder):
    about = dict(model="m", metrics={"top1": 0.5}, seconds=1.0)
    record = new_record("train", **about, identity=IDENTITY, config=IDENTITY["config"])
    (folder / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    return write_record(record, folder)


def read_finished(path):
    try:
        finished_run(path.parent, IDENTITY)
    except FileNotFoundError:  # the record holds, and says that it is another run's, or no model is beside it
        pass


def dataset(folder):
    (folder / "category.txt").write_text("walk\nrun\n")
    (folder / "list.txt").write_text("a.mp4 8 0\nsub/b.mp4 9 1\nc 12 1\n")
    (folder / "pairs.txt").write_text("walk\trun\n")
    (folder / "groups.json").write_text(json.dumps({"speed": {"walk": "slow", "run": "fast"}}))
    pd.DataFrame({"path": ["a.mp4", "b.mp4"], "label": ["walk", "run"]}).to_csv(folder / "table.csv")


READERS = {  # file -> what makes it, what reads it
    "model.safetensors": (model, load_model),
    "scores.npz": (scores, Predictions.load),
    "trace.npz": (trace, Trace.load),
    "attribution.npz": (attribution, Attribution.load),
    "state.pt": (state, lambda path: load_state(path, IDENTITY)),
    "foreign.pt": (
        lambda d: torch.save({"state_dict": {"a": torch.ones(2)}}, d / "foreign.pt"),
        read_weights,
    ),
    "settings.yaml": (lambda d: save_config(recipe("moves"), d / "settings.yaml"), load_config),
    "record.json": (
        lambda d: write_record(new_record("test", model="m", metrics={"top1": 0.5, "n": 2}), d).rename(
            d / "record.json"
        ),
        lambda path: load_records(path.parent),
    ),
    "finished.json": (
        lambda d: finished(d).rename(d / "finished.json"),
        lambda path: read_finished(path.replace(path.with_name("record.json"))),
    ),
    "source.json": (
        lambda d: (d / "source.json").write_text('{"dataset": "Diving48", "variants": {"test": "V2"}}'),
        lambda path: source_of(path.parent, "test"),
    ),
    "category.txt": (dataset, read_classes),
    "list.txt": (dataset, lambda path: read_list(path, path.parent, ["walk", "run"])),
    "groups.json": (dataset, lambda path: read_groups(path.parent)),
    "pairs.txt": (dataset, lambda path: read_pairs(path.parent)),
    "table.csv": (dataset, records_csv),
}


@pytest.fixture(params=READERS)
def target(request, tmp_path):
    """A folder with a whole file, and its reader."""
    make, read = READERS[request.param]
    make(tmp_path)
    return tmp_path / request.param, read


def read_or_refused(path, read, said):
    """Whether a file was refused; anything but an error of the library that names a file fails."""
    try:
        read(path)
    except SdaError as err:
        assert err.subject or path.name in str(err), f"{said}: the error names nothing: {err}"
        return True
    except Exception as err:
        pytest.fail(f"{said}: {type(err).__name__}: {err}")
    return False


def test_whole_files_are_read(target):
    path, read = target
    assert not read_or_refused(path, read, "as it was written")


def test_mutants_are_read_or_refused_by_name(target, recwarn):
    path, read = target
    refused = 0
    for case, data in enumerate(mutants(path.read_bytes(), CASES, (SEED, path.name))):
        path.write_bytes(data)
        refused += read_or_refused(path, read, f"mutant {case} of {path.name}, SDA_FUZZ_SEED={SEED}")
    assert refused


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_mutated_cache_is_made_anew_and_gives_the_same_frames(tmp_path, suffix, caplog):
    rng = np.random.default_rng(0)
    records = []
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(2):
            picture = Image.fromarray(rng.integers(0, 255, (32, 40, 3), np.uint8))
            picture.save(tmp_path / name / f"{number}.png")
        records.append(Record(name, str(tmp_path / name), 0))
    path = build_cache(records, tmp_path, progress=False)
    frames = [FrameCache(path)[i].copy() for i in range(2)]
    path = path.with_suffix(suffix)
    for case, data in enumerate(mutants(path.read_bytes(), CASES // 3, (SEED, suffix))):
        path.write_bytes(data)
        again = FrameCache(build_cache(records, tmp_path, progress=False))
        said = f"mutant {case} of {suffix}, SDA_FUZZ_SEED={SEED}"
        assert all(np.array_equal(again[i], frames[i]) for i in range(2)), said
    assert "is not used" in caplog.text


@pytest.mark.parametrize(
    "file", [f for f in sorted(CORPUS.rglob("*")) if f.is_file()], ids=lambda file: file.name
)
def test_what_once_failed(file, tmp_path):
    make, read = READERS[file.parent.name]
    make(tmp_path)
    (tmp_path / file.parent.name).write_bytes(file.read_bytes())
    read_or_refused(tmp_path / file.parent.name, read, file.name)
