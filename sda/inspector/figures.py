"""The pictures of the inspector: functions from provider and state to a figure, without any widget."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..explaining.cam import ClipCam, shared_top
from ..explaining.checks import no_blocks
from ..explaining.trace import Trace
from ..figures.clips import fig_cam_strip, fig_clip, fig_top_k
from ..figures.effects import fig_interventions, fig_triptych
from ..figures.style import FONT, HeatTable, fig_tables, new_figure
from ..foundation.errors import SettingError
from ..networks.backbones import stage_of
from ..networks.blocks import DEPENDENCIES
from .provider import Chosen, ModelProvider
from .state import InspectorState, known_name, margins

__all__ = ["draw"]


def _title(provider: ModelProvider, clip_id: str) -> str:
    """A clip and its true class in one line."""
    label = provider.seen(clip_id).label
    return f"{clip_id} · " + (provider.class_names[label] if label is not None else "true class not known")


def _map(provider: ModelProvider, state: InspectorState, b: bool = False) -> ClipCam | None:
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
        raise SettingError("choose a clip B to compare with")
    return state.compare_id, False


def _scaled(provider: ModelProvider, state: InspectorState, cam: ClipCam, b: bool = False) -> np.ndarray:
    """The map in 0..1, on the scale that the state asks for."""
    if state.scale != "shared":
        return cam.scaled(state.scale)
    try:
        twin = _map(provider, state, not b)
    except ValueError as err:
        raise SettingError(f"a shared scale needs something to share it with: {err}") from err
    assert twin is not None  # there is a map, and the other side has the same overlay
    return cam.scaled("shared", shared_top(cam, twin))


def draw_strip(
    provider: ModelProvider,  # where clips and maps come from
    state: InspectorState,  # what is looked at
    b: bool = False,  # side B of the comparison
) -> Figure:  # frames, and below them the same with the map
    """The frames that the network got, with the map that is asked for."""
    clip_id, other = _side(state, b)
    seen = provider.seen(clip_id)
    cam = _map(provider, state, b)
    title = _title(provider, clip_id) + (" · checkpoint B" if other else "")
    if cam is None:
        return fig_clip(seen.frames, seen.indices[0], seen.times, title)
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
        seen.indices[0],
        state.opacity,
    )


def draw_frame(
    provider: ModelProvider,  # where clips and answers come from
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
    axes.set_title(f"frame {seen.indices[0][t]}{when}", fontsize=FONT)
    return figure


def draw_prediction(
    provider: ModelProvider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
    b: bool = False,  # side B of the comparison
) -> Figure:  # horizontal bars
    """The five most probable classes, and the true one."""
    clip_id, other = _side(state, b)
    label = provider.seen(clip_id).label
    p = provider.chosen(clip_id, other).probabilities
    true = None if label is None else provider.class_names[label]
    margin = float(margins(p[None], None if label is None else [label])[0])
    what = "margin" if true is None else f"p(true) {p[label]:.2f}, margin"
    return fig_top_k(provider.class_names, p, true, title=f"{'B: ' if b else ''}{what} {margin:+.2f}")


def draw_strip_b(
    provider: ModelProvider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """The frames of clip B, or of the same clip under checkpoint B."""
    return draw_strip(provider, state, b=True)


def draw_prediction_b(
    provider: ModelProvider,  # where clips and answers come from
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


def _views(provider: ModelProvider, state: InspectorState, chosen: Chosen) -> list[HeatTable]:
    """The tables of the view that is asked for."""
    trace = provider.trace
    label = provider.seen(state.clip_id).label
    w = chosen.weights
    make = {
        "weight": lambda: HeatTable(w, title="weight", label="rows sum to 1"),
        "contribution": lambda: HeatTable(chosen.contribution, title="contribution", label="rows sum to 1"),
        "effect": lambda: HeatTable(
            provider.effects(state.clip_id), "effect", "effect", "fall of p(class) when left out"
        ),
    }
    if state.view in make:
        return [make[state.view]()]
    same = np.ones(len(trace), bool)
    if state.view == "minus class mean":
        if label is None or trace.labels is None:
            raise SettingError(f"the true class of {state.clip_id} is not known")
        same = np.array(trace.labels) == label
    title = f"weight {state.view}, n = {int(same.sum())}"
    return [HeatTable(w - trace.weights[same].mean(0), "difference", title, "rows sum to 0")]


def draw_selection(
    provider: ModelProvider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """What every block selected, what that added, and what it does."""
    chosen = provider.chosen(state.clip_id)
    if not chosen.blocks:
        raise SettingError(no_blocks(provider.trace.model))
    if state.view == "by stage":
        return _by_stage(provider, chosen)
    if state.view == "triptych":
        return fig_triptych(
            chosen.weights,
            chosen.contribution,
            provider.effects(state.clip_id),
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


def _by_stage(provider: ModelProvider, chosen: Chosen) -> Figure:
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
    provider: ModelProvider,  # where clips and answers come from
    state: InspectorState,  # what is looked at
) -> Figure:
    """Clip A, and beside it clip B or checkpoint B, and the difference."""
    a, b = (provider.chosen(*_side(state, which)) for which in (False, True))
    if not a.blocks:
        raise SettingError(no_blocks(provider.trace.model))
    if a.blocks != b.blocks:
        raise SettingError("the two checkpoints have different blocks; compare networks of one kind")
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
    provider: ModelProvider,  # where the answers come from
    state: InspectorState,  # what is looked at
    panel: str,  # one of PANELS
) -> Figure:  # its picture
    """One panel as a figure, without any widget."""
    known_name("panel", panel, list(PANELS))
    if not state.clip_id:
        raise SettingError("no clip is chosen; loosen the filters or press Reset")
    return PANELS[panel][0](provider, state)


def fig_log(
    rows: Sequence[dict],  # lines of the log, see `effect_row`
) -> Figure:  # one row per line, the first on top
    """Every change of the log against the same at random."""
    if not rows:
        raise SettingError("nothing was changed yet")
    names = [f"{row['change']} ({row['clip']})" for row in rows]
    change, low, mean, high = (
        [row[name] for row in rows] for name in ("p change", "lowest", "at random", "highest")
    )
    draws = rows[0]["draws"]
    return fig_interventions(names, change, low, mean, high, draws, reading="probability of the class")


def stacked(
    pictures: Sequence[bytes],  # PNG files
) -> bytes:  # one PNG
    """Pictures below each other, on white."""
    from PIL import Image as Picture

    if not pictures:
        raise SettingError("nothing is pinned yet")
    opened = [Picture.open(io.BytesIO(one)).convert("RGB") for one in pictures]
    sheet = Picture.new("RGB", (max(p.width for p in opened), sum(p.height for p in opened)), "white")
    top = 0
    for p in opened:
        sheet.paste(p, (0, top))
        top += p.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
