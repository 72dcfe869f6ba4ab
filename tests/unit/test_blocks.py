"""The block against the published form, and wherever a user may take it: dtypes, compilers, odd shapes."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sda.foundation.errors import SettingError, UnknownNameError
from sda.methods.shift import TemporalShift, temporal_shift
from sda.networks.blocks import DEPENDENCIES, S122, SDA, fold_clips, unfold_clips
from sda.networks.fast import resize
from sda.networks.selection import KINDS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from naive import naive_sda  # noqa: E402


def make(channels=64, awake=True, **options):
    """A block whose LST is awake (its published start is nearly silent), whose last norm is not at rest."""
    torch.manual_seed(0)
    block = SDA(channels, **options)
    with torch.no_grad():
        if awake and "LST" in block.branches:
            block.branches["LST"].conv.weight.mul_(100)
        block.up_norm.weight.uniform_(0.5, 1.5)
        block.up_norm.bias.uniform_(-0.5, 0.5)
    return block


def gradients(block, forward, x):
    block.zero_grad()
    x = x.clone().requires_grad_()
    y = forward(x)
    torch.manual_seed(1)
    y.backward(torch.randn_like(y))
    return y.detach(), [x.grad, *(p.grad for p in block.parameters())]


SIZES = [(64, 14, 14), (64, 7, 7), (64, 9, 5), (64, 8, 7), (64, 29, 29), (64, 3, 2), (64, 1, 4), (512, 7, 7)]


@pytest.mark.parametrize("channels,height,width", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_published_form(channels, height, width, training):
    block = make(channels, awake=False).train(training)
    x = torch.randn(16, channels, height, width)
    assert torch.allclose(block(x), naive_sda(block, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(6, 6), (7, 7), (5, 8)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "dependencies", [DEPENDENCIES, ("S122", "LT"), ("LST",), ("LT",), ("LS", "LST"), ("S122",)]
)
def test_gradients_and_statistics_equal_the_published_form(size, training, dependencies):
    block = make(dependencies=dependencies).double().train(training)
    other = make(dependencies=dependencies).double().train(training)
    x = torch.randn(16, 64, *size, dtype=torch.double)
    y, found = gradients(block, block, x)
    z, wanted = gradients(other, lambda v: naive_sda(other, v), x)
    assert torch.allclose(y, z, atol=1e-10)
    for f, w in zip(found, wanted, strict=True):
        assert torch.allclose(
            f if f is not None else torch.zeros(()), w if w is not None else torch.zeros(()), atol=1e-9
        )
    for (name, f), (_, w) in zip(block.named_buffers(), other.named_buffers(), strict=True):
        assert name.endswith("tracked") or torch.allclose(f, w), name


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_gradcheck(size):
    block = make(channels=4).double()
    x = torch.randn(4, 4, *size, dtype=torch.double, requires_grad=True)
    for training in (True, False):
        assert torch.autograd.gradcheck(block.train(training), (x, 2), fast_mode=True)
    maps = torch.randn(2, *size, dtype=torch.double, requires_grad=True)
    for target in ((2, 2), (7, 7), (8, 10), (8, 8)):
        assert torch.autograd.gradcheck(resize, (maps, target))


@pytest.mark.parametrize("old,new", [(3, 7), (28, 56), (56, 28), (14, 29), (7, 3), (2, 1), (2, 3), (1, 5)])
def test_resize_is_adaptive_pooling(old, new):
    x = torch.randn(2, 3, old, old)
    assert torch.allclose(resize(x, (new, new)), nn.functional.adaptive_avg_pool2d(x, (new, new)), atol=1e-6)


@pytest.mark.parametrize("channels,count", [(64, 6448), (128, 25184), (256, 99520), (512, 395648)])
def test_parameters(channels, count):
    assert sum(p.numel() for p in SDA(channels).parameters()) == count


@pytest.mark.parametrize("frames", [1, 4, 16])
def test_any_number_of_frames_and_no_leak_between_clips(frames):
    block = make().eval()
    x = torch.randn(2 * frames, 64, 7, 7)
    y = block(x, frames)
    changed = x.clone()
    changed[frames - 1] += 1
    moved = (block(changed, frames) - y).abs().flatten(1).amax(1)
    assert (moved[:frames] > 0).all() and (moved[frames:] == 0).all()


def test_split_makes_two_independent_halves():
    block = make(num_frames=16, split=8).eval()
    x = torch.randn(16, 64, 7, 7)
    whole = SDA(64, num_frames=8)
    whole.load_state_dict(block.state_dict())
    assert torch.equal(block(x), whole.eval()(x))
    with pytest.raises(SettingError) as error:
        block(x, 12)
    assert error.value.subject == "split" and "12" in str(error.value)


@pytest.mark.parametrize("frames,size", [(8, 6), (1, 1)])
def test_one_clip_trains_on_running_statistics(frames, size):
    block = make().train()
    before = block.branches["LST"].norm.running_mean.clone()
    y, grads = gradients(block, lambda v: block(v, frames), torch.randn(frames, 64, size, size))
    assert y.isfinite().all() and all(g.isfinite().all() for g in grads)
    assert torch.equal(block.branches["LST"].norm.running_mean, before)
    if size > 1:
        assert block.branches["LST"].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [8, 7])
def test_bfloat16_autocast(size):
    block = make()
    x = torch.randn(16, 64, size, size)
    exact, wanted = gradients(block, block, x)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, found = gradients(block, block, x.to(dtype))
        assert y.dtype == dtype and (y - exact).abs().max() < 0.1
        assert (found[0] - wanted[0]).norm() < 0.1 * wanted[0].norm()


def test_meta_and_bfloat16_model():
    assert SDA(64).to("meta")(torch.empty(8, 64, 14, 14, device="meta")).shape == (8, 64, 14, 14)
    assert SDA(64).to(torch.bfloat16)(torch.randn(8, 64, 7, 7, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_compiles_without_graph_breaks():
    """In training; a network of such blocks is compiled for evaluation in test_backbones."""
    block = make().train()
    x = torch.randn(16, 64, 7, 7)
    torch.compiler.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    y, found = gradients(block, compiled, x)
    z, wanted = gradients(block, block, x)
    assert torch.allclose(y, z, atol=1e-5)
    assert all(torch.allclose(f, w, atol=1e-3, rtol=1e-3) for f, w in zip(found, wanted, strict=True))


def other_step(kind):
    """Something that works in place on what the block gave."""
    return {"relu": nn.ReLU(inplace=True), "add_": lambda y: y.add_(1), "twice": lambda y: y.mul_(2).relu_()}[
        kind
    ]


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (24, 24)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["relu", "add_", "twice"])
@pytest.mark.parametrize("watch", [False, True])
def test_what_follows_may_work_in_place(size, training, kind, watch):
    step = other_step(kind)
    x = torch.randn(16, 64, *size)
    block, other = (make().train(training) for _ in range(2))
    if watch:
        block.hook_gate.register_forward_hook(lambda *a: None)
    y, found = gradients(block, lambda v: step(block(v)), x)
    z, wanted = gradients(other, lambda v: step(other(v).clone()), x)
    assert torch.equal(y, z) and all(torch.equal(f, w) for f, w in zip(found, wanted, strict=True))


def test_used_twice_in_one_pass_and_recomputed():
    block = make()
    x = torch.randn(16, 64, 6, 6, requires_grad=True)
    torch.relu_(block(torch.relu_(block(x)))).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    saved = [torch.utils.checkpoint.checkpoint(block, x, use_reentrant=r) for r in (True, False)]
    sum(y.relu_().sum() for y in saved).backward()


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_gradients(training):
    block = make().double().train(training)
    x = torch.randn(4, 64, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: block(v, 2), (x,), fast_mode=True)


def test_transforms_of_functions():
    """vmap, gradients per clip, a Jacobian times a vector, forward mode: as loops and autograd have it."""
    block = make().eval()
    state = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    clips = torch.randn(3, 8, 64, 6, 6)
    parameters = dict(block.named_parameters())

    def loss(p, x):
        return torch.func.functional_call(block, {**state, **p}, (x,)).square().sum()

    ys = torch.func.vmap(block)(clips)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, clips)
    for i, clip in enumerate(clips):
        y, found = gradients(block, block, clip)
        assert torch.allclose(ys[i], y, atol=1e-5)
        block.zero_grad()
        loss({}, clip).backward()
        for name, p in parameters.items():
            wanted = torch.zeros_like(p) if p.grad is None else p.grad
            assert torch.allclose(each[name][i], wanted, atol=2e-3, rtol=1e-3), name
    v = torch.randn_like(clips[0])
    y, tangent = torch.func.jvp(block, (clips[0],), (v,))
    step = (block(clips[0] + 1e-3 * v) - block(clips[0] - 1e-3 * v)) / 2e-3
    assert torch.allclose(tangent, step, atol=2e-2)
    with torch.autograd.forward_ad.dual_level():
        dual = block(torch.autograd.forward_ad.make_dual(clips[0], v))
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent, atol=1e-5)


def test_modes_in_any_order():
    block = make()
    x = torch.randn(16, 64, 6, 6)
    with torch.inference_mode():
        block(x).relu_()
    with torch.no_grad():
        block(x).relu_()
    block(x).relu_().sum().backward()
    assert block.eval()(x[:0]).shape == (0, 64, 6, 6)  # as a convolution has it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(6, 6), (24, 24)])
def test_number_formats_and_layouts(dtype, layout, size):
    block, exact = make(), make()
    x = torch.randn(16, 64, *size)
    given = x.to(dtype).contiguous(memory_format=layout)
    y, found = gradients(block.to(dtype), lambda v: torch.relu_(block(v)), given)
    z = torch.relu(exact(x))
    off = (y.float() - z).abs()
    assert y.dtype == dtype and off.max() < 0.2 and off.mean() < 0.01
    assert y.is_contiguous(memory_format=layout) and found[0].is_contiguous(memory_format=layout)
    assert all(g is None or g.isfinite().all() for g in found) and found[0].abs().sum() > 0


def test_on_a_device_that_is_not_here():
    from torch._subclasses import FakeTensorMode  # torch has no public name for it

    with FakeTensorMode(), torch.device("cuda"):
        y = SDA(64)(torch.empty(16, 64, 7, 7))
    assert y.device.type == "cuda" and y.shape == (16, 64, 7, 7)


def pruned(block):
    """Half of every kernel is zero."""
    from torch.nn.utils import prune

    for part in (block.down, block.down_norm, block.up, block.up_norm, block.branches["LT"].conv):
        prune.l1_unstructured(part, "weight", amount=0.5)
    return block


def parametrized(block):
    """Weights computed from others."""
    from torch.nn.utils import parametrizations

    parametrizations.weight_norm(block.up)
    parametrizations.weight_norm(block.branches["LT"].conv)
    return block


def fused(block):
    """Norms inside the convolutions before them, as for a network in production."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    block.down, block.down_norm = fuse_conv_bn_eval(block.down, block.down_norm), nn.Identity()
    block.up, block.up_norm = fuse_conv_bn_eval(block.up, block.up_norm), nn.Identity()
    for name in ("LT", "LS", "S122"):
        branch = block.branches[name]
        branch.conv, branch.norm = fuse_conv_bn_eval(branch.conv, branch.norm), nn.Identity()
    return block


