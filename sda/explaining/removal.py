"""Places of clips taken away in an order: cells or frames, what stands in for them, and the controls."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ..foundation.errors import SettingError, unknown_name
from .interventions import blur


def cell_scores(
    maps: np.ndarray,  # maps [N,T,h,w]
    grid: int = 16,  # cells per side
) -> np.ndarray:  # [N,T,grid,grid]
    """Maps on a common grid: enlarged smoothly, then averaged over cells."""
    N, T = maps.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(maps, np.float32)).flatten(0, 1)[:, None]
    side = max(4 * grid, *maps.shape[2:])
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(x, grid).unflatten(0, (N, T))[:, :, 0].numpy()


def ranks_of(
    scores: np.ndarray,  # [N,...] numbers, high ones first
    seed: int = 0,  # of the order among equals
) -> np.ndarray:  # [N,...] ranks, 0 for the highest of each row
    """The place of every cell in its clip's order; ties are broken at random."""
    flat = scores.reshape(len(scores), -1)
    lot = np.random.default_rng(seed).permuted(np.tile(np.arange(flat.shape[1]), (len(flat), 1)), axis=1)
    order = np.lexsort((lot, -flat), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], 1)
    return ranks.reshape(scores.shape)


def centre_prior(
    shape: tuple[int, int, int, int],  # N, T, h, w
) -> np.ndarray:  # [N,T,h,w], highest in the middle of the middle frame
    """A map that knows only that things are filmed in the middle, and happen halfway through."""
    N, T, h, w = shape
    t, y, x = (np.abs(np.linspace(-1, 1, n)) if n > 1 else np.zeros(1) for n in (T, h, w))
    return np.tile(
        np.exp(-2 * (y[:, None] ** 2 + x**2))[None] * np.exp(-0.1 * t**2)[:, None, None], (N, 1, 1, 1)
    )


def _blurred(clips: Tensor, strength: float = 0.1) -> Tensor:
    """Clips without detail: a blur whose width is a tenth of the frame."""
    return blur(strength * min(clips.shape[-2:]))(clips)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {  # what stands where a cell was taken away
    "blur": _blurred,
    "mean": lambda clips: clips.mean((1, 3, 4), keepdim=True).expand_as(clips),
}


def without_cells(
    clips: Tensor,  # [N,T,3,H,W]
    gone: np.ndarray,  # bool [N,T,g,g]: cells to take away
    fill: str = "blur",  # key of FILLS
) -> Tensor:  # [N,T,3,H,W]
    """Clips with some cells replaced."""
    return mixed(clips, filled_by(clips, fill), gone)


def filled_by(
    clips: Tensor,  # [N,T,3,H,W]
    fill: str,  # key of FILLS
) -> Tensor:  # [N,T,3,H,W]
    """What stands in the places that are taken away."""
    if fill not in FILLS:
        raise SettingError(f"unknown fill {fill!r}; choose {' or '.join(FILLS)}")
    return FILLS[fill](clips)


def mixed(
    clips: Tensor,  # [N,T,3,H,W]
    filled: Tensor,  # of `filled_by`
    gone: np.ndarray,  # bool [N,T,g,g]
) -> Tensor:  # [N,T,3,H,W]
    """The clips, and in the cells that are gone what fills them."""
    mask = torch.from_numpy(gone).to(clips).flatten(0, 1)[:, None]
    mask = F.interpolate(mask, size=clips.shape[-2:], mode="nearest").unflatten(0, clips.shape[:2])
    return torch.lerp(clips, filled, mask)


def frame_scores(
    maps: np.ndarray,  # maps [N,T,h,w]
) -> np.ndarray:  # [N,T]
    """Positive evidence of every frame."""
    return np.maximum(maps, 0).sum((2, 3))


def only_frames(
    clips: Tensor,  # [N,T,3,H,W]
    kept: np.ndarray,  # bool [N,T], at least one frame per clip
) -> Tensor:  # [N,T,3,H,W]
    """Clips whose lost frames are replaced by the nearest one left, the earlier of two."""
    if not kept.any(1).all():
        raise SettingError("a clip needs at least one frame")
    T = clips.shape[1]
    away = np.abs(np.arange(T)[:, None] - np.arange(T)) + np.where(kept, 0, 2 * T)[:, None, :]  # [N,T,T]
    return torch.stack([clip[order] for clip, order in zip(clips, away.argmin(2).tolist(), strict=True)])


