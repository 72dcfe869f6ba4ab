"""Lists, caches and loaders: bad input is told, the same seed gives the same batches whatever the workers."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sda.data.cache import FrameCache, build_cache, cache_key
from sda.data.crops import MultiCrop
from sda.data.datasets import (
    ClipDataset,
    as_bytes,
    clip_loader,
    decoded_size,
    epoch_plan,
    model_input,
    open_dataset,
)
from sda.data.lists import Record, read_classes, read_list, safe_join
from sda.data.sampling import Sampling
from sda.data.sources import read_clip
from sda.data.transforms import TransformConfig, crop_shapes, denormalise
from sda.data.video import PyAVVideo, open_video
from sda.foundation.errors import DataError, FolderError, RunError, UnknownNameError, VideoError

av = pytest.importorskip("av")
NAMES = ["moving left to right", "moving right to left"]
SMALL = TransformConfig(size=64, resize=None, crop="random", flip=False, colour="permute")


def save(path, frames=12, size=72, seed=0):
    """A small mp4 of a square on noise."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as box:
        stream = box.add_stream("libx264", rate=12)
        stream.height = stream.width = size
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            frame = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            frame[20:40, 2 + t : 22 + t] = 200 - 3 * seed
            box.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        box.mux(stream.encode())


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A dataset of ten clips in the common layout."""
    root = tmp_path_factory.mktemp("sets") / "toy set"
    (root / "img").mkdir(parents=True)
    (root / "trainValTest").mkdir()
    for i in range(10):
        save(root / "img" / f"clip {i}.mp4", 10 + i, seed=i)
    lines = [f"clip {i}.mp4 {10 + i} {i % 2}" for i in range(10)]
    (root / "category.txt").write_text("\n".join(NAMES))
    (root / "trainValTest/train.txt").write_text("\ufeff" + "\r\n".join(lines[:7]) + "\r\n\r\n", newline="")
    (root / "trainValTest/val.txt").write_text("\n".join(lines[7:]))
    return root


def test_marks_line_ends_and_spaces(toy):
    data = open_dataset(toy, "train")
    assert (
        [r.id for r in data.records] == [f"clip {i}.mp4" for i in range(7)]
        and data.train
        and data.records[3].label == 1
    )
    assert [r.num_frames for r in data.records] == list(range(10, 17)) and data.class_names == NAMES
    assert data[0]["clip"].shape == (8, 3, 224, 224)


def test_a_dataset_says_which_split_it_is(toy):
    train = open_dataset(toy, "train")
    val = open_dataset(toy, "val")
    assert repr(train) == "7 training clips of 2 classes, 8 frames each"
    assert (
        repr(val) == repr(pickle.loads(pickle.dumps(val))) == "3 validation clips of 2 classes, 8 frames each"
    )
    assert repr(ClipDataset(val.records, NAMES)) == "3 test clips of 2 classes, 8 frames each", (
        "no list: how it is read"
    )


@pytest.mark.parametrize(
    "line, words",
    [
        ("a.mp4 10", "2 field(s)"),
        ("a.mp4", "1 field(s)"),
        ("a.mp4 ten 0", "'ten' is not a whole number"),
        ("a.mp4 10 -1", "label -1 is outside the classes 0..1"),
        ("a.mp4 10 2", "label 2 is outside the classes 0..1"),
        ("a.mp4 0 1", "has 0 frames"),
        ("../a.mp4 10 0", "leaves the root"),
        ("b/../../a.mp4 10 0", "leaves the root"),
        ("/a.mp4 10 0", "leaves the root"),
        ("C:\\a.mp4 10 0", "leaves the root"),
        ("out/a.mp4 10 0", "link that leaves the root"),
        ("good.mp4 12 1", "is on line 1 too"),
        ("a.mp4 ١٠ 0", "not a whole number"),
        ("a.mp4 1e3 0", "not a whole number"),
    ],
)
def test_bad_lines_name_the_line(tmp_path, line, words):
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path, tmp_path / "root" / "out")
    file = tmp_path / "list.txt"
    file.write_text(f"good.mp4 10 0\n{line}\nlast.mp4 10 0\n")
    with pytest.raises(DataError) as error:
        read_list(file, tmp_path / "root", NAMES)
    assert (
        str(error.value).startswith(f"{file}:2: ")
        and words in str(error.value)
        and "\n" not in str(error.value)
    )


def test_all_bad_lines_are_counted(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a.mp4 1 9\n" * 30)
    with pytest.raises(DataError) as error:
        read_list(file, tmp_path, NAMES)
    assert str(error.value).count("outside the classes") == 5 and "and 25 more line(s)" in str(error.value)


def test_empty_missing_and_binary_files(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("öffnen\n".encode("latin-1"))
    for name, words in (
        ("empty.txt", "is empty"),
        ("latin.txt", "not UTF-8"),
        ("none.txt", "does not exist"),
    ):
        with pytest.raises(DataError) as caught:
            read_classes(tmp_path / name)
        assert name in str(caught.value) and words in str(caught.value)
    with pytest.raises(DataError):
        ClipDataset([], NAMES)


def test_both_list_forms(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("P01/P01 01 100 24 0\nP01/P01 01 130 60 1\n")
    records = read_list(file, tmp_path, NAMES)
    assert [(r.id, r.offset, r.num_frames) for r in records] == [
        ("P01/P01 01@100", 100, 24),
        ("P01/P01 01@130", 130, 60),
    ]
    (tmp_path / "P01/P01 01 100").mkdir(parents=True)  # now the first line is a path with a number at its end
    assert [(r.id, r.offset) for r in read_list(file, tmp_path, NAMES)] == [
        ("P01/P01 01 100", 0),
        ("P01/P01 01 130", 0),
    ]
    assert read_list(file, tmp_path, NAMES, offsets=True) == records


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_list_or_a_list_error(tmp_path, text):
    file = tmp_path / "any.txt"
    file.write_bytes(text.encode())
    try:
        records = read_list(file, tmp_path, NAMES)
    except DataError:
        return
    assert records and all(0 <= r.label < 2 and r.num_frames > 0 and r.offset >= 0 for r in records)
    assert all(os.path.realpath(r.path).startswith(os.path.realpath(tmp_path)) for r in records)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab./\\~ \0:", max_size=12))
def test_no_path_leaves_the_root(tmp_path, name):
    try:
        path = safe_join(tmp_path, name)
    except ValueError as err:
        assert "leaves the root" in str(err)
    else:
        assert path.resolve().is_relative_to(tmp_path.resolve())


def test_layout_errors(toy, tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        open_dataset(toy, "training")
    assert caught.value.subject == "training" and "'train'" in caught.value.remedy
    assert set(caught.value.choices) == {"train", "val"}
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert all(name in str(caught.value) for name in (str(tmp_path), "category.txt", "img", "trainValTest"))


def test_a_clip_shorter_than_its_list_is_told(toy):
    record = Record("x", str(toy / "img" / "clip 0.mp4"), 0, 11)
    for read in (
        lambda: read_clip(record),
        lambda: ClipDataset([record], NAMES, transform=SMALL)[0],
        lambda: read_clip(Record("x", record.path, 0, None, offset=10)),
    ):
        with pytest.raises(VideoError) as caught:
            read()
        assert record.path in str(caught.value) and "10" in str(caught.value)  # how many there are


def test_cached_and_decoded_items_agree(toy):
    for split in ("train", "val"):
        plain, cached = (
            open_dataset(toy, split, Sampling("segments", 4), SMALL, cache=c, progress=False)
            for c in (False, True)
        )
        assert len(cached.cache) == len(plain)
        for i in range(len(plain)):
            assert torch.equal(plain[i]["clip"], cached[i]["clip"]) and plain[i]["id"] == cached[i]["id"]
            assert torch.equal(
                read_clip(plain.records[i], **plain.reader.options), torch.tensor(cached.cache[i])
            )
    assert len(list((toy / "cache").glob("*.npy"))) == 2
    assert len(pickle.dumps(cached)) < 20_000  # a worker gets the path, not the frames


def test_small_sets_are_cached_and_large_ones_are_not(toy, monkeypatch):
    data = open_dataset(toy, "val")
    need = sum(r.num_frames for r in data.records) * 72 * 72 * 3
    assert decoded_size(data) == need
    monkeypatch.setattr("sda.data.datasets.AUTO_CACHE", need - 1)
    assert open_dataset(toy, "val", cache="auto", progress=False).cache is None
    monkeypatch.setattr("sda.data.datasets.AUTO_CACHE", need)
    assert len(open_dataset(toy, "val", cache="auto", progress=False).cache) == 3
    unknown = ClipDataset([Record("a", data.records[0].path, 0)], NAMES)
    assert decoded_size(unknown) is None


def test_the_cache_follows_its_files(toy, tmp_path):
    records = open_dataset(toy, "val").records
    data = build_cache(records, tmp_path, progress=False)
    stamp = data.stat().st_mtime_ns
    assert build_cache(records, tmp_path, progress=False) == data and data.stat().st_mtime_ns == stamp
    key = cache_key(records, {})
    assert cache_key(records[::-1], {}) != key and cache_key(records, {"backend": "pyav"}) != key
    touched = tmp_path / "clip.mp4"
    touched.write_bytes((toy / "img" / "clip 7.mp4").read_bytes())
    moved = [Record("a", str(touched), 0)]
    before = cache_key(moved, {})
    os.utime(touched, ns=(1, 1))
    assert cache_key(moved, {}) != before
    assert [FrameCache(data)[i].shape[0] for i in range(3)] == [17, 18, 19]


def test_a_failed_cache_leaves_nothing(toy, tmp_path):
    records = open_dataset(toy, "train").records
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 99)
    folder = tmp_path / "cache"
    with pytest.raises(VideoError) as caught:
        build_cache([*records, Record("bad", str(tmp_path / "bad.mp4"), 0)], folder, progress=False)
    assert caught.value.subject == str(tmp_path / "bad.mp4") and "again" in caught.value.remedy
    assert list(folder.iterdir()) == []
    with pytest.raises(VideoError) as caught:
        build_cache([Record("gone", str(tmp_path / "gone.mp4"), 0)], folder, progress=False)
    assert caught.value.subject == str(tmp_path / "gone.mp4") and "path" in caught.value.remedy
    (tmp_path / "file").touch()
    with pytest.raises(FolderError) as caught:
        build_cache(records, tmp_path / "file", progress=False)
    assert caught.value.subject == str(tmp_path / "file") and "--cache no" in caught.value.remedy


def _zero(data, index):
    pixels = bytearray(data.read_bytes())
    pixels[len(pixels) // 2 :] = bytes(len(pixels) - len(pixels) // 2)
    data.write_bytes(pixels)


def _cut(data, index):
    data.write_bytes(data.read_bytes()[:-1000])


def _shift(data, index):
    found = json.loads(index.read_text())
    found["shapes"] = found["shapes"][1:] + found["shapes"][:1]
    index.write_text(json.dumps(found))


def _from_before(data, index):
    found = json.loads(index.read_text())
    index.write_text(json.dumps({name: found[name] for name in ("ids", "shapes", "times")}))


@pytest.mark.parametrize(
    "damage",
    [
        _zero,
        _cut,
        _shift,
        _from_before,
        lambda data, index: index.unlink(),
        lambda data, index: index.write_text("{"),
        lambda data, index: index.write_text("[]"),
    ],
)
def test_a_cache_that_does_not_hold_is_made_again_and_said(toy, tmp_path, caplog, damage):
    """Nobody trains on black frames, or on the frames of another clip."""
    records = open_dataset(toy, "val").records
    data = build_cache(records, tmp_path, progress=False)
    right = data.read_bytes()
    times = data.stat()
    assert not caplog.records
    damage(data, data.with_suffix(".json"))
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))  # the time stamp is no proof
    assert build_cache(records, tmp_path, progress=False) == data
    assert data.read_bytes() == right and str(data) in caplog.text
    cache = FrameCache(data)
    assert all(np.array_equal(cache[i], read_clip(r)) for i, r in enumerate(records))
    caplog.clear()
    assert build_cache(records, tmp_path, progress=False) == data and not caplog.records


def test_a_killed_cache_is_built_again(toy, tmp_path):
    code = f"""if True:
        import os, sda.data.cache as cache, sda.data.datasets as d
        records = d.open_dataset({str(toy)!r}, "train").records
        os.replace = lambda *paths: os.kill(os.getpid(), 9)
        cache.build_cache(records, {str(tmp_path)!r}, progress=False)
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -9
    assert not list(tmp_path.glob("[!.]*.npy"))
    records = open_dataset(toy, "train").records
    assert len(FrameCache(build_cache(records, tmp_path, progress=False))) == 7


