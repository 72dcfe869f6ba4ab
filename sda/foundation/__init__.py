"""What every other chapter shares: errors, files, statistics, devices, and what a record says of a run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .devices import (
        device_of,
        dtype_of,
        evaluating,
        pick_device,
        pick_dtype,
        set_layout,
        to_model,
        to_numpy,
    )
    from .errors import (
        DataError,
        DivergedError,
        FolderError,
        MissingPackageError,
        RunError,
        SdaError,
        SettingError,
        UnknownNameError,
        VideoError,
        listed,
        missing_package,
        nearest,
        unknown_name,
    )
    from .files import (
        IMAGE_SUFFIXES,
        VIDEO_SUFFIXES,
        cached_by_file,
        check_folder,
        digest,
        fingerprint,
        lock,
        to_plain,
        write_atomic,
    )
    from .reading import parse_yaml, read_arrays, read_json
    from .runs import (
        check_record,
        commit,
        load_records,
        machine,
        machine_in_words,
        new_record,
        now,
        record_name,
        save_record,
        seed_everything,
        write_record,
    )
    from .statistics import (
        auc,
        bootstrap_interval,
        mcnemar,
        mean_interval,
        rank_rows,
        softmax,
        spearman,
        t_interval,
        wilson_interval,
    )

__all__ = [
    "DataError",
    "DivergedError",
    "FolderError",
    "IMAGE_SUFFIXES",
    "MissingPackageError",
    "RunError",
    "SdaError",
    "SettingError",
    "UnknownNameError",
    "VIDEO_SUFFIXES",
    "VideoError",
    "auc",
    "bootstrap_interval",
    "cached_by_file",
    "check_folder",
    "check_record",
    "commit",
    "device_of",
    "digest",
    "dtype_of",
    "evaluating",
    "fingerprint",
    "listed",
    "load_records",
    "lock",
    "machine",
    "machine_in_words",
    "mcnemar",
    "mean_interval",
    "missing_package",
    "nearest",
    "new_record",
    "now",
    "parse_yaml",
    "pick_device",
    "pick_dtype",
    "rank_rows",
    "read_arrays",
    "read_json",
    "record_name",
    "save_record",
    "seed_everything",
    "set_layout",
    "softmax",
    "spearman",
    "t_interval",
    "to_model",
    "to_numpy",
    "to_plain",
    "unknown_name",
    "wilson_interval",
    "write_atomic",
    "write_record",
]

_ROOMS = (
    "errors",
    "files",
    "reading",
    "runs",
    "statistics",
    "devices",
)  # the quick ones first; torch is the last resort


def __getattr__(name: str) -> Any:
    """Import the room of a public name when it is first asked for: torch and scipy are slow to start."""
    if name in __all__:
        for room in _ROOMS:
            module = import_module(f".{room}", __name__)
            if name in module.__all__:
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
