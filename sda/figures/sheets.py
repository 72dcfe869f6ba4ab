"""What surrounds figures of clips: a prediction as bars, many clips at a glance, an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image as Picture

from ..foundation.errors import SettingError
from .style import FONT, as_images, new_figure, shortened

__all__ = ["animation", "fig_contact_sheet", "fig_top_k"]


def fig_top_k(
    class_names: Sequence[str],  # K names
    probabilities: ArrayLike,  # K numbers in 0..1
    true: str | None = None,  # name of the true class
    k: int = 5,  # bars
    title: str = "",  # e.g. the clip's id
) -> Figure:  # horizontal bars, most probable at the top
    """The most probable classes of one clip."""
    values = np.asarray(probabilities, float)
    if values.shape != (len(class_names),):
        text = f"probabilities of shape {list(values.shape)} for {len(class_names)} classes"
        raise SettingError(text, subject="probabilities")
    if true is not None and true not in class_names:
        raise SettingError(f"true class {true!r} is not one of the classes")
    shown = list(np.argsort(-values, kind="stable")[:k])
    if true is not None and class_names.index(true) not in shown:
        shown.append(class_names.index(true))
    figure = new_figure(6.2, 0.7 + 0.32 * len(shown), title)
    axes = figure.subplots()
    names = [class_names[i] + ("  (true)" if class_names[i] == true else "") for i in shown]
    bars = axes.barh(
        names, values[shown], color=["#D55E00" if class_names[i] == true else "#999999" for i in shown]
    )
    axes.bar_label(bars, [f"{v:.2f}" for v in values[shown]], padding=3, fontsize=FONT)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12), xlabel="probability")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def fig_contact_sheet(
    clips: Sequence[ArrayLike],  # N clips [T,H,W,3], uint8 or float in 0..1; sizes and lengths may differ
    captions: Sequence[str],  # N lines
    title: str = "",  # line above
    columns: int = 3,  # clips per row
) -> Figure:  # first, middle and last frame of every clip
    """Many clips at a glance."""
    if not len(clips) or len(clips) != len(captions):
        raise SettingError(f"{len(captions)} captions for {len(clips)} clips", subject="captions")
    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    figure = new_figure(3.2 * columns, 1.27 * rows + (0.3 if title else 0.05), title)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, clip, caption in zip(places, clips, captions, strict=False):
        images = as_images(clip)
        three = images[[0, len(images) // 2, len(images) - 1]]
        axes.imshow(
            np.concatenate(list(np.pad(three, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)), 1),
            interpolation="nearest",
        )
        axes.set_title(shortened(caption, 44), fontsize=FONT - 1)
    return figure


def animation(
    frames: ArrayLike,  # [T,H,W,3], uint8 or float in 0..1
    maps: ArrayLike | None = None,  # evidence [T,H,W] in 0..1, drawn beside the frames
    seconds: float = 0.25,  # per frame
    height: int = 160,  # of the picture, pixels
    opacity: float = 0.6,  # of the map over the frame
) -> bytes:  # content of a GIF file that repeats
    """A short animation of a clip, with its map beside it."""
    images = as_images(frames)
    if not seconds > 0:
        raise SettingError(f"a frame must last longer than {seconds} seconds", subject="seconds")
    if maps is not None:
        maps = np.asarray(maps, float)
        if maps.shape != images.shape[:3]:
            text = f"maps of shape {list(maps.shape)} do not fit frames {list(images.shape[:3])}"
            raise SettingError(text, subject="maps")
        colours = colormaps["inferno"](np.clip(maps, 0, 1))[..., :3] * 255
        images = np.concatenate(
            [images, (colours * opacity + images * (1 - opacity)).round().astype(np.uint8)], 2
        )
    size = round(images.shape[2] * height / images.shape[1]), height
    pictures = [Picture.fromarray(image).resize(size, Picture.Resampling.NEAREST) for image in images]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 * seconds), loop=0
    )
    return buffer.getvalue()
