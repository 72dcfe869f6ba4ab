"""Training: groups, repeatability, resuming after any stop, bad input, several processes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import tyro
from torch import nn

from sda.data.lists import Record
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.networks.backbones import create_model
from sda.networks.checkpoints import load_model
from sda.training.trainer import (
    RECIPES,
    Step,
    TrainConfig,
    TrainingError,
    Watcher,
    as_bytes,
    clip_loader,
    config_from_dict,
    epoch_plan,
    load_config,
    lr_factor,
    make_optimizer,
    parameter_groups,
    recipe,
    save_config,
    scaled_lr,
    start_engine,
    train,
    train_step,
    validate,
)


class Clips(torch.utils.data.Dataset):
    """Random clips in memory; `stop` raises when that many were read, like a machine that dies."""

    class_names = ["a", "b", "c"]

    def __init__(self, n=10, stop=None, spoil=None, size=32):
        self.n = n
        self.stop = stop
        self.spoil = spoil
        self.size = size
        self.read = 0
        self.epoch = 0

    def __len__(self):
        return self.n

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, i):
        self.read += 1
        if self.stop and self.read > self.stop:
            raise KeyboardInterrupt
        clip = torch.randn(
            4, 3, self.size, self.size, generator=torch.Generator().manual_seed(100 * self.epoch + i)
        )
        return {"clip": clip * (float("nan") if i == self.spoil else 1), "label": i % 3, "id": f"clip{i}"}


def small(**changes):
    return recipe(
        "moves",
        **dict(
            epochs=2,
            batch_size=4,
            num_frames=4,
            size=32,
            resize=32,
            lr=1e-3,
            dropout=0.3,
            device="cpu",
            threads=1,
        )
        | changes,
    )


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run."""
    return train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path_factory.mktemp("ref"), progress=False)


# -- descriptions


def test_command_line_and_help_come_from_the_dataclass(capsys):
    config = tyro.cli(TrainConfig, args=["--lr", "0.1", "--milestones", "3", "4", "--precision", "bf16"])
    assert (config.lr, config.milestones, config.precision) == (0.1, (3, 4), "bf16")
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "rate multiplier of the attention queries" in text and "crops are cut" in text


def test_every_field_has_help():
    text = Path(sys.modules["sda.training.trainer"].__file__).read_text().splitlines()
    for field in dataclasses.fields(TrainConfig):
        line = next(x for x in text if x.startswith(f"    {field.name}: "))
        assert "  # " in line, field.name


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_round_trip(name, tmp_path):
    assert load_config(save_config(RECIPES[name], tmp_path / "c.yaml")) == RECIPES[name]
    config_from_dict(json.loads(json.dumps(dataclasses.asdict(RECIPES[name]))))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"weigth_decay": 1}, "did you mean 'weight_decay'"),
        ({"lr": "fast"}, "'lr' cannot be 'fast'"),
        ({"precision": "fp8"}, "choose one of fp32"),
        ({"epochs": 2.5}, "whole number"),
        ({"flip": "no"}, "true or false"),
    ],
)
def test_bad_settings(values, words):
    with pytest.raises(TrainingError, match=words):
        config_from_dict(values)


