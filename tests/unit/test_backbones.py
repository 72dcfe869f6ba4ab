"""What crosses the notebook of backbones: every name, number formats, tools of PyTorch, ImageNet weights."""

import copy
import json
import subprocess
import sys
import warnings

import pytest
import torch
from hooks import hooks
from torch import nn

from sda.foundation.errors import DataError, RunError, SettingError, UnknownNameError
from sda.methods.shift import TemporalShift
from sda.networks import backbones
from sda.networks.backbones import (
    METHODS,
    Site,
    create_model,
    find_method,
    list_models,
    load_imagenet,
    model_options,
    register_method,
    sda_blocks,
)
from sda.networks.blocks import SDA
from sda.networks.cost import profile

TINY = list_models("*ts[nm]_tiny")  # every other method: test_methods.py


def clips(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def on_meta(name, num_classes=174, **options):
    with torch.device("meta"):
        return create_model(name, num_classes, **options)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    "shape", [(2, 8, 3, 64, 64), (1, 1, 3, 32, 32), (2, 5, 3, 33, 47), (1, 16, 3, 72, 72)]
)
def test_any_clip(name, shape):
    torch.manual_seed(0)
    net = create_model(name, 7).eval()
    with torch.no_grad():
        out = net(clips(*shape))
    assert out.shape == (shape[0], 7) and out.isfinite().all() and out.abs().max() > 1e-4


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    net = create_model(name, 7)
    net(clips(2, 8, 3, 64, 64)).square().sum().backward()
    dead = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead


@pytest.mark.parametrize("name", TINY)
def test_clips_do_not_mix_and_one_clip_trains(name):
    torch.manual_seed(0)
    net = create_model(name, 7).eval()
    two = clips(2, 8, 3, 40, 40)
    other = two.clone()
    other[0] = 0
    with torch.no_grad():
        torch.testing.assert_close(net(two)[1], net(other)[1], atol=1e-7, rtol=0)
    out = net.train()(two[:1])
    out.sum().backward()
    assert out.isfinite().all()


@pytest.mark.parametrize("name", TINY)
def test_order_of_frames(name):
    torch.manual_seed(0)
    net = create_model(name, 7).eval()
    x = clips(1, 8, 3, 64, 64)
    with torch.no_grad():
        change = (net(x) - net(x.flip(1))).abs().max().item()
    assert change < 1e-6 if name == "tsn_tiny" else change > 1e-6


@pytest.mark.parametrize(
    "name, params, gmacs",
    [
        ("tsn_resnet50", 23_864_558, 32.70),
        ("tsm_resnet50", 23_864_558, 32.70),
        ("sda_tsn_resnet50", 25_768_702, 33.71),
        ("sda_tsm_resnet50", 25_768_702, 33.71),
    ],
)
def test_published_costs(name, params, gmacs):
    cost = profile(on_meta(name))
    assert cost.params == params == sum(p.numel() for p in on_meta(name).parameters())
    assert abs(cost.macs / gmacs / 1e9 - 1) < 0.005


def test_profile_counts_by_hand_and_leaves_the_model_alone():
    net = create_model("tsn_tiny", 10)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    calls = []
    handle = net.layer1.register_forward_hook(lambda *a: calls.append(1))
    cost = profile(net, size=64, num_frames=4)
    handle.remove()
    # stem 5x5x3x16 at 32x32, then 16x16 / 8x8 / 8x8 / 8x8; four frames
    stem = 75 * 16 * 32 * 32
    layer1 = (16 * 16 + 9 * 16 * 16 + 16 * 64 + 16 * 64) * 16 * 16
    layer2 = 64 * 32 * 16 * 16 + (9 * 32 * 32 + 32 * 128 + 64 * 128) * 8 * 8
    layer3 = (128 * 48 + 9 * 48 * 48 + 48 * 192 + 128 * 192) * 8 * 8
    layer4 = (192 * 64 + 9 * 64 * 64 + 64 * 256 + 192 * 256) * 8 * 8
    assert cost.macs == 4 * (stem + layer1 + layer2 + layer3 + layer4 + 256 * 10)
    assert not calls and net.training and hooks(net) == 0
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_profile_of_subsets_and_halves():
    full = profile(on_meta("sda_tsn_resnet50")).macs
    plain = profile(on_meta("tsn_resnet50")).macs
    only_lst = profile(on_meta("sda_tsn_resnet50", dependencies=("LST",))).macs
    assert plain < only_lst < full
    assert profile(on_meta("sda_tsn_resnet50", split=8), num_frames=16).macs == 2 * full


