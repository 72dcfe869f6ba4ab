"""The inspector as people open it: a session that a notebook shows as a panel."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..networks.backbones import VideoNet
from .provider import open_provider
from .session import Session
from .state import InspectorState
from .view import InspectorView

__all__ = ["Inspector", "inspect_folder"]


class Inspector(Session):
    """A session that can be shown: as the last line of a cell it appears as a panel."""

    view: InspectorView | None = None  # the panel, once it is shown

    def show(self) -> "Inspector":
        """Make the panel."""
        self.view = self.view or InspectorView(self)
        return self

    def close(self) -> None:
        """Take the panel away and forget what was computed."""
        if self.view:
            self.view.close()
        self.view = None
        super().close()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The panel, and the strip as a picture for readers without a kernel."""
        self.view = self.view or InspectorView(self)
        kind = "application/vnd.jupyter.widget-view+json"
        return {
            kind: self.view.box._repr_mimebundle_()[kind],
            "image/png": base64.b64encode(self.overview()).decode(),
            "text/plain": repr(self),
        }


def inspect_folder(
    root: str | Path,  # dataset folder (category.txt, img/, trainValTest/), or a folder of videos
    checkpoint: str | Path | VideoNet,  # model file, or a network in memory
    split: str = "test",  # list in trainValTest/
    other: str | Path | VideoNet | None = None,  # checkpoint B
    trace: str | Path | None = None,  # .npz: read when it is there, else written
    strict: bool = False,  # raise errors as well as showing them
    device: str = "auto",  # where model files compute; a network in memory stays where it is
    precision: str = "auto",  # in which number format, likewise: auto, fp32, bf16 or fp16
    # what visitors may open: name -> root, checkpoint, split, other (None: only what is opened here)
    offers: Mapping[str, Mapping[str, str]] | None = None,
    visited: bool | None = None,  # strangers look at it: no path is shown or taken (None: under Voila)
    **state: object,  # fields of InspectorState to start with
) -> Inspector:  # show() makes the panel
    """Open the inspector on a dataset."""
    provider, source = open_provider(root, checkpoint, split, other, trace, device, precision)
    if visited is None:
        visited = any(name.startswith("VOILA_") for name in os.environ)  # Voila sets some for its kernels
    if offers is None and source:
        opened = {name: value for name, value in provider.where.items() if value}
        offers = {f"{Path(root).resolve().name} · {provider.name}": opened}
    return Inspector(provider, InspectorState(**state), strict, source, offers=offers, visited=visited)