def test_yaml_numbers_and_wrong_files(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 4e-3\nbetas: [0.9, 0.99]\n")
    assert load_config(tmp_path / "a.yaml") == recipe("moves", lr=4e-3, betas=(0.9, 0.99))
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(TrainingError, match="b.yaml"):
        load_config(tmp_path / "b.yaml")


def test_unknown_recipe():
    with pytest.raises(TrainingError, match="did you mean 'paper_something'"):
        recipe("paper_somethin")


# -- the optimiser


@pytest.mark.parametrize("name", ["tsn_resnet50", "tsm_tiny", "sda_tsm_resnet50", "sda_tsn_tiny"])
@pytest.mark.parametrize("kind", RECIPES)
def test_each_parameter_is_in_exactly_one_group(name, kind):
    with torch.device("meta"):
        model = create_model(name, 7)
    groups = parameter_groups(model, RECIPES[kind])
    assert sorted(n for g in groups for n in g["names"]) == sorted(n for n, _ in model.named_parameters())
    assert len({id(p) for g in groups for p in g["params"]}) == sum(1 for _ in model.parameters())


def test_published_groups():
    with torch.device("meta"):
        model = create_model("sda_tsm_resnet50", 174)
    groups = {g["role"]: g for g in parameter_groups(model, recipe("paper_something", batch_size=32))}
    assert {r: (g["lr_scale"], g["weight_decay"]) for r, g in groups.items()} == {
        "kernel": (1, 1e-4),
        "norm": (1, 0),
        "sda kernel": (5, 1e-4),
        "query": (1, 0),
        "head": (1, 1e-4),
        "head bias": (1, 0),
    }
    assert len(groups["query"]["params"]) == 16 and len(groups["sda kernel"]["params"]) == 16 * 6
    assert sum(p.numel() for r in ("sda kernel", "query") for p in groups[r]["params"]) < 1_904_144
    assert groups["sda kernel"]["lr"] == pytest.approx(5 * 0.01 * 32 / 64)
    tsm = parameter_groups(model, recipe("paper_something_tsm"))
    tsm = {g["role"]: (g["lr_scale"], g["weight_decay"]) for g in tsm}
    assert tsm["head"] == (5, 5e-4) and tsm["head bias"] == (10, 0)


def test_fast_query_differs_in_one_number():
    a, b = (dataclasses.asdict(RECIPES[n]) for n in ("moves", "moves_fast_query"))
    assert {k for k in a if a[k] != b[k]} == {"recipe", "query_lr"} and b["query_lr"] == 10


def test_frozen_parameters_are_in_no_group():
    model = create_model("sda_tsn_tiny", 2)
    model.conv1.weight.requires_grad_(False)
    assert "conv1.weight" not in [n for g in parameter_groups(model, small()) for n in g["names"]]


def test_linear_scaling_is_spelled_out():
    lr, text = scaled_lr(recipe("paper_something", batch_size=20))
    assert lr == pytest.approx(0.003125) and "0.01 x 20 / 64" in text


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25])
def test_schedules_stay_within_bounds(schedule, warmup):
    config = small(schedule=schedule, warmup=warmup, epochs=5, milestones=(3,))
    values = [lr_factor(config, s, 7) for s in range(35)]
    assert 0 <= min(values) and 0.98 <= max(values) <= 1 + 1e-12 and values[0] > 0


def test_accumulated_pieces_equal_one_batch(tmp_path):
    results = []
    for pieces in ([[0, 1, 2, 3, 4]], [[0, 1, 2], [3, 4]]):
        engine = start_engine(small(accumulate=len(pieces)), Plain(), tmp_path)
        train_step(engine, Step(5, pieces), list(clip_loader(Clips(), pieces)), 1.0)
        results.append(weights(engine.bare_model))
    assert all(torch.allclose(results[0][k], results[1][k], atol=1e-6) for k in results[0])
    assert not same(results[0], weights(Plain()))


class Plain(nn.Module):
    """A model without BatchNorm, whose statistics would be those of one process or piece."""

    num_classes = 3
    name = "plain"
    options = {}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3, 3)

    def forward(self, clips):
        return self.fc(clips.mean((1, 3, 4)))


def plain_steps(out):
    """Three epochs of ten clips, four a step, on as many processes as there are."""
    engine = start_engine(small(), Plain(), out)
    rank = engine.accelerator.process_index
    world = engine.accelerator.num_processes
    for epoch in range(3):
        for step in epoch_plan(10, 4, 0, epoch, rank=rank, world=world):
            train_step(engine, step, list(clip_loader(Clips(), step.pieces)), 1.0)
    return weights(engine.bare_model), validate(engine, Clips(7)), rank, world


