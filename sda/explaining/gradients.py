"""What one backward pass says of every dependency at every block: its slope, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.devices import evaluating, to_numpy
from ..networks.blocks import DEPENDENCIES
from .answers import Clips, describe_clips, logits_of, partner_index, view_logits
from .attribution import Attribution, explained
from .interventions import drop
from .tracer import block_rows, select_blocks

__all__: list[str] = []


@contextmanager
def _weights_held(model: nn.Module, cut: bool) -> Iterator[dict[str, Tensor]]:
    """Inside, a pass leaves the weights of every block here; `cut`: each begins a graph of its own."""
    held: dict[str, Tensor] = {}

    def hold(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, weights: Tensor) -> Tensor:
            own = cut or not weights.requires_grad  # nothing before asks for gradients
            held[name] = weights.detach().requires_grad_() if own else weights
            return held[name]

        return hook

    handles = [
        block.hook_weights.register_forward_hook(hold(name)) for name, block in select_blocks(model).items()
    ]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


def _weight_gradients(
    model: nn.Module, clips: Clips, batch_size: int, cut: bool, score: Callable[[Tensor, int], Tensor]
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Of every batch and block, weights and gradients [B,views,parts,M] of a score of logits [B,K]."""
    done = 0
    with evaluating(model, gradients=True), _weights_held(model, cut) as held:
        for answers in view_logits(model, clips, batch_size):
            total = score(answers.mean(1), done).sum()  # clips do not meet
            grads = torch.autograd.grad(total, list(held.values()))
            apart = (*answers.shape[:2], -1)
            done += len(answers)
            yield {
                name: (weights.detach().unflatten(0, apart), grad.unflatten(0, apart))
                for (name, weights), grad in zip(held.items(), grads, strict=True)
            }


def _in_columns(values: Tensor, names: Sequence[str]) -> Tensor:
    """Values [...,M] of a block's own dependencies in the fixed four columns, NaN for what it lacks."""
    full = values.new_full((*values.shape[:-1], len(DEPENDENCIES)), torch.nan)
    full[..., [DEPENDENCIES.index(name) for name in names]] = values
    return full


def gradient_times_weight(
    model: nn.Module,
    clips: Clips,
    labels: Sequence[int] | None,
    class_names: Sequence[str] | None,
    batch_size: int,
) -> Attribution:
    """Weight times the gradient of the class's log-probability with respect to it, at every block."""
    logits = logits_of(model, clips, batch_size=batch_size)
    about = describe_clips(model, clips, logits, labels, class_names)
    blocks = select_blocks(model)

    def log_p(answers: Tensor, start: int) -> Tensor:
        true = about.labels[start : start + len(answers)].tolist()
        return answers.log_softmax(1)[range(len(answers)), true]

    found = []
    for batch in _weight_gradients(model, clips, batch_size, True, log_p):
        parts = [_in_columns((w * g).sum(1), blocks[name].dependencies) for name, (w, g) in batch.items()]
        found.append(torch.cat(parts, 1).cpu())
    places = [
        row
        for (name, block), part in zip(blocks.items(), parts, strict=True)
        for row in block_rows(name, block.split, part.shape[1])
    ]
    values = to_numpy(torch.cat(found))
    return explained("gradient x weight", values, places, "log-probability", about, logits)


def _odds(logits: Tensor, labels: Tensor, other: Tensor | None, smooth: bool) -> Tensor:
    """Logit of the class less that of another one, the best other, or (`smooth`) of all others together."""
    true = logits.gather(1, labels[:, None])[:, 0]
    if other is not None:
        return true - logits.gather(1, other.clamp_min(0)[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return true - (others.logsumexp(1) if smooth else others.amax(1))


def _fall(weights: Tensor, grads: Tensor, names: Sequence[str]) -> Tensor:
    """First-order fall [B,M] of a score when each dependency is left out; NaN where it is the only one."""
    falls = weights.new_full((len(weights), len(names)), torch.nan)
    for i, name in enumerate(names if len(names) > 1 else ()):
        new = drop(name).change("a block", tuple(names), weights.flatten(0, -2)).view_as(weights)
        falls[:, i] = ((weights - new) * grads).sum((1, 2, 3))
    return falls


def first_order(
    model: nn.Module,
    clips: Clips,
    labels: Sequence[int] | None,
    reading: str,
    at: Sequence[str] | None,
    pairs: Sequence[tuple[str, str]],
    class_names: Sequence[str] | None,
    batch_size: int,
) -> Attribution:
    """What `ablation_map` would say, estimated for all cells from one backward pass."""
    logits = logits_of(model, clips, batch_size=batch_size)
    about = describe_clips(model, clips, logits, labels, class_names)
    partner = partner_index(about.class_names, pairs)
    pair = reading.startswith("pair")
    smooth = reading == "probability"

    def score(answers: Tensor, start: int) -> Tensor:
        true = about.labels[start : start + len(answers)]
        chosen, other = (torch.from_numpy(k).to(answers.device) for k in (true, partner[true]))
        return _odds(answers, chosen, other if pair else None, smooth)

    blocks = select_blocks(model)
    falls = []
    for batch in _weight_gradients(model, clips, batch_size, False, score):
        names = {name: blocks[name].dependencies for name in batch}
        parts = [_in_columns(_fall(w, g, names[name]), names[name]) for name, (w, g) in batch.items()]
        falls.append(torch.stack(parts, 1).cpu())
    fall = to_numpy(torch.cat(falls)).astype(np.float64)  # [N,blocks,4]
    places = list(blocks) if at is None else list(at)
    rows = [[list(blocks).index(name) for name in select_blocks(model, place)] for place in places]
    fall = np.stack([fall[:, some].sum(1) for some in rows], 1)
    before = to_numpy(score(torch.from_numpy(logits), 0)).astype(np.float64)[:, None, None]
    values = _as_reading(before, reading) - _as_reading(before - fall, reading)
    if pair:
        values[partner[about.labels] < 0] = np.nan
    return explained("first-order", values, places, reading, about, logits)


def _as_reading(odds: np.ndarray, reading: str) -> np.ndarray:
    """A probability or a first place from odds; a margin is the odds itself."""
    if reading.endswith("probability"):
        return 1 / (1 + np.exp(-odds))
    return np.where(np.isnan(odds), np.nan, odds > 0) if reading.endswith("top-1") else odds
