"""What a record says of a run besides its numbers: time, machine, commit; and the seed it starts from."""

from __future__ import annotations

import datetime
import os
import platform
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["now", "machine", "machine_in_words", "commit", "seed_everything"]


def now() -> str:
    """The time in UTC, to the microsecond, as records carry it: 2024-05-01T12:00:00.000000+00:00."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def _cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Processor, cores, GPU and versions; no host name, no paths."""
    import torch

    if hasattr(os, "sched_getaffinity"):
        cores: int | None = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def machine_in_words(
    machine: Mapping[str, Any]
    | None,  # from `machine`, perhaps out of an old record; None where there is none
    brief: bool = False,  # for a column: the GPU alone, or the processor and its cores
) -> str:
    """A machine for people: GPU or processor, cores, version of torch; or "not recorded"."""
    known = machine or {}
    parts = [str(known.get("gpu") or known.get("cpu") or "")]
    if known.get("cores") and not (brief and known.get("gpu")):
        parts.append(f"{known['cores']} cores")
    if known.get("torch") and not brief:
        parts.append(f"torch {known['torch']}")
    return ", ".join(part for part in parts if part) or "not recorded"


def commit() -> str | None:
    """Commit of the checkout that holds this library, '+' when files differ from it; None when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if head is None or changes is None:
        return None
    return head + ("+" if changes else "")


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers; None without git, or where it fails."""
    command = ["git", "-C", str(root), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def seed_everything(
    *numbers: int,  # non-negative integers: seed, epoch, step, ...
) -> int:  # the one they are mixed into
    """Start the generators of Python, NumPy and torch from these numbers."""
    import numpy as np
    import torch

    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)
    return mixed
