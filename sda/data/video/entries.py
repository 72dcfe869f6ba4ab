"""What is in a zip or tar of pictures: walked behind a guard, so that no entry takes more than it may."""

import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ...foundation.errors import VideoError
from ...foundation.files import IMAGE_SUFFIXES
from .usable import AGAIN, unusable

MAX_ENTRIES = 500_000  # most entries of an archive; an hour at 60 fps is 216 000 frames
MAX_PICTURE_BYTES = 64 << 20  # most bytes of one picture; an 8K JPEG has a quarter of it
MAX_HEADER_BYTES = 16 << 20  # most bytes read at once that are no picture
MAX_RATIO = 100  # most unpacked bytes for each packed one; pictures are packed already
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, OverflowError, LookupError,
           struct.error, zlib.error, tarfile.TarError, zipfile.BadZipFile)  # fmt: skip


class Guard:
    """An open file for `tarfile` and `zipfile`, which read as much as a damaged archive tells them to."""

    def __init__(self, file: Any):
        self.file = file
        self.seek = file.seek
        self.tell = file.tell
        self.last = b""  # what was read last

    def read(self, size: int = -1) -> bytes:
        """The next bytes; ValueError for more than headers may take."""
        if size < -1 or size > MAX_HEADER_BYTES:
            raise ValueError(f"{size} bytes of headers")
        self.last = self.file.read(MAX_HEADER_BYTES + 1 if size == -1 else size)
        if len(self.last) > MAX_HEADER_BYTES:
            raise ValueError(f"more than {MAX_HEADER_BYTES} bytes of headers")
        return self.last


class Member(NamedTuple):
    """One entry of an archive."""

    name: str  # as written
    kind: str  # "file", "folder" or what else it is
    at: int  # where its contents (tar) or its header (zip) begin
    size: int  # bytes of its contents
    packed: int  # bytes that they take in the archive


def _tar_kind(info: tarfile.TarInfo) -> str:
    """What an entry of a tar is."""
    if info.isdir():
        return "folder"
    return "file" if info.isreg() and not info.issparse() else "link or device"


def tar_members(file: Any, path: Path, limit: int) -> Iterator[Member]:
    """Entries of a tar that holds at most `limit` bytes."""
    guard: Any = Guard(file)
    with tarfile.open(fileobj=guard, mode="r:", encoding="utf-8", errors="replace") as tar:
        box: Any = tar  # types leave out its list of entries
        while (info := box.next()) is not None:
            if info.size < 0 or info.offset_data + info.size > limit:
                what = f"holds {info.name!r}, which reaches beyond {limit} bytes, the most that may be in it"
                raise unusable(path, what, AGAIN)
            yield Member(info.name, _tar_kind(info), info.offset_data, info.size, info.size)
            box.members.clear()  # else it keeps every entry
    if guard.last != bytes(512):
        raise unusable(path, "is cut short: it has no end mark", AGAIN)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    """What an entry of a zip is."""
    form = stat.S_IFMT(info.external_attr >> 16)  # 0 where the packing system knows no links
    if info.filename.endswith("/"):
        return "folder"
    if form not in (0, stat.S_IFREG):
        return "link or device"
    if info.flag_bits & 1:
        return "locked file (it wants a password)"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "file packed in a rare way"
    return "file"


def zip_members(file: Any) -> Iterator[Member]:
    """Entries of a zip."""
    guard: Any = Guard(file)
    with zipfile.ZipFile(guard) as box:
        for info in box.infolist():
            kind = _zip_kind(info)
            yield Member(info.filename, kind, info.header_offset, info.file_size, info.compress_size)


def _fault(m: Member, parts: list[str]) -> str:
    """Why an entry makes its archive suspect; "" for those that may stay."""
    if ".." in parts or not parts[0] or m.name[1:2] == ":":
        return f"holds {m.name!r}, a path that leaves its folder"
    if m.kind not in ("file", "folder"):
        return f"holds {m.name!r}, a {m.kind}"
    return ""


def pictures_in(members: Iterator[Member], path: Path) -> dict[str, Member]:
    """The pictures of an archive by name; entries that could surprise are errors."""
    found: dict[str, Member] = {}
    remedy = "make the archive again, from a plain folder of frames"
    for count, m in enumerate(members, 1):
        parts = re.split(r"[/\\]", m.name)
        if count > MAX_ENTRIES:
            raise unusable(path, f"has more than {MAX_ENTRIES} entries", remedy)
        if fault := _fault(m, parts):
            raise unusable(path, fault, remedy)
        if m.kind == "folder" or parts[-1].startswith(".") or not m.name.lower().endswith(IMAGE_SUFFIXES):
            continue
        if m.size > MAX_PICTURE_BYTES or m.size > max(MAX_RATIO * m.packed, 1 << 20):
            raise unusable(path, f"holds {m.name!r}, which claims {m.size} bytes from {m.packed}", remedy)
        if m.name in found:
            raise unusable(path, f"holds {m.name!r} twice", remedy)
        found[m.name] = m
    return found


@contextmanager
def unpacked(path: Path):
    """An open archive, the bytes that it may hold, and whether it is a zip; whatever fails is a VideoError.

    A gzipped tar is unpacked as it is read.
    """
    try:
        with open(path, "rb") as file:
            begins = file.read(4)
            size = path.stat().st_size
            file.seek(0)
            if begins.startswith(b"\x1f\x8b"):
                yield gzip.GzipFile(fileobj=file), max(MAX_RATIO * size, 1 << 20), False
            else:
                yield file, size, begins in (b"PK\3\4", b"PK\5\6")
    except VideoError:
        raise
    except _DAMAGE as err:
        raise unusable(path, f"is a damaged archive ({err})", AGAIN) from err
