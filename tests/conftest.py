"""Before any test."""

import logging
import signal
import threading

import pytest

# A run started in the background inherits an ignored SIGINT, and so would the programs that tests interrupt.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_logging():
    """A command that ran inside a test or a fixture has set the library's logger; every test hears it as it is by default."""
    logging.getLogger("sda").setLevel(logging.NOTSET)
