"""What a run starts with: a network, loaders of the clips, weights of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from ..data.datasets import ClipLoader, as_bytes, clip_loader, clip_shares, labels_of
from ..foundation.errors import SettingError
from ..foundation.runs import seed_everything
from ..networks.backbones import VideoNet, create_model
from ..networks.checkpoints import load_weights
from ..networks.weights import Start
from .config import TrainConfig
from .optimiser import class_weights
from .recipes import check_config


def build_model(
    config: TrainConfig,  # checked first
    model: VideoNet | str,  # a network, or the name of one
    class_names: Sequence[str],  # of the clips
    **options: Any,  # of a network made by name
) -> VideoNet:
    """The network itself or a new one from the seed, started from `config.init` where that names a file."""
    check_config(config)
    if isinstance(model, str):
        if config.freeze and not (config.pretrained or config.init):
            text = "freeze would keep random weights: name what to start from, init or pretrained"
            raise SettingError(text, subject="freeze", choices=("init", "pretrained"))
        seed_everything(config.seed)
        known: dict[str, Any] = dict(
            num_frames=config.num_frames, pretrained=config.pretrained, dropout=config.dropout
        )
        model = create_model(model, len(class_names), **known, **options)
    if config.init:
        found = load_weights(model, config.init, class_names)
        model.start = Start.of(config.init, found)
    return model


def _labels(data: Any, setting: str) -> list[int]:
    """The labels of the training clips, which a setting needs."""
    labels = labels_of(data)
    if labels is None:
        remedy = "give the clips an attribute `labels`"
        raise SettingError(f"{setting} needs the label of every clip", subject=setting, remedy=remedy)
    return labels


def loaders(
    config: TrainConfig,  # of the run
    accelerator: Accelerator,  # which process this is, of how many
    train_data: Any,  # training clips
    val_data: Any,  # validation clips, or None
) -> tuple[ClipLoader, ClipLoader | None]:
    """Loaders of the training and the validation clips, which live as long as the run."""
    rank = accelerator.process_index
    world = accelerator.num_processes
    share: dict[str, Any] = dict(num_workers=config.num_workers, rank=rank, world=world)
    order: dict[str, Any] = dict(seed=config.seed, accumulate=config.accumulate)
    if config.class_sampling != "none":
        order["shares"] = clip_shares(_labels(train_data, "class_sampling"), config.class_sampling)
    loader = clip_loader(as_bytes(train_data), config.batch_size, shuffle=True, **order, **share)
    if val_data is None:
        return loader, None
    # validation has no step to share: every process takes whole batches
    return loader, clip_loader(as_bytes(val_data), config.batch_size * world, **share)


def weights_of_classes(
    config: TrainConfig,  # of the run
    network: VideoNet,  # which knows the number of classes
    data: Any,  # training clips
) -> Tensor | None:
    """Weights of the classes in the loss, [K]; None where all count alike."""
    if config.class_weights == "none":
        return None
    return class_weights(_labels(data, "class_weights"), network.num_classes, config.class_weights)
