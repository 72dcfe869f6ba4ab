"""A training from clips to files: what it leaves, repeatability, going on after a stop, what must stop it."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from training_runs import Clips, same, small, weights

from sda.data.datasets import clip_loader
from sda.data.lists import Record
from sda.foundation.errors import DivergedError, FolderError, RunError
from sda.networks.backbones import create_model
from sda.networks.checkpoints import load_model
from sda.testing.evaluate import evaluate
from sda.training.callbacks import Callback, CancelRun
from sda.training.identity import run_identity
from sda.training.norms import restore_norms
from sda.training.optimiser import make_optimizer
from sda.training.recipes import config_from_dict
from sda.training.run import RunFolder, RunState
from sda.training.step import TrainingStep
from sda.training.stopping import NaNStop
from sda.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run."""
    return train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path_factory.mktemp("ref"), progress=False)


def test_what_a_run_leaves(reference):
    files = ["best.safetensors", "history.csv", "model.safetensors", "record.json"]
    assert sorted(p.name for p in reference.out.iterdir()) == files
    record = json.loads((reference.out / "record.json").read_text())
    assert config_from_dict(record["config"]) == small()
    assert record["kind"] == "train" and record["clips"] == 10 and record["metrics"]["epoch"] == 2
    model = load_model(reference.out / "model.safetensors")
    assert same(weights(model), weights(reference.model)) and model.card.class_names == Clips.class_names
    assert model.card.recipe["recipe"] == "moves" and not reference.model.training
    assert reference.history.val_top1.between(0, 1).all() and len(reference.history) == 2


