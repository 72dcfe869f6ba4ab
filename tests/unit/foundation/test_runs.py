"""The record of a run: time, machine, commit, seed, its file; and that the chapter is quick to import."""

import datetime
import json
import math
import platform
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import sda.foundation
from sda.foundation.errors import DataError
from sda.foundation.runs import (
    MAX_BYTES,
    commit,
    load_records,
    machine,
    machine_in_words,
    new_record,
    now,
    save_record,
    seed_everything,
    write_record,
)


def test_the_time_is_utc_to_the_microsecond():
    said = datetime.datetime.fromisoformat(now())
    assert said.utcoffset() == datetime.timedelta(0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", now())
    assert abs(datetime.datetime.now(datetime.timezone.utc) - said) < datetime.timedelta(minutes=1)


def test_a_machine_is_plain_and_names_no_host():
    found = machine()
    assert set(found) == {"cpu", "cores", "gpu", "python", "torch", "system"}
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] >= 1
    assert found["torch"] == torch.__version__


def test_a_machine_in_words():
    cpu = {"cpu": "Fast 5", "cores": 2, "gpu": None, "torch": "2.4.0"}
    gpu = cpu | {"gpu": "Card 9"}
    assert machine_in_words(cpu) == "Fast 5, 2 cores, torch 2.4.0"
    assert machine_in_words(gpu) == "Card 9, 2 cores, torch 2.4.0"
    assert machine_in_words(cpu, brief=True) == "Fast 5, 2 cores"
    assert machine_in_words(gpu, brief=True) == "Card 9"
    assert machine_in_words({}) == machine_in_words(None) == "not recorded"


def test_a_commit_is_twelve_digits_or_nothing():
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{12}\+?", found)


def test_a_seed_starts_all_generators():
    def draw(*numbers):
        mixed = seed_everything(*numbers)
        return mixed, random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2)[0] != draw(2, 1)[0]
    assert draw(7)[0] == int(np.random.SeedSequence((7,)).generate_state(1)[0])


def test_every_public_name_is_there():
    for name in sda.foundation.__all__:
        assert getattr(sda.foundation, name) is not None
    assert set(sda.foundation.__all__) <= set(dir(sda.foundation))
    assert not hasattr(sda.foundation, "no_such_name")


def test_the_chapter_starts_without_slow_libraries():
    code = """
import sys
import sda.foundation
from sda.foundation import unknown_name, write_atomic
slow = {"numpy", "scipy", "torch", "matplotlib", "pandas"} & set(sys.modules)
import sda.foundation.statistics
slow |= {"scipy", "torch", "matplotlib", "pandas"} & set(sys.modules)
print(sorted(slow))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# -- records


def record(model="m", seed=0, top1=0.5, kind="test", **more):
    metrics = {"top1": top1, "n": 100} | more.pop("metrics", {})
    return new_record(kind, model=model, seed=seed, metrics=metrics, recipe="moves", dataset="moves", **more)


def test_round_trip_and_plain_numbers(tmp_path):
    made = record(top1=np.float32(0.25), metrics={"counts": np.arange(3), "tensor": torch.tensor(2)})
    path = write_record(made, tmp_path)
    back = load_records(tmp_path)[0]
    assert back.pop("file") == path.name
    assert back == made and back["metrics"]["counts"] == [0, 1, 2] and back["metrics"]["tensor"] == 2


def test_no_host_name_and_no_paths(tmp_path):
    text = json.dumps(record(source=tmp_path / "secret" / "clip.mp4"))
    assert str(tmp_path) not in text and "clip.mp4" in text
    assert platform.node() not in text and str(Path.home()) not in text.replace('"/"', "")


@pytest.mark.parametrize(
    "field, value",
    [
        ("kind", "guess"),
        ("metrics", [1]),
        ("model", None),
        ("schema", 99),
        ("metrics", {"a": {"b": [1.0, math.inf]}}),
    ],
)
def test_bad_fields_are_named(field, value, tmp_path):
    with pytest.raises(DataError) as error:
        save_record(record() | {field: value}, tmp_path / "r.json")
    assert error.value.subject == "record" and field in str(error.value)
    assert not list(tmp_path.iterdir())


def test_too_large_is_refused(tmp_path):
    with pytest.raises(DataError) as error:
        write_record(record(log="x" * MAX_BYTES), tmp_path)
    assert "arrays" in error.value.remedy and str(MAX_BYTES) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "kind": "test"}', "\x00\xff"])
def test_a_damaged_file_is_named(tmp_path, text):
    write_record(record(), tmp_path)
    (tmp_path / "broken.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as error:
        load_records(tmp_path)
    assert Path(error.value.subject).name == "broken.json"


def test_other_json_is_left_out_with_a_warning(tmp_path, caplog):
    write_record(record(), tmp_path)
    (tmp_path / "timings.json").write_text('{"rows": []}')
    assert len(load_records(tmp_path)) == 1 and "timings.json" in caplog.text


def test_many_writers_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda s: write_record(record(seed=s % 3, top1=s / 100), tmp_path), range(40)))
    assert len(set(paths)) == 40 and len(load_records(tmp_path)) == 40
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".json"]


def test_names_are_safe(tmp_path):
    path = write_record(record(model="../../etc/x y", split="a/b"), tmp_path)
    assert path.parent == tmp_path and " " not in path.name and path.exists()
