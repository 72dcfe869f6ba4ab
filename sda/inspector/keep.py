"""What people take home: the picture of exactly this state, the lines that make it again."""

import io
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .. import __version__
from ..assets import model_file
from ..explaining.cam import enlarge
from ..figures.style import FONT, HeatTable, draw_heat, new_figure, part_stages, shortened, to_png
from ..foundation.errors import SettingError
from ..foundation.statistics import softmax
from .edits import check_edits, edited_weights, in_words
from .scenes import best_classes, blurred, facts, finding, order_of
from .session import Session
from .state import InspectorState


def draw_state(
    session: Session,
    state: InspectorState,  # what is looked at
) -> Figure:  # frames, perhaps with a map; the answer before and after the edits; the table
    """Exactly what is looked at, as one figure."""
    clip_id = state.selected
    blocks = list(session.network.blocks)
    found = finding(session, clip_id)
    extra = 0.22 * max(len(blocks) - 6, 0)
    height = 4.7 + extra
    figure = new_figure(9.5, height)
    figure.set_layout_engine("none")  # places are known; to find them takes longer than to draw
    figure.text(0.01, 1 - 0.26 / height, shortened(clip_id, 100), fontsize=FONT + 1)
    _draw_frames(figure.add_axes((0.01, 1 - 1.75 / height, 0.98, 1.3 / height)), session, state)
    below = (0.62 / height, (2.0 + extra) / height)
    _draw_answer(figure.add_axes((0.3, below[0], 0.24, below[1])), session, state)
    if blocks:
        _draw_table(figure.add_axes((0.66, below[0], 0.33, below[1])), session, state)
    words = found["sentence"] if found else f"{facts(session.clips.seen(clip_id))}; {session.network.name}"
    figure.text(0.01, 0.1 / height, textwrap.fill(words, 125), fontsize=FONT - 1)
    return figure


def _side_by_side(pictures: np.ndarray, gap: int, fill: float) -> np.ndarray:
    """Pictures [T,h,w,...] as one, with gaps between them."""
    between = [(0, 0)] * pictures.ndim
    between[2] = (0, gap)
    return np.concatenate(list(np.pad(pictures, between, constant_values=fill)), 1)


