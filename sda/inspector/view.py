"""Widgets that show the state of an inspector and set it, and do nothing else."""

import asyncio
import base64
import html
import logging
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd

from ..explaining.checks import FaithfulnessReport
from ..foundation.errors import SettingError
from ..networks.blocks import DEPENDENCIES
from .controls import import_widgets, make_controls
from .figures import BESIDE, PANELS
from .session import MEASURED, PRESETS, Session

log = logging.getLogger(__name__)
Steps = Generator[None, None, str]  # of a job; its last words are returned


def guarded(method: Callable) -> Callable:
    """Say that work is going on, show errors in words, raise them when strict."""

    @wraps(method)
    def run(self: "InspectorView", *args: object, **options: object) -> object:
        outermost, result = not self.busy, None
        if outermost:
            self.busy, self.wrong = True, ""
        try:
            if outermost:
                self.say("working …")
            result = method(self, *args, **options)
        except Exception as err:
            log.debug("in the inspector", exc_info=True)
            self.wrong = str(err) or type(err).__name__
            if self.inspector.strict:
                raise
        finally:
            if outermost:
                self.busy = False
                self.say(self.wrong or (result if isinstance(result, str) else ""), error=bool(self.wrong))
        return result

    return run


def _told(text: str, error: bool = False) -> str:
    """A sentence as HTML; nothing in it is code."""
    colour = "#B00020" if error else "#444444"
    return f'<span style="color:{colour};line-height:1.4">{html.escape(text)}</span>' if text else ""


def log_html(rows: Sequence[dict]) -> str:
    """Interventions and what they did, the last one on top."""
    if not rows:
        return _told("Nothing was changed yet.")
    frame = pd.DataFrame(rows[::-1])
    text = frame.to_html(
        index=False, border=0, float_format=lambda v: f"{v:+.3f}", na_rep="–", justify="left"
    )
    return f'<div style="overflow-x:auto;max-height:240px">{text}</div>'


def download_html(
    files: Mapping[str, tuple[str, bytes]],  # name -> type, content
) -> str:
    """Links under which the browser keeps files; nothing is written on this machine."""
    links = [
        f'<a download="{html.escape(name)}" href="data:{kind};base64,{base64.b64encode(content).decode()}">'
        f"{html.escape(name)}</a>"
        for name, (kind, content) in files.items()
    ]
    return "Download: " + " · ".join(links)


_FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/'\"]+)*/(?=[^\s/'\"])|[A-Za-z]:\\(?:[^\s\\'\"]+\\)*")


