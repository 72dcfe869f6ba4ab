"""The inspector's view alone, in Chromium: a recorded page opened as a file, and on a made-up kernel."""

import json
import random
import re

import pytest
from notebooks import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHOTS = ROOT / "runs/browser"
WIDTHS = [(800, 1000, 1), (1280, 800, 2), (1920, 1080, 1)]


class Viewer:
    """A page with the view, as a person sees it."""

    def __init__(self, browser, path, width=1280, height=800, **options):
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.errors = []
        self.asked = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.locator(".bars[data-state=known]").wait_for()

    def cell(self, block, dependency):
        return self.page.locator(f'[data-at="{block} {dependency}"]')

    def button(self, words):
        return self.page.get_by_role("button", name=words, exact=True)

    def key(self):
        """The edits that the bars show, as their canonical text."""
        return self.page.locator(".bars").get_attribute("data-key")

    def shows(self, *edits):
        """Wait until the bars show these edits."""
        from sda.inspector.edits import edits_key

        key = edits_key(list(edits))
        self.page.wait_for_function("key => document.querySelector('.bars').dataset.key === key", arg=key)

    def first_bar(self):
        row = self.page.locator(".bars li:visible").first
        return row.locator(".bar-name").inner_text(), row.locator(".bar-value").inner_text()


def counts(locator, number):
    """Wait until so many are there: the view draws in the next frame of the screen."""
    from playwright.sync_api import expect

    expect(locator).to_have_count(number)


def has(locator, attribute, value):
    """Wait until an attribute has this value."""
    from playwright.sync_api import expect

    expect(locator).to_have_attribute(attribute, value)


def edit(kind, block=None, dependency=None, value=None):
    return {"kind": kind, "block": block, "dependency": dependency, "value": value}


@pytest.fixture(scope="module")
def record(recorded_page):
    """The JSON inside the page."""
    return record_in(recorded_page)