def test_101_shifts_every_second_block():
    def shifted(name):
        return [n for n, m in on_meta(name).named_modules() if isinstance(m, TemporalShift)]

    assert len(shifted("tsm_resnet50")) == 16 and len(shifted("sda_tsm_resnet101")) == 2 + 2 + 12 + 2
    assert all(int(n.split(".")[1]) % 2 == 0 for n in shifted("tsm_resnet101"))
    assert len(sda_blocks(on_meta("sda_tsm_resnet101"))) == 33


def test_options_reach_every_block_and_rebuild():
    options = {
        "dependencies": ("S122", "LST"),
        "reduction": 2,
        "attention": "uniform",
        "split": 4,
        "fold_div": 4,
        "dropout": 0.2,
    }
    net = create_model("sda_tsm_tiny", 5, num_frames=4, **options)
    blocks = sda_blocks(net).values()
    assert all(b.dependencies == ("S122", "LST") and b.split == 4 and b.num_frames == 4 for b in blocks)
    assert (
        net.layer4[0].gate.down.weight.shape[0] == 32
        and net.layer1[0].enter.fold_div == 4
        and net.dropout.p == 0.2
    )
    again = create_model(net.name, 5, 4, **json.loads(json.dumps(net.options)))
    again.load_state_dict(net.state_dict())
    assert again.options == net.options
    hot, cold = (create_model("sda_tsn_tiny", 5, temperature=t) for t in (100.0, 0.01))
    assert (
        sda_blocks(hot)["layer1.0"].attention.temperature > sda_blocks(cold)["layer1.0"].attention.temperature
    )


@pytest.mark.parametrize(
    "name, options, subject, nearest",
    [
        ("sda_tsn_resnet5", {}, "sda_tsn_resnet5", "sda_tsn_resnet50"),
        ("SDA-TSM", {}, "SDA-TSM", None),
        ("tsn_tiny", {"dependencies": ("LT",)}, "dependencies", None),
        ("sda_tsn_tiny", {"fold_div": 4, "tempreature": 2}, "fold_div", None),
        ("sda_tsn_tiny", {"tempreature": 2}, "tempreature", "temperature"),
    ],
)
def test_a_wrong_name_or_option_is_told_with_those_that_are(name, options, subject, nearest):
    kind = SettingError if options else UnknownNameError
    with pytest.raises(kind) as error:
        create_model(name, 5, **options)
    known = model_options(name) if options else list_models()
    assert error.value.subject == subject and error.value.choices == tuple(known)
    assert (nearest or "METHOD_BACKBONE" if not options else subject) in str(error.value)
    assert nearest is None or nearest in known


@pytest.mark.parametrize(
    "shape, told",
    [
        ((1, 8, 3, 31, 64), "64 pixels wide and 31 high"),
        ((8, 3, 64, 64), "8x3x64x64"),
        ((1, 3, 8, 64, 64), "[B, T, 3, H, W]"),
        ((1, 0, 3, 64, 64), "no frames"),
    ],
)
def test_a_wrong_shape_is_told(shape, told):
    with pytest.raises(SettingError) as error:
        create_model("tsn_tiny", 5)(torch.rand(*shape))
    assert told in str(error.value)


def test_other_arguments_that_cannot_be_used():
    for call in (
        lambda: create_model("sda_tsn_tiny", 0),
        lambda: create_model("sda_tsn_tiny", 5, dependencies=("LT", "XX")),
        lambda: create_model("sda_tsn_tiny", 5, split=8)(torch.rand(1, 12, 3, 64, 64)),
        lambda: create_model("sda_tsm_tiny", 5, pretrained=True),
    ):
        with pytest.raises(SettingError):
            call()
    with pytest.raises(FileNotFoundError) as error:
        create_model("tsn_resnet50", 5, pretrained="nowhere.pth")
    assert "nowhere.pth" in str(error.value)


