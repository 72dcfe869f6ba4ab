"""Files that others may have written: refused before the memory is taken, with the file named."""

import io
import json
import tracemalloc
import zipfile

import av
import numpy as np
import pytest
import torch

from sda.data.video import MemoryVideo, PyAVVideo, scan
from sda.data.video.ffmpeg import open_container, video_stream
from sda.data.video.mp4 import check_index
from sda.foundation.errors import DataError, VideoError
from sda.foundation.reading import parse_yaml, read_arrays, read_json
from sda.testing.predictions import Predictions
from sda.training.recipes import load_config


def packed(path, **members):
    """An archive of arrays with raw bytes as members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
        for name, data in members.items():
            box.writestr(f"{name}.npy", data)
    return path


def header(shape, dtype="<f4"):
    """The head of an array without its numbers."""
    buffer = io.BytesIO()
    kind = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, kind)
    return buffer.getvalue()


def zeros(size):
    return header((size // 4,)) + bytes(size)


@pytest.mark.parametrize(
    "members",
    [
        {"logits": zeros(1 << 26)},  # a thousand times its size
        {"logits": header((1 << 40,)) + bytes(64)},  # a head that claims a terabyte
        {"logits": header((1 << 62, 1 << 62)) + bytes(64)},  # and one beyond all integers
        {"logits": header((4,), "|O") + bytes(64)},  # objects are unpickled: never
        {"logits": b"no array"},
    ],
)
def test_arrays_that_claim_more_than_they_hold(tmp_path, members):
    path = packed(tmp_path / "bomb.npz", **members)
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        read_arrays(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.subject == str(path) and most < 1 << 22


def test_a_bomb_is_no_file_of_scores(tmp_path):
    """Fifty million empty names in 200 kB, which took 7.8 GB as strings."""
    ids = header((1 << 24,), "<U1") + bytes(1 << 26)
    rest = {name: zeros(64) for name in ("logits", "labels", "class_names")}
    path = packed(tmp_path / "scores.npz", ids=ids, **rest)
    with pytest.raises(DataError) as caught:
        Predictions.load(path)
    assert caught.value.subject == str(path)


def test_arrays_as_they_are_written(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros(100_000), names=np.array(["a", "bb"]))
    found = read_arrays(tmp_path / "a.npz")
    assert found["names"].tolist() == ["a", "bb"] and found["zeros"].shape == (100_000,)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "b.npz")


def aliases():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join([*lines, "recipe: *a9"])


@pytest.mark.parametrize("text", [aliases(), "[" * 20_000, "recipe: [", "x: " + "y" * (1 << 20)])
def test_yaml_that_never_ends(tmp_path, text):
    with pytest.raises(DataError) as caught:
        parse_yaml(text, "settings.yaml")
    assert caught.value.subject == "settings.yaml"
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:  # a setting that cannot be used
        load_config(tmp_path / "settings.yaml")
    assert caught.value.subject == str(tmp_path / "settings.yaml")


def test_yaml_as_it_is_written():
    assert parse_yaml("recipe: moves\nlr: 1.0e-3\nsplits: [a, b]", "x") == {
        "recipe": "moves",
        "lr": 1e-3,
        "splits": ["a", "b"],
    }


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a": ', "\xff", "9" * 5000])
def test_json_that_is_none(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert caught.value.subject == str(path)


def test_json_as_it_is_written(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, 2.5, None]}))
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    with pytest.raises(DataError):
        read_json(tmp_path / "a.json", most=4)


def box(kind, *inside):
    """A box of an mp4."""
    data = b"".join(inside)
    return (len(data) + 8).to_bytes(4, "big") + kind + data


def indexed(**tables):
    """An mp4 of 64 bytes of pictures, with these tables in its index."""
    index = box(b"stbl", *(box(kind.encode(), *map(word, words)) for kind, words in tables.items()))
    for kind in (b"minf", b"mdia", b"trak", b"moov"):
        index = box(kind, index)
    return box(b"ftyp", b"isom", word(0)) + box(b"mdat", bytes(64)) + index


def word(number):
    return number.to_bytes(4, "big")


@pytest.mark.parametrize(
    "tables",
    [
        {"stsz": (0, 1, 40_000_000)},  # forty million samples of one byte
        {"stts": (0, 1, 40_000_000, 1024)},
        {"stsz": (0, 0, 2, 20, 20), "ctts": (0, 2, 1, 0, 1 << 31, 0)},
    ],
)
def test_an_index_that_claims_more_than_the_file_holds(tmp_path, tables):
    path = tmp_path / "bomb.mp4"
    path.write_bytes(indexed(**tables))
    with pytest.raises(VideoError) as caught:
        check_index(path)
    assert caught.value.subject == str(path) and "claims" in str(caught.value)


def test_an_honest_index_and_other_files_pass(tmp_path):
    for name, data in {
        "mp4": indexed(stsz=(0, 0, 2, 20, 20), stts=(0, 1, 2, 1024)),
        "short": b"ab",
        "text": b"no video at all",
        "nested": box(b"moov", b"\0\0\0\0moov" * 5000),
    }.items():
        (tmp_path / name).write_bytes(data)
        check_index(tmp_path / name)


@pytest.mark.parametrize("name", ["bomb.mkv", "bomb.avi", "bomb.mp4"])
def test_a_small_file_with_endless_huge_frames_is_refused_before_they_are_decoded(tmp_path, name):
    """Four thousand frames of nothing, 40 kB: minutes and gigabytes of pictures."""
    pictures = [av.VideoFrame(4096, 2304, "yuv420p") for _ in range(2)]
    for picture in pictures:
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 4096, 2304, "yuv420p"
        first, nothing = [packet for picture in pictures for packet in stream.encode(picture)]
        out.mux(first)
        data = bytes(nothing)
        for n in range(1, 4000):
            packet = av.Packet(data)
            packet.pts = packet.dts = n
            packet.time_base, packet.stream = nothing.time_base, stream
            out.mux(packet)
    assert (tmp_path / name).stat().st_size < 400_000
    with pytest.raises(VideoError) as caught:
        scan(tmp_path / name)
    assert caught.value.subject == str(tmp_path / name) and caught.value.remedy


def test_a_picture_that_claims_more_than_its_header_takes_no_memory(tmp_path):
    """The second key frame of a VP8 file says 12000 x 12000: the decoder itself refuses it."""
    path = tmp_path / "grown.webm"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libvpx", rate=12, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in rng.integers(0, 255, (3, 48, 64, 3), np.uint8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    data = bytearray(path.read_bytes())
    second = data.index(b"\x9d\x01\x2a", data.index(b"\x9d\x01\x2a") + 3)
    data[second + 3 : second + 7] = 2 * (12000).to_bytes(2, "little")
    path.write_bytes(data)
    with open_container(path) as box, pytest.raises(av.FFmpegError):
        list(box.decode(video_stream(box, path)))
    with pytest.raises(VideoError) as caught:
        PyAVVideo(path).frames([0, 1, 2])
    assert caught.value.subject == str(path)


def test_more_frames_at_once_than_memory_holds_are_refused_by_name():
    video = MemoryVideo(torch.zeros(1, 1, 1, 3, dtype=torch.uint8).expand(4000, 1080, 1920, 3))
    with pytest.raises(VideoError) as caught:
        video.frames(list(range(4000)))
    assert caught.value.remedy and "1920x1080" in str(caught.value)
