"""The documentation site, built and opened in Chromium."""

import functools
import http.server
import sys
import threading

import pytest
from notebooks import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory):
    """The address of the site, built from this checkout and served on this machine."""
    pytest.importorskip("mkdocs_jupyter")
    sys.path.insert(0, str(ROOT / "docs"))
    import make_site

    folder = make_site.build(tmp_path_factory.mktemp("docs"))
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


FITS = (
    "[...document.querySelectorAll('.jp-OutputArea-output')].every(o => o.scrollWidth <= o.clientWidth + 1)"
)


def visit(page, address):
    """Open a page, and wait for its search too, whose script would be cut off by the next page."""
    with page.expect_worker() as search:
        page.goto(address, wait_until="networkidle")
    search.value.evaluate("0")  # answered once the script is there


def test_pages_open_without_errors_and_without_the_network(chromium, site):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.on("request", lambda request: asked.append(request.url))
    for name in (
        "index",
        "notebooks",
        "learn/1_tour",
        "evidence/83_ground_truth",
        "published",
        "reference/networks",
    ):
        visit(page, f"{site}{name}.html")
        assert page.locator("h1").first.is_visible()
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), name
        assert page.evaluate(FITS), f"{name}: a table runs over the page"

    visit(page, f"{site}learn/2_annotated_block.html")  # formulas
    shapes = [box.bounding_box() for box in page.locator("math[display=block]").all()]
    assert len(shapes) >= 5 and all(b["height"] > 15 and b["width"] > 60 for b in shapes)

    visit(page, f"{site}commands.html")  # the words of the options are meant for people; search
    assert "sda data" in page.inner_text("article") and "type: ignore" not in page.inner_text("article")
    search, found = page.locator("input.md-search__input"), page.locator(".md-search-result__link").first
    search.fill("create_model")
    for _ in range(60):  # what is typed before the index has arrived is asked at the next key
        search.press("End")
        if found.is_visible():
            break
        page.wait_for_timeout(500)
    found.wait_for()

    visit(page, f"{site}inspector/index.html")  # the recording inside the site answers a click
    inside = page.frame_locator("iframe.inspector")
    bars = inside.locator(".bars[data-state=known]")
    bars.wait_for()
    before = bars.get_attribute("data-key")
    inside.locator('td[data-at="3 2"]').click()
    inside.get_by_role("button", name="Undo", exact=True).wait_for()
    page.wait_for_function(
        "key => document.querySelector('iframe').contentDocument.querySelector('.bars').dataset.key !== key",
        arg=before,
    )
    page.close()
    assert not errors
    assert all(url.startswith((site, "data:", "blob:")) for url in asked), asked
