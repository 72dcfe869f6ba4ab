"""The adapters on made-up files, bad input and, where `SDA_ANNOTATIONS` points, the official files."""

import json
import os
import signal
from collections import Counter
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sda.data.annotations import (
    ListReport,
    at_native_rate,
    records_csv,
    records_diving48,
    records_epic55,
    records_folder,
    records_something_v1,
    records_something_v2,
    split_records,
)
from sda.data.annotations.epic import native_window
from sda.data.annotations.something import RAW_SSV1_PAIRS, clean_label, name_order, side_pairs
from sda.data.assembly import make_dataset
from sda.data.check import check_dataset
from sda.data.datasets import ClipDataset, open_dataset
from sda.data.lists import Record, read_list
from sda.data.make import count_frames, write_dataset
from sda.foundation.errors import DataError, FolderError, SettingError, UnknownNameError
from sda.foundation.files import write_atomic

OFFICIAL = Path(os.environ.get("SDA_ANNOTATIONS", "no-annotations"))
needs_epic = pytest.mark.skipif(
    not (OFFICIAL / "epic-kitchens-55").is_dir(), reason="SDA_ANNOTATIONS has no EPIC-55"
)
needs_v2 = pytest.mark.skipif(
    not (OFFICIAL / "something-something-v2").is_dir(), reason="SDA_ANNOTATIONS has no SSv2"
)
LABELS = [
    "Waving something",
    "Balancing something, then letting go",
    "Nudging something from right to left",
    "Nudging something from left to right",
    "[Something] rolling",
]


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def v1(tmp_path, rows, labels=None):
    return (
        put(tmp_path / "something-something-v1-train.csv", rows),
        put(tmp_path / "labels.csv", "\n".join(labels or LABELS) + "\n"),
    )


def v2(tmp_path, rows, labels=None):
    names = sorted(clean_label(n) for n in LABELS)
    return (
        put(tmp_path / "train.json", rows if isinstance(rows, str) else json.dumps(rows)),
        put(tmp_path / "labels.json", labels or json.dumps({n: str(i) for i, n in enumerate(names)})),
    )


# ---------------------------------------------------------------- Something-Something


def test_v1_reads_through_bom_windows_lines_commas_and_blank_lines(tmp_path):
    files = v1(tmp_path, b"\xef\xbb\xbf7;Balancing something, then letting go\r\n\r\n8;Waving something\r\n")
    records, names, report = records_something_v1(*files, root="frames")
    assert [(r.id, r.path, names[r.label]) for r in records] == [
        ("7", "frames/7", "Balancing something, then letting go"),
        ("8", "frames/8", "Waving something"),
    ]
    assert names == sorted(names) and "Something rolling" in names and report.order == "sorted"


def test_v1_order_changes_numbers_not_texts(tmp_path):
    files = v1(tmp_path, "".join(f"{i};{clean_label(n)}\n" for i, n in enumerate(LABELS)))
    ours, names, _ = records_something_v1(*files)
    raw, raw_names, report = records_something_v1(*files, order="file")
    assert raw_names == [clean_label(n) for n in LABELS] and report.order == "file order"
    assert [names[r.label] for r in ours] == [raw_names[r.label] for r in raw]
    assert side_pairs(names) != side_pairs(raw_names)


def test_raw_v1_order_is_named_by_the_places_of_its_direction_classes(tmp_path):
    names = [f"class {i:03d}" for i in range(174)]
    for a, b in RAW_SSV1_PAIRS:
        names[a], names[b] = f"Sliding {a} to the left", f"Sliding {a} to the right"
    assert name_order(names) == "raw SSv1 file order" and name_order(sorted(names)) == "sorted"
    files = v1(tmp_path, f"1;{names[66]}\n", names)
    assert "raw SSv1 file order" in " ".join(records_something_v1(*files)[2].notes)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("7,Waving something\n", ["train.csv, line 1", "semicolon"]),
        ("7;Waving something\n8;Waving nothing\n", ["line 2", "'Waving nothing'", "5 classes"]),
        ("7;waving something\n", ["line 1", "The list has 'Waving something'"]),
        ("7;Waving something\n7;Waving something\n", ["line 2", "'7'", "line 1"]),
        ("id x;Waving something\n", ["line 1", "'id x'"]),
        ("", ["train.csv", "is empty"]),
        (b"\xff\xfe7\x00;\x00", ["not UTF-8"]),
        ("<!DOCTYPE html><html>", ["web page"]),
        ("version https://git-lfs.github.com/spec/v1\n", ["git-lfs"]),
    ],
)
def test_v1_errors_name_place_and_remedy(tmp_path, rows, words):
    with pytest.raises(DataError) as err:
        records_something_v1(*v1(tmp_path, rows))
    assert all(w in str(err.value) for w in words), str(err.value)