def record_in(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="sda-record">(.*?)</script>', text, re.S)[1])


@pytest.fixture(scope="module")
def shared(chromium, recorded_page):
    """One page for all gestures; no error and no request but the file itself."""
    viewer = Viewer(chromium, recorded_page)
    yield viewer
    assert not viewer.errors
    assert all(url.startswith(("file:", "data:", "blob:")) for url in viewer.asked)
    viewer.context.close()


@pytest.fixture
def viewer(shared):
    """The page at its start: nothing is changed, nothing is open."""
    yield shared
    shared.page.keyboard.press("Escape")
    if shared.button("Reset").is_enabled():
        shared.button("Reset").click()
    shared.shows()


def test_the_first_screen_answers_without_scrolling(viewer, record):
    page = viewer.page
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight && scrollX === 0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for part in ("canvas.stage", "canvas.strip", ".scrub", ".bars .tag", ".heat", ".sentence"):
        box = page.locator(f"{part}:visible").first.bounding_box()
        assert box["y"] + box["height"] <= 800
    counts(page.locator(".bars li:visible"), 5)
    counts(page.locator(".bars li:visible .tag:visible"), 1)
    counts(page.locator(".heat td[data-at]"), 4 * len(record["about"]["network"]["blocks"]))
    assert page.locator(".heat thead th").all_inner_texts() == ["LST", "LT", "LS", "S122"]
    finding = record["record"][record["selected"]]["scene"]["finding"]
    assert page.locator(".sentence").inner_text() == finding["sentence"]


def test_a_click_on_a_cell_leaves_it_out_and_undo_brings_it_back(viewer, record):
    before = viewer.first_bar()
    viewer.cell(2, 3).click()
    viewer.shows(edit("drop", 2, 3))
    viewer.page.locator(".ghost:visible").nth(4).wait_for()
    has(viewer.cell(2, 3), "data-edit", "out")
    answers = record["record"][record["selected"]]["answers"]["items"]
    scene = record["record"][record["selected"]]["scene"]
    after = answers[viewer.key()]["probabilities"][
        max(range(len(scene["probabilities"])), key=scene["probabilities"].__getitem__)
    ]
    assert viewer.first_bar() == (before[0], f"{after:.2f}")
    line = viewer.page.locator(".log li")
    counts(line, 1)
    assert "random" in line.inner_text()
    viewer.button("Undo").click()
    viewer.shows()
    assert viewer.first_bar() == before
    viewer.button("Redo").click()
    viewer.shows(edit("drop", 2, 3))
    viewer.cell(2, 3).click()  # the same again takes it back
    viewer.shows()


def test_heads_shift_and_frames_are_gestures_too(viewer):
    viewer.cell(-1, 1).click()
    viewer.shows(edit("drop", None, 1))
    counts(viewer.page.locator(".heat td[data-edit=out]"), 4)
    viewer.cell(-1, 1).click()
    viewer.cell(1, -1).click()
    viewer.shows(edit("uniform", 1))
    viewer.cell(1, -1).click()
    viewer.cell(0, 2).click(modifiers=["Shift"])
    viewer.shows(edit("only", 0, 2))
    viewer.button("Reset").click()
    for words, value in (
        ("Reverse", "reversed"),
        ("Shuffle", "shuffled"),
        ("Freeze", "frozen"),
        ("Blur", "blurred"),
    ):
        viewer.button(words).click()
        viewer.shows(edit("frames", value=value))
        has(viewer.button(words), "aria-pressed", "true")
        viewer.button(words).click()


def test_a_drag_sets_a_weight_and_the_row_still_adds_up(viewer):
    box = viewer.cell(0, 0).bounding_box()
    x, y = box["x"] + 20, box["y"] + box["height"] / 2
    mouse = viewer.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 40, y, steps=4)
    numbers = [float(viewer.cell(0, m).inner_text()) for m in range(4)]
    assert abs(sum(numbers) - 1) < 0.03 and numbers[0] > 0.4
    mouse.up()
    has(viewer.cell(0, 0), "data-edit", "weight")
    viewer.page.locator(".bars[data-state=missing]").wait_for()  # the page says what it does not hold
    assert "Not recorded" in viewer.page.locator(".bar-state").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_closed_cells_are_marked_and_opened(chromium, gated_page, scheme):
    record = record_in(gated_page)["record"]["test_0000_shake.mp4"]
    scene, answers = record["scene"], record["answers"]["items"]
    cells = [(p, m) for p, row in enumerate(scene["closed"]) for m, _ in enumerate(row)]
    closed = [(p, m) for p, m in cells if scene["closed"][p][m]]
    viewer = Viewer(chromium, gated_page, color_scheme=scheme)
    page = viewer.page
    counts(page.locator(".heat td[data-is=closed]"), len(closed))
    assert {viewer.cell(*at).inner_text() for at in closed} == {"closed"}
    assert all("closed" in viewer.cell(*at).get_attribute("aria-label") for at in closed)
    viewer.button(f"{len(cells) - len(closed)} of {len(cells)} open").click()
    lines = page.locator(".selected-list li")
    counts(lines, len(cells) - len(closed))
    losses = [float(one.inner_text().replace("\u2212", "-")) for one in lines.locator(".log-number").all()]
    assert losses == sorted(losses, reverse=True)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"gated-{scheme}.png")
    found = page.evaluate(READABLE)
    assert not found["poor"] and not found["nameless"]
    lines.locator("button").first.click()
    counts(page.locator(".heat td[data-edit=out]"), 1)
    viewer.button("Undo").click()
    p, m = closed[-1]
    viewer.cell(p, m).click()
    viewer.shows(edit("open", p, m))
    assert viewer.cell(p, m).inner_text() == f"{record_in(gated_page)['about']['network']['wide'][p][m]:.2f}"
    name = page.locator(".bars li:visible .bar-name").all_inner_texts()
    at = record_in(gated_page)["about"]["network"]["classes"].index(name[0])
    assert viewer.first_bar() == (name[0], f"{answers[viewer.key()]['probabilities'][at]:.2f}")
    assert "random" in page.locator(".log li").inner_text()
    viewer.cell(p, m).click()  # the same again closes it
    viewer.shows()
    viewer.cell(p, m).focus()
    page.keyboard.press("Shift+Enter")
    viewer.shows(edit("open", p, m), edit("only", p, m))
    page.keyboard.press("-")
    has(viewer.cell(p, m), "data-edit", re.compile("weight|only"))
    assert not viewer.errors
    viewer.context.close()


