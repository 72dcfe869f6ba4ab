"""What all figures share: colours, fonts, PNG files, and the one table of blocks and dependencies."""

from __future__ import annotations

import io
import logging
import struct
import textwrap
import unicodedata
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import QuadMesh
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from PIL import Image as Picture

from ..foundation.errors import SettingError, unknown_name
from ..networks.backbones import stage_of
from ..networks.blocks import DEPENDENCIES

__all__ = [
    "COLOURS",
    "FONT",
    "DPI",
    "new_figure",
    "to_png",
    "as_images",
    "COLOUR_MAPS",
    "MIDDLES",
    "HeatTable",
    "name_cells",
    "draw_heat",
    "fig_tables",
]

COLOURS = {
    "LST": "#0072B2",
    "LT": "#E69F00",
    "LS": "#009E73",
    "S122": "#CC79A7",
}  # Okabe-Ito, one per dependency
FONT = 10  # points; at 80 dots per inch a letter is about 11 pixels high
DPI = 80  # of every PNG unless the caller asks for more
_AREA = 12  # dots in a row or column that make a colour one of an area, see `to_png`
_NAMES = (FixedFormatter, FuncFormatter, StrCategoryFormatter)  # of ticks that carry words; others, numbers
# tried first for letters that the usual font lacks: they hold most scripts, and many systems have one
_WIDE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)
_log = logging.getLogger(__name__)


def user_text(figure: Figure) -> None:
    """Let names be names: no text is read as mathematics, and letters that the font lacks are looked for.

    Numbers that matplotlib writes at an axis keep their notation. A figure of `new_figure` does this itself
    whenever it is drawn, by whichever program and into whichever kind of file.
    """
    numbers: set[Text] = set()
    for axis in figure.findobj(Axis):
        named = {True: axis.get_major_formatter(), False: axis.get_minor_formatter()}
        for major, formatter in named.items():
            ticks = axis.get_major_ticks() if major else axis.get_minor_ticks()
            if not isinstance(formatter, _NAMES):
                numbers |= {label for tick in ticks for label in (tick.label1, tick.label2)}
        numbers.add(axis.get_offset_text())
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)
            lacking = _lacking(text.get_text(), font_manager.findfont(text.get_fontproperties()))
            found = _font_with(lacking) if lacking else None
            if found and found not in text.get_fontfamily():
                text.set_fontfamily([*text.get_fontfamily(), found])


@lru_cache(4096)
def _lacking(text: str, font: str) -> str:
    """The letters of a text that the file of its font does not have."""
    have = _letters(font)
    return "".join(sorted({c for c in text if ord(c) not in have and unicodedata.category(c)[0] != "C"}))


@lru_cache(8)
def _letters(file: str) -> frozenset[int]:
    """The letters of a font file."""
    return frozenset(font_manager.get_font(file).get_charmap())


@lru_cache(256)
def _font_with(letters: str) -> str | None:
    """An installed font that has these letters, or most of them; None, said once, where there is none."""
    known = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    known = {name: file for name, file in known.items() if not name.startswith("Last Resort")}  # only boxes
    best = ""
    most = 0
    for name in [*(n for n in _WIDE if n in known), *sorted(known.keys() - set(_WIDE))]:
        try:
            count = len({*map(ord, letters)} & _letters(known[name]))
        except (OSError, RuntimeError):  # a font file that is gone or damaged
            continue
        if count > most:
            best, most = name, count
        if most == len(letters):
            return best
    _say_missing()
    return best or None


@lru_cache(1)
def _say_missing() -> None:
    """Say once what the boxes in a figure are."""
    _log.warning(
        "no installed font has all letters of the names in a figure: boxes stand for them; install one that "
        "does, e.g. Noto Sans CJK (Debian: apt install fonts-noto-cjk), and delete matplotlib's font cache"
    )


