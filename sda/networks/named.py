"""What a network knows of itself: name, options, card, outputs; how it is kept and given to other people."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

Net = TypeVar("Net", bound="NamedNet")


def output_names(
    class_names: Sequence[str] | None,  # K names in the order of the outputs; None or empty when unknown
    count: int,  # K
) -> list[str]:  # K names
    """A name for each output of a network: "class 3" where nobody named it."""
    return list(class_names or (f"class {k}" for k in range(count)))


def _sharing() -> Any:
    """`sda.networks.sharing`, which imports what is built on this module."""
    return importlib.import_module("sda.networks.sharing")


class NamedNet(nn.Module):
    """A network that can be rebuilt from its name, options and numbers of classes and frames."""

    def identify(self, num_classes: int, num_frames: int) -> None:
        """Set the attributes of every network: K, and T that its blocks are built for."""
        self.num_classes = num_classes
        self.num_frames = num_frames
        self.name = ""  # set by create_model, as `options` are
        self.options: dict[str, Any] = {}
        self.card: Any = None  # the ModelCard of the file it was loaded from, set by load_model
        self.start: Any = None  # what it took from a file when it was made to train, set by start_from

    @classmethod
    def from_pretrained(cls: type[Net], source: str | Path, **options: Any) -> Net:  # in evaluation mode
        """Load a folder of `save_pretrained`, a model file or USER/NAME (device, revision, token)."""
        return _sharing().load_folder(source, **options)

    def save_pretrained(self, folder: str | Path, card: Any = None) -> Path:  # the folder
        """Write model.safetensors and a README.md about it; the card is the network's own when None."""
        return _sharing().save_folder(self, folder, card)

    def push_to_hub(self, name: str, **options: Any) -> str:  # address of the commit
        """Upload both to USER/NAME on the Hugging Face Hub. Options: card, private, token, message."""
        return _sharing().push(self, name, **options)
