"""Tables of clips as people write them: any separator, with or without a header, columns known by name."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...foundation.errors import SettingError, unknown_name
from ...foundation.files import VIDEO_SUFFIXES
from ..texts import fault, read_text

__all__: list[str] = []

# what columns are called, for each role from the plainest name on
ROLES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "video_path", "clip_path",
             "video", "clip", "video_name", "clip_name", "name", "video_id", "clip_id", "id"),
    "label": ("label", "class", "class_name", "classname", "label_name", "category", "action", "activity",
              "gesture", "label_id", "class_id"),
    "group": ("group", "source", "subject", "person", "participant", "actor", "performer", "signer", "user",
              "subject_id", "person_id", "take", "scene", "session", "sequence", "recording", "movie",
              "source_video"),
    "split": ("split", "subset", "partition"),
}  # fmt: skip
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "space": " ", "bar": "|", "pipe": "|"}
NONE = "none"  # the word for: no such column


@dataclass
class Table:
    """The rows of a table, and which column plays which role."""

    file: Path
    header: list[str]  # names of the columns
    rows: list[tuple[int, list[str]]]  # line number, fields
    roles: dict[str, int]  # "path", "label", "group", "split" -> place of the column
    bare: bool = False  # without a header line

    @property
    def unused(self) -> list[str]:
        """Columns without a role."""
        return [name for place, name in enumerate(self.header) if place not in self.roles.values()]

    def column(self, role: str) -> str | None:
        """The name of the column of a role."""
        return self.header[self.roles[role]] if role in self.roles else None

    def cells(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Place in the file, and role -> text, row by row."""
        for line, fields in self.rows:
            yield f"{self.file}, line {line}", {r: fields[k].strip() for r, k in self.roles.items()}


def is_video(text: str) -> bool:
    """Whether a text ends like the name of a video file."""
    return text.strip().lower().endswith(VIDEO_SUFFIXES)


def _delimiter(text: str, given: str | None) -> str:
    """The separator that was named, or the one that the first line has most of."""
    if given:
        mark = DELIMITERS.get(given, given)
        if len(mark) != 1:
            raise unknown_name("delimiter", given, DELIMITERS)
        return mark
    first = text.lstrip("\n").split("\n", 1)[0]
    found = max(",;\t", key=first.count)
    if found in first:
        return found
    return "|" if "|" in first else " "


def _rows(file: Path, text: str, mark: str, width: int) -> list[tuple[int, list[str]]]:
    """The fields of every line that is not blank; blanks separate from the right, for paths may hold some."""
    if mark == " ":
        lines = enumerate(text.split("\n"), 1)
        split = width - 1 if width else 1
        return [(n, [f.strip('"') for f in line.rsplit(maxsplit=split)]) for n, line in lines if line.strip()]
    reader = csv.reader(io.StringIO(text), delimiter=mark, strict=True)
    try:
        return [(reader.line_num, [f.strip() for f in fields]) for fields in reader if any(fields)]
    except csv.Error as err:
        where = f"{file}, line {reader.line_num}"
        raise fault(where, f"not a row of this table ({err})", "Repair the quotes.") from err


