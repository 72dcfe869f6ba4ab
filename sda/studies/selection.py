"""What networks from several seeds select, beside contribution and effect, by pair of classes and block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..explaining.answers import partner_index, readings
from ..figures.checks import fig_over_seeds
from ..figures.style import FONT
from ..foundation.statistics import rank_rows, spearman, t_interval
from ..moves.classes import PAIRS
from ..networks.blocks import DEPENDENCIES
from .accuracy import SeedRun
from .ground_truth import CAN_ENCODE, attributions, can_encode, evaluate_attribution

__all__ = ["selectivity", "agreement_of_seeds", "fig_selection_over_seeds", "meaning", "order_of_losses"]

ROWS = ("striped/spotted", *CAN_ENCODE)  # the pairs of Moves, the static one first


def pair_means(
    run: SeedRun,  # with explanations
    key: str,  # weights, contribution, gradient or block_effect
) -> np.ndarray:  # [10 pairs, blocks * 4]; the static pair first, then those of `CAN_ENCODE`
    """Mean over the clips of every pair."""
    values = run.explanations[key].astype(float)
    pairs = run.pairs
    return np.stack([values[pairs == pair].mean(0).ravel() for pair in ROWS])


def selectivity(
    run: SeedRun,  # with explanations
) -> dict[str, float]:  # four shares
    """How strongly a network selects, and what its accuracy owes to that."""
    weights = run.explanations["weights"].astype(float)  # [clips, blocks, 4]
    return {
        "top-1": run.record["metrics"]["top1"],
        "top-1 with equal weights": float((run.explanations["equal_margin"] > 0).mean()),
        "largest weight of a clip": float(weights.max(-1).mean()),
        "spread of a weight over clips": float(weights.std(0).mean()),
    }


def agreement_of_seeds(
    runs: Sequence[SeedRun],  # one training from several seeds, with explanations
) -> pd.DataFrame:  # one row per attribution: rank correlation over clips, and how often both name the same
    """Whether networks from different seeds explain the same clips alike."""
    said = [attributions(run) for run in runs]
    rows = {}
    for name in said[0]:
        rho = []
        same = []
        chance = []
        for one, two in combinations((each[name] for each in said), 2):
            rho.append(np.nanmean(spearman(one.T, two.T)))
            first, second = (np.eye(len(DEPENDENCIES))[values.argmax(1)] for values in (one, two))
            same.append((first * second).sum(1).mean())
            chance.append((first.mean(0) * second.mean(0)).sum())  # from how often each names which
        rows[name] = {
            "rank correlation over clips": np.mean(rho),
            "lowest pair": min(rho),
            "highest pair": max(rho),
            "same largest": np.mean(same),
            "by chance": np.mean(chance),
        }
    return pd.DataFrame(rows).T


def fig_selection_over_seeds(
    runs: Sequence[SeedRun],  # one training from several seeds, with explanations
) -> Figure:  # three panels, pairs x (blocks x 4)
    """Weight, contribution and effect by pair and block, with intervals over seeds."""
    shown = {
        "weight": ("weights", "weight"),
        "share of the response": ("contribution", "weight"),
        "effect (logits)": ("block_effect", "effect"),
    }
    panels = {}
    for title, (key, kind) in shown.items():
        tables = np.stack([pair_means(run, key) for run in runs])
        mean, low, high = np.apply_along_axis(t_interval, 0, tables)
        panels[title] = (kind, mean, low, high)
    words = (
        f"n = {len(runs)} seeds, {len(runs[0].explanations['labels']) // 10} clips a row; "
        "dot: the 95 % interval over seeds excludes no preference (0.25) or no effect (0)"
    )
    figure = fig_over_seeds(panels, ROWS, [str(block) for block in runs[0].explanations["blocks"]], words)
    figure.suptitle(
        "Pairs differ in what they lose without a dependency, hardly in its weight", fontsize=FONT + 1
    )
    return figure


def meaning(
    values: np.ndarray,  # weights of clips [N,4], or anything else that claims to say what each needs
    logits: np.ndarray,  # [N,K]
    labels: np.ndarray,  # int [N]
    class_names: Sequence[str],  # K classes of Moves
    encoding: Mapping[str, Sequence[str]],  # pair -> dependencies, see `measured_encoding`
) -> dict[str, float]:  # hit, its chance and that of always the same answer, within and between clips, n
    """How well weights name what can encode the cue, on the clips whose class is told from its pair."""
    named = [class_names[k] for k in labels]
    truth = can_encode(named, encoding)
    told = readings(logits, labels, partner_index(class_names, PAIRS))["pair margin"] > 0
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

    Components of the variance of ranks within clips, as shares (ANOVA estimators of a one-way random model:
    a mean of few clips varies by chance, which is not counted as the class's); and the rank correlation that
    the mean order of all other clips, or of the others of the class, reaches with the order of a clip: what
    weights can know without having seen the clip.
    """
    size = np.abs(losses).reshape(len(losses), -1)
    ranks = rank_rows(size)
    apart = ranks - ranks.mean(1, keepdims=True)
    same = labels[:, None] == labels
    count = same.sum(1)
    by_class = same @ apart / count[:, None]
    clips, classes = len(apart), len(np.unique(labels))
    own = ((apart - by_class) ** 2).sum() / (clips - classes)
    between = ((by_class - apart.mean(0)) ** 2).sum() / (classes - 1)
    of_class = (between - own) * (classes - 1) / (clips - count.mean())
    common = (apart.mean(0) ** 2).sum() - (own + of_class * count.mean()) / clips
    parts = np.maximum([common, of_class, own], 0)
    others = (apart.sum(0) - apart) / (len(apart) - 1)
    alike = (same @ apart - apart)[count > 1] / (count[count > 1, None] - 1)
    return {
        **dict(zip(("all clips", "class", "single clip"), (parts / parts.sum()).tolist(), strict=True)),
        "order of the others": float(np.nanmean(spearman(others, size))),
        "order of its class": float(np.nanmean(spearman(alike, size[count > 1]))),
    }
