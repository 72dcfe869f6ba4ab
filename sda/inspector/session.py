"""A session of looking: choose a clip, see what the network selected, change that, keep what you found."""

import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from traitlets import HasTraits, Instance

from .. import __version__
from ..explaining.checks import FaithfulnessReport
from ..explaining.effects import Effect
from ..explaining.trace import Trace
from ..figures.effects import fig_checks, fig_curves
from ..figures.style import to_png
from ..foundation.errors import SettingError
from ..foundation.files import check_folder, write_atomic
from .figures import PANELS, draw, fig_log, stacked
from .provider import ModelProvider, Remembered, open_provider, unknown_clip
from .state import MAP_OPTIONS, InspectorState, clip_table, find_clips, known_name, one_line

__all__ = ["Session"]

log = logging.getLogger(__name__)


MEASURED = (
    "log",
    "trust",
    "curves over space",
    "curves over frames",
)  # pictures of what was measured on request


MOST_MEASURED = 60  # clips that are measured at once, so that the panel answers


PRESETS = ("same class, different selection", "same selection, different class")


def effect_row(
    effect: Effect,  # of one clip or several
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
    parts: Sequence[Effect],  # the same intervention on some clips each
) -> Effect:  # on all of them
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


def partner(
    trace: Trace,  # of the dataset
    clip_id: str,  # clip A
    kind: str = "same class, different selection",  # or "same selection, different class"
) -> str:  # clip B
    """A clip worth comparing with."""
    known_name("preset", kind, PRESETS)
    if trace.labels is None:
        raise SettingError("presets need true classes, and this dataset has none")
    if clip_id not in trace.videos:
        raise SettingError(f"presets need a clip of the dataset; {clip_id} is not one")
    i = trace.videos.index(clip_id)
    labels = np.array(trace.labels)
    apart = np.sqrt((np.nan_to_num(trace.weights - trace.weights[i]) ** 2).sum((1, 2)))
    same = kind == PRESETS[0]
    fits = (labels == labels[i]) == same
    fits &= np.array(trace.videos) != clip_id
    if not fits.any():
        raise SettingError(f"no other clip of the class of {clip_id} is in this dataset")
    order = np.where(fits, apart, -1).argmax() if same else np.where(fits, apart, np.inf).argmin()
    return trace.videos[int(order)]


