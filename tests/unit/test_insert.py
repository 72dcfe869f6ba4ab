"""SDA in networks of torchvision and timm, and in any by module names."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from sda.explaining import clip_cam, trace_clips
from sda.foundation.errors import DataError, MissingPackageError, SettingError, UnknownNameError
from sda.networks.backbones import create_model, list_models, model_options, sda_blocks
from sda.networks.blocks import SDA
from sda.networks.checkpoints import ModelCard, load_model, save_model
from sda.networks.cost import profile
from sda.networks.insert import insert_sda

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from plug_in import COLUMNS, PLACES, check  # noqa: E402


def clips(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def image_net(name, **options):
    """A small-class network of torchvision or timm, random weights."""
    library, name = name.split(":")
    torch.manual_seed(0)
    if library == "timm":
        return pytest.importorskip("timm").create_model(name, num_classes=5, **options).eval()
    return models.get_model(name, num_classes=5, **options).eval()


def own_net():
    """Somebody's own."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, 4, 2),
        nn.BatchNorm2d(24),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(24 * 16, 5),
    ).eval()


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet26d", "timm:seresnet18"])
def test_without_blocks_it_is_the_image_network(name):
    net = image_net(name)
    video = create_model(f"tsn_{name}", 5).eval()
    video.load_state_dict(net.state_dict())
    x = clips(2, 3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(video(x), net(x.flatten(0, 1)).unflatten(0, (2, 3)).mean(1))


def test_everything_that_a_network_of_ours_can(tmp_path, monkeypatch):
    """Behind two of its eight layers, which is enough for every kind of use, and a third of the work."""
    monkeypatch.setitem(PLACES, "torchvision:resnet18", ["layer2.0", "layer4.1"])
    row = check("torchvision:resnet18", tmp_path)
    assert row == {**row, **dict.fromkeys(COLUMNS, "yes")}


def test_the_inserted_network_keeps_weights_and_classifier():
    net = image_net("torchvision:resnet18")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    video = insert_sda(net, shift=True, where=["layer3", "layer4.1"], reduction=8)
    assert list(sda_blocks(video)) == ["layer3.0", "layer3.1", "layer4.1"]
    assert video.name == "sda_tsm_torchvision:resnet18" and video.num_classes == 5
    state = video.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    video.train()(clips(2, 4, 3, 32, 32)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert video.layer3[0].gate.down.weight.grad.abs().sum() > 0
    again = create_model(video.name, 5, 8, **video.options)
    again.load_state_dict(state)
    assert torch.equal(again.eval()(clips(1, 8, 3, 32, 32)), video.eval()(clips(1, 8, 3, 32, 32)))


def test_clips_do_not_mix_and_order_matters_with_a_shift():
    net = insert_sda(image_net("torchvision:resnet18"), shift=True).eval()
    x = clips(2, 8, 3, 32, 32)
    other = x.clone()
    other[0] = 0
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1], net(other)[1], atol=1e-6, rtol=0)
        assert not torch.allclose(net(x), net(x.flip(1)), atol=1e-6)


def test_any_network_by_names(tmp_path):
    places = ["features.3", "features.6.block.0.1"]
    net = insert_sda(image_net("torchvision:mobilenet_v3_small"), where=places).eval()
    assert list(sda_blocks(net)) == places
    x = clips(2, 4, 3, 64, 64)
    trace = trace_clips(net, x)
    assert trace.blocks == places and clip_cam(net, x[0]).maps.shape[0] == 4
    assert profile(net, 64).per_block.time_params.sum() == sum(
        p.numel() for block in sda_blocks(net).values() for p in block.parameters()
    )
    file = save_model(tmp_path / "m.safetensors", net, ModelCard.of(net))
    assert torch.equal(load_model(file)(x), net(x))


