"""The answers of a network to clips, perhaps changed, and what can be read from them about one class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..data.datasets import ClipDataset, clip_loader
from ..foundation.devices import evaluating, to_model, to_numpy
from ..foundation.errors import RunError, SettingError, unknown_name
from ..foundation.statistics import softmax
from ..networks.named import output_names
from .interventions import Intervention, changed

__all__ = ["READINGS", "Clips", "partner_index", "readings", "load_clips", "logits_of"]

READINGS = ("probability", "margin", "top-1", "pair probability", "pair margin", "pair top-1")

Clips = Tensor | ClipDataset  # [N,T,3,H,W], [N,V,T,3,H,W] with views, or items dict(clip, label, id)


def check_reading(
    name: str,  # one of READINGS
) -> None:
    """Refuse a reading that does not exist."""
    if name not in READINGS:
        raise unknown_name("reading", name, READINGS)


def partner_index(
    class_names: Sequence[str],  # K names
    pairs: Sequence[tuple[str, str]] = (),  # of classes
) -> np.ndarray:  # int [K]: index of the partner, -1 where there is none
    """The partner of every class: the other class of its pair."""
    partner = np.full(len(class_names), -1)
    for pair in pairs:
        for name in pair:
            if name not in class_names:
                raise unknown_name("class of a pair", name, class_names, most=3)
        a, b = (list(class_names).index(name) for name in pair)
        partner[a] = b
        partner[b] = a
    return partner


def readings(
    logits: np.ndarray,  # [...,N,K]
    labels: Sequence[int] | np.ndarray,  # true class of every clip
    partner: np.ndarray | None = None,  # from `partner_index`
) -> dict[str, np.ndarray]:  # reading -> [...,N]; NaN in the pair readings of a class without a partner
    """What the logits say about the true class."""
    labels = np.asarray(labels)
    clips = np.arange(len(labels))
    logits = np.asarray(logits, np.float64)
    true = logits[..., clips, labels]
    others = logits.copy()
    others[..., clips, labels] = -np.inf
    margin = true - others.max(-1)
    partner = np.full(logits.shape[-1], -1) if partner is None else partner
    pair = np.where(partner[labels] >= 0, true - logits[..., clips, partner[labels]], np.nan)
    return {
        "probability": softmax(logits)[..., clips, labels],
        "margin": margin,
        "top-1": (margin > 0).astype(float),
        "pair probability": 1 / (1 + np.exp(-pair)),
        "pair margin": pair,
        "pair top-1": np.where(np.isnan(pair), np.nan, pair > 0),
    }


def load_clips(
    dataset: ClipDataset,  # items dict(clip, label, id)
    indices: Sequence[int] | None = None,  # which clips; all if left out
) -> tuple[Tensor, list[int], list[str]]:  # clips [N,T,3,H,W], labels, ids
    """Clips of a data set in memory; 8 frames of 64x64 pixels take 0.4 MB a clip."""
    items = [dataset[i] for i in (range(len(dataset)) if indices is None else indices)]
    if not items:
        raise SettingError("there are no clips to load")
    return (
        torch.stack([item["clip"] for item in items]),
        [int(item["label"]) for item in items],
        [item["id"] for item in items],
    )


def clip_batches(
    clips: Clips,  # see `Clips`
    batch_size: int,  # clips at a time
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Views of some clips [B*V,T,3,H,W], and what makes [B,V,K] of their logits: mirrored ones put back."""
    if not len(clips):
        raise SettingError("there are no clips: the selection or filter is empty", subject="clips")
    reader = None if isinstance(clips, Tensor) else getattr(clips, "reader", None)
    if isinstance(clips, Tensor):
        batches: Iterator[Tensor] = iter(clips.split(batch_size))
    else:
        batches = (batch["clip"] for batch in clip_loader(clips, batch_size).epoch(0))
    for batch in batches:
        views = batch.shape[1] if batch.ndim == 6 else 1
        flat = batch.flatten(0, 1) if batch.ndim == 6 else batch
        yield flat, partial(_joined, views=views, reader=reader)


def _joined(logits: Tensor, views: int, reader: Any) -> Tensor:
    """Logits [B*V,K] as [B,V,K], those of mirrored views put back to the classes of the video as it was."""
    logits = logits.float().unflatten(0, (-1, views))
    return logits if reader is None else reader.put_back(logits)


def view_logits(
    model: nn.Module,  # network on any device, in the mode it should have
    clips: Clips,  # see `Clips`
    batch_size: int,  # clips at a time
) -> Iterator[Tensor]:  # [B,V,K] of every batch, on the device
    """The answers to clips, view by view and batch by batch, so that memory stays bounded."""
    for flat, join in clip_batches(clips, batch_size):
        yield join(model(to_model(flat, model)))


def logits_of(
    model: nn.Module,  # network on any device
    clips: Clips,  # see `Clips`
    *interventions: Intervention,  # made in this order
    batch_size: int = 50,  # clips at a time
) -> np.ndarray:  # [N,K]
    """The answers to clips, perhaps under interventions; several views of a clip are averaged."""
    with evaluating(model), changed(model, *interventions):
        logits = to_numpy(torch.cat(list(view_logits(model, clips, batch_size))).mean(1))
    if not np.isfinite(logits).all():
        raise RunError("the model's logits are not finite", remedy="check its file and the clips")
    return logits


class ReadClips(NamedTuple):
    """What the clips are, and which class is read."""

    labels: np.ndarray  # int [N]
    ids: list[str]  # N
    class_names: list[str]  # K


def describe_clips(
    model: nn.Module,  # its card knows class names
    clips: Clips,  # a data set knows everything
    logits: np.ndarray,  # [N,K]; without labels the answer itself is read
    labels: Sequence[int] | None,  # N classes
    class_names: Sequence[str] | None = None,  # K names
    ids: Sequence[str] | None = None,  # N ids
) -> ReadClips:
    """Labels, ids and class names of clips, from what is given, the data set or the model's card."""
    N, K = logits.shape
    records = getattr(clips, "records", None)
    if labels is None:
        labels = [r.label for r in records] if records else logits.argmax(1).tolist()
    if ids is None:
        ids = [r.id for r in records] if records else [f"clip-{i}" for i in range(N)]
    of_card = getattr(getattr(model, "card", None), "class_names", None)
    names = output_names(class_names or getattr(clips, "class_names", None) or of_card, K)
    if not len(labels) == len(ids) == N:
        raise SettingError(f"{len(labels)} labels and {len(ids)} ids for {N} clips")
    if len(names) != K:
        raise SettingError(f"{len(names)} class names for a model with {K} classes", subject="class_names")
    if not 0 <= min(labels) <= max(labels) < K:
        text = f"labels reach from {min(labels)} to {max(labels)}, the model has {K} classes"
        raise SettingError(text, subject="labels")
    return ReadClips(np.asarray(labels), [str(i) for i in ids], names)
