"""An SDA block of a network that only answers: few operations on rows of pixels, equal to rounding."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fast import PointConv, SumNorm, answers, channels_last, resize, sum_of_rows, watched
from .fused import FoldedNorm, conv_norm, fused_conv, fuses_conv
from .mixture import full_key


def answers_at_once(
    block: Any,  # SDA
    x: Tensor,  # its input, folded frames
) -> bool:  # whether `answer` may take its place
    """Whether a block of a prepared network only has to answer, and nobody looks at what is inside it."""
    if not (answers(x) and channels_last(x) and fuses_conv(block.down, block.down_norm, x)):
        return False
    norm = block.up_norm
    usual = type(block.up) is PointConv and block.up.bias is None and type(norm) is SumNorm
    if not (usual and not norm.training and norm.affine and norm.track_running_stats):
        return False
    folded = all(isinstance(getattr(branch, "norm", None), FoldedNorm) for branch in block.branches.values())
    return folded and not watched(*_inside(block))


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    """All modules in a module; `modules()` spells out their names, which takes longer than the check."""
    for child in module._modules.values():
        if child is not None:
            yield child
            yield from _inside(child)


def answer(
    block: Any,  # SDA
    x: Tensor,  # folded frames, channels last, [B*T, C, H, W]
    num_frames: int,  # T
) -> Tensor:  # gated frames, [B*T, C, H, W]
    """What `SDA.forward` gives, by means that are taken once and a mixture at the size of the frames."""
    y = conv_norm(block.down, block.down_norm, x).movedim(1, -1).unflatten(0, (-1, num_frames))
    responses = _responses(block.branches, y)
    size = (y.shape[2], y.shape[3])
    keys = [full_key(rows.movedim(-1, 1), size) for rows in responses.values()]
    weights = block.attention(torch.stack(keys, 1))
    columns = weights[:, :, None, None, None, None]
    kept = (weights != 0).any(0).tolist()
    parts = {n: columns[:, i] * rows for i, (n, rows) in enumerate(responses.items()) if kept[i]}
    wide = parts.pop("LT", None)
    small = sum(parts.values()) if parts else y.new_zeros(1, 1, 1, 1, 1)
    return _gated(x, sum_of_rows(small, wide, size).expand_as(y), block.up, block.up_norm)


def _responses(
    branches: Any,  # of an SDA block, their norms folded
    y: Tensor,  # reduced frames as rows, [B, T, H, W, r]
) -> dict[str, Tensor]:  # [B, 1 or T, 1 or h or H, 1 or w or W, r]
    """What the branches respond."""
    frames = y.flatten(2, 3).mean(2)  # [B, T, r]
    found = {}
    for name, branch in branches.items():
        conv = branch.conv
        if name == "LST":
            found[name] = F.relu(conv(frames.mean(1)))[:, None, None, None]
        elif name == "LT":
            found[name] = conv_norm(conv, branch.norm, y.mean(1).movedim(-1, 1)).movedim(1, -1)[:, None]
        elif name == "LS":
            found[name] = F.relu(conv(frames.mT)).mT[:, :, None, None]
        else:
            half = (max(y.shape[2] // 2, 2), max(y.shape[3] // 2, 2))
            rows = _resized(y, half).flatten(2, 3).movedim(-1, 1)  # [B, r, T, h*w]
            found[name] = conv_norm(conv, branch.norm, rows).movedim(1, -1).unflatten(2, half)
    return found


def _resized(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Rows [B, T, h, w, r] at another size."""
    return resize(rows.movedim(-1, 2), size).movedim(2, -1)


def _gated(
    x: Tensor,  # folded frames, channels last, [B*T, C, H, W]
    mixture: Tensor,  # of what the branches respond, as rows, [B, T, H, W, r]
    up: PointConv,  # from r to C channels
    norm: SumNorm,  # by its running statistics
) -> Tensor:  # x * sigmoid(norm(up(mixture))), [B*T, C, H, W]
    """The gated frames: oneDNN writes the gate, norm and sigmoid in it, and the frames come in place."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = (norm.bias - norm.running_mean * scale).to(x.dtype)
    weight = (up.weight * scale[:, None, None, None]).to(x.dtype)
    maps = mixture.movedim(-1, 2).flatten(0, 1)
    gate = fused_conv(maps, weight, shift, [0, 0], [1, 1], [1, 1], 1, "sigmoid", [], "")
    return gate.mul_(x)
