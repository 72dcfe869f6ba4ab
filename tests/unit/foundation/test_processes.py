"""Worker processes: who ends them, and what is said when one is lost."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sda.foundation.errors import RunError
from sda.foundation.processes import lost_worker

WORKERS = """
import multiprocessing, os, sys, time
from sda.foundation.processes import follow_parent
def work(lines):
    follow_parent()
    lines.send(os.getpid())
    time.sleep(60)
context = multiprocessing.get_context({method!r})
if __name__ == "__main__":
    ours, theirs = context.Pipe()
    for _ in range(2):
        context.Process(target=work, args=(theirs,), daemon=True).start()
    print(ours.recv(), ours.recv(), flush=True)
    time.sleep(60)
"""


def _gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:  # ended, and nobody has asked for its status
        return file.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks into /proc")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_leave_a_stop_to_their_parent_and_die_with_it(tmp_path, method):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS.format(method=method))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM):  # as for a whole group of processes
        for pid in workers:
            os.kill(pid, number)
    time.sleep(0.7)
    assert not any(_gone(pid) for pid in workers)
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while time.monotonic() < end and not all(map(_gone, workers)):
        time.sleep(0.05)
    assert all(map(_gone, workers))


@pytest.mark.parametrize(
    "said, word",
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "smaller batches"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible ...", "shared memory"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "fewer processes"),
    ],
)
def test_a_lost_worker_is_explained(said, word):
    error = lost_worker(RuntimeError(said))
    assert isinstance(error, RunError) and word in error.remedy and "7" in str(error)


def test_other_errors_are_not_about_workers():
    assert lost_worker(RuntimeError("shapes differ")) is None
    assert (
        lost_worker(RuntimeError("Caught ValueError in DataLoader worker process 0.\nTraceback ...")) is None
    )