def test_counting_instead_of_stopping_accounts_for_every_row(tmp_path):
    files = v1(tmp_path, "1;Waving something\n1;Waving something\n2;nothing\n3\n")
    records, _, report = records_something_v1(*files, strict=False)
    assert [r.id for r in records] == ["1"] and report.rows == 4
    assert report.counts == {"kept": 1, "duplicate id": 1, "label not in list": 1, "unlabelled": 1}
    assert report.examples["unlabelled"] == ["something-something-v1-train.csv, line 4"]


def test_missing_and_repeated_labels(tmp_path):
    with pytest.raises(DataError) as error:
        records_something_v1(tmp_path / "a.csv", tmp_path / "b.csv")
    assert error.value.subject == str(tmp_path / "b.csv") and "file name" in error.value.remedy
    files = v1(tmp_path, "1;a\n", ["a", "a"])
    with pytest.raises(DataError) as error:
        records_something_v1(*files)
    assert error.value.subject == f"{files[1]}, line 2" and "line 1" in str(error.value)
    with pytest.raises(UnknownNameError) as error:
        records_something_v1(*v1(tmp_path, "1;a\n", ["a"]), order="z")
    assert set(error.value.choices) == {"sorted", "file"}


def test_v2_uses_the_template_and_keeps_capitals(tmp_path):
    files = v2(
        tmp_path,
        [
            {"id": "1", "label": "a ball rolling", "template": "[Something] rolling"},
            {"id": 2, "label": "waving a hat", "template": "Waving [something]"},
        ],
    )
    records, names, report = records_something_v2(*files)
    assert [(r.id, r.path, names[r.label]) for r in records] == [
        ("1", "1.webm", "Something rolling"),
        ("2", "2.webm", "Waving something"),
    ]
    assert "Qualcomm" in report.variant and records_something_v2(*files, suffix="")[0][0].path == "1"


def test_v2_test_rows_are_never_label_zero(tmp_path):
    _, labels = v2(tmp_path, "[]")
    test = put(tmp_path / "something-something-v2-test.json", '[{"id": "1"}, {"id": "2"}]')
    records, _, report = records_something_v2(test, labels)
    assert (
        records == []
        and report.counts == {"unlabelled": 2}
        and report.split == "test"
        and "20BN" in report.variant
    )
    answers = put(tmp_path / "test-answers.csv", "2;Waving [something]\n")
    records, names, report = records_something_v2(test, labels, answers=answers)
    assert [(r.id, names[r.label]) for r in records] == [("2", "Waving something")] and report.counts[
        "unlabelled"
    ] == 1


def test_v2_labels_that_are_not_alphabetical_are_named(tmp_path):
    files = v2(tmp_path, [{"id": "1", "template": "b"}], '{"b": 0, "a": 1}')
    records, names, report = records_something_v2(*files)
    assert names == ["a", "b"] and records[0].label == 1 and "file order" in report.notes[0]
    assert records_something_v2(*files, order="file")[0][0].label == 0


