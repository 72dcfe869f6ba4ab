"""What changes of a selection share: names that are there, weights that are one, columns dealt at random."""

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from ..foundation.errors import SettingError, unknown_name

Change = Callable[[str, tuple[str, ...], Tensor], Tensor]  # block, names of its dependencies, weights [B,M]


def _deal(seed: int, block: str, count: int) -> list[int]:
    """A permutation of the columns of one block, drawn at random."""
    return np.random.default_rng([seed, zlib.crc32(block.encode())]).permutation(count).tolist()


def to_other_dependencies(
    change: Change,  # of the weights
    seed: int,  # of the permutations
) -> Change:
    """The same change, made to dependencies drawn at random."""

    def at_random(block: str, names: tuple[str, ...], weights: Tensor) -> Tensor:
        deal = _deal(seed, block, len(names))
        back = np.argsort(deal).tolist()
        return change(block, names, weights[:, deal])[:, back]

    return at_random


def with_weights_dealt_out(
    change: Change,  # of the weights
    seed: int,  # of the permutations
) -> Change:
    """The same change, its weights then given to dependencies drawn at random."""

    def at_random(block: str, names: tuple[str, ...], weights: Tensor) -> Tensor:
        return change(block, names, weights)[:, _deal(seed, block, len(names))]

    return at_random


def known(
    names: Sequence[str],  # of dependencies; UnknownNameError names one that is not there
    present: Sequence[str],  # those of the block
    block: str = "the block",  # its name
) -> list[bool]:
    """Which of the present dependencies are named; a name that is not there is refused."""
    for name in names:
        if name not in present:
            raise unknown_name(f"dependency of {block}", name, present)
    return [name in names for name in present]


def checked_weights(
    weights: Mapping[str, float] | Sequence[float],  # by name (others 0), or one per dependency
    names: Sequence[str],  # of the dependencies
) -> list[float]:  # SettingError names what is wrong
    """Weights that make a selection: one per dependency, not negative, sum 1."""
    if isinstance(weights, Mapping):
        known(list(weights), names)
        weights = [weights.get(name, 0.0) for name in names]
    values = [float(value) for value in weights]
    if len(values) != len(names):
        raise SettingError(
            f"{len(values)} weights for {len(names)} dependencies",
            subject="weights",
            remedy=f"give one each for {', '.join(names)}",
        )
    for name, value in zip(names, values, strict=True):
        if not value >= 0:  # NaN too
            raise SettingError(f"the weight of {name} is {value:g}; none may be negative", subject=name)
    if abs(sum(values) - 1) > 1e-4:
        raise SettingError(f"the weights sum to {sum(values):g}, not to 1", subject="weights")
    return values
