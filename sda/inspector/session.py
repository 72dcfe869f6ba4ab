"""Choose a clip, see what the network selected for it, change that, and keep what you found"""

__all__ = [
    "log",
    "OUTCOMES",
    "SORTS",
    "OVERLAYS",
    "TARGETS",
    "SCALES",
    "VIEWS",
    "COMPARE",
    "ACTIONS",
    "MAX_UPLOAD",
    "NO_OTHER",
    "MOST_MEASURED",
    "PANELS",
    "BESIDE",
    "PRESETS",
    "MEASURED",
    "clip_table",
    "find_clips",
    "InspectorState",
    "make_intervention",
    "Seen",
    "Chosen",
    "Provider",
    "trace_any",
    "chosen_of",
    "video_suffix",
    "Remembered",
    "ModelProvider",
    "rows_of",
    "effect_row",
    "joined",
    "draw_strip",
    "draw_frame",
    "draw_prediction",
    "draw_strip_b",
    "draw_prediction_b",
    "standing",
    "draw_selection",
    "draw_compare",
    "draw",
    "fig_log",
    "partner",
    "sidecar",
    "stacked",
    "Inspector",
    "inspect_folder",
]

import base64
import difflib
import hashlib
import inspect
import io
import json
import logging
import math
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from traitlets import CFloat, Dict, Enum, HasTraits, Int, List, TraitError, Unicode, validate

from .. import __version__
from ..data.datasets import ClipDataset, open_dataset
from ..data.lists import Record, read_classes, read_pairs
from ..data.sampling import Sampling
from ..data.transforms import TransformConfig
from ..explaining import effects as probes
from ..explaining.cam import METHODS, ClipCam, cam_layers, clip_cam, shared_top
from ..explaining.faithfulness import truth_masks
from ..explaining.trace import Trace, check_model, fingerprint, trace_clips
from ..explaining.verdicts import Trial, Verdicts, judge, no_blocks
from ..figures.clips import fig_cam_strip, fig_clip, fig_top_k
from ..figures.effects import fig_checks, fig_curves, fig_interventions, fig_triptych
from ..figures.style import FONT, HeatTable, fig_tables, new_figure, to_png
from ..foundation.errors import unknown_name
from ..foundation.files import check_folder
from ..networks.backbones import VideoNet, sda_blocks, stage_of
from ..networks.blocks import DEPENDENCIES
from ..networks.checkpoints import load_model
from ..testing.evaluate import evaluate, softmax

log = logging.getLogger(__name__)


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
            "margin": _margins(p, labels),
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


def _margins(p: np.ndarray, labels: list[int] | None) -> np.ndarray:
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


def _known(kind: str, value: str | None, choices: Sequence[str]) -> None:
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
        _known(kind, value, choices)
    if sort != "list" and sort not in table:
        raise ValueError(f"nothing to sort by: this table has no {sort}{_HOW.get(sort, '')}")
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


class _Saved(HasTraits):
    """Settings that go out as JSON text and come in again."""

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
        except ValueError as err:
            raise ValueError(f"this is not JSON ({err}); paste a whole saved state") from err
        if not isinstance(values, dict):
            raise ValueError("a state is a JSON object with names and values")
        for name in values:
            _known("setting", name, self.names())
        type(self)(**values)  # refuses what cannot be, before anything changes
        with self.hold_trait_notifications():
            for name, value in values.items():
                setattr(self, name, value)


OVERLAYS = ("none", "Grad-CAM", "gate")
TARGETS = ("true", "predicted", "runner-up", "difference")
SCALES = ("clip", "frame", "shared")
VIEWS = ("weight", "contribution", "effect", "triptych", "by stage", "minus class mean", "minus mean")
COMPARE = ("clip", "checkpoint")
_MAP = inspect.signature(
    clip_cam
).parameters  # the panel starts with the map that sda.explaining.cam recommends


class InspectorState(_Saved):
    """What is being looked at; plain values that survive a trip through JSON."""

    clip_id = Unicode(help="clip A")
    compare_id = Unicode(help="clip B, empty for none")
    compare = Enum(COMPARE, "clip", help="what stands beside clip A")
    filters = Dict(help="keywords of find_clips")
    overlay = Enum(OVERLAYS, "none", help="what lies over the frames")
    layer = Unicode(_MAP["layer"].default, help="layer of the map; for the gate, an SDA block")
    target = Enum(TARGETS, "predicted", help="class whose evidence is shown")
    method = Enum(tuple(METHODS), _MAP["method"].default, help="how the map is made")
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


# These change the clip, so the scope does not matter to them.
_FRAMES = {
    "reverse the frames": probes.reverse,
    "shuffle the frames": probes.shuffle,
    "freeze the first frame": probes.freeze,
    "shuffle 4x4 tiles": probes.patch_shuffle,
    "blur": probes.blur,
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
) -> probes.Intervention:  # for `sda.explaining.effects.measure`
    """What an entry of the panel's list means."""
    _known("action", action, ACTIONS)
    if action in _FRAMES:
        return _FRAMES[action]()
    if action.startswith("drop "):
        return probes.drop(action.removeprefix("drop "), where=scope)
    if action.startswith("keep only "):
        return probes.keep(action.removeprefix("keep only "), where=scope)
    if action == "uniform":
        return probes.uniform(scope)
    if action == "temperature 2":
        return probes.temperature(2.0, scope)
    if action == "my weights":
        named = dict(zip(DEPENDENCIES, np.array(weights) / sum(weights), strict=True))
        place = "" if scope == "all" else f" in {scope}"
        said = " ".join(f"{name} {w:.2f}" for name, w in named.items())
        return replace(probes.given(list(named.values()), scope), name=f"weights {said}{place}")
    if action == "weights of its class":
        if own is None or own[1] is None:
            raise ValueError("the true class of this clip is not known")
        return probes.from_class(*own, where=scope)
    if lender is None:
        raise ValueError("choose a clip B to take the weights from")
    return probes.from_clip(*lender, where=scope)


