"""What the subcommands share: their common options, words that become values, and how clips are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..foundation.errors import DataError, SettingError
from ..foundation.reading import parse_yaml

if TYPE_CHECKING:
    import torch

    from ..data.crops import MultiCrop
    from ..data.datasets import ClipDataset
    from ..data.sampling import Sampling
    from ..data.transforms import TransformConfig
    from ..networks.backbones import VideoNet


class CommandLineError(SettingError):
    """Words after `sda` that make no sense; exit status 2."""


@dataclass
class Command:
    """What every subcommand understands."""

    debug: bool = field(default=False, kw_only=True)  # show the whole traceback of an error
    verbose: bool = field(default=False, kw_only=True)  # tell what the library does while it does it
    quiet: bool = field(default=False, kw_only=True)  # no progress bars

    def run(self) -> None:
        """Do it."""
        raise NotImplementedError


@dataclass
class ComputeCommand(Command):
    """What every subcommand understands that asks trained networks."""

    # where to compute; auto: a GPU where there is one
    device: Literal["auto", "cpu", "cuda", "mps"] = field(default="auto", kw_only=True)
    # number format; auto: bf16 for networks of a million parameters and more, on GPUs and processors that
    # are fast at it, else fp32
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(default="auto", kw_only=True)

    def load(
        self,
        path: Path,  # model file
        device: torch.device | None = None,  # where one has been chosen already
    ) -> VideoNet:  # where and in the format the options say
        """A network from its file."""
        from ..networks.checkpoints import load_model
        from ..networks.inference import prepare_for_inference

        net = load_model(path)
        if not net.card.transform or not net.card.sampling:
            raise DataError(
                f"{path} does not say how its clips were sampled and cropped",
                subject=str(path),
                remedy="use a file that sda train wrote",
            )
        return prepare_for_inference(net, self.precision, device or self.device)


_ELSEWHERE = {
    "num_classes": "the dataset's category.txt says how many classes there are",
    "num_frames": "use --num-frames",
    "dropout": "use --dropout",
    "pretrained": "use --pretrained, --pretrained FILE or --no-pretrained",
}


def read_options(
    words: Sequence[str],  # e.g. "reduction=8"; values are YAML
) -> dict[str, Any]:  # name -> value
    """`name=value` words as a dict of plain values."""
    options = {}
    for word in words:
        name, sign, value = word.partition("=")
        name = name.strip()
        if name in _ELSEWHERE:
            raise CommandLineError(f"{word!r} is no option of its own here: {_ELSEWHERE[name]}", subject=word)
        if not sign or not name:
            raise CommandLineError(
                f"the option {word!r} should look like name=value, e.g. reduction=8", subject=word
            )
        try:
            options[name] = parse_yaml(value, word)
        except DataError as err:
            raise CommandLineError(f"the value in {word!r} is not plain: quote it", subject=word) from err
    return options


def first_process() -> bool:
    """Whether this is the process that talks, when `torchrun` started several."""
    return os.environ.get("RANK", "0") == "0"


def open_clips(
    root: Path,  # folder with category.txt, img/ and trainValTest/
    split: str,  # name of a list in trainValTest/
    sampling: Sampling,  # which frames
    transform: TransformConfig | MultiCrop,  # what happens to them
    cache: str = "auto",  # "yes", "no", or "auto": when they are small
    progress: bool = True,  # show a bar while decoding
    on_bad_clip: str = "stop",  # "skip": clips that do not decode are left out
) -> ClipDataset:
    """One split of a dataset, decoded into a cache when asked or when small."""
    from ..data.datasets import open_dataset

    chosen: bool | str = {"yes": True, "no": False}.get(cache, "auto")
    return open_dataset(
        root, split, sampling, transform, cache=chosen, progress=progress, on_bad_clip=on_bad_clip
    )
