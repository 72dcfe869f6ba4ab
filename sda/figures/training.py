"""Figures of training and testing: loss and accuracy, a sweep of learning rates, confusions, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .style import FONT, new_figure

__all__ = ["fig_history", "fig_lr_sweep", "fig_confusion", "fig_reliability"]

TRAINING = "#0072B2"
VALIDATION = "#D55E00"
BATCHES = "#999999"  # single batches, which scatter


def fig_history(
    history: Sequence[
        Mapping[str, Any]
    ],  # one row per epoch: epoch, train_loss, val_loss, train_top1, val_top1
    batches: Sequence[tuple[int, float]] = (),  # step and loss of single steps
    per_epoch: float = 1,  # steps of an epoch, which places the rows among the steps
) -> Figure:  # loss on the left, accuracy on the right
    """Loss and accuracy of training and validation."""
    figure = new_figure(7, 2.4)
    left, right = figure.subplots(1, 2)
    if batches:
        left.plot(*zip(*batches, strict=True), color=BATCHES, lw=0.7, label="each batch")
    epochs = [row["epoch"] for row in history]
    for part, name, colour in (("train", "training", TRAINING), ("val", "validation", VALIDATION)):
        steps = [per_epoch * epoch for epoch in epochs]
        left.plot(steps, [row[f"{part}_loss"] for row in history], "o-", ms=3, color=colour)
        right.plot(epochs, [row[f"{part}_top1"] for row in history], "o-", ms=3, color=colour, label=name)
    left.set(xlabel="step" if batches else "epoch", ylabel="loss (nats)", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="epoch", ylabel="top-1 accuracy", xlim=(0, None), ylim=(-0.02, 1.02))
    for axes in (left, right):
        axes.locator_params(axis="x", integer=True)
    for axes in (left, right) if batches else (right,):
        axes.legend(frameon=False, fontsize=FONT - 1)
    return figure


def fig_lr_sweep(
    table: pd.DataFrame,  # one row per step: lr, loss (mean over the clips), smooth
    suggestion: float,  # learning rate
) -> Figure:
    """Loss against learning rate, with the suggestion."""
    figure = new_figure(5, 2.4)
    axes = figure.subplots()
    axes.plot(table["lr"], table["loss"], color=BATCHES, lw=0.8, label="each batch")
    axes.plot(table["lr"], table["smooth"], color=TRAINING, label="smoothed")
    axes.axvline(suggestion, color=VALIDATION, ls="--", label=f"suggestion {suggestion:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats)")
    axes.xaxis.set_major_formatter(
        lambda rate, _: f"{rate:g}"
    )  # in plain letters: `to_png` writes no formulas
    top = max(table["loss"].iloc[0], table["smooth"].iloc[0], 1e-3)  # an explosion leaves the picture
    axes.set_ylim(0, 1.65 * top)
    axes.legend(frameon=False, fontsize=FONT - 1)
    return figure


def fig_confusion(
    counts: ArrayLike,  # [K,K] clips, by true class (row) and answer (column)
    class_names: Sequence[str],  # K names, written beside the rows when there are 30 or fewer
) -> Figure:
    """Share of each class's clips that got each answer."""
    values = np.asarray(counts, float)
    shares = values / values.sum(1, keepdims=True).clip(min=1)
    side = min(2.5 + 0.22 * len(class_names), 9)
    figure = new_figure(side + 1.5, side)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answer", ylabel="true class")
    if len(class_names) <= 30:
        axes.set_yticks(range(len(class_names)), class_names, fontsize=FONT - 1)
        axes.set_xticks(range(len(class_names)), class_names, fontsize=FONT - 1, rotation=90)
    figure.colorbar(picture, shrink=0.8, label="share of the class's clips")
    return figure


def fig_reliability(
    table: pd.DataFrame,  # one row per bin: from, to, n (videos), accuracy
    error: float,  # expected calibration error
) -> Figure:
    """Accuracy against confidence, with the number of videos over each bar."""
    filled = table[table["n"] > 0].astype(float)
    figure = new_figure(3.4, 2.8)
    axes = figure.subplots()
    width = filled["to"] - filled["from"]
    bars = axes.bar(
        filled["from"], filled["accuracy"], width, align="edge", color=TRAINING, edgecolor="white"
    )
    axes.bar_label(bars, [f"{n:.0f}" for n in filled["n"]], fontsize=FONT - 1)
    axes.plot([0, 1], [0, 1], "--", color="#555555")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.15), yticks=[0, 0.5, 1])
    axes.set_title(f"calibration error {error:.3f}, n = {table['n'].sum():.0f}", fontsize=FONT - 1)
    return figure