def test_same_seed_same_bits_other_seed_other_weights(reference, tmp_path):
    again = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "a", progress=False)
    assert same(weights(again.model), weights(reference.model))
    assert again.history.drop(columns=["seconds", "clips_per_second"]).equals(
        reference.history.drop(columns=["seconds", "clips_per_second"])
    )
    other = train(small(seed=1), "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "b", progress=False)
    assert not same(weights(other.model), weights(reference.model))


def test_a_trainer_alone_computes_the_same_and_writes_nothing(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = Trainer(small(), "sda_tsm_tiny", Clips(), Clips(6)).fit()
    assert same(weights(done.model), {k: v for k, v in weights(done.model).items()})
    assert done.history.train_loss.equals(reference.history.train_loss)
    assert done.out is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers, save_every", [(2, 0), (0, 1)])
def test_workers_and_saving_change_nothing(reference, tmp_path, workers, save_every):
    config = small(num_workers=workers, save_every=save_every)
    assert same(
        weights(train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False).model),
        weights(reference.model),
    )


@pytest.mark.parametrize("every", [2, 10])
def test_how_often_values_are_read_changes_nothing(reference, every):
    done = Trainer(small(), "sda_tsm_tiny", Clips(), Clips(6), read_every=every).fit()
    assert done.history.train_loss.equals(reference.history.train_loss)
    assert done.history.train_top1.equals(reference.history.train_top1)


def test_layout_changes_speed_not_meaning(reference, tmp_path):
    plain = train(small(channels_last=False), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert plain.history.train_loss[0] == pytest.approx(reference.history.train_loss[0], rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        dict(precision="bf16"),
        dict(optimizer="sgd", schedule="step", milestones=(1,)),
        dict(partial_bn=True),
        dict(channels_last=False, label_smoothing=0.1, accumulate=2),
    ],
)
def test_options_run(tmp_path, changes):
    result = train(small(epochs=1, **changes), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert all(torch.isfinite(v).all() for v in result.model.state_dict().values())
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in result.model.parameters())


def test_best_and_patience(tmp_path):
    config = small(epochs=6, keep="best", patience=1)
    result = train(config, "tsn_tiny", Clips(), Clips(6), tmp_path, progress=False)
    best = result.history.val_top1.idxmax() + 1
    assert result.record["metrics"]["epoch"] == best and len(result.history) == min(best + 1, 6)
    assert result.model.card.metrics["val_top1"] == pytest.approx(result.history.val_top1.max())
    assert not (tmp_path / "best.pt").exists()


def test_patience_needs_validation(tmp_path, caplog):
    """Nothing was looked at, so nothing can have stopped improving."""
    result = train(
        small(epochs=3, keep="best", patience=1), "tsn_tiny", Clips(), None, tmp_path, progress=False
    )
    assert len(result.history) == 3 and "patience looks at validation clips" in caplog.text


def test_the_best_epoch_is_kept_beside_the_last(tmp_path):
    config = small(epochs=3, lr=0.02, save_every=1)
    last = train(config, "tsn_tiny", Clips(), Clips(6), tmp_path / "last", progress=False)
    best = train(
        dataclasses.replace(config, keep="best"),
        "tsn_tiny",
        Clips(),
        Clips(6),
        tmp_path / "best",
        progress=False,
    )
    beside = load_model(tmp_path / "last/best.safetensors")
    assert same(weights(beside), weights(best.model)) and not (tmp_path / "best/best.safetensors").exists()
    assert (
        beside.card.metrics["epoch"]
        == best.record["metrics"]["epoch"]
        == last.record["metrics"]["best_epoch"]
    )
    assert same(weights(last.model), weights(load_model(tmp_path / "last/model.safetensors")))


@pytest.mark.parametrize(
    "changes, factors",
    [
        (dict(schedule="cosine", warmup=0.25), [0.5, 1, 1, 0.9330, 0.75, 0.5, 0.25, 0.0670]),
        (dict(schedule="step", warmup=0.0, milestones=(1, 3)), [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (dict(schedule="constant", warmup=0.5), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (dict(schedule="onecycle", warmup=0.25), [0.04, 0.52, 1, 0.9330, 0.75, 0.5, 0.25, 0.0670]),
    ],
)
def test_rates_reach_the_optimizer(changes, factors):
    """Four epochs of two steps: the rate of each step, group by group."""
    seen = []

    class Rates(Callback):
        def step_end(self, run):
            seen.append({g["role"]: g["lr"] for g in run.optimizer.param_groups})

    Trainer(small(epochs=4, head_lr=5.0, **changes), "tsn_tiny", Clips(8), callbacks=[Rates()]).fit()
    assert [s["kernel"] / 1e-3 for s in seen] == pytest.approx(factors, abs=1e-3)
    assert all(s["head"] == pytest.approx(5 * s["kernel"]) for s in seen)


def test_bytes_on_the_way_change_no_bit(tmp_path):
    """Real clips, augmented: as bytes that are finished beside the network, or as floats, the run is the
    same."""
    from PIL import Image

    from sda.data.datasets import ClipDataset

    records = []
    results = []
    for i in range(4):
        (folder := tmp_path / f"clip{i}").mkdir()
        for t in range(1, 5):
            pixels = torch.randint(
                256, (40, 48, 3), generator=torch.Generator().manual_seed(10 * i + t), dtype=torch.uint8
            )
            Image.fromarray(pixels.numpy()).save(folder / f"{t:05d}.png")
        records.append(Record(f"clip{i}", str(folder), i % 3))
    config = small(epochs=1, crop="resized", colour="permute", flip=True)
    data = ClipDataset(records, Clips.class_names, config.sampling(), config.transform(), train=True)

    class Floats(torch.utils.data.Dataset):
        """The same clips without a way to hand out bytes."""

        class_names = data.class_names
        set_epoch = staticmethod(data.set_epoch)

        def __len__(self):
            return len(data)

        def __getitem__(self, i):
            return data[i]

    for kind, clips in (("bytes", data), ("floats", Floats())):
        results.append(train(config, "tsn_tiny", clips, clips, tmp_path / kind, progress=False))
        assert data[0]["clip"].is_floating_point(), "the caller's clips are his own"
    assert same(*(weights(r.model) for r in results)) and results[0].history.val_loss.equals(
        results[1].history.val_loss
    )


# -- going on after a stop


@pytest.mark.parametrize("read", [3, 7, 11, 15, 19])
@pytest.mark.parametrize("save_every", [0, 1])
def test_a_run_that_died_ends_with_the_same_bits(reference, tmp_path, read, save_every):
    config = small(save_every=save_every)
    with pytest.raises(KeyboardInterrupt):
        train(config, "sda_tsm_tiny", Clips(stop=read), Clips(6), tmp_path, progress=False)
    assert (tmp_path / "state.pt").exists() == (read > (4 if save_every else 10))
    done = train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert same(weights(done.model), weights(reference.model))
    assert done.history.val_loss.equals(reference.history.val_loss)
    assert done.history.train_loss.equals(reference.history.train_loss)


@pytest.mark.parametrize(
    "changes", [dict(ema=0.9), dict(mixup=0.3, sync_bn=True), dict(ema=0.9, keep="best")]
)
def test_a_run_with_tricks_resumes_with_the_same_bits(tmp_path, changes):
    config = small(save_every=1, **changes)
    whole = train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, "sda_tsm_tiny", Clips(stop=15), Clips(6), tmp_path / "cut", progress=False)
    done = train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "cut", progress=False)
    assert same(weights(done.model), weights(whole.model))
    kinds = [type(m) for m in create_model("sda_tsm_tiny", 3, num_frames=4).modules()]
    assert [type(m) for m in done.model.modules()] == kinds, "shared norms are ordinary again"


def test_clips_cut_into_each_other_resume_with_the_same_bits(tmp_path):
    config = small(cutmix=1.0, save_every=1)
    whole = train(config, "tsn_tiny", Clips(), Clips(6), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, "tsn_tiny", Clips(stop=15), Clips(6), tmp_path / "cut", progress=False)
    done = train(config, "tsn_tiny", Clips(), Clips(6), tmp_path / "cut", progress=False)
    assert same(weights(done.model), weights(whole.model))


class Asks(Callback):
    """Sends this process a signal during the second step, as a person or a cluster would."""

    def __init__(self, number, steps=2):
        self.number = number
        self.steps = steps

    def step_end(self, run):
        if run.state.steps == self.steps:
            os.kill(os.getpid(), self.number)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_stop_that_is_asked_for_saves_and_resumes_with_the_same_bits(reference, tmp_path, number, error):
    """Ctrl-C and SIGTERM in the middle of an epoch, though nothing was to be saved there."""
    before = signal.getsignal(number)
    with pytest.raises(error):
        train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False, callbacks=[Asks(number)])
    assert signal.getsignal(number) is before
    progress = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 2)
    done = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert same(weights(done.model), weights(reference.model))
    assert done.history.train_loss.equals(reference.history.train_loss)


