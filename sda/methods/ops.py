"""What several methods share: taps over three frames, kernels blind to time, a check of clip lengths."""

import torch
from torch import Tensor, nn

from sda.foundation.errors import SettingError, UnknownNameError

TAPS = ("tsm", "identity")  # how taps may start


def mix_frames(
    x: Tensor,  # folded frames, [B*T, C, H, W]
    taps: Tensor,  # of the previous, this and the next frame: [C, 3], or [B, C, 3] for every clip its own
    num_frames: int,  # T
) -> Tensor:  # the shape of x
    """Depthwise convolution over three frames, padded with zeros."""
    clips = x.unflatten(0, (-1, num_frames))  # [B, T, C, H, W]
    before, now, after = taps.view(-1, 1, x.shape[1], 1, 1, 3).unbind(-1)
    out = clips * now
    out[:, 1:] += clips[:, :-1] * before
    out[:, :-1] += clips[:, 1:] * after
    return out.flatten(0, 1)


class DepthwiseTime(nn.Module):
    """Three learned taps per channel, [B*T, C, H, W] -> the same shape."""

    def __init__(
        self,
        channels: int,  # C
        taps: str = "tsm",  # how they start, one of `TAPS`
    ):
        super().__init__()
        if taps not in TAPS:
            raise UnknownNameError(f"taps start as one of {TAPS}, not {taps!r}", subject=taps, choices=TAPS)
        self.weight = nn.Parameter(torch.zeros(channels, 3))
        fold = channels // 8 if taps == "tsm" else 0
        with torch.no_grad():
            self.weight[:fold, 2] = 1
            self.weight[fold : 2 * fold, 0] = 1
            self.weight[2 * fold :, 1] = 1

    def forward(
        self,
        x: Tensor,  # folded frames, [B*T, C, H, W]
        num_frames: int,  # T
    ) -> Tensor:  # the shape of x
        """Mix three frames in every channel."""
        return mix_frames(x, self.weight, num_frames)

    def multiply_adds(
        self,
        x: Tensor,  # its input
        num_frames: int,  # T
    ) -> int:  # multiply-adds, those with the padding included, as for any convolution
        """What `profile` cannot see."""
        return 3 * x.numel()


def centre_tap(
    kernel: Tensor,  # 2-D convolution [out, in, 3, 3]
) -> Tensor:  # 3-D convolution [out, in, 3, 3, 3] that does the same to every frame
    """Inflate a kernel so that it is blind to neighbouring frames."""
    empty = torch.zeros_like(kernel)
    return torch.stack([empty, kernel, empty], 2)


def same_frames(
    method: str,  # for the message
    built: int,  # T the block was built for
    asked: int | None,  # T of the clips at hand; None takes the block's
) -> int:  # T
    """Refuse clips of another length than the parameters were made for."""
    if asked not in (None, built):
        raise SettingError(
            f"this {method} was built for clips of {built} frames and got {asked}: its parameters depend on "
            "the number",
            subject=method,
            remedy=f"sample {built} frames or build it with num_frames={asked}",
        )
    return built