def test_bytes_are_refused():
    with pytest.raises(TypeError) as error:
        create_model("tsn_tiny", 5)(torch.zeros(1, 8, 3, 64, 64, dtype=torch.uint8))
    assert "torch.uint8" in str(error.value)


@pytest.mark.parametrize("name", ["tsm_tiny", "sda_tsm_tiny"])
def test_number_formats(name):
    torch.manual_seed(0)
    net = create_model(name, 7).eval()
    x = clips(2, 8, 3, 64, 64)
    with torch.no_grad():
        truth = net(x)
        torch.testing.assert_close(
            copy.deepcopy(net).double()(x.double()).float(), truth, atol=1e-5, rtol=1e-4
        )
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x)
        half = copy.deepcopy(net).bfloat16()(x.bfloat16())
        last = copy.deepcopy(net).to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(x), truth, atol=1e-5, rtol=1e-4)
        assert half.dtype == torch.bfloat16 and last.conv1.weight.is_contiguous(
            memory_format=torch.channels_last
        )
        for rough in (mixed, half):
            torch.testing.assert_close(rough.float(), truth, atol=2e-3, rtol=0.1)
        assert on_meta(name)(torch.empty(2, 8, 3, 64, 64, device="meta")).shape == (2, 174)


def test_a_copy_is_independent():
    net = create_model("sda_tsm_tiny", 7).eval()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.layer1[0].gate.attention.query.add_(1)
    assert twin.name == net.name and twin.options == net.options
    assert not torch.equal(twin.layer1[0].gate.attention.query, net.layer1[0].gate.attention.query)


def test_compiles_without_graph_breaks():
    torch.manual_seed(0)
    net = create_model("sda_tsm_tiny", 7).eval()
    torch.compiler.reset()
    with torch.no_grad():
        whole = torch.compile(
            net, backend="eager", fullgraph=True
        )  # the graph, without the slow code generation
        for many in (1, 2, 3):  # from the second shape on, sizes are symbols in the graph
            x = clips(many, 8, 3, 40, 40)
            torch.testing.assert_close(whole(x), net(x), atol=1e-6, rtol=0)


def test_exports():
    torch.manual_seed(0)
    net = create_model("sda_tsm_tiny", 7).eval()
    x = clips(1, 8, 3, 40, 40)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), net(x), atol=1e-6, rtol=0)


def test_a_hook_on_the_gate_keeps_what_it_saw():
    """The ReLU after the gate must not overwrite the gate's output."""
    net = create_model("sda_tsn_tiny", 7).eval()
    seen = {}
    gate = net.layer2[0].gate
    gate.register_forward_hook(lambda m, args, out: seen.update(x=args[0], out=out, copy=out.clone()))
    with torch.no_grad():
        net(clips(1, 8, 3, 64, 64))
    assert torch.equal(seen["out"], seen["copy"]) and (seen["out"] < 0).any()


@pytest.fixture
def image_net():
    from torchvision.models import resnet50

    torch.manual_seed(3)
    net = resnet50(weights=None)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    return net.eval()


def test_imagenet_weights_through_torchvision(image_net, monkeypatch):
    from torchvision.models import ResNet50_Weights

    asked = []

    def get(self, **options):
        asked.append((self, options["weights_only"]))
        return image_net.state_dict()

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", get)
    net = create_model("tsm_resnet50", 1000, pretrained=True, fold_div=10**6).eval()
    assert asked == [(ResNet50_Weights.IMAGENET1K_V1, True)]
    assert net.fc.weight.std() < 0.0012  # the classifier is new
    net.fc.load_state_dict(image_net.fc.state_dict())
    x = clips(2, 2, 3, 64, 64)
    with torch.no_grad():
        frames = image_net(x.flatten(0, 1)).unflatten(0, (2, 2))
        torch.testing.assert_close(net(x), frames.mean(1), atol=1e-4, rtol=1e-4)


