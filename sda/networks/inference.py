"""A trained network becomes one that only answers: norms folded into convolutions, a layout that is fast."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from ..foundation.devices import dtype_of, keep_memory, place_model, set_layout
from ..foundation.files import cast_from, fingerprint
from .fast import SumNorm
from .fused import FoldedNorm, scale_outputs

__all__ = ["prepare_for_inference"]

_M = TypeVar("_M", bound=nn.Module)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, SumNorm)  # others may do more than normalise
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prepare_for_inference(
    model: _M,  # any network; changed in place, and no longer to be trained or saved
    precision: str = "auto",  # number format, see `pick_dtype`
    device: str | torch.device | None = None,  # where to compute, see `pick_device`; None: where it is
) -> _M:  # the same network in evaluation mode; `fingerprint` still gives that of the weights before
    """Fold norms into the layers before them, store kernels channels last, in the format that is fast here.

    Logits stay as they were to rounding (1e-4 of the largest in float32). A folded norm is an identity, so
    hooks see what they saw; those on the layer before it see its norm's output already.
    """
    keep_memory()
    model.eval()
    known = fingerprint(model)
    with torch.no_grad():
        for parent, name, before in list(_foldable(model)):
            _fold(getattr(parent, name), before)
            setattr(parent, name, FoldedNorm())
    place = next((t.device for t in model.parameters()), torch.device("cpu")) if device is None else device
    place_model(model, place, precision)
    set_layout(model, True)
    cast_from(known, model)
    return model


def is_prepared(
    model: nn.Module,  # any network
) -> bool:  # whether norms of it were folded
    """Whether a network has left its norms behind."""
    return any(isinstance(module, FoldedNorm) for module in model.modules())


def _followed(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Where one module reads nothing but the output of another: its parent, its name there, the other."""
    for module in model.modules():
        follows: Mapping[str, str] = getattr(module, "folds", {})
        if type(module).forward is nn.Sequential.forward:
            names = list(module._modules)
            follows = dict(zip(names[1:], names, strict=False))
        for name, before in follows.items():
            parent = _child(module, name.rpartition(".")[0])
            source = _child(module, before)
            if parent is not None and source is not None and name.rpartition(".")[2] in parent._modules:
                yield parent, name.rpartition(".")[2], source


def _child(module: nn.Module, path: str) -> Any:
    """The module at a dotted path; None where there is none."""
    for name in filter(None, path.split(".")):
        module = module._modules.get(name)  # type: ignore[assignment]
        if module is None:
            return None
    return module


def _foldable(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The norms that can be folded, as `_followed` gives them; what is used in several places stays."""
    uses: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        uses[id(module)] = uses.get(id(module), 0) + 1
    for parent, name, before in _followed(model):
        norm = parent._modules[name]
        usual = type(norm) in _NORMS and norm.running_mean is not None and norm.affine  # type: ignore[union-attr]
        able = hasattr(before, "absorb") or isinstance(before, _LINEAR)
        plain = able and not nn.utils.parametrize.is_parametrized(before)
        if usual and plain and uses[id(norm)] == uses[id(before)] == 1:
            yield parent, name, before


def _fold(norm: Any, before: Any) -> None:
    """Let a layer do what its norm did, in float64: the folded numbers are rounded once."""
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if hasattr(before, "absorb"):
        before.absorb(scale, shift)
    else:
        scale_outputs(before, scale, shift)


def like(
    model: _M,  # changed in place
    other: nn.Module,  # a network of the same kind
) -> _M:  # the same network, prepared if the other is, on its device and in its precision
    """Bring a network into the form of another."""
    place = next((t.device for t in other.parameters()), torch.device("cpu"))
    if is_prepared(other):
        keep = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype_of(other)]
        return prepare_for_inference(model, keep, place)
    return model.to(place, dtype_of(other)).eval()
