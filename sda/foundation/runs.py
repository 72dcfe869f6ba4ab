"""The record of a run: what was run, when, on which machine, from which commit, from which seed."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import math
import os
import platform
import random
import re
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .errors import DataError
from .files import file_words, to_plain, write_atomic

__all__ = [
    "now",
    "machine",
    "machine_in_words",
    "commit",
    "seed_everything",
    "new_record",
    "check_record",
    "save_record",
    "record_name",
    "write_record",
    "load_records",
]

_log = logging.getLogger(__name__)
SCHEMA = 1  # version of the record layout
KINDS = ("train", "test", "benchmark")  # what a record can be about
MAX_BYTES = 200_000  # a record is a summary; logits and weights have files of their own
_REQUIRED = dict(schema=int, kind=str, created=str, library=str, machine=dict, model=str, metrics=dict)


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


def new_record(
    kind: str,  # "train", "test" or "benchmark"
    **fields: Any,  # model, metrics, seed, recipe, dataset, split, protocol, seconds, ...
) -> dict[str, Any]:
    """A record of now, here and this commit, with these fields; checked."""
    from .. import __version__

    record = dict(
        schema=SCHEMA, kind=kind, created=now(), library=__version__, commit=commit(), machine=machine()
    )
    return check_record(json.loads(json.dumps(record | fields, default=partial(to_plain, folders=False))))


def check_record(
    record: dict[str, Any],  # from `new_record`, or out of a file
    name: str = "record",  # how the errors call it, e.g. the file's name
) -> dict[str, Any]:  # the record itself
    """Whether a record holds what every record holds; DataError names the field that is wrong."""
    if not isinstance(record, dict):
        raise DataError(f"{name} is not a JSON object.", subject=name)
    for key, kind in _REQUIRED.items():
        if not isinstance(record.get(key), kind):
            found = f"field {key!r} should be {kind.__name__}, found {record.get(key)!r}"
            raise DataError(f"{name}: {found}.", subject=name)
    if record["kind"] not in KINDS:
        kinds = ", ".join(KINDS)
        raise DataError(f"{name}: kind {record['kind']!r} is none of {kinds}.", subject=name, choices=KINDS)
    if record["schema"] > SCHEMA:
        newer = f"{name} was written by a newer version (schema {record['schema']})"
        raise DataError(f"{newer}: update the library.", subject=name, remedy="update the library")
    _check_finite(record, name, name)
    return record


def _check_finite(value: Any, where: str, name: str) -> None:
    """Refuse NaN and infinity anywhere inside: JSON has no word for them, and a table would hide them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where} is {value}.", subject=name)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _check_finite(item, f"{where}.{key}", name)


def save_record(
    record: dict[str, Any],  # checked here
    path: str | Path,  # file to write, replaced if it exists; its folder is made
) -> Path:  # the file
    """Write a record as JSON, whole or not at all."""
    text = json.dumps(check_record(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text.encode()) > MAX_BYTES:
        size = f"The record has {len(text.encode())} bytes; keep it under {MAX_BYTES}: store arrays apart."
        raise DataError(size, subject=str(path), remedy="store arrays apart")
    return write_atomic(path, text)


def record_name(record: dict[str, Any]) -> str:
    """A readable file name that no other record has: kind, model, recipe, split, seed, time, hash."""
    words = [record["kind"], record["model"], record.get("recipe"), record.get("split")]
    words += [f"s{record['seed']}"] if "seed" in record else []
    words += [re.sub(r"[^0-9T]", "", record["created"])[:15]]
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return file_words(*words, digest) + ".json"


def write_record(
    record: dict[str, Any],  # from `new_record`
    folder: str | Path = "data/results",  # made when missing
) -> Path:  # the file
    """Write a record into a folder, under its own readable, unique name."""
    return save_record(record, Path(folder) / record_name(check_record(record)))


def load_records(
    folder: str | Path = "data/results",  # one that does not exist holds none
    kind: str | None = None,  # only these: "train", "test" or "benchmark"
) -> list[dict[str, Any]]:  # each with the name of its `file`
    """The records of a folder, oldest first; a damaged one is an error, other JSON is left out."""
    from .reading import read_json

    records = []
    for path in sorted(Path(folder).glob("*.json")):
        record = read_json(path)
        if isinstance(record, dict) and "schema" not in record:
            _log.warning("%s is no record of a run and is left out", path.name)
            continue
        check_record(record, path.name)
        if kind is None or record["kind"] == kind:
            records.append(record | {"file": path.name})
    return sorted(records, key=lambda r: r["created"])
