"""Files and folders: written whole or not at all, held by one process, named by their content, read once."""

from __future__ import annotations

import csv
import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import os
import platform
import re
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Concatenate, ParamSpec, TypeVar

from .errors import DataError, FolderError, SettingError, lacks_memory

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor, nn

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "write_atomic",
    "save_arrays",
    "load_arrays",
    "check_folder",
    "lock",
    "fingerprint",
    "digest",
    "cached_by_file",
    "to_plain",
]

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")

# Lower-case endings, to compare with `path.suffix.lower()`: what readers, lists and the extraction accept.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".3g2",
    ".mts", ".m2ts", ".m2t", ".ts", ".mod", ".tod", ".vob", ".asf", ".ogv", ".divx", ".qt", ".dv", ".mxf",
    ".m2v", ".mpv", ".f4v", ".gif", ".h264", ".264", ".hevc", ".265", ".mjpeg", ".mjpg", ".ivf", ".nut",
)  # fmt: skip


def file_words(
    *words: object,  # empty ones are left out
) -> str:
    """Words joined by dashes, with no letter that some system refuses in a name ("torchvision:resnet18")."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", str(word)) for word in words if word)


def find_clips(
    path: str | Path,  # a file, a folder of frames, or a folder with any of these below it
) -> list[Path]:  # one or more, in the order of their names
    """The clips that a path stands for: itself, or all videos and folders of frames below a folder.

    A folder is one of frames when it holds numbered pictures and no video. Links are followed, hidden files
    are not taken. DataError for a folder without any clip.
    """
    top = Path(path)
    if not top.is_dir():
        return [top]
    found: list[Path] = []
    seen = set()
    for folder, below, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        names = [name for name in files if not name.startswith(".")]
        videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
        frames = any(
            re.search(r"\d[^/]*$", Path(n).stem) and n.lower().endswith(IMAGE_SUFFIXES) for n in names
        )
        if videos:
            found += [Path(folder, name) for name in videos]
        elif frames:
            found.append(Path(folder))
            below[:] = []
    if not found:
        kinds = f"no videos ({', '.join(VIDEO_SUFFIXES)}) and no numbered pictures"
        remedy = "name a folder that holds clips"
        raise DataError(f"{top} holds {kinds}", subject=str(top), remedy=remedy)
    return sorted(found)


_drafts = itertools.count()  # threads of one process write under different names


def write_atomic(
    path: str | Path,  # file to write, replaced if it exists; its folder is made
    content: str
    | bytes
    | Callable[[BinaryIO], object],  # text (UTF-8), bytes, or what writes into an open file
    before: Callable[[], object] | None = None,  # called when all is on the disk and before it takes the name
) -> Path:  # the file
    """Write a file that is there whole or not at all, also after a power cut; FolderError where it cannot be.

    A new file gets the permissions that `open` would give it, an existing one keeps its own.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{next(_drafts)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "wb") as file:
                _write_into(file, content)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.chmod(draft, stat.S_IMODE(path.stat().st_mode))
            if before is not None:
                before()
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except FolderError:
        raise
    except OSError as err:
        reason = err.strerror or str(err)
        if err.filename and Path(err.filename) != draft:  # `content` may read files of its own
            reason = f"{reason}: {err.filename}"
        raise FolderError(
            f"{path} cannot be written ({reason})", subject=str(path), remedy=disk_remedy(err)
        ) from err
    return path


_REMEDIES = {
    "ENOSPC": "free some space or choose another folder",
    "EDQUOT": "free some space or choose another folder: the quota is used up",
    "EFBIG": "choose another disk: files of this size are not allowed there",
    "ENOENT": "the folder is gone, deleted or unmounted meanwhile: bring it back or choose another one",
    "ESTALE": "the folder is gone, deleted or unmounted meanwhile: bring it back or choose another one",
    "EACCES": "choose a folder that you may write into, or change its permissions",
    "EPERM": "choose a folder that you may write into, or change its permissions",
    "EROFS": "choose another disk: this one can only be read",
    "ENOTDIR": "choose another name: a file lies where a folder should be",
    "EEXIST": "choose another name: a file lies where a folder should be",
    "EISDIR": "choose another name: a folder of this name is in the way",
    "EMFILE": "let fewer files be open at once: fewer workers, or a higher limit (ulimit -n)",
    "ENFILE": "let fewer files be open at once: fewer workers, or a higher limit (ulimit -n)",
    "ENAMETOOLONG": "choose a shorter name",
    "ENOMEM": "free some memory: fewer workers, smaller batches",
    "EIO": "the disk reports errors: look after it, or choose another one",
}


