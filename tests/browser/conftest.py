"""What the browser tests share: one Chromium, a recorded page of two clips, and where screenshots go.

Set SDA_BROWSER=required (the build machine does) to fail where no Chromium is installed instead of skipping.
"""

import os
import shutil

import pytest
from notebooks import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHOTS = ROOT / "runs/browser"
CLIPS = {
    "test_0000_shake.mp4": "Shaking something fast",
    "test_0000_clockwise.mp4": "Turning something clockwise",
}


def absent(words):
    """Skip, or fail where a browser must be there."""
    if os.environ.get("SDA_BROWSER") == "required":
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests of this folder."""
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


@pytest.fixture(scope="session")
def recorded_page(tmp_path_factory):
    """A page about two sample clips, as `sda inspect` writes it, with single changes alone."""
    return write_page(tmp_path_factory.mktemp("recorded"), "sda_tsn_moves", list(CLIPS))


@pytest.fixture(scope="session")
def gated_page(tmp_path_factory):
    """The same of one clip and the network with gates."""
    return write_page(tmp_path_factory.mktemp("gated"), "sda_tsn_moves_gated", list(CLIPS)[:1])


def write_page(folder, network, names):
    """A recorded page with single changes alone."""
    from sda.assets import CHECKPOINTS, SAMPLE_CLIPS
    from sda.inspector.opening import open_session
    from sda.inspector.page import page_of
    from sda.inspector.session import planned

    paths = [SAMPLE_CLIPS / "img" / name for name in names]
    session = open_session(CHECKPOINTS / f"{network}.safetensors", paths, labels=CLIPS, draws=2)
    ids = session.clips.ids()
    for clip_id in ids:
        for k, (_, part) in enumerate(list(planned(session, clip_id))[:3]):
            for _ in session.answering(clip_id, part, k != 1):
                pass
    page = folder / "page.html"
    page.write_text(page_of(session, ids), encoding="utf-8")
    return page
