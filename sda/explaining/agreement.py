"""How far two networks agree on what they select for the same clips."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..foundation.errors import SettingError
from ..foundation.statistics import rank_correlation
from ..networks.blocks import DEPENDENCIES
from .trace import Trace

__all__ = ["seed_agreement"]


def _per_clip(trace: Trace, videos: Sequence[str]) -> np.ndarray:
    """Weights [n,R,4] of these videos, views averaged."""
    rows: dict[str, list[int]] = {video: [] for video in videos}
    for i, video in enumerate(trace.videos):
        if video in rows:
            rows[video].append(i)
    return np.stack([trace.weights[some].mean(0) for some in rows.values()])


def _same_largest(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """How often the largest weight [n,4] is the same dependency, and how often by chance."""
    tops = [np.eye(4)[np.nan_to_num(w, nan=-1).argmax(1)] for w in (a, b)]
    return float((tops[0] * tops[1]).sum(1).mean()), float((tops[0].mean(0) * tops[1].mean(0)).sum())


def seed_agreement(
    traces: Mapping[str, Trace],  # name of a checkpoint -> trace; two or more, of the same clips
    draws: int = 1000,  # bootstrap samples
    seed: int = 0,  # of the bootstrap
) -> pd.DataFrame:  # a, b, block ("all": mean over blocks), dependency, rho, low, high, apart, ..., n
    """How far checkpoints agree on the selection of the same clips."""
    if len(traces) < 2:
        raise SettingError("agreement needs the traces of at least two checkpoints")
    rows = []
    for (a, one), (b, two) in itertools.combinations(traces.items(), 2):
        if one.fingerprint == two.fingerprint:
            raise SettingError(f"{a} and {b} are traces of the same network", subject=b)
        if one.blocks != two.blocks:
            raise SettingError(f"{a} and {b} have other blocks: {one.blocks} and {two.blocks}")
        videos = [video for video in dict.fromkeys(one.videos) if video in set(two.videos)]
        if len(videos) < 3:
            raise SettingError(f"{a} and {b} share {len(videos)} clips; trace the same clips with both")
        x, y = (_per_clip(trace, videos) for trace in (one, two))
        rows_of = {"all": (x.mean(1), y.mean(1))}
        rows_of |= {name: (x[:, r], y[:, r]) for r, name in enumerate(one.blocks)}
        for (block, (u, v)), (d, dependency) in itertools.product(rows_of.items(), enumerate(DEPENDENCIES)):
            if np.isnan(u[:, d]).any() or np.isnan(v[:, d]).any():
                continue
            rho, low, high = rank_correlation(u[:, d], v[:, d], draws, seed)
            same, chance = _same_largest(u, v)
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "block": block,
                    "dependency": dependency,
                    "rho": rho,
                    "low": low,
                    "high": high,
                    "n": len(u),
                    "apart": np.abs(u[:, d] - v[:, d]).mean(),
                    "same largest": same,
                    "by chance": chance,
                }
            )
    return pd.DataFrame(rows).round(3)
