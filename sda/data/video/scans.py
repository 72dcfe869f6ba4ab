"""What scanning told of video files, kept for later processes: what was scanned once is not scanned again."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...foundation.files import digest

_log = logging.getLogger(__name__)
_MOST = 200_000  # files whose scan is kept; the oldest are dropped
_LARGEST = 1 << 20  # bytes of a compressed scan; a scan of an hour has a tenth of that
_TABLE = "CREATE TABLE IF NOT EXISTS scans (name TEXT PRIMARY KEY, content BLOB, digest TEXT)"


def scans_file() -> Path | None:
    """Where scans are kept: in the folder SDA_CACHE, else in the user's caches; nowhere if that is empty."""
    told = os.environ.get("SDA_CACHE")
    if told is not None:
        return Path(told) / "scans.sqlite" if told else None
    caches = {
        "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"),
        "darwin": "~/Library/Caches",
    }.get(sys.platform, os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(caches).expanduser() / "sda" / "scans.sqlite"


def scan_name(
    path: Path,  # of a video file
    version: str,  # of what scans it
) -> str:  # empty for a file that was changed just now: a further change could bear the same time stamp
    """A name for the scan of exactly this file: any change of it gets another."""
    about = path.stat()
    if abs(time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns)) < 2_000_000_000:
        return ""
    stamp = (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev)
    return digest(f"{version} {stamp} ", os.fsencode(os.path.abspath(path)), digits=64)


def kept_scan(
    name: str,  # from `scan_name`
) -> (
    dict[str, Any] | None
):  # what was kept, lists as tuples; None where nothing is, or where it does not hold
    """What an earlier process found out about a file."""
    if not name:
        return None
    rows = _ask("SELECT content, digest FROM scans WHERE name = ? AND length(content) <= ?", (name, _LARGEST))
    for content, check in rows:
        if isinstance(content, bytes) and check == digest(name, content, digits=64):
            text = zlib.decompressobj().decompress(content, _LARGEST << 6)
            return _frozen(json.loads(text, object_hook=_array))
        _log.warning("%s was changed: a video is scanned again", scans_file())
    return None


def keep_scan(
    name: str,  # from `scan_name`, before the file was read; kept is nothing if it was empty
    found: dict[str, Any],  # numbers, texts, arrays, and tuples of them
) -> None:
    """Keep what was found out about a file, if it is not too large and there is a place."""
    if not name:
        return
    content = zlib.compress(json.dumps(found, default=lambda a: {str(a.dtype): a.tolist()}).encode())
    if len(content) <= _LARGEST:
        _ask(
            "INSERT OR REPLACE INTO scans VALUES (?, ?, ?)", (name, content, digest(name, content, digits=64))
        )


def _array(pairs: dict[str, Any]) -> Any:
    """An array, written as the name of its type and its values."""
    kind = next(iter(pairs), "")
    return np.array(pairs[kind], kind) if len(pairs) == 1 and kind in ("int64", "float64") else pairs


def _frozen(value: Any) -> Any:
    """Lists, which JSON makes of tuples, as tuples again."""
    if isinstance(value, dict):
        return {name: _frozen(one) for name, one in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _ask(words: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """One statement of SQL in a connection of its own, which no forked process inherits; the rows found.

    A cache may fail: a damaged file is made anew, a folder that cannot be written is done without.
    """
    place = scans_file()
    if place is None:
        return []
    try:
        import sqlite3
    except ImportError:  # some builds of Python lack it
        return []
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place, timeout=2)) as store, store:
            store.execute("PRAGMA synchronous = OFF")  # what a power cut breaks is told by its digest
            store.execute(_TABLE)
            rows = store.execute(words, values).fetchall()
            if words.startswith("INSERT"):
                store.execute("DELETE FROM scans WHERE rowid <= (SELECT max(rowid) FROM scans) - ?", (_MOST,))
            return rows
    except sqlite3.OperationalError as err:  # another process holds it, the disk is full or read-only
        _log.info("scans are not kept in %s: %s", place, err)
    except sqlite3.DatabaseError as err:
        _log.warning("%s is damaged (%s) and is made anew", place, err)
        with suppress(OSError):
            place.unlink()
    except OSError as err:
        _log.info("scans are not kept in %s: %s", place, err)
    return []