def quantised(block):
    """Linear layers with weights of eight bits."""
    return torch.ao.quantization.quantize_dynamic(block)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [6, 24])
@pytest.mark.parametrize(
    "change, change_by", [(pruned, 2), (parametrized, 1e-5), (fused, 1e-5), (quantised, 0.01)]
)
def test_parts_may_be_exchanged(change, change_by, size):
    x = torch.randn(16, 64, size, size)
    block = make().eval()
    for norm in block.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.5, 0.5)
    y = block(x)
    assert (change(block)(x) - y).abs().max() < change_by


HOOK_POINTS = {"hook_responses", "hook_keys", "hook_weights", "hook_gate"}


def listening(block, names, seen):
    """Hooks that note who was called and return nothing."""
    parts = dict(block.named_modules())
    return [parts[name].register_forward_hook(lambda *a, name=name: seen.append(name)) for name in names]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (20, 20)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_hook_on_any_part_is_called_and_changes_no_bit(training, size, layout):
    x = torch.randn(16, 64, *size).contiguous(memory_format=layout)
    untouched = make().train(training)
    expected, grads = gradients(untouched, untouched, x)
    names = [name for name, part in untouched.named_modules() if name and name != "branches"]
    assert HOOK_POINTS | {"up_norm", "attention", "branches.LT", "branches.LT.conv", "up"} <= set(names)
    for some in [[name] for name in names] + [names]:
        seen = []
        block = make().train(training)
        listening(block, some, seen)
        y, found = gradients(block, block, x)
        assert torch.equal(y, expected), some
        assert set(seen) == set(some)
        if layout is torch.contiguous_format:
            assert all(torch.equal(f, g) for f, g in zip(found, grads, strict=True)), some
    assert not HOOK_POINTS & {name.split(".")[0] for name in make().state_dict()}


