"""From the official files to a dataset folder, for every dataset and for what is not there."""

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from sda.data.assembly import make_dataset
from sda.data.datasets import open_dataset, source_of
from sda.data.lists import read_classes, read_list
from sda.foundation.errors import DataError, SdaError, SettingError

OFFICIAL = Path(os.environ.get("SDA_ANNOTATIONS", "no-annotations"))


def frames(folder, count=9):
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (40, 40), (9 * k, 0, 0)).save(folder / f"{k + 1:05d}.jpg")
    return folder


@pytest.mark.parametrize("text", ["[]", '{"dataset": "own"}', "[" * 50_000])
def test_a_damaged_note_of_where_a_set_comes_from_is_named(tmp_path, text):
    (tmp_path / "source.json").write_text(text)
    with pytest.raises(DataError) as error:
        source_of(tmp_path, "test")
    assert error.value.subject == str(tmp_path / "source.json") and error.value.remedy


def test_something_v1(tmp_path):
    (tmp_path / "something-something-v1-labels.csv").write_text("b\na\n")
    (tmp_path / "something-something-v1-train.csv").write_text("1;b\n2;a\n")
    for k in "12":
        frames(tmp_path / "clips" / k)
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
    (record,) = read_list(tmp_path / "set/trainValTest/test.txt", tmp_path / "set/img", ["x"])
    assert (record.offset, record.num_frames) == (2, 6) and "V2" in reports["test"][0].variant


def test_something_v2_test_split_needs_its_answers(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"Holding something": "0"}))
    (tmp_path / "test.json").write_text(json.dumps([{"id": "7"}]))
    frames(tmp_path / "clips/7")
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "set", "something_v2", tmp_path, tmp_path / "clips", frames=True)
    assert error.value.subject == str(tmp_path / "set") and "test.json, record 0 (id 7)" in str(error.value)
    with (tmp_path / "test-answers.csv").open("w") as file:
        csv.writer(file, delimiter=";").writerow(["7", "Holding something"])
    reports = make_dataset(tmp_path / "set", "something_v2", tmp_path, tmp_path / "clips", frames=True)
    assert reports["test"][0].kept == 1 and (tmp_path / "set/trainValTest/test.txt").read_text() == "7 9 0\n"


def diving(folder, files):
    (folder / "Diving48_vocab.json").write_text(json.dumps([["Back", "15som", "05Twis", "FREE"]]))
    for file in files:
        (folder / f"{file}.json").write_text(
            json.dumps([{"vid_name": "-a_0", "label": 0, "start_frame": 0, "end_frame": 8}])
        )
    frames(folder / "clips/-a_0")


@pytest.mark.parametrize(
    ("files", "release"),
    [(["Diving48_V2_train", "Diving48_V2_test"], "V2"), (["Diving48_train", "Diving48_test"], "V1")],
)
def test_the_release_of_diving48_stands_beside_the_dataset(tmp_path, files, release):
    diving(tmp_path, files)
    make_dataset(tmp_path / "set", "diving48", tmp_path, tmp_path / "clips", frames=True)
    for split in ("train", "test"):
        data = open_dataset(tmp_path / "set", split)
        assert data.source == f"Diving48 {release} (by file name)" and data.source in repr(data)


def test_two_releases_are_not_mixed(tmp_path):
    diving(tmp_path, ["Diving48_V2_train", "Diving48_test"])
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "set", "diving48", tmp_path, tmp_path / "clips", frames=True)
    assert error.value.subject == str(tmp_path) and "one release" in error.value.remedy
    assert "V2 (train)" in str(error.value) and "V1 (test)" in str(error.value)
    diving(tmp_path / "clips", ["Diving48_V2_train", "Diving48_train"])
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "set", "diving48", tmp_path / "clips", tmp_path / "clips", frames=True)
    assert error.value.subject == str(tmp_path / "clips") and "one release" in error.value.remedy
    assert not (tmp_path / "set").exists()


