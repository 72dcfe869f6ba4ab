"""What pip installs: the extras, and everything that works from a wheel, far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
from email.parser import Parser
from importlib.util import find_spec

import pytest
import yaml
from notebooks import ROOT, load, setting, source

FILES = (
    "settings.ini",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
)


def outside(folder):
    """The environment of a process that knows the package from this folder only."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE"))}
    return ours | {"PYTHONPATH": str(folder), "PYTHONUTF8": "1", "MPLBACKEND": "agg", "TQDM_DISABLE": "1"}


def run(*command, cwd, env=None):
    """What a program prints; a failure shows what it said."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a source distribution as an index would hold it; nothing is fetched."""
    if not find_spec("build"):
        pytest.skip("the package build is not installed")
    copy = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "sda", copy / "sda", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", copy / "dist", copy, cwd=copy)
    return next((copy / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder the wheel is installed in; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def metadata(installed):
    """What the package says of itself."""
    (folder,) = installed.glob("*.dist-info")
    return Parser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))


def required(metadata, extra=None):
    """Names of the packages that an installation brings by itself, or that an extra adds."""
    lines = metadata.get_all("Requires-Dist")
    mine = [one for one in lines if (f'extra == "{extra}"' in one if extra else "extra ==" not in one)]
    return {one.split(";")[0].split("=")[0].strip("<>=!~ 0123456789.,") for one in mine}


def test_the_block_alone_needs_no_notebook_and_no_board(metadata):
    alone = required(metadata)
    assert {"torch", "torchvision", "numpy", "av", "tyro", "huggingface_hub"} <= alone
    assert not alone & {"jupyterlab", "ipywidgets", "voila", "grad-cam", "tensorboard", "decord", "nbdev"}


def test_every_optional_part_has_an_extra_and_developers_get_all(metadata):
    extras = metadata.get_all("Provides-Extra")
    parts = {name: required(metadata, name) for name in extras}
    assert {"notebook", "cam", "decord", "track", "timm", "export", "dev"} <= set(parts)
    assert all(parts[name] <= parts["dev"] for name in parts)
    assert {"grad-cam"} == parts["cam"] and {"tensorboard"} == parts["track"]


def test_what_the_package_says_of_itself(metadata, installed):
    assert metadata["Version"] == setting("version")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert any("github.com" in url for url in metadata.get_all("Project-URL"))
    assert (installed / "sda/py.typed").exists()
    assert "](data/" not in metadata.get_payload() and "](nbs/" not in metadata.get_payload()


def test_who_cites_finds_the_paper_and_this_version():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert about["version"] == setting("version") and about["license"] == setting("license")
    paper = about["preferred-citation"]
    assert paper["year"] == 2021 and len(paper["authors"]) == 5
    assert setting("version") in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pull_requests_run_what_the_build_machine_runs():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step] == [".ci/run"]


def test_nothing_of_the_package_is_left_behind(installed):
    here = {p.relative_to(ROOT) for p in (ROOT / "sda").rglob("*") if p.is_file()}
    here = {p for p in here if "__pycache__" not in p.parts}
    assert here == {p.relative_to(installed) for p in (installed / "sda").rglob("*") if p.is_file()}


def test_the_command_from_a_wheel(installed, tmp_path):
    sda = installed / "bin/sda" if os.name != "nt" else installed / "Scripts/sda.exe"
    said = run(sda, "--version", cwd=tmp_path, env=outside(installed))
    assert said == f"sda {setting('version')}\n"


# One process for the rest: starting torch costs more than what is asked.
REST = """
import contextlib, io, json, sys, torch
torch.set_num_threads(1)
import sda
from sda.assets import DEFAULT_MODEL, SAMPLE_CLIPS
from sda.commands.main import main

clip = str(SAMPLE_CLIPS / "img/test_0000_rightward.mp4")
with contextlib.redirect_stdout(io.StringIO()) as found:
    assert main(["predict", clip, "--json"]) == 0
assert len(json.loads(found.getvalue())["predictions"]) == 5
assert main(["inspect", clip, "--out", "page.html", "--draws", "1", "--quiet"]) == 0
assert main(["table", "--published", "--dataset", "something-v1"]) == 0
for cell in json.load(open("tour.json")):
    exec(compile(cell, "tour", "exec"), globals())
look = sda.inspect(DEFAULT_MODEL, SAMPLE_CLIPS, strict=True)
open("overview.png", "wb").write(look.png())
elsewhere = [m.__file__ for n, m in list(sys.modules.items()) if n.split(".")[0] == "sda" and m.__file__]
print("\\n" + json.dumps(elsewhere))
"""


def test_predictions_pages_tables_the_tour_and_the_inspector_from_a_wheel(installed, tmp_path):
    for part in ("grad-cam", "ipywidgets"):
        if not find_spec({"grad-cam": "pytorch_grad_cam"}.get(part, part)):
            pytest.skip(f"{part} is not installed")
    cells = [source(c) for c in load(ROOT / "nbs/learn/1_tour.ipynb")["cells"] if c["cell_type"] == "code"]
    (tmp_path / "tour.json").write_text(json.dumps(cells), encoding="utf-8")
    said = run(sys.executable, "-c", REST, cwd=tmp_path, env=outside(installed))
    assert "published" in said
    files = json.loads(said.splitlines()[-1])
    assert files and all(str(installed) in file for file in files)
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert "rightward" in (tmp_path / "page.html").read_text(encoding="utf-8")
