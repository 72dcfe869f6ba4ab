"""Files: whole or not at all, held by one process, read once, named by their content."""

import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sda.foundation.errors import DataError, FolderError, SettingError
from sda.foundation.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    cached_by_file,
    check_folder,
    csv_text,
    digest,
    fingerprint,
    load_arrays,
    lock,
    save_arrays,
    to_plain,
    write_atomic,
)

needs_permissions = pytest.mark.skipif(
    os.name == "nt" or getattr(os, "geteuid", lambda: 1)() == 0, reason="needs a user whom permissions stop"
)


@pytest.mark.parametrize("content", ["ä\nb\n", "ä\nb\n".encode(), lambda file: file.write("ä\nb\n".encode())])
def test_text_bytes_and_functions_are_written(tmp_path, content):
    path = write_atomic(tmp_path / "new" / "a.txt", content)
    assert path.read_bytes() == "ä\nb\n".encode()
    assert os.listdir(path.parent) == ["a.txt"]


def test_arrays_are_written_by_a_function(tmp_path):
    path = write_atomic(str(tmp_path / "a.npz"), lambda file: np.savez_compressed(file, x=np.arange(3)))
    assert np.load(path)["x"].tolist() == [0, 1, 2]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_atomic(tmp_path / "a.txt", "old")

    def half(file):
        file.write(b"ne")
        raise KeyError("stop")

    with pytest.raises(KeyError):
        write_atomic(path, half)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new", before=_interrupt)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def _interrupt():
    raise KeyboardInterrupt


def test_before_is_called_between_writing_and_naming(tmp_path):
    path = write_atomic(tmp_path / "a.txt", "old")
    seen = []
    write_atomic(path, "new", before=lambda: seen.append((path.read_text(), len(os.listdir(tmp_path)))))
    assert seen == [("old", 2)]
    assert path.read_text() == "new"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError) as caught:
        write_atomic(tmp_path / "file" / "a.txt", "text")
    assert caught.value.subject == str(tmp_path / "file" / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FolderError) as caught:
        write_atomic(tmp_path / "folder", "text")
    assert caught.value.remedy
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_permissions_are_those_of_an_ordinary_open(tmp_path):
    (tmp_path / "ordinary").write_text("x")
    path = write_atomic(tmp_path / "a.txt", "x")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    path.chmod(0o640)
    assert stat.S_IMODE(write_atomic(path, "y").stat().st_mode) == 0o640


