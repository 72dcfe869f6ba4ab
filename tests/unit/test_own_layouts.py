"""Clips of one's own, as people bring them: layouts, tables, splits, links, and classes that name a side."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from sda.data.annotations import at_native_rate, records_csv, records_folder
from sda.data.annotations.textlists import records_hmdb51, records_ucf101
from sda.data.assembly import make_dataset
from sda.data.check import check_dataset
from sda.data.datasets import open_dataset
from sda.data.lists import Record, read_classes, read_list
from sda.data.make import write_dataset
from sda.data.transforms import TransformConfig, flip_map, mirror_notes, sides_without_pair
from sda.foundation.errors import DataError, SdaError, SettingError, UnknownNameError, VideoError


def frames(folder, count=2):
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (40, 40), (9 * k, 0, 0)).save(folder / f"{k + 1:05d}.jpg")
    return folder


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def toys(root, *names):
    """Files that are called like videos."""
    for name in names:
        put(root / name, "toy")


def ids(root, split):
    return sorted(
        r.id
        for r in read_list(
            root / f"trainValTest/{split}.txt", root / "img", read_classes(root / "category.txt")
        )
    )


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("odd", ["\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\t", "\0"])
def test_what_some_program_takes_for_a_line_end_is_refused_by_writer_and_reader(tmp_path, odd):
    name = f"bad{odd}name"
    with pytest.raises(DataError) as error:
        write_dataset(tmp_path / "set", {"train": [Record("a", "a", 0, 3)]}, [name, "zebra"])
    assert error.value.remedy and not (tmp_path / "set").exists()
    with pytest.raises(DataError) as error:
        read_classes(put(tmp_path / "category.txt", f"apple\n{name}\nzebra\n"))
    assert error.value.subject == f"{tmp_path / 'category.txt'}:2"
    if odd != "\0":
        with pytest.raises(DataError) as error:
            records_csv(put(tmp_path / "clips.csv", f"path,label\na.mp4,apple\nb.mp4,{name}\n"))
        assert error.value.subject.endswith("clips.csv, line 3")


def test_outer_blanks_are_no_part_of_a_name_and_names_stay_apart(tmp_path):
    write_dataset(tmp_path / "set", {"train": [Record("a", "a", 1, 3)]}, ["b\xa0", "\x85 a "])
    assert read_classes(tmp_path / "set/category.txt") == ["b", "a"]
    with pytest.raises(DataError):
        write_dataset(tmp_path / "two", {"train": [Record("a", "a", 1, 3)]}, ["a", "a "])


def test_check_compares_the_classes_with_those_that_were_written(tmp_path):
    for n in range(10):
        frames(tmp_path / f"clips/{'jump' if n % 2 else 'wave'}/{n}")
    root = tmp_path / "set"
    make_dataset(root, media=tmp_path / "clips")
    assert check_dataset(root, 1).ok
    (root / "category.txt").write_text("ju\nmp\nwave\n")
    report = check_dataset(root, 1)
    assert not report.ok and [p["reason"] for p in report.problems] == ["class count wrong"]


# ---------------------------------------------------------------- sides


@pytest.mark.parametrize(
    "names",
    [
        ("swipe_left", "swipe_right"),
        ("SwipeLeft", "SwipeRight"),
        ("left_swipe", "right_swipe"),
        ("2_left", "2_right"),
        ("1_left", "2_right"),
        ("turn-left", "turn-right"),
        ("LEFT hand2", "RIGHT hand2"),
        ("swipeleft", "swiperight"),
        ("Drive leftwards", "Drive rightwards"),
        ("spin clockwise", "spin anticlockwise"),
        ("Clockwise", "CounterClockwise"),
        ("rotate_cw", "rotate_ccw"),
        ("向左", "向右"),
    ],
)
def test_mirror_images_are_found_however_the_words_are_joined(names):
    classes = ["3_stay", *names] if names[0] == "1_left" else ["stay", *names]
    assert flip_map(classes) == {1: 2, 2: 1} and not sides_without_pair(classes)
    assert all(repr(name) in mirror_notes(classes)[0] for name in names)


def test_a_side_without_its_mirror_image_is_never_mirrored():
    classes = ["turn_left", "upright", "bright", "go left", "go right"]
    assert flip_map(classes) == {3: 4, 4: 3} and sides_without_pair(classes) == [0]
    assert "turn_left" in mirror_notes(classes)[1] and mirror_notes(["wave", "upright"]) == []
    config = TransformConfig(size=32, resize=None, crop="centre")
    train = config.train(classes)
    clip = torch.arange(32 * 32 * 3).view(1, 32, 32, 3).to(torch.uint8)
    kept = {
        label: [train.pixels(clip, label, torch.Generator().manual_seed(s))[0].equal(clip) for s in range(12)]
        for label in (0, 1)
    }
    assert all(kept[0]) and not all(kept[1])


# ---------------------------------------------------------------- folders


def test_split_folders_are_the_split(tmp_path):
    for split, count in (("train", 3), ("Validation", 2), ("test", 1)):
        for name in ("go left", "go right"):
            for n in range(count):
                frames(
                    tmp_path / "clips" / split / name / f"clip {n}/x"
                    if n
                    else tmp_path / "clips" / split / name / "a/0"
                )
    root = tmp_path / "set"
    make_dataset(root, media=tmp_path / "clips")
    assert read_classes(root / "category.txt") == ["go left", "go right"]
    assert [len(ids(root, s)) for s in ("train", "val", "test")] == [6, 4, 2]
    assert all(i.startswith("Validation/") for i in ids(root, "val")) and check_dataset(root, 1).ok
    with pytest.raises(SettingError) as error:
        make_dataset(tmp_path / "other", media=tmp_path / "clips", share=(0.5, 0.5))
    assert "--share" in error.value.remedy
    toys(tmp_path / "clips", "wave/1.mp4")
    with pytest.raises(DataError) as error:
        records_folder(tmp_path / "clips")
    assert error.value.subject == str(tmp_path / "clips")


def test_folders_below_a_class_are_the_sources_of_its_clips(tmp_path):
    names = [f"{c}/{s}/{n}.avi" for c in ("jump", "wave") for s in ("anna", "ben", "cleo") for n in range(2)]
    toys(tmp_path, *names)
    records, classes, report = records_folder(tmp_path)
    assert classes == ["jump", "wave"] and len(records) == 12
    assert set(report.sources.values()) == {"anna", "ben", "cleo"}
    assert len(set(records_folder(tmp_path, "none")[2].sources.values())) == 12


def test_takes_are_read_off_names_only_where_every_class_has_several(tmp_path):
    toys(tmp_path / "a", *(f"{c}/seq{n:02d}_{n}.avi" for c in ("x", "y") for n in range(4)))
    toys(tmp_path / "b", *(f"{c}/{c}_{n}.avi" for c in ("x", "y") for n in range(4)))
    taken = records_folder(tmp_path / "a")[2].sources
    assert taken["x/seq01_1.avi"] == taken["y/seq01_1.avi"] == "seq01"
    single = records_folder(tmp_path / "b")[2].sources
    assert single["x/x_1.avi"] == "x/x_1.avi"


def test_class_numbers_are_sorted_as_numbers(tmp_path):
    toys(tmp_path, "clips/10/a.mp4", "clips/9/a.mp4", "clips/100/a.mp4")
    assert records_folder(tmp_path / "clips")[1] == ["9", "10", "100"]
    table = put(tmp_path / "t.csv", "path,label\na.mp4,10\nb.mp4,2\nc.mp4,-1\n")
    records, names, _ = records_csv(table)
    assert names == ["-1", "2", "10"] and [r.label for r in records] == [2, 1, 0]
    toys(tmp_path, "named/10_run/a.mp4", "named/2_jump/a.mp4")
    assert records_folder(tmp_path / "named")[1] == ["2_jump", "10_run"]


def test_farms_of_links_train_and_loops_end(tmp_path):
    for n in range(5):
        frames(tmp_path / f"store/wave/{n}")
        frames(tmp_path / f"store/jump/{n}")
    farm = tmp_path / "farm"
    (farm / "wave").mkdir(parents=True)
    (farm / "jump").symlink_to(tmp_path / "store/jump", True)
    for n in range(5):
        (farm / f"wave/{n}").symlink_to(tmp_path / f"store/wave/{n}", True)
    (farm / "wave/back").symlink_to(farm, True)
    (farm / "wave/gone.mp4").symlink_to(tmp_path / "nowhere")
    report = make_dataset(tmp_path / "set", media=farm)["train"][0]
    assert report.kept == 10 and report.counts["broken link"] == 1
    assert len(open_dataset(tmp_path / "set", "train").records) == 8
    assert check_dataset(tmp_path / "set", 1).ok
    real = (
        tmp_path / "real"
    )  # lists beside a real folder: a link that leaves it is refused, and called a link
    put(real / "category.txt", "wave\n")
    put(real / "trainValTest/train.txt", "w 2 0\n")
    (real / "img").mkdir()
    (real / "img/w").symlink_to(tmp_path / "store/wave/0", True)
    with pytest.raises(DataError) as error:
        open_dataset(real, "train")
    assert error.value.subject == str(real / "trainValTest/train.txt")
    assert "a link" in str(error.value) and "--media" in str(error.value)  # one error may tell of many lines


# ---------------------------------------------------------------- tables


TAKES = [(f"{c}/t{t}_{n}", c, f"t{t}") for t in range(5) for c in ("a", "b") for n in range(2)]


@pytest.fixture
def shots(tmp_path):
    for path, *_ in TAKES:
        frames(tmp_path / "shots" / path)
    return tmp_path / "shots"


def table(folder, rows, name="clips.csv", header="path,label,take"):
    return put(folder / name, "\r\n".join([header, *(",".join(r) for r in rows)]) + "\r\n")


def test_a_table_in_the_folder_is_found_with_its_takes(shots, tmp_path):
    table(shots, TAKES)
    toys(shots, "a/new.mp4")
    reports = make_dataset(tmp_path / "set", media=shots)
    take = {path: t for path, _, t in TAKES}
    sides = [{take[i] for i in ids(tmp_path / "set", s)} for s in ("train", "val")]
    assert [len(s) for s in sides] == [4, 1] and not sides[0] & sides[1]
    assert any("a/new.mp4" in note for note in reports["train"][0].notes)


def test_a_column_split_is_the_split_and_other_columns_are_told(shots, tmp_path):
    side = {"t0": "Train", "t1": "training", "t2": "val", "t3": "test ", "t4": ""}
    rows = [(p, c, "sunny", t, side[t]) for p, c, t in TAKES]
    table(shots, rows, header="File,Class,weather,take,split")
    reports = make_dataset(tmp_path / "set", media=shots)
    assert [len(ids(tmp_path / "set", s)) for s in ("train", "val", "test")] == [8, 4, 4]
    assert reports["train"][0].counts["no split"] == 4
    assert any("weather" in note for note in reports["train"][0].notes)
    make_dataset(tmp_path / "drawn", media=shots, split_column="none")
    assert len(ids(tmp_path / "drawn", "train")) == 16
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "x", media=shots, split_column="fold")
    assert "weather" in error.value.choices
    table(shots, [(p, c, "3") for p, c, _ in TAKES], header="path,label,split")
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "x", media=shots)
    assert "--split-column" in error.value.remedy


def test_shares_and_groups_held_out(shots, tmp_path):
    table(shots, TAKES)
    make_dataset(tmp_path / "three", media=shots, share=(0.6, 0.2, 0.2))
    assert [len(ids(tmp_path / "three", s)) for s in ("train", "val", "test")] == [12, 4, 4]
    make_dataset(tmp_path / "fold", media=shots, hold_out_group=("t1", "t3"))
    assert {i.split("/")[1][:2] for i in ids(tmp_path / "fold", "test")} == {"t1", "t3"}
    kept = [{i.split("/")[1][:2] for i in ids(tmp_path / "fold", s)} for s in ("train", "val")]
    assert not kept[0] & kept[1] and kept[0] | kept[1] == {"t0", "t2", "t4"}
    with pytest.raises(UnknownNameError) as error:
        make_dataset(tmp_path / "x", media=shots, hold_out_group=("t9",))
    assert set(error.value.choices) == {"t0", "t1", "t2", "t3", "t4"}
    for share in ((0.5, 0.6), (1.0,), (0.5, -0.5, 1.0)):
        with pytest.raises(SettingError):
            make_dataset(tmp_path / "x", media=shots, share=share)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a/t0_0;a;t0\nb/t0_1;b;t0\n", {"columns": ("path", "label", "take")}),
        ("a/t0_0|x|a\nb/t0_1|y|b\n", {"columns": ("path", "-", "label"), "delimiter": "bar"}),
        ("Where\tWhat\na/t0_0\ta\nb/t0_1\tb\n", {"columns": ("path=Where", "label=What")}),
        ("a/t0_0 a\nb/t0_1 b\n", {"columns": ("path", "label"), "delimiter": "space"}),
        ("PATH,Label\n.\\a\\t0_0,a\n.\\b\\t0_1,b\n", {}),
        ("path,label\nC:\\clips\\a\\t0_0,a\nC:\\clips\\b\\t0_1,b\n", {}),
        ("path,label\n/gone/a/t0_0,a\n/gone/b/t0_1,b\n", {}),
        ("path,label\nt0_0,a\nt0_1,b\n", {}),  # below the folder of the class
    ],
)
def test_dialects_and_paths_of_other_machines(shots, text, options):
    records, names, _ = records_csv(put(shots.parent / "t.csv", text), root=shots, **options)
    assert [r.path for r in records] == [str(shots / "a/t0_0"), str(shots / "b/t0_1")]
    assert names == ["a", "b"] and [r.label for r in records] == [0, 1]


def test_absolute_paths_start_where_the_clips_are(shots, tmp_path):
    rows = [(str(shots / path), c, t) for path, c, t in TAKES]
    lists = table(tmp_path / "tables", rows)
    make_dataset(tmp_path / "set", annotations=lists)
    assert (tmp_path / "set/img").resolve() == shots.resolve() and check_dataset(tmp_path / "set", 1).ok


def test_a_column_that_is_not_there_is_named(tmp_path):
    bare = put(tmp_path / "t.csv", "a.avi,3,x\nb.avi,4,y\n")
    with pytest.raises(DataError) as error:
        records_csv(bare)
    assert "--columns" in error.value.remedy
    with pytest.raises(UnknownNameError) as error:
        records_csv(bare, columns=("pth=1",))
    assert "path" in error.value.choices
    records, names, _ = records_csv(put(tmp_path / "u.csv", "a b.avi 3\nc.avi 11\n"))
    assert [r.id for r in records] == ["a b.avi", "c.avi"] and names == ["3", "11"]


# ---------------------------------------------------------------- text lists


def test_ucf101_lists(tmp_path):
    put(tmp_path / "l/classInd.txt", "1 ApplyEyeMakeup\n2 Archery\n")
    names = [f"{c}/v_{c}_g{g:02d}_c01" for c in ("ApplyEyeMakeup", "Archery") for g in range(1, 5)]
    for name in names:
        frames(tmp_path / "clips" / name)
    train = [f"{n}.avi {1 + n.startswith('Archery')}" for n in names if "g01" not in n]
    put(tmp_path / "l/trainlist02.txt", "\n".join([*train, "Archery/v_Archery_g09_c01.avi 2"]) + "\n")
    put(tmp_path / "l/testlist02.txt", "\r\n".join(f"{n}.avi" for n in names if "g01" in n) + "\r\n")
    reports = make_dataset(
        tmp_path / "set", "auto", tmp_path / "l", tmp_path / "clips", frames=True, fold=2, hold_out=0.4
    )
    assert (
        reports["train"][1].counts.get("unreadable", 0) + reports["val"][1].counts.get("unreadable", 0) == 1
    )
    assert len(ids(tmp_path / "set", "test")) == 2
    assert len(ids(tmp_path / "set", "train")) + len(ids(tmp_path / "set", "val")) == 6
    assert json.loads((tmp_path / "set/source.json").read_text())["variants"]["test"] == "official split 2"
    put(tmp_path / "l/trainlist01.txt", "Archery/v_Archery_g02_c01.avi 1\n")
    with pytest.raises(DataError) as error:
        records_ucf101(tmp_path / "l")
    assert error.value.subject.endswith("trainlist01.txt, line 1")


def test_hmdb51_lists(tmp_path):
    put(
        tmp_path / "chew_test_split1.txt",
        "A film_chew_u_nm_np1_fr_goo_0.avi 1 \nB_chew_1.avi 2 \nC_chew_2.avi 0 \n",
    )
    put(tmp_path / "wave_test_split1.txt", "A film_wave_3.avi 1\n")
    records, names, report = records_hmdb51(tmp_path, "train")
    assert names == ["chew", "wave"] and [r.label for r in records] == [0, 1]
    assert records[0].path == "chew/A film_chew_u_nm_np1_fr_goo_0.avi"
    assert report.counts == {"kept": 2, "of the other part": 1, "not in this split": 1}
    assert [r.id for r in records_hmdb51(tmp_path, "test")[0]] == ["chew/B_chew_1.avi"]
    put(tmp_path / "wave_test_split1.txt", "A.avi 3\n")
    with pytest.raises(DataError) as error:
        records_hmdb51(tmp_path)
    assert error.value.subject.endswith("wave_test_split1.txt, line 1")


def test_missing_kitchen_videos_are_counted():
    def opener(path):
        if path == "gone.MP4":
            raise VideoError("gone.MP4 does not exist")
        return type("Clock", (), {"timestamps": [k / 10 for k in range(100)]})

    records = [Record(str(k), p, 0) for k, p in enumerate(("here.MP4", "gone.MP4", "gone.MP4"))]
    found, report = at_native_rate(records, {r.id: (1.0, 2.0) for r in records}, opener)
    assert [r.id for r in found] == ["0"] and report.counts == {"kept": 1, "unreadable": 2}


# ---------------------------------------------------------------- the command


def test_one_command_for_a_folder_and_every_option(shots, tmp_path, monkeypatch, capsys):
    from sda.commands.main import main

    monkeypatch.chdir(tmp_path)
    table(shots, [(p, f"swipe_{'left' if c == 'a' else 'right'}", t) for p, c, t in TAKES])
    assert main(["data", "make", "mine", "--media", "shots", "--quiet"]) in (0, None)
    said = capsys.readouterr().out
    assert "'swipe_left' and 'swipe_right'" in said and "5 sources" in said
    assert main(["data", "check", "mine", "--quiet"]) in (0, None)
    assert "'swipe_left' and 'swipe_right'" in capsys.readouterr().out
    words = "--share .6 .2 .2 --columns path=path label=label --delimiter comma --split-column none --seed 1"
    assert main(["data", "make", "more", "--media", "shots", "--quiet", *words.split()]) in (0, None)
    assert main(["data", "make", "fold", "--media", "shots", "--hold-out-group", "t1", "t2", "--quiet"]) in (
        0,
        None,
    )
    assert len(ids(Path("fold"), "test")) == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(SdaError) as error:
        make_dataset("x", media="empty")
    assert "clips.csv" in error.value.remedy and not os.path.exists("x")


def test_a_table_of_measurements_beside_the_clips_is_told_and_not_used(tmp_path):
    toys(tmp_path, *(f"{c}/{n}.avi" for c in ("a", "b") for n in range(3)))
    put(tmp_path / "speed.csv", "12,5\n13,6\n")
    with pytest.raises(DataError) as error:  # the toys are no videos: the ledger tells all
        make_dataset(tmp_path / "set", media=tmp_path)
    assert "speed.csv" in str(error.value) and "unreadable" in str(error.value)
    put(tmp_path / "one.csv", "a/0.avi,1\n")
    put(tmp_path / "two.csv", "path,label\na/0.avi,1\n")
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "set", media=tmp_path)
    assert set(error.value.choices) == {"one.csv", "two.csv"}
