"""The inspector in a real browser: JupyterLab and Voila on this machine, Chromium driven by Playwright.

Screenshots are kept in runs/browser.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from notebooks import ROOT

SHOTS = ROOT / "runs/browser"
TOKEN = "only-for-this-test"
BOOK = "nbs/apps/inspector.ipynb"
CLIP = ROOT / "sda/assets/moves_sample/img/test_0000_up.mp4"
STEP = 90_000  # milliseconds that one step may take on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def edit(kind, block=None, dependency=None):
    return {"kind": kind, "block": block, "dependency": dependency, "value": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the inspector notebook needs, to write into, on twenty clips instead of sixty."""
    target = tmp_path_factory.mktemp("browser") / "project"
    for name in ("nbs/apps", "sda"):
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        )
    book = target / BOOK
    book.write_text(book.read_text(encoding="utf-8").replace("EXAMPLES", "SAMPLE_CLIPS"), encoding="utf-8")
    return target


@contextmanager
def opened(browser, name, url):
    """A page with the inspector; when the test fails, what was to be seen is kept."""
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    panel = Panel(page, url)
    try:
        yield page, panel
    except BaseException:
        print(panel.errors)
        panel.shot(f"{name}-failed")
        raise
    finally:
        page.close()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# Stays between the test and the server: when the test goes away, however it does, its end of the pipe closes.
GUARD = """
import os, signal, subprocess, sys
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: None)
sys.stdin.read()
server.terminate()
try: server.wait(8)
except subprocess.TimeoutExpired: pass
os.killpg(0, signal.SIGKILL)
"""


