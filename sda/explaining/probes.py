"""Changes of a clip: its frames in another order, its tiles exchanged, blur; each with the same at random."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ..foundation.errors import SettingError
from .intervening import Intervention

__all__ = ["InputChange", "blur", "drop_frames", "freeze", "patch_shuffle", "reverse", "shuffle"]


@dataclass(frozen=True, eq=False)
class InputChange(Intervention):
    """A change of the clips [N,T,3,H,W]: call it on clips, or use it like any intervention."""

    def __call__(self, clips: Tensor) -> Tensor:
        """The changed clips."""
        if clips.ndim != 5:
            raise SettingError(
                f"clips [N, T, 3, H, W] are needed, got {list(clips.shape)}",
                remedy="a single clip is clip[None]",
            )
        return self.change(clips)

    def attach(self, model: nn.Module) -> list:
        """One hook in front of the network."""
        return [
            model.register_forward_pre_hook(lambda module, args: (self(args[0]), *args[1:]), prepend=True)
        ]


def _reordered(
    name: str, order: Callable[[int], Sequence[int]], control: Callable[[int], InputChange]
) -> InputChange:
    """Frames taken in the order that is given for a length T."""
    return InputChange(name, lambda clips: clips[:, list(order(clips.shape[1]))], control)


def reverse() -> InputChange:  # control: shuffled frames
    """The clip backwards."""
    return _reordered("reversed", lambda T: range(T)[::-1], shuffle)


def shuffle(
    seed: int = 0,  # of the permutation, the same one for all clips
) -> InputChange:  # control: other permutations
    """The frames in a random order."""

    def order(T: int) -> list[int]:
        return np.random.default_rng(seed).permutation(T).tolist()

    return _reordered(f"shuffled frames ({seed})", order, shuffle)


def _frame(t: int, T: int) -> int:
    """An index into T frames, counted from the end when negative."""
    if not -T <= t < T:
        raise SettingError(f"there is no frame {t} in a clip of {T} frames", subject=str(t))
    return t % T


def freeze(
    frame: int = 0,  # which frame stands still, 0-based, negative from the end
) -> InputChange:  # control: a random frame
    """One frame in place of all."""

    def control(seed: int) -> InputChange:
        def order(T: int) -> list[int]:
            return [int(np.random.default_rng(seed).integers(T))] * T

        return _reordered(f"a random frame frozen ({seed})", order, control)

    return _reordered(f"frame {frame} frozen", lambda T: [_frame(frame, T)] * T, control)


def _without(T: int, gone: Sequence[int]) -> list[int]:
    """Frames with the one before in place of each lost one, or the first one after it at the start."""
    lost = {_frame(t, T) for t in gone}
    left = [t for t in range(T) if t not in lost]
    if not left:
        text = f"all {T} frames would be dropped"
        raise SettingError(text, subject="frames", remedy="leave at least one")
    return [max((t for t in left if t <= now), default=left[0]) for now in range(T)]


def drop_frames(
    *frames: int,  # which frames are lost, 0-based
) -> InputChange:  # control: as many random ones
    """Lost frames; the last one before stands still in their place (the first one after, at the start)."""
    if not frames:
        raise SettingError("name at least one frame to drop")

    def control(seed: int) -> InputChange:
        def order(T: int) -> list[int]:
            count = min(len(set(frames)), T)
            return _without(T, np.random.default_rng(seed).choice(T, count, replace=False).tolist())

        return _reordered(f"{len(frames)} random frames dropped ({seed})", order, control)

    return _reordered(f"frames {', '.join(map(str, frames))} dropped", lambda T: _without(T, frames), control)


def patch_shuffle(
    grid: int = 4,  # tiles per side
    seed: int = 0,  # of the permutation, the same one for all frames and clips
) -> InputChange:  # control: other permutations
    """Tiles of every frame exchanged."""

    def change(clips: Tensor) -> Tensor:
        H, W = clips.shape[-2:]
        if H % grid or W % grid:
            raise SettingError(
                f"frames of {H}x{W} pixels do not divide into {grid}x{grid} tiles", subject="grid"
            )
        tiles = clips.unflatten(-2, (grid, -1)).unflatten(-1, (grid, -1)).transpose(-3, -2)  # [...,g,g,h,w]
        order = np.random.default_rng(seed).permutation(grid * grid).tolist()
        tiles = tiles.flatten(-4, -3)[..., order, :, :].unflatten(-3, (grid, grid))
        return tiles.transpose(-3, -2).flatten(-2).flatten(-3, -2)

    def control(other: int) -> InputChange:
        return patch_shuffle(grid, other)

    return InputChange(f"{grid}x{grid} tiles shuffled ({seed})", change, control)


def blur(
    sigma: float = 2.0,  # standard deviation, pixels
) -> InputChange:  # control: the same differences in random places
    """Every frame blurred."""
    from torchvision.transforms.v2.functional import gaussian_blur

    if not sigma > 0:
        raise SettingError(f"sigma must be positive, got {sigma}", subject="sigma")
    size = 2 * math.ceil(2 * sigma) + 1

    def soft(clips: Tensor) -> Tensor:
        return gaussian_blur(clips.flatten(0, 1), [size, size], [sigma, sigma]).view_as(clips)

    def control(seed: int) -> InputChange:
        def change(clips: Tensor) -> Tensor:
            order = np.random.default_rng(seed).permutation(clips.shape[-1] * clips.shape[-2])
            return clips + (soft(clips) - clips).flatten(-2)[..., order].view_as(clips)

        return InputChange(f"as much noise as blur {sigma:g} changes ({seed})", change, control)

    return InputChange(f"blur {sigma:g}", soft, control)
