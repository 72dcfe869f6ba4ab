"""Settings, optimiser, the trainer, exact resume, and callbacks."""

from ..foundation.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "TrainConfig": ".config",
        "RECIPES": ".config",
        "recipe": ".config",
        "load_config": ".config",
        "save_config": ".config",
        "memory_estimate": ".optimiser",
        "Run": ".run",
        "TrainResult": ".run",
        "Callback": ".callbacks",
        "CancelRun": ".callbacks",
        "LivePlot": ".callbacks",
        "Tracker": ".callbacks",
        "Trainer": ".trainer",
        "train": ".trainer",
        "find_lr": ".trainer",
    },
)
