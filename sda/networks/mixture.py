"""The gate of SDA in its cheap form: responses are weighted and expanded before they have the full size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .fast import fuses, relu, resize, watched
from .folding import batch_norm, fold_clips
from .fused import conv_norm, fuses_conv


def rectified(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """relu(norm(conv(x))), one operation in a network that only answers."""
    if fuses_conv(conv, norm, x):
        return conv_norm(conv, norm, x)
    return relu(batch_norm(norm, conv(x)))


def full_key(response: Tensor, size: Sequence[int]) -> Tensor:
    """Mean [B, r] over time and space of a response as it would look at the full size (H, W)."""
    if size[0] % response.shape[3] == 0 and size[1] % response.shape[4] == 0:
        return response.mean((2, 3, 4))  # every value would be repeated equally often
    y = response.mean(2)  # resizing acts on space only, so the mean over time may come first
    return resize(y, size).mean((2, 3))


def weighted_sums(
    up: nn.Module, mixture: dict[str, Tensor], frames: int, size: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """The weighted responses: sum [B, r, T, h, w] of those of small size, and LT's [B, r, H, W]."""
    wide = mixture.get("LT")
    # the largest first: the layout of a sum is that of its first term
    ordered = {name: mixture[name] for name in ("LT", "S122", "LS", "LST") if name in mixture}
    terms = [y for name, y in ordered.items() if name != "LT"]
    if wide is not None and not (isinstance(up, nn.Conv2d) and up.bias is None):
        # something else stands here, e.g. with a norm fused into it: it gets the sum, not its terms
        terms = [y if y.shape[-2:] == (1, 1) else resize(y, size) for y in ordered.values()]
        wide = None
    small = sum(terms[1:], terms[0]) if terms else torch.zeros_like(mixture["LT"][..., :1, :1])
    B, r, _, h, w = small.shape
    return small.expand(B, r, frames, h, w), None if wide is None else wide.squeeze(2)


def _expand(up: nn.Module, small: Tensor, wide: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Both in C channels, [B, T, C, h, w] and [B, 1, C, H, W]."""
    expanded = up(fold_clips(small)).unflatten(0, (small.shape[0], small.shape[2]))
    return expanded, None if wide is None else up(wide).unsqueeze(1)


def _normalised_sum(norm: nn.Module, small: Tensor, wide: Tensor | None, x: Tensor) -> Tensor:
    """The expanded mixture [B*T, C, H, W] at the size of the frames x, normalised."""
    if fuses(norm):
        return norm(small, wide, x)
    z = resize(small, x.shape[-2:])
    return batch_norm(norm, (z if wide is None else z + wide).flatten(0, 1))


def gate_frames(block: Any, x: Tensor, small: Tensor, wide: Tensor | None) -> Tensor:
    """The frames x times the sigmoid of the expanded mixture; without a gate to keep where nobody looks."""
    unseen = not watched(block.up_norm, block.hook_gate)
    small, wide = _expand(block.up, small, wide)
    if unseen and fuses(block.up_norm):
        return block.up_norm.gate(x, small, wide)
    gate = torch.sigmoid(_normalised_sum(block.up_norm, small, wide, x))
    return block.hook_gate(gate) * x
