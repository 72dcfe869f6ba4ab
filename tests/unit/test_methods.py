"""What every way of modelling time must do, over the whole registry; and what the published networks cost."""

import inspect
import json

import pytest
import torch
from torch import nn

from sda.foundation.errors import SettingError, UnknownNameError
from sda.methods.ops import centre_tap
from sda.methods.rubiks import RubiksShift
from sda.methods.tpn import TemporalModulation
from sda.networks.backbones import (
    Bottleneck,
    create_model,
    find_method,
    list_models,
    load_imagenet,
    model_options,
)
from sda.networks.blocks import SDA
from sda.networks.checkpoints import ModelCard, load_model, save_model
from sda.networks.cost import profile

pytestmark = pytest.mark.timeout(60)
TINY = list_models("*_tiny")
PLAIN = [n for n in TINY if not n.startswith("sda_")]  # without SDA on top
each = pytest.mark.parametrize("name", TINY)

BUILT_FOR_ONE_T = {"tin", "tam"}  # parameters depend on T
FRAMES = {"v4d": 12}  # of a clip where reach is measured, 9 for others: V4D takes multiples of 4
# frames that feel frame 4 after one bottleneck, as (before, after); None: all of them
REACH = {
    "tsn": (0, 0),
    "tsm": (1, 1),
    "gst": (1, 1),
    "tei": (2, 1),
    "stm": (1, 1),
    "c3d": (0, 0),
    "tin": None,
    "tam": None,
    "tpn": (1, 1),
    "tea": (2, 1),
    "smallbig": (0, 0),
    "v4d": (0, 0),
    "rubiks": (2, 2),
}  # rubiks: layer0 shifts too
EXACT = {  # model, frames, option -> parameters at 174 classes, G multiply-adds at 224 (methods: section 0)
    ("tsn", 8): (23_864_558, 32.700),
    ("tsm", 8): (23_864_558, 32.700),
    ("tsm", 16): (23_864_558, 65.40),
    ("sda_tsn", 8): (25_768_702, 33.713),
    ("sda_tsm", 16): (25_768_702, 67.43),
    ("gst", 8): (21_035_246, 29.001),
    ("gst", 16): (21_035_246, 58.00),
    ("gst", 8, ("beta", 1)): (29_523_182, 40.099),
    ("tin", 8): (23_895_566, 32.700),
    ("tin", 16): (23_899_022, 65.40),
    ("tei", 8): (29_877_422, 32.877),
    ("tei", 8, ("bias", True)): (29_893_822, 32.877),
    ("tam", 8): (25_127_246, 32.756),
    ("tam", 16): (25_134_670, 65.51),
    ("stm", 8): (24_035_194, 33.018),
    ("stm", 16): (24_035_194, 66.04),
    ("c3d", 8): (46_499_054, 62.29),
    ("tpn", 8): (82_445_724, 41.23),
    ("tpn", 8, ("auxiliary", False)): (63_210_734, 41.23),
    ("tea", 8): (24_456_280, 34.537),
    ("smallbig", 8): (23_907_566, 51.97),
    ("smallbig", 16): (23_907_566, 103.3),
    ("smallbig", 8, ("stages", (1, 2, 3, 4))): (23_909_870, 55.82),
    ("smallbig", 8, ("extra", True)): (31_829_742, 62.66),
    ("v4d", 8): (36_709_614, 71.34),
    ("v4d", 32): (36_709_614, 285.3),
    ("rubiks_large", 8): (8_538_294, 15.35),
    ("rubiks_medium", 8): (6_185_622, 10.93),
    ("rubiks_small", 8): (3_597_366, 6.51),
    ("rubiks_smallest", 8): (1_898_760, 3.70),
}


def method(name):
    return name.removeprefix("sda_").rsplit("_", 1)[0]


def build(name, num_classes=5, num_frames=8, seed=0, **options):
    torch.manual_seed(seed)
    return create_model(name, num_classes, num_frames, **options)