def test_own_table_keeps_takes_on_one_side(tmp_path):
    rows = [(f"shots/{n} x", "left" if n % 2 else "right", f"take {n // 4}") for n in range(24)]
    for path, *_ in rows:
        frames(tmp_path / path, 2)
    (tmp_path / "clips.csv").write_bytes(
        "\ufeffpath;label;take\r\n".encode() + "\r\n".join(map(";".join, rows)).encode()
    )
    found = []
    for k in range(2):
        make_dataset(tmp_path / f"set{k}", "csv", tmp_path / "clips.csv", seed=3, group="take")
        found.append(
            {s: {r.id for r in open_dataset(tmp_path / f"set{k}", s).records} for s in ("train", "val")}
        )
    assert found[0] == found[1] and len(found[0]["train"]) == 20 and len(found[0]["val"]) == 4
    sides = [{take for path, _, take in rows if path in ids} for ids in found[0].values()]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 6
    with pytest.raises(DataError) as error:
        make_dataset(tmp_path / "x", "csv", tmp_path / "clips.csv", group="scene")
    assert error.value.choices == ("path", "label", "take") and "scene" in str(error.value)
    with pytest.raises(SettingError) as error:
        make_dataset(tmp_path / "x", "csv")
    assert error.value.subject == "annotations"


def test_from_a_folder_of_clips_to_a_prediction_in_three_lines(tmp_path, monkeypatch, capsys):
    from sda.commands.main import main

    monkeypatch.chdir(tmp_path)
    for n in range(10):
        frames(tmp_path / f"clips/{'jump' if n % 2 else 'wave'}/{n}", 8)
    assert main(["data", "make", "mine", "--media", "clips", "--quiet"]) in (0, None)
    assert main(
        [
            "train",
            "--data",
            "mine",
            "--recipe",
            "finetune_small",
            "--epochs",
            "1",
            "--size",
            "32",
            "--resize",
            "36",
            "--no-pretrained",
            "--num-workers",
            "0",
            "--batch-size",
            "4",
            "--threads",
            "1",
            "--quiet",
        ]
    ) in (0, None)
    model = tmp_path / "runs/sda_tsn_tiny-finetune_small-seed0/model.safetensors"
    capsys.readouterr()
    assert main(["predict", "clips/jump/1", "--model", str(model), "--quiet"]) in (0, None)
    said = capsys.readouterr().out
    assert "jump" in said and "wave" in said


def test_nothing_is_written_without_files(tmp_path):
    for words in (
        ["epic55", tmp_path],
        ["diving48", tmp_path],
        ["folder", None, tmp_path / "none"],
        ["something_v2"],
    ):
        with pytest.raises(SdaError):
            make_dataset(tmp_path / "set", *words)
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(not (OFFICIAL / "epic-kitchens-55").is_dir(), reason="SDA_ANNOTATIONS has no EPIC-55")
def test_official_epic(tmp_path):
    make_dataset(tmp_path / "set", "epic55", OFFICIAL / "epic-kitchens-55", frames=True)
    counts = [
        len((tmp_path / f"set/trainValTest/{s}.txt").read_text().splitlines()) for s in ("train", "val")
    ]
    assert counts == [23_191, 5_281]