def disk_remedy(
    err: BaseException,  # of writing; the error of the system may be one that led to it
) -> str:
    """What to do about a failed write, from the cause that the system gave, not from a guess."""
    if lacks_memory(err):
        return _REMEDIES["ENOMEM"]
    cause = system_error(err)
    name = errno.errorcode.get(cause.errno or 0, "") if cause else ""
    return _REMEDIES.get(name, "choose another folder")


def system_error(
    err: BaseException | None,  # of writing or reading
) -> OSError | None:
    """The error of the system with its number, in a chain of errors that followed from it."""
    seen: set[int] = set()
    while err is not None and id(err) not in seen:
        if isinstance(err, OSError) and err.errno:
            return err
        seen.add(id(err))
        err = err.__cause__ or err.__context__
    return None


def _write_into(file: BinaryIO, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Text with the line ends it has, bytes, or whatever the function writes."""
    if isinstance(content, str):
        file.write(content.encode("utf-8"))
    elif isinstance(content, bytes):
        file.write(content)
    else:
        content(file)


def save_arrays(
    path: str | Path,  # file to write; it must end in .npz
    form: str,  # name and version of the format, e.g. "sda trace 1"
    names: Mapping[str, Any],  # what JSON can hold: the names of rows and columns
    arrays: Mapping[str, np.ndarray],  # by name; none may be called "names"
) -> Path:  # the file
    """Arrays and their names in one compressed file; nothing in it can run."""
    import numpy as np

    if Path(path).suffix != ".npz":
        raise SettingError(f"{path} should end in .npz", subject=str(path))
    text = np.array(json.dumps({"format": form, **names}))

    def write(file: BinaryIO) -> None:
        named: dict[str, Any] = {"names": text, **arrays}  # any: the stubs take every keyword for a switch
        np.savez_compressed(file, **named)

    return write_atomic(path, write)


def load_arrays(
    path: str | Path,  # file to read
    form: str,  # the format that it must have
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # names and arrays
    """What `save_arrays` wrote, nothing unpickled; DataError for a damaged file, or one of another kind."""
    from .reading import read_arrays

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path} (wanted: {form})")
    try:
        arrays = read_arrays(path)
        names = json.loads(str(arrays.pop("names")))
        if names.pop("format") != form:
            raise KeyError("format")
        return names, arrays
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise DataError(f"{path} is not a whole file of the format {form!r}", subject=str(path)) from err


_FORMULA = tuple("=+-@＝＋－＠|%")  # how a spreadsheet recognises what it should compute or run


def csv_cell(
    value: Any,  # of a table
) -> Any:  # the same; texts that a spreadsheet would compute get an apostrophe in front
    """A cell that stays what it is, whichever program opens the file (CWE-1236)."""
    if not isinstance(value, str):
        return value
    begin = value.lstrip("\0\t\r\n\v\f \"'")
    if not begin.startswith(_FORMULA) and value[:1] not in ("\t", "\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def csv_text(
    frame: pd.DataFrame,  # numbers and texts
    index_label: str = "",  # the rows' names are a column of this name; left out without one
) -> str:  # for `write_atomic`
    """A table as CSV: every one that the library writes comes from here. No cell of it starts a formula."""
    shown = frame.map(csv_cell).rename(columns=csv_cell)
    if index_label:
        shown = shown.rename(index=csv_cell)
    texts = [*shown.columns, *shown.index, *shown.select_dtypes(exclude="number").to_numpy().ravel()]
    # where ; or tab part the cells of a spreadsheet, as in many languages, only quotes keep them together
    apart = any(isinstance(text, str) and not {";", "\t", "\r"}.isdisjoint(text) for text in texts)
    quoting = csv.QUOTE_NONNUMERIC if apart else csv.QUOTE_MINIMAL
    named = {"index_label": csv_cell(index_label)} if index_label else {"index": False}
    return shown.to_csv(quoting=quoting, lineterminator="\n", **named)


def check_folder(
    path: str | Path,  # made when missing
    need: int = 0,  # bytes that must be free, for work whose size is known before
) -> Path:  # the folder
    """Make a folder and write a probe into it: FolderError now rather than after the work."""
    import tempfile

    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=".probe-") as probe:  # leaves nothing, however we end
            probe.write(b"x")
    except OSError as err:
        raise FolderError(
            f"nothing can be written into {folder} ({err.strerror or err})",
            subject=str(folder),
            remedy=disk_remedy(err),
        ) from err
    free = shutil.disk_usage(folder).free
    if free < need:
        raise FolderError(
            f"about {need / 1e6:.0f} MB are needed in {folder}, {free / 1e6:.0f} MB are free",
            subject=str(folder),
            remedy="free some space or choose another folder",
        )
    return folder


@contextmanager
def lock(
    folder: str | Path,  # made when missing; holds a file `.lock` meanwhile
    purpose: str,  # what is done there, for the message to the other process, e.g. "extracting frames"
) -> Iterator[Path]:  # the folder
    """Hold a folder until the end of the block or the process; FolderError names who else holds it.

    The system lets go of what a dead process held, so its folder is simply taken. Where a file system has no
    locks, the file itself tells who is at work, and whether a process of this machine still lives.
    """
    place = check_folder(folder) / ".lock"
    file = _hold(place)
    try:
        file.truncate(0)
        about = {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "purpose": purpose,
            "command": shlex.join(sys.orig_argv)[:200],
        }
        file.write(json.dumps(about).encode())
        file.flush()
        yield place.parent
    finally:
        _let_go(file, place)


def _hold(place: Path) -> IO[bytes]:
    """The lock file, opened and locked."""
    while True:
        try:
            file = open(place, "a+b")
        except PermissionError as err:  # made by another user
            raise _taken(place) from err
        try:
            _lock_file(file, place)
            # The holder before us removes its file: what we have locked may have lost its name meanwhile.
            if os.path.samestat(os.fstat(file.fileno()), place.stat()):
                return file
            file.close()
        except FileNotFoundError:
            file.close()
        except (BlockingIOError, PermissionError) as err:
            file.close()
            raise _taken(place) from err


def _holder(place: Path) -> dict[str, Any]:
    """What the lock file says about who holds it; empty where it says nothing yet."""
    try:
        found = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _taken(place: Path) -> FolderError:
    """The error that names the other process, as far as it has written who it is."""
    other = _holder(place)
    remedy = "wait until it is done, or choose another folder"
    if other.keys() >= {"pid", "host", "since", "purpose", "command"}:
        who = "process {pid} on {host} is {purpose} there since {since} ({command})".format_map(other)
        if other["host"] != platform.node():
            remedy += f"; if that process is gone, delete {place}"
    else:
        who = "another process is at work there"
    return FolderError(f"{place.parent} is taken: {who}", subject=str(place.parent), remedy=remedy)


if sys.platform == "win32":
    import msvcrt

    _BEYOND = 1 << 30  # Windows forbids reading what is locked, so a byte behind the text is

    def _lock_file(file: IO[bytes], place: Path) -> None:
        """Lock the file, or PermissionError."""
        file.seek(_BEYOND)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _let_go(file: IO[bytes], place: Path) -> None:
        """Unlock the file and remove it; Windows removes no open file."""
        file.seek(_BEYOND)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        file.close()
        with suppress(PermissionError):  # the next process has it open
            place.unlink(missing_ok=True)

else:
    import fcntl

    def _lock_file(file: IO[bytes], place: Path) -> None:
        """Lock the file, or BlockingIOError; without locks, what the file says decides."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            if _lives(_holder(place)):
                raise BlockingIOError from err
            _log.warning(
                "%s: no file locks on this file system; two processes that start at once are not told apart",
                place,
            )

    def _lives(other: dict[str, Any]) -> bool:
        """Whether the process that a lock file names is still there; one of another machine counts."""
        if other.get("host") != platform.node() or not isinstance(other.get("pid"), int):
            return bool(other)
        try:
            os.kill(other["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's
        return True

    def _let_go(file: IO[bytes], place: Path) -> None:
        """Remove the file, then unlock it: closing alone would not, while a forked child has it open too."""
        with file:
            place.unlink(missing_ok=True)
            with suppress(OSError):  # without locks there is none to give back
                fcntl.flock(file, fcntl.LOCK_UN)


_CAST: dict[str, str] = {}  # fingerprint of weights in a shorter format -> that of what they were made from


def cast_from(
    known: str,  # fingerprint before
    weights: nn.Module,  # the same weights in another format
) -> None:
    """Let these weights keep their fingerprint: what is known of a network holds in every precision."""
    _CAST[_weights_hash(weights.state_dict(), "")] = known


def fingerprint(
    weights: nn.Module | Mapping[str, Tensor],  # a network, or its state dict
    begin: str = "",  # hashed before the weights: what else the result depends on, e.g. the clips
) -> str:  # sixteen hexadecimal digits
    """A short hash of all parameters and buffers with their names; `place_model` does not change it."""
    import torch

    tensors = weights.state_dict() if isinstance(weights, torch.nn.Module) else weights
    found = _weights_hash(tensors, begin)
    return found if begin else _CAST.get(found, found)


def _weights_hash(tensors: Mapping[str, Tensor], begin: str) -> str:
    """The hash of these very bytes."""
    import torch

    found = hashlib.sha256(begin.encode())
    for name, value in tensors.items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def digest(
    *parts: str
    | bytes,  # hashed one behind the other, nothing in between: put in separators where it matters
    digits: int = 16,  # hexadecimal ones; 16 are plenty to tell files apart
) -> str:
    """A short SHA-256 hash of texts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:digits]


def cached_by_file(
    maxsize: int = 256,  # results kept, the least recently used is dropped
) -> Callable[[Callable[Concatenate[Path, _P], _R]], Callable[Concatenate[str | Path, _P], _R]]:
    """Decorate what reads a file or lists a folder: the result is kept until the file changes.

    The first argument is the path, the others must be hashable. Results are shared: do not change them.
    A file changed within the last two seconds is read anew: a further change could bear the same time stamp.
    """

    def decorate(function: Callable[Concatenate[Path, _P], _R]) -> Callable[Concatenate[str | Path, _P], _R]:
        @lru_cache(maxsize)
        def kept(path: Path, stamp: tuple[int, ...], args: tuple, options: tuple) -> _R:
            return function(path, *args, **dict(options))

        @wraps(function)
        def cached(path: str | Path, /, *args: _P.args, **options: _P.kwargs) -> _R:
            path = Path(path)
            about = path.stat()
            if abs(time.time_ns() - about.st_mtime_ns) < 2_000_000_000:
                return function(path, *args, **options)
            stamp = (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)
            return kept(path, stamp, args, tuple(sorted(options.items())))

        return cached

    return decorate


def to_plain(
    value: object,  # something json does not know: a path, a dataclass, a NumPy or torch number or array
    folders: bool = True,  # False: of a path only the last name, for what is published
) -> Any:  # something it does
    """What `json.dumps(..., default=to_plain)` asks for; DataError for a value that has no plain form."""
    if isinstance(value, os.PathLike):
        path = Path(value)
        return path.as_posix() if folders else path.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):
        return value.tolist()
    raise DataError(f"{value!r} of type {type(value).__name__} cannot be stored as JSON", subject=repr(value))
