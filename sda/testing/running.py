"""What surrounds a pass over clips: errors name the clip, views come in bounded batches, scores are kept."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset

from ..data.cache import cache_key
from ..foundation.devices import to_model
from ..foundation.errors import RunError
from ..foundation.files import fingerprint, write_atomic
from ..foundation.reading import read_arrays

_COLUMNS = ("places", "ids", "logits", "labels")
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def naming(
    clip: str,  # its id or path
    problems: dict[str, str] | None = None,  # gets the error; None: it is raised
) -> Iterator[None]:
    """Errors inside name this clip, if they do not already; they are collected if there is somewhere to."""
    try:
        yield
    except Exception as err:
        known = clip in str(err)
        said = str(err) if known else f"Clip {clip!r}: {err}"
        if problems is not None:
            problems[clip] = said
        elif known:
            raise
        else:
            raise RunError(said, subject=clip) from err


class NamedClips(Dataset):
    """Chosen clips of a data set, whose errors name the clip."""

    def __init__(
        self,
        dataset: Any,  # with `records`, where clips have names
        chosen: list[int],  # positions in it
    ):
        self.dataset = dataset
        self.chosen = chosen
        self.records = getattr(dataset, "records", None)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> dict[str, Any]:
        number = self.chosen[i]
        with naming(str(self.records[number].id) if self.records else f"number {number}"):
            return self.dataset[number]


def view_logits(
    model: nn.Module,  # network in evaluation mode
    clips: torch.Tensor,  # [B,T,3,H,W] or [B,V,T,3,H,W]
    most: int = 32,  # views at a time: ten views need no more memory than one
) -> torch.Tensor:  # float32 [B,V,K]
    """Logits of every view of some clips, computed on the model's device."""
    views = clips[:, None] if clips.ndim == 5 else clips
    logits = [model(to_model(some, model)).float().cpu() for some in views.flatten(0, 1).split(most)]
    return torch.cat(logits).unflatten(0, views.shape[:2])


def check_classes(
    model: nn.Module,  # with `.card`, or of unknown classes
    names: list[str],  # of the clips
) -> None:
    """Refuse clips whose class names are not those of the model's card."""
    known = list(getattr(getattr(model, "card", None), "class_names", []))
    if known and known != names:
        raise RunError(
            f"The model knows {len(known)} classes ({known[0]!r}, ...), the clips have {len(names)} "
            f"({names[0]!r}, ...) or another order: use the category.txt the model was trained with.",
            choices=known,
            remedy="use the category.txt the model was trained with",
        )


def process() -> tuple[int, int]:
    """Number of this process, and how many there are (0 of 1 when run alone)."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def key_of_test(
    model: nn.Module,  # network
    dataset: Any,  # clips, and how they are seen
) -> str:
    """A short name for these weights on these clips, seen through these views."""
    clips = cache_key(dataset.records, dataset.reader.options) if hasattr(dataset, "reader") else len(dataset)
    view = getattr(dataset, "transform_config", None) or getattr(dataset, "transform", None)
    known = [repr(getattr(dataset, name, None)) for name in ("class_names", "sampling")]
    return fingerprint(model, repr((clips, repr(view), known)))


class Parts:
    """Scores by position in the dataset: in memory, and in a folder if there is one."""

    def __init__(
        self,
        folder: Path | None,  # of these weights, clips and views; None: memory alone
        rank: int,  # number of this process
    ):
        self.folder = folder
        self.rank = rank
        self.rows: dict[int, tuple[str, np.ndarray, int]] = {}
        for path in sorted(folder.glob("[0-9]*.npz")) if folder else []:
            try:
                file = read_arrays(path)
                self._take(*(file[name] for name in _COLUMNS))
            except (OSError, ValueError, KeyError) as err:
                _log.warning("%s is damaged, its clips are tested again (%s)", path, err)

    def _take(self, places: Any, ids: Any, logits: np.ndarray, labels: np.ndarray) -> None:
        for place, name, scores, label in zip(places, ids, logits, labels, strict=True):
            self.rows[int(place)] = (str(name), scores, int(label))

    def add(self, places: list[int], ids: list[str], logits: np.ndarray, labels: np.ndarray) -> None:
        """Take in a batch, and write it."""
        self._take(places, ids, logits, labels)
        if self.folder is not None:
            arrays: dict[str, Any] = dict(
                zip(_COLUMNS, (places, np.array(ids, str), logits, labels), strict=True)
            )
            path = self.folder / f"{places[0]:08d}-{self.rank}.npz"
            write_atomic(path, lambda file: np.savez(file, **arrays))

    def gather(self, world: int) -> dict[int, tuple[str, np.ndarray, int]]:
        """The rows of all processes."""
        if world == 1:
            return self.rows
        everyone: list[Any] = [None] * world
        dist.all_gather_object(everyone, self.rows)
        return {place: row for rows in everyone for place, row in rows.items()}