def batches(data, epoch=0, start=0, **options):
    """Ids, labels and clips of an epoch's batches from a step on."""
    loader = clip_loader(data, 3, shuffle=True, seed=7, **options)
    return [(b["id"], b["label"], b["clip"]) for b in loader.epoch(epoch, start)]


def alike(one, two):
    """Whether two lists of batches are equal, bit by bit."""
    return len(one) == len(two) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])
        for a, b in zip(one, two, strict=True)
    )


def test_same_batches_for_any_number_of_workers(toy):
    data = open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False)
    wanted = [batches(data, epoch) for epoch in (0, 1)]
    for workers in (1, 2):
        loader = clip_loader(data, 3, shuffle=True, seed=7, num_workers=workers)  # lives through both epochs
        for epoch in (0, 1, 0):
            found = [(b["id"], b["label"], b["clip"]) for b in loader.epoch(epoch)]
            assert alike(found, wanted[epoch])
    order = [[i for ids, *_ in wanted[e] for i in ids] for e in (0, 1)]
    assert order[0] != order[1] and sorted(order[0]) == sorted(order[1]) and len(order[0]) == 7
    assert not any(torch.equal(a[2], b[2]) for a, b in zip(*wanted, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_left(toy, workers):
    data = open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False)
    whole = batches(data, 3)
    loader = clip_loader(data, 3, shuffle=True, seed=7, num_workers=workers)
    next(loader.epoch(2))  # left after one batch, while workers read ahead
    assert alike([(b["id"], b["label"], b["clip"]) for b in loader.epoch(3, start=1)], whole[1:])


def test_workers_that_live_on_are_told_the_epoch():
    class Told(torch.utils.data.Dataset):
        epoch = 0

        def __len__(self):
            return 4

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __getitem__(self, index):
            return {
                "clip": torch.tensor([self.epoch, index]),
                "worker": torch.utils.data.get_worker_info().id,
            }

    loader = clip_loader(Told(), 2, num_workers=2)
    for epoch in (0, 5, 2):
        assert [b["clip"].tolist() for b in loader.epoch(epoch)] == [
            [[epoch, 0], [epoch, 1]],
            [[epoch, 2], [epoch, 3]],
        ]


def test_a_look_at_every_clip_leaves_none_out(caplog):
    shares = [epoch_plan(7, 6, rank=r, world=3, shuffle=False) for r in range(3)]
    seen = [i for steps in shares for step in steps for piece in step.pieces for i in piece]
    assert sorted(seen) == list(range(7))
    data = torch.utils.data.TensorDataset(torch.arange(7))
    loaders = [clip_loader(data, 6, rank=r, world=3) for r in range(3)]
    assert [len(loader) for loader in loaders] == [2, 1, 1] == [len(list(loader)) for loader in loaders]
    assert not caplog.records
    with caplog.at_level("INFO"):  # training leaves the odd clip to another epoch, and says so
        assert len(epoch_plan(7, 6, rank=0, world=3)) == 1 and caplog.records


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_readers_leave_ctrl_c_to_whoever_reads(toy):
    """It reaches every process of a terminal; a run that then saves may still need its next batch."""
    data = open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False)
    before = set(multiprocessing.active_children())
    loader = clip_loader(data, 1, num_workers=1)
    read = loader.epoch()
    ids = next(read)["id"]
    [worker] = set(multiprocessing.active_children()) - before
    os.kill(worker.pid, signal.SIGINT)
    ids += [name for batch in read for name in batch["id"]]
    assert sorted(ids) == sorted(record.id for record in data.records) and worker.is_alive()


