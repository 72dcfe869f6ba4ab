"""Around class-activation maps: a model left as it was, layers and classes by name, scales, the package."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..foundation.devices import alone_with, bare, evaluating
from ..foundation.errors import SettingError, missing_package, unknown_name

__all__ = ["LAYER", "METHODS", "cam_layers"]

METHODS = {
    "layercam": "LayerCAM",
    "gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "gradcam++": "GradCAMPlusPlus",
    "occlusion": "",
}  # our name -> the package's; "" for the one made here, which needs no gradients
LAYER = "layer2"  # of the default map, chosen by measurement


@contextmanager
def untouched(
    model: nn.Module,  # any network
) -> Iterator[nn.Module]:  # the same network
    """Evaluation mode and frozen parameters inside; modes, gradients, `requires_grad` as before after."""
    with alone_with(model):
        parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
        try:
            with evaluating(model, gradients=True):
                yield model.requires_grad_(False)
        finally:
            for p, requires_grad, grad in parameters:
                p.requires_grad_(requires_grad).grad = grad


def cam_layers(
    model: nn.Module,  # VideoNet
    size: int = 64,  # height and width of the frames the shapes are for, pixels
    num_frames: int | None = None,  # T; the model's own if left out
    inner: bool = False,  # also layers inside the blocks
) -> pd.DataFrame:  # columns layer, channels, height, width; from input to output
    """The layers a class-activation map can be made at."""
    model = bare(model)
    T = num_frames or int(getattr(model, "num_frames", 8))
    parameter = next(model.parameters())
    seen: dict[str, list[tuple[int, ...] | None]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            fits = isinstance(output, Tensor) and output.ndim == 4 and len(output) == T
            seen.setdefault(name, []).append(tuple(output.shape[1:]) if fits else None)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with untouched(model), torch.no_grad():
            model(parameter.new_zeros(1, T, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    rows = [
        (name, *shape)
        for name, _ in model.named_modules()
        if inner or name.count(".") < 2
        for shape in seen.get(name, ())
        if shape and len(seen[name]) == 1  # a layer that runs twice has two answers
    ]
    return pd.DataFrame(rows, columns=["layer", "channels", "height", "width"])


def find_layer(
    model: nn.Module,  # any network
    name: str,  # of one of its modules
) -> nn.Module:
    """The layer of this name; an unknown one is answered with the nearest."""
    modules = {layer: module for layer, module in model.named_modules() if layer}
    if name == LAYER and name not in modules:  # networks of others say which of their layers stands for it
        name = getattr(model, "map_layer", name)
    if name not in modules:
        raise unknown_name("layer", name, [layer for layer in modules if layer.count(".") < 2])
    return modules[name]


def class_index(
    value: int | str,  # index or name
    count: int,  # K
    class_names: Sequence[str] | None,  # K names, if known
) -> int:
    """The index of a class given by index or name."""
    if isinstance(value, str):
        if not class_names:
            raise SettingError(
                f"no class is called {value!r}: the model carries no class names, give an index"
            )
        if value not in class_names:
            raise unknown_name("class", value, class_names, most=10)
        return list(class_names).index(value)
    if not 0 <= value < count:
        raise SettingError(f"class {value} is outside 0..{count - 1}")
    return int(value)


def scale_divisor(
    maps: np.ndarray,  # [T,h,w]
    scale: str,  # "clip", "frame" or "shared"
    top: float | None,  # of "shared"
) -> np.ndarray:  # [T,1,1]
    """The raw value that becomes 1 in each frame."""
    if scale == "clip":
        tops = np.full(len(maps), maps.max())
    elif scale == "frame":
        tops = maps.max((1, 2))
    elif scale != "shared":
        raise SettingError(f"unknown scale {scale!r}; choose 'clip', 'frame' or 'shared'")
    elif top is None or top < maps.max() * (1 - 1e-6):
        raise SettingError(
            f"scale='shared' needs top of at least this clip's maximum {maps.max():.3g}; "
            "top=shared_top(cam_a, cam_b) gives it"
        )
    else:
        tops = np.full(len(maps), top)
    return np.where(tops > 0, tops, 1)[:, None, None]


def enlarge(
    maps: np.ndarray,  # [T,h,w]
    size: tuple[int, int],  # height and width, pixels
) -> np.ndarray:  # [T,height,width]
    """Maps at the size of the frames, bilinear in space; time is left alone."""
    images = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[:, None]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)[:, 0].numpy()


class FoldedClips(nn.Module):
    """A video network that takes its clips as one batch of frames, as the package knows batches of images."""

    def __init__(
        self,
        model: nn.Module,  # VideoNet
        num_frames: int,  # T
    ):
        super().__init__()
        self.model = model
        self.num_frames = num_frames

    def forward(
        self,
        frames: Tensor,  # [N*T,3,H,W]
    ) -> Tensor:  # logits [N,K]
        """Logits of the clips these frames make."""
        return self.model(frames.unflatten(0, (-1, self.num_frames)))


def package_class(
    method: str,  # key of METHODS
) -> Any:
    """The method as the package has it; the package is imported here and nowhere else."""
    try:
        import pytorch_grad_cam
    except ImportError as err:
        raise missing_package("grad-cam", "class-activation maps", "cam") from err
    return getattr(pytorch_grad_cam, METHODS[method])


def check_request(
    clips: Tensor,  # [N,T,3,H,W]
    target: Any,  # one for all clips, or a list of N
    method: str,  # key of METHODS
) -> list[Any]:  # N targets
    """Refuse what no map can be made of, and give every clip its target."""
    if clips.ndim != 5 or clips.shape[2] != 3 or not len(clips):
        raise SettingError(f"clips [N, T, 3, H, W] are needed, got {list(clips.shape)}")
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    targets = list(target) if isinstance(target, list) else [target] * len(clips)
    if len(targets) != len(clips):
        raise SettingError(f"{len(targets)} targets for {len(clips)} clips")
    return targets


def check_finite(
    logits: Tensor,  # of a model
) -> None:
    """No map can be made of NaN."""
    if not logits.isfinite().all():
        raise SettingError("the model's logits are not finite: no map can be made")


def gradients_from_here(
    module: nn.Module,  # layer of a map
    args: tuple,  # what it was given
    output: Any,  # what it answers
) -> Any:
    """A hook on the layer of a map: what comes before it needs no gradient, and is computed without."""
    torch.set_grad_enabled(True)  # for the rest of the pass; whoever makes the map ends it
    return output.detach().requires_grad_().clone() if isinstance(output, Tensor) else output
