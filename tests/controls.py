"""Which test drives which control of the inspector's panel: said by the test, and held to it."""

import ast
from pathlib import Path

HERE = Path(__file__).resolve().parent


def drives(*names):
    """Mark a test with the controls that it moves or presses."""

    def mark(test):
        test.drives = names
        return test

    return mark


def driven(files=("test_inspector.py", "test_browser.py")):
    """Control -> the tests that name it, read from the files without running them."""
    found = {}
    for file in files:
        for node in ast.parse(next(HERE.rglob(file)).read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "drives":
                    for name in mark.args:
                        found.setdefault(name.value, []).append(f"{file.removesuffix('.py')}::{node.name}")
    return found


def held(request, touched):
    """A test that names a control must have moved or pressed it; of a parametrised test, the one it was called with."""
    named = set(getattr(request.function, "drives", ()))
    params = getattr(getattr(request.node, "callspec", None), "params", {})
    if params.get("name") in named:
        named = {params["name"]}
    assert named <= touched, f"named but left alone: {sorted(named - touched)}"
