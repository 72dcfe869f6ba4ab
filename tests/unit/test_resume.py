"""States of a run on the disk, its identity, and folders of finished runs."""

import errno
import os
import shutil

import pandas as pd
import pytest
import torch
from training_runs import Clips, same, small, weights

from sda.foundation.errors import FolderError, RunError
from sda.networks.backbones import create_model
from sda.networks.checkpoints import ModelCard, load_model
from sda.testing.evaluate import evaluate
from sda.training.callbacks import Callback
from sda.training.identity import differences, run_identity
from sda.training.run import TrainResult
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
    assert caught.value.subject == str(tmp_path / "state.pt") and caught.value.remedy


def test_a_damaged_finished_run_is_named(tmp_path, finished):
    damaged = [("record.json", text) for text in ('{"config": ', "[]", "{}", "[" * 50_000)]
    for number, (name, text) in enumerate([("history.csv", ""), *damaged]):
        out = tmp_path / str(number)
        shutil.copytree(finished.out, out)
        (out / name).write_text(text)
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
    with pytest.raises(FolderError) as caught:
        train(small(save_every=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    assert "space" in caught.value.remedy and "goes on" in caught.value.remedy
    assert caught.value.subject == str(tmp_path / "state.pt")
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


@pytest.mark.skipif(os.name == "nt", reason="limits of Unix")
def test_what_the_disk_says_about_a_state_is_told(tmp_path):
    """torch hides the error of a disk; here files may not grow beyond some kilobytes."""
    import resource

    train(small(epochs=1), "tsn_tiny", Clips(4), None, tmp_path / "a", progress=False)  # all is imported
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(FolderError) as caught:
            train(small(epochs=1), "tsn_tiny", Clips(4), None, tmp_path / "b", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.EFBIG) in str(caught.value) and "this size" in caught.value.remedy
    assert os.listdir(tmp_path / "b") == ["history.csv"]


# -- two runs, one folder


def test_a_folder_is_trained_in_by_one_process(tmp_path):
    """The second is refused by name, and the first ends with its own card on its own weights."""
    refused = []

    class Second(Callback):
        def step_end(self, run):
            if run.state.steps == 2:
                with pytest.raises(FolderError) as caught:
                    train(small(seed=1), "tsn_tiny", Clips(), Clips(6), tmp_path, progress=False)
                refused.append(caught.value)

    first = train(small(), "tsn_tiny", Clips(), Clips(6), tmp_path, progress=False, callbacks=[Second()])
    assert refused[0].subject == str(tmp_path) and f"process {os.getpid()} " in str(refused[0])
    assert "training tsn_tiny" in str(refused[0])
    alone = train(small(), "tsn_tiny", Clips(), Clips(6), tmp_path / "alone", progress=False)
    stored = load_model(tmp_path / "model.safetensors")
    assert same(weights(stored), weights(alone.model)) and stored.card.recipe["seed"] == 0
    assert not (tmp_path / ".lock").exists() and first.record["weights"] == stored.card.weights


class Dies(Callback):
    """Ends the process, as far as a run can tell, after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def step_end(self, run):
        if run.state.steps == self.steps:
            raise KeyboardInterrupt


def cut_short(out, steps=5, **changes):
    with pytest.raises(KeyboardInterrupt):
        train(small(**changes), "tsn_tiny", Clips(), Clips(6), out, progress=False, callbacks=[Dies(steps)])


@pytest.mark.parametrize(
    "harm", [lambda mine, other: shutil.copyfile(other, mine), lambda mine, other: mine.unlink()]
)
def test_best_weights_of_another_run_are_refused(tmp_path, harm):
    cut_short(tmp_path / "mine")
    cut_short(tmp_path / "other", seed=1)
    harm(tmp_path / "mine" / "best.pt", tmp_path / "other" / "best.pt")
    with pytest.raises(RunError) as caught:
        train(small(), "tsn_tiny", Clips(), Clips(6), tmp_path / "mine", progress=False)
    assert caught.value.subject.startswith(str(tmp_path / "mine")) and "--resume no" in caught.value.remedy


def test_a_model_file_of_another_run_is_not_returned(tmp_path, finished):
    shutil.copytree(finished.out, tmp_path / "a")
    other = train(small(epochs=1, seed=1), "tsn_tiny", Clips(), Clips(6), tmp_path / "b", progress=False)
    shutil.copyfile(other.out / "model.safetensors", tmp_path / "a" / "model.safetensors")
    with pytest.raises(RunError) as caught:
        train(small(epochs=1), "tsn_tiny", Clips(), Clips(6), tmp_path / "a", progress=False)
    assert caught.value.subject == str(tmp_path / "a")


# -- more epochs


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("course", [dict(schedule="constant"), dict(schedule="step", milestones=(1, 3))])
def test_more_epochs_go_on_where_the_rate_has_no_end(tmp_path, keep, course):
    """A finished run of two epochs becomes, bit by bit, the run of four."""
    course = course | dict(warmup=0.0, lr=0.01, keep=keep)
    whole = train(
        small(epochs=4, **course), "tsn_tiny", Clips(), Clips(6), tmp_path / "whole", progress=False
    )

    def go_on(epochs, **more):
        return train(
            small(epochs=epochs, **course), "tsn_tiny", Clips(), Clips(6), tmp_path, progress=False, **more
        )

    assert len(go_on(2).history) == 2
    assert go_on(2).reused
    with pytest.raises(KeyboardInterrupt):
        go_on(4, callbacks=[Dies(10)])
    done = go_on(4)
    assert not done.reused and same(weights(done.model), weights(whole.model))
    assert done.history.val_loss.equals(whole.history.val_loss) and go_on(4).reused
    assert done.model.card.metrics == whole.model.card.metrics
    with pytest.raises(RunError):
        go_on(3)
    assert go_on(4).reused, "nothing was lost by asking"


@pytest.mark.parametrize("changes", [dict(schedule="onecycle"), dict(schedule="constant", warmup=0.2)])
def test_more_epochs_of_another_course_are_refused_with_a_way(tmp_path, changes):
    train(small(epochs=1, **changes), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    with pytest.raises(RunError) as caught:
        train(small(epochs=3, **changes), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    assert caught.value.subject == str(tmp_path)
    assert changes["schedule"] in str(caught.value)
    assert f"--init {tmp_path / 'model.safetensors'}" in caught.value.remedy


# -- the last line


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_summary_tells_the_accuracy_of_the_file(tmp_path, keep):
    config = small(epochs=4, lr=0.02, keep=keep)
    done = train(config, "tsn_tiny", Clips(), Clips(7), tmp_path, progress=False)
    stored = load_model(tmp_path / "model.safetensors")
    found = evaluate(stored, Clips(7), progress=False).accuracy()
    assert f"{found:.3f}" in done.summary() and done.record["chance"] == pytest.approx(3 / 7)
    assert done.record["val_clips"] == 7
    assert "stopped early" not in done.summary()
    again = train(config, "tsn_tiny", Clips(), Clips(7), tmp_path, progress=False)
    assert again.reused and again.summary() == done.summary()


def test_the_summary_says_stopped_early_and_at_chance(tmp_path):
    class Stops(Callback):
        def epoch_end(self, run):
            run.stop()

    done = train(
        small(epochs=5), "tsn_tiny", Clips(), Clips(9), tmp_path, progress=False, callbacks=[Stops()]
    )
    assert "stopped early: 1 of 5 epochs" in done.summary()
    assert "at chance" in done.summary(), "nine clips of noise, three classes"


def test_an_accuracy_above_chance_is_not_called_chance():
    """Class counts of the validation decide: 0.70 is chance where one class has 0.70 of the clips."""

    def said(top1, clips, chance):
        model = torch.nn.Identity()
        metrics = dict(val_top1=top1, epoch=2)
        model.card = ModelCard("tsn_tiny", {}, 2, 8, [], recipe={"epochs": 2}, metrics=metrics)
        history = pd.DataFrame({"epoch": [1, 2]})
        return TrainResult(model, history, 1.0, None, {"val_clips": clips, "chance": chance}).summary()

    assert "at chance" in said(0.70, 100, 0.70) and "at chance" in said(0.75, 20, 0.70)
    assert "at chance" not in said(0.70, 100, 0.50) and "0.700" in said(0.70, 100, 0.50)
