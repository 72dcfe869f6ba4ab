"""Looking at a run changes nothing and shows what happened; averages, ends and searches do what they say."""

import random
import re
import sys
import types

import numpy as np
import pytest
import torch
from hooks import hooks
from training_runs import Clips, same, small, weights

from sda.foundation.errors import MissingPackageError, RunError, SettingError, UnknownNameError
from sda.networks.backbones import create_model
from sda.training.callbacks import EMA, Callback, CancelRun
from sda.training.norms import training_mode
from sda.training.recipes import load_config
from sda.training.trainer import Trainer, find_lr, train
from sda.training.watching import LivePlot, Tracker, selection_weights


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def network(name="sda_tsm_tiny"):
    torch.manual_seed(0)
    return create_model(name, 3, num_frames=4, dropout=0.0)


def test_callbacks_are_asked_in_their_order(tmp_path):
    said = []

    class Says(Callback):
        def __init__(self, name):
            self.name = name

        def fit_start(self, run):
            said.append(("start", self.name))

        def step_end(self, run):
            said.append((run.state.steps, self.name))

        def fit_end(self, run):
            said.append(("end", self.name))

    Trainer(small(epochs=1), "tsn_tiny", Clips(4), callbacks=[Says("a"), Says("b")]).fit()
    assert said == [("start", "a"), ("start", "b"), (1, "a"), (1, "b"), ("end", "b"), ("end", "a")]


def test_a_callback_may_end_a_run(tmp_path):
    class Stops(Callback):
        def step_end(self, run):
            if run.state.steps == 2:
                run.stop()

    class Cancels(Callback):
        def step_end(self, run):
            raise CancelRun

    done = train(small(epochs=5), "tsn_tiny", Clips(), None, tmp_path, progress=False, callbacks=[Stops()])
    assert len(done.history) == 1 and (tmp_path / "record.json").exists()
    with pytest.raises(CancelRun):
        train(small(seed=1), "tsn_tiny", Clips(), None, tmp_path / "b", progress=False, callbacks=[Cancels()])
    assert not list((tmp_path / "b").iterdir())


def test_callbacks_are_told_and_change_nothing(tmp_path):
    class Seen(Callback):
        def __init__(self):
            self.losses = []
            self.epochs = []

        def step_end(self, run):
            self.losses.append(float(run.last.loss))

        def epoch_end(self, run):
            self.epochs.append(len(run.state.history))

    seen = Seen()
    with_it = train(small(), "tsn_tiny", Clips(), None, tmp_path / "a", progress=False, callbacks=[seen])
    without = train(small(), "tsn_tiny", Clips(), None, tmp_path / "b", progress=False)
    assert same(weights(with_it.model), weights(without.model))
    assert len(seen.losses) == 6 and seen.epochs == [1, 2] and all(x > 0 for x in seen.losses)


def test_watched_runs_end_with_the_same_bits(tmp_path):
    plain = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "plain", progress=False)
    plot = LivePlot()
    seen = train(
        small(track=("tensorboard",)),
        "sda_tsm_tiny",
        Clips(),
        Clips(6),
        tmp_path / "seen",
        progress=False,
        callbacks=[plot],
    )
    assert same(weights(plain.model), weights(seen.model))
    assert plain.history.val_loss.equals(seen.history.val_loss)
    assert len(plot.batches) == 6 and plot.per_epoch == 3 and len(plot.history) == 2
    assert not (plain.out / "tensorboard").exists(), "nothing is written unless it is asked for"


def test_the_average_is_validated_and_stored(tmp_path):
    plain = train(small(), "tsn_tiny", Clips(), Clips(6), tmp_path / "plain", progress=False)
    smooth = train(small(ema=0.9), "tsn_tiny", Clips(), Clips(6), tmp_path / "ema", progress=False)
    assert plain.history.train_loss.equals(smooth.history.train_loss), (
        "the average must not change the training"
    )
    assert not plain.history.val_loss.equals(smooth.history.val_loss)
    assert not same(weights(plain.model), weights(smooth.model))


def test_the_average_follows_its_formula():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    average = EMA(0.5)
    average.start(model)
    old = model[0].weight.item()
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].running_mean.fill_(1.0)
        model[1].num_batches_tracked.fill_(7)
    average.update(model)
    kept = average.evaluated(model)
    assert kept[0].weight.item() == pytest.approx(2 / 11 * old + 9 / 11 * 3) and model[0].weight.item() == 3
    assert kept[1].running_mean.item() == pytest.approx(9 / 11)
    assert kept[1].num_batches_tracked.item() == 7, "counts are copied"
    with pytest.raises(SettingError):
        EMA(1.0)


def test_tensorboard_has_each_step_once_after_a_crash(tmp_path):
    config = small(track=("tensorboard",), save_every=1)
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
    train(small(track=("tensorboard",), epochs=1), "tsn_tiny", Clips(4), None, tmp_path, progress=False)
    tags = events_of(tmp_path / "tensorboard").Tags()
    assert not tags["histograms"] and not tags["images"] and "epoch/train_loss" in tags["scalars"]
    assert "epoch/val_loss" not in tags["scalars"]


