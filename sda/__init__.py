"""See, measure and change what a video model depends on."""

from .foundation.lazy import lazy_exports

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "SDA": ".networks.blocks",
        "DEPENDENCIES": ".networks.blocks",
        "create_model": ".networks.backbones",
        "list_models": ".networks.backbones",
        "profile": ".networks.cost",
        "insert_sda": ".networks.insert",
        "load_model": ".networks.checkpoints",
        "load_reference": ".networks.checkpoints",
        "open_video": ".data.video",
        "open_dataset": ".data.datasets",
        "ClipReader": ".data.clips",
        "predict": ".testing.evaluate",
        "trace_clips": ".explaining.trace",
        "set_weights": ".explaining.interventions",
        "inspect": ".inspector.app",
    },
)