@pytest.mark.parametrize(
    ("rows", "labels", "words"),
    [
        ('[{"id": "1"', None, ["train.json, line 1", "not JSON"]),
        ('{"id": "1"}', None, ["JSON dict", "list was expected"]),
        ("[]", None, ["no entries"]),
        ("[3]", None, ["record 0", "int"]),
        ([{"template": "Waving [something]"}], None, ["record 0", "'id' is missing", "template"]),
        ([{"id": "1", "label": "waving a hat"}], None, ["record 0", "'template' is missing"]),
        ([{"id": "1", "template": "Waving [somewhere]"}], None, ["record 0", "Waving somewhere"]),
        ([{"id": "1", "template": "a"}] * 2, '{"a": "0"}', ["record 1", "record 0"]),
        ([{"id": "1", "template": "a"}], '{"a": "0", "a": "1"}', ["labels.json", "'a' stands twice"]),
        ([{"id": "1", "template": "a"}], '{"a": "1"}', ["labels.json", "0..0"]),
        ([{"id": "1", "template": "a"}], '{"a": "first"}', ["labels.json", "not an integer"]),
    ],
)
def test_v2_errors(tmp_path, rows, labels, words):
    with pytest.raises(DataError) as err:
        records_something_v2(*v2(tmp_path, rows, labels))
    assert all(w in str(err.value) for w in words), str(err.value)


# ---------------------------------------------------------------- Diving48

VOCABULARY = [
    ["Back", "15som", "05Twis", "FREE"],
    ["Forward", "15som", "1Twis", "FREE"],
    ["Back", "25som", "NoTwis", "TUCK"],
]
DIVE = {"vid_name": "-x_y_00001", "label": 2, "start_frame": 0, "end_frame": 48}


def diving(tmp_path, rows, name="Diving48_V2_train.json", vocabulary=VOCABULARY):
    return put(tmp_path / name, json.dumps(rows)), put(tmp_path / "vocab.json", json.dumps(vocabulary))


def test_diving_keeps_attributes_sources_and_leading_dashes(tmp_path):
    records, names, report = records_diving48(
        *diving(tmp_path, [DIVE, DIVE | {"vid_name": "_z_00002", "label": 0}])
    )
    assert (
        records[0] == Record("-x_y_00001", "-x_y_00001.mp4", 2, 48) and names[2] == "Back 25som NoTwis TUCK"
    )
    assert report.groups["twist"] == dict(zip(names, ["05Twis", "1Twis", "NoTwis"], strict=True))
    assert list(report.groups) == ["takeoff", "somersault", "twist", "position"]
    assert report.sources == {"-x_y_00001": "-x_y", "_z_00002": "_z"}


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("Diving48_V2_train.json", None, "V2 (by file name)"),
        ("Diving48_train.json", None, "V1 (by file name)"),
        ("dives.json", "V1", "V1 (as given)"),
    ],
)
def test_diving_versions(tmp_path, name, version, expected):
    assert records_diving48(*diving(tmp_path, [DIVE], name), version=version)[2].variant == expected


def test_diving_v2_is_known_by_size_under_another_name(tmp_path):
    rows = [DIVE | {"vid_name": f"a_{i:05d}"} for i in range(1970)]
    assert records_diving48(*diving(tmp_path, rows, "val.json"))[2].variant.startswith(
        "V2 (by number of records"
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([DIVE | {"label": 3}], ["record 0", "outside 0..2"]),
        ([DIVE | {"label": "two"}], ["record 0", "'two'"]),
        ([DIVE | {"label": True}], ["label is True"]),
        ([DIVE, DIVE], ["record 1", "record 0"]),
        ([DIVE | {"end_frame": 0}], ["frames 0..0"]),
        ([{"label": 1}], ["'vid_name' is missing"]),
    ],
)
def test_diving_errors(tmp_path, rows, words):
    with pytest.raises(DataError) as err:
        records_diving48(*diving(tmp_path, rows))
    assert all(w in str(err.value) for w in words), str(err.value)


def test_diving_asks_for_the_version_and_refuses_a_bad_vocabulary(tmp_path):
    with pytest.raises(DataError) as error:
        records_diving48(*diving(tmp_path, [DIVE], "dives.json"))
    assert error.value.subject == str(tmp_path / "dives.json") and "version='V1'" in error.value.remedy
    with pytest.raises(DataError) as error:
        records_diving48(*diving(tmp_path, [DIVE], vocabulary=[["Back"]]))
    assert error.value.subject.endswith("vocab.json, entry 0")


# ---------------------------------------------------------------- EPIC-KITCHENS-55


