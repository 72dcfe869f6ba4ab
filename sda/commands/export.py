"""`sda export`: a model file becomes one for ONNX Runtime, or for torch without this library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .options import Command, CommandLineError

__all__ = ["Export"]


@dataclass
class Export(Command):
    """Write a network for ONNX Runtime or torch alone, compared with the original."""

    model: Path  # model file, or the name of one that ships
    to: Literal["onnx", "torch"] = "onnx"  # ONNX (.onnx), or torch.export (.pt2)
    out: Path | None = None  # file to write (default: the model's name with the new ending, beside it)
    num_frames: int | None = None  # frames of each clip (default: as the network was built)
    size: int | None = None  # height and width of the frames, pixels (default: as the model file says)

    def run(self) -> None:
        """Load, export, compare, say how to use it."""
        from ..networks.checkpoints import load_model
        from ..networks.export import FORMATS, export_network

        out = self.out or self.model.with_suffix(FORMATS[self.to])
        if out.exists():
            text = f"{out} is there already"
            raise CommandLineError(
                text, subject=str(out), remedy="name another file with --out, or delete it"
            )
        for name, value, least in (("num-frames", self.num_frames, 1), ("size", self.size, 32)):
            if value is not None and value < least:
                raise CommandLineError(f"--{name} {value} makes no sense: at least {least}", subject=name)
        net = load_model(self.model)
        path, away = export_network(net, out, self.to, self.num_frames, self.size)
        print(
            f"{path}: {net.name}, {path.stat().st_size / 1e6:.1f} MB; in batches of 1 to 3 random clips its "
            f"logits differ from the original's by at most {away:.1e} of the largest"
        )