@dataclass(frozen=True, eq=False)
class Seen:
    """A clip as the network gets it."""

    id: str  # clip id
    clip: Tensor  # normalised [T,3,H,W]
    frames: np.ndarray  # uint8 [T,H,W,3], the same pixels for people
    indices: list[int]  # position of every frame in its file
    times: np.ndarray | None  # seconds of every frame, None where the source has no clock
    label: int | None  # true class, if known


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one network selected and answered for one clip, averaged over its views."""

    weights: np.ndarray  # [R,4]
    contribution: np.ndarray  # [R,4]
    entropy: np.ndarray  # [R]
    probabilities: np.ndarray  # [K]
    blocks: list[str]  # R names
    views: int  # views behind the means
    spread: float  # largest range of a weight over the views


class _Looks(Protocol):
    """What there is to look at; part of `Provider`."""

    def ids(self) -> list[str]:
        """All clips."""
        ...

    def seen(self, clip_id: str) -> Seen:
        """The clip as the network gets it."""
        ...  # one of `ids`

    def chosen(self, clip_id: str, other: bool = False) -> Chosen:
        """What was selected for it."""
        ...

    def layers(self) -> dict[str, str]:
        """Layers that a map can be made at, with their shapes in words."""
        ...

    def cam(self, clip_id: str, target: str, layer: str, method: str, other: bool = False) -> ClipCam:
        """Evidence for a class."""
        ...

    def gate(self, clip_id: str, block: str, other: bool = False) -> ClipCam:
        """The gate of an SDA block."""
        ...


class Provider(_Looks, Protocol):
    """What the panel needs to know; `ModelProvider` answers with a network and a dataset."""

    trace: Trace  # of the dataset
    other: Trace | None  # of checkpoint B on the same clips
    name: str  # of the checkpoint, for captions
    class_names: list[str]  # in label order

    def effects(self, clip_id: str) -> np.ndarray:  # one of `ids`
        """Change of the true class's probability [R,4] per drop."""
        ...

    def intervene(
        self,
        ids: Sequence[str],  # clips
        scope: str,  # "all", a stage or a block
        action: str,  # one of ACTIONS
        weights: Sequence[float],  # of "my weights", four numbers
        compare_id: str,  # clip B, "" for none
    ) -> probes.Effect:
        """What a change of the selection or of the frames does."""
        ...

    def trust(
        self,
        ids: Sequence[str],  # clips, at least 3
        most: int,  # at most so many of them, drawn by a fixed seed
        layer: str,  # of the map
        method: str,  # of the map, key of sda.explaining.cam.METHODS
    ) -> Iterator[tuple[str, Verdicts]]:
        """How far the pictures of these clips can be trusted, a step at a time."""
        ...

    def add(
        self,
        name: str,  # as the person calls the file
        content: bytes,  # the file, at most MAX_UPLOAD
    ) -> str:
        """A clip of one's own; its id."""
        ...

    def add_path(self, path: str | Path) -> str:
        """A clip from a path on this machine; its id."""
        ...  # file or folder

    def close(self) -> None:
        """Forget everything."""
        ...


def trace_any(
    model: nn.Module,  # any VideoNet
    data: ClipDataset,  # test clips
) -> Trace:  # without blocks where the network has none
    """A trace, or for a network without SDA blocks just its answers under the same names."""
    if sda_blocks(model):
        return trace_clips(model, data)
    found = evaluate(model, data, progress=False)
    N, V, K = found.logits.shape
    empty = {name: np.zeros((N * V, 0, 4), np.float32) for name in ("weights", "scores", "response_norm")}
    empty |= {name: np.zeros((N * V, 0), np.float32) for name in ("gate_mean", "gate_std")}
    return Trace(
        **empty,
        logits=found.logits.reshape(N * V, K),
        videos=list(np.repeat(found.ids, V)),
        views=list(range(V)) * N,
        labels=[int(k) for k in np.repeat(found.labels, V)],
        blocks=[],
        class_names=found.class_names,
        model=model.name,
        fingerprint=fingerprint(model),
    )


def chosen_of(
    trace: Trace,  # any trace
    clip_id: str,  # one of its videos
) -> Chosen:  # means over the clip's views
    """What one clip selected."""
    rows = [i for i, video in enumerate(trace.videos) if video == clip_id]
    if not rows:
        raise ValueError(_unknown_clip(clip_id, trace.videos))
    weights = trace.weights[rows]
    spread = float(np.nanmax(np.ptp(weights, axis=0))) if weights.size and len(rows) > 1 else 0.0
    return Chosen(
        weights.mean(0),
        trace.contribution()[rows].mean(0),
        trace.entropy()[rows].mean(0),
        softmax(trace.logits[rows]).mean(0),
        trace.blocks,
        len(rows),
        spread,
    )


def _unknown_clip(clip_id: str, ids: Sequence[str]) -> str:
    """A sentence with the nearest clips."""
    near = difflib.get_close_matches(clip_id, ids, n=3, cutoff=0.4) or list(ids[:3])
    return f"there is no clip {clip_id!r}; nearest: {', '.join(near)}"


MAX_UPLOAD = 8_000_000  # bytes; notebook servers cut a connection that sends 10 MB at once
_STARTS = (
    (0, b"\x1a\x45\xdf\xa3", ".mkv"),
    (0, b"\0\0\1\xba", ".mpg"),
    (0, b"\0\0\1\xb3", ".mpg"),
    (8, b"AVI ", ".avi"),
    *((4, word, ".mp4") for word in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")),
)


def video_suffix(
    name: str,  # as the person calls the file; for messages only
    content: bytes,  # the file
) -> str:  # ".mp4", ".mkv", ".avi" or ".mpg"; ValueError for anything else
    """What kind of video these bytes are."""
    if len(content) > MAX_UPLOAD:
        raise ValueError(
            f"{name} has {len(content) / 1e6:.0f} MB, at most {MAX_UPLOAD / 1e6:.0f} MB are taken; "
            "cut it, or give its path instead"
        )
    for offset, start, suffix in _STARTS:
        if content[offset : offset + len(start)] == start:
            return suffix
    raise ValueError(f"{name} is not a video (mp4, mov, mkv, webm, avi or mpg), whatever its name says")


class Remembered:
    """The last results by key; the oldest leaves first."""

    def __init__(self, most: int = 64):  # results that are kept
        self.most = most
        self.kept = OrderedDict()

    def get(
        self,
        key: tuple,  # what it depends on
        make: Callable[[], Any],  # called when it is not known
    ) -> Any:  # the result
        """A known result, or a new one."""
        if key not in self.kept:
            self.kept[key] = make()
            if len(self.kept) > self.most:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


class _Kept:
    """The clips of a dataset, and those that people add."""

    def __init__(self, data: ClipDataset):
        self.data = data
        self.known = {record.id: i for i, record in enumerate(data.records)}
        self.added = {}
        self.folder = None

    def ids(self) -> list[str]:
        return [*self.known, *self.added]

    def place(self, clip_id: str) -> tuple[ClipDataset, int]:
        """The dataset and the position of a clip."""
        if clip_id in self.added:
            return self.added[clip_id], 0
        if clip_id not in self.known:
            raise ValueError(_unknown_clip(clip_id, self.ids()))
        return self.data, self.known[clip_id]

    def add_path(self, path: str | Path) -> str:
        """A file or a folder of frames as a clip without a true class."""
        path = Path(path).expanduser()
        clip_id = path.name
        while clip_id in self.known or clip_id in self.added:
            clip_id = f"my {clip_id}"
        d = self.data
        one = ClipDataset([Record(clip_id, str(path), 0)], d.class_names, d.sampling, d.transform_config)
        _ = one[0]  # decodes it: an unreadable clip is refused now
        self.added[clip_id] = one
        return clip_id

    def add(self, name: str, content: bytes) -> str:
        """Bytes as a file in a folder of ours."""
        suffix = video_suffix(name, content)
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix="sda-inspector-")
        stem = "".join(c if c.isalnum() else "_" for c in Path(name).stem)[:60] or "clip"
        file = Path(self.folder.name) / f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}"
        file.write_bytes(content)
        return self.add_path(file)