TWO = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_trainer import plain_steps
found, scores, rank, world = plain_steps({out!r})
torch.save(dict(weights=found, scores=scores, world=world), {out!r} + f"/{{rank}}.pt")
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Same batches, same weights; seven validation clips on two processes are counted once each."""
    (tmp_path / "two.py").write_text(TWO.format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            str(tmp_path / "two.py"),
        ],
        check=True,
        timeout=200,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    )
    ranks = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2)]
    alone, scores, _, world = plain_steps(tmp_path)
    assert (
        world == 1 and all(r["world"] == 2 for r in ranks) and same(ranks[0]["weights"], ranks[1]["weights"])
    )
    assert all(torch.allclose(alone[k], ranks[0]["weights"][k], atol=1e-5) for k in alone)
    assert ranks[0]["scores"] == ranks[1]["scores"] == pytest.approx(scores, abs=1e-5)
    assert not same(alone, weights(Plain()))


def test_plans_cover_each_epoch_once():
    for n, batch, accumulate, world in ((23, 6, 1, 1), (23, 6, 2, 2), (24, 8, 1, 4)):
        plans = [epoch_plan(n, batch, 3, 1, accumulate, r, world) for r in range(world)]
        seen = sorted(i for p in plans for s in p for piece in s.pieces for i in piece)
        assert len(set(seen)) == len(seen) == sum(s.size for s in plans[0])
        assert n - len(seen) < accumulate * world, "only a tail too small to share is left out"
        assert all(
            len({len(p) for p in plans}) == 1 and min(map(len, s.pieces)) > 0 for p in plans for s in p
        )


# -- runs


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


@pytest.mark.parametrize("workers, save_every", [(2, 0), (0, 1)])
def test_workers_and_saving_change_nothing(reference, tmp_path, workers, save_every):
    config = small(num_workers=workers, save_every=save_every)
    assert same(
        weights(train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False).model),
        weights(reference.model),
    )


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
    """Asked to stop, then killed, each at some moment: the third start ends with the bits of an undisturbed run."""
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
    with pytest.raises(TrainingError, match="lr: 0.001 then, 0.5 now"):
        train(small(lr=0.5), "sda_tsm_tiny", Clips(), Clips(6), reference.out, progress=False)
    with pytest.raises(TrainingError, match="sda_tsn_tiny"):
        train(small(), "sda_tsn_tiny", Clips(), Clips(6), reference.out, progress=False)


def test_resume_false_starts_again(reference, tmp_path):
    train(small(epochs=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    fresh = train(small(), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, resume=False, progress=False)
    assert not fresh.reused and same(weights(fresh.model), weights(reference.model))


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="state.pt is not a readable"):
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False)


def test_a_damaged_finished_run_is_named(tmp_path, reference):
    for name in ("record.json", "history.csv"):
        out = tmp_path / name
        shutil.copytree(reference.out, out)
        (out / name).write_text("" if name.endswith("csv") else '{"config": ')
        with pytest.raises(TrainingError, match="damaged file.*--resume no"):
            train(small(), "sda_tsm_tiny", Clips(), Clips(6), out, progress=False)


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
    with pytest.raises(TrainingError, match="training_clips"):
        run(with_records(tmp_path, **changed), None)
    with pytest.raises(TrainingError, match="validation_clips"):
        run(with_records(tmp_path), with_records(tmp_path))


def test_history_is_there_while_the_run_goes_on(tmp_path):
    class Stop(Watcher):
        def step(self, engine, progress, loss):
            if progress.epoch:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False, watch=[Stop()])
    assert pd.read_csv(tmp_path / "history.csv").epoch.tolist() == [1]
    assert len(train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False).history) == 2


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", 0),
        ("epochs", -2),
        ("patience", -1),
        ("batch_size", 0),
        ("accumulate", 0),
        ("lr", -1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("mixup", -1),
        ("warmup", 3),
        ("momentum", 2),
        ("weight_decay", -1),
        ("keep_states", 0),
        ("save_every", -1),
        ("seed", -1),
        ("accumulate", 100),
        ("betas", (-0.1, 0.9)),
        ("dropout", 1.5),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, value, tmp_path):
    with pytest.raises(TrainingError, match=f"Setting '{name}' cannot be"):
        recipe("moves", **{name: value})
    with pytest.raises(TrainingError, match=f"Setting '{name}' cannot be"):
        train(
            dataclasses.replace(small(), **{name: value}),
            "tsn_tiny",
            Clips(),
            None,
            tmp_path / "run",
            progress=False,
        )
    assert not (tmp_path / "run").exists()


def test_batches_too_small_to_share_are_refused():
    with pytest.raises(TrainingError, match="5 clips in batches of 16 are too few for 8 pieces"):
        epoch_plan(5, 16, accumulate=8)


@pytest.mark.parametrize(
    "text, words",
    [
        ("recipe: nonsense", "no recipe 'nonsense'"),
        ("a: [", "is not YAML"),
        ("epochss: 3", "did you mean 'epochs'"),
        ("epochs: 0", "'epochs' cannot be 0"),
    ],
)
def test_settings_files_are_checked_by_name(text, words, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(TrainingError, match=f"run.yaml.*{words}"):
        load_config(file)


def test_a_settings_file_starts_from_the_recipe_it_names(tmp_path):
    (tmp_path / "run.yaml").write_text("recipe: paper_something\nepochs: 3")
    assert load_config(tmp_path / "run.yaml") == recipe("paper_something", epochs=3)


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


def test_layout_changes_speed_not_meaning(reference, tmp_path):
    plain = train(small(channels_last=False), "sda_tsm_tiny", Clips(), Clips(6), tmp_path, progress=False)
    assert plain.history.train_loss[0] == pytest.approx(reference.history.train_loss[0], rel=1e-3)


def test_gradients_are_clipped(tmp_path):
    engine = start_engine(
        small(clip_grad=1e-3, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=1.0),
        create_model("tsn_tiny", 3),
        tmp_path,
    )
    before = weights(engine.bare_model)
    train_step(engine, Step(4, [[0, 1, 2, 3]]), list(clip_loader(Clips(), [[0, 1, 2, 3]])), 1.0)
    moved = sum(((p - before[n]) ** 2).sum().item() for n, p in engine.bare_model.named_parameters()) ** 0.5
    assert moved == pytest.approx(1e-3, rel=1e-2)


# -- what must stop a run


class Labels(Clips):
    def __getitem__(self, i):
        return super().__getitem__(i) | {"label": 9 if i == 5 else 0}


class Other(Clips):
    class_names = ["a", "c", "b"]


class Real(Clips):
    transform_config = TransformConfig(size=32, resize=40)
    sampling = Sampling("segments", 4)


@pytest.mark.parametrize(
    "data, val, changes, words",
    [
        (Clips(spoil=3), None, {}, "clip3"),
        (Labels(), None, {}, "'clip5' has label 9"),
        (Clips(0), None, {}, "no training"),
        (Clips(), Clips(0), {}, "no validation clips"),
        (Clips(), Other(), {}, "other class names"),
        (Clips(size=48), None, {}, "4 frames of 48 x 48"),
        (Clips(), None, {"precision": "fp16"}, "Choose fp32"),
        (Clips(), Clips(spoil=2), {}, "clip2"),
        (Real(), None, {}, "config.transform"),
    ],
)
def test_bad_data(tmp_path, data, val, changes, words):
    with pytest.raises(TrainingError, match=words):
        train(small(**changes), "tsn_tiny", data, val, tmp_path, progress=False)


def test_bad_batch_is_saved(tmp_path):
    with pytest.raises(TrainingError):
        train(small(), "tsn_tiny", Clips(spoil=3), None, tmp_path, progress=False)
    assert "clip3" in json.loads((tmp_path / "bad_batch.json").read_text())["ids"]


def test_exploding_run_stops(tmp_path):
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        config = small(optimizer="sgd", lr=1e30, clip_grad=0.0, epochs=3)
        train(config, "tsn_tiny", Clips(), None, tmp_path, progress=False)


def test_wrong_head_and_folder(tmp_path):
    with pytest.raises(TrainingError, match="2 classes, the clips 3"):
        train(small(), create_model("tsn_tiny", 2), Clips(), None, tmp_path, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        train(small(), "tsn_tiny", Clips(), None, tmp_path / "file" / "x", progress=False)


def test_full_disk_is_told_before(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(
        "sda.training.trainer.shutil.disk_usage", lambda p: shutil._ntuple_diskusage(10**6, 10**6, 10**4)
    )
    with pytest.raises(TrainingError, match="MB are free"):
        train(small(), "tsn_tiny", Clips(), None, tmp_path, progress=False)


def test_optimizers_are_what_they_say():
    model = create_model("sda_tsn_tiny", 2)
    assert isinstance(make_optimizer(model, small(optimizer="sgd")), torch.optim.SGD)
    assert make_optimizer(model, small()).defaults["betas"] == (0.9, 0.98)


def test_a_description_reaches_the_clips(tmp_path):
    """Every augmentation field, and the seed of random frames and crops."""
    config = small(
        crop="resized",
        area=[0.5, 1],
        colour="jitter",
        strength=0.3,
        rand_augment=4,
        erase=0.2,
        flip=True,
        seed=3,
    )
    assert config.transform() == TransformConfig(
        32,
        32,
        "resized",
        area=(0.5, 1.0),
        colour="jitter",
        strength=0.3,
        rand_augment=4,
        erase=0.2,
        flip=True,
    )
    assert small().transform() == TransformConfig(32, 32, "random", colour="permute", flip=False)
    data = Clips(4)
    data.seed = 0
    train(small(epochs=1, seed=3), "tsn_tiny", data, None, tmp_path, progress=False)
    assert data.seed == 3


def test_bytes_on_the_way_change_no_bit(tmp_path, monkeypatch):
    """Real clips, augmented: read as bytes and finished beside the network, or as floats, the run is the same."""
    from PIL import Image

    from sda.data.datasets import ClipDataset
    from sda.data.lists import Record

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
    assert as_bytes(data)[0]["clip"].dtype == torch.uint8
    for kind in ("bytes", "floats"):
        if kind == "floats":
            monkeypatch.setattr("sda.training.trainer.as_bytes", lambda data: data)
        results.append(train(config, "tsn_tiny", data, data, tmp_path / kind, progress=False))
        assert data[0]["clip"].is_floating_point(), "the caller's clips are his own"
    assert same(*(weights(r.model) for r in results)) and results[0].history.val_loss.equals(
        results[1].history.val_loss
    )


# -- number formats, layouts and files that no other test reaches


@pytest.fixture
def half(monkeypatch):
    """float16 with its scaler on the CPU, where accelerate has none: `half.scale` is where the scaler starts."""
    import sda.training.trainer

    real = sda.training.trainer.make_accelerator

    def make(config):
        accelerator = real(dataclasses.replace(config, precision="bf16"))
        accelerator.state._mixed_precision = "fp16"
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=make.scale, growth_interval=3)
        return accelerator

    make.scale = 2.0**10
    monkeypatch.setattr("sda.training.trainer.make_accelerator", make)
    return make


def test_float16_learns_and_resumes_with_its_scale(half, tmp_path):
    config = small(precision="fp16", save_every=1)
    whole = train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, "sda_tsm_tiny", Clips(stop=15), Clips(6), tmp_path / "cut", progress=False)
    kept = torch.load(tmp_path / "cut/state.pt", weights_only=True)
    assert kept["scaler"]["scale"] == 2.0**11 and kept["model"]["conv1.weight"].dtype == torch.float32
    done = train(config, "sda_tsm_tiny", Clips(), Clips(6), tmp_path / "cut", progress=False)
    assert same(weights(done.model), weights(whole.model))


def test_float16_skips_a_step_that_overflows(half, tmp_path):
    half.scale = 2.0**40
    engine = start_engine(small(precision="fp16"), create_model("tsn_tiny", 3), tmp_path)
    before = weights(engine.bare_model)
    batch = list(clip_loader(Clips(), [[0, 1, 2, 3]]))
    train_step(engine, Step(4, [[0, 1, 2, 3]]), batch, 1.0)
    assert all(torch.equal(p, before[n]) for n, p in engine.bare_model.named_parameters())
    assert engine.accelerator.scaler.get_scale() == 2.0**39
    engine.accelerator.scaler.update(2.0**8)
    train_step(engine, Step(4, [[0, 1, 2, 3]]), batch, 1.0)
    assert not any(
        torch.equal(p, before[n]) for n, p in engine.bare_model.named_parameters() if n == "conv1.weight"
    )


def test_float16_does_not_skip_for_ever(half, tmp_path):
    half.scale = 0.5  # what is not finite at this scale is no matter of scale
    engine = start_engine(small(precision="fp16"), create_model("tsn_tiny", 3), tmp_path)
    next(engine.bare_model.parameters()).register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(TrainingError, match="gradient is nan on the clips clip0"):
        train_step(engine, Step(4, [[0, 1, 2, 3]]), list(clip_loader(Clips(), [[0, 1, 2, 3]])), 1.0)


def test_a_compiled_run_computes_the_same(tmp_path, monkeypatch):
    """The graph is captured and run without a C++ compiler; `benchmarks/steps.py` measures the compiled one."""
    called = []
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: called.append(1) or real(self, backend="eager"))
    runs = [
        train(small(epochs=1, compile=c), "tsn_tiny", Clips(8), Clips(4), tmp_path / str(c), progress=False)
        for c in (False, True)
    ]
    assert called and weights(runs[0].model).keys() == weights(runs[1].model).keys()
    assert all(
        torch.allclose(a, b, atol=1e-5)
        for a, b in zip(*(weights(r.model).values() for r in runs), strict=True)
    )


@pytest.mark.parametrize("on", [False, True])
def test_layout_reaches_kernels_and_clips(tmp_path, on):
    engine = start_engine(small(channels_last=on), create_model("tsn_tiny", 3), tmp_path)
    seen = []
    engine.bare_model.conv1.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    train_step(engine, Step(2, [[0, 1]]), list(clip_loader(Clips(), [[0, 1]])), 1.0)
    for tensor in (seen[0], engine.bare_model.conv1.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is on


def test_label_smoothing_is_in_the_loss(tmp_path):
    batch = next(iter(clip_loader(Clips(), [[0, 1, 2, 3]])))
    for share in (0.0, 0.3):
        engine = start_engine(small(label_smoothing=share, dropout=0.0), Plain(), tmp_path)
        expected = nn.functional.cross_entropy(
            Plain()(batch["clip"]), batch["label"], label_smoothing=share, reduction="sum"
        )
        assert train_step(engine, Step(4, [[0, 1, 2, 3]]), [batch], 1.0)[0] == pytest.approx(
            expected.item(), rel=1e-5
        )


@pytest.mark.parametrize(
    "changes, factors",
    [
        (dict(schedule="cosine", warmup=0.25), [0.5, 1, 1, 0.9330, 0.75, 0.5, 0.25, 0.0670]),
        (dict(schedule="step", warmup=0.0, milestones=(1, 3)), [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (dict(schedule="constant", warmup=0.5), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (dict(schedule="onecycle", warmup=0.25), [0.04, 0.52, 1, 0.9330, 0.75, 0.5, 0.25, 0.0670]),
    ],
)
def test_rates_reach_the_optimizer(tmp_path, monkeypatch, changes, factors):
    """Four epochs of two steps: the rate of each step, group by group."""
    seen = []

    def note(engine, *args):
        done = train_step(engine, *args)
        seen.append({g["role"]: g["lr"] for g in engine.optimizer.param_groups})
        return done

    monkeypatch.setattr("sda.training.trainer.train_step", note)
    train(small(epochs=4, head_lr=5.0, **changes), "tsn_tiny", Clips(8), None, tmp_path, progress=False)
    assert [s["kernel"] / 1e-3 for s in seen] == pytest.approx(factors, abs=1e-3)
    assert all(s["head"] == pytest.approx(5 * s["kernel"]) for s in seen)


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
    with pytest.raises(TrainingError, match="No space left on device. Free some space; the run goes on"):
        train(small(save_every=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    monkeypatch.setattr(torch, "save", real)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["progress"]["step"] == 2
    done = train(small(save_every=1), "tsn_tiny", Clips(), None, tmp_path, progress=False)
    whole = train(small(), "tsn_tiny", Clips(), None, tmp_path / "whole", progress=False)
    assert same(weights(done.model), weights(whole.model)) and not list(tmp_path.glob("*.tmp"))


def test_machines_that_share_no_folder_are_told(tmp_path):
    from types import SimpleNamespace

    from sda.training.trainer import Progress, _see_the_same

    others = torch.tensor([[0.0, 0.0, 0.0]])
    talk = SimpleNamespace(num_processes=2, device="cpu", gather=lambda mine: torch.cat([mine, others]))
    engine = SimpleNamespace(accelerator=talk, out=tmp_path)
    _see_the_same(engine, Progress(), False)
    with pytest.raises(TrainingError, match="every machine needs the same folder"):
        _see_the_same(engine, Progress(epoch=2), False)


def test_published_recipes_are_the_published_numbers():
    paper = recipe("paper_something")
    assert (paper.optimizer, paper.momentum, paper.lr, paper.lr_batch, paper.weight_decay) == (
        "sgd",
        0.9,
        0.01,
        64,
        1e-4,
    )
    assert (paper.epochs, paper.schedule, paper.milestones, paper.gamma) == (50, "step", (20, 40), 0.1)
    assert (paper.dropout, paper.clip_grad, paper.sda_lr, paper.partial_bn, paper.flip) == (
        0.5,
        20,
        5,
        False,
        True,
    )
    assert recipe("paper_something_tsm").weight_decay == 5e-4 and recipe("paper_diving48").clip_grad == 20
    small_set = recipe("finetune_small")
    assert small_set.partial_bn and small_set.patience and small_set.lr < paper.lr