def test_threads_do_not_disturb_each_other(tmp_path):
    texts = [str(k) * 1000 for k in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "a.txt", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in texts
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_made_and_left_empty(tmp_path):
    folder = check_folder(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert os.listdir(folder) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError) as caught:
        check_folder(tmp_path / "file" / "a")
    assert caught.value.subject == str(tmp_path / "file" / "a")


@needs_permissions
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(FolderError):
            check_folder(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_without_room_is_refused(tmp_path):
    with pytest.raises(FolderError) as caught:
        check_folder(tmp_path, need=10**18)
    assert caught.value.subject == str(tmp_path)


HOLD = """
import sys
from sda.foundation.files import lock
with lock(sys.argv[1], "making clips"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def _holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_held_by_one_process_which_is_named(tmp_path):
    with _holder(tmp_path) as other:
        with pytest.raises(FolderError) as caught, lock(tmp_path, "testing"):
            pass
        other.communicate("\n")
    assert caught.value.subject == str(tmp_path)
    assert str(other.pid) in str(caught.value)
    assert "making clips" in str(caught.value)
    assert "-c" in str(caught.value)
    assert platform.node() in str(caught.value)
    assert time.strftime("%Y-%m-%d %H:", time.gmtime()) in str(caught.value)  # since when
    assert caught.value.remedy
    assert os.listdir(tmp_path) == []
    with lock(tmp_path, "testing") as folder:
        assert folder == tmp_path


def test_a_killed_process_holds_nothing(tmp_path):
    with _holder(tmp_path) as other:
        other.kill()
    with lock(tmp_path, "testing"):
        pass


def test_a_lock_ends_with_an_error_and_is_not_taken_twice(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path / "a", "testing"):
        with pytest.raises(FolderError) as caught, lock(tmp_path / "a", "testing"):
            pass
        assert str(os.getpid()) in str(caught.value)
        raise KeyError
    with lock(tmp_path / "a", "testing"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has its locks everywhere")
def test_without_locks_the_file_tells_who_is_at_work(tmp_path, monkeypatch):
    """As on some network disks: a living process is respected, a dead one of this machine is not."""
    import fcntl

    def none(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with _holder(tmp_path) as other:
        about = (tmp_path / ".lock").read_text()
        with pytest.raises(FolderError) as caught, lock(tmp_path, "testing"):
            pass
        assert str(other.pid) in str(caught.value)
        other.kill()
    with lock(tmp_path, "testing"):
        pass
    (tmp_path / ".lock").write_text(about.replace(platform.node(), "elsewhere"))
    with pytest.raises(FolderError) as caught, lock(tmp_path, "testing"):
        pass
    assert "elsewhere" in str(caught.value) and str(tmp_path / ".lock") in caught.value.remedy


@pytest.mark.parametrize(
    "number, word",
    [(errno.ENOSPC, "space"), (errno.ENOENT, "gone"), (errno.EACCES, "may write"), (errno.ENOMEM, "memory")],
)
def test_the_remedy_follows_from_the_cause(tmp_path, monkeypatch, number, word):
    """A deleted folder is not a full disk."""

    def fails(*paths):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(FolderError) as caught:
        write_atomic(tmp_path / "a.txt", "text")
    assert word in caught.value.remedy and os.strerror(number) in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_only_one_of_many_threads_is_inside(tmp_path):
    inside, most, refused = [], [], []

    def work():
        for _ in range(50):
            try:
                with lock(tmp_path, "testing"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except FolderError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 200


def test_a_fingerprint_is_of_names_and_bytes():
    model = torch.nn.BatchNorm1d(2)
    known = hashlib.sha256()
    for name, value in model.state_dict().items():
        known.update(name.encode() + value.numpy().tobytes())
    assert fingerprint(model) == fingerprint(model.state_dict()) == known.hexdigest()[:16]
    begun = hashlib.sha256(b"(clips)")
    for name, value in model.state_dict().items():
        begun.update(name.encode() + value.numpy().tobytes())
    assert fingerprint(model, "(clips)") == begun.hexdigest()[:16]


def test_a_fingerprint_does_not_see_the_memory_layout():
    kernel = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    last = kernel.contiguous(memory_format=torch.channels_last)
    assert fingerprint({"w": kernel}) == fingerprint({"w": last}) != fingerprint({"v": kernel})
    assert fingerprint({"w": kernel.bfloat16().requires_grad_()}) != fingerprint({"w": kernel})


def test_a_digest_is_of_the_joined_parts():
    assert digest("ab", b"c") == digest("abc") == hashlib.sha256(b"abc").hexdigest()[:16]
    assert digest("ä", digits=6) == hashlib.sha256("ä".encode()).hexdigest()[:6]


def _old(path, seconds=100):
    time = path.stat().st_mtime - seconds
    os.utime(path, (time, time))


def test_a_file_is_read_once_until_it_changes(tmp_path):
    asked = []

    @cached_by_file(maxsize=2)
    def length(path: Path, add: int = 0) -> int:
        """How long it is."""
        asked.append(add)
        return len(path.read_text()) + add

    path = tmp_path / "a.txt"
    path.write_text("abc")
    assert [length(path), length(path)] == [3, 3]
    assert len(asked) == 2  # just written: not kept
    _old(path)
    assert [length(str(path)), length(path), length(path, 1), length(path, add=1)] == [3, 3, 4, 4]
    assert len(asked) == 5
    path.write_text("abcd")
    _old(path, 50)
    assert [length(path), length(path)] == [4, 4]
    assert len(asked) == 6
    assert length.__doc__ == "How long it is."


def test_errors_and_missing_files_are_not_kept(tmp_path):
    @cached_by_file()
    def fails(path: Path) -> None:
        raise ValueError(path)

    with pytest.raises(FileNotFoundError):
        fails(tmp_path / "none")
    (tmp_path / "a").write_text("")
    _old(tmp_path / "a")
    for _ in range(2):
        with pytest.raises(ValueError):
            fails(tmp_path / "a")


@dataclasses.dataclass
class Point:
    x: np.ndarray
    where: Path


def test_values_become_plain():
    value = {
        "number": np.float32(0.5),
        "flag": np.bool_(True),
        "tensor": torch.ones(2, dtype=torch.int64),
        "point": Point(np.arange(2), Path("a") / "b"),
    }
    known = {"number": 0.5, "flag": True, "tensor": [1, 1], "point": {"x": [0, 1], "where": "a/b"}}
    assert json.loads(json.dumps(value, default=to_plain)) == known
    assert to_plain(Path("a/b"), folders=False) == "b"


@pytest.mark.parametrize("value", [{1}, Point, object()])
def test_other_values_are_refused(value):
    with pytest.raises(DataError):
        json.dumps(value, default=to_plain)


def test_suffixes():
    assert {".jpg", ".jpeg", ".png", ".webp"} <= set(IMAGE_SUFFIXES)
    assert {".mp4", ".webm", ".avi", ".3gp"} <= set(VIDEO_SUFFIXES)
    assert not set(IMAGE_SUFFIXES) & set(VIDEO_SUFFIXES)


def test_arrays_and_their_names_come_back(tmp_path):
    arrays = {"values": np.arange(6.0).reshape(2, 3), "a/b": np.array([True])}
    file = save_arrays(tmp_path / "sub" / "some.npz", "some 1", {"rows": ["x", "ü"], "n": None}, arrays)
    names, again = load_arrays(file, "some 1")
    assert names == {"rows": ["x", "ü"], "n": None} and again.keys() == arrays.keys()
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)
    with pytest.raises(SettingError):
        save_arrays(tmp_path / "some.pickle", "some 1", {}, {})


HOSTILE = [
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    ' "=1',
    "＝1+1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_of_a_table_starts_a_formula(text):
    frame = pd.DataFrame({text: [text, "plain"], "n": [-1.5, 2.0]}, index=[text, "row"])
    [head, first, second] = csv.reader(io.StringIO(csv_text(frame, text), newline=""))
    assert {cell[0] for cell in (*head[:2], *first[:2])} == {"'"}
    assert first[0] == "'" + text and [first[2], second[2]] == ["-1.5", "2.0"]


def test_numbers_and_names_of_a_table_stay_as_they_are():
    frame = pd.DataFrame({"class": ["-0.5", "a;=b", "推门"], "n": [1, 2, 3]})
    text = csv_text(frame)
    back = pd.read_csv(io.StringIO(text), dtype={"class": str})
    assert back.to_dict() == frame.to_dict() and '"a;=b"' in text, "quoted: semicolons part cells elsewhere"


def test_files_that_hold_no_such_arrays_are_named(tmp_path):
    file = save_arrays(tmp_path / "whole.npz", "some 1", {}, {"values": np.zeros(100)})
    (tmp_path / "half.npz").write_bytes(file.read_bytes()[:-200])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "plain.npz", values=np.zeros(3))
    np.savez(tmp_path / "list.npz", names=np.array("[1]"))
    np.savez(tmp_path / "pickled.npz", names=np.array([{"format": 1}], dtype=object))
    for name in ("half", "text", "empty", "plain", "list", "pickled"):
        with pytest.raises(DataError) as error:
            load_arrays(tmp_path / f"{name}.npz", "some 1")
        assert error.value.subject == str(tmp_path / f"{name}.npz")
    with pytest.raises(DataError):
        load_arrays(file, "some 2")
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "none.npz", "some 1")
