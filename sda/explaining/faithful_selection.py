"""Whether a selection can be believed: necessity, silence, sufficiency and stability, beside controls

A selection is true when (1) what has the larger weight is what the answer loses most without, (2) what has
no weight has no effect, (3) what is selected is enough, (4) it says what the clip needs, where that is known
(`sda.studies.ground_truth`), (5) it stays when the clip hardly changes, and (6) it costs no accuracy
(`sda.testing.compare`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.errors import SettingError
from ..foundation.statistics import mean_interval, softmax, spearman
from ..networks.selection import leave_out
from .answers import Clips, logits_of
from .interventions import SelectionChange
from .trace import trace_clips
from .tracer import Where, select_blocks
from .variants import logits_under

__all__: list[str] = []

_ROUNDING = 1e-5  # by so much answers may differ because clips were computed in other batches


def _cells(change: Callable[[str, Tensor], Tensor], name: str, where: Where = "all") -> SelectionChange:
    """A change of the weights of some blocks, without a control of its own."""

    def control(seed: int) -> SelectionChange:
        raise SettingError(f"{name} has no random counterpart", subject=name)

    return SelectionChange(name, lambda block, present, weights: change(block, weights), control, where)


@dataclass(frozen=True)
class LeftOut:
    """What N clips select in R blocks, and what their answers lose without each of the M dependencies."""

    weights: np.ndarray  # [N, R, M]
    losses: np.ndarray  # [N, R, M]: fall of the true class's log-probability; the others share the weight
    right: np.ndarray  # bool [N]: clips that are answered correctly; only they are judged
    blocks: list[str]  # R names
    logits: np.ndarray  # [N, K]
    labels: np.ndarray  # int [N]


def left_out(
    model: nn.Module,  # network whose blocks have the same dependencies, and no `split`
    clips: Clips,  # see `Clips`
    labels: Sequence[int] | None = None,  # true classes of a tensor's clips
    batch_size: int = 50,  # clips at a time
    share: bool = True,  # the others of the block share the weight; else it is gone, as when a gate shuts
) -> LeftOut:
    """Leave out one dependency of one block at a time; what no clip selects is known to change nothing."""
    trace = trace_clips(model, clips, batch_size, labels=labels)
    if trace.labels is None:
        raise SettingError("losses are of true classes", remedy="give labels= with a tensor of clips")
    if np.isnan(trace.weights).any() or len(select_blocks(model)) != len(trace.blocks):
        text = "necessity is asked of blocks with the same four dependencies and one selection a clip"
        raise SettingError(text, subject=trace.model)
    chosen = np.arange(len(trace)), np.asarray(trace.labels)

    def without(place: str, m: int) -> SelectionChange:
        kept = torch.arange(trace.weights.shape[2]) != m

        def change(block: str, weights: Tensor) -> Tensor:
            there = kept.to(weights.device)
            return leave_out(weights, there) if share else weights * there

        return _cells(change, f"without {m} in {place}", place)

    # what is shut in every clip needs no pass: the network computes the same without it
    cells = [(r, m) for r, m in np.ndindex(trace.weights.shape[1:]) if trace.weights[:, r, m].any()]
    changes = [without(trace.blocks[r], m) for r, m in cells]
    losses = np.zeros(trace.weights.shape)
    if cells:
        answers = logits_under(model, clips, [(), *changes], batch_size)
        said = np.log(softmax(np.asarray(answers, float)))[:, chosen[0], chosen[1]]
        for (r, m), after in zip(cells, said[1:], strict=True):
            losses[:, r, m] = said[0] - after
    losses[np.abs(losses) < _ROUNDING] = 0.0
    right = trace.logits.argmax(1) == trace.labels
    return LeftOut(trace.weights, losses, right, trace.blocks, trace.logits, chosen[1])


@torch.no_grad()
def rescale_gates(
    model: nn.Module,  # network with gates that do not sum to 1; changed in place, its answers stay
    found: LeftOut,  # of training clips, with share=False
    power: float = 0.5,  # mean weights become proportional to this power of the losses; 0: all alike
) -> None:
    """Give every gate a scale, so that the mean weights are ordered as the mean losses are.

    A response twice as large under half the weight is the same network, so that the order of the weights
    says nothing before somebody fixes their scales. Here it is the measured loss that fixes them; a power of
    one half ranks losses best or nearly so. Means are over the clips that open a gate: else one that hardly
    ever opens would be the widest when it does.
    """
    blocks: dict[str, Any] = dict(select_blocks(model))  # with gates
    weights = found.weights[found.right]
    opened = np.maximum((weights > 0).sum(0), 1)
    size = (np.abs(found.losses[found.right]) * (weights > 0)).sum(0) / opened
    size = np.maximum(size, 1e-3 * size.max()) ** power  # half precision knows no much smaller scales
    weight = weights.sum(0) / opened
    factor = np.where(weight > 0, size / np.maximum(weight, 1e-9), np.nan)
    scales = {
        name: blocks[name].attention.scale.cpu().numpy() * factor[r] for r, name in enumerate(found.blocks)
    }
    top = max(np.nansum(scale) for scale in scales.values()) / weight.shape[1]
    for name, scale in scales.items():
        attention = blocks[name].attention
        new = torch.from_numpy(np.nan_to_num(scale / top, nan=1.0)).to(attention.scale)
        for branch, own in zip(blocks[name].branches.values(), attention.scale / new, strict=True):
            branch.norm.weight.mul_(own)
            branch.norm.bias.mul_(own)
        attention.scale.copy_(new)


def _interval(values: np.ndarray) -> dict[str, float]:
    """Mean over clips with its interval; NaN are left out."""
    known = values[~np.isnan(values)]
    low, high = mean_interval(known)
    return {"mean": float(known.mean()) if len(known) else np.nan, "low": low, "high": high, "n": len(known)}


def rank_within(
    weights: np.ndarray,  # [N, R, M]
    sizes: np.ndarray,  # [N, R, M] of what the weights are to be ordered as
    where: np.ndarray,  # bool [N, R, M]: cells that are compared
) -> np.ndarray:  # [N], NaN for fewer than three cells, or where all tie
    """Rank correlation within each clip."""
    found = np.full(len(weights), np.nan)
    for i, known in enumerate(where):
        if known.sum() > 2 and not np.isnan(weights[i]).any():
            found[i] = spearman(weights[i][known], sizes[i][known])
    return found


def necessity(
    weights: np.ndarray,  # [N, R, M] of clips that are answered correctly
    losses: np.ndarray,  # [N, R, M]
    opened: np.ndarray | None = None,  # bool [N, R, M]: cells that carry weight (none: those of `weights`)
) -> dict[str, dict[str, float]]:  # all, open, largest -> mean, low, high, n
    """Rank correlation within clips of weight and size of the loss, over all cells and the open ones, and
    how often the largest weight is among the three largest losses."""
    size = np.abs(losses)
    flat = weights.reshape(len(weights), -1)
    top = np.argsort(-size.reshape(flat.shape), axis=1, kind="stable")[:, :3]
    largest = (top == flat.argmax(1)[:, None]).any(1).astype(float)
    largest[~(flat.max(1) > 0)] = np.nan  # nothing is selected, or there are no weights to compare
    return {
        "all": _interval(rank_within(weights, size, np.ones(weights.shape, bool))),
        "open": _interval(rank_within(weights, size, weights > 0 if opened is None else opened)),
        "largest": _interval(largest),
    }


def another_clip(
    count: int,  # clips
    rng: np.random.Generator,
) -> np.ndarray:  # int [count]
    """For every clip a random other one; each is taken once."""
    order = rng.permutation(count)
    another = np.empty_like(order)
    another[order] = np.roll(order, 1)
    return another


def controls(
    found: LeftOut,  # of some network
    seed: int = 0,  # of the draws
) -> dict[str, np.ndarray]:  # name -> weights [N, R, M] that had no part in the losses
    """Weights that should do worse: those of the clip dealt out to other cells, or among its open ones; which
    are open, without how far; those of another clip, or of the others of its class; the mean of all."""
    rng = np.random.default_rng(seed)
    flat = found.weights.reshape(len(found.weights), -1)
    another = another_clip(len(flat), rng)
    among_open = flat.copy()
    for row in among_open:
        row[row > 0] = rng.permutation(row[row > 0])
    same = (found.labels[:, None] == found.labels) & ~np.eye(len(flat), dtype=bool)
    of_class = same @ flat / np.maximum(same.sum(1), 1)[:, None]
    of_class[~same.any(1)] = np.nan  # the only one of its class
    told = {
        "weights dealt out": rng.permuted(flat, axis=1),
        "dealt out among the open": among_open,
        "open or closed": (flat > 0).astype(float),
        "another clip's": flat[another],
        "mean of the others of its class": of_class,
        "mean of all clips": np.broadcast_to(flat.mean(0), flat.shape),
    }
    return {name: values.reshape(found.weights.shape) for name, values in told.items()}


def truth_table(
    found: LeftOut,
    seed: int = 0,  # of the controls
) -> dict[str, dict[str, dict[str, float]]]:  # whose weights -> measure -> mean, low, high, n
    """Necessity of a selection and of its controls, on the clips that are answered correctly and their open
    cells."""
    told = {"selection": found.weights, **controls(found, seed)}
    right = found.right
    opened = found.weights[right] > 0
    return {name: necessity(w[right], found.losses[right], opened) for name, w in told.items()}


def silence(
    found: LeftOut,
) -> dict[str, float]:  # largest loss of what is shut, cells that are shut, open ones of a clip
    """What is lost without what is shut."""
    shut = found.weights == 0
    return {
        "largest loss": float(np.abs(found.losses[shut]).max()) if shut.any() else np.nan,
        "shut": int(shut.sum()),
        "open of a clip": float((~shut).reshape(len(shut), -1).sum(1).mean()),
        "clips without any in a block": float(shut.all(2).any(1).mean()),
        "mean size of a loss": float(np.abs(found.losses[found.right]).mean()),
    }


def sufficiency(
    model: nn.Module,  # the network of `found`
    clips: Clips,  # the clips of `found`
    found: LeftOut,
    count: int = 6,  # largest weights of a clip that stay, over all blocks
    draws: int = 3,  # random choices of as many, from all cells and from the open ones
    seed: int = 0,  # of the draws
    batch_size: int = 50,  # clips at a time
) -> dict[str, float]:  # accuracy: whole, selected, random, random of the open; cells that are kept
    """The answers when only the largest weights are kept, against as many cells drawn at random: the kept
    weights in any cells, or other open cells with their own."""
    flat = found.weights.reshape(len(found.weights), -1)
    rng = np.random.default_rng(seed)

    def alone(order: np.ndarray) -> np.ndarray:
        rank = np.argsort(np.argsort(-order, axis=1, kind="stable"), axis=1)
        return np.where(rank < count, flat, 0)

    def accuracy(weights: np.ndarray) -> float:
        answers = with_weights(model, clips, weights.reshape(found.weights.shape), found.blocks, batch_size)
        return float((answers.argmax(1) == found.labels).mean())

    kept = alone(flat)
    at_random = [accuracy(rng.permuted(kept, axis=1)) for _ in range(draws)]
    of_the_open = [accuracy(alone(np.where(flat > 0, rng.random(flat.shape), -1))) for _ in range(draws)]
    return {
        "whole": float((found.logits.argmax(1) == found.labels).mean()),
        "selected": accuracy(kept),
        "random": float(np.mean(at_random)),
        "random of the open": float(np.mean(of_the_open)),
        "cells": float((kept > 0).sum(1).mean()),
    }


def with_weights(
    model: nn.Module,  # network with SDA blocks
    clips: Clips,  # N, see `Clips`
    weights: np.ndarray,  # [N, R, M]
    blocks: list[str],  # R names
    batch_size: int = 50,  # clips at a time
    share: bool = True,  # every block keeps the sum of its own weights
) -> np.ndarray:  # logits [N, K]
    """The answers under given weights, clip by clip."""
    seen = dict.fromkeys(blocks, 0)

    def change(block: str, own: Tensor) -> Tensor:
        if len(own) == 1 and seen[block] == 0 and torch.equal(own, torch.full_like(own, 1 / own.shape[1])):
            return own  # asked whether it fits
        r = blocks.index(block)
        rows = torch.from_numpy(np.array(weights[seen[block] : seen[block] + len(own), r])).to(own)
        seen[block] += len(own)
        if not share:
            return rows
        total = rows.sum(1, keepdim=True)
        return torch.where(total > 0, rows * own.sum(1, keepdim=True) / total.clamp(min=1e-12), rows)

    return logits_of(model, clips, _cells(change, "given weights"), batch_size=batch_size)


def stability(
    model: nn.Module,  # network with SDA blocks
    clips: Tensor,  # [N, T, 3, H, W]
    shift: int = 2,  # pixels to the right
    batch_size: int = 50,  # clips at a time
) -> dict[str, dict[str, float]]:  # same clip, another clip -> mean, low, high, n
    """Rank correlation of a clip's weights, less the mean of all clips, with those of the clip moved aside;
    and with those of the next clip, moved aside."""
    first, moved = (
        trace_clips(model, x, batch_size).weights.reshape(len(clips), -1)
        for x in (clips, clips.roll(shift, -1))
    )
    first, moved = first - first.mean(0), moved - moved.mean(0)
    every = np.ones(first.shape, bool)
    return {
        "the same clip": _interval(rank_within(first, moved, every)),
        "another clip": _interval(rank_within(first, np.roll(moved, 1, axis=0), every)),
    }
