"""What a clip is read from: a record, a file, a part of one; and what a model's card says of its clips."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ..foundation.errors import SettingError, VideoError
from .crops import MultiCrop
from .lists import Record
from .sampling import Sampling
from .transforms import TransformConfig
from .video import Video, open_video

__all__ = ["read_clip"]


def open_record(
    record: Record,  # Which clip
    **options,  # Of `open_video`, e.g. `backend`, `template`
) -> tuple[Video, int]:  # Its source, and how many of the source's frames belong to it from its offset on
    """Open a record; a source shorter than the list says is an error, never padded."""
    video = open_video(record.path, **options)
    first, step = getattr(video, "start", 0), getattr(video, "step", 1)
    if record.offset and (first > 1 or step > 1) and options.get("start") is None:
        raise VideoError(
            f"{record.path} has frames numbered from {first} in steps of {step}; the list counts "
            f"{record.offset} frames from its beginning and cannot be trusted with that",
            subject=record.path,
            remedy="extract all frames of the clip again",
        )
    total = len(video) - record.offset if record.num_frames is None else record.num_frames
    if total < 1 or record.offset + total > len(video):
        raise VideoError(
            f"{record.path} has {len(video)} frames, the list announces {record.offset + max(total, 1)}; "
            "extract the clip again or correct the list"
        )
    return video, total


def read_clip(
    record: Record,  # Which clip
    **options,  # Of `open_video`, e.g. `backend`, `template`
) -> torch.Tensor:  # uint8 [N,H,W,3]
    """Decode all frames of a record."""
    video, total = open_record(record, **options)
    return video.frames(list(range(record.offset, record.offset + total)))


class FrameSource(Protocol):
    """What frames are taken from: a `Video`, or frames that were decoded before."""

    @property
    def times(self) -> np.ndarray | None:
        """Seconds of all frames [N]; None without a clock."""

    def __len__(self) -> int: ...

    def frames(self, indices: list[int]) -> torch.Tensor:
        """The chosen frames, uint8 [T,H,W,3]."""


class Taken(NamedTuple):
    """Frames that belong to one clip."""

    id: str
    path: str
    label: int | None
    source: FrameSource
    first: int
    total: int


def take(source: Any, span: tuple[int, int] | None, decoded: FrameSource | None, options: dict) -> Taken:
    """The frames of a record, of a file or of an opened video, or of a part of it."""
    if isinstance(source, Record):
        told = (source.id, source.path, source.label)
        if decoded is not None:
            return Taken(*told, decoded, 0, len(decoded))
        video, total = open_record(source, **options)
        return Taken(*told, video, source.offset, total)
    video = source if isinstance(source, Video) else open_video(source, **options)
    first, last = span or (0, len(video))
    return Taken(str(video.path), str(video.path), None, video, first, last - first)


def as_card_says(card: Any, crops: str, clips: int) -> tuple[Any, Sampling]:
    """Transform and sampling of a model's card, or its own in more crops and clips."""
    if card is None or not card.transform or not card.sampling:
        remedy = "load it with load_model from a file that train wrote, or give it a card that says both"
        text = f"The model has no card with transform and sampling: {remedy}."
        raise SettingError(text, subject="card", remedy=remedy)
    config = TransformConfig.from_dict(card.transform)
    sampling = Sampling.from_dict(card.sampling)
    sampling = sampling.with_views(clips) if clips else sampling
    if not crops:
        return config, sampling
    if config.resize is None:
        raise SettingError("Named crops need clips of one height; this model takes any.")
    return MultiCrop(crops, config.mean, config.std, config.resize, config.size), sampling
