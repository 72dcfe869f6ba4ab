"""Intervals and tests for accuracies, seeds and explanations; scipy is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import DataError, SettingError

__all__ = [
    "softmax",
    "wilson_interval",
    "mcnemar",
    "t_interval",
    "bootstrap_interval",
    "mean_interval",
    "rank_rows",
    "spearman",
    "rank_correlation",
    "auc",
]


def softmax(
    logits: ArrayLike,  # [...,K]
) -> np.ndarray:  # the same shape and precision; sums to 1 along the last axis
    """Probabilities along the last axis; without scipy, whose import takes longer than a small network."""
    given = np.asarray(logits)
    share = np.exp(given - given.max(-1, keepdims=True))
    return share / share.sum(-1, keepdims=True)


def _check_level(level: float) -> None:
    """Refuse what is no probability."""
    if not 0 < level < 1:
        raise SettingError(
            f"level={level}", subject="level", remedy="choose a number between 0 and 1, such as 0.95"
        )


def wilson_interval(
    hits: int,  # how many are right
    n: int,  # of how many
    level: float = 0.95,  # how often such an interval holds the true share, between 0 and 1
) -> tuple[float, float]:  # its ends, in 0 to 1
    """Wilson's score interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, pp. 209-212)."""
    from scipy.stats import binomtest

    _check_level(level)
    if not 0 <= hits <= n or n == 0:
        raise DataError(f"{hits} of {n} is no share, so it has no interval")
    low, high = binomtest(int(hits), int(n)).proportion_ci(level, method="wilson")
    return float(low), float(high)


def mcnemar(
    first_only: int,  # cases that only the first of two models gets right
    second_only: int,  # cases that only the second gets right
) -> float:  # two-sided p-value; 1 where the models differ in no case
    """McNemar's exact test of two models on the same cases."""
    from scipy.stats import binomtest

    differ = int(first_only) + int(second_only)
    if differ == 0:
        return 1.0
    return float(binomtest(min(int(first_only), int(second_only)), differ, 0.5).pvalue)


def t_interval(
    values: Iterable[float],  # e.g. one accuracy per seed; NaN are left out
    level: float = 0.95,  # how often such an interval holds the mean, between 0 and 1
) -> tuple[float, float, float]:  # mean, low, high; the ends are NaN for a single value, all three for none
    """Mean with Student's interval."""
    from scipy.stats import t

    _check_level(level)
    known = np.array(list(values), float)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return np.nan, np.nan, np.nan
    mean = float(known.mean())
    if len(known) == 1:
        return mean, np.nan, np.nan
    half = float(t.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, mean - half, mean + half


def bootstrap_interval(
    values: ArrayLike,  # [N,...], one row per clip or case; whole rows are drawn
    statistic: Callable[[np.ndarray], np.ndarray]
    | None = None,  # drawn rows [draws,N,...] -> [draws,...]; None: mean
    *,
    counts: ArrayLike
    | None = None,  # [N] how often each row occurs; then numbers of rows are drawn, for means only
    draws: int = 1000,  # bootstrap samples; the ends of 95 % are steady to about a tenth of the interval
    seed: int
    | np.random.Generator = 0,  # of the draws; a generator goes on, so that several calls draw differently
    level: float = 0.95,  # how often such an interval holds the true value, between 0 and 1
) -> np.ndarray:  # [2,...]: low and high ends
    """Percentile bootstrap interval over rows.

    With `counts` no row is copied, which saves memory with wide rows (`counts=np.ones(N)`) and time with few
    kinds of rows. The ends of a single number are those of the samples where it is not NaN.
    """
    _check_level(level)
    rows = np.asarray(values)
    if len(rows) == 0:
        raise DataError("there are no values, so there is no interval")
    rng = np.random.default_rng(seed)
    if counts is not None:
        if statistic is not None:
            raise SettingError("counts go with the mean, not with another statistic", subject="counts")
        drawn = _drawn_means(rows, np.asarray(counts), draws, rng)
    else:
        picked = rows[rng.integers(0, len(rows), (draws, len(rows)))]
        drawn = picked.mean(1) if statistic is None else np.asarray(statistic(picked))
    if drawn.ndim == 1:
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn) == 0:
            return np.array([np.nan, np.nan])
    tail = round((1 - level) / 2, 12)  # .025, not .025000000000000022
    return np.quantile(drawn, [tail, 1 - tail], axis=0)


