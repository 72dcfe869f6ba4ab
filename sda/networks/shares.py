"""Weights without some dependencies: what is open shares what is free, and what is shut stays shut."""

import torch
from torch import Tensor


def rows_of_one(
    weights: Tensor,  # [..., M], not negative
) -> Tensor:  # [..., M], rows sum to 1; a row of zeros stays one
    """Rows scaled to sum 1."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1e-6), weights)


def leave_out(
    weights: Tensor,  # [B, M]
    kept: Tensor,  # bool, [B, M] or [M]: the others are left out
) -> Tensor:  # [B, M], rows with the same sums; zeros where nothing open is kept
    """Weights without some dependencies: the open ones share what is free, what is shut stays shut."""
    rest = weights * kept
    total = rest.sum(-1, keepdim=True)
    share = weights.sum(-1, keepdim=True) / total.clamp(min=1e-12)
    return torch.where(total > 0, rest * share, rest)
