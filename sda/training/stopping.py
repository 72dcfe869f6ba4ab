"""When a training ends before its epochs are over: at NaN, without progress, or on a signal."""

import contextlib
import json
import logging
import math
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ..foundation.errors import DivergedError, FolderError
from ..foundation.files import write_atomic
from .callbacks import Callback
from .run import Run

__all__ = ["diverged"]

_log = logging.getLogger(__name__)


def diverged(
    what: str,  # "loss", "gradient" or "validation loss"
    value: float,  # what it was
    ids: list[str],  # the clips it was computed on
    out: Path | None,  # folder for bad_batch.json
    step: int | None = None,  # of the run
) -> DivergedError:  # to be raised
    """The error for numbers that are not finite; the clips are written down, for there may be many."""
    if out is not None:
        with contextlib.suppress(FolderError):  # the clips are in the message too
            write_atomic(out / "bad_batch.json", json.dumps({"what": what, "ids": ids, "step": step}))
    when = "" if step is None else f" at step {step}"
    remedy = "Lower the learning rate, set clip_grad, use precision fp32 or bf16, or look at these clips."
    text = f"The {what} is {value:g}{when} on the clips {', '.join(ids)}. {remedy}"
    return DivergedError(text, subject=ids[0] if ids else None, remedy=remedy)


class NaNStop(Callback):
    """Ends a run whose loss or gradient is no longer finite, before anything is written."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[str], Tensor, Tensor]] = []

    def step_end(self, run: Run) -> None:
        """Note loss and gradient; look at them when values are read."""
        last = run.last
        self.seen.append((run.state.steps, last.ids, last.loss, last.norm))
        if run.reads:
            self.save_start(run)

    def save_start(self, run: Run) -> None:
        """Look at all steps since the last look."""
        if not self.seen:
            return
        values = torch.stack([torch.stack([loss, norm]) for *_, loss, norm in self.seen]).tolist()
        scaler = run.accelerator.scaler
        skipped = scaler is not None and scaler.get_scale() >= 0.5  # halved already: it was 1 or more
        for (step, ids, *_), (loss, norm) in zip(self.seen, values, strict=True):
            if not math.isfinite(loss):
                raise diverged("loss", loss, ids, run.out, step)
            if not math.isfinite(norm) and not skipped:
                raise diverged("gradient", norm, ids, run.out, step)
        self.seen = []


class EarlyStop(Callback):
    """Ends a run whose validation accuracy has not improved for some epochs."""

    def __init__(
        self,
        patience: int,  # epochs
    ):
        self.patience = patience

    def fit_start(self, run: Run) -> None:
        """A run may have been interrupted when it was over."""
        if run.val_data is not None and run.state.epoch - run.state.best_epoch >= self.patience:
            run.stop()

    def epoch_end(self, run: Run) -> None:
        """Count."""
        self.fit_start(run)


class StopOnSignal(Callback):
    """Saves the state and ends the run when asked to: SIGTERM, or Ctrl-C."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the signal
        self._before: dict[int, Any] = {}

    def fit_start(self, run: Run) -> None:
        """Begin to listen; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice
        self.asked = number

    def step_end(self, run: Run) -> None:
        """Save and leave, all processes after the same step."""
        several = run.accelerator.num_processes > 1
        if several and not run.reads:
            return
        asked = torch.tensor([float(self.asked is not None)], device=run.accelerator.device)
        if run.accelerator.reduce(asked).item() if several else self.asked:
            self._leave(run)

    def validation_step(self, run: Run) -> None:
        """The same during a validation, which is then done again; several processes see it to its end."""
        if self.asked is not None and run.accelerator.num_processes == 1:
            self._leave(run)

    def _leave(self, run: Run) -> None:
        run.save()
        if run.out is not None:
            _log.warning("asked to end: the state is in %s, and the same command goes on from there", run.out)
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def fit_end(self, run: Run) -> None:
        """Whoever listened before listens again."""
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)
        self._before = {}
