"""What shows a training while it runs: a progress bar, a live plot, and trackers of experiments."""

import contextlib
import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..foundation.devices import evaluating
from ..foundation.errors import missing_package, unknown_name
from ..foundation.files import fingerprint
from ..networks.backbones import sda_blocks
from .callbacks import Callback
from .recipes import plain_settings
from .run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LivePlot", "Tracker"]


class ProgressBar(Callback):
    """Epoch, loss and accuracy so far, clips per second and time left, in the first process."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def fit_start(self, run: Run) -> None:
        """Show what an interrupted run has done before."""
        clips = len(run.train_data)
        self.bar = tqdm(
            total=run.config.epochs * clips,
            disable=not run.accelerator.is_main_process,
            unit="clip",
            initial=run.state.epoch * clips + run.state.clips,
            desc=f"train {run.network.name}",
        )

    def step_end(self, run: Run) -> None:
        """Count the clips of the step."""
        assert self.bar is not None
        state = run.state
        if run.reads:
            self.bar.set_postfix(
                epoch=f"{state.epoch + 1}/{run.config.epochs}",
                loss=f"{state.loss / state.clips:.3f}",
                top1=f"{state.right / state.clips:.3f}",
                refresh=False,
            )
        self.bar.update(run.last.clips)

    def fit_end(self, run: Run) -> None:
        """Leave the last line."""
        if self.bar is not None:
            self.bar.close()


def _in_notebook() -> bool:
    """Whether pictures can be shown: a notebook's kernel runs this."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


class _Screen:
    """One place in the notebook whose picture is exchanged."""

    def __init__(self, png: bytes):
        try:
            import ipywidgets
            from IPython.display import display
        except ImportError as err:
            raise missing_package("ipywidgets", "the live plot", "notebook") from err
        self.image = ipywidgets.Image(value=png, format="png")
        self.place = display(self.image, display_id=True)

    def show(self, png: bytes) -> None:
        """Exchange the picture."""
        self.image.value = png

    def leave(self, figure: "Figure") -> None:
        """Put an ordinary picture where the widget was: it stays in the saved notebook."""
        from ..figures.style import picture

        self.place.update(
            picture(figure, "Loss over steps, and accuracy over epochs, of the training so far.")
        )
        self.image.close()


class LivePlot(Callback):
    """Loss and accuracy, drawn while the network trains; shown in a notebook, elsewhere only kept."""

    def __init__(
        self,
        every: float = 2.0,  # seconds between two drawings, at least: a drawing takes a twentieth of one
    ):
        self.every = every
        self.history: list[dict[str, float]] = []
        self.per_epoch = 1.0
        self._losses: list[tuple[int, float | Tensor]] = []
        self._screen: _Screen | None = None
        self._drawn = 0.0

    @property
    def batches(self) -> list[tuple[int, float]]:
        """Step and loss of single steps, read from the device."""
        self._losses = [(step, float(loss)) for step, loss in self._losses]
        return [(step, float(loss)) for step, loss in self._losses]

    def figure(self) -> "Figure":
        """What has happened so far."""
        from ..figures.training import fig_history

        return fig_history(self.history, self.batches, self.per_epoch)

    def _png(self) -> bytes:
        from ..figures.style import to_png

        return to_png(self.figure())

    def fit_start(self, run: Run) -> None:
        """Show what an interrupted run has done before."""
        self.history = run.state.history
        self._losses = []
        self.per_epoch = run.state.steps / max(run.state.epoch, 1)
        if run.accelerator.is_main_process and _in_notebook():
            self._screen = _Screen(self._png())

    def step_end(self, run: Run) -> None:
        """One more point; a new drawing when the last one is old."""
        self._losses.append((run.state.steps, run.last.loss))
        if self._screen is None or time.monotonic() - self._drawn < self.every:
            return
        self._screen.show(self._png())
        self._drawn = time.monotonic()

    def epoch_end(self, run: Run) -> None:
        """The row is in the history already; now the length of an epoch is known."""
        self.per_epoch = run.state.steps / run.state.epoch

    def fit_end(self, run: Run) -> None:
        """Leave the last picture."""
        if self._screen is not None:
            self._screen.leave(self.figure())
        self._screen = None


def selection_weights(
    model: nn.Module,  # network; left as it was
    clips: Tensor,  # float [B,T,3,H,W]
) -> dict[str, dict[str, Tensor]]:  # stage -> dependency -> weights of its blocks on these clips, in a row
    """What the SDA blocks of each stage select, in evaluation mode."""
    found: dict[str, dict[str, list[Tensor]]] = {}
    with evaluating(model), contextlib.ExitStack() as stack:
        for name, block in sda_blocks(model).items():
            stage = found.setdefault(name.partition(".")[0], {d: [] for d in block.dependencies})

            def note(module: nn.Module, args: Any, out: Tensor, stage: dict = stage) -> None:
                for kept, column in zip(stage.values(), out.float().cpu().unbind(1), strict=True):
                    kept.append(column)

            stack.callback(block.hook_weights.register_forward_hook(note).remove)
        model.forward(clips)  # past a compiled call, which knows nothing of the hooks
    return {
        stage: {d: torch.cat(columns) for d, columns in weights.items()} for stage, weights in found.items()
    }