class _Clips(_Kept):
    """The same, decoded."""

    def seen(self, clip_id: str) -> Seen:
        """Decode a clip and turn what the network gets back into pictures."""
        data, i = self.place(clip_id)
        loaded = data.load(i)
        label = None if clip_id in self.added else loaded.label
        return Seen(clip_id, loaded.clip[0], loaded.frames, loaded.indices[0], loaded.times, label)

    def close(self) -> None:
        """Remove the files that people uploaded."""
        if self.folder:
            self.folder.cleanup()
        self.added = {}
        self.folder = None


class _Answers:
    """A network, a dataset and what the one did with the other."""

    def __init__(
        self,
        model: VideoNet,
        data: ClipDataset,
        trace: Trace | None = None,
        other: VideoNet | None = None,
        name: str = "",
        pairs: Sequence[tuple[str, str]] = (),
        truth: str | Path | None = None,
    ):
        if data.train:
            raise ValueError("training clips are random; open the dataset with train=False")
        self.model = model
        self.other_model = other
        self.clips = _Clips(data)
        self.name = name or model.name
        self.class_names = list(data.class_names)
        self.cache = Remembered()
        self.pairs = pairs
        self.draws = 10
        # clip id -> KnockOuts; see sda.explaining.faithfulness; what was opened; options of sda.explaining.verdicts.Trial
        self.known = {}
        self.truth = truth
        self.where = {}
        self.trial = {}
        self.trace = trace_any(model, data) if trace is None else trace
        check_model(self.trace, model)
        if missing := [v for v in self.clips.known if v not in set(self.trace.videos)]:
            raise ValueError(
                f"the trace lacks {len(missing)} of {len(self.clips.known)} clips, the first is "
                f"{missing[0]}; trace this dataset again"
            )
        self.other = None if other is None else trace_any(other, data)

    def ids(self) -> list[str]:
        """All clips, one's own last."""
        return self.clips.ids()

    def seen(self, clip_id: str) -> Seen:
        """The clip as the network gets it."""
        return self.cache.get(("seen", clip_id), lambda: self.clips.seen(clip_id))

    def close(self) -> None:
        """Forget clips of one's own and what was computed."""
        self.clips.close()
        for kept in (self.cache.kept, self.known):
            kept.clear()


NO_OTHER = "there is no checkpoint B; open the inspector with other="


class _Selections(_Answers):
    """Clips of one's own, and what was selected for any clip."""

    def add(self, name: str, content: bytes) -> str:
        """Take an uploaded file; its id."""
        return self.clips.add(name, content)

    def add_path(self, path: str | Path) -> str:
        """Take a file or a folder of frames of this machine; its id."""
        return self.clips.add_path(path)

    def _traced(self, clip_id: str, other: bool) -> Trace:
        """The trace that has this clip: the dataset's, or one made for a clip of one's own."""
        if other and self.other is None:
            raise ValueError(NO_OTHER)
        if clip_id not in self.clips.added:
            return self.other if other else self.trace
        data = self.clips.added[clip_id]
        model = self.other_model if other else self.model
        return self.cache.get(("trace", clip_id, other), lambda: trace_any(model, data))

    def _model(self, other: bool) -> VideoNet:
        """Checkpoint A or B."""
        if other and self.other_model is None:
            raise ValueError(NO_OTHER)
        return self.other_model if other else self.model

    def chosen(self, clip_id: str, other: bool = False) -> Chosen:
        """What checkpoint A (or B) selected for it."""
        return chosen_of(self._traced(clip_id, other), clip_id)


class _Maps(_Selections):
    """Where the evidence lies, and what the gates let through."""

    def layers(self) -> dict[str, str]:
        """Layers that a map can be made at, with their shapes in words."""
        size = self.clips.data.transform_config.size if self.clips.data.transform_config else 64
        rows = self.cache.get(("layers",), lambda: cam_layers(self.model, size))
        return {r.layer: f"{r.layer} ({r.channels} x {r.height} x {r.width})" for r in rows.itertuples()}

    def cam(self, clip_id: str, target: str, layer: str, method: str, other: bool = False) -> ClipCam:
        """Evidence for a class."""
        seen = self.seen(clip_id)
        if target == "true" and seen.label is None:
            raise ValueError(f"the true class of {clip_id} is not known")
        goal = seen.label if target == "true" else target
        return self.cache.get(
            ("cam", clip_id, target, layer, method, other),
            lambda: clip_cam(self._model(other), seen.clip, goal, layer, method, self.class_names),
        )

    def gate(self, clip_id: str, block: str, other: bool = False) -> ClipCam:
        """The gate of an SDA block, or of the last one of a stage."""
        blocks = list(sda_blocks(self._model(other)))
        model = self._model(other)
        if not blocks:
            raise ValueError(no_blocks(model.name))
        block = next((b for b in reversed(blocks) if block in (b, stage_of(b))), block)
        _known("SDA block", block, blocks)
        trace = self.cache.get(
            ("responses", clip_id, other),
            lambda: trace_clips(model, self.seen(clip_id).clip[None], responses=True, videos=[clip_id]),
        )
        parts = [r["gate"][0] for row, r in trace.responses.items() if row.split("[")[0] == block]
        shape = self.seen(clip_id).frames.shape
        return ClipCam(
            np.concatenate(parts), trace.logits[0], "gate, mean over channels", block, "gate", shape[1:3]
        )


