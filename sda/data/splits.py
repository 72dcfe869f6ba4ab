"""Splits of clips that come without one: stated by the files, drawn by seed, or held out by source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..foundation.errors import DataError, SettingError, unknown_name
from .annotations import ListReport, records_csv, records_folder, split_records
from .annotations.base import SPLITS
from .lists import Record
from .official import Splits


def parts_of(
    records: list[Record], report: ListReport, shares: Mapping[str, float], seed: int, of: str
) -> Splits:
    """Whole sources by split, none of them empty, with a note in each report."""
    parts = split_records(records, shares, seed, report.sources)
    sources = len(set(report.sources.values()))
    if not all(parts.values()):
        clips = f"{len(records)} clip(s) of {sources} source(s)"
        text = f"{clips} cannot be split into {' and '.join(parts)}."
        raise DataError(text, remedy="Add clips of another source.")
    kind = "" if sources == len(records) else f", {sources} sources kept whole"
    found = {}
    for split, part in parts.items():
        note = f"{len(part):,} of the {len(records):,} {of}, drawn with seed {seed}{kind}"
        found[split] = part, replace(report, notes=[*report.notes, note])
    return found


@dataclass(frozen=True)
class OwnOptions:
    """How clips of one's own are read and split, as the options say."""

    group: str | None = None
    share: Sequence[float] = ()
    hold_out_group: Sequence[str] = ()
    hold_out: float = 0.0
    split: str | None = None
    columns: Sequence[str] = ()
    delimiter: str | None = None
    seed: int = 0

    def shares(self) -> dict[str, float]:
        """Split -> share."""
        if self.share and self.hold_out:
            raise SettingError("share and hold_out both say how large val is: give one.", subject="share")
        share = tuple(self.share) or ((1 - self.hold_out, self.hold_out) if self.hold_out else (0.8, 0.2))
        if not 2 <= len(share) <= 3 or not all(0 < s < 1 for s in share) or abs(sum(share) - 1) > 1e-6:
            text = f"share {' '.join(f'{s:g}' for s in share)}: two or three shares of train, val and test"
            raise SettingError(f"{text} that add up to 1, as in .7 .15 .15.", subject="share")
        return dict(zip(SPLITS, share, strict=False))


def read_own(media: Path, table: Path | None, own: OwnOptions) -> tuple[Splits, list[str]]:
    """Records of a folder or a table, split as they say or by seed; what a group joins stays together."""
    if table is None:
        records, names, report = records_folder(media, own.group)
    else:
        records, names, report = records_csv(
            table,
            group=own.group,
            root=media,
            split=own.split,
            columns=own.columns,
            delimiter=own.delimiter,
        )
    asked = own.share or own.hold_out_group
    if report.splits and asked:
        remedy = "Leave --share and --hold-out-group away"
        remedy += (
            ", or pass --split-column none." if table else ": its folders train, val and test are the split."
        )
        raise SettingError(f"{table or media} states a split.", subject=str(table or media), remedy=remedy)
    if report.splits:
        found = _stated(records, report)
        return (held_out(found, own.hold_out, own.seed) if own.hold_out else found), names
    if own.hold_out_group:
        return _without_groups(records, report, own), names
    return parts_of(records, report, own.shares(), own.seed, "clips"), names


def _stated(records: list[Record], report: ListReport) -> Splits:
    """The split that the files state; a source on two sides and a missing part are told."""
    parts = {s: [r for r in records if report.splits[r.id] == s] for s in SPLITS}
    sides: dict[str, set[str]] = {}
    for r in records:
        sides.setdefault(report.sources[r.id], set()).add(report.splits[r.id])
    notes = []
    if torn := [source for source, where in sides.items() if len(where) > 1]:
        notes.append(f"{len(torn)} source(s) on both sides of the stated split, e.g. {torn[0]}")
    if not parts["val"]:
        notes.append("no val: hold some of train out (--hold-out .1), or train with --val test")
    told = f"of the {len(records):,} clips, as stated"
    return {
        s: (part, replace(report, notes=[*report.notes, f"{len(part):,} {told}", *notes]))
        for s, part in parts.items()
        if part
    }


def _without_groups(records: list[Record], report: ListReport, own: OwnOptions) -> Splits:
    """The named sources become test, the others are split into train and val."""
    known = sorted(set(report.sources.values()))
    for group in own.hold_out_group:
        if group not in known:
            raise unknown_name("group", group, known, 10)
    shares = own.shares()
    if len(shares) > 2:
        text = "share: two numbers, of train and val; the groups of --hold-out-group are test."
        raise SettingError(text, subject="share")
    out = [r for r in records if report.sources[r.id] in own.hold_out_group]
    rest = [r for r in records if report.sources[r.id] not in own.hold_out_group]
    sources = {r.id: report.sources[r.id] for r in rest}
    found = parts_of(rest, replace(report, sources=sources), shares, own.seed, "other clips")
    note = f"{len(out):,} of the {len(records):,} clips, held out: {', '.join(own.hold_out_group)}"
    return found | {"test": (out, replace(report, notes=[*report.notes, note]))}


def held_out(found: Splits, share: float, seed: int) -> Splits:
    """A part of train becomes val, whole sources at a time."""
    if not 0 < share < 1:
        raise SettingError(f"hold_out={share} must lie between 0 and 1, e.g. 0.1.")
    if "val" in found or "train" not in found:
        there = ", ".join(found)
        raise SettingError(f"hold_out is for datasets with train and without val; there are {there}.")
    records, report = found["train"]
    return found | parts_of(records, report, {"train": 1 - share, "val": share}, seed, "records of train")
