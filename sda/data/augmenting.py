"""What a `TransformConfig` may ask for, and the transforms of torchvision that it asks for."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..foundation.errors import SettingError, unknown_name


def check_settings(config: Any, crops: Sequence[str], colours: Sequence[str]) -> None:
    """Settings of a `TransformConfig` that cannot be meant are errors; the names of crops and colours."""
    if config.crop not in crops:
        raise unknown_name("crop", config.crop, list(crops))
    if config.colour not in colours:
        raise unknown_name("colour", config.colour, list(colours))
    if config.size < 32:
        raise SettingError(f"size={config.size} must be at least 32 pixels", subject="size")
    if config.resize is not None and config.resize < config.size:
        raise SettingError(
            f"resize={config.resize} is smaller than size={config.size}",
            subject="resize",
            remedy="make it at least as large",
        )
    check_augmentation(config)


def check_augmentation(config: Any) -> None:
    """Numbers of the augmentations that cannot be meant are errors."""
    area = config.area
    magnitude = config.rand_augment
    erase = config.erase
    strength = config.strength
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        text = f"area={area} must be two shares of the frame in rising order, e.g. (0.08, 1)"
        raise SettingError(text, subject="area")
    if magnitude not in range(31):
        text = f"rand_augment={magnitude} must be a whole number from 0 (none) to 30"
        raise SettingError(text, subject="rand_augment")
    if not 0 <= erase <= 1:
        raise SettingError(f"erase={erase} is a chance; it must lie between 0 and 1", subject="erase")
    if not 0 <= strength <= 1:
        raise SettingError(f"strength={strength} must lie between 0 and 1", subject="strength")


def borrowed(kind: str, config: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """torchvision's transform with the numbers of a configuration."""
    from torchvision.transforms import v2  # as dear to import as torch itself

    c = config
    paint = [round(255 * m) for m in c.mean]
    if kind == "resized":
        return v2.RandomResizedCrop(c.size, scale=c.area, antialias=True)
    if kind == "jitter":
        return v2.ColorJitter(c.strength, c.strength, c.strength, hue=min(c.strength / 4, 0.5))
    if kind == "erase":
        return v2.RandomErasing(c.erase, value=paint)
    return v2.RandAugment(magnitude=c.rand_augment, interpolation=v2.InterpolationMode.BILINEAR, fill=paint)


def cut_clips(
    clips: torch.Tensor,  # float [B,T,3,H,W]
    labels: torch.Tensor,  # int [B]
    alpha: float = 1.0,  # The area that stays is drawn from Beta(alpha, alpha)
) -> tuple[torch.Tensor, torch.Tensor, float]:  # Mixed clips, partners' labels, share of the own labels
    """CutMix for clips: a rectangle of each shows another clip; drawn from torch's CPU generator."""
    height, width = clips.shape[-2:]
    side = (1 - float(torch._sample_dirichlet(torch.full((2,), float(alpha)))[0])) ** 0.5
    y = int(torch.randint(height, ()))
    x = int(torch.randint(width, ()))  # centre; what leaves the frame is cut off
    top = max(y - int(side * height / 2), 0)
    bottom = min(y + int(side * height / 2), height)
    left = max(x - int(side * width / 2), 0)
    right = min(x + int(side * width / 2), width)
    order = torch.randperm(len(clips)).to(clips.device)
    mixed = clips.clone()
    mixed[..., top:bottom, left:right] = clips[order][..., top:bottom, left:right]
    return mixed, labels[order], 1 - (bottom - top) * (right - left) / (height * width)
