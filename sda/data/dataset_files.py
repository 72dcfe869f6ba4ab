"""The folder of a dataset: lists, class names and where they came from; the cache of its decoded clips."""

import os
from pathlib import Path
from typing import Any

from ..foundation.errors import DataError, unknown_name
from ..foundation.reading import read_json
from .cache import FrameCache, build_cache
from .lists import Record, read_classes, read_list
from .sources import open_record


def listed(root: Path, split: str) -> tuple[list[Record], list[str]]:
    """The clips of a split and the class names, from a folder in the common layout."""
    missing = [name for name in ("category.txt", "img", "trainValTest") if not (root / name).exists()]
    if missing:
        raise DataError(
            f"{root} lacks {', '.join(missing)}; a dataset folder has category.txt, img/ and trainValTest/"
        )
    splits = sorted(f.stem for f in (root / "trainValTest").glob("*.txt"))
    if split not in splits:
        raise unknown_name("split", split, splits)
    names = read_classes(root / "category.txt")
    return read_list(root / "trainValTest" / f"{split}.txt", root / "img", names), names


def source_of(
    root: str | Path,  # Dataset folder
    split: str,  # Name of a list, e.g. "test"
) -> str:  # e.g. "Diving48 V2 (by file name)"; empty for clips of your own
    """Dataset and release that a list was made from, as `sda.data.assembly.make_dataset` left it there."""
    file = Path(root) / "source.json"
    if not file.exists():
        return ""
    try:
        found = read_json(file)
        return f"{found['dataset']} {found['variants'].get(split, '')}".strip()
    except (KeyError, TypeError, AttributeError) as err:
        remedy = "make the lists again, or delete it"
        raise DataError(f"{file} names no dataset; {remedy}", subject=str(file), remedy=remedy) from err


def kind_of(split: str, train: bool) -> str:
    """What the clips of a split are called; those that come from no list are called by how they are read."""
    return {"train": "training", "val": "validation"}.get(split, split or ("training" if train else "test"))


def some(records: list[Record]) -> list[Record]:
    """Refuse an empty list."""
    if not records:
        raise DataError("the list of records is empty; a dataset needs at least one clip")
    return records


def open_cache(records: list[Record], cache: bool | str | Path, progress: bool, options: dict) -> FrameCache:
    """Decode every clip once, into the folder asked for or into `cache` beside the clips' folder."""
    beside = Path(os.path.commonpath([Path(r.path).parent for r in records])).parent / "cache"
    folder = beside if isinstance(cache, bool) else Path(cache)
    return FrameCache(build_cache(records, folder, progress, **options))


def decoded_size(
    data: Any,  # Clips, nothing of which is decoded
) -> int | None:  # Bytes of all frames; None where the list does not tell a length
    """What a cache would take, by the lengths in the list and the size of the first clip."""
    counts = [record.num_frames for record in data.records if record.num_frames is not None]
    if len(counts) < len(data.records):
        return None
    height, width = open_record(data.records[0], **data.reader.options)[0].size
    return sum(counts) * height * width * 3
