"""How a run is held while it trains, and what it leaves: a model file with its card, and a record."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch

from ..foundation.devices import set_layout
from ..foundation.errors import RunError, lacks_memory
from ..foundation.files import lock
from ..foundation.processes import lost_worker
from ..foundation.runs import new_record, save_record
from ..networks.backbones import VideoNet
from ..networks.checkpoints import ModelCard, read_card, save_model
from .advice import Advice, advise
from .identity import kept_states
from .norms import restore_norms
from .optimiser import scaled_lr
from .recipes import ASSUMED, plain_settings
from .run import Run, RunFolder, TrainResult

_log = logging.getLogger(__name__)


def held(
    run: Run,  # whose folder
) -> contextlib.AbstractContextManager[Any]:
    """The folder of the run, held against other runs by the first of its processes."""
    if run.folder is None or not run.accelerator.is_main_process:
        return contextlib.nullcontext()
    return lock(run.folder.path, f"training {run.network.name}")


@contextlib.contextmanager
def looked_on(
    run: Run,  # with its callbacks
) -> Iterator[None]:
    """Say what is run, and have the callbacks look on; whoever was started is also ended."""
    config = run.config
    _log.info("%s on %s, %s", scaled_lr(config)[1], run.accelerator.device, config.precision)
    if config.recipe in ASSUMED:
        _log.warning("recipe %s: %s", config.recipe, ASSUMED[config.recipe])
    with contextlib.ExitStack() as stack:
        for callback in run.callbacks:
            stack.callback(callback.fit_end, run)
            callback.fit_start(run)
        try:
            yield
        except (RuntimeError, MemoryError) as err:
            if lost := lost_worker(err):
                raise lost from err
            if isinstance(err, RunError) or not lacks_memory(err):
                raise
            more = 2 * config.accumulate
            remedy = (
                f"compute a batch in pieces (accumulate={more}, --accumulate {more}), or take smaller ones"
            )
            text = f"memory ran out on {run.accelerator.device} ({str(err).partition(chr(10))[0]})"
            raise RunError(text, remedy=remedy) from err


def _told(run: Run) -> dict[str, Any]:
    """What a card says about the clips of a run."""
    data, val = run.train_data, run.val_data
    told = dict(
        dataset=getattr(data, "source", "") or getattr(data, "name", ""),
        split=getattr(data, "split", ""),
        train_clips=len(data),
        validated_on=getattr(val, "split", ""),
        val_clips=0 if val is None else len(val),
    )
    return {name: value for name, value in told.items() if value}


def _card(run: Run, network: VideoNet, metrics: dict[str, float]) -> ModelCard:
    """What a model file says about itself: enough to predict a video with it."""
    data = run.train_data if run.val_data is None else run.val_data
    from_files = getattr(data, "transform_config", None) is not None  # others have no videos to sample
    return ModelCard.of(
        network,
        data.class_names,
        recipe=plain_settings(run.config),
        metrics=metrics,
        data=_told(run),
        transform=run.config.transform().to_dict() if from_files else {},
        sampling=run.config.sampling().to_dict() if from_files else {},
    )


def _advice(run: Run) -> Advice:
    """What the run says about itself; without validation clips it is measured on those of the training."""
    config, state = run.config, run.state
    chance = state.chance or 1 / run.network.num_classes
    started = bool(config.init or config.pretrained)
    return advise(state.history, chance, state.val_clips or len(run.train_data), started)


def _record(run: Run, network: VideoNet, folder: RunFolder, seconds: float) -> dict[str, Any]:
    """The record of a training."""
    config, data = run.config, run.train_data
    return new_record(
        "train",
        model=network.name,
        options=network.options,
        recipe=config.recipe,
        seed=config.seed,
        config=plain_settings(config),
        learning_rate=scaled_lr(config)[1],
        metrics=run.state.metrics(config.keep == "best"),
        start=None if network.start is None else network.start.counts,
        dataset=getattr(data, "name", None),
        source=getattr(data, "source", None),
        split=getattr(data, "split", None),
        validated_on=getattr(run.val_data, "split", None),
        seconds=seconds,
        clips=len(data),
        num_processes=run.accelerator.num_processes,
        precision=config.precision,
        device=run.accelerator.device.type,
        threads=torch.get_num_threads(),
        identity={k: v for k, v in folder.identity.items() if k != "config"},
        val_clips=run.state.val_clips,
        chance=run.state.chance,
        advice=dataclasses.asdict(_advice(run)),
    )


def finish(
    run: Run,  # after its last epoch
) -> TrainResult:
    """Write model, history and record, and delete the states."""
    config = run.config
    state = run.state
    folder = run.folder
    last = {name: value.clone() for name, value in run.evaluated.state_dict().items()}
    best = last
    if folder is not None and state.best_epoch:
        best = folder.load_best(state.best_epoch)
    network = run.accelerator.unwrap_model(run.update.model, keep_fp32_wrapper=False)
    restore_norms(network, run.update.ordinary)
    set_layout(network, False).eval()
    for parameter in run.update.frozen:
        parameter.requires_grad_(True)
    first = run.accelerator.is_main_process
    if folder is not None and first and config.keep == "last" and state.best_epoch:
        network.load_state_dict(best)
        save_model(folder.path / "best.safetensors", network, _card(run, network, state.metrics(best=True)))
    network.load_state_dict(best if config.keep == "best" else last)
    network.card = _card(run, network, state.metrics(config.keep == "best"))
    seconds = sum(row["seconds"] for row in state.history)
    record = {} if folder is None else _record(run, network, folder, seconds)
    if folder is not None and first:
        file = save_model(folder.path / "model.safetensors", network, network.card)
        record["weights"] = read_card(file).weights
        save_record(record, folder.path / "record.json")
        folder.clear(keep=kept_states(config))
    run.accelerator.wait_for_everyone()
    return TrainResult(network, pd.DataFrame(state.history), seconds, run.out, record)
