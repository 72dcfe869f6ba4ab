"""Kernels and commands that start in a moment: one process has imported what they all import, and forks.

A fresh process spends six seconds of the processor on importing torch, matplotlib and Jupyter; there are
seventy notebooks. `WarmProcess` forks for all test processes; `kernel` is what nbclient is told, `command`
what `subprocess` is given for the command `sda`. Each notebook and command still has a process of its own,
with its own modules of `sda`. Where a process cannot fork, they start as everywhere.
"""

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HEAVY = (
    "torch torchvision.transforms.v2 torch.utils.data torch.utils.flop_counter torch._dynamo torch._refs "
    "torch._decomp accelerate matplotlib.pyplot matplotlib.figure matplotlib_inline.backend_inline "
    "ipykernel.kernelapp IPython.display ipywidgets numpy scipy.stats pandas PIL.Image av yaml tyro "
    "pytorch_grad_cam fastcore.test pytest"
).split()
CAN_FORK = sys.platform == "linux"
ENVIRONMENT = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # read when it is imported


class WarmProcess:
    """Forks kernels and commands; ended with `close` or with the process that made it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.address = str(Path(self.folder.name) / "socket")
        self.process = None

    def start(self):
        """Start it, unless it runs; whoever comes before it has imported everything waits."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "serve", self.address],
                stdin=subprocess.PIPE,
                env={k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"} | ENVIRONMENT,
            )

    def close(self):
        """Ends the process that forks."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(10)
        self.folder.cleanup()


def kernel(address: str) -> dict:
    """What nbclient's client is told to start its kernels by the process at this address."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    spec = Path(address).with_name(f"kernels-{os.getpid()}") / "warm" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-S", __file__, "kernel", address, "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "warm", "language": "python"}))
    found = KernelSpecManager(kernel_dirs=[str(spec.parents[1])])

    class Manager(AsyncKernelManager):
        @default("kernel_spec_manager")
        def the_folder_here(self):
            return found

    return {"kernel_name": "warm", "kernel_manager_class": Manager}


def command(address: str | None) -> list[str]:
    """The beginning of a command line that runs `sda`; the words of the command follow."""
    if address is None:
        return [sys.executable, "-m", "sda"]
    return [sys.executable, "-S", __file__, "command", address]


def serve(address):
    """Import, then fork a kernel for every connection, until the standard input is closed."""
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended are not kept
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become(connection)
        connection.close()


def become(connection):
    """Runs in the forked process: the job's folder, environment and streams, then what the job names."""
    import numpy as np

    size, streams, _, _ = socket.recv_fds(connection, 8, 2)
    job = json.loads(connection.recv(int(size), socket.MSG_WAITALL))
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    threading.Thread(target=end_with, args=(connection,), daemon=True).start()
    os.setsid()
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[:1] = job["environment"].get("PYTHONPATH", "").split(os.pathsep)
    random.seed()
    np.random.seed()
    {"kernel": become_kernel, "command": become_command}[job["kind"]](connection, *job["words"])
    os._exit(0)


def become_kernel(connection, connection_file):
    """A kernel like any other."""
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=["-f", connection_file, "--log-level=ERROR"])


def become_command(connection, *words):
    """The command `sda`; its status is told to the process that stands for it."""
    import traceback

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["sda", *words]
    connection.sendall(f"{os.getpid()}\n".encode())
    try:
        from sda.commands.main import main

        status = main(list(words))
    except SystemExit as err:
        status = err.code if isinstance(err.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError):  # a pipe that nobody reads any more
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    connection.sendall(f"{status}\n".encode())


def end_with(connection):
    """Ends this process when the one that asked for it has ended."""
    connection.recv(1)
    os._exit(0)


def ask(address, kind, words):
    """A connection to a new process that has this folder, environment and these streams."""
    connection = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + 280
    while True:  # it may still be importing
        try:
            connection.connect(address)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    job = {"kind": kind, "folder": os.getcwd(), "environment": dict(os.environ), "words": words}
    data = json.dumps(job).encode()
    socket.send_fds(connection, [f"{len(data):8}".encode()], [1, 2])
    connection.sendall(data)
    return connection


def stand_for_kernel(address, connection_file):
    """What the kernel manager starts and kills in the kernel's place."""
    ask(address, "kernel", [connection_file]).recv(1)


def stand_for_command(address, *words):
    """What a test starts, sends signals to, and waits for in the command's place."""
    answers = ask(address, "command", words).makefile()
    pid = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda sent, frame: os.kill(pid, sent))
    os._exit(int(answers.readline() or 1))


if __name__ == "__main__":
    act = {"serve": serve, "kernel": stand_for_kernel, "command": stand_for_command}[sys.argv[1]]
    act(*sys.argv[2:])