def test_everything_works_by_keyboard(viewer):
    page = viewer.page
    viewer.cell(2, 3).focus()
    page.keyboard.press("Enter")
    viewer.shows(edit("drop", 2, 3))
    page.keyboard.press("u")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.at") == "1 2"
    page.keyboard.press("Shift+Enter")
    viewer.shows(edit("only", 1, 2))
    page.keyboard.press("u")
    page.keyboard.press("+")
    has(viewer.cell(1, 2), "data-edit", "weight")
    page.keyboard.press("u")
    for key, name in (("l", "loss"), ("c", "contribution"), ("w", "weight")):
        page.keyboard.press(key)
        has(page.locator(f'button[data-name="{name}"]'), "aria-pressed", "true")
    page.keyboard.press("r")
    viewer.shows(edit("frames", value="reversed"))
    page.keyboard.press("u")
    selected = page.locator("h1").inner_text()
    page.keyboard.press("]")
    page.wait_for_function("name => document.querySelector('h1').textContent !== name", arg=selected)
    page.keyboard.press("[")
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")


def test_the_scrubber_moves_the_clip(viewer):
    page = viewer.page
    viewer.page.locator(".clip .scrub").fill("5")
    first = page.locator("canvas.stage").first.evaluate("canvas => canvas.toDataURL()")
    assert "frame" in page.locator(".time").inner_text()
    page.locator(".clip .scrub").fill("1")
    assert page.locator("canvas.stage").first.evaluate("canvas => canvas.toDataURL()") != first
    viewer.button("Play").click()
    viewer.button("Pause").wait_for()


def test_the_map_is_drawn_in_the_browser(viewer):
    page = viewer.page
    page.locator(".clip .scrub").fill("3")
    shot = "canvas => canvas.toDataURL()"
    without = page.locator("canvas.stage").first.evaluate(shot)
    viewer.button("Map").click()
    page.locator(".range").wait_for()
    page.wait_for_function(
        "([before]) => document.querySelector('canvas.stage').toDataURL() !== before", arg=[without]
    )
    drawn = page.locator("canvas.stage").first.evaluate(shot)
    page.get_by_label("Opacity of the map").fill("0.95")
    page.wait_for_function(
        "([before]) => document.querySelector('canvas.stage').toDataURL() !== before", arg=[drawn]
    )
    viewer.button("frame").click()
    assert page.locator(".range span").first.inner_text() != ""
    viewer.button("Map").click()
    page.locator(".range").wait_for(state="hidden")


def test_clips_are_chosen_and_filtered(viewer):
    page = viewer.page
    viewer.button("All clips").click()
    names = [card.get_attribute("data-key") for card in page.locator(".clip-card").all()]
    page.get_by_label("Filter by name or class").fill("clockwise")
    page.wait_for_function("() => document.querySelectorAll('.clip-card').length === 1")
    page.get_by_label("Filter by name or class").fill("")
    page.wait_for_function("() => document.querySelectorAll('.clip-card').length === 2")
    page.locator(".clip-card").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => document.querySelector('h1').textContent === name", arg=names[1])
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("name => document.querySelector('h1').textContent === name", arg=names[0])
    viewer.button("One row").click()


def test_a_stands_beside_b(viewer):
    page = viewer.page
    viewer.button("Compare").click()
    page.get_by_role("group", name="Side B").get_by_text("reversed").click()
    page.locator(".sides:visible").wait_for()
    page.locator(".middle .heat td span").nth(4).wait_for(state="attached")
    page.get_by_label("Frame of both, at B").fill("6")
    page.wait_for_function("document.querySelector('[aria-label=\"Frame of both, at A\"]').value === '6'")
    page.locator(".sides").scroll_into_view_if_needed()
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "compare.png")
    viewer.button("No comparison").click()
    viewer.button("Compare").click()


def test_what_can_be_kept(viewer, tmp_path):
    page = viewer.page
    viewer.button("Keep").click()
    with page.expect_download() as found:
        page.get_by_role("menuitem", name="This frame with its map (PNG)").click()
    found.value.save_as(tmp_path / "frame.png")
    assert (tmp_path / "frame.png").read_bytes().startswith(b"\x89PNG")
    viewer.cell(1, 1).click()
    viewer.shows(edit("drop", 1, 1))
    address = page.url
    assert "#" in address
    page.reload()
    viewer.shows(edit("drop", 1, 1))  # the address holds the state


