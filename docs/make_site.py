"""The documentation site: `make docs`.

Pages are gathered in _docs/pages: notebooks without their hidden checks and with formulas as MathML, the
README, changes, commands, published results, the reference, a recorded inspector. mkdocs builds _docs/site
from them, and every page is then checked: links lead somewhere, nothing is fetched from another machine.
No notebook is run.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import re
import shutil
import sys
import time
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import reference
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import series  # noqa: E402

SOURCE = f"https://github.com/{series.REPOSITORY}"
BRANCH = "main"
# files of the repository that are pages of the site
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
INDEX = "nbs/index.ipynb"  # of the notebooks; `index` is the site's first page
CLIPS = ("rightward", "away", "striped")  # classes of Moves in the recorded inspector, by key
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
FORMULA = re.compile(r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.S)
LINK = re.compile(r"(\]\()([^)\s]+)(?=\))")
BOX = str.maketrans("", "", "╭╮╰╯│─")


# ---- Where files of the repository are on the site


def place(path: str) -> str:
    """The page that a file of the repository becomes; nothing for those that stay there."""
    if path in PAGES:
        return PAGES[path]
    if path == INDEX:
        return "notebooks.ipynb"
    if path.startswith("nbs/") and path.endswith((".ipynb", ".svg", ".png")):
        return path.removeprefix("nbs/")
    return path if path.startswith("data/figures/") else ""


def moved(target: str, source: str) -> str:
    """A link of a file of the repository, as it has to be on the site."""
    address, mark, anchor = target.partition("#")
    if urlsplit(target).scheme:
        return target
    if source.endswith(".ipynb"):  # Jupyter keeps capitals and commas in anchors
        anchor = re.sub(r"[^\w-]", "", anchor.lower())
    if not address:
        return mark + anchor
    path = os.path.normpath(os.path.join(os.path.dirname(source), unquote(address))).replace(os.sep, "/")
    if not (ROOT / path).exists():
        raise FileNotFoundError(f"{source} links to {target}, which does not exist")
    page = place(path)
    if not page:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{SOURCE}/{kind}/{BRANCH}/{path}{mark}{anchor}"
    found = os.path.relpath(page, os.path.dirname(place(source)) or ".").replace(os.sep, "/")
    if source.endswith(".ipynb"):  # their links are not read by mkdocs
        found = re.sub(r"\.(ipynb|md)$", ".html", found)
    return found + mark + anchor


def with_links(text: str, source: str) -> str:
    """A text with its links moved; code stays."""
    parts = re.split(r"(```.*?```)", text, flags=re.S)
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda m: m[1] + moved(m[2], source), part)
        for part in parts
    )


# ---- Notebooks


def formula(found: re.Match) -> str:
    """A formula as MathML, safe from the reader of Markdown; code as it is."""
    from latex2mathml.converter import convert

    if found[1]:
        return found[1]
    tex, shape = (found[2], "block") if found[2] else (found[3], "inline")
    said = re.sub(r"\s+", " ", convert(tex.strip(), display=shape))
    for sign in "*_[]":
        said = said.replace(sign, f"&#{ord(sign)};")
    return f"\n\n<div>{said}</div>\n\n" if found[2] else said


def text_cell(text: str, name: str) -> dict:
    """A cell of text."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def cells_of(cell: dict, source: str) -> list[dict]:
    """What becomes of a cell: links and formulas of a text; the code of a hidden figure is folded, a hidden
    check is left out."""
    text = series.source(cell)
    if cell["cell_type"] == "markdown":
        plain = re.sub(r"^#{1,6} .*`.*$", lambda m: m[0].replace("`", ""), text, flags=re.M)  # for anchors
        return [cell | {"source": FORMULA.sub(formula, with_links(plain, source))}]
    code = re.sub(r"^#\|.*\n?", "", text, flags=re.M).strip()
    if not cell["metadata"].get("jupyter", {}).get("source_hidden"):
        return [cell | {"source": code}] if code else []
    if not cell.get("outputs"):
        return []
    fold = f"<details class='code'><summary>Code</summary>\n\n```python\n{code}\n```\n\n</details>"
    bare = cell | {"source": code, "metadata": {"transient": {"remove_source": True}}}
    return [bare, text_cell(fold, f"{cell['id']}-code")]


