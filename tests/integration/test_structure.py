"""The shape of the code, read from its syntax tree: what may import what, and how classes are made."""

import ast
import re
from collections import Counter
from functools import cache

import pytest
import repo_map
from notebooks import ROOT

# a chapter imports only chapters before it in this list
CHAPTERS = (
    "foundation",
    "networks",
    "methods",
    "data",
    "moves",
    "figures",  # of arrays and tables, so that a training can be drawn while it runs
    "training",
    "testing",
    "explaining",
    "inspector",
    "commands",
    "studies",
)
MOST_LINES = 560
MOST_NAMES = 350
MODULES = sorted(p for p in (ROOT / "sda").rglob("*.py") if p.name != "_modidx.py")


@cache
def tree(path):
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path):
    """A module's path below `sda/`."""
    return path.relative_to(ROOT / "sda").as_posix()


def imported(path, nodes=None):
    """The modules of this package that a file imports, as file paths."""
    for node in nodes if nodes is not None else ast.walk(tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.parent
            for _ in range(node.level - 1):
                package = package.parent
            prefix = ".".join(package.relative_to(ROOT).parts) if node.level else ""
            base = ".".join(filter(None, [prefix, node.module]))
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.startswith("sda.") and file.exists():
                yield file


def number(path):
    """The number of the notebook that a module is exported from; None for a plain module."""
    found = re.search(r"File to edit: \S*?(\d\d)_\w+\.ipynb", path.read_text(encoding="utf-8")[:2000])
    return int(found[1]) if found else None


@pytest.mark.parametrize("path", MODULES, ids=room)
def test_a_room_imports_only_what_stands_before_it(path):
    mine = room(path).split("/")[0]
    for other in set(imported(path)) - {path}:
        theirs = room(other).split("/")[0]
        if mine in CHAPTERS and theirs in CHAPTERS:
            assert CHAPTERS.index(theirs) <= CHAPTERS.index(mine), f"imports {room(other)}"
        if number(path) and number(other):
            assert number(other) < number(path), f"imports {room(other)}, a notebook with a larger number"


def test_no_circle_of_imports():
    graph = {path: set(imported(path)) - {path} for path in MODULES if path.name != "__init__.py"}
    done, active = set(), []

    def walk(path):
        if path in active:
            raise AssertionError(" -> ".join(room(p) for p in [*active[active.index(path) :], path]))
        if path in done or path not in graph:
            return
        active.append(path)
        for other in graph[path]:
            walk(other)
        done.add(active.pop())

    for path in graph:
        walk(path)


def test_no_private_class_is_the_parent_of_just_one():
    parents = Counter()
    private = {}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                if node.name.startswith("_"):
                    private[node.name] = room(path)
                parents.update(ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases)
    single = {name: where for name, where in private.items() if parents[name] == 1}
    assert not single, "compose, or write the child's class"


def test_methods_are_written_in_their_class():
    made = []
    for path in MODULES:
        classes = {node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree(path)):
            target = None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
                target = node.args[0]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                target = node.targets[0].value
            if isinstance(target, ast.Name) and target.id in classes:
                made.append(f"{room(path)}:{node.lineno}")
    assert not made


@pytest.mark.parametrize("path", MODULES, ids=room)
def test_a_module_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_public_names_are_what_somebody_needs():
    names = 0
    for path in MODULES:
        if path.name == "__init__.py":
            continue  # re-exports
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names += len(ast.literal_eval(node.value))
    assert names <= MOST_NAMES


def test_the_map_shows_every_room():
    current = repo_map.FILE.read_text(encoding="utf-8")
    assert repo_map.START in current
    assert repo_map.text(current, CHAPTERS) == current, "run python tests/repo_map.py"
