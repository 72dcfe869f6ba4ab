"""Selections that can be zero: closed forms, the block with them, and the losses that train them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from hooks import hooks
from torch import nn
from training_runs import Clips, same, small, weights

from sda.explaining.answers import logits_of
from sda.explaining.faithful_selection import (
    LeftOut,
    controls,
    left_out,
    necessity,
    rescale_gates,
    silence,
    stability,
    sufficiency,
    truth_table,
)
from sda.explaining.interventions import drop, temperature
from sda.explaining.trace import trace_clips
from sda.foundation.errors import SettingError, UnknownNameError
from sda.foundation.statistics import softmax
from sda.networks.backbones import create_model, sda_blocks
from sda.networks.blocks import SDA
from sda.networks.checkpoints import ModelCard, load_model, load_weights, save_model
from sda.networks.selection import KINDS, entmax, hard_concrete, leave_out, open_probability, sparsemax, top_k
from sda.training.recipes import recipe
from sda.training.selecting import SelectionLoss
from sda.training.step import TrainingStep
from sda.training.trainer import train


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    torch.manual_seed(0)
    scores = torch.randn(40, 3, dtype=torch.double)
    found = sparsemax(scores)
    points = torch.distributions.Dirichlet(torch.ones(3, dtype=torch.double)).sample((4000,))
    distance = (points[None] - scores[:, None]).square().sum(-1).amin(1)
    assert ((found - scores).square().sum(-1) <= distance).all()
    assert torch.allclose(found.sum(-1), torch.ones(40, dtype=torch.double)) and (found == 0).any()


def test_entmax_solves_its_equation():
    torch.manual_seed(0)
    scores = torch.randn(40, 5, dtype=torch.double)
    found = entmax(scores)
    threshold = (scores / 2 - found.sqrt()).masked_fill(found == 0, torch.nan)
    assert torch.allclose(found.sum(-1), torch.ones(40, dtype=torch.double))
    assert (threshold.nan_to_num(-9).amax(1) - threshold.nan_to_num(9).amin(1)).abs().max() < 1e-9
    assert torch.equal(entmax(torch.zeros(1, 4)), torch.full((1, 4), 0.25))


def test_top_k_has_the_gradient_of_a_softmax():
    scores = torch.tensor([[1.0, 0.5, 0.2, -1.0]], requires_grad=True)
    down = torch.tensor([[1.0, 2, 3, 4]])
    (straight,) = torch.autograd.grad((top_k(scores, 2) * down).sum(), scores)
    (whole,) = torch.autograd.grad((scores.softmax(-1) * down).sum(), scores)
    assert torch.allclose(straight, whole)
    kept = top_k(scores, 2, straight=False)[0]
    assert torch.allclose(kept[:2], scores[0, :2].softmax(-1)) and not kept[2:].any()


def test_gates_open_as_often_as_their_price_says():
    torch.manual_seed(0)
    scores = torch.linspace(-4, 4, 9)
    drawn = hard_concrete(scores.expand(5000, -1), noise=True)
    assert torch.allclose((drawn > 0).float().mean(0), open_probability(scores), atol=0.03)


def test_leaving_out_opens_nothing():
    weights = torch.tensor([[0.5, 0, 0.5, 0], [0, 0.25, 0, 0], [0, 0, 0, 0], [0.1, 0.2, 0, 0.1]])
    left = leave_out(weights, torch.tensor([True, False, True, True]))
    assert torch.allclose(left, torch.tensor([[0.5, 0, 0.5, 0], [0] * 4, [0] * 4, [0.2, 0, 0, 0.2]]))
    assert torch.equal(drop("LT").change("", ("LST", "LT", "LS", "S122"), weights), left)


def test_a_temperature_opens_nothing_and_keeps_what_is_shared():
    rows = torch.tensor([[0.3, 0.1, 0, 0], [0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    change = temperature(0.5).change
    sharp = change("", ("LST", "LT", "LS", "S122"), rows)
    assert torch.allclose(sharp, torch.tensor([[0.36, 0.04, 0, 0], [0, 0, 0, 0], [0.25] * 4]))


def opened(*biases, kind="gated", channels=64):
    """A block whose gates do not look at the clip."""
    block = SDA(channels, attention=kind).eval()
    with torch.no_grad():
        block.attention.scores.queries.zero_()
        block.attention.scores.bias.copy_(torch.tensor(biases))
    return block


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_is_the_same_alone_and_in_a_batch(kind):
    torch.manual_seed(0)
    block = SDA(16, attention=kind)
    x = torch.randn(16, 16, 6, 6)
    block(x).square().sum().backward()
    assert block.attention.scores.queries.grad.abs().sum() > 0
    block.eval()
    with torch.no_grad():
        both = block(x)
        assert torch.allclose(both[:8], block(x[:8]), atol=1e-6)  # another batch may leave out others
        assert torch.allclose(block.bfloat16()(x.bfloat16()).float(), both, atol=0.05)


@pytest.mark.parametrize("biases", [(-9, 9, -9, -9), (9, -9, 1, -9), (-9, -9, -9, 9), (-9.0, -9, -9, -9)])
def test_what_a_batch_leaves_out_is_not_computed_and_changes_nothing(biases):
    torch.manual_seed(0)
    block = opened(*biases)
    x = torch.randn(16, 64, 7, 7)
    with torch.no_grad():
        quick = block(x)
        seen = []
        hook = block.hook_weights.register_forward_hook(lambda m, a, weights: seen.append(weights))
        gates = []
        other = block.hook_gate.register_forward_hook(lambda m, a, gate: gates.append(gate))
        tiny_hook = block.hook_weights.register_forward_hook(lambda m, a, weights: weights.clamp(min=1e-30))
        plain = block(x)  # nothing is zero, so everything is computed
        tiny_hook.remove()
        hook.remove()
        other.remove()
    assert torch.allclose(quick, plain, atol=1e-6)
    assert ((seen[-1] == 0) == (torch.tensor(biases) < -5)).all()
    if max(biases) < 0:
        assert gates[-1].transpose(0, 1).flatten(1).std(1).max() < 1e-6  # a constant gate


def stored(path, net):
    """The file of a network of four classes."""
    return save_model(path, net, ModelCard.of(net, list("abcd")))


def tiny(**options):
    torch.manual_seed(0)
    return create_model("sda_tsn_tiny", 4, dropout=0.0, attention="gated", **options)


def test_a_file_remembers_its_attention(tmp_path):
    net = tiny(attention_options={"bias": 1.0, "noise": False}).eval()
    clips = torch.randn(2, 8, 3, 32, 32)
    path = stored(tmp_path / "net.safetensors", net)
    again = load_model(path)
    with torch.no_grad():
        assert torch.equal(again(clips), net(clips))
    with pytest.raises(UnknownNameError):
        tiny(attention_options={"gates": 1})


def test_gates_travel():
    """Exported, a block sees no values: it computes what it would leave out, and the answers are the same."""
    block = opened(-9, 1, 0, -9)
    x = torch.randn(16, 64, 8, 8)
    with torch.no_grad():
        program = torch.export.export(block, (x,))
        assert torch.allclose(program.module()(x), block(x), atol=1e-6)


def test_published_weights_fit_around_the_gates(tmp_path):
    old = create_model("sda_tsn_tiny", 4, dropout=0.0)
    path = stored(tmp_path / "old.safetensors", old)
    new = tiny()
    load_weights(new, path)
    assert torch.equal(new.layer1[0].gate.up.weight, old.layer1[0].gate.up.weight)


ASKED = dict(gate_price=1.0, gate_order=1.0, gate_share=0.5, selection_ramp=0.5)


def test_a_training_of_gates_resumes_with_the_same_bits(tmp_path):
    """Norms are shared, gates are drawn, the price rises."""
    config = small(sync_bn=True, save_every=1, **ASKED)

    def run(clips, folder):
        torch.manual_seed(0)
        net = create_model("sda_tsn_tiny", 3, num_frames=4, dropout=0.3, attention="gated")
        return train(config, net, clips, Clips(6), folder, progress=False).model

    whole = run(Clips(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Clips(stop=15), tmp_path / "cut")
    done = run(Clips(), tmp_path / "cut")
    assert same(weights(done), weights(whole))
    assert sda_blocks(done)["layer1.0"].attention.ramp == 1
    assert type(sda_blocks(done)["layer1.0"].attention.scores.norm) is nn.BatchNorm1d


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_compiles_without_graph_breaks(kind):
    """Without noise: a compiled draw is another one."""
    torch.manual_seed(0)
    block = SDA(16, attention=kind, attention_options={"noise": False})
    x = torch.randn(16, 16, 6, 6)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), block(x), atol=1e-5)


def test_gates_learn_on_another_device(tmp_path, monkeypatch):
    """On a CUDA device that computes nothing: no tensor is made elsewhere."""
    net = tiny()
    teacher = stored(tmp_path / "teacher.safetensors", create_model("sda_tsn_tiny", 4, dropout=0.0))
    config = small(init=str(teacher), distill=1.0, gate_price=1.0)
    loss = SelectionLoss(config, net)
    with fake_cuda(monkeypatch):
        net.to("cuda").train()
        clips, labels = batch()["clip"].to("cuda"), batch()["label"].to("cuda")
        with loss:
            logits = net(clips)
        assert loss(clips, labels, logits, 0.5).device.type == "cuda"


def step(tmp_path, network, **changes):
    init = stored(tmp_path / "teacher.safetensors", create_model("sda_tsn_tiny", 4, dropout=0.0))
    base = dict(size=32, resize=32, dropout=0.0, init=str(init), threads=1, batch_size=4)
    return TrainingStep(recipe("moves", **(base | changes)), network)


def batch():
    torch.manual_seed(1)
    return {"clip": torch.randn(4, 8, 3, 32, 32), "label": torch.arange(4), "id": list("abcd")}


def test_a_price_shuts_gates_and_an_order_widens_what_is_needed(tmp_path):
    asked = dict(free={}, priced=dict(gate_price=40.0), within=dict(gate_price=40.0, gate_budget=1.0))
    bias = {}
    for name, changes in asked.items():
        torch.manual_seed(0)  # gates are drawn
        update = step(tmp_path, tiny(), lr=0.05, query_lr=5.0, **changes)
        for _ in range(2):
            update([batch()], 4)
        bias[name] = [b.attention.scores.bias.mean().item() for b in sda_blocks(update.network).values()]
    assert max(bias["priced"]) < min(bias["free"])
    assert bias["within"] == bias["free"]  # no more are open than the budget has
    everything = step(
        tmp_path, tiny(), gate_follow=1.0, gate_order=1.0, gate_share=1.0, distill=1.0, selection_ramp=0.5
    )
    assert torch.isfinite(everything([batch()], 4, 1.0, 0.1).norm)
    assert hooks(everything.network) == 0
    copy.deepcopy(everything.network)
    assert all(m.training for m in everything.network.modules())


@pytest.mark.parametrize("kind", ["sparsemax", "top_k"])
def test_rules_that_sum_to_one_learn_under_a_ramp(tmp_path, kind):
    update = step(tmp_path, create_model("sda_tsn_tiny", 4, attention=kind, dropout=0.0), selection_ramp=0.5)
    for progress in (0.1, 0.2):
        assert torch.isfinite(update([batch()], 4, 1.0, progress).norm)
    ramps = [block.attention.ramp.item() for block in sda_blocks(update.network).values()]
    assert ramps == pytest.approx([0.4] * 4)


def test_gates_are_asked_only_of_gates(tmp_path):
    with pytest.raises(SettingError):
        step(tmp_path, create_model("sda_tsn_tiny", 4, attention="sparsemax"), gate_price=0.1)
    with pytest.raises(SettingError):
        SelectionLoss(recipe("moves", distill=1.0), tiny())


def test_the_order_is_learned_from_measured_losses(tmp_path):
    """With the losses given, the hinge widens the gate of the larger one and narrows the other."""
    update = step(tmp_path, tiny(), gate_order=1.0, gate_share=1.0)
    loss = update.selection
    cell = torch.zeros(4, 16).index_fill_(1, torch.tensor([3]), 2.0)  # only the fourth gate matters
    # given in place of those it measures: of a network that is not trained they would name no gate
    loss._losses = lambda clips, labels, chosen: cell.gather(1, chosen)
    clips = batch()["clip"]
    grads = torch.zeros(16)
    for _ in range(20):
        with loss:
            update.network(clips)
        value = loss(clips, torch.arange(4), torch.zeros(4, 4))
        found = torch.autograd.grad(value, [a.scores.bias for a in loss.scored], allow_unused=True)
        grads += torch.cat([torch.zeros(4) if g is None else g for g in found])
    others = grads[[i for i in range(16) if i != 3]]
    assert grads[3] < -0.5 and others.min() > -0.05 and others.sum() > 0.5  # descent widens the one it needs


def test_truth_is_measured_and_its_controls_know_less():
    rng = np.random.default_rng(0)
    losses = rng.gamma(1.0, 1.0, (30, 4, 4)) * (rng.random((30, 4, 4)) < 0.5)
    known = necessity(losses / losses.sum((1, 2), keepdims=True), losses)
    assert known["all"]["mean"] == pytest.approx(1) and known["open"]["mean"] == pytest.approx(1)
    assert known["largest"]["mean"] == 1
    wrong = necessity(rng.permuted(losses.reshape(30, 16), axis=1).reshape(30, 4, 4), losses)
    assert abs(wrong["all"]["mean"]) < 0.2 and wrong["largest"]["mean"] < 0.6


def test_controls_keep_what_their_names_say():
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 1, 1, 2])
    weights = rng.random((6, 2, 4)) * (rng.random((6, 2, 4)) < 0.6)
    losses = np.zeros_like(weights)
    found = LeftOut(weights, losses, np.ones(6, bool), ["a", "b"], np.eye(3)[labels], labels)
    told = controls(found)
    assert np.array_equal(told["open or closed"], weights > 0)
    assert np.array_equal(told["dealt out among the open"] > 0, weights > 0)
    for name in ("dealt out among the open", "weights dealt out"):
        assert np.allclose(*(np.sort(w.reshape(6, 8)) for w in (told[name], weights)))
        assert not np.allclose(told[name], weights)
    assert all((told["another clip's"][i] != weights[i]).any() for i in range(6))
    assert np.allclose(
        told["mean of the others of its class"][:3], [weights[1], weights[0], weights[3:5].mean(0)]
    )
    assert np.isnan(told["mean of the others of its class"][5]).all()
    alone = necessity(told["mean of the others of its class"], weights, weights > 0)
    assert alone["all"]["n"] == alone["largest"]["n"] == 5
    order = np.tile(np.arange(8.0), (6, 1)).reshape(6, 2, 4)
    half = np.where(order < 4, 0, 1)  # all that is open is alike
    mask = necessity(half, order)
    assert mask["all"]["mean"] == pytest.approx(0.87, abs=0.01) and mask["open"]["n"] == 0


def test_truth_of_a_network():
    net = tiny().eval()
    with torch.no_grad():
        for block in sda_blocks(net).values():
            block.attention.scores.bias.copy_(torch.tensor([2.0, 1.0, -9.0, 0.5]))
    clips = torch.randn(6, 8, 3, 32, 32)
    labels = [k % 4 for k in range(6)]
    found = left_out(net, clips, labels)
    assert found.weights.shape == found.losses.shape == (6, 4, 4)
    quiet = silence(found)
    assert quiet["largest loss"] == 0 and quiet["open of a clip"] == 12 and quiet["shut"] == 24
    before, after = (
        np.log(softmax(logits_of(net, clips, *change)))[range(6), labels]
        for change in ([], [drop("LST", where=found.blocks[1])])
    )
    assert np.allclose(found.losses[:, 1, 0], before - after, atol=1e-4)
    assert list(truth_table(found)) == ["selection", *controls(found)]
    again = left_out(net, clips, labels, share=False)
    sizes = np.array([0.4, 0.1, 0.0, 0.9]) * np.array([1, 2, 0.5, 1])[:, None]
    told = dataclasses.replace(again, losses=np.tile(sizes, (6, 1, 1)), right=np.ones(6, bool))
    rare, twin = np.ones((6, 4, 4)), copy.deepcopy(net)
    rare[1:, 0, 3] = 0  # opened by one clip of six
    rescale_gates(twin, dataclasses.replace(told, weights=told.weights * rare, losses=told.losses * rare))
    rescale_gates(net, told)
    for block, other in zip(sda_blocks(net).values(), sda_blocks(twin).values(), strict=True):
        assert torch.allclose(block.attention.scale, other.attention.scale, rtol=0.01)
    scaled = left_out(net, clips, labels, share=False)
    assert np.allclose(scaled.logits, found.logits, atol=1e-4)
    assert np.allclose(scaled.losses, again.losses, atol=1e-3)
    means, roots = scaled.weights.mean(0), np.sqrt(sizes)
    assert np.allclose(means / means.sum(), roots / roots.sum(), rtol=0.05)
    assert not scaled.weights[:, :, 2].any() and scaled.weights.sum(2).max() <= 1 + 1e-5
    kept = sufficiency(net, clips, found, count=12, draws=1)
    assert (
        kept["selected"] == kept["random of the open"] == pytest.approx(kept["whole"]) and kept["cells"] == 12
    )
    assert set(stability(net, clips)) == {"the same clip", "another clip"}
    with torch.no_grad():
        sda_blocks(net)["layer2.0"].attention.scores.bias.fill_(-9.0)
    trace = trace_clips(net, clips)
    closed = np.nansum(trace.weights, -1) == 0
    assert closed.all(0).tolist() == [False, True, False, False] and "nothing selected" in repr(trace)
