"""Readers of clips behind one interface, `Video`; `open_video` chooses the reader."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...foundation.errors import unknown_name
from .archive import ArchiveVideo
from .base import Facts, MemoryVideo, Video, scan
from .decord import DecordVideo
from .folder import FolderVideo
from .pyav import PyAVVideo

__all__ = [
    "BACKENDS",
    "ArchiveVideo",
    "DecordVideo",
    "Facts",
    "FolderVideo",
    "MemoryVideo",
    "PyAVVideo",
    "Video",
    "open_video",
    "scan",
]

BACKENDS: dict[str, Callable[..., Video]] = {
    "decord": DecordVideo,
    "pyav": PyAVVideo,
    "folder": FolderVideo,
    "archive": ArchiveVideo,
    "memory": MemoryVideo,
}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def open_video(
    path: str
    | Path
    | torch.Tensor
    | np.ndarray,  # video file, folder or archive of frames, or uint8 [N,H,W,3]
    backend: str | None = None,  # one of `BACKENDS`; None goes by the path, video files to PyAV
    short_side: int | None = None,  # smaller side of the frames in pixels; smaller videos keep their size
    **options: Any,  # for folders and archives `template`, `start`, `fps`; for arrays `fps`, `name`
) -> Video:  # frames on demand
    """Open a clip; a named backend is used or fails, it is never exchanged for another."""
    if backend is None:
        backend = _backend_of(path)
    elif backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    return BACKENDS[backend](path, short_side=short_side, **options)


def _backend_of(path: str | Path | torch.Tensor | np.ndarray) -> str:
    """The reader for an array, a folder, an archive, or else a video file."""
    if isinstance(path, (torch.Tensor, np.ndarray)):
        return "memory"
    if os.path.isdir(path):
        return "folder"
    return "archive" if str(path).lower().endswith(_ARCHIVES) else "pyav"
