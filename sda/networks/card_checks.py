"""What a model file must be before anything of it is believed: header, card, numbers, shapes, classes."""

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..assets import no_model_file
from ..foundation.errors import DataError, SettingError, listed
from ..foundation.files import digest
from .backbones import VideoNet
from .inference import is_prepared

__all__ = ["class_hash"]


def class_hash(
    class_names: Sequence[str],  # in the order of the outputs
) -> str:  # 16 hexadecimal digits
    """A short fingerprint of a list of class names."""
    return digest(json.dumps(list(class_names), ensure_ascii=False))


def header_of(
    path: Path,  # of a file; FileNotFoundError or DataError where it is no safetensors file
) -> dict[str, str]:  # entries of its header
    """Read the header of a safetensors file; clear errors for other files."""
    if not path.is_file():
        raise no_model_file(path)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as err:
        raise DataError(
            f"{path} is not a safetensors file, or it is damaged ({err}).",
            subject=str(path),
            remedy="Checkpoints of the paper's code are read by load_reference(model, path)",
        ) from err


_TYPES = {"model": str, "options": dict, "num_classes": int, "num_frames": int, "class_names": list}
_LATER = dict.fromkeys(("transform", "sampling", "recipe", "metrics", "data", "library"), dict) | {
    "weights": str
}
_MOST_TEXT = 16_000_000  # letters of a card: a hundred thousand class names and their recipe need fewer
# lowest and highest, so that no card asks for all memory there is
_LIMITS: dict[str, tuple[float, float]] = {
    "num_classes": (1, 1_000_000),
    "num_frames": (1, 1024),
    "views": (1, 1024),
    "split": (1, 1024),
    "size": (32, 4096),
    "resize": (32, 8192),
    "step": (1e-6, 1e6),
    "fps": (1e-6, 1e6),
    "strength": (0, 100),
    "rand_augment": (0, 30),
    "erase": (0, 1),
    "dropout": (0, 1),
}
_WHOLE = ("num_classes", "num_frames", "views", "split", "size", "resize", "rand_augment")
_ROWS = {"mean": 3, "std": 3, "scales": 100, "area": 2}  # of numbers, at most so many
_WORDS = ("strategy", "crop", "colour")


def card_fields(
    text: str,  # JSON from the header of a file; DataError names the first field that is wrong
) -> dict[str, Any]:  # fields of a `ModelCard`
    """Read a card and trust nothing."""
    if len(text) > _MOST_TEXT:
        raise DataError(f"it has {len(text)} letters, at most {_MOST_TEXT} are read")
    data = json.loads(text, parse_constant=_no_number)
    written = data.pop("class_hash", None)
    for name, kind in (_TYPES | {k: v for k, v in _LATER.items() if k in data}).items():
        if type(data.get(name)) is not kind:
            raise DataError(f"its {name} is not of type {kind.__name__}", subject=name)
    if not all(isinstance(c, str) for c in data["class_names"]):
        raise DataError("a class name is not text", subject="class_names")
    if extra := set(data) - set(_TYPES) - set(_LATER):
        raise DataError(f"unknown fields {sorted(extra)}", subject=min(extra))
    if written != class_hash(data["class_names"]):
        raise DataError("the class names were changed after it was saved", subject="class_hash")
    options = {name: data["options"][name] for name in ("split", "dropout") if name in data["options"]}
    for part in (data, options, data.get("transform", {}), data.get("sampling", {})):
        _check_numbers(part)
    return data


def _check_numbers(part: dict) -> None:
    """Refuse what a transform, a sampling or a network cannot mean; names of later versions pass."""
    for name, value in part.items():
        if name in _LIMITS and not (value is None and name in ("resize", "split")):
            low, high = _LIMITS[name]
            kinds = int if name in _WHOLE else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                wanted = f"a number of at least {low:g}, at most {high:g}"
                raise DataError(f"its {name} is {value!r:.60}: {wanted}", subject=name)
        if name in _ROWS:
            numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
            if not numbers or len(value) > _ROWS[name] or (name == "std" and min(value, default=0) <= 0):
                raise DataError(f"its {name} is {value!r:.60}: at most {_ROWS[name]} numbers")
        if name in _WORDS and not isinstance(value, str):
            raise DataError(f"its {name} is {value!r:.60}: a word")


