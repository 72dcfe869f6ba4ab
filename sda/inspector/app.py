"""The inspector as people open it: in a notebook, as a page of one's own, or recorded."""

import base64
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..assets import model_file
from ..figures.style import DPI, to_png
from ..foundation.errors import RunError, SettingError, missing_package
from ..networks.backbones import VideoNet
from .edits import check_edits, known_name
from .keep import code_of, draw_state, kept_file
from .opening import Model, Paths, open_session
from .scenes import finding
from .session import Session, planned
from .state import InspectorState, state_values
from .view import View

__all__ = ["Inspector", "inspect", "serve"]

log = logging.getLogger(__name__)


class Inspector:
    """A session and what is looked at; as the last line of a cell it appears as a widget."""

    def __init__(
        self,
        session: Session,
        state: InspectorState | None = None,
        opened: Mapping[str, Any] | None = None,  # words of `inspect` that open it again
        offers: Mapping[str, Mapping[str, Any]]
        | None = None,  # what may be opened: name -> words of `inspect`
        visited: bool = False,  # by strangers: they choose among the offers, no path is shown or taken
        strict: bool = False,  # errors are raised as well as shown
    ):
        self.session = session
        self.state = state or InspectorState()
        self.opened = dict(opened or {})
        self.offers = {name: dict(words) for name, words in (offers or {}).items()}
        self.offer = next(iter(self.offers), "")
        self.visited = visited
        self.strict = strict
        self.view: View | None = None
        if self.state.selected:
            session.clips.check(self.state.selected)
        else:
            self.state.selected = session.clips.ids()[0]

    @property
    def folders(self) -> list[str]:
        """Folders whose names visitors do not see."""
        words = [value for name in ("clips", "model", "other") for value in [self.opened.get(name)] if value]
        return [str(Path(word).parent) for word in words if isinstance(word, str)]

    def show(self) -> "Inspector":
        """Make the widget."""
        self.view = self.view or View(self)
        return self

    def close(self) -> None:
        """Take the widget away and forget what was computed."""
        if self.view:
            self.view.close()
        self.view = None
        self.session.close()

    def open_offer(self, name: str) -> None:
        """Look into one of the offers; on an error everything stays as it was."""
        known_name("dataset", name, self.offers)
        words = self.offers[name]
        session = open_session(**words)
        self.session.close()
        self.session = session
        self.opened = dict(words)
        self.offer = name
        with self.state.hold_trait_notifications():
            self.state.edits = []
            self.state.beside = None
            self.state.map = None
            self.state.filters = {}
            self.state.selected = session.clips.ids()[0]
        if self.view:
            self.view.begin()

    def load(self, text: str) -> None:
        """Take over a state that was kept, by itself or with what it was of; all of it or nothing."""
        values = state_values(text)
        self.session.clips.check(str(values.get("selected") or self.state.selected))
        check_edits(values.get("edits", []), len(self.session.network.blocks))
        self.state.load(values)

    def finding(self) -> str:
        """What the answer rests on, in one sentence; measured now where it is not known."""
        clip_id = self.state.selected
        _, first = next(planned(self.session, clip_id))
        for _ in self.session.answering(clip_id, first):
            pass
        found = finding(self.session, clip_id)
        return found["sentence"] if found else f"{self.session.network.name} has no SDA blocks."

    def figure(self) -> Any:
        """Exactly this state as a matplotlib figure."""
        return draw_state(self.session, self.state)

    def png(self) -> bytes:
        """The same as the content of a PNG file."""
        return kept_file(self.session, self.state, "png")[2]

    def code(self, quiet: bool = False) -> str:
        """The lines that open this state again; quiet: nothing where they cannot be written."""
        words = dict(self.opened)
        model, clips = words.pop("model", ""), words.pop("clips", "")
        if self.visited:
            raise SettingError("visitors do not see where the files of the server are")
        if quiet and not (model and clips):
            return ""
        return code_of(model, clips, words, self.state)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        """The widget, and a picture for readers without a kernel."""
        self.show()
        assert self.view is not None  # made above
        data, metadata = self.view.panel._repr_mimebundle_()  # metadata tell Colab who draws it
        figure = self.figure()
        network = self.session.network.name
        said = f"Frames of {self.state.selected}, the answer of {network}, and what it selected"
        size = {"width": round(figure.get_figwidth() * DPI), "alt": said}
        picture = base64.b64encode(to_png(figure, 2 * DPI)).decode()
        data = {**data, "image/png": picture, "text/plain": repr(self)}
        return data, {**metadata, "image/png": size}

    def __repr__(self) -> str:
        return f"Inspector of {len(self.session.clips.ids())} clips, {self.session.network.name}"


