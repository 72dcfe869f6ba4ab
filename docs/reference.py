"""Pages about the public names of the library, written from its source: nothing is imported for them.

A signature stands here as it stands in the file, with the comment of every parameter.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 14  # lines of a constant that are shown whole
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Module(NamedTuple):
    """A module of a chapter, and what it offers."""

    name: str  # dotted, with `sda`
    path: Path
    purpose: str  # first line of its docstring
    notebook: str  # the notebook it is exported from, below nbs/, or nothing
    names: list[str]  # its __all__
    lines: list[str]  # of its source
    found: dict[str, ast.stmt]  # name -> what defines it


def defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, Definition):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [n.id for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)]


def read_module(path: Path) -> Module:
    """What a module offers; no names where it has no literal __all__."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = {name: node for node in tree.body for name in defined(node)}
    offered = getattr(found.get("__all__"), "value", None)
    names = ast.literal_eval(offered) if isinstance(offered, ast.List) else []
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    origin = re.search(r"File to edit: [./]*nbs/(\S+\.ipynb)", text)
    purpose = (ast.get_docstring(tree) or "").split("\n")[0].rstrip(".")
    return Module(dotted, path, purpose, origin[1] if origin else "", names, text.splitlines(), found)


def chapters() -> dict[str, list[Module]]:
    """{chapter: its modules that offer names}, in the order of the map in CONTRIBUTING.md."""
    order = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    modules = {name: [read_module(p) for p in sorted((ROOT / "sda" / name).rglob("*.py"))] for name in order}
    # a package that only passes names on has none of its own
    return {name: [m for m in known if set(m.names) & set(m.found)] for name, known in modules.items()}


def head(node: Definition, lines: list[str]) -> str:
    """A signature as written, with its decorators and comments, without the body."""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    body = node.body[0].lineno - 1
    taken = lines[first:body] or [lines[first].split(":  #")[0]]
    depth = len(taken[0]) - len(taken[0].lstrip())
    return "\n".join(line[depth:] for line in taken).rstrip()


def fields(node: ast.ClassDef, lines: list[str]) -> str:
    """The annotated attributes of a class as written, with their comments."""
    known = [n for n in node.body if isinstance(n, ast.AnnAssign) and not defined(n)[0].startswith("_")]
    taken = []
    for one in known:
        above = one.lineno - 1
        while lines[above - 1].lstrip().startswith("#"):
            above -= 1
        taken += lines[above : one.end_lineno]
    return "\n".join(taken)


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```"


def prose(node: ast.AST) -> str:
    """The docstring as text: what Markdown would take for a tag is escaped."""
    return re.sub(r"<(?=\w|/)", "&lt;", ast.get_docstring(node) or "") if isinstance(node, Definition) else ""


def entry(module: Module, name: str) -> str:
    """One public name: signature, docstring, and for a class its attributes and methods."""
    node = module.found[name]
    title = f"### `{name}` {{ #{module.name}.{name} }}"
    if not isinstance(node, Definition):
        rows = module.lines[node.lineno - 1 : node.end_lineno]
        shown = rows if len(rows) <= LONGEST else [*rows[: LONGEST - 1], "    ..."]
        return "\n\n".join([title, code("\n".join(shown))])
    signature = head(node, module.lines)
    if isinstance(node, ast.ClassDef):
        signature = "\n".join(filter(None, [signature, fields(node, module.lines)]))
    parts = [title, code(signature), prose(node)]
    if isinstance(node, ast.ClassDef):
        parts += [method(one, module) for one in node.body if isinstance(one, ast.FunctionDef)]
    return "\n\n".join(filter(None, parts))


def method(node: ast.FunctionDef, module: Module) -> str:
    """A public method, or how an object is made and called; nothing for the others."""
    if node.name.startswith("_") and not (node.name in ("__init__", "__call__") and node.args.args[1:]):
        return ""
    return "\n\n".join(filter(None, [f"#### `{node.name}`", code(head(node, module.lines)), prose(node)]))


def page(chapter: str, modules: list[Module], source: str) -> str:
    """The reference of a chapter, as Markdown; source: address of the repository's files."""
    parts = [f"# sda.{chapter}"]
    for module in modules:
        where = module.path.relative_to(ROOT).as_posix()
        links = [f"[source]({source}/{where})"]
        if module.notebook:
            links.insert(0, f"[notebook](../{module.notebook})")
        parts += [f"## {module.name}", f"{module.purpose}. {' · '.join(links)}"]
        parts += [entry(module, name) for name in module.names if name in module.found]
    return "\n\n".join(parts) + "\n"


def places(known: dict[str, list[Module]]) -> dict[str, str]:
    """{name: address of its entry, from the folder of the reference}."""
    return {
        name: f"{chapter}.md#{module.name}.{name}"
        for chapter, modules in known.items()
        for module in modules
        for name in module.names
        if name in module.found
    }


def front(known: dict[str, list[Module]]) -> str:
    """The first page: the front door and the chapters."""
    text = (ROOT / "sda/__init__.py").read_text(encoding="utf-8")
    door = dict(re.findall(r'^        "(\w+)": "\.([\w.]+)",', text, re.M))
    where = places(known)
    rows = [f"| [`sda.{name}`]({where[name]}) | `sda.{home}` |" for name, home in door.items()]
    listed = []
    for chapter, modules in known.items():
        count = sum(name in m.found for m in modules for name in m.names)
        short = ", ".join(m.name.removeprefix(f"sda.{chapter}.") for m in modules)
        if count:
            listed.append(f"| [`sda.{chapter}`]({chapter}.md) | {count} | {short} |")
    parts = [
        "# Reference\n\nNames that stay: what `import sda` offers, and the command `sda`.",
        "\n".join(["| name | home |", "|---|---|", *rows]),
        "Everything else may move between versions. A chapter imports only those above it.",
        "\n".join(["| chapter | public names | modules |", "|---|---|---|", *listed]),
    ]
    return "\n\n".join(parts) + "\n"
