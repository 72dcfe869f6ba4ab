"""The pictures of the inspector in the README: `python benchmarks/pictures.py`.

Starts `sda app`, opens its page in Chromium, leaves out what costs most, opens a closed cell, plays the clip
in reverse, and takes all back. Writes data/figures/inspector.png (the first screen) and inspector.gif.
"""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "data" / "figures"
CLIP = "test_0000_rightward.mp4"
PACE = 120  # milliseconds a frame
WIDE = 880  # pixels of the animation
POINTER = """
() => {
  const dot = document.createElement("div");
  dot.id = "pointer";
  dot.style = "position:fixed;z-index:9999;width:18px;height:18px;margin:-9px;border-radius:50%;"
    + "border:3px solid #d6336c;pointer-events:none;left:640px;top:700px;transition:all .25s";
  document.body.append(dot);
}
"""
MOVE = "([x, y]) => Object.assign(document.getElementById('pointer').style, {left: x + 'px', top: y + 'px'})"


def point(page: Page, target) -> None:
    """Move the mouse, and the pointer drawn for it, to the middle of something."""
    box = target.bounding_box()
    at = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    page.mouse.move(*at)
    page.evaluate(MOVE, at)


def shots(page: Page, count: int) -> list[Image.Image]:
    """Pictures of the next moments."""
    found = []
    for _ in range(count):
        found.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        page.wait_for_timeout(PACE)
    return found


def gestures(page: Page) -> list[Image.Image]:
    """What a person does first."""
    panel = page.locator(".sda-inspector")
    panel.locator(".opener").click()
    costliest = panel.locator(".selected-list button").first.get_attribute("data-key").removeprefix("open ")
    panel.locator(".opener").click()
    cell = panel.locator(f'td[data-at="{costliest}"]')
    closed = panel.locator("td[data-is=closed]").last
    undo = panel.get_by_role("button", name="Undo", exact=True)
    backwards = panel.get_by_role("button", name="Reverse", exact=True)
    frames = shots(page, 8)
    for target in (cell, undo, closed, undo, backwards):
        point(page, target)
        frames += shots(page, 4)
        target.click()
        frames += shots(page, 12)
    point(page, panel.get_by_role("button", name="Reset", exact=True))
    panel.get_by_role("button", name="Reset", exact=True).click()
    return frames + shots(page, 4)


def save_gif(frames: list[Image.Image], path: Path) -> None:
    """One palette for all frames, so that only what changes is stored."""
    high = round(frames[0].height * WIDE / frames[0].width)
    small = [frame.resize((WIDE, high), Image.Resampling.LANCZOS) for frame in frames]
    palette = small[0].quantize(128, dither=Image.Dither.NONE)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=PACE, loop=0, optimize=True)


def main() -> None:
    """Serve, look, keep."""
    command = [sys.executable, "-m", "sda", "app", "--no-browser"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://127\S+", line)))
        with sync_playwright() as tool:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 800}, device_scale_factor=2)
            page.set_default_timeout(120_000)
            page.goto(address)
            page.locator(f'.clip-card[data-key="{CLIP}"]').click()
            page.locator("h1", has_text=CLIP).wait_for()
            page.locator(".finding .dot-plot").wait_for()
            page.mouse.move(640, 790)
            page.get_by_text("measured in advance").wait_for(
                state="hidden"
            )  # all that is measured in advance
            page.screenshot(path=FIGURES / "inspector.png")
            page.evaluate(POINTER)
            save_gif(gestures(page), FIGURES / "inspector.gif")
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    main()