def test_a_stop_during_a_validation_is_answered_there(reference, tmp_path):
    class Asks(Callback):
        def validation_step(self, run):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False, callbacks=[Asks()])
    progress = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 3)
    done = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert same(weights(done.model), weights(reference.model))
    assert done.history.val_loss.equals(reference.history.val_loss)


def test_lack_of_memory_is_called_so(tmp_path):
    class Large(Clips):
        def __getitem__(self, i):
            if i == 5:
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
                )
            return super().__getitem__(i)

    with pytest.raises(RunError) as caught:
        train(small(), "tsn_tiny", Large(), None, tmp_path, progress=False)
    assert "--accumulate 2" in caught.value.remedy


LONG = dict(epochs=24, save_every=1)
SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from test_trainer import LONG, Clips, small, train
class Slow(Clips):
    def __getitem__(self, i): time.sleep(.03); return super().__getitem__(i)
train(small(**LONG), "sda_tsn_tiny", Slow(4), None, {out!r}, progress=False)
"""


@pytest.mark.slow
def test_signals(tmp_path):
    """Asked to stop, then killed, each at some moment: the third start ends with the bits of a whole run."""
    whole = train(small(**LONG), "sda_tsn_tiny", Clips(4), None, tmp_path / "whole", progress=False)
    out = tmp_path / "cut"
    moments = []
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out))
    for kind, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        before = (out / "state.pt").stat().st_mtime_ns if moments else 0
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        end = time.time() + 90
        while time.time() < end and process.poll() is None:
            if (out / "state.pt").exists() and (out / "state.pt").stat().st_mtime_ns != before:
                break
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(kind)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == code, errors
        moments.append(torch.load(out / "state.pt", weights_only=True)["progress"]["epoch"])
    assert 0 < moments[0] < moments[1] < 24
    done = train(small(**LONG), "sda_tsn_tiny", Clips(4), None, out, progress=False)
    assert same(weights(done.model), weights(whole.model))
    assert done.history.train_loss.equals(whole.history.train_loss)


def test_a_finished_run_is_returned_and_another_is_refused(reference):
    again = train(small(), "sda_tsm_tiny", Clips(), Clips(6), reference.out, progress=False)
    assert again.reused and same(weights(again.model), weights(reference.model))
    for config, name in ((small(lr=0.5), "sda_tsm_tiny"), (small(), "sda_tsn_tiny")):
        with pytest.raises(RunError) as caught:
            train(config, name, Clips(), Clips(6), reference.out, progress=False)
        assert caught.value.subject == str(reference.out) and "--resume no" in caught.value.remedy


def test_resume_false_starts_again(reference, tmp_path):
    train(small(epochs=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    fresh = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, resume=False, progress=False)
    assert not fresh.reused and same(weights(fresh.model), weights(reference.model))


def test_history_is_there_while_the_run_goes_on(tmp_path):
    class Stop(Callback):
        def step_end(self, run):
            if run.state.epoch:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False, callbacks=[Stop()])
    assert pd.read_csv(tmp_path / "history.csv").epoch.tolist() == [1]
    assert len(train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False).history) == 2


def with_records(folder, label=0, size=5):
    """The clips in memory as if they came from files."""
    (folder / "clip").write_bytes(b"x" * size)
    data = Clips()
    data.records = [
        Record(f"clip{i}", str(folder / "clip"), i % 3 if i else label, 4) for i in range(len(data))
    ]
    return data


@pytest.mark.parametrize("changed", [dict(label=1), dict(size=6)])
def test_other_clips_are_another_run(tmp_path, changed):
    """Neither a corrected label nor another set with the same names is answered with the old run."""

    def run(data, val):
        return train(small(epochs=1), "tsn_tiny", data, val, tmp_path / "run", progress=False)

    run(with_records(tmp_path), None)
    assert run(with_records(tmp_path), None).reused
    for given in (changed, {}):
        data = with_records(tmp_path, **given)
        with pytest.raises(RunError) as caught:
            run(data, None if given else with_records(tmp_path))
        assert caught.value.subject == str(tmp_path / "run")


# -- what must stop a run


class Labels(Clips):
    def __getitem__(self, i):
        return super().__getitem__(i) | {"label": 9 if i == 5 else 0}


@pytest.mark.parametrize(
    "data, val, error, subject",
    [
        (Clips(spoil=3), None, DivergedError, None),
        (Labels(), None, RunError, "clip5"),
        (Clips(), Clips(spoil=2), DivergedError, "clip0"),
    ],
)
def test_bad_clips_are_named(tmp_path, data, val, error, subject):
    with pytest.raises(error) as caught:
        train(small(), "tsn_tiny", data, val, tmp_path, progress=False)
    spoilt = data.spoil if val is None else val.spoil
    assert subject is None or caught.value.subject == subject
    assert spoilt is None or f"clip{spoilt}" in str(caught.value)


@pytest.mark.parametrize("every", [1, 3])
def test_a_bad_batch_is_named_before_anything_is_written(tmp_path, every):
    """Its step and clips, also where values are read later than they are made."""
    trainer = Trainer(
        small(epochs=3), "tsn_tiny", Clips(spoil=3), None, [NaNStop()], tmp_path, read_every=every
    )
    with pytest.raises(DivergedError) as caught:
        trainer.fit()
    found = json.loads((tmp_path / "bad_batch.json").read_text())
    steps = clip_loader(Clips(), 4, shuffle=True).plan(0)
    [bad] = [k for k, step in enumerate(steps) if 3 in step.pieces[0]]
    assert found["step"] == bad + 1 and found["ids"] == [f"clip{i}" for i in steps[bad].pieces[0]]
    assert f"step {bad + 1}" in str(caught.value)
    assert not list(tmp_path.glob("state*")) and not list(tmp_path.glob("best*"))


def test_exploding_run_stops(tmp_path):
    with pytest.raises(DivergedError):
        config = small(optimizer="sgd", lr=1e30, clip_grad=0.0, epochs=3)
        train(config, "tsn_tiny", Clips(), None, tmp_path, progress=False)


def test_wrong_head_and_folder(tmp_path):
    with pytest.raises(RunError) as caught:
        train(small(), create_model("tsn_tiny", 2), Clips(), None, tmp_path, progress=False)
    assert "create_model" in caught.value.remedy
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError):
        train(small(), "tsn_tiny", Clips(), None, tmp_path / "file" / "x", progress=False)
    with pytest.raises(RunError):
        train(small(batch_size=16, accumulate=8), "tsn_tiny", Clips(5), None, tmp_path, progress=False)


def test_full_disk_is_told_before(tmp_path, monkeypatch):
    usage = SimpleNamespace(total=10**6, used=10**6, free=10**4)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(FolderError):
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False)


# -- several processes


TWO = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_trainer import all_steps
torch.save(all_steps({out!r}), {out!r} + f"/{{torch.distributed.get_rank()}}.pt")
"""


