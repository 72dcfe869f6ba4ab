"""What checks of clips are given, and what they give: numbers with intervals, sentences, curves."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ..foundation.errors import SettingError, unknown_name
from ..networks.backbones import VideoNet, list_models
from .cam import LAYER, METHOD, METHODS
from .faithfulness import maps_of
from .trace import Trace

__all__ = ["CheckInput", "CheckResult", "FaithfulnessReport"]


CHECKS = {  # check -> unit of its numbers
    "selection": "rank correlation with effect, within clips",
    "space": "space: insertion minus deletion, beyond random orders",
    "frames": "frames: insertion minus deletion, beyond random orders",
    "randomisation": "rank correlation with the map of random weights",
    "pointing": "share of clips in which the highest point of the map lies inside",
    "seeds": "rank correlation of the weights of two checkpoints, over clips",
}


@dataclass(frozen=True, eq=False)
class CheckInput:
    """A network and some clips whose pictures are to be checked."""

    model: VideoNet  # the network
    clips: Tensor  # [N,T,3,H,W], N >= 3
    labels: Sequence[int]  # class that is read for every clip: the true one, or the answer
    trace: Trace | None = None  # what it selected for these clips, one row each
    other: Trace | None = None  # what another checkpoint selected for them
    masks: Mapping[str, np.ndarray] | None = (
        None  # name -> bool [N,T,H,W] of where to point, see `clip_masks`
    )
    layer: str = LAYER  # of the map
    method: str = METHOD  # of the map, key of sda.explaining.cam.METHODS
    draws: int = 2  # random orders of deletion and insertion
    steps: int = 5  # how many times something is deleted
    together: int = 4  # clips at a time, so that nobody waits long for a step

    def __post_init__(self) -> None:
        if len(self.clips) < 3:
            raise SettingError(
                f"{len(self.clips)} clips are too few to measure agreement; loosen the filters"
            )
        if len(self.labels) != len(self.clips):
            raise SettingError(f"{len(self.labels)} labels for {len(self.clips)} clips")
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)

    @property
    def map_options(self) -> dict[str, Any]:
        """Layer and method of the checked maps: the default method where the asked one is too slow."""
        return {"layer": self.layer, "method": self.method if METHODS[self.method] else METHOD}

    @property
    def note(self) -> str:
        """What sentences about maps add when they are not those that were asked for; else nothing."""
        used = self.map_options["method"]
        if used == self.method:
            return ""
        return f" Measured on maps of {used}: those of {self.method} would take minutes."

    @property
    def map_name(self) -> str:
        """What tables and pictures call the map."""
        return f"map of {self.map_options['method']}" if self.note else "this map"

    @cached_property
    def maps(self) -> np.ndarray:
        """The maps that are checked [N,T,h,w]."""
        return maps_of(self.model, self.clips, list(map(int, self.labels)), **self.map_options)


@dataclass(frozen=True)
class CheckResult:
    """One number about some clips."""

    check: str  # key of CHECKS
    what: str  # what was measured
    value: float  # see CHECKS for its unit
    low: float  # 95 % bootstrap interval over clips, NaN where there is none
    high: float
    n: int  # clips
    control: bool = False  # whether it is there to be compared with


@dataclass(frozen=True, eq=False)
class FaithfulnessReport:
    """What is known so far about how far some clips' pictures can be believed."""

    n: int  # clips
    results: tuple[CheckResult, ...] = ()
    words: dict[str, str] = field(default_factory=dict)  # check -> its outcome in a sentence
    missing: dict[str, str] = field(default_factory=dict)  # check -> why it cannot be made
    curves: tuple[pd.DataFrame, ...] = ()  # deletion and insertion, see sda.explaining.faithfulness

    def table(self) -> pd.DataFrame:
        """One row per number."""
        rows = [vars(result) | {"unit": CHECKS[result.check]} for result in self.results]
        return pd.DataFrame(rows, columns=[*CheckResult.__dataclass_fields__, "unit"])

    def curves_over(
        self,
        over: str,  # "space" or "frames"
    ) -> pd.DataFrame:  # see sda.explaining.faithfulness.deletion_insertion
        """The curves of deletion and insertion."""
        for curves in self.curves:
            if curves["over"].iloc[0] == over:
                return curves
        raise SettingError(f"no curve over {over} was measured yet")

    def lines(self) -> list[str]:
        """What was found, and what could not be measured, in plain sentences."""
        return [*self.words.values(), *(f"Not measured: {why}." for why in self.missing.values())]


Outcome = tuple[list[CheckResult], str, list[pd.DataFrame]]  # results, a sentence, curves


Check = Generator[str, None, Outcome]  # says what it is about to do, and returns its outcome


def result_of(
    check: str, what: str, numbers: Iterable[float], n: float, control: bool = False
) -> CheckResult:
    """A result from a row of a table: value, low, high."""
    value, low, high = map(float, numbers)
    return CheckResult(check, what, value, low, high, int(n), control)


def no_blocks(
    name: str,  # of a model
) -> str:  # a sentence
    """What to say of a network without SDA blocks."""
    names = list_models("sda_*")
    return (
        f"{name} has no SDA blocks, so it selects nothing; networks whose names begin with sda_ do, such as "
        f"sda_tsn_tiny and {names[0]} (list_models names all {len(names)})"
    )
