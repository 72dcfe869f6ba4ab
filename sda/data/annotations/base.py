"""What all adapters share: the ledger of a file, checked JSON and tables, and the rules for a row."""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...foundation.errors import DataError
from ..joining import safe_join
from ..lists import Record
from ..texts import fault, read_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ListReport"]

PLACES = 5  # places remembered per reason


@dataclass
class ListReport:
    """The ledger of one annotation file: every row is counted once, as `kept` or under a reason."""

    dataset: str  # dataset name, e.g. "Diving48"
    variant: str  # which release or era of the files, e.g. "V2 (by file name)"
    split: str = "all"  # split the rows were taken for
    order: str = "sorted"  # how class numbers were given: "sorted", "raw SSv1 file order", "file order"
    counts: dict[str, int] = field(default_factory=dict)  # reason -> rows; "kept" is one of them
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> the first few places
    notes: list[str] = field(default_factory=list)  # what a reader of the results must know
    groups: dict[str, dict[str, str]] = field(default_factory=dict)  # attribute -> class name -> value
    sources: dict[str, str] = field(default_factory=dict)  # record id -> source it was cut from
    splits: dict[str, str] = field(default_factory=dict)  # record id -> split, where the files say it
    times: dict[str, tuple[float, float]] = field(default_factory=dict)  # record id -> start, stop in seconds

    @property
    def rows(self) -> int:
        """Rows of the file, each counted once."""
        return sum(self.counts.values())

    @property
    def kept(self) -> int:
        """Rows that became records."""
        return self.counts.get("kept", 0)

    def add(
        self,
        reason: str,  # "kept", or why the row is not used
        example: str | None = None,  # file and line, or id, of the row
    ) -> None:
        """Count one row under a reason; the first five places are remembered."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        seen = self.examples.setdefault(reason, [])
        if example is not None and reason != "kept" and len(seen) < PLACES:
            seen.append(example)

    def table(self) -> "pd.DataFrame":  # one line per reason: rows, share of all rows, first places
        """The ledger as a table, `kept` first, then by number of rows."""
        import pandas as pd

        total = max(self.rows, 1)
        rows = [
            (reason, count, count / total, "; ".join(self.examples.get(reason, [])[:2]))
            for reason, count in sorted(self.counts.items(), key=lambda c: (c[0] != "kept", -c[1], c[0]))
        ]
        return pd.DataFrame(rows, columns=["reason", "rows", "share", "first places"])

    def __str__(self) -> str:
        head = f"{self.dataset} · {self.variant} · split {self.split} · class order: {self.order}"
        table = self.table().to_string(index=False, formatters={"share": "{:.1%}".format})
        return "\n".join([head, table, *(f"note: {note}" for note in self.notes)])


class Gather:
    """Collects the records of one file and keeps its ledger; ids are unique, labels are in the list."""

    def __init__(
        self,
        report: ListReport,  # ledger to keep
        strict: bool,  # stop at the first bad row instead of counting it
        file: str | Path = "",  # places in the ledger name it without its folder
    ):
        self.report = report
        self.strict = strict
        self.records: list[Record] = []
        self.places: dict[str, str] = {}
        self.prefix = f"{Path(file).parent}{os.sep}"

    def skip(self, where: str, reason: str) -> None:
        """Count a row under `reason`."""
        self.report.add(reason, where.removeprefix(self.prefix))

    def refuse(self, where: str, reason: str, what: str, remedy: str) -> None:
        """Stop with an error, or count the row under `reason` when not strict."""
        if self.strict:
            remedy = f"{remedy} Or take the row out (in Python, strict=False leaves out such rows).".strip()
            raise fault(where, what, remedy)
        self.skip(where, reason)

    def keep(self, record: Record, where: str) -> bool:
        """Add a record; an id seen before is refused."""
        if record.id in self.places:
            what = f"id {record.id!r} was already given at {self.places[record.id]}"
            self.refuse(where, "duplicate id", what, "Remove one of the two rows.")
            return False
        self.places[record.id] = where
        self.records.append(record)
        self.report.add("kept")
        return True

    def label(self, text: str, numbers: Mapping[str, int], where: str) -> int | None:
        """The number of a label text; None (refused) when it is not in the list."""
        if text in numbers:
            return numbers[text]
        near = [n for n in numbers if n.lower() == text.lower()]
        hint = f"The list has {near[0]!r}." if near else "Do labels and annotations come from one release?"
        what = f"label {text!r} is not among the {len(numbers)} classes"
        self.refuse(where, "label not in list", what, hint)
        return None

    def in_range(self, label: int, classes: int, where: str, name: str = "label") -> bool:
        """Whether a class number is in the list; refused when it is not."""
        if 0 <= label < classes:
            return True
        self.refuse(where, "label not in list", f"{name} {label} is outside 0..{classes - 1}", "")
        return False


def read_json(path: str | Path, kind: type | tuple[type, ...]) -> Any:
    """Read JSON; a syntax error names line and column, a repeated key or another top level is refused."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        twice = [k for k, n in Counter(k for k, _ in pairs).items() if n > 1]
        if twice:
            raise fault(path, f"key {twice[0]!r} stands twice in one object", "Keep one of them.")
        return dict(pairs)

    try:
        data = json.loads(read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as err:
        where = f"{path}, line {err.lineno}, column {err.colno}"
        raise fault(where, f"not JSON ({err.msg})", "Download it again.") from err
    except RecursionError as err:
        raise fault(path, "nested without end", "Download it again.") from err
    if not isinstance(data, kind):
        want = "list" if kind is list else "object" if kind is dict else "list or object"
        what = f"holds a JSON {type(data).__name__}, a {want} was expected"
        remedy = "Is this the right file? Annotations are lists, the label file is an object."
        raise fault(path, what, remedy)
    if not data:
        raise fault(path, "holds no entries", "The file is empty of records: fetch it again.")
    return data


def read_table(
    path: str | Path,
    columns: Sequence[str],  # that must be there, in any order
    delimiter: str = ",",
) -> list[tuple[int, dict[str, str]]]:  # line number, column -> text
    """Read a CSV by its header; a missing column or a row of another width names the line."""
    reader = csv.reader(io.StringIO(read_text(path)), delimiter=delimiter, strict=True)
    rows = []
    try:
        header = [c.strip() for c in next(reader)]
        missing = [c for c in columns if c not in header]
        if missing:
            what = f"no column {', '.join(missing)} (columns: {', '.join(header)})"
            raise fault(path, what, "Is it the right file?")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                what = f"{len(fields)} fields under {len(header)} columns"
                remedy = "Quote fields that contain the separator."
                raise fault(f"{path}, line {reader.line_num}", what, remedy)
            rows.append((reader.line_num, dict(zip(header, fields, strict=True))))
    except csv.Error as err:
        where = f"{path}, line {reader.line_num}"
        raise fault(where, f"not a CSV row ({err})", "Repair the quotes.") from err
    if not rows:
        raise fault(path, "has a header but no rows", "Fetch the file again.")
    return rows


def record_id(row: Any, where: str, key: str = "id") -> str:
    """The id of a JSON record as text."""
    if not isinstance(row, dict):
        raise fault(where, f"a {type(row).__name__} where an object was expected", "Wrong file?")
    if not isinstance(row.get(key), (str, int)) or row[key] == "":
        what = f"key {key!r} is missing (keys: {', '.join(sorted(row))})"
        raise fault(where, what, "Is this file of another dataset?")
    return str(row[key])


def integer(value: Any, where: str, name: str) -> int:
    """A whole number from JSON or CSV, or an error that names the field."""
    try:
        if isinstance(value, bool) or float(value) != int(value):
            raise ValueError(value)
        return int(value)
    except (TypeError, ValueError, OverflowError) as err:
        what = f"{name} is {value!r}, not a whole number"
        raise fault(where, what, "Use the official file, unedited.") from err


def split_of(path: str | Path) -> str:
    """The split that a file name tells: train, validation, test, or unknown."""
    found = re.findall(r"train|validation|val|test", Path(path).stem.lower())
    return {"val": "validation"}.get(found[-1], found[-1]) if found else "unknown"


SPLITS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}


def split_named(word: str) -> str | None:
    """The split that a word of a table or the name of a folder means: train, val, test, or none."""
    wanted = word.strip().casefold()
    return next((split for split, words in SPLITS.items() if wanted in words), None)


def in_order(names: Iterable[str]) -> list[str]:
    """Class names sorted; where all begin with a number, by that number: 2 comes before 10."""
    found = sorted(set(names))
    numbers = {name: re.match(r"-?[0-9]+", name) for name in found}
    if not all(numbers.values()):
        return found
    return sorted(found, key=lambda name: (int(numbers[name][0]), name))  # type: ignore[index]  # all matched


def join(root: str | Path, path: str) -> str:
    """`root/path` with forward slashes; the bare path when there is no root."""
    return path if root == "" else (Path(root) / path).as_posix()


def outside(root: str | Path, path: str, links: bool | None = None) -> str:
    """Why a path would leave the root; "" when it stays inside. `links`: follow those that lead elsewhere."""
    try:
        safe_join(root or ".", path, links)
    except DataError as err:
        return str(err)
    return ""
