"""Extraction under fire: SIGKILL and Ctrl-C in the middle, damaged files, a full disk, paths out of the
root."""

import json
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sda.data.extract import extract, frames_at
from sda.data.extraction import plan
from sda.data.video import open_video
from sda.foundation.errors import DataError, FolderError, SettingError
from sda.foundation.files import lock


def make(path, frames=30, size=64, rate=10, rotate=0):
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "ultrafast"})
        stream.width = size * 2
        stream.height = size
        stream.pix_fmt = "yuv420p"
        if rotate:
            stream.set_display_rotation(rotate)
        for i in range(frames):
            picture = np.full((size, size * 2, 3), 6 * i % 200, np.uint8)
            picture[: size // 2, : size // 2] += 50  # the upper left corner is brighter
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        box.mux(stream.encode())
    return path


def folders(root):
    return {p for p in Path(root).rglob("*") if p.is_dir() and any(p.glob("*.jpg"))}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    first = make(root / "v00.mp4", frames=100, size=160)
    for i in range(1, 8):
        (root / f"v{i:02d}.mp4").write_bytes(first.read_bytes())
    return root


@pytest.mark.parametrize(
    ("sign", "wait"), [(signal.SIGKILL, 0.1), (signal.SIGKILL, 0.3), (signal.SIGINT, 0.2)]
)
def test_killed_at_any_moment_it_leaves_only_complete_folders_and_goes_on(many, tmp_path, sign, wait):
    child = get_context("fork").Process(
        target=extract,
        args=(many, tmp_path / "f"),  # fork: no second import of torch
        kwargs={"workers": 2, "progress": False},
    )
    child.start()
    while not (tmp_path / "f/extract.json").exists() and child.is_alive():
        time.sleep(0.005)
    time.sleep(wait)
    os.kill(child.pid, sign)
    child.join(timeout=30)
    assert child.exitcode not in (0, None)
    whole = {p for p in folders(tmp_path / "f") if not p.name.startswith(".")}
    assert len(whole) < 8  # it was really interrupted
    assert all(len(list(p.iterdir())) == 100 for p in whole)
    if sign == signal.SIGINT:
        assert folders(tmp_path / "f") == whole  # Ctrl-C also tidies up
    report = extract(many, tmp_path / "f", progress=False)
    assert report.ok and len(report.already) == len(whole) and set(report.lengths.values()) == {100}
    assert len(report.lengths) == 8 and not any(p.name.startswith(".") for p in folders(tmp_path / "f"))


def test_frames_agree_with_the_video(tmp_path):
    make(tmp_path / "v/a b/-x.mp4")
    report = extract(tmp_path / "v", tmp_path / "f", height=None, quality=95, progress=False)
    assert report.lengths == {"a b/-x.mp4": 30}
    video = open_video(tmp_path / "v/a b/-x.mp4")
    frames = open_video(tmp_path / "f/a b/-x")
    assert (video.frames([0, 7, 29]).float() - frames.frames([0, 7, 29]).float()).abs().max() <= 4


def test_height_keeps_proportion_and_phones_stand_upright(tmp_path):
    make(tmp_path / "v/wide.mp4", frames=3)
    make(tmp_path / "v/phone.mp4", frames=3, rotate=90)
    extract(tmp_path / "v", tmp_path / "f", height=96, progress=False)
    assert open_video(tmp_path / "f/wide").size == (96, 192) and open_video(tmp_path / "f/phone").size == (
        96,
        48,
    )
    extract(tmp_path / "v", tmp_path / "g", height=None, quality=95, progress=False)
    shown, written = (open_video(tmp_path / p).frames([2]).float() for p in ("v/phone.mp4", "g/phone"))
    assert (shown - written).abs().mean() < 1 and written.shape == (1, 128, 64, 3)


def test_damage_is_listed_and_the_others_go_on(tmp_path):
    good = make(tmp_path / "v/good.mp4")
    (tmp_path / "v/cut.mp4").write_bytes(good.read_bytes()[:1500])
    (tmp_path / "v/text.mp4").write_text("no video")
    (tmp_path / "v/empty.mp4").write_bytes(b"")
    report = extract(tmp_path / "v", tmp_path / "f", progress=False)
    assert report.lengths == {"good.mp4": 30} and set(report.failed) == {"cut.mp4", "text.mp4", "empty.mp4"}
    assert not report.ok and all(n in why for n, why in report.failed.items())
    assert [p.name for p in folders(tmp_path / "f")] == ["good"] and "failed" in str(report)


def test_a_full_disk_stops_and_a_later_run_goes_on(tmp_path, monkeypatch):
    for i in range(3):
        make(tmp_path / f"v/{i}.mp4", frames=8)
    write = Path.write_bytes
    left = [12]

    def full(self, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FolderError) as error:
        extract(tmp_path / "v", tmp_path / "f", workers=1, progress=False)
    assert error.value.subject == str(tmp_path / "f") and "run again" in error.value.remedy
    assert error.value.__cause__.errno == 28 and "after 1 videos" in str(error.value)
    assert len(folders(tmp_path / "f")) == 1
    monkeypatch.undo()
    report = extract(tmp_path / "v", tmp_path / "f", progress=False)
    assert report.ok and len(report.already) == 1 and len(report.done) == 2


def test_a_folder_with_another_count_is_refused(tmp_path):
    make(tmp_path / "v/a.mp4", frames=5)
    extract(tmp_path / "v", tmp_path / "f", progress=False)
    (tmp_path / "f/a/00003.jpg").unlink()
    report = extract(tmp_path / "v", tmp_path / "f", progress=False)
    assert "5 pictures" in report.failed["a.mp4"] and report.lengths == {}


def test_one_run_and_one_setting_per_target(tmp_path):
    make(tmp_path / "v/a.mp4", frames=5)
    with lock(tmp_path / "f", "extracting other frames"):
        with pytest.raises(FolderError) as error:
            extract(tmp_path / "v", tmp_path / "f", progress=False)
    assert "extracting other frames" in str(error.value)  # what the holder of the lock says it does
    assert error.value.subject == str(tmp_path / "f") and not folders(tmp_path / "f")
    assert extract(tmp_path / "v", tmp_path / "f", progress=False).ok
    with pytest.raises(SettingError) as error:
        extract(tmp_path / "v", tmp_path / "f", height=100)
    assert error.value.subject == str(tmp_path / "f")
    assert json.loads((tmp_path / "f/extract.json").read_text())["height"] == 256


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/a.mp4", "x/../../a.mp4", "C:/a.mp4"])
def test_paths_stay_inside(tmp_path, name):
    (tmp_path / "v").mkdir()
    with pytest.raises(DataError) as error:
        plan(tmp_path / "v", tmp_path / "f", [name])
    assert error.value.subject == name and "root" in error.value.remedy


def test_links_among_the_videos_are_followed_and_those_of_the_target_refused(tmp_path):
    make(tmp_path / "store/a.mp4", frames=3)
    (tmp_path / "v").mkdir()
    (tmp_path / "v/a.mp4").symlink_to(tmp_path / "store/a.mp4")  # clip by clip
    (tmp_path / "v/class").symlink_to(tmp_path / "store", True)  # class by class
    (tmp_path / "v/circle").symlink_to(tmp_path / "v", True)
    assert sorted(plan(tmp_path / "v", tmp_path / "f")) == ["a.mp4", "class/a.mp4"]
    assert extract(tmp_path / "v", tmp_path / "g", progress=False).lengths == {"a.mp4": 3, "class/a.mp4": 3}
    make(tmp_path / "w/d/a.mp4", frames=3)
    (tmp_path / "f").mkdir()
    (tmp_path / "f/d").symlink_to(tmp_path / "store", True)
    with pytest.raises(DataError) as error:
        extract(tmp_path / "w", tmp_path / "f", progress=False)
    assert error.value.subject == "d/a.mp4" and "root" in error.value.remedy
    assert os.listdir(tmp_path / "store") == ["a.mp4"]


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(SettingError) as error:
        extract(tmp_path / "none", tmp_path / "f")
    assert error.value.subject == str(tmp_path / "none") and "folder" in error.value.remedy
    (tmp_path / "v").mkdir()
    with pytest.raises(SettingError) as error:
        extract(tmp_path / "v", tmp_path / "f")
    assert error.value.subject == str(tmp_path / "v") and ".mp4" in error.value.choices
    assert not (tmp_path / "f").exists()


@given(st.lists(st.floats(0.01, 0.3), min_size=1, max_size=40), st.floats(0.5, 60))
@settings(max_examples=200, deadline=None)
def test_every_picture_shows_its_moment(gaps, fps):
    times = np.cumsum([0, *gaps])
    chosen = frames_at(times, fps)
    moments = np.arange(len(chosen)) / fps
    assert chosen[0] == 0 and (np.diff(chosen) >= 0).all()
    assert (times[chosen] <= moments + 2e-6).all()
    later = chosen + 1 < len(times)
    assert (times[chosen[later] + 1] > moments[later]).all()
    assert moments[-1] < times[-1] + np.mean(gaps)
