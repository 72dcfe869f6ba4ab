"""Moves across files and processes: the theorem on decoded mp4s, determinism, interruption, bad folders."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from sda.data.lists import read_groups, read_masks, read_pairs
from sda.foundation.errors import (
    DataError,
    FolderError,
    MissingPackageError,
    SettingError,
    UnknownNameError,
)
from sda.moves.assembly import make_moves
from sda.moves.classes import CLASSES, FRAMES, NEEDS, ORDERS, PAIRS, SIZE
from sda.moves.make import write_clip
from sda.moves.render import render
from sda.moves.truth import load_truth

av = pytest.importorskip("av")
ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sda" / "assets" / "moves_sample"
REORDERED = [c for c in CLASSES if not c.variant]
FOUR = dict(train=2, val=1, test=1)
GROUPS = [list(g) for _, g in groupby(sorted(REORDERED, key=lambda c: c.source), key=lambda c: c.source)]


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def bag(frames):
    return Counter(f.tobytes() for f in frames)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_moves(tmp_path_factory.mktemp("moves") / "set", train=2, val=1, test=1, progress=False)


def test_table():
    assert len({c.name for c in CLASSES}) == 20 and [c.name for c in CLASSES] == sorted(
        c.name for c in CLASSES
    )
    assert {c.need for c in CLASSES} == set(NEEDS)
    assert sorted(n for pair in PAIRS for n in pair) == [c.name for c in CLASSES]
    by_name = {c.name: c for c in CLASSES}
    for a, b in PAIRS:
        a = by_name[a]
        b = by_name[b]
        assert (a.pair, a.need, a.source) == (b.pair, b.need, b.source)
        assert (a.order == b.order) == bool(a.variant) and (a.variant != b.variant) == bool(a.variant)


def test_exchanging_left_and_right_finds_the_horizontal_pairs_only():
    swap = {"left": "right", "right": "left"}
    names = {c.name for c in CLASSES}
    found = {
        frozenset((n, m))
        for n in names
        if (m := " ".join(swap.get(w, w) for w in n.split())) != n and m in names
    }
    assert found == {frozenset(p) for p in PAIRS if "left" in p[0] or "left" in p[1]} and len(found) == 2
    assert not [
        n for n in names if ("left" in n.split() or "right" in n.split()) and not any(n in f for f in found)
    ]


def test_orders_are_permutations_and_centre_sampling_keeps_pairs_equal():
    for order in ORDERS.values():
        assert sorted(order) == list(range(FRAMES))
    centre = range(1, FRAMES, 3)  # 8 segments of 3 frames, the middle one of each
    seen = {name: {order[i] for i in centre} for name, order in ORDERS.items()}
    assert seen["forward"] == seen["reverse"] and seen["there_and_back"] == seen["back_and_there"]


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g[0].source)
def test_decoded_files_hold_the_same_frames_in_another_order(small, group):
    for clip in ("train_0000", "train_0001", "val_0000", "test_0000"):
        files = {c.key: decode(small / "img" / f"{clip}_{c.key}.mp4") for c in group}
        first, *others = group
        assert len(files) >= 2 and files[first.key].shape == (FRAMES, SIZE, SIZE, 3)
        source = files[first.key][np.argsort(ORDERS[first.order])]
        for other in others:
            assert bag(files[other.key]) == bag(source)
            assert (files[other.key] == source[list(ORDERS[other.order])]).all()
            assert (files[other.key] != files[first.key]).any()


def test_shipped_sample_keeps_the_theorem_and_its_truth():
    truth = load_truth(SAMPLE)
    assert len(truth) == 20 and sum(f.stat().st_size for f in SAMPLE.rglob("*") if f.is_file()) < 600_000
    for group in GROUPS:
        bags = [bag(decode(SAMPLE / "img" / f"test_0000_{c.key}.mp4")) for c in group]
        assert all(b == bags[0] for b in bags)
    made = {
        c.key: render(c.key, 0, "test", seed=7) for c in CLASSES
    }  # its own seed: no clip of a real test set
    for clip, t in truth.items():
        assert (t.object == made[t.move.key].object).all() and clip.endswith(t.move.key)
        off = decode(SAMPLE / "img" / f"{clip}.mp4").astype(float) - made[t.move.key].frames
        assert np.abs(off).mean() < 8  # the codec at 72 pixels with halved colour


def test_raw_frames_are_pinned():
    digest = hashlib.sha256()
    for c in CLASSES:
        digest.update(render(c.key, index=3, split="val", seed=11).frames.tobytes())
    assert digest.hexdigest() == "4db37e707c51a022ab22aa9e1476c68bab07b47c1ed4ddabbda04833d339b3fc"
    digest = hashlib.sha256(render("Turning something clockwise").frames.tobytes())
    assert digest.hexdigest() == "6c740662e209c97097b47055dfcfa270b86b6128242e0a3dffc40b24ee58fe30"


def test_a_small_set_is_the_beginning_of_a_larger_one(small, tmp_path):
    smaller = make_moves(tmp_path / "s", train=1, val=0, test=0, progress=False)
    files = sorted((smaller / "img").iterdir())
    assert len(files) == 20
    for file in files:
        assert file.read_bytes() == (small / "img" / file.name).read_bytes()
    assert (decode(small / "img/train_0000_up.mp4") != decode(small / "img/train_0001_up.mp4")).any()
    assert (render("up", seed=1).frames != render("up").frames).any()


def test_workers_make_what_one_process_makes(small, tmp_path):
    """Four jobs on two spawned workers, from a script without a main guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "from sda.moves.assembly import make_moves\n"
        f"make_moves({str(tmp_path / 'two')!r}, train=2, val=1, test=1, progress=False, workers=2)\n"
    )
    subprocess.run(
        [sys.executable, script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120
    )
    for file in (small / "img").iterdir():
        assert file.read_bytes() == (tmp_path / "two/img" / file.name).read_bytes()
    assert not (tmp_path / "two/.parts").exists()


def test_lists_and_splits(small):
    names = (small / "category.txt").read_text().splitlines()
    assert names == [c.name for c in CLASSES]
    for split, count in dict(train=2, val=1, test=1).items():
        rows = [line.split() for line in (small / "trainValTest" / f"{split}.txt").read_text().splitlines()]
        assert len(rows) == 20 * count and Counter(int(r[2]) for r in rows) == {k: count for k in range(20)}
        for path, frames, label in rows:
            assert frames == "24" and (small / "img" / path).exists()
            assert path.startswith(f"{split}_") and path.endswith(f"_{CLASSES[int(label)].key}.mp4")


def test_splits_share_no_frame_and_classes_of_a_source_stay_together(small):
    """All classes of a source carry one split and index, and no frame is in two splits."""
    frames = {split: set() for split in ("train", "val", "test")}
    for file in (small / "img").iterdir():
        frames[file.name.split("_")[0]] |= set(bag(decode(file)))
    assert len(frames["test"]) > FRAMES * len(GROUPS)
    assert not (
        frames["train"] & frames["val"] or frames["train"] & frames["test"] or frames["val"] & frames["test"]
    )


@pytest.mark.parametrize("move", CLASSES, ids=lambda c: c.key)
def test_masks_cover_the_object_and_the_track_follows_it(small, move):
    t = load_truth(small, [f"img/train_0000_{move.key}.mp4"])[f"img/train_0000_{move.key}.mp4"]
    frames = decode(small / "img" / f"train_0000_{move.key}.mp4").astype(float)
    seen = t.object
    assert t.move == move and seen.shape == (FRAMES, SIZE, SIZE) and t.track.shape == (FRAMES, 5)
    assert (t.evidence | ~seen).all() and 0.001 < seen.mean() < 0.3 and t.evidence.mean() < 0.7
    shown = seen.any((1, 2))
    assert ((t.track[:, 4] > 0) == shown).all() and np.isfinite(t.track).all()
    inside = np.stack([frames[k][seen[k]].mean(0) for k in np.flatnonzero(shown)]).mean(0)
    outside = frames[~t.evidence].mean(0)
    assert np.abs(inside - outside).max() > 25  # the mask holds another colour than the rest
    for k in np.flatnonzero(t.track[:, 4] == 1):
        if move.source == "flakes":
            break
        yx = np.argwhere(seen[k]).mean(0)
        assert np.hypot(*(yx[::-1] - t.track[k, :2])) < 0.6 * t.track[k, 2]


def test_tracks_do_what_the_names_say(small):
    track = {t.move.key: t.track for t in load_truth(small).values() if t.id.startswith("train_0001")}
    x, y, radius, angle = (lambda key, c=c: track[key][-1, c] - track[key][0, c] for c in range(4))
    assert x("rightward") > 15 and x("leftward") < -15 and y("down") > 15 and y("up") < -15
    assert (
        radius("closer") > 5
        and radius("away") < -5
        and angle("clockwise") > 1.9
        and angle("anticlockwise") < -1.9
    )
    assert abs(x("right_back")) < 12 and track["right_back"][12, 0] - track["right_back"][0, 0] > 15
    assert abs(x("left_back")) < 12 and track["left_back"][12, 0] - track["left_back"][0, 0] < -15
    assert track["appear"][0, 4] == 0 and track["appear"][-1, 4] == 1 and track["disappear"][-1, 4] == 0
    hidden = (track["disc_cross"][:, 4] == 0).sum()
    assert 5 <= hidden <= 10 and track["disc_cross"][0, 4] == track["disc_cross"][-1, 4] == 1


def test_flakes_differ_in_the_mean_and_overlap_per_frame():
    count = {
        key: np.array([render(key, i).object.sum((1, 2)) for i in range(6)]) for key in ("sparse", "dense")
    }
    assert count["dense"].mean() > 2 * count["sparse"].mean()
    assert (count["dense"].min(1) < count["sparse"].max(1)).all()  # in each clip some frame misleads


def test_no_order_reaches_the_mean_of_sampled_frames():
    """A linear reader of the mean of all frames is at chance on reordered pairs: the means are equal."""
    for group in GROUPS:
        means = [render(c.key, 5).frames.mean(0) for c in group]
        assert all(np.array_equal(m, means[0]) for m in means)


def test_a_complete_set_is_reused(small, caplog):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*") if p.is_file()}
    with caplog.at_level("INFO"):
        assert make_moves(small, train=2, val=1, test=1, progress=False) == small
    assert "reuse" in caplog.text and before == {
        p: p.stat().st_mtime_ns for p in small.rglob("*") if p.is_file()
    }


def test_a_set_made_before_groups_and_pairs_is_completed(tmp_path, small):
    shutil.copytree(small, root := tmp_path / "set")
    for name in ("groups.json", "pairs.txt"):
        (root / name).unlink()
    assert read_groups(root) == {} and read_pairs(root) == []
    make_moves(root, train=2, val=1, test=1, progress=False)
    assert read_pairs(root) == PAIRS and read_groups(root)["need"] == {c.name: c.need for c in CLASSES}
    assert list(dict.fromkeys(read_groups(root)["need"].values())) == list(NEEDS), "in the order for tables"
    assert all(
        (root / name).read_bytes() == (folder / name).read_bytes()
        for name in ("groups.json", "pairs.txt")
        for folder in (small, SAMPLE)
    )


def test_masks_of_the_set_are_the_truth_of_the_clips(small):
    ids = [f"train_0001_{c.key}.mp4" for c in CLASSES]
    masks = read_masks(small, ids)
    for name, truth in load_truth(small, ids).items():
        assert (masks["object"][name] == truth.object).all()
        assert (masks["evidence"][name] == truth.evidence).all()


def test_other_parameters_are_refused(small):
    with pytest.raises(SettingError) as error:
        make_moves(small, train=2, val=1, test=1, seed=1, progress=False)
    assert error.value.subject == str(small) and "another folder" in error.value.remedy
    assert "seed is 0, not 1" in str(error.value)
    with pytest.raises(SettingError) as error:
        make_moves(small, progress=False)
    assert error.value.subject == str(small) and "train is 2, not 80" in str(error.value)
    none = dict(train=0, val=0, test=0)
    for bad, subject in ((dict(train=-1), "train"), (dict(seed=-1), "seed"), (none, "train, val, test")):
        with pytest.raises(SettingError) as error:
            make_moves(small, progress=False, **bad)
        assert error.value.subject == subject


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderError) as error:
        make_moves(tmp_path, progress=False)
    assert "empty folder" in error.value.remedy
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"] and error.value.subject == str(tmp_path)
    for file in (tmp_path / "thesis.txt" / "set", tmp_path / "thesis.txt"):
        with pytest.raises(FolderError) as error:
            make_moves(file, progress=False)
        assert error.value.subject == str(file) and "folder" in error.value.remedy


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refuse(self, *a, **k):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # works for root too, whom permission bits do not stop
    with pytest.raises(FolderError) as error:
        make_moves(tmp_path / "set", progress=False)
    assert "Permission denied" in str(error.value)  # the words of the system
    assert error.value.subject == str(tmp_path / "set") and "folder" in error.value.remedy


