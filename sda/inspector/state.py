"""What the inspector looks at: the table of clips, its filters, the settings of pictures, the actions."""

import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from traitlets import CFloat, Dict, Enum, HasTraits, Int, List, TraitError, Unicode, validate

from ..explaining import interventions
from ..explaining.cam import METHODS, clip_cam
from ..explaining.trace import Trace
from ..foundation.errors import SettingError, unknown_name
from ..foundation.statistics import softmax
from ..networks.blocks import DEPENDENCIES

__all__ = ["InspectorState"]


def clip_table(
    trace: Trace,  # of the whole dataset
    effects: pd.Series | None = None,  # video -> change of the true class's probability, if measured
) -> pd.DataFrame:  # one row per video, in the order of the trace
    """What the network did with every video: answer, confidence, and how it selected."""
    videos = list(dict.fromkeys(trace.videos))
    rows = (
        [[i for i, v in enumerate(trace.videos) if v == video] for video in videos]
        if len(videos) < len(trace)
        else [[i] for i in range(len(videos))]
    )
    p = np.stack([softmax(trace.logits[r]).mean(0) for r in rows])  # [N,K], views averaged
    names = trace.class_names or [f"class {k}" for k in range(p.shape[1])]
    best = p.argmax(1)
    labels = None if trace.labels is None else [trace.labels[r[0]] for r in rows]
    true = [None] * len(rows) if labels is None else [names[k] for k in labels]
    table = pd.DataFrame(
        {
            "video": videos,
            "true": true,
            "predicted": [names[k] for k in best],
            "confidence": p.max(1),
            "margin": margins(p, labels),
        }
    )
    table["right"] = (
        (table.true == table.predicted).astype("boolean").where(table.true.notna())
    )  # unknown: neither
    if trace.blocks:
        table = table.join(_selection_columns(trace, rows, table.true))
    if effects is not None:
        table = table.join(effects.rename("effect"), on="video")
    table.attrs["class_names"] = list(names)
    return table


def margins(p: np.ndarray, labels: list[int] | None) -> np.ndarray:
    """Probability of the true class (or of the answer) minus that of its strongest rival [N]."""
    mine = p.argmax(1) if labels is None else np.array(labels)
    rows = np.arange(len(p))
    rivals = p.copy()
    rivals[rows, mine] = -1
    return p[rows, mine] - rivals.max(1)


def _selection_columns(trace: Trace, rows: list[list[int]], true: pd.Series) -> pd.DataFrame:
    """Mean entropy, the dependency of the largest mean weight, and the distance from the class mean."""
    weights = np.stack([trace.weights[r].mean(0) for r in rows])  # [N,R,4]
    flat = pd.DataFrame(np.nan_to_num(weights.reshape(len(weights), -1)))
    mean = flat.groupby(true.to_numpy()).transform("mean") if true.notna().all() else flat.mean()
    top = np.nan_to_num(weights.mean(1), nan=-1).argmax(1)
    return pd.DataFrame(
        {
            "entropy": [float(trace.entropy()[r].mean()) for r in rows],
            "dominant": [trace.dependencies[m] for m in top],
            "distance": np.sqrt(((flat - mean) ** 2).sum(axis=1)),
        }
    )


OUTCOMES = ("all", "right", "wrong")


SORTS = ("list", "margin", "confidence", "entropy", "distance", "effect")


_HOW = {"effect": " yet; press 'Change all that fit' first, or give clip_table effects="}


_RISING = ("margin", "entropy", "effect")  # the most doubtful, the most decided, the greatest loss first


def known_name(kind: str, value: str | None, choices: Sequence[str]) -> None:
    """Refuse a name that does not exist, with the nearest one."""
    if value and value not in choices:
        raise unknown_name(kind, value, list(choices))


def find_clips(
    clips: Trace | pd.DataFrame,  # a trace, or its `clip_table`
    text: str = "",  # part of the clip's id
    true: str | None = None,  # true class
    predicted: str | None = None,  # answered class
    outcome: str = "all",  # one of OUTCOMES; clips without a true class are neither right nor wrong
    confidence: tuple[float, float] = (0, 1),  # range of the answer's probability
    entropy: tuple[float, float] = (0, 1),  # range of the mean entropy of the blocks
    dominant: str | None = None,  # dependency of the largest mean weight
    sort: str = "list",  # one of SORTS; "list" keeps the order of the dataset
) -> pd.DataFrame:  # the rows of `clip_table` that fit; perhaps none
    """The clips that fit every condition."""
    table = clip_table(clips) if isinstance(clips, Trace) else clips
    names = table.attrs.get("class_names") or [*table.true.dropna().unique(), *table.predicted.unique()]
    for kind, value, choices in (
        ("class", true, names),
        ("class", predicted, names),
        ("outcome", outcome, OUTCOMES),
        ("dependency", dominant, DEPENDENCIES),
        ("order", sort, SORTS),
    ):
        known_name(kind, value, choices)
    if sort != "list" and sort not in table:
        raise SettingError(f"nothing to sort by: this table has no {sort}{_HOW.get(sort, '')}")
    keep = table.video.str.contains(text, regex=False, case=False)
    for column, value in (("true", true), ("predicted", predicted), ("dominant", dominant)):
        if value:
            keep &= table[column] == value
    if outcome != "all":
        keep &= (table.right == (outcome == "right")).fillna(False).astype(bool)
    for column, (low, high) in (("confidence", confidence), ("entropy", entropy)):
        if column in table:
            keep &= table[column].between(low - 1e-9, high + 1e-9)
    found = table[keep]
    return found if sort == "list" else found.sort_values(sort, ascending=sort in _RISING, kind="stable")


