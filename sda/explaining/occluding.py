"""Occlusion of a clip: how far a score falls when one tile of the frames is blurred for a while."""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.devices import widened
from .interventions import blur

TILES = 8  # per side
TIMES = 4  # parts of the clip in which a tile is blurred


def parts_of(
    count: int,  # places
    parts: int,  # most parts
) -> list[slice]:
    """`count` places in so many parts of nearly the same size."""
    pieces = np.array_split(np.arange(count), min(parts, count))
    return [slice(int(piece[0]), int(piece[-1]) + 1) for piece in pieces]


@torch.no_grad()
def falls_under_blur(
    model: nn.Module,  # VideoNet
    clip: Tensor,  # one normalised clip [T,3,H,W]
    score: Callable[[Tensor], Tensor],  # logits [K] to the number that may fall
    before: float,  # the score of the clip as it is
    batch_size: int = 32,  # copies of the clip at a time
) -> np.ndarray:  # [T, tiles, tiles]
    """How far the score falls when a tile is blurred for a part of the clip."""
    T, _, height, width = clip.shape
    times = parts_of(T, TIMES)
    rows = parts_of(height, TILES)
    columns = parts_of(width, TILES)
    boxes = list(itertools.product(times, rows, columns))
    soft = blur(0.1 * min(height, width))(clip[None])[0]
    scores: list[float] = []
    for start in range(0, len(boxes), batch_size):
        some = boxes[start : start + batch_size]
        copies = clip.repeat(len(some), 1, 1, 1, 1)
        for copy, (t, y, x) in zip(copies, some, strict=True):
            copy[t, :, y, x] = soft[t, :, y, x]
        scores += [float(score(one)) for one in widened(model(copies))]
    fall = before - np.array(scores).reshape(len(times), len(rows), len(columns))
    frames = [part.stop - part.start for part in times]
    return np.repeat(fall, frames, axis=0).astype(np.float32)
