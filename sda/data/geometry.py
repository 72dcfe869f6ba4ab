"""Rectangles of clips, the same in every frame: smaller frames without moiré, and what lies inside them."""

import torch
import torch.nn.functional as F

from ..foundation.errors import SettingError


def resize_clip(
    clip: torch.Tensor,  # uint8 [T,H,W,3]
    height: int,  # Wanted height in pixels
    width: int,  # Wanted width in pixels
) -> torch.Tensor:  # uint8 [T,height,width,3]
    """Antialiased bilinear resizing of all frames in one call."""
    if tuple(clip.shape[1:3]) == (height, width):
        return clip
    frames = clip.permute(0, 3, 1, 2)  # [T,3,H,W], channels last in memory: the quick path
    if frames.device.type == "cpu":
        small = F.interpolate(frames, (height, width), mode="bilinear", antialias=True)
    else:  # GPUs have no kernel for bytes
        small = F.interpolate(frames.float(), (height, width), mode="bilinear", antialias=True)
        small = small.round().to(torch.uint8)
    return small.permute(0, 2, 3, 1)


def resize_short(
    clip: torch.Tensor,  # uint8 [T,H,W,3]
    side: int,  # Wanted length of the smaller side in pixels
) -> torch.Tensor:  # uint8 [T,h,w,3] with min(h,w) == side
    """Scale the smaller side to `side`, keeping the aspect."""
    height, width = clip.shape[1:3]
    scale = side / min(height, width)
    return resize_clip(clip, max(side, round(height * scale)), max(side, round(width * scale)))


def crop_clip(
    clip: torch.Tensor,  # uint8 [T,H,W,3]
    top: int,  # First row
    left: int,  # First column
    height: int,  # Rows
    width: int,  # Columns
) -> torch.Tensor:  # uint8 [T,height,width,3], a view
    """The same rectangle of every frame; outside the frame is an error."""
    full_h, full_w = clip.shape[1:3]
    if top < 0 or left < 0 or top + height > full_h or left + width > full_w:
        raise SettingError(
            f"a crop of {width}x{height} at ({left}, {top}) does not fit frames of {full_w}x{full_h}",
            subject=f"{width}x{height}",
            remedy="choose a smaller size or resize the clip first",
        )
    return clip[:, top : top + height, left : left + width]


def centre_crop(
    clip: torch.Tensor,  # uint8 [T,H,W,3]
    size: int,  # Side of the square in pixels
) -> torch.Tensor:  # uint8 [T,size,size,3], a view
    """The square in the middle."""
    height, width = clip.shape[1:3]
    return crop_clip(clip, (height - size) // 2, (width - size) // 2, size, size)
