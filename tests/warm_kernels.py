"""Kernels that start in a moment: a process that has imported what every notebook imports forks one for each.

A fresh kernel spends six seconds of the processor on importing torch, matplotlib and Jupyter; there are
seventy notebooks. `WarmKernels` starts the process that forks; `kernel` is what nbclient is told. Each
notebook still has a process of its own, with its own modules of `sda`. Where a process cannot fork, kernels
start as everywhere.
"""

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
from pathlib import Path

HEAVY = (
    "torch torchvision.transforms.v2 torch.utils.data torch.utils.flop_counter torch._dynamo torch._refs "
    "torch._decomp accelerate matplotlib.pyplot matplotlib.figure matplotlib_inline.backend_inline "
    "ipykernel.kernelapp IPython.display ipywidgets numpy scipy.stats pandas PIL.Image av yaml tyro "
    "pytorch_grad_cam fastcore.test pytest"
).split()
CAN_FORK = sys.platform == "linux"


class WarmKernels:
    """Starts kernels by forking; closed with `close` or with the process that made it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.address = str(Path(self.folder.name) / "socket")
        spec = Path(self.folder.name) / "kernels" / "warm" / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-S", __file__, "attach", self.address, "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "warm", "language": "python"}))
        self.process = subprocess.Popen(
            [sys.executable, __file__, "serve", self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        )
        assert self.process.stdout.readline(), "the process that forks kernels did not start"

    @property
    def kernel(self) -> dict:
        """What nbclient's client is told to start its kernels here."""
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from traitlets import default

        found = KernelSpecManager(kernel_dirs=[str(Path(self.folder.name) / "kernels")])

        class Manager(AsyncKernelManager):
            @default("kernel_spec_manager")
            def the_folder_here(self):
                return found

        return {"kernel_name": "warm", "kernel_manager_class": Manager}

    def close(self):
        """Ends the process that forks."""
        self.process.stdin.close()
        self.process.wait(10)
        self.folder.cleanup()


def serve(address):
    """Import, then fork a kernel for every connection, until the standard input is closed."""
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended are not kept
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become_kernel(connection)
        connection.close()


def become_kernel(connection):
    """Runs in the forked process: the job's folder and environment, then a kernel like any other."""
    import numpy as np
    from ipykernel.kernelapp import IPKernelApp

    job = json.loads(connection.makefile().readline())
    threading.Thread(target=end_with, args=(connection,), daemon=True).start()
    os.setsid()
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[:1] = job["environment"].get("PYTHONPATH", "").split(os.pathsep)
    random.seed()
    np.random.seed()
    IPKernelApp.launch_instance(argv=["-f", job["connection_file"], "--log-level=ERROR"])
    os._exit(0)


def end_with(connection):
    """Ends this process when the one that asked for it has ended."""
    connection.recv(1)
    os._exit(0)


def attach(address, connection_file):
    """What the kernel manager starts and kills in the kernel's place."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    job = {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "connection_file": connection_file,
    }
    connection.sendall(json.dumps(job).encode() + b"\n")
    connection.recv(1)


if __name__ == "__main__":
    {"serve": serve, "attach": attach}[sys.argv[1]](*sys.argv[2:])
