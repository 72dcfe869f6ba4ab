"""The notebooks are one series: an index, and a chain from each to the next."""

import re

import series
from notebooks import ROOT, directives, load, notebooks, source


def test_every_notebook_is_on_a_shelf():
    assert sorted(series.path(name) for name in series.ORDER) == sorted(set(notebooks()) - {series.INDEX})
    places = {series.number(name): n for n, name in enumerate(series.ORDER)}
    assert len(places) == len(series.ORDER), "two notebooks have the same number"
    for shelf in series.SHELVES.values():
        for name, minutes, needs in shelf:
            assert 0 < minutes <= 60
            assert set(needs.split()) <= places.keys(), name


def test_headers_and_index_are_what_the_list_says():
    other = [p.name for p, text in series.files().items() if p.read_text(encoding="utf-8") != text]
    assert not other, "run python tests/series.py"


def test_next_leads_through_all_and_the_index_to_each():
    index = source_of(series.INDEX)
    here, seen = series.INDEX, []
    while here:
        seen.append(here)
        assert here == series.INDEX or f"]({here.relative_to(series.INDEX.parent).as_posix()})" in index
        following = re.search(r"\[[^]]*\]\(([^)]*)\) →$", source(load(here)["cells"][0]), re.M)
        here = following and (here.parent / following[1]).resolve()
    assert sorted(seen) == sorted(notebooks()), "from the index, following next, every notebook once"


def source_of(path):
    return "\n".join(source(cell) for cell in load(path)["cells"])


def test_hidden_cells_are_folded_in_jupyterlab():
    shown = [
        f"{path.relative_to(ROOT)}: {source(cell)[:60]!r}"
        for path in notebooks()
        for cell in load(path)["cells"]
        if cell["cell_type"] == "code" and "hide" in directives(source(cell))
        if not cell["metadata"].get("jupyter", {}).get("source_hidden")
    ]
    assert not shown, "run python tests/series.py"


def test_a_page_of_the_learn_shelf_exports_nothing_and_has_something_to_move():
    for name in [name for name in series.ORDER if name.startswith("learn/")]:
        text = source_of(series.path(name))
        assert not re.search(r"^#\s*\|\s*(export|default_exp)", text, re.M), name
        assert re.search(r"\b(Live|inspect)\(", text), name
