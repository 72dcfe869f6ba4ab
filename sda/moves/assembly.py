"""A set of Moves is made by several processes, goes on after an interruption, and is complete or rejected."""

import contextlib
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..data.beside import write_groups
from ..foundation.errors import DataError, FolderError, SettingError
from ..foundation.files import disk_remedy, lock, system_error, write_atomic
from ..foundation.processes import follow_parent
from ..foundation.reading import read_json
from .classes import CLASSES, FRAMES, GROUPS, PAIRS, SIZE
from .make import CODEC, FPS, av_library, clip_id, make_index, part_file, save_arrays

__all__ = ["make_moves"]

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A worker that starts in this block does not import the caller's script, which would run it again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _workers(asked: int | None, jobs: int) -> int:
    """Processes to use: as asked, or one per core that is ours and per four jobs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(asked, jobs) if asked else min(cores, jobs // 4))


_Job = tuple[str, int]  # split and index


def _make(root: Path, seed: int, jobs: list[_Job], workers: int) -> Generator[_Job, None, None]:
    """Make the jobs, here or in several processes; yields each that is done."""
    if workers == 1:
        for job in jobs:
            with _naming(root, job):
                make_index(root, seed, *job)
            yield job
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent) as pool:

        def start(job: _Job) -> Future[None]:
            with _without_main():
                return pool.submit(make_index, root, seed, *job)

        todo = iter(jobs)
        # no job waits in the pool's queue, so that an error or Ctrl-C only has to wait for those that run
        running = {start(job): job for job in itertools.islice(todo, workers)}
        while running:
            for step in wait(running, return_when=FIRST_COMPLETED).done:
                done = running.pop(step)
                with _naming(root, done):
                    step.result()
                yield done
                running |= {start(job): job for job in itertools.islice(todo, 1)}


@contextlib.contextmanager
def _naming(root: Path, job: _Job) -> Iterator[None]:
    """Errors inside say where the set stopped, and that it can go on."""
    try:
        yield
    except Exception as err:
        raise FolderError(
            f"making Moves in {root} stopped at {job[0]} {job[1]}: {type(err).__name__}: {err}",
            subject=str(root),
            remedy=f"{disk_remedy(err)}; made again, it goes on"
            if system_error(err)
            else "make it again: it goes on",
        ) from err


def _open_root(root: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The manifest of root, begun if root is new or empty."""
    manifest = root / "moves.json"
    if not manifest.exists():
        if root.is_dir() and any(path.name != ".lock" for path in root.iterdir()):
            raise FolderError(
                f"{root} holds other files and no moves.json",
                subject=str(root),
                remedy="name a new or an empty folder",
            )
        _write_manifest(root, {"parameters": parameters, "complete": False})
    try:
        found = read_json(manifest)
        has = dict(found["parameters"])
        found["complete"]
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            f"{manifest} is not a Moves manifest",
            subject=str(manifest),
            remedy=f"delete {root} and make the set again",
        ) from err
    differ = [f"{k} is {has.get(k)!r}, not {v!r}" for k, v in parameters.items() if has.get(k) != v]
    if differ:
        raise SettingError(
            f"{root} holds a Moves set with other parameters ({'; '.join(differ)})",
            subject=str(root),
            remedy="name another folder, ask for those parameters, or delete it",
        )
    return found


