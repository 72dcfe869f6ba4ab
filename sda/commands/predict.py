"""`sda predict`: the most probable classes of video files."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..assets import DEFAULT_MODEL
from ..networks.backbones import VideoNet
from ..testing.evaluate import find_videos, predict, slide, who_answers
from .options import CommandLineError, ComputeCommand


@dataclass
class Predict(ComputeCommand):
    """Say what happens in video files: the most probable classes of each."""

    clips: tuple[Path, ...]  # video files, folders of frames, or folders with any of these below
    checkpoint: Path | None = None  # model file; --model means the same (default: the one that ships)
    top: int = 5  # classes to list per video
    # slide over long videos in windows of so many frames, half overlapping (0: each video as a whole)
    window: int = 0
    batch_size: int = 8  # videos or windows at a time
    json: bool = False  # print JSON instead of a table

    def run(self) -> None:
        """Predict the videos; those that cannot be read are named at the end, and the status says so."""
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
            answered = rows["video"].nunique()
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
    ) -> pd.DataFrame:  # video, class, probability; with windows also start and end, in frames
        """The answers to all videos that can be read."""
        if not self.window:
            bar = len(clips) > 3 and not self.quiet
            return predict(clips, net, self.top, bar, self.batch_size, problems)
        columns = ["start", "end", "class", "probability", "video"]
        tables = []
        for clip in clips:
            try:
                table = slide(
                    clip,
                    net,
                    self.window,
                    top=self.top,
                    batch_size=self.batch_size,
                    progress=not self.quiet,
                )
            except (OSError, RuntimeError, ValueError) as err:
                problems[clip] = str(err) if clip in str(err) else f"{clip}: {err}"
            else:
                tables.append(table.assign(video=clip))
        return pd.concat(tables) if tables else pd.DataFrame(columns=columns)

    def print_json(
        self,
        model: str,  # name of the model file
        net: VideoNet,  # its network
        rows: pd.DataFrame,  # from `rows`
        problems: dict[str, str],  # video -> why it is not in them
    ) -> None:
        """Everything as one JSON object."""
        found: dict[str, object] = {
            "model": model,
            "network": net.name,
            "about": who_answers(net, model),
            "predictions": rows.to_dict("records"),
        }
        if problems:
            found["failed"] = problems
        print(json.dumps(found, indent=1, ensure_ascii=False))

    def print_table(
        self,
        rows: pd.DataFrame,  # from `rows`
    ) -> None:
        """A line per class below the name of the video."""
        for video, part in rows.groupby("video", sort=False):
            print(video)
            for row in part.to_dict("records"):
                when = f"{row['start']:6}-{row['end']:<6}" if self.window else ""
                print(f"  {when}{row['probability']:6.3f}  {row['class']}")
