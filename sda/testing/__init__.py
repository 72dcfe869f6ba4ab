"""Scores of clips, accuracies, comparisons, and tables of records."""

from ..foundation.lazy import lazy_exports

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
