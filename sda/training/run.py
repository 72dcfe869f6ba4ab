"""A training under way, as callbacks are given it: its position, its folder, what it leaves at the end."""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..foundation.errors import RunError
from ..foundation.files import check_folder, csv_text, write_atomic
from ..foundation.reading import read_json
from ..foundation.runs import check_record
from ..foundation.statistics import wilson_interval
from ..networks.checkpoints import load_model
from .identity import AGAIN, HARMLESS, check_same_run, goes_on, kept_states
from .resume import load_state, save_state
from .step import StepResult, TrainingStep, wide_type

__all__ = ["Run", "TrainResult"]

_log = logging.getLogger(__name__)


@dataclass
class RunState:
    """Where a run stands."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the epoch under way
    steps: int = 0  # finished steps of the whole run
    loss: float = 0.0  # summed training loss of the epoch under way
    right: int = 0  # right answers in it
    clips: int = 0  # clips in it
    seconds: float = 0.0  # seconds spent in it so far
    best: float = -1.0  # best validation accuracy
    best_epoch: int = 0  # epoch that reached it, from 1
    val_clips: int = 0  # clips of the validation
    chance: float = 0.0  # its accuracy for who always names its most frequent class
    history: list[dict[str, float]] = field(default_factory=list)  # one row per finished epoch

    def close_epoch(
        self,
        lr: float,  # of its last step
        val_loss: float,  # NaN without validation clips
        val_top1: float,  # NaN without validation clips
        seconds: float,  # of the validation
    ) -> bool:  # whether validation was better than ever
        """Add the row of the epoch to the history, and begin the next one."""
        row = dict(
            epoch=self.epoch + 1,
            lr=lr,
            train_loss=self.loss / self.clips,
            train_top1=self.right / self.clips,
            val_loss=val_loss,
            val_top1=val_top1,
            seconds=self.seconds + seconds,
            clips_per_second=self.clips / max(self.seconds, 1e-9),
        )
        self.history.append(row)
        self.epoch += 1
        self.step = 0
        self.loss = 0.0
        self.right = 0
        self.clips = 0
        self.seconds = 0.0
        better = val_top1 > self.best
        if better:
            self.best = val_top1
            self.best_epoch = self.epoch
        return better

    def load(self, values: dict[str, Any]) -> None:
        """Go on where another session stopped, whose fields `dataclasses.asdict` gave."""
        for name, value in dataclasses.asdict(RunState(**values)).items():
            setattr(self, name, value)

    def metrics(
        self,
        best: bool,  # of the best epoch, or of the last one
    ) -> dict[str, float]:
        """The numbers of an epoch; a model file has those of the epoch that its weights are of."""
        row = self.history[(self.best_epoch if best else self.epoch) - 1]
        found = {k: v for k, v in row.items() if k.startswith(("train_", "val_")) and math.isfinite(v)}
        return found | dict(epoch=row["epoch"], best_epoch=self.best_epoch, best_val_top1=max(self.best, 0.0))


class RunFolder:
    """The folder of a run: its states while it goes on, its results when it is finished."""

    def __init__(
        self,
        out: str | Path,  # made when missing
        model: nn.Module,  # network to train, for its size
        identity: dict[str, Any],  # of this run, from `run_identity`
        keep_states: int = 1,  # states kept during the run
    ):
        # weights, EMA, two averages of the optimiser; one more state while writing, model, best (twice)
        copies = 4 * (keep_states + 1) + 4
        need = copies * sum(p.numel() * p.element_size() for p in model.parameters())
        self.path = check_folder(out, need)
        self.identity = identity
        self.keep_states = keep_states

    def load(self) -> dict[str, Any] | None:
        """The state of this run, if it was interrupted; its best weights must be there too."""
        state = load_state(self.path / "state.pt", self.identity)
        if state and state["progress"]["best_epoch"]:
            self.load_best()
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write the state."""
        save_state(state | {"identity": self.identity}, self.path / "state.pt", self.keep_states)

    def save_best(self, weights: dict[str, Any], epoch: int) -> None:
        """Write the weights that validated best so far, and whose they are."""
        save_state({"weights": weights, "epoch": epoch, "identity": self.identity}, self.path / "best.pt")

    def load_best(
        self,
        epoch: int | None = None,  # that they must be of; None: of any
    ) -> dict[str, Tensor]:
        """The weights that validated best; RunError for those of another run or epoch."""
        path = self.path / "best.pt"
        try:
            best = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as err:  # torch has many for files that are none
            reason = "is gone" if isinstance(err, FileNotFoundError) else "cannot be read"
            text = f"{path}, the best weights of this run, {reason}"
            raise RunError(text, subject=str(path), remedy=AGAIN) from err
        if "identity" not in best:  # an earlier version began this run
            return best
        if not goes_on(best["identity"], self.identity, best["epoch"]):
            check_same_run(best["identity"], self.identity, self.path)
        if epoch not in (None, best["epoch"]):
            text = f"{path} holds the weights of epoch {best['epoch']}, the best of this run was {epoch}"
            raise RunError(text, subject=str(path), remedy=AGAIN)
        return best["weights"]

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write the epochs so far as history.csv."""
        write_atomic(self.path / "history.csv", csv_text(pd.DataFrame(rows)))

    def clear(self, results: bool = False, keep: Sequence[str] = ()) -> None:
        """Delete the states, and what a killed process left of them; the results of a finished run too."""
        names = ("record.json", "history.csv", "model.safetensors", "best.safetensors") if results else ()
        states = (*self.path.glob("state*"), *self.path.glob("best.[pt]*"), *self.path.glob(".*.tmp"))
        for path in (*(self.path / name for name in names), *states):
            if path.name not in keep:
                path.unlink(missing_ok=True)


@dataclass
class TrainResult:
    """What a run leaves behind."""

    model: nn.Module  # trained network in eval mode, with `.card`
    history: pd.DataFrame  # one row per epoch
    seconds: float  # training and validation time, all sessions together
    out: Path | None  # folder with model.safetensors, history.csv and record.json
    record: dict[str, Any]  # the stored record
    reused: bool = False  # True when a finished run was found and nothing was trained

    def summary(self) -> str:
        """The validation accuracy of the model file itself, and what should be known beside it."""
        card: Any = self.model.card  # what a network of ours has, and other modules have not
        metrics = card.metrics
        asked = card.recipe.get("epochs", 0)
        done = len(self.history)
        said = []
        if "val_top1" in metrics:
            at = (
                f"of epoch {metrics['epoch']} of {done}"
                if metrics["epoch"] < done
                else f"after {done} epochs"
            )
            said.append(f"validation accuracy {metrics['val_top1']:.3f} {at}")
        if self.record.get("val_clips") and "val_top1" in metrics:
            said += _at_chance(metrics["val_top1"], self.record["val_clips"], self.record["chance"])
        if done < asked:
            said.append(f"stopped early: {done} of {asked} epochs")
        return "; ".join(said) or f"{done} epochs, not validated"


def _at_chance(top1: float, clips: int, chance: float) -> list[str]:
    """A warning where an accuracy is not above that of who always names the most frequent class."""
    low, high = wilson_interval(round(top1 * clips), clips)
    if low > chance:
        return []
    return [
        f"at chance: its 95 % interval on {clips} clips is {low:.3f} to {high:.3f}, and to name always the "
        f"most frequent class gives {chance:.3f}"
    ]


def finished_run(
    out: Path,  # folder of the run
    identity: dict[str, Any],  # of this run, from `run_identity`
) -> TrainResult | None:
    """The result in a folder if this very run was finished there before."""
    if not (out / "record.json").exists():
        return None
    try:
        record = check_record(read_json(out / "record.json"))
        history = pd.read_csv(out / "history.csv")
        before = record["identity"] | {
            "config": {k: v for k, v in record["config"].items() if k not in HARMLESS}
        }
        seconds = float(record["seconds"])
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as err:
        fault = f"holds a finished run with a missing or damaged file, record.json or history.csv ({err})"
        remedy = f"Choose another folder, or {AGAIN}."
        raise RunError(f"{out} {fault}. {remedy}", subject=str(out), remedy=remedy) from err
    if (out / "state.pt").exists() and goes_on(before, identity, len(history)):
        _log.info("%s holds this run, finished with fewer epochs: it goes on", out)
        return None
    check_same_run(before, identity, out)
    model = load_model(out / "model.safetensors")
    if record.get("weights", model.card.weights) != model.card.weights:
        text = f"{out} holds a model file and a record of two runs"
        raise RunError(text, subject=str(out), remedy=f"Choose another folder, or {AGAIN}.")
    _log.info("%s holds this finished run: nothing to train", out)
    return TrainResult(model, history, seconds, out, record, reused=True)


class Meter:
    """Sums of the epoch under way: kept on the device, read into the state of the run when somebody looks."""

    def __init__(
        self,
        state: RunState,  # updated
        device: torch.device,  # of the sums
    ):
        self.state = state
        self.sums = torch.tensor([state.loss, state.right], dtype=wide_type(device), device=device)
        self._since = time.perf_counter()

    def add(self, result: StepResult) -> None:
        """One more step."""
        self.sums += result.sums
        self.state.step += 1
        self.state.steps += 1
        self.state.clips += result.clips
        now = time.perf_counter()
        self.state.seconds += now - self._since
        self._since = now

    def read(self) -> None:
        """Wait for the device."""
        loss, right = self.sums.tolist()
        self.state.loss = loss
        self.state.right = int(right)


class Run:
    """A training under way; callbacks are given it."""

    def __init__(
        self,
        update: TrainingStep,  # network, optimiser, device
        callbacks: Sequence[Any],  # of type `Callback`, asked in this order, at the end in reverse
        folder: RunFolder | None,  # for state and results
        data: tuple[Any, Any],  # training clips; validation clips or None
        steps_per_epoch: int,  # updates of the weights
        read_every: int | None = None,  # steps between looks at the device; None: 1 on a CPU, else 10
    ):
        self.config = update.config
        self.update = update
        self.network = update.network
        self.optimizer = update.optimizer
        self.accelerator = update.accelerator
        self.callbacks = list(callbacks)
        self.folder = folder
        self.out = None if folder is None else folder.path
        self.train_data, self.val_data = data
        self.steps_per_epoch = steps_per_epoch
        self.read_every = read_every or (1 if self.accelerator.device.type == "cpu" else 10)
        self.state = RunState()
        self.meter = Meter(self.state, self.accelerator.device)
        self.last = StepResult([], 0, torch.zeros(2), torch.zeros(()))  # the update just made
        self.confusion: Tensor | None = None  # [K,K] clips of the last validation, by true class and answer
        self.stopped = False

    @property
    def reads(self) -> bool:
        """Whether to look at values on the device: every few steps, and at the end of an epoch."""
        return self.state.step % self.read_every == 0 or self.state.step >= self.steps_per_epoch

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and stored."""
        return functools.reduce(lambda network, c: c.evaluated(network), self.callbacks, self.network)

    def log(self, result: StepResult) -> None:
        """Add an update to the sums of the epoch."""
        self.last = result
        self.meter.add(result)
        if self.reads:
            self.meter.read()

    def stop(self) -> None:
        """Make the epoch under way the last one."""
        self.stopped = True

    def save(self) -> None:
        """Write the state, unless a callback refuses."""
        for callback in self.callbacks:
            callback.save_start(self)
        self.meter.read()
        if self.folder is not None and self.accelerator.is_main_process:
            self.folder.save(_state_dict(self))
        self.accelerator.wait_for_everyone()


