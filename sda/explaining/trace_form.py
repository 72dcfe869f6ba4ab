"""The form of a trace: what fits its names, its line of text, its table, and its file."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from ..foundation.errors import DataError, SettingError, unknown_name
from ..foundation.files import fingerprint, load_arrays, save_arrays
from ..networks.backbones import stage_of
from ..networks.blocks import SDA
from .tracer import block_rows


class ClassMeans(NamedTuple):
    """Mean selection of every class, in the order that `fig_selection_by_class` takes."""

    means: np.ndarray  # [K,4]; NaN for a class without videos
    class_names: list[str]  # K
    counts: list[int]  # K numbers of videos


class StageMeans(NamedTuple):
    """Mean selection of every stage with a 95 % interval, in the order of `fig_selection_by_stage`."""

    means: np.ndarray  # [S,4]
    low: np.ndarray  # [S,4]
    high: np.ndarray  # [S,4]
    stages: list[str]  # S
    n: int  # videos


def side_by_side(
    taken: dict[str, dict[str, np.ndarray]],  # block -> name -> rows, see `Tracer.take`
    blocks: dict[str, SDA],  # by name
) -> dict[str, Any]:
    """Fields of a trace from what the tracer took."""
    rows: list[str] = []
    responses: dict[str, dict[str, np.ndarray]] = {}
    for block, arrays in taken.items():
        names = block_rows(block, blocks[block].split, arrays["weights"].shape[1])
        rows += names
        for p, row in enumerate(names):
            kept = {key.split("/")[1]: values[:, p] for key, values in arrays.items() if "/" in key}
            if kept:
                responses[row] = kept
    fields = ("weights", "scores", "response_norm", "gate_mean", "gate_std")
    joined = {name: np.concatenate([arrays[name] for arrays in taken.values()], 1) for name in fields}
    return {"blocks": rows, "responses": responses, **joined}


def check_shapes(
    trace: Any,  # a `Trace`; DataError names the array
) -> None:
    """Refuse arrays that do not fit their names."""
    N = len(trace.videos)
    R = len(trace.blocks)
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(("weights", "scores", "response_norm"), (N, R, 4))
    wanted |= {"gate_mean": (N, R), "gate_std": (N, R), "logits": (N, trace.logits.shape[-1])}
    for name, shape in wanted.items():
        if getattr(trace, name).shape != shape:
            raise DataError(
                f"{name} has the shape {getattr(trace, name).shape}, its names say {shape}", subject=name
            )
    if len(trace.views) != N or (trace.labels is not None and len(trace.labels) != N):
        raise DataError(f"views or labels do not fit {N} rows")
    if len(set(zip(trace.videos, trace.views, strict=True))) < N:
        text = "two rows have the same video and view"
        raise DataError(text, subject="videos", remedy="give every video its own id")


def _closed(
    trace: Any,  # any trace
) -> np.ndarray:  # bool [N,R]
    """Where nothing is selected: there the gate of the block is the same for every frame."""
    return np.nansum(trace.weights, -1) == 0


def in_words(
    trace: Any,  # a `Trace`
) -> str:
    """See `repr` of a trace."""
    own = len({block.split("[")[0] for block in trace.blocks})
    blocks = f"{own} blocks"
    if own < len(trace.blocks):
        blocks += f" with {len(trace.blocks) // own} rows each (split in time)"
    videos = len(set(trace.videos))
    rows = f"{len(trace)} clips" if videos == len(trace) else f"{len(trace)} views of {videos} videos"
    count = int(_closed(trace).sum())
    nothing = f", nothing selected in {count} of {trace.weights[..., 0].size} rows" if count else ""
    return f"Trace of {rows}, {blocks}{nothing}, {trace.model} ({trace.fingerprint})"


def check_model(
    trace: Any,  # a `Trace`
    other: Any,  # another one, or a network
) -> None:
    """Refuse a trace, or a network, that is not of the trace's network."""
    if isinstance(other, nn.Module):
        name = getattr(other, "name", type(other).__name__)
        theirs = fingerprint(other)
    else:
        name = other.model
        theirs = other.fingerprint
    if theirs != trace.fingerprint:
        raise SettingError(
            f"this trace is of {trace.model} ({trace.fingerprint}), not of {name} ({theirs}): "
            "block by block they mean different things",
            subject=name,
            remedy="trace the clips again with the model in hand",
        )