def epic(tmp_path, rows):
    head = [
        "noun_class",
        "verb_class",
        "stop_frame",
        "start_frame",
        "stop_timestamp",
        "start_timestamp",
        "video_id",
        "participant_id",
        "uid",
        "all_nouns",
    ]  # another column order than the official one: read by header
    lines = [",".join(head), *(",".join(f'"{r[h]}"' for h in head) for r in rows)]
    put(tmp_path / "EPIC_train_action_labels.csv", "\n".join(lines) + "\n")
    put(tmp_path / "EPIC_verb_classes.csv", "verb_id,class_key,verbs\n0,lift,x\n1,pour,x\n")
    put(tmp_path / "EPIC_noun_classes.csv", "noun_id,class_key,nouns\n0,Nothing,x\n1,jar,x\n2,lid,x\n")
    return tmp_path


def action(uid=0, person="P01", start=1.0, stop=2.0, verb=0, noun=2, **more):
    clock = "00:00:{:05.2f}".format
    return {
        "uid": uid,
        "participant_id": person,
        "video_id": f"{person}_02",
        "start_timestamp": clock(start),
        "stop_timestamp": clock(stop),
        "start_frame": int(start * 60),
        "stop_frame": int(stop * 60),
        "verb_class": verb,
        "noun_class": noun,
        "all_nouns": "['jar', 'lid']",
    } | more


def test_epic_offsets_are_start_minus_one_with_files_from_one(tmp_path):
    records, names, report = records_epic55(
        epic(tmp_path, [action(), action(1, "P31", 3, 4.5, 1, 1)]), "noun", "all"
    )
    assert records[0] == Record("P01_02_0", "P01/P01_02", 2, 61, 59) and names == ["Nothing", "jar", "lid"]
    assert report.times["P31_02_1"] == (3.0, 4.5) and report.sources["P31_02_1"] == "P31"


def test_epic_splits_by_kitchen(tmp_path):
    folder = epic(tmp_path, [action(i, f"P{p:02d}") for i, p in enumerate((1, 25, 26, 31))])
    for split, people in (("train", {"P01", "P25"}), ("val", {"P26", "P31"})):
        records, _, report = records_epic55(folder, split=split)
        assert {r.path[:3] for r in records} == people and report.rows == 4
        assert report.counts["person of the other split"] == 2


def test_epic_video_records_take_frames_from_time_stamps(tmp_path):
    folder = epic(tmp_path, [action(0), action(1, start=2, stop=4), action(2, start=50, stop=51)])
    records, _, report = records_epic55(folder, split="train", source="video", root="videos")
    assert all(r.num_frames is None and r.path == "videos/P01/P01_02.MP4" for r in records)
    opened = []

    class Clip:
        def __init__(self, path):
            opened.append(path)

        timestamps = np.arange(10 * 30) / 30

    native, ledger = at_native_rate(records, report.times, opener=Clip)
    assert [(r.offset, r.num_frames) for r in native] == [(30, 30), (60, 60)] and len(opened) == 1
    assert ledger.counts == {"kept": 2, "starts after the video ends": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"participant_id": "P99"}, ["line 2", "'P99'"]),
        ({"verb_class": 2}, ["line 2", "outside 0..1"]),
        ({"start_frame": 30}, ["line 2", "60 fps"]),
        ({"stop_frame": 10}, ["line 2", "no forward stretch"]),
        ({"start_timestamp": "1.0"}, ["line 2", "HH:MM:SS"]),
        ({"start_frame": "x"}, ["line 2", "start_frame is 'x'"]),
    ],
)
def test_epic_errors(tmp_path, change, words):
    with pytest.raises(DataError) as err:
        records_epic55(epic(tmp_path, [action() | change]), split="all")
    assert all(w in str(err.value) for w in words), str(err.value)


