"""Looking at a run changes nothing, shows what happened, and says what it needs."""

import random
import re
import sys

import numpy as np
import pytest
import torch
from test_trainer import Clips, same, small, weights

from sda.figures.style import to_png
from sda.figures.training import fig_confusion
from sda.networks.backbones import create_model
from sda.training import callbacks as watching
from sda.training.callbacks import (
    LivePlot,
    TensorBoard,
    find_lr,
    rising_rates,
    selection_weights,
)
from sda.training.trainer import TrainingError, train, training_mode


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def network(name="sda_tsm_tiny"):
    torch.manual_seed(0)
    return create_model(name, 3, num_frames=4, dropout=0.0)


def test_watched_runs_end_with_the_same_bits(tmp_path):
    plain = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "plain", progress=False)
    plot = LivePlot()
    seen = train(
        small(tensorboard=True),
        "sda_tsm_tiny",
        Clips(),
        Clips(6),
        tmp_path / "seen",
        progress=False,
        watch=[plot],
    )
    assert same(weights(plain.model), weights(seen.model))
    assert plain.history.val_loss.equals(seen.history.val_loss)
    assert len(plot.batches) == 6 and plot.per_epoch == 3 and len(plot.history) == 2 and plot.screen is None
    assert not (plain.out / "tensorboard").exists(), "nothing is written unless it is asked for"


def test_tensorboard_has_each_step_once_after_a_crash(tmp_path):
    config = small(tensorboard=True, save_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(config, "sda_tsm_tiny", Clips(stop=15), Clips(6), tmp_path, progress=False)
    done = train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    events = events_of(tmp_path / "tensorboard")
    assert [e.step for e in events.Scalars("batch/loss")] == [1, 2, 3, 4, 5, 6]
    top1 = [e.value for e in events.Scalars("epoch/val_top1")]
    assert [e.step for e in events.Scalars("epoch/val_loss")] == [3, 6] and top1 == pytest.approx(
        list(done.history.val_top1)
    )
    tags = events.Tags()
    assert set(tags["histograms"]) == {
        f"selection layer{i}/{d}" for i in range(1, 5) for d in ("LST", "LT", "LS", "S122")
    }
    counted = events.Histograms("selection layer1/LST")[-1].histogram_value
    assert counted.num == 6 and 0 < counted.min <= counted.max < 1, "one block, six validation clips"
    assert {t for t in tags["scalars"] if t.startswith("rate/")} == {
        f"rate/{role}" for role in ("kernel", "norm", "sda kernel", "query", "head", "head bias")
    }
    assert "confusion" in tags["images"] and "lr: 0.001" in str(events.Tensors("description/text_summary")[0])


def test_networks_without_sda_and_runs_without_validation_are_written_too(tmp_path):
    train(small(tensorboard=True, epochs=1), "tsn_tiny", Clips(4), None, tmp_path, progress=False)
    tags = events_of(tmp_path / "tensorboard").Tags()
    assert not tags["histograms"] and not tags["images"] and "epoch/train_loss" in tags["scalars"]
    assert "epoch/val_loss" not in tags["scalars"]


def test_a_missing_tensorboard_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    data = Clips(4)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        train(small(tensorboard=True), "tsn_tiny", data, None, tmp_path, progress=False)
    assert data.read <= 1 and not (tmp_path / "state.pt").exists()
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


class Place:
    """What `display` returns: the place in the notebook."""

    def __init__(self):
        self.left = []

    def update(self, shown):
        self.left.append(shown)


@pytest.mark.parametrize("stop", [None, 15])
def test_the_plot_is_one_picture_that_refreshes_and_stays(tmp_path, monkeypatch, stop):
    import IPython.display

    shown = []
    place = Place()
    refreshed = []
    monkeypatch.setattr(watching, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda thing, display_id: shown.append(thing) or place)
    plot = LivePlot(every=0.0)
    draw = watching.Screen.show
    monkeypatch.setattr(watching.Screen, "show", lambda self, png: refreshed.append(png) or draw(self, png))
    try:
        train(small(), "tsn_tiny", Clips(stop=stop), Clips(6), tmp_path, progress=False, watch=[plot])
    except KeyboardInterrupt:
        assert stop
    assert len(shown) == len(place.left) == 1, "one widget, one picture at the end, also when the run stops"
    assert len(refreshed) == (4 if stop else 6) and len(set(refreshed)) == len(refreshed)
    assert place.left[0].data[1:4] == b"PNG" and plot.screen is None


def test_outside_a_notebook_nothing_is_shown_and_the_figure_is_there():
    assert not watching.in_notebook()
    assert to_png(LivePlot().figure())[1:4] == b"PNG"


def test_missing_widgets_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        watching.Screen(b"")


def test_the_bar_tells_rate_and_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=True)
    line = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(
        r"train tsn_tiny: 100%.* 20/20 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+clip/s, epoch=2/2, loss=[\d.]+, top1=",
        line,
    )
    train(small(seed=2), "tsn_tiny", Clips(), None, tmp_path / "quiet", progress=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("changes", [{}, dict(optimizer="sgd", ema=0.9, accumulate=2, partial_bn=True)])
def test_the_search_leaves_model_and_random_numbers_alone(changes):
    model = network().train()
    before = weights(model)
    modes = [m.training for m in model.modules()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    found = find_lr(small(**changes), model, Clips(), steps=12, highest=1e3)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert same(before, weights(model)) and modes == [m.training for m in model.modules()]
    assert found.suggestion in [r / 10 for r in rising_rates(1e-6, 1e3, 12)] and list(found.table) == [
        "lr",
        "loss",
        "smooth",
    ]
    assert found.figure().axes[0].get_xscale() == "log"
    again = find_lr(small(**changes), model, Clips(), steps=12, highest=1e3)
    assert again.table.equals(found.table)


def test_searches_that_cannot_be(caplog):
    wild = small(optimizer="sgd", clip_grad=0.0)
    for words, kwargs in (
        ("rise", dict(lowest=1.0, highest=0.1)),
        ("10 at least", dict(steps=3)),
        ("start lower", dict(lowest=1e20, highest=1e30, steps=10)),
    ):
        with pytest.raises(TrainingError, match=words):
            find_lr(wild, network(), Clips(), **kwargs)
    found = find_lr(small(), "tsn_tiny", Clips(), highest=1e-5, steps=10)
    assert not found.diverged and "did not explode" in caplog.text


def test_selections_are_read_without_a_trace():
    model = training_mode(network(), partial_bn=True)
    clips = torch.randn(2, 4, 3, 32, 32)
    before = weights(model)
    modes = [m.training for m in model.modules()]
    found = selection_weights(model, clips)
    assert list(found) == ["layer1", "layer2", "layer3", "layer4"] and found["layer1"]["LT"].shape == (2,)
    assert same(before, weights(model)) and modes == [m.training for m in model.modules()]
    with pytest.raises(ValueError):
        selection_weights(model, clips[0])
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks for m in model.modules())


def test_confusions_of_the_validation_are_counted(tmp_path):
    class Keep(watching.Watcher):
        def epoch(self, engine, progress, val_data):
            self.counts = engine.confusion
            self.row = progress.history[-1]

    keep = Keep()
    train(small(epochs=1), "tsn_tiny", Clips(), Clips(7), tmp_path, progress=False, watch=[keep])
    assert keep.counts.sum(1).tolist() == [3, 2, 2] and keep.counts.trace().item() / 7 == keep.row["val_top1"]
    axes = fig_confusion(keep.counts, Clips.class_names).axes[0]
    assert np.allclose(axes.images[0].get_array().sum(1), 1)
