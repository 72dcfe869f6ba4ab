"""From the loss to the weights: groups, rates, mixed clips, an update, number formats, norms, memory."""

import dataclasses

import pytest
import torch
from torch import nn
from training_runs import Clips, batch_of, same, small, weights

import sda.training.step
from sda.foundation.errors import DivergedError, RunError, SettingError
from sda.networks.backbones import create_model
from sda.training.memory import activation_bytes, memory_estimate
from sda.training.norms import CPUSyncBatchNorm, restore_norms, share_norms, training_mode
from sda.training.optimiser import lr_factor, make_optimizer, mix_batch, parameter_groups, scaled_lr
from sda.training.recipes import RECIPES, recipe
from sda.training.step import TrainingStep
from sda.training.trainer import train


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


def test_accumulated_pieces_equal_one_batch():
    results = []
    for pieces in ([[0, 1, 2, 3, 4]], [[0, 1, 2], [3, 4]]):
        update = TrainingStep(small(accumulate=len(pieces)), Plain())
        update([batch_of(Clips(), *piece) for piece in pieces], 5)
        results.append(weights(update.network))
    assert all(torch.allclose(results[0][k], results[1][k], atol=1e-6) for k in results[0])
    assert not same(results[0], weights(Plain()))


def test_optimizers_are_what_they_say():
    model = create_model("sda_tsn_tiny", 2)
    assert isinstance(make_optimizer(model, small(optimizer="sgd")), torch.optim.SGD)
    assert make_optimizer(model, small()).defaults["betas"] == (0.9, 0.98)


def test_gradients_are_clipped():
    config = small(clip_grad=1e-3, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=1.0)
    update = TrainingStep(config, create_model("tsn_tiny", 3))
    before = weights(update.network)
    update([batch_of(Clips(), 0, 1, 2, 3)], 4)
    moved = sum(((p - before[n]) ** 2).sum().item() for n, p in update.network.named_parameters()) ** 0.5
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_labels_outside_the_classes_are_named():
    batch = batch_of(Clips(), 4, 5) | {"label": torch.tensor([0, 9])}
    with pytest.raises(RunError) as caught:
        TrainingStep(small(), Plain())([batch], 2)
    assert caught.value.subject == "clip5" and "9" in str(caught.value)


@pytest.fixture
def half(monkeypatch):
    """float16 with its scaler on the CPU, where accelerate has none; it starts at `half.scale`."""
    real = sda.training.step.make_accelerator

    def make(config):
        accelerator = real(dataclasses.replace(config, precision="bf16"))
        accelerator.state._mixed_precision = "fp16"  # refused without a GPU where it is asked for publicly
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=make.scale, growth_interval=3)
        return accelerator

    make.scale = 2.0**10
    monkeypatch.setattr("sda.training.step.make_accelerator", make)
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


def test_float16_skips_a_step_that_overflows(half):
    half.scale = 2.0**40
    update = TrainingStep(small(precision="fp16"), create_model("tsn_tiny", 3))
    before = weights(update.network)
    batch = batch_of(Clips(), 0, 1, 2, 3)
    update([batch], 4)
    assert all(torch.equal(p, before[n]) for n, p in update.network.named_parameters())
    assert update.accelerator.scaler.get_scale() == 2.0**39
    update.accelerator.scaler.update(2.0**8)
    update([batch], 4)
    assert not torch.equal(update.network.conv1.weight, before["conv1.weight"])


def test_float16_does_not_skip_for_ever(half, tmp_path):
    half.scale = 0.5  # what is not finite at this scale is no matter of scale
    network = create_model("tsn_tiny", 3)
    next(network.parameters()).register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(DivergedError) as error:
        train(small(precision="fp16"), network, Clips(), None, tmp_path, progress=False)
    assert error.value.subject.startswith("clip") and "gradient" in str(error.value)  # and not the loss


def test_a_compiled_run_computes_the_same(tmp_path, monkeypatch):
    """The graph is captured and run without a C++ compiler; `benchmarks/steps.py` measures compiled ones."""
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
def test_layout_reaches_kernels_and_clips(on):
    update = TrainingStep(small(channels_last=on), create_model("tsn_tiny", 3))
    seen = []
    update.network.conv1.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    update([batch_of(Clips(), 0, 1)], 2)
    for tensor in (seen[0], update.network.conv1.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is on


def test_label_smoothing_is_in_the_loss():
    batch = batch_of(Clips(), 0, 1, 2, 3)
    for share in (0.0, 0.3):
        update = TrainingStep(small(label_smoothing=share, dropout=0.0), Plain())
        expected = nn.functional.cross_entropy(
            Plain()(batch["clip"]), batch["label"], label_smoothing=share, reduction="mean"
        )
        assert float(update([batch], 4).loss) == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_changes_the_loss():
    losses = []
    for share in (0.0, 1.0):
        update = TrainingStep(
            small(mixup=share, lr=0.0, dropout=0), create_model("sda_tsm_tiny", 3, num_frames=4)
        )
        torch.manual_seed(5)
        losses.append(float(update([batch_of(Clips(), 0, 1, 2, 3)], 4).loss))
    assert losses[0] != losses[1]
    clips = torch.randn(3, 2, 3, 4, 4)
    mixed, partners, share = mix_batch(clips, torch.arange(3), mixup=0.4)
    assert mixed.shape == clips.shape and 0 <= share <= 1 and sorted(partners.tolist()) == [0, 1, 2]


def test_either_is_drawn_when_mixup_and_cutmix_are_asked_for():
    clips = torch.randn(4, 2, 3, 8, 8)
    labels = torch.arange(4)
    assert mix_batch(clips, labels) == (clips, None, 1.0)
    torch.manual_seed(0)
    mixed = [mix_batch(clips, labels, 0.5, 0.5)[0] for _ in range(20)]
    pasted = [bool((m == clips).flatten(1).any(1).all() and not torch.equal(m, clips)) for m in mixed]
    assert 3 < sum(pasted) < 17, "a pasted clip keeps pixels of its own, a blended one keeps none"


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_second_classifier_learns_in_training(mixup):
    """TPN's head on layer3 gets gradients, with mixed labels too; the answer's loss is reported."""
    torch.manual_seed(0)
    model = create_model("tpn_tiny", 3, num_frames=4, dropout=0.0)
    if mixup:
        model.auxiliary_loss = lambda y, f=model.auxiliary_loss: seen.append(y) or f(y)
        seen = []
    update = TrainingStep(small(mixup=mixup, optimizer="sgd", weight_decay=0.0), model)
    before = weights(model)
    result = update([batch_of(Clips(), 0, 1, 2, 3)], 4)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n, _ in model.named_parameters() if n.startswith("aux.")} <= moved
    if not mixup:
        assert float(result.loss) == pytest.approx(float(answer_loss(before)), rel=1e-4)
    else:
        assert seen[0].shape == (4, 3) and torch.allclose(seen[0].sum(1), torch.ones(4))