def dives(folder, release, count=12):
    """A download of Diving48 in small: dives of four competitions, two classes."""
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Reverse", "25som", "NoTwis", "PIKE"]]
    folder.mkdir()
    (folder / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    for split in ("train", "test"):
        rows = [
            {"vid_name": f"-{split}{n % 4}_{n:05d}", "label": n % 2, "start_frame": 0, "end_frame": 8}
            for n in range(count)
        ]
        (folder / f"Diving48_{release}{split}.json").write_text(json.dumps(rows))
        for row in rows:
            frames(folder / "rgb" / row["vid_name"], 8)
    return [" ".join(entry) for entry in vocabulary]


def test_the_release_is_printed_and_recorded_with_every_result(tmp_path, monkeypatch, capsys):
    from sda.commands.main import main
    from sda.data.sampling import Sampling
    from sda.data.transforms import TransformConfig
    from sda.networks.backbones import create_model
    from sda.networks.checkpoints import ModelCard, class_hash, save_model

    monkeypatch.chdir(tmp_path)

    def said(*words):
        status = main([str(w) for w in (*words, "--quiet")])
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    for release in ("", "V2_"):
        names = dives(tmp_path / f"official{release}", release)
        label = release.strip("_") or "V1"
        out = said(
            "data",
            "make",
            f"dives{label}",
            "--source",
            "diving48",
            "--annotations",
            f"official{release}",
            "--media",
            f"official{release}/rgb",
            "--frames",
            "--hold-out",
            ".25",
        )
        for split in ("train", "test", "val"):
            assert f"made from Diving48 {label} (by file name) ({split}.txt)" in out
        assert f"made from Diving48 {label}" in said("data", "check", f"dives{label}")
        sides = [
            {r.id.split("_")[0] for r in open_dataset(f"dives{label}", s).records} for s in ("train", "val")
        ]
        assert len(sides[1]) == 1 and len(sides[0]) == 3 and not sides[0] & sides[1]
    net = create_model("tsn_tiny", 2, num_frames=4, dropout=0.0)
    card = ModelCard.of(
        net,
        names,
        transform=TransformConfig(size=32, resize=36).to_dict(),
        sampling=Sampling("segments", 4).to_dict(),
    )
    save_model(tmp_path / "net.safetensors", net, card)
    for label in ("V1", "V2"):
        out = said("test", "net.safetensors", "--data", f"dives{label}", "--out", "results")
        assert f"on 12 clips of dives{label}/test, Diving48 {label} (by file name): top-1" in out
    records = sorted(
        (json.loads(f.read_text()) for f in Path("results").glob("*.json")), key=lambda r: r["dataset"]
    )
    assert [r["source"] for r in records] == ["Diving48 V1 (by file name)", "Diving48 V2 (by file name)"]
    assert (
        {r["metrics"]["class_hash"] for r in records}
        == {class_hash(names)}
        == {json.loads(said("models", "net.safetensors"))["class_hash"]}
    )
    Path("divesV2").rename("dives")  # a folder of the same name as before: the release still tells them apart
    said("test", "net.safetensors", "--data", "dives", "--out", "results")
    table = said("table", "--records", "results", "--dataset", "dives", "--markdown")
    assert table.count("\n") == 3 and "V1" not in said(
        "table", "--records", "results", "--dataset", "divesV2"
    )
    out = said(
        "train",
        "--data",
        "divesV1",
        "--recipe",
        "finetune_small",
        "--model",
        "tsn_tiny",
        "--no-pretrained",
        "--epochs",
        "1",
        "--size",
        "32",
        "--resize",
        "36",
        "--num-workers",
        "0",
        "--threads",
        "1",
    )
    assert "tsn_tiny on Diving48 V1 (by file name): validation accuracy" in out


def test_groups_by_command_and_words_that_do_not_fit(tmp_path, monkeypatch, capsys):
    from sda.commands.main import main

    monkeypatch.chdir(tmp_path)
    rows = [(f"shots/{n}", "left" if n % 2 else "right", f"take {n // 4}") for n in range(24)]
    for path, *_ in rows:
        frames(tmp_path / path, 2)
    Path("clips.csv").write_text("path,label,take\n" + "\n".join(map(",".join, rows)) + "\n")
    Path("one.csv").write_text("path,label,take\nshots/0,right,take 0\nshots/1,left,take 0\n")
    words = [
        "data",
        "make",
        "mine",
        "--source",
        "csv",
        "--annotations",
        "clips.csv",
        "--group",
        "take",
        "--seed",
        "3",
        "--quiet",
    ]
    assert main(words) == 0 and "lists in mine" in capsys.readouterr().out
    take = {path: source for path, _, source in rows}
    sides = [{take[r.id] for r in open_dataset("mine", s).records} for s in ("train", "val")]
    assert [len(s) for s in sides] == [5, 1] and not sides[0] & sides[1]
    (tmp_path / "mine/source.json").write_text(
        json.dumps({"dataset": "Diving48", "variants": {"train": "V1"}})
    )
    assert main(words) == 0 and not (tmp_path / "mine/source.json").exists()  # own clips have no release
    for words, said in (
        (["--media", "shots", "--group", "take"], "a group is a column of a table"),
        (["--annotations", "clips.csv", "--group", "scene"], "no column scene"),
        (["--source", "csv", "--annotations", "one.csv", "--group", "take"], "2 clip(s) of 1 source(s)"),
        (["--source", "folder", "--annotations", "clips.csv"], "A table of clips is source csv"),
        (["--annotations", "clips.csv", "--hold-out", ".1", "--share", ".8", ".2"], "give one"),
    ):
        assert main(["data", "make", "other", *words, "--quiet"]) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1 and not Path("other").exists()
