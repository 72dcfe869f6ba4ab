"""The widget: what the session knows goes in, what people do there comes back as state and messages."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..explaining.cam import LAYER, METHOD
from ..foundation.errors import SdaError, missing_package
from .background import Background
from .edits import check_edits, edits_key
from .html import STATIC
from .keep import kept_file, state_json
from .page import page_of, recording
from .questions import QUESTIONS, ask
from .scenes import about, answers_of, finding, map_of, row_of, scene_of, thumb_of
from .session import Session, numbers, planned

log = logging.getLogger(__name__)

SHARED = ("selected", "beside", "edits", "filters", "reading", "look")  # of the state and of the widget
FLUSH = 0.3  # seconds between two looks at what is known by now
CHEAP = 400_000  # numbers in a clip up to which the maps of five classes are made at once
SMALL = 100  # clips that are all looked at before the answers that nobody asked for yet

_FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/'\"]+)*/(?=[^\s/'\"])|[A-Za-z]:\\(?:[^\s\\'\"]+\\)*")


def without_folders(
    text: str,  # an error, perhaps with paths
    folders: Sequence[str] = (),  # known ones, which may hold blanks
) -> str:  # with the last parts of paths only
    """What visitors may know of the files of this machine."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "") if len(folder) > 1 else text
    return _FOLDERS.sub("", text)


@lru_cache
def panel_class() -> type:
    """The widget; anywidget is imported here and nowhere else."""
    try:
        import anywidget
        import traitlets
    except ImportError as err:
        raise missing_package("anywidget", "the inspector", "notebook") from err

    class Panel(anywidget.AnyWidget):
        """Traits that the front-end of this package draws; see static/widget.js."""

        _esm = STATIC / "widget.js"
        _css = STATIC / "widget.css"
        about = traitlets.Dict().tag(sync=True)
        clips: Any = traitlets.List().tag(sync=True)
        filters = traitlets.Dict().tag(sync=True)
        selected = traitlets.Unicode().tag(sync=True)
        beside = traitlets.Dict(None, allow_none=True).tag(sync=True)
        edits: Any = traitlets.List().tag(sync=True)
        scene = traitlets.Dict(None, allow_none=True).tag(sync=True)
        progress = traitlets.Dict(None, allow_none=True).tag(sync=True)
        other = traitlets.Dict(None, allow_none=True).tag(sync=True)
        answers = traitlets.Dict().tag(sync=True)
        map = traitlets.Dict(None, allow_none=True).tag(sync=True)
        other_map = traitlets.Dict(None, allow_none=True).tag(sync=True)
        reading = traitlets.Unicode("weight").tag(sync=True)
        look = traitlets.Dict().tag(sync=True)
        questions = traitlets.Dict().tag(sync=True)
        status = traitlets.Dict().tag(sync=True)

    return Panel


