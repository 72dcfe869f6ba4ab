"""The order in which the notebooks are read, on three shelves.

`python tests/series.py` writes what follows from it: the line with previous, index and next on top of every
notebook (with the glossary where readers are guided), the index page, from which *next* leads through all of
them, badges and the first code cell of the learn shelf. It also folds the cells that are
marked `#| hide`, which JupyterLab would show.

Title and purpose of a notebook are its own first two lines.
"""

import json
import os
import re

from notebooks import ROOT, directives, load, notebooks, source

INDEX = ROOT / "nbs/index.ipynb"
REPOSITORY = "sda-workbench/sda-workbench"

# notebook below nbs/, minutes to read and run it, numbers of the notebooks to read before it
LEARN = [
    ("learn/1_tour", 15, ""),
    ("learn/2_annotated_block", 25, "1"),
    ("learn/3_where_it_sits", 15, "1"),
    ("learn/4_known_answer", 15, "1"),
    ("learn/5_which_dependencies", 35, "1 4"),
    ("learn/6_can_you_trust_the_map", 15, "1 4"),
    ("learn/7_your_own_clips", 15, "1"),
    ("learn/8_what_the_evidence_says", 15, "5"),
    ("apps/inspector", 5, ""),
    ("glossary", 5, ""),
]
LIBRARY = [
    ("networks/01_blocks", 20, ""),
    ("networks/02_selection", 10, "01"),
    ("networks/03_backbones", 25, "01"),
    ("networks/04_cost", 5, "03"),
    ("networks/05_checkpoints", 20, "03"),
    ("networks/06_insert", 15, "01 03"),
    ("networks/07_fast", 10, "01"),
    ("methods/10_shift", 5, "03"),
    ("methods/11_gst", 10, "03"),
    ("methods/12_tin", 10, "03"),
    ("methods/13_tpn", 15, "10"),
    ("methods/14_tei", 10, "03"),
    ("methods/15_tam", 10, "03"),
    ("methods/16_tea", 10, "03"),
    ("methods/17_stm", 10, "03"),
    ("methods/18_smallbig", 10, "03"),
    ("methods/19_v4d", 10, "03"),
    ("methods/20_rubiks", 15, "10"),
    ("methods/21_c3d", 10, "03"),
    ("methods/22_receptive_field", 10, "03"),
    ("data/25_video", 25, ""),
    ("data/26_pyav", 10, "25"),
    ("data/27_decord", 5, "25"),
    ("data/28_folder", 15, "25"),
    ("data/29_archive", 10, "28"),
    ("data/30_sampling", 20, ""),
    ("data/31_transforms", 30, ""),
    ("data/32_crops", 10, "31"),
    ("data/33_lists", 15, ""),
    ("data/34_something", 15, "33"),
    ("data/35_diving48", 5, "33"),
    ("data/36_epic", 10, "33"),
    ("data/37_own", 10, "33"),
    ("data/38_make", 25, "33 37"),
    ("data/39_check", 15, "33"),
    ("data/40_clips", 10, "25 30 31"),
    ("data/41_datasets", 25, "33 40"),
    ("data/42_extract", 15, "25 28"),
    ("moves/43_classes", 5, ""),
    ("moves/44_render", 25, "43"),
    ("moves/45_make", 15, "44"),
    ("moves/46_truth", 5, "43"),
    ("training/47_config", 15, "03 41"),
    ("training/48_optimiser", 20, "47"),
    ("training/49_resume", 20, "47"),
    ("training/50_callbacks", 20, "47"),
    ("training/51_trainer", 30, "47 48 49 50"),
    ("training/52_machines", 15, "51"),
    ("testing/53_predictions", 20, "41"),
    ("testing/54_evaluate", 20, "05 53"),
    ("testing/55_compare", 5, "53"),
    ("testing/56_results", 15, "54"),
    ("explaining/57_trace", 25, "01 03"),
    ("explaining/58_interventions", 20, "57"),
    ("explaining/59_effects", 35, "57 58"),
    ("explaining/60_cam", 25, "03"),
    ("explaining/61_faithfulness", 35, "60"),
    ("explaining/62_checks", 20, "59 61"),
    ("figures/64_clips", 15, ""),
    ("figures/65_selection", 30, "57"),
    ("figures/66_effects", 15, "59 61"),
]
EVIDENCE = [
    ("evidence/80_accuracy", 10, "43"),
    ("evidence/81_ablation", 10, "80"),
    ("evidence/82_selection", 10, "57 80"),
    ("evidence/83_ground_truth", 20, "59 80"),
    ("evidence/84_methods", 10, "22"),
    ("evidence/85_own_clips", 10, "47"),
    ("evidence/86_faithful_selection", 10, "02 82"),
]
SHELVES = {"Learn": LEARN, "The library": LIBRARY, "The evidence": EVIDENCE}
ORDER = [name for shelf in SHELVES.values() for name, _, _ in shelf]

