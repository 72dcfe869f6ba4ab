"""Image networks of other libraries: built and named, and looked through for what SDA can follow."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..foundation.devices import device_of, dtype_of, evaluating
from ..foundation.errors import SettingError, listed, missing_package, unknown_name
from .backbones import Site

STEPS = {  # children in the order of their calls, with our places; torchvision calls each `act` relu
    "Bottleneck": "enter conv1 bn1 act1 adapt conv2 bn2 gate drop_block act2 aa conv3 bn3 se drop_path",
    "BasicBlock": "enter conv1 bn1 gate drop_block act1 aa adapt conv2 bn2 se drop_path",
}


HOMES = ("torchvision.models.resnet", "timm.models.resnet")


BEFORE_GATE = {"Bottleneck": "2", "BasicBlock": "1"}  # the convolution and the norm that SDA follows


def site_of(block: nn.Module, stage: int, number: int, depths: tuple[int, ...], num_frames: int) -> Site:
    """What a method may ask about a block of others."""
    conv: Any = block.get_submodule(f"conv{BEFORE_GATE[type(block).__name__]}")
    first: Any = block.get_submodule("conv1")
    stride = block.stride if isinstance(block.stride, int) else 1
    return Site(first.in_channels, conv.out_channels, stride, num_frames, stage, number, depths)


def is_resnet(model: nn.Module) -> bool:
    """Whether its stages are made of basic or bottleneck blocks that we know."""
    stages = [getattr(model, f"layer{i}", None) for i in (1, 2, 3, 4)]
    return all(
        isinstance(stage, nn.Sequential)
        and all(type(b).__module__ in HOMES and type(b).__name__ in STEPS for b in stage)
        for stage in stages
    )


def stage_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Block name, e.g. "layer1.0" -> block of a ResNet."""
    return {f"layer{i}.{j}": b for i in (1, 2, 3, 4) for j, b in enumerate(getattr(model, f"layer{i}"))}


def refuse_places(places: set[str], module: str = "") -> None:
    """Only blocks beside the layers of others, not in their stead; behind a module by its name, SDA alone."""
    if places and module:
        raise SettingError(
            f"a shift goes in front of convolutions of residual blocks, and {module} is a module by its "
            "name: behind it goes SDA alone",
            subject=module,
            remedy="shift=False (TSN instead of TSM), or a ResNet of torchvision or timm with where=None or "
            "its stages and blocks",
        )
    if places:
        raise SettingError(
            f"this method fills the place {listed(sorted(places))}, which only our own "
            "networks have: take tsn or tsm, with or without SDA"
        )


