"""How long a gesture takes in the browser: from the click to the moved bars, on a recorded page in Chromium.

    python benchmarks/inspector_view.py [--clicks 100]

Median and 95th percentile in milliseconds, into data/results/bench_inspector_view.json. Each gesture is timed
inside the page, from the event to the frame after the change is drawn. What the kernel needs is in
benchmarks/inspector.py.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from sda.assets import DEFAULT_MODEL, SAMPLE_CLIPS
from sda.foundation.runs import new_record, save_record
from sda.inspector.opening import open_session
from sda.inspector.page import page_of
from sda.inspector.session import planned

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "data/results/bench_inspector_view.json"
CLIPS = ("test_0000_shake.mp4", "test_0000_up.mp4")
TIMED = """
async ([count, what]) => {
  const root = document.querySelector(".sda-inspector");
  const bars = root.querySelector(".bars");
  const cells = [...root.querySelectorAll("td[data-at]")];
  const drawn = () => new Promise(requestAnimationFrame).then(() => new Promise((done) => setTimeout(done)));
  const key = (name) => root.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const acts = {
    "click on a cell": (k) => cells[Math.floor(k / 2) % cells.length].click(),
    "another clip": (k) => root.querySelectorAll(".clip-card")[k % 2].click(),
    "another reading": (k) => key(["l", "c", "w"][k % 3]),
    "map on or off": () => key("m"),
    "next frame": () => key("ArrowRight"),
  };
  const times = [];
  for (let k = 0; k < count; k += 1) {
    const start = performance.now();
    acts[what](k);
    await drawn();
    times.push(performance.now() - start);
  }
  return { times, state: bars.dataset.state };
}
"""
GESTURES = ("click on a cell", "another reading", "next frame", "map on or off", "another clip")


def page_with_answers(folder):
    """A recorded page of two sample clips with all single changes."""
    session = open_session(DEFAULT_MODEL, [SAMPLE_CLIPS / "img" / name for name in CLIPS], draws=2)
    ids = session.clips.ids()
    for clip_id in ids:
        for _, part in list(planned(session, clip_id))[:3]:
            for _ in session.answering(clip_id, part, False):
                pass
    page = Path(folder) / "page.html"
    page.write_text(page_of(session, ids), encoding="utf-8")
    return page


def measure(page, clicks):
    """Milliseconds of every gesture, and of opening the page."""
    found = {}
    with sync_playwright() as tool:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        opened = []
        for _ in range(10):
            view = browser.new_page(viewport={"width": 1280, "height": 800})
            view.goto(page.as_uri())
            view.locator(".bars[data-state=known]").wait_for()
            opened.append(view.evaluate("performance.now()"))
            if len(opened) < 10:
                view.close()
        found["opening the page"] = opened
        view.keyboard.press("Space")  # the clip stands still
        for what in GESTURES:
            told = view.evaluate(TIMED, [clicks, what])
            assert told["state"] == "known", what
            found[what] = told["times"]
        browser.close()
    return found


def main():
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clicks", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = page_with_answers(folder)
        size = page.stat().st_size
        found = measure(page, options.clicks)
    table = {}
    for what, times in found.items():
        middle, late = (round(float(np.quantile(times, q)), 1) for q in (0.5, 0.95))
        table[what] = {"median_ms": middle, "p95_ms": late, "n": len(times)}
        print(f"{what:20} {middle:7.1f} ms median {late:7.1f} ms 95 %  n = {len(times)}")
    record = new_record(
        "benchmark",
        model="sda_tsn_moves",
        name="inspector_view",
        metrics={},
        gestures=table,
        page_bytes=size,
        clips=list(CLIPS),
    )
    save_record(record, OUT)


if __name__ == "__main__":
    main()
