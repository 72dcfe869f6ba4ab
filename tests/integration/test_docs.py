"""The documentation site before it is built: what is gathered for it, and the check of its links."""

import json
import re
import sys

import pytest
import series
from notebooks import ROOT

pytest.importorskip("mkdocs_jupyter", reason='the site needs pip install -e ".[dev]"')
pytest.importorskip("latex2mathml", reason='the site needs pip install -e ".[dev]"')
sys.path.insert(0, str(ROOT / "docs"))
import make_site  # noqa: E402
import reference  # noqa: E402


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """All pages but those that ask the library: commands, published results, inspector."""
    folder = tmp_path_factory.mktemp("pages")
    return folder, make_site.stage(folder)


def leaves(way):
    """The files of a navigation."""
    if isinstance(way, str):
        return [way]
    return [leaf for part in (way.values() if isinstance(way, dict) else way) for leaf in leaves(part)]


def test_every_notebook_is_on_the_way(staged):
    folder, settings = staged
    ways = leaves(settings["nav"])
    assert {f"{name}.ipynb" for name in series.ORDER} < set(ways) and len(ways) == len(set(ways))
    asked = {"commands.md", "published.md", "inspector/index.md"}
    assert {way for way in ways if not (folder / way).exists()} == asked


def test_texts_hold_no_tex_and_checks_are_left_out(staged):
    folder, _ = staged
    formulas = 0
    for path in folder.rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = series.source(cell)
            assert cell.get("id") != "colab"
            if cell["cell_type"] == "markdown":
                plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
                formulas += plain.count("<math")
                assert "$" not in plain and not re.search(r"\\[a-z]+", re.sub(r"<[^>]+>", "", plain)), path
            else:
                assert not text.startswith("#|") and (cell["outputs"] or "source_hidden" not in str(cell)), (
                    path
                )
    assert formulas > 100


def test_the_reference_knows_every_public_name():
    import importlib

    known = reference.chapters()
    where = reference.places(known)
    offered = {
        chapter: getattr(importlib.import_module(f"sda.{chapter}"), "__all__", []) for chapter in known
    }
    assert offered["networks"] and offered["explaining"]
    assert not {name for names in offered.values() for name in names} - set(where)
    rooms = [m for modules in known.values() for m in modules if m.path.name != "__init__.py"]
    assert not [f"{m.name}.{name}" for m in rooms for name in m.names if name not in m.found]
    page = reference.page("networks", known["networks"], "")
    assert "{ #sda.networks.blocks.SDA }" in page and "num_classes: int,  # K" in page


def test_published_results_are_complete_and_marked():
    from sda.testing.results import load_published

    page = make_site.published()
    rows = load_published()
    cells = [c.strip() for line in page.splitlines() if line.startswith("|") for c in line.split("|")]
    printed = [c for c in cells if re.fullmatch(r"\d+\.\d", c)]
    assert sorted(printed) == sorted(f"{value:.1f}" for value in rows.value)
    wrong = next(line for line in page.splitlines() if "| TSM+TPN |" in line)
    assert "† wrong" in wrong


def test_the_check_finds_what_is_broken(tmp_path):
    (tmp_path / "a.css").write_text("@import 'https://example.org/b.css'; p {background: url(x.png)}")
    (tmp_path / "b.html").write_text("<h2 id='here'>b</h2>")
    (tmp_path / "a.html").write_text(
        "<a href='b.html#here'>good</a><a href='https://example.org'>good</a><img src='data:,'>"
        "<a href='b.html#there'>1</a><a href='c.html'>2</a><img src='c.png'>"
        "<script src='https://example.org/x.js'></script><link rel=stylesheet href='//example.org/x.css'>"
    )
    assert len(make_site.faults(tmp_path)) == 6


def test_a_link_to_nothing_is_an_error_before_the_build():
    assert (
        make_site.moved("../networks/01_blocks.ipynb#A,-b", "nbs/learn/1_tour.ipynb")
        == "../networks/01_blocks.html#a-b"
    )
    assert make_site.moved("LICENSE", "README.md").endswith("/blob/main/LICENSE")
    with pytest.raises(FileNotFoundError):
        make_site.moved("../networks/no.ipynb", "nbs/learn/1_tour.ipynb")