def _state_dict(run: Run) -> dict[str, Any]:
    """Everything that another process needs to go on."""
    scaler = run.accelerator.scaler
    state = dict(
        model=run.network.state_dict(),
        optimizer=run.optimizer.state_dict(),
        scaler=scaler.state_dict() if scaler else None,
        progress=dataclasses.asdict(run.state),
        average=None,
    )
    for callback in run.callbacks:
        state |= callback.state_dict()
    return state


def load_run(
    run: Run,  # updated
) -> TrainResult | None:
    """Take over the state in the folder; the result of a finished run is returned."""
    if run.folder is None:
        return None
    done = finished_run(run.folder.path, run.folder.identity)
    if done is None and (state := run.folder.load()):
        run.network.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and run.accelerator.scaler:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        for callback in run.callbacks:
            callback.load_state_dict(state)
        run.state.load(state["progress"])
    _check_agreement(run, done is not None)
    if run.accelerator.is_main_process:
        if done:
            run.folder.clear(keep=kept_states(run.config))  # what a process left that died while it tidied up
        else:
            (run.folder.path / "record.json").unlink(missing_ok=True)  # a run that goes on is not finished
    return done


def _check_agreement(run: Run, done: bool) -> None:
    """Refuse to go on when processes see different states: then their folders are not one folder."""
    mine = torch.tensor([[float(done), run.state.epoch, run.state.step]], device=run.accelerator.device)
    seen = run.accelerator.gather(mine).cpu()
    if (seen != seen[0]).any():
        remedy = "every machine needs the same folder, on a disk they share"
        text = f"The processes see different states of the run in {run.out}: {remedy}."
        raise RunError(text, subject=str(run.out), remedy=remedy)
