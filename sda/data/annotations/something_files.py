"""The official files of Something-Something: `id;label` lines, lists of labels, their numbers, templates."""

import re
from pathlib import Path
from typing import Any

from ..texts import fault, read_text
from .base import read_json


def clean_label(text: str) -> str:
    """A template without its square brackets and outer blanks; capitals stay, they are part of the name."""
    return " ".join(text.replace("[", "").replace("]", "").split())


def semicolons(path: str | Path) -> list[tuple[int, str, str | None]]:
    """Line number, id and label text (None in test files) of lines split at their first semicolon."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        key, mark, text = line.partition(";")
        key = key.strip().strip('"')
        where = f"{path}, line {number}"
        if not mark and "," in key:
            remedy = "The official file is `id;label`; a spreadsheet re-saved it."
            raise fault(where, "a comma but no semicolon", remedy)
        if not re.fullmatch(r"[\w-]+", key):
            raise fault(where, f"{key!r} is not an id", "Each line is `id;label`, without a header.")
        rows.append((number, key, text.strip().strip('"') or None))
    return rows


def label_lines(path: str | Path) -> list[str]:
    """The texts of a file of one label a line, brackets removed; a repeated label is an error."""
    seen: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        text = clean_label(line)
        if text in seen:
            what = f"label {text!r} stands already at line {seen[text]}"
            raise fault(f"{path}, line {number}", what, "Remove one.")
        if text:
            seen[text] = number
    return list(seen)


def label_numbers(path: str | Path) -> list[str]:
    """Label texts by number, from labels.json; the numbers must be 0..K-1, each once."""
    data = read_json(path, (dict, list))
    if isinstance(data, list):
        return [clean_label(str(t)) for t in data]
    try:
        labels = {clean_label(t): int(n) for t, n in data.items()}
    except (TypeError, ValueError) as err:
        raise fault(path, f"a class number is not an integer ({err})", "") from err
    if sorted(labels.values()) != list(range(len(data))):
        what = f"the {len(data)} numbers are not 0..{len(data) - 1}, each once"
        raise fault(path, what, "Use the official file.")
    return sorted(labels, key=labels.__getitem__)


def template_of(row: dict[str, Any], where: str) -> str | None:
    """The class of a row; None for test rows."""
    if "template" not in row and "label" in row:
        remedy = "`label` is the filled-in sentence; the class is in `template`."
        raise fault(where, "key 'template' is missing", remedy)
    return row.get("template")
