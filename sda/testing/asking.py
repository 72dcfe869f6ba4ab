"""Files, folders and windows of a video go in, the most probable classes come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..assets import TRAINED_ON
from ..data.clips import ClipReader
from ..foundation.devices import evaluating
from ..foundation.errors import RunError, SettingError, listed
from ..foundation.files import find_clips
from ..networks.checkpoints import class_hash, load_model
from ..networks.inference import prepare_for_inference
from .running import naming, view_logits

__all__ = ["windows"]


def opened(
    model: Any,  # network, or its file
) -> Any:
    """A network; one that is read from its file is prepared to answer."""
    return prepare_for_inference(load_model(model)) if isinstance(model, str | Path) else model


def find_videos(
    paths: Iterable[str | Path],  # videos, folders of frames, or folders of such
    problems: dict[str, str] | None = None,  # gets the folders that hold none; None: an error
) -> list[str]:  # each once
    """The clips that some paths stand for."""
    found: dict[str, None] = {}
    for path in map(str, paths):
        with naming(path, problems):
            clips = find_clips(path)
            found |= dict.fromkeys([path] if clips == [Path(path)] else map(str, clips))
    return list(found)


def who_answers(
    model: Any,  # network with a card
    file: str = "",  # name of its file, where it has one
) -> str:  # one sentence for people
    """Which network answers, and what it knows."""
    names = model.card.class_names
    kind = TRAINED_ON.get(class_hash(names), "")
    known = f"{model.card.num_classes} classes"
    if kind:
        known += f" of {kind}"
    elif names:
        known += f" ({listed(names)})"
    told = f"{model.name}{f' from {file}' if file else ''} knows {known} and no others"
    if not kind:
        return told
    return f"{told}; for your own classes: sda data make NAME --media FOLDER, then sda train --data sets/NAME"


def _best(logits: torch.Tensor, names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The `top` classes of one clip and their probabilities."""
    if not torch.isfinite(logits).all():
        raise RunError("The scores are not finite.")
    values, best = logits.softmax(0).topk(min(top, len(logits)))
    return [(names[k], value) for value, k in zip(values.tolist(), best.tolist(), strict=True)]


def best_classes(
    paths: Sequence[str],  # from `find_videos`
    net: Any,  # network with a card
    top: int = 5,  # classes to list per video
    progress: bool = False,  # show a bar over the videos
    batch_size: int = 8,  # videos at a time
    problems: dict[str, str] | None = None,  # gets the videos that cannot be read, and why; None: an error
) -> list[tuple[str, str, float]]:  # video, class, probability
    """The most probable classes of each video."""
    reader = ClipReader.from_card(getattr(net, "card", None))
    names = net.card.names
    rows = []
    with evaluating(net), tqdm(total=len(paths), disable=not progress, unit="video", desc="predict") as bar:
        for k in range(0, len(paths), batch_size):
            some = []
            for one in paths[k : k + batch_size]:
                with naming(one, problems):
                    some.append((one, reader(one).clip))
            logits = view_logits(net, torch.stack([clip for _, clip in some])) if some else torch.empty(0)
            for (one, _), scores in zip(some, logits, strict=True):
                with naming(one, problems):
                    best = _best(reader.put_back(scores).mean(0), names, top)
                    rows += [(one, *row) for row in best]
            bar.update(len(paths[k : k + batch_size]))
    return rows


def windows(
    total: int,  # frames of the video
    length: int,  # frames of a window, at least 1
    stride: int,  # frames from one start to the next, at least 1
) -> list[tuple[int, int]]:
    """First and one-past-last frame of windows that cover all `total` frames."""
    if length < 1 or stride < 1:
        raise SettingError(f"A window of {length} frames every {stride} covers nothing.", subject="length")
    starts = list(range(0, max(total - length, 0) + 1, stride))
    if starts[-1] + length < total:
        starts.append(total - length)
    return [(start, min(start + length, total)) for start in starts]


def best_of_windows(
    path: str | Path,  # a long video
    net: Any,  # network with a card
    length: int = 64,  # frames per window
    stride: int = 0,  # frames between starts (0: half a window)
    top: int = 1,  # classes to list per window
    batch_size: int = 8,  # windows at a time
    progress: bool = False,  # show a bar over the windows
) -> list[tuple[int, int, str, float]]:  # start and end (frames), class, probability
    """The most probable classes of each window of a video."""
    reader = ClipReader.from_card(getattr(net, "card", None))
    names = net.card.names
    video = reader.open(path)
    spans = windows(len(video), length, stride or max(length // 2, 1))
    rows = []
    with evaluating(net), tqdm(total=len(spans), disable=not progress, unit="window", desc="slide") as bar:
        for k in range(0, len(spans), batch_size):
            some = spans[k : k + batch_size]
            with naming(str(path)):
                clips = torch.stack([reader(video, span).clip for span in some])
                logits = reader.put_back(view_logits(net, clips)).mean(1)
                for span, scores in zip(some, logits, strict=True):
                    rows += [(*span, *row) for row in _best(scores, names, top)]
            bar.update(len(some))
    return rows
