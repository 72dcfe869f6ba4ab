"""The frames of a video file, counted by its packets or by decoding all of it, and what is damaged in it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...foundation.errors import VideoError
from .container import cut_short
from .ffmpeg import as_shown, import_av, open_container, video_stream
from .mp4 import check_density
from .usable import AGAIN, MAX_PIXELS, unusable

PLACEHOLDER = 8  # bytes: packets up to this size may hold no picture
RESIZED = "changes the size of its picture"


@dataclass(frozen=True)
class Facts:
    """What is known of a video file: the frames that decode and are shown, and how to reach them."""

    container: str  # e.g. "mov" (mp4 too), "matroska" (webm too), "avi"
    codec: str  # e.g. "h264", "vp9", "av1"
    fps: float | None  # Mean frame rate; None without a clock
    size: tuple[int, int]  # (height, width) as shown: rotated phone video is upright
    length: int  # Frames that decode and are shown, N
    timestamps: np.ndarray | None  # Seconds since the first frame [N]; None for a stream without a clock
    announced: int | None  # Frames that the header announces; None for mkv and webm, which do not say
    ticks: np.ndarray = field(repr=False)  # Time stamps as stored [N], in units of the file's own clock
    keys: tuple[int, ...] = field(repr=False)  # Frames where decoding can begin; none without an index
    counted: bool = False  # Whether every frame was decoded to count them; else the packets told
    front: tuple[int, int] = (0, 0)  # Packets, then frames, left out in front of the first frame shown
    notes: tuple[tuple[str, str], ...] = ()  # What is unusual: kind, and the numbers


class Packet(NamedTuple):
    """What the container says of one packet."""

    pts: int | None  # When its picture is shown
    tick: int  # The same, or when it is decoded, or 0
    size: int  # Bytes
    key: bool  # Whether decoding can begin here
    shown: bool  # False for pictures that are only there for others to lean on
    whole: bool  # False where the container knows of damage


def packet_table(box: Any, stream: Any) -> tuple[list[Packet], Any]:
    """The packets of a file as they are stored, and the first frame that decodes."""
    av = import_av()
    packets = []
    first = None
    trouble = None
    for packet in box.demux(stream):
        if first is None:
            try:
                first = next(iter(packet.decode()), None)
            except av.FFmpegError as err:
                trouble = trouble or err
        if not packet.size:
            continue  # the last one only flushes the decoder; others are frames that a camera dropped
        tick = packet.pts if packet.pts is not None else packet.dts or 0
        flags = (packet.is_keyframe, not packet.is_discard, not packet.is_corrupt)
        packets.append(Packet(packet.pts, tick, packet.size, *flags))
    if first is None and trouble is not None:
        raise trouble
    return packets, first


def announced_seconds(box: Any, stream: Any) -> float | None:
    """When the picture ends, where the header says so about the picture alone."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    if tag:  # written by the Matroska and WebM muxers
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return box.duration / 1e6 if box.duration and len(box.streams) == 1 else None


def check_complete(
    path: Path, cut: bool | None, packets: int, announced: int | None, ends: float, seconds: float | None
) -> None:
    """A file cut short keeps its header: compare what it announces with what is there.

    Headers count wrongly, and what was trimmed away stays counted; so where the outermost parts of the file
    tell whether it is whole (`cut` is not None), they decide.
    """
    if cut is False or (cut and announced and packets >= announced):
        return
    what = "is cut short: it ends before its own parts do"
    if announced and packets < announced:
        what = f"is cut short: its header announces {announced} frames, {packets} are there"
    # mkv and webm announce no count; .5 s and 5 % leave room for a long last frame
    elif not announced and seconds and ends < 0.95 * seconds - 0.5:
        what = (
            f"is cut short: its header announces {seconds:.1f} s, its {packets} frames end after {ends:.1f} s"
        )
    elif not cut:
        return
    raise unusable(path, what, AGAIN)


def about_file(box: Any, stream: Any, path: Path, packets: Sequence[Packet], first: Any) -> dict[str, Any]:
    """What the header says of a file that is whole; VideoError where it promises what is not there."""
    if first is None:
        raise unusable(path, "holds no frames", "extract or download it again")
    check_density(path, len(packets), first.width * first.height)
    fps = float(stream.average_rate or 0) or None
    container = box.format.name.split(",")[0]
    codec = stream.codec_context.codec.canonical_name
    stored = [p.tick for p in packets]
    ends = (max(stored) - min(*stored, 0)) * float(stream.time_base) + (1 / fps if fps else 0)
    announced = stream.frames or None
    cut = cut_short(path, container)
    check_complete(path, cut, len(packets), announced, ends, announced_seconds(box, stream))
    return dict(container=container, codec=codec, fps=fps, announced=announced)


def shown_frames(box: Any, stream: Any, front: tuple[int, int] | None = None) -> Iterator[Any]:
    """The frames of a file in the order in which they are shown, without what lies in front of the first.

    `front` counts packets and frames to leave out; with it, packets before the first frame may be damaged.
    """
    if front is None:
        yield from box.decode(stream)
        return
    av = import_av()
    packets, frames = front
    begun = False
    for packet in box.demux(stream):
        if packet.size and packets:
            packets -= 1
            continue
        found: list[Any] = []
        try:
            found = packet.decode()
        except av.FFmpegError:
            if begun and packet.size > PLACEHOLDER:
                raise
        for frame in found:
            begun = True
            if frames:
                frames -= 1
            else:
                yield frame