def rows_of(
    trace: Any,  # a `Trace`
    video: str,  # its id
) -> list[int]:
    """See `Trace.rows`."""
    rows = [i for i, name in enumerate(trace.videos) if name == video]
    if not rows:
        raise unknown_name("video of the trace", video, dict.fromkeys(trace.videos), most=3)
    return rows


def frame_of(
    trace: Any,  # a `Trace`
) -> pd.DataFrame:
    """One row per video, view, block and dependency that the model has."""
    N, R, M = trace.weights.shape
    names = trace.classes
    per_row = {
        "video": trace.videos,
        "view": trace.views,
        "true": [None] * N if trace.labels is None else [names[k] for k in trace.labels],
        "predicted": [names[k] for k in trace.logits.argmax(1)],
    }
    table: dict[str, Any] = {
        key: np.repeat(np.array(column, object), R * M) for key, column in per_row.items()
    }
    table["block"] = np.tile(np.repeat(trace.blocks, M), N)
    table["stage"] = np.tile(np.repeat([stage_of(block) for block in trace.blocks], M), N)
    table["dependency"] = np.tile(trace.dependencies, N * R)
    numbers = {
        "score": trace.scores,
        "weight": trace.weights,
        "response_norm": trace.response_norm,
        "share_norm": trace.weights * trace.response_norm,
        "contribution": trace.contribution(),
    }
    table |= {key: values.reshape(-1) for key, values in numbers.items()}
    per_block = {"entropy": trace.entropy(), "gate_mean": trace.gate_mean, "gate_std": trace.gate_std}
    table |= {key: np.repeat(values.reshape(-1), M) for key, values in per_block.items()}
    frame = pd.DataFrame(table).astype({"view": int})
    frame = frame[frame.weight.notna()].reset_index(drop=True)
    for name in ("block", "stage", "dependency"):  # tables keep the order of the network, not of the alphabet
        frame[name] = pd.Categorical(frame[name], list(dict.fromkeys(frame[name])), ordered=True)
    return frame


_FORMAT = "sda trace 1"
_ARRAYS = ("weights", "scores", "response_norm", "gate_mean", "gate_std", "logits")
_NAMES = ("videos", "views", "labels", "blocks", "class_names", "model", "fingerprint")


def save_trace(
    trace: Any,  # a `Trace`
    path: str | Path,  # NAME.npz
) -> Path:
    """See `Trace.save`."""
    arrays = {name: getattr(trace, name) for name in _ARRAYS}
    for block, parts in trace.responses.items():
        arrays |= {f"response/{block}/{name}": values for name, values in parts.items()}
    return save_arrays(path, _FORMAT, {name: getattr(trace, name) for name in _NAMES}, arrays)


def load_trace(
    path: str | Path,  # written by `save_trace`
) -> dict[str, Any]:
    """The fields of a trace, see `Trace.load`."""
    names, arrays = load_arrays(path, _FORMAT)
    try:
        fields = {name: names[name] for name in _NAMES} | {name: arrays[name] for name in _ARRAYS}
    except KeyError as err:
        raise DataError(f"{path} is not a whole trace: {err} is missing", subject=str(path)) from err
    responses: dict[str, dict[str, np.ndarray]] = {}
    for key, values in arrays.items():
        if key.startswith("response/"):
            _, block, name = key.split("/")
            responses.setdefault(block, {})[name] = values
    return fields | {"responses": responses}
