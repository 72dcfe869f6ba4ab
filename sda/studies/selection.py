"""What networks from several seeds select, beside contribution and effect, by pair of classes and block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..figures.effects import fig_over_seeds
from ..foundation.statistics import t_interval
from .accuracy import SeedRun
from .ground_truth import CAN_CARRY

__all__ = ["ROWS", "pair_means", "fig_selection_over_seeds"]

ROWS = ("striped/spotted", *CAN_CARRY)  # the pairs of Moves, the static one first


def pair_means(
    run: SeedRun,  # with explanations
    key: str,  # weights, contribution, gradient or block_effect
) -> np.ndarray:  # [10 pairs, blocks * 4]; the static pair first, then those of `CAN_CARRY`
    """Mean over the clips of every pair of twins."""
    values = run.explanations[key].astype(float)
    pairs = run.pairs
    return np.stack([values[pairs == pair].mean(0).ravel() for pair in ROWS])


def fig_selection_over_seeds(
    runs: Sequence[SeedRun],  # one training from several seeds, with explanations
) -> Figure:  # three panels, pairs x (blocks x 4)
    """Weight, contribution and effect by pair and block, with intervals over seeds."""
    shown = {
        "weight": ("weights", "weight"),
        "contribution": ("contribution", "weight"),
        "effect (logits)": ("block_effect", "effect"),
    }
    panels = {}
    for title, (key, kind) in shown.items():
        tables = np.stack([pair_means(run, key) for run in runs])
        mean, low, high = np.apply_along_axis(t_interval, 0, tables)
        panels[title] = (kind, mean, low, high)
    words = (
        f"n = {len(runs)} seeds, {len(runs[0].explanations['labels']) // 10} clips a row; "
        "framed: the 95 % interval over seeds excludes no preference (.25) or no effect (0)"
    )
    return fig_over_seeds(panels, ROWS, [str(block) for block in runs[0].explanations["blocks"]], words)
