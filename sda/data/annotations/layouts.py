"""Folders of classes and tables of clips become records; what is no clip is counted under a reason."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ...foundation.errors import DataError
from ...foundation.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..lists import Record
from ..texts import fault, one_line
from .base import Gather, ListReport, in_order, join, outside, split_named
from .own import name_groups
from .tables import Places, Table, read_clip_table

__all__ = ["records_csv", "records_folder", "table_root"]


def _kind(path: Path) -> str:
    """ "clip" for a video or a folder of frames, "folder" where there may be clips; else why it is none."""
    if path.name.startswith("."):
        return "hidden file"
    if not path.exists():
        return "broken link"
    if path.is_dir():
        inside = [p for p in path.iterdir() if not p.name.startswith(".")]
        has = any(p.suffix.lower() in IMAGE_SUFFIXES for p in inside)
        videos = any(p.suffix.lower() in VIDEO_SUFFIXES and not p.is_dir() for p in inside)
        if videos or (any(p.is_dir() for p in inside) and not has):
            return "folder"
        return "clip" if has else "folder without frames"
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return "not a video"
    return "clip" if path.stat().st_size else "empty file"


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Everything below a class with its kind, folders of folders opened; a link back up is not followed."""
    above = (*above, folder.resolve())
    for path in sorted(folder.iterdir()):
        kind = _kind(path)
        if kind != "folder":
            yield path, kind
        elif path.resolve() in above:
            yield path, "link to a folder above"
        else:
            yield from _walk(path, above)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted."""
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def split_folders(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Split -> folder, where folders called train, val and test hold classes; and the folders beside them."""
    tops: dict[str, Path] = {}
    others = []
    for path in _folders(folder):
        split = split_named(path.name)
        if split is None or not any(_kind(p) == "folder" for p in _folders(path)):
            others.append(path)
        elif split in tops:
            what = f"{tops[split].name} and {path.name} both are {split}"
            raise fault(folder, what, "Rename or remove one of them.")
        else:
            tops[split] = path
    if "train" not in tops:
        return {}, []
    if mixed := [p.name for p in others if any(kind == "clip" for _, kind in _walk(p))]:
        what = (
            f"{mixed[0]} holds clips beside {' and '.join(p.name for p in tops.values())}, which hold classes"
        )
        raise fault(folder, what, "Keep one folder per class, or train, val and test with classes in them.")
    # a part alone is split like any folder
    return (tops if len(tops) > 1 else {"": tops["train"]}), [p.name for p in others]


def _grouped(report: ListReport, labels: Mapping[str, int], group: str | None) -> None:
    """Fill in the sources that the files do not say, and tell how."""
    found = {} if group else name_groups(labels)
    if found:
        count = len(set(found.values()))
        few = ", ".join(sorted(set(found.values()))[:3])
        note = f"clips that begin alike stay together: {count} groups ({few}, ...); group none separates them"
        report.notes.append(note)
    for key in labels:
        report.sources.setdefault(key, found.get(key, key))


def records_folder(
    folder: str | Path,  # folder with one sub-folder per class, perhaps below train, val and test
    # source of a clip from its path; None: the folder below its class, or how its name begins; "none": itself
    group: Callable[[Path], str] | str | None = None,
) -> tuple[list[Record], list[str], ListReport]:  # records (ids relative to `folder`), class names, ledger
    """Records of `folder/CLASS/clip`: videos or folders of frames; class names are the folders, in order."""
    folder = Path(folder)
    if not folder.is_dir():
        raise fault(folder, "is not a folder", "Give the folder that holds one folder per class.")
    report = ListReport("folder", "one folder per class")
    tops, beside = split_folders(folder)
    tops = tops or {"": folder}
    found = [
        (s, c, list(_walk(c, (folder.resolve(), top.resolve()))))
        for s, top in tops.items()
        for c in _folders(top)
    ]
    names = in_order(c.name for _, c, items in found if any(kind == "clip" for _, kind in items))
    labels: dict[str, int] = {}
    records = []
    for split, home, items in found:
        for path, kind in items:
            key = path.relative_to(folder).as_posix()
            report.add("kept" if kind == "clip" else kind, key)
            if kind != "clip":
                continue
            labels[key] = names.index(home.name)
            records.append(Record(key, path.as_posix(), labels[key]))
            below = path.relative_to(home).parts
            if split:
                report.splits[key] = split
            if callable(group):
                report.sources[key] = group(Path(key))
            elif group is None and len(below) > 1:
                report.sources[key] = below[0]
    if not records:
        remedy = f"Put them into one folder per class: {folder}/CLASS/clip ({' '.join(VIDEO_SUFFIXES)})"
        raise fault(
            folder, "holds no clips in folders", f"{remedy}, or write {folder}/clips.csv: path,label."
        )
    report.variant += f", below {', '.join(tops)}" if report.splits else ""
    report.variant += ", grouped by the folders in it" if group is None and report.sources else ""
    _grouped(report, labels, "named" if group else None)
    if beside:
        report.notes.append(f"folders not used: {', '.join(beside)}")
    if empty := sorted({c.name for _, c, _ in found} - set(names)):
        report.notes.append(f"folders without clips are no classes: {', '.join(empty)}")
    return records, names, report


