"""A clip has one length through every door: the frames that decode and are shown. Truncation is told."""

import contextlib
import os
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from unit.test_video import moving, save

from sda.data.assembly import make_dataset
from sda.data.check import check_dataset
from sda.data.clips import ClipReader
from sda.data.extract import extract
from sda.data.lists import Record, read_list
from sda.data.sources import open_record
from sda.data.video import FolderVideo, open_video, scan
from sda.foundation.errors import UnknownNameError, VideoError

av = pytest.importorskip("av")
pytest.importorskip("decord")


def parts(path):
    """The packets of a video file as bytes, with the stream they come from still open."""
    with av.open(str(path)) as box:
        found = [p for p in box.demux(box.streams.video[0]) if p.size]
        return [(bytes(p), p.pts, p.dts, p.is_keyframe, p.pos, p.time_base) for p in found]


def mux(path, source, packets):
    """Write packets (bytes, pts, dts, key) in the format of the video `source`."""
    with av.open(str(source)) as box, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        base = box.streams.video[0].time_base
        for data, pts, dts, key in packets:
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base, packet.stream = pts, dts, base, stream
            packet.is_keyframe = key
            out.mux(packet)
    return path


def patched(path, change):
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))
    return path


def trimmed(path, first, count):
    """An mp4 whose edit list shows `count` frames from frame `first` on, as trim tools of phones write it."""

    def change(data):
        at = data.index(b"elst") + 12
        delay = int.from_bytes(data[at + 4 : at + 8], "big")
        with av.open(str(path)) as box:
            tick = int(1 / (12 * box.streams.video[0].time_base))
        data[at : at + 4] = round(count * 1000 / 12).to_bytes(4, "big")
        data[at + 4 : at + 8] = (delay + first * tick).to_bytes(4, "big")
        return data

    save(path, moving(36), g="12", bf="2")
    return patched(path, change)


def header_says_more(path):
    def change(data):
        at = data.index(b"strh") + 8 + 32
        data[at : at + 4] = (25).to_bytes(4, "little")
        return data

    save(path, moving(24), "mpeg4")
    return patched(path, change)


def between_keys(path):
    """A transport stream that was switched on after its fifth frame."""
    whole = save(path.with_name("whole.ts"), moving(36), g="12", bf="0", sc_threshold="0")
    begin = parts(whole)[5][4] // 188 * 188
    data = whole.read_bytes()
    path.write_bytes(data[: 3 * 188] + data[begin:])
    whole.unlink()
    return path


def open_group(path, codec="libx265"):
    """Copied from the second key frame on, whose first followers lean on what is gone."""
    options = {"x265-params": "log-level=none:keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0"}
    whole = save(path.with_name("whole.mkv"), moving(48), codec, **options)
    packets = parts(whole)
    begin = [n for n, p in enumerate(packets) if p[3]][1]
    mux(path, whole, [(p[0], p[1], p[2], p[3]) for p in packets[begin:]])
    whole.unlink()
    assert any(p[1] < packets[begin][1] for p in packets[begin:])  # there is a lead-in
    return path


def placeholders(path):
    """Packets of one byte that hold no picture, as old encoders leave them."""
    whole = save(path.with_name("whole.avi"), moving(24), "mpeg4")
    packets = []
    for n, p in enumerate(parts(whole)):
        packets.append((p[0], len(packets), len(packets), p[3]))
        if n % 3 == 1:
            packets.append((b"\x7f", len(packets), len(packets), False))
    mux(path, whole, packets)
    whole.unlink()
    return path


def another_size(path, *sizes):
    """Two recordings of different sizes in one stream."""
    packets = []
    made = []
    for n, (height, width) in enumerate(sizes):
        made.append(save(path.with_name(f"part{n}{path.suffix}"), moving(12, height, width), "libvpx"))
        late = 1000 * n
        packets += [(p[0], p[1] + late, p[2] + late, p[3]) for p in parts(made[-1])]
    mux(path, made[0], packets)
    for part in made:
        part.unlink()
    return path


def duration_tag(path, tag):
    def change(data):
        text, count = re.subn(rb"00:00:0\d\.\d{9}", tag.ljust(18, b"\0"), bytes(data))
        assert count
        return text

    save(path, moving(12))
    return patched(path, change)


def dropped(path):
    """A camera that leaves out frames: the header counts them, the file has empty chunks for them."""
    with av.open(str(path), "w") as box:
        stream = box.add_stream("mjpeg", rate=12)
        stream.height, stream.width, stream.pix_fmt = 72, 72, "yuvj420p"
        for n, frame in enumerate(moving(36)):
            if n not in (7, 8, 20):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts, picture.time_base = n, Fraction(1, 12)
                box.mux(stream.encode(picture))
        box.mux(stream.encode())
    return path


