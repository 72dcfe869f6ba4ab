"""Readers on real codecs, damaged files and processes: the same frames or one clear error."""
import os
import pickle
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
import torch

from sda.video import DecordVideo, FolderVideo, MemoryVideo, PyAVVideo, VideoError, open_video, scan

av = pytest.importorskip("av")
pytest.importorskip("decord")
MILLI = Fraction(1, 1000)


def moving(frames=20, height=72, width=72):
    "A ramp that drifts with a bright square on it: every frame is different."
    y, x = np.mgrid[:height, :width]
    clip = np.stack([np.stack([(x + 11 * t) % 256, (2 * y + 5 * t) % 256, (x + y) % 256], -1) for t in range(frames)])
    for t in range(frames): clip[t, 4:20, 2 + t % (width - 20) : 18 + t % (width - 20)] = (250, 20, 60)
    return clip.astype(np.uint8)


def save(path, clip, codec="libx264", rate=12, pix_fmt="yuv420p", times=None, **options):
    "Write a clip; `times` gives every frame its own time stamp in milliseconds."
    mp4 = str(path).endswith(".mp4")
    with av.open(str(path), "w", options={"movflags": "+faststart"} if mp4 else {}) as box:
        stream = box.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], pix_fmt
        if times is not None: stream.time_base = stream.codec_context.time_base = MILLI
        for i, frame in enumerate(clip):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None: picture.pts, picture.time_base = times[i], MILLI
            box.mux(stream.encode(picture))
        box.mux(stream.encode())
    return path


CASES = {
    "h264.mp4": {}, "h264.mkv": {}, "h264.avi": {"bf": "0"}, "bframes.mp4": {"bf": "3", "g": "10"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=none"}, "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4", "b": "4000000"}, "mpeg4.mp4": {"codec": "mpeg4", "b": "4000000"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


@pytest.mark.parametrize("name", CASES)
def test_two_decoders_agree_in_every_byte(tmp_path, name):
    path = save(tmp_path / name, moving(), **CASES[name])
    one, two = DecordVideo(path), PyAVVideo(path)
    assert len(one) == len(two) == 20 and one.size == two.size == (72, 72)
    assert np.array_equal(one.timestamps, two.timestamps)
    assert np.allclose(one.timestamps, np.arange(20) / 12, atol=2e-3)  # Matroska counts milliseconds
    assert torch.equal(one.frames(range(20)), two.frames(range(20)))
    assert torch.equal(one.frames([13, 2, 13]), two.frames([13, 2, 13]))
    off = (two.frames(range(20)).int() - torch.from_numpy(moving()).int()).abs().float().mean((1, 2, 3))
    assert (off < 25).all()
    # the right frame, not a neighbour: the true one is the nearest
    near = torch.cdist(two.frames(range(20)).flatten(1).float(), torch.from_numpy(moving()).flatten(1).float())
    assert near.argmin(1).tolist() == list(range(20))


@pytest.mark.parametrize("width", [36, 48, 50, 66, 72, 96, 102, 340])
def test_widths_that_need_row_padding(tmp_path, width):
    path = save(tmp_path / "w.mp4", moving(6, 40, width))
    assert torch.equal(DecordVideo(path).frames(range(6)), PyAVVideo(path).frames(range(6)))


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 40, 200, 240, 600, 640, 1000, 1500]
    path = save(tmp_path / "vfr.mkv", moving(8), times=times)
    one, two = DecordVideo(path), PyAVVideo(path)
    assert np.allclose(two.timestamps * 1000, times, atol=1) and torch.equal(one.frames(range(8)), two.frames(range(8)))


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotated_phone_video_is_upright(tmp_path, angle):
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=12)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.set_display_rotation(angle)
        for frame in moving(5, 64, 96): box.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        box.mux(stream.encode())
    one, two = DecordVideo(path), PyAVVideo(path)
    assert one.size == two.size == ((64, 96) if angle == 180 else (96, 64))
    assert torch.equal(one.frames(range(5)), two.frames(range(5))) and two.frames([0]).shape[1:3] == two.size


def test_av1_goes_to_pyav_unless_decord_was_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SVT_LOG", "1")
    path = save(tmp_path / "new.mp4", moving(), codec="libsvtav1")
    with caplog.at_level("INFO", "sda.video"): video = open_video(path)
    assert video.backend == "pyav" and "decord" in caplog.text and "new.mp4" in caplog.text
    assert len(video) == 20 and video.frames([19]).shape == (1, 72, 72, 3)
    with pytest.raises(VideoError, match="backend='pyav'"): open_video(path, backend="decord")


