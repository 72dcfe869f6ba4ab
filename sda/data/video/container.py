"""Where a video file ends, as its outermost parts say: how a download that stopped half-way is told."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_TAIL = 512  # bytes of nothing but zeros at the end: perhaps a download had reserved the space and stopped


def cut_short(
    path: Path,  # video file
    container: str,  # FFmpeg's name of its kind
) -> bool | None:  # None where that cannot be told: the kind of file does not say, or it ends in zeros
    """Whether a file ends before its own outermost parts do."""
    walk = _ENDS.get(container)
    if walk is None:
        return None
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        end = walk(file, size)
        if end is None:
            return None
        if end > size:
            return True
        # the index of an mp4 names samples that are zeros; the others lose the parts themselves
        file.seek(max(size - _TAIL, 0))
        return None if container != "mov" and size > _TAIL and not any(file.read()) else False


def _boxes(file: BinaryIO, size: int) -> int | None:
    """The end of the last box of an mp4 or mov file."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a larger number follows the name
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isalnum():
            break  # 0: up to the end of the file; else something behind the video
        end += length
    return end or None


def _chunks(file: BinaryIO, size: int) -> int | None:
    """The end of the last RIFF chunk of an avi file; large files have several."""
    end = 0
    while end + 12 <= size:
        file.seek(end)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or not 4 < length < 1 << 31:
            break  # a program that wrote without going back leaves 0 or all ones
        end += 8 + length
    return end or None


def _number(file: BinaryIO) -> int | None:
    """A size in Matroska's coding; None for "unknown" and for what is none."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    bits = 7 * (extra + 1)
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if len(rest) < extra or value == (1 << bits) - 1 else value


def _segment(file: BinaryIO, size: int) -> int | None:
    """The end of the segment of a Matroska or WebM file."""
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # header, segment
        if file.read(4) != name or (length := _number(file)) is None:
            return None
        end = file.tell() + length
        file.seek(end)
    return end


_ENDS: dict[str, Callable[[BinaryIO, int], int | None]] = {
    "mov": _boxes,
    "avi": _chunks,
    "matroska": _segment,
}