def _draw_frames(axes: Any, session: Session, state: InspectorState) -> None:
    """The frames that the network saw, the map over them."""
    seen = session.clips.seen(state.selected)
    frames = seen.frames
    numbers = np.array(seen.indices[0])
    for one in state.edits:
        if one.get("kind") == "frames":
            order = order_of(one["value"], len(frames))
            frames = blurred(frames) if one["value"] == "blurred" else frames[order]
            numbers = numbers[order]
    frames = frames[:16]
    gap = max(frames.shape[2] // 32, 1)
    axes.imshow(_side_by_side(frames, gap, 255), interpolation="nearest")
    axes.set_axis_off()
    width = frames.shape[2] + gap
    for t, number in enumerate(numbers[: len(frames)]):
        axes.text(t * width, -0.04 * frames.shape[1], f"frame {number}", fontsize=FONT - 2)
    if state.map is None or not state.map.get("layer"):
        return
    target = state.map.get("target")
    target = session.class_read(state.selected) if target is None else target
    cam = session.cams(state.selected, state.map["layer"], state.map["method"], [target])[0]
    maps = enlarge(np.maximum(cam.maps, 0) / (max(cam.range[1], 0) or 1), frames.shape[1:3])[:16]
    opacity = float(state.look.get("opacity", 0.6))
    axes.imshow(_side_by_side(maps, gap, np.nan), cmap="inferno", vmin=0, vmax=1, alpha=opacity)


def _draw_answer(axes: Any, session: Session, state: InspectorState) -> None:
    """The five best classes, and what the edits made of them."""
    clip_id = state.selected
    label = session.clips.label(clip_id)
    before = session.read(clip_id).probabilities
    edits = check_edits(state.edits, len(session.network.blocks))
    after = before
    if edits:
        if session.known(clip_id, edits) is None:
            session.compute(clip_id, edits)
        logits = session.known(clip_id, edits)
        assert logits is not None  # computed above
        after = softmax(logits[None])[0]
    rows = best_classes(after, label)
    names = [
        textwrap.fill(session.class_names[row["class"]], 30, max_lines=2, placeholder="…")
        + (" (true)" if row["true"] else "")
        for row in rows
    ]
    ks = [row["class"] for row in rows]
    y = range(len(rows))
    axes.barh(y, after[ks], color=["#D55E00" if row["true"] else "#777777" for row in rows])
    if edits:
        axes.barh(y, before[ks], fill=False, edgecolor="black", linestyle=":")
    axes.set_yticks(y, names, fontsize=FONT - 1)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12))
    for row, k in enumerate(ks):
        axes.text(max(after[k], before[k]) + 0.02, row, f"{after[k]:.2f}", va="center", fontsize=FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    gates = session.network.wide is not None
    words = in_words(edits, list(session.network.blocks), gates) if edits else "probability"
    axes.set_title(shortened(words, 60), fontsize=FONT)


def _draw_table(axes: Any, session: Session, state: InspectorState) -> None:
    """Weight as edited, contribution or loss of every block and dependency."""
    read = session.read(state.selected)
    network = session.network
    closed = session.closed(state.selected)
    if state.reading == "loss":
        table = HeatTable(session.losses(state.selected)[0], "effect", "loss when left out")
    elif state.reading == "contribution":
        table = HeatTable(read.contributions, "weight", "contribution")
    else:
        edits = check_edits(state.edits, len(network.blocks))
        weights = edited_weights(read.weights, edits, network.blocks)
        table = HeatTable(weights, "gate" if network.wide else "weight", "weight")
        closed &= ~(weights > 0)
    blocks = list(network.blocks)
    draw_heat(axes, table, blocks)
    for b, d in np.argwhere(closed):
        cell = Rectangle((d - 0.5, b - 0.5), 1, 1, facecolor="white", edgecolor="#bbbbbb", hatch="//")
        axes.add_patch(cell).set_zorder(3)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(d, b, "closed", ha="center", va="center", fontsize=FONT - 2, bbox=paper, zorder=4)
    part_stages(axes, blocks)
    axes.set_title(table.title, fontsize=FONT)


def code_of(
    model: str,  # path of the model file, or the name of one that ships
    clips: str,  # path of the clips
    options: dict[str, Any],  # further words of `inspect`
    state: InspectorState,
) -> str:  # Python
    """The lines that open this state again."""
    if not model or not clips:
        raise SettingError(
            "only an inspector that was opened with the path of a model file and of a folder can be "
            "opened again",
            remedy="save the network with save_model, then inspect(file, folder)",
        )
    words = [str(model_file(model).resolve()), str(Path(clips).resolve())]
    more = [f"{name}={value!r}" for name, value in options.items() if value]
    return (
        "import sda\n\n"
        f"inspector = sda.inspect({', '.join([*map(repr, words), *more])})\n"
        f"inspector.state.load_json({state.to_json()!r})\n"
        "inspector\n"
    )


def kept_file(session: Session, state: InspectorState, what: str) -> tuple[str, str, bytes]:
    """A picture of this state: name, MIME type, content."""
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(state.selected).stem) or "clip"
    figure = draw_state(session, state)
    if what == "png":
        return f"{stem}.png", "image/png", to_png(figure, dpi=160)
    with rc_context({"svg.hashsalt": "sda"}):  # the same again gives the same file
        figure.savefig(drawn := io.BytesIO(), format="svg", metadata={"Date": None})
    return f"{stem}.svg", "image/svg+xml", drawn.getvalue()


def state_json(session: Session, state: InspectorState) -> str:
    """The state, and which network and library it was of."""
    network = session.network
    return json.dumps(
        {
            "state": json.loads(state.to_json()),
            "network": {"name": network.name, "fingerprint": network.fingerprint},
            "sda": __version__,
        },
        indent=1,
    )
