"""How the pictures of a folder are numbered: the one template that fits them all, and their numbers."""

import re
from pathlib import Path

from ...foundation.errors import SettingError, VideoError
from ...foundation.files import IMAGE_SUFFIXES
from .usable import unusable


def named_alike(names: list[str]) -> dict[tuple[str, str], list[str]]:
    """Digits of numbered pictures by the text around; of several numbers in a name, the last that changes."""
    shapes: dict[tuple[str, ...], list[list[str]]] = {}
    for name in names:
        suffix = Path(name).suffix
        if suffix.lower() in IMAGE_SUFFIXES and not set("{}") & set(name):
            parts = re.split("([0-9]+)", name.removesuffix(suffix))  # text, digits, text, ...
            if len(parts) > 1:
                shapes.setdefault((*parts[::2], suffix), []).append(parts)
    groups: dict[tuple[str, str], list[str]] = {}
    for shape, found in shapes.items():
        places = range(1, len(found[0]), 2)
        changing = [n for n in places if len({parts[n] for parts in found}) > 1]
        at = (changing or places)[-1]
        for parts in found:
            if len(parts[at]) <= 12:
                ends = "".join(parts[:at]), "".join(parts[at + 1 :]) + shape[-1]
                groups.setdefault(ends, []).append(parts[at])
    return groups


def find_template(names: list[str], source: str | Path) -> tuple[str, list[int]]:
    """How numbered pictures are named, and which numbers there are; `source` is for messages."""
    groups = named_alike(names)
    if not groups:
        what = f"has no numbered pictures ({', '.join(IMAGE_SUFFIXES)})"
        raise unusable(source, what, "extract frames into it")
    if len(groups) > 1:
        kinds = sorted(f"{a}NUMBER{b} ({len(v)})" for (a, b), v in groups.items())
        what = f"mixes frames of several names: {', '.join(kinds[:5])}{' ...' if len(kinds) > 5 else ''}"
        remedy = "keep one kind in the folder; from Python, say which with template='img_{:05d}.jpg'"
        raise unusable(source, what, remedy)
    (before, after), digits = groups.popitem()
    width = min(map(len, digits))
    template = f"{before}{{:0{width}d}}{after}"
    numbers = sorted(map(int, digits))
    if odd := set(digits) - {f"{n:0{width}d}" for n in numbers}:
        what = f"holds {before}{min(odd)}{after}, which does not fit {template}"
        raise unusable(source, what, "number all frames the same way")
    return template, numbers


def numbers_of(names: list[str], template: str, source: str | Path) -> list[int]:
    """The frame numbers that a template such as `img_{:05d}.jpg` stands for."""
    m = re.fullmatch(r"([^{}]*)\{(?::0?(\d{0,2})d?)?\}([^{}]*)", template)
    if not m:
        text = f"template {template!r} needs one place for the number, as in 'img_{{:05d}}.jpg'"
        raise SettingError(text, subject=template)
    shape = re.compile(re.escape(m[1]) + r"([0-9]{1,12})" + re.escape(m[3]))
    found = [(int(hit[1]), name) for name in names if (hit := shape.fullmatch(name))]
    numbers = sorted(n for n, name in found if template.format(n) == name)
    if not numbers:
        there = ", ".join(sorted(names)[:3]) or "nothing"
        text = f"{source}: no file fits template {template!r}; it holds {there} ..."
        raise VideoError(text, subject=str(source))
    return numbers