@pytest.mark.gpu
def test_batches_lie_in_pinned_memory_where_there_is_a_gpu(toy):
    data = as_bytes(open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False))
    for workers in (0, 1):
        batch = next(clip_loader(data, 3, num_workers=workers).epoch())
        assert batch["clip"].is_pinned() and batch["scale"].is_pinned()
        clips = model_input(batch, "cuda", channels_last=True)
        assert torch.equal(clips.cpu(), model_input(batch))


RICH = TransformConfig(size=48, resize=64, crop="resized", colour="jitter", rand_augment=9, erase=0.5)


def test_bytes_become_the_same_floats_in_any_worker(toy):
    floats = open_dataset(toy, "train", Sampling("segments", 4), RICH, cache=True, progress=False)
    for epoch in (0, 1):
        wanted = batches(floats, epoch)
        for workers in (0, 2):
            loader = clip_loader(as_bytes(floats), 3, shuffle=True, seed=7, num_workers=workers)
            for batch, one in zip(loader.epoch(epoch), wanted, strict=True):
                assert batch["clip"].dtype == torch.uint8 and batch["id"] == one[0]
                assert torch.equal(batch["label"], one[1]) and torch.equal(model_input(batch), one[2])
    assert not floats.as_bytes
    twice = [
        open_dataset(toy, "val", Sampling("twice", 4, 2), TransformConfig(size=64, resize=None), as_bytes=b)
        for b in (False, True)
    ]
    plain, slim = (next(iter(clip_loader(v, 2))) for v in twice)
    assert slim["clip"].shape == (2, 2, 4, 64, 64, 3) and torch.equal(model_input(slim), plain["clip"])
    assert model_input(plain) is plain["clip"]


