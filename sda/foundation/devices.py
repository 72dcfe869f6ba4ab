"""Where a network computes, and in which precision, layout and mode; inputs follow the network."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .errors import SettingError, listed, unknown_name
from .files import cast_from, fingerprint

__all__ = [
    "pick_device",
    "pick_dtype",
    "device_of",
    "dtype_of",
    "to_model",
    "to_numpy",
    "set_layout",
    "evaluating",
]

_M = TypeVar("_M", bound=nn.Module)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BFLOAT16_UNITS = {"amx_bf16", "avx512_bf16"}  # without them bfloat16 is computed in float32, and slower
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@cache
def processor_flags() -> frozenset[str]:
    """What the processor says that it can do, on Linux; nothing elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


@cache
def keep_memory() -> bool:  # whether this machine's C library was told so
    """Let this process keep memory that is freed, up to 2 GiB of it beyond what is in use.

    A pass through a network frees feature maps that the next layer asks for again. glibc gives large ones
    back at once, and every page is then new and has to be cleared: half the time of a pass on some machines.
    """
    if platform.system() != "Linux":
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    return False


def _available() -> list[str]:
    """The kinds of devices of this machine, the fastest first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, found in there.items() if found]


SMALL = 1_000_000  # parameters below which bfloat16 wins nothing: 17 ms a clip become 18 in sda_tsn_tiny


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


def pick_dtype(
    precision: str = "auto",  # auto, fp32, bf16, fp16
    device: str | torch.device = "cpu",  # where it will compute
    parameters: int = SMALL,  # of the network; fewer than `SMALL` stay in float32 under `auto`
) -> torch.dtype:
    """The number format of this name; `auto` is bfloat16 where there are units for it, else float32: NVIDIA
    GPUs since Ampere, processors with AMX or AVX-512 for it. The environment variable SDA_PRECISION says
    what `auto` is, for numbers that shall be the same on every machine."""
    if precision == "auto":
        precision = os.environ.get("SDA_PRECISION") or precision
    if precision == "auto":
        kind = torch.device(device).type
        native = kind == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        native = native or (kind == "cpu" and bool(_BFLOAT16_UNITS & processor_flags()))
        return torch.bfloat16 if native and parameters >= SMALL else torch.float32
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, ["auto", *PRECISIONS])
    return PRECISIONS[precision]


def place_model(
    model: _M,  # changed in place
    device: str | torch.device = "auto",  # see `pick_device`
    precision: str = "auto",  # see `pick_dtype`
) -> _M:  # the same network; `fingerprint` still gives that of the weights before
    """Put a network where it shall compute, in the number format it shall compute in."""
    place = pick_device(device) if isinstance(device, str) else device
    dtype = pick_dtype(precision, place, sum(t.numel() for t in model.parameters()))
    if dtype == dtype_of(model):
        return model.to(place)
    known = fingerprint(model)
    model.to(place, dtype)
    cast_from(known, model)
    return model


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


def precision_of(model: nn.Module) -> str:
    """The precision of a network as `pick_dtype` names it; others by torch's name, e.g. float64."""
    dtype = dtype_of(model)
    return next((name for name, one in PRECISIONS.items() if one == dtype), str(dtype).partition(".")[2])


def to_model(
    clips: Tensor,  # any shape; whole numbers (bytes, labels) keep their type
    model: nn.Module,  # network on any device, in any precision
) -> Tensor:
    """A tensor moved to where the network is, floating ones in the network's precision."""
    if clips.is_floating_point():
        return clips.to(device_of(model), dtype_of(model))
    return clips.to(device_of(model))


def widened(values: Tensor) -> Tensor:
    """The same values in float32 where their format is shorter: sums and small differences are safe there."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def to_numpy(
    values: Tensor,  # on any device, in any precision, with or without gradients
) -> np.ndarray:  # of the same shape; formats shorter than float32 become float32
    """What a network computed, as an array."""
    return widened(values.detach()).cpu().numpy()


def bare(
    model: nn.Module,  # perhaps inside torch.compile, DataParallel or DistributedDataParallel
) -> nn.Module:  # the network itself, whose layers have their own names and whose hooks are called
    """A network without what was wrapped around it."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = getattr(model, "_orig_mod", None)  # of torch.compile
        if inner is None and isinstance(model, wrappers):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


_HELD: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_HOLDING = threading.Lock()  # of the dictionary


@contextmanager
def alone_with(
    model: _M,  # from `bare`
) -> Iterator[_M]:  # the same network; calls go through its Python code, past a compiled one
    """A network for work that hooks into it: one thread at a time, the others wait for their turn."""
    with _HOLDING:
        held = _HELD.setdefault(model, threading.RLock())
    with held:
        compiled = [(part, part._compiled_call_impl) for part in model.modules()]  # by `model.compile()`
        try:
            for part, _ in compiled:
                part._compiled_call_impl = None
            yield model
        finally:
            for part, call in compiled:
                part._compiled_call_impl = call


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
