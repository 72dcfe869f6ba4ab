"""Figures of many selections: by class, by stage, as a map, confusions; and the responses of one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike

from ..foundation.errors import SettingError
from ..networks.blocks import DEPENDENCIES
from .style import COLOURS, FONT, HeatTable, check_table, colour_bar, draw_heat, new_figure, shortened

__all__ = [
    "fig_class_stages",
    "fig_confusions",
    "fig_map",
    "fig_responses",
    "fig_selection_by_class",
    "fig_selection_by_stage",
]

_GROUPS = (
    "#000000",
    "#D55E00",
    "#56B4E9",
    "#882255",
    "#999933",
    "#888888",
)  # none of them means a dependency


def one_table(
    values: ArrayLike,  # weights [R,M]
    rows: Sequence[str],  # R names
    columns: Sequence[str],  # M names
    title: str,  # line above
    label: str,  # of the colour bar
) -> Figure:
    """A heat table of weights with its colour bar at the right, for tables that may be tall."""
    table = HeatTable(check_table(values, rows, columns), label=label)
    figure = new_figure(2.6 + 0.75 * len(columns), 0.9 + 0.27 * max(len(rows), 5), title)
    colour_bar(draw_heat(figure.subplots(), table, rows, columns), table, "vertical")
    return figure


def fig_selection_by_class(
    means: ArrayLike,  # mean weights [K,4], NaN rows where a class has no clip
    class_names: Sequence[str],  # K names
    counts: Sequence[int],  # clips per class
    dependencies: Sequence[str] = DEPENDENCIES,  # column names
    title: str = "Selection by class",  # line above the table
) -> Figure:  # heat table, classes x dependencies
    """Mean selection of every class, with the number of clips behind it."""
    if len(counts) != len(class_names):
        raise SettingError(f"{len(counts)} counts for {len(class_names)} classes")
    rows = [f"{name}  (n={n})" for name, n in zip(class_names, counts, strict=True)]
    figure = one_table(means, rows, dependencies, title, f"mean weight, n = {sum(counts)} clips")
    figure.set_figwidth(figure.get_figwidth() + 0.075 * max(map(len, rows)))
    return figure


def fig_selection_by_stage(
    means: ArrayLike,  # mean weights [S,4]
    low: ArrayLike,  # lower ends of the intervals [S,4]
    high: ArrayLike,  # upper ends [S,4]
    stages: Sequence[str],  # S stage names
    n: int,  # clips behind the means
    dependencies: Sequence[str] = DEPENDENCIES,  # column names
    title: str = "Selection by stage",  # line above
) -> Figure:  # one line per dependency, with intervals
    """Mean selection from the first stage to the last."""
    means, low, high = (check_table(values, stages, dependencies) for values in (means, low, high))
    figure = new_figure(5.6, 3.2, title)
    axes = figure.subplots()
    axes.axhline(0.25, color="grey", linestyle="--", linewidth=1, zorder=0)
    for m, name in enumerate(dependencies):
        x = np.arange(len(stages)) + 0.08 * (m - (len(dependencies) - 1) / 2)  # side by side, not on top
        error = np.abs(np.stack([means[:, m] - low[:, m], high[:, m] - means[:, m]]))
        axes.errorbar(
            x, means[:, m], error, color=COLOURS.get(name), marker="osD^"[m % 4], capsize=3, label=name
        )
    axes.set_xticks(range(len(stages)), stages, fontsize=FONT)
    axes.set_ylim(0, max(0.5, np.nanmax(high, initial=0) * 1.05))
    axes.set_ylabel(f"mean selection weight (n = {n} clips)", fontsize=FONT - 1)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=FONT, frameon=False)
    return figure


def fig_class_stages(
    means: ArrayLike,  # [K,S,4]
    low: ArrayLike,  # lower ends of the intervals [K,S,4]
    high: ArrayLike,  # upper ends [K,S,4]
    counts: Sequence[int],  # clips of every class
    class_names: Sequence[str],  # K names
    stages: Sequence[str],  # S names
    dependencies: Sequence[str] = DEPENDENCIES,  # names of the four
    title: str = "Selection by class and stage",  # line above
) -> Figure:  # one panel per stage
    """Mean selection of every class in every stage, with intervals."""
    means, low, high = (np.asarray(v, float) for v in (means, low, high))
    if {v.shape for v in (means, low, high)} != {(len(class_names), len(stages), len(dependencies))}:
        raise SettingError(
            f"means of shape {list(means.shape)} do not fit {len(class_names)} classes and "
            f"{len(stages)} stages"
        )
    figure = new_figure(2.6 + 2.1 * len(stages), 1.3 + 0.3 * len(class_names), title)
    y = np.arange(len(class_names))
    places = figure.subplots(1, len(stages), sharex=True, sharey=True, squeeze=False)[0]
    for s, (axes, stage) in enumerate(zip(places, stages, strict=True)):
        axes.axvline(0.25, color="grey", linestyle="--", linewidth=1)
        for row in y[::2]:
            axes.axhspan(row - 0.5, row + 0.5, color="#F2F2F2", zorder=0)
        for m, name in enumerate(dependencies):
            at = y + 0.17 * (m - 1.5)
            error = np.abs([means[:, s, m] - low[:, s, m], high[:, s, m] - means[:, s, m]])
            axes.errorbar(
                means[:, s, m],
                at,
                xerr=error,
                linestyle="",
                marker="osD^"[m % 4],
                markersize=4,
                color=COLOURS.get(name),
                label=name,
            )
        axes.set_title(stage, fontsize=FONT)
    names = [f"{shortened(name)} (n={n})" for name, n in zip(class_names, counts, strict=True)]
    places[0].set_yticks(y, names, fontsize=FONT - 1)
    places[0].set(ylim=(len(y) - 0.5, -0.5), xlim=(0, max(0.5, np.nanmax(high, initial=0) * 1.05)))
    figure.supxlabel("mean selection weight; bars: 95 % intervals over clips", fontsize=FONT - 1)
    figure.legend(
        *places[0].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=4,
        fontsize=FONT - 1,
        frameon=False,
    )
    return figure


def fig_map(
    places: ArrayLike,  # positions [N,2], from `selection_map`
    held: Sequence[float],  # share of the variance of both axes
    groups: Sequence[str],  # group of every clip, e.g. what its class needs
    title: str = "Clips by selection",  # line above
) -> Figure:  # scatter plot
    """A map of clips, marked by group."""
    points = np.asarray(places, float)
    if len(points) != len(groups):
        raise SettingError(f"{len(groups)} groups for {len(points)} clips", subject="groups")
    names = list(dict.fromkeys(groups))
    if len(names) > len(_GROUPS):
        raise SettingError(f"{len(names)} groups cannot be told apart by eye; give at most {len(_GROUPS)}")
    figure = new_figure(6.4, 4.2, title)
    axes = figure.subplots()
    for name, colour, marker in zip(names, _GROUPS, "osD^vX", strict=False):
        mine = points[[group == name for group in groups]]
        axes.scatter(
            mine[:, 0],
            mine[:, 1],
            s=22,
            marker=marker,
            facecolors="none",
            edgecolors=colour,
            linewidths=1.1,
            label=f"{name} (n={len(mine)})",
        )
    axes.set_xlabel(f"first component, {100 * held[0]:.0f} % of the variance", fontsize=FONT)
    axes.set_ylabel(f"second component, {100 * held[1]:.0f} %", fontsize=FONT)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=FONT, frameon=False)
    return figure


def fig_confusions(
    pairs: pd.DataFrame,  # from `confused_pairs`
    title: str = "Confused pairs: weight of the mistaken clips minus that of the others",  # line above
) -> Figure:  # table of differences
    """What mistaken clips select more or less than the clips of their class that were not mistaken."""
    if pairs.empty:
        raise SettingError("there are no confusions to draw: every answer is right", subject="pairs")
    rows = [f"{r.true} → {r.answer} ({r.wrong} against {r.right})" for r in pairs.itertuples()]
    table = HeatTable(
        pairs[list(DEPENDENCIES)].to_numpy(float), "difference", label="difference of mean weight"
    )
    figure = new_figure(3.6 + 0.072 * max(map(len, rows)), 1.2 + 0.3 * len(rows), title)
    colour_bar(draw_heat(figure.subplots(), table, rows), table, "vertical")
    return figure


def _draw_response(figure: SubFigure, name: str, response: ArrayLike, top: float) -> None:
    """One response in the form that fits it."""
    values = np.asarray(response, float)
    colour = COLOURS.get(name)
    figure.suptitle(name, color=colour, fontsize=FONT + 1, fontweight="bold")
    grid = figure.subplots(1, len(values) if values.ndim == 3 else 1, squeeze=False)[0]
    for t, axes in enumerate(grid):
        if values.ndim == 1 and name == "LS":
            axes.plot(values, color=colour, marker="o")
        elif values.ndim == 1:
            axes.bar(range(len(values)), values, color=colour)
        else:
            axes.imshow(values if values.ndim == 2 else values[t], cmap="viridis", vmin=0, vmax=top)
            axes.set(xticks=[], yticks=[])
            if values.ndim == 3:
                axes.set_title(f"t = {t}", fontsize=FONT - 1)
        if values.ndim == 1:
            axes.set_xlabel("time t" if name == "LS" else "channel", fontsize=FONT - 1)
            axes.set_ylabel("response", fontsize=FONT - 1)


def fig_responses(
    responses: Mapping[str, ArrayLike],  # dependency -> response of one block and clip
    title: str = "",  # clip and block
) -> Figure:  # LST bars and LT map and LS curve above, S122 strip below
    """The four responses of one block on one clip, averaged over channels where they are maps or curves."""
    figure = new_figure(9.5, 4.7 if "S122" in responses else 2.7, title)
    upper = [name for name in DEPENDENCIES if name in responses and name != "S122"]
    rows = [row for row in (upper, ["S122"] if "S122" in responses else []) if row]
    if not rows:
        raise SettingError(f"no responses to draw; they are keyed by {', '.join(DEPENDENCIES)}")
    strips = figure.subfigures(len(rows), 1, height_ratios=[1.3, 1][: len(rows)], squeeze=False)[:, 0]
    for row, strip in zip(rows, strips, strict=True):
        for name, place in zip(row, strip.subfigures(1, len(row), squeeze=False)[0], strict=True):
            _draw_response(place, name, responses[name], max(float(np.max(responses[name])), 1e-12))
    return figure