class _Measured(_Maps):
    """What changes do."""

    def _read_label(self, clip_id: str) -> int:
        """The class that effects are read for: the true one, or the answer where it is not known."""
        label = self.seen(clip_id).label
        return int(self.chosen(clip_id).probabilities.argmax()) if label is None else label

    def knock_outs(self, ids: Sequence[str]) -> list[probes.KnockOuts]:
        """For every clip, what leaving out one dependency of one block costs; measured together where not known."""
        if not sda_blocks(self.model):
            raise ValueError(no_blocks(self.model.name))
        new = [i for i in ids if i not in self.known]
        if new:
            found = probes.knock_out_map(
                self.model, torch.stack([self.seen(i).clip for i in new]), [self._read_label(i) for i in new]
            )
            self.known |= {
                i: replace(found, effect=found.effect[k : k + 1], before=found.before[k : k + 1])
                for k, i in enumerate(new)
            }
        return [self.known[i] for i in ids]

    def effects(self, clip_id: str) -> np.ndarray:
        """Change of the class's probability when one dependency of one block is left out [R,4]; negative: a loss."""
        found = self.knock_outs([clip_id])[0]
        return -found.effect[0][[found.blocks.index(row.split("[")[0]) for row in self.trace.blocks]]

    def intervene(
        self, ids: Sequence[str], scope: str, action: str, weights: Sequence[float], compare_id: str
    ) -> probes.Effect:
        """What a change of the selection or of the frames does to clips, against the same at random."""
        labels = {self.seen(i).label for i in ids}
        true = self.class_names[labels.pop()] if len(labels) == 1 and None not in labels else None
        lender = (self._traced(compare_id, False), compare_id) if compare_id else None
        change = make_intervention(action, scope, weights, (self.trace, true), lender)
        return probes.measure(
            self.model,
            torch.stack([self.seen(i).clip for i in ids]),
            change,
            [self._read_label(i) for i in ids],
            self.draws,
            pairs=self.pairs,
            ids=list(ids),
            class_names=self.class_names,
        )