@pytest.mark.parametrize("backend", [None, "decord", "pyav"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut", "audio", "folder", "tiny"])
def test_unusable_files_have_one_clear_error(tmp_path, kind, backend):
    path = tmp_path / f"{kind}.mp4"
    words = {"missing": "does not exist", "empty": "0 bytes", "text": "no video FFmpeg can read", "cut": "is cut short",
             "audio": "only audio", "folder": "no numbered pictures" if backend is None else "is a folder",
             "tiny": "at least 32"}
    if kind == "empty": path.touch()
    if kind == "text": path.write_text("<html>404</html>" * 99)
    if kind == "folder": path.mkdir()
    if kind == "tiny": save(path, moving(4, 40, 40)[:, :24, :28])
    if kind == "cut":
        data = save(path, np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    if kind == "audio":
        with av.open(str(path), "w") as box:
            stream = box.add_stream("aac", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 8000
            box.mux(stream.encode(sound))
            box.mux(stream.encode())
    with pytest.raises(VideoError, match=words[kind]) as error: open_video(path, backend=backend)
    assert str(path) in str(error.value) and ";" in str(error.value) or kind == "tiny"


def test_a_hole_in_the_middle_tells_how_far_it_decodes(tmp_path):
    path = save(tmp_path / "hole.mp4", np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 30_000] = bytes(30_000)
    path.write_bytes(data)
    for backend in ("decord", "pyav"):
        with pytest.raises(VideoError, match=r"\d+ of its 60 frames decode"):
            open_video(path, backend=backend).frames(range(60))


def test_readers_are_safe_in_threads_forks_and_pickles(tmp_path):
    video = open_video(save(tmp_path / "a.mp4", moving()), backend="decord")
    expected, found = open_video(video.path, backend="pyav").frames([3, 17]), []
    threads = [threading.Thread(target=lambda: found.append(video.frames([3, 17]))) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join(20)
    assert len(found) == 8 and all(torch.equal(f, expected) for f in found)
    assert torch.equal(pickle.loads(pickle.dumps(video)).frames([3, 17]), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_reader_carried_through_a_fork_does_not_hang(tmp_path):
    path = save(tmp_path / "a.mp4", moving())
    code = f"""if True:
        import os, sys
        from sda.video import open_video
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
        from sda.video import MemoryVideo, open_video
        import torch
        assert MemoryVideo(torch.zeros(3, 40, 40, 3, dtype=torch.uint8)).frames([2]).shape == (1, 40, 40, 3)
        try: open_video({str(save(tmp_path / 'a.mp4', moving()))!r})
        except ImportError as err: assert "pip install av" in str(err)
        else: sys.exit("no error")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def frames_in(folder, numbers, template="{:05d}.jpg", size=40):
    from PIL import Image
    folder.mkdir()
    for n in numbers: Image.new("RGB", (size, size), (n % 256, 0, 0)).save(folder / template.format(n))
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


@pytest.mark.parametrize("numbers, words", [
    ([1, 2, 4, 5], "00003.jpg is missing (1 of 5); extract this clip again"),
    ([3, 4, 5], "00001.jpg is missing (2 of 5); pass start=3"),
    ([0, 2, 3], "00001.jpg is missing")])
def test_gaps_name_the_first_missing_frame(tmp_path, numbers, words):
    with pytest.raises(VideoError) as error: FolderVideo(frames_in(tmp_path / "f", numbers))
    assert words in str(error.value)


def test_folder_faults(tmp_path):
    folder = frames_in(tmp_path / "f", range(1, 5))
    with pytest.raises(VideoError, match="no file fits template"): FolderVideo(folder, template="img_{:05d}.jpg")
    with pytest.raises(VideoError, match="needs one place for the number"): FolderVideo(folder, template="img.jpg")
    with pytest.raises(VideoError, match="numbers begin at 1"): FolderVideo(folder, start=0)
    (folder / "00002.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    with pytest.raises(VideoError, match="00002.jpg is not a readable picture"): FolderVideo(folder).frames([0, 1])
    frames_in(tmp_path / "g", [1], size=50)
    os.replace(tmp_path / "g" / "00001.jpg", folder / "00002.jpg")
    with pytest.raises(VideoError, match="00002.jpg is 50x50, the first frame 40x40"): FolderVideo(folder).frames([1])
    with pytest.raises(VideoError, match="pass fps="): len(FolderVideo(frames_in(tmp_path / "h", [1])).timestamps)
    with pytest.raises(VideoError, match="at least 32"): FolderVideo(frames_in(tmp_path / "tiny", [1], size=20))


def test_arrays_and_indices():
    clip = torch.from_numpy(moving(6))
    video = MemoryVideo(clip, fps=3)
    assert torch.equal(video.frames([5, 0, 5]), clip[[5, 0, 5]]) and video.timestamps[3] == 1
    for bad in ([6], [-1], []):
        with pytest.raises(VideoError): video.frames(bad)
    with pytest.raises(VideoError, match="uint8"): MemoryVideo(clip.float())
    with pytest.raises(VideoError, match="did you mean 'decord'"): open_video("a.mp4", backend="dekord")
    with pytest.raises(VideoError, match="holds no frames"): MemoryVideo(clip[:0])


def test_scan_counts_without_a_header(tmp_path):
    facts = scan(save(tmp_path / "a.mkv", moving(17)))
    assert facts.announced is None and len(facts.timestamps) == 17 and facts.codec == "h264"


def test_a_folder_is_listed_once_until_it_changes(tmp_path, monkeypatch):
    folder, listed, real = frames_in(tmp_path / "f", range(1, 9)), [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
    os.utime(folder, (1e9, 1e9))
    assert [len(FolderVideo(folder)) for _ in range(5)] == [8] * 5 and len(listed) == 1
    (folder / "00008.jpg").unlink()
    assert len(FolderVideo(folder)) == 7 and len(FolderVideo(folder)) == 7
    os.utime(folder, (1e9 + 9, 1e9 + 9))
    (folder / "00004.jpg").unlink()
    with pytest.raises(VideoError, match="00004.jpg is missing"): FolderVideo(folder)