@pytest.mark.parametrize("kind", ["register_forward_pre_hook", "register_full_backward_hook"])
@pytest.mark.parametrize("name", ["up_norm", "hook_gate", "hook_weights", "attention", "up"])
def test_other_kinds_of_hooks_are_called_and_change_no_bit(kind, name):
    x = torch.randn(16, 64, 6, 6)
    untouched = make()
    expected, grads = gradients(untouched, untouched, x)
    block = make()
    seen = []
    getattr(block.get_submodule(name), kind)(lambda *a: seen.append(name))
    y, found = gradients(block, block, x)
    assert seen and torch.equal(y, expected)
    assert all(torch.equal(f, g) for f, g in zip(found, grads, strict=True))


def test_a_hook_sees_and_changes_what_passes():
    block = make().eval()
    x = torch.randn(16, 64, 6, 6)
    seen = {}
    points = {name: block.get_submodule(name) for name in HOOK_POINTS}
    handles = [p.register_forward_hook(lambda m, a, y, n=n: seen.update({n: y})) for n, p in points.items()]
    y = block(x)
    for handle in handles:
        handle.remove()
    assert {name: tuple(r.shape) for name, r in seen["hook_responses"].items()} == {
        "LST": (2, 16, 1, 1, 1),
        "LT": (2, 16, 1, 6, 6),
        "LS": (2, 16, 8, 1, 1),
        "S122": (2, 16, 8, 3, 3),
    }
    assert seen["hook_keys"].shape == (2, 4, 16)
    assert torch.allclose(seen["hook_weights"].sum(1), torch.ones(2))
    assert torch.equal(seen["hook_gate"] * x, y)
    block.hook_gate.register_forward_hook(lambda m, a, gate: torch.ones_like(gate))
    assert torch.equal(block(x), x)