def _show_figure(kind: str, tracker: Any, name: str, figure: "Figure", step: int) -> None:
    """Hand a figure to a tracker."""
    if kind == "tensorboard":
        tracker.tracker.add_figure(name, figure, step)
    elif kind == "wandb":
        import wandb

        tracker.log({name: wandb.Image(figure)}, step=step)
    else:
        tracker.log_figure(figure, f"{name}-{step}.png")


def _show_values(kind: str, tracker: Any, name: str, values: Tensor, step: int) -> None:
    """Hand numbers between 0 and 1 to a tracker: as a histogram where it draws one, else their mean."""
    if kind == "tensorboard":
        tracker.tracker.add_histogram(name, values, step, bins=np.linspace(0, 1, 51))
    else:
        tracker.log({name: float(values.mean())}, step=step)


def _open_tracker(kind: str, folder: Path, run: Run) -> Any:
    """accelerate's tracker for this run, which has been told what is run."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    made = LOGGER_TYPE_TO_CLASS[kind]
    settings = plain_settings(run.config) | {"model": run.network.name}
    if kind == "tensorboard":
        tracker = made("tensorboard", folder, purge_step=run.state.steps + 1, flush_secs=10)
    elif kind == "wandb":
        same = fingerprint({}, folder.resolve().as_posix())  # a resumed run goes on in the same one
        tracker = made("sda", name=folder.name, id=same, resume="allow", dir=str(folder))
    else:
        tracker = made("sda", run_name=folder.name)
    if hasattr(tracker, "start"):  # accelerate before 1.8 opens at once
        tracker.start()
    if kind == "tensorboard":
        lines = yaml.safe_dump(settings, sort_keys=False).splitlines()
        tracker.log({"description": "".join(f"    {line}\n" for line in lines)}, step=run.state.steps)
    else:
        tracker.store_init_configuration(settings)
    return tracker


def _look(tracker: "Tracker", run: Run, data: Any) -> None:
    """Confusions of the validation, and the weights that SDA blocks select with."""
    from ..figures.training import fig_confusion

    at = run.state.steps
    if run.confusion is not None:
        figure = fig_confusion(run.confusion.cpu(), data.class_names)
        _show_figure(tracker.kind, tracker._tracker, "confusion", figure, at)
    if not sda_blocks(run.network):
        return
    batch = torch.stack([data[i]["clip"] for i in range(min(tracker.clips, len(data)))])
    found = selection_weights(run.network, batch.to(run.accelerator.device))
    for stage, selections in found.items():
        for dependency, values in selections.items():
            _show_values(tracker.kind, tracker._tracker, f"selection {stage}/{dependency}", values, at)


class Tracker(Callback):
    """Loss and accuracy, rates of all groups, selections per stage, confusions: for a tracker of runs."""

    def __init__(
        self,
        kind: str,  # "tensorboard", "wandb" or "mlflow"
        folder: str | Path,  # of the run; files for TensorBoard go into tensorboard/ in it
        clips: int = 16,  # validation clips on which selections are read
    ):
        modules = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
        if kind not in modules:
            raise unknown_name("tracker", kind, modules)
        try:
            importlib.import_module(modules[kind])
        except ImportError as err:
            extra = "track" if kind == "tensorboard" else f"pip install {kind}"
            raise missing_package(kind, "the tracker of this name", extra) from err
        self.kind = kind
        self.folder = Path(folder)
        self.clips = clips
        self._tracker: Any = None
        self._waiting: list[tuple[int, Tensor, dict[str, float]]] = []

    def fit_start(self, run: Run) -> None:
        """Open it, in the first process, and write down what is run."""
        if run.accelerator.is_main_process:
            self._tracker = _open_tracker(self.kind, self.folder, run)

    def step_end(self, run: Run) -> None:
        """Loss of the batch, and the rate of each group; written when values are read."""
        if self._tracker is None:
            return
        rates = {f"rate/{group['role']}": group["lr"] for group in run.optimizer.param_groups}
        self._waiting.append((run.state.steps, run.last.loss, rates))
        if run.reads:
            self.save_start(run)

    def save_start(self, run: Run) -> None:
        """What is in a state is in the tracker too."""
        for step, loss, rates in self._waiting:
            self._tracker.log({"batch/loss": float(loss)} | rates, step=step)
        self._waiting = []

    def epoch_end(self, run: Run) -> None:
        """The row of the history, and two looks into the network."""
        if self._tracker is None:
            return
        row = run.state.history[-1]
        names = ("train_loss", "val_loss", "train_top1", "val_top1", "clips_per_second")
        finite = {f"epoch/{name}": row[name] for name in names if np.isfinite(row[name])}
        self._tracker.log(finite, step=run.state.steps)
        if run.val_data is not None:
            _look(self, run, run.val_data)

    def fit_end(self, run: Run) -> None:
        """Close it."""
        if self._tracker is not None:
            self.save_start(run)
            self._tracker.finish()
        self._tracker = None