def clips(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def awake(net, seed=0):
    """The network with every parameter moved off its start, so that nothing hides behind a zero."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.05 * torch.randn(p.shape, generator=noise)
    return net.eval()


def logits(out):
    """The logits of a network that also returns something else in training."""
    return out[0] if isinstance(out, tuple) else out


def test_every_method_has_a_model():
    assert set(REACH) == {method(n) for n in list_models()}
    apart = {name for name in REACH if not find_method(name).gate}
    assert {method(n) for n in TINY} - {method(n) for n in TINY if n.startswith("sda_")} == apart


@each
@pytest.mark.parametrize("num_frames", [4, 8, 16])
def test_forward(name, num_frames):
    net = build(name, num_frames=num_frames).eval()
    with torch.no_grad():
        out = net(clips(2, num_frames, 3, 32, 40))
    assert out.shape == (2, 5) and out.isfinite().all() and out.abs().max() > 1e-5


@each
def test_another_number_of_frames(name):
    net = build(name).eval()
    if method(name) in BUILT_FOR_ONE_T:
        with pytest.raises(SettingError) as error:
            net(clips(1, 16, 3, 32, 32))
        assert "sample 8 frames" in error.value.remedy and "num_frames=16" in error.value.remedy
    else:
        with torch.no_grad():
            assert net(clips(1, 16, 3, 32, 32)).isfinite().all()


@each
def test_gradients_reach_every_parameter(name):
    """After two steps at most, as what starts at zero holds back the rest; three seeds: a ReLU can be off."""
    dead = None
    for seed in range(3):
        net = build(name, seed=seed)
        for step in range(3):
            net.zero_grad()
            logits(net(clips(2, 8, 3, 32, 32, seed=step))).square().sum().backward()
            silent = {k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
            dead = silent if dead is None else dead & silent
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0 if p.grad is None else 0.05 * p.grad / (p.grad.norm() + 1e-12)
        if not {k for k in dead if not k.startswith("aux")}:
            return
    raise AssertionError(f"no gradient ever reached {sorted(dead)}")


@each
def test_clips_do_not_mix_and_one_clip_trains(name):
    net = awake(build(name))
    two = clips(2, 8, 3, 32, 32)
    other = clips(2, 8, 3, 32, 32)
    other[0] = clips(8, 3, 32, 32, seed=1)
    with torch.no_grad():
        a = net(two)
        b = net(other)
    torch.testing.assert_close(a[1], b[1], atol=1e-5 * a.abs().max().item(), rtol=0)
    assert (a[0] - b[0]).abs().max() > 1e-4 * a.abs().max()
    out = logits(build(name).train()(two[:1]))
    out.sum().backward()
    assert out.isfinite().all()


@each
def test_order_of_frames(name):
    """TSN is blind to order, every other network is not once it has moved off its start."""
    net = awake(build(name))
    x = clips(1, 8, 3, 48, 48)
    with torch.no_grad():
        out = net(x)
        change = net(x) - net(x[:, [3, 1, 7, 0, 5, 2, 6, 4]])
    relative = change.abs().max() / out.abs().max()
    assert relative < 1e-5 if name == "tsn_tiny" else relative > 1e-4


def first_block_reach(name, frame=4):
    """Frames that feel one frame after the first bottleneck of untrained networks.

    Any of four starts counts: in a single one the few channels that look one way may be cut off by a ReLU.
    """
    felt = set()
    T = FRAMES.get(method(name), 9)
    one = clips(1, T, 3, 32, 32)
    other = clips(1, T, 3, 32, 32)
    other[0, frame] = clips(3, 32, 32, seed=1)
    for seed in range(4):
        net = build(name, num_frames=T, seed=seed).eval()
        seen = []
        net.layer1[0].register_forward_hook(lambda m, args, out, seen=seen: seen.append(out.detach()))
        with torch.no_grad():
            net(one), net(other)
        felt |= set((seen[0] - seen[1]).flatten(1).abs().amax(1).gt(1e-6).nonzero().flatten().tolist())
    return sorted(felt)


@pytest.mark.parametrize("name", [n for n in PLAIN if method(n) in REACH])
def test_reach_of_one_block(name):
    felt = first_block_reach(name)
    if REACH[method(name)] is None:  # reads its decision off the whole clip
        assert 4 in felt and len(felt) > 1
    else:
        before, after = REACH[method(name)]
        assert felt == list(range(4 - before, 4 + after + 1))


@pytest.mark.parametrize("name", [n for n in TINY if n.startswith("sda_")])
def test_sda_on_top_reaches_every_frame(name):
    assert first_block_reach(name) == list(range(FRAMES.get(method(name), 9)))


@each
def test_round_trips(name, tmp_path):
    net = awake(build(name))
    x = clips(1, 8, 3, 32, 32)
    again = create_model(net.name, 5, 8, **json.loads(json.dumps(net.options))).eval()
    again.load_state_dict(net.state_dict())
    back = load_model(save_model(tmp_path / "m.safetensors", net, ModelCard.of(net, list("abcde"))))
    with torch.no_grad():
        for copy in (again, back):
            torch.testing.assert_close(copy(x), net(x), atol=0, rtol=0)


@pytest.fixture(scope="module")
def moves():
    from pathlib import Path

    from sda.data.datasets import open_dataset
    from sda.data.sampling import Sampling
    from sda.data.transforms import TransformConfig

    root = Path(__file__).resolve().parents[2] / "sda/assets/moves_sample"
    data = open_dataset(
        root, "test", sampling=Sampling(num_frames=8), transform=TransformConfig(size=36, resize=36)
    )
    items = [data[i] for i in range(4)]
    return torch.stack([i["clip"] for i in items]), torch.tensor([i["label"] for i in items])


@each
def test_learns_four_moves(name, moves):
    x, y = moves
    net = build(name, num_classes=20, dropout=0.0)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    losses = []
    for _ in range(14 if "rubiks" in name else 6):  # its 64 features and flat start fall evenly, but slowly
        loss = nn.functional.cross_entropy(logits(net.train()(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


# --- starting points


def adopt(net, tsn):
    """Put TSN's weights wherever the network has the same part; conv2 through the block's own loader."""
    state = {k: v for k, v in tsn.state_dict().items() if k in net.state_dict()}
    net.load_state_dict(state, strict=False)
    for name, block in net.named_modules():
        if isinstance(block, Bottleneck) and block.mix is not None:
            block.mix.load_conv2(tsn.get_submodule(name).conv2.weight)
    return net


@pytest.mark.parametrize(
    "name, options, start",
    [
        ("tin", {"identity": True}, "tsn"),
        ("tei", {"identity": True}, "tsm"),
        ("tei", {"identity": True, "taps": "identity"}, "tsn"),
        ("tam", {"identity": True}, "tsn"),
        ("stm", {"identity": True}, "tsn"),
        ("c3d", {}, "tsn"),
        ("smallbig", {}, "tsn"),
        ("v4d", {"identity": True}, "tsn"),
        ("gst", {"identity": True, "beta": 1}, "tsn"),
        ("tsm", {"fold_div": 10**6}, "tsn"),
    ],
)
def test_starts_as(name, options, start):
    plain = awake(build(f"{start}_tiny")).eval()
    net = adopt(build(f"{name}_tiny", seed=1, **options), plain).eval()
    x = clips(2, 8, 3, 48, 48)
    with torch.no_grad():
        a = net(x)
        b = plain(x)
    torch.testing.assert_close(a, b, atol=2e-5 * b.abs().max().item(), rtol=0)


@pytest.mark.parametrize("name", ["tin", "tei", "tam", "stm", "gst"])
def test_the_original_start_is_another(name):
    plain = awake(build("tsn_tiny"))
    net = adopt(build(f"{name}_tiny", seed=1), plain).eval()
    x = clips(2, 8, 3, 48, 48)
    with torch.no_grad():
        assert (net(x) - plain(x)).abs().max() > 1e-3 * plain(x).abs().max()


def test_every_method_that_can_has_an_identity_option():
    for name in ("tin", "tei", "tam", "stm", "gst"):
        assert model_options(f"{name}_tiny")["identity"] is False


# --- costs and ImageNet


@pytest.mark.parametrize("key", EXACT, ids=lambda key: "-".join(map(str, key)))
def test_published_costs(key):
    name, frames, *options = key
    params, gmacs = EXACT[key]
    with torch.device("meta"):
        net = create_model(name if "rubiks" in name else f"{name}_resnet50", 174, frames, **dict(options))
    cost = profile(net)
    assert cost.params == params == sum(p.numel() for p in net.parameters())
    assert abs(cost.macs / 1e9 / gmacs - 1) < 0.02


@pytest.mark.parametrize("name", [n for n in list_models("*_resnet101") if not n.startswith("sda_")])
def test_resnet101_has_the_blocks_too(name):
    gate = find_method(method(name)).gate
    with torch.device("meta"):
        net = create_model(f"sda_{name}" if gate else name, 5)
    assert len(net.layer3) == 23 and sum(isinstance(m, SDA) for m in net.modules()) == (33 if gate else 0)


@pytest.fixture(scope="module")
def image_net(tmp_path_factory):
    """torchvision's ResNet-50 with random weights, and a file of them as ImageNet weights are one."""
    from torchvision.models import resnet50

    torch.manual_seed(3)
    state = resnet50(weights=None).state_dict()
    torch.save(state, file := tmp_path_factory.mktemp("image net") / "w.pth")
    return state, file


@pytest.mark.parametrize("name", ["tin", "tei", "tam", "stm", "gst", "c3d", "sda_gst", "tpn", "smallbig"])
def test_imagenet_weights_load_into_what_is_shared(name, image_net):
    image_net, file = image_net
    net = load_imagenet(create_model(f"{name}_resnet50", 5), file)
    state = net.state_dict()
    kernel = image_net["layer3.2.conv2.weight"]
    shared = [k for k in state if k in image_net and not k.startswith("fc.")]
    assert len(shared) >= 318 - 16 - 2 and all(torch.equal(state[k], image_net[k]) for k in shared)
    mix = net.layer3[2].mix
    if name == "stm":
        assert torch.equal(mix.space.weight, kernel)
    if name == "c3d":
        assert torch.equal(mix.conv.weight, centre_tap(kernel))
    if name.endswith("gst"):
        assert torch.equal(mix.spatial.weight, kernel[:192, :128])


def test_imagenet_weights_become_the_centre_of_v4d(image_net):
    image_net, file = image_net
    net = load_imagenet(create_model("v4d_resnet50", 5), file)
    kernel = net.layer3[2].conv1.weight
    flat = image_net["layer3.2.conv1.weight"]
    assert torch.equal(kernel[:, :, 1], flat) and not kernel[:, :, [0, 2]].any()


def test_networks_that_are_no_resnet_say_which_weights_they_take(tmp_path):
    for name, remedy in (("tea_resnet50", "name a file"), ("rubiks_large", "pretrained=False")):
        with pytest.raises(SettingError) as error:
            create_model(name, 5, pretrained=True)
        assert error.value.subject == name and remedy in error.value.remedy
    res2net = {
        k: v + 1
        for k, v in build("tea_resnet50").state_dict().items()
        if not {"adapt", "mix"} & set(k.split("."))
    }
    torch.save(res2net, tmp_path / "w.pth")
    net = build("tea_resnet50", pretrained=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(net[k], w) for k, w in res2net.items() if not k.startswith("fc."))


def test_auxiliary_loss_of_tpn():
    net = build("tpn_tiny")
    labels = torch.tensor([1, 2])
    assert net.auxiliary_loss(labels) == 0
    net(clips(2, 8, 3, 32, 32))
    loss = net.auxiliary_loss(labels)
    loss.backward()
    assert loss > 0 and net.auxiliary_loss(labels) == 0
    assert all(p.grad.abs().max() > 0 for p in net.aux.parameters()) and net.neck.climb.weight.grad is None
    net.eval()(clips(2, 8, 3, 32, 32))
    assert net.auxiliary_loss(labels) == 0


def test_shifts_of_rubiks_have_the_gradient_of_finite_differences():
    torch.manual_seed(0)
    plain = RubiksShift(6, unit=False).double()
    x = torch.rand(4, 6, 5, 5, dtype=torch.double)
    assert torch.autograd.gradcheck(
        lambda shift: torch.func.functional_call(plain, {"shift": shift}, (x, 4)),
        plain.shift.detach().requires_grad_(),
    )
    assert RubiksShift(6, stride=2)(x.float(), 4).shape == (4, 6, 3, 3)


# --- bad input


def test_a_pyramid_needs_channels_for_its_groups():
    with pytest.raises(SettingError) as error:
        TemporalModulation(96)
    assert "divisible by 64, not 96" in str(error.value)


@pytest.mark.parametrize(
    "call, subject, told",
    [
        (lambda: create_model("tam_tiny", 5, num_frames=2), "num_frames", "3 frames or more, not 2"),
        (lambda: create_model("gst_tiny", 5, alpha=3), "alpha", "16 by 3 and 2"),
        (lambda: create_model("v4d_tiny", 5, num_frames=6), "num_frames", "not 6"),
        (lambda: create_model("v4d_tiny", 5, stages=(5,)), "stages", "[5]"),
        (lambda: create_model("smallbig_tiny", 5, stages=(0, 2)), "stages", "[0]"),
    ],
)
def test_numbers_that_no_method_takes(call, subject, told):
    with pytest.raises(SettingError) as error:
        call()
    assert error.value.subject == subject and told in str(error.value)


@pytest.mark.parametrize(
    "call, name, choice",
    [
        (lambda: create_model("tei_tiny", 5, taps="tms"), "tms", "tsm"),
        (lambda: create_model("c3d_tiny", 5, inflate="center"), "center", "centre"),
        (lambda: create_model("tpn_tiny", 5, flow="up"), "up", "parallel"),
        (lambda: create_model("gst_tny", 5), "gst_tny", "gst_tiny"),
        (lambda: create_model("rubiks_resnet50", 5), "rubiks_resnet50", "tsn_resnet50"),
        (lambda: create_model("sda_tam_resnet5", 5), "sda_tam_resnet5", "sda_tam_resnet50"),
        (lambda: create_model("gst_tiny", 5, betta=1), "betta", "beta"),
    ],
)
def test_names_that_nothing_has(call, name, choice):
    with pytest.raises((SettingError, UnknownNameError)) as error:
        call()
    assert error.value.subject == name and choice in error.value.choices
    assert choice in str(error.value)


@pytest.mark.parametrize("name", [m for m in REACH if m not in ("tsn", "tsm")])
def test_methods_are_documented(name):
    build = find_method(name).build
    assert build.__doc__ and build.__module__.startswith("sda.methods.")
    assert next(iter(inspect.signature(build).parameters)) == "site"
