"""One call from annotation files and folders to a dataset: find, read, measure, write, account for all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..foundation.errors import DataError, SettingError, unknown_name
from ..foundation.files import VIDEO_SUFFIXES, write_atomic
from .annotations import ListReport, at_native_rate
from .annotations.layouts import table_root
from .annotations.tables import NONE, read_clip_table
from .lists import Record
from .make import count_frames, write_dataset
from .official import (
    AUTO,
    DATASETS,
    OWN,
    TEXT_LISTS,
    Splits,
    found_source,
    read_epic,
    read_official,
    read_text_lists,
)
from .splits import OwnOptions, held_out, read_own
from .texts import fault

__all__ = ["make_dataset"]


def _measured(
    records: list[Record], report: ListReport, media: Path | None, progress: bool
) -> tuple[list[Record], list[ListReport]]:
    """Fill in lengths from the clips; without clips only lists that state them can be written."""
    stated = all(r.num_frames for r in records)
    if media is None:
        if stated:
            return records, [report]
        remedy = "Name the folder of the clips (media=, --media)."
        raise fault(report.dataset, "its files state no lengths", remedy)
    if report.times and not stated:
        placed = [replace(r, path=(media / r.path).as_posix()) for r in records]
        found, ledger = at_native_rate(placed, report.times, progress=progress)
    else:
        root = "" if report.dataset in ("folder", "table") else media
        found, ledger = count_frames(records, root, progress=progress)
    return found, [report, ledger]


def _check_request(dataset: str, annotations: object, media: object, own: OwnOptions) -> None:
    """Refuse what does not fit together, before anything is read."""
    if dataset not in DATASETS:
        raise unknown_name("dataset", dataset, DATASETS)
    if dataset == "folder" and annotations is not None:
        text = (
            "folder: takes no annotations. A table of clips is source csv, official files have their names."
        )
        raise SettingError(text)
    if own.group not in (None, NONE) and dataset != "csv":
        text = f"{dataset}: a group is a column of a table; name the table (csv), or pass group {NONE}."
        raise SettingError(text, subject="group")
    given: dict[str, object] = {"columns": own.columns, "delimiter": own.delimiter, "split_column": own.split}
    for name, said in given.items():
        if said and dataset != "csv" and said != NONE:
            raise SettingError(f"{dataset}: {name} is for tables (csv).", subject=name)
    for name, said in {"share": own.share, "hold_out_group": own.hold_out_group}.items():
        if said and dataset not in OWN:
            raise SettingError(f"{dataset}: {name} is for clips of your own.", subject=name)
    needed, value = ("media", media) if dataset == "folder" else ("annotations", annotations)
    if value is None:
        what = "table" if dataset == "csv" else "folder"
        raise SettingError(f"{dataset}: name the {what} ({needed}=, --{needed}).", subject=needed)


def make_dataset(
    root: str | Path,  # Dataset folder to write
    dataset: str = AUTO,  # One of `DATASETS`; "auto": found out from the files
    # Folder of the official files, or a table with path and label; None: the table in `media`, if any
    annotations: str | Path | None = None,
    media: str | Path | None = None,  # Folder of the clips; `root/img` becomes a link to it
    target: str = "verb",  # Of EPIC-KITCHENS: "verb" or "noun"
    frames: bool = False,  # Clips are folders of frames, not videos
    seed: int = 0,  # Of the split of your own clips
    overwrite: bool = False,  # Replace lists that say something else
    progress: bool = False,  # Show a bar while clips are opened
    group: str | None = None,  # Column with the source of a clip, which stays in one split; "none": none
    hold_out: float = 0.0,  # Share of train that becomes val, where there is no val (Diving48)
    share: Sequence[float] = (),  # Of train, val and perhaps test among your own clips (.8 .2)
    hold_out_group: Sequence[str] = (),  # Sources of your own clips that become test
    split_column: str | None = None,  # Column that says train, val or test; "none": none
    columns: Sequence[str] = (),  # Of a table without header, in order; or role=column
    delimiter: str | None = None,  # Of the table; None: seen from its first line
    fold: int = 1,  # Official split of UCF101 and HMDB51: 1, 2 or 3
) -> dict[str, list[ListReport]]:  # Split -> ledgers of the annotation file and of the clips
    """Write category.txt and the lists of a dataset; `lists.txt` keeps what was left out, and why."""
    own = OwnOptions(group, share, hold_out_group, hold_out, split_column, columns, delimiter, seed)
    source = None if annotations is None else Path(annotations)
    folder = None if media is None else Path(media)
    notes: list[str] = []
    if dataset == AUTO:
        dataset, source, notes = found_source(source, folder, columns, delimiter)
    _check_request(dataset, source, folder, own)
    if dataset == "csv" and folder is None:
        folder = table_root(read_clip_table(Path(source or ""), columns, delimiter))
    found, names = _read(dataset, source, folder, own, target, frames, fold)
    if dataset == "csv" and annotations is None and folder is not None:
        notes = _unlisted(folder, found)
    reports = {}
    lists = {}
    for split, (records, report) in found.items():
        report = replace(report, notes=[*report.notes, *notes])
        records, reports[split] = _measured(records, report, folder, progress) if records else ([], [report])
        if records:
            lists[split] = records
    if not lists:
        raise DataError(f"{root}: no clip can be used.\n{_ledgers_text(reports)}", subject=str(root))
    write_dataset(root, lists, names, folder, overwrite)
    _write_ledgers(Path(root), reports, len(names), lists)
    return reports


def _unlisted(media: Path, found: Splits) -> list[str]:
    """A note on the videos in a folder that the table found there does not name."""
    named = {Path(r.path) for records, _ in found.values() for r in records}
    videos = (p for p in media.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    left = sorted(p.relative_to(media).as_posix() for p in videos if p not in named)
    return [f"{len(left)} video(s) in {media} that the table does not name, e.g. {left[0]}"] if left else []


def _read(
    dataset: str,
    source: Path | None,
    folder: Path | None,
    own: OwnOptions,
    target: str,
    frames: bool,
    fold: int,
) -> tuple[Splits, list[str]]:
    """Records by split, and class names, of any dataset."""
    if dataset in OWN:
        return read_own(folder or Path(), source, own)
    files = source or Path()
    if dataset == "epic55":
        found, names = read_epic(files, target, frames)
    elif dataset in TEXT_LISTS:
        found, names = read_text_lists(dataset, files, fold, frames)
    else:
        found, names = read_official(dataset, files, frames)
    return (held_out(found, own.hold_out, own.seed) if own.hold_out else found), names


def _ledgers_text(reports: Mapping[str, list[ListReport]]) -> str:
    """All ledgers, one after the other."""
    return "\n\n".join(f"{split}.txt\n" + "\n".join(map(str, parts)) for split, parts in reports.items())


def _write_ledgers(
    root: Path,
    reports: Mapping[str, list[ListReport]],
    classes: int,
    lists: Mapping[str, Sequence[Record]],
) -> None:
    """`lists.txt`; for official files `source.json`, dataset and release of each split; else `lists.json`."""
    dataset = next(iter(reports.values()))[0].dataset
    write_atomic(root / "lists.txt", _ledgers_text(reports) + "\n")
    if dataset in ("folder", "table"):
        (root / "source.json").unlink(missing_ok=True)  # of what was here before
        counts = {"classes": classes, "lines": {split: len(records) for split, records in lists.items()}}
        write_atomic(root / "lists.json", json.dumps(counts) + "\n")
        return
    (root / "lists.json").unlink(missing_ok=True)
    variants = {split: parts[0].variant for split, parts in reports.items()}
    text = json.dumps({"dataset": dataset, "variants": variants}, indent=1) + "\n"
    write_atomic(root / "source.json", text)
