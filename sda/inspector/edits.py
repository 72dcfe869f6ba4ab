"""What a person changes: edits of selection and frames, their one meaning, and the same at random."""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..explaining.interventions import (
    InputChange,
    Intervention,
    SelectionChange,
    blur,
    freeze,
    reverse,
    shuffle,
)
from ..foundation.errors import SettingError, unknown_name
from ..networks.blocks import DEPENDENCIES, SDA
from ..networks.selection import ScoredAttention, leave_out

Edit = Mapping[str, Any]  # kind, block (index, or None: everywhere), dependency (index), value

KINDS = ("drop", "only", "open", "uniform", "weight", "frames")
FRAMES: dict[str, Callable[..., InputChange]] = {
    "reversed": reverse,
    "shuffled": shuffle,
    "frozen": freeze,
    "blurred": blur,
}
_FIELDS = ("kind", "block", "dependency", "value")
_DEAL = "deal"  # of controls alone: the weights of a block go to dependencies drawn by the seed in `value`


def edit(kind: str, block: int | None = None, dependency: int | None = None, value: Any = None) -> dict:
    """One edit with all its fields."""
    return {"kind": kind, "block": block, "dependency": dependency, "value": value}


def known_name(kind: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a name that does not exist, with the nearest one."""
    if value not in (known := list(choices)):
        raise unknown_name(kind, value, known)


def _text(one: Edit) -> str:
    """An edit as its key writes it."""
    fields = {name: one[name] for name in _FIELDS if one.get(name) is not None}
    if fields["kind"] == "weight":
        value = round(float(fields["value"]), 2)
        fields["value"] = int(value) if value == int(value) else value  # as JavaScript writes numbers
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def edits_key(
    edits: Iterable[Edit],  # in any order
) -> str:  # JSON; the same for lists that mean the same
    """The name of a list of edits, under which its answer is kept."""
    return f"[{','.join(sorted(set(map(_text, edits))))}]"


def check_edits(
    edits: Any,  # what came from outside
    blocks: int,  # P, of the network
) -> list[dict]:  # edits with all their fields
    """Edits that can be made; anything else is refused before a pass."""
    if not isinstance(edits, list) or not all(isinstance(one, dict) for one in edits):
        raise SettingError("edits are a list of objects with kind, block, dependency and value")
    return [_checked(one, blocks) for one in edits]


def _checked(one: dict, blocks: int) -> dict:
    """One edit that can be made."""
    kind = str(one.get("kind"))
    known_name("kind of edit", kind, KINDS)
    value = one.get("value")
    if kind == "frames":
        known_name("change of the frames", value, FRAMES)
        return edit("frames", value=value)
    block = _index("block", one.get("block"), blocks)
    if kind == "uniform":
        return edit(kind, block)
    dependency = _index("dependency", one.get("dependency"), len(DEPENDENCIES))
    if dependency is None:
        raise SettingError(f"the edit {kind!r} needs a dependency", subject="dependency")
    if kind == "weight":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise SettingError(f"a weight lies between 0 and 1, not {value!r}", subject="value")
        return edit(kind, block, dependency, round(float(value), 2))
    return edit(kind, block, dependency)


def _index(name: str, value: Any, count: int) -> int | None:
    """An index below `count`, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise SettingError(f"there is no {name} {value!r}: they count from 0 to {count - 1}", subject=name)
    return value


def in_words(
    edits: Sequence[Edit],  # checked ones
    blocks: Sequence[str],  # P names
    gates: bool = False,  # whether they are independent gates, see `open_weights`
) -> str:  # e.g. "without S122 in layer3.0, frames reversed"
    """A list of edits as a person says it."""
    said = []
    for one in edits:
        where = "everywhere" if one["block"] is None else f"in {blocks[one['block']]}"
        name = "" if one["dependency"] is None else DEPENDENCIES[one["dependency"]]
        said.append(
            {
                "drop": f"without {name} {where}",
                "only": f"only {name} {where}",
                "open": f"{name} open {where}",
                "uniform": f"{'all gates open' if gates else 'uniform weights'} {where}",
                "weight": f"weight {one['value']} for {name} {where}",
                "frames": f"frames {one['value']}",
            }[one["kind"]]
        )
    return ", ".join(said) or "as it is"


# ---- The same at random


def at_random(
    edits: Sequence[Edit],  # checked ones
    seed: int,  # of the draw
    blocks: Mapping[str, SDA],  # of the network, by name
    frames: int,  # T, of the clip
) -> list[dict]:  # as many changes of the same kind in the same blocks
    """The same edits made to dependencies drawn at random in every block.

    Which ones were asked for plays no part, so changes of the same size share their controls. Frames are
    shuffled instead of reversed; another frame stands still; blurred differences lie elsewhere.
    """
    found = [
        edit("frames", value=_random_frames(one["value"], seed, frames))
        for one in edits
        if one["kind"] == "frames"
    ]
    for b, (name, block) in enumerate(blocks.items()):
        own = [DEPENDENCIES.index(d) for d in block.dependencies]
        drawn = deal(seed, name, len(own))
        here = [one for one in edits if one["kind"] != "frames" and one["block"] in (None, b)]
        if any(one["kind"] == "uniform" for one in here):
            found.append(edit(_DEAL, b, value=seed))
        asked = sorted({one["dependency"] for one in here} & set(own))
        instead = {d: own[m] for d, m in zip(asked, drawn, strict=False)}
        found += [
            edit(one["kind"], b, instead[one["dependency"]], one["value"])
            for one in here
            if one["dependency"] in instead
        ]
    return found


@lru_cache(4096)
def deal(seed: int, block: str, count: int) -> list[int]:
    """A permutation of the columns of one block, drawn at random."""
    return np.random.default_rng([seed, zlib.crc32(block.encode())]).permutation(count).tolist()


def _random_frames(value: str, seed: int, frames: int) -> str:
    """A change of the frames and its seed or frame, as `change_frames` reads it."""
    if value in ("reversed", "shuffled"):
        return f"shuffled {seed + 1}"  # 0 is the shuffling that people see
    if value == "frozen":
        return f"frozen {int(np.random.default_rng(seed).integers(frames))}"
    return f"noise {seed}"


# ---- Making them


class Told(NamedTuple):
    """What edits ask of the M weights of one block."""

    dealt: int | None  # seed by which the selection goes to other dependencies
    uniform: bool
    opened: tuple[bool, ...]  # M
    given: tuple[float | None, ...]  # M
    gone: tuple[bool, ...]  # M


def told(
    edits: Sequence[Edit],  # checked ones, or controls
    index: int,  # of the block
    dependencies: Sequence[str],  # M, of the block; edits of others do nothing to it
) -> Told | None:  # None where nothing changes
    """What edits ask of one block; lists that come to the same say the same."""
    here = [one for one in edits if one["kind"] != "frames" and one["block"] in (None, index)]
    if not here:
        return None
    own = [DEPENDENCIES.index(name) for name in dependencies]
    kept = [one["dependency"] for one in here if one["kind"] == "only"]
    apart = bool(set(kept) & set(own))  # a block without what is kept stays as it is
    drops = _named(here, "drop", own)
    gone = tuple(drop or (apart and d not in kept) for d, drop in zip(own, drops, strict=True))
    weights = {one["dependency"]: one["value"] for one in here if one["kind"] == "weight"}
    given = tuple(weights.get(d) for d in own)
    dealt = next((one["value"] for one in here if one["kind"] == _DEAL), None)
    uniform = any(one["kind"] == "uniform" for one in here)
    return _or_none(Told(dealt, uniform, _named(here, "open", own), given, gone))


def _named(edits: Sequence[Edit], kind: str, own: Sequence[int]) -> tuple[bool, ...]:
    """Which dependencies of a block are named by edits of a kind."""
    names = {one["dependency"] for one in edits if one["kind"] == kind}
    return tuple(d in names for d in own)


def _or_none(asked: Told) -> Told | None:
    """None where nothing is asked for."""
    weighed = any(value is not None for value in asked.given)
    some = asked.dealt is not None or asked.uniform or weighed or any(asked.opened + asked.gone)
    return asked if some else None


def meaning(
    edits: Sequence[Edit],  # checked ones, or controls
    blocks: Mapping[str, SDA],  # of the network
) -> tuple:  # the same for lists that do the same
    """What edits come to: the changes of the frames, and what every block is told."""
    frames = tuple(sorted({one["value"] for one in edits if one["kind"] == "frames"}))
    return frames, *(told(edits, b, block.dependencies) for b, block in enumerate(blocks.values()))


def felt(
    asked: tuple,  # from `meaning`
    closed: Sequence[Sequence[bool]],  # by block and its dependencies: what the clip gives no weight
) -> tuple:  # likewise, the same for lists that come to the same for this clip
    """What edits come to for one clip: to leave out what is closed changes nothing.

    That holds until something has changed; what comes behind a change may select something else.
    """
    frames, *blocks = asked
    found: list[Told | None] = []
    changed = bool(frames)
    for one, shut in zip(blocks, closed, strict=True):
        if one is not None and not changed and one.dealt is None and not one.uniform:
            free = [c and v is None and not o for c, v, o in zip(shut, one.given, one.opened, strict=True)]
            gone = tuple(g and not f for g, f in zip(one.gone, free, strict=True))
            one = _or_none(one._replace(gone=gone))
        changed = changed or one is not None
        found.append(one)
    return frames, *found


def frame_changes(edits: Sequence[Edit]) -> list[InputChange]:
    """What the edits do to the frames: their order first, then what they look like."""
    changes: list[InputChange] = []
    for value in sorted(one["value"] for one in edits if one["kind"] == "frames"):
        name, _, number = value.partition(" ")
        if name == "noise":
            noise = blur().random(int(number))
            assert isinstance(noise, InputChange)  # the control of a change of the clips
            changes.append(noise)
        elif number:
            changes.append(FRAMES[name](int(number)))
        else:
            changes.append(FRAMES[name]())
    return sorted(changes, key=lambda change: "blur" in change.name)


def open_weights(
    block: SDA,
) -> tuple[float, ...] | None:  # M; None where the weights of a row share their sum
    """What each dependency weighs when its gate is wide open, where every gate stands for itself."""
    attention = block.attention
    if not isinstance(attention, ScoredAttention) or attention.kind != "gated" or attention.normalised:
        return None
    return tuple((attention.scale / len(block.dependencies)).tolist())


def changed_weights(
    own: Tensor,  # weights as selected [N,M]
    asked: Told,  # of the block
    block: str,  # its name
    wide: Sequence[float] | None = None,  # see `open_weights`
) -> Tensor:  # as changed [N,M]
    """Make a block's weights what is asked for; nothing that is shut opens unless that is asked for."""
    M = own.shape[1]
    full = own.new_tensor([1 / M] * M if wide is None else wide)  # equal weights, or every gate wide open
    weights = own
    if asked.dealt is not None:
        weights = (own / full)[:, deal(asked.dealt, block, M)] * full
    if asked.uniform:
        weights = full.expand_as(own)
    given = [
        full[m].item() if asked.opened[m] and value is None else value for m, value in enumerate(asked.given)
    ]
    fixed = torch.tensor([value is not None for value in given], device=own.device)
    new = own.new_tensor([value or 0 for value in given])
    if fixed.any() and wide is None:
        rest = weights * ~fixed
        left = (1 - new.sum()).clamp_min(0)
        weights = new + left * rest / rest.sum(1, keepdim=True).clamp_min(1e-30)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-30)
    elif fixed.any():
        weights = torch.where(fixed, new, weights)
    gone = torch.tensor(asked.gone, device=own.device)
    return leave_out(weights, ~gone) if gone.any() else weights


