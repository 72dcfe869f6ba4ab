"""The generated benchmark: twenty classes, their clips, and the truth about every frame."""

from ..foundation.lazy import lazy_exports

# `render` is found in the room of this name, which would hide it here
__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CLASSES": ".classes",
        "PAIRS": ".classes",
        "make_moves": ".assembly",
        "load_truth": ".truth",
    },
)
