"""Everything that asks a network, on a CUDA device that computes nothing: no tensor is made elsewhere."""

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda

import sda
from sda.assets import DEFAULT_MODEL, SAMPLE_CLIPS
from sda.data.datasets import open_dataset
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.explaining.answers import logits_of
from sda.explaining.cam import cam_layers, clip_cams, gate_maps
from sda.explaining.effects import attribute
from sda.explaining.faithfulness import norm_maps, reinitialised
from sda.explaining.interventions import drop, force, from_clip, keep, set_weights, temperature, uniform
from sda.explaining.trace import trace_clips
from sda.foundation.devices import device_of, place_model
from sda.networks.backbones import list_models
from sda.networks.checkpoints import read_card
from sda.testing.evaluate import evaluate, predict, slide

CUDA = torch.device("cuda")
VIDEO = SAMPLE_CLIPS / "img/test_0000_rightward.mp4"
PRECISIONS = ("fp32", "bf16")


@pytest.fixture
def cuda(monkeypatch):
    with fake_cuda(monkeypatch):
        yield CUDA


@pytest.fixture(params=PRECISIONS)
def net(request, cuda):
    """The network that ships, on the device."""
    card = read_card(DEFAULT_MODEL)
    with cuda:
        made = sda.create_model(card.model, len(card.class_names), card.num_frames, **card.options)
    made.card = card
    return place_model(made, cuda, request.param)


@pytest.fixture
def data():
    """Four sample clips."""
    found = open_dataset(SAMPLE_CLIPS, "test", Sampling(), TransformConfig(size=64, resize=72), train=False)
    found.records = found.records[:4]
    return found


def test_the_stand_in_refuses_what_a_gpu_refuses(cuda):
    there = torch.zeros(3, device=cuda)
    with pytest.raises(RuntimeError):
        there + torch.zeros(3)
    with pytest.raises(TypeError):
        there.numpy()
    with pytest.raises(TypeError):
        there.cpu().bfloat16().numpy()
    assert np.array_equal(there.cpu().numpy(), np.zeros(3))


@pytest.mark.parametrize("name", list_models("*tiny"))
def test_every_network(name, cuda):
    with cuda:
        model = sda.create_model(name, num_classes=5)
    clips = torch.zeros(1, 8, 3, 32, 32, device=cuda)
    with torch.no_grad():
        assert model.eval()(clips).device.type == "cuda"


@pytest.mark.parametrize("name", ["sda_tsm_tiny", "sda_tea_tiny"])
def test_a_forward_pass_of_training_with_clips_of_another_length(name, cuda):
    with cuda:
        model = sda.create_model(name, num_classes=5).train()
    assert model(torch.zeros(2, 12, 3, 64, 64, device=cuda)).device.type == "cuda"


def test_a_test_and_a_prediction(net, data):
    assert evaluate(net, data, batch_size=2, progress=False).logits.shape == (4, 1, 20)
    assert len(predict([VIDEO, VIDEO], net, top=3)) == 6
    assert set(slide(VIDEO, net, length=12)["class"]) <= set(net.card.class_names)


def test_a_trace(net, data):
    trace = trace_clips(net, data, batch_size=3, responses=True)
    assert trace.weights.shape == (4, 4, 4) and trace.responses


@pytest.mark.parametrize(
    "change",
    [drop("LT"), keep("S122"), force("LS"), uniform(), set_weights([0.7, 0.1, 0.1, 0.1]), temperature(2.0)],
    ids=lambda change: change.name,
)
def test_interventions(change, net, data):
    clips = torch.stack([data[i]["clip"] for i in range(2)])
    assert logits_of(net, clips, change).shape == (2, 20)
    assert logits_of(net, clips, change.control(0)).shape == (2, 20)


def test_a_selection_of_another_clip(net):
    clips = torch.zeros(2, 8, 3, 64, 64)
    trace = trace_clips(net, clips)
    assert logits_of(net, clips, from_clip(trace, "clip-1")).shape == (2, 20)


@pytest.mark.parametrize("kind", ["weight", "contribution", "gradient x weight", "ablation", "shapley"])
def test_effects(kind, net, data):
    clips = torch.stack([data[i]["clip"] for i in range(2)])
    assert attribute(net, clips, kind, labels=[0, 1]).values.shape[0] == 2


def test_maps(net):
    clips = torch.zeros(2, 8, 3, 64, 64)
    assert len(clip_cams(net, clips[:1], method="occlusion")) == 1
    assert norm_maps(net, clips).shape[:2] == (2, 8)
    assert set(gate_maps(net, clips[0])) == {"layer1.0", "layer2.0", "layer3.0", "layer4.0"}
    assert len(cam_layers(net))


def test_a_copy_with_other_weights_stands_beside_the_network(net):
    copy = reinitialised(net)
    assert device_of(copy) == device_of(net) and copy.fc.weight.dtype == net.fc.weight.dtype
