"""Networks prepared to answer: the same answers, norms folded, hooks and explanations as before."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sda.assets import DEFAULT_MODEL
from sda.explaining.faithfulness import cascading
from sda.explaining.trace import trace_clips
from sda.foundation.errors import SettingError
from sda.foundation.files import fingerprint
from sda.networks.answer import answers_at_once
from sda.networks.backbones import create_model, list_models
from sda.networks.blocks import DEPENDENCIES, SDA
from sda.networks.checkpoints import load_model, save_model
from sda.networks.fused import FoldedNorm
from sda.networks.inference import prepare_for_inference

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def worn(model):
    """A network whose norms have statistics and weights as after a training."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, NORMS):
            for tensor, low in ((module.running_mean, -0.3), (module.running_var, 0.5), (module.weight, 0.7)):
                if tensor is not None:
                    tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator) * 0.6)
    return model.eval()


def clips_for(model, number=2):
    """Random clips as long as the network was built for."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, model.num_frames, 3, 48, 64, generator=generator)


def close(found, truth, share=1e-4):
    """Equal to a share of the largest number."""
    assert found.shape == truth.shape
    assert (found - truth).abs().max() <= share * truth.abs().max()


@pytest.mark.parametrize("name", list_models("*_tiny"))
def test_the_prepared_network_gives_the_answers_it_gave_and_has_fewer_norms(name):
    torch.manual_seed(0)
    model = worn(create_model(name, 5))
    clips = clips_for(model)
    before = sum(isinstance(m, NORMS) for m in model.modules())
    known = fingerprint(model)
    with torch.no_grad():
        truth = model(clips)
        assert prepare_for_inference(model, "fp32") is model
        close(model(clips), truth)
        close(model(clips[:, :, :, :33, :35]), worn_again(name)(clips[:, :, :, :33, :35]))
    assert sum(isinstance(m, NORMS) for m in model.modules()) < before
    assert fingerprint(model) == known


def worn_again(name):
    """The network of the test above, not prepared."""
    torch.manual_seed(0)
    return worn(create_model(name, 5))


@pytest.mark.parametrize("name", ["sda_tsm_torchvision:resnet18", "tsn_torchvision:resnet50"])
def test_networks_of_others_are_prepared_too(name):
    torch.manual_seed(0)
    model = worn(create_model(name, 3, num_frames=2))
    clips = clips_for(model, 1)
    with torch.no_grad():
        truth = model(clips)
        close(prepare_for_inference(model, "fp32")(clips), truth)
    assert not any(isinstance(m, NORMS) for name, m in model.named_modules() if ".gate." not in name)


def test_what_is_used_twice_or_does_more_than_a_norm_stays():
    conv = nn.Conv2d(3, 3, 1)
    shared = nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3))
    other = nn.Sequential(nn.Conv2d(3, 3, 1), nn.SyncBatchNorm(3), nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))
    apart = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))
    for model in (shared, other, apart):
        prepare_for_inference(model, "fp32")
        assert not any(isinstance(m, FoldedNorm) for m in model.modules())


def test_preparing_twice_changes_nothing_more():
    model = prepare_for_inference(load_model(DEFAULT_MODEL), "fp32")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare_for_inference(model, "fp32")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_trace_of_the_prepared_network_is_that_of_the_plain_one():
    plain = load_model(DEFAULT_MODEL)
    clips = clips_for(plain, 3)
    truth = trace_clips(plain, clips, progress=False)
    found = trace_clips(prepare_for_inference(load_model(DEFAULT_MODEL), "fp32"), clips, progress=False)
    assert found.fingerprint == truth.fingerprint
    for name in ("weights", "scores", "response_norm", "gate_mean", "gate_std", "logits"):
        one, other = getattr(found, name), getattr(truth, name)
        assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max(), name


def test_parts_of_a_prepared_network_can_be_made_random():
    model = prepare_for_inference(load_model(DEFAULT_MODEL), "fp32")
    clips = clips_for(model, 1)
    with torch.no_grad():
        answers = [net(clips) for _, net in cascading(model)]
        truth = model(clips)
    assert all(torch.isfinite(a).all() and not torch.allclose(a, truth) for a in answers)


def test_copies_are_networks_of_their_own():
    model = prepare_for_inference(load_model(DEFAULT_MODEL), "fp32")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.fc.weight.zero_()
        twin.fc.bias.zero_()
        assert twin(clips_for(model)).abs().max() == 0 < model(clips_for(model)).abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("precision, share", [("fp32", 2e-3), ("bf16", 5e-2), ("fp16", 1e-2)])
@pytest.mark.parametrize("name", list_models("*_tiny"))
def test_a_gpu_gives_the_answers_of_the_processor(name, precision, share):
    torch.manual_seed(0)
    model = worn(create_model(name, 5))
    clips = clips_for(model)
    with torch.no_grad():
        truth = model(clips)
        there = prepare_for_inference(model, precision, "cuda")
        found = there(clips.to("cuda", next(there.parameters()).dtype))
    close(found.float().cpu(), truth, share)


def test_a_prepared_network_is_not_saved(tmp_path):
    model = prepare_for_inference(load_model(DEFAULT_MODEL), "fp32")
    with pytest.raises(SettingError) as caught:
        save_model(tmp_path / "a.safetensors", model, model.card)
    assert caught.value.subject == model.name and not list(tmp_path.iterdir())


@pytest.mark.parametrize("attention", ["query", "gated"])
@pytest.mark.parametrize("dependencies", [DEPENDENCIES, ("S122", "LT"), ("LT",), ("LS", "LST"), ("S122",)])
def test_a_block_answers_in_rows_what_it_answers_plainly(dependencies, attention):
    block = worn(SDA(64, 4, dependencies, attention=attention))
    quick = prepare_for_inference(copy.deepcopy(block), "fp32")
    for size in ((8, 8), (7, 5), (2, 3)):
        x = torch.randn(8, 64, *size).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            assert answers_at_once(quick, x)
            torch.testing.assert_close(quick(x), block(x), atol=2e-5, rtol=1e-4)
            seen = quick.hook_weights.register_forward_hook(lambda module, args, out: None)
            assert not answers_at_once(quick, x)
            seen.remove()
    for name in dependencies[:1]:  # a branch of somebody else's is called as a module
        quick.branches[name] = nn.Identity()
        assert not answers_at_once(quick, x)
