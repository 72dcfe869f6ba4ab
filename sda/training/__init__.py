"""Settings, optimiser, the trainer, exact resume, and callbacks."""

from ..foundation.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "TrainConfig": ".config",
        "RECIPES": ".recipes",
        "recipe": ".recipes",
        "load_config": ".recipes",
        "save_config": ".recipes",
        "memory_estimate": ".memory",
        "Run": ".run",
        "TrainResult": ".run",
        "Callback": ".callbacks",
        "CancelRun": ".callbacks",
        "LivePlot": ".watching",
        "Tracker": ".watching",
        "Trainer": ".trainer",
        "train": ".trainer",
        "find_lr": ".trainer",
    },
)
