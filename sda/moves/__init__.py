"""The generated benchmark: twenty classes, their clips, and the truth about every frame."""

from typing import TYPE_CHECKING

from ..foundation.lazy import lazy_exports

if TYPE_CHECKING:
    from .classes import CLASSES, PAIRS
    from .make import make_moves
    from .render import render
    from .truth import load_truth

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CLASSES": ".classes",
        "PAIRS": ".classes",
        "make_moves": ".make",
        "render": ".render",
        "load_truth": ".truth",
    },
)
