"""The generated benchmark: twenty classes, their clips, and the truth about every frame."""

from typing import TYPE_CHECKING

from ..foundation.lazy import lazy_exports

if TYPE_CHECKING:
    from .classes import CLASSES, PAIRS
    from .make import make_moves
    from .truth import load_truth

# `render` is found in the room of this name, which would hide it here
__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CLASSES": ".classes",
        "PAIRS": ".classes",
        "make_moves": ".make",
        "load_truth": ".truth",
    },
)
