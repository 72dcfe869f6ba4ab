"""`sda predict`: the most probable classes of video files."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assets import DEFAULT_MODEL
from .options import CommandLineError, ComputeCommand

if TYPE_CHECKING:  # the help needs no torch, and the answers no pandas: each costs as much as the rest
    from ..networks.backbones import VideoNet


@dataclass
class Predict(ComputeCommand):
    """Say what happens in video files: the most probable classes of each."""

    clips: tuple[Path, ...]  # video files, folders of frames, or folders with any of these below
    # model file, or the name of one that ships; --model means the same (default: sda_tsn_moves)
    checkpoint: Path | None = None
    top: int = 5  # classes to list per video
    # slide over long videos in windows of so many frames, half overlapping (0: each video as a whole)
    window: int = 0
    batch_size: int = 8  # videos or windows at a time
    json: bool = False  # print JSON instead of a table

    def run(self) -> None:
        """Predict the videos; those that cannot be read are named at the end, and the status says so."""
        from ..testing.asking import find_videos, who_answers

        self.examine()
        path = self.checkpoint or DEFAULT_MODEL
        net = self.load(path)
        problems: dict[str, str] = {}
        clips = find_videos(self.clips, problems)
        rows = self.rows(clips, net, problems)
        if self.json:
            self.print_json(path.name, net, rows, problems)
        else:
            print(who_answers(net, path.name))
            self.print_table(rows)
        for why in problems.values():
            print(f"sda predict: {why}", file=sys.stderr)
        if problems:
            answered = len({row["video"] for row in rows})
            total = len(set(clips) | problems.keys())
            print(f"sda predict: {answered} of {total} answered, {len(problems)} not", file=sys.stderr)
            raise SystemExit(1)

    def examine(self) -> None:
        """What can be wrong is said before the model is read."""
        if not self.clips:
            raise CommandLineError("name at least one video file, or a folder of them: sda predict clip.mp4")
        for name, value in (("top", self.top), ("batch-size", self.batch_size)):
            if value < 1:
                raise CommandLineError(f"--{name} {value} makes no sense: ask for 1 or more")
        if self.window < 0:
            raise CommandLineError(f"--window {self.window} covers nothing: ask for a number of frames")

    def rows(
        self,
        clips: list[str],  # videos and folders of frames
        net: VideoNet,  # network with its card
        problems: dict[str, str],  # gets the videos that cannot be read, and why
    ) -> list[dict[str, Any]]:  # video, class, probability; with windows also start and end, in frames
        """The answers to all videos that can be read."""
        from ..testing.asking import best_classes, best_of_windows

        if not self.window:
            bar = len(clips) > 3 and not self.quiet
            found = best_classes(clips, net, self.top, bar, self.batch_size, problems)
            return [dict(zip(("video", "class", "probability"), row, strict=True)) for row in found]
        rows = []
        how: dict[str, Any] = dict(top=self.top, batch_size=self.batch_size, progress=not self.quiet)
        for clip in clips:
            try:
                answers = best_of_windows(clip, net, self.window, **how)
            except (OSError, RuntimeError, ValueError) as err:
                problems[clip] = str(err) if clip in str(err) else f"{clip}: {err}"
            else:
                columns = ("start", "end", "class", "probability")
                rows += [dict(zip(columns, row, strict=True)) | {"video": clip} for row in answers]
        return rows

    def print_json(
        self,
        model: str,  # name of the model file
        net: VideoNet,  # its network
        rows: list[dict[str, Any]],  # from `rows`
        problems: dict[str, str],  # video -> why it is not in them
    ) -> None:
        """Everything as one JSON object."""
        from ..testing.asking import who_answers

        found: dict[str, object] = {
            "model": model,
            "network": net.name,
            "about": who_answers(net, model),
            "predictions": rows,
        }
        if problems:
            found["failed"] = problems
        print(json.dumps(found, indent=1, ensure_ascii=False))

    def print_table(
        self,
        rows: list[dict[str, Any]],  # from `rows`
    ) -> None:
        """A line per class below the name of the video."""
        for video, part in itertools.groupby(rows, lambda row: row["video"]):
            print(video)
            for row in part:
                when = f"{row['start']:6}-{row['end']:<6}" if self.window else ""
                print(f"  {when}{row['probability']:6.3f}  {row['class']}")