def notebook(path: str) -> str:
    """A notebook as the site shows it."""
    found = series.load(ROOT / path)
    cells = [new for cell in found["cells"] if cell.get("id") != "colab" for new in cells_of(cell, path)]
    return json.dumps(found | {"cells": cells})


# ---- Pages that are written here


def commands() -> str:
    """The page of the command line, from its own help."""
    from sda.commands.main import COMMANDS, main, overview

    os.environ["COLUMNS"] = "100"
    parts = ["# Commands", f"```\n{overview()}\n```"]
    for name in COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            main([name, "--help"])
        lines = [line.translate(BOX).rstrip() for line in said.getvalue().splitlines()]
        lines = [line for line in lines if line.strip(" -") or not line]
        words = re.sub(r"\n{3,}", "\n\n", "\n".join(line.removeprefix(" ") for line in lines)).strip()
        parts.append(f"## sda {name}\n\n```\n{words}\n```")
    return "\n\n".join(parts) + "\n"


def number(value: float) -> str:
    """A size, or a dash where none was printed or counted."""
    return "–" if value != value else f"{value:g}"


def protocol(row) -> str:
    """How a published number was tested, as far as it is known."""
    return " × ".join(str(part) for part in (row.frames, row.crops, row.clips) if str(part) != "<NA>")


def published() -> str:
    """The page of the published results, a table a dataset, with what is wrong in the row."""
    import pandas as pd

    from sda.testing.results import doubtful, load_published, to_markdown

    rows = load_published()
    far = set(zip(*(doubtful(rows)[c] for c in ("method", "frames")), strict=True))
    parts = [(Path(__file__).parent / "published.md").read_text(encoding="utf-8").strip()]
    for dataset, found in rows.groupby("dataset"):
        metrics = list(found.metric.unique())
        table = []
        for _, same in found.groupby(["method", "frames", "crops", "clips"], dropna=False, sort=False):
            row = same.iloc[0]
            values = dict(zip(same.metric, same.value, strict=True))
            mark = "† " if (row.method, row.frames) in far else ""
            table.append(
                {
                    "method": row.method,
                    "frames × crops × clips": protocol(row),
                    "parameters, M": f"{number(row.params_m)} / {number(row.measured_params_m)}",
                    "multiply-adds, G": f"{number(row.gmacs)} / {number(row.measured_gmacs)}",
                    **{metric: f"{values[metric]:.1f}" if metric in values else "–" for metric in metrics},
                    "remark": mark + row.note,
                }
            )
        table.sort(key=lambda row: row[metrics[0]])
        parts += [f"## {dataset}", to_markdown(pd.DataFrame(table))]
    return "\n\n".join(parts) + "\n"


def inspector(folder: Path) -> str:
    """The page that holds a recorded inspector; the recording goes to the folder."""
    from sda.assets import GATED_MODEL, SAMPLE_CLIPS
    from sda.inspector.opening import open_session
    from sda.inspector.page import page_of, recording
    from sda.moves.classes import CLASSES

    names = {one.key: one.name for one in CLASSES}
    labels = {f"test_0000_{key}.mp4": names[key] for key in CLIPS}
    clips = [SAMPLE_CLIPS / "img" / name for name in labels]
    session = open_session(GATED_MODEL, clips, labels=labels, device="cpu")
    ids = session.clips.ids()
    for _ in recording(session, ids):
        pass
    put(folder / "recorded.html", page_of(session, ids))
    return (Path(__file__).parent / "inspector.md").read_text(encoding="utf-8")


# ---- The site


def stage(pages: Path) -> dict:
    """Gather the pages, and the settings of mkdocs with the way through them."""
    write = {name: notebook(f"nbs/{name}.ipynb") for name in series.ORDER}
    for name, text in write.items():
        put(pages / f"{name}.ipynb", text)
    put(pages / place(INDEX), notebook(INDEX))
    for path, page in PAGES.items():
        put(pages / page, with_links((ROOT / path).read_text(encoding="utf-8"), path))
    for found in [*(ROOT / "data/figures").glob("*.*"), *(ROOT / "nbs/learn/badges").glob("*.svg")]:
        target = pages / place(found.relative_to(ROOT).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, target)
    known = reference.chapters()
    put(pages / "reference/index.md", reference.front(known))
    for chapter, modules in known.items():
        if modules:
            put(
                pages / f"reference/{chapter}.md", reference.page(chapter, modules, f"{SOURCE}/blob/{BRANCH}")
            )
    put(pages / "assets/site.css", (Path(__file__).parent / "site.css").read_text(encoding="utf-8"))
    put(pages / "assets/notebook.css", notebook_style())
    settings = yaml.safe_load((Path(__file__).parent / "mkdocs.yml").read_text(encoding="utf-8"))
    return settings | {"nav": way(known)}


