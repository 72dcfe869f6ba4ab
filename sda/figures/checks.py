"""Figures of checks: results with intervals and controls, maps of randomised networks, means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..foundation.errors import SettingError
from ..networks.blocks import DEPENDENCIES
from .style import COLOUR_MAPS, FONT, MIDDLES, HeatTable, new_figure

__all__ = ["fig_checks", "fig_over_seeds", "fig_randomisation"]

_LOOKS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # of maps; Okabe-Ito
_CONTROLS = {"centre": ("#0072B2", "--", "s"), "random": ("#777777", ":", "^")}


def looks(
    orders: Sequence[str],  # names of orders in which cells are removed
) -> dict[str, tuple[str, str, str]]:
    """Colour, line and marker of every order; the controls always look the same."""
    names = [name for name in dict.fromkeys(orders) if name not in _CONTROLS]
    return {name: (_LOOKS[k % len(_LOOKS)], "-", "osDv^P"[k % 6]) for k, name in enumerate(names)} | {
        name: look for name, look in _CONTROLS.items() if name in set(orders)
    }


def fig_randomisation(
    tables: Mapping[str, pd.DataFrame],  # name of a method -> table from `randomisation`
    title: str = "",  # line above
) -> Figure:  # one line per method
    """How much of a map is left when the network is scrambled from the top."""
    figure = new_figure(5.6, 3.3, title)
    axes = figure.subplots()
    axes.axhline(0, color="grey", linestyle="--", linewidth=1, zorder=0)
    for k, (name, table) in enumerate(tables.items()):
        x = np.arange(len(table)) + 0.06 * (k - (len(tables) - 1) / 2)  # side by side, not on top
        error = np.abs(np.stack([table.rho - table.low, table.high - table.rho]))
        axes.errorbar(
            x,
            table.rho,
            error,
            marker="osD^v"[k % 5],
            capsize=3,
            label=name,
            color=("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000")[k % 5],
        )
        axes.set_xticks(range(len(table)), table.index, fontsize=FONT - 1)
    axes.set_ylim(min(-0.25, *(table.low.min() for table in tables.values())) - 0.05, 1.05)
    axes.set_xlabel("random from the top down to", fontsize=FONT - 1)
    axes.set_ylabel(f"rank correlation (n = {table.n.max()})", fontsize=FONT - 1)
    figure.legend(fontsize=FONT - 1, frameon=False, loc="outside lower center", ncols=2)
    return figure


def _draw_results(axes: Axes, found: pd.DataFrame, unit: str) -> None:
    """Points with intervals, controls grey."""
    share = unit.startswith("share")
    for y, one in enumerate(found.itertuples()):
        colour = "#777777" if one.control else "#D55E00"
        if np.isfinite(one.low):
            axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2.5, alpha=0.55)
        axes.plot(
            [one.value], [y], "D" if one.control else "o", color=colour, markersize=5 if one.control else 7
        )
        if np.isfinite(one.value):
            text = f"{one.value:.2f}" if share else f"{one.value:+.2f}"
            axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=FONT - 1)
    names = [f"{one.what} (n = {one.n})" for one in found.itertuples()]
    axes.set_yticks(range(len(found)), names, fontsize=FONT - 1)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set(xlim=(-0.03, 1.03) if share else (-1.05, 1.05), xticks=(0, 0.5, 1) if share else (-1, 0, 1))
    axes.tick_params(labelsize=FONT - 1)
    axes.set_title(unit, fontsize=FONT, loc="left")
    axes.axvline(0, color="grey", linewidth=1, zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def fig_checks(
    results: pd.DataFrame,  # columns unit, what, value, low, high (95 % interval or NaN), n, control
    title: str = "",  # line above
) -> Figure:  # one axis per unit
    """Every number of the checks with its interval and what it has to be compared with."""
    if not len(results):
        raise SettingError("nothing was measured yet")
    groups = dict(list(results.groupby("unit", sort=False)))
    rows = [len(found) for found in groups.values()]
    height = 0.56 * len(groups) + 0.2 * sum(rows) + (0.3 if title else 0)
    figure = new_figure(7.2, height, title)
    places = figure.subplots(len(groups), 1, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (unit, found) in zip(places, groups.items(), strict=True):
        _draw_results(axes, found, unit)
    return figure


def _draw_over_seeds(
    axes: Axes, panel: tuple[str, np.ndarray, np.ndarray, np.ndarray], blocks: Sequence[str]
) -> None:
    """Means around the number that means nothing; a dot marks an interval that excludes it."""
    kind, mean, low, high = panel
    middle = MIDDLES[kind]
    image = axes.imshow(mean, cmap=COLOUR_MAPS[kind], norm=HeatTable(mean, kind).norm, aspect="auto")
    sure = np.argwhere((low > middle) | (high < middle))
    axes.plot(sure[:, 1], sure[:, 0], ".", color="black", markersize=5)
    for x in range(4, mean.shape[1], 4):
        axes.axvline(x - 0.5, color="black", linewidth=1.2)
    axes.set_xticks(range(4 * len(blocks)), DEPENDENCIES * len(blocks), rotation=90, fontsize=FONT - 1)
    for r, block in enumerate(blocks):
        above = axes.get_xaxis_transform()
        axes.text(4 * r + 1.5, 1.01, block, transform=above, ha="center", va="bottom", fontsize=FONT - 1)
    axes.figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)


def fig_over_seeds(
    panels: Mapping[str, tuple[str, np.ndarray, np.ndarray, np.ndarray]],  # title -> kind, mean, low, high
    rows: Sequence[str],  # G groups of clips, e.g. pairs of classes
    blocks: Sequence[str],  # R block names; the tables of the panels are [G, R*4]
    words: str = "",  # line below: seeds, clips, level of the intervals
    title: str = "",  # line above
) -> Figure:  # panels side by side
    """Tables by group and block, dotted where the interval over seeds excludes no preference or no effect."""
    figure = new_figure(12, 4.3 if title else 4, title)
    places = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, panel) in zip(places, panels.items(), strict=True):
        _draw_over_seeds(axes, panel, blocks)
        axes.set_title(name, fontsize=FONT + 1, pad=18)
        axes.set_yticks(range(len(rows)), rows, fontsize=FONT - 1)
    figure.supxlabel(words, fontsize=FONT - 1)
    return figure
