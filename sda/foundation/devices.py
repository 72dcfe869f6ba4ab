"""Where a network computes, and in which precision, layout and mode; inputs follow the network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from .errors import SettingError, listed

__all__ = ["pick_device", "device_of", "dtype_of", "to_model", "set_layout", "evaluating"]

_M = TypeVar("_M", bound=nn.Module)


def _available() -> list[str]:
    """The kinds of devices of this machine, the fastest first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, found in there.items() if found]


def pick_device(
    name: str = "auto",  # auto, cpu, cuda, cuda:1, mps
) -> torch.device:
    """The device of this name; `auto` takes a GPU where there is one, SettingError names what there is."""
    there = _available()
    if name == "auto":
        return torch.device(there[0])
    kind, _, number = name.partition(":")
    found = kind in there and (kind == "cuda" or number in ("", "0")) and (number.isdecimal() or number == "")
    if found and kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        found = False
    if not found:
        choices = ["auto", *there]
        remedy = f"choose one of {listed(choices, len(choices))}"
        raise SettingError(f"there is no device {name!r} here", subject=name, choices=choices, remedy=remedy)
    return torch.device(name)


def device_of(model: nn.Module) -> torch.device:
    """Where a network is; the processor for one without any tensor."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The precision of a network: that of its first floating parameter, float32 without one."""
    for tensor in model.parameters():
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def to_model(
    clips: Tensor,  # any shape; whole numbers (bytes, labels) keep their type
    model: nn.Module,  # network on any device, in any precision
) -> Tensor:
    """A tensor moved to where the network is, floating ones in the network's precision."""
    if clips.is_floating_point():
        return clips.to(device_of(model), dtype_of(model))
    return clips.to(device_of(model))


def set_layout(
    model: _M,  # changed in place
    channels_last: bool,  # True: H, W, C, which is faster on most devices; False: C, H, W
) -> _M:  # the same network; values do not change
    """Store all kernels with 4 axes in one memory layout."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for parameter in model.parameters():
        if (
            parameter.ndim == 4
        ):  # copied, for `to` would leave 1 x 1 kernels as they are: they fit both layouts
            stored = torch.empty_like(parameter.data, memory_format=layout)
            parameter.data = stored.copy_(parameter.data)
    return model


@contextmanager
def evaluating(
    model: _M,  # any network
    gradients: bool
    | None = False,  # False: inference mode; True: gradients are on; None: as they are outside
) -> Iterator[_M]:  # the same network
    """Evaluation mode inside; afterwards, also after an error, every sub-module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    keep = gradients is None
    try:
        with (
            nullcontext() if keep else torch.inference_mode(not gradients),
            nullcontext() if keep else torch.set_grad_enabled(bool(gradients)),
        ):
            model.eval()
            yield model
    finally:
        for module, training in modes:
            module.training = training