def way(known: dict) -> list:
    """The navigation: the shelves of the notebooks, a chapter of the library a group, and the other pages."""
    learn, library, evidence = (
        [{series.opening(name)[0]: f"{name}.ipynb"} for name, _, _ in shelf]
        for shelf in series.SHELVES.values()
    )
    groups = defaultdict(list)
    for page in library:
        [address] = page.values()
        groups[address.split("/")[0]].append(page)
    return [
        {"Home": ["index.md", {"All notebooks": place(INDEX)}, *({t: p} for t, p in OTHERS.items())]},
        {"Learn": learn},
        {"Inspector": "inspector/index.md"},
        {"Library": [{name.capitalize(): pages} for name, pages in groups.items()]},
        {
            "Reference": [
                "reference/index.md",
                *(f"reference/{c}.md" for c, modules in known.items() if modules),
            ]
        },
        {"Evidence": [*evidence, {"Published results": "published.md"}]},
        {"Commands": "commands.md"},
    ]


OTHERS = {"Changes": "changes.md", "Contributing": "contributing.md", "Security": "security.md"}


def put(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def notebook_style() -> str:
    """The style of notebooks, once for all pages: mkdocs-jupyter would repeat it in each."""
    import mkdocs_jupyter
    from pygments.formatters import HtmlFormatter

    folder = Path(mkdocs_jupyter.__file__).parent / "templates/mkdocs_html/assets"
    sheets = [(folder / name).read_text(encoding="utf-8") for name in ("index.css", "theme-light.css")]
    return "\n".join([*sheets, HtmlFormatter().get_style_defs(".highlight-ipynb")])


def build(out: Path) -> Path:  # folder of the site
    """Gather, build and check; the folder is replaced."""
    from mkdocs.commands.build import build as render
    from mkdocs.config import load_config

    pages, site = out / "pages", out / "site"
    shutil.rmtree(pages, ignore_errors=True)
    settings = stage(pages)
    put(pages / "commands.md", commands())
    put(pages / "published.md", published())
    put(pages / "inspector/index.md", inspector(pages / "inspector"))
    settings |= {
        "docs_dir": str(pages),
        "site_dir": str(site),
        "hooks": [str(Path(__file__).parent / "hooks.py")],
    }
    put(out / "mkdocs.yml", yaml.safe_dump(settings, sort_keys=False))
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # of notebooks: pictures without words
    logging.getLogger("mkdocs").addHandler(logging.StreamHandler(sys.stderr))
    render(load_config(str(out / "mkdocs.yml"), strict=True))
    if found := faults(site):
        raise SystemExit("\n".join(found))
    return site


# ---- Checks


class Page(HTMLParser):
    """What a page links to, what it fetches, and its anchors."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.fetched, self.anchors = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Keep what leads elsewhere."""
        known = dict(attrs)
        self.anchors.update(filter(None, (known.get("id"), known.get("name") if tag == "a" else None)))
        if tag == "a" and known.get("href"):
            self.links.append(known["href"])
        if known.get(FETCHED.get(tag)):
            self.fetched.append(known[FETCHED[tag]])


def faults(site: Path) -> list[str]:
    """Links that lead nowhere, and what would be fetched from another machine."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    said = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # it stands at any depth
        for target in (*page.links, *page.fetched):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            anchor = unquote(parts.fragment)
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].anchors):
                said.append(f"{path.relative_to(site)}: {target} leads nowhere")
        outside = [t for t in page.fetched if urlsplit(t).scheme not in ("", "data") or urlsplit(t).netloc]
        said += [f"{path.relative_to(site)}: {t} is fetched from another machine" for t in outside]
    for path in site.rglob("*.css"):
        outside = re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", path.read_text(encoding="utf-8")
        )
        said += [f"{path.relative_to(site)}: {t} is fetched from another machine" for t in outside]
    return said


def main() -> None:
    """Build the site and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="folder of pages and site")
    out = parser.parse_args().out
    start = time.process_time()
    site = build(out)
    count = sum(1 for _ in site.rglob("*.html"))
    print(f"{site / 'index.html'}: {count} pages, {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