def answer_loss(state):
    """The cross-entropy of the main answer on the first four clips, with these weights."""
    model = create_model("tpn_tiny", 3, num_frames=4, dropout=0.0).train()
    model.load_state_dict(state)
    batch = batch_of(Clips(), 0, 1, 2, 3)
    return nn.functional.cross_entropy(model(batch["clip"]), batch["label"]).detach()


def test_devices_that_are_not_there_are_named():
    for device in ("cuda", "mps"):
        there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
        if there:
            continue
        with pytest.raises(SettingError) as caught:
            TrainingStep(small(device=device), Plain())
        assert caught.value.subject == "device" and "cpu" in caught.value.choices
    if not torch.cuda.is_available():
        with pytest.raises(SettingError) as caught:
            TrainingStep(small(precision="fp16"), Plain())
        assert caught.value.subject == "precision"


def test_shared_norms_are_ordinary_again_with_what_they_learnt():
    model = create_model("sda_tsn_tiny", 3, num_frames=4)
    kinds = [type(m) for m in model.modules()]
    names = list(model.state_dict())
    ordinary = share_norms(model, torch.device("cpu"))
    shared = [m for m in model.modules() if isinstance(m, CPUSyncBatchNorm)]
    assert len(shared) == len(ordinary) > 20 and list(model.state_dict()) == names
    model.train()(torch.randn(2, 4, 3, 32, 32))
    learnt = weights(model)
    restore_norms(model, ordinary)
    assert [type(m) for m in model.modules()] == kinds and same(weights(model), learnt)
    assert not same(learnt, weights(create_model("sda_tsn_tiny", 3, num_frames=4)))


def test_frozen_norms_are_those_that_imagenet_knows():
    for shared in (False, True):
        model = create_model("sda_tsn_tiny", 2)
        if shared:
            share_norms(model, torch.device("cpu"))
        training_mode(model, partial_bn=True)
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
        frozen = {name for name, m in model.named_modules() if isinstance(m, kinds) and not m.training}
        assert "bn1" not in frozen and "layer1.0.bn2" in frozen and not any("gate" in name for name in frozen)


def test_memory_is_estimated_without_computing():
    model = create_model("sda_tsn_tiny", 5)
    one, two = (activation_bytes(model, n, 8, 64) for n in (1, 2))
    assert 1.8 < two / one < 2.05
    sizes = memory_estimate(model, 2, 8, 64, "adamw", half=True, ema=True)
    assert sizes["optimizer"] == 2 * sizes["weights"] == 2 * sizes["average"]
    assert sizes["activations"] == pytest.approx(two / 2e9)
    assert sizes["total"] == pytest.approx(sum(v for k, v in sizes.items() if k != "total"))


# -- on a GPU


@pytest.mark.gpu
def test_float16_on_a_gpu_learns_with_its_scaler():
    update = TrainingStep(small(precision="fp16", device="cuda", dropout=0), create_model("tsm_tiny", 3))
    batch = batch_of(Clips(), 0, 1, 2, 3)
    losses = [float(update([batch], 4).loss) for _ in range(8)]
    assert update.accelerator.scaler.get_scale() >= 1 and losses[-1] < losses[0]
    assert update.network.conv1.weight.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("on", [False, True])
def test_layout_on_a_gpu(on):
    update = TrainingStep(small(channels_last=on, device="cuda"), create_model("tsm_tiny", 3))
    seen = []
    update.network.conv1.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    update([batch_of(Clips(), 0, 1)], 2)
    for tensor in (seen[0], update.network.conv1.weight):
        assert tensor.is_cuda and tensor.is_contiguous(memory_format=torch.channels_last) is on


@pytest.mark.gpu
def test_shared_norms_on_a_gpu_are_those_of_torch():
    model = create_model("sda_tsn_tiny", 3, num_frames=4)
    update = TrainingStep(small(sync_bn=True, device="cuda"), model)
    shared = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert shared and all(type(m) is nn.SyncBatchNorm for m in shared)
    update([batch_of(Clips(), 0, 1, 2, 3)], 4)
    learnt = weights(model)
    restore_norms(model, update.ordinary)
    assert same(weights(model), learnt) and all(v.is_cuda for v in model.state_dict().values())
