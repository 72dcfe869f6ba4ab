"""A run that dies at any rename, link, unlink or fsync ends, given again, as if nothing had been."""

import os

import pytest
import torch
from training_runs import Clips, same, small, weights

from sda.foundation.files import lock
from sda.training.trainer import train

CALLS = ("rename", "replace", "link", "unlink", "fsync")


class PowerCut(BaseException):
    """Nothing may catch it and go on."""


class Planted:
    """Counts the calls that change what lies on the disk under its names; dies before one of them.

    After its death every further call fails too, for a dead process tidies nothing up.
    """

    def __init__(self, monkeypatch, number=0):
        self.seen = []
        self.number = number
        for name in CALLS:
            monkeypatch.setattr(os, name, self.around(name, getattr(os, name)))

    def around(self, name, real):
        def call(*args, **options):
            if 0 < self.number <= len(self.seen):
                raise PowerCut
            self.seen.append(name)
            if len(self.seen) == self.number:
                raise PowerCut
            return real(*args, **options)

        return call


def run(out):
    """One epoch of one step with everything that writes: states, best weights, history, results."""
    config = small(epochs=1, save_every=1, keep_states=2)
    return train(config, "tsn_tiny", Clips(2), Clips(2), out, progress=False)


def test_a_crash_at_every_call_changes_no_bit(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        planted = Planted(patch)
        whole = run(tmp_path / "whole")
    points = planted.seen
    assert len(points) > 25 and set(points) >= {"replace", "link", "unlink", "fsync"}
    files = sorted(os.listdir(whole.out))
    times = ["seconds", "clips_per_second"]
    for number in range(1, len(points) + 1):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            Planted(patch, number)
            run(out)
        done = run(out)
        about = f"before call {number}, {points[number - 1]}"
        assert same(weights(done.model), weights(whole.model)), about
        assert done.history.drop(columns=times).equals(whole.history.drop(columns=times)), about
        assert done.record["metrics"] == whole.record["metrics"], about
        assert sorted(os.listdir(out)) == files, about


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        Planted(patch, 1)  # before the lock file would go
        with lock(tmp_path, "testing"):
            pass
    assert (tmp_path / ".lock").exists()
    with lock(tmp_path, "testing"):
        pass
    assert os.listdir(tmp_path) == []


def test_weights_differ_when_they_should():
    """The comparison above can fail."""
    torch.manual_seed(0)
    one, other = ({"w": torch.randn(2)} for _ in range(2))
    assert not same(one, other)
