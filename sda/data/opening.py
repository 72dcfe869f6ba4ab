"""What opening clips tells, several at a time: length, damage, what is unusual."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from ..foundation.errors import DataError, VideoError, listed
from .joining import SafeJoin
from .lists import Record, parse_line
from .video import open_video

_log = logging.getLogger(__name__)


class Look(NamedTuple):
    """What opening a clip told."""

    length: int  # Frames; 0 where it cannot be read
    why: str = ""  # The reader's message then
    notes: Sequence[tuple[str, str]] = ()  # What is unusual: kind, and the numbers


def look_at(path: Path, opener: Callable[[str], Any], decode: bool) -> Look:
    """Open a clip, and decode all of it if that is wanted."""
    try:
        video = opener(str(path))
        ask = getattr(video, "decode" if decode else "notes", list)
        return Look(len(video), notes=ask())
    except VideoError as err:
        return Look(0, str(err))


_AT_A_TIME = 4096  # clips that wait for a thread: a job for each of a million would take gigabytes


def looks_of(
    names: Sequence[str], look: Callable[[str], Look], workers: int, what: str, progress: bool
) -> dict[str, Look]:
    """What looking at each told, several at a time."""
    found = {}
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
        tqdm(total=len(names), desc=what, unit="clip", disable=not progress) as bar,
    ):
        try:
            for begin in range(0, len(names), _AT_A_TIME):
                some = names[begin : begin + _AT_A_TIME]
                for name, seen in zip(some, pool.map(look, some), strict=True):
                    found[name] = seen
                    bar.update()
        except BaseException:  # Ctrl-C: what has not begun is not begun
            pool.shutdown(cancel_futures=True)
            raise
    return found


def leaves(join: SafeJoin, name: str) -> str:
    """Why a path leaves the root; "" when it stays inside."""
    try:
        join(name)
    except DataError as err:
        return str(err)
    return ""


def look_at_all(
    img: Path, names: Iterable[str], opener: Callable[[str], Any], decode: bool, workers: int, progress: bool
) -> dict[str, Look]:
    """What opening told of every clip that is there, by its name; several are opened at a time."""
    join = SafeJoin(img)
    there = [name for name in dict.fromkeys(names) if not leaves(join, name) and os.path.exists(join(name))]

    def look(name: str) -> Look:
        return look_at(img / name, opener, decode)

    return looks_of(there, look, workers, "decoding" if decode else "opening", progress)


def media_notes(looks: Mapping[str, Look]) -> list[str]:
    """One line for each kind of note, with the number of clips and the first of them."""
    kinds: dict[str, list[str]] = {}
    for name, look in sorted(looks.items()):
        for kind, detail in look.notes:
            kinds.setdefault(kind, []).append(f"{name} ({detail})")
    return [f"{len(places)} clip(s): {kind}: {listed(places)}" for kind, places in sorted(kinds.items())]


def readable(
    records: list[Record],  # Clips of a list
    options: dict[str, Any],  # Of `open_video`
    progress: bool = True,  # Show a bar
    workers: int = 0,  # Clips decoded at a time (0: one per core)
) -> tuple[list[Record], dict[str, str]]:  # Those that decode; id of each other -> why it does not
    """Decode every clip, and leave out those that are damaged or shorter than their line says."""

    def look(path: str) -> Look:
        return look_at(Path(path), partial(open_video, **options), True)

    looks = looks_of(list(dict.fromkeys(r.path for r in records)), look, workers, "decoding", progress)
    left_out = {}
    for r in records:
        there, why, _ = looks[r.path]
        last = r.offset + (r.num_frames or 1)
        if why or last > there:
            left_out[r.id] = why or f"{r.path} has {there} frames, the list announces {last}"
    for name, why in left_out.items():
        _log.warning("%s is left out: %s", name, why)
    return [r for r in records if r.id not in left_out], left_out


def paths_in(lines: Iterable[tuple[str, bool]]) -> list[str]:
    """The paths in list lines; each line with whether it has an offset."""
    found = []
    for line, offsets in lines:
        with suppress(DataError):
            found.append(parse_line(line, offsets).path)
    return found
