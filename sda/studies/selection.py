"""What networks from several seeds select, beside contribution and effect, by pair of classes and block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..explaining.answers import readings, twin_index
from ..figures.effects import fig_over_seeds
from ..foundation.statistics import rank_rows, spearman, t_interval
from ..moves.classes import PAIRS
from .accuracy import SeedRun
from .ground_truth import CAN_CARRY, can_carry, evaluate_attribution

__all__ = ["ROWS", "pair_means", "fig_selection_over_seeds", "meaning", "order_of_losses"]

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


def meaning(
    values: np.ndarray,  # weights of clips [N,4], or anything else that claims to say what each needs
    logits: np.ndarray,  # [N,K]
    labels: np.ndarray,  # int [N]
    class_names: Sequence[str],  # K classes of Moves
    carriers: Mapping[str, Sequence[str]],  # pair -> dependencies, see `measured_carriers`
) -> dict[str, float]:  # hit, its chance and that of always the same answer, within and between clips, n
    """How well weights name what can carry the class, on the clips that are told from their twins."""
    named = [class_names[k] for k in labels]
    truth = can_carry(named, carriers)
    told = readings(logits, labels, twin_index(class_names, PAIRS))["pair margin"] > 0
    asked = told & truth.any(1)
    found = evaluate_attribution(values[asked], truth[asked])
    return {
        **{name: found[name] for name in ("hit", "within clips", "between clips")},
        "chance": float(truth[asked].mean()),
        "always the same": float(truth[asked].mean(0).max()),
        "n": int(asked.sum()),
    }


def order_of_losses(
    losses: np.ndarray,  # [N, R, M] of clips that are answered correctly
    labels: np.ndarray,  # int [N]
) -> dict[str, float]:
    """How much of the order of a clip's losses is that of every clip, of its class, and its own.

    Shares of the variance of ranks within clips; and the rank correlation that the mean order of all other
    clips, or of the others of the class, reaches with the order of a clip: what weights can know without
    having seen the clip.
    """
    size = np.abs(losses).reshape(len(losses), -1)
    ranks = rank_rows(size)
    apart = ranks - ranks.mean(1, keepdims=True)
    same = labels[:, None] == labels
    count = same.sum(1)
    by_class = same @ apart / count[:, None]
    whole = (apart**2).sum()
    others = (apart.sum(0) - apart) / (len(apart) - 1)
    alike = (same @ apart - apart)[count > 1] / (count[count > 1, None] - 1)
    return {
        "all clips": float(len(apart) * (apart.mean(0) ** 2).sum() / whole),
        "class": float(((by_class - apart.mean(0)) ** 2).sum() / whole),
        "single clip": float(((apart - by_class) ** 2).sum() / whole),
        "order of the others": float(np.nanmean(spearman(others, size))),
        "order of its class": float(np.nanmean(spearman(alike, size[count > 1]))),
    }
