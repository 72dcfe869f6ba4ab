"""The text lists of UCF101 and HMDB51: three official splits each, classes by number or by file."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...foundation.errors import unknown_name
from ..lists import Record
from ..texts import fault, numbered_lines
from .base import Gather, ListReport, join

__all__: list[str] = []

PARTS = ("train", "test")  # of every official split
FOLDS = (1, 2, 3)


def _check(split: str, fold: int) -> None:
    """Refuse what these lists do not have."""
    if split not in PARTS:
        raise unknown_name("split", split, PARTS)
    if fold not in FOLDS:
        raise unknown_name("fold", fold, map(str, FOLDS))


def _stem(name: str, frames: bool) -> str:
    """The path of a clip: a video, or the folder of frames that is called like it."""
    return re.sub(r"\.\w+$", "", name) if frames else name


def _classes(file: Path) -> list[str]:
    """Class names from lines `number name`, numbers from 1 in order."""
    names: list[str] = []
    for line, text in numbered_lines(file):
        number, _, name = text.partition(" ")
        if number != str(len(names) + 1) or not name.strip():
            what = f"{text!r} where class {len(names) + 1} was expected"
            raise fault(f"{file}, line {line}", what, "Use the official file.")
        names.append(name.strip())
    return names


def records_ucf101(
    folder: str | Path,  # folder of classInd.txt, trainlist01.txt, testlist01.txt and so on
    split: str = "train",  # "train" or "test"
    fold: int = 1,  # official split 1, 2 or 3
    root: str | Path = "",  # put in front of each path
    frames: bool = False,  # clips are folders of frames
    strict: bool = True,  # stop at the first bad row instead of counting it
) -> tuple[list[Record], list[str], ListReport]:  # records, class names by number, ledger with groups
    """Records of UCF101: lines `Class/v_Class_g01_c01.avi 1`; clips of one group were cut from one video."""
    _check(split, fold)
    names = _classes(Path(folder) / "classInd.txt")
    numbers = {name: k for k, name in enumerate(names)}
    file = Path(folder) / f"{split}list{fold:02d}.txt"
    report = ListReport("UCF101", f"official split {fold}", split, "official class numbers")
    gather = Gather(report, strict, file)
    for line, text in numbered_lines(file):
        where = f"{file}, line {line}"
        found = re.fullmatch(r"(\S.*?/.*?\.\w+)(?:\s+(\d+))?", text.replace("\\", "/"))
        if not found:
            gather.refuse(where, "not a clip", f"{text!r} is not Class/clip.avi", "Use the official file.")
            continue
        key, number = found.groups()
        label = gather.label(key.split("/")[-2], numbers, where)
        if label is None:
            continue
        if number and int(number) != label + 1:
            what = f"class {number} is not {names[label]!r}, which is {label + 1}"
            gather.refuse(where, "class number wrong", what, "Use lists of one release.")
            continue
        path = _stem(key, frames)
        if gather.keep(Record(path, join(root, path), label), where):
            group = re.search(r"(.*_g\d+)_c\d+", path)
            report.sources[path] = group[1] if group else path
    return gather.records, names, report


def records_hmdb51(
    folder: str | Path,  # folder of CLASS_test_split1.txt, one file a class
    split: str = "train",  # "train" or "test"
    fold: int = 1,  # official split 1, 2 or 3
    root: str | Path = "",  # put in front of each path
    frames: bool = False,  # clips are folders of frames
    strict: bool = True,  # stop at the first bad row instead of counting it
) -> tuple[list[Record], list[str], ListReport]:  # records, class names, ledger with groups
    """Records of HMDB51: lines `clip.avi 1` (train), `2` (test) or `0` (unused); clips are CLASS/clip.avi."""
    _check(split, fold)
    end = f"_test_split{fold}.txt"
    files = sorted(Path(folder).glob(f"*{end}"))
    if not files:
        raise fault(folder, f"has no *{end}", "Give the folder of the official split files.")
    names = [file.name.removesuffix(end) for file in files]
    report = ListReport("HMDB51", f"official split {fold}", split)
    records: list[Record] = []
    for label, file in enumerate(files):
        gather = Gather(report, strict, file)
        for line, text in numbered_lines(file):
            _one_of_hmdb51(gather, f"{file}, line {line}", text, (names[label], label, split, root, frames))
        records += gather.records
    return records, names, report


def _one_of_hmdb51(gather: Gather, where: str, text: str, of: Sequence) -> None:
    """Keep, skip or refuse one line of a class."""
    name, label, split, root, frames = of
    clip, _, mark = text.rpartition(" ")
    if mark not in ("0", "1", "2") or not clip.strip():
        gather.refuse(where, "not a clip", f"{text!r} is not `clip.avi 0|1|2`", "Use the official file.")
    elif mark == "0":
        gather.skip(where, "not in this split")
    elif PARTS[int(mark) - 1] != split:
        gather.skip(where, "of the other part")
    else:
        path = _stem(f"{name}/{clip.strip()}", frames)
        if gather.keep(Record(path, join(root, path), label), where):
            gather.report.sources[path] = re.sub(r"_\d+(\.\w+)?$", "", path)