def _drawn_means(rows: np.ndarray, counts: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means [draws,...] of as many rows as there are, drawn by number."""
    n = int(counts.sum())
    numbers = rng.multinomial(n, counts / n, size=draws)  # [draws,N]
    if np.issubdtype(rows.dtype, np.integer):
        return np.tensordot(numbers, rows, 1) / n  # exact, so that ties stay ties
    return np.einsum("dn,n...->d...", numbers / n, rows)


def mean_interval(
    values: ArrayLike,  # [N], one per clip; NaN are left out
    draws: int = 1000,  # bootstrap samples
    seed: int | np.random.Generator = 0,  # of the bootstrap
    level: float = 0.95,  # how often such an interval holds the mean, between 0 and 1
) -> tuple[float, float]:  # its ends; NaN for fewer than two values
    """Bootstrap interval of a mean over clips."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return np.nan, np.nan
    low, high = bootstrap_interval(known, draws=draws, seed=seed, level=level)
    return float(low), float(high)


def rank_rows(
    values: ArrayLike,  # [...,n]
) -> np.ndarray:  # the same shape, float; NaN stay NaN
    """Ranks from 1 along the last axis; ties share their mean rank."""
    from scipy.stats import rankdata

    return rankdata(np.asarray(values), axis=-1, nan_policy="omit")


def spearman(
    a: ArrayLike,  # [...,n]
    b: ArrayLike,  # [...,n]
) -> Any:  # [...], a float for single rows; NaN where one side does not vary
    """Spearman's rank correlation along the last axis, of many rows at once as a bootstrap needs it."""
    x = rank_rows(a)
    y = rank_rows(b)
    x = x - x.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.where(size > 0, (x * y).sum(-1) / np.where(size > 0, size, 1), np.nan)[()]


def rank_correlation(
    x: ArrayLike,  # [N], or [N,M] for M numbers per clip that are pooled
    y: ArrayLike,  # the same shape
    draws: int = 1000,  # bootstrap samples; whole clips are drawn
    seed: int | np.random.Generator = 0,  # of the bootstrap
) -> tuple[float, float, float]:  # rho, low, high; NaN where one side does not vary
    """Spearman's rank correlation over clips with a bootstrap interval."""
    a = np.asarray(x, float)
    b = np.asarray(y, float)
    if a.shape != b.shape:
        raise DataError(f"numbers of the shapes {a.shape} and {b.shape} cannot be paired")
    if len(a) < 3:
        raise DataError(f"{len(a)} clips are too few for a rank correlation", remedy="give at least 3")
    pairs = np.stack([a.reshape(len(a), -1), b.reshape(len(b), -1)], -1)  # [N,M,2]

    def rho(drawn: np.ndarray) -> np.ndarray:
        flat = drawn.reshape(len(drawn), -1, 2)
        return spearman(flat[..., 0], flat[..., 1])

    low, high = bootstrap_interval(pairs, rho, draws=draws, seed=seed)
    return float(rho(pairs[None])[0]), float(low), float(high)


def auc(
    scores: ArrayLike,  # [N]
    positive: ArrayLike,  # bool [N]
) -> float:  # chance .5; NaN when one side is empty
    """How often a positive scores higher than a negative; ties count half (Mann-Whitney)."""
    chosen = np.asarray(positive, bool)
    n = int(chosen.sum())
    if n in (0, len(chosen)):
        return np.nan
    total = rank_rows(scores)[chosen].sum()
    return float((total - n * (n + 1) / 2) / (n * (len(chosen) - n)))