def _no_number(word: str) -> None:
    """NaN and infinity are no JSON, and no setting of a network."""
    raise DataError(f"it holds {word}")


def differences(
    have: Mapping[str, Tensor],  # of a file
    want: Mapping[str, Tensor],  # of a network
    optional: str = "",  # end of names that may be missing
) -> list[str]:  # missing, unexpected, other shapes; empty where all fits
    """What keeps these tensors from being this network's."""
    missing = [k for k in want if k not in have and not (optional and k.endswith(optional))]
    shapes = [
        f"{k} {list(have[k].shape)} instead of {list(want[k].shape)}"
        for k in want
        if k in have and have[k].shape != want[k].shape
    ]
    rows = {"missing": missing, "unexpected": [k for k in have if k not in want], "other shapes": shapes}
    return [f"{title}: {listed(names, most=30)}" for title, names in rows.items() if names]


class Unfilled(TorchFunctionMode):
    """Leaves out first values: a network without memory has no room for them, and on the device "meta"
    torch imports its compiler to draw random ones, which takes as long as torch itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_", "fill_", "ones_", "zeros_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def check_classes(
    path: str | Path,  # of the model file
    theirs: Sequence[str],  # its classes
    class_names: Sequence[str],  # those of the data at hand
) -> None:
    """Raise an error that shows the first difference between two lists of class names."""
    ours = list(class_names)
    if class_hash(theirs) == class_hash(ours):
        return
    i, (a, b) = next((i, pair) for i, pair in enumerate(zip_longest(theirs, ours)) if pair[0] != pair[1])
    raise DataError(
        f"{path} was trained on other classes: {len(theirs)} there, {len(ours)} here, first difference at "
        f"number {i}: {a!r} there, {b!r} here. Its outputs would be misread",
        subject=str(path),
        choices=theirs,
        remedy="to load it all the same say allow_other_classes=True",
    )


def stored(
    name: str,  # of the tensor
    tensor: Tensor,  # on any device
    half: bool,  # as float16
) -> Tensor:  # as it goes into the file; DataError when its values cannot be stored
    """A tensor on the CPU, without NaN, and within float16 where that is asked."""
    out = tensor.detach().cpu().contiguous()
    if not out.is_floating_point():
        return out
    if not out.isfinite().all():
        raise DataError(f"{name} holds NaN or infinity, the training diverged: not saved", subject=name)
    if not half:
        return out
    if not out.half().isfinite().all():
        raise DataError(f"{name} is too large for float16", subject=name, remedy="save with half=False")
    return out.half()


def check_agreement(
    model: nn.Module,  # to be saved
    card: Any,  # `ModelCard` that goes with it
) -> None:
    """Raise an error unless the card describes this network."""
    if not isinstance(model, VideoNet):
        raise TypeError(
            f"only a network of create_model can be saved, not {type(model).__name__}: unwrap it first"
        )
    if is_prepared(model):
        raise SettingError(
            f"{model.name} was prepared for inference and has no norms left to save",
            subject=model.name,
            remedy="copy the file that it was loaded from, or save it before it is prepared",
        )
    for name, of_model in {
        "model": model.name,
        "num_classes": model.num_classes,
        "num_frames": model.num_frames,
        "options": model.options,
    }.items():
        if (of_card := getattr(card, name)) != of_model:
            raise DataError(
                f"the card says {name}={of_card!r}, the network has {of_model!r}",
                subject=name,
                remedy="use ModelCard.of(model, ...)",
            )
