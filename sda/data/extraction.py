"""What an extraction of frames needs around one video: settings, pictures, a plan of folders, a report."""

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from ..foundation.errors import DataError, FolderError, SettingError, VideoError
from ..foundation.files import VIDEO_SUFFIXES, disk_remedy, write_atomic
from ..foundation.reading import read_json
from .joining import safe_join
from .video import Facts
from .video.counting import shown_frames
from .video.ffmpeg import as_shown, import_av, open_container, video_stream
from .video.pyav import upright
from .video.usable import AGAIN, unusable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ExtractConfig:
    """How frames are written; two runs into one folder must agree."""

    height: int | None = 256  # height of the pictures in pixels, width in proportion; None keeps the size
    fps: float | None = None  # pictures per second; None keeps every frame
    quality: int = 90  # JPEG quality, 1 to 95
    template: str = "{:05d}.jpg"  # name of a picture; numbers begin with 1

    def __post_init__(self):
        if not 32 <= (self.height or 32) <= 4320:
            raise SettingError(f"height {self.height}: 32..4320, or None.")
        if self.fps is not None and not 0 < self.fps <= 240:
            raise SettingError(f"fps {self.fps}: above 0, at most 240.")
        if not 1 <= self.quality <= 95:
            raise SettingError(f"quality {self.quality}: 1..95.")
        first = self.template.format(1)
        if Path(first).name != first or first == self.template:
            raise SettingError(
                f"template {self.template!r} must be a file name with one number, as in '{{:05d}}.jpg'."
            )


def jpeg(
    frame: Any,  # decoded `av.VideoFrame`
    config: ExtractConfig,  # height and quality
    size: tuple[int, int] | None = None,  # (height, width) of the video as shown; None: of this frame
) -> bytes:  # JPEG file content
    """One frame, scaled to the wanted height and turned upright, as JPEG."""
    from PIL import Image as Picture

    tall, wide = size or as_shown(frame)
    high = config.height or tall
    pixels = upright(frame, (high, max(round(wide * high / tall), 1)))
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=config.quality)
    return buffer.getvalue()


def decoded_frames(path: Path, facts: Facts, stop: Event) -> Iterator[Any]:
    """The frames of a video in order; damage is a VideoError."""
    av = import_av()
    count = 0
    with suppress(av.FFmpegError), open_container(path) as box:
        for frame in shown_frames(box, video_stream(box, path), facts.front if facts.counted else None):
            if stop.is_set():
                raise KeyboardInterrupt
            if frame.is_corrupt:
                break
            count += 1
            yield frame
    if count != facts.length:
        raise unusable(path, f"is damaged: {count} of its {facts.length} frames decode", AGAIN)


def _videos_below(source: Path) -> Iterator[str]:
    """Paths of the videos below a folder, relative to it; links are followed, in no circle."""
    seen = set()
    for place, folders, files in os.walk(source, followlinks=True):
        about = os.stat(place)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders.sort()
        for name in files:
            path = Path(place, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield path.relative_to(source).as_posix()


def plan(
    source: str | Path,  # folder of videos
    target: str | Path,  # folder for the frames
    videos: Sequence[str] | None = None,  # paths relative to `source`; None takes every video below it
) -> dict[str, tuple[Path, Path]]:  # relative path -> video file, folder for its pictures
    """Pair every video with its folder; paths that leave a root and shared folders are refused."""
    source = Path(source)
    if not source.is_dir():
        text = f"{source} is not a folder"
        raise SettingError(text, subject=str(source), remedy="give the folder of videos")
    if videos is None:
        videos = sorted(_videos_below(source))
    if not videos:
        text = f"{source} holds no videos ({', '.join(VIDEO_SUFFIXES)})"
        raise SettingError(text, subject=str(source), choices=VIDEO_SUFFIXES)
    pairs: dict[str, tuple[Path, Path]] = {}
    owner: dict[Path, str] = {}
    for name in videos:
        try:
            folder = safe_join(target, str(Path(name).with_suffix("")))
            pairs[name] = source / name, folder  # who names a folder of videos means the links in it too
        except DataError as err:
            raise DataError(f"{name}: {err}", subject=name, remedy=err.remedy) from err
        if folder in owner:
            raise DataError(
                f"{name} and {owner[folder]} want the same folder; rename one of them", subject=name
            )
        owner[folder] = name
    return pairs


def same_settings(target: Path, config: ExtractConfig) -> None:
    """Write the settings beside the pictures; refuse a folder that was begun with others."""
    settings = target / "extract.json"
    if not settings.exists():
        write_atomic(settings, json.dumps(asdict(config), indent=1) + "\n")
    elif read_json(settings) != asdict(config):
        raise SettingError(
            f"{target} was begun with other settings ({settings.name}); choose another folder",
            subject=str(target),
        )


@dataclass
class ExtractReport:
    """What an extraction did: done now, there already, or failed with the reason."""

    target: str  # folder of the frames
    lengths: dict[str, int] = field(default_factory=dict)  # video -> pictures, for done and there already
    done: list[str] = field(default_factory=list)  # extracted by this run
    already: list[str] = field(default_factory=list)  # complete before this run
    failed: dict[str, str] = field(default_factory=dict)  # video -> why it could not be extracted

    @property
    def ok(self) -> bool:
        """Whether every video has its pictures."""
        return not self.failed

    def table(self) -> "pd.DataFrame":
        """Videos and pictures by outcome."""
        import pandas as pd

        rows = {"done": self.done, "already there": self.already, "failed": self.failed}
        counts = {k: (len(v), sum(self.lengths.get(n, 0) for n in v)) for k, v in rows.items()}
        return pd.DataFrame.from_dict(counts, orient="index", columns=["videos", "pictures"])

    def __str__(self) -> str:
        return "\n".join([self.table().to_string(), *(f"failed: {why}" for why in self.failed.values())])


def finished_jobs(jobs: Iterable[Future]) -> Iterator[Future]:
    """Jobs as they finish; wakes up often enough for Ctrl-C."""
    waiting = set(jobs)
    while waiting:
        ready, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
        yield from ready


def note_outcome(report: ExtractReport, name: str, job: Future) -> None:
    """Enter the outcome of one video; trouble with the disk is not the video's fault and is raised."""
    try:
        report.lengths[name], new = job.result()
    except VideoError as err:
        report.failed[name] = str(err)
    except OSError as err:
        raise FolderError(
            f"{report.target} could not be written ({err.strerror}) after {len(report.lengths)} videos",
            subject=report.target,
            remedy=f"{disk_remedy(err)}; run again, it goes on where it was",
        ) from err
    else:
        (report.done if new else report.already).append(name)
