"""Pictures of an H.264 file that no other leans on: packets that need not be decoded, told by their bytes."""

from collections.abc import Iterator
from typing import Any

from .counting import Facts


def spared(
    data: Any,  # Bytes of a packet of an mp4 or mkv file: units, each behind its length
    width: int,  # Bytes of these lengths
) -> bool:  # Whether it holds a picture, and no other can lean on it
    """Whether an H.264 picture can be left out without a trace in the others."""
    at = 0
    slices = 0
    while at + width < len(data):
        length = int.from_bytes(data[at : at + width], "big")
        head = data[at + width]
        kind = head & 31
        if kind == 1 and head & 0xE0 == 0:  # a slice of a picture that is no reference
            slices += 1
        elif kind not in (6, 9, 12):  # messages, borders, filling
            return False
        if not length:
            return False
        at += width + length
    return at == len(data) and slices > 0


def can_spare(facts: Facts, stream: Any) -> bool:
    """Whether packets are whole pictures of a form that `spared` reads, each with its own time."""
    form = bytes(stream.codec_context.extradata or b"")
    known = facts.codec == "h264" and facts.container in ("mov", "matroska") and not facts.counted
    return known and len(form) > 4 and form[0] == 1


def needed_frames(box: Any, stream: Any, wanted: set[int], left_out: set[int]) -> Iterator[Any]:
    """The frames in the order in which they are shown, without those that can be spared.

    `wanted` are time stamps; those of what was spared are added to `left_out`, before a later one is shown.
    """
    width = (stream.codec_context.extradata[4] & 3) + 1
    for packet in box.demux(stream):
        if packet.pts is not None and packet.pts not in wanted and spared(memoryview(packet), width):
            left_out.add(packet.pts)
        else:
            yield from packet.decode()
