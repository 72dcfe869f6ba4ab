"""FFmpeg, told what it may open: video files and nothing else, and of them the first moving picture."""

import errno
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from ...foundation.errors import missing_package
from .usable import MAX_PIXELS, unusable

KINDS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,apng,mxf,rm,dv,wtv,swf,nut,yuv4mpegpipe,"
    "m4v,h261,h263,h264,hevc,vvc,av1,obu,ivf,vc1,mjpeg"
)  # FFmpeg's names; mov is mp4 too, matroska webm
INDEXED = ("mov", "matroska", "avi")  # others, such as transport streams, only guess where a time stamp lies
_DECODER = {"max_pixels": str(MAX_PIXELS)}  # a picture may claim another size than the header


def import_av() -> ModuleType:
    """PyAV, or how to get it."""
    try:
        import av
    except ImportError as err:
        raise missing_package("av", "reading video files", "pip install av") from err
    return av


def open_container(path: str | Path) -> Any:
    """An open video file; a text, a picture or a list of other files is a VideoError."""
    av = import_av()
    limits = {"format_whitelist": KINDS, "protocol_whitelist": "file"}
    try:
        # an absolute path: FFmpeg takes what stands before a colon for a protocol
        # max_pixels: what is asked of a decoder while it is found out what the file holds
        return av.open(
            os.path.abspath(path), metadata_errors="replace", container_options=limits, options=_DECODER
        )
    except av.FFmpegError as err:
        if err.errno != errno.EINVAL:
            raise  # what FFmpeg says of a kind that is not named
        what = "is no video file, whatever its name says (a text, a picture, a list of other files?)"
        raise unusable(path, what, "convert it to mp4") from err


def video_stream(box: Any, path: str | Path) -> Any:
    """The first moving picture of an open container (a cover image does not count)."""
    cover = 0x400  # AV_DISPOSITION_ATTACHED_PIC
    streams = [s for s in box.streams.video if not int(s.disposition) & cover]
    if streams:
        if streams[0].codec_context is not None:
            streams[0].thread_count = 1  # loaders have their own processes
            streams[0].codec_context.options = _DECODER
        return streams[0]
    kinds = sorted({s.type for s in box.streams}) or ["nothing"]
    raise unusable(path, f"has no video in it, only {', '.join(kinds)}", "give a file with moving pictures")


def readable_stream(box: Any, path: Path) -> Any:
    """`video_stream`, if there is a decoder for it and its frames have a size that memory can take."""
    stream = video_stream(box, path)
    if stream.codec_context is None:
        raise unusable(path, "is in a format without a decoder", "convert it to mp4")
    if stream.width * stream.height > MAX_PIXELS:  # before a frame takes memory
        what = f"claims {stream.width}x{stream.height} pixels"
        raise unusable(path, what, "convert it to a size of at most 7680x4320")
    return stream


def as_shown(frame: Any) -> tuple[int, int]:
    """(height, width) of a decoded frame, turned upright."""
    return (frame.height, frame.width) if frame.rotation % 180 == 0 else (frame.width, frame.height)
