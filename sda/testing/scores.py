"""Scores of videos: what makes no sense is refused, and files of them hold the same scores or none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..foundation.errors import DataError, FolderError, listed
from ..foundation.files import write_atomic
from ..foundation.reading import read_arrays

AVERAGES = ("logits", "probabilities")  # what can be averaged over the views of a video


class Scores(Protocol):
    """What is asked of `Predictions` here and in `tables`."""

    ids: list[str]
    logits: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    groups: dict[str, dict[str, str]]

    def scores(self, average: str = "logits") -> np.ndarray:
        """Scores of the classes, averaged over views."""
        ...

    def predicted(self) -> np.ndarray:
        """The best-scored class of each video."""
        ...

    def correct(self, k: int = 1, average: str = "logits") -> np.ndarray:
        """Whether the true class is among the k best."""
        ...


def check_scores(
    p: Scores,  # as they were given
) -> None:
    """Refuse shapes that do not fit, videos that occur twice, and scores or labels that mean nothing."""
    n = len(p.ids)
    k = len(p.class_names)
    if p.logits.shape != (n, p.logits.shape[1] if p.logits.ndim == 3 else 1, k) or p.labels.shape != (n,):
        shapes = f"Logits {p.logits.shape} and labels {p.labels.shape}"
        raise DataError(f"{shapes} do not fit {n} videos and {k} classes.")
    if len(set(p.ids)) != n:
        twice = next(i for i, count in Counter(p.ids).items() if count > 1)
        raise DataError(f"Video {twice!r} occurs twice: every video counts once.", subject=twice)
    for wrong, what in (
        (~np.isfinite(p.logits).all((1, 2)), "The model's scores are not finite for"),
        ((p.labels < 0) | (p.labels >= k), f"Labels outside 0 to {k - 1} for"),
    ):
        if wrong.any():
            videos = [p.ids[i] for i in np.flatnonzero(wrong)]
            raise DataError(f"{what} {listed(map(repr, videos), 5)}.", subject=videos[0])


def write_scores(
    p: Scores,  # whose
    path: str | Path,  # the ending becomes .npz
    replace: bool = False,  # over other scores that lie there; else FolderError
) -> Path:
    """Write a compressed `.npz`, whole or not at all."""
    path = Path(path).with_suffix(".npz")
    if not replace and path.exists() and not _same(p, path):
        remedy = "choose another name, or say replace=True"
        raise FolderError(f"{path} holds other scores already", subject=str(path), remedy=remedy)
    return write_atomic(path, partial(_write, p))


def _write(p: Scores, file: BinaryIO) -> None:
    """The arrays of an `.npz`; groups as JSON, if there are any."""
    arrays: dict[str, Any] = {
        "ids": np.array(p.ids, str),
        "logits": p.logits,
        "labels": p.labels,
        "class_names": np.array(p.class_names, str),
    }
    if p.groups:
        arrays["groups"] = np.array(json.dumps(p.groups))
    np.savez_compressed(file, **arrays)


def _same(p: Scores, path: Path) -> bool:
    """Whether a file says the same as these scores."""
    try:
        old = read_scores(path, type(p))
    except DataError:
        return False
    if (old.ids, old.class_names, old.groups) != (p.ids, p.class_names, p.groups):
        return False
    return np.array_equal(old.logits, p.logits) and np.array_equal(old.labels, p.labels)


def read_scores(
    path: str | Path,  # from `write_scores`
    make: Callable[..., Any],  # called with ids, logits, labels, class names and groups
) -> Any:  # what `make` gives
    """What was written; nothing is unpickled, and whatever is wrong is one error."""
    try:
        file = read_arrays(path)
        ids, logits, labels, names = (file[k] for k in ("ids", "logits", "labels", "class_names"))
        groups = json.loads(str(file["groups"])) if "groups" in file else {}
    except (OSError, ValueError, KeyError, RecursionError) as err:
        raise DataError(
            f"{path} holds no predictions ({err or type(err).__name__}): make it again, with `sda test "
            "--out FOLDER` or Predictions.save.",
            subject=str(path),
            remedy="make it again, with `sda test --out FOLDER` or Predictions.save",
        ) from err
    try:
        return make(ids.tolist(), logits, labels, names.tolist(), groups)
    except (TypeError, ValueError) as err:
        raise DataError(f"{path}: {err}", subject=str(path)) from err
