"""Named settings, and settings from plain values and YAML: what is misspelt or meaningless is an error."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from ..assets import model_file
from ..foundation.errors import SettingError, UnknownNameError, nearest
from ..foundation.files import write_atomic
from ..foundation.reading import parse_yaml
from .config import TrainConfig

__all__ = ["ASSUMED", "RECIPES", "load_config", "recipe", "save_config"]


_MOST = {
    "label_smoothing": 1,
    "ema": 1,
    "warmup": 1,
    "momentum": 1,
    "dropout": 1,
    "erase": 1,
    "rand_augment": 30,
    "gate_budget": 1,
    "gate_share": 1,
    "selection_ramp": 1,
}


_LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "num_frames": 1,
    "size": 1,
    "resize": 1,
    "keep_states": 1,
}


def check_config(config: TrainConfig) -> TrainConfig:
    """The same description; SettingError when a number in it means nothing."""
    for name, value in dataclasses.asdict(config).items():
        least = _LEAST.get(name, 0)
        most = _MOST.get(name, math.inf)  # no setting has a use for negative numbers
        for one in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(one, (int, float)) and not least <= one <= most or one == math.inf:
                limit = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
                text = f"Setting {name!r} cannot be {one:g}: give a finite number, {limit}."
                raise SettingError(text, subject=name)
    if config.accumulate > config.batch_size:
        text = f"Setting 'accumulate' cannot be {config.accumulate}: a batch has {config.batch_size} clips."
        raise SettingError(text, subject="accumulate")
    return config


def _convert(name: str, value: Any, kind: Any) -> Any:
    """`value` as field type `kind`; by hand, for tyro prints what is wrong and exits."""
    args = typing.get_args(kind)
    try:
        if kind == bool | str:
            return value if isinstance(value, bool) else str(value)
        if typing.get_origin(kind) is Literal:
            if value not in args:
                raise ValueError(f"choose one of {', '.join(map(str, args))}")
            return value
        if typing.get_origin(kind) is tuple:
            return tuple(_convert(name, item, args[0]) for item in value)
        if kind is bool and not isinstance(value, bool):
            raise ValueError("write true or false")
        if kind is int and float(value) != int(float(value)):
            raise ValueError("a whole number is needed")
        return kind(float(value)) if kind in (int, float) else kind(value)
    except (TypeError, ValueError, OverflowError) as err:
        text = f"Setting {name!r} cannot be {value!r}: {err}"
        raise SettingError(text, subject=name, choices=map(str, args)) from err


def config_from_dict(
    values: dict[str, Any],  # by field name; plain values, as YAML and JSON have them
) -> TrainConfig:
    """A description from plain values, the other fields at their defaults; unknown names are errors."""
    kinds = typing.get_type_hints(TrainConfig)
    values = dict(values)
    if values.pop("tensorboard", False) and not values.get("track"):  # its name in files of before
        values["track"] = ["tensorboard"]
    for name in values:
        if name not in kinds:
            near = nearest(name, kinds)
            hint = f"did you mean {near!r}?" if near else None
            text = f"There is no setting {name!r}" + (f"; {hint}" if hint else ".")
            raise UnknownNameError(text, subject=name, choices=kinds, remedy=hint)
    fields = {name: _convert(name, value, kinds[name]) for name, value in values.items()}
    return check_config(TrainConfig(**fields))


_PAPER = TrainConfig(
    recipe="paper_something",
    epochs=50,
    batch_size=64,
    optimizer="sgd",
    lr=0.01,
    lr_batch=64,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="step",
    warmup=0.0,
    milestones=(20, 40),
    clip_grad=20.0,
    sda_lr=5.0,
    size=224,
    resize=256,
    crop="multiscale",
    colour="none",
    flip=True,
    dropout=0.5,
    pretrained=True,
    precision="fp16",
    num_workers=8,
)


RECIPES: dict[str, TrainConfig] = {
    "moves": TrainConfig(recipe="moves", threads=1),
    "moves_fast_query": TrainConfig(recipe="moves_fast_query", threads=1, query_lr=10.0),
    "paper_something": _PAPER,
    "paper_something_tsm": dataclasses.replace(
        _PAPER,
        recipe="paper_something_tsm",
        weight_decay=5e-4,
        sda_lr=1.0,
        head_lr=5.0,
        bias_lr=2.0,
        flip=False,
    ),
    "finetune_small": dataclasses.replace(
        _PAPER,
        recipe="finetune_small",
        epochs=30,
        batch_size=16,
        lr=0.002,
        lr_batch=16,
        schedule="cosine",
        warmup=0.1,
        milestones=(),
        partial_bn=True,
        keep="best",
        patience=8,
        precision="fp32",
        num_workers=2,
    ),
    "own_clips": TrainConfig(
        recipe="own_clips",
        epochs=20,
        batch_size=8,
        lr=4e-3,
        warmup=0.1,
        label_smoothing=0.1,
        size=64,
        resize=64,
        crop="resized",
        area=(0.4, 1.0),
        colour="none",
        flip=True,
        threads=1,
    ),
    "paper_diving48": dataclasses.replace(_PAPER, recipe="paper_diving48"),
    "paper_epic55": dataclasses.replace(_PAPER, recipe="paper_epic55"),
}


_64 = (
    "a rate of 0.01 for 64 clips, scaled with the batch, as its baselines have it; the published code of SDA "
    "took 0.01 for 36 clips on 4 GPUs: --lr-batch 36 --batch-size 36 is that"
)


ASSUMED: dict[str, str] = {  # what is taken where the paper's code says nothing, or something else
    "paper_something": _64,
    "paper_diving48": "no command is published for Diving48: everything as for Something-Something; class "
    "names there name no left or right, so mirroring exchanges no label; use the lists of version 2",
    "paper_epic55": "no command is published for EPIC-KITCHENS-55: everything as for Something-Something; "
    "verbs and nouns are two runs; kitchens P01 to P25 train, P26 to P31 validate",
}


def recipe(
    name: str,  # one of `RECIPES`
    **changes: Any,  # fields that differ from the recipe
) -> TrainConfig:
    """The named recipe with changes; the record keeps both the name and every field."""
    if name not in RECIPES:
        near = nearest(name, RECIPES)
        hint = f"did you mean {near!r}?" if near else f"choose one of {', '.join(RECIPES)}."
        raise UnknownNameError(
            f"There is no recipe {name!r}; {hint}", subject=name, choices=RECIPES, remedy=hint
        )
    return config_from_dict(dataclasses.asdict(RECIPES[name]) | changes)


def plain_settings(
    config: TrainConfig,
) -> dict[str, Any]:  # by field name
    """Every setting as records and model files carry it: files by their last names, folders stay private."""
    values = dataclasses.asdict(config)
    for name in ("init", "pretrained"):
        if isinstance(values[name], str):
            values[name] = model_file(values[name]).name  # the same by name and by path
    return values


def save_config(
    config: TrainConfig,  # every field of it is written: a default may change, a stored run must not
    path: str | Path,  # replaced if it exists
) -> Path:  # the file
    """Write a description as YAML."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    return write_atomic(path, yaml.safe_dump(values, sort_keys=False))


def load_config(
    path: str | Path,  # YAML, lines of the form `setting: value`
) -> TrainConfig:
    """Read a description; missing fields are those of the recipe that it names, or of `moves`."""
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except ValueError as err:
        raise SettingError(str(err), subject=str(path)) from err
    if not isinstance(values, dict):
        raise SettingError(f"{path}: expected lines of the form `setting: value`", subject=str(path))
    try:
        name = str(values.pop("recipe", "moves"))
        return recipe(name, **{str(name): value for name, value in values.items()})
    except (SettingError, UnknownNameError) as err:
        text = f"{path}: {err}"
        raise SettingError(text, subject=str(path), choices=err.choices, remedy=err.remedy) from err