def inspect(
    model: Model,  # model file, name of one that ships, or a network in memory
    clips: Paths,  # dataset folder (category.txt, img/, trainValTest/), folder of videos, or videos
    split: str = "test",  # of a dataset: list in trainValTest/
    other: Model | None = None,  # another network, to stand beside it
    trace: str | Path | None = None,  # .npz: read when it is there, else written
    strict: bool = False,  # raise errors as well as showing them
    device: str = "auto",  # where model files compute; a network in memory stays where it is
    precision: str = "auto",  # in which number format, likewise: auto, fp32, bf16 or fp16
    # what visitors may open: name -> model, clips, split, other (None: only what is opened here)
    offers: Mapping[str, Mapping[str, Any]] | None = None,
    visited: bool | None = None,  # strangers look at it: no path is shown or taken (None: under Voila)
    **state: object,  # fields of InspectorState to start with
) -> Inspector:  # as the last line of a cell it appears
    """Look into a network and clips: what it selects, what the answer rests on, what changes it."""
    session = open_session(model, clips, split, other, trace, device, precision)
    if visited is None:
        visited = any(name.startswith("VOILA_") for name in os.environ)  # Voila sets some for its kernels
    words = {"model": model, "clips": clips, "split": split, "other": other, "trace": trace}
    plain = {name: str(value) for name, value in words.items() if value and isinstance(value, str | Path)}
    if isinstance(model, VideoNet) or not isinstance(clips, str | Path):
        plain = {}
    if offers is None and plain:
        offers = {f"{Path(plain['clips']).resolve().name} · {session.network.name}": plain}
    return Inspector(session, InspectorState(**state), plain, offers, visited, strict)


# ---- As a page of one's own


def _notebook(source: str) -> str:
    """A notebook of one cell, as JSON."""
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return json.dumps({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def serve(
    model: str | Path,  # model file
    clips: Sequence[str | Path],  # a dataset folder, a folder of videos, or videos
    port: int = 0,  # 0: any free one
    browser: bool = True,  # open it
    wait: bool = True,  # until the server ends
    **words: Any,  # further ones of `inspect`
) -> tuple[str, subprocess.Popen]:  # address with its token, and the server
    """Serve the inspector on this machine, for whoever knows the token."""
    if not find_spec("voila"):
        raise missing_package("voila", "sda app", "notebook")
    paths = [str(Path(path).resolve()) for path in clips]
    open_session(model, paths if len(paths) > 1 else paths[0], **words)  # what is wrong is said now
    more = "".join(f", {name}={value!r}" for name, value in words.items())
    source = (
        f"import sda\n\nsda.inspect({str(model_file(model).resolve())!r}, "
        f"{paths if len(paths) > 1 else paths[0]!r}, visited=False{more})"
    )
    port = port or _free_port()
    token = secrets.token_urlsafe(24)
    folder = tempfile.mkdtemp(prefix="sda-app-")
    book = Path(folder) / "inspector.ipynb"
    book.write_text(_notebook(source), encoding="utf-8")
    options = ["--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", f"--token={token}"]
    command = [sys.executable, "-m", "voila", str(book), *options, "--Voila.log_level=WARN"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/?token={token}"
    try:
        _wait_for(url.partition("?")[0], server)
        print(f"Inspector: {url}", flush=True)
        if browser:
            webbrowser.open(url)
        if wait:
            server.wait()
    except BaseException:
        server.terminate()
        server.wait(10)
        raise
    finally:
        if wait:
            shutil.rmtree(folder, ignore_errors=True)
    return url, server


def _free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen, seconds: float = 60) -> None:
    """Until a server answers anything at all."""
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError:
            return  # it wants the token
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RunError("the server did not start", subject=url, remedy="try another --port")