def clock_of(pts: Sequence[int | None], dts: Sequence[int | None]) -> np.ndarray | None:
    """Rising time stamps of decoded frames [N]; None where there are none."""
    shown = np.array([t for t in pts if t is not None], np.int64)
    known = np.array([t for t in dts if t is not None], np.int64)
    if len(shown) == len(pts) and (np.diff(shown) > 0).all():
        return shown
    if len(known) > 1:
        steps = np.diff(known)
        step = max(int(np.median(steps)), 1)
        # the last frames leave the decoder when there is no packet to lend them a time
        steps = np.concatenate([steps, np.full(len(dts) - len(known), step)])
        # recordings joined end to end begin again at nought
        if (steps <= 0).sum() * 8 < len(dts):
            return known[0] + np.concatenate([[0], np.where(steps > 0, steps, step).cumsum()])
    return np.sort(shown) if len(set(shown.tolist())) == len(pts) else None


class Shown(NamedTuple):
    """What is kept of a frame when a whole file is decoded to count them."""

    pts: int | None
    dts: int | None
    whole: bool  # False for a frame that the decoder had to make up in part
    size: tuple[int, int]  # As shown


def counted_frames(path: Path, packets: Sequence[Packet]) -> tuple[list[Shown], tuple[int, int]]:
    """Decode a file from its first key frame; the frames, and what to leave out in front of them.

    Frames that come out of the decoder first and are shown before the key frame lean on what is not there.
    """
    av = import_av()
    begin = next((n for n, p in enumerate(packets) if p.key), 0)
    first = packets[begin].pts if packets[begin].key else None
    frames: list[Shown] = []
    front = 0
    more = True
    with suppress(av.FFmpegError), open_container(path) as box:
        for frame in shown_frames(box, video_stream(box, path), (begin, 0)):
            whole = not frame.is_corrupt
            early = first is not None and frame.pts is not None and frame.pts < first
            if not frames and (early or not whole):
                front += 1
                continue
            if frame.width * frame.height > MAX_PIXELS or not whole:
                break
            frames.append(Shown(frame.pts, frame.dts, whole, as_shown(frame)))
        else:
            more = False
    if more:
        raise unusable(path, f"is damaged: {len(frames)} frames decode, then no more", AGAIN)
    return frames, (begin, front)


def resized(other: int, count: int, size: tuple[int, int]) -> list[tuple[str, str]]:
    """The note about frames of another size than the first, if there are any."""
    return [(RESIZED, f"{other} of {count} frames are scaled to {size[1]}x{size[0]}")] if other else []


def facts_by_counting(path: Path, packets: Sequence[Packet], about: dict[str, Any], tick: float) -> Facts:
    """Facts of a file whose packets do not tell its frames."""
    frames, front = counted_frames(path, packets)
    if not frames:
        raise unusable(path, "holds no frames", "extract or download it again")
    ticks = clock_of([frame.pts for frame in frames], [frame.dts for frame in frames])
    times = None if ticks is None else (ticks - ticks[0]) * tick
    size = frames[0].size
    if ticks is None:
        about["fps"] = None
    shown = [p for p in packets if p.shown]
    begins = frames[0].pts
    lead = front[0] if begins is None else sum(p.pts is not None and p.pts < begins for p in shown)
    notes = []
    if lead:
        notes.append(("begins between two key frames", f"{lead} packets in front are not shown"))
    if (empty := len(shown) - lead - len(frames)) > 0:
        notes.append(("has packets without a picture", f"{empty} of {len(shown)}"))
    notes += resized(sum(frame.size != size for frame in frames), len(frames), size)
    if times is None:
        notes.append(("has no clock", "its frames have no times"))
    stored = np.zeros(0, np.int64) if ticks is None else ticks
    return Facts(
        **about, size=size, length=len(frames), timestamps=times, ticks=stored, keys=(),
        counted=True, front=front, notes=tuple(notes),
    )  # fmt: skip


def decodes(path: str | Path, facts: Facts) -> tuple[int, int]:
    """Frames of a file that decode, and how many of them have another size than the first."""
    av = import_av()
    count = 0
    other = 0
    with suppress(av.FFmpegError), open_container(path) as box:  # what fails is what is being reported
        for frame in shown_frames(box, video_stream(box, path), facts.front if facts.counted else None):
            if frame.is_corrupt:
                break
            count += 1
            other += as_shown(frame) != facts.size
    return count, other


def damaged(path: str | Path, facts: Facts) -> VideoError:
    """The error for a file whose packets are there and do not all decode."""
    count = decodes(path, facts)[0]
    return unusable(path, f"is damaged: {count} of its {facts.length} frames decode", AGAIN)


def decoded_notes(path: str | Path, facts: Facts) -> list[tuple[str, str]]:
    """What is unusual about a file, found by decoding all of it; VideoError for damage."""
    count, other = decodes(path, facts)
    if count != facts.length:
        raise unusable(path, f"is damaged: {count} of its {facts.length} frames decode", AGAIN)
    notes = [note for note in facts.notes if note[0] != RESIZED]
    return notes + resized(other, count, facts.size)