def test_a_damaged_set_is_not_reused(tmp_path):
    root = make_moves(tmp_path / "s", train=1, val=0, test=0, progress=False)
    (root / "img/train_0000_up.mp4").unlink()
    with pytest.raises(DataError) as error:
        make_moves(root, train=1, val=0, test=0, progress=False)
    assert error.value.subject == str(root) and "19" in str(error.value) and "again" in error.value.remedy
    for text in ("{", "[]", "[" * 50_000):
        (root / "moves.json").write_text(text)
        with pytest.raises(DataError) as error:
            make_moves(root, 1, 0, 0, progress=False)
        assert error.value.subject == str(root / "moves.json")
    with pytest.raises(DataError) as error:
        load_truth(tmp_path)
    assert error.value.subject == str(tmp_path)
    with pytest.raises(DataError) as error:
        load_truth(root, ["train_0009_up.mp4"])
    assert error.value.subject == "train_0009_up.mp4"


def start_making(root, **more):
    call = f"make_moves({str(root)!r}, **{FOUR}, progress=False, workers=2)"
    code = f"from sda.moves.assembly import make_moves; {call}"
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, **more)


def wait_for_parts(root, number, process):
    end = time.time() + 60
    while len(list((root / ".parts").glob("*.npz"))) < number:
        assert time.time() < end and process.poll() is None
        time.sleep(0.02)


