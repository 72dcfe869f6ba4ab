"""The inspector as people open it: a session that a notebook shows as a panel."""

import base64
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
    root: str | Path,  # dataset folder: category.txt, img/, trainValTest/
    checkpoint: str | Path | VideoNet,  # model file, or a network in memory
    split: str = "test",  # list in trainValTest/
    other: str | Path | VideoNet | None = None,  # checkpoint B
    trace: str | Path | None = None,  # .npz: read when it is there, else written
    strict: bool = False,  # raise errors as well as showing them
    device: str = "auto",  # where model files compute; a network in memory stays where it is
    precision: str = "auto",  # in which number format, likewise: auto, fp32, bf16 or fp16
    **state: object,  # fields of InspectorState to start with
) -> Inspector:  # show() makes the panel
    """Open the inspector on a dataset."""
    provider, source = open_provider(root, checkpoint, split, other, trace, device, precision)
    return Inspector(provider, InspectorState(**state), strict, source)
