"""ImageNet weights go into what a method leaves of a ResNet; a layer that finds none is an error."""

import importlib
import logging
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from ..foundation.errors import DataError, SettingError
from .named import NamedNet
from .registry import BACKBONES, FOREIGN, find_method, offer
from .weights import image_weights, our_name, read_weights

__all__ = ["load_imagenet"]

_logger = logging.getLogger("sda.networks.backbones")
Net = TypeVar("Net", bound=NamedNet)


def _imagenet_state(net: NamedNet, source: bool | str | Path) -> dict[str, Tensor]:
    """Find the weights."""
    method, backbone, _ = offer(net.name)
    if ":" in backbone:
        return importlib.import_module(FOREIGN).image_state(net, backbone, source)
    name = BACKBONES[backbone].weights
    if source is True and name and not find_method(method).torchvision:
        raise SettingError(
            f"torchvision's ImageNet weights do not fit {net.name}",
            subject=net.name,
            remedy="name a file of weights that do",
        )
    if name is None:
        raise SettingError(
            f"there are no ImageNet weights for {net.name}",
            subject=net.name,
            remedy="set pretrained=False (--no-pretrained)",
        )
    if source is True:
        return image_weights(name)
    if not isinstance(source, (str, Path)) or not Path(source).is_file():
        raise FileNotFoundError(f"no file of ImageNet weights at {source}")
    return {our_name(name): tensor for name, tensor in read_weights(source).items()}


def new_parts(
    net: nn.Module,  # network made by `create_model`
) -> set[str]:  # such as "gate"; a parameter is new when one of them is in its dotted name
    """Names of the modules that a network has beyond the image network, and of the classifier."""
    return {"fc", *(part for module in net.modules() for part in getattr(module, "new_parts", ()))}


def load_imagenet(
    net: Net,  # network made by `create_model`; changed in place
    source: bool | str | Path = True,  # True: through torchvision; or a .pth file of the same weights
) -> Net:  # the same network
    """Load ImageNet weights into the part that is a 2-D ResNet; raise when any of that part finds none."""
    state = {k: v for k, v in _imagenet_state(net, source).items() if not k.startswith("fc.")}
    for name, block in net.named_modules():
        mix = getattr(block, "mix", None)
        if mix is not None and (weight := state.pop(f"{name}.conv2.weight", None)) is not None:
            if hasattr(mix, "load_conv2"):
                mix.load_conv2(weight)
    missing, unexpected = net.load_state_dict(state, strict=False)
    ours = [k for k in missing if not set(k.split(".")) & new_parts(net)]
    if ours or unexpected:
        raise DataError(
            f"the ImageNet weights do not fit {net.name}: missing {ours}, unexpected {unexpected}",
            subject=net.name,
        )
    _logger.info("%s: %d tensors from ImageNet, %d new", net.name, len(state), len(missing))
    return net