def look_through(model: nn.Module) -> tuple[dict[str, list[tuple[int, ...]]], Tensor, str | None]:
    """One image through a network: shapes of what each module gave, the answer, the layer it is from."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    linear: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            shapes.setdefault(name, []).append(tuple(out.shape) if isinstance(out, Tensor) else ())
            if isinstance(module, nn.Linear):
                linear.append((name, out))

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    try:
        with evaluating(model, None), torch.no_grad(), torch.device(device_of(model)):
            answer = model(torch.zeros(1, *size, dtype=dtype_of(model)))
    except (TypeError, RuntimeError, AttributeError) as err:
        raise SettingError(
            f"{type(model).__name__} does not read an image [1, 3, {size[1]}, {size[2]}]: {err}"
        ) from err
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(answer, Tensor) or answer.ndim != 2:
        raise SettingError(f"{type(model).__name__} gives no logits [N, K] for images [N, 3, H, W]")
    last = [name for name, out in linear if out is answer]
    return shapes, answer, last[0] if last else None


_NORMS = ("BatchNorm", "GroupNorm", "LayerNorm", "InstanceNorm", "RMSNorm")  # in names of classes


def check_norms(model: nn.Module, shapes: dict[str, list[tuple[int, ...]]]) -> None:
    """SDA follows a norm; without names there must be one to be found."""
    kind = type(model).__name__
    maps = [n for n, seen in shapes.items() if len(seen) == 1 and len(seen[0]) == 4 and min(seen[0][2:]) > 1]
    norms = [n for n in maps if any(norm in type(model.get_submodule(n)).__name__ for norm in _NORMS)]
    if norms:
        text = f"{kind} has no residual blocks of torchvision or timm: name what SDA shall follow"
    else:
        text = f"{kind} has no normalisation layers that SDA could follow: name other modules with maps"
    example = (norms or maps)[len(norms or maps) // 2 :][:1]
    remedy = f"e.g. where={example}" if example else None
    raise SettingError(text, subject=kind, choices=norms or maps, remedy=remedy)


def check_place(model: nn.Module, name: str, shapes: dict[str, list[tuple[int, ...]]]) -> int:
    """Channels of the maps behind a module."""
    known = [n for n, _ in model.named_modules() if n]
    if name not in known:
        raise unknown_name("module", name, known, most=8)
    seen = shapes.get(name, [])
    if len(seen) != 1 or len(seen[0]) != 4:
        maps = [n for n, s in shapes.items() if len(s) == 1 and len(s[0]) == 4]
        what = f"runs {len(seen)} times in a pass" if len(seen) != 1 else f"gives the shape {seen[0]}"
        raise SettingError(
            f"SDA follows modules that run once and give maps [N, C, H, W]; {name} {what}",
            subject=name,
            choices=maps,
        )
    return seen[0][1]


def check_resnet(model: nn.Module) -> None:
    """The norms that SDA follows must be there."""
    if not isinstance(getattr(model, "fc", None), nn.Linear):
        raise SettingError(f"{type(model).__name__} has no classifier `fc`: build it with num_classes")
    for name, block in stage_blocks(model).items():
        norm = f"bn{BEFORE_GATE[type(block).__name__]}"
        if isinstance(block.get_submodule(norm), nn.Identity):
            raise SettingError(
                f"{name}.{norm} does not normalise, and SDA follows a norm: insert it before norms are fused",
                subject=f"{name}.{norm}",
            )


def timm_library() -> Any:
    """The library, if it is there."""
    try:
        return importlib.import_module("timm")
    except ImportError as err:
        raise missing_package(
            "timm", "networks named timm:NAME", "pip install 'sda-workbench[timm]'"
        ) from err


def image_network(
    backbone: str,  # "torchvision:NAME" or "timm:NAME"
    num_classes: int,  # K
) -> nn.Module:  # with random weights
    """Build an image network of a library."""
    library, _, name = backbone.partition(":")
    if library == "own":
        raise SettingError(
            f"{name} is a network of somebody's own, which no name can build",
            subject=backbone,
            remedy="build it, call insert_sda on it as before, and load the weights by load_state_dict",
        )
    build: Callable[..., nn.Module]
    if library == "timm":
        build = timm_library().create_model
        if not timm_library().is_model(name):
            raise unknown_name("network of timm", name, timm_library().list_models(), most=8)
    else:
        from torchvision import models

        if name not in models.list_models(module=models):
            raise unknown_name("network of torchvision", name, models.list_models(module=models), most=8)
        build = models.get_model
    model = build(name, num_classes=num_classes)
    kept = any(module._non_persistent_buffers_set for module in model.modules())
    if kept and any(b.is_meta for b in model.buffers()):  # files do not hold all: it needs real numbers
        with torch.device("cpu"):
            model = build(name, num_classes=num_classes)
    return model


def _candidates(model: nn.Module) -> Iterator[str]:
    """Names under which a library may build this network."""
    home = type(model).__module__
    if home.startswith("timm.") and (cfg := getattr(model, "pretrained_cfg", None)):
        yield f"timm:{cfg.get('architecture')}"
    elif home.startswith("torchvision.models."):
        from torchvision import models

        for name in models.list_models(module=models):
            if models.get_model_builder(name).__module__ == home:
                yield f"torchvision:{name}"


def backbone_name(
    model: nn.Module,  # image network
    num_classes: int,  # K
) -> str:  # "torchvision:NAME", "timm:NAME", or "own:CLASS" where no library builds it just so
    """The name that builds an image network again."""
    for name in _candidates(model):
        with torch.device("meta"):
            if str(image_network(name, num_classes)) == str(model):
                return name
    return f"own:{type(model).__name__}"