def test_names_are_text(chromium, recorded_page, tmp_path):
    name = "<img src=x onerror=alert(1)>"
    text = recorded_page.read_text(encoding="utf-8")
    hostile = name.replace("<", "\\u003c")
    text = text.replace("test_0000_shake.mp4", hostile).replace("Shaking something fast", hostile)
    page = tmp_path / "hostile.html"
    page.write_text(text, encoding="utf-8")
    viewer = Viewer(chromium, page)
    viewer.cell(2, 3).click()
    viewer.button("Compare").click()
    viewer.button("All clips").click()
    viewer.page.locator(".clip-card").first.hover()
    assert viewer.page.locator("h1").inner_text() == name
    assert not viewer.page.locator("img[src=x], img[onerror]").count() and not viewer.errors
    viewer.context.close()


def test_python_and_the_page_write_edits_alike(viewer, recorded_page):
    import torch

    from sda.inspector.edits import changed_weights, edits_key, told
    from sda.networks.blocks import DEPENDENCIES

    draw = random.Random(5)
    kinds = ("drop", "only", "open", "uniform", "weight", "frames")
    lists = []
    for _ in range(200):
        some = []
        for _ in range(draw.randrange(5)):
            kind = draw.choice(kinds)
            block = draw.choice([None, *range(12)])
            if kind == "frames":
                some.append(edit(kind, value=draw.choice(("reversed", "blurred"))))
            elif kind == "uniform":
                some.append(edit(kind, block))
            else:
                value = draw.choice((0, 1, 0.3, round(draw.random(), 2))) if kind == "weight" else None
                some.append(edit(kind, block, draw.randrange(4), value))
        lists.append(some)
    script = re.search(r'<script type="module">(.*?)mount\(document', recorded_page.read_text("utf-8"), re.S)[
        1
    ]
    script = script.replace("export default", "const view =").replace("export ", "")
    found = viewer.page.evaluate(f"lists => {{ {script}; return lists.map(editsKey); }}", lists)
    assert found == [edits_key(some) for some in lists]
    asked = []
    for k in range(200):  # what becomes of a row of weights, of shares and of gates
        row = torch.tensor([[draw.choice((0, draw.random())) for _ in range(4)]])
        wide = [round(draw.uniform(0.1, 0.3), 2) for _ in range(4)] if k % 2 else None
        row = row * 0.25 if wide else row / row.sum().clamp_min(1e-9)
        some = [
            edit(draw.choice(("drop", "only", "open")), 0, draw.randrange(4))
            for _ in range(draw.randrange(3))
        ]
        some += [edit("weight", 0, draw.randrange(4), 0.3)] * draw.randrange(2)
        some += [edit("uniform", 0)] * draw.randrange(2)
        asked.append((row, some, wide))
    call = "asked => asked.map(([row, edits, wide]) => editedRow(row[0], 0, edits, wide))"
    rows = viewer.page.evaluate(
        f"asked => {{ {script}; return ({call})(asked); }}", [(row.tolist(), *more) for row, *more in asked]
    )
    for here, (row, some, wide) in zip(rows, asked, strict=True):
        there = (
            row
            if told(some, 0, DEPENDENCIES) is None
            else changed_weights(row, told(some, 0, DEPENDENCIES), "a", wide)
        )
        assert here == pytest.approx(there[0].tolist(), abs=1e-6), (row, some, wide)


GESTURES = """
async ([count, seed]) => {
  let state = seed;
  const draw = (n) => (state = (state * 48271) % 2147483647) % n;
  const root = document.querySelector(".sda-inspector");
  const press = (key, node) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  for (let k = 0; k < count; k += 1) {
    const kind = draw(8);
    const cells = [...root.querySelectorAll("[data-at]")];
    if (kind < 3) cells[draw(cells.length)].click();
    else if (kind === 3) press(["r", "s", "f", "b", "w", "c", "l", "m", "[", "]", "u"][draw(11)], root);
    else if (kind === 4) root.querySelectorAll(".clip-card")[draw(2)].click();
    else if (kind === 5) [...root.querySelectorAll("nav > button")][draw(2)].click();
    else if (kind === 6) press("Escape", root);
    else cells[draw(cells.length)].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    if (k % 10 === 0) await new Promise(requestAnimationFrame);
  }
}
"""


