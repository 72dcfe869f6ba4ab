"""What a clip must be to be used: limits of size, a file that is there, and the error with its remedy."""

import os
import stat
from pathlib import Path
from typing import Any

from ...foundation.errors import VideoError

MIN_SIDE = 32  # pixels: below this a ResNet's last map would be empty
MAX_PIXELS = 7680 * 4320  # of a frame: a header that promises more is not decoded
MAX_BYTES = 8 << 30  # of the frames that are asked for at once: more of them belongs on the disk
AGAIN = "copy or download it again"  # the remedy for a damaged file


def unusable(path: object, what: str, remedy: str) -> VideoError:
    """The error for a clip that cannot be used: what is wrong with it, and what to do."""
    return VideoError(f"{path} {what}", subject=str(path), remedy=remedy)


def existing(path: str | Path) -> Path:
    """The path of a file that is there, not empty and may be read."""
    path = Path(path)
    try:
        about = path.stat()
    except FileNotFoundError as err:
        raise unusable(path, "does not exist", "check the path") from err
    except OSError as err:
        what = f"cannot be reached ({err.strerror})"
        raise unusable(path, what, "check the path and its permissions") from err
    if stat.S_ISDIR(about.st_mode):
        raise unusable(path, "is a folder, not a video file", "use backend='folder'")
    if not stat.S_ISREG(about.st_mode):
        raise unusable(path, "is not a file", "give a file of its own")
    if about.st_size == 0:
        raise unusable(path, "is empty (0 bytes)", AGAIN)
    if not os.access(path, os.R_OK):
        raise unusable(path, "may not be read", "change its permissions")
    return path


def in_range(video: Any, indices: list[int]) -> list[int]:
    """The numbers of frames, all of them there."""
    wanted = [int(i) for i in indices]
    if not wanted:
        raise unusable(video.path, "was asked for no frame", "pass at least one index")
    if bad := [i for i in wanted if not 0 <= i < len(video)]:
        what = f"has frames 0..{len(video) - 1}, frame {bad[0]} was asked for"
        raise VideoError(f"{video.path} {what}", subject=str(video.path))
    return wanted


def check_extent(path: str | Path, length: int, size: tuple[int, int]) -> None:
    """Refuse a clip without frames, or with frames too small to look at."""
    if length < 1:
        raise unusable(path, "holds no frames", "extract or download it again")
    if min(size) < MIN_SIDE:
        what = f"is {size[1]}x{size[0]} pixels"
        raise unusable(path, what, f"the smaller side must have at least {MIN_SIDE}")


def check_bytes(path: str | Path, number: int, size: tuple[int, int]) -> None:
    """Refuse frames that would fill the memory, before they do."""
    height, width = size
    if 3 * height * width * number > MAX_BYTES:
        what = f"has {number} frames of {width}x{height}, which take over {MAX_BYTES >> 30} GiB at once"
        raise unusable(path, what, "make them smaller (sda extract --height 256)")
