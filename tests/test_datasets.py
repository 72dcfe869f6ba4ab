"""Lists, caches and loaders: bad input is told, the same seed gives the same batches whatever the workers."""
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sda.datasets import (
    ClipDataset,
    EpochBatches,
    FrameCache,
    ListError,
    Record,
    build_cache,
    cache_key,
    make_loader,
    model_input,
    open_dataset,
    read_classes,
    read_clip,
    read_list,
    safe_join,
)
from sda.sampling import Sampling
from sda.transforms import TransformConfig
from sda.video import VideoError

av = pytest.importorskip("av")
NAMES = ["moving left to right", "moving right to left"]
SMALL = TransformConfig(size=64, resize=None, crop="random", flip=False, colour="permute")


def save(path, frames=12, size=72, seed=0):
    "A small mp4 of a square on noise."
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
    "A dataset of ten clips in the common layout."
    root = tmp_path_factory.mktemp("sets") / "toy set"
    (root / "img").mkdir(parents=True)
    (root / "trainValTest").mkdir()
    for i in range(10): save(root / "img" / f"clip {i}.mp4", 10 + i, seed=i)
    lines = [f"clip {i}.mp4 {10 + i} {i % 2}" for i in range(10)]
    (root / "category.txt").write_text("\n".join(NAMES))
    (root / "trainValTest/train.txt").write_text("\ufeff" + "\r\n".join(lines[:7]) + "\r\n\r\n", newline="")
    (root / "trainValTest/val.txt").write_text("\n".join(lines[7:]))
    return root


def test_marks_line_ends_and_spaces(toy):
    data = open_dataset(toy, "train")
    assert [r.id for r in data.records] == [f"clip {i}.mp4" for i in range(7)] and data.train and data.records[3].label == 1
    assert [r.num_frames for r in data.records] == list(range(10, 17)) and data.class_names == NAMES
    assert data[0]["clip"].shape == (8, 3, 224, 224)


@pytest.mark.parametrize("line, words", [
    ("a.mp4 10", "2 field(s)"), ("a.mp4", "1 field(s)"), ("a.mp4 ten 0", "'ten' is not a whole number"),
    ("a.mp4 10 -1", "'-1' is not a whole number"), ("a.mp4 10 2", "label 2 is outside the classes 0..1"),
    ("a.mp4 0 1", "has 0 frames"), ("../a.mp4 10 0", "leaves the root"), ("b/../../a.mp4 10 0", "leaves the root"),
    ("/a.mp4 10 0", "leaves the root"), ("C:\\a.mp4 10 0", "leaves the root"), ("out/a.mp4 10 0", "link that leaves the root"),
    ("good.mp4 12 1", "is on line 1 too"), ("a.mp4 ١٠ 0", "not a whole number"), ("a.mp4 1e3 0", "not a whole number")])
def test_bad_lines_name_the_line(tmp_path, line, words):
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path, tmp_path / "root" / "out")
    file = tmp_path / "list.txt"
    file.write_text(f"good.mp4 10 0\n{line}\nlast.mp4 10 0\n")
    with pytest.raises(ListError) as error: read_list(file, tmp_path / "root", NAMES)
    assert str(error.value).startswith(f"{file}:2: ") and words in str(error.value) and "\n" not in str(error.value)