class OtherNorm(nn.BatchNorm2d):
    """A kind of norm that SDA does not know: it is given the sum, in the open."""


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (24, 24)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dependencies", [DEPENDENCIES, ("LT",), ("LST", "LS"), ("S122",)])
def test_the_fused_and_the_open_form_agree(size, training, dependencies):
    fused = make(dependencies=dependencies).train(training).double()
    plain = make(dependencies=dependencies).train(training).double()
    norm = OtherNorm(64).double().train(training)
    norm.load_state_dict(plain.up_norm.state_dict())
    plain.up_norm = norm
    x = torch.randn(16, 64, *size, dtype=torch.double)
    y, found = gradients(fused, fused, x)
    z, wanted = gradients(plain, plain, x)
    assert torch.allclose(y, z, atol=1e-6, rtol=0)
    for f, w in zip(found, wanted, strict=True):
        assert (f is None) == (w is None) and (f is None or torch.allclose(f, w, atol=1e-6, rtol=1e-6))
    for (name, f), (_, w) in zip(fused.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.allclose(f.double(), w.double()), name


def test_statistics_may_be_gathered_anew():
    """As `torch.optim.swa_utils.update_bn` does, with a momentum of None."""
    blocks = [make().train(), make().train()]
    blocks[1].up_norm = OtherNorm(64)
    blocks[1].up_norm.load_state_dict(blocks[0].up_norm.state_dict())
    for block in blocks:
        block.up_norm.momentum = None
        for seed in range(3):
            torch.manual_seed(seed)
            block(torch.randn(16, 64, 6, 6))
    for name, found in blocks[0].up_norm.named_buffers():
        assert torch.allclose(found, blocks[1].up_norm.get_buffer(name), atol=1e-6), name


def test_selection_can_be_forced_from_outside():
    block = make().eval()
    x = torch.randn(8, 64, 6, 6)
    only = SDA(64, dependencies=("S122",))
    only.load_state_dict(block.state_dict(), strict=False)
    for module in (block.attention, block.hook_weights):
        hook = module.register_forward_hook(lambda m, i, w: torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
        assert torch.allclose(block(x), only.eval()(x), atol=1e-6)
        hook.remove()


def test_order_of_dependencies_changes_names_not_values():
    a = make().eval()
    b = SDA(64, dependencies=DEPENDENCIES[::-1]).eval()
    b.load_state_dict(a.state_dict())
    x = torch.randn(8, 64, 6, 6)
    assert torch.allclose(a(x), b(x), atol=1e-6) and list(b.branches) == list(DEPENDENCIES[::-1])


@pytest.mark.parametrize(
    "options,choices",
    [
        ({"dependencies": ("LST", "XX")}, DEPENDENCIES),
        ({"dependencies": ()}, DEPENDENCIES),
        ({"dependencies": ("LT", "LT")}, DEPENDENCIES),
        ({"attention": "soft"}, ("query", "uniform", *KINDS)),
        ({"attention": "query", "attention_options": {"k": 1}}, KINDS),
        ({"temperature": 0}, ()),
        ({"reduction": 0}, ()),
    ],
)
def test_wrong_options(options, choices):
    with pytest.raises((SettingError, UnknownNameError)) as error:
        SDA(64, **options)
    assert error.value.choices == choices and next(iter(options)) in str(error.value)


def test_wrong_shapes():
    with pytest.raises(SettingError) as error:
        SDA(64)(torch.zeros(12, 64, 4, 4))
    assert error.value.subject == "num_frames" and "12" in str(error.value) and "8" in str(error.value)
    with pytest.raises(SettingError) as error:
        SDA(64)(torch.zeros(8, 64, 4))
    assert "(8, 64, 4)" in str(error.value)


def test_dependency_alone_works_on_a_view():
    x = torch.randn(16, 16, 7, 7)
    branch = S122(16).eval()
    y = branch(unfold_clips(x, 8))
    assert y.shape == (2, 16, 8, 3, 3) and torch.equal(branch(unfold_clips(x, 8).contiguous()), y)
    assert torch.equal(fold_clips(unfold_clips(x, 8)), x)


def test_shift_moves_what_it_says_and_reverses():
    x = torch.randn(16, 16, 3, 3)
    clips = unfold_clips(x, 8)
    y = unfold_clips(temporal_shift(x, 8), 8)
    assert torch.equal(y[:, :2, :-1], clips[:, :2, 1:]) and (y[:, :2, -1] == 0).all()
    assert torch.equal(y[:, 2:4, 1:], clips[:, 2:4, :-1]) and (y[:, 2:4, 0] == 0).all()
    assert torch.equal(y[:, 4:], clips[:, 4:])
    clip = torch.randn(4, 8, 1, 1, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(TemporalShift(2, fold_div=4), clip)
    with pytest.raises(SettingError) as error:
        temporal_shift(x, 8, 1)
    assert error.value.subject == "fold_div"
