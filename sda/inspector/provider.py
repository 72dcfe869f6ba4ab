"""Where the answers come from: the clips of a dataset, and what one network or two did with them."""

import difflib
import hashlib
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.clips import ClipReader, LoadedClip
from ..data.datasets import ClipDataset, open_dataset
from ..data.lists import Record, read_classes, read_pairs
from ..data.sampling import Sampling
from ..data.transforms import TransformConfig
from ..explaining.attribution import Attribution
from ..explaining.cam import ClipCam, cam_layers, clip_cam
from ..explaining.checks import CheckInput, FaithfulnessReport, check_steps, no_blocks
from ..explaining.effects import Effect, ablation_map, measure
from ..explaining.faithfulness import clip_masks
from ..explaining.trace import Trace, trace_clips
from ..foundation.errors import DataError, SettingError, UnknownNameError, VideoError
from ..foundation.files import find_clips, fingerprint
from ..foundation.statistics import softmax
from ..networks.backbones import VideoNet, sda_blocks, stage_of
from ..networks.checkpoints import ModelCard, load_model
from ..networks.inference import prepare_for_inference
from ..testing.evaluate import evaluate
from .state import MAP_OPTIONS, known_name, make_intervention

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one network selected and answered for one clip, averaged over its views."""

    weights: np.ndarray  # [R,4]
    contribution: np.ndarray  # [R,4]
    entropy: np.ndarray  # [R]
    probabilities: np.ndarray  # [K]
    blocks: list[str]  # R names
    views: int  # views behind the means
    spread: float  # largest range of a weight over the views


def trace_any(
    model: VideoNet,  # any
    data: ClipDataset,  # test clips
) -> Trace:  # without blocks where the network has none
    """A trace, or for a network without SDA blocks just its answers under the same names."""
    if sda_blocks(model):
        return trace_clips(model, data)
    found = evaluate(model, data, progress=False)
    N, V, K = found.logits.shape
    per_dependency = np.zeros((N * V, 0, 4), np.float32)
    per_block = np.zeros((N * V, 0), np.float32)
    return Trace(
        weights=per_dependency,
        scores=per_dependency,
        response_norm=per_dependency,
        gate_mean=per_block,
        gate_std=per_block,
        logits=found.logits.reshape(N * V, K),
        videos=list(np.repeat(found.ids, V)),
        views=list(range(V)) * N,
        labels=[int(k) for k in np.repeat(found.labels, V)],
        blocks=[],
        class_names=found.class_names,
        model=model.name,
        fingerprint=fingerprint(model),
    )


def chosen_of(
    trace: Trace,  # any trace
    clip_id: str,  # one of its videos
) -> Chosen:  # means over the clip's views
    """What one clip selected."""
    rows = [i for i, video in enumerate(trace.videos) if video == clip_id]
    if not rows:
        raise unknown_clip(clip_id, trace.videos)
    weights = trace.weights[rows]
    spread = float(np.nanmax(np.ptp(weights, axis=0))) if weights.size and len(rows) > 1 else 0.0
    return Chosen(
        weights.mean(0),
        trace.contribution()[rows].mean(0),
        trace.entropy()[rows].mean(0),
        softmax(trace.logits[rows]).mean(0),
        trace.blocks,
        len(rows),
        spread,
    )


def unknown_clip(clip_id: str, ids: Sequence[str]) -> UnknownNameError:
    """The error that names the nearest clips."""
    near = difflib.get_close_matches(clip_id, ids, n=3, cutoff=0.4) or list(ids[:3])
    return UnknownNameError(
        f"there is no clip {clip_id!r}; nearest: {', '.join(near)}", subject=clip_id, choices=ids
    )


MAX_UPLOAD = 8_000_000  # bytes; notebook servers cut a connection that sends 10 MB at once
MAX_UPLOADS = 100_000_000  # bytes of all uploads of one panel together


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


def video_suffix(
    name: str,  # as the person calls the file; for messages only
    content: bytes,  # the file
) -> str:  # e.g. ".mp4", ".mkv" or ".ts"; SettingError for anything else
    """What kind of video these bytes are."""
    if len(content) > MAX_UPLOAD:
        raise SettingError(
            f"{name} has {len(content) / 1e6:.0f} MB, at most {MAX_UPLOAD / 1e6:.0f} MB are taken; "
            "cut it, or give its path instead"
        )
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
        f"{name} is not a video (mp4, mov, mkv, webm, avi, mpg, mts ...), whatever its name says"
    )


class Remembered:
    """The last results by key; the oldest leaves first."""

    def __init__(self, most: int = 64):  # results that are kept
        self.most = most
        self.kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def get(
        self,
        key: tuple[Any, ...],  # what it depends on
        make: Callable[[], Any],  # called when it is not known
    ) -> Any:  # the result
        """A known result, or a new one."""
        if key not in self.kept:
            self.kept[key] = make()
            if len(self.kept) > self.most:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


class Clips:
    """The clips of a dataset, and those that people add."""

    def __init__(self, data: ClipDataset, labelled: bool = True):
        self.data = data
        self.labelled = labelled  # whether anybody knows the classes of its clips
        self.uploaded = 0  # bytes so far
        self.known = {record.id: i for i, record in enumerate(data.records)}
        self.added: dict[str, ClipDataset] = {}
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def ids(self) -> list[str]:
        """All clips, added ones last."""
        return [*self.known, *self.added]

    def place(self, clip_id: str) -> tuple[ClipDataset, int]:
        """The dataset and the position of a clip."""
        if clip_id in self.added:
            return self.added[clip_id], 0
        if clip_id not in self.known:
            raise unknown_clip(clip_id, self.ids())
        return self.data, self.known[clip_id]

    def add_path(self, path: str | Path) -> str:
        """A file, a folder of frames, or all clips below a folder, no true class known; id of the first."""
        found = find_clips(Path(path).expanduser())
        ids = []
        for one in found:
            try:
                ids.append(self._add(one))
            except (VideoError, OSError, ValueError) as err:
                if one == found[-1] and not ids:
                    raise
                log.warning("%s is left out: %s", one, err)
        return ids[0]

    def _add(self, path: Path) -> str:
        """One clip; its id."""
        clip_id = path.name
        while clip_id in self.known or clip_id in self.added:
            clip_id = f"my {clip_id}"
        d = self.data
        seen_through = d.transform_config or d.transform
        one = ClipDataset([Record(clip_id, str(path), 0)], d.class_names, d.sampling, seen_through)
        _ = one[0]  # decodes it: an unreadable clip is refused now
        self.added[clip_id] = one
        return clip_id

    def add(self, name: str, content: bytes) -> str:
        """Bytes as a file in a folder of ours."""
        suffix = video_suffix(name, content)
        if self.uploaded + len(content) > MAX_UPLOADS:
            raise SettingError(
                f"with {name} the uploads have more than {MAX_UPLOADS / 1e6:.0f} MB together",
                subject=name,
                remedy="open the page again to start anew",
            )
        self.uploaded += len(content)
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix="sda-inspector-")
        stem = "".join(c if c.isalnum() else "_" for c in Path(name).stem)[:60] or "clip"
        file = Path(self.folder.name) / f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}"
        file.write_bytes(content)
        return self.add_path(file)

    def seen(self, clip_id: str) -> LoadedClip:
        """Decode a clip; of one that was added nobody knows the class."""
        data, i = self.place(clip_id)
        loaded = data.load(i)
        return loaded if self.labelled and clip_id not in self.added else replace(loaded, label=None)

    def close(self) -> None:
        """Remove the files that people uploaded."""
        if self.folder:
            self.folder.cleanup()
        self.added = {}
        self.folder = None
        self.uploaded = 0


class ModelProvider:
    """A network, a dataset, and everything the panel asks of them."""

    def __init__(
        self,
        model: VideoNet,
        data: ClipDataset,
        trace: Trace | None = None,
        other: VideoNet | None = None,
        name: str = "",
        pairs: Sequence[tuple[str, str]] = (),
        truth: str | Path | None = None,
        labelled: bool = True,
    ):
        if data.train:
            raise SettingError("training clips are random; open the dataset with train=False")
        self.model = model
        self.other_model = other
        self.clips = Clips(data, labelled)
        self.name = name or model.name
        self.class_names = list(data.class_names)
        self.cache = Remembered()
        self.pairs = pairs
        self.draws = 10
        self.known: dict[str, Attribution] = {}  # what leaving out costs, by clip
        self.truth = truth  # folder that holds truth/, see `clip_masks`
        self.where: dict[str, str] = {}  # what was opened, for the panel to show
        self.trial: dict[str, Any] = {}  # further options of `CheckInput`
        self.left_out: dict[str, str] = {}  # clips that cannot be read, and why
        self.trace = trace_any(model, data) if trace is None else trace
        self.trace.check_model(model)
        if missing := [v for v in self.clips.known if v not in set(self.trace.videos)]:
            raise SettingError(
                f"the trace lacks {len(missing)} of {len(self.clips.known)} clips, the first is "
                f"{missing[0]}; trace this dataset again"
            )
        self.other = None if other is None else trace_any(other, data)
        if not labelled:  # the numbers in the records stand for nothing
            self.trace = replace(self.trace, labels=None)
            self.other = None if self.other is None else replace(self.other, labels=None)

    def ids(self) -> list[str]:
        """All clips, one's own last."""
        return self.clips.ids()

    def seen(self, clip_id: str) -> LoadedClip:
        """The clip as the network gets it."""
        return self.cache.get(("seen", clip_id), lambda: self.clips.seen(clip_id))

    def add(self, name: str, content: bytes) -> str:
        """Take an uploaded file; its id."""
        return self.clips.add(name, content)

    def add_path(self, path: str | Path) -> str:
        """Take a file or a folder of frames of this machine; its id."""
        return self.clips.add_path(path)

    def _traced(self, clip_id: str, other: bool) -> Trace:
        """The trace that has this clip: the dataset's, or one made for a clip of one's own."""
        model = self._model(other)
        trace = self.other if other else self.trace
        if clip_id not in self.clips.added and trace is not None:
            return trace
        data = self.clips.added[clip_id]
        return self.cache.get(("trace", clip_id, other), lambda: trace_any(model, data))

    def _model(self, other: bool) -> VideoNet:
        """Checkpoint A or B."""
        if not other:
            return self.model
        if self.other_model is None:
            raise SettingError("there is no checkpoint B: open one in the first line of the panel")
        return self.other_model

    def chosen(self, clip_id: str, other: bool = False) -> Chosen:
        """What checkpoint A (or B) selected for it."""
        return chosen_of(self._traced(clip_id, other), clip_id)

    def layers(self) -> dict[str, str]:
        """Layers that a map can be made at, with their shapes in words."""
        size = self.clips.data.transform_config.size if self.clips.data.transform_config else 64
        rows = self.cache.get(("layers",), lambda: cam_layers(self.model, size))
        return {r.layer: f"{r.layer} ({r.channels} x {r.height} x {r.width})" for r in rows.itertuples()}

    def cam(self, clip_id: str, target: str, layer: str, method: str, other: bool = False) -> ClipCam:
        """Evidence for a class."""
        seen = self.seen(clip_id)
        if target == "true" and seen.label is None:
            raise SettingError(f"the true class of {clip_id} is not known")
        goal = seen.label if target == "true" else target
        return self.cache.get(
            ("cam", clip_id, target, layer, method, other),
            lambda: clip_cam(self._model(other), seen.clip[0], goal, layer, method, self.class_names),
        )

    def gate(self, clip_id: str, block: str, other: bool = False) -> ClipCam:
        """The gate of an SDA block, or of the last one of a stage."""
        blocks = list(sda_blocks(self._model(other)))
        model = self._model(other)
        if not blocks:
            raise SettingError(no_blocks(model.name))
        block = next((b for b in reversed(blocks) if block in (b, stage_of(b))), block)
        known_name("SDA block", block, blocks)
        trace = self.cache.get(
            ("responses", clip_id, other),
            lambda: trace_clips(model, self.seen(clip_id).clip[:1], responses=True, videos=[clip_id]),
        )
        parts = [r["gate"][0] for row, r in trace.responses.items() if row.split("[")[0] == block]
        shape = self.seen(clip_id).frames.shape
        return ClipCam(
            np.concatenate(parts), trace.logits[0], "gate, mean over channels", block, "gate", shape[1:3]
        )

    def _read_label(self, clip_id: str) -> int:
        """The class that effects are read for: the true one, or the answer where it is not known."""
        label = self.seen(clip_id).label
        return int(self.chosen(clip_id).probabilities.argmax()) if label is None else label

    def ablation(self, ids: Sequence[str]) -> list[Attribution]:
        """For every clip, what leaving out one dependency of one block costs; measured where not known."""
        if not sda_blocks(self.model):
            raise SettingError(no_blocks(self.model.name))
        new = [i for i in ids if i not in self.known]
        if new:
            clips = torch.stack([self.seen(i).clip[0] for i in new])
            found = ablation_map(self.model, clips, [self._read_label(i) for i in new])
            self.known |= {i: found.of_clips([k]) for k, i in enumerate(new)}
        return [self.known[i] for i in ids]

    def effects(self, clip_id: str) -> np.ndarray:
        """Fall of the class's probability when one dependency of one block is left out [R,4]."""
        found = self.ablation([clip_id])[0]
        return found.values[0][[found.places.index(row.split("[")[0]) for row in self.trace.blocks]]

    def intervene(
        self, ids: Sequence[str], scope: str, action: str, weights: Sequence[float], compare_id: str
    ) -> Effect:
        """What a change of the selection or of the frames does to clips, against the same at random."""
        labels = {self.seen(i).label for i in ids}
        label = labels.pop() if len(labels) == 1 else None
        true = None if label is None else self.class_names[label]
        lender = (self._traced(compare_id, False), compare_id) if compare_id else None
        change = make_intervention(action, scope, weights, (self.trace, true), lender)
        return measure(
            self.model,
            torch.stack([self.seen(i).clip[0] for i in ids]),
            change,
            [self._read_label(i) for i in ids],
            self.draws,
            pairs=self.pairs,
            ids=list(ids),
            class_names=self.class_names,
        )

    def trust(
        self,
        ids: Sequence[str],  # clips, at least 3
        most: int = 12,  # at most so many of them, drawn by a fixed seed
        layer: str = MAP_OPTIONS["layer"].default,  # of the map
        method: str = MAP_OPTIONS["method"].default,  # of the map, key of sda.explaining.cam.METHODS
    ) -> Iterator[tuple[str, FaithfulnessReport]]:
        """How far pictures of these clips can be believed: what is done next, and what is known so far."""
        ids = [i for i in ids if i not in self.clips.added]
        if len(ids) < 3:
            raise SettingError(f"{len(ids)} clips are too few to measure agreement; loosen the filters")
        if len(ids) > most:
            ids = [ids[k] for k in sorted(np.random.default_rng(0).choice(len(ids), most, replace=False))]
        yield f"decoding {len(ids)} clips", FaithfulnessReport(len(ids))
        rows = [self.trace.videos.index(i) for i in ids]
        yield from check_steps(
            CheckInput(
                self.model,
                torch.stack([self.seen(i).clip[0] for i in ids]),
                [self._read_label(i) for i in ids],
                rows_of(self.trace, rows),
                None if self.other is None else rows_of(self.other, rows),
                self._masks(ids),
                layer,
                method,
                **self.trial,
            )
        )

    def _masks(self, ids: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Where the truth about these clips lies, if anybody knows."""
        if not self.truth:
            return None
        try:
            return clip_masks(self.clips.data, self.truth, [self.clips.known[i] for i in ids])
        except (KeyError, ValueError) as err:
            log.warning("no masks from %s: %s", self.truth, err)
        return None

    def close(self) -> None:
        """Forget clips of one's own and what was computed."""
        self.clips.close()
        for kept in (self.cache.kept, self.known):
            kept.clear()


def rows_of(
    trace: Trace,  # any trace
    rows: Sequence[int],  # which rows
) -> Trace:  # with these rows only, without responses
    """A part of a trace."""
    rows = list(rows)
    return replace(
        trace,
        weights=trace.weights[rows],
        scores=trace.scores[rows],
        response_norm=trace.response_norm[rows],
        gate_mean=trace.gate_mean[rows],
        gate_std=trace.gate_std[rows],
        logits=trace.logits[rows],
        videos=[trace.videos[i] for i in rows],
        views=[trace.views[i] for i in rows],
        labels=None if trace.labels is None else [trace.labels[i] for i in rows],
        responses={},
    )


def _reader(model: VideoNet) -> ClipReader:
    """How the network sees clips: as its card says; without a card as the tiny networks do."""
    card: ModelCard | None = getattr(model, "card", None)
    if card is not None:
        return ClipReader.from_card(card)
    log.warning("the network has no card: clips are seen at 64 pixels, %d frames each", model.num_frames)
    return ClipReader(TransformConfig(size=64, resize=None), Sampling(num_frames=model.num_frames))


def _is_plain(root: Path) -> bool:
    """Whether a folder holds videos and is no dataset; a dataset's clips are opened with its lists."""
    if not root.is_dir() or (root / "category.txt").exists() or (root / "trainValTest").exists():
        return False
    if (root.parent / "category.txt").is_file():
        remedy = f"open {root.parent}, which holds category.txt"
        raise SettingError(f"{root} holds the clips of a dataset", subject=str(root), remedy=remedy)
    try:
        find_clips(root)
    except DataError:
        return False
    return True


def _unlabelled(root: Path, model: VideoNet, reader: ClipReader, left_out: dict[str, str]) -> ClipDataset:
    """The videos and folders of frames below a folder; those that cannot be read are left out, and named."""
    names = (
        model.card.class_names
        if getattr(model, "card", None)
        else [f"class {k}" for k in range(model.num_classes)]
    )
    records = []
    for path in find_clips(root):
        name = path.relative_to(root).as_posix() if path != root else root.name
        try:
            reader(path)
        except (VideoError, OSError, ValueError) as err:
            left_out[name] = str(err)
            log.warning("%s is left out: %s", name, err)
        else:
            records.append(Record(name, str(path), 0))
    if not records:
        raise SettingError(
            f"no clip of {root} can be read: {next(iter(left_out.values()))}", subject=str(root)
        )
    return ClipDataset(records, names, reader.sampling, reader.config or reader.transform)


def open_provider(
    root: str | Path,
    checkpoint: str | Path | VideoNet,
    split: str = "test",
    other: str | Path | VideoNet | None = None,
    trace: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> tuple[ModelProvider, str]:
    """A provider for a dataset or a folder of videos, and the call of `inspect_folder` that opens it."""
    plain = _is_plain(Path(root))
    names = None if plain else read_classes(Path(root) / "category.txt")

    def loaded(file: str | Path | VideoNet) -> VideoNet:
        if isinstance(file, VideoNet):
            return file
        return prepare_for_inference(load_model(file, class_names=names), precision, device)

    model = loaded(checkpoint)
    twin = None if other is None else loaded(other)
    reader = _reader(model)
    left_out: dict[str, str] = {}
    if plain:
        data = _unlabelled(Path(root), model, reader, left_out)
        split = ""
    else:
        data = open_dataset(root, split, reader.sampling, reader.config, train=False)
    kept = Trace.load(trace) if trace and Path(trace).is_file() else None
    name = model.name if isinstance(checkpoint, VideoNet) else Path(checkpoint).stem
    truth = root if (Path(root) / "truth").is_dir() else None
    pairs = [] if plain else read_pairs(root)
    provider = ModelProvider(model, data, kept, twin, name, pairs, truth, labelled=not plain)
    provider.left_out = left_out
    files = {"checkpoint": checkpoint, "other": other or ""}
    shown = {key: "" if isinstance(file, VideoNet) else str(file) for key, file in files.items()}
    provider.where = {"root": str(root), "split": split, **shown}
    if trace and kept is None:
        provider.trace.save(trace)
    if isinstance(checkpoint, VideoNet) or isinstance(other, VideoNet):
        return provider, ""
    options = {"split": split, "other": other, "trace": trace}
    words = [f"{key}={str(value)!r}" for key, value in options.items() if value]
    return provider, f"inspect_folder({', '.join([repr(str(root)), repr(str(checkpoint)), *words])})"