class Double(Clips):
    """In float64 the order of summation is no excuse for a difference."""

    def __getitem__(self, i):
        return (item := super().__getitem__(i)) | {"clip": item["clip"].double()}


class Plain(torch.nn.Module):
    """A model without BatchNorm, whose statistics would be those of one process."""

    num_classes = 3
    name = "plain"
    options = {}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(3, 3)

    def forward(self, clips):
        return self.fc(clips.mean((1, 3, 4)))


def create_network():
    torch.manual_seed(0)
    return create_model("sda_tsm_tiny", 3, num_frames=4, dropout=0.0)


def steps_of(update, data, number):
    """So many steps with this process's share of the clips; the weights after each."""
    accelerator = update.accelerator
    share = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    loader = clip_loader(data, 4 if len(data) == 10 else 8, shuffle=True, **share)
    found = []
    for epoch in range(2):
        for step, batch in zip(loader.plan(epoch), loader.epoch(epoch), strict=True):
            if len(found) < number:
                update([batch], step.size)
                found.append(weights(update.network))
    return found


def all_steps(out):
    """What is compared: plain steps with a validation, shared statistics in float64 and in float32."""
    shared = dict(sync_bn=True, optimizer="sgd", dropout=0)
    trainer = Trainer(small(), Plain(), Clips(), Clips(7), [Ends()])
    with contextlib.suppress(CancelRun):
        trainer.fit()
    update = TrainingStep(small(lr=0.05, **shared), create_network().double())
    world = update.accelerator.num_processes
    double = steps_of(update, Double(), 2)[-1]
    restore_norms(update.network, update.ordinary)
    found = evaluate(update.network, Double(7), batch_size=2, progress=False)
    single = steps_of(TrainingStep(small(lr=0.01, **shared), create_network()), Clips(16), 3)
    rank = trainer.run.accelerator.process_index
    own = Path(out) / f"own{world}-{rank}"  # every process its own folder, and the first has gone further
    if rank == 0:
        leave_a_state(own)
    try:
        Trainer(small(epochs=3), Plain(), Clips(), None, [Ends(0)], own).fit()
    except (RunError, CancelRun) as err:
        agreed = isinstance(err, CancelRun)
    return dict(
        world=world,
        plain=weights(trainer.run.network),
        scores=[trainer.run.state.history[-1][name] for name in ("val_loss", "val_top1")],
        double=double,
        ids=found.ids,
        logits=torch.tensor(found.logits),
        single=single,
        agreed=agreed,
    )