def test_a_network_that_no_name_builds(tmp_path):
    net = insert_sda(own_net(), where=["1"]).eval()
    x = clips(2, 4, 3, 32, 32)
    whole = net(x)
    net.backbone[1].gate.hook_gate.register_forward_hook(lambda m, a, gate: torch.ones_like(gate))
    assert torch.allclose(net(x)[0], own_net()(x[0]).mean(0), atol=1e-6) and not torch.equal(net(x), whole)
    file = save_model(tmp_path / "m.safetensors", net, ModelCard.of(net))
    with pytest.raises((DataError, SettingError)) as error:
        load_model(file)
    assert "insert_sda" in str(error.value)


def test_names_of_libraries():
    assert {"sda_tsm_resnet18", "tsn_resnet34", "sda_tsn_resnet34"} <= set(list_models())
    assert not any(":" in name for name in list_models())
    assert "sda_tsm_torchvision:resnext50_32x4d" in list_models("sda_tsm_torchvision:*")
    assert {"where", "reduction", "fold_div", "dropout"} <= set(model_options("sda_tsm_torchvision:resnet50"))
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model("sda_tsm_resnet18", 174).parameters())
        plain = sum(p.numel() for p in create_model("tsm_resnet18", 174).parameters())
    assert count - plain == 2 * (6448 + 25184 + 99520 + 395648)  # two blocks a stage, one SDA each


def test_weights_of_the_library(tmp_path):
    net = image_net("torchvision:resnet18")
    torch.save(net.state_dict(), tmp_path / "resnet18.pth")
    video = create_model("sda_tsm_resnet18", 7, pretrained=tmp_path / "resnet18.pth")
    assert torch.equal(video.layer4[1].conv2.weight, net.layer4[1].conv2.weight)
    other = image_net("torchvision:mobilenet_v3_small")
    torch.save(other.state_dict(), tmp_path / "mobile.pth")
    name = "sda_tsn_torchvision:mobilenet_v3_small"
    video = create_model(name, 7, pretrained=tmp_path / "mobile.pth", where=["features.3"])
    assert torch.equal(
        video.backbone.features[3].inner.block[0][0].weight, other.features[3].block[0][0].weight
    )


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError) as error:
        create_model("sda_tsm_timm:resnet50d", 5)
    assert error.value.subject == "timm" and "[timm]" in error.value.remedy


class NoNorms(nn.Sequential):
    """Convolutions alone."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 24, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
        )


@pytest.mark.parametrize(
    "build, options, choices",
    [
        (NoNorms, {}, {"0", "1"}),
        (own_net, {}, {"1"}),
        (own_net, {"where": ["11"]}, {"1"}),
        (own_net, {"where": ["4"]}, {"1", "2"}),
        (own_net, {"where": []}, set()),
        (own_net, {"where": ["1"], "shift": True}, set()),
        (models.resnet18, {"where": "layer5"}, {"layer4"}),
        (models.resnet18, {"reductio": 2}, {"reduction"}),
        (models.resnet18, {"num_frames": 0}, set()),
        (lambda: models.resnet18(norm_layer=lambda channels: nn.Identity()), {}, set()),
        (lambda: create_model("tsn_tiny", 5), {}, set()),
    ],
)
def test_what_cannot_be(build, options, choices):
    with pytest.raises((SettingError, UnknownNameError)) as error:
        insert_sda(build(), **options)
    assert choices <= set(error.value.choices)


@pytest.mark.parametrize(
    "name",
    ["sda_tsm_torchvision:resnet5O", "sda_v4d_torchvision:resnet50", "sda_gst_resnet18", "sda_tsm_own:Net"],
)
def test_names_that_cannot_be(name):
    with pytest.raises((SettingError, UnknownNameError)):
        create_model(name, 5)


def test_frames_that_make_no_clips():
    net = insert_sda(image_net("torchvision:resnet18"), num_frames=8)
    with pytest.raises(SettingError):
        net.layer1[0].gate(torch.zeros(12, 64, 4, 4))
    assert isinstance(net.layer1[0].gate, SDA)