class View:
    """One widget on one inspector; `inspector` has session, state, offers and what may be shown."""

    def __init__(self, inspector: Any):
        self.inspector = inspector
        self.panel = panel_class()()
        self.background = Background()
        self.flushed = (0, 0.0)  # answers that the widget has, and when it got them
        self.faults = 0  # errors that were told so far
        self.keep_in_step()
        self.panel.on_msg(lambda widget, content, buffers: self.receive(content, buffers))
        self.begin()

    @property
    def session(self) -> Session:
        """What is looked into now."""
        return self.inspector.session

    # ---- State and widget

    def keep_in_step(self) -> None:
        """What changes in the state changes in the widget, and the other way round; wrong values go back."""
        state = self.inspector.state
        reach: dict[str, Callable[[], None]] = {
            "selected": self.show_clip,
            "edits": self.show_edits,
            "beside": self.show_beside,
            "map": self.show_map,
        }

        def from_widget(change: dict) -> None:
            with self.background.lock:
                take(change)

        def take(change: dict) -> None:
            name = change["name"]
            if getattr(state, name) == change["new"]:
                return
            old = getattr(state, name)
            try:
                if name == "edits":
                    check_edits(change["new"], len(self.session.network.blocks))
                if name == "selected":
                    self.session.clips.check(change["new"])
                setattr(state, name, change["new"])
            except Exception as err:
                setattr(self.panel, name, old)
                self.failed("table" if name == "edits" else "clips", err)

        def from_state(change: dict) -> None:
            name = change["name"]
            if name in SHARED:
                setattr(self.panel, name, change["new"])
            if name in reach:
                self.trying({"selected": "scene", "edits": "table"}.get(name, name), reach[name])

        for name in SHARED:
            setattr(self.panel, name, getattr(state, name))
        self.panel.observe(from_widget, list(SHARED))
        state.observe(from_state, [*SHARED, "map"])

    def begin(self) -> None:
        """Show a session from its start."""
        inspector = self.inspector
        self.background.close()
        told = about(self.session, "", True, inspector.visited, list(inspector.offers), inspector.offer)
        told["questions"] = [{"name": n, "title": t, "words": w} for n, (t, w) in QUESTIONS.items()]
        if inspector.visited:
            folders = inspector.folders
            told["left_out"] = {n: without_folders(why, folders) for n, why in told["left_out"].items()}
        self.panel.about = told
        self.panel.questions = {name: {"state": "unmeasured", "rows": []} for name in QUESTIONS}
        self.trying("scene", self.show_clip)
        self.list_clips()
        if self.session.unread():
            self.background.start("clips", self._reading(), urgency=4 if self._small() else 6)

    def _small(self) -> bool:
        return len(self.session.clips.ids()) <= SMALL

    # ---- One clip

    def show_clip(self) -> None:
        """The selected clip: its picture now, its answers in the background."""
        clip_id = self.inspector.state.selected
        self.panel.progress = None
        self.panel.scene = scene_of(self.session, clip_id)
        self.flush(clip_id)
        self.show_beside()
        self.show_map()
        self.background.start("first", self._answering(clip_id, first=True), urgency=2, ended=self._quiet)
        self.background.start("more", self._answering(clip_id, first=False), urgency=5, ended=self._quiet)
        if self.inspector.state.edits:
            self.show_edits()

    def _answering(self, clip_id: str, first: bool) -> Iterator[None]:
        """Answer what people will ask, a short step at a time; losses are estimated where that is slow."""
        session = self.session
        slow = session.seconds * len(session.cells()) > 1
        if first and slow and session.network.blocks:
            session.guess(clip_id)
            self.measured(clip_id)
            yield
        parts = list(planned(session, clip_id))
        for controls, some in parts[:1] if first else parts[1:]:
            for _ in session.answering(clip_id, some, controls):
                if first:
                    self.measured(clip_id)
                self.flush(clip_id)
                yield
        self.measured(clip_id)
        self.flush(clip_id, whole=not first)

    def measured(self, clip_id: str) -> None:
        """Tell what leaving out costs, as far as it is known."""
        losses, how = self.session.losses(clip_id)
        self.panel.progress = {
            "clip": clip_id,
            "losses": numbers(losses, 4),
            "loss_is": how,
            "finding": finding(self.session, clip_id),
            "percentiles": self.session.percentiles(clip_id),
        }

    def flush(self, clip_id: str, whole: bool | None = None) -> None:
        """Send answers, all again: each time there is a good part more, so that not much is sent in all."""
        known = len(self.session.answered.get(clip_id, ()))
        before, when = self.flushed
        fresh = self.panel.answers.get("clip") != clip_id
        if not fresh and whole is None and (known < before * 1.25 or time.monotonic() - when < FLUSH):
            return
        self.flushed = (known, time.monotonic())
        items = answers_of(self.session, clip_id)
        edits = self.inspector.state.edits
        mine = self.session.answer(clip_id, edits) if edits else None
        if mine is not None:
            items[edits_key(edits)] = mine
        total = len({edits_key(e) for _, part in planned(self.session, clip_id) for e in part})
        left = max(total - len(items), 0) * self.session.seconds
        self.panel.answers = {
            "clip": clip_id,
            "items": items,
            "done": min(len(items), total),
            "total": total,
            "left_s": round(left, 1),
        }

    def show_edits(self) -> None:
        """The answer to the present edits, and the same at random."""
        state = self.inspector.state
        edits = check_edits(state.edits, len(self.session.network.blocks))
        clip_id = state.selected
        answer = self.session.answer(clip_id, edits)
        if answer is None and edits:
            self.session.compute(clip_id, edits)
            self.flush(clip_id, whole=True)
        if edits and (answer is None or answer["control"] is None):
            steps = self.session.answering(clip_id, [edits])
            done = lambda error: self.flush(clip_id, whole=True)  # noqa: E731
            self.background.start("edits", steps, ended=done, urgency=0)

    def show_beside(self) -> None:
        """What stands beside the clip."""
        beside = self.inspector.state.beside
        if beside is None:
            self.panel.other = None
            self.panel.other_map = None
            return
        clip_id = beside.get("clip") or self.inspector.state.selected
        self.panel.other = scene_of(
            self.session, clip_id, beside.get("network") or 0, beside.get("frames") or ""
        )
        self.show_map()

    def show_map(self) -> None:
        """Raw maps of the five best classes, or of the one that is asked for."""
        state = self.inspector.state
        asked = state.map
        if not asked or not asked.get("layer"):
            self.panel.map = None
            self.panel.other_map = None
            return
        k = self.session.class_read(state.selected)
        target = asked.get("target")
        wanted: list[int | str] = [k if target is None else target]
        if self.session.views(state.selected)[0].numel() <= CHEAP:
            wanted += [row["class"] for row in (self.panel.scene or {}).get("top", ())]
        wanted = list(dict.fromkeys(wanted))
        made = self.session.cams(state.selected, asked["layer"], asked["method"], wanted)
        self.panel.map = map_of(made, wanted, state.selected)
        beside = state.beside
        if beside is not None and not beside.get("frames"):
            clip_id = beside.get("clip") or state.selected
            made = self.session.cams(
                clip_id, asked["layer"], asked["method"], wanted, beside.get("network") or 0
            )
            other = map_of(made, wanted, clip_id)
            top = max(other["top"], self.panel.map["top"])
            self.panel.map = self.panel.map | {"top": top}
            self.panel.other_map = other | {"top": top}

    # ---- All clips

    def list_clips(self) -> None:
        """The rows of all clips; small sets bring their pictures."""
        self.panel.clips = [row_of(self.session, clip_id) for clip_id in self.session.clips.ids()]

    def _reading(self) -> Iterator[None]:
        """Look at clips one by one; the list is sent each time a good part more is known."""
        todo = self.session.unread()
        sent = 0
        for done, clip_id in enumerate(todo, 1):
            if clip_id in self.session.clips.ids():
                self.session.read(clip_id)
            if done >= max(8, sent * 1.5) or done == len(todo):
                sent = done
                self.list_clips()
            yield
        self.measured(self.inspector.state.selected)

    # ---- Messages

    def receive(self, message: Any, buffers: Sequence[Any] = ()) -> None:
        """What people ask for beside the state."""
        message = message if isinstance(message, dict) else {}
        answers: dict[str, tuple[str, Callable[[dict, Sequence[Any]], None]]] = {
            "here": ("scene", lambda m, b: self.background.go()),
            "map": ("map", self._ask_map),
            "question": ("questions", self._ask_question),
            "cancel": ("questions", self._ask_cancel),
            "upload": ("upload", self._ask_upload),
            "path": ("upload", self._ask_path),
            "forget": ("clips", self._ask_forget),
            "thumbs": ("clips", self._ask_thumbs),
            "open": ("clips", lambda m, b: self.inspector.open_offer(str(m.get("offer")))),
            "keep": ("keep", self._ask_keep),
            "load": ("keep", lambda m, b: self.inspector.load(str(m.get("state")))),
        }
        if message.get("ask") in answers:
            where, answer = answers[message["ask"]]
            self.trying(where, lambda: answer(message, buffers))

    def _ask_map(self, message: dict, buffers: Sequence[Any]) -> None:
        state = self.inspector.state
        wanted = {name: message.get(name) for name in ("layer", "method", "target")}
        if wanted == state.map:
            self.show_map()
        state.map = wanted if wanted["layer"] else None

    def _ask_question(self, message: dict, buffers: Sequence[Any]) -> None:
        state = self.inspector.state
        name = str(message.get("name"))
        chosen = state.map or {}
        edits = check_edits(state.edits, len(self.session.network.blocks))
        every = self.session.clips.ids()
        listed = set(message.get("ids", every))  # clips that fit the filters of the page
        ids = [clip_id for clip_id in every if clip_id in listed]
        layer, method = chosen.get("layer") or LAYER, chosen.get("method") or METHOD
        steps = ask(self.session, name, state.selected, ids, edits, layer, method)
        job = self.background.start(
            "question",
            steps,
            lambda found: self._tell(name, found | {"state": "running"}),
            lambda error: self._tell_end(name, error),
            urgency=1,
        )
        self._tell(name, {"state": "running", "rows": [], "started": job.started})

    def _tell(self, name: str, found: dict) -> None:
        job = self.background.jobs.get("question")
        done, total = found.get("done", 0), found.get("total", 0)
        left = job.left(done, total) if job and total else None
        self.panel.questions = self.panel.questions | {
            name: {**self.panel.questions[name], **found, "left_s": left}
        }

    def _tell_end(self, name: str, error: BaseException | None) -> None:
        words = {} if error is None else {"message": self.words(error)}
        self._tell(name, {"state": "done" if error is None else "failed", **words})

    def _ask_cancel(self, message: dict, buffers: Sequence[Any]) -> None:
        for name in ("question", "keep"):
            self.background.cancel(name)
        self.session.clips.coming.clear()
        self.panel.questions = {
            name: one | ({"state": "unmeasured"} if one["state"] == "running" else {})
            for name, one in self.panel.questions.items()
        }
        self.say("ready", "questions")

    def _ask_upload(self, message: dict, buffers: Sequence[Any]) -> None:
        name = str(message.get("name"))
        index, total, size = (int(message.get(key) or 0) for key in ("index", "total", "bytes"))
        clip_id = self.session.clips.piece(name, index, total, size, bytes(buffers[0]))
        self.say("ready" if clip_id else "busy", "upload", name, done=index + 1, total=total)
        if clip_id:
            self.added(clip_id)

    def _ask_path(self, message: dict, buffers: Sequence[Any]) -> None:
        if self.inspector.visited:
            raise SdaError("visitors cannot open files of the server", remedy="drop the video here")
        self.added(self.session.clips.add_path(str(message.get("path")))[0])

    def added(self, clip_id: str) -> None:
        """Show a clip that somebody brought."""
        self.inspector.state.selected = clip_id
        self.list_clips()
        if self.session.unread():
            self.background.start("clips", self._reading(), urgency=4)

    def _ask_forget(self, message: dict, buffers: Sequence[Any]) -> None:
        clip_id = str(message.get("clip"))
        self.session.clips.forget(clip_id)
        if self.inspector.state.selected == clip_id:
            self.inspector.state.selected = self.session.clips.ids()[0]
        self.list_clips()

    def _ask_thumbs(self, message: dict, buffers: Sequence[Any]) -> None:
        wanted = [i for i in message.get("ids", ()) if i in self.session.clips.ids()][:24]
        self.panel.send({"thumbs": {i: thumb_of(self.session, i) for i in wanted}})

    def _ask_keep(self, message: dict, buffers: Sequence[Any]) -> None:
        what = message.get("what")
        inspector = self.inspector
        stem = Path(inspector.state.selected).stem
        if what == "code":
            self.panel.send(
                {"kept": what, "name": f"{stem}.py", "mime": "text/x-python", "text": inspector.code()}
            )
        elif what == "state":
            text = state_json(self.session, inspector.state)
            self.panel.send({"kept": what, "name": f"{stem}.json", "mime": "application/json", "text": text})
        elif what == "page":
            self.say("busy", "keep", "measuring what the page will hold")
            self.background.start("keep", self._paging(stem), ended=self._quiet, urgency=1)
        else:
            name, mime, content = kept_file(self.session, inspector.state, str(what))
            self.panel.send({"kept": what, "name": name, "mime": mime}, buffers=[content])

    def _paging(self, stem: str) -> Iterator[None]:
        state = self.inspector.state
        ids = [state.selected]
        if state.beside and state.beside.get("clip"):
            ids.append(state.beside["clip"])
        started = time.monotonic()
        for done, total in recording(self.session, ids):
            spent = time.monotonic() - started
            left = round(spent / done * (total - done), 1) if done else None
            self.say("busy", "keep", "measuring what the page will hold", done=done, total=total, left_s=left)
            yield
        text = page_of(
            self.session, ids, state, code="" if self.inspector.visited else self.inspector.code(quiet=True)
        )
        self.panel.send(
            {"kept": "page", "name": f"{stem}.html", "mime": "text/html"}, buffers=[text.encode()]
        )
        self.say("ready", "keep")

    # ---- What is going on

    def trying(self, where: str, call: Callable[[], None]) -> None:
        """Do something that may fail for reasons that people can mend."""
        before = self.faults
        with self.background.lock:  # not while a step of the background uses the network
            try:
                call()
            except Exception as err:
                self.failed(where, err)
                if self.inspector.strict:
                    raise
            else:
                told = self.panel.status
                if self.faults == before and told.get("where") == where and told.get("state") == "error":
                    self.say("ready", where)

    def words(self, error: BaseException) -> str:
        """An error as people may read it."""
        text = str(error) or type(error).__name__
        return without_folders(text, self.inspector.folders) if self.inspector.visited else text

    def failed(self, where: str, error: BaseException) -> None:
        """Say what went wrong at the place of the action."""
        log.debug("in the inspector", exc_info=error)
        self.faults += 1
        self.say("error", where, self.words(error), remedy=getattr(error, "remedy", None) or "")

    def _quiet(self, error: BaseException | None) -> None:
        if error is not None:
            self.failed("scene", error)

    def say(self, state: str, where: str, message: str = "", **more: Any) -> None:
        """Set the status."""
        self.panel.status = {
            "state": state,
            "where": where,
            "message": message,
            "remedy": "",
            "done": 0,
            "total": 0,
            "left_s": None,
            **more,
        }

    def close(self) -> None:
        """Take the widget away."""
        self.background.close()
        self.panel.close()
