"""Which official files belong to which dataset, and who reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..foundation.errors import DataError, SettingError
from .annotations import (
    ListReport,
    records_diving48,
    records_epic55,
    records_something_v1,
    records_something_v2,
)
from .annotations.tables import looks_like_clips
from .annotations.textlists import PARTS, records_hmdb51, records_ucf101
from .lists import Record
from .texts import fault

Splits = dict[str, tuple[list[Record], ListReport]]  # split -> records and the adapter's report


@dataclass(frozen=True)
class _Official:
    """How the official files of a dataset are called, and who reads them."""

    read: Callable  # adapter: (annotations, labels, ...) -> records, class names, report
    labels: str  # pattern of the label file
    splits: Mapping[str, str]  # split -> pattern of its annotation file
    suffix: str | None = None  # of the videos; None where the official clips are folders of frames


_SOMETHING = {"train": "*train.json", "val": "*validation.json", "test": "*test.json"}


OFFICIAL = {
    "something_v1": _Official(
        records_something_v1, "*labels.csv", {"train": "*train.csv", "val": "*validation.csv"}
    ),
    "something_v2": _Official(records_something_v2, "*labels.json", _SOMETHING, ".webm"),
    "diving48": _Official(
        records_diving48, "*vocab*.json", {"train": "*train.json", "test": "*test.json"}, ".mp4"
    ),
}


TEXT_LISTS = {"ucf101": records_ucf101, "hmdb51": records_hmdb51}


OWN = ("folder", "csv")


AUTO = "auto"


DATASETS = (AUTO, *OFFICIAL, "epic55", *TEXT_LISTS, *OWN)  # what `make_dataset` understands


_TOLD_BY = {  # dataset -> files that no other has
    "ucf101": ("classInd.txt",),
    "hmdb51": ("*_test_split*.txt",),
    "epic55": ("EPIC_*_classes.csv",),
    "diving48": ("*vocab*.json",),
    "something_v2": ("*labels.json",),
    "something_v1": ("*labels.csv",),
}


def found_source(
    annotations: Path | None, media: Path | None, columns: Sequence[str], delimiter: str | None
) -> tuple[str, Path | None, list[str]]:
    """The dataset that files and folders show, its annotations, and what a reader must know."""
    if annotations is not None and annotations.is_dir():
        fits = [n for n, patterns in _TOLD_BY.items() if any(fits_pattern(annotations, p) for p in patterns)]
        if fits:
            return fits[0], annotations, []
        text = f"{annotations} holds no annotation files that are known here."
        raise DataError(
            text, subject=str(annotations), choices=DATASETS, remedy="Say whose they are: --source."
        )
    if annotations is not None:
        return "csv", annotations, []
    if media is None:
        raise SettingError("name the folder of your clips (media=, --media).")
    tables = [p for suffix in (".csv", ".tsv") for p in sorted(media.glob(f"*{suffix}")) if p.is_file()]
    found = [p for p in tables if looks_like_clips(p, columns, delimiter)]
    if len(found) > 1:
        names = [p.name for p in found]
        text = f"{media} holds several tables of clips: {', '.join(names)}."
        raise DataError(text, subject=str(media), choices=names, remedy="Name one: --annotations TABLE.")
    notes = [f"{p.name} is no table of clips (no columns path and label) and was not used" for p in tables]
    return ("csv", found[0], []) if found else ("folder", None, notes)


def fits_pattern(folder: Path, pattern: str) -> bool:
    """Whether a folder has a file of that pattern."""
    return any(folder.glob(pattern))


def find_file(folder: Path, pattern: str) -> Path | None:
    """The one file of that pattern, None when there is none; several are an error."""
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        raise fault(folder, f"{found[0].name} and {found[1].name} both fit {pattern}", "Keep one release.")
    return found[0] if found else None


def read_official(dataset: str, folder: Path, frames: bool) -> tuple[Splits, list[str]]:
    """Records by split, and class names, of a dataset in `OFFICIAL`."""
    source = OFFICIAL[dataset]
    labels = find_file(folder, source.labels)
    files = {split: find_file(folder, pattern) for split, pattern in source.splits.items()}
    if labels is None or not any(files.values()):
        wanted = source.labels if labels is None else " or ".join(source.splits.values())
        remedy = f"Give the folder of the official files of {dataset}."
        raise DataError(f"{folder} has no {wanted}.", subject=str(folder), remedy=remedy)
    found: Splits = {}
    names: list[str] = []
    for split, file in files.items():
        if file is None:
            continue
        options: dict[str, Any] = {}
        if source.suffix is not None:
            options["suffix"] = "" if frames else source.suffix
        if dataset == "something_v2" and split == "test":
            options["answers"] = find_file(folder, "*answers*.csv")
        records, names, report = source.read(file, labels, **options)
        found[split] = records, report
    releases = {report.variant.split()[0]: split for split, (_, report) in found.items()}
    if dataset == "diving48" and len(releases) > 1:
        mixed = " and ".join(f"{r} ({s})" for r, s in releases.items())
        text = f"{folder} mixes {mixed}: their labels disagree."
        raise DataError(text, subject=str(folder), remedy="Keep one release.")
    return found, names


def read_text_lists(dataset: str, folder: Path, fold: int, frames: bool) -> tuple[Splits, list[str]]:
    """Records by split, and class names, of UCF101 or HMDB51: train and test of one official split."""
    found: Splits = {}
    names: list[str] = []
    for split in PARTS:
        records, names, report = TEXT_LISTS[dataset](folder, split, fold, frames=frames)
        found[split] = records, report
    return found, names


def read_epic(folder: Path, target: str, frames: bool) -> tuple[Splits, list[str]]:
    """Records by split, and class names, of EPIC-KITCHENS-55."""
    found: Splits = {}
    names: list[str] = []
    for split in ("train", "val"):
        records, names, report = records_epic55(folder, target, split, source="frames" if frames else "video")
        found[split] = records, report
    return found, names
