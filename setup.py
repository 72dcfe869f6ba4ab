"""Package metadata: everything is read from settings.ini, the one place to edit."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="], interpolation=None)
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
cfg = config["DEFAULT"]


def lines(key):
    """The non-empty lines of a multi-line setting."""
    return [line.strip() for line in cfg.get(key, "").splitlines() if line.strip()]


def readme():
    """README.md, its links into the repository made whole: a package index has no other files of it."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    here, pictures = (f"{cfg['git_url']}/{kind}/{cfg['branch']}/" for kind in ("blob", "raw"))
    text = re.sub(r"(!\[[^\]]*\]\()(?!\w+:|#)", rf"\g<1>{pictures}", text)
    return re.sub(r"(?<!!)(\[[^\]]*\]\()(?!\w+:|#)", rf"\g<1>{here}", text)


EXTRAS = ("notebook", "cam", "decord", "track", "timm", "export")
extras = {name: lines(f"{name}_requirements") for name in EXTRAS}
extras["all"] = [one for name in EXTRAS for one in extras[name]]
extras["dev"] = extras["all"] + lines("dev_requirements")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme(),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license_expression=cfg["license"],
    keywords=cfg["keywords"],
    url=cfg["git_url"],
    project_urls={
        "Documentation": cfg["doc_host"] + cfg["doc_baseurl"],
        "Changes": f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md",
        "Issues": f"{cfg['git_url']}/issues",
        "Paper": "http://staff.ustc.edu.cn/~hexn/papers/mm21-SDA.pdf",
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["sda", "sda.*"]),
    package_data={
        "sda": ["py.typed"],
        "sda.assets": ["**/*"],
        "sda.testing": ["templates/*"],
        "sda.inspector": ["templates/*", "static/*"],
        "sda.commands": ["templates/*"],
    },
    python_requires=f">={cfg['min_python']}",
    install_requires=lines("requirements"),
    extras_require=extras,
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["sda=sda._modidx:d"]},
)