def sidecar(
    provider: ModelProvider,  # where the picture came from
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


def _says(path: Path, text: str) -> bool:
    """Whether a file is not there, or holds this text."""
    return not path.exists() or path.read_text(encoding="utf-8") == text


class Session(HasTraits):
    """State and provider together, and everything that can be done; `sda.inspector.app` shows it as a panel.

    Whoever shows a session observes its `state` and its `provider`; the session knows of nobody.
    """

    provider = Instance(ModelProvider, help="where the answers come from")

    def __init__(
        self,
        provider: ModelProvider,  # where the answers come from
        state: InspectorState | None = None,  # where to start
        strict: bool = False,  # errors are raised as well as shown
        source: str = "",  # the call that opens it, for `code`
        seed: int = 0,  # of Random
        offers: Mapping[str, Mapping[str, str]] | None = None,  # what may be opened: name -> words of `open`
        visited: bool = False,  # by strangers: they choose among the offers, and no path is shown or taken
    ):
        super().__init__()
        self.state = state or InspectorState()
        self.strict = strict
        self.offers = {name: dict(words) for name, words in (offers or {}).items()}
        self.offer = next(iter(self.offers), "")
        self.visited = visited
        self.rng = np.random.default_rng(seed)
        self.look_into(provider, source)
        if not self.state.clip_id:
            self.state.clip_id = self.found.video.iloc[0]

    def look_into(self, provider: ModelProvider, source: str) -> None:
        """Start anew with a provider."""
        self.source = source
        self.table = clip_table(provider.trace)
        self.log: list[dict[str, Any]] = []
        self.done: list[tuple[str, bool]] = []  # state as JSON, and whether all that fit were changed
        self.effects: list[pd.Series | None] = []
        self.pins: list[bytes] = []
        self.judged: FaithfulnessReport | None = None
        self.asked: tuple[str, int] | None = None  # the question that `judged` answers
        self.drawn = Remembered(128)
        self.provider = provider

    def open_offer(self, name: str) -> None:
        """Look into one of the offers."""
        known_name("dataset", name, list(self.offers))
        before = self.offer
        self.offer = name
        try:
            self.open(**self.offers[name])
        except Exception:
            self.offer = before
            raise

    def open(self, root: str, checkpoint: str, split: str = "test", other: str = "") -> None:
        """Look into another folder, split or checkpoint; on an error everything stays as it was."""
        provider, source = open_provider(root, checkpoint, split, other or None)
        self.provider.close()
        fits = self.state.layer in [*provider.layers(), *provider.trace.blocks]
        # whoever observes is told of the provider first, when the settings fit it already
        with self.state.hold_trait_notifications(), self.hold_trait_notifications():
            self.look_into(provider, source)
            self.state.filters = {}
            self.state.compare_id = ""
            self.state.compare = "clip"
            self.state.scope = "all"
            self.state.clip_id = self.table.video[0]
            if not fits:
                self.state.layer = MAP_OPTIONS["layer"].default

    def close(self) -> None:
        """Forget what was computed, and clips of one's own."""
        self.provider.close()

    @property
    def found(self) -> pd.DataFrame:
        """The clips that fit the filters; clips of one's own are never filtered away."""
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
            raise unknown_clip(clip_id, self.provider.ids())
        self.state.clip_id = clip_id

    def move(self, step: int) -> None:
        """Another clip of those that fit, going round."""
        videos = list(self.found.video)
        if not videos:
            raise SettingError("no clip fits the filters; loosen them or press Reset")
        here = videos.index(self.state.clip_id) if self.state.clip_id in videos else -1 if step > 0 else 0
        to = int(self.rng.integers(len(videos))) if step == 0 else (here + step) % len(videos)
        self.state.clip_id = videos[to]

    @property
    def count(self) -> str:
        """How many clips fit."""
        found = len(self.found)
        lost = self.provider.left_out
        more = f"; {len(lost)} cannot be read, e.g. {next(iter(lost))}" if lost else ""
        if not found:
            return "No clip fits these filters; loosen them or press Reset."
        return f"{found} of {len(self.table)} clips{more}"

    def figure(self, panel: str = "strip") -> Figure:
        """A panel as a figure."""
        if panel == "log":
            return fig_log(self.log)
        if panel not in MEASURED:
            return draw(self.provider, self.state, panel)
        if self.judged is None:
            raise SettingError("nothing was measured yet; see the tab Checks")
        if panel == "trust":
            return fig_checks(self.judged.table())
        over = panel.removeprefix("curves over ")
        return fig_curves(self.judged.curves_over(over), f"over {over}")

    def png(self, panel: str = "strip") -> bytes:
        """A panel as a PNG file; what was drawn before is not drawn again."""
        if panel in MEASURED:
            return to_png(self.figure(panel))
        known_name("panel", panel, [*PANELS, *MEASURED])
        key = (panel, *(getattr(self.state, name) for name in PANELS[panel][1]))
        return self.drawn.get(key, lambda: to_png(self.figure(panel)))

    def picture(self, panel: str = "strip") -> object:
        """A panel as a picture that a notebook keeps."""
        from IPython.display import Image

        return Image(self.png(panel))

    def code(self, panel: str = "strip") -> str:
        """The lines that make this picture again."""
        if not self.source:
            raise SettingError(
                "only an inspector opened with inspect_folder(folder, checkpoint file) "
                "knows how to be opened again"
            )
        start = f"from sda.inspector import inspect_folder\n\ninspector = {self.source}\n"
        load = "inspector.state.load_json"
        end = f"inspector.figure({panel!r})"
        if panel == "log":
            return (
                f"{start}for state, everywhere in {self.done!r}:\n    {load}(state)\n"
                f"    inspector.run(everywhere)\n{end}"
            )
        if panel in MEASURED:
            if self.asked is None:
                raise SettingError("nothing was measured yet; see the tab Checks")
            return f"{start}{load}({self.asked[0]!r})\ninspector.trust({self.asked[1]})\n{end}"
        return f"{start}{load}({one_line(self.state)!r})\n{end}"

    def save(self, folder: str | Path, panel: str = "strip", kind: str = "png") -> Path:
        """Write a picture and what it shows; another one of that name is kept, this one gets a number."""
        name, picture, beside = self.made(panel, kind)
        folder = check_folder(folder)
        path = folder / name
        number = 1
        while path.exists() and path.read_bytes() != picture or not _says(path.with_suffix(".json"), beside):
            number += 1
            path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
        write_atomic(path, picture)
        write_atomic(path.with_suffix(".json"), beside)
        return path

    def made(self, panel: str = "strip", kind: str = "png") -> tuple[str, bytes, str]:
        """A picture: name for its file, content, and as JSON what it shows."""
        known_name("kind of file", kind, ("png", "svg"))
        if panel == "sheet":
            kind = "png"
            picture = stacked(self.pins)
        elif kind == "png":
            picture = to_png(self.figure(panel), dpi=160)
        else:
            with rc_context({"svg.hashsalt": "sda"}):  # the same again gives the same file
                self.figure(panel).savefig(drawn := io.BytesIO(), format="svg", metadata={"Date": None})
            picture = drawn.getvalue()
        code = self.code(panel) if self.source and panel != "sheet" and not self.visited else ""
        beside = json.dumps(sidecar(self.provider, self.state, panel, code), indent=1)
        stem = Path(self.state.clip_id or "sheet").stem
        return f"{stem}-{panel}.{kind}", picture, beside

    def pin(self, panel: str = "strip") -> int:
        """Put the picture on the contact sheet; how many are there."""
        self.pins = [*self.pins, self.png(panel)]
        return len(self.pins)

    def run(self, everywhere: bool = False) -> dict:
        """Change the clip, or all that fit, as the state says; the line of the log."""
        for _ in self.running(everywhere):
            pass
        return self.log[-1]

    def running(self, everywhere: bool = False) -> Iterator[str]:
        """The same in steps, which say what is done next; nothing is logged before the last."""
        s = self.state
        ids = [self.state.clip_id]
        line = one_line(self.state)
        if everywhere:
            ids = list(self.found.video)[:MOST_MEASURED]
        if not ids or not ids[0]:
            raise SettingError("there is no clip to change; loosen the filters or press Reset")
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
            raise SettingError("the log is empty")
        self.log = self.log[:-1]
        self.done = self.done[:-1]
        self.effects = self.effects[:-1]

    def swap(self) -> None:
        """Exchange clip A and clip B."""
        if not self.state.compare_id:
            raise SettingError("there is no clip B to swap with")
        with self.state.hold_trait_notifications():
            self.state.clip_id, self.state.compare_id = self.state.compare_id, self.state.clip_id

    def preset(self, kind: str) -> None:
        """Choose a clip B worth comparing with."""
        self.state.compare_id = partner(self.provider.trace, self.state.clip_id, kind)

    def trust(self, most: int = 12) -> FaithfulnessReport:
        """How far the pictures of the clips that fit can be trusted."""
        for _ in self.judging(most):
            pass
        assert self.judged is not None  # every way through `judging` leaves what it found
        return self.judged

    def judging(self, most: int = 12) -> Iterator[str]:
        """The same in steps, which say what is done next; what is known so far stays in `judged`."""
        s = self.state
        asked = (one_line(self.state), most)
        for words, found in self.provider.trust(list(self.found.video), most, s.layer, s.method):
            self.judged, self.asked = found, asked
            if words:
                yield words

    def overview(self) -> bytes:
        """The clip, what was selected for it and the answer, as one PNG file for readers without a kernel."""
        return stacked(
            [
                self.png(p)
                for p in ("strip", "selection", "prediction")
                if p != "selection" or self.provider.trace.blocks
            ]
        )

    def __repr__(self) -> str:
        return f"Inspector of {len(self.table)} clips, {self.provider.name}"