# Metrics of our own: grad-cam's (ROAD among them) take pixels out of single pictures; a clip loses places
# over time or whole frames, beside a random order and the middle, and is asked in batches.
def state_after(
    clips: Tensor,  # [N,T,3,H,W]
    filled: Tensor | None,  # of `filled_by`; None over frames
    ranks: np.ndarray,  # of the places, see `ranks_of`
    share: float,  # of the places, 0..1
    curve: str,  # "deletion" or "insertion"
) -> Tensor:  # [N,T,3,H,W]
    """The clips after a share of places (or of frames, where nothing fills them) is gone, or is back."""
    chosen = ranks < round(share * ranks[0].size)
    gone = chosen if curve == "deletion" else ~chosen
    return only_frames(clips, ~gone) if filled is None else mixed(clips, filled, gone)


def steps_of(
    places: int,  # of a clip
    steps: int,  # of a curve
    over: str,  # "space" or "frames"
) -> list[tuple[str, float]]:
    """The curves and the shares at which they are read; a clip keeps at least one frame."""
    if steps < 1:
        raise SettingError(f"steps must be at least 1, got {steps}", subject="steps")
    counts = np.unique(np.linspace(0, places, min(steps, places) + 1).round().astype(int))
    shares = [float(count / places) for count in counts]
    deleted, inserted = (shares[:-1], shares[1:]) if over == "frames" else (shares, shares)
    return [("deletion", share) for share in deleted] + [("insertion", share) for share in inserted]


def orders_of(
    maps: Mapping[str, np.ndarray],  # by name, [N,T,h,w]
    over: str,  # "space" or "frames"
    grid: int,  # cells per side
    draws: int,  # random orders
    seed: int,  # of the first one
) -> dict[tuple[str, int], np.ndarray]:
    """Ranks of the places under the maps, the centre prior and at random: (order, draw) -> [N,...]."""
    if over not in ("space", "frames"):
        raise unknown_name("over", over, ("space", "frames"))

    def scores(values: np.ndarray) -> np.ndarray:
        return cell_scores(values, grid) if over == "space" else frame_scores(values)

    found = {(name, 0): ranks_of(scores(values), seed) for name, values in maps.items()}
    found["centre", 0] = ranks_of(scores(centre_prior(next(iter(maps.values())).shape)), seed)
    nothing = np.zeros_like(found["centre", 0], float)
    return found | {("random", d): ranks_of(nothing, seed + 1 + d) for d in range(draws)}


def checked_maps(
    maps: np.ndarray | Mapping[str, np.ndarray],  # [N,T,h,w], or several by name
    clips: Tensor,  # [N,T,3,H,W]
) -> dict[str, np.ndarray]:
    """Maps by name that fit the clips; a single one is called map."""
    named = dict(maps) if isinstance(maps, Mapping) else {"map": maps}
    if not named or {"centre", "random"} & set(named):
        taken = next((name for name in ("centre", "random") if name in named), "maps")
        raise SettingError("name one map or more, none 'centre' or 'random'", subject=taken)
    for name, values in named.items():
        if values.ndim != 4 or values.shape[:2] != clips.shape[:2]:
            raise SettingError(
                f"maps {list(values.shape)} do not fit clips {list(clips.shape)}",
                subject=name,
                remedy="give one map per frame",
            )
        if not np.isfinite(values).all():
            raise SettingError(f"the values of {name} are not finite", subject=name)
    return named


def long_table(
    rows: list[tuple],  # curve, order, draw, share, probabilities [N]
    over: str,  # "space" or "frames"
) -> pd.DataFrame:
    """One row per clip and step."""
    parts = [
        pd.DataFrame(
            {
                "over": over,
                "curve": curve,
                "order": order,
                "draw": draw,
                "share": share,
                "clip": np.arange(len(p)),
                "probability": p,
            }
        )
        for curve, order, draw, share, p in rows
    ]
    return pd.concat(parts, ignore_index=True)


def areas_in_words(
    table: pd.DataFrame,  # of `curve_areas`
    over: str,  # "space" or "frames"
    order: str,  # the one to compare
) -> str:  # one sentence
    """Whether the marked places matter to the answer."""
    row = table.loc[order]
    if "beyond random" not in table or np.isnan(row["low"]):
        return f"Too few clips or no random order (n = {int(row['n'])}): nothing can be said."
    places = "places" if over == "space" else "frames"
    compared = (
        f"The {places} marked matter more than random ones"
        if row["low"] > 0
        else f"The {places} marked matter less than random ones"
        if row["high"] < 0
        else f"The {places} marked matter no more than random ones"
    )
    centre = (
        " (the centre does as well)"
        if 0 < row["low"] and table.loc["centre", "beyond random"] >= row["low"]
        else ""
    )
    return (
        f"{compared}{centre}: insertion minus deletion {row['difference']:+.3f}, beyond random "
        f"{row['beyond random']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], n = {int(row['n'])}."
    )