@contextmanager
def _quiet_boxes() -> Iterator[None]:
    """Without matplotlib's word on every single letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


class NamedFigure(Figure):
    """A figure whose texts are names, see `user_text`."""

    def draw(self, renderer: Any) -> None:
        """Draw it."""
        user_text(self)
        with _quiet_boxes():
            super().draw(renderer)

    def get_tightbbox(self, renderer: Any = None, *more: Any, **options: Any) -> Any:
        """The box around everything drawn, inches."""
        user_text(self)
        with _quiet_boxes():
            return super().get_tightbbox(renderer, *more, **options)


def wrapped(text: str, width: float) -> str:
    """Text in lines that fit a figure of this width in inches."""
    return textwrap.fill(text, max(int(width * 10), 12), break_long_words=True)


def new_figure(
    width: float,  # inches
    height: float,  # inches
    title: str = "",  # the line above everything
) -> Figure:  # empty figure with a canvas of its own, laid out so that nothing overlaps
    """A figure that pyplot does not know about."""
    figure = NamedFigure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(wrapped(title, width), fontsize=FONT + 1)
    return figure


def to_png(
    figure: Figure,  # a figure of this chapter, or of matplotlib; then $x$ is mathematics
    dpi: float = DPI,  # dots per inch: 80 on a plain screen, 160 on a sharp one, 200 in print
) -> bytes:  # PNG file content, packed tightly, equal for equal figures
    """The figure as the bytes of a PNG file. Areas, colour bars and maps of numbers keep exact colours."""
    drawn, small = io.BytesIO(), io.BytesIO()
    with _quiet_boxes():
        figure.savefig(drawn, format="png", dpi=dpi)
    dots = np.asarray(Picture.open(drawn).convert("RGB"))
    dots = _few_shades(dots, _shades(figure, dots.shape, dpi / figure.dpi))
    if (image := _with_palette(dots)) is not None:
        image.save(small, "PNG", optimize=True)
        return small.getvalue()
    Picture.fromarray(dots).save(small, "PNG", optimize=True)
    return min(small.getvalue(), _flat_png(dots), key=len)


def _shades(figure: Figure, shape: tuple[int, ...], zoom: float) -> np.ndarray:
    """How many shades a channel needs at every dot [H,W].

    8 at the edges of letters and lines, which are smoothed and make up most of a file; 32 in photographs,
    where nobody sees the difference; all in colour bars and in maps whose cells are too small to be areas.
    """
    shades = np.full(shape[:2], 8)
    images = [artist for artist in figure.findobj() if isinstance(artist, AxesImage | QuadMesh)]
    arrays = {image: np.asarray(image.get_array()).shape for image in images}
    for image, cells in sorted(arrays.items(), key=lambda known: len(known[1])):  # photographs last
        extents = np.asarray(image.get_window_extent().extents) * zoom
        left, bottom, right, top = extents.round().astype(int).tolist()
        photograph = len(cells) == 3
        if photograph or min((right - left) / cells[1], (top - bottom) / cells[0]) < _AREA:
            place = slice(max(shape[0] - top, 0), shape[0] - bottom), slice(max(left, 0), right)
            shades[place] = 32 if photograph else 256
    return shades


def _few_shades(dots: np.ndarray, shades: np.ndarray) -> np.ndarray:
    """The picture with so many shades; a colour that fills a dozen dots in a row or column stays as it is."""
    codes = _codes(dots)
    areas = np.zeros(codes.shape, bool)
    for axis in (0, 1):
        lines = np.moveaxis(codes, axis, 1)
        equal = sliding_window_view(lines[:, 1:] == lines[:, :-1], _AREA - 1, 1).all(-1)
        areas |= np.isin(codes, lines[:, : 1 - _AREA][equal])
    step = 255 / (shades[..., None] - 1)
    kept = (areas & (shades == 8)) | (shades == 256)
    return np.where(kept[..., None], dots, np.round(np.round(dots / step) * step).astype(np.uint8))


def _codes(dots: np.ndarray) -> np.ndarray:
    """One number for each colour [H,W]."""
    return dots.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)


def _with_palette(dots: np.ndarray) -> Picture.Image | None:
    """The same picture with a table of its colours; None where it has more than 256."""
    colours, which = np.unique(_codes(dots), return_inverse=True)
    if len(colours) > 256:
        return None
    image = Picture.fromarray(which.reshape(dots.shape[:2]).astype(np.uint8))
    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1)
    image.putpalette(palette.astype(np.uint8).tobytes())
    return image


def _flat_png(dots: np.ndarray) -> bytes:
    """A PNG without row filters, which Pillow always applies to colours: tighter where most is flat."""
    height, width, _ = dots.shape
    rows = dots.reshape(height, -1)
    packed = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes(), 9)  # every row begins with "no filter"
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + size, b"IDAT" + packed, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def picture(
    figure: Figure,  # as for `to_png`
    alt: str,  # what it shows and finds, for people who cannot see it
) -> Any:  # an IPython image, with two dots for one of a plain screen
    """The figure as the last line of a cell."""
    from IPython.display import Image

    return Image(to_png(figure, 2 * DPI), width=round(figure.get_figwidth() * DPI), alt=alt)


def as_images(
    frames: ArrayLike,  # [T,H,W,3], uint8 or float in 0..1
) -> np.ndarray:  # uint8 [T,H,W,3]
    """The frames as bytes; anything that is not a picture is refused."""
    images = np.asarray(frames)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise SettingError(
            f"frames must be [T, H, W, 3], got {list(images.shape)}",
            subject="frames",
            remedy="a model's input [T, 3, h, w] goes through sda.data.transforms.denormalise first",
        )
    if images.dtype == np.uint8:
        return images
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise SettingError(
            f"float frames must lie between 0 and 1, not between {images.min():g} and {images.max():g}",
            subject="frames",
            remedy="a normalised clip goes through sda.data.transforms.denormalise first",
        )
    return (images * 255).round().astype(np.uint8)


COLOUR_MAPS = {  # by what the numbers are
    "weight": "PuOr_r",
    "gate": "PuOr_r",
    "effect": "RdBu_r",
    "difference": "PRGn",
}
MIDDLES = {"weight": 0.25, "gate": 0.0, "effect": 0.0, "difference": 0.0}  # means nothing, drawn white
# of a signed scale: few and round, so that pictures can be compared
_ENDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, eq=False)
class HeatTable:
    """Numbers of R rows and M dependencies, and what they are."""

    values: np.ndarray  # [R,M], NaN where a dependency is absent
    kind: str = "weight"  # "weight" (rows sum to 1), "gate", "effect" (a loss is positive) or "difference"
    title: str = ""  # above the table
    label: str = ""  # below its colour bar

    def __post_init__(self):
        if self.kind not in MIDDLES:
            raise unknown_name("kind of table", self.kind, list(MIDDLES))

    @property
    def end(self) -> float:
        """Where the colours end: for weights always at 1, so that a colour is the same weight everywhere."""
        if self.kind == "weight":
            return 1.0
        largest = float(np.nanmax(np.abs(self.values), initial=0))
        return next((end for end in _ENDS if largest <= end), largest)

    @property
    def norm(self) -> TwoSlopeNorm:
        """From numbers to colours: what means nothing is white."""
        return TwoSlopeNorm(MIDDLES[self.kind], 0 if self.kind == "weight" else -self.end, self.end)


def name_cells(
    axes: Axes,  # of a table drawn with imshow
    rows: Sequence[str],  # R row names
    columns: Sequence[str],  # M dependency names, in their colours
) -> None:
    """Names of rows on the left and of dependencies above a table."""
    axes.set_yticks(range(len(rows)), rows, fontsize=FONT - 1)
    axes.set_xticks(range(len(columns)), columns, fontsize=FONT, fontweight="bold")
    axes.xaxis.tick_top()
    for tick, name in zip(axes.get_xticklabels(), columns, strict=True):
        tick.set_color(COLOURS.get(name, "black"))
    axes.tick_params(length=0)


def draw_heat(
    axes: Axes,  # where to draw
    table: HeatTable,  # numbers
    rows: Sequence[str],  # R row names
    columns: Sequence[str] = DEPENDENCIES,  # M names
) -> AxesImage:  # mappable for a colour bar
    """A table with its numbers in the cells."""
    norm = table.norm
    shown = axes.imshow(table.values, cmap=COLOUR_MAPS[table.kind], norm=norm, aspect="auto")
    for (r, m), value in np.ndenumerate(table.values):
        dark = abs(float(norm(value)) - 0.5) > 0.34  # and the number on it white
        axes.text(
            m, r, _number(value, table.kind), ha="center", va="center", fontsize=FONT - 1,
            color="white" if dark else "black",
        )  # fmt: skip
    name_cells(axes, rows, columns)
    return shown


def _number(value: float, kind: str) -> str:
    """A cell's number in two places; a dash where there is none."""
    if np.isnan(value):
        return "–"
    rounded = round(float(value), 2) + 0.0  # no minus zero
    return f"{rounded:+.2f}" if kind not in ("weight", "gate") and rounded else f"{rounded:.2f}"


