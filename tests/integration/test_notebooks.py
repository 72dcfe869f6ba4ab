"""Every notebook: its form as stored, and a run of its own under a time budget."""

import base64
import html
import io
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from notebooks import (
    BUDGET,
    ROOT,
    SECONDS,
    VIEW,
    directives,
    load,
    notebooks,
    retimed,
    run,
    source,
)
from PIL import Image
from warm_kernels import kernel

BOOKS = [
    pytest.param(path, id=path.relative_to(ROOT / "nbs").with_suffix("").as_posix()) for path in notebooks()
]
each = pytest.mark.parametrize("path", BOOKS)
MACHINE = re.compile(r"(?<![\w.])(?:/(?:root|home|work|tmp|Users|private|mnt)/[\w.-]+|[A-Z]:\\\\?Users)")


def code_cells(path):
    return [cell for cell in load(path)["cells"] if cell["cell_type"] == "code" and source(cell).strip()]


def texts(cell):
    for output in cell["outputs"]:
        yield "".join(output.get("text", []))
        yield from (
            "".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")
        )


def test_there_are_notebooks():
    assert BOOKS


@each
def test_opens_with_title_and_sentence(path):
    cell = load(path)["cells"][0]
    assert cell["cell_type"] == "markdown"
    assert re.match(r"# \S.*\n\s*> \S", source(cell)), "the first cell is '# Title' and '> one sentence'"


@each
def test_says_how_long_it_runs(path):
    said = SECONDS.findall(source(load(path)["cells"][0]))
    assert len(said) == bool(code_cells(path)), "one line: 'Runs on CPU in about 10 s · no downloads'"


def test_seconds_that_are_far_off_are_written_again():
    text = "# A\n\n*Runs on CPU in about 10 s · no downloads*"
    assert retimed(text, 19) == retimed(text, 4.9) == text
    assert retimed(text, 23) == text.replace("10", "25") and retimed("# A", 23) == "# A"
    assert retimed(text.replace("10", "45"), 6) == text


@each
def test_carries_outputs_and_no_errors(path):
    cells = code_cells(path)
    errors = [source(c) for c in cells if any(o["output_type"] == "error" for o in c["outputs"])]
    assert not errors
    assert not any(VIEW in o.get("data", {}) for c in cells for o in c["outputs"]), "dead without its kernel"
    assert not cells or any(c["outputs"] for c in cells), "run it: a reader on a code host sees nothing"


@each
def test_every_picture_says_what_it_shows(path):
    """To people who cannot see it, by alternative text; and in its own width, so that it can be sharp."""
    for output in (o for cell in code_cells(path) for o in cell["outputs"]):
        for kind in [k for k in output.get("data", {}) if k.startswith("image/")]:
            about = output["metadata"].get(kind, {})
            shown = f"{path.name}: `picture` of sda/figures/style writes both"
            assert len(about.get("alt", "")) > 20 and (kind != "image/png" or about.get("width")), shown
        page = "".join(output.get("data", {}).get("text/html", ""))
        assert not re.search(r"<img(?![^>]*\balt=)", page), f"{path.name}: a picture in HTML without `alt`"


@each
def test_pictures_are_sharp_and_cut_no_word_off(path):
    """Two dots for one of a plain screen; and nothing reaches the edge, which the layout keeps white."""
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    for output in [one for one in outputs if "image/png" in one.get("data", {})]:
        about = output["metadata"]["image/png"]
        image = Image.open(io.BytesIO(base64.b64decode("".join(output["data"]["image/png"]))))
        dots = np.asarray(image.convert("L"))
        edge = np.concatenate([dots[0], dots[-1], dots[:, 0], dots[:, -1]])
        assert image.width >= 1.99 * about["width"] and edge.min() > 230, f"{path.name}: {about['alt']}"