def test_500_gestures_leave_the_memory_flat(chromium, recorded_page):
    viewer = Viewer(chromium, recorded_page)
    session = viewer.context.new_cdp_session(viewer.page)
    session.send("HeapProfiler.enable")

    def used():
        for _ in range(2):
            session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"], viewer.page.locator("*").count()

    viewer.button("Pause").click()  # drawing in software is what takes the time
    viewer.page.evaluate(GESTURES, [100, 7])  # everything has been opened once
    viewer.page.wait_for_timeout(300)
    bytes_before, _ = used()
    viewer.page.evaluate(GESTURES, [500, 11])
    viewer.page.wait_for_timeout(300)
    bytes_after, nodes = used()
    assert bytes_after - bytes_before < 1_500_000 and nodes < 1500
    assert not viewer.errors
    viewer.context.close()


READABLE = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((c, k) => (k < 3 ? c : c / 255));
  };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
  const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = (c) => [0, 1, 2].map((k) => linear(c[k] / 255));
  const luminance = (c) => light(c).reduce((sum, x, k) => sum + x * [0.2126, 0.7152, 0.0722][k], 0);
  const paper = (node) => {
    if (!node) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(node).backgroundColor);
    return own[3] >= 1 ? own : over(own, paper(node.parentElement));
  };
  const poor = [];
  for (const node of document.querySelectorAll(".sda-inspector *")) {
    const texts = [...node.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!texts.length || !node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const below = paper(node);
    const ink = over(rgba(getComputedStyle(node).color), below);
    const [a, b] = [luminance(ink), luminance(below)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const words = `${node.className || node.tagName} “${node.textContent.slice(0, 20)}”`;
    if (contrast < 4.5) poor.push(`${words} ${contrast.toFixed(2)}`);
  }
  const parts = ":is(button, input, select, [role=option], [role=gridcell][data-at])";
  const nameless = [...document.querySelectorAll(`.sda-inspector ${parts}`)]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim()))
    .map((node) => node.outerHTML.slice(0, 80));
  return { poor: [...new Set(poor)], nameless };
}
"""


@pytest.mark.parametrize("width, height, scale", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_legible_at_every_width(chromium, recorded_page, scheme, width, height, scale):
    SHOTS.mkdir(parents=True, exist_ok=True)
    viewer = Viewer(chromium, recorded_page, width, height, color_scheme=scheme, device_scale_factor=scale)
    page = viewer.page
    page.wait_for_timeout(250)
    page.screenshot(path=SHOTS / f"first-{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    canvas = page.locator("canvas.stage").first
    assert canvas.evaluate("canvas => canvas.width") >= scale * canvas.bounding_box()["width"] - 1
    viewer.cell(2, 3).click()
    page.locator('button[data-name="loss"]').click()
    viewer.button("Compare").click()
    page.get_by_role("group", name="Side B").get_by_text("reversed").click()
    viewer.button("All clips").click()
    viewer.button("Map").click()
    page.wait_for_timeout(100)
    page.screenshot(path=SHOTS / f"open-{width}-{scheme}.png", full_page=True)
    found = page.evaluate(READABLE)
    assert found == {"poor": [], "nameless": []}
    check_axe(page)
    assert not viewer.errors
    viewer.context.close()


def check_axe(page):
    """The rules of axe-core."""
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page).response["violations"]
    serious = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious]


KERNEL = """
<script type="module">
%s
const state = JSON.parse(document.getElementById("sda-record").textContent);
const first = state.record[state.selected];
Object.assign(state, { scene: first.scene, answers: first.answers, map: null, other: null });
state.about.live = true;
state.about.limits = { upload_bytes: 1000000, upload_total: 9000000, chunk_bytes: 400000 };
const listeners = {};
window.sent = [];
window.store = {
  get: (name) => state[name],
  set(name, value) { state[name] = value; (listeners[name] ?? []).forEach((call) => call(value)); },
  save() {},
  send(message, buffers) {
    sent.push(buffers?.length ? { ...message, size: buffers[0].byteLength } : message);
  },
  on(name, call) {
    (listeners[name] ??= []).push(call);
    return () => listeners[name].splice(listeners[name].indexOf(call), 1);
  },
};
window.tell = (name, value) => listeners[name].forEach((call) => call(value));
mount(document.getElementById("sda-inspector"), store);
</script>
"""


@pytest.fixture(scope="module")
def live(chromium, recorded_page, tmp_path_factory):
    """The view on a kernel that only writes down what it is asked."""
    text = recorded_page.read_text(encoding="utf-8")
    head, script, tail = re.split(r'<script type="module">(.*?)mount\(document.*?</script>', text, flags=re.S)
    page = tmp_path_factory.mktemp("live") / "live.html"
    page.write_text(head + KERNEL % script + tail, encoding="utf-8")
    viewer = Viewer(chromium, page)
    yield viewer
    assert not viewer.errors
    viewer.context.close()


def last(viewer, count):
    """The last message, once there are so many."""
    viewer.page.wait_for_function("count => sent.length >= count", arg=count)
    return viewer.page.evaluate("sent.at(-1)")


def test_large_files_travel_in_pieces_and_the_limit_is_told_before(live):
    page = live.page
    page.evaluate("sent.length = 0")
    add = page.get_by_label("Add videos")
    add.set_input_files({"name": "big.mp4", "mimeType": "video/mp4", "buffer": b"0" * 1_000_001})
    page.get_by_role("alert").get_by_text("at most 1.0 MB").wait_for()
    assert page.evaluate("sent.length") == 0
    add.set_input_files({"name": "fits.mp4", "mimeType": "video/mp4", "buffer": b"0" * 900_000})
    for index, size in enumerate((400_000, 400_000, 100_000)):
        piece = last(live, index + 1)
        assert piece == {
            "ask": "upload",
            "name": "fits.mp4",
            "index": index,
            "total": 3,
            "bytes": 900_000,
            "size": size,
        }
        page.get_by_label("upload").wait_for()
        status = {"state": "busy", "where": "upload", "message": "fits.mp4", "done": index + 1, "total": 3}
        page.evaluate("status => store.set('status', status)", status)
    page.get_by_label("upload").wait_for(state="hidden")
    page.evaluate("store.set('status', { state: 'ready', where: '' })")


def test_a_saved_state_is_taken_where_videos_are(live):
    live.page.evaluate("sent.length = 0")
    state = {"name": "kept.json", "mimeType": "application/json", "buffer": b'{"selected": "a"}'}
    live.page.get_by_label("Add videos").set_input_files(state)
    assert last(live, 1) == {"ask": "load", "state": '{"selected": "a"}'}


def test_busy_error_and_offline_are_told_where_they_belong(live):
    page = live.page
    busy = {"state": "busy", "where": "map", "message": "Making the map", "done": 2, "total": 8, "left_s": 12}
    page.evaluate("status => store.set('status', status)", busy)
    place = page.locator("[data-region=clip] .notice:visible")
    assert "2 of 8, about 12 s left" in place.inner_text()
    page.evaluate("sent.length = 0")
    place.get_by_role("button", name="Cancel").click()
    assert last(live, 1) == {"ask": "cancel"}
    told = {"state": "error", "where": "clips", "message": "x.mp4 has no frames", "remedy": "Choose another."}
    page.evaluate("status => store.set('status', status)", told)
    assert "Choose another." in page.locator("[data-region=clips] [role=alert]").inner_text()
    page.get_by_role("button", name="Close this message").click()
    page.evaluate("tell('alive', false)")
    page.locator(".offline").wait_for()
    page.evaluate("tell('alive', true)")
    page.locator(".offline").wait_for(state="hidden")


def test_estimates_look_like_estimates_until_they_are_measured(live):
    page = live.page
    page.keyboard.press("Escape")
    page.locator('button[data-name="loss"]').click()
    progress = """how => {
      const { clip, losses, percentiles, finding } = store.get("scene");
      const loss_is = losses.map((row) => row.map(() => how));
      const found = how === "measured" ? finding : null;
      store.set("progress", { clip, losses, percentiles, loss_is, finding: found });
    }"""
    page.evaluate(progress, "estimated")
    page.locator(".heat td[data-is=estimated]").first.wait_for()
    page.locator(".legend-guess").wait_for()
    page.evaluate(progress, "measured")
    page.locator(".heat td[data-is=estimated]").first.wait_for(state="detached")
    page.locator('button[data-name="weight"]').click()


def test_an_unknown_combination_is_asked_for_and_drawn_when_it_comes(live):
    page = live.page
    live.cell(0, 0).click()
    live.cell(1, 1).click()
    page.locator(".bars[data-state=waiting]").wait_for()
    page.evaluate("""() => {
      const [answers, scene] = [store.get("answers"), store.get("scene")];
      const key = '[{"kind":"drop","block":0,"dependency":0},{"kind":"drop","block":1,"dependency":1}]';
      const answer = { probabilities: scene.probabilities, change: 0, control: null };
      store.set("answers", { ...answers, items: { ...answers.items, [key]: answer } });
    }""")
    live.shows(edit("drop", 0, 0), edit("drop", 1, 1))
    live.button("Reset").click()


def test_a_clip_that_is_on_its_way_is_drawn_as_such(live):
    page = live.page
    name = page.evaluate("store.get('selected')")
    page.evaluate("store.set('selected', 'one that the kernel still reads')")
    page.locator(".heat[aria-busy=true]").wait_for()
    page.locator(".bars[data-state=empty]").wait_for(state="attached")
    live.cell(0, 0).click()  # nothing happens to a clip that is not there
    page.evaluate("name => store.set('selected', name)", name)
    live.shows()
    assert not live.errors


def test_a_negative_map_says_so(live):
    page = live.page
    live.button("Map").click()
    page.evaluate("""() => {
      const scene = store.get("scene");
      const values = btoa(String.fromCharCode(...new Uint8Array(new Float32Array(8 * 4).fill(-1).buffer)));
      const targets = { [scene.predicted]: { values, low: -1, high: -1, note: "" } };
      const about = { clip: scene.clip, layer: "layer2", method: "layercam" };
      store.set("map", { ...about, shape: [8, 2, 2], targets, top: 0 });
    }""")
    page.get_by_text("negative everywhere").wait_for()
    live.button("Map").click()


def test_questions_are_small_plots_with_a_verdict(live):
    page = live.page
    row = {"label": "weight", "value": 0.21, "low": 0.08, "high": 0.33, "n": 20, "unit": "rank correlation"}
    told = {
        "known": {"state": "done", "rows": [row | {"reference": 0}], "verdict": "Weight tells a little."},
        "asked": {"state": "running", "rows": [], "done": 3, "total": 9, "left_s": 4},
        "broken": {"state": "failed", "rows": [], "message": "no masks"},
    }
    asked = [{"name": name, "title": name, "words": "One sentence."} for name in (*told, "new")]
    page.evaluate(
        "([q, a]) => { store.set('questions', q); store.get('about').questions = a; }", [told, asked]
    )
    page.evaluate("store.set('about', { ...store.get('about') })")
    live.button("Questions").click()
    card = {name: page.locator(f'[data-question="{name}"]') for name in (*told, "new")}
    counts(card["known"].locator(".dot-plot"), 1)
    assert "Weight tells a little." in card["known"].inner_text()
    assert "[+0.08, +0.33]" in card["known"].inner_text() and "n = 20" in card["known"].inner_text()
    assert "3 of 9, about 4 s left" in card["asked"].inner_text()
    assert "no masks" in card["broken"].inner_text() and "Not measured yet" in card["new"].inner_text()
    page.evaluate("sent.length = 0")
    card["asked"].get_by_role("button", name="Cancel").click()
    card["new"].get_by_role("button", name="Measure").click()
    asked = last(live, 2)
    assert asked["name"] == "new" and len(asked["ids"]) == 2, "of the clips that fit"
    assert page.evaluate(READABLE) == {"poor": [], "nameless": []}
    live.button("Questions").click()