def without_folders(
    text: str,  # an error, perhaps with paths
    folders: Sequence[str] = (),  # known ones, which may hold blanks
) -> str:  # with the last parts of paths only
    """What visitors may know of the files of this machine."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "") if len(folder) > 1 else text
    return _FOLDERS.sub("", text)


def checks_html(found: FaithfulnessReport | None) -> str:
    """What is known so far about how far the pictures can be believed."""
    if found is None or not found.lines():
        return _told("Nothing was measured yet.")
    said = "".join(f'<li style="line-height:1.4">{html.escape(words)}</li>' for words in found.words.values())
    lost = "".join(
        f'<li style="line-height:1.4;color:#666666">Not measured: {html.escape(why)}.</li>'
        for why in found.missing.values()
    )
    return f'<ul style="margin:0;max-width:60em">{said}{lost}</ul>'


_JOBS = ("run all", "trust")  # what takes so long that it can be cancelled
_FILTERS = ("true", "predicted", "outcome", "dominant", "sort", "confidence", "entropy")
_LINKED = (
    "clip_id",
    "compare_id",
    "compare",
    "overlay",
    "layer",
    "target",
    "method",
    "scale",
    "opacity",
    "frame",
    "view",
    "scope",
    "action",
)


class InspectorView:
    """The panel: widgets that show the state and set it."""

    def __init__(
        self,
        inspector: Session,  # what to show
    ):
        self.widgets = import_widgets()
        self.inspector = inspector
        self.quiet = False
        self.busy = False
        self.wrong = ""
        self.working = False  # a job is being done
        self.stopped = False  # it should end after this step
        self.task: asyncio.Task[None] | None = None  # the job, where an event loop runs
        self.box = self.widgets.VBox()
        self._make()
        inspector.state.observe(self._on_state)
        inspector.observe(self._on_provider, names="provider")

    def _make(self) -> None:
        """Every widget anew, in the box that is on the page."""
        w, inspector = self.widgets, self.inspector
        self.images = {
            name: w.Image(
                format="png", layout=w.Layout(max_width="100%", align_self="flex-start", display="none")
            )
            for name in (*PANELS, *MEASURED)
        }
        for name, image in self.images.items():
            image.add_class("sda-" + name.replace(" ", "-"))
        self.notes = {name: w.HTML() for name in self.images}
        self.shown = {
            "status": w.HTML(),
            "count": w.HTML(),
            "log": w.HTML(log_html([])),
            "pins": w.VBox(),
            "trust": w.HTML(checks_html(None)),
            "download": w.HTML(),
        }
        self.shown["status"].add_class("sda-status")
        self.controls = make_controls(w, inspector, self.click)
        self.controls["cancel"].disabled = True
        self.pull()
        for name in _LINKED:
            self.controls[name].observe(self._on_control, names="value")
        for name in _FILTERS:
            self.controls[name].observe(self._on_filter, names="value")
        for d in DEPENDENCIES:
            self.controls[f"weight {d}"].observe(self._on_weights, names="value")
        self.controls["upload"].observe(self._on_upload, names="value")
        self.box.children = _laid_out(w, self.controls, self.images, self.notes, self.shown)
        self.redraw(set(PANELS))

    @guarded
    def _on_provider(self, change: dict) -> None:
        """Other data or another network: new controls in the same place."""
        self.stopped = True  # whatever is being measured is of the old data
        old = _below(self.widgets.Widget, (self.box.children, self.controls["play"].link))
        self._make()
        _put_away(old)

    @guarded
    def _on_state(self, change: dict) -> None:
        """A setting changed, wherever from: show it, redraw what depends on it."""
        if change["name"] not in self.inspector.state.names():
            return
        self.pull()
        self.redraw({panel for panel, (_, names) in PANELS.items() if change["name"] in names})

    def say(self, text: str, error: bool = False) -> None:
        """One line about what is going on."""
        self.shown["status"].value = _told(self.allowed(text), error)

    def allowed(self, text: str) -> str:
        """A sentence as whoever looks may read it."""
        if not self.inspector.visited:
            return text
        clips = self.inspector.provider.clips
        words = [word for offer in self.inspector.offers.values() for word in offer.values()]
        known = {str(Path(word).parent) for word in words} | {clips.folder.name if clips.folder else ""}
        return without_folders(text, sorted(known, key=len, reverse=True))

    def pull(self) -> None:
        """Set every control to what the state says, without being told about it."""
        state = self.inspector.state
        quiet = self.quiet
        self.quiet = True
        rest = {"outcome": "all", "sort": "list", "confidence": (0, 1), "entropy": (0, 1)}
        try:
            for name in _LINKED:
                self.controls[name].value = getattr(state, name)
            for name in _FILTERS:
                value = state.filters.get(name) or rest.get(name, "")
                self.controls[name].value = tuple(value) if isinstance(value, list) else value
            for d, value in zip(DEPENDENCIES, state.weights, strict=True):
                self.controls[f"weight {d}"].value = value
            self.shown["count"].value = _told(self.inspector.count)
        finally:
            self.quiet = quiet

    def redraw(self, panels: set[str]) -> None:
        """Draw these panels; one that cannot be drawn says why and shows nothing."""
        state, failed = self.inspector.state, None
        for panel in (p for p in PANELS if p in panels):
            try:
                idle = panel in BESIDE and state.compare == "clip" and not state.compare_id
                data, note = (b"", "") if idle else (self.inspector.png(panel), "")
            except Exception as err:
                data = b""
                note = str(err) or type(err).__name__
                failed = err
            self.put(panel, data, note)
        if failed is not None and self.inspector.strict:
            raise failed

    def put(self, panel: str, data: bytes, note: str = "") -> None:
        """A picture, or the reason why there is none."""
        self.notes[panel].value = _told(self.allowed(note), error=True)
        self.images[panel].value = data
        self.images[panel].layout.display = None if data else "none"

    @guarded
    def press(self, name: str) -> object:
        """What a click on this button does."""
        return getattr(self, "_do_" + name.replace(" ", "_"))()

    @guarded
    def _on_control(self, change: dict) -> None:
        """A control was moved: set its setting."""
        if self.quiet:
            return
        name = next(n for n in _LINKED if self.controls[n] is change["owner"])
        if name == "clip_id":
            self.inspector.choose(change["new"])
        else:
            setattr(self.inspector.state, name, change["new"])

    @guarded
    def _on_filter(self, change: dict) -> None:
        """A filter was moved: search again."""
        if self.quiet:
            return
        name = next(n for n in _FILTERS if self.controls[n] is change["owner"])
        self.inspector.filter(
            **{name: list(change["new"]) if isinstance(change["new"], tuple) else change["new"]}
        )

    @guarded
    def _on_weights(self, change: dict) -> None:
        """A slider was moved: these four weights, made to sum to 1 when they are used."""
        if self.quiet:
            return
        self.inspector.state.weights = [self.controls[f"weight {d}"].value for d in DEPENDENCIES]
        self.inspector.state.action = "my weights"

    @guarded
    def _on_upload(self, change: dict) -> None:
        """A file arrived."""
        for file in change["new"]:
            self._added(self.inspector.provider.add(file["name"], bytes(file["content"])))

    def click(self, name: str) -> None:
        """What the browser calls: long work becomes a task where an event loop runs."""
        try:
            loop = asyncio.get_running_loop() if name in _JOBS else None
        except RuntimeError:
            loop = None
        if loop is None or self.working:
            self.press(name)
        else:
            self.task = loop.create_task(self._in_background(name))

    async def _in_background(self, name: str) -> None:
        """The steps of a job, with a breath between them."""
        work = self._work(name)
        words = ""
        try:
            while True:
                next(work)
                await asyncio.sleep(0.02)
        except StopIteration as end:
            words = end.value
        except Exception as err:
            log.debug("in the inspector", exc_info=True)
            self.wrong = str(err) or type(err).__name__
            if self.inspector.strict:
                raise
        finally:
            self.say(self.wrong or words, error=bool(self.wrong))

    def _do_cancel(self) -> str:
        if not self.working:
            raise SettingError("there is nothing to cancel")
        self.stopped = True
        return "stopping after this step …"

    def _do_run_all(self) -> str:
        return _finished(self._work("run all"))

    def _do_trust(self) -> str:
        return _finished(self._work("trust"))

    def _work(self, name: str) -> Steps:
        """Take the steps of a job and show what is known; its last words are returned."""
        if self.working:
            raise SettingError("still measuring; wait, or press Cancel")
        self.working = True
        self.stopped = False
        self.controls["cancel"].disabled = False
        ins = self.inspector
        trust = name == "trust"
        try:
            for words in ins.judging(self.controls["most"].value) if trust else ins.running(everywhere=True):
                if trust:
                    self.shown["trust"].value = checks_html(ins.judged)
                self.say(f"working … {words}")
                yield
                if self.stopped:
                    return (
                        f"stopped; {'what was measured so far is shown' if trust else 'nothing was changed'}"
                    )
        finally:
            self.working = False
            self.controls["cancel"].disabled = True
            if trust:
                self.show_checks()
            else:
                self._show_log()
        return "" if trust else "the clips can now be put in order of this effect"

    def show_checks(self) -> None:
        """FaithfulnessReport in words and pictures, as far as they are known."""
        judged = self.inspector.judged
        self.shown["trust"].value = checks_html(judged)
        for panel in (p for p in MEASURED if p != "log"):
            known = judged is not None and (
                judged.results
                if panel == "trust"
                else panel.removeprefix("curves over ") in {c.over.iloc[0] for c in judged.curves}
            )
            self.put(panel, self.inspector.png(panel) if known else b"")

    def _do_next(self) -> None:
        self.inspector.move(+1)

    def _do_previous(self) -> None:
        self.inspector.move(-1)

    def _do_random(self) -> None:
        self.inspector.move(0)

    def _do_swap(self) -> None:
        self.inspector.swap()

    def _do_reset(self) -> None:
        self.inspector.reset()
        self.pull()

    def _do_run(self) -> None:
        self.inspector.run()
        self._show_log()

    def _do_undo(self) -> None:
        self.inspector.undo()
        self._show_log()

    def _show_log(self) -> None:
        self.shown["log"].value = log_html(self.inspector.log)
        self.put("log", self.inspector.png("log") if self.inspector.log else b"")

    def _preset(self, kind: str) -> None:
        self.inspector.preset(kind)

    def _do_most_different(self) -> None:
        self._preset(PRESETS[0])

    def _do_most_alike(self) -> None:
        self._preset(PRESETS[1])

    def _save(self, panel: str, kind: str) -> str:
        if self.inspector.visited:
            name, picture, beside = self.inspector.made(panel, kind)
            kinds = {".svg": "image/svg+xml", ".png": "image/png"}
            files = {name: (kinds[Path(name).suffix], picture)}
            files[f"{Path(name).stem}.json"] = ("application/json", beside.encode())
            self.shown["download"].value = download_html(files)
            return f"{name} is ready to be downloaded"
        return f"saved {self.inspector.save(self.controls['folder'].value, panel, kind)} and what it shows"

    def _do_png(self) -> str:
        return self._save(self.controls["panel"].value, "png")

    def _do_svg(self) -> str:
        return self._save(self.controls["panel"].value, "svg")

    def _do_sheet(self) -> str:
        return self._save("sheet", "png")

    def _do_pin(self) -> str:
        count = self.inspector.pin(self.controls["panel"].value)
        self.shown["pins"].children = [
            self.widgets.Image(value=one, format="png") for one in self.inspector.pins
        ]
        return f"{count} pinned"

    def _do_code(self) -> None:
        self.controls["text"].value = self.inspector.code(self.controls["panel"].value)

    def _do_state(self) -> None:
        self.controls["text"].value = self.inspector.state.to_json()

    def _do_load(self) -> None:
        self.inspector.state.load_json(self.controls["text"].value)
        self.pull()

    def _do_open(self) -> None:
        self._added(self.inspector.provider.add_path(self.controls["path"].value))

    def _do_open_data(self) -> str:
        if self.inspector.visited:
            self.inspector.open_offer(self.controls["offer"].value)
        else:
            self.inspector.open(
                *(self.controls[name].value for name in ("root", "checkpoint", "split", "other"))
            )
        return f"looking into {self.inspector.provider.name} and {len(self.inspector.table)} clips"

    def _added(self, clip_id: str) -> None:
        for name in ("clip_id", "compare_id"):
            self.controls[name].options = self.inspector.provider.ids()
        self.inspector.choose(clip_id)

    def close(self) -> None:
        """Take every widget away and stop listening."""
        self.stopped = True
        self.inspector.state.unobserve(self._on_state)
        self.inspector.unobserve(self._on_provider, names="provider")
        _put_away(_below(self.widgets.Widget, (self.box, self.controls["play"].link)))


def _finished(work: Steps) -> str:
    """Take all steps; the last words."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def _below(kind: Any, top: Any) -> list[Any]:
    """A widget and everything it holds: children, layouts, styles."""
    found: dict[int, Any] = {}
    waiting = [top]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, kind) and id(one) not in found:
            found[id(one)] = one
            waiting += [getattr(one, name) for name in one.keys]
    return list(found.values())


