"""Which SDA blocks, and hooks that read what they do while clips run through a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.devices import to_numpy
from ..foundation.errors import DataError, RunError, SettingError, unknown_name
from ..networks.backbones import list_models, sda_blocks, stage_of
from ..networks.blocks import DEPENDENCIES, SDA, resize

__all__ = ["Where", "select_blocks", "Tracer"]

Where = str | Sequence[str]  # "all", a stage ("layer3"), a block ("layer3.0"), or several of these


def block_rows(
    name: str,  # of a block
    split: int | None,  # frames that share a selection, where a clip makes several
    parts: int,  # how many it makes
) -> list[str]:  # "layer1.0", or "layer1.0[0:8]" and "layer1.0[8:16]"
    """Names of the rows of one block in a trace."""
    if parts == 1 or split is None:
        return [name]
    return [f"{name}[{p * split}:{(p + 1) * split}]" for p in range(parts)]


def select_blocks(
    model: nn.Module,  # network with SDA blocks
    where: Where = "all",  # see `Where`
) -> dict[str, SDA]:  # block name -> block, in order of depth
    """The SDA blocks of a model, or some of them; UnknownNameError names the nearest block or stage."""
    blocks = sda_blocks(model)
    if not blocks:
        name = getattr(model, "name", type(model).__name__)
        known = list_models("sda_*")
        raise SettingError(
            f"{name} has no SDA blocks, so there is no selection; models that have them: {', '.join(known)}",
            subject=name,
            choices=known,
        )
    wanted = [where] if isinstance(where, str) else list(where)
    if not wanted:
        raise SettingError("no place is given: name at least one block or stage, or 'all'", choices=blocks)
    choices = ["all", *dict.fromkeys(map(stage_of, blocks)), *blocks]
    for name in wanted:
        if name not in choices:
            raise unknown_name("block or stage", name, choices)
    return {name: block for name, block in blocks.items() if {"all", name, stage_of(name)} & set(wanted)}


def full_norm(
    response: Tensor,  # as computed [B, r, 1 or T, 1 or h, 1 or w]
    size: tuple[int, int, int],  # T, H, W
) -> Tensor:  # [B]
    """Norm of a response as it counts in the sum: spread over time, resized in space."""
    T, H, W = size
    y = response.float()
    if y.shape[-2:] not in ((1, 1), (H, W)):
        y = resize(y, (H, W))
    repeats = (T // y.shape[2]) * (H // y.shape[3]) * (W // y.shape[4])
    return torch.linalg.vector_norm(y.flatten(1), dim=1) * repeats**0.5


class Tracer:
    """Records what the SDA blocks of a model do with every clip that runs through it inside `with`."""

    def __init__(
        self,
        model: nn.Module,  # network with SDA blocks; SettingError for one without
        responses: bool = False,  # also keep responses and gate maps (for a few clips, not for datasets)
    ):
        self.model = model
        self.listeners = {name: _Listener(block, responses) for name, block in select_blocks(model).items()}
        self.handles: list = []

    def __enter__(self) -> Tracer:
        if self.handles:
            raise RunError("this tracer is open already", remedy="make a second Tracer(model)")
        for listener in self.listeners.values():
            self.handles += listener.hooks()
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []
        for listener in self.listeners.values():
            listener.seen = {}

    def take(self) -> dict[str, dict[str, np.ndarray]]:  # block -> name -> array [clips, parts, ...]
        """What was recorded since the last call, and forget it."""
        taken = {name: _joined(name, listener.batches) for name, listener in self.listeners.items()}
        for listener in self.listeners.values():
            listener.batches = []
        if len({len(rows["weights"]) for rows in taken.values()}) > 1:
            raise RunError("a forward pass broke off between two blocks", remedy="trace these clips again")
        return taken


class _Listener:
    """Hooks on the four hook points of one SDA block; arrays for every forward pass."""

    def __init__(self, block: SDA, responses: bool):
        self.block = block
        self.responses = responses
        self.seen: dict[str, Any] = {}
        self.batches: list[dict[str, np.ndarray]] = []

    def hooks(self) -> list:
        """Register everything; the handles to remove."""
        names = ("responses", "keys", "weights", "gate")
        points = {name: getattr(self.block, f"hook_{name}") for name in names}
        return [
            self.block.register_forward_pre_hook(self._begin, with_kwargs=True),
            *(point.register_forward_hook(self._keep(name)) for name, point in points.items()),
            self.block.register_forward_hook(self._end),
        ]

    def _begin(self, block: SDA, args: tuple, kwargs: dict) -> None:
        T = (args[1] if len(args) > 1 else kwargs.get("num_frames")) or block.num_frames
        self.seen = {"clips": len(args[0]) // T, "size": (block.split or T, *args[0].shape[-2:])}

    def _keep(self, name: str) -> Callable:
        def hook(point: nn.Module, args: tuple, output: Any) -> None:
            self.seen[name] = output

        return hook

    @torch.no_grad()
    def _end(self, block: SDA, args: tuple, output: Tensor) -> None:
        self.batches.append(_rows(block, self.seen, self.responses))
        self.seen = {}  # a clip's maps are large


def _rows(block: SDA, seen: dict[str, Any], responses: bool) -> dict[str, np.ndarray]:
    """What one block did with one batch: arrays [clips, parts, ...], parts > 1 under `split`."""
    n = len(seen["weights"])
    gate = seen["gate"].float()
    each = gate.reshape(n, -1)
    norms = torch.stack([full_norm(y, seen["size"]) for y in seen["responses"].values()], 1)
    flat = {
        "weights": _columns(seen["weights"], block.dependencies),
        "scores": _columns(_scores(block.attention, seen["keys"]), block.dependencies),
        "response_norm": _columns(norms, block.dependencies),
        "gate_mean": to_numpy(each.mean(1)),
        "gate_std": to_numpy(each.std(1, correction=0)),
    }
    if responses:
        flat |= {f"response/{name}": _shown(y, name) for name, y in seen["responses"].items()}
        flat["response/gate"] = to_numpy(gate.mean(1).unflatten(0, (n, -1)))
    clips = seen["clips"]
    return {key: value.reshape(clips, n // clips, *value.shape[1:]) for key, value in flat.items()}


def _columns(values: Tensor, names: Sequence[str]) -> np.ndarray:
    """Values [B,M] of a block's own dependencies in the fixed four columns, NaN where one is absent."""
    table = np.full((len(values), len(DEPENDENCIES)), np.nan, np.float32)
    table[:, [DEPENDENCIES.index(name) for name in names]] = to_numpy(values)
    return table