class ModelProvider(_Measured):
    """A network, a dataset, and everything the panel asks of them."""

    def trust(
        self,
        ids: Sequence[str],  # clips, at least 3
        most: int = 12,  # at most so many of them, drawn by a fixed seed
        layer: str = _MAP["layer"].default,  # of the map
        method: str = _MAP["method"].default,  # of the map, key of sda.explaining.cam.METHODS
    ) -> Iterator[tuple[str, Verdicts]]:
        """Verdicts about the pictures of these clips: what is done next, and what is known so far."""
        ids = [i for i in ids if i not in self.clips.added]
        if len(ids) < 3:
            raise ValueError(f"{len(ids)} clips are too few to measure agreement; loosen the filters")
        if len(ids) > most:
            ids = [ids[k] for k in sorted(np.random.default_rng(0).choice(len(ids), most, replace=False))]
        yield f"decoding {len(ids)} clips", Verdicts(len(ids))
        rows = [self.trace.videos.index(i) for i in ids]
        traces = [None if trace is None else rows_of(trace, rows) for trace in (self.trace, self.other)]
        yield from judge(
            Trial(
                self.model,
                torch.stack([self.seen(i).clip for i in ids]),
                [self._read_label(i) for i in ids],
                *traces,
                self._masks(ids),
                layer,
                method,
                **self.trial,
            )
        )

    def _masks(self, ids: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Where the truth about these clips lies, if anybody knows."""
        if not self.truth:
            return None
        try:
            return truth_masks(self.clips.data, self.truth, [self.clips.known[i] for i in ids])
        except (KeyError, ValueError) as err:
            log.warning("no masks from %s: %s", self.truth, err)
        return None


MOST_MEASURED = 60  # clips that are measured at once, so that the panel answers


def rows_of(
    trace: Trace,  # any trace
    rows: Sequence[int],  # which rows
) -> Trace:  # with these rows only, without responses
    """A part of a trace."""
    arrays = {
        name: getattr(trace, name)[list(rows)]
        for name in ("weights", "scores", "response_norm", "gate_mean", "gate_std", "logits")
    }
    lists = {name: [getattr(trace, name)[i] for i in rows] for name in ("videos", "views")}
    labels = None if trace.labels is None else [trace.labels[i] for i in rows]
    return replace(trace, **arrays, **lists, labels=labels, responses={})


def effect_row(
    effect: probes.Effect,  # of one clip or several
) -> dict:  # one line of the log
    """What an intervention did, against the same at random; means over clips."""
    table = effect.summary()
    p, margin, flips = (table.loc[name] for name in ("probability", "margin", "flips"))
    N = len(effect.ids)
    after = effect.class_names[effect.after[0].argmax()] if effect.flips()[0][0] else "the same"
    row = {
        "clip": effect.ids[0] if N == 1 else f"{N} clips",
        "change": effect.name,
        "p before": p.before,
        "p change": p.change,
        "at random": p.random,
        "lowest": p.low,
        "highest": p.high,
        "draws": len(effect.at_random),
        "margin change": margin.change,
        "answer": after if N == 1 else f"{flips.change * N:.0f} of {N} flip",
    }
    if "pair margin" in table.index:
        row["pair margin change"] = table.loc["pair margin", "change"]
    return {k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()}


def joined(
    parts: Sequence[probes.Effect],  # the same intervention on some clips each
) -> probes.Effect:  # on all of them
    """Effects on clips, a few at a time, as one."""
    one, before, after, labels = (
        parts[0],
        *(np.concatenate([getattr(p, n) for p in parts]) for n in ("before", "after", "labels")),
    )
    name = one.name if len({p.name for p in parts}) == 1 else "weights of its class"
    return replace(
        one,
        name=name,
        before=before,
        after=after,
        labels=labels,
        ids=[i for p in parts for i in p.ids],
        at_random=np.concatenate([p.at_random for p in parts], 1),
    )


def _title(provider: Provider, clip_id: str) -> str:
    """A clip and its true class in one line."""
    label = provider.seen(clip_id).label
    return f"{clip_id} · " + (provider.class_names[label] if label is not None else "true class not known")


def _map(provider: Provider, state: InspectorState, b: bool = False) -> ClipCam | None:
    """The map that the state asks for, of side A or B."""
    if state.overlay == "none":
        return None
    clip_id, other = _side(state, b)
    if state.overlay == "gate":
        return provider.gate(clip_id, state.layer, other)
    return provider.cam(clip_id, state.target, state.layer, state.method, other)


def _side(state: InspectorState, b: bool) -> tuple[str, bool]:
    """Clip id and whether checkpoint B looks at it."""
    if not b:
        return state.clip_id, False
    if state.compare == "checkpoint":
        return state.clip_id, True
    if not state.compare_id:
        raise ValueError("choose a clip B to compare with")
    return state.compare_id, False


def _scaled(provider: Provider, state: InspectorState, cam: ClipCam, b: bool = False) -> np.ndarray:
    """The map in 0..1, on the scale that the state asks for."""
    if state.scale != "shared":
        return cam.scaled(state.scale)
    try:
        twin = _map(provider, state, not b)
    except ValueError as err:
        raise ValueError(f"a shared scale needs something to share it with: {err}") from err
    return cam.scaled("shared", shared_top(cam, twin))


def draw_strip(
    provider: Provider,  # where clips and maps come from
    state: InspectorState,  # what is looked at
    b: bool = False,  # side B of the comparison
) -> Figure:  # frames, and below them the same with the map
    """The frames that the network got, with the map that is asked for."""
    clip_id, other = _side(state, b)
    seen = provider.seen(clip_id)
    cam = _map(provider, state, b)
    title = _title(provider, clip_id) + (" · checkpoint B" if other else "")
    if cam is None:
        return fig_clip(seen.frames, seen.indices, seen.times, title)
    title += f" · {'evidence for ' if state.overlay == 'Grad-CAM' else ''}{cam.title}"
    if seen.times is not None:
        title += f" · {seen.times[0]:.2f} to {seen.times[-1]:.2f} s"
    return fig_cam_strip(
        seen.frames,
        _scaled(provider, state, cam, b),
        cam.range,
        title,
        cam.note,
        state.scale,
        seen.indices,
        state.opacity,
    )


def draw_frame(
    provider: Provider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """One frame, large, with the map."""
    seen = provider.seen(state.clip_id)
    cam = _map(provider, state)
    t = min(max(state.frame, 0), len(seen.frames) - 1)
    figure = new_figure(2.6, 2.8)
    axes = figure.subplots()
    axes.imshow(seen.frames[t], interpolation="nearest")
    if cam is not None:
        axes.imshow(_scaled(provider, state, cam)[t], cmap="inferno", vmin=0, vmax=1, alpha=state.opacity)
    axes.set(xticks=[], yticks=[])
    when = "" if seen.times is None else f", {seen.times[t]:.2f} s"
    axes.set_title(f"frame {seen.indices[t]}{when}", fontsize=FONT)
    return figure


def draw_prediction(
    provider: Provider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
    b: bool = False,  # side B of the comparison
) -> Figure:  # horizontal bars
    """The five most probable classes, and the true one."""
    clip_id, other = _side(state, b)
    label = provider.seen(clip_id).label
    p = provider.chosen(clip_id, other).probabilities
    true = None if label is None else provider.class_names[label]
    margin = float(_margins(p[None], None if label is None else [label])[0])
    what = "margin" if true is None else f"p(true) {p[label]:.2f}, margin"
    return fig_top_k(provider.class_names, p, true, title=f"{'B: ' if b else ''}{what} {margin:+.2f}")


def draw_strip_b(
    provider: Provider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """The frames of clip B, or of the same clip under checkpoint B."""
    return draw_strip(provider, state, b=True)


def draw_prediction_b(
    provider: Provider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """The answer to clip B, or that of checkpoint B."""
    return draw_prediction(provider, state, b=True)


def standing(
    trace: Trace,  # of the dataset
    chosen: Chosen,  # of one clip
    label: int | None,  # its true class
) -> str:  # e.g. "LT in layer3.0: 97th percentile of its class, n = 52"
    """The block and dependency in which a clip differs most from its class, and by how much."""
    if not chosen.blocks:
        return ""
    same = (
        np.ones(len(trace), bool)
        if label is None or trace.labels is None
        else np.array(trace.labels) == label
    )
    who = "its class" if label is not None and same.sum() >= 5 else "all clips"
    values = trace.weights[same if who == "its class" else slice(None)]  # [n,R,4]
    far = np.abs(chosen.weights - values.mean(0)) / (values.std(0) + 1e-6)
    r, m = np.unravel_index(np.nanargmax(far), far.shape)
    below = round(100 * float((values[:, r, m] < chosen.weights[r, m]).mean()))
    return f"{trace.dependencies[m]} in {chosen.blocks[r]} lies above {below} % of {who}, n = {len(values)}"


def _views(provider: Provider, state: InspectorState, chosen: Chosen) -> list[HeatTable]:
    """The tables of the view that is asked for."""
    trace = provider.trace
    label = provider.seen(state.clip_id).label
    w = chosen.weights
    make = {
        "weight": lambda: HeatTable(w, title="weight", label="rows sum to 1"),
        "contribution": lambda: HeatTable(chosen.contribution, title="contribution", label="rows sum to 1"),
        "effect": lambda: HeatTable(
            -provider.effects(state.clip_id), "effect", "effect", "fall of p(class) when left out"
        ),
    }
    if state.view in make:
        return [make[state.view]()]
    same = np.ones(len(trace), bool)
    if state.view == "minus class mean":
        if label is None or trace.labels is None:
            raise ValueError(f"the true class of {state.clip_id} is not known")
        same = np.array(trace.labels) == label
    title = f"weight {state.view}, n = {int(same.sum())}"
    return [HeatTable(w - trace.weights[same].mean(0), "difference", title, "rows sum to 0")]


def draw_selection(
    provider: Provider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """What every block selected, what that added, and what it does."""
    chosen = provider.chosen(state.clip_id)
    if not chosen.blocks:
        raise ValueError(no_blocks(provider.trace.model))
    if state.view == "by stage":
        return _by_stage(provider, chosen)
    if state.view == "triptych":
        return fig_triptych(
            chosen.weights,
            chosen.contribution,
            -provider.effects(state.clip_id),
            chosen.blocks,
            title=_title(provider, state.clip_id),
        )
    words = standing(provider.trace, chosen, provider.seen(state.clip_id).label)
    if chosen.views > 1:
        words += f"; mean of {chosen.views} views, which differ by up to {chosen.spread:.2f}"
    notes = [
        f"{DEPENDENCIES[np.nanargmax(w)]}, H {h:.3f}"
        for w, h in zip(chosen.weights, chosen.entropy, strict=True)
    ]
    return fig_tables(
        _views(provider, state, chosen),
        chosen.blocks,
        words=words,
        notes=notes if state.view == "weight" else (),
    )


def _by_stage(provider: Provider, chosen: Chosen) -> Figure:
    """Means over the blocks of every stage: of the clip, of all clips, and the difference."""
    stages = list(dict.fromkeys(stage_of(b) for b in chosen.blocks))
    rows = [[r for r, b in enumerate(chosen.blocks) if stage_of(b) == s] for s in stages]
    mine, all_ = (
        np.stack([w[some].mean(0) for some in rows]) for w in (chosen.weights, provider.trace.weights.mean(0))
    )
    tables = [
        HeatTable(mine, title="this clip", label="rows sum to 1"),
        HeatTable(all_, title=f"mean, n = {len(provider.trace)}", label="rows sum to 1"),
        HeatTable(mine - all_, "difference", "difference", "rows sum to 0"),
    ]
    return fig_tables(tables, stages, words="weights, mean over the blocks of a stage")


def draw_compare(
    provider: Provider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """Clip A, and beside it clip B or checkpoint B, and the difference."""
    a, b = (provider.chosen(*_side(state, which)) for which in (False, True))
    if not a.blocks:
        raise ValueError(no_blocks(provider.trace.model))
    if a.blocks != b.blocks:
        raise ValueError("the two checkpoints have different blocks; compare networks of one kind")
    tables = [
        HeatTable(a.weights, title="A", label="rows sum to 1"),
        HeatTable(b.weights, title="B", label="rows sum to 1"),
        HeatTable(b.weights - a.weights, "difference", "B - A", "rows sum to 0"),
    ]
    said = [f"{provider.class_names[c.probabilities.argmax()]} ({c.probabilities.max():.2f})" for c in (a, b)]
    what = "the other checkpoint" if state.compare == "checkpoint" else state.compare_id
    title = f"A: {state.clip_id}, B: {what}"
    return fig_tables(tables, a.blocks, title=title, words=f"answers: A {said[0]}, B {said[1]}")


_CLIP = ("clip_id", "overlay", "layer", "target", "method", "scale", "opacity")
_SIDES = ("clip_id", "compare_id", "compare")
PANELS = {  # name -> function, and the settings that change its picture
    "strip": (draw_strip, _CLIP + _SIDES),
    "frame": (draw_frame, _CLIP + _SIDES + ("frame",)),
    "prediction": (draw_prediction, ("clip_id",)),
    "selection": (draw_selection, ("clip_id", "view")),
    "compare": (draw_compare, _SIDES),
    "strip B": (draw_strip_b, _CLIP + _SIDES),
    "prediction B": (draw_prediction_b, _SIDES),
}
BESIDE = ("compare", "strip B", "prediction B")  # panels that need a side B


def draw(
    provider: Provider,  # where the answers come from
    state: InspectorState,  # what is looked at
    panel: str,  # one of PANELS
) -> Figure:  # its picture
    """One panel as a figure, without any widget."""
    _known("panel", panel, list(PANELS))
    if not state.clip_id:
        raise ValueError("no clip is chosen; loosen the filters or press Reset")
    return PANELS[panel][0](provider, state)


def fig_log(
    rows: Sequence[dict],  # lines of the log, see `effect_row`
) -> Figure:  # one row per line, the first on top
    """Every change of the log against the same at random."""
    if not rows:
        raise ValueError("nothing was changed yet")
    names = [f"{row['change']} ({row['clip']})" for row in rows]
    values = {name: [row[name] for row in rows] for name in ("p change", "lowest", "at random", "highest")}
    return fig_interventions(names, *values.values(), rows[0]["draws"], reading="probability of the class")


def partner(
    trace: Trace,  # of the dataset
    clip_id: str,  # clip A
    kind: str = "same class, different selection",  # or "same selection, different class"
) -> str:  # clip B
    """A clip worth comparing with."""
    _known("preset", kind, PRESETS)
    if trace.labels is None:
        raise ValueError("presets need true classes, and this dataset has none")
    if clip_id not in trace.videos:
        raise ValueError(f"presets need a clip of the dataset; {clip_id} is not one")
    i = trace.videos.index(clip_id)
    labels = np.array(trace.labels)
    apart = np.sqrt((np.nan_to_num(trace.weights - trace.weights[i]) ** 2).sum((1, 2)))
    same = kind == PRESETS[0]
    fits = (labels == labels[i]) == same
    fits &= np.array(trace.videos) != clip_id
    if not fits.any():
        raise ValueError(f"no other clip of the class of {clip_id} is in this dataset")
    order = np.where(fits, apart, -1).argmax() if same else np.where(fits, apart, np.inf).argmin()
    return trace.videos[int(order)]


PRESETS = ("same class, different selection", "same selection, different class")


def sidecar(
    provider: Provider,  # where the picture came from
    state: InspectorState,  # what it shows
    panel: str,  # which panel
    code: str,  # the call that makes it again
) -> dict:  # plain values
    """What must be written beside a picture to know what it shows."""
    clips = getattr(provider, "clips", None)
    data = clips.data if clips else None
    config = getattr(data, "transform_config", None)
    sampling = getattr(data, "sampling", None)
    return {
        "panel": panel,
        "clip": state.clip_id,
        "checkpoint": provider.name,
        "model": provider.trace.model,
        "fingerprint": provider.trace.fingerprint,
        "state": json.loads(state.to_json()),
        "code": code,
        "transform": config.to_dict() if config else None,
        "sampling": sampling.to_dict() if sampling else None,
        "versions": {"sda": __version__, "torch": torch.__version__.split("+")[0], "numpy": np.__version__},
    }


def stacked(
    pictures: Sequence[bytes],  # PNG files
) -> bytes:  # one PNG
    """Pictures below each other, on white."""
    from PIL import Image as Picture

    if not pictures:
        raise ValueError("nothing is pinned yet")
    opened = [Picture.open(io.BytesIO(one)).convert("RGB") for one in pictures]
    sheet = Picture.new("RGB", (max(p.width for p in opened), sum(p.height for p in opened)), "white")
    top = 0
    for p in opened:
        sheet.paste(p, (0, top))
        top += p.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


class _Chooser:
    """Choosing clips by filters; part of `Inspector`."""

    @property
    def found(self) -> pd.DataFrame:
        """The clips that fit the filters; clips of one's own come last in `provider.ids()` and are never filtered away."""
        table = self.table
        if len(self.effect_of):
            table = table.join(self.effect_of.rename("effect"), on="video")
        table.attrs["class_names"] = self.provider.class_names
        return find_clips(table, **self.state.filters)

    def filter(self, **filters: object) -> None:
        """Change the filters; the clip stays if it fits, else the first one that does is shown."""
        before = self.state.filters
        self.state.filters = {**self.state.filters, **filters}
        try:
            videos = list(self.found.video)
        except Exception:
            self.state.filters = before
            raise
        if self.state.clip_id not in videos:
            self.state.clip_id = videos[0] if videos else ""

    def reset(self) -> None:
        """No filter, the first clip."""
        self.state.filters = {}
        self.state.clip_id = self.table.video[0]

    def choose(self, clip_id: str) -> None:
        """Look at this clip; an unknown one is refused with the nearest."""
        if clip_id not in self.provider.ids():
            raise ValueError(_unknown_clip(clip_id, self.provider.ids()))
        self.state.clip_id = clip_id

    def move(self, step: int) -> None:
        """Another clip of those that fit, going round."""
        videos = list(self.found.video)
        if not videos:
            raise ValueError("no clip fits the filters; loosen them or press Reset")
        here = videos.index(self.state.clip_id) if self.state.clip_id in videos else -1 if step > 0 else 0
        to = int(self.rng.integers(len(videos))) if step == 0 else (here + step) % len(videos)
        self.state.clip_id = videos[to]

    @property
    def count(self) -> str:
        """How many clips fit."""
        found = len(self.found)
        if not found:
            return "No clip fits these filters; loosen them or press Reset."
        return f"{found} of {len(self.table)} clips"


MEASURED = (
    "log",
    "trust",
    "curves over space",
    "curves over frames",
)  # pictures of what was measured on request


def _one_line(state: InspectorState) -> str:
    """The state as JSON on one line."""
    return json.dumps(json.loads(state.to_json()))


class _Drawer:
    """Pictures and code; part of `Inspector`."""

    def figure(self, panel: str = "strip") -> Figure:
        """A panel as a figure."""
        if panel == "log":
            return fig_log(self.log)
        if panel in MEASURED and self.judged is None:
            raise ValueError("nothing was measured yet; see the tab Trust")
        if panel == "trust":
            return fig_checks(self.judged.table())
        if panel in MEASURED:
            over = panel.removeprefix("curves over ")
            return fig_curves(self.judged.curves_over(over), f"over {over}")
        return draw(self.provider, self.state, panel)

    def png(self, panel: str = "strip") -> bytes:
        """A panel as a PNG file; what was drawn before is not drawn again."""
        if panel in MEASURED:
            return to_png(self.figure(panel))
        _known("panel", panel, [*PANELS, *MEASURED])
        key = (panel, *(getattr(self.state, name) for name in PANELS[panel][1]))
        return self.drawn.get(key, lambda: to_png(self.figure(panel)))

    def picture(self, panel: str = "strip") -> object:
        """A panel as a picture that a notebook keeps."""
        from IPython.display import Image

        return Image(self.png(panel))

    def code(self, panel: str = "strip") -> str:
        """The lines that make this picture again."""
        if not self.source:
            raise ValueError(
                "only an inspector opened with inspect_folder(folder, checkpoint file) "
                "knows how to be opened again"
            )
        start = f"from sda.inspector.session import inspect_folder\n\ninspector = {self.source}\n"
        load = "inspector.state.load_json"
        end = f"inspector.figure({panel!r})"
        if panel == "log":
            return (
                f"{start}for state, everywhere in {self.done!r}:\n    {load}(state)\n"
                f"    inspector.run(everywhere)\n{end}"
            )
        if panel in MEASURED:
            if self.asked is None:
                raise ValueError("nothing was measured yet; see the tab Trust")
            return f"{start}{load}({self.asked[0]!r})\ninspector.trust({self.asked[1]})\n{end}"
        return f"{start}{load}({_one_line(self.state)!r})\n{end}"


class _Keeper(_Drawer):
    """Files and the contact sheet; part of `Inspector`."""

    def save(self, folder: str | Path, panel: str = "strip", kind: str = "png") -> Path:
        """Write a picture and what it shows."""
        _known("kind of file", kind, ("png", "svg"))
        folder = check_folder(folder)
        stem = Path(self.state.clip_id or "sheet").stem
        path = folder / f"{stem}-{panel}.{kind}"
        if panel == "sheet":
            path.with_suffix(".png").write_bytes(stacked(self.pins))
        elif kind == "png":
            path.write_bytes(to_png(self.figure(panel), dpi=160))
        else:
            self.figure(panel).savefig(path, format="svg", metadata={"Date": None})
        code = self.code(panel) if self.source and panel != "sheet" else ""
        path.with_suffix(".json").write_text(
            json.dumps(sidecar(self.provider, self.state, panel, code), indent=1)
        )
        return path if panel != "sheet" else path.with_suffix(".png")

    def pin(self, panel: str = "strip") -> int:
        """Put the picture on the contact sheet; how many are there."""
        self.pins = [*self.pins, self.png(panel)]
        return len(self.pins)


class _Changer:
    """Changes and what they did; part of `Inspector`."""

    def run(self, everywhere: bool = False) -> dict:
        """Do the intervention that the state describes to the clip, or to all that fit; its line of the log."""
        for _ in self.running(everywhere):
            pass
        return self.log[-1]

    def running(self, everywhere: bool = False) -> Iterator[str]:
        """The same in steps, which say what is done next; nothing is logged before the last."""
        s = self.state
        ids = [self.state.clip_id]
        line = _one_line(self.state)
        if everywhere:
            ids = list(self.found.video)[:MOST_MEASURED]
        if not ids or not ids[0]:
            raise ValueError("there is no clip to change; loosen the filters or press Reset")
        what = (s.scope, s.action, list(s.weights), s.compare_id)
        parts = []
        step = 6
        if s.action == "weights of its class":
            step = 1  # each clip gets those of its own
        for start in range(0, len(ids), step):
            some = ids[start : start + step]
            yield f"{s.action}: {start} of {len(ids)} clips done"
            parts.append(self.provider.intervene(some, *what))
        effect = joined(parts)
        self.effects = [
            *self.effects,
            pd.Series(effect.changes()[0], index=effect.ids) if everywhere else None,
        ]
        self.log = [*self.log, effect_row(effect)]
        self.done = [*self.done, (line, everywhere)]

    @property
    def effect_of(self) -> pd.Series:
        """Change of the class's probability by clip, of the last change of all that fit; to sort by."""
        return next((e for e in reversed(self.effects) if e is not None), pd.Series(dtype=float))

    def undo(self) -> None:
        """Forget the last intervention."""
        if not self.log:
            raise ValueError("the log is empty")
        self.log = self.log[:-1]
        self.done = self.done[:-1]
        self.effects = self.effects[:-1]


class _Doer(_Changer):
    """Changes, comparisons and verdicts."""

    def swap(self) -> None:
        """Exchange clip A and clip B."""
        if not self.state.compare_id:
            raise ValueError("there is no clip B to swap with")
        with self.state.hold_trait_notifications():
            self.state.clip_id, self.state.compare_id = self.state.compare_id, self.state.clip_id

    def preset(self, kind: str) -> None:
        """Choose a clip B worth comparing with."""
        self.state.compare_id = partner(self.provider.trace, self.state.clip_id, kind)

    def trust(self, most: int = 12) -> Verdicts:
        """How far the pictures of the clips that fit can be trusted."""
        for _ in self.judging(most):
            pass
        return self.judged

    def judging(self, most: int = 12) -> Iterator[str]:
        """The same in steps, which say what is done next; what is known so far stays in `judged`."""
        s = self.state
        asked = (_one_line(self.state), most)
        for words, found in self.provider.trust(list(self.found.video), most, s.layer, s.method):
            self.judged, self.asked = found, asked
            if words:
                yield words


class _Opener(_Chooser, _Doer, _Keeper):
    """A provider and another; part of `Inspector`."""

    def _look_into(self, provider: Provider, source: str) -> None:
        """Start anew with a provider."""
        self.provider = provider
        self.source = source
        self.table = clip_table(provider.trace)
        self.log = []
        self.done = []
        self.effects = []
        self.pins = []
        self.judged = self.asked = None
        self.drawn = Remembered(128)

    def open(self, root: str, checkpoint: str, split: str = "test", other: str = "") -> None:
        """Look into another folder, split or checkpoint; on an error everything stays as it was."""
        provider, source = _provider(root, checkpoint, split, other or None)
        if self.view:
            self.view.pause()
        self.provider.close()
        self._look_into(provider, source)
        fits = self.state.layer in [*provider.layers(), *provider.trace.blocks]
        with self.state.hold_trait_notifications():
            self.state.filters = {}
            self.state.compare_id = ""
            self.state.compare = "clip"
            self.state.scope = "all"
            self.state.clip_id = self.table.video[0]
            if not fits:
                self.state.layer = _MAP["layer"].default
        if self.view:
            self.view.rebuild()


class Inspector(_Opener):
    """State and provider together, and everything that can be done; a notebook shows it as a panel."""

    def __init__(
        self,
        provider: Provider,  # where the answers come from
        state: InspectorState | None = None,  # where to start
        strict: bool = False,  # errors are raised as well as shown
        source: str = "",  # the call that opens it, for `code`
        seed: int = 0,  # of Random
    ):
        self.state = state or InspectorState()
        self.strict = strict
        self.view = None
        self.rng = np.random.default_rng(seed)
        self._look_into(provider, source)
        if not self.state.clip_id:
            self.state.clip_id = self.found.video.iloc[0]

    def show(self) -> "Inspector":
        """Make the panel; as the last line of a cell it appears."""
        from .view import InspectorView

        self.view = self.view or InspectorView(self)
        return self

    def close(self) -> None:
        """Take the panel away and forget what was computed."""
        if self.view:
            self.view.close()
        self.view = None
        self.provider.close()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        """The panel, and the strip as a picture for readers without a kernel."""
        bundle = self.show().view.box._repr_mimebundle_() or {}
        return {
            "application/vnd.jupyter.widget-view+json": bundle["application/vnd.jupyter.widget-view+json"],
            "image/png": base64.b64encode(self.overview()).decode(),
            "text/plain": repr(self),
        }

    def overview(self) -> bytes:
        """The clip, what was selected for it and the answer, as one PNG file for readers who do not run anything."""
        return stacked(
            [
                self.png(p)
                for p in ("strip", "selection", "prediction")
                if p != "selection" or self.provider.trace.blocks
            ]
        )

    def __repr__(self) -> str:
        return f"Inspector of {len(self.table)} clips, {self.provider.name}"


def _provider(
    root: str | Path,
    checkpoint: str | Path | VideoNet,
    split: str = "test",
    other: str | Path | VideoNet | None = None,
    trace: str | Path | None = None,
) -> tuple[ModelProvider, str]:
    """A provider for a dataset folder, and the call of `inspect_folder` that opens it again."""
    names = read_classes(Path(root) / "category.txt")
    model, b = (
        m if m is None or isinstance(m, nn.Module) else load_model(m, class_names=names)
        for m in (checkpoint, other)
    )
    card = getattr(model, "card", None)
    sampling = Sampling.from_dict(card.sampling) if card else Sampling(num_frames=model.num_frames)
    transform = TransformConfig.from_dict(card.transform) if card else TransformConfig(size=64, resize=None)
    data = open_dataset(root, split, sampling, transform, train=False)
    kept = Trace.load(trace) if trace and Path(trace).is_file() else None
    name = model.name if isinstance(checkpoint, nn.Module) else Path(checkpoint).stem
    pairs = read_pairs(root)
    truth = root if (Path(root) / "truth").is_dir() else None
    provider = ModelProvider(model, data, kept, b, name, pairs, truth)
    files = {"checkpoint": checkpoint, "other": other or ""}
    provider.where = {
        "root": root,
        "split": split,
        **{k: "" if isinstance(m, nn.Module) else m for k, m in files.items()},
    }
    if trace and kept is None:
        provider.trace.save(trace)
    options = (
        {"split": split} | ({"other": str(other)} if other else {}) | ({"trace": str(trace)} if trace else {})
    )
    call = ", ".join([repr(str(root)), repr(str(checkpoint)), *(f"{k}={v!r}" for k, v in options.items())])
    in_memory = any(isinstance(m, nn.Module) for m in (checkpoint, other))
    return provider, "" if in_memory else f"inspect_folder({call})"


def inspect_folder(
    root: str | Path,  # dataset folder: category.txt, img/, trainValTest/
    checkpoint: str | Path | VideoNet,  # model file, or a network in memory
    split: str = "test",  # list in trainValTest/
    other: str | Path | VideoNet | None = None,  # checkpoint B
    trace: str | Path | None = None,  # .npz: read when it is there, else written
    strict: bool = False,  # raise errors as well as showing them
    **state: object,  # fields of InspectorState to start with
) -> Inspector:  # show() makes the panel
    """Open the inspector on a dataset."""
    provider, source = _provider(root, checkpoint, split, other, trace)
    return Inspector(provider, InspectorState(**state), strict, source)
