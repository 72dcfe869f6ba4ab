"""Every clip decoded once, into one file of bytes that is used only while it holds."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..foundation.errors import FolderError, VideoError
from ..foundation.files import cached_by_file, digest, write_atomic
from ..foundation.reading import read_json
from .lists import Record
from .sources import open_record

_log = logging.getLogger(__name__)


def _stamp(path: str) -> str:
    """Size and time of a file, or of all files in a folder: what tells a changed clip."""
    try:
        entries = list(os.scandir(path)) if os.path.isdir(path) else [Path(path)]
    except OSError as err:
        raise VideoError(f"{path} cannot be read ({err.strerror})") from err
    try:
        stats = [e.stat() for e in entries]
    except FileNotFoundError as err:
        remedy = "give the path of a clip that is there, or make the lists again from those that are"
        raise VideoError(f"{path} does not exist; {remedy}", subject=path, remedy=remedy) from err
    return f"{len(stats)} {sum(s.st_size for s in stats)} {max((s.st_mtime_ns for s in stats), default=0)}"


def cache_key(
    records: list[Record],  # Clips in order
    options: dict,  # Of `open_video`
) -> str:  # 16 hexadecimal digits
    """A name for the decoded form of exactly these clips: any change of list or files is another."""
    told = sorted((option, value) for option, value in options.items() if value is not None)
    found = hashlib.sha256(f"2 {told}\n".encode())
    for r in records:
        found.update(f"{r.id}\n{r.offset} {r.num_frames} {_stamp(r.path)}\n".encode())
    return found.hexdigest()[:16]


_HEADER = 128  # bytes of a .npy header, whatever the number of bytes that follow


def _write_header(file) -> None:
    """Turn raw bytes into a .npy: the header is known only at the end."""
    shape = (file.tell() - _HEADER,)
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    if file.tell() != _HEADER:
        raise RuntimeError(
            f"a .npy header of {file.tell()} bytes does not fit the {_HEADER} kept free for it"
        )


def _write_frames(file, records: list[Record], options: dict, progress: bool) -> dict[str, list]:
    """Append every clip's bytes to an open file; [start, frames, height, width] and seconds of each."""
    from tqdm.auto import tqdm

    def whole(record: Record) -> tuple[torch.Tensor, np.ndarray | None]:
        video, total = open_record(record, **options)
        numbers = range(record.offset, record.offset + total)
        return video.frames(list(numbers)), None if video.times is None else video.times[numbers]

    shapes = []
    seconds = []
    at = 0
    size = 32  # clips in flight, so that memory stays bounded
    with (
        ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool,
        tqdm(total=len(records), desc="decoding", unit="clip", disable=not progress) as bar,
    ):
        for begin in range(0, len(records), size):
            for clip, times in pool.map(whole, records[begin : begin + size]):
                file.write(clip.numpy().data.cast("B"))
                shapes.append([at, *clip.shape[:3]])
                seconds.append(None if times is None else times.tolist())
                at += clip.numel()
                bar.update()
    return {"shapes": shapes, "times": seconds}


@cached_by_file(64)
def _content(path: Path) -> tuple[int, str]:
    """Bytes and digest of a file, read once until it changes: over checksums of blocks, which are quick."""
    sums = []
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            sums.append(zlib.crc32(block))
        return file.tell(), digest(json.dumps(sums), digits=64)


def _sealed(index: dict) -> str:
    """An index with a digest of itself."""
    return json.dumps(index | {"check": digest(json.dumps(index, sort_keys=True))})


@cached_by_file(4)
def _index(file: Path) -> dict:
    """The index beside the bytes of a cache, read once until it changes."""
    return read_json(file)


def _flaw(data: Path, ids: list[str]) -> str:
    """What is wrong with a cache and its index; empty where nothing is."""
    try:
        index = dict(_index(data.with_suffix(".json")))
        check = index.pop("check", None)
        size, content = _content(data)
    except (OSError, ValueError, AttributeError, TypeError) as err:
        return f"it or its index cannot be read: {err}"
    if check is None:
        return "an earlier version wrote it without a digest"
    if check != digest(json.dumps(index, sort_keys=True)):
        return "its index was changed"
    if index["ids"] != ids:
        return "its index names other clips"
    if size != index["size"]:
        return f"it has {size} bytes instead of {index['size']}"
    return "" if content == index["digest"] else "its bytes were changed"


def build_cache(
    records: list[Record],  # Clips to decode whole
    folder: str | Path,  # Where cache files live; made when missing
    progress: bool = True,  # Show a progress bar
    **options,  # Of `open_video`
) -> Path:  # The .npy of all bytes; its index lies beside it as .json
    """Decode every clip once; a cache is there complete or not at all, and one that holds is reused."""
    data = Path(folder) / f"{cache_key(records, options)}.npy"
    index: dict[str, Any] = {"ids": [r.id for r in records]}
    if data.exists():
        flaw = _flaw(data, index["ids"])
        if not flaw:
            return data
        _log.warning("the cache %s is not used (%s): its clips are decoded again", data, flaw)

    def write(file: BinaryIO) -> None:
        file.write(bytes(_HEADER))
        index.update(_write_frames(file, records, options, progress))
        _write_header(file)

    try:
        write_atomic(data, write)
        index["size"], index["digest"] = _content(data)
        write_atomic(data.with_suffix(".json"), _sealed(index))
    except FolderError as err:
        remedy = f"{err.remedy}, or do without a cache (cache=False, --cache no)"
        raise FolderError(f"no cache can be made: {err}", subject=str(data.parent), remedy=remedy) from err
    _log.info("decoded %d clips into the cache", len(records))
    return data


@dataclass(frozen=True)
class CachedClip:
    """The decoded frames of one clip, to be read like a video."""

    pixels: np.ndarray  # uint8 [N,H,W,3], not copied
    times: np.ndarray | None  # Seconds [N], if there is a clock

    def __len__(self) -> int:
        return len(self.pixels)

    def frames(self, indices: list[int]) -> torch.Tensor:
        """The chosen frames, uint8 [T,H,W,3], copied."""
        return torch.from_numpy(self.pixels[indices])


class FrameCache:
    """All decoded clips in one memory-mapped file; `cache[index]` is uint8 [N,H,W,3] without a copy."""

    def __init__(
        self,
        path: str | Path,  # From `build_cache`
    ):
        self.path = Path(path)
        self._bytes: np.ndarray | None = None
        index = _index(self.path.with_suffix(".json"))
        self.shapes = index["shapes"]  # of clip i: [start, N, H, W]
        self.times = index["times"]  # of clip i: seconds [N], or None

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._bytes is None:
            self._bytes = np.load(self.path, mmap_mode="r")  # once in every worker
        start, *shape = self.shapes[index]
        return self._bytes[start : start + 3 * math.prod(shape)].reshape(*shape, 3)

    def clip(self, index: int) -> CachedClip:
        """The frames of one clip and their seconds."""
        times = self.times[index]
        return CachedClip(self[index], None if times is None else np.asarray(times))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_bytes": None}
