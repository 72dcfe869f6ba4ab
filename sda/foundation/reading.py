"""Files that others may have written: limits before memory, nothing executed, every error names the file."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["read_arrays", "read_json", "parse_yaml"]

TEXT_LIMIT = 1 << 29  # bytes of a JSON file: annotations of a million clips have 150 MB
YAML_LIMIT = 1 << 20  # bytes of a text of settings
ARRAYS_LIMIT = 1 << 33  # bytes that the arrays of a file may take together
DENSEST = 500  # times that scores, traces and masks are larger than their compressed file, at most
FREE = 1 << 25  # bytes below which nobody minds how well they were compressed
DAMAGED = (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, AttributeError)


def read_json(
    path: str | Path,  # text in UTF-8
    remedy: str = "restore it or delete it",  # what can be done when it is damaged
    most: int = TEXT_LIMIT,  # bytes
) -> Any:  # what JSON can hold
    """JSON from a file; DataError when it is none, nested without end, or larger than such files are."""
    path = Path(path)
    if (size := path.stat().st_size) > most:
        raise DataError(f"{path} has {size / 1e6:.0f} MB, {most / 1e6:.0f} are read", subject=str(path))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        what = str(err) if isinstance(err, ValueError) else "nested without end"
        raise DataError(f"{path} is not readable JSON ({what})", subject=str(path), remedy=remedy) from err


class _NoAliases(yaml.SafeLoader):
    """Plain values only: nine lines of aliases to aliases are a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (`*name`) are not read, write the value")
        return super().compose_node(parent, index)


def parse_yaml(
    text: str,  # YAML
    name: str,  # of the file or option it comes from
) -> Any:  # plain values
    """The values in a text; DataError when it is no YAML, has aliases, or is larger than settings are."""
    if len(text) > YAML_LIMIT:
        raise DataError(f"{name} is no list of settings: it has {len(text) / 1e6:.0f} MB", subject=name)
    try:
        return yaml.load(text, Loader=_NoAliases)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        what = "nested without end" if isinstance(err, RecursionError) else " ".join(str(err).split())
        raise DataError(f"{name} is not YAML: {what}", subject=name) from err


def read_arrays(
    path: str | Path,  # .npz
) -> dict[str, np.ndarray]:  # by name
    """The arrays of a file, nothing unpickled; DataError for a damaged file and for one that unpacks to more
    than its size can mean, before any of it is unpacked."""
    import numpy as np

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        _check_claims(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (*DAMAGED, zipfile.BadZipFile, zlib.error, MemoryError) as err:
        what = str(err) or type(err).__name__
        raise DataError(f"{path} is no whole file of arrays ({what})", subject=str(path)) from err


def _check_claims(path: Path) -> None:
    """ValueError when the members of an archive of arrays claim what they cannot hold."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > ARRAYS_LIMIT or total > max(FREE, DENSEST * path.stat().st_size):
            raise ValueError(f"it would unpack to {total / 1e6:.0f} MB")
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename} is packed in another way than numpy does")
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if read is None:
                    raise ValueError(f"{member.filename} has the version {version}")
                shape, _, dtype = read(stream)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if not 0 <= size <= member.file_size:
                raise ValueError(f"{member.filename} claims {size} bytes and has {member.file_size}")
