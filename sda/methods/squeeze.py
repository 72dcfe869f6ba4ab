"""Squeeze and excitation: channels of a frame are gated by their mean over space."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.fused import he_conv

REDUCTION = 12  # of the squeeze in RubiksNet's small tier


class ChannelGate(nn.Module):
    """Squeeze and excitation, [B*T, C, H, W] -> the same shape."""

    def __init__(
        self,
        channels: int,  # C
    ):
        super().__init__()
        inside = max(channels // REDUCTION, 1)
        self.down = he_conv(channels, inside)
        self.up = he_conv(inside, channels)

    def forward(
        self,
        x: Tensor,  # folded frames, [B*T, C, H, W]
        num_frames: int,  # T, not used: frames are gated one by one
    ) -> Tensor:  # the shape of x
        """Gate channels by their mean."""
        return x * self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()
