"""Before any test."""
import logging
import signal
import threading

import pytest

# A run started in the background inherits an ignored SIGINT, and so would the programs that tests interrupt.
if threading.current_thread() is threading.main_thread(): signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_logging():
    """A command run inside a test sets up the library's logger, which must not decide what later tests hear."""
    logger = logging.getLogger("sda")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers
