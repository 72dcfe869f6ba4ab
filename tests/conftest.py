"""Before any test."""

import logging
import os
import re
import signal
import threading
from pathlib import Path

import pytest
from fuzzing import SEED
from warm_kernels import CAN_FORK, WarmProcess

# What scans of videos told is not kept in the caches of whoever runs the tests.
os.environ["SDA_CACHE"] = ""
# Numbers are compared with those of other machines, some of which would compute in bfloat16.
os.environ["SDA_PRECISION"] = "fp32"

# A run started in the background inherits an ignored SIGINT, and so would the programs that tests interrupt.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    """The seed of the day, with which a failure of the fuzz tests is repeated."""
    return f"SDA_FUZZ_SEED={SEED}"


WARM = pytest.StashKey[WarmProcess]()
WANT_WARM = ("test_notebooks.py::test_runs", "test_cli.py::")


def pytest_configure(config):
    """One process imports what kernels and commands import, for all test processes."""
    if CAN_FORK and not hasattr(config, "workerinput"):
        config.stash[WARM] = WarmProcess()


def pytest_unconfigure(config):
    """It ends with the tests."""
    if WARM in config.stash:
        config.stash[WARM].close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Every test process is told where it is."""
    if WARM in node.config.stash:
        node.workerinput["warm"] = node.config.stash[WARM].address


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    """It starts beside the first tests, if one of them will need it."""
    if WARM in node.config.stash and any(name in one for one in ids for name in WANT_WARM):
        node.config.stash[WARM].start()


@pytest.fixture(scope="session")
def warm(pytestconfig):
    """Address of the process that forks kernels and commands; None where that cannot be."""
    if not hasattr(pytestconfig, "workerinput") and CAN_FORK:
        pytestconfig.stash[WARM].start()
        return pytestconfig.stash[WARM].address
    return getattr(pytestconfig, "workerinput", {}).get("warm")


@pytest.fixture(autouse=True)
def own_logging():
    """A command that ran inside a test or a fixture has set the library's logger; every test hears it as it
    is by default."""
    logging.getLogger("sda").setLevel(logging.NOTSET)


def long_tests():
    """The patterns of tests/long.txt, as regular expressions of whole names."""
    lines = (Path(__file__).parent / "long.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    return re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in names))


def pytest_collection_modifyitems(items):
    """Long tests get their mark; tests that need a GPU are skipped where there is none."""
    known = long_tests()
    for item in items:
        if known.fullmatch(item.nodeid):
            item.add_marker("long")
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