OVERLAYS = ("none", "Grad-CAM", "gate")


TARGETS = ("true", "predicted", "runner-up", "difference")


SCALES = ("clip", "frame", "shared")


VIEWS = ("weight", "contribution", "effect", "triptych", "by stage", "minus class mean", "minus mean")


COMPARE = ("clip", "checkpoint")


MAP_OPTIONS = inspect.signature(
    clip_cam
).parameters  # the panel starts with the map that sda.explaining.cam recommends


class InspectorState(HasTraits):
    """What is being looked at; plain values that survive a trip through JSON."""

    clip_id = Unicode(help="clip A")
    compare_id = Unicode(help="clip B, empty for none")
    compare = Enum(COMPARE, "clip", help="what stands beside clip A")
    filters = Dict(help="keywords of find_clips")
    overlay = Enum(OVERLAYS, "none", help="what lies over the frames")
    layer = Unicode(MAP_OPTIONS["layer"].default, help="layer of the map; for the gate, an SDA block")
    target = Enum(TARGETS, "predicted", help="class whose evidence is shown")
    method = Enum(tuple(METHODS), MAP_OPTIONS["method"].default, help="how the map is made")
    scale = Enum(SCALES, "clip", help="what the brightest colour stands for")
    opacity = CFloat(0.6, help="of the map over the frame")
    frame = Int(0, help="frame that is shown large")
    view = Enum(VIEWS, "weight", help="what the selection table shows")
    scope = Unicode("all", help="all, a stage or a block")
    action = Unicode("drop LT", help="what to change there")
    weights = List(CFloat(), [0.25] * 4, minlen=4, maxlen=4, help="of the action 'my weights'")

    @validate("opacity")
    def _opacity(self, proposal: dict) -> float:
        if not 0 <= proposal["value"] <= 1:
            raise TraitError(f"opacity {proposal['value']} is outside 0..1")
        return proposal["value"]

    @validate("weights")
    def _weights(self, proposal: dict) -> list[float]:
        w = proposal["value"]
        if not all(math.isfinite(v) and v >= 0 for v in w) or sum(w) <= 0:
            raise TraitError(f"weights {w} must be four numbers, none negative, not all zero")
        return w

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The fields in order."""
        return tuple(cls.class_trait_names())

    def to_json(self) -> str:
        """The state as JSON text."""
        return json.dumps({name: getattr(self, name) for name in self.names()}, indent=1, default=list)

    def load_json(self, text: str) -> None:
        """Take over a state; all of it or, with one clear error, nothing."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as err:
            raise SettingError(f"this is not JSON ({err}); paste a whole saved state") from err
        if not isinstance(values, dict):
            raise SettingError("a state is a JSON object with names and values")
        for name in values:
            known_name("setting", name, self.names())
        type(self)(**values)  # refuses what cannot be, before anything changes
        with self.hold_trait_notifications():
            for name, value in values.items():
                setattr(self, name, value)


def one_line(state: InspectorState) -> str:
    """The state as JSON on one line."""
    return json.dumps(json.loads(state.to_json()))


# These change the clip, so the scope does not matter to them.
_FRAMES = {
    "reverse the frames": interventions.reverse,
    "shuffle the frames": interventions.shuffle,
    "freeze the first frame": interventions.freeze,
    "shuffle 4x4 tiles": interventions.patch_shuffle,
    "blur": interventions.blur,
}


ACTIONS = (
    *(f"drop {d}" for d in DEPENDENCIES),
    *(f"keep only {d}" for d in DEPENDENCIES),
    "uniform",
    "weights of its class",
    "weights of clip B",
    "my weights",
    "temperature 2",
    *_FRAMES,
)


def make_intervention(
    action: str,  # one of ACTIONS
    scope: str = "all",  # "all", a stage or a block
    weights: Sequence[float] = (1, 1, 1, 1),  # of "my weights"; made to sum to 1
    own: tuple[Trace, str | None] | None = None,  # trace with class means, and the clip's true class
    lender: tuple[Trace, str] | None = None,  # trace that has clip B, and its id
) -> interventions.Intervention:  # for `measure`
    """What an entry of the panel's list means."""
    known_name("action", action, ACTIONS)
    if action in _FRAMES:
        return _FRAMES[action]()
    if action.startswith("drop "):
        return interventions.drop(action.removeprefix("drop "), where=scope)
    if action.startswith("keep only "):
        return interventions.keep(action.removeprefix("keep only "), where=scope)
    if action == "uniform":
        return interventions.uniform(scope)
    if action == "temperature 2":
        return interventions.temperature(2.0, scope)
    if action == "my weights":
        named = dict(zip(DEPENDENCIES, np.array(weights) / sum(weights), strict=True))
        place = "" if scope == "all" else f" in {scope}"
        said = " ".join(f"{name} {w:.2f}" for name, w in named.items())
        return replace(interventions.set_weights(list(named.values()), scope), name=f"weights {said}{place}")
    if action == "weights of its class":
        trace, true = own or (None, None)
        if trace is None or true is None:
            raise SettingError("the true class of this clip is not known")
        return interventions.from_class(trace, true, where=scope)
    if lender is None:
        raise SettingError("choose a clip B to take the weights from")
    return interventions.from_clip(*lender, where=scope)
