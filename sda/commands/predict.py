"""`sda predict`: the most probable classes of video files."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from tqdm.auto import tqdm

from ..assets import DEFAULT_MODEL
from ..foundation.devices import pick_device
from ..networks.backbones import VideoNet
from ..networks.checkpoints import load_model
from ..testing.evaluate import predict, slide
from .options import Command, CommandLineError

__all__ = ["Predict"]


@dataclass
class Predict(Command):
    """Say what happens in video files: the most probable classes of each."""

    clips: tuple[Path, ...]  # video files, or folders of frames
    checkpoint: Path | None = None  # model file; --model means the same (default: the one that ships)
    top: int = 5  # classes to list per video
    # slide over long videos in windows of so many frames, half overlapping (0: each video as a whole)
    window: int = 0
    batch_size: int = 8  # videos or windows at a time
    json: bool = False  # print JSON instead of a table
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where to compute

    def run(self) -> None:
        """Predict the videos; those that cannot be read are named at the end, and the status says so."""
        self.examine()
        path = self.checkpoint or DEFAULT_MODEL
        net = load_model(path, device=pick_device(self.device))
        tables: list[pd.DataFrame] = []
        failed: dict[str, str] = {}
        step = 1 if self.window else self.batch_size
        few = len(self.clips) <= 3
        with tqdm(total=len(self.clips), unit="video", desc="predict", disable=few or self.quiet) as bar:
            for start in range(0, len(self.clips), step):
                some = self.clips[start : start + step]
                tables += self.tables(net, some, failed)
                bar.update(len(some))
        if self.json:
            self.print_json(path.name, tables, failed)
        else:
            for table in tables:
                self.print_table(table)
        for why in failed.values():
            print(f"sda predict: {why}", file=sys.stderr)
        if failed:
            raise SystemExit(1)

    def examine(self) -> None:
        """What can be wrong is said before the model is read."""
        if not self.clips:
            raise CommandLineError("name at least one video file: sda predict clip.mp4")
        for name, value in (("top", self.top), ("batch-size", self.batch_size)):
            if value < 1:
                raise CommandLineError(f"--{name} {value} makes no sense: ask for 1 or more")
        if self.window < 0:
            raise CommandLineError(f"--window {self.window} covers nothing: ask for a number of frames")

    def tables(
        self,
        net: VideoNet,  # network with its card
        clips: Sequence[Path],  # that go through the network together
        failed: dict[str, str],  # clip -> why it could not be predicted; more are entered here
    ) -> list[pd.DataFrame]:  # video, class, probability; with windows also start and end, in frames
        """The answers to those clips that can be read: one that cannot does not cost the others theirs."""
        try:
            if self.window:
                return [
                    slide(
                        clip,
                        net,
                        self.window,
                        top=self.top,
                        batch_size=self.batch_size,
                        progress=not self.quiet,
                    ).assign(video=str(clip))
                    for clip in clips
                ]
            return [predict(list(clips), net, self.top, batch_size=self.batch_size)]
        except (OSError, RuntimeError, ValueError) as err:
            if len(clips) > 1:
                return [table for clip in clips for table in self.tables(net, [clip], failed)]
            said = str(err)
            failed[str(clips[0])] = said if str(clips[0]) in said else f"{clips[0]}: {said}"
            return []

    def print_json(
        self,
        model: str,  # name of the model file
        tables: Sequence[pd.DataFrame],  # from `tables`
        failed: dict[str, str],  # clip -> why it is not in them
    ) -> None:
        """Everything as one JSON object."""
        rows = [row for table in tables for row in table.to_dict("records")]
        found: dict[str, object] = {"model": model, "predictions": rows}
        if failed:
            found["failed"] = failed
        print(json.dumps(found, indent=1, ensure_ascii=False))

    def print_table(
        self,
        table: pd.DataFrame,  # from `tables`
    ) -> None:
        """A line per class below the name of the video."""
        for video, part in table.groupby("video", sort=False):
            print(video)
            for row in part.to_dict("records"):
                when = f"{row['start']:6}-{row['end']:<6}" if self.window else ""
                print(f"  {when}{row['probability']:6.3f}  {row['class']}")
