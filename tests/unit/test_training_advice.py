"""What a finished training says about itself, from its history alone."""

import json
from dataclasses import fields

import pytest
from training_runs import Clips

from sda.networks.backbones import create_model
from sda.networks.cost import profile
from sda.training.advice import LARGER, LARGER_MACS, STEPS, Advice, advise, larger_seconds, sentences
from sda.training.recipes import recipe
from sda.training.trainer import train


def history(train, val, loss=None, seconds=2.0):
    """Rows as a training leaves them; the loss is what is not right unless it is given."""
    loss = loss or [1 - v if v == v else 1 - t for t, v in zip(train, val, strict=True)]
    return [
        dict(train_loss=x, train_top1=t, val_loss=x, val_top1=v, seconds=seconds)
        for t, v, x in zip(train, val, loss, strict=True)
    ]


flat = [0.5] * 10


def test_at_chance_is_said_and_another_rate_or_start_proposed():
    found = advise(history([0.2] * 10, [0.17] * 10, flat), chance=1 / 6, clips=24)
    assert not found.learned and not found.rising
    assert {"start", "rate"} <= set(found.steps) and "larger_network" not in found.steps
    assert "start" not in advise(history([0.2] * 10, [0.17] * 10, flat), 1 / 6, 24, started=True).steps


def test_a_curve_that_still_rises_asks_for_more_epochs():
    rising = [0.3 + 0.04 * k for k in range(10)]
    found = advise(history(rising, rising), chance=1 / 6, clips=24)
    assert found.rising and found.learned and "more_epochs" in found.steps
    assert found.gap == pytest.approx(0)


def test_a_gap_between_training_and_validation_asks_for_clips_not_epochs():
    found = advise(history([1.0] * 10, [0.5] * 10, flat), chance=1 / 6, clips=24)
    assert found.gap == pytest.approx(0.5)
    assert "more_clips" in found.steps and not {"more_epochs", "larger_network"} & set(found.steps)


def test_labels_are_doubted_where_training_clips_alone_are_known():
    found = advise(history([1.0] * 10, [0.2] * 10, flat), chance=1 / 6, clips=24)
    assert not found.learned and "labels" in found.steps


def test_a_network_that_knows_all_its_clips_is_told_of_a_larger_one():
    found = advise(history([1.0] * 10, [0.9] * 10, flat), chance=1 / 6, clips=24)
    assert found.steps == ("larger_network",)


def test_without_validation_clips_that_is_said_first():
    found = advise(history([0.9] * 10, [float("nan")] * 10, flat), chance=1 / 6, clips=96)
    assert found.val_top1 is None and found.gap is None and found.steps[0] == "validate"


@pytest.mark.parametrize("epochs", (1, 2, 3))
def test_short_histories_are_read(epochs):
    found = advise(history([0.4] * epochs, [0.4] * epochs), chance=1 / 3, clips=6)
    assert set(found.steps) <= set(STEPS)


def test_every_step_has_its_option_and_times_grow_with_the_clips():
    net = create_model("sda_tsn_tiny", 6, num_frames=8)
    found = advise(history([0.2] * 10, [0.17] * 10, flat), chance=1 / 6, clips=24)
    said = sentences(found, recipe("own_clips"), net, clips=96)
    assert len(said) == 1 + len(found.steps)
    assert any("--init" in line and line.endswith("--init sda_tsn_moves") for line in said)
    one, two = (larger_seconds(found, 1e8, clips)[1] for clips in (100, 200))
    assert two == pytest.approx(2 * one)


def test_the_cost_of_the_larger_network_is_the_counted_one():
    assert profile(create_model(LARGER, 6), 224, 8).macs == pytest.approx(LARGER_MACS, rel=0.01)


def test_own_clips_trains_and_its_record_carries_the_advice(tmp_path):
    config = recipe("own_clips", epochs=2, num_frames=4, size=32, resize=32, device="cpu")
    done = train(config, "tsn_tiny", Clips(6), Clips(4), tmp_path, progress=False)
    found = json.loads((tmp_path / "record.json").read_text())["advice"]
    assert found == done.record["advice"] and set(found) == {f.name for f in fields(Advice)}
    assert found["val_top1"] == pytest.approx(done.history.val_top1.iloc[-1])
    assert found["seconds_per_epoch"] > 0 and set(found["steps"]) <= set(STEPS)
    assert recipe("own_clips").flip and recipe("own_clips").size == 64 and not recipe("own_clips").pretrained