def test_ranks_share_the_global_batches(toy):
    data = open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False)
    whole = batches(data)
    shares = [batches(data, rank=r, world=2) for r in (0, 1)]
    assert [len(ids) for ids, *_ in whole] == [3, 3, 1] and [len(s) for s in shares] == [
        2,
        2,
    ]  # 1 is not for two
    for wanted, *two in zip(whole, *shares, strict=False):
        assert sorted(wanted[0]) == sorted(two[0][0] + two[1][0])
    clips = {i: c for ids, _, some in whole for i, c in zip(ids, some, strict=True)}
    for ids, _, some in shares[0] + shares[1]:
        assert all(torch.equal(clip, clips[i]) for i, clip in zip(ids, some, strict=True))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9))
def test_steps_of_ranks_cover_an_epoch(size, batch, world, accumulate, seed):
    def parts(ranks, pieces):
        return [epoch_plan(size, batch, seed, 1, pieces, rank, ranks) for rank in range(ranks)]

    if min(batch, size) < world * accumulate:
        with pytest.raises(RunError):
            parts(world, accumulate)
        return
    shares = parts(world, accumulate)
    whole = parts(1, 1)[0]
    steps = [[i for step in row for piece in step.pieces for i in piece] for row in zip(*shares, strict=True)]
    assert all(piece for share in shares for step in share for piece in step.pieces)
    for found, one in zip(steps, whole, strict=False):
        assert sorted(found) == sorted(one.pieces[0]) and len(found) == one.size
    rest = size % batch if size % batch < world * accumulate else 0
    assert len({i for step in steps for i in step}) == sum(map(len, steps)) == size - rest


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_clip_stops_the_loader_with_its_name(toy, tmp_path, workers):
    (tmp_path / "broken.mp4").write_bytes((toy / "img" / "clip 0.mp4").read_bytes()[:-4000])
    data = ClipDataset(
        [*open_dataset(toy, "val").records, Record("b", str(tmp_path / "broken.mp4"), 0)], NAMES, None, SMALL
    )
    with pytest.raises(VideoError) as caught:
        for _ in clip_loader(data, 2, num_workers=workers):
            pass
    assert str(tmp_path / "broken.mp4") in str(caught.value)  # torch hands on the text of a worker's error