def table_root(
    table: Table,  # with the paths of the clips
) -> Path:  # folder of the table, or of all clips where every path is absolute and there
    """The folder that the paths of a table start from."""
    paths = [Path(row["path"]) for _, row in table.cells()]
    if all(path.is_absolute() and path.exists() for path in paths):
        return Path(os.path.commonpath([path.parent for path in paths]))
    return table.file.parent


def records_csv(
    file: str | Path,  # table of clips; separated by commas, semicolons, tabs, bars or blanks
    path: str | None = None,  # column with the clip's path; None: recognised by its name, as all columns are
    label: str | None = None,  # column with the class name
    group: str | None = None,  # column with the source of the clip, for splitting; "none": none
    class_names: Sequence[str] | None = None,  # class names by number; default: the labels in order
    root: str | Path | None = None,  # folder that the paths start from; default: the table's own
    strict: bool = True,  # stop at the first bad row instead of counting it
    split: str | None = None,  # column that says train, val or test; "none": none
    columns: Sequence[str] = (),  # names in order for a table without header, or role=column
    delimiter: str | None = None,  # of the columns; None: seen from the first line
) -> tuple[list[Record], list[str], ListReport]:  # records, class names by number, ledger
    """Records of a table of clips; the path is the id, so it may come once."""
    table = read_clip_table(file, columns, delimiter, path=path, label=label, group=group, split=split)
    root = table_root(table) if root is None else Path(root)
    cells = list(table.cells())
    names = list(class_names or in_order(row["label"] for _, row in cells if row["label"]))
    roles = ", ".join(f"{table.column(r)} ({r})" for r in table.roles)
    report = ListReport("table", f"{table.file.name}: {roles}")
    if table.unused:
        report.notes.append(f"columns not used: {', '.join(table.unused)}")
    gather = Gather(report, strict, file)
    places = Places(root, file)
    rows = _Rows(gather, places, {n: i for i, n in enumerate(names)})
    for where, row in cells:
        rows.take(where, row)
    _grouped(report, {r.id: r.label for r in gather.records}, "named" if group else table.column("group"))
    if places.taken_off:
        report.notes.append(f"beginnings of paths taken off: {', '.join(sorted(places.taken_off))}")
    return gather.records, names, report


class _Rows:
    """Turns the rows of a table into records, sources and splits."""

    def __init__(self, gather: Gather, places: Places, numbers: Mapping[str, int]):
        self.gather = gather
        self.places = places
        self.numbers = numbers

    def take(self, where: str, row: Mapping[str, str]) -> None:
        """Keep, skip or refuse one row."""
        gather = self.gather
        if not row["path"]:
            return gather.refuse(where, "no path", "the path is empty", "Fill it in.")
        if not row["label"]:
            return gather.skip(where, "unlabelled")
        try:
            text = one_line(row["label"], where, "class")
            one_line(row["path"], where, "path")
        except DataError as err:
            remedy = err.remedy or ""
            what = str(err).removeprefix(f"{where}: ").removesuffix(f" {remedy}").rstrip(".")
            return gather.refuse(where, "not one line", what, remedy)
        side = split_named(row.get("split", ""))
        if row.get("split") and side is None:
            remedy = "Write train, val or test, or pass split none (--split-column none)."
            return gather.refuse(where, "unknown split", f"split {row['split']!r}", remedy)
        if "split" in row and side is None:
            return gather.skip(where, "no split")
        key = self.places.find(row["path"], text)
        if leaves := outside(self.places.root, key, links=True):
            return gather.refuse(
                where, "path leaves the root", leaves, "Name the folder of the clips (--media)."
            )
        number = gather.label(text, self.numbers, where)
        if number is not None and gather.keep(Record(key, join(self.places.root, key), number), where):
            gather.report.sources.update({key: row["group"]} if row.get("group") else {})
            gather.report.splits.update({key: side} if side else {})
