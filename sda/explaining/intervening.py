"""One kind of thing: a change of a network or a clip, made inside a `with` block, and the same at random."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Intervention", "changed"]


@dataclass(frozen=True, eq=False)
class Intervention:
    """Something done to a network while it answers."""

    name: str  # in words
    # block name, names of its dependencies, weights -> weights; or clips -> clips
    change: Callable[..., Tensor]
    control: Callable[[int], "Intervention"]  # seed -> the same at random

    def random(
        self,
        seed: int,  # of the draw
    ) -> "Intervention":  # of the same kind, with its choices drawn at random
        """The same intervention at random."""
        return self.control(seed)

    def attach(self, model: nn.Module) -> list:
        """Hooks that make the change; their handles."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it changes")

    def fits(self, model: nn.Module) -> bool:
        """Whether the change can be made in this network; False where `attach` would refuse it."""
        return True

    def on(self, model: nn.Module):
        """Context manager: inside, the model answers under this intervention."""
        return changed(model, self)


@contextmanager
def changed(
    model: nn.Module,  # any network
    *interventions: Intervention,  # made in this order
) -> Iterator[nn.Module]:  # the same network, changed inside only
    """The network under one or several interventions."""
    handles: list = []
    try:
        for one in reversed(interventions):
            handles += one.attach(model)  # the last attached runs first
        yield model
    finally:
        for handle in handles:
            handle.remove()
