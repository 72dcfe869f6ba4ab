"""Frames of clips, folded and unfolded; what a network may be given; a norm for a batch of one."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..foundation.errors import SettingError
from .fast import SumNorm

__all__ = ["fold_clips", "stage_of", "unfold_clips"]


def stage_of(
    block: str,  # name of a block or a layer in it, as "layer2.3", or "layer2.3[0:8]" under `split`
) -> str:  # its stage, "layer2"; the whole name where it has none
    """The stage that a block's name begins with."""
    return block.split(".")[0].split("[")[0] or block


def unfold_clips(
    x: Tensor,  # frames of all clips, [B*T, C, H, W], the frames of one clip contiguous
    num_frames: int,  # T, frames in one clip
) -> Tensor:  # the same memory seen as clips, [B, C, T, H, W]
    """See folded frames as clips, without a copy; SettingError when the frames do not fill whole clips."""
    if x.dim() != 4:
        raise SettingError(f"expected folded frames [B*T, C, H, W], got the shape {tuple(x.shape)}")
    if num_frames < 1 or x.shape[0] % num_frames:
        raise SettingError(
            f"{x.shape[0]} frames do not make whole clips of {num_frames}",
            subject="num_frames",
            remedy="pass the number of frames of one clip as num_frames",
        )
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2)


def fold_clips(
    x: Tensor,  # clips, [B, C, T, H, W]
) -> Tensor:  # folded frames, [B*T, C, H, W]
    """The inverse of `unfold_clips`."""
    return x.transpose(1, 2).flatten(0, 1)


def check_clips(
    clips: Tensor,  # what a network was given
) -> None:
    """Raise an error that names the shape unless `clips` is float [B, T, 3, H, W] with H, W >= 32."""

    def shape() -> str:
        return "x".join(map(str, clips.shape))  # only when needed: a compiled graph cannot write text

    if clips.ndim != 5 or clips.shape[2] != 3:
        raise SettingError(
            f"clips must be [B, T, 3, H, W], got {shape()}: stack frames first (one clip: clip[None])"
        )
    if min(clips.shape[3:]) < 32:
        raise SettingError(
            f"frames are {clips.shape[4]} pixels wide and {clips.shape[3]} high, the network needs at "
            "least 32",
            remedy="resize the clip",
        )
    if not clips.shape[1]:
        raise SettingError(f"the clips have no frames (shape {shape()})")
    if not clips.is_floating_point():
        raise TypeError(f"clips must be floats, got {clips.dtype}: apply the transform, or .float() / 255")


_USUAL = (nn.BatchNorm1d, nn.BatchNorm2d, SumNorm)  # a synchronised norm may have more values elsewhere


def batch_norm(
    norm: nn.Module,  # a batch normalisation, in training or in evaluation
    x: Tensor,  # [N, channels, ...]
) -> Tensor:  # the shape of x
    """Normalise, also a batch of one: one value has no variance, so the running statistics stand in."""
    if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) and type(norm) in _USUAL:
        if norm.training and norm.track_running_stats and x.numel() == x.shape[1]:
            running = (norm.running_mean, norm.running_var)
            return F.batch_norm(x, *running, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)
