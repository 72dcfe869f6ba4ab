"""Readers on real codecs, damaged files and processes: the same frames or one clear error."""

import gzip
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sda.data.video import (
    BACKENDS,
    ArchiveVideo,
    DecordVideo,
    FolderVideo,
    MemoryVideo,
    PyAVVideo,
    open_video,
    scan,
)
from sda.foundation.errors import SettingError, UnknownNameError, VideoError

av = pytest.importorskip("av")
pytest.importorskip("decord")
MILLI = Fraction(1, 1000)


def moving(frames=20, height=72, width=72):
    """A ramp that drifts with a bright square on it: every frame is different."""
    y, x = np.mgrid[:height, :width]
    clip = np.stack(
        [np.stack([(x + 11 * t) % 256, (2 * y + 5 * t) % 256, (x + y) % 256], -1) for t in range(frames)]
    )
    for t in range(frames):
        clip[t, 4:20, 2 + t % (width - 20) : 18 + t % (width - 20)] = (250, 20, 60)
    return clip.astype(np.uint8)


def save(path, clip, codec="libx264", rate=12, pix_fmt="yuv420p", times=None, **options):
    """Write a clip; `times` gives every frame its own time stamp in milliseconds."""
    mp4 = str(path).endswith(".mp4")
    with av.open(str(path), "w", options={"movflags": "+faststart"} if mp4 else {}) as box:
        stream = box.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], pix_fmt
        if times is not None:
            stream.time_base = stream.codec_context.time_base = MILLI
        for i, frame in enumerate(clip):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts = times[i]
                picture.time_base = MILLI
            box.mux(stream.encode(picture))
        box.mux(stream.encode())
    return path


CASES = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.avi": {"bf": "0"},
    "bframes.mp4": {"bf": "3", "g": "10"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=none"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4", "b": "4000000"},
    "mpeg4.mp4": {"codec": "mpeg4", "b": "4000000"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


@pytest.mark.parametrize("name", CASES)
def test_two_decoders_agree_in_every_byte(tmp_path, name):
    path = save(tmp_path / name, moving(), **CASES[name])
    one = DecordVideo(path)
    two = PyAVVideo(path)
    assert len(one) == len(two) == 20 and one.size == two.size == (72, 72)
    assert np.array_equal(one.timestamps, two.timestamps)
    assert np.allclose(one.timestamps, np.arange(20) / 12, atol=2e-3)  # Matroska counts milliseconds
    assert torch.equal(one.frames(range(20)), two.frames(range(20)))
    assert torch.equal(one.frames([13, 2, 13]), two.frames([13, 2, 13]))
    off = (two.frames(range(20)).int() - torch.from_numpy(moving()).int()).abs().float().mean((1, 2, 3))
    assert (off < 25).all()
    # the right frame, not a neighbour: the true one is the nearest
    near = torch.cdist(
        two.frames(range(20)).flatten(1).float(), torch.from_numpy(moving()).flatten(1).float()
    )
    assert near.argmin(1).tolist() == list(range(20))


@pytest.mark.parametrize("width", [36, 48, 50, 66, 72, 96, 102, 340])
def test_widths_that_need_row_padding(tmp_path, width):
    path = save(tmp_path / "w.mp4", moving(6, 40, width))
    assert torch.equal(DecordVideo(path).frames(range(6)), PyAVVideo(path).frames(range(6)))


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 40, 200, 240, 600, 640, 1000, 1500]
    path = save(tmp_path / "vfr.mkv", moving(8), times=times)
    one = DecordVideo(path)
    two = PyAVVideo(path)
    assert np.allclose(two.timestamps * 1000, times, atol=1) and torch.equal(
        one.frames(range(8)), two.frames(range(8))
    )


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotated_phone_video_is_upright(tmp_path, angle):
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=12)
        stream.height = 64
        stream.width = 96
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(angle)
        for frame in moving(5, 64, 96):
            box.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        box.mux(stream.encode())
    one = DecordVideo(path)
    two = PyAVVideo(path)
    assert one.size == two.size == ((64, 96) if angle == 180 else (96, 64))
    assert torch.equal(one.frames(range(5)), two.frames(range(5))) and two.frames([0]).shape[1:3] == two.size


def test_av1_is_read_and_decord_says_that_it_cannot(tmp_path, monkeypatch):
    monkeypatch.setenv("SVT_LOG", "1")
    path = save(tmp_path / "new.mp4", moving(), codec="libsvtav1")
    video = open_video(path)
    assert video.backend == "pyav"
    assert len(video) == 20 and video.frames([19]).shape == (1, 72, 72, 3)
    with pytest.raises(VideoError) as error:
        open_video(path, backend="decord")
    assert error.value.subject == str(path) and "backend='pyav'" in error.value.remedy


def from_the_start(path):
    """Every frame in order, without the readers."""
    with av.open(str(path)) as box:
        return [frame.to_ndarray(format="rgb24") for frame in box.decode(video=0)]


