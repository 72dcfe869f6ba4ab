"""What a finished training says about itself: whether it learned, what held it back, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..foundation.statistics import wilson_interval

if TYPE_CHECKING:
    from ..networks.backbones import VideoNet
    from .config import TrainConfig

__all__ = ["Advice", "advise"]

# what to try, in the order in which it is said
STEPS = ("validate", "more_epochs", "start", "rate", "labels", "more_clips", "larger_network")
KNOWS = 0.9  # a network that names so many of its training clips has learned them
GAP = 0.25  # training over validation accuracy: more than this, and it has learned them by heart
RISING = 0.97  # loss of the last fifth of the epochs over that of the fifth before: less is still falling
LARGER = "sda_tsn_resnet50"
LARGER_MACS = 33.7e9  # of a clip of 8 frames of 224 x 224
GPU_MACS = 2e12  # multiply-adds a second in which a small card of a cloud trains a ResNet-50; large: 5 times


@dataclass(frozen=True)
class Advice:
    """Numbers of a finished training and what follows from them."""

    chance: float  # accuracy of who always names the most frequent class
    train_top1: float  # mean of the last epochs, on clips as they were augmented
    val_top1: float | None  # of the last epochs; None without validation clips
    gap: float | None  # the first minus the second
    learned: bool  # the accuracy is above chance, by its 95 % interval
    rising: bool  # the loss was still falling when the training ended
    seconds_per_epoch: float  # here
    steps: tuple[str, ...]  # what to do next, of `STEPS`; empty: nothing that the history can tell


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    """Over some epochs."""
    return sum(row[name] for row in rows) / len(rows)


def _falling(history: Sequence[dict[str, float]], name: str) -> bool:
    """Whether a loss of the last fifth of the epochs is below that of the fifth before."""
    part = max(len(history) // 5, 1)
    last, before = history[-part:], history[-2 * part : -part]
    return bool(before) and _mean(last, name) < RISING * _mean(before, name)


def _next(found: Advice, started: bool) -> tuple[str, ...]:
    """What to try, from how far the training came."""
    fits = found.train_top1 >= KNOWS
    apart = (found.gap or 0.0) > GAP
    wanted = {
        "validate": found.val_top1 is None,
        "more_epochs": found.rising or (found.learned and not fits and not apart),
        "start": not started and (not found.learned or apart or not fits),
        "rate": not found.learned and not found.rising and not fits,
        "labels": not found.learned and fits,
        "more_clips": apart,
        "larger_network": found.learned and not found.rising and not apart,
    }
    return tuple(step for step in STEPS if wanted[step])


def advise(
    history: Sequence[dict[str, float]],  # a row an epoch, as in history.csv
    chance: float,  # accuracy of who always names the most frequent class
    clips: int,  # on which the accuracy was measured: validation clips, or training clips without them
    started: bool = False,  # from weights of another training
) -> Advice:
    """Read the history of a training: chance, what it learned, the gap, the end of its curve."""
    last = history[-max(len(history) // 10, 1) :]
    val = _mean(last, "val_top1")
    known = math.isfinite(val)
    train = _mean(last, "train_top1")
    low, _ = wilson_interval(round((val if known else train) * clips), clips)
    found = Advice(
        chance=chance,
        train_top1=train,
        val_top1=val if known else None,
        gap=train - val if known else None,
        learned=low > chance,
        rising=_falling(history, "val_loss" if known else "train_loss"),
        seconds_per_epoch=_mean(history, "seconds"),
        steps=(),
    )
    return Advice(**{**vars(found), "steps": _next(found, started)})


def _time(seconds: float) -> str:
    """Seconds, minutes or hours, with two digits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(seconds, 1):.2g} s"


def larger_seconds(
    found: Advice,  # of a training here
    macs: float,  # multiply-adds of a clip of its network
    clips: int,  # training clips
) -> tuple[float, float]:  # seconds of an epoch of `LARGER`: here, and on a small GPU
    """What a large network would take, from what this one took: multiply-adds in proportion."""
    return found.seconds_per_epoch * LARGER_MACS / macs, 3 * clips * LARGER_MACS / GPU_MACS


def sentences(
    found: Advice,  # from `advise`
    config: TrainConfig,  # of the run
    model: VideoNet,  # that was trained
    clips: int,  # training clips
) -> list[str]:
    """The advice in words, each with the option that does it."""
    from ..networks.cost import profile

    val = "" if found.val_top1 is None else f", validation clips {found.val_top1:.2f}"
    said = [f"chance {found.chance:.2f}, training clips {found.train_top1:.2f}{val}"]
    more = 2 * config.epochs
    tiny = model.name.endswith("_tiny")
    shipped = "sda_tsn_moves" if model.name.startswith("sda_") else "tsn_moves"
    here, gpu = larger_seconds(found, profile(model, config.size, config.num_frames).macs, clips)
    words = {
        "validate": "no clips are held out: the accuracy on new clips is not known",
        "more_epochs": f"not trained to the end: --epochs {more} takes about "
        f"{_time(more * found.seconds_per_epoch)} here",
        "start": f"another start: --init {shipped}" if tiny else "another start: --init FILE or --pretrained",
        "rate": f"at chance and not falling: another rate, e.g. --lr {config.lr / 4:.2g}",
        "labels": "it knows its training clips and no others: are the labels of the validation clips right?",
        "more_clips": "it knows its training clips better than others: more clips help, more epochs do not",
        "larger_network": f"a larger network: --model {LARGER} --recipe finetune_small takes about "
        f"{_time(here)} an epoch here, about {_time(gpu)} on a small GPU (estimated from multiply-adds)",
    }
    return said + [f"next: {words[step]}" for step in found.steps if tiny or step != "larger_network"]
