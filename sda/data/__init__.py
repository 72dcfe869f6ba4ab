"""From official annotation files and folders of clips to batches; names are imported when they are used."""

from ..foundation.lazy import lazy_exports

_HOMES = {
    ".video": ("Video", "MemoryVideo", "open_video", "scan"),
    ".sampling": ("Sampling",),
    ".transforms": ("TransformConfig", "flip_map"),
    ".crops": ("MultiCrop",),
    ".lists": ("Record", "read_classes", "read_groups", "read_list", "read_pairs"),
    ".annotations": (
        "ListReport",
        "at_native_rate",
        "read_diving48_vocabulary",
        "records_csv",
        "records_diving48",
        "records_epic55",
        "records_folder",
        "records_something_v1",
        "records_something_v2",
        "split_records",
    ),
    ".make": ("count_frames", "write_dataset"),
    ".assembly": ("make_dataset",),
    ".check": ("CheckReport", "check_dataset"),
    ".clips": ("ClipReader", "LoadedClip", "put_back"),
    ".sources": ("read_clip",),
    ".datasets": ("ClipDataset", "clip_loader", "model_input", "open_dataset"),
}
__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {name: module for module, names in _HOMES.items() for name in names}
)
