"""From the official files to a dataset folder, for every dataset and for what is not there."""
import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from sda.annotations import AnnotationError
from sda.datasets import open_dataset, read_classes, read_list
from sda.sources import make_dataset

OFFICIAL = Path(os.environ.get("SDA_ANNOTATIONS", "no-annotations"))


def frames(folder, count=9):
    folder.mkdir(parents=True)
    for k in range(count): Image.new("RGB", (40, 40), (9 * k, 0, 0)).save(folder / f"{k + 1:05d}.jpg")
    return folder


def test_something_v1(tmp_path):
    (tmp_path / "something-something-v1-labels.csv").write_text("b\na\n")
    (tmp_path / "something-something-v1-train.csv").write_text("1;b\n2;a\n")
    for k in "12": frames(tmp_path / "clips" / k)
    reports = make_dataset(tmp_path / "set", "something_v1", tmp_path, tmp_path / "clips")
    assert list(reports) == ["train"] and read_classes(tmp_path / "set/category.txt") == ["a", "b"]
    assert [r.label for r in open_dataset(tmp_path / "set").records] == [1, 0]


def test_diving48_takes_its_frame_ranges(tmp_path):
    (tmp_path / "Diving48_vocab.json").write_text(json.dumps([["Back", "15som", "05Twis", "FREE"]]))
    for split in ("train", "test"):
        rows = [{"vid_name": f"-{split}_0", "label": 0, "start_frame": 2, "end_frame": 8}]
        (tmp_path / f"Diving48_V2_{split}.json").write_text(json.dumps(rows))
        frames(tmp_path / f"clips/-{split}_0")
    reports = make_dataset(tmp_path / "set", "diving48", tmp_path, tmp_path / "clips", frames=True)
    record, = read_list(tmp_path / "set/trainValTest/test.txt", tmp_path / "set/img", ["x"])
    assert (record.offset, record.num_frames) == (2, 6) and "V2" in reports["test"][0].variant


def test_something_v2_test_split_needs_its_answers(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"Holding something": "0"}))
    (tmp_path / "test.json").write_text(json.dumps([{"id": "7"}]))
    frames(tmp_path / "clips/7")
    with pytest.raises(AnnotationError, match="no clip can be used"):
        make_dataset(tmp_path / "set", "something_v2", tmp_path, tmp_path / "clips", frames=True)
    with (tmp_path / "test-answers.csv").open("w") as file:
        csv.writer(file, delimiter=";").writerow(["7", "Holding something"])
    reports = make_dataset(tmp_path / "set", "something_v2", tmp_path, tmp_path / "clips", frames=True)
    assert reports["test"][0].kept == 1 and (tmp_path / "set/trainValTest/test.txt").read_text() == "7 9 0\n"


def diving(folder, files):
    (folder / "Diving48_vocab.json").write_text(json.dumps([["Back", "15som", "05Twis", "FREE"]]))
    for file in files:
        (folder / f"{file}.json").write_text(json.dumps([{"vid_name": "-a_0", "label": 0, "start_frame": 0, "end_frame": 8}]))
    frames(folder / "clips/-a_0")


@pytest.mark.parametrize(("files", "release"), [
    (["Diving48_V2_train", "Diving48_V2_test"], "V2"), (["Diving48_train", "Diving48_test"], "V1")])
def test_the_release_of_diving48_stands_beside_the_dataset(tmp_path, files, release):
    diving(tmp_path, files)
    make_dataset(tmp_path / "set", "diving48", tmp_path, tmp_path / "clips", frames=True)
    for split in ("train", "test"):
        data = open_dataset(tmp_path / "set", split)
        assert data.source == f"Diving48 {release} (by file name)" and data.source in repr(data)


def test_two_releases_are_not_mixed(tmp_path):
    diving(tmp_path, ["Diving48_V2_train", "Diving48_test"])
    with pytest.raises(AnnotationError, match="mixes V2 .train. and V1 .test."):
        make_dataset(tmp_path / "set", "diving48", tmp_path, tmp_path / "clips", frames=True)
    diving(tmp_path / "clips", ["Diving48_V2_train", "Diving48_train"])
    with pytest.raises(AnnotationError, match="Keep one release"):
        make_dataset(tmp_path / "set", "diving48", tmp_path / "clips", tmp_path / "clips", frames=True)
    assert not (tmp_path / "set").exists()


def test_own_table_keeps_takes_on_one_side(tmp_path):
    rows = [(f"shots/{n} x", "left" if n % 2 else "right", f"take {n // 4}") for n in range(24)]
    for path, *_ in rows: frames(tmp_path / path, 2)
    (tmp_path / "clips.csv").write_bytes("\ufeffpath;label;take\r\n".encode() + "\r\n".join(map(";".join, rows)).encode())
    found = []
    for k in range(2):
        make_dataset(tmp_path / f"set{k}", "csv", tmp_path / "clips.csv", seed=3, group="take")
        found.append({s: {r.id for r in open_dataset(tmp_path / f"set{k}", s).records} for s in ("train", "val")})
    assert found[0] == found[1] and len(found[0]["train"]) == 20 and len(found[0]["val"]) == 4
    sides = [{take for path, _, take in rows if path in ids} for ids in found[0].values()]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 6
    with pytest.raises(AnnotationError, match="scene"): make_dataset(tmp_path / "x", "csv", tmp_path / "clips.csv", group="scene")
    with pytest.raises(AnnotationError, match="name the table"): make_dataset(tmp_path / "x", "csv")


def test_from_a_folder_of_clips_to_a_prediction_in_three_lines(tmp_path, monkeypatch, capsys):
    from sda.cli import main

    monkeypatch.chdir(tmp_path)
    for n in range(10): frames(tmp_path / f"clips/{'jump' if n % 2 else 'wave'}/{n}", 8)
    assert main(["data", "make", "mine", "--media", "clips", "--quiet"]) in (0, None)
    assert main(["train", "--data", "mine", "--recipe", "finetune_small", "--epochs", "1", "--size", "32", "--resize", "36",
                 "--no-pretrained", "--num-workers", "0", "--batch-size", "4", "--threads", "1", "--quiet"]) in (0, None)
    model = tmp_path / "runs/sda_tsn_tiny-finetune_small-seed0/model.safetensors"
    capsys.readouterr()
    assert main(["predict", "clips/jump/1", "--model", str(model), "--quiet"]) in (0, None)
    said = capsys.readouterr().out
    assert "jump" in said and "wave" in said


def test_nothing_is_written_without_files(tmp_path):
    for words in (["epic55", tmp_path], ["diving48", tmp_path], ["folder", None, tmp_path / "none"], ["something_v2"]):
        with pytest.raises((AnnotationError, OSError)): make_dataset(tmp_path / "set", *words)
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(not (OFFICIAL / "epic-kitchens-55").is_dir(), reason="SDA_ANNOTATIONS has no EPIC-55")
def test_official_epic(tmp_path):
    make_dataset(tmp_path / "set", "epic55", OFFICIAL / "epic-kitchens-55", frames=True)
    counts = [len((tmp_path / f"set/trainValTest/{s}.txt").read_text().splitlines()) for s in ("train", "val")]
    assert counts == [23_191, 5_281]
