"""The published form of the block, on the weights of an `SDA`: every response broadcast, then weighted and
summed.

The one reference that tests and benchmarks share. It follows the formulas of the paper literally: the clip
is copied to [B, C, T, H, W], each response is materialised at full size, and the expansion works on the
full mixture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sda.networks.blocks import SDA


def _norm(norm: torch.nn.Module, x: Tensor) -> Tensor:
    """Batch normalisation of any rank with the parameters and running statistics of `norm`."""
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    )


def response(block: SDA, name: str, d: Tensor) -> Tensor:
    """The dependency `name` of reduced features d [B, r, T, H, W], broadcast to the shape of d."""
    T, H, W = d.shape[2:]
    weight = block.branches[name].conv.weight
    norm = block.branches[name].norm
    if name == "LST":
        y = _norm(norm, F.linear(d.mean((2, 3, 4)), weight))[:, :, None, None, None]
    if name == "LT":
        y = _norm(norm, F.conv2d(d.mean(2), weight, padding=1)).unsqueeze(2)
    if name == "LS":
        y = _norm(norm, F.conv1d(d.mean((3, 4)), weight, padding=1))[..., None, None]
    if name == "S122":
        y = F.adaptive_avg_pool3d(d, (T, max(H // 2, 2), max(W // 2, 2)))
        y = _norm(norm, F.conv3d(y, weight.unsqueeze(-1), padding=(1, 0, 0)))
        return F.adaptive_avg_pool3d(F.relu(y), (T, H, W))
    return F.relu(y).expand_as(d)


def naive_sda(block: SDA, x: Tensor, num_frames: int = 8) -> Tensor:
    """What `block` computes for folded frames x [B*T, C, H, W], the published way."""
    v = x.unflatten(0, (-1, num_frames)).transpose(1, 2).contiguous()
    d = F.relu(_norm(block.down_norm, F.conv3d(v, block.down.weight.unsqueeze(-1))))
    full = [response(block, name, d) for name in block.dependencies]
    keys = torch.stack([y.mean((2, 3, 4)) for y in full], 1)
    weights = (keys @ block.attention.query / block.attention.temperature).softmax(1)
    mixed = sum(weights[:, i, None, None, None, None] * y for i, y in enumerate(full))
    gate = torch.sigmoid(_norm(block.up_norm, F.conv3d(mixed, block.up.weight.unsqueeze(-1))))
    return (v * gate).transpose(1, 2).contiguous().flatten(0, 1)


def naive_shift(x: Tensor, num_frames: int, fold_div: int) -> Tensor:
    """The temporal shift of folded frames, slice by slice into zeros."""
    clips = x.unflatten(0, (-1, num_frames))
    fold = x.shape[1] // fold_div
    out = torch.zeros_like(clips)
    out[:, :-1, :fold] = clips[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return out.flatten(0, 1)


class Published(torch.nn.Module):
    """A block or a shift of ours, computed in the published form."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Maps [B*T, C, H, W] to the same shape."""
        if isinstance(self.inner, SDA):
            return naive_sda(self.inner, x, num_frames)
        return naive_shift(x, num_frames, self.inner.fold_div)


def published(net: torch.nn.Module) -> torch.nn.Module:
    """Let a TSN or TSM, with or without SDA, compute in the published form; changed in place."""
    for block in list(net.modules()):
        for place in ("enter", "gate"):
            if getattr(block, place, None) is not None:
                setattr(block, place, Published(getattr(block, place)))
    return net