def workers_of(pid):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(stat[1]) == pid:
            found.append(int(folder.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_any_moment_it_leaves_no_workers_and_goes_on(tmp_path, how):
    root = tmp_path / "set"
    process = start_making(root, stderr=subprocess.DEVNULL)
    wait_for_parts(root, 1, process)
    workers = workers_of(process.pid)
    process.send_signal(how)
    assert process.wait(20) != 0 and len(workers) >= 2
    end = time.time() + 20
    while any(map(alive, workers)):
        assert time.time() < end
        time.sleep(0.05)
    assert json.loads((root / "moves.json").read_text())["complete"] is False
    assert not (root / "trainValTest").exists() and not (root / "category.txt").exists()
    kept = {p: p.stat().st_mtime_ns for p in (root / ".parts").glob("*.npz")}
    assert 1 <= len(kept) <= 4  # all parts may be there, the set is not whole without its lists
    done = {
        f"{p.stem}_{c.key}.mp4": (root / "img" / f"{p.stem}_{c.key}.mp4").stat().st_mtime_ns
        for p in kept
        for c in CLASSES
    }
    make_moves(root, **FOUR, progress=False)
    assert all((root / "img" / name).stat().st_mtime_ns == at for name, at in done.items())  # not made twice
    assert len(load_truth(root)) == 80 and json.loads((root / "moves.json").read_text())["complete"] is True
    assert not list(root.rglob(".*"))


def test_interrupted_and_straight_sets_are_the_same(small, tmp_path, monkeypatch):
    calls = []

    def stop_in_the_third_index(*a):
        calls.append(a)
        if len(calls) == 2 * len(CLASSES) + 7:
            raise OSError(28, "No space left on device")
        write_clip(*a)

    with monkeypatch.context() as patch, pytest.raises(FolderError) as error:
        patch.setattr("sda.moves.make.write_clip", stop_in_the_third_index)
        make_moves(tmp_path / "s", 2, 1, 1, progress=False, workers=1)
    assert "No space left" in str(error.value)  # the words of the system
    assert error.value.subject == str(tmp_path / "s") and "goes on" in error.value.remedy
    root = make_moves(tmp_path / "s", 2, 1, 1, progress=False)
    for file in small.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (root / file.relative_to(small)).read_bytes(), file


def test_two_at_once_are_told_apart(tmp_path):
    root = tmp_path / "set"
    process = start_making(root)
    try:
        wait_for_parts(root, 1, process)
        with pytest.raises(FolderError) as error:
            make_moves(root, **FOUR, progress=False)
        assert error.value.subject == str(root) and "wait" in error.value.remedy
        assert str(process.pid) in str(error.value)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_failing_worker_is_named_with_the_remedy(tmp_path, monkeypatch):
    two = dict(train=1, val=1, test=0, progress=False)
    with monkeypatch.context() as patch, pytest.raises(FolderError):
        patch.setattr("sda.moves.make.write_clip", lambda *a: (_ for _ in ()).throw(OSError))
        make_moves(tmp_path, **two, workers=1)
    (tmp_path / "img/train_0000_up.mp4").mkdir()  # cannot be written as a file
    with pytest.raises(FolderError) as error:
        make_moves(tmp_path, **two, workers=2)
    assert error.value.subject == str(tmp_path) and "again" in error.value.remedy
    assert "train 0" in str(error.value)
    (tmp_path / "img/train_0000_up.mp4").rmdir()
    assert len(load_truth(make_moves(tmp_path, **two))) == 40


def test_write_clip_needs_no_neighbours(tmp_path):
    frames = render("shake").frames
    write_clip(tmp_path / "a.mp4", frames)
    write_clip(tmp_path / "b.mp4", frames[::-1])
    a = decode(tmp_path / "a.mp4")
    b = decode(tmp_path / "b.mp4")
    assert (a == b[::-1]).all() and (tmp_path / "a.mp4").stat().st_size < 40_000
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [p.is_keyframe for p in container.demux(video=0) if p.size] == [True] * FRAMES
        assert container.streams.video[0].average_rate == 12


def test_unknown_names_are_told():
    with pytest.raises(UnknownNameError) as error:
        render("jumping")
    assert set(error.value.choices) == {c.key for c in CLASSES}
    with pytest.raises(UnknownNameError) as error:
        render("up", split="dev")
    assert error.value.choices == ("train", "val", "test")


def test_missing_pyav_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError) as error:
        write_clip(tmp_path / "a.mp4", render("up").frames)
    assert (error.value.subject, error.value.remedy) == ("PyAV", "pip install av")