KINDS = {  # name -> how it is made, frames, first note
    "trimmed_start.mp4": (lambda p: trimmed(p, 6, 30), 30, None),
    "trimmed_both.mp4": (lambda p: trimmed(p, 6, 12), 12, None),
    "header.avi": (header_says_more, 24, None),
    "dropped.avi": (dropped, 33, None),
    "late.mkv": (lambda p: save(p, moving(24), times=[3000 + 83 * n for n in range(24)]), 24, None),
    "between.ts": (between_keys, 24, "begins between two key frames"),
    "open.mkv": (open_group, 36, "begins between two key frames"),
    "placeholders.avi": (placeholders, 24, "has packets without a picture"),
    "larger.webm": (lambda p: another_size(p, (72, 96), (144, 192)), 24, "changes the size of its picture"),
    "turned.webm": (lambda p: another_size(p, (96, 72), (72, 96)), 24, "changes the size of its picture"),
    "tag.mkv": (lambda p: duration_tag(p, b"abc"), 12, None),
    "stale.mkv": (lambda p: duration_tag(p, b"00:09:59.000000000"), 12, None),
    "12:30:45.mp4": (lambda p: save(p, moving(12)), 12, None),
    "raw.h264": (lambda p: save(p, moving(24), bf="2"), 24, "has no clock"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A class folder with one clip of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, (make, *_) in KINDS.items():
        (folder / "a").mkdir(exist_ok=True)
        (folder / "b").mkdir(exist_ok=True)
        make(folder / "ab"[len(name) % 2] / name)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_video_has_the_frames_that_decode_and_are_shown(clips, name, monkeypatch):
    _, frames, note = KINDS[name]
    monkeypatch.chdir(clips / "ab"[len(name) % 2])
    video = open_video(name)  # a relative path, so that a colon might be a protocol
    assert len(video) == frames == scan(name).length
    found = video.frames(range(frames))
    assert found.shape == (frames, *video.size, 3)
    assert torch.equal(video.frames([frames - 1, 0]), found[[-1, 0]])
    if video.times is not None:
        assert video.timestamps[0] == 0 and (np.diff(video.timestamps) > 0).all()
    assert [kind for kind, _ in video.decode()] == [kind for kind, _ in video.notes()] == [note] * bool(note)
    plain = []
    with av.open(os.path.abspath(name)) as box:  # what a player shows, which passes over what does not decode
        for packet in box.demux(video=0):
            with contextlib.suppress(av.error.InvalidDataError):
                plain += packet.decode()
    assert len(plain) == frames
    assert np.array_equal(plain[0].to_ndarray(format="rgb24"), found[0].numpy())
    try:
        other = open_video(name, "decord")
    except VideoError as err:
        assert "backend='pyav'" in err.remedy  # refused, never another length
    else:
        assert len(other) == frames


def test_make_check_extract_and_readers_agree_about_every_length(clips, tmp_path):
    wanted = {f"{'ab'[len(name) % 2]}/{name}": kind[1] for name, kind in KINDS.items()}
    make_dataset(tmp_path / "set", "folder", media=clips)
    img = tmp_path / "set" / "img"
    lists = tmp_path / "set" / "trainValTest"
    records = [r for split in ("train", "val") for r in read_list(lists / f"{split}.txt", img, ["a", "b"])]
    assert {r.id: r.num_frames for r in records} == wanted
    for decode in (False, True):
        report = check_dataset(tmp_path / "set", decode=decode)
        assert report.ok and not report.problems, report.text()
        said = "\n".join(report.notes)
        assert "between.ts" in said and "packets in front are not shown" in said
        assert "2 clip(s): changes the size of its picture" in said
    found = extract(clips, tmp_path / "frames", progress=False, height=None)
    assert found.ok and found.lengths == wanted
    assert {len(FolderVideo(tmp_path / "frames" / name.rpartition(".")[0])) for name in wanted} == set(
        wanted.values()
    )
    reader = ClipReader()
    assert all(reader(r).total == wanted[r.id] for r in records)
    again = extract(clips, tmp_path / "frames", progress=False, height=None)
    assert sorted(again.already) == sorted(wanted)


def test_pictures_of_another_size_are_scaled_and_not_cut(tmp_path):
    path = another_size(tmp_path / "a.webm", (72, 96), (144, 192))
    video = open_video(path)
    small = torch.from_numpy(moving(12, 144, 192)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(small, (72, 96), mode="area").permute(0, 2, 3, 1)
    assert (video.frames(range(12, 24)).float() - small).abs().mean() < 12
    assert open_video(path, short_side=48).frames([0, 23]).shape == (2, 48, 64, 3)


def test_a_clock_that_begins_again_goes_on(tmp_path):
    """Two recordings joined end to end, each of which begins at nought."""
    one = save(tmp_path / "one.ts", moving(12), "mpeg2video", rate=25, bf="0")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    video = open_video(joined)
    assert len(video) == 24 and np.allclose(np.diff(video.timestamps), 1 / 25, atol=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.flv"])
@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "reserved"])
def test_a_download_that_stopped_is_told(tmp_path, name, zeros):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "flv": "flv"}.get(name[2:], "libx264")
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / name, noise, codec)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + bytes(len(data) - half) * zeros)
    with pytest.raises(VideoError) as error:
        open_video(path).decode()
    assert error.value.subject == str(path) and error.value.remedy