def test_views_and_seeds(toy):
    data = open_dataset(toy, "val", Sampling("twice", 4, 2), TransformConfig(size=64, resize=None))
    assert data[0]["clip"].shape == (2, 4, 3, 64, 64)
    train = open_dataset(toy, "train", "segments_tail", SMALL, seed=1)
    other = open_dataset(toy, "train", "segments_tail", SMALL, seed=2)
    assert not torch.equal(train[0]["clip"], other[0]["clip"]) and torch.equal(
        train[0]["clip"], train[0]["clip"]
    )


def test_folders_of_frames_with_offsets(tmp_path):
    from PIL import Image

    folder = tmp_path / "img" / "P01 01"
    folder.mkdir(parents=True)
    for n in range(1, 31):
        Image.new("RGB", (72, 72), (8 * n, 0, 0)).save(folder / f"frame_{n:010d}.jpg")
    (tmp_path / "list.txt").write_text("P01 01 0 10 0\nP01 01 20 10 1\n")
    records = read_list(tmp_path / "list.txt", tmp_path / "img", NAMES)
    data = ClipDataset(records, NAMES, Sampling("segments", 5), SMALL, cache=True, progress=False)
    red = [data[i]["clip"] for i in (0, 1)]
    red = [denormalise(clip, SMALL.mean, SMALL.std)[:, 30, 30, 0].int() for clip in red]
    assert (red[0] - torch.tensor([2, 4, 6, 8, 10]) * 8).abs().max() <= 3
    assert (red[1] - torch.tensor([22, 24, 26, 28, 30]) * 8).abs().max() <= 3
    assert json.loads(next((tmp_path / "cache").glob("*.json")).read_text())["ids"] == [
        "P01 01@0",
        "P01 01@20",
    ]


