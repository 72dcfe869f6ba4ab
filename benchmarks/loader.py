"""Clips per second of our loader against a plain one, for JPEG frames and mp4: `python
benchmarks/loader.py`.

The plain loader does what the published TSN-style code does, written here from its description: every frame
is a PIL image, cut, resized and mirrored one by one; frames are stacked, turned into floats and normalised
channel by channel in the worker. Ours reads into one array of bytes, cuts before it resizes, and normalises
whole batches where the network is. Both take turns in one run on the same files, with the same batches and
persistent workers; medians are reported. `ready` counts float batches on the device, in the layout that the
trainer wants and, on a CPU, in memory that is used again; `bytes` counts batches as they leave our loader,
before the device's step. Writes data/results/bench_loader.json.
"""

import argparse
import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
from sda.data.datasets import ClipDataset, clip_loader, model_input  # noqa: E402
from sda.data.lists import Record  # noqa: E402
from sda.data.sampling import Sampling  # noqa: E402
from sda.data.transforms import TransformConfig  # noqa: E402
from sda.data.video import open_video  # noqa: E402
from sda.foundation.runs import new_record, save_record  # noqa: E402

HEIGHT = 256
WIDTH = 340
SIZE = 224
FRAMES = 8
CONFIG = TransformConfig(size=SIZE, resize=HEIGHT)
NAMES = ["moving left to right", "moving right to left"]


def picture_stream(seed: int, count: int) -> Iterator[np.ndarray]:
    """uint8 [H,W,3] frames of soft shapes that drift, with camera grain: 16 kB, as real frames of this size
    have."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 32, 3), dtype=np.uint8))
    field = np.asarray(small.resize((900, HEIGHT), Image.Resampling.BICUBIC)).astype(np.float32)
    for t in range(count):
        frame = field[:, 8 * t : 8 * t + WIDTH] + rng.normal(0, 3, (HEIGHT, WIDTH, 1))
        yield frame.clip(0, 255).astype(np.uint8)


def write_clips(folder: Path, clips: int, count: int) -> dict[str, list[Record]]:
    """The same clips as folders of JPEG frames and as mp4; records of both."""
    import av

    records = {"frames": [], "mp4": []}
    for n in range(clips):
        here = folder / f"clip{n:03d}"
        here.mkdir()
        with av.open(f"{here}.mp4", "w") as box:
            stream = box.add_stream("libx264", rate=12, options={"preset": "veryfast"})
            stream.height = HEIGHT
            stream.width = WIDTH
            stream.pix_fmt = "yuv420p"
            for k, frame in enumerate(picture_stream(n, count)):
                Image.fromarray(frame).save(here / f"{k + 1:05d}.jpg", quality=85)
                box.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            box.mux(stream.encode())
        for kind, path in (("frames", here), ("mp4", Path(f"{here}.mp4"))):
            records[kind].append(Record(f"{kind}{n}", str(path), n % 2, count))
    return records


class PlainClips(Dataset):
    """A list of PIL images through a chain of transforms, one image at a time."""

    def __init__(self, records: list[Record]):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def images(self, record: Record) -> list[Image.Image]:
        """The frames of random segments as PIL images."""
        step = record.num_frames // FRAMES
        chosen = [i * step + random.randrange(step) for i in range(FRAMES)]
        if Path(record.path).is_dir():
            return [Image.open(os.path.join(record.path, f"{k + 1:05d}.jpg")).convert("RGB") for k in chosen]
        from decord import VideoReader

        reader = VideoReader(record.path, num_threads=1)
        return [Image.fromarray(reader[k].asnumpy()).convert("RGB") for k in chosen]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self.records[index]
        images = multi_scale_crops(self.images(record))
        if random.random() < 0.5:
            images = [im.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for im in images]
        stack = torch.from_numpy(np.concatenate([np.array(im) for im in images], axis=2))  # [H,W,3T]
        clip = stack.permute(2, 0, 1).contiguous().float().div(255)
        for channel, mean, std in zip(clip, CONFIG.mean * FRAMES, CONFIG.std * FRAMES, strict=True):
            channel.sub_(mean).div_(std)
        return clip, record.label


def multi_scale_crops(images: list[Image.Image]) -> list[Image.Image]:
    """One of the multi-scale crops at one of 13 places, for every image of a clip."""
    width, height = images[0].size
    sides = [int(min(width, height) * scale) for scale in CONFIG.scales]
    w, h = random.choice(
        [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    )
    right = (width - w) // 4
    down = (height - h) // 4
    grid = [(i, j) for i in (0, 2, 4) for j in (0, 2, 4)] + [(i, j) for i in (1, 3) for j in (1, 3)]
    i, j = random.choice(grid)
    box = (i * right, j * down, i * right + w, j * down + h)
    return [im.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for im in images]


def loaders(
    records: list[Record], workers: int, batch: int, device: torch.device
) -> dict[str, Callable[[], object]]:
    """One epoch of each loader, as a function."""
    pin = device.type == "cuda"
    plain = DataLoader(
        PlainClips(records),
        batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
    )
    ours = clip_loader(
        ClipDataset(records, NAMES, Sampling("segments", FRAMES), CONFIG, train=True, as_bytes=True),
        batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=pin,
    )

    def run_plain() -> None:
        for clips, _ in plain:
            clips.to(device, non_blocking=True)
        if pin:
            torch.cuda.synchronize()

    def run_ready() -> None:
        clips = None
        for found in ours:
            clips = model_input(found, device, True, clips)
        if pin:
            torch.cuda.synchronize()

    def run_bytes() -> None:
        for _ in ours:
            pass

    return {"plain": run_plain, "ready": run_ready, "bytes": run_bytes}


def in_turns(runs: dict[str, Callable[[], object]], count: int, repeats: int) -> dict[str, float]:
    """Median `count` per second of each run, taken in turns after one round of warm-up."""
    rates = {name: [] for name in runs}
    for k in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if k:
                rates[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(r) for name, r in rates.items()}


def stages(records: list[Record], repeats: int) -> dict[str, float]:
    """Milliseconds per clip of each part of our loader, and of Pillow's decoding, in this process."""
    data = ClipDataset(records, NAMES, Sampling("segments", FRAMES), CONFIG, train=True, as_bytes=True)
    chosen = range(0, FRAMES * 3, 3)
    files = [Path(records[0].path) / f"{k + 1:05d}.jpg" for k in chosen]
    raw = [f.read_bytes() for f in files]
    clip = open_video(records[0].path).frames(chosen)
    item = next(iter(clip_loader(data, 1)))
    floats = model_input(item, None, True)
    draw = torch.Generator().manual_seed(0)
    parts = {
        "reading the files": lambda: [f.read_bytes() for f in files],
        "opening and decoding": lambda: open_video(records[0].path).frames(chosen),
        "decoding with Pillow": lambda: [Image.open(io.BytesIO(b)).convert("RGB") for b in raw],
        "crop, resize, mirror": lambda: data.transform.pixels(clip, 0, draw),
        "floats, on the CPU": lambda: model_input(item, None, True, floats),
    }
    return {name: 1000 / rate for name, rate in in_turns(parts, 1, 10 * repeats).items()}