def stage_starts(blocks: Sequence[str]) -> list[int]:
    """The rows in front of which a new stage begins, the first left out."""
    return [r for r in range(1, len(blocks)) if stage_of(blocks[r]) != stage_of(blocks[r - 1])]


def part_stages(axes: Axes, blocks: Sequence[str]) -> None:
    """A line between the stages, unless every block is a stage of its own."""
    starts = stage_starts(blocks)
    if len(starts) < len(blocks) - 1:
        for r in starts:
            axes.axhline(r - 0.5, color="black", linewidth=1.5)


def check_table(values: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """The values as a table whose names fit."""
    table = np.asarray(values, float)
    if table.ndim != 2 or table.shape != (len(rows), len(columns)) or not len(rows):
        raise SettingError(
            f"values of shape {list(table.shape)} do not fit {len(rows)} rows x {len(columns)} columns "
            f"({', '.join(columns)})",
            subject="values",
        )
    return table


def colour_bar(image: AxesImage, table: HeatTable, orientation: str = "horizontal") -> None:
    """The scale of a heat table beside it."""
    low, top = image.get_clim()
    ticks = {low: f"{low:g}", 0: "0", top: f"{top:g}"}
    if table.kind == "weight":
        ticks = {0: "0", 0.25: "0.25 = uniform", top: f"{top:g}"}
    size: dict[str, Any] = {"fraction": 0.07, "aspect": 28, "pad": 0.03}
    if orientation == "vertical":
        size = {"fraction": 0.08, "aspect": 18}
    bar = image.axes.figure.colorbar(image, ax=image.axes, orientation=orientation, **size)
    bar.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=FONT - 1)
    bar.set_label(table.label, fontsize=FONT - 1)


