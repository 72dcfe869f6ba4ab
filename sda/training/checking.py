"""Whether clips fit the settings and the network, asked before the first step."""

import logging
from collections import Counter
from typing import Any

from torch import nn

from ..data.datasets import labels_of
from ..data.transforms import sides_without_pair
from ..foundation.errors import RunError, listed
from .config import TrainConfig

_log = logging.getLogger(__name__)


def rare_classes(
    train_data: Any,  # training clips
    val_data: Any = None,  # validation clips
) -> dict[str, str]:  # what is wrong -> names of the classes it is wrong with
    """Classes that a training cannot learn, or a validation cannot judge; none where labels are unknown."""
    names = list(train_data.class_names)
    found = {}
    for kind, data in (("training", train_data), ("validation", val_data)):
        labels = None if data is None else labels_of(data)
        if labels is None:
            continue
        counts = Counter(labels)
        for most, what in ((0, f"no {kind} clip"), (1, f"a single {kind} clip")):
            few = [name for label, name in enumerate(names) if counts[label] == most]
            if few and (most == 0 or kind == "training"):
                found[f"{what} of {len(few)} of {len(names)} classes"] = listed(few)
    return found


def check_data(
    config: TrainConfig,  # settings of the run
    model: nn.Module,  # network to train
    train_data: Any,  # training clips; the first is read
    val_data: Any = None,  # validation clips
) -> None:
    """Refuse clips that do not fit the settings or the network."""
    given = [("training", train_data), ("validation", val_data)]
    for name, data in given:
        if data is not None and len(data) == 0:
            remedy = f"Make the lists again with more clips, or name another list for {name}."
            raise RunError(f"There are no {name} clips.", subject=name, remedy=remedy)
        if data is not None and list(data.class_names) != list(train_data.class_names):
            remedy = "use one category.txt"
            text = f"Training and validation clips have other class names: {remedy}."
            raise RunError(text, subject=name, remedy=remedy)
        if data is not None:
            _check_made_alike(config, name, data)
    classes = len(train_data.class_names)
    if model.num_classes != classes:
        remedy = f"make it with create_model({model.name!r}, {classes})"
        text = f"The model has {model.num_classes} classes, the clips {classes}: {remedy}."
        raise RunError(text, remedy=remedy)
    if config.partial_bn and len(train_data) > 5000:
        text = "partial_bn is on with %d clips: it helps small sets and costs accuracy on large ones"
        _log.warning(text, len(train_data))
    for what, said in rare_classes(train_data, val_data).items():
        _log.warning("%s: %s", what, said)
    alone = sides_without_pair(list(train_data.class_names)) if config.flip else []
    if alone:
        text = "clips of %s are not mirrored: no class is the mirror image"
        _log.warning(text, listed([train_data.class_names[k] for k in alone]))
    if config.patience and val_data is None:
        text = "patience looks at validation clips and there are none: all %d epochs are trained"
        _log.warning(text, config.epochs)
    t, _, h, w = train_data[0]["clip"].shape
    if (t, h, w) != (config.num_frames, config.size, config.size):
        remedy = "change num_frames and size, or the data"
        raise RunError(
            f"Clips are {t} frames of {h} x {w}, the description says {config.num_frames} frames of "
            f"{config.size} x {config.size}: {remedy}.",
            subject="training",
            remedy=remedy,
        )


def _check_made_alike(config: TrainConfig, name: str, data: Any) -> None:
    """Clips from files must have been cropped and sampled as the settings say."""
    sampling = getattr(data, "sampling", None)
    mine = dict(transform=config.transform(), strategy=config.strategy, step=config.step)
    theirs = dict(
        transform=getattr(data, "transform_config", None),
        strategy=getattr(sampling, "strategy", None),
        step=getattr(sampling, "step", None) if config.strategy == "seconds" else None,
    )
    for key, value in theirs.items():
        if value not in (None, mine[key]):
            remedy = "build them with config.transform() and config.sampling()"
            text = f"The {name} clips have {key} {value}, the description says {mine[key]}: {remedy}."
            raise RunError(text, subject=name, remedy=remedy)
