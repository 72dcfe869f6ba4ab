"""Names of models: methods and backbones, which of them go together, and the options that they take."""

import fnmatch
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from ..foundation.errors import SettingError, UnknownNameError, nearest
from .blocks import SDA

__all__ = ["METHODS", "list_models", "model_options"]


@dataclass(frozen=True)
class Backbone:
    """The frame-wise ResNet that a method is put into."""

    depths: tuple[int, ...]  # bottlenecks per stage
    widths: tuple[int, ...] = (64, 128, 256, 512)  # P per stage
    strides: tuple[int, ...] = (1, 2, 2, 2)  # spatial stride of each stage's first bottleneck
    stem: tuple[int, int] = (64, 7)  # channels and kernel of the first convolution; 3x3 max-pool follows
    weights: str | None = None  # torchvision model whose IMAGENET1K_V1 weights fit
    method: str | None = None  # the only method that it is for; None for all


def _rubiks(width: int, depths: tuple[int, ...]) -> Backbone:
    """A backbone of RubiksNet: four times as wide, and never squeezed."""
    widths = tuple(width * 2**i for i in range(4))
    return Backbone(depths, widths, stem=(width, 3), method="rubiks")


BACKBONES: dict[str, Backbone] = {
    "resnet50": Backbone((3, 4, 6, 3), weights="resnet50"),
    "resnet101": Backbone((3, 4, 23, 3), weights="resnet101"),
    "tiny": Backbone((1, 1, 1, 1), widths=(16, 32, 48, 64), strides=(1, 2, 1, 1), stem=(16, 5)),
    # RubiksNet's published tiers; its "tiny" is called `smallest`, for `tiny` is the small backbone here
    "large": _rubiks(72, (3, 8, 36, 3)),
    "medium": _rubiks(72, (3, 4, 23, 3)),
    "small": _rubiks(72, (3, 4, 6, 3)),
    "smallest": _rubiks(54, (3, 4, 6, 3)),
}
BASIC = {f"resnet{depth}": f"torchvision:resnet{depth}" for depth in (18, 34)}  # with basic blocks
FOREIGN = "sda.networks.around"  # builds around backbones of other libraries, named LIBRARY:NAME


@dataclass(frozen=True)
class Method:
    """One way of modelling time."""

    name: str  # as it stands in model names
    build: Callable[..., dict[str, nn.Module]]  # build(site, **options) -> place -> block
    bottleneck: Any  # class of residual block, called as bottleneck(site, places)
    network: Any  # class of network, `VideoNet` or one with a neck
    backbones: tuple[str, ...] | None = None  # names it can be put into; None for all
    gate: bool = True  # False where SDA cannot be put on top
    torchvision: bool = True  # False where torchvision's ImageNet weights of the backbone do not fit


class Known(NamedTuple):
    """What a name needs before its module is imported."""

    module: str
    backbones: tuple[str, ...] | None = None  # as in `Method`
    gate: bool = True  # as in `Method`


BUILT_IN = {
    "tsn": Known("sda.networks.backbones"),
    "tsm": Known("sda.methods.shift"),
    "gst": Known("sda.methods.gst"),
    "c3d": Known("sda.methods.c3d"),
    "rubiks": Known("sda.methods.rubiks", ("large", "medium", "small", "smallest", "tiny"), gate=False),
    "smallbig": Known("sda.methods.smallbig"),
    "tei": Known("sda.methods.tei"),
    "stm": Known("sda.methods.stm"),
    "tin": Known("sda.methods.tin"),
    "tam": Known("sda.methods.tam"),
    "tea": Known("sda.methods.tea"),
    "tpn": Known("sda.methods.tpn"),
    "v4d": Known("sda.methods.v4d"),
}
METHODS: dict[str, Method] = {}  # those that somebody asked for so far; `find_method` brings the others


def add_method(
    method: Method,  # SettingError where another module has registered its name
) -> None:
    """Put a method into the table."""
    name = method.name
    here = method.build.__module__
    owner = BUILT_IN[name].module if name in BUILT_IN else here
    owner = METHODS[name].build.__module__ if name in METHODS else owner
    if "__main__" not in (owner, here) and owner != here:
        raise SettingError(f"a method named {name!r} is registered by {owner}", subject=name)
    # what a notebook is just defining stands before what its module holds
    if owner != "__main__" or here == "__main__":
        METHODS[name] = method


