"""Bytes of clips become floats in one multiplication and one addition, in the layout that is wanted."""

import torch

__all__ = ["denormalise"]


def affine(
    mean: tuple[float, ...],  # Per channel, of values in 0..1
    std: tuple[float, ...],  # Per channel, of values in 0..1
    gain: torch.Tensor | None = None,  # float [3], multiplies values in 0..1
    offset: torch.Tensor | None = None,  # float [3], added to values in 0..1
) -> tuple[torch.Tensor, torch.Tensor]:  # scale [3] and shift [3], for bytes
    """(gain * x / 255 + offset - mean) / std as scale * x + shift."""
    gain = torch.ones(3) if gain is None else gain
    offset = torch.zeros(3) if offset is None else offset
    spread = torch.tensor(std)
    return gain / (255 * spread), (offset - torch.tensor(mean)) / spread


def to_float(
    clip: torch.Tensor,  # uint8 [...,T,H,W,3]
    scale: torch.Tensor,  # float [3] or, for a batch of clips, [B,3]
    shift: torch.Tensor,  # As `scale`
    channels_last: bool = False,  # Colours of a pixel stay side by side in memory, as convolutions like them
    out: torch.Tensor | None = None,  # An earlier result to overwrite where it fits: new memory costs more
) -> torch.Tensor:  # float32 [...,T,3,H,W], where the bytes are
    """Bytes to network input: one multiplication and one addition on float32."""
    planes = clip.movedim(-1, -3)
    fits = (planes.shape, clip.device, 3 if channels_last else 1)
    if out is None or (out.shape, out.device, out.stride(-1)) != fits:
        shape = clip.shape if channels_last else planes.shape
        out = torch.empty(shape, device=clip.device).movedim(-1, -3 if channels_last else -1)
    if scale.ndim == 2 and clip.device.type == "cpu":
        # a clip fits into a processor's cache, a batch does not
        for pixels, gain, offset, result in zip(clip, scale, shift, out, strict=True):
            to_float(pixels, gain, offset, channels_last, result)
        return out
    ones = [1] * (clip.ndim - scale.ndim - 2)
    if channels_last:  # a row of pixels is 3 * width numbers
        width = clip.shape[-2]
        floats = out.movedim(-3, -1).view(*clip.shape[:-2], 3 * width)
        source = clip.flatten(-2)
        scale, shift = (v.repeat(*[1] * (v.ndim - 1), width) for v in (scale, shift))
        scale, shift = (v.view(*v.shape[:-1], *ones, 1, -1) for v in (scale, shift))
    else:
        floats = out
        source = planes.contiguous()  # turning bytes around is cheaper than turning floats
        scale, shift = (v.view(*v.shape[:-1], *ones, 3, 1, 1) for v in (scale, shift))
    floats.copy_(source).mul_(scale.to(clip.device)).add_(shift.to(clip.device))
    return out


def normalise(
    clip: torch.Tensor,  # uint8 [...,T,H,W,3]
    mean: tuple[float, ...],  # Per channel, of values in 0..1
    std: tuple[float, ...],  # Per channel, of values in 0..1
) -> torch.Tensor:  # float32 [...,T,3,H,W]
    """(x / 255 - mean) / std."""
    return to_float(clip, *affine(mean, std))


def denormalise(
    clip: torch.Tensor,  # float [...,3,H,W]
    mean: tuple[float, ...],  # As given to `normalise`
    std: tuple[float, ...],  # As given to `normalise`
) -> torch.Tensor:  # uint8 [...,H,W,3], for looking at
    """Undo `normalise`."""
    centre, spread = (torch.tensor(v, device=clip.device).view(3, 1, 1) for v in (mean, std))
    pixels = (clip.float() * spread + centre) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)


class PixelTransform:
    """`(clip, label, generator) -> (float clip, label)`; kinds differ in what they do to bytes, `pixels`."""

    @property
    def mirrored(self) -> tuple[bool, ...]:
        """Of every crop that a clip is turned into: whether it is a mirror image."""
        return (False,)

    @property
    def short_side(self) -> int | None:
        """Smaller side in pixels down to which frames may be read smaller; None: every pixel is wanted."""
        return None

    def pixels(
        self,
        clip: torch.Tensor,  # uint8 [T,H,W,3]
        label: int = 0,  # Class of the clip
        generator: torch.Generator | None = None,  # Source of everything random
    ) -> tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]:  # uint8 [T,h,w,3], label, scale and shift
        """All but the last step, and the numbers of the last step, `to_float`."""
        raise NotImplementedError

    def __call__(
        self, clip: torch.Tensor, label: int = 0, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, int]:  # float32 [T,3,h,w] and the label it has now
        """Transform one clip."""
        clip, label, scale, shift = self.pixels(clip, label, generator)
        return to_float(clip, scale, shift), label