def _write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Write moves.json."""
    write_atomic(root / "moves.json", json.dumps(manifest, indent=1) + "\n")


def _write_groups(root: Path) -> None:
    """Write groups.json and pairs.txt, where they are not."""
    if not (root / "groups.json").exists():
        write_groups(root, GROUPS)
    if not (root / "pairs.txt").exists():
        write_atomic(root / "pairs.txt", "".join(f"{first}\t{second}\n" for first, second in PAIRS))


def _write_lists(root: Path, counts: dict[str, int]) -> None:
    """Write category.txt, groups, pairs and the three list files (`path num_frames label`)."""
    write_atomic(root / "category.txt", "".join(f"{c.name}\n" for c in CLASSES))
    _write_groups(root)
    for split, count in counts.items():
        rows = [
            f"{clip_id(move, split, i)}.mp4 {FRAMES} {label}\n"
            for i in range(count)
            for label, move in enumerate(CLASSES)
        ]
        write_atomic(root / "trainValTest" / f"{split}.txt", "".join(rows))


def _finish(root: Path, manifest: dict[str, Any], counts: dict[str, int]) -> None:
    """Gather the truth, write the lists, then declare the set complete."""
    digest = hashlib.sha256()
    (root / "truth").mkdir(exist_ok=True)
    for split, count in counts.items():
        parts = [dict(np.load(part_file(root, split, i))) for i in range(count)]
        for part in parts:
            digest.update("".join(part.pop("sha256")).encode())
        if parts:
            arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            write_atomic(root / "truth" / f"{split}.npz", partial(save_arrays, arrays=arrays))
    _write_lists(root, counts)
    done = {
        "complete": True,
        "clips": sum(counts.values()) * len(CLASSES),
        "raw_sha256": digest.hexdigest(),
        "classes": [c.name for c in CLASSES],
    }
    _write_manifest(root, manifest | done)


def _reuse(root: Path, manifest: dict[str, Any]) -> Path:
    """A complete set, once no clip is missing."""
    have = sum(1 for _ in (root / "img").glob("*.mp4"))
    if have != manifest["clips"]:
        raise DataError(
            f"{root} should hold {manifest['clips']} clips but holds {have}",
            subject=str(root),
            remedy="delete it, make it again",
        )
    shutil.rmtree(root / ".parts", ignore_errors=True)  # left if we were stopped after the last step
    try:
        _write_groups(root)
    except FolderError as err:
        _log.warning("the set is read as one without groups and pairs: %s", err)
    _log.info("reuse the complete Moves set in %s: %d clips", root, have)
    return root


def make_moves(
    root: str | Path,  # folder of the set: new, empty, or made by this function
    train: int = 80,  # training clips per class
    val: int = 25,  # validation clips per class
    test: int = 25,  # test clips per class; do not look at them while tuning
    seed: int = 0,  # same seed, same clips; a smaller set is the beginning of a larger one
    progress: bool = True,  # show a progress bar
    workers: int | None = None,  # processes; None: one per core
) -> Path:  # the folder
    """Make the Moves set, or go on with a half-made one, or reuse a complete one."""
    from tqdm.auto import tqdm

    root = Path(root).absolute()
    counts = {"train": train, "val": val, "test": test}
    if seed < 0 or min(counts.values()) < 0 or not sum(counts.values()):
        negative = [name for name, number in {"seed": seed, **counts}.items() if number < 0]
        raise SettingError(
            f"seed and counts must be 0 or more, and some clips asked for: got seed={seed}, {counts}",
            subject=", ".join(negative or counts),
        )
    made = {"format": 3, "seed": seed, **counts, "frames": FRAMES, "size": SIZE, "fps": FPS, **CODEC}
    if (root / "moves.json").exists() and (manifest := _open_root(root, made))["complete"]:
        return _reuse(root, manifest)
    av_library()
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    with lock(root, "making Moves"):
        manifest = _open_root(root, made)
        if manifest["complete"]:  # by the process that held the folder before us
            return _reuse(root, manifest)
        for left in root.rglob(".*.tmp"):
            left.unlink()  # by a process that was killed
        (root / "img").mkdir(exist_ok=True)
        todo = [job for job in jobs if not part_file(root, *job).exists()]
        bar = tqdm(desc="Moves", unit="clip", total=len(jobs) * len(CLASSES), disable=not progress)
        with bar, contextlib.closing(_make(root, seed, todo, _workers(workers, len(todo)))) as steps:
            bar.update((len(jobs) - len(todo)) * len(CLASSES))
            for _ in steps:
                bar.update(len(CLASSES))
        _finish(root, manifest, counts)
        shutil.rmtree(root / ".parts")
    _log.info("made Moves in %s: %d clips", root, len(jobs) * len(CLASSES))
    return root
