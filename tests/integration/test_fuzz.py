"""Damaged bytes in every reader, in a child process with a time limit: frames or an error, never a crash."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzing import SEED, mutants
from PIL import Image

from sda.commands.main import main
from sda.foundation.errors import DataError
from sda.testing.predictions import Predictions

av = pytest.importorskip("av")
pytest.importorskip("decord")

CHILD = """
import json, os, random, sys
from pathlib import Path
from sda.data.video import BACKENDS
from sda.foundation.errors import VideoError
source, backend, seed, cases, work = sys.argv[1:]
source, seed, cases, work = Path(source), int(seed), int(cases), Path(work)
try: from resource import RUSAGE_SELF, getrusage
except ImportError: most = lambda: 0
else: most = lambda: getrusage(RUSAGE_SELF).ru_maxrss // (1 << (20 if sys.platform == "darwin" else 10))
whole, rng, counts, before = source.read_bytes(), random.Random(seed), {"frames": 0, "refused": 0}, most()
for case in range(cases):
    data = bytearray(whole)
    for _ in range(rng.choice((1, 4, 32))): data[rng.randrange(len(data))] = rng.randrange(256)
    if case % 5 == 4: data = data[:rng.randrange(len(data))]
    if case % 10 == 7: data[0:0] = data[rng.randrange(len(data)):]  # the end before the beginning
    target = work / (f"{case}" if backend == "folder" else f"{case}{source.suffix}")
    if backend == "folder": target.mkdir()
    (target / "00001.jpg" if backend == "folder" else target).write_bytes(data)
    try:
        video = BACKENDS[backend](target)
        frames = video.frames([0, len(video) - 1])
        assert frames.shape[0] == 2 and frames.shape[3] == 3
        counts["frames"] += 1
    except VideoError as err:
        assert str(target) in str(err)
        counts["refused"] += 1
print(json.dumps(counts | {"mebibytes": most() - before}))
"""


def archive(path, clip):
    """A clip as small pictures in an archive, so that mutants hit the structure as often as the pictures."""
    if path.suffix == ".zip":
        box, add = (file := zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)), file.writestr
    else:
        box = tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w")

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            box.addfile(info, io.BytesIO(data))

    with box:
        for n, frame in enumerate(clip, 1):
            Image.fromarray(frame[::2, ::2] // 64 * 64).resize((32, 32)).save(buffer := io.BytesIO(), "PNG")
            add(f"clip/{n:05d}.png", buffer.getvalue())


def video(path, clip):
    """A video of these frames; the index of an mp4 in front."""
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as box:
        stream = box.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in clip:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        box.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("folder.jpg", "pyav.mp4", "pyav.mkv", "pyav.avi", "decord.mp4"),
        *("archive.zip", "archive.tar", "archive.tgz"),
    ],
)
def test_mutated_bytes_give_frames_or_an_error(tmp_path, name):
    clip = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    backend, source = name.split(".")[0], tmp_path / name
    if backend == "folder":
        Image.fromarray(clip[0]).save(source)
    elif backend == "archive":
        archive(source, clip[:3])
    else:
        video(source, clip)
    (tmp_path / "work").mkdir()
    words = [sys.executable, "-c", CHILD, source, backend, str(SEED), "60", tmp_path / "work"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"SDA_FUZZ_SEED={SEED}: {done.stderr[-2000:]}"
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["frames"] + counts["refused"] == 60 and counts["refused"] > 0
    assert counts["mebibytes"] < 500, f"SDA_FUZZ_SEED={SEED}"


def test_mutated_scores_are_read_or_refused_by_name(tmp_path):
    rng = np.random.default_rng(SEED)
    kept = Predictions(
        [f"clip{i}" for i in range(6)], rng.normal(size=(6, 2, 4)), rng.integers(0, 4, 6), list("abcd")
    )
    whole, target, refused = kept.save(tmp_path / "whole.npz").read_bytes(), tmp_path / "mutant.npz", 0
    for case in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), (1, 4, 32)[case % 3]):
            data[place] = rng.integers(256)
        target.write_bytes(data[: rng.integers(len(data))] if case % 5 == 4 else data)
        try:
            Predictions.load(target)
        except DataError as err:
            assert "mutant.npz" in str(err)
            refused += 1
    assert 200 < refused < 300


def test_a_folder_of_a_hundred_mutants_is_made_and_extracted(tmp_path, monkeypatch, capsys):
    """What opens is listed and extracted, the rest is counted by name; nothing ends the work or is lost."""
    clip = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8)
    whole = video(tmp_path / "whole.mp4", clip).read_bytes()
    names = [f"{'walk' if n % 2 else 'run'}/{n:03d}.mp4" for n in range(100)]
    for name, data in zip(names, mutants(whole, 90, SEED), strict=False):
        write(tmp_path / "shots" / name, data)
    for name in names[90:]:
        write(tmp_path / "shots" / name, whole)
    monkeypatch.chdir(tmp_path)
    main(["data", "make", "set", "--media", "shots", "--quiet"])
    main(["extract", "shots", "frames", "--workers", "1", "--quiet"])
    kept = {p.parent.relative_to("frames").as_posix() for p in Path("frames").rglob("*.jpg")}
    lists = "".join(p.read_text() for p in Path("set/trainValTest").glob("*.txt"))
    said = capsys.readouterr()
    told = said.out + said.err
    for name in names:
        extracted = name in kept or name.removesuffix(".mp4") in kept
        assert extracted or name in told, f"{name} is lost, SDA_FUZZ_SEED={SEED}"
        assert extracted or name not in names[90:]
        assert (name in lists) or (name in told) or not extracted, f"SDA_FUZZ_SEED={SEED}: {name}"


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