def test_all_bad_lines_are_counted(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a.mp4 1 9\n" * 30)
    with pytest.raises(ListError) as error: read_list(file, tmp_path, NAMES)
    assert str(error.value).count("outside the classes") == 5 and "and 25 more line(s)" in str(error.value)


def test_empty_missing_and_binary_files(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("öffnen\n".encode("latin-1"))
    for name, words in (("empty.txt", "is empty"), ("latin.txt", "not UTF-8"), ("none.txt", "does not exist")):
        with pytest.raises(ListError, match=words): read_classes(tmp_path / name)
    with pytest.raises(ListError, match="at least one clip"): ClipDataset([], NAMES)


def test_both_list_forms(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("P01/P01 01 100 24 0\nP01/P01 01 130 60 1\n")
    records = read_list(file, tmp_path, NAMES)
    assert [(r.id, r.offset, r.num_frames) for r in records] == [("P01/P01 01@100", 100, 24), ("P01/P01 01@130", 130, 60)]
    (tmp_path / "P01/P01 01 100").mkdir(parents=True)  # now the first line is a path with a number at its end
    assert [(r.id, r.offset) for r in read_list(file, tmp_path, NAMES)] == [("P01/P01 01 100", 0), ("P01/P01 01 130", 0)]
    assert read_list(file, tmp_path, NAMES, offsets=True) == records


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_list_or_a_list_error(tmp_path, text):
    file = tmp_path / "any.txt"
    file.write_bytes(text.encode())
    try: records = read_list(file, tmp_path, NAMES)
    except ListError: return
    assert records and all(0 <= r.label < 2 and r.num_frames > 0 and r.offset >= 0 for r in records)
    assert all(os.path.realpath(r.path).startswith(os.path.realpath(tmp_path)) for r in records)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab./\\~ \0:", max_size=12))
def test_no_path_leaves_the_root(tmp_path, name):
    try: path = safe_join(tmp_path, name)
    except ValueError as err: assert "leaves the root" in str(err)
    else: assert path.resolve().is_relative_to(tmp_path.resolve())


def test_layout_errors(toy, tmp_path):
    with pytest.raises(ListError, match="did you mean 'train'"): open_dataset(toy, "training")
    with pytest.raises(ListError, match="lacks category.txt, img, trainValTest"): open_dataset(tmp_path)


def test_a_clip_shorter_than_its_list_is_told(toy):
    record = Record("x", str(toy / "img" / "clip 0.mp4"), 0, 11)
    with pytest.raises(VideoError, match="has 10 frames, the list announces 11"): read_clip(record)
    with pytest.raises(VideoError, match="has 10 frames"): ClipDataset([record], NAMES, transform=SMALL)[0]
    with pytest.raises(VideoError, match="has 10 frames"): read_clip(Record("x", record.path, 0, None, offset=10))


def test_cached_and_decoded_items_agree(toy):
    for split in ("train", "val"):
        plain, cached = (open_dataset(toy, split, Sampling("segments", 4), SMALL, cache=c, progress=False) for c in (False, True))
        assert len(cached.cache) == len(plain)
        for i in range(len(plain)):
            assert torch.equal(plain[i]["clip"], cached[i]["clip"]) and plain[i]["id"] == cached[i]["id"]
            assert torch.equal(plain.frames(i, all_frames=True), cached.frames(i, all_frames=True))
    assert len(list((toy / "cache").glob("*.npy"))) == 2
    assert len(pickle.dumps(cached)) < 20_000  # a worker gets the path, not the frames


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
    with pytest.raises(VideoError, match="bad.mp4 is no video"):
        build_cache([*records, Record("bad", str(tmp_path / "bad.mp4"), 0)], folder, progress=False)
    assert list(folder.iterdir()) == []
    with pytest.raises(VideoError, match="gone.mp4 does not exist"):
        build_cache([Record("gone", str(tmp_path / "gone.mp4"), 0)], folder, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(VideoError, match="set cache=PATH"): build_cache(records, tmp_path / "file", progress=False)


def test_a_killed_cache_is_built_again(toy, tmp_path):
    code = f"""if True:
        import os, sda.datasets as d
        records = d.open_dataset({str(toy)!r}, "train").records
        write = d._write_header
        d._write_header = lambda file: (write(file), os.kill(os.getpid(), 9))
        d.build_cache(records, {str(tmp_path)!r}, progress=False)
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -9
    assert not list(tmp_path.glob("*.npy"))
    records = open_dataset(toy, "train").records
    assert len(FrameCache(build_cache(records, tmp_path, progress=False))) == 7


def test_same_batches_for_any_number_of_workers(toy):
    found = {}
    for workers in (0, 1, 2):
        data = open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False)
        loader = make_loader(data, 3, shuffle=True, seed=7, num_workers=workers)
        for epoch in range(2):
            data.set_epoch(epoch)
            found[workers, epoch] = [(b["id"], b["label"], b["clip"]) for b in loader]
    for (_, epoch), batches in found.items():
        for (ids, labels, clips), (ids0, labels0, clips0) in zip(batches, found[0, epoch], strict=True):
            assert ids == ids0 and torch.equal(labels, labels0) and torch.equal(clips, clips0)
    order = [[i for ids, *_ in found[2, e] for i in ids] for e in (0, 1)]
    assert order[0] != order[1] and sorted(order[0]) == sorted(order[1]) and len(order[0]) == 7
    assert not any(torch.equal(a[2], b[2]) for a, b in zip(found[0, 0], found[0, 1], strict=True))


RICH = TransformConfig(size=48, resize=64, crop="resized", colour="jitter", rand_augment=9, erase=0.5)


def test_bytes_become_the_same_floats_in_any_worker(toy):
    floats = open_dataset(toy, "train", Sampling("segments", 4), RICH, cache=True, progress=False)
    for epoch in (0, 1):
        floats.set_epoch(epoch)
        wanted = list(make_loader(floats, 3, shuffle=True, seed=7))
        for workers in (0, 2):
            data = open_dataset(toy, "train", Sampling("segments", 4), RICH, cache=True, progress=False, as_bytes=True)
            data.set_epoch(epoch)
            for batch, one in zip(make_loader(data, 3, True, 7, workers), wanted, strict=True):
                assert batch["clip"].dtype == torch.uint8 and batch["id"] == one["id"]
                assert torch.equal(batch["label"], one["label"]) and torch.equal(model_input(batch), one["clip"])
    views = [open_dataset(toy, "val", Sampling("twice", 4, 2), TransformConfig(size=64, resize=None), as_bytes=b)
             for b in (False, True)]
    plain, slim = (next(iter(make_loader(v, 2))) for v in views)
    assert slim["clip"].shape == (2, 2, 4, 64, 64, 3) and torch.equal(model_input(slim), plain["clip"])
    assert model_input(plain) is plain["clip"]
    with pytest.raises(ValueError, match="leave as_bytes off"):
        ClipDataset(floats.records, NAMES, None, lambda clip, label, generator: (clip, label), as_bytes=True)


def test_ranks_share_the_global_batches(toy):
    data = open_dataset(toy, "train", Sampling("segments", 4), SMALL, cache=True, progress=False)
    whole = list(make_loader(data, 3, shuffle=True, seed=5))
    shares = [list(make_loader(data, 3, shuffle=True, seed=5, rank=r, world=2)) for r in (0, 1)]
    ids = [[i for b in share for i in b["id"]] for share in shares]
    assert not set(ids[0]) & set(ids[1]) and sorted(ids[0] + ids[1]) == sorted(r.id for r in data.records)
    assert [len(b["id"]) for b in whole] == [3, 3, 1] and [len(s) for s in shares] == [2, 2]  # 1 clip is not for two
    assert sorted(whole[1]["id"] + whole[2]["id"]) == sorted(shares[0][1]["id"] + shares[1][1]["id"])
    clips = {i: c for b in whole for i, c in zip(b["id"], b["clip"], strict=True)}
    for share in shares:
        for batch in share:
            for i, clip in zip(batch["id"], batch["clip"], strict=True): assert torch.equal(clip, clips[i])


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 9))
def test_batches_of_ranks_cover_an_epoch(size, batch, world, shuffle, drop, seed):
    class Clips(list): epoch = 0
    def parts(ranks): return [list(EpochBatches(Clips(range(size)), batch, shuffle, seed, drop, r, ranks)) for r in range(ranks)]
    if world > min(batch, size):
        with pytest.raises(ValueError, match="cannot share"): parts(world)
        return
    shares = parts(world)
    steps = [sum(step, []) for step in zip(*shares, strict=True)]  # as many steps on every rank
    assert all(b for share in shares for b in share)
    seen = [i for step in steps for i in step]
    assert len(set(seen)) == len(seen) == (size - size % batch if drop else size)
    for step, one in zip(steps, parts(1)[0], strict=False): assert set(one) <= set(step)
    assert all(len(step) == batch for step in steps[:-1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_clip_stops_the_loader_with_its_name(toy, tmp_path, workers):
    (tmp_path / "broken.mp4").write_bytes((toy / "img" / "clip 0.mp4").read_bytes()[:-4000])
    data = ClipDataset([*open_dataset(toy, "val").records, Record("b", str(tmp_path / "broken.mp4"), 0)], NAMES, None, SMALL)
    with pytest.raises(VideoError, match="broken.mp4"):
        for _ in make_loader(data, 2, num_workers=workers): pass


def test_views_and_seeds(toy):
    data = open_dataset(toy, "val", Sampling("twice", 4, 2), TransformConfig(size=64, resize=None))
    assert data[0]["clip"].shape == (2, 4, 3, 64, 64)
    train = open_dataset(toy, "train", "segments_tail", SMALL, seed=1)
    other = open_dataset(toy, "train", "segments_tail", SMALL, seed=2)
    assert not torch.equal(train[0]["clip"], other[0]["clip"]) and torch.equal(train[0]["clip"], train[0]["clip"])


def test_folders_of_frames_with_offsets(tmp_path):
    from PIL import Image
    folder = tmp_path / "img" / "P01 01"
    folder.mkdir(parents=True)
    for n in range(1, 31): Image.new("RGB", (72, 72), (8 * n, 0, 0)).save(folder / f"frame_{n:010d}.jpg")
    (tmp_path / "list.txt").write_text("P01 01 0 10 0\nP01 01 20 10 1\n")
    records = read_list(tmp_path / "list.txt", tmp_path / "img", NAMES)
    data = ClipDataset(records, NAMES, Sampling("segments", 5), SMALL, cache=True, progress=False)
    red = [data.frames(i)[:, 30, 30, 0].int() for i in (0, 1)]
    assert (red[0] - torch.tensor([2, 4, 6, 8, 10]) * 8).abs().max() <= 3
    assert (red[1] - torch.tensor([22, 24, 26, 28, 30]) * 8).abs().max() <= 3
    assert json.loads(next((tmp_path / "cache").glob("*.json")).read_text())["ids"] == ["P01 01@0", "P01 01@20"]


def test_both_jpeg_decoders_give_the_same_frames_and_errors(tmp_path, monkeypatch):
    from PIL import Image

    import sda.video

    rng = np.random.default_rng(0)
    kinds = [dict(quality=60), dict(subsampling=0), dict(progressive=True), dict(optimize=True), dict(quality=100)]
    for n, options in enumerate(kinds):
        picture = rng.integers(0, 256, (50, 67, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{n:05d}.jpg", **options)
    Image.fromarray(picture[..., 0]).save(tmp_path / "00005.jpg")  # grey
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "00006.jpg")
    quick = sda.video.open_video(tmp_path).frames(range(7))
    monkeypatch.setattr(sda.video, "_quick_jpeg", lambda: None)
    assert torch.equal(quick, sda.video.open_video(tmp_path).frames(range(7)))
    monkeypatch.undo()
    whole = (tmp_path / "00002.jpg").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:20]):
        (tmp_path / "00002.jpg").write_bytes(damaged)
        with pytest.raises(VideoError, match="00002.jpg"): sda.video.open_video(tmp_path).frames([1, 2])