WELCOME = """# The notebooks of the SDA Workbench

> A map of three shelves: pages to learn from, the library that is written in notebooks, and the studies.

FIRST →

One question runs through all of them: *which dependencies does a network select for a video, and does the
selection matter?* The line on top of every page leads to the page before, to this map, and to the page after.

| you want | read |
|---|---|
"""
WAYS = [
    ("to see what this is about, in a quarter of an hour", "{1}"),
    ("to understand the method", "{1} {2} {3} {01} {03}"),
    ("to know whether selection weights explain a network", "{1} {4} {5} {8} {83}"),
    ("to know how far a heat map can be believed", "{6} {61}"),
    ("to train on your own clips", "{1} {7} {38} {51}"),
    ("to look at clips with the mouse", "{inspector}"),
    ("to look up a word", "{glossary}"),
]
ABOUT = {
    "Learn": """No knowledge of the library is needed; convolutions and batch normalisation are.
Each page runs offline on a processor in seconds, from any folder once the package is installed.""",
    "The library": """Each notebook defines the module it is named after and shows it at work: the source of
the package is here. Numbers follow the imports, so a notebook uses only those above it.""",
    "The evidence": """What training runs with several seeds say. These pages train nothing: every number is
read from a record in `data/results`.""",
}

COLAB = """#| hide
import subprocess
import sys

if "google.colab" in sys.modules:  # a fresh machine: install the package, let its widgets through
    package = "sda-workbench[notebook,cam] @ git+https://github.com/REPOSITORY"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)
    from google.colab import output

    output.enable_custom_widget_manager()""".replace("REPOSITORY", REPOSITORY)


def path(name):
    """The file of a notebook of the list."""
    return ROOT / "nbs" / f"{name}.ipynb"


def number(name):
    """What prerequisites call a notebook: the digits its file name begins with, or the whole name."""
    stem = name.split("/")[-1]
    digits = re.match(r"\d+(?=_)", stem)
    return digits[0] if digits else stem


def opening(name):
    """Title and one-line purpose of a notebook, from its first cell."""
    title, said = re.match(r"# (\S.*)\n\s*> (\S.*)", source(load(path(name))["cells"][0])).groups()
    return title.strip(), said.strip()


def about(name):
    """The purpose of a notebook as a cell of a table."""
    return opening(name)[1].replace("|", "·").removesuffix(".")


def link(name, start=INDEX):
    """A link to a notebook from another file: its number and its short title."""
    title = opening(name)[0].partition(": ")[0]
    label = f"{number(name)} · {title}" if number(name).isdigit() else title
    return f"[{label}]({os.path.relpath(path(name), start.parent)})".replace(os.sep, "/")


def header(name):
    """The line on top of a notebook; on the learn shelf, badges below it."""
    here, place = path(name), ORDER.index(name)
    index = os.path.relpath(INDEX, here.parent).replace(os.sep, "/")
    line = f"[index]({index})"
    if name.startswith(("learn/", "evidence/")):
        line += f" · {link('glossary', here).lower()}"
    if place:
        line = f"← {link(ORDER[place - 1], here)} · {line}"
    if place + 1 < len(ORDER):
        line = f"{line} · {link(ORDER[place + 1], here)} →"
    return line + "\n" + badges(name) if name.startswith("learn/") else line


