"""Everything that asks a network, on a CUDA device that computes nothing: no tensor is made elsewhere."""

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda

import sda
from sda.assets import DEFAULT_MODEL, SAMPLE_CLIPS
from sda.commands.main import parse
from sda.data.datasets import open_dataset
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.explaining.answers import logits_of
from sda.explaining.cam import clip_cams, gate_maps
from sda.explaining.effects import attribute
from sda.explaining.faithfulness import reinitialised
from sda.explaining.interventions import drop, force, from_clip, keep, set_weights, temperature, uniform
from sda.explaining.trace import trace_clips
from sda.foundation.devices import device_of, dtype_of, place_model, precision_of
from sda.networks.backbones import list_models
from sda.networks.checkpoints import load_model
from sda.testing.evaluate import evaluate, predict

CUDA = torch.device("cuda")
VIDEO = SAMPLE_CLIPS / "img/test_0000_rightward.mp4"


@pytest.fixture
def cuda(monkeypatch):
    with fake_cuda(monkeypatch):
        yield CUDA


@pytest.fixture
def net(monkeypatch):
    """The network that ships, moved to the device in half precision: what forgets either is found."""
    model = place_model(load_model(DEFAULT_MODEL), "cpu", "bf16")
    with fake_cuda(monkeypatch):
        yield place_model(model, CUDA, "bf16")


@pytest.fixture
def data():
    """Two sample clips."""
    found = open_dataset(SAMPLE_CLIPS, "test", Sampling(), TransformConfig(size=64, resize=72), train=False)
    found.records = found.records[:2]
    return found


@pytest.fixture
def clips():
    """Two clips, where clips come from: on the processor."""
    return torch.zeros(2, 8, 3, 64, 64)


def test_the_stand_in_refuses_what_a_gpu_refuses(cuda):
    there = torch.zeros(3, device=cuda)
    with pytest.raises(RuntimeError):
        there + torch.zeros(3)
    with pytest.raises(TypeError):
        there.numpy()
    with pytest.raises(TypeError):
        there.cpu().bfloat16().numpy()
    assert np.array_equal(there.cpu().numpy(), np.zeros(3))


# with SDA on top where there is such a form: a method's own code is in both
NETWORKS = [name for name in list_models("*tiny") if f"sda_{name}" not in list_models()]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name, monkeypatch):
    model = sda.create_model(name, num_classes=5).eval()
    with fake_cuda(monkeypatch), torch.no_grad():
        model.to(CUDA)
        assert model(torch.zeros(1, 8, 3, 32, 32, device=CUDA)).device == model.fc.weight.device


def test_a_forward_pass_of_training_with_clips_of_another_length(monkeypatch):
    model = sda.create_model("sda_tsm_tiny", num_classes=5).train()
    with fake_cuda(monkeypatch):
        model.to(CUDA)
        assert model(torch.zeros(2, 12, 3, 32, 32, device=CUDA)).requires_grad


def test_a_test_and_a_prediction(net, data):
    assert evaluate(net, data, batch_size=2, progress=False).logits.shape == (2, 1, 20)
    assert len(predict(VIDEO, net, top=3)) == 3


def test_a_trace_and_interventions(net, clips):
    trace = trace_clips(net, clips[:1], responses=True)
    assert trace.weights.shape == (1, 4, 4) and trace.responses
    changes = [
        drop("LT"),
        keep("S122", "LS"),
        force("LS"),
        uniform(),
        set_weights([0.7, 0.1, 0.1, 0.1]),
        temperature(2.0),
        from_clip(trace, trace.videos[0]),
    ]
    assert logits_of(net, clips, *changes, drop("S122").random(0)).shape == (2, 20)


def test_effects(net, clips):
    for kind, at in (("gradient x weight", None), ("ablation", ["layer1.0"])):
        assert attribute(net, clips, kind, labels=[0, 1], at=at).values.shape[0] == 2


def test_maps(net, clips):
    assert len(clip_cams(net, clips[:1, :1], method="occlusion")) == 1
    assert len(gate_maps(net, clips[0])) == 4


def test_a_copy_with_other_weights_has_the_precision_of_the_network():
    net = place_model(load_model(DEFAULT_MODEL), "cpu", "bf16")
    fresh = reinitialised(net)
    assert device_of(fresh) == device_of(net) and dtype_of(fresh) == dtype_of(net)


@pytest.mark.parametrize("command", ["predict", "inspect", "test"])
def test_the_command_line_says_where_and_how_a_network_computes(command):
    options = parse([command, str(VIDEO), "--device", "cpu", "--precision", "bf16"])
    assert precision_of(options.load(DEFAULT_MODEL)) == "bf16"
    with pytest.raises(SystemExit):
        parse([command, str(VIDEO), "--precision", "fp31"])


def test_the_demo_too():
    assert parse(["demo", "--precision", "fp16"]).config.precision == "fp16"