def edited_weights(
    own: np.ndarray,  # weights as selected [P,4], NaN where absent
    edits: Sequence[Edit],  # checked ones
    blocks: Mapping[str, SDA],  # of the network
) -> np.ndarray:  # [P,4], as edits of a block make them; the page shows the same
    """The weights of one clip as a person changed them."""
    found = own.copy()
    for b, (name, block) in enumerate(blocks.items()):
        asked = told(edits, b, block.dependencies)
        if asked is not None:
            there = [DEPENDENCIES.index(d) for d in block.dependencies]
            row = torch.from_numpy(own[b : b + 1, there])
            found[b, there] = changed_weights(row, asked, name, open_weights(block))[0].numpy()
    return found


def variant(
    edits: Sequence[Edit],  # checked ones, or controls
    blocks: Mapping[str, SDA],  # of the network
) -> list[Intervention]:  # made together
    """A list of edits as interventions, at those blocks alone that it changes."""
    asked = {
        name: found
        for b, (name, block) in enumerate(blocks.items())
        if (found := told(edits, b, block.dependencies)) is not None
    }
    wide = {name: open_weights(block) for name, block in blocks.items() if name in asked}

    def change(block: str, names: tuple[str, ...], weights: Tensor) -> Tensor:
        return changed_weights(weights, asked[block], block, wide[block])

    def again(seed: int) -> SelectionChange:
        raise SettingError("controls are lists of edits, see `at_random`")

    inside = [SelectionChange("edits", change, again, list(asked))] if asked else []
    return [*frame_changes(edits), *inside]
