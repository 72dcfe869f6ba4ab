"""README.md says what the records say, and names what exists."""

import re
import sys

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import readme  # noqa: E402

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_what_the_records_say():
    assert all(rows().count("\n") >= 4 for rows in readme.TABLES.values())
    assert readme.text(TEXT) == TEXT, "run python benchmarks/readme.py"


def test_links_and_pictures_exist():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", TEXT) if not t.startswith("http")]
    assert targets and not [t for t in targets if not (ROOT / t).exists()]


def test_commands_exist():
    from sda.commands.main import COMMANDS

    named = set(re.findall(r"^sda (\w+)", TEXT, re.M))
    assert {"predict", "train", "test"} <= named <= set(COMMANDS)
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in make for target in set(re.findall(r"make (\w+)  ", TEXT)) | {"lab"})


def test_python_example_runs():
    import torch

    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names = {"clips": torch.zeros(1, 4, 3, 32, 32)}
    exec(code, names)  # our own README
    assert names["trace"].weights.shape == (1, 16, 4)