def test_check_decodes_when_asked(tmp_path):
    """A hole in the middle is found by decoding alone; the other clips are counted as ready."""
    for name in ("whole", "hole"):
        (tmp_path / "clips" / name[0]).mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
        path = save(tmp_path / "clips" / name[0] / f"{name}.mp4", noise)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(data)
    make_dataset(tmp_path / "set", "folder", media=tmp_path / "clips")
    assert check_dataset(tmp_path / "set").ok
    report = check_dataset(tmp_path / "set", decode=True, workers=2)
    assert [p["reason"] for p in report.problems] == ["unreadable"]
    assert "hole.mp4" in report.problems[0]["detail"] and report.exit_status == 1


def test_offsets_need_frames_numbered_from_the_beginning(tmp_path):
    from PIL import Image

    (tmp_path / "f").mkdir()
    for n in range(100, 140):
        Image.new("RGB", (40, 40)).save(tmp_path / "f" / f"{n:05d}.jpg")
    record = Record("f", str(tmp_path / "f"), 0, 8, offset=16)
    with pytest.raises(VideoError) as error:
        open_record(record)
    assert error.value.subject == record.path and error.value.remedy
    assert open_record(record, start=100)[1] == 8
    assert open_record(Record("f", record.path, 0))[1] == 40


@pytest.fixture(scope="module")
def one_damaged(tmp_path_factory):
    """A dataset of seven clips; one has a hole in its middle."""
    root = tmp_path_factory.mktemp("damaged")
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    whole = save(root / "whole.mp4", noise).read_bytes()
    hole = bytearray(whole)
    hole[len(hole) // 2 : len(hole) // 2 + 20_000] = bytes(20_000)
    for n in range(7):
        path = root / "clips" / "ab"[n % 2] / f"{n}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hole if n == 3 else whole)
    names = [f"{'ab'[n % 2]}/{n}.mp4" for n in range(7)]
    set_ = root / "set"
    (set_ / "trainValTest").mkdir(parents=True)
    (set_ / "img").symlink_to(root / "clips", True)
    (set_ / "category.txt").write_text("a\nb\n")
    lines = [f"{name} 40 {n % 2}\n" for n, name in enumerate(names)]
    (set_ / "trainValTest" / "train.txt").write_text("".join(lines[:5]))
    (set_ / "trainValTest" / "val.txt").write_text("".join(lines[5:]))
    return set_


def test_a_damaged_clip_stops_a_training_by_name_or_is_left_out_and_listed(one_damaged, tmp_path):
    from sda.data.datasets import open_dataset
    from sda.training.recipes import recipe
    from sda.training.trainer import train

    config = recipe("moves", epochs=1, batch_size=4, size=32, resize=32, num_frames=8, device="cpu")
    seen = dict(sampling=config.sampling(), transform=config.transform(), progress=False)
    val = open_dataset(one_damaged, "val", **seen)
    data = open_dataset(one_damaged, "train", **seen)
    with pytest.raises(VideoError) as error:
        train(config, "sda_tsn_tiny", data, val, tmp_path / "stops", progress=False)
    assert "b/3.mp4" in str(error.value)
    data = open_dataset(one_damaged, "train", **seen, on_bad_clip="skip")
    assert [r.id for r in data.records] == ["a/0.mp4", "b/1.mp4", "a/2.mp4", "a/4.mp4"]
    assert list(data.left_out) == ["b/3.mp4"] and "3.mp4" in data.left_out["b/3.mp4"]
    found = train(config, "sda_tsn_tiny", data, val, tmp_path / "skips", progress=False)
    assert found.record["clips"] == 4
    with pytest.raises(UnknownNameError):
        open_dataset(one_damaged, "train", on_bad_clip="replace")
