"""Devices, precision, layout and mode: inputs follow the network, and the network gets its modes back."""

import pytest
import torch
from torch import nn

from sda.foundation.devices import (
    device_of,
    dtype_of,
    evaluating,
    pick_device,
    pick_dtype,
    place_model,
    precision_of,
    set_layout,
    to_model,
    to_numpy,
)
from sda.foundation.errors import SettingError, UnknownNameError
from sda.foundation.files import fingerprint


@pytest.fixture
def model():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.Conv2d(4, 2, 3))
    )
    net[1].eval()  # a frozen part of a network that trains
    return net


def test_devices_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["cdua", "cuda:99", "cuda:x", "cpu:x", "cpu:7", "", "meta"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(SettingError) as caught:
        pick_device(name)
    assert caught.value.subject == name
    assert {"auto", "cpu"} <= set(caught.value.choices)


def test_the_fastest_device_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SettingError):
        pick_device("cuda:2")


def test_device_and_precision_of_a_network(model):
    assert (device_of(model), dtype_of(model)) == (torch.device("cpu"), torch.float32)
    assert dtype_of(model.half()) == torch.float16
    assert device_of(model.to("meta")) == torch.device("meta")
    assert (device_of(nn.ReLU()), dtype_of(nn.ReLU())) == (torch.device("cpu"), torch.float32)
    assert device_of(nn.BatchNorm2d(2, affine=False).to("meta")) == torch.device("meta")


def test_inputs_follow_the_network(model):
    model.to("meta", torch.bfloat16)
    assert (to_model(torch.zeros(2), model).device.type, to_model(torch.zeros(2), model).dtype) == (
        "meta",
        torch.bfloat16,
    )
    assert to_model(torch.zeros(2, dtype=torch.uint8), model).dtype == torch.uint8
    same = torch.zeros(2)
    assert to_model(same, nn.ReLU()) is same


def test_precisions_by_name(monkeypatch):
    assert pick_dtype("auto", "cpu") == torch.float32  # tests/conftest.py says so
    monkeypatch.delenv("SDA_PRECISION")
    assert pick_dtype("auto", "mps") == torch.float32
    for flag, dtype in (
        ("avx512f", torch.float32),
        ("avx512_bf16", torch.bfloat16),
        ("amx_bf16", torch.bfloat16),
    ):
        monkeypatch.setattr("sda.foundation.devices.processor_flags", lambda f=flag: frozenset(["sse", f]))
        assert pick_dtype("auto", "cpu") == dtype
    assert [pick_dtype(name) for name in ("fp32", "bf16", "fp16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
    for capability, dtype in (((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert pick_dtype("auto", "cuda") == dtype
    with pytest.raises(UnknownNameError) as caught:
        pick_dtype("fp31")
    assert {"auto", "fp32"} <= set(caught.value.choices)


def test_auto_leaves_small_networks_in_float32(monkeypatch):
    monkeypatch.delenv("SDA_PRECISION")
    monkeypatch.setattr("sda.foundation.devices.processor_flags", lambda: frozenset(["amx_bf16"]))
    for width, dtype in ((100, torch.float32), (1001, torch.bfloat16)):
        assert dtype_of(place_model(torch.nn.Linear(width, 1000), "cpu")) == dtype
    assert dtype_of(place_model(torch.nn.Linear(2, 2), "cpu", "bf16")) == torch.bfloat16
    monkeypatch.setenv("SDA_PRECISION", "bf16")
    assert dtype_of(place_model(torch.nn.Linear(2, 2), "cpu")) == torch.bfloat16  # as asked for


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_network_keeps_its_fingerprint_in_every_precision(model, precision):
    known = fingerprint(model)
    same = place_model(model, "cpu", precision)
    assert same is model and precision_of(model) == precision
    assert fingerprint(model) == known
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert fingerprint(model) != known


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_answers_become_arrays(dtype):
    found = to_numpy(torch.tensor([0.5, 2], dtype=dtype, requires_grad=True))
    assert found.dtype == "float32" and found.tolist() == [0.5, 2]
    assert to_numpy(torch.tensor([1, 2])).dtype == "int64"
    assert to_numpy(torch.ones(2, dtype=torch.float64)).dtype == "float64"


def test_a_layout_changes_no_value(model):
    before = [p.detach().clone() for p in model.parameters()]
    assert set_layout(model, True) is model
    assert model[0].weight.stride() == (3, 1, 3, 3)  # 1 x 1 kernels too
    assert model[2][1].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert set_layout(model, False)[2][1].weight.is_contiguous()


def _modes(model):
    return [m.training for m in model.modules()]


def test_evaluation_mode_is_everywhere_and_every_mode_comes_back(model):
    before = _modes(model)
    assert len(set(before)) == 2
    with evaluating(model) as same:
        assert same is model
        assert not any(_modes(model))
        assert torch.is_inference_mode_enabled()
    assert _modes(model) == before
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert _modes(model) == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_gradients_on_request(model):
    with torch.no_grad():
        with evaluating(model, gradients=True):
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with evaluating(model, gradients=None):
            assert not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with evaluating(model, gradients=None):
        assert torch.is_grad_enabled()
