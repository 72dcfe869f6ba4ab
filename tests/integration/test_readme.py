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


def test_python_example_runs_and_says_what_it_finds():
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names = {}
    exec(code, names)  # our own README
    found = names["before"].iloc[0]
    assert re.search(rf"before = .*# {found['class']}, {found.probability:.2f}", code)
    assert names["after"].iloc[0]["class"] != found["class"]
    assert names["trace"].weights.shape == (1, 4, 4)


def test_what_is_cited_is_what_the_citation_file_says():
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = cited["preferred-citation"]
    assert f"{{{paper['title']}}}" in TEXT and f"{{{cited['version']}}}" in TEXT
    assert all(f"{a['family-names']}, {a['given-names']}" in TEXT for a in paper["authors"])


def test_options_of_the_environment_exist():
    named = set(re.findall(r"`(SDA_\w+)`", TEXT))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sda").rglob("*.py"))
    assert named == set(re.findall(r'environ\.get\("(SDA_\w+)"\)', sources))