@contextmanager
def serving(folder, *command):
    """A server on a free port of this machine; it and its kernels end with the block."""
    import psutil

    port = free_port()
    home = folder.parent / f"home-{command[1]}"
    env = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "HOME": str(home),
        "TQDM_DISABLE": "1",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    home.mkdir()
    with open(home / "log", "wb") as log:
        guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, sys.executable, *command, f"--port={port}"],
            env=env,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, guard, home / "log")
        yield url
    finally:
        family = psutil.Process(guard.pid).children(recursive=True) if guard.poll() is None else []
        guard.stdin.close()
        try:
            guard.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(guard.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(family, 3)
        for one in alive:
            one.kill()


def wait_for(url, guard, log, seconds=90):
    """Until the server answers anything at all."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError:
            return None  # it answers: it wants the token
        except OSError:
            time.sleep(0.2)
        assert guard.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
    raise AssertionError(f"no server at {url}:\n{log.read_text()[-3000:]}")


class Panel:
    """The inspector as a person sees it."""

    def __init__(self, page, url):
        self.page = page
        self.errors = []
        self.abroad = []
        page.set_default_timeout(STEP)
        page.on("pageerror", self.failed)
        page.on("request", lambda request: self.note(request.url, url))

    def failed(self, error):
        """Keep an error of a page, unless all of it happened inside JupyterLab's own bundle."""
        places = re.findall(r"\((?:async )?(\w+:[^)]*)\)", error.stack or "")
        if not places or not all("/static/lab/" in place for place in places):
            self.errors.append(f"{error}: {(error.stack or '')[:600]}")

    def note(self, asked, url):
        if not asked.startswith((url, url.replace("http", "ws", 1), "data:", "blob:")):
            self.abroad.append(asked)

    def appears(self):
        self.page.locator(".sda-inspector .bars[data-state=known]").first.wait_for()

    def cell(self, block, dependency):
        return self.page.locator(f'.sda-inspector [data-at="{block} {dependency}"]')

    def costliest(self):
        """Block and dependency that lead the list of what the clip selects."""
        self.page.locator(".opener").click()
        line = self.page.locator(".selected-list button").first
        found = line.get_attribute("data-key").removeprefix("open ").split()
        self.page.locator(".opener").click()
        return tuple(map(int, found))

    def closed(self):
        """Block and dependency of a closed cell."""
        return tuple(map(int, self.page.locator("td[data-is=closed]").first.get_attribute("data-at").split()))

    def button(self, words):
        return self.page.locator(".sda-inspector").get_by_role("button", name=words, exact=True)

    def shows(self, *edits):
        """Wait until the bars show these edits."""
        from sda.inspector.edits import edits_key

        script = "key => document.querySelector('.sda-inspector .bars').dataset.key === key"
        self.page.wait_for_function(script, arg=edits_key(list(edits)))

    def bars(self):
        return self.page.locator(".bars li:visible .bar-value").all_inner_texts()

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


def look_around(panel, clip):
    """What a person does: another clip, a change nobody foresaw, a map, a file, a question, a download."""
    page = panel.page
    panel.appears()
    page.locator(".finding .dot-plot").wait_for()  # the sentence and its control
    assert page.locator(".sentence").inner_text().startswith(("The answer rests", "No single"))
    before = panel.bars()
    here, shut = panel.costliest(), panel.closed()
    panel.cell(*here).click()
    panel.shows(edit("drop", *here))
    assert panel.bars() != before
    panel.cell(*shut).click()
    panel.shows(edit("drop", *here), edit("open", *shut))  # computed by the kernel
    page.locator(".log-control", has_text="random").first.wait_for()
    panel.button("Undo").click()
    panel.button("Reset").click()
    panel.shows()
    panel.button("Map").click()
    page.locator(".range span").first.filter(has_text=re.compile(r"[0-9]")).wait_for()
    panel.button("Map").click()
    page.get_by_label("Add videos").set_input_files(
        {"name": "mine.mp4", "mimeType": "video/mp4", "buffer": clip.read_bytes()}
    )
    page.locator("h1", has_text="mine").wait_for()  # one's own clip is a clip like others
    panel.appears()
    panel.button("Keep").click()
    with page.expect_download() as found:
        page.get_by_role("menuitem", name="State (JSON)").click()
    assert '"edits"' in Path(found.value.path()).read_text(encoding="utf-8")
    panel.button("Questions").click()
    card = page.locator('[data-question="shapley"]')
    card.get_by_role("button", name="Measure").click()
    card.locator(".dot-plot").first.wait_for()
    panel.button("Questions").click()
    assert not panel.errors


def test_jupyterlab(chromium, folder):
    options = [
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--IdentityProvider.token={TOKEN}",
        "--allow-root",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=None",
    ]
    with serving(folder, *options) as url, opened(chromium, "jupyterlab", url) as (page, panel):
        page.goto(f"{url}/lab/tree/{BOOK}?token={TOKEN}")
        run_all(page)
        look_around(panel, CLIP)
        panel.shot("jupyterlab")
        restart(page)
        panel.appears()
        shut = panel.closed()
        panel.cell(*shut).click()
        panel.shows(edit("open", *shut))
        assert not panel.errors and not panel.abroad


def run_all(page):
    """Run > Run All Cells, once the kernel is there."""
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator(".jp-StatusBar-TextItem", has_text="| Idle").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def restart(page):
    """Kernel > Restart Kernel and Run All Cells, in the middle of something."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.locator(".sda-inspector").first.wait_for(state="detached")


def test_voila(chromium, folder):
    options = ["-m", "voila", BOOK, "--no-browser", "--Voila.ip=127.0.0.1", f"--token={TOKEN}"]
    with serving(folder, *options) as url, opened(chromium, "voila", url) as (page, panel):
        page.goto(f"{url}/?token={TOKEN}", timeout=2 * STEP)  # it answers when the notebook has run
        look_around(panel, CLIP)
        panel.shot("voila")
        assert not page.get_by_label("Path of a video or folder").is_visible()  # visitors see no path
        assert not [
            url for url in panel.abroad if "fontawesome" not in url
        ]  # Voila's own template asks for icons