def mp4_stages(records: list[Record], repeats: int) -> dict[str, float]:
    """Milliseconds per clip of what reading an mp4 takes, and of decord for the same frames."""
    import av
    from decord import VideoReader

    path = records[0].path
    chosen = list(range(2, records[0].num_frames or 0, (records[0].num_frames or 0) // FRAMES))

    def opened() -> None:
        av.open(path).close()

    def every() -> None:
        with av.open(path) as box:
            box.streams.video[0].thread_count = 1
            for _ in box.decode(video=0):
                pass

    def by_decord() -> None:
        reader = VideoReader(path, num_threads=1)
        for k in chosen:
            reader[k].asnumpy()

    parts = {
        "opening the file": opened,
        "decoding every frame": every,
        "the frames asked for": lambda: open_video(path).frames(chosen),
        "decord, the same frames": by_decord,
    }
    return {name: 1000 / rate for name, rate in in_turns(parts, 1, 10 * repeats).items()}


def main() -> None:
    """Measure, print the table, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=96, help="clips per epoch")
    parser.add_argument("--frames", type=int, default=40, help="frames of a clip")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each loader")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=["frames", "mp4"], choices=["frames", "mp4"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/bench_loader.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        records = write_clips(Path(folder), args.clips, args.frames)
        size = statistics.mean(f.stat().st_size for f in Path(folder).glob("*/*.jpg")) / 1000
        print(
            f"{args.clips} clips of {FRAMES} frames of {WIDTH}x{HEIGHT} ({size:.1f} kB), "
            f"clips per second on {device}"
        )
        print("kind    workers   plain   ready  times   bytes  times")
        for kind in args.kinds:
            for workers in args.workers:
                rate = in_turns(loaders(records[kind], workers, args.batch, device), args.clips, args.repeats)
                times = {name: rate[name] / rate["plain"] for name in ("ready", "bytes")}
                rows.append(
                    {
                        "kind": kind,
                        "workers": workers,
                        "clips_per_second": {k: round(v, 1) for k, v in rate.items()},
                        "times_plain": {k: round(v, 2) for k, v in times.items()},
                    }
                )
                print(
                    f"{kind:7s} {workers:7d} {rate['plain']:7.1f} {rate['ready']:7.1f} {times['ready']:6.2f} "
                    f"{rate['bytes']:7.1f} {times['bytes']:6.2f}",
                    flush=True,
                )
        parts = stages(records["frames"], args.repeats)
        of_mp4 = mp4_stages(records["mp4"], args.repeats)
    print("milliseconds per clip of frames:", ", ".join(f"{name} {ms:.2f}" for name, ms in parts.items()))
    print("milliseconds per clip of mp4:", ", ".join(f"{name} {ms:.2f}" for name, ms in of_mp4.items()))
    save_record(
        new_record(
            "benchmark",
            model="loader",
            name="loader",
            metrics={},
            device=str(device),
            rows=rows,
            milliseconds_per_clip={name: round(ms, 3) for name, ms in parts.items()},
            milliseconds_per_mp4={name: round(ms, 3) for name, ms in of_mp4.items()},
            clips=args.clips,
            frame_kilobytes=round(size, 1),
            repeats=args.repeats,
            batch=args.batch,
            protocol="interleaved epochs, median, persistent workers, one thread a process",
            command="python " + " ".join(["benchmarks/loader.py", *sys.argv[1:]]),
        ),
        args.out,
    )


if __name__ == "__main__":
    main()