def find_method(
    name: str,  # as it stands in model names, e.g. "tsm"
) -> Method:  # ImportError when its module cannot be imported
    """A method by name, its module imported if that has not happened yet."""
    if name not in METHODS:
        module = BUILT_IN[name].module
        try:
            importlib.import_module(module)
        except Exception as err:
            raise ImportError(f"the method in {module} cannot be imported: {err}", name=module) from err
    return METHODS[name]


def offers() -> dict[str, tuple[str, str, bool]]:
    """Every model name: its method, its backbone, and whether SDA is on top; nothing is imported."""
    known: dict[str, Known | Method] = {**BUILT_IN, **METHODS}
    basic = {
        f"{'sda_' if gate else ''}{name}_{short}": (name, backbone, gate)
        for short, backbone in BASIC.items()
        for name in ("tsn", "tsm")
        for gate in (False, True)
    }
    return {
        f"{'sda_' if gate else ''}{name}_{backbone}": (name, backbone, gate)
        for backbone in BACKBONES
        for name, method in known.items()
        for gate in (False, True)
        if (method.gate or not gate)
        and (method.backbones is None or backbone in method.backbones)
        and BACKBONES[backbone].method in (None, name)
    } | basic


def offer(
    name: str,  # of a model; UnknownNameError where there is none
) -> tuple[str, str, bool]:  # its method, its backbone, and whether SDA is on top
    """What a model name says."""
    known = offers()
    methods = {**BUILT_IN, **METHODS}
    if found := re.fullmatch(r"(sda_)?(\w+?)_((?:torchvision|timm|own):.+)", str(name)):
        gate, method, backbone = found.groups()
        if method in methods:
            return method, backbone, gate is not None
    if name not in known:
        raise UnknownNameError(
            f"there is no model {name!r}.{_did_you_mean(str(name), known)} Names are METHOD_BACKBONE or "
            f"sda_METHOD_BACKBONE, with the methods {', '.join(methods)} and the backbones "
            f"{', '.join([*BASIC, *BACKBONES])}, torchvision:NAME or timm:NAME",
            subject=str(name),
            choices=known,
        )
    return known[name]


def network_of(
    method: Method,  # see `find_method`
    backbone: str,  # name in BACKBONES, or LIBRARY:NAME
) -> Callable[..., Any]:  # called as network(backbone, places, K, T, dropout, bottleneck, **neck)
    """What builds the network of a method around a backbone."""
    return importlib.import_module(FOREIGN).around if ":" in backbone else method.network


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word, as a sentence."""
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""


def _defaults(function: Callable, skip: tuple[str, ...]) -> dict[str, object]:
    """The options that a function takes."""
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if name not in skip}


def _network_options(network: Callable[..., Any]) -> dict[str, object]:
    """The options of a network of its own, e.g. of its neck: its keyword-only parameters."""
    parameters = inspect.signature(network).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def list_models(
    pattern: str = "*",  # shell pattern, e.g. "sda_*" or "*_tiny"; with a colon, e.g. "sda_tsm_timm:*"
) -> list[str]:  # model names; those with backbones of other libraries where the pattern has their colon
    """Names that `create_model` knows."""
    names = importlib.import_module(FOREIGN).foreign_names(pattern) if ":" in pattern else offers()
    return fnmatch.filter(names, pattern)


def model_options(
    name: str,  # model name, see `list_models`
) -> dict[str, object]:  # option -> default
    """What `create_model` takes for this model beside `num_classes`, `num_frames` and `pretrained`."""
    wanted, backbone, gate = offer(name)
    method = find_method(wanted)
    own = _defaults(SDA, ("channels", "num_frames")) if gate else {}
    network = _network_options(network_of(method, backbone))
    return {"dropout": 0.5, **_defaults(method.build, ("site",)), **network, **own}


def split_options(
    name: str,  # model name
    options: dict[str, Any],  # see `model_options`; SettingError names every option the model does not have
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:  # of the method, of its neck, of SDA
    """Options, each to whom it belongs."""
    known = list(model_options(name))
    if wrong := [o for o in options if o not in known]:
        raise SettingError(
            f"{name} has no option {', '.join(map(repr, wrong))}.{_did_you_mean(wrong[0], known)} "
            f"Options: {', '.join(known)}",
            subject=wrong[0],
            choices=known,
        )
    wanted, backbone, _ = offer(name)
    method = find_method(wanted)
    build = _defaults(method.build, ("site",))
    network = _network_options(network_of(method, backbone))
    own = {k: v for k, v in options.items() if k in build}
    neck = {k: v for k, v in options.items() if k in network}
    return own, neck, {k: v for k, v in options.items() if k not in own and k not in neck}
