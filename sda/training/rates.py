"""The learning-rate range test as a callback: the rate rises at every step until the loss explodes."""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..foundation.errors import RunError, SettingError
from .callbacks import Callback, CancelRun
from .run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)


@dataclass
class RateSearch:
    """What a learning-rate search found."""

    table: pd.DataFrame  # one row per step: lr, loss (mean over the clips), smooth
    suggestion: float  # a tenth of the rate at which the smoothed loss was lowest
    diverged: bool  # whether the sweep went far enough to see the loss explode

    def figure(self) -> Figure:
        """Loss against rate, with the suggestion."""
        from sda.figures.training import fig_lr_sweep

        return fig_lr_sweep(self.table, self.suggestion)


def smooth(
    values: list[float],  # losses
    window: int = 7,  # odd
) -> np.ndarray:
    """Mean of each value and its neighbours; the ends are repeated, the window is odd."""
    padded = np.pad(np.asarray(values, dtype=float), window // 2, mode="edge")
    return np.convolve(padded, np.full(window, 1 / window), "valid")


class LRFinder(Callback):
    """Raises the learning rate at every step of a run with a constant rate, until the loss explodes."""

    def __init__(
        self,
        lowest: float = 1e-6,  # first rate
        highest: float = 10.0,  # last rate, unless the loss explodes before
        steps: int = 60,  # updates, each at a rate the same factor above the one before
    ):
        if not 0 < lowest < highest:
            raise SettingError(f"The rates must rise: lowest={lowest:g}, highest={highest:g}.")
        if steps < 10:
            raise SettingError(f"A search of {steps} steps shows nothing: take 10 at least, better 60.")
        self.rates: list[float] = np.geomspace(lowest, highest, steps).tolist()
        self.losses: list[float] = []
        self.diverged = False

    def fit_start(self, run: Run) -> None:
        """The first rate."""
        self._set_rate(run)

    def _set_rate(self, run: Run) -> None:
        for group in run.optimizer.param_groups:
            group["base_lr"] = group["lr_scale"] * self.rates[len(self.losses)]

    def step_end(self, run: Run) -> None:
        """Note the loss and take the next rate; the sweep is short, so it looks at every step."""
        loss = float(run.last.loss)
        if not math.isfinite(loss):
            self.diverged = True
            raise CancelRun
        self.losses.append(loss)
        self.diverged = bool(smooth(self.losses)[-1] > 4 * self.losses[0])
        if self.diverged or len(self.losses) == len(self.rates):
            raise CancelRun
        self._set_rate(run)

    def found(self) -> RateSearch:
        """The suggestion, after the run."""
        if len(self.losses) < 10:
            text = f"The loss exploded after {len(self.losses)} steps: start lower than"
            raise RunError(f"{text} lowest={self.rates[0]:g}.")
        if not self.diverged:
            _log.warning("the loss did not explode up to %g: the suggestion may be too low", self.rates[-1])
        smoothed = smooth(self.losses)
        table = pd.DataFrame({"lr": self.rates[: len(smoothed)], "loss": self.losses, "smooth": smoothed})
        return RateSearch(table, self.rates[int(np.argmin(smoothed))] / 10, self.diverged)


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """Python's, NumPy's and torch's random numbers go on as if the `with` block had not been."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
