"""How much each clip's answer owes to each dependency at each place, as one kind of table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..foundation.errors import DataError, unknown_name
from ..foundation.files import load_arrays, save_arrays
from ..networks.backbones import stage_of
from ..networks.blocks import DEPENDENCIES
from ..networks.named import output_names
from .answers import ReadClips
from .trace import Trace

__all__ = ["KINDS", "Attribution", "from_trace"]

KINDS = ("weight", "contribution", "gradient x weight", "first-order", "ablation", "shapley")

_FORMAT = "sda attribution 1"
_NAMES = ("kind", "clips", "places", "dependencies", "reading", "labels", "class_names")


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much the answer to each clip owes to each dependency at each place.

    A number is positive where the answer needs the dependency: left out, it would lose.
    """

    kind: str  # one of KINDS
    values: np.ndarray  # [N,P,M]; NaN where a place lacks the dependency, or has no other to stand in for it
    clips: list[str]  # N clip ids
    places: list[str]  # P blocks (with their frames in brackets where a clip is split), stages, or "all"
    dependencies: tuple[str, ...] = DEPENDENCIES  # M columns
    reading: str = ""  # what is explained; empty for weight and contribution, which read no answer
    labels: list[int] | None = None  # class that is read, of every clip
    class_names: list[str] = field(default_factory=list)  # K names
    logits: np.ndarray | None = None  # answers of the network as it is [N,K]

    def __post_init__(self) -> None:
        shape = (len(self.clips), len(self.places), len(self.dependencies))
        if self.values.shape != shape:
            raise DataError(f"{self.kind} has the shape {self.values.shape}, its names say {shape}")
        for name, rows in {"labels": self.labels, "logits": self.logits}.items():
            if rows is not None and len(rows) != len(self):
                raise DataError(f"{len(rows)} {name} for {len(self)} clips", subject=name)

    def __len__(self) -> int:
        return len(self.clips)

    def of_clips(
        self,
        rows: Sequence[int],  # which clips, in this order
    ) -> Attribution:
        """These clips only."""
        rows = list(rows)
        return replace(
            self,
            values=self.values[rows],
            clips=[self.clips[i] for i in rows],
            labels=None if self.labels is None else [self.labels[i] for i in rows],
            logits=None if self.logits is None else self.logits[rows],
        )

    def at(
        self,
        places: Sequence[str],  # stages, blocks, or "all"
    ) -> Attribution:  # with these places
        """Means over the blocks of every place."""
        means = []
        for place in places:
            rows = [i for i, block in enumerate(self.places) if place in _around(block)]
            if not rows:
                raise unknown_name("place", place, dict.fromkeys(n for b in self.places for n in _around(b)))
            means.append(self.values[:, rows].mean(1))
        return replace(self, values=np.stack(means, 1), places=list(places))

    def table(self) -> pd.DataFrame:
        """One row per clip, place and dependency that has a value."""
        N, P, M = self.values.shape
        classes: list[str | None] = [None] * N
        if self.labels is not None:
            names = output_names(self.class_names, max(self.labels, default=0) + 1)
            classes = [names[k] for k in self.labels]
        table = pd.DataFrame(
            {
                "kind": self.kind,
                "reading": self.reading,
                "clip": np.repeat(self.clips, P * M),
                "class": np.repeat(np.array(classes, object), P * M),
                "place": np.tile(np.repeat(self.places, M), N),
                "dependency": np.tile(self.dependencies, N * P),
                "value": self.values.reshape(-1),
            }
        )
        table = table[table.value.notna()].reset_index(drop=True)
        for name in ("place", "dependency"):  # in the order of the network, not of the alphabet
            table[name] = pd.Categorical(table[name], list(dict.fromkeys(table[name])), ordered=True)
        return table

    def by_class(self) -> pd.DataFrame:
        """Mean of every class that occurs, at every place, with the number of clips."""
        rows = self.table().pivot(index=["clip", "class", "place"], columns="dependency", values="value")
        groups = rows.groupby(["class", "place"], sort=False, observed=True)
        means = groups.mean()
        means.columns = list(means.columns)
        return means.assign(n=groups.size())

    def save(
        self,
        path: str | Path,  # file to write; it must end in .npz
    ) -> Path:
        """Write plain arrays and one JSON text; nothing in the file can run."""
        arrays = {"values": self.values}
        if self.logits is not None:
            arrays["logits"] = self.logits
        return save_arrays(path, _FORMAT, {name: getattr(self, name) for name in _NAMES}, arrays)

    @classmethod
    def load(
        cls,
        path: str | Path,  # file that `save` wrote
    ) -> Attribution:
        """Read a file; nothing is unpickled."""
        names, arrays = load_arrays(path, _FORMAT)
        try:
            fields = {name: names[name] for name in _NAMES} | {"dependencies": tuple(names["dependencies"])}
            return cls(**fields, values=arrays["values"], logits=arrays.get("logits"))
        except (KeyError, TypeError) as err:
            raise DataError(f"{path} is not a whole attribution", subject=str(path)) from err


def _around(block: str) -> tuple[str, ...]:
    """Places that a block belongs to, and its own name, with and without its frames."""
    return "all", stage_of(block), block.split("[")[0], block


def from_trace(
    trace: Trace,  # any trace; views of one video are averaged
    kind: str = "weight",  # or "contribution"
) -> Attribution:  # one row per video, one place per row of the trace
    """What was selected, or how much of the sum it made up."""
    values = {"weight": trace.weights, "contribution": trace.contribution()}
    if kind not in values:
        raise unknown_name("kind", kind, values)
    clips = list(dict.fromkeys(trace.videos))

    def per_video(rows: np.ndarray) -> np.ndarray:
        return rows if len(clips) == len(trace) else trace.per_video(rows)

    labels = None if trace.labels is None else per_video(np.array(trace.labels)).astype(int).tolist()
    return Attribution(
        kind,
        per_video(values[kind]),
        clips,
        trace.blocks,
        labels=labels,
        class_names=trace.class_names,
        logits=per_video(trace.logits),
    )


def explained(
    kind: str, values: np.ndarray, places: list[str], reading: str, about: ReadClips, logits: np.ndarray
) -> Attribution:
    """An attribution with what is known of its clips."""
    labels = about.labels.tolist()
    names = about.class_names
    return Attribution(
        kind,
        values,
        about.ids,
        places,
        DEPENDENCIES,
        reading,
        labels=labels,
        class_names=names,
        logits=logits,
    )
