"""The block, the networks around it, what they cost, and the files they are kept in."""

from ..foundation.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DEPENDENCIES": ".blocks",
        "SDA": ".blocks",
        "fold_clips": ".blocks",
        "unfold_clips": ".blocks",
        "VideoNet": ".backbones",
        "create_model": ".backbones",
        "list_models": ".backbones",
        "load_imagenet": ".backbones",
        "model_options": ".backbones",
        "register_method": ".backbones",
        "sda_blocks": ".backbones",
        "stage_of": ".backbones",
        "insert_sda": ".insert",
        "Profile": ".cost",
        "profile": ".cost",
        "prepare_for_inference": ".inference",
        "ModelCard": ".checkpoints",
        "load_model": ".checkpoints",
        "load_reference": ".checkpoints",
        "load_weights": ".checkpoints",
        "read_card": ".checkpoints",
        "save_model": ".checkpoints",
    },
)