def test_a_missing_tensorboard_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    data = Clips(4)
    for start in (
        lambda: train(small(track=("tensorboard",)), "tsn_tiny", data, None, tmp_path, progress=False),
        lambda: Tracker("tensorboard", tmp_path),
    ):
        with pytest.raises(MissingPackageError) as caught:
            start()
        assert "[track]" in caught.value.remedy
    assert data.read <= 1 and not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_services_are_told_the_same_through_accelerate(kind, tmp_path, monkeypatch):
    from accelerate import tracking

    told = {"log": [], "figures": [], "settings": None, "finished": 0}

    class Service(tracking.GeneralTracker):
        name, requires_logging_directory = kind, False

        def __init__(self, project, **options):
            super().__init__(_blank=True)

        def store_init_configuration(self, values):
            told["settings"] = values

        def log(self, values, step=None):
            told["log"].append((step, values))

        def log_figure(self, figure, file):
            told["figures"].append(file)

        def finish(self):
            told["finished"] += 1

    module = types.ModuleType(kind)
    module.Image = lambda figure: told["figures"].append(figure)
    monkeypatch.setitem(sys.modules, kind, module)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, kind, Service)
    config = small(track=(kind,), epochs=1)
    train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert told["settings"]["lr"] == config.lr and told["finished"] == 1 and len(told["figures"]) == 1
    assert [step for step, values in told["log"] if "batch/loss" in values] == [1, 2, 3]
    names = {name for _, values in told["log"] for name in values}
    assert {"epoch/val_top1", "selection layer4/LT", "rate/query"} <= names


def test_a_tracker_that_is_not_installed_or_not_known_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackageError) as caught:
        Tracker("wandb", tmp_path)
    assert caught.value.subject == "wandb"
    with pytest.raises(UnknownNameError):
        Tracker("wanda", tmp_path)


def test_settings_of_before_are_read(tmp_path):
    (tmp_path / "old.yaml").write_text("tensorboard: true\n")
    assert load_config(tmp_path / "old.yaml").track == ("tensorboard",)


class Place:
    """What `display` returns: the place in the notebook."""

    def __init__(self):
        self.left = []

    def update(self, shown):
        self.left.append(shown)


@pytest.fixture
def page(monkeypatch):
    """As inside a notebook: what is displayed, where, and every picture that is shown there."""
    import IPython
    import IPython.display
    import ipywidgets

    class Page:
        shown: list = []
        place = Place()
        pictures: list = []

    class Kernel:
        kernel = object()

    class Image(ipywidgets.Image):
        def __init__(self, **options):
            super().__init__(**options)
            self.observe(lambda change: found.pictures.append(bytes(change["new"])), "value")

    found = Page()
    found.shown = []
    found.pictures = []
    monkeypatch.setattr(IPython, "get_ipython", Kernel)
    monkeypatch.setattr(ipywidgets, "Image", Image)
    monkeypatch.setattr(
        IPython.display, "display", lambda thing, display_id: found.shown.append(thing) or found.place
    )
    return found


@pytest.mark.parametrize("stop", [None, 15])
def test_the_plot_is_one_picture_that_refreshes_and_stays(tmp_path, page, stop):
    plot = LivePlot(every=0.0)
    try:
        train(small(), "tsn_tiny", Clips(stop=stop), Clips(6), tmp_path, progress=False, callbacks=[plot])
    except KeyboardInterrupt:
        assert stop
    assert len(page.shown) == len(page.place.left) == 1, (
        "one widget, one picture at the end, also after a stop"
    )
    assert len(page.pictures) == len(set(page.pictures)) == (4 if stop else 6)
    assert page.place.left[0].data[1:4] == b"PNG"


def test_missing_widgets_are_named(tmp_path, monkeypatch, page):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingPackageError) as caught:
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False, callbacks=[LivePlot()])
    assert caught.value.subject == "ipywidgets" and "[notebook]" in caught.value.remedy


def test_outside_a_notebook_nothing_is_shown_and_the_figure_is_there():
    assert len(LivePlot().figure().axes) == 2


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
    assert any(np.isclose(10 * found.suggestion, r) for r in np.geomspace(1e-6, 1e3, 12)) and list(
        found.table
    ) == [
        "lr",
        "loss",
        "smooth",
    ]
    assert found.figure().axes[0].get_xscale() == "log"
    again = find_lr(small(**changes), model, Clips(), steps=12, highest=1e3)
    assert again.table.equals(found.table)


def test_searches_that_cannot_be(caplog):
    wild = small(optimizer="sgd", clip_grad=0.0)
    for error, kwargs in (
        (SettingError, dict(lowest=1.0, highest=0.1)),
        (SettingError, dict(steps=3)),
        (RunError, dict(lowest=1e20, highest=1e30, steps=10)),
    ):
        with pytest.raises(error):
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
    assert hooks(model) == 0


def test_confusions_of_the_validation_are_counted(tmp_path):
    class Keep(Callback):
        def epoch_end(self, run):
            self.counts = run.confusion
            self.row = run.state.history[-1]

    keep = Keep()
    train(small(epochs=1), "tsn_tiny", Clips(), Clips(7), tmp_path, progress=False, callbacks=[keep])
    assert keep.counts.sum(1).tolist() == [3, 2, 2] and keep.counts.trace().item() / 7 == keep.row["val_top1"]
