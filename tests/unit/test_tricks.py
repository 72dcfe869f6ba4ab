"""Averages, mixed clips, statistics over processes, the memory estimate, and what the trainer makes of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainer import Clips, same, small, weights

from sda.networks.backbones import create_model
from sda.testing.evaluate import evaluate
from sda.training.trainer import (
    ASSUMED,
    RECIPES,
    Step,
    TrainingError,
    Watcher,
    clip_loader,
    differences,
    epoch_plan,
    recipe,
    run_identity,
    start_engine,
    train,
    train_step,
)
from sda.training.tricks import (
    Average,
    activation_bytes,
    averaged,
    memory_estimate,
    mix_batch,
    mix_clips,
    sync_norms,
)

TWO = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_tricks import single_steps, synced_steps
found = synced_steps({out!r}) | dict(single=single_steps({out!r}))
torch.save(found, {out!r} + f"/{{torch.distributed.get_rank()}}.pt")
"""


def synced_steps(out):
    """Three steps of a tiny SDA network with shared statistics, then a test on seven clips."""
    engine = start_engine(
        small(sync_bn=True, optimizer="sgd", lr=0.05, dropout=0), create_network().double(), Path(out)
    )
    rank = engine.accelerator.process_index
    world = engine.accelerator.num_processes
    for step in epoch_plan(10, 4, 0, 0, rank=rank, world=world)[:2]:
        train_step(engine, step, list(clip_loader(Double(), step.pieces)), 1.0)
    found = evaluate(sync_norms(engine.bare_model, on=False), Double(7), batch_size=2, progress=False)
    return dict(
        weights=weights(engine.bare_model), world=world, ids=found.ids, logits=torch.tensor(found.logits)
    )


def single_steps(out):
    """Weights after each of three float32 steps with shared statistics, at the published rate."""
    engine = start_engine(
        small(sync_bn=True, optimizer="sgd", lr=0.01, dropout=0), create_network(), Path(out)
    )
    rank = engine.accelerator.process_index
    world = engine.accelerator.num_processes
    found = []
    for step in [
        *epoch_plan(16, 8, 0, 0, rank=rank, world=world),
        epoch_plan(16, 8, 0, 1, rank=rank, world=world)[0],
    ]:
        train_step(engine, step, list(clip_loader(Clips(16), step.pieces)), 1.0)
        found.append(weights(engine.bare_model))
    return found


class Double(Clips):
    """In float64 the order of summation is no excuse for a difference."""

    def __getitem__(self, i):
        return (item := super().__getitem__(i)) | {"clip": item["clip"].double()}


def create_network():
    torch.manual_seed(0)
    return create_model("sda_tsm_tiny", 3, num_frames=4, dropout=0.0)


@pytest.mark.slow
def test_two_processes_share_statistics_and_count_each_clip_once(tmp_path):
    """gloo, world size 2: weights, BatchNorm statistics and test scores equal those of one process."""
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
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    ranks = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2)]
    alone = synced_steps(tmp_path)
    assert alone["world"] == 1 and all(r["world"] == 2 for r in ranks)
    for one in ranks:
        assert one["ids"] == alone["ids"] == [f"clip{i}" for i in range(7)]
        assert torch.allclose(one["logits"], alone["logits"], atol=1e-5)
        for name, value in alone["weights"].items():
            assert torch.allclose(one["weights"][name].float(), value.float(), atol=1e-5), name
    assert not same(alone["weights"], weights(create_network()))
    # float32 too, with BatchNorm; later rounding turns ReLUs over, see nbs/training/52_machines.ipynb
    alone = single_steps(tmp_path)
    assert all(same(a, b) for a, b in zip(*(r["single"] for r in ranks), strict=True))
    for one, two in zip(alone, ranks[0]["single"], strict=True):
        for name, value in one.items():
            assert torch.allclose(two[name].double(), value.double(), rtol=0, atol=1e-5), name
    assert not same(alone[0], alone[2])


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
    assert {type(m).__name__ for m in done.model.modules() if "Norm" in type(m).__name__} == {
        "BatchNorm1d",
        "BatchNorm2d",
    }


def test_the_average_is_validated_and_stored(tmp_path):
    plain = train(small(), "tsn_tiny", Clips(), Clips(6), tmp_path / "plain", progress=False)
    smooth = train(small(ema=0.9), "tsn_tiny", Clips(), Clips(6), tmp_path / "ema", progress=False)
    assert plain.history.train_loss.equals(smooth.history.train_loss), (
        "the average must not change the training"
    )
    assert not plain.history.val_loss.equals(smooth.history.val_loss)
    assert not same(weights(plain.model), weights(smooth.model))


def test_the_average_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    old = average.state["weight"].item()
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(model)
    assert average.state["weight"].item() == pytest.approx(2 / 11 * old + 9 / 11 * 3)
    with averaged(model, average):
        assert model.weight.item() != 3
    assert model.weight.item() == 3
    with pytest.raises(ValueError, match="between 0 and 1"):
        Average(model, 1.0)


