"""The clips of a session: those of a dataset, and those that people add by path or in pieces."""

import difflib
import hashlib
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.clips import LoadedClip
from ..data.datasets import ClipDataset
from ..data.lists import Record
from ..foundation.errors import SettingError, UnknownNameError, VideoError
from ..foundation.files import find_clips

log = logging.getLogger(__name__)

CHUNK = 2_000_000  # bytes of one piece; notebook servers cut a connection that sends 10 MB at once
MAX_UPLOAD = 200_000_000  # bytes of one file
MAX_UPLOADS = 1_000_000_000  # bytes of all uploads of one session together

_STARTS = (
    (0, b"\x1a\x45\xdf\xa3", ".mkv"),
    (0, b"\0\0\1\xba", ".mpg"),
    (0, b"\0\0\1\xb3", ".mpg"),
    (8, b"AVI ", ".avi"),
    (0, b"FLV\x01", ".flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wmv"),
    (0, b"OggS", ".ogv"),
    *((4, word, ".mp4") for word in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")),
)


def unknown_clip(clip_id: str, ids: Sequence[str]) -> UnknownNameError:
    """The error that names the nearest clips."""
    near = difflib.get_close_matches(clip_id, ids, n=3, cutoff=0.4) or list(ids[:3])
    return UnknownNameError(
        f"there is no clip {clip_id!r}; nearest: {', '.join(near)}", subject=clip_id, choices=ids
    )


def video_suffix(
    name: str,  # as the person calls the file; for messages only
    content: bytes,  # the file, or its first 400 bytes
) -> str:  # e.g. ".mp4", ".mkv" or ".ts"; SettingError for anything else
    """What kind of video these bytes are."""
    for offset, start, suffix in _STARTS:
        if content[offset : offset + len(start)] == start:
            return suffix
    for before, suffix in (
        (0, ".ts"),
        (4, ".m2ts"),
    ):  # packets of 188 bytes; camcorders put a clock before each
        if content[before : before + 1] == content[188 + 2 * before :][:1] == b"\x47":
            return suffix
    raise SettingError(
        f"{name} is not a video (mp4, mov, mkv, webm, avi, mpg, mts ...), whatever its name says",
        subject=name,
        remedy="choose a video file",
    )


class Remembered:
    """The last results by key; the oldest leaves first."""

    def __init__(self, most: int = 16):  # results that are kept
        self.most = most
        self.kept: OrderedDict[Any, Any] = OrderedDict()

    def get(
        self,
        key: Any,  # what it depends on
        make: Callable[[], Any],  # called when it is not known
    ) -> Any:  # the result
        """A known result, or a new one."""
        if key not in self.kept:
            self.put(key, make())
        self.kept.move_to_end(key)
        return self.kept[key]

    def put(
        self,
        key: Any,  # what it depends on
        result: Any,
    ) -> None:
        """Keep a result."""
        self.kept[key] = result
        if len(self.kept) > self.most:
            self.kept.popitem(last=False)


class Clips:
    """The clips of a dataset, and those that people add."""

    def __init__(
        self,
        data: ClipDataset,  # test clips
        labels: Mapping[str, int | None] | None = None,  # true classes; None: those of the records
        left_out: dict[str, str] | None = None,  # clips that cannot be read, and why
    ):
        if data.train:
            raise SettingError("training clips are random; open the dataset with train=False")
        self.data = data
        self.labels = labels
        self.left_out = left_out or {}
        self.known = {record.id: i for i, record in enumerate(data.records)}
        self.added: dict[str, ClipDataset] = {}
        self.uploaded = 0  # bytes so far
        self.coming: dict[str, list[bytes]] = {}  # name -> pieces of an upload
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.cache = Remembered()

    def ids(self) -> list[str]:
        """All clips, added ones first."""
        return [*reversed(self.added), *self.known]

    def label(self, clip_id: str) -> int | None:
        """The true class, where it is known."""
        if clip_id in self.added:
            return None
        if self.labels is not None:
            return self.labels.get(clip_id)
        return int(self.data.records[self.known[clip_id]].label)

    def check(self, clip_id: str) -> None:
        """Refuse a clip that is not there, with the nearest ones."""
        if clip_id not in self.added and clip_id not in self.known:
            raise unknown_clip(clip_id, self.ids())

    def seen(self, clip_id: str) -> LoadedClip:
        """The clip as a network gets it, decoded once."""
        self.check(clip_id)
        return self.cache.get(clip_id, lambda: self._decoded(clip_id))

    def _decoded(self, clip_id: str) -> LoadedClip:
        data = self.added.get(clip_id, self.data)
        return replace(data.load(self.known.get(clip_id, 0)), label=self.label(clip_id))

    def add_path(self, path: str | Path) -> list[str]:
        """A file, a folder of frames, or all clips below a folder, no true class known; their ids."""
        found = find_clips(Path(path).expanduser())
        ids: list[str] = []
        for one in found:
            try:
                ids.append(self._add(one, one.name))
            except (VideoError, OSError, ValueError) as err:
                if len(found) == 1:
                    raise
                self.left_out[one.name] = str(err)
                log.warning("%s is left out: %s", one, err)
        if not ids:
            raise SettingError(f"no clip of {path} can be read", subject=str(path))
        return ids

    def _add(self, path: Path, name: str) -> str:
        """One clip; its id."""
        clip_id = name
        number = 1
        while clip_id in self.known or clip_id in self.added:
            number += 1
            clip_id = f"{name} ({number})"
        d = self.data
        one = ClipDataset(
            [Record(clip_id, str(path), 0)], d.class_names, d.sampling, d.transform_config or d.transform
        )
        _ = one[0]  # decodes it: an unreadable clip is refused now
        self.added[clip_id] = one
        return clip_id

    def piece(self, name: str, index: int, total: int, size: int, content: bytes) -> str:
        """The next piece of an upload; the clip's id after the last one, before that nothing."""
        if index == 0:
            self._check_size(name, size)
            video_suffix(name, content)
            self.coming[name] = []
        pieces = self.coming.get(name)
        if pieces is None or index != len(pieces) or not 0 <= index < total:
            self.coming.pop(name, None)
            raise SettingError(
                f"a piece of {name} is missing", subject=name, remedy="drop the file here once more"
            )
        pieces.append(content)
        if sum(map(len, pieces)) > size:
            del self.coming[name]
            raise SettingError(f"{name} has more bytes than it said", subject=name)
        return "" if index + 1 < total else self._whole(name, b"".join(self.coming.pop(name)))

    def _check_size(self, name: str, size: int) -> None:
        """Refuse what is too large before it is sent."""
        if size > MAX_UPLOAD:
            raise SettingError(
                f"{name} has {size / 1e6:.0f} MB, at most {MAX_UPLOAD / 1e6:.0f} MB are taken",
                subject=name,
                remedy="cut it, or open the inspector where the file lies: sda app FOLDER",
            )
        if self.uploaded + size > MAX_UPLOADS:
            raise SettingError(
                f"with {name} the uploads have more than {MAX_UPLOADS / 1e6:.0f} MB together",
                subject=name,
                remedy="open the page again to start anew",
            )

    def _whole(self, name: str, content: bytes) -> str:
        """Bytes as a file in a folder of ours."""
        self.uploaded += len(content)
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix="sda-inspector-")
        stem = "".join(c if c.isalnum() else "_" for c in Path(name).stem)[:60] or "clip"
        known = hashlib.sha256(content).hexdigest()[:8]
        file = Path(self.folder.name) / f"{stem}-{known}{video_suffix(name, content)}"
        file.write_bytes(content)
        return self._add(file, name)

    def forget(self, clip_id: str) -> None:
        """Take a clip of one's own away."""
        if clip_id not in self.added:
            raise SettingError(f"{clip_id} is no clip of your own", subject=clip_id)
        del self.added[clip_id]
        self.cache.kept.pop(clip_id, None)

    def close(self) -> None:
        """Remove the files that people uploaded."""
        if self.folder:
            self.folder.cleanup()
        self.added = {}
        self.coming = {}
        self.folder = None
        self.uploaded = 0