def _columns(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Names of the columns in order, or role -> column, from the words that people give."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word.strip() for word in words if "=" not in word]
    if named and plain:
        raise SettingError(
            f"columns {' '.join(words)}: name all columns in order, or roles as in path=file label=class.",
            subject=" ".join(words),
        )
    for role in named:
        if role not in ROLES:
            raise unknown_name("column role", role, ROLES)
    return plain, named


def _place(file: Path, header: Sequence[str], name: str, role: str) -> int:
    """The place of a column that was asked for, by name or by number from 1."""
    folded = [c.casefold() for c in header]
    if name in header:
        return list(header).index(name)
    if name.casefold() in folded:
        return folded.index(name.casefold())
    if name.isdigit() and 1 <= int(name) <= len(header):
        return int(name) - 1
    what = f"no column {name} for the {role} (columns: {', '.join(header)})"
    error = fault(file, what, f"Name one of them: --columns {role}=COLUMN.")
    error.choices = tuple(header)
    raise error


def _roles(file: Path, header: Sequence[str], wanted: dict[str, str | None]) -> dict[str, int]:
    """Role -> place: what was asked for, else the first name that is known for it."""
    folded = [re.sub(r"\W+", "_", c.strip().casefold()) for c in header]
    asked = {r: name for r, name in wanted.items() if name and name != NONE}
    roles = {role: _place(file, header, name, role) for role, name in asked.items()}
    for role, names in ROLES.items():
        if role in roles or wanted.get(role) == NONE:
            continue
        known = (folded.index(n) for n in names if n in folded and folded.index(n) not in roles.values())
        place = next(known, None)
        if place is not None:
            roles[role] = place
    return roles


def read_clip_table(
    file: str | Path,
    columns: Sequence[str] = (),  # names in order for a table without header, or role=column
    delimiter: str | None = None,  # a character, or one of `DELIMITERS`; None: seen from the first line
    **wanted: str | None,  # role -> column; None: recognised by its name; "none": not used
) -> Table:
    """Read a table of clips; a column that is missing is named with those that are there."""
    file = Path(file)
    plain, named = _columns(columns)
    wanted = {**wanted, **named}
    text = read_text(file)
    rows = _rows(file, text, _delimiter(text, delimiter), len(plain))
    if not rows:
        raise fault(file, "has no rows", "Write path,label in the first line and a clip in each other.")
    first = rows[0][1]
    bare = any(map(is_video, first)) or first[-1].lstrip("-").isdigit()  # a clip, no header
    if plain:
        header = plain
        rows = rows[1:] if [f.casefold() for f in first] == [p.casefold() for p in plain] else rows
    elif bare:
        header = [str(k) for k in range(1, len(first) + 1)]
        if len(first) == 2:
            header = ["path", "label"] if is_video(first[0]) or not is_video(first[1]) else ["label", "path"]
    else:
        header = first
        rows = rows[1:]
    for line, fields in rows:
        if len(fields) != len(header):
            what = f"{len(fields)} fields under {len(header)} columns"
            remedy = "Quote fields that contain the separator, or name it with --delimiter."
            raise fault(f"{file}, line {line}", what, remedy)
    if not rows:
        raise fault(file, "has a header but no rows", "Write one row for each clip.")
    roles = _roles(file, header, wanted)
    for role in ("path", "label"):
        if role not in roles:
            what = f"no column for the {role} (columns: {', '.join(header)})"
            order = "path label" + " -" * (len(header) - 2)
            remedy = f"Say which it is: --columns {role}=COLUMN" + (
                f", or name all in order: --columns {order}." if bare else "."
            )
            error = fault(file, what, remedy)
            error.choices = tuple(header)
            raise error
    return Table(file, header, rows, roles, bare and not plain)


def looks_like_clips(file: Path, columns: Sequence[str] = (), delimiter: str | None = None) -> bool:
    """Whether a file is a table with a path and a label, told by its header or by clips that are there."""
    try:
        table = read_clip_table(file, columns, delimiter)
    except ValueError:
        return False
    places = Places(file.parent, file)
    rows = [row for _, row in table.cells()][:20]
    there = (places.root / places.find(row["path"], row["label"]) for row in rows if row["path"])
    return not table.bare or any(path.exists() for path in there)


class Places:
    """Where the clips of a table lie: paths of Windows, of another machine, or below their class."""

    def __init__(self, root: str | Path, table: str | Path):
        self.root = Path(root)
        self.beside = Path(table).parent
        self.taken_off: set[str] = set()  # beginnings of absolute paths that lead nowhere here

    def find(self, text: str, label: str) -> str:
        """The path from the root; as it is written where nothing is found."""
        path = PurePosixPath(text.replace("\\", "/"))
        if path.is_absolute() or re.match(r"[A-Za-z]:", str(path)):
            return self._tail(path)
        for key in (path, PurePosixPath(label) / path):
            for suffix in ("", *(() if is_video(path.name) else VIDEO_SUFFIXES)):
                if ".." not in key.parts and (self.root / f"{key}{suffix}").exists():
                    return f"{key}{suffix}"
        beside = (self.beside / path).resolve()
        if beside.exists() and beside.is_relative_to(self.root.resolve()):
            return beside.relative_to(self.root.resolve()).as_posix()
        return str(path)

    def _tail(self, path: PurePosixPath) -> str:
        """An absolute path as seen from the root: the longest end of it that is there."""
        here = Path(path)
        for root in (self.root.absolute(), self.root.resolve()):
            if here.is_relative_to(root):
                return here.relative_to(root).as_posix()
        for k in range(1, len(path.parts)):
            tail = PurePosixPath(*path.parts[k:])
            if ".." not in tail.parts and (self.root / tail).exists():
                self.taken_off.add(str(PurePosixPath(*path.parts[:k])))
                return str(tail)
        return str(path)
