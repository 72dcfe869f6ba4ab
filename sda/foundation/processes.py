"""Worker processes: they leave Ctrl-C to their parent, end with it, and say why when they end before it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from .errors import RunError

_EVERY = 0.5  # seconds between two looks for the parent


def follow_parent(
    *_: object,  # what starts workers may tell them their number
) -> None:
    """In a worker: leave Ctrl-C and a SIGTERM for the whole group to the parent, and end when it is gone.

    A stop that the parent is asked for is then the parent's to answer: it may still need its workers to
    reach the next point where it can save. A SIGTERM that the parent itself sends ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait = _next_signal if hasattr(signal, "sigtimedwait") else None
    if wait:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_parent, args=(wait,), daemon=True).start()


def _next_signal() -> int | None:
    """Who sent the next SIGTERM; None where none comes for a while."""
    found = signal.sigtimedwait([signal.SIGTERM], _EVERY)
    return None if found is None else found.si_pid


def _end_with_parent(wait) -> None:
    """Wait for the end of the parent, however it ends, or for its word."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    forked = hasattr(os, "getppid") and os.getppid() == parent.pid
    while True:
        if wait is None:
            parent.join(_EVERY)
        elif wait() == parent.pid:
            os._exit(0)
        # brothers that were forked later hold the pipe that tells the end of the parent, its number does not
        if not parent.is_alive() or (forked and os.getppid() != parent.pid):
            os._exit(1)


def lost_worker(
    err: BaseException,  # what ended the work
) -> RunError | None:  # to be raised instead; None where no reading process was lost
    """The error for a reading process that ended before its work, with the most likely cause."""
    said = str(err)
    if not isinstance(err, RuntimeError) or "DataLoader worker" not in said or "Traceback" in said:
        return None
    remedy = "read with fewer processes (num_workers, --num-workers)"
    if "Bus error" in said or "shared memory" in said:
        why = "the shared memory of this machine (/dev/shm) is full"
        remedy += ", or give the machine or container more shared memory"
    elif "Killed" in said:
        why = "it was killed, as systems do when memory runs out"
        remedy += ", or in smaller batches"
    else:
        why = "it ended unexpectedly"
    return RunError(f"a process that reads clips was lost: {why} ({said.splitlines()[0]})", remedy=remedy)