def badges(name):
    """Links that open a page of the learn shelf on machines of others; the pictures are files of ours."""
    colab = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/nbs/{name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{REPOSITORY}/main?labpath=nbs/{name}.ipynb"
    return f"\n[![Open in Colab](badges/colab.svg)]({colab}) [![Open in Binder](badges/binder.svg)]({binder})"


def with_header(text, name):
    """The first cell with today's header, directly after title and purpose."""
    text = re.sub(r"^\[!\[Open in Colab\].*\n*", "", text, flags=re.M)
    text = re.sub(r"^(← .*)?\[index\]\([^)]*index\.ipynb\).*\n*", "", text, flags=re.M)
    title, said, rest = re.match(r"(#[^\n]*)\n\s*(>[^\n]*)\n*(.*)", text, re.S).groups()
    return "\n\n".join(part for part in (title, said, header(name), rest) if part)


def folded(cell):
    """The cell, folded where its first lines say that it is not part of the lesson."""
    text = source(cell)
    words = directives(text)
    bare = all(line.lstrip().startswith("#") for line in text.splitlines() if line.strip())
    if cell["cell_type"] == "code" and ("hide" in words or ("default_exp" in words and bare)):
        cell["metadata"].setdefault("jupyter", {})["source_hidden"] = True
    return cell


def lines(text):
    """A cell's text as notebooks store it."""
    return text.splitlines(keepends=True)


def book(name):
    """The notebook as it has to be."""
    found = load(path(name))
    first = found["cells"][0]
    first["source"] = lines(with_header(source(first), name))
    if name.startswith("learn/"):
        cells = [cell for cell in found["cells"] if cell.get("id") != "colab"]
        install = {"cell_type": "code", "id": "colab", "source": lines(COLAB), "metadata": {}}
        cells.insert(1, install | {"execution_count": None, "outputs": []})
        found["cells"] = cells
    found["cells"] = [folded(cell) for cell in found["cells"]]
    return stored(found)


def shelf(title):
    """One shelf of the index page: a row a notebook."""
    names = {number(name): name for name in ORDER}
    rows = [f"## {title}", "", ABOUT[title], "", "| notebook | what it is about | minutes | before it |"]
    rows += ["|---|---|---|---|"]
    for name, minutes, needs in SHELVES[title]:
        before = ", ".join(link(names[need]) for need in needs.split())
        rows.append(f"| {link(name)} | {about(name)} | {minutes} | {before} |")
    return "\n".join(rows)


def index():
    """The index page."""
    names = {number(name): name for name in ORDER} | {"0": ORDER[0]}
    ways = [
        f"| {what} | {' · '.join(link(names[n]) for n in re.findall(r'{(.*?)}', how))} |"
        for what, how in WAYS
    ]
    welcome = WELCOME.replace("FIRST", link(ORDER[0]))
    texts = [welcome + "\n".join(ways), *(shelf(title) for title in SHELVES)]
    cells = [
        {"cell_type": "markdown", "id": f"index{n}", "metadata": {}, "source": lines(text)}
        for n, text in enumerate(texts)
    ]
    kernel = load(path(ORDER[0]))["metadata"]
    return stored({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def stored(found):
    """A notebook as text, in the form of nbdev_clean."""
    return json.dumps(found, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def files():
    """{file: its text as it has to be}, of all notebooks and the index."""
    return {path(name): book(name) for name in ORDER} | {INDEX: index()}


def main():
    """Write what differs."""
    known = {path(name) for name in ORDER} | {INDEX}
    if lost := [p.name for p in notebooks() if p not in known]:
        raise SystemExit(f"not in the list of {__file__}: {', '.join(lost)}")
    for file, text in files().items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
