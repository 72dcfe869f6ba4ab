"""Videos are scanned once; what a scan told holds for that very file; only needed pictures are decoded."""

import itertools
import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from unit.test_video import moving, save

from sda.data.video import PyAVVideo, open_video, scan
from sda.foundation.errors import VideoError

av = pytest.importorskip("av")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder of scans of its own."""
    folder = tmp_path / "caches"
    monkeypatch.setenv("SDA_CACHE", str(folder))
    return folder / "scans.sqlite"


def aged(path, seconds=10):
    """The file, last changed some time ago; waits until its other time stamp is old enough too."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    time.sleep(2.1)
    return path


def rows(store):
    with sqlite3.connect(store) as box:
        return box.execute("SELECT name, content, digest FROM scans").fetchall()


def facts_elsewhere(path):
    """What another process says of a file, and whether it opened it."""
    code = f"""
import av
from sda.data.video import scan
opened = []
real = av.open
av.open = lambda *a, **k: opened.append(a) or real(*a, **k)
print(scan({str(path)!r}), len(opened))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, _, opened = done.stdout.strip().rpartition(" ")
    return said, int(opened)


def test_another_process_does_not_scan_again(tmp_path, kept):
    path = aged(save(tmp_path / "a.mp4", moving(24)))
    first = scan(path)
    said, opened = facts_elsewhere(path)
    assert (said, opened) == (str(first), 0)
    (row,) = rows(kept)
    with sqlite3.connect(kept) as box:  # what does not hold is not believed
        box.execute("UPDATE scans SET content = ?", (row[1][:-1] + bytes([row[1][-1] ^ 1]),))
    assert facts_elsewhere(path) == (str(first), 1)
    kept.write_bytes(b"no database " * 1000)
    assert [facts_elsewhere(path)[1] for _ in range(2)] == [1, 0], "made anew"
    same = path.stat()
    save(path, moving(12))
    os.utime(path, ns=(same.st_atime_ns, same.st_mtime_ns))  # as a copy that keeps times leaves it
    assert len(PyAVVideo(path)) == 12


def test_what_is_new_or_broken_is_not_kept(tmp_path, kept):
    path = save(tmp_path / "a.mp4", moving(24))
    scan(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(VideoError):
        scan(path)
    assert not kept.exists() or rows(kept) == []


def test_a_folder_that_cannot_hold_them_is_done_without(tmp_path, monkeypatch):
    path = aged(save(tmp_path / "a.mp4", moving(24)))
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", ""):
        monkeypatch.setenv("SDA_CACHE", str(place))
        assert scan(path).length == 24


STREAMS = [
    {"bf": "3"},
    {"bf": "0"},
    {"bf": "2", "g": "12", "x264-params": "open-gop=1"},
    {"bf": "3", "x264-params": "b-pyramid=strict"},
    {"flags": "+ildct+ilme"},
]


@pytest.mark.parametrize("options", STREAMS)
@pytest.mark.parametrize("end", ["mp4", "mkv"])
def test_chosen_frames_are_those_of_a_whole_reading(tmp_path, end, options):
    """Pictures that are left out on the way change nothing in the others, whichever are asked for."""
    path = save(tmp_path / f"a.{end}", moving(40), **options)
    with av.open(str(path)) as box:
        every = torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in box.decode(video=0)]))
    video = open_video(path)
    for first, step in itertools.product((0, 3, 17, 39), (1, 2, 5, 9)):
        chosen = list(range(first, 40, step))
        assert torch.equal(video.frames(chosen), every[chosen]), chosen


def test_damage_in_a_reference_is_told_whatever_is_asked_for(tmp_path):
    """A hole of zeros must not pass for pictures that can be spared."""
    rng = np.random.default_rng(0)
    path = save(tmp_path / "a.mp4", rng.integers(0, 255, (60, 64, 64, 3), dtype=np.uint8), bf="3")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 30_000] = bytes(30_000)
    path.write_bytes(bytes(data))
    with pytest.raises(VideoError) as error:
        open_video(path).frames([0, 59])
    assert error.value.subject == str(path)
