"""Trainings from several seeds: their records and explanations, accuracy by need, gains of one on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..foundation.errors import FolderError
from ..foundation.reading import read_arrays
from ..foundation.runs import load_records
from ..foundation.statistics import t_interval
from ..moves.classes import CLASSES, NEEDS
from ..testing.predictions import Predictions

__all__ = ["PAIR_OF", "SeedRun", "load_runs", "by_seed", "in_words", "gain_over_seeds"]

PAIR_OF = {c.name: c.pair for c in CLASSES}  # class of Moves -> its pair


@dataclass(eq=False)
class SeedRun:
    """One training of the evidence: its record, its answers, and its explanations."""

    name: str  # STEM-sSEED
    record: dict[str, Any]  # see `sda.foundation.runs`
    folder: Path  # where the arrays lie

    @cached_property
    def predictions(self) -> Predictions:
        """Answers to the test clips."""
        return Predictions.load(self.folder / f"{self.name}.npz")

    @property
    def explained(self) -> bool:
        """Whether its explanations are there."""
        return (self.folder / f"{self.name}-explain.npz").exists()

    @cached_property
    def explanations(self) -> dict[str, np.ndarray]:
        """What is kept of every explained test clip, from `benchmarks/evidence.py --explain`."""
        path = self.folder / f"{self.name}-explain.npz"
        if not self.explained:
            remedy = "python benchmarks/evidence.py --explain"
            raise FolderError(
                f"{self.name} was not explained yet: {remedy}", subject=str(path), remedy=remedy
            )
        return read_arrays(path)

    @property
    def classes(self) -> np.ndarray:
        """Class of every clip that was explained."""
        return self.explanations["class_names"][self.explanations["labels"]]

    @property
    def pairs(self) -> np.ndarray:
        """Pair of classes of every clip that was explained."""
        return np.array([PAIR_OF[name] for name in self.classes])


def load_runs(
    folder: str | Path,  # with NAME.json and NAME.npz of every run
) -> dict[str, list[SeedRun]]:  # stem -> runs by seed
    """All trainings of the evidence."""
    folder = Path(folder)
    found: dict[str, list[SeedRun]] = {}
    for record in load_records(folder):
        if name := record.get("run"):
            found.setdefault(name.rsplit("-s", 1)[0], []).append(SeedRun(name, record, folder))
    if not found:
        raise FolderError(
            f"there are no runs in {folder}; `make evidence` trains them",
            subject=str(folder),
            remedy="`make evidence` trains them",
        )
    return {stem: sorted(runs, key=lambda r: r.record["seed"]) for stem, runs in sorted(found.items())}


def by_seed(
    runs: Sequence[SeedRun],  # one training from several seeds
) -> pd.DataFrame:  # one row per seed: all, then the needs of Moves
    """Top-1 of every seed, over all test clips and by need."""
    rows = {}
    for run in runs:
        metrics = run.record["metrics"]
        needs = {need: metrics["by_need"][need] for need in NEEDS}
        rows[run.record["seed"]] = {"all": metrics["top1"], **needs}
    return pd.DataFrame(rows).T.rename_axis("seed")


def in_words(
    values: Sequence[float],  # shares, one per seed
) -> str:  # "79.2 ± 1.4": percent, half the interval; the half is absent for a single seed
    """Mean and half the 95 % interval, in percent."""
    mean, low, _ = t_interval(values)
    return f"{100 * mean:.1f}" + ("" if np.isnan(low) else f" ± {100 * (mean - low):.1f}")


def gain_over_seeds(
    first: Sequence[SeedRun],  # a training from several seeds
    second: Sequence[SeedRun],  # another, from the same seeds; seeds that only one has are left out
    column: str = "all",  # all, or a need
) -> dict[str, Any]:  # difference with interval, seeds, won seeds, p of the paired t-test
    """Second minus first, paired by seed."""
    from scipy.stats import ttest_1samp  # here, for it is slow to import

    gains = (by_seed(second)[column] - by_seed(first)[column]).dropna()
    mean, low, high = t_interval(gains)
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "seeds": len(gains),
        "won": int((gains > 0).sum()),
        "p": float(ttest_1samp(gains, 0).pvalue) if len(gains) > 1 else np.nan,
    }
