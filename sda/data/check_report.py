"""The report of a checked dataset: counts, places, and notes on the whole of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..foundation.files import write_atomic
from ..foundation.reading import read_json
from .texts import fault

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CheckReport"]


REASONS = ("ok", "short", "bad line", "label unknown", "path leaves the root", "duplicate line",
            "in two splits", "missing", "unreadable", "frame count wrong")  # fmt: skip


@dataclass
class CheckReport:
    """What `check_dataset` found: a count per split and reason, and every place."""

    root: str  # dataset folder
    classes: int  # number of lines in `category.txt`
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> reason -> lines
    problems: list[dict[str, str]] = field(default_factory=list)  # split, line, reason, detail
    notes: list[str] = field(default_factory=list)  # about the whole dataset

    def add(
        self,
        split: str,  # "train", "val" or "test"
        line: int,  # in that list, from 1
        reason: str,  # "ok", or what is wrong
        detail: str = "",  # clip, and the numbers that disagree
    ) -> None:
        """Count one line; everything but "ok" is remembered with its place."""
        counts = self.counts.setdefault(split, {})
        counts[reason] = counts.get(reason, 0) + 1
        if reason != "ok":
            self.problems.append({"split": split, "line": str(line), "reason": reason, "detail": detail})

    @property
    def ok(self) -> bool:
        """Whether every line can be used; short clips are warnings."""
        return bool(self.counts) and all(p["reason"] == "short" for p in self.problems)

    @property
    def exit_status(self) -> int:
        """0 when ready, 1 when not: what the command returns."""
        return 0 if self.ok else 1

    def table(self) -> "pd.DataFrame":
        """Lines per reason (rows) and split (columns)."""
        import pandas as pd

        there = [r for r in REASONS if any(r in c for c in self.counts.values())]
        return pd.DataFrame(self.counts).reindex(there).fillna(0).astype(int).rename_axis("reason")

    def text(
        self,
        most: int = 20,  # places to print; the JSON file has all of them
    ) -> str:  # several lines
        """Whether it is ready, counts, notes and the first places, as plain text."""
        state = "ready" if self.ok else "not ready: mend or remove the lines below"
        places = [f"{p['split']}.txt, line {p['line']}: {p['reason']}: {p['detail']}" for p in self.problems]
        more = [f"... and {len(places) - most} more"] if len(places) > most else []
        head = [f"{self.root}: {self.classes} classes, {state}", self.table().to_string()]
        return "\n".join([*head, *(f"note: {n}" for n in self.notes), *places[:most], *more])

    def __str__(self) -> str:
        return self.text()

    def save(
        self,
        folder: str | Path | None = None,  # where to write; default: the dataset folder
    ) -> Path:  # path of `check.json`; `check.txt` lies beside it
        """Write `check.json` (all places) and `check.txt`."""
        folder = Path(folder or self.root)
        write_atomic(folder / "check.txt", self.text(most=1000) + "\n")
        found = asdict(self) | {"ok": self.ok}
        return write_atomic(folder / "check.json", json.dumps(found, indent=1) + "\n")


def recount(root: Path, classes: int, report: CheckReport) -> list[str]:
    """Compare the number of classes with the one written: one line more shifts the labels behind it."""
    file = root / "lists.json"
    if not file.exists():
        return []
    try:
        wrote = int(read_json(file)["classes"])
    except (ValueError, TypeError, KeyError) as err:
        raise fault(
            file, f"does not say how many classes there are ({err})", "Make the lists again."
        ) from err
    if wrote == classes:
        return []
    detail = f"category.txt has {classes} classes, the lists were written for {wrote}: make them again"
    report.problems.append(
        {"split": "category", "line": "1", "reason": "class count wrong", "detail": detail}
    )
    return [detail]


def absent_classes(split: str, names: Sequence[str], labels: set[int]) -> list[str]:
    """A note on the classes without a line."""
    absent = sorted(set(names) - {names[label] for label in labels})
    if not absent:
        return []
    return [f"{split}.txt: no line for {len(absent)} classes: {', '.join(absent[:5])}"]
