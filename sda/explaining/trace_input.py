"""What is traced: a tensor, a dataset or paths become one list of items, answered a few at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.clips import ClipReader
from ..data.datasets import ClipDataset
from ..foundation.devices import to_model
from ..foundation.errors import DataError, RunError, SettingError


def _tensoritems_of(
    clips: Tensor, videos: Sequence[str] | None, labels: Sequence[int] | None
) -> list[dict[str, Any]]:
    """Clips of a tensor as dicts with clip, id and label (or None)."""
    if clips.ndim not in (5, 6) or clips.shape[-3] != 3:
        raise SettingError(
            f"clips must be [N, T, 3, H, W] or [N, views, T, 3, H, W], got {list(clips.shape)}",
            remedy="a single clip is clip[None]",
        )
    ids = [f"clip-{i}" for i in range(len(clips))] if videos is None else [str(video) for video in videos]
    known = [None] * len(clips) if labels is None else [int(label) for label in labels]
    if not len(clips) == len(ids) == len(known):
        text = f"{len(ids)} videos and {len(known)} labels for {len(clips)} clips"
        raise SettingError(text, subject="videos" if len(ids) != len(clips) else "labels")
    return [{"clip": c, "id": v, "label": k} for c, v, k in zip(clips, ids, known, strict=True)]


class _Files:
    """Video files as the model's card wants them, without labels."""

    def __init__(self, model: nn.Module, paths: Sequence[str | Path]):
        self.reader = ClipReader.from_card(getattr(model, "card", None))
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"clip": self.reader(self.paths[index]).clip, "id": self.paths[index], "label": None}


Items = ClipDataset | _Files | Sequence[dict[str, Any]]  # dict(clip, id, label or None) one by one


def items_of(
    model: nn.Module,  # its card says how files are read
    clips: Any,  # a tensor, a dataset, or paths
    videos: Sequence[str] | None,  # ids of a tensor's clips
    labels: Sequence[int] | None,  # true classes of a tensor's clips
) -> Items:  # dict(clip, id, label or None) one by one
    """Anything traceable as items."""
    if isinstance(clips, (str, Path)):
        text = f"{clips} is a single path"
        raise SettingError(text, subject=str(clips), remedy=f"give a list of paths, e.g. [{str(clips)!r}]")
    if not len(clips):
        raise SettingError("there are no clips to trace")
    if isinstance(clips, Tensor):
        return _tensoritems_of(clips, videos, labels)
    if videos is not None or labels is not None:
        raise SettingError("videos= and labels= go with a tensor of clips only")
    if isinstance(clips, Sequence) and isinstance(clips[0], (str, Path)):
        return _Files(model, clips)
    if getattr(clips, "train", False):
        raise SettingError("training clips are random", remedy="open the dataset with train=False")
    return clips


One = tuple[Tensor, str, int, int | None]  # clip [T,3,H,W], id, view, label


def batches(
    items: Items,  # see `items_of`
    size: int,  # most clips of a batch
    progress: bool,  # show a bar
) -> Iterator[list[One]]:
    """Views of clips, a few at a time; those of one list have one shape."""
    batch: list[One] = []
    for i in tqdm(range(len(items)), desc="trace", unit="clip", disable=not progress):
        item = items[i]  # decodes the clip: once
        clip = item["clip"]
        for view, one in enumerate(clip if clip.ndim == 5 else [clip]):
            if batch and (len(batch) >= size or batch[0][0].shape != one.shape):
                yield batch
                batch = []
            batch.append((one, item["id"], view, item["label"]))
    if batch:
        yield batch


def answers_to(
    model: nn.Module,  # in evaluation mode
    batch: list[One],  # of `batches`
) -> Tensor:  # logits [b,K], float32 on the CPU
    """Logits [b,K] of a batch; a clip whose logits are not finite is named."""
    logits = model(to_model(torch.stack([clip for clip, *_ in batch]), model)).float().cpu()
    for (_, video, *_), row in zip(batch, logits, strict=True):
        if not row.isfinite().all():
            raise RunError(
                f"the logits of {video} are not finite",
                subject=video,
                remedy="check its frames and the model's file",
            )
    return logits


def put_back(
    items: Items,  # that were traced
    logits: Tensor,  # [N,K]
) -> Tensor:  # [N,K]
    """Scores of mirrored views, put back to the classes of the video as it was."""
    reader = getattr(items, "reader", None)
    if not isinstance(reader, ClipReader):
        return logits
    return reader.put_back(logits.unflatten(0, (-1, len(reader.mirrored)))).flatten(0, 1)


def known_labels(
    labels: Sequence[int | None],  # of every row
    classes: int,  # K
) -> list[int] | None:
    """Labels that fit the model, or None where one is not known."""
    known = [int(label) for label in labels if label is not None]
    if len(known) < len(labels):
        return None
    if not 0 <= min(known) <= max(known) < classes:
        text = f"labels reach from {min(known)} to {max(known)}, the model has {classes} classes"
        raise DataError(text, subject="labels")
    return known
