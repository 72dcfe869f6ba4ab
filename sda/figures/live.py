"""A figure with controls: drawn again when a control changes; without a kernel its picture stays."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from ..foundation.errors import SettingError, missing_package
from .style import DPI, to_png

__all__ = ["Live"]


class Live:
    """A figure and its controls, for the last line of a cell; a saved notebook keeps the picture."""

    def __init__(
        self,
        draw: Callable[..., Figure],  # takes the values of the controls by name
        *,
        row: int = 3,  # controls beside each other
        alt: str = "",  # what the first figure shows, for people who cannot see it ("": its title)
        **controls: Any,  # ipywidgets with a value, by the name of the argument
    ):
        try:
            import ipywidgets
        except ImportError as err:
            raise missing_package("ipywidgets", "a figure with controls", "notebook") from err
        self.draw = draw
        self.alt = alt
        self.controls = controls
        self.image = ipywidgets.Image(format="png")
        self.said = ipywidgets.HTML()
        self.figure: Figure | None = None
        every = list(controls.values())
        rows = [ipywidgets.HBox(every[i : i + row]) for i in range(0, len(every), row)]
        self.panel = ipywidgets.VBox([*rows, self.said, self.image])
        self._redraw()
        for control in every:
            control.observe(self._redraw, "value")

    def set(self, **values: Any) -> Live:
        """Move several controls, as a person would, and draw once."""
        unknown = values.keys() - self.controls.keys()
        if unknown:
            raise SettingError(f"there are no controls {sorted(unknown)}", choices=list(self.controls))
        for name, value in values.items():
            self.controls[name].unobserve(self._redraw, "value")
            self.controls[name].value = value
            self.controls[name].observe(self._redraw, "value")
        self._redraw()
        return self

    def _redraw(self, change: object = None) -> None:
        """The figure for the controls as they are; what cannot be drawn is said in its place."""
        self.said.value = ""
        try:
            self.figure = self.draw(**{name: control.value for name, control in self.controls.items()})
        except ValueError as err:
            if self.figure is None:
                raise
            self.said.value = f"<b>{html.escape(str(err))}</b>"
            return
        self.image.value = to_png(self.figure, 2 * DPI)
        self.image.width = f"{round(self.figure.get_figwidth() * DPI)}px"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        """The controls, and a picture for readers without a kernel."""
        data, metadata = self.panel._repr_mimebundle_(), {}
        if isinstance(data, tuple):
            data, metadata = data
        picture = base64.b64encode(self.image.value).decode()
        size = {"width": int(self.image.width.removesuffix("px")), "alt": self.alt or self._title()}
        return {**data, "image/png": picture, "text/plain": repr(self)}, {**metadata, "image/png": size}

    def _title(self) -> str:
        """The line above the figure."""
        return self.figure.get_suptitle() if self.figure else ""

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={control.value!r}" for name, control in self.controls.items())
        return f"{self._title() or 'A figure'} ({values})"