JUMPS = {  # how often a key frame comes, and what makes a jump hard
    "closed.mp4": {"g": "12", "bf": "3"},
    "open.mkv": {"x264-params": "open-gop=1:keyint=12:bframes=3:log=-1"},
    "refresh.mkv": {"x264-params": "intra-refresh=1:keyint=12:log=-1"},
    "order.avi": {"g": "12", "bf": "3"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=none:keyint=12:open-gop=1:bframes=4"},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "12", "auto-alt-ref": "1"},
    "mpeg4.mp4": {"codec": "mpeg4", "g": "12"},
    "xvid.avi": {"codec": "mpeg4", "bf": "2", "g": "12"},
    "wm.wmv": {"codec": "wmv2", "g": "12"},
    "stream.ts": {"g": "12", "bf": "2"},
    "system.mpg": {"codec": "mpeg2video", "rate": 25, "g": "12", "bf": "2"},
}


@pytest.mark.parametrize("name", [*JUMPS, "variable.mkv"])
def test_a_jump_gives_the_frames_of_reading_from_the_start(tmp_path, name):
    options = JUMPS.get(
        name, {"g": "12", "bf": "3", "times": np.cumsum(np.r_[0, np.arange(47) % 5 * 30 + 10]).tolist()}
    )
    path = save(tmp_path / name, moving(48, 48, 64), **options)
    video = PyAVVideo(path)
    straight = from_the_start(path)
    assert len(straight) == len(video) == 48
    for indices in ([47], [13, 30, 46], [5, 24, 25, 40], [11, 12, 23, 24, 35, 36]):
        found = video.frames(indices)
        assert all(np.array_equal(f.numpy(), straight[i]) for i, f in zip(indices, found, strict=True)), (
            indices
        )
        if name[-3:] not in (".ts", "mpg", "wmv"):
            assert torch.equal(
                DecordVideo(path).frames(indices), found
            )  # whose own index would miss in four of these
    if name.endswith((".ts", "mpg", "wmv")):
        with pytest.raises(VideoError) as error:
            DecordVideo(path)
        assert error.value.subject == str(path) and "backend='pyav'" in error.value.remedy


class Counted:
    """An open file that counts the frames, or packets with one, that it hands out, in place of PyAV's own."""

    frames = 0
    opened = 0
    real = staticmethod(av.open)

    def __init__(self, *args, **options):
        self.box = self.real(*args, **options)
        Counted.opened += 1

    def __getattr__(self, name):
        return getattr(self.box, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.box.close()

    def decode(self, stream):
        for frame in self.box.decode(stream):
            Counted.frames += 1
            yield frame

    def demux(self, stream):
        for packet in self.box.demux(stream):
            Counted.frames += packet.size > 0
            yield packet


def count(monkeypatch):
    """Files opened and frames decoded through PyAV from here on."""
    monkeypatch.setattr(Counted, "frames", 0)
    monkeypatch.setattr(Counted, "opened", 0)
    monkeypatch.setattr(av, "open", Counted)
    return Counted


@pytest.mark.parametrize("name", ["closed.mp4", "vp9.webm", "mpeg4.mp4"])
def test_a_late_frame_does_not_decode_the_whole_file(tmp_path, monkeypatch, name):
    path = save(tmp_path / name, moving(48, 48, 64), **JUMPS[name])
    video = PyAVVideo(path)
    counted = count(monkeypatch)
    assert video.frames([46]).shape[0] == 1 and 0 < counted.frames <= 16


def test_a_file_is_scanned_once_until_it_changes(tmp_path, monkeypatch):
    path = save(tmp_path / "a.mp4", moving(9))
    longer = save(tmp_path / "b.mp4", moving(12)).read_bytes()
    counted = count(monkeypatch)
    os.utime(path, (1e9, 1e9))
    assert [len(open_video(path)) for _ in range(4)] == [9] * 4 and counted.opened == 1
    path.write_bytes(longer)
    assert len(open_video(path)) == 12
    os.utime(path, (1e9, 1e9))
    assert len(open_video(path)) == 12  # same time, another size


@pytest.mark.parametrize(
    "name, options",
    [
        ("odd.webm", {"codec": "libvpx-vp9"}),
        ("odd.avi", {"codec": "mpeg4"}),
        ("odd.mp4", {"pix_fmt": "yuv444p"}),
        ("odd.mkv", {"codec": "ffv1"}),
    ],
)
@pytest.mark.parametrize("height, width", [(53, 71), (54, 33), (35, 90)])
def test_odd_sizes(tmp_path, name, options, height, width):
    path = save(tmp_path / name, moving(6, height, width), **options)
    clip = moving(6, height, width)
    one = PyAVVideo(path)
    two = DecordVideo(path)
    assert one.size == two.size == (height, width)
    off = (one.frames(range(6)).int() - two.frames(range(6)).int()).abs()
    if height % 2 and name != "odd.mp4":
        assert off.float().mean() < 2  # FFmpeg's versions round half rows of colour apart
    else:
        assert off.max() == 0
    near = torch.cdist(
        one.frames(range(6)).flatten(1).float(), torch.from_numpy(clip).flatten(1).float()
    ).argmin(1)
    assert near.tolist() == list(range(6))


def test_a_file_with_a_header_and_no_frames(tmp_path):
    with av.open(str(tmp_path / "none.avi"), "w") as box:
        stream = box.add_stream("mpeg4", rate=12)
        stream.width = 64
        stream.height = 48
        stream.pix_fmt = "yuv420p"
        box.start_encoding()
    for backend in (None, "decord", "pyav"):
        with pytest.raises(VideoError) as error:
            open_video(tmp_path / "none.avi", backend)
        assert error.value.subject == str(tmp_path / "none.avi") and "again" in error.value.remedy


def test_texts_pictures_and_lists_of_other_files_are_no_videos(tmp_path):
    """FFmpeg would draw the text as a terminal does, and follow the lists to other files."""
    video = save(tmp_path / "other.mp4", moving(6))
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"
    save(tmp_path / "other.ts", moving(6), "mpeg2video", rate=25)
    texts = {
        "note.txt": "Nothing moves in a text.\n" * 40,
        "list.mp4": "ffconcat version 1.0\nfile other.mp4\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{video}'\n",
        "stream.m3u8": hls,
        "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 26\n",
        "picture.ppm": f"P3 64 64 255\n{'9 9 9 ' * 64 * 64}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for name in texts:
        for backend in (None, "decord"):
            with pytest.raises(VideoError) as error:
                open_video(tmp_path / name, backend)
            assert error.value.subject == str(tmp_path / name) and "convert" in error.value.remedy
    kept = scan(video)
    video.write_text(texts["list.mp4"])  # exchanged after it was looked at
    with pytest.raises(VideoError) as error:
        PyAVVideo(video, kept).frames([0])
    assert error.value.subject == str(video) and "convert" in error.value.remedy


@pytest.mark.parametrize(
    "name", ["a.gif", "a.mov", "a.m4v", "a.3gp", "a.mpg", "a.ts", "a.flv", "a.wmv", "a.h264", "a.apng"]
)
def test_rarer_kinds_of_video_files_are_read(tmp_path, name):
    codec = {
        "gif": "gif",
        "mpg": "mpeg2video",
        "ts": "mpeg2video",
        "flv": "flv",
        "wmv": "wmv2",
        "apng": "apng",
    }
    colours = {"gif": "rgb8", "apng": "rgb24"}
    video = open_video(
        save(tmp_path / name, moving(6), codec.get(name[2:], "libx264"), 25, colours.get(name[2:], "yuv420p"))
    )
    assert len(video) == 6 and video.frames([0, 5]).shape == (2, 72, 72, 3)


def test_times_come_from_the_frames_and_not_from_the_announced_rate(tmp_path):
    path = save(tmp_path / "wrong.mkv", moving(10), rate=60, times=[500 * i for i in range(10)])
    with av.open(str(path)) as box:
        assert float(box.streams.video[0].base_rate or 0) != 2
    for backend in ("decord", "pyav"):
        assert np.allclose(open_video(path, backend).timestamps, np.arange(10) / 2, atol=2e-3)


def as_somebody_else(function, *args):
    """What a call says to a user who owns nothing here; the root user may read everything."""
    from multiprocessing import get_context

    def call(pipe):
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            pipe.send(repr(function(*args)))
        except Exception as err:
            pipe.send(f"{type(err).__name__}: {err}")

    here, there = get_context("fork").Pipe()
    child = get_context("fork").Process(target=call, args=(there,))
    child.start()
    assert here.poll(60), "no answer"
    child.join()
    return here.recv()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_may_not_be_read_says_so():
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        files = [save(root / "a.mp4", moving(4)), root / "f" / "00001.jpg"]
        frames_in(root / "f", [1, 2])
        pack(root / "a.tar", root / "f")
        for path in (*files, root / "a.tar"):
            path.chmod(0)
        frames_in(root / "locked", [1, 2]).chmod(0)
        (root / "deep").mkdir()
        save(root / "deep" / "b.mp4", moving(4))
        (root / "deep").chmod(0)
        for path, words in (
            ("a.mp4", "may not be read; change its permissions"),
            ("a.tar", "may not be read"),
            ("f", "00001.jpg may not be read"),
            ("locked", "check its permissions"),
            ("deep/b.mp4", "cannot be reached"),
        ):
            said = as_somebody_else(open_video, root / path)
            assert said.startswith("VideoError") and words in said, said
        for path in ("locked", "deep"):
            (root / path).chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VideoError) as error:
        open_video(tmp_path / "a.mp4")
    assert error.value.subject == str(tmp_path / "a.mp4") and error.value.remedy == "give a file of its own"


@pytest.mark.parametrize("backend", [None, "decord", "pyav"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut", "audio", "folder", "tiny"])
def test_unusable_files_have_one_clear_error(tmp_path, kind, backend):
    path = tmp_path / f"{kind}.mp4"
    told = {  # a word of the remedy, and what the file holds
        "missing": ("path", ""),
        "empty": ("again", "0 bytes"),
        "text": ("again", "FFmpeg"),
        "cut": ("again", "60 frames"),
        "audio": ("moving pictures", "audio"),
        "folder": ("extract frames", ".jpg") if backend is None else ("backend='folder'", ""),
        "tiny": ("at least 32", "28x24"),
    }
    if kind == "empty":
        path.touch()
    if kind == "text":
        path.write_text("<html>404</html>" * 99)
    if kind == "folder":
        path.mkdir()
    if kind == "tiny":
        save(path, moving(4, 40, 40)[:, :24, :28])
    if kind == "cut":
        data = save(
            path, np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
        ).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    if kind == "audio":
        with av.open(str(path), "w") as box:
            stream = box.add_stream("aac", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 8000
            box.mux(stream.encode(sound))
            box.mux(stream.encode())
    with pytest.raises(VideoError) as error:
        open_video(path, backend=backend)
    remedy, holds = told[kind]
    assert error.value.subject == str(path) and remedy in error.value.remedy
    assert holds in str(error.value)
    assert "list" not in str(error.value)  # nobody gave one


def test_a_hole_in_the_middle_tells_how_far_it_decodes(tmp_path):
    path = save(
        tmp_path / "hole.mp4", np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 30_000] = bytes(30_000)
    path.write_bytes(data)
    for backend in ("decord", "pyav"):
        with pytest.raises(VideoError) as error:
            open_video(path, backend=backend).frames(range(60))
        assert error.value.subject == str(path)
        assert re.search(r"\b\d+ of its 60 frames", str(error.value))  # numbers that a person must be told


def test_readers_are_safe_in_threads_forks_and_pickles(tmp_path):
    video = open_video(save(tmp_path / "a.mp4", moving()), backend="decord")
    expected = open_video(video.path, backend="pyav").frames([3, 17])
    found = []
    threads = [threading.Thread(target=lambda: found.append(video.frames([3, 17]))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert len(found) == 8 and all(torch.equal(f, expected) for f in found)
    assert torch.equal(pickle.loads(pickle.dumps(video)).frames([3, 17]), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_reader_carried_through_a_fork_does_not_hang(tmp_path):
    path = save(tmp_path / "a.mp4", moving())
    code = f"""if True:
        import os, sys
        from sda.data.video import open_video
        video = open_video({str(path)!r}, backend="decord")
        child = os.fork()
        if child == 0: os._exit(0 if video.frames([5]).shape[0] == 1 else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_decoders_are_optional(tmp_path):
    code = f"""if True:
        import sys
        sys.modules["av"] = sys.modules["decord"] = None
        from sda.data.video import MemoryVideo, open_video
        import torch
        assert MemoryVideo(torch.zeros(3, 40, 40, 3, dtype=torch.uint8)).frames([2]).shape == (1, 40, 40, 3)
        try: open_video({str(save(tmp_path / "a.mp4", moving()))!r})
        except ImportError as err: assert "pip install av" in str(err)
        else: sys.exit("no error")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def frames_in(folder, numbers, template="{:05d}.jpg", size=40):
    from PIL import Image

    folder.mkdir()
    for n in numbers:
        Image.new("RGB", (size, size), (n % 256, 0, 0)).save(folder / template.format(n))
    return folder


@pytest.mark.parametrize("template", ["{:05d}.jpg", "frame_{:010d}.jpg", "{}.png", "img_{:02d}.jpeg"])
@pytest.mark.parametrize("start", [0, 1])
def test_folders_are_understood_without_being_told(tmp_path, template, start):
    folder = frames_in(tmp_path / "f", range(start, start + 12), template)
    (folder / "Thumbs.db").touch()
    (folder / "notes.txt").touch()
    video = FolderVideo(folder, fps=6)
    assert (len(video), video.start, video.timestamps[-1]) == (12, start, 11 / 6)
    assert abs(int(video.frames([7])[0, 20, 20, 0]) - (start + 7)) <= 3
    assert FolderVideo(folder, template=template.replace("{}", "{:d}")).start == start


@pytest.mark.parametrize(
    "numbers, words",
    [
        ([1, 2, 4, 5], "00003.jpg is missing (1 of 5); extract this clip again"),
        ([0, 2, 3], "00001.jpg is missing"),
        ([1, 3], "00002.jpg is missing"),
        ([0, 5, 15, 20], "00010.jpg is missing (1 of 5)"),
    ],
)
def test_gaps_name_the_first_missing_frame(tmp_path, numbers, words):
    with pytest.raises(VideoError) as error:
        FolderVideo(frames_in(tmp_path / "f", numbers))
    assert words in str(error.value)


@pytest.mark.parametrize(
    "template, numbers",
    [
        ("frame_{:06d}.jpg", range(0, 50, 5)),
        ("frame-{:06d}.color.jpg", range(10)),
        ("v2_cam1_{:d}_left.png", range(7, 207, 20)),
        ("{:08d}.tif", range(100, 110)),
        ("img{:02d}.bmp", range(95, 105)),
        ("{:05d}.tiff", range(1, 11)),
    ],
)
def test_any_numbering_is_found_and_said(tmp_path, template, numbers):
    folder = frames_in(tmp_path / "f", numbers, template)
    (folder / "poster.jpg").write_bytes(b"x")
    step = numbers[1] - numbers[0]
    for video in (FolderVideo(folder), open_video(pack(tmp_path / "f.zip", folder))):
        assert (len(video), video.start, video.step) == (10, numbers[0], step)
        reds = video.frames(range(10))[:, 20, 20, 0].int()
        assert (reds - torch.tensor(list(numbers))).abs().max() <= 3
        kinds = [kind for kind, _ in video.notes()]
        assert ("leaves out numbers evenly" in kinds) == (step > 1) == ("steps of" in repr(video))
        assert ("begins with a later number" in kinds) == (numbers[0] > 1)


def test_sixteen_bits_are_scaled_and_other_numbers_refused(tmp_path):
    from PIL import Image

    for kind in ("png", "tif"):
        (tmp_path / kind).mkdir()
        depth = np.full((40, 40), 65535, np.uint16)
        depth[:20] = 257 * 64
        for n in (1, 2):
            Image.fromarray(depth).save(tmp_path / kind / f"{n}.{kind}")
        seen = FolderVideo(tmp_path / kind).frames([1])[0]
        assert (seen[:20] == 64).all() and (seen[20:] == 255).all()
    (tmp_path / "float").mkdir()
    Image.fromarray(depth.astype(np.float32)).save(tmp_path / "float" / "1.tif")
    with pytest.raises(VideoError) as error:
        FolderVideo(tmp_path / "float").frames([0])
    assert error.value.subject.endswith("1.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_lying_on_their_side_stand_upright(tmp_path, orientation):
    """By the quick way, scaled on the way, from an archive, and as PNG."""
    from PIL import Image, ImageOps

    shown = Image.fromarray(photo(1, 120, 160)[0])
    note = Image.Exif()
    note[0x0112] = orientation
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    undo = Image.Exif()
    undo[0x0112] = back
    lying = shown.copy()
    lying.info["exif"] = undo.tobytes()
    lying = ImageOps.exif_transpose(lying)
    for kind in ("jpg", "png"):
        (tmp_path / kind).mkdir()
        lying.save(
            tmp_path / kind / f"1.{kind}", exif=note.tobytes(), **({"quality": 95} if kind == "jpg" else {})
        )
        packed = pack(tmp_path / f"{kind}.zip", tmp_path / kind)
        for source in (tmp_path / kind, packed):
            video = open_video(source)
            assert video.size == (120, 160)
            assert (
                video.frames([0])[0].int() - torch.from_numpy(np.array(shown)).int()
            ).abs().float().mean() < 4
            small = open_video(source, short_side=60).frames([0])[0]
            assert small.shape == (60, 80, 3)
            wanted = torch.from_numpy(np.array(shown.resize((80, 60), Image.Resampling.BILINEAR)))
            assert (small.int() - wanted.int()).abs().float().mean() < 4


@pytest.mark.parametrize("kind", ["EPS", "GIF", "ICO", "PPM"])
def test_pictures_open_as_the_promised_formats_and_no_other(tmp_path, kind, monkeypatch):
    from PIL import Image

    (tmp_path / "f").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "f" / "1.jpg", kind)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(VideoError) as error:
        open_video(tmp_path / "f")
    assert error.value.subject == str(tmp_path / "f" / "1.jpg") and error.value.remedy


def test_folder_faults(tmp_path):
    folder = frames_in(tmp_path / "f", range(1, 5))
    with pytest.raises(VideoError) as error:
        FolderVideo(folder, template="img_{:05d}.jpg")
    assert error.value.subject == str(folder) and "'img_{:05d}.jpg'" in str(error.value)
    with pytest.raises(SettingError) as error:
        FolderVideo(folder, template="img.jpg")
    assert error.value.subject == "img.jpg"
    with pytest.raises(VideoError) as error:
        FolderVideo(folder, start=0)
    assert error.value.subject == str(folder) and "start=1" in error.value.remedy
    (folder / "00002.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    with pytest.raises(VideoError) as error:
        FolderVideo(folder).frames([0, 1])
    assert error.value.subject == str(folder / "00002.jpg") and "extract" in error.value.remedy
    frames_in(tmp_path / "g", [1], size=50)
    os.replace(tmp_path / "g" / "00001.jpg", folder / "00002.jpg")
    with pytest.raises(VideoError) as error:
        FolderVideo(folder).frames([1])
    assert error.value.subject == str(folder / "00002.jpg")
    assert "50x50" in str(error.value) and "40x40" in str(error.value)
    with pytest.raises(VideoError) as error:
        len(FolderVideo(frames_in(tmp_path / "h", [1])).timestamps)
    assert error.value.subject == str(tmp_path / "h") and "fps=" in error.value.remedy
    with pytest.raises(VideoError) as error:
        FolderVideo(frames_in(tmp_path / "tiny", [1], size=20))
    assert error.value.subject == str(tmp_path / "tiny") and "at least 32" in error.value.remedy


def test_arrays_and_indices():
    clip = torch.from_numpy(moving(6))
    video = MemoryVideo(clip, fps=3)
    assert torch.equal(video.frames([5, 0, 5]), clip[[5, 0, 5]]) and video.timestamps[3] == 1
    for bad in ([6], [-1], []):
        with pytest.raises(VideoError):
            video.frames(bad)
    with pytest.raises(VideoError) as error:
        MemoryVideo(clip.float(), name="mine")
    assert error.value.subject == "mine" and "torch.float32" in str(error.value)
    with pytest.raises(UnknownNameError) as error:
        open_video("a.mp4", backend="dekord")
    assert set(error.value.choices) == set(BACKENDS) and "'decord'" in error.value.remedy
    with pytest.raises(VideoError) as error:
        MemoryVideo(clip[:0], name="mine")
    assert error.value.subject == "mine"


def test_scan_counts_without_a_header(tmp_path):
    facts = scan(save(tmp_path / "a.mkv", moving(17)))
    assert facts.announced is None and len(facts.timestamps) == 17 and facts.codec == "h264"


def test_a_folder_is_listed_once_until_it_changes(tmp_path, monkeypatch):
    folder = frames_in(tmp_path / "f", range(1, 9))
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
    os.utime(folder, (1e9, 1e9))
    assert [len(FolderVideo(folder)) for _ in range(5)] == [8] * 5 and len(listed) == 1
    (folder / "00008.jpg").unlink()
    assert len(FolderVideo(folder)) == 7 and len(FolderVideo(folder)) == 7
    os.utime(folder, (1e9 + 9, 1e9 + 9))
    (folder / "00004.jpg").unlink()
    with pytest.raises(VideoError) as error:
        FolderVideo(folder)
    assert error.value.subject == str(folder) and "00004.jpg" in str(error.value)


def pack(path, folder, prefix="", names=None, **zip_options):
    """The files of a folder as zip, tar or tar.gz, by the name's ending."""
    names = sorted(os.listdir(folder)) if names is None else names
    if str(path).endswith(".zip"):
        with zipfile.ZipFile(path, "w", **zip_options) as box:
            for name in names:
                box.write(folder / name, prefix + name)
    else:
        with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as box:
            for name in names:
                box.add(folder / name, prefix + name)
    return path


LONG = "a rather long folder name/" * 6  # beyond the hundred bytes of a header


@pytest.mark.parametrize("name", ["f.zip", "f.tar", "f.tar.gz", "f.tgz", "F.ZIP"])
@pytest.mark.parametrize("prefix", ["", "./", "clip 1/", LONG, "gr\u00fcn/"])
def test_archives_give_the_frames_of_their_folder(tmp_path, name, prefix):
    folder = frames_in(tmp_path / "f", range(1, 13))
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "._00001.jpg").write_bytes(b"x")
    path = pack(tmp_path / name.lower(), folder, prefix).rename(tmp_path / name)
    video = open_video(path, fps=6)
    same = FolderVideo(folder, fps=6)
    assert video.backend == "archive" and (len(video), video.start, video.size) == (12, 1, (40, 40))
    assert torch.equal(video.frames(range(12)), same.frames(range(12))) and video.timestamps[-1] == 11 / 6
    assert torch.equal(video.frames([7, 2, 7]), same.frames([7, 2, 7]))
    assert torch.equal(pickle.loads(pickle.dumps(video)).frames([5]), same.frames([5]))
    assert ArchiveVideo(path, template="{:05d}.jpg", start=3).frames([0])[0, 20, 20, 0] in range(2, 6)
    assert sorted(os.listdir(tmp_path)) == sorted(["f", name])  # nothing was unpacked
    with pytest.raises(VideoError) as error:
        len(open_video(path).timestamps)
    assert error.value.subject == str(path) and "fps=" in error.value.remedy


def test_gaps_and_mixed_names_in_archives(tmp_path):
    folder = frames_in(tmp_path / "f", [1, 2, 4])
    with pytest.raises(VideoError) as error:
        open_video(pack(tmp_path / "a.zip", folder))
    assert error.value.subject == str(tmp_path / "a.zip") and "00003.jpg" in str(error.value)
    for n in (1, 2):
        (folder / f"x{n}.jpg").write_bytes(b"x")
    with pytest.raises(VideoError) as error:
        open_video(pack(tmp_path / "b.tar", folder))
    assert error.value.subject == str(tmp_path / "b.tar") and "template=" in error.value.remedy
    for name in ("c.tar", "c.zip"):
        with pytest.raises(VideoError) as error:
            open_video(pack(tmp_path / name, folder, names=[]))
        assert error.value.subject == str(tmp_path / name) and "extract frames" in error.value.remedy


def entry(name, data=b"", **about):
    """A tar's header and contents."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def picture():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


END = bytes(1024)
MUCH = bytes(40 << 20)  # more than a header may be
NEGATIVE = bytearray(entry("00001.png"))  # a size below nought once made readers of tar go in circles
NEGATIVE[124:136] = b"\xff" * 11 + b"\x00"
NEGATIVE[148:156] = b"%06o\0 " % (sum(NEGATIVE[:148]) + 8 * 32 + sum(NEGATIVE[156:512]))
HARM = {
    "climbs": (entry("../00001.png", picture()) + END, "plain folder", "'../00001.png'"),
    "inside": (entry("a/../../00001.png", picture()) + END, "plain folder", "'a/../../00001.png'"),
    "absolute": (entry("/etc/00001.png", picture()) + END, "plain folder", "'/etc/00001.png'"),
    "drive": (entry("C:/00001.png", picture()) + END, "plain folder", "'C:/00001.png'"),
    "backslash": (entry("..\\00001.png", picture()) + END, "plain folder", "00001.png'"),
    "link": (
        entry("00001.png", type=tarfile.SYMTYPE, linkname="/etc/passwd") + END,
        "plain folder",
        "'00001.png'",
    ),
    "hard link": (
        entry("00001.png", type=tarfile.LNKTYPE, linkname="x") + END,
        "plain folder",
        "'00001.png'",
    ),
    "device": (entry("00001.png", type=tarfile.CHRTYPE) + END, "plain folder", "'00001.png'"),
    "pipe": (entry("00001.png", type=tarfile.FIFOTYPE) + END, "plain folder", "'00001.png'"),
    "twice": (entry("00001.png", picture()) * 2 + END, "plain folder", "'00001.png'"),
    "no end": (entry("00001.png", picture()), "again", ""),
    "huge": (entry("00001.png", size=1 << 40) + END, "again", "'00001.png'"),
    "long name": (entry("x", MUCH, type=tarfile.GNUTYPE_LONGNAME) + END, "again", "bytes"),
    "long comment": (entry("x", MUCH, type=tarfile.XHDTYPE) + END, "again", "bytes"),
    "negative": (bytes(NEGATIVE) + END, "again", ""),
    "rubbish": (bytes(range(256)) * 8, "again", ""),
    "empty": (END, "extract frames", ".jpg"),
}


@pytest.mark.parametrize("kind", HARM)
@pytest.mark.parametrize("packed", [False, True])
def test_harmful_tars_are_refused(tmp_path, kind, packed):
    data, remedy, told = HARM[kind]
    path = tmp_path / ("a.tar.gz" if packed else "a.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(VideoError) as error:
        open_video(path).frames([0])
    assert error.value.subject == str(path) and remedy in error.value.remedy
    assert told in str(error.value)


def zeros(path, size, count=1):
    """A zip of pictures that are all zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
        for n in range(count):
            box.writestr(f"{n:05d}.png", bytes(size))
    return path


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    ratio = zeros(tmp_path / "ratio.zip", 5_000_000)
    many = zeros(tmp_path / "many.zip", 10, 6)
    long = zeros(tmp_path / "long.zip", 10)
    claim = bytearray(zeros(tmp_path / "claim.zip", 2000).read_bytes())
    table = claim.rindex(b"PK\1\2")
    claim[table + 20 : table + 28] = (90_000_000).to_bytes(
        4, "little"
    ) * 2  # packed and unpacked, as the table says
    (tmp_path / "claim.zip").write_bytes(claim)
    with gzip.open(tmp_path / "bomb.tgz", "wb") as file:
        file.write(entry("notes.txt", size=40_000_000)[:512] + bytes(40_000_000))
    (tmp_path / "many.tar").write_bytes(b"".join(entry(f"{n}.txt") for n in range(6)) + END)
    lie = bytearray(long.read_bytes())
    at = lie.rindex(b"PK\5\6")
    lie[at + 12 : at + 16] = (30 << 20).to_bytes(4, "little")  # the bytes of its table of entries
    long.write_bytes(b"PK\3\4" + bytes(32 << 20) + lie)
    monkeypatch.setattr("zipfile.ZipFile.open", lambda *args: pytest.fail("unpacked"))
    for path, told in (
        (long, "31457280"),  # the bytes of its headers, or of what one entry claims
        (ratio, "5000000"),
        (tmp_path / "claim.zip", "90000000"),
        (tmp_path / "bomb.tgz", "'notes.txt'"),
    ):
        with pytest.raises(VideoError) as error:
            open_video(path)
        assert error.value.subject == str(path) and told in str(error.value)
    monkeypatch.setattr("sda.data.video.entries.MAX_ENTRIES", 5)
    for path in (many, tmp_path / "many.tar"):
        with pytest.raises(VideoError) as error:
            open_video(path)
        assert error.value.subject == str(path) and "5 entries" in str(error.value)


def test_zips_that_lie_or_are_locked(tmp_path):
    path = pack(tmp_path / "a.zip", frames_in(tmp_path / "f", [1, 2, 3]), compression=zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()

    def changed(offset, value, place=b"PK\1\2"):
        data = bytearray(whole)
        at = whole.rindex(place)
        data[at + offset : at + offset + len(value)] = value
        (tmp_path / "b.zip").write_bytes(data)
        return tmp_path / "b.zip"

    for at, value, place, remedy, told in (
        (8, b"\1\0", b"PK\1\2", "plain folder", "a password"),
        (10, b"\x0e\0", b"PK\1\2", "plain folder", "'00003.jpg'"),
        (40, b"\xa0\xff", b"PK\1\2", "plain folder", "'00003.jpg'"),
        (46, b"../", b"PK\1\2", "plain folder", "'../"),
        (12, b"\xff\xff\xff\x7f", b"PK\5\6", "again", ""),
    ):
        with pytest.raises(VideoError) as error:
            open_video(changed(at, value, place))
        assert error.value.subject == str(tmp_path / "b.zip") and remedy in error.value.remedy
        assert told in str(error.value)
    for at, value in ((24, b"\x09\0\0\0"), (16, b"\0\0\0\0")):  # another size, another checksum
        with pytest.raises(VideoError):
            open_video(changed(at, value)).frames([0, 1, 2])
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError) as error:
        open_video(tmp_path / "b.zip")
    assert error.value.subject == str(tmp_path / "b.zip") and "again" in error.value.remedy


def test_a_picture_in_an_archive_may_not_claim_absurd_pixels(tmp_path):
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", 7_000, 7_000, 8, 2, 0, 0, 0)
    data = (
        picture()[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + picture()[33:]
    )
    (tmp_path / "a.tar").write_bytes(entry("00001.png", data) + END)
    with pytest.raises(VideoError) as error:
        open_video(tmp_path / "a.tar")
    assert error.value.subject == str(tmp_path / "a.tar/00001.png")
    assert "7000x7000" in str(error.value) and "7680x4320" in error.value.remedy


def photo(frames=6, height=240, width=426):
    """Smooth pictures of soft colours, as cameras take them."""
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(frames, 1, 6, 9, generator=g) * 0.8 + torch.rand(frames, 3, 6, 9, generator=g) * 0.2
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


@pytest.mark.parametrize("kind", ["decord", "pyav", "folder", "archive", "memory"])
@pytest.mark.parametrize("side", [32, 48, 54, 72, 96, 112, 200])
def test_smaller_frames_have_the_size_asked_for_and_look_alike(tmp_path, kind, side):
    from PIL import Image

    from sda.data.transforms import resize_short

    clip = photo()
    path = tmp_path / "a.mp4"
    if kind == "memory":
        path = clip
    elif kind in ("decord", "pyav"):
        save(path, clip)
    else:
        (tmp_path / "f").mkdir()
        for n, frame in enumerate(clip, 1):
            Image.fromarray(frame).save(tmp_path / "f" / f"{n:05d}.jpg", quality=95)
        path = tmp_path / "f" if kind == "folder" else pack(tmp_path / "a.zip", tmp_path / "f")
    video = open_video(path, kind, short_side=side)
    whole = open_video(path, kind)
    small = video.frames([0, 3, 5])
    wanted = resize_short(whole.frames([0, 3, 5]), side)
    assert (
        small.shape == wanted.shape
        and tuple(small.shape[1:3]) == video.size
        and video.full_size == (240, 426)
    )
    assert (small.float() - wanted.float()).abs().mean() < 3.5
    assert resize_short(small, side) is small  # nothing is left to be done
    assert (
        open_video(path, kind, short_side=240).size
        == open_video(path, kind, short_side=999).size
        == (240, 426)
    )
    with pytest.raises(SettingError) as error:
        open_video(path, kind, short_side=31)
    assert error.value.subject == "short_side" and "32" in str(error.value)


@pytest.mark.parametrize("angle", [90, 180, 270])
@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_smaller_frames_of_a_phone_stand_upright(tmp_path, angle, backend):
    with av.open(str(tmp_path / "phone.mp4"), "w") as box:
        stream = box.add_stream("libx264", rate=12)
        stream.height = 120
        stream.width = 160
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(angle)
        for frame in photo(5, 120, 160):
            box.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        box.mux(stream.encode())
    whole = open_video(tmp_path / "phone.mp4", backend)
    video = open_video(tmp_path / "phone.mp4", backend, short_side=60)
    assert video.size == ((60, 80) if angle == 180 else (80, 60))
    wanted = MemoryVideo(whole.frames([2]), short_side=60).frames([0])
    assert (
        video.frames([2]).shape == wanted.shape
        and (video.frames([2]).float() - wanted.float()).abs().mean() < 5
    )


def test_a_stray_number_far_away_is_a_gap_and_not_a_hang(tmp_path):
    folder = frames_in(tmp_path / "f", [1, 2, 3], "{}.jpg")
    (folder / "999999999999.jpg").write_bytes(b"x")
    with pytest.raises(VideoError) as error:
        open_video(folder)
    assert error.value.subject == str(folder) and "4.jpg" in str(error.value)
    (folder / ("9" * 200 + ".jpg")).write_bytes(b"x")
    with pytest.raises(VideoError) as error:
        open_video(folder)
    assert error.value.subject == str(folder) and error.value.remedy


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.avi"])
def test_a_video_may_not_claim_absurd_pixels(tmp_path, monkeypatch, name):
    """Frames beyond 8K are refused from the header, before the first of them takes memory."""
    save(tmp_path / name, moving(3), codec={"mp4": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}[name[2:]])
    height, width = open_video(tmp_path / name).full_size
    monkeypatch.setattr("sda.data.video.ffmpeg.MAX_PIXELS", height * width - 1)
    monkeypatch.setattr(Counted, "demux", lambda *_: pytest.fail("a frame was decoded"), raising=False)
    count(monkeypatch)
    with pytest.raises(VideoError) as error:
        open_video(tmp_path / name)
    assert error.value.subject == str(tmp_path / name) and f"{width}x{height}" in str(error.value)
