"""Scores of clips, accuracies, comparisons, and tables of records."""

from typing import TYPE_CHECKING

from ..foundation.lazy import lazy_exports

if TYPE_CHECKING:
    from .compare import actions, ensemble
    from .evaluate import predict, protocol, slide
    from .predictions import Predictions
    from .results import accuracy_table, results_table

# `evaluate` and `compare` are found in the rooms of these names, which would hide them here
__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Predictions": ".predictions",
        "predict": ".evaluate",
        "slide": ".evaluate",
        "protocol": ".evaluate",
        "ensemble": ".compare",
        "actions": ".compare",
        "accuracy_table": ".results",
        "results_table": ".results",
    },
)
