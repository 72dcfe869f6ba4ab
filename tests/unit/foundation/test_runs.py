"""What a record says of a run: time, machine, commit, seed; and that the chapter is quick to import."""

import datetime
import json
import random
import re
import subprocess
import sys

import numpy as np
import torch

import sda.foundation
from sda.foundation.runs import commit, machine, machine_in_words, now, seed_everything


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