def test_both_jpeg_decoders_give_the_same_frames_and_errors(tmp_path, monkeypatch):
    from PIL import Image

    rng = np.random.default_rng(0)
    kinds = [
        dict(quality=60),
        dict(subsampling=0),
        dict(progressive=True),
        dict(optimize=True),
        dict(quality=100),
    ]
    for n, options in enumerate(kinds):
        picture = rng.integers(0, 256, (50, 67, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{n:05d}.jpg", **options)
    Image.fromarray(picture[..., 0]).save(tmp_path / "00005.jpg")  # grey
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "00006.jpg")
    quick = open_video(tmp_path).frames(range(7))
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert torch.equal(quick, open_video(tmp_path).frames(range(7)))
    monkeypatch.undo()
    whole = (tmp_path / "00002.jpg").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:20]):
        (tmp_path / "00002.jpg").write_bytes(damaged)
        with pytest.raises(VideoError) as caught:
            open_video(tmp_path).frames([1, 2])
        assert caught.value.subject == str(tmp_path / "00002.jpg")


def camera(path, height=1080, width=1920, ticks=range(0, 400, 100)):
    """A clip of smooth noise at that size, with these time stamps in milliseconds."""
    from fractions import Fraction

    from PIL import Image

    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.height = height
        stream.width = width
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for ms in ticks:
            small = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
            image = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = ms
            frame.time_base = Fraction(1, 1000)
            box.mux(stream.encode(frame))
        box.mux(stream.encode())
    return Record(path.stem, str(path), 0, len(ticks))


