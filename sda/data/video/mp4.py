"""What the index of an mp4 claims, read before FFmpeg believes it: 21 kB can ask for gigabytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...foundation.errors import VideoError

OUTER = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")  # boxes that hold boxes
COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # box -> where in it the number of samples stands
RUNS = {b"stts": 8, b"ctts": 8}  # box -> bytes of an entry, whose first four say how often it holds
DENSEST = 100_000  # pixels from a byte: what was filmed has a fiftieth of that, frames of nothing have more
FEW_PIXELS = 10**10  # that any file may hold: some seconds of work
FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot")


def check_index(path: str | Path) -> None:
    """VideoError when the index of an mp4 or mov claims more samples than the file has bytes.

    FFmpeg takes memory for every sample that is claimed, before it looks whether there is one. Files of other
    kinds pass: their index lists what it counts (ISO/IEC 14496-12, boxes stsz, stts, ctts and trun)."""
    with open(path, "rb") as file:
        if file.read(8)[4:] not in FIRST:
            return
        size = file.seek(0, 2)
        for kind, claimed in _claims(file, 0, size):
            if claimed > size:
                raise VideoError(
                    f"{path} claims {claimed} samples in {kind} and has {size} bytes",
                    subject=str(path),
                    remedy="it is damaged, or made to do harm: take another copy",
                )


def check_density(path: Path, packets: int, pixels: int) -> None:
    """VideoError for a small file with very many pixels in its frames, before they are decoded.

    A hundred bytes a frame are enough to keep a decoder busy with frames of 100 MB."""
    size = path.stat().st_size
    if packets * pixels > max(FEW_PIXELS, DENSEST * size):
        raise VideoError(
            f"{path} has {packets} frames of {pixels} pixels in {size} bytes",
            subject=str(path),
            remedy="it is damaged, or made to do harm: take another copy",
        )


def _claims(file: BinaryIO, start: int, end: int, depth: int = 8) -> Iterator[tuple[str, int]]:
    """Boxes that count samples, and their counts, between two places of a file."""
    while start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        inside = start + 8
        if length == 1 and start + 16 <= end:
            length = struct.unpack(">Q", file.read(8))[0]
            inside += 8
        stop = min(start + length, end) if length else end
        if stop < inside:
            return  # what follows is no box
        if kind in OUTER and depth:  # a real index lies five deep
            yield from _claims(file, inside, stop, depth - 1)
        elif kind in COUNT_AT:
            file.seek(inside + COUNT_AT[kind])
            yield kind.decode(), int.from_bytes(file.read(4), "big")
        elif kind in RUNS:
            file.seek(inside)
            table = file.read(min(stop - inside, 1 << 24))[8:]
            whole = len(table) // RUNS[kind] * RUNS[kind]
            yield kind.decode(), sum(often for often, _ in struct.iter_unpack(">II", table[:whole]))
        start = stop
