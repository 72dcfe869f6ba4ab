"""Files beside the lists of a dataset, each of which may be absent: groups and pairs of classes, masks."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..foundation.errors import DataError
from ..foundation.files import write_atomic
from ..foundation.reading import read_arrays, read_json
from .texts import numbered_lines

_GROUPS = 'write {"attribute": {"class name": "group"}} with every class of category.txt, or delete the file'


def checked_groups(file: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Attribute -> class name -> group, from a `groups.json` that has every one of these classes."""
    found = read_json(file, _GROUPS)
    for attribute, groups in found.items() if isinstance(found, dict) else [("", found)]:
        if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
            raise DataError(
                f"{file}: {attribute!r} maps no classes to groups", subject=str(file), remedy=_GROUPS
            )
        if odd := sorted(set(names) ^ set(groups)):
            which = "no class of category.txt" if odd[0] in groups else "without a group"
            raise DataError(f"{file}: {attribute!r}: {odd[0]!r} is {which}", subject=odd[0], remedy=_GROUPS)
    return found


def write_groups(
    folder: str | Path,  # Dataset folder, with category.txt
    groups: Mapping[str, Mapping[str, str]],  # Attribute -> class name -> group, in the order for tables
) -> Path:  # The file
    """Write `groups.json`, from which `read_groups` reads."""
    text = json.dumps(groups, indent=1, ensure_ascii=False) + "\n"
    return write_atomic(Path(folder) / "groups.json", text)


def checked_pairs(file: Path, names: list[str]) -> list[tuple[str, str]]:
    """Pairs of these class names, from a `pairs.txt` with a tab between the two of a line."""
    pairs = []
    for number, line in numbered_lines(file):
        first, _, second = (part.strip() for part in line.partition("\t"))
        if odd := [name for name in (first, second) if name not in names]:
            raise DataError(
                f"{file}:{number}: {odd[0]!r} is no class of category.txt",
                subject=odd[0],
                choices=sorted(names),
                remedy="write two class names with a tab between them",
            )
        pairs.append((first, second))
    return pairs


def read_masks(
    folder: str | Path,  # Dataset folder, with truth/SPLIT.npz
    ids: Iterable[str],  # Clips, as their records are called
) -> dict[str, dict[str, np.ndarray]]:  # Kind, e.g. "object" -> id -> bool [T,H,W], all frames of the file
    """Where the object of a clip is, and what tells its class, for datasets that know."""
    files = sorted(Path(folder, "truth").glob("*.npz"))
    wanted = {Path(i).with_suffix("").as_posix(): i for i in ids}
    found: dict[str, dict[str, np.ndarray]] = {}
    for file in files:
        stored = read_arrays(file)
        kinds = {name: array for name, array in stored.items() if array.dtype == np.uint8}
        for row, name in enumerate(map(str, stored["ids"])):
            if name not in wanted:
                continue
            for kind, packed in kinds.items():
                bits = np.unpackbits(packed[row], axis=-1).astype(bool)
                side = math.isqrt(bits.shape[-1])
                found.setdefault(kind, {})[wanted[name]] = bits.reshape(-1, side, side)
    known = next(iter(found.values()), {})
    if missing := [i for i in wanted.values() if i not in known]:
        raise DataError(
            f"{folder} has no masks of {len(missing)} clips, the first is {missing[0]!r}",
            subject=missing[0],
            remedy="take a dataset whose folder `truth` holds them",
        )
    return {kind: {i: masks[i] for i in wanted.values()} for kind, masks in found.items()}