def test_epic_refuses_wrong_arguments_and_files(tmp_path):
    folder = epic(tmp_path, [action()])
    for bad in ({"target": "action"}, {"split": "test"}, {"source": "zip"}):
        with pytest.raises(UnknownNameError) as error:
            records_epic55(folder, **bad)
        assert [error.value.subject] == list(bad.values())
    put(folder / "EPIC_train_action_labels.csv", "narration_id,verb\n1,x\n")
    with pytest.raises(DataError) as error:
        records_epic55(folder)
    assert error.value.subject == str(folder / "EPIC_train_action_labels.csv") and "uid" in str(error.value)
    put(folder / "EPIC_verb_classes.csv", "verb_id,class_key\n1,lift\n")
    with pytest.raises(DataError) as error:
        records_epic55(folder)
    assert error.value.subject == f"{folder / 'EPIC_verb_classes.csv'}, line 2" and "'1'" in str(error.value)


@given(st.lists(st.floats(0.005, 0.2), min_size=2, max_size=60), st.floats(0, 8), st.floats(0.001, 4))
@settings(max_examples=200, deadline=None)
def test_native_windows_hold_what_is_shown(gaps, start, length):
    times = np.cumsum([0, *gaps])
    offset, count = native_window(times, start, start + length)
    if count == 0:
        assert start > times[-1]
        return
    assert 0 <= offset and offset + count <= len(times)
    assert times[offset] <= start + 1e-5 or offset == 0
    assert offset + 1 == len(times) or times[offset + 1] > start  # no later frame was on screen at the start
    inside = [i for i, t in enumerate(times) if start + 2e-6 < t < start + length - 2e-6]
    assert all(offset <= i < offset + count for i in inside)


# ---------------------------------------------------------------- own clips, splits, lists


def test_folder_lists_what_is_no_clip_and_follows_links(tmp_path):
    for p in (
        "clips/b/1.mp4",
        "clips/b/-2 x.webm",
        "clips/a/f/00001.jpg",
        "secret/s.mp4",
        "clips/a/.hidden.mp4",
        "clips/a/readme.txt",
    ):
        put(tmp_path / p, b"x")
    put(tmp_path / "clips/a/zero.mp4", b"")
    (tmp_path / "clips/nothing").mkdir()
    (tmp_path / "clips/b/link.mp4").symlink_to(tmp_path / "secret/s.mp4")
    records, names, report = records_folder(tmp_path / "clips")
    assert names == ["a", "b"] and [r.id for r in records] == ["a/f", "b/-2 x.webm", "b/1.mp4", "b/link.mp4"]
    assert report.counts == {
        "kept": 4,
        "hidden file": 1,
        "not a video": 1,
        "empty file": 1,
    }
    assert "nothing" in report.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label\n",
        "p,label\nx,y\n",
        "path,label\na,b,c\n",
        'path,label\n"a,b\n',
        "path,label\n/etc/x.mp4,a\n",
        "path,label\nC:\\x.mp4,a\n",
        "path,label\n,a\n",
        "path,label\na,b\na,b\n",
    ],
)
def test_table_errors_name_the_file(tmp_path, text):
    with pytest.raises(DataError) as error:
        records_csv(put(tmp_path / "t.csv", text))
    assert error.value.subject.partition(", line ")[0] == str(tmp_path / "t.csv")


def test_table_with_given_classes(tmp_path):
    file = put(tmp_path / "t.tsv", "label\tpath\ny\ta.mp4\n\tb.mp4\n")
    records, names, report = records_csv(file, class_names=["x", "y"], root="media")
    assert records == [Record("a.mp4", "media/a.mp4", 1)] and report.counts == {"kept": 1, "unlabelled": 1}
    with pytest.raises(DataError) as error:
        records_csv(file, class_names=["x"])
    assert error.value.subject == f"{file}, line 2"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=80), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_splits_lose_nothing_and_keep_sources_whole(rows, seed):
    records = [Record(str(i), str(i), c) for i, (c, _) in enumerate(rows)]
    groups = {str(i): str(g) for i, (_, g) in enumerate(rows)}
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    splits = split_records(records, shares, seed, groups)
    assert Counter(r for rs in splits.values() for r in rs) == Counter(records)
    sides = [{groups[r.id] for r in rs} for rs in splits.values()]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert splits == split_records(records, shares, seed, groups)