def test_a_large_clip_is_read_no_larger_than_its_transform_needs(tmp_path, monkeypatch):
    """1080p: frames leave the reader 256 or 340 pixels high, and the network's input stays the same."""
    record = camera(tmp_path / "hd.mp4")
    sizes = []
    read = PyAVVideo.frames

    def watched(video, indices):
        found = read(video, indices)
        sizes.append(tuple(found.shape[1:3]))
        return found

    monkeypatch.setattr(PyAVVideo, "frames", watched)
    config = TransformConfig()
    sampling = Sampling("segments", 4)
    for transform, train, side in (
        (config, False, 256),
        (MultiCrop("3x256"), False, 256),
        (config, True, 340),
    ):
        sizes.clear()
        small = ClipDataset([record], NAMES, sampling, transform, train)[0]["clip"]
        assert set(sizes) == {(side, round(side * 16 / 9))}
        whole = ClipDataset([record], NAMES, sampling, transform, train, short_side=None)[0]["clip"]
        assert sizes[-1] == (1080, 1920)
        off = (small - whole).abs() * 255 * min(config.std)  # grey levels; resized once instead of twice
        assert off.mean() < (3 if train else 2) and off.max() < (
            30 if train else 8
        )  # a training crop moves by half a pixel
    assert (
        len(
            ClipDataset([record], NAMES, sampling, lambda clip, label, generator: (clip, label))[0]["clip"][0]
        )
        == 1080
    )


def test_nothing_is_enlarged_that_was_large_enough(tmp_path):
    """Crops of the reduced frame have at least the input's size, and smaller clips are untouched."""
    for size, scales in ((224, (1, 0.875, 0.75, 0.66)), (112, (1, 0.5)), (64, (0.9,)), (160, (1, 1 / 3))):
        side = TransformConfig(size=size, scales=scales).train(NAMES).short_side
        assert min(min(s) for s in crop_shapes(side, 2 * side, size, scales)) >= size
    areas = TransformConfig(size=112, crop="resized", area=(0.2, 1)).train(NAMES)
    for ratio in (3 / 4, 4 / 3):  # the narrowest and the flattest crop of a square frame
        height, width = ((0.2 * areas.short_side**2 * r) ** 0.5 for r in (1 / ratio, ratio))
        assert min(height, width) >= 112
    record = camera(tmp_path / "small.mp4", 120, 160)
    assert ClipDataset([record], NAMES, Sampling("segments", 2)).load(0).source.size == (120, 160)


def test_random_crops_of_large_clips_come_from_the_resized_frame(tmp_path):
    """A square of 64 pixels out of 1080 would show nothing that the test crop shows."""
    data = ClipDataset(
        [camera(tmp_path / "hd.mp4", 540, 960)],
        NAMES,
        Sampling("segments", 2),
        TransformConfig(size=64, resize=72, crop="random", flip=False),
        train=True,
    )
    assert data.load(0).source.size == (72, 128) and data[0]["clip"].shape == (2, 3, 64, 64)


