"""The map of rooms in CONTRIBUTING.md, made of the first line of every module.

`python tests/repo_map.py` writes it.
"""

import ast
import re

from notebooks import ROOT

FILE = ROOT / "CONTRIBUTING.md"
START = "<!-- rooms: written by tests/repo_map.py -->\n"
END = "<!-- end -->"


def rooms(chapters):
    """One row a room: chapter, module, the question it answers."""
    rows = ["| chapter | room | what it answers |", "|---|---|---|"]
    for chapter in chapters:
        name = f"`{chapter}`"
        for path in sorted((ROOT / "sda" / chapter).rglob("*.py")):
            room = path.relative_to(ROOT / "sda" / chapter).as_posix().removesuffix(".py")
            if room.endswith("__init__"):
                continue
            said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
            rows.append(f"| {name} | {room} | {said.rstrip('.')} |")
            name = ""
    return "\n".join(rows) + "\n"


def text(current, chapters):
    """CONTRIBUTING with today's rooms."""
    return re.sub(
        re.escape(START) + ".*?" + END, lambda _: START + rooms(chapters) + END, current, flags=re.S
    )


if __name__ == "__main__":
    from integration.test_structure import CHAPTERS

    FILE.write_text(text(FILE.read_text(encoding="utf-8"), CHAPTERS), encoding="utf-8")