class Ends(Callback):
    """Ends a run before its results: before the first epoch, or after so many."""

    def __init__(self, epochs=2):
        self.epochs = epochs

    def fit_start(self, run):
        if self.epochs == 0:
            raise CancelRun

    def epoch_end(self, run):
        if run.state.epoch == self.epochs:
            raise CancelRun


def leave_a_state(out):
    """A state of the run after its first epoch."""
    network = Plain()
    folder = RunFolder(out, network, run_identity(small(epochs=3), network, Clips()))
    optimizer = make_optimizer(network, small(epochs=3)).state_dict()
    progress = dataclasses.asdict(RunState(epoch=1))
    folder.save(
        dict(model=network.state_dict(), optimizer=optimizer, scaler=None, progress=progress, average=None)
    )


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """gloo, world size 2: same batches, same weights and statistics; each validation clip counts once."""
    (tmp_path / "two.py").write_text(TWO.format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *start, str(tmp_path / "two.py")], check=True, timeout=300, env=env)
    ranks = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2)]
    alone = all_steps(tmp_path)
    assert alone["world"] == 1 and all(r["world"] == 2 for r in ranks)
    assert same(ranks[0]["plain"], ranks[1]["plain"]) and not same(alone["plain"], weights(Plain()))
    assert all(torch.allclose(alone["plain"][k], ranks[0]["plain"][k], atol=1e-5) for k in alone["plain"])
    assert ranks[0]["scores"] == ranks[1]["scores"] == pytest.approx(alone["scores"], abs=1e-5)
    for one in ranks:
        assert one["ids"] == alone["ids"] == [f"clip{i}" for i in range(7)]
        assert torch.allclose(one["logits"], alone["logits"], atol=1e-5)
        for name, value in alone["double"].items():
            assert torch.allclose(one["double"][name].float(), value.float(), atol=1e-5), name
    assert not same(alone["double"], weights(create_network()))
    # float32 too, with BatchNorm; later rounding turns ReLUs over, see nbs/training/52_machines.ipynb
    assert all(same(a, b) for a, b in zip(*(r["single"] for r in ranks), strict=True))
    for one, two in zip(alone["single"], ranks[0]["single"], strict=True):
        for name, value in one.items():
            assert torch.allclose(two[name].double(), value.double(), rtol=0, atol=1e-5), name
    assert not same(alone["single"][0], alone["single"][2])
    assert alone["agreed"] and not any(r["agreed"] for r in ranks), "folders that are not one are refused"