@each
def test_tables_fit_a_page(path):
    """In 668 dots, of a browser of 1,100: the lines of a cell are broken, its longest word is not."""
    for cell in code_cells(path):
        pages = ["".join(output.get("data", {}).get("text/html", "")) for output in cell["outputs"]]
        for page in [page for page in pages if "overflow" not in page]:  # that one scrolls
            widths = Counter()
            for row in re.findall(r"<tr.*?</tr>", page, re.S):
                fields = re.findall(r"<t[hd](.*?)>(.*?)</t[hd]>", row, re.S)
                if not any("span" in about for about, _ in fields):
                    for k, (_, text) in enumerate(fields):
                        words = re.split(r"[ \n-]", html.unescape(re.sub("<.*?>", "", text)))
                        widths[k] = max(widths[k], *map(len, words))
            assert widths.total() + 2 * len(widths) <= 88, source(cell)


@each
def test_says_nothing_of_the_machine(path):
    found = [
        match[0] for cell in code_cells(path) for text in texts(cell) for match in MACHINE.finditer(text)
    ]
    found += [match[0] for cell in load(path)["cells"] for match in MACHINE.finditer(source(cell))]
    assert not found


@each
def test_cells_are_short(path):
    long = {
        source(c).splitlines()[-1]: n
        for c in code_cells(path)
        if (n := sum(bool(line.strip()) for line in source(c).splitlines())) > 60
    }
    assert not long, "no cell has more than 60 lines"


@each
def test_no_heading_is_there_twice(path):
    words = [source(cell) for cell in load(path)["cells"] if cell["cell_type"] == "markdown"]
    headings = Counter(re.findall(r"^#+ .*$", "\n".join(words), re.M))
    assert [line for line, times in headings.items() if times > 1] == []


@each
def test_is_small(path):
    assert path.stat().st_size <= 500_000


@each
def test_export_cells_hold_nothing_but_code(path):
    for cell in code_cells(path):
        text = source(cell)
        lines = [line for line in text.splitlines() if line.strip()]
        marks = [n for n, line in enumerate(lines) if re.match(r"\s*#\s*\|\s*export", line)]
        if not marks:
            continue
        assert marks[0] < len(directives(text)), (
            f"a line above the directive drops the cell silently:\n{text}"
        )
        assert not directives(text).get("export"), f"only the owner writes a module:\n{text}"
        assert not any(re.match(r"\s*(%{1,2}\w|!)", line) for line in lines), (
            f"a magic in an export cell:\n{text}"
        )
        assert "eval" not in directives(text), f"exported, never tested:\n{text}"


@each
def test_links_lead_somewhere(path):
    for cell in load(path)["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`|\$[^$]*\$", "", source(cell))):
            if re.match(r"\w+:|#", target):
                continue
            assert (path.parent / target.split("#")[0]).exists(), f"dead link: {target}"


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """A copy of the tree, so that a notebook which writes files leaves the checkout alone."""
    target = tmp_path_factory.mktemp("copy") / "project"
    return copy_tree(target)


def copy_tree(target: Path) -> Path:
    left_out = shutil.ignore_patterns(
        ".git",
        ".venv",
        "runs",
        "sets",
        "__pycache__",
        ".*_cache",
        ".hypothesis",
        "*.egg-info",
        ".ipynb_checkpoints",
        "build",
        "dist",
    )
    return Path(shutil.copytree(ROOT, target, ignore=left_out))


@pytest.mark.slow
@pytest.mark.timeout(BUDGET + 90)
@each
def test_runs(path, copy, warm):
    from nbclient.exceptions import CellExecutionError

    file = copy / path.relative_to(ROOT)
    if path.parent.name in ("learn", "apps"):  # these need the package and no folder
        elsewhere = copy / "some/other/folder"
        elsewhere.mkdir(parents=True, exist_ok=True)
        file = Path(shutil.copy(file, elsewhere))
    try:
        run(file, kernel=warm and kernel(warm))
    except CellExecutionError as err:
        pytest.fail(re.sub(r"\x1b\[[\d;]*m", "", str(err)), pytrace=False)