def test_splits_are_balanced_over_classes_and_checked():
    records = [Record(f"{c}/{i}", "x", c) for c in range(4) for i in range(10)]
    val = Counter(r.label for r in split_records(records, seed=7)["val"])
    assert val == {0: 2, 1: 2, 2: 2, 3: 2}
    with pytest.raises(SettingError) as error:
        split_records(records, {"train": 0.5, "val": 0.2})
    assert error.value.subject == "fractions"


@given(
    st.text("ab/ 0123456789.-_é", min_size=1, max_size=12).filter(lambda s: s.strip() == s and s[0] != "/"),
    st.integers(0, 99),
    st.integers(1, 99),
)
@settings(max_examples=300, deadline=None)
def test_lists_survive_writing_and_reading(tmp_path_factory, path, offset, frames):
    if ".." in path.split("/") or not path.strip("./"):
        return
    root = tmp_path_factory.mktemp("d")
    record = Record("x", path, 1, frames, offset)
    write_dataset(root, {"train": [record, Record("y", "plain", 0, 5)]}, ["a", "b"])
    back = read_list(root / "trainValTest/train.txt", root / "img", ["a", "b"])
    assert [(r.offset, r.num_frames, r.label) for r in back] == [(offset, frames, 1), (0, 5, 0)]
    assert [r.path for r in back] == [str(root / "img" / PurePosixPath(path)), str(root / "img/plain")]


@pytest.mark.parametrize(
    ("record", "remedy"),
    [
        (Record("i", "../x", 0, 3), "media="),
        (Record("i", "/x", 0, 3), "media="),
        (Record("i", "x", 0), "count_frames"),
        (Record("i", "x\u2028y", 0, 3), "Rename"),
        (Record("i", " x", 0, 3), "Rename"),
        (Record("i", "x", 2, 3), "classes"),
    ],
)
def test_nothing_is_written_when_a_record_is_bad(tmp_path, record, remedy):
    with pytest.raises(DataError) as error:
        write_dataset(tmp_path / "d", {"val": [record]}, ["a"])
    assert error.value.subject == "record i" and remedy in error.value.remedy
    assert not (tmp_path / "d").exists()


def test_other_lists_are_not_replaced_unasked(tmp_path):
    one = [Record("a", "a", 0, 3)]
    two = [Record("b", "b", 0, 3)]
    write_dataset(tmp_path, {"train": one}, ["k"])
    with pytest.raises(FolderError) as error:
        write_dataset(tmp_path, {"train": two}, ["k"])
    assert error.value.subject == str(tmp_path / "trainValTest/train.txt")
    assert "overwrite=True" in error.value.remedy
    assert (tmp_path / "trainValTest/train.txt").read_text() == "a 3 0\n"
    write_dataset(tmp_path, {"train": two}, ["k"], overwrite=True)
    assert (tmp_path / "trainValTest/train.txt").read_text() == "b 3 0\n"
    with pytest.raises(UnknownNameError) as error:
        write_dataset(tmp_path, {"dev": two}, ["k"])
    assert error.value.choices == ("train", "val", "test")


def test_a_kill_while_writing_leaves_the_old_list(tmp_path):
    write_dataset(tmp_path, {"train": [Record("a", "a", 0, 3)]}, ["k"])

    def killed_at_the_end():  # all bytes are written, the rename has not come
        file = tmp_path / "trainValTest/train.txt"
        write_atomic(file, "new " * 1000, before=lambda: os.kill(os.getpid(), signal.SIGKILL))

    child = get_context("fork").Process(target=killed_at_the_end)
    child.start()
    child.join(timeout=30)
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "trainValTest/train.txt").read_text() == "a 3 0\n"


# ---------------------------------------------------------------- checking


def frames(folder, count):
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(1, count + 1):
        Image.new("RGB", (40, 40)).save(folder / f"{i:05d}.jpg")


