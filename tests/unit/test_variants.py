"""Many changes at once answer as each by itself, wherever a pass begins, in every network that has SDA."""

import logging

import numpy as np
import pytest
import torch
from hooks import hooks
from torch import nn

from sda.explaining.answers import logits_of
from sda.explaining.interventions import Intervention, drop, keep, reverse, set_weights, shuffle, uniform
from sda.explaining.trace import trace_clips
from sda.explaining.variants import logits_under, stream_logits
from sda.foundation.errors import SettingError, UnknownNameError
from sda.networks.backbones import create_model, list_models, sda_blocks
from sda.networks.insert import insert_sda


def awake(net):
    """The network with norms that do something, as after a training; its SDA blocks select and gate."""
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    nn.init.normal_(net.fc.weight, std=0.3, generator=generator)
    return net.eval()


def own_net():
    """A network that is neither a ResNet nor one of ours."""
    norms = (nn.BatchNorm2d(24), nn.BatchNorm2d(16))
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    first = (nn.Conv2d(3, 24, 5, 4, 2), norms[0], nn.ReLU(inplace=True))
    return nn.Sequential(*first, nn.Conv2d(24, 16, 3), norms[1], nn.ReLU(), *head)


def foreign(name):
    torch.manual_seed(0)
    if name == "own":
        return insert_sda(own_net(), 4, where=["1", "4"])
    return create_model("sda_tsm_torchvision:resnet18", 5, 4)


MADE = {name: (lambda name=name: create_model(name, 5, 4)) for name in list_models("sda_*_tiny")} | {
    "split": lambda: create_model("sda_tsm_tiny", 5, 4, split=2),
    "two": lambda: create_model("sda_tsn_tiny", 5, 4, dependencies=["LT", "S122"]),
    "torchvision": lambda: foreign("torchvision"),
    "own": lambda: foreign("own"),
}


def clips(count=2, frames=4, size=32):
    return torch.randn(count, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def variants(net):
    """As it is; one change at each of three depths; several at once; the clip; the clip and a block."""
    blocks = list(sda_blocks(net))
    middle = blocks[len(blocks) // 2]
    return [
        (),
        *(drop("LT", where=place) for place in (blocks[0], middle, blocks[-1])),
        keep(),
        uniform(blocks[-1]),
        (drop("S122", where=middle), keep("LT", where=blocks[-1])),
        reverse(),
        (shuffle(1), uniform(middle)),
    ]


def alone(net, x, asked):
    """Each variant in a pass of its own."""
    return np.stack([logits_of(net, x, *([one] if isinstance(one, Intervention) else one)) for one in asked])


@pytest.mark.parametrize("name", MADE)
def test_variants_answer_as_each_by_itself(name):
    torch.manual_seed(0)
    net = awake(MADE[name]())
    asked = variants(net)
    one_by_one = alone(net, clips(), asked)
    size = max(1, np.abs(one_by_one).max())
    for memory in (1, 2**26):  # one at a time, and all at once
        found = logits_under(net, clips(), asked, memory=memory)
        np.testing.assert_allclose(found, one_by_one, rtol=1e-5, atol=1e-5 * size)
    assert np.ptp(one_by_one, 0).max() > 1e-4 * size, "the changes do something, so that the test can fail"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return awake(create_model("sda_tsm_tiny", 5, 4))


def frames_through(net, work):
    """Frames that each block of a network saw while something was done."""
    seen = {}
    handles = [
        net.get_submodule(name).register_forward_hook(
            lambda m, args, y, name=name: seen.update({name: seen.get(name, 0) + len(y)})
        )
        for name in sda_blocks(net)
    ]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.values())


def test_what_lies_before_a_change_is_computed_once(net):
    singles = [(), *(drop("LT", where=name) for name in sda_blocks(net))]
    assert frames_through(net, lambda: logits_under(net, clips(1), singles)) == [8, 12, 16, 20]
    assert frames_through(net, lambda: logits_under(net, clips(1), singles[4:])) == [4, 4, 4, 4]


def test_answers_come_one_by_one_and_leave_the_network_free(net):
    blocks = list(sda_blocks(net))
    asked = [drop("LT", where=blocks[3]), (), drop("LT", where=blocks[0]), reverse()]
    before = logits_of(net, clips())
    net.train()
    try:
        order = []
        for index, logits in stream_logits(net, clips(), asked, memory=1):
            assert net.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
            assert hooks(net) == 0
            np.testing.assert_allclose(logits, alone(net, clips(), asked[index : index + 1])[0], atol=1e-5)
            order.append(index)
        assert order == [3, 2, 0, 1]
        work = stream_logits(net, clips(), asked, memory=1)
        next(work)
        work.close()
        assert np.array_equal(logits_of(net, clips()), before)
    finally:
        net.eval()


def test_a_change_around_the_network_is_not_passed_by(net):
    asked = [(), drop("LT", where="layer4")]
    for around in (net, net.layer2):
        handle = around.register_forward_hook(lambda m, args, y: 2 * y)
        try:
            np.testing.assert_allclose(
                logits_under(net, clips(), asked), alone(net, clips(), asked), rtol=1e-4
            )
        finally:
            handle.remove()
    with reverse().on(net):
        backwards = alone(net, clips(), asked)
        np.testing.assert_allclose(logits_under(net, clips(), asked), backwards, atol=1e-5)


def test_a_network_that_cannot_be_entered_says_so(caplog):
    own = awake(foreign("own"))
    with caplog.at_level(logging.INFO, "sda"):
        logits_under(own, clips(), [drop("LT", where="4")])
    assert "whole pass" in caplog.text


def test_nothing_is_computed_where_a_change_does_not_fit(net):
    single = awake(create_model("sda_tsn_tiny", 5, 4, dependencies=["LT"]))
    trace = trace_clips(single, clips())
    from sda.explaining.interventions import from_clip

    for model, wrong, error in (
        (net, drop("LT", where="layer9"), UnknownNameError),
        (net, set_weights([0.5, 0.5]), SettingError),
        (net, from_clip(trace, "clip-0"), ValueError),
        (single, drop("LT"), SettingError),
    ):
        with pytest.raises(error):
            next(stream_logits(model, clips(), [(), wrong]))


def test_views_and_large_batches(net):
    views = torch.stack([clips(3), clips(3).flip(2)], 1)  # [3,2,T,...]
    asked = [(), drop("LS"), drop("LS", where="layer3")]
    whole = logits_under(net, views, asked)
    np.testing.assert_allclose(whole, alone(net, views, asked), atol=1e-5)
    np.testing.assert_allclose(logits_under(net, views, asked, batch_size=2, memory=1), whole, atol=1e-5)
