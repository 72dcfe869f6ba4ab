"""Run notebooks: ``python tests/notebooks.py [NOTEBOOK...]`` runs them again in place and cleans them.

On top of a notebook stands how long it runs on a CPU; where that is off by more than a factor of two, the run
writes what it took.

Each notebook gets its own kernel, its own folder as working directory, one time budget, and no profile of
the user. Cells flagged ``#| gpu``, ``data``, ``notest`` (`tst_flags` in settings.ini) or ``#| eval: false``
are left out and keep the output they have; a test leaves out those flagged ``slow`` as well.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"
SECONDS = re.compile(r"(?<=uns on CPU in about )\d+(?= s · no downloads)")  # on top of a notebook
BUDGET = 180  # seconds for one notebook, start of the kernel included


def setting(key):
    """One value of settings.ini."""
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"][key]


def notebooks(root=ROOT):
    """Every notebook of the project in the order of its file names."""
    paths = (root / "nbs").rglob("*.ipynb")
    return sorted(
        (p for p in paths if not any(part[0] in "._" for part in p.relative_to(root).parts)),
        key=lambda p: p.name,
    )


def directives(source):
    """The ``#| word rest`` lines on top of a cell as {word: rest}."""
    found = {}
    for line in source.splitlines():
        if not (match := re.match(r"\s*#\s*\|\s*(\w+):?\s*(.*)", line)):
            break
        found[match[1]] = match[2].strip()
    return found


def skipped(source, slow=False):
    """Whether a run leaves this cell out."""
    found = directives(source)
    flags = set(setting("tst_flags").split()) - ({"slow"} if slow else set())
    return found.get("eval", "").lower() == "false" or bool(found.keys() & flags)


def run(path, budget=BUDGET, kernel=None, slow=False):
    """The executed notebook; raises nbclient's errors when a cell fails, the kernel dies or the budget is
    spent. `kernel` names another one than `python3`; `slow` runs the cells flagged so as well."""
    import nbformat
    from nbclient import NotebookClient

    path = Path(path).resolve()
    project = next(parent for parent in path.parents if (parent / "settings.ini").exists())
    book = nbformat.read(path, 4)
    kept = {}
    end = time.monotonic() + budget
    for cell in book.cells:  # a raw cell is not run
        if cell.cell_type == "code" and skipped(cell.source, slow):
            kept[cell.id] = cell.outputs
            cell.cell_type = "raw"
    with tempfile.TemporaryDirectory() as home:
        env = {
            **os.environ,
            "PYTHONPATH": str(project),
            "IPYTHONDIR": home,
            "TQDM_DISABLE": "1",
            "SDA_CACHE": "",  # scans of clips that are gone in a minute
            "SDA_PRECISION": "fp32",  # the same numbers on machines that would compute in bfloat16
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        client = NotebookClient(
            book,
            startup_timeout=240,  # the process that forks may still be importing
            shutdown_kernel="immediate",
            timeout_func=lambda cell: max(1, int(end - time.monotonic())),
            resources={"metadata": {"path": str(path.parent)}},
            **(kernel or {"kernel_name": "python3"}),
        )
        client.store_widget_state = False  # a panel would be stored with all its pictures
        client.execute(env=env)
    for cell in book.cells:
        for output in cell.get(
            "outputs", []
        ):  # a panel without its kernel is an error message; its picture stays
            if "image/png" in output.get("data", {}):
                output["data"].pop(VIEW, None)
        if cell.get("id") in kept:
            cell.cell_type = "code"
            cell.outputs = kept[cell.id]
    return book


def cpu_seconds():
    """Processor time of all children that have ended: what else the machine does is not in it."""
    spent = os.times()
    return spent.children_user + spent.children_system


def retimed(text, seconds):
    """The first cell of a notebook, with the seconds of a run where those it names are far off."""
    said = SECONDS.search(text)
    took = 5 * math.ceil(seconds / 5)
    if not said or not took or 0.5 <= int(said[0]) / took <= 2:
        return text
    return SECONDS.sub(str(took), text)


def main():
    """Run the named notebooks, or all, in place."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="*", type=Path, help="notebooks; all when none is named")
    failed = []
    for path in parser.parse_args().notebook or notebooks():
        start, before = time.monotonic(), cpu_seconds()
        try:
            book = run(path, budget=1800, slow=True)
            book.cells[0].source = retimed(book.cells[0].source, cpu_seconds() - before)
            nbformat.write(book, path)
        except Exception as err:  # the other notebooks are run all the same; the exit status tells
            failed.append(path.name)
            print(f"{path.name}: {err}", file=sys.stderr)
            continue
        clean(path, ROOT)
        print(f"{path.name:32} {time.monotonic() - start:6.1f} s {path.stat().st_size / 1000:6.0f} kB")
    if failed:
        sys.exit(f"failed: {' '.join(failed)}")


def tool(name, *args, cwd):
    """Run one of nbdev's commands with this Python (its own first line may hold a path that has moved)."""
    env = {
        key: value for key, value in os.environ.items() if key != "IN_TEST"
    }  # nbdev_export does nothing under it
    script = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [sys.executable, str(script), *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{name} failed:\n{done.stdout}{done.stderr}"


def clean(path, root):
    """nbdev_clean on one notebook or folder."""
    tool("nbdev_clean", "--fname", str(path), cwd=root)


def source(cell):
    """The text of a cell as stored."""
    return "".join(cell["source"])


def load(path):
    """The notebook's JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