def test_check_opens_every_file_once_and_counts_every_line(tmp_path):
    frames(tmp_path / "img/a", 10)
    put(tmp_path / "category.txt", "x\r\ny\r\n")
    put(tmp_path / "trainValTest/train.txt", b"\xef\xbb\xbfa 4 4 0\r\na 6 9 1\r\na 0 3 1\r\na 0 3 0\r\n")
    put(tmp_path / "trainValTest/val.txt", "")
    opened = []

    def opener(path):
        from sda.data.video import open_video

        opened.append(path)
        return open_video(path)

    report = check_dataset(tmp_path, num_frames=4, opener=opener)
    assert (
        report.counts == {"train": {"ok": 1, "frame count wrong": 2, "duplicate line": 1}}
        and len(opened) == 1
    )
    assert (
        "val.txt is empty" in report.notes
        and "test.txt is missing" in report.notes
        and report.exit_status == 1
    )
    saved = json.loads(report.save().read_text())
    assert saved["problems"] == report.problems and "not ready" in (tmp_path / "check.txt").read_text()


def test_check_needs_classes_and_lists(tmp_path):
    with pytest.raises(DataError) as error:
        check_dataset(tmp_path)
    assert error.value.subject == str(tmp_path / "category.txt")
    put(tmp_path / "category.txt", "x\n")
    with pytest.raises(DataError) as error:
        check_dataset(tmp_path)
    assert error.value.subject == str(tmp_path) and "trainValTest" in str(error.value)


def test_a_folder_trains_directly_and_through_lists(tmp_path):
    for name, count in (("a/take 1", 9), ("a/x", 12), ("b/y", 10)):
        frames(tmp_path / "clips" / name, count)
    records, names, _ = records_folder(tmp_path / "clips")
    direct = ClipDataset(records, names)[0]
    counted, _ = count_frames(records)
    root = write_dataset(tmp_path / "d", {"train": counted, "val": []}, names, media=tmp_path / "clips")
    listed = open_dataset(root, "train", train=False)
    assert [(r.label, r.num_frames) for r in listed.records] == [(0, 9), (0, 12), (1, 10)]
    assert torch.equal(direct["clip"], listed[0]["clip"]) and direct["label"] == listed[0]["label"] == 0
    assert check_dataset(root).ok


def test_counting_names_unreadable_files(tmp_path):
    frames(tmp_path / "a", 10)
    put(tmp_path / "b.mp4", b"no video")
    records = [
        Record("1", "a", 0),
        Record("2", "a", 0, 8, 5),
        Record("3", "a", 0, 2, 10),
        Record("4", "b.mp4", 0),
    ]
    found, report = count_frames(records, tmp_path)
    assert [(r.id, r.num_frames) for r in found] == [("1", 10), ("2", 5)] and report.rows == 4
    assert report.counts == {
        "kept": 1,
        "kept, shortened": 1,
        "starts after the last frame": 1,
        "unreadable": 1,
    }
    assert "b.mp4" in report.examples["unreadable"][0]


def test_report_prints_as_a_table():
    report = ListReport("Toy", "v", notes=["look"])
    for _ in range(3):
        report.add("kept")
    report.add("unlabelled", "f.csv, line 9")
    assert list(report.table().columns) == ["reason", "rows", "share", "first places"]
    assert all(w in str(report) for w in ("Toy", "75.0%", "f.csv, line 9", "note: look"))


# ---------------------------------------------------------------- the official files, where there are any


@needs_v2
def test_official_v2_validation_resolves_to_174_classes():
    base = OFFICIAL / "something-something-v2" / "something-something-v2-"
    records, names, report = records_something_v2(f"{base}validation.json", f"{base}labels.json")
    assert len(records) == 24_777 and len(names) == 174 == len({r.label for r in records})
    assert report.counts == {"kept": 24_777} and report.order == "sorted" and report.notes == []
    assert side_pairs(names) == {(86, 87), (93, 94), (166, 167)}
    assert records_something_v2(f"{base}test.json", f"{base}labels.json")[2].counts == {"unlabelled": 27_157}


@needs_epic
@pytest.mark.parametrize(
    ("target", "width", "seen"), [("verb", 125, (113, 71, 119)), ("noun", 352, (300, 176, 321))]
)
def test_official_epic_counts(target, width, seen):
    for (split, rows), classes in zip(
        (("train", 23_191), ("val", 5_281), ("all", 28_472)), seen, strict=True
    ):
        records, names, report = records_epic55(OFFICIAL / "epic-kitchens-55", target, split)
        assert (len(records), len(names), report.rows) == (rows, width, 28_472)
        assert len({r.label for r in records}) == classes


