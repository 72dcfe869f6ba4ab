"""Package metadata: everything is read from settings.ini, the one place to edit."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="], interpolation=None)
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
cfg = config["DEFAULT"]


def lines(key):
    """The non-empty lines of a multi-line setting."""
    return [line.strip() for line in cfg.get(key, "").splitlines() if line.strip()]


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license=cfg["license"],
    keywords=cfg["keywords"],
    url=cfg["git_url"],
    packages=find_packages(include=["sda", "sda.*"]),
    package_data={
        "sda.assets": ["**/*"],
        "sda.testing": ["templates/*"],
        "sda.inspector": ["templates/*"],
        "sda.commands": ["templates/*"],
    },
    python_requires=f">={cfg['min_python']}",
    install_requires=lines("requirements"),
    extras_require={"dev": lines("dev_requirements")},
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["sda=sda._modidx:d"]},
)