def _outline_largest(axes: Axes, values: np.ndarray) -> None:
    """A frame around the largest cell of every row; none where the row is flat."""
    for r, row in enumerate(values):
        if np.isnan(row).all() or np.nanmax(row) - np.nanmin(row) < 5e-3:
            continue
        axes.add_patch(Rectangle((np.nanargmax(row) - 0.46, r - 0.42), 0.92, 0.84, fill=False, linewidth=2.2))


def fig_tables(
    tables: Sequence[HeatTable],  # one to three, of the same rows
    rows: Sequence[str],  # R names of blocks or stages, the input first
    columns: Sequence[str] = DEPENDENCIES,  # M names
    title: str = "",  # line above
    words: str = "",  # line below
    notes: Sequence[str] = (),  # R words at the right of the first table
    outline: bool = False,  # frame the largest number of every row
) -> Figure:  # tables side by side
    """Tables of blocks by dependencies beside each other."""
    for table in tables:
        check_table(table.values, rows, columns)
    width = round(1.45 + 3.05 * len(tables) + (0.9 if notes else 0), 2)
    figure = new_figure(width, 1.75 + 0.27 * max(len(rows), 4) + (0.25 if words else 0), title)
    places = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, table in zip(places, tables, strict=True):
        image = draw_heat(axes, table, rows, columns)
        axes.set_title(shortened(table.title), fontsize=FONT + 1)
        colour_bar(image, table)
        part_stages(axes, rows)
        if outline:
            _outline_largest(axes, np.asarray(table.values))
    if notes:
        right = places[0].secondary_yaxis("right")
        right.set_yticks(range(len(rows)), notes, fontsize=FONT - 1)
        right.tick_params(length=0)
    if words:
        figure.supxlabel(wrapped(words, width), fontsize=FONT - 1)
    return figure


def shortened(text: str, length: int = 40) -> str:
    """A name that fits above a picture."""
    return text if len(text) < length else text[: length - 2] + "…"