def test_mixup_changes_the_loss_and_only_in_training(tmp_path):
    losses = []
    for share in (0.0, 1.0):
        engine = start_engine(small(mixup=share, lr=0.0, dropout=0), create_network(), tmp_path)
        torch.manual_seed(5)
        losses.append(
            train_step(engine, Step(4, [[0, 1, 2, 3]]), list(clip_loader(Clips(), [[0, 1, 2, 3]])), 1.0)[0]
        )
    assert losses[0] != losses[1]
    clips = torch.randn(3, 2, 3, 4, 4)
    mixed, partners, share = mix_clips(clips, torch.arange(3), 0.4)
    assert mixed.shape == clips.shape and 0 <= share <= 1 and sorted(partners.tolist()) == [0, 1, 2]


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
    with pytest.raises(TrainingError, match="Rename state.1.pt"):
        train(config, "tsn_tiny", Clips(), None, tmp_path, progress=False)
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
    model = create_network()
    config = small()
    old = run_identity(config, model, Clips())
    del old["config"]["ema"], old["config"]["mixup"]
    assert differences(old, run_identity(config, model, Clips())) == []
    assert differences(old, run_identity(small(ema=0.5), model, Clips())) == ["ema: 0.0 then, 0.5 now"]


def test_watchers_are_told_and_change_nothing(tmp_path):
    class Seen(Watcher):
        def __init__(self):
            self.losses = []
            self.epochs = []

        def step(self, engine, progress, loss):
            self.losses.append(loss)

        def epoch(self, engine, progress, val_data):
            self.epochs.append(len(progress.history))

    seen = Seen()
    with_it = train(small(), "tsn_tiny", Clips(), None, tmp_path / "a", progress=False, watch=[seen])
    without = train(small(), "tsn_tiny", Clips(), None, tmp_path / "b", progress=False)
    assert same(weights(with_it.model), weights(without.model))
    assert len(seen.losses) == 6 and seen.epochs == [1, 2] and all(x > 0 for x in seen.losses)


def test_devices_that_are_not_there_are_named():
    for device in ("cuda", "mps"):
        there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
        if there:
            continue
        with pytest.raises(TrainingError, match=f"device='{device}' is not available"):
            start_engine(small(device=device), create_network(), Path("."))


def test_recipes_without_a_published_command_say_so(tmp_path, caplog):
    assert (
        set(ASSUMED) == {"paper_something", "paper_diving48", "paper_epic55"}
        and ASSUMED.keys() <= RECIPES.keys()
    )
    config = small(recipe="paper_epic55", epochs=1)
    train(config, "tsn_tiny", Clips(4), None, tmp_path, progress=False)
    assert "P01 to P25" in caplog.text and recipe("paper_diving48").epochs == 50


def test_memory_is_estimated_without_computing():
    model = create_model("sda_tsn_tiny", 5)
    one, two = (activation_bytes(model, n, 8, 64) for n in (1, 2))
    assert 1.8 < two / one < 2.05
    sizes = memory_estimate(model, 2, 8, 64, "adamw", half=True, ema=True)
    assert sizes["optimizer"] == 2 * sizes["weights"] == 2 * sizes["average"]
    assert sizes["activations"] == pytest.approx(two / 2e9)
    assert sizes["total"] == pytest.approx(sum(v for k, v in sizes.items() if k != "total"))


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_second_classifier_learns_in_training(tmp_path, mixup):
    """TPN's head on layer3 gets gradients from `train_step`, with mixed labels too; the answer's loss is reported."""
    torch.manual_seed(0)
    model = create_model("tpn_tiny", 3, num_frames=4, dropout=0.0)
    if mixup:
        model.auxiliary_loss = lambda y, f=model.auxiliary_loss: seen.append(y) or f(y)
        seen = []
    engine = start_engine(small(mixup=mixup, optimizer="sgd", weight_decay=0.0), model, tmp_path)
    before = weights(model)
    loss, _ = train_step(engine, Step(4, [[0, 1, 2, 3]]), list(clip_loader(Clips(), [[0, 1, 2, 3]])), 1.0)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n, _ in model.named_parameters() if n.startswith("aux.")} <= moved and model._answer is None
    if not mixup:
        assert loss == pytest.approx(float(weights_loss(before)), rel=1e-4)
    else:
        assert seen[0].shape == (4, 3) and torch.allclose(seen[0].sum(1), torch.ones(4))


def weights_loss(state):
    """The summed cross-entropy of the main answer on the first four clips, with these weights."""
    model = create_model("tpn_tiny", 3, num_frames=4, dropout=0.0).train()
    model.load_state_dict(state)
    batch = next(iter(clip_loader(Clips(), [[0, 1, 2, 3]])))
    return torch.nn.functional.cross_entropy(model(batch["clip"]), batch["label"], reduction="sum").detach()


def test_cutmix_trains_and_either_is_drawn_when_both_are_asked_for(tmp_path):
    clips = torch.randn(4, 2, 3, 8, 8)
    labels = torch.arange(4)
    assert len(mix_batch(clips, labels)) == 1
    torch.manual_seed(0)
    mixed = [mix_batch(clips, labels, 0.5, 0.5)[0] for _ in range(20)]
    pasted = [bool((m == clips).flatten(1).any(1).all() and not torch.equal(m, clips)) for m in mixed]
    assert 3 < sum(pasted) < 17, "a pasted clip keeps pixels of its own, a blended one keeps none"
    config = small(cutmix=1.0, save_every=1)
    whole = train(config, "tsn_tiny", Clips(), Clips(6), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, "tsn_tiny", Clips(stop=15), Clips(6), tmp_path / "cut", progress=False)
    assert same(
        weights(train(config, "tsn_tiny", Clips(), Clips(6), tmp_path / "cut", progress=False).model),
        weights(whole.model),
    )