@pytest.mark.parametrize("cache", [False, True])
def test_seconds_follow_the_clock_of_a_variable_frame_rate(tmp_path, cache):
    """Ten frames a second, then forty: .25 s are .25 s in both halves, with offsets as well."""
    ticks = [*range(0, 1000, 100), *range(1000, 2000, 25)]
    record = camera(tmp_path / "vfr.mp4", 48, 64, ticks)
    part = Record("part", record.path, 0, 40, offset=10)
    sampling = Sampling("seconds", 8, step=0.25)
    config = TransformConfig(size=32, resize=32)

    def shown(sampling, index):
        data = ClipDataset([record, part], NAMES, sampling, config, cache=cache, progress=False)
        return data.load(index)

    wanted = sampling.indices(50, times=[t / 1000 for t in ticks])[0]
    assert all(abs(ticks[i] / 1000 - ticks[wanted[0]] / 1000 - 0.25 * k) < 0.1 for k, i in enumerate(wanted))
    one = shown(sampling, 0)
    assert wanted != sampling.indices(50)[0] and one.indices == [wanted]
    assert np.allclose(one.times, [ticks[i] / 1000 for i in wanted])
    frames, _ = config.test()(read_clip(record, short_side=32)[wanted])
    assert torch.equal(one.clip[0], frames)
    late = Sampling("seconds", 4, step=0.25).indices(40, times=[t / 1000 for t in ticks[10:]])[0]
    two = shown(Sampling("seconds", 4, step=0.25), 1)
    assert two.indices == [late] and np.diff(late).tolist() == [10, 10, 10]
    frames, _ = config.test()(read_clip(record, short_side=32)[[10 + i for i in late]])
    assert torch.equal(two.clip[0], frames)


def test_pictures_without_a_clock_go_by_the_rate_of_the_sampling(tmp_path):
    """A folder has no clock: `fps` of the sampling counts, or of the reader where it is given."""
    from PIL import Image

    folder = tmp_path / "f"
    folder.mkdir()
    for n in range(40):
        Image.fromarray(np.full((40, 40, 3), 6 * n, np.uint8)).save(folder / f"{n + 1:05d}.png")
    data = [
        ClipDataset(
            [Record("f", str(folder), 0)],
            NAMES,
            Sampling("seconds", 3, step=0.5, fps=10),
            lambda c, *_: (c, 0),
            **o,
        )
        for o in ({}, {"fps": 20})
    ]
    assert [(d[0]["clip"][:, 0, 0, 0] // 6).tolist() for d in data] == [[14, 19, 24], [9, 19, 29]]


def test_predict_reads_a_large_clip_small_and_by_its_clock(tmp_path, monkeypatch):
    """The same probabilities to 1 %, from a quarter of the height; the frames are the dataset's."""
    from sda.networks.backbones import create_model
    from sda.networks.checkpoints import ModelCard
    from sda.testing.evaluate import predict, slide

    record = camera(tmp_path / "hd.mp4", 540, 960, [*range(0, 1000, 200), *range(1000, 1500, 50)])
    sizes = []
    read = PyAVVideo.frames
    monkeypatch.setattr(PyAVVideo, "frames", lambda video, i: sizes.append(video.size) or read(video, i))
    torch.manual_seed(0)
    net = create_model("tsn_tiny", 2, 4)
    config = TransformConfig(size=112, resize=128)
    sampling = Sampling("seconds", 4, step=0.4)
    torch.nn.init.normal_(net.fc.weight, std=0.5)  # so that the answer depends on the clip
    net.card = ModelCard(net.name, {}, 2, 4, NAMES, config.to_dict(), sampling.to_dict())
    found = predict(record.path, net.eval()).sort_values("class").probability.to_numpy()
    assert set(sizes) == {(128, 228)}
    whole = ClipDataset([record], NAMES, sampling, config, short_side=None)
    assert whole.load(0).indices == [[0, 2, 4, 11]] != Sampling("seconds", 4, step=0.4).indices(15)
    with torch.no_grad():
        wanted = net(whole[0]["clip"][None]).softmax(1)[0].numpy()
    assert np.abs(found - wanted).max() < 0.01 < np.ptp(wanted)
    windows = slide(record.path, net, 10, top=2)
    assert windows.start.tolist() == [0, 0, 5, 5] and set(sizes) == {(128, 228), (540, 960)}
