"""The inspector in a real browser: JupyterLab and Voila on this machine, Chromium driven by Playwright.

Set SDA_BROWSER=required (the build machine does) to fail where no Chromium is installed instead of skipping.
Screenshots are kept in runs/browser.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from notebooks import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHOTS = ROOT / "runs/browser"
TOKEN = "only-for-this-test"
BOOK = "nbs/apps/inspector.ipynb"
STEP = 90_000  # milliseconds that one step may take on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def absent(words):
    """Skip, or fail where a browser must be there."""
    if os.environ.get("SDA_BROWSER") == "required":
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the inspector notebook needs, to write into."""
    target = tmp_path_factory.mktemp("browser") / "project"
    for name in ("nbs/apps", "sda"):
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        )
    return target


@pytest.fixture(scope="module")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("the browser test needs Playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path:
        absent(f"the browser test needs one of {', '.join(BROWSERS)}: apt-get install chromium")
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, name):
    """A page with a panel; when the test fails, what was to be seen is kept."""
    page = browser.new_page(viewport={"width": 1500, "height": 1700})
    panel = Panel(page)
    try:
        yield page, panel
    except BaseException:
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
    """The panel as a person sees it."""

    def __init__(self, page):
        self.page = page
        self.errors = []
        page.set_default_timeout(STEP)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def picture(self, name):
        """Bytes of a figure, as a short hash; empty where it is not shown."""
        shown = self.page.locator(f"img.sda-{name}").last
        if not shown.is_visible():
            return ""
        data = shown.evaluate(
            "async img => Array.from(new Uint8Array(await (await fetch(img.src)).arrayBuffer()))"
        )
        assert bytes(data[:4]) == b"\x89PNG"
        return hashlib.sha256(bytes(data)).hexdigest()[:12]

    def appears(self):
        self.page.locator("img.sda-prediction").last.wait_for()
        self.calm()

    def calm(self):
        """Until the panel says that it is done; an error in words is an error of the test."""
        status = self.page.locator(".sda-status").last
        status.wait_for(state="attached")
        end = time.monotonic() + STEP / 1000
        while "working" in status.inner_text() and time.monotonic() < end:
            self.page.wait_for_timeout(50)
        assert "#B00020" not in status.inner_html(), status.inner_text()

    def changes(self, name, before):
        """The figure, once it is another one."""
        end = time.monotonic() + STEP / 1000
        while time.monotonic() < end:
            self.calm()
            now = self.picture(name)
            if now not in ("", before):
                return now
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the {name} stayed the same")

    def choose(self, clip):
        box = self.page.get_by_label("clip", exact=True).last
        box.fill(clip)
        box.press("Enter")

    def click(self, words):
        self.page.get_by_role("button", name=words, exact=True).last.click()

    def select(self, label, value):
        self.page.get_by_label(label, exact=True).last.select_option(value)

    def tab(self, words):
        self.page.locator(".lm-TabBar-tab", has_text=words).last.click()

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


def look_around(panel, folder, name):
    """What a person does first: another clip, another view, a map, a knock-out, a file."""
    panel.appears()
    strip, selection, answer = (panel.picture(part) for part in ("strip", "selection", "prediction"))
    panel.choose("test_0000_up.mp4")
    assert panel.changes("strip", strip) and panel.changes("prediction", answer)
    selection = panel.changes("selection", selection)
    panel.click("triptych")
    panel.changes("selection", selection)
    strip = panel.picture("strip")
    panel.select("overlay", "gate")
    panel.changes("strip", strip)
    frame = panel.picture("frame")
    panel.page.locator(".widget-play button").first.click()
    panel.changes("frame", frame)  # the strip of frames moves by itself
    panel.page.locator(".widget-play button").nth(1).click()
    log = panel.picture("log")
    panel.tab("Intervene")
    panel.select("what", "drop LT")
    panel.click("Change it")
    panel.page.get_by_text("without LT").last.wait_for()
    panel.changes("log", log)
    panel.shot(name)
    panel.tab("Checks")
    panel.click("Measure over these clips")
    panel.page.locator(
        "li", has_text="rank correlation"
    ).first.wait_for()  # the first verdict, while others are asked
    panel.click("Cancel")
    panel.page.get_by_text("stopped; what was measured so far is shown").last.wait_for()
    panel.appears()
    panel.shot(f"{name}-trust")
    panel.tab("Keep")
    if name == "voila":  # visitors: a download, and nothing is written on the server
        panel.click("Download PNG")
        link = panel.page.locator("a[download$='.png']").last
        link.wait_for()
        assert link.get_attribute("href").startswith("data:image/png;base64,")
        assert not panel.page.get_by_label("path", exact=True).count()
        assert not (folder / "nbs/apps/inspector").exists() and not panel.errors
        return
    panel.click("Save PNG")
    panel.page.get_by_text("saved inspector").last.wait_for()
    (saved,) = (folder / "nbs/apps/inspector").glob("*.png")
    assert saved.read_bytes().startswith(b"\x89PNG") and saved.with_suffix(".json").exists()
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
    with serving(folder, *options) as url, opened(chromium, "jupyterlab") as (page, panel):
        page.goto(f"{url}/lab/tree/{BOOK}?token={TOKEN}")
        run_all(page)
        look_around(panel, folder, "jupyterlab")
        restart(page)
        panel.appears()
        strip = panel.picture("strip")
        panel.choose("test_0000_swing.mp4")
        assert panel.changes("strip", strip) and not panel.errors
        panel.shot("jupyterlab-restarted")


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
    page.locator("img.sda-prediction").first.wait_for(state="detached")


def test_voila(chromium, folder):
    shutil.rmtree(folder / "nbs/apps/inspector", ignore_errors=True)
    options = ["-m", "voila", BOOK, "--no-browser", "--Voila.ip=127.0.0.1", f"--token={TOKEN}"]
    with serving(folder, *options) as url, opened(chromium, "voila") as (page, panel):
        page.goto(f"{url}/?token={TOKEN}")
        look_around(panel, folder, "voila")
