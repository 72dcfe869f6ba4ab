"""The shift of TSM in one pass: its gradient by hand, and the convolution that follows it joined in."""

from typing import Any

import torch
from torch import Tensor, nn

from ..networks.folding import unfold_clips


def shifted(
    x: Tensor,  # folded frames, [B*T, C, H, W]
    num_frames: int,  # T
    fold: int,  # channels that move each way
    way: int = 1,  # 1: the first fold takes the next frame; -1: the previous
) -> Tensor:  # the shape of x
    """The first `fold` channels take the next frame (way 1) or the previous (-1), as many the other one."""
    out = torch.zeros_like(x)
    clips = unfold_clips(x, num_frames)  # [B, C, T, H, W], a view
    to = unfold_clips(out, num_frames)
    later, sooner = slice(fold), slice(fold, 2 * fold)
    if way < 0:
        later, sooner = sooner, later
    to[:, later, :-1] = clips[:, later, 1:]
    to[:, sooner, 1:] = clips[:, sooner, :-1]
    to[:, 2 * fold :] = clips[:, 2 * fold :]
    return out


class Shift(torch.autograd.Function):
    """`shifted`, whose gradient is the shift the other way: one pass instead of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_frames: int, fold: int) -> Tensor:
        """Shift, and remember how."""
        ctx.of = (num_frames, fold)
        return shifted(x, num_frames, fold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Shift the other way."""
        num_frames, fold = ctx.of
        return shifted(grad, num_frames, fold, -1), None, None


def shift_into(
    conv: nn.Conv2d,  # 1x1 with a bias
    x: Tensor,  # folded frames, [B*T, C, H, W]
    num_frames: int,  # T
    fold: int,  # channels that move each way
) -> Tensor:  # relu(conv(shift(x))), [B*T, P, H, W], channels last
    """What a convolution makes of the shifted frames, which are never made: three matrix products."""
    pixels = x.shape[2] * x.shape[3]
    rows = x.contiguous(memory_format=torch.channels_last).movedim(1, -1).flatten(0, 2)  # [B*T*H*W, C]
    kernel = conv.weight.flatten(1).T
    assert conv.bias is not None  # of the norm that was folded
    out = torch.addmm(conv.bias, rows[:, 2 * fold :], kernel[2 * fold :])
    clips = rows.split(num_frames * pixels)
    for clip, to in zip(clips, out.split(num_frames * pixels), strict=True):
        to[:-pixels].addmm_(clip[pixels:, :fold], kernel[:fold])
        to[pixels:].addmm_(clip[:-pixels, fold : 2 * fold], kernel[fold : 2 * fold])
    return out.relu_().view(len(x), *x.shape[2:], -1).movedim(-1, 1)