@needs_epic
def test_official_epic_by_person_and_windows():
    report = records_epic55(OFFICIAL / "epic-kitchens-55", split="val")[2]
    people = Counter(report.sources.values())
    assert people == {"P26": 733, "P27": 308, "P28": 1150, "P29": 995, "P30": 1657, "P31": 438}
    every = records_epic55(OFFICIAL / "epic-kitchens-55", split="all")[0]
    lengths = sorted(r.num_frames for r in every)
    assert (lengths[0], lengths[len(lengths) // 2], lengths[-1]) == (31, 117, 12_421)  # stop - start + 1
    assert min(r.offset for r in every) >= 0


def roundtrip(folder, root, target="verb"):
    """The lists that `write_dataset` makes of official rows: the records, and what is read back."""
    splits = {split: records_epic55(folder, target, split)[0] for split in ("train", "val")}
    names = records_epic55(folder, target, "val")[1]
    write_dataset(root, splits, names)
    for split, records in splits.items():
        yield records, read_list(root / f"trainValTest/{split}.txt", root / "img", names)


def assert_same(records, found):
    assert [(r.path, r.label, r.num_frames, r.offset) for r in records] == [
        (Path(f.path).as_posix().partition("img/")[2], f.label, f.num_frames, f.offset) for f in found
    ]
    assert len({f.id for f in found}) == len(found)


def test_epic_lists_survive_actions_that_begin_together(tmp_path):
    folder = epic(
        tmp_path / "official", [action(0), action(1, verb=1), action(2, stop=4.0), action(3, "P26")]
    )
    for records, found in roundtrip(folder, tmp_path / "lists"):
        assert_same(records, found)
    train = read_list(tmp_path / "lists/trainValTest/train.txt", tmp_path / "lists/img", ["a", "b"])
    assert [r.id for r in train] == [f"P01/P01_02@59{end}" for end in ("", "#2", "#3")]


@needs_epic
@pytest.mark.parametrize("target", ["verb", "noun"])
def test_official_epic_lists_survive_writing_and_reading(tmp_path, target):
    lengths = []
    for records, found in roundtrip(OFFICIAL / "epic-kitchens-55", tmp_path, target):
        assert_same(records, found)
        lengths.append(len(found))
    assert lengths == [23_191, 5_281]


def test_lists_of_other_clips_do_not_keep_the_old_link(tmp_path):
    """Lists and clips belong together: img is turned to the new folder, or nothing is written."""
    from PIL import Image

    for name in ("one", "two"):
        for clip in ("a/1", "a/2", "b/3", "b/4"):
            picture = tmp_path / name / f"{clip}{name}/00001.jpg"
            picture.parent.mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(picture)
    make_dataset(tmp_path / "set", "folder", media=tmp_path / "one")
    before = {f.name: f.read_text() for f in (tmp_path / "set/trainValTest").iterdir()}
    with pytest.raises(FolderError) as error:
        make_dataset(tmp_path / "set", "folder", media=tmp_path / "two")
    assert error.value.subject == str(tmp_path / "set/trainValTest/train.txt")
    assert "--overwrite" in error.value.remedy
    assert before == {f.name: f.read_text() for f in (tmp_path / "set/trainValTest").iterdir()}
    make_dataset(tmp_path / "set", "folder", media=tmp_path / "two", overwrite=True)
    assert (tmp_path / "set/img").resolve() == tmp_path / "two" and check_dataset(tmp_path / "set", 1).ok
    (tmp_path / "two").rename(tmp_path / "moved")  # the link leads nowhere now
    make_dataset(tmp_path / "set", "folder", media=tmp_path / "moved")
    assert check_dataset(tmp_path / "set", 1).ok
    (tmp_path / "own/img").mkdir(parents=True)
    with pytest.raises(FolderError) as error:
        make_dataset(tmp_path / "own", "folder", media=tmp_path / "moved", overwrite=True)
    assert error.value.subject == str(tmp_path / "own/img") and "another folder" in error.value.remedy
    assert (tmp_path / "own/img").is_dir() and not (tmp_path / "own/category.txt").exists()