def _scores(attention: nn.Module, keys: Tensor) -> Tensor:
    """Scores [B,M] before they become weights, which the block does not keep; NaN without a query."""
    scores = getattr(attention, "scores", None)
    return torch.full(keys.shape[:2], float("nan")) if scores is None else scores(keys)


def _shown(response: Tensor, name: str) -> np.ndarray:
    """What can be looked at: LST [B,r], LT [B,H,W], LS [B,T], S122 [B,T,h,w]."""
    y = response.float()
    if name == "LST":
        return to_numpy(y.flatten(1))
    mean = y.mean(1)  # over channels
    if name == "LT":
        return to_numpy(mean.squeeze(1))
    return to_numpy(mean.flatten(1) if name == "LS" else mean)


def _joined(block: str, batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The batches of one block as one; nothing recorded and clips of different lengths are refused."""
    if not batches:
        raise SettingError(
            f"block {block} recorded nothing: run clips inside `with Tracer(model)`", subject=block
        )
    for key in batches[0]:
        shapes = sorted({batch[key].shape[1:] for batch in batches})
        if len(shapes) > 1:
            raise DataError(
                f"clips of different sizes do not fit one trace: {key} of {block} has the "
                f"shapes {' and '.join(map(str, shapes))}",
                subject=block,
                remedy="trace them one by one",
            )
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
