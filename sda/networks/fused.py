"""A convolution and what follows it as one operation: norms that are folded, sums, rectifiers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fast import PointConv, answers, watched


def he_conv(
    in_channels: int,  # channels of the input
    out_channels: int,  # channels of the output
    kernel: int = 1,  # height and width
    stride: int = 1,  # in space
) -> nn.Conv2d:  # without bias, padded so that stride 1 keeps the size
    """A convolution with He initialisation over its outputs, as in torchvision's ResNet."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def conv_norm(
    conv: Any,  # convolution or what stands for one, called as conv(x)
    norm: nn.Module,  # its norm
    x: Tensor,  # [N, Cin, H, W]
    add: Tensor | None = None,  # added before the rectifier, [N, Cout, H', W']
    relu: bool = True,  # rectify
) -> Tensor:  # [N, Cout, H', W']
    """relu(norm(conv(x)) + add); one operation where the norm is folded and nobody listens."""
    if fuses_conv(conv, norm, x):
        return _fused(conv, x, add, relu)
    y = norm(conv(x))
    if add is not None:
        return F.relu(y + add, inplace=True) if relu else y + add
    return F.relu(y) if relu else y


fused_conv: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # oneDNN, with what follows


def fuses_conv(
    conv: Any,  # see `conv_norm`
    norm: nn.Module,  # likewise
    x: Tensor,  # likewise
) -> bool:  # whether both are one operation
    """Whether oneDNN may compute a convolution with what follows it."""
    return bool(
        isinstance(norm, FoldedNorm)
        and type(conv) in (nn.Conv2d, PointConv)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and answers(x)
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and channels_last_weight(conv.weight)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and fused_conv is not None
        and not watched(conv, norm)
    )


def channels_last_weight(weight: Tensor) -> bool:
    """Whether a kernel [Cout, Cin, h, w] is stored channels last (1 x 1 kernels always are)."""
    return weight.is_contiguous(memory_format=torch.channels_last)


def _fused(conv: nn.Conv2d, x: Tensor, add: Tensor | None, relu: bool) -> Tensor:
    """The convolution with bias, sum and rectifier as one call of oneDNN."""
    x = x.contiguous(memory_format=torch.channels_last)
    at = (conv.padding, conv.stride, conv.dilation, conv.groups)
    after = "relu" if relu else "none"
    if add is None:
        return fused_conv(x, conv.weight, conv.bias, *at, after, [], "")
    add = add.contiguous(memory_format=torch.channels_last)
    return fused_conv.binary(
        x, add, conv.weight, conv.bias, *at, "add", 1.0, after if relu else None, [], None
    )


def first_conv(
    block: Any,  # a bottleneck: `enter`, `conv1`, `bn1`
    x: Tensor,  # what enters it, [B*T, Cin, H, W]
    num_frames: int,  # T
) -> Tensor:  # [B*T, P, H, W]
    """The block of the place `enter`, the first convolution, its norm and a rectifier."""
    enter = block.enter
    if hasattr(enter, "into") and fuses_conv(block.conv1, block.bn1, x) and not watched(enter):
        return enter.into(block.conv1, x, num_frames)
    return conv_norm(block.conv1, block.bn1, x if enter is None else enter(x, num_frames))


def shortcut_of(
    downsample: Any,  # convolution and norm, or None
    x: Tensor,  # what enters a bottleneck, [N, Cin, H, W]
) -> Tensor:  # [N, Cout, H', W']
    """What goes around the residual branch."""
    if downsample is None:
        return x
    if type(downsample) is nn.Sequential and len(downsample) == 2 and not watched(downsample):
        conv, norm = downsample
        return conv_norm(conv, norm, x, relu=False)
    return downsample(x)


class FoldedNorm(nn.Identity):
    """Stands where a norm stood whose work the layer before it does now; hooks on it see what they saw."""


@torch.no_grad()
def scale_outputs(
    layer: nn.Module,  # a convolution or linear layer, changed in place
    scale: Tensor,  # of every output, [out]
    shift: Tensor | None = None,  # added to every output, [out]
) -> None:
    """Multiply and move the outputs of a layer by changing its kernel and its bias."""
    weight = layer.get_parameter("weight")
    view = (-1, *[1] * (weight.ndim - 1))
    layer.weight = nn.Parameter((weight.double() * scale.double().view(view)).to(weight.dtype))
    old = torch.zeros_like(scale) if layer.bias is None else layer.get_parameter("bias") * scale
    if shift is not None or layer.bias is not None:
        layer.bias = nn.Parameter((old if shift is None else old + shift).to(weight.dtype))
