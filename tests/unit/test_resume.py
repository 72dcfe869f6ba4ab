"""States of a run on the disk, its identity, and folders of finished runs."""

import shutil

import pytest
import torch
from training_runs import Clips, same, small, weights

from sda.foundation.errors import FolderError, RunError
from sda.networks.backbones import create_model
from sda.training.resume import differences, run_identity
from sda.training.trainer import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch."""
    return train(
        small(epochs=1), "tsn_tiny", Clips(), Clips(6), tmp_path_factory.mktemp("run"), progress=False
    )


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(RunError) as caught:
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    assert caught.value.subject.endswith("state.pt") and "Delete it" in caught.value.remedy


def test_a_damaged_finished_run_is_named(tmp_path, finished):
    for name in ("record.json", "history.csv"):
        out = tmp_path / name
        shutil.copytree(finished.out, out)
        (out / name).write_text("" if name.endswith("csv") else '{"config": ')
        with pytest.raises(RunError) as caught:
            train(small(epochs=1), "tsn_tiny", Clips(), Clips(6), out, progress=False)
        assert caught.value.subject == str(out) and "--resume no" in caught.value.remedy


def test_older_states_are_kept_and_named_when_the_last_is_damaged(tmp_path):
    config = small(save_every=1, keep_states=3)
    with pytest.raises(KeyboardInterrupt):
        train(config, "tsn_tiny", Clips(stop=15), None, tmp_path, progress=False)
    steps = [
        torch.load(tmp_path / name, weights_only=True)["progress"]["step"]
        for name in ("state.2.pt", "state.1.pt", "state.pt")
    ]
    assert len(list(tmp_path.glob("state*"))) == 3 and steps == [3, 0, 1]
    (tmp_path / "state.pt").write_bytes(b"half")
    with pytest.raises(RunError) as caught:
        train(config, "tsn_tiny", Clips(), None, tmp_path, progress=False)
    assert "state.1.pt" in caught.value.choices
    (tmp_path / "state.1.pt").rename(tmp_path / "state.pt")
    done = train(config, "tsn_tiny", Clips(), None, tmp_path, progress=False)
    whole = train(config, "tsn_tiny", Clips(), None, tmp_path / "whole", progress=False)
    assert same(weights(done.model), weights(whole.model))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "history.csv",
        "model.safetensors",
        "record.json",
    ]


def test_a_record_from_before_a_setting_existed_is_the_same_run():
    model = create_model("tsn_tiny", 3)
    config = small()
    old = run_identity(config, model, Clips())
    del old["config"]["ema"], old["config"]["mixup"]
    assert differences(old, run_identity(config, model, Clips())) == []
    assert differences(old, run_identity(small(ema=0.5), model, Clips())) == ["ema: 0.0 then, 0.5 now"]


def test_a_disk_that_fills_up_leaves_the_state_before(tmp_path, monkeypatch):
    real = torch.save
    calls = []

    def full(state, file):
        calls.append(1)
        if len(calls) == 3:
            file.write(b"half a state") and file.flush()
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FolderError, match="No space left on device. Free some space; the run goes on"):
        train(small(save_every=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    monkeypatch.setattr(torch, "save", real)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["progress"]["step"] == 2
    done = train(small(save_every=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    whole = train(small(), "tsn_tiny", Clips(), None, tmp_path / "whole", progress=False)
    assert same(weights(done.model), weights(whole.model)) and not [
        p for p in tmp_path.iterdir() if p.suffix == ".tmp"
    ]


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    (tmp_path / ".state.pt.123-0.tmp").write_bytes(b"half a state")
    done = train(small(epochs=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    assert sorted(p.name for p in done.out.iterdir()) == ["history.csv", "model.safetensors", "record.json"]
