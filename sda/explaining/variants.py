"""The answers of a network to many changes of it, for the price of what differs between them.

A change of the selection at a block leaves everything before that block as it was. So the clips go through
the network once, block by block; at each block the features that stand there are copied, once for every
change that begins at it, and go on together, each copy under its own change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..foundation.devices import alone_with, bare, evaluating, to_model, to_numpy
from ..foundation.errors import RunError
from ..networks.backbones import Stage, VideoNet, sda_blocks
from .answers import Clips, clip_batches
from .interventions import InputChange, Intervention, SelectionChange, changed
from .tracer import select_blocks

__all__ = ["stream_logits", "logits_under"]

MEMORY = 2**26  # bytes of features that enter a block together; a pass holds about four times as much

_STEM = 8  # times as much memory as clips take is what a stem makes of them
_logger = logging.getLogger(__name__)

Variant = Intervention | Sequence[Intervention]  # what is done together; () is the network as it is


def blocks_in_order(
    model: nn.Module,  # any network
) -> dict[str, nn.Module]:  # "layer1.0" -> residual block; empty where a pass cannot begin between blocks
    """The blocks that features pass one after the other, with nothing around them."""
    if not isinstance(model, VideoNet) or type(model).forward is not VideoNet.forward:
        return {}
    stages = {name: model.get_submodule(name) for name in model.stages}
    around = [model, *stages.values()]
    if any(m._forward_hooks or m._forward_pre_hooks for m in around):
        return {}  # somebody watches or changes what a pass that begins later would not show
    if not all(type(stage) is Stage for stage in stages.values()):
        return {}
    blocks = {f"{s}.{i}": block for s, stage in stages.items() for i, block in enumerate(stage.children())}
    return blocks if set(sda_blocks(model)) <= set(blocks) else {}


@dataclass(frozen=True, eq=False)
class _Asked:
    """One variant: what it changes, and where that begins."""

    index: int  # in the list that was given
    inputs: list[InputChange]
    selection: list[tuple[SelectionChange, set[str]]]  # with the blocks it is made at
    others: list[Intervention]  # of kinds that nothing is known about

    def clips(self, clips: Tensor) -> Tensor:
        """The clips as this variant shows them."""
        for one in self.inputs:
            clips = one(clips)
        return clips

    def first(self, blocks: Sequence[str]) -> int:
        """Number of blocks that it leaves as they are; -1 where it begins at the clips."""
        if self.inputs or self.others or not blocks:
            return -1
        places = set().union(*(where for _, where in self.selection))
        return next((i for i, name in enumerate(blocks) if name in places), len(blocks))


def _asked(net: nn.Module, variants: Sequence[Variant]) -> list[_Asked]:
    """Variants taken apart; one that does not fit the network is refused before anything is computed."""
    found = []
    for index, variant in enumerate(variants):
        changes = [variant] if isinstance(variant, Intervention) else list(variant)
        with changed(net, *changes):
            pass  # complains
        inputs = [one for one in changes if isinstance(one, InputChange)]
        inside = [one for one in changes if isinstance(one, SelectionChange)]
        others = [one for one in changes if not isinstance(one, InputChange | SelectionChange)]
        places = [(one, set(select_blocks(net, one.where))) for one in inside]
        found.append(_Asked(index, inputs, places, others))
    return found


@contextmanager
def _each_its_own(net: nn.Module, variants: Sequence[_Asked]) -> Iterator[None]:
    """Inside, the first part of a batch answers under the first variant, and so on."""
    handles = []

    def hook(name: str, names: tuple[str, ...]) -> Callable:
        def change(module: nn.Module, args: tuple, weights: Tensor) -> Tensor:
            rows = list(weights.unflatten(0, (len(variants), -1)))
            for i, asked in enumerate(variants):
                for one, places in asked.selection:
                    if name in places:
                        rows[i] = one.change(name, names, rows[i])
            return torch.cat(rows)

        return change

    try:
        for name, block in sda_blocks(net).items():
            if any(name in places for asked in variants for _, places in asked.selection):
                points = block.hook_weights
                handles.append(points.register_forward_hook(hook(name, block.dependencies), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Walk:
    """Clips on their way through a network, block by block; others may go on from where they stand."""

    def __init__(self, net: Any, clips: Tensor, blocks: dict[str, nn.Module]):
        self.net = net
        self.clips = clips
        self.blocks = list(blocks.values())
        self.last = len(blocks) - len(net.get_submodule(net.stages[-1])) if blocks else 0
        self.at = -1  # blocks that were passed
        self.x = clips
        self.below = clips

    def go(self, to: int) -> None:
        """Pass blocks until `to` of them lie behind."""
        with alone_with(self.net), evaluating(self.net):
            if self.at < 0:
                self.x = self.net.stem(self.clips)
                self.at = 0
            self.x, self.below = self._through(self.x, self.below, to)
        self.at = to

    def _through(self, x: Tensor, below: Tensor, to: int) -> tuple[Tensor, Tensor]:
        """Features led through the blocks that come next, and what entered the last stage."""
        for i in range(self.at, to):
            below = x if i == self.last else below
            x = self.blocks[i](x, self.clips.shape[1])
        return x, below

    def answers(self, variants: Sequence[_Asked]) -> Tensor:
        """Logits [variants, clips, K] from here on, each copy under its own variant."""
        count = len(variants)
        with alone_with(self.net), evaluating(self.net), changed(self.net, *variants[0].others):
            with _each_its_own(self.net, variants):
                if self.at < 0:
                    logits = self.net(torch.cat([asked.clips(self.clips) for asked in variants]))
                else:
                    below = _copies(self.below, count) if self.at > self.last else self.x
                    x, below = self._through(_copies(self.x, count), below, len(self.blocks))
                    logits = self.net.head(x, self.clips.shape[1], below)
            return logits.float().unflatten(0, (count, -1))


def _copies(x: Tensor, count: int) -> Tensor:
    """Clips behind one another `count` times, in the memory layout they have."""
    return x if count == 1 else torch.cat([x] * count)


def _batches(walk: _Walk, variants: list[_Asked], memory: int) -> Iterator[list[_Asked]]:
    """Variants that travel together from where a walk stands."""
    most = max(1, memory // (walk.x.nbytes * (_STEM if walk.at < 0 else 1)))
    yield from ([asked] for asked in variants if asked.others)
    rest = [asked for asked in variants if not asked.others]
    yield from (rest[i : i + most] for i in range(0, len(rest), most))


def stream_logits(
    model: nn.Module,  # any network; with SDA blocks for changes of the selection
    clips: Tensor,  # [N,T,3,H,W]
    variants: Sequence[Variant],  # what is done, each by itself; several interventions may make up one
    memory: int = MEMORY,  # bytes of features that enter a block together
) -> Iterator[tuple[int, np.ndarray]]:  # number of a variant and its logits [N,K], as they become known
    """The answers under many changes; those that begin late in the network cost little.

    Variants come in the order of where they begin: changes of the clips, then block by block. Between two
    of them the network is free, and has no hooks; closing the iterator ends the work.
    """
    net = bare(model)
    asked = _asked(net, variants)
    blocks = blocks_in_order(net)
    if not blocks and any(one.selection for one in asked):
        name = getattr(net, "name", "") or type(net).__name__
        _logger.info("%s cannot be entered between its blocks: every change takes a whole pass", name)
    walk = _Walk(net, to_model(clips, net), blocks)
    starts = [one.first(list(blocks)) for one in asked]
    for start in sorted(set(starts)):
        here = [one for one, its in zip(asked, starts, strict=True) if its == start]
        if start >= 0:
            walk.go(start)
        for batch in _batches(walk, here, memory):
            for one, logits in zip(batch, to_numpy(walk.answers(batch)), strict=True):
                yield one.index, logits


def logits_under(
    model: nn.Module,  # any network; with SDA blocks for changes of the selection
    clips: Clips,  # see `Clips`
    variants: Sequence[Variant],  # what is done, each by itself; () for the network as it is
    batch_size: int = 50,  # clips at a time; fewer where they are large
    memory: int = MEMORY,  # bytes of features that enter a block together
    progress: str = "",  # title of a bar over answers; none if empty
) -> np.ndarray:  # logits [D,N,K], views averaged
    """The answers to clips under many changes; the clips are read once."""
    found = []
    with tqdm(total=len(clips) * len(variants), desc=progress, disable=not progress) as bar:
        for flat, join in clip_batches(clips, batch_size):
            most = max(1, memory // (_STEM * flat[0].nbytes))
            answers: list[list[np.ndarray]] = [[] for _ in variants]
            for some in flat.split(most):
                for index, logits in stream_logits(model, some, variants, memory):
                    answers[index].append(logits)
            joined = [join(torch.from_numpy(np.concatenate(parts))).mean(1) for parts in answers]
            found.append(to_numpy(torch.stack(joined)))
            bar.update(found[-1].shape[1] * len(variants))
    logits = np.concatenate(found, 1)
    if not np.isfinite(logits).all():
        raise RunError("the model's logits are not finite", remedy="check its file and the clips")
    return logits