def test_imagenet_weights_offline(monkeypatch, tmp_path):
    from torchvision.models import ResNet50_Weights

    def get(self, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", get)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(RunError) as err:
        create_model("sda_tsn_resnet50", 5, pretrained=True)
    assert err.value.subject == "ResNet50_Weights.IMAGENET1K_V1" and "unreachable" in str(err.value)
    assert str(tmp_path / "checkpoints/resnet50-0676ba61.pth") in err.value.remedy
    assert "https://" in err.value.remedy and "pretrained=FILE" in err.value.remedy


def test_imagenet_weights_that_do_not_fit(image_net, tmp_path):
    torch.save(
        {k: v for k, v in image_net.state_dict().items() if k != "layer2.0.bn1.weight"}, tmp_path / "a.pth"
    )
    with pytest.raises(DataError) as caught:
        create_model("sda_tsn_resnet50", 5, pretrained=tmp_path / "a.pth")
    assert caught.value.subject == "sda_tsn_resnet50" and "['layer2.0.bn1.weight']" in str(caught.value)
    (tmp_path / "b.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError) as caught:
        create_model("tsn_resnet50", 5, pretrained=tmp_path / "b.pth")
    assert caught.value.subject == str(tmp_path / "b.pth")


@pytest.fixture
def methods():
    """What a test registers is gone after it."""
    yield
    for name in [name for name, method in METHODS.items() if method.build.__module__ == __name__]:
        del METHODS[name]


class Mix(nn.Module):
    """conv2 with a weight of its own; counts for itself."""

    def __init__(self, site: Site):
        super().__init__()
        self.stride = site.stride
        self.weight = nn.Parameter(torch.zeros(site.planes, site.planes, 3, 3))

    def load_conv2(self, weight):
        self.weight.data.copy_(weight)

    def forward(self, x, num_frames):
        return nn.functional.conv2d(x, self.weight, None, self.stride, 1)

    def multiply_adds(self, x, num_frames):
        return 9 * x[:, :, :: self.stride, :: self.stride].numel() * x.shape[1]


def test_a_new_method_gets_names_sda_costs_and_imagenet(methods, image_net, tmp_path):
    @register_method("mixed")
    def mixed(site, scale: int = 1):
        return {"mix": Mix(site), "adapt": TemporalShift(site.num_frames, 10**6)}

    assert [n for n in list_models() if "mixed" in n and "50" in n] == [
        "mixed_resnet50",
        "sda_mixed_resnet50",
    ]
    torch.save(image_net.state_dict(), tmp_path / "w.pth")
    net = create_model("mixed_resnet50", 5, pretrained=tmp_path / "w.pth", scale=2).eval()
    tsn = create_model("tsn_resnet50", 5, pretrained=tmp_path / "w.pth").eval()
    net.fc.load_state_dict(tsn.fc.state_dict())
    x = clips(1, 2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), tsn(x), atol=1e-5, rtol=1e-4)
    assert profile(net).macs == profile(tsn).macs and "layer1.0.conv2.weight" not in net.state_dict()
    on_top = create_model("sda_mixed_tiny", 5)
    assert len(sda_blocks(on_top)) == 4 and isinstance(on_top.layer1[0].mix, Mix)


def test_a_method_that_needs_another_bottleneck(methods):
    class Wide(backbones.Bottleneck):
        expansion = 2

    @register_method("wide", bottleneck=Wide, backbones=("tiny",), gate=False)
    def wide(site):
        return {}

    assert [n for n in list_models() if "wide" in n] == ["wide_tiny"]
    assert create_model("wide_tiny", 5)(clips(2, 3, 3, 32, 32)).shape == (2, 5)


def test_a_name_is_registered_once(methods):
    for name, owner in (("tsn", "sda.networks.backbones"), ("tam", "sda.methods.tam")):
        with pytest.raises(SettingError) as error:
            register_method(name)(lambda site: {})
        assert error.value.subject == name and owner in str(error.value)


def in_a_new_process(code):
    """Run code in which nothing is imported yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_method_is_imported_when_it_is_asked_for():
    print_methods = "print(sorted(m for m in sys.modules if m.startswith('sda.methods.')))"
    out = in_a_new_process(f"""
import sys
from sda.networks.backbones import create_model, list_models
assert {{"sda_tam_tiny", "rubiks_large", "v4d_resnet50"}} <= set(list_models())
create_model("sda_tsn_tiny", 5)
{print_methods}
create_model("sda_tam_tiny", 5)
{print_methods}
""")
    assert out.splitlines() == ["[]", "['sda.methods.ops', 'sda.methods.tam']"]


def test_a_broken_method_is_named_and_hurts_no_other():
    out = in_a_new_process("""
import sys
sys.modules["sda.methods.tam"] = None  # cannot be imported
from sda.networks.backbones import create_model
create_model("tsm_tiny", 5)
try:
    create_model("tam_tiny", 5)
except ImportError as err:
    print(err.name, "sda.methods.tam" in str(err))
""")
    assert out.split() == ["sda.methods.tam", "True"]


def test_names_say_what_the_methods_are():
    """What is known of a method before it is imported is what it says itself."""
    names = list_models()
    for name in {name.removeprefix("sda_").rsplit("_", 1)[0] for name in names}:
        method = find_method(name)
        assert any(n.startswith(f"sda_{name}_") for n in names) == method.gate
        there = {n.rsplit("_", 1)[1] for n in names if n.startswith(name + "_")}
        assert method.backbones is None or there == set(method.backbones)


def test_methods_that_fill_the_gate_are_told(methods):
    @register_method("gated")
    def gated(site):
        return {"gate": SDA(site.planes)}

    with pytest.raises(SettingError) as error:
        create_model("sda_gated_tiny", 5)
    assert error.value.subject == "gated" and "gate=False" in error.value.remedy
    assert len(sda_blocks(create_model("gated_tiny", 5))) == 4


def test_wrong_place_is_told(methods):
    @register_method("lost")
    def lost(site):
        return {"gates": nn.Identity()}

    with pytest.raises(UnknownNameError) as error:
        create_model("lost_tiny", 5)
    assert error.value.subject == "gates" and "gate" in error.value.choices


def test_load_imagenet_counts_what_a_mix_ignores(methods, image_net, tmp_path):
    """A mix block without load_conv2 starts on its own and the rest still loads."""

    class Own(nn.Module):
        def __init__(self, site):
            super().__init__()
            self.conv = nn.Conv2d(site.planes, site.planes, 3, site.stride, 1)

        def forward(self, x, num_frames):
            return self.conv(x)

    @register_method("own")
    def own(site):
        return {"mix": Own(site)}

    torch.save(image_net.state_dict(), tmp_path / "w.pth")
    net = load_imagenet(create_model("own_resnet50", 5), tmp_path / "w.pth")
    assert torch.equal(net.layer4[2].conv3.weight, image_net.layer4[2].conv3.weight)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tsm_tiny", "sda_tsm_tiny"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_gpu(name, dtype):
    torch.manual_seed(0)
    net = create_model(name, 7).eval()
    x = clips(2, 8, 3, 64, 64)
    with torch.no_grad():
        truth = net(x)
        there = copy.deepcopy(net).cuda()
        with torch.autocast("cuda", dtype):
            mixed = there(x.cuda())
        half = there.to(dtype)(x.cuda().to(dtype))
    assert half.dtype == dtype
    for rough in (mixed, half):
        torch.testing.assert_close(rough.float().cpu(), truth, atol=2e-3, rtol=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tsm_tiny", "sda_tsm_tiny"])
def test_channels_last_on_a_gpu(name):
    torch.manual_seed(0)
    net = create_model(name, 7).cuda()
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x = clips(2, 8, 3, 64, 64).cuda()
    for model in (net, last):
        model.train()(x).square().sum().backward()
    torch.testing.assert_close(last.eval()(x), net.eval()(x), atol=1e-3, rtol=1e-2)
    assert all(p.grad.isfinite().all() for p in last.parameters())
