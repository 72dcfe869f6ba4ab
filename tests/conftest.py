"""Before any test."""

import logging
import os
import signal
import threading

import pytest
from fuzzing import SEED

# What scans of videos told is not kept in the caches of whoever runs the tests.
os.environ["SDA_CACHE"] = ""

# A run started in the background inherits an ignored SIGINT, and so would the programs that tests interrupt.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    """The seed of the day, with which a failure of the fuzz tests is repeated."""
    return f"SDA_FUZZ_SEED={SEED}"


@pytest.fixture(autouse=True)
def own_logging():
    """A command that ran inside a test or a fixture has set the library's logger; every test hears it as it
    is by default."""
    logging.getLogger("sda").setLevel(logging.NOTSET)


def pytest_collection_modifyitems(items):
    """Tests that need a GPU are skipped where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
