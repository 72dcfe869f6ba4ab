"""The official files of EPIC-KITCHENS-55: columns, time stamps, participants and classes, each checked."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...foundation.errors import unknown_name
from ..texts import fault
from .base import read_table

COLUMNS = ("uid", "participant_id", "video_id", "start_timestamp", "stop_timestamp",
           "start_frame", "stop_frame", "verb_class", "noun_class")  # fmt: skip
PERSONS = {"train": range(1, 26), "val": range(26, 32), "all": range(1, 32)}  # after Baradel et al. 2018


def seconds_of(stamp: str, where: str) -> float:
    """A time stamp `HH:MM:SS.ff` in seconds."""
    found = re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d*)?)", stamp.strip())
    if not found:
        raise fault(where, f"{stamp!r} is not a time HH:MM:SS.ff", "Use the official file, unedited.")
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def person_of(text: str, where: str) -> int:
    """The number of a participant such as P07."""
    if not re.fullmatch(r"P(0[1-9]|[12]\d|3[01])", text):
        raise fault(where, f"participant {text!r}", "Expected P01 to P31.")
    return int(text[1:])


def class_names(path: Path, target: str) -> list[str]:
    """Class keys by number, from a class list whose numbers must be 0..K-1 in order."""
    column = f"{target}_id"
    rows = read_table(path, (column, "class_key"))
    for place, (line, row) in enumerate(rows):
        if row[column].strip() != str(place):
            what = f"{column} is {row[column]!r}, not {place}"
            raise fault(f"{path}, line {line}", what, "Restore the order.")
    return [row["class_key"].strip() for _, row in rows]


def check_choices(**values: tuple[str, Sequence[str]]) -> None:
    """Refuse an argument that is none of its choices."""
    for name, (value, known) in values.items():
        if value not in known:
            raise unknown_name(name, value, known)
