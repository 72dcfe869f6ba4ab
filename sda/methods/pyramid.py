"""Plain parts of TPN: a convolution with its norm, two levels made one, and the classifier of training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.blocks import batch_norm

GROUPS = 32  # of the neck's grouped convolutions (TPN, configuration for Something-Something)


def xavier(
    conv: nn.Module,  # with a weight
) -> nn.Module:  # the same
    """Xavier-uniform initialisation."""
    nn.init.xavier_uniform_(conv.get_parameter("weight"))
    return conv


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation, relu; [N, C, H, W] -> [N, C', H', W']."""

    folds = {"1": "0"}

    def __init__(
        self,
        channels: int,  # C
        out: int,  # C'
        kernel: int = 1,  # side of the kernel
        stride: int = 1,  # in space
        groups: int = 1,  # of the convolution
    ):
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(xavier(conv), nn.BatchNorm2d(out))

    def forward(
        self,
        x: Tensor,  # [N, C, H, W]
    ) -> Tensor:  # [N, C', H', W']
        """One after the other; a single value per channel does not stop training."""
        return F.relu(batch_norm(self[1], self[0](x)))


class LevelFusion(nn.Module):
    """Two levels [B, C, H, W] -> one map [B, 2C, H, W]."""

    def __init__(
        self,
        channels: int,  # C
    ):
        super().__init__()
        self.levels = nn.ModuleList(ConvNorm(channels, channels, groups=GROUPS) for _ in range(2))
        self.fuse = ConvNorm(2 * channels, 2 * channels)

    def forward(
        self,
        levels: list[Tensor],  # two of [B, C, H, W]
    ) -> Tensor:  # [B, 2C, H, W]
        """Each by itself, then both."""
        return self.fuse(torch.cat([f(x) for f, x in zip(self.levels, levels, strict=True)], 1))


class AuxiliaryHead(nn.Module):
    """Logits from layer3, [B*T, C, H, W] -> [B, K]."""

    def __init__(
        self,
        low: int,  # C, channels of layer3
        channels: int,  # channels inside
        num_classes: int,  # K
        stride: int = 2,  # in space
        dropout: float = 0.5,  # before the classifier
    ):
        super().__init__()
        self.conv = ConvNorm(low, channels, 3, stride)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(
        self,
        x: Tensor,  # layer3, [B*T, C, H, W]
        num_frames: int,  # T
    ) -> Tensor:  # logits [B, K]
        """Mean over space and time."""
        return self.fc(self.dropout(self.conv(x).mean((2, 3)).unflatten(0, (-1, num_frames)).mean(1)))
