"""One picture of a clip, decoded: its header first, in five formats alone, upright, in 8-bit RGB."""

import io
import math
import struct
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .usable import MAX_PIXELS, unusable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # Pillow's names of what `IMAGE_SUFFIXES` promises
_ORIENTATION = 0x0112  # EXIF: how a picture is to be turned, 1 to 8
_WAYS = ("FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM "  # for 2, 3, 4
         "TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90").split()  # for 5, 6, 7, 8  # fmt: skip
_NOTES = 1 << 17  # bytes at the beginning of a JPEG in which notes stand; each has 64 kB at most


def _turn(picture: Any) -> int:
    """How a picture is to be turned; 1: not at all. Pillow turns TIFF itself."""
    if "exif" not in picture.info or picture.format == "TIFF":
        return 1
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, LookupError, TypeError, OSError, struct.error):
        return 1  # a note that cannot be read
    return found if found in range(2, 9) else 1


def _upright(picture: Any, turn: int) -> Any:
    """The picture as it is to be seen."""
    from PIL.Image import Transpose

    return picture if turn == 1 else picture.transpose(Transpose[_WAYS[turn - 2]])


def _rgb(picture: Any) -> Any:
    """A picture in 8-bit RGB; sixteen bits are scaled, other numbers are a ValueError."""
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        values = np.asarray(picture).clip(0, 65535)
        picture = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"numbers without a range (mode {picture.mode}), not a picture")
    return picture.convert("RGB")


@contextmanager
def _opened(path: Path, source: Path | io.BytesIO):
    """A picture whose header was read; damage and sizes beyond 8K are a VideoError."""
    from PIL import Image, UnidentifiedImageError

    # Pillow's ways to say damaged
    damage = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
    try:
        with Image.open(source, formats=FORMATS) as picture:
            if math.prod(picture.size) > MAX_PIXELS:
                what = f"claims {picture.width}x{picture.height} pixels"
                raise unusable(path, what, "store it with at most 7680x4320")
            yield picture
    except UnidentifiedImageError as err:
        what = f"is not a readable picture ({', '.join(FORMATS)})"
        raise unusable(path, what, "extract this clip again") from err
    except damage as err:
        why = f" ({err})" if isinstance(err, ValueError) else ""
        raise unusable(path, f"is not a readable picture{why}", "extract this clip again") from err


def _seen_size(picture: Any) -> tuple[int, int]:
    """Height and width of an open picture when it is upright."""
    return picture.size if _turn(picture) >= 5 else picture.size[::-1]


def picture_size(path: Path, source: Path | io.BytesIO) -> tuple[int, int]:
    """Height and width of a picture, from its header."""
    with _opened(path, source) as picture:
        return _seen_size(picture)


def read_picture(
    path: Path, source: Path | io.BytesIO, full: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """One picture of the size `full` as uint8 [H,W,3] of the size `size`; another size is an error."""
    from PIL import Image

    with _opened(path, source) as picture:
        height, width = _seen_size(picture)
        if (height, width) != full:
            what = f"is {width}x{height}, the first frame {full[1]}x{full[0]}"
            raise unusable(path, what, "extract this clip again")
        turn = _turn(picture)
        stored = size if turn >= 5 else size[::-1]  # width, height as they lie in the file
        if size != full:
            picture.draft("RGB", stored)
        frame = _rgb(picture)
        if frame.size != stored:
            frame = frame.resize(stored, Image.Resampling.BILINEAR)
        return np.asarray(_upright(frame, turn))


def fast_decoder() -> ModuleType | None:
    """simplejpeg, or None where it is not installed."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def jpeg_into(decoder: ModuleType, source: Path | io.BytesIO, out: np.ndarray) -> bool:
    """Decode a JPEG of the size of `out`, uint8 [H,W,3]; False leaves the picture to `read_picture`."""
    from PIL import Image

    at_most = out.nbytes + 65536  # a longer file is cut, hence damaged, hence left to Pillow
    try:
        if isinstance(source, io.BytesIO):
            data = source.getvalue()
        else:
            with open(source, "rb") as file:
                data = file.read(at_most)
        if b"Exif\0\0" in data[:_NOTES]:  # perhaps it is to be turned
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
                if _turn(picture) != 1:
                    return False
        height, width, colours, _ = decoder.decode_jpeg_header(data)
        if (height, width) != out.shape[:2] or colours not in ("YCbCr", "Gray"):
            return False  # printers' colours: Pillow's way
        decoder.decode_jpeg(data, "RGB", buffer=out, strict=True)
    except (OSError, ValueError):
        return False
    return True