def _put_away(widgets: Sequence[Any]) -> None:
    """Close widgets and forget who listened to them."""
    for widget in widgets:
        widget.unobserve_all()
        widget.close()


def _laid_out(w: Any, c: dict, images: dict, notes: dict, shown: dict) -> list:
    """Everything in its place: the bar, the clip, what was selected, and tabs for the rest."""
    wrap = w.Layout(flex_flow="row wrap")

    def row(*names: str) -> Any:
        return w.HBox([c[n] for n in names], layout=wrap)

    def panel(name: str) -> Any:
        return w.VBox([notes[name], images[name]])

    def tab(*parts: Any) -> Any:
        return w.VBox(list(parts))

    visited = "offer" in c
    if visited:
        named = [c["offer"].value] if c["offer"].value else []
        rows = [row(*(n for n in ("offer", "open data") if n in c))]
    else:
        named = [Path(c[n].value).stem for n in ("root", "split", "checkpoint", "other") if c[n].value]
        rows = [row("root", "split"), row("checkpoint", "other", "open data")]
    title = f"Data: {' · '.join(named) or 'in memory'}"
    data = w.Accordion([tab(*rows)], titles=[title], selected_index=None)
    bar = tab(
        w.HBox(
            [c["clip_id"], c["previous"], c["next"], c["random"], c["reset"], shown["count"]], layout=wrap
        ),
        row("true", "predicted", "outcome"),
        row("confidence", "entropy", "dominant", "sort"),
        w.HBox([c["cancel"], shown["status"]]),
    )
    clip = tab(
        row("overlay", "layer", "target", "method"),
        row("scale", "opacity", "play", "frame"),
        w.HBox([panel("strip"), panel("frame")], layout=wrap),
    )
    chosen = tab(row("view"), w.HBox([panel("selection"), panel("prediction")], layout=wrap))
    tabs = w.Tab(
        [
            tab(
                row("scope", "action", "run", "run all", "undo"),
                row(*(f"weight {d}" for d in DEPENDENCIES)),
                panel("log"),
                shown["log"],
            ),
            tab(
                row("compare_id", "compare", "swap"),
                row("most different", "most alike"),
                panel("strip B"),
                w.HBox([panel("compare"), panel("prediction B")], layout=wrap),
            ),
            tab(row("most", "trust"), shown["trust"], *map(panel, MEASURED[1:])),
            tab(
                row(*(n for n in ("panel", "folder", "png", "svg", "pin", "sheet") if n in c)),
                shown["download"],
                row(*(n for n in ("code", "state", "load") if n in c)),
                c["text"],
                row(*(n for n in ("upload", "path", "open") if n in c)),
                shown["pins"],
            ),
        ],
        titles=["Intervene", "Compare", "Checks", "Keep"],
    )
    return [data, bar, clip, chosen, tabs]
