"""From paths to a session: networks are loaded, clips found, and what cannot be read is named."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.clips import ClipReader
from ..data.datasets import ClipDataset, open_dataset
from ..data.lists import Record, read_classes, read_pairs
from ..data.sampling import Sampling
from ..data.transforms import TransformConfig
from ..explaining.trace import Trace, trace_clips
from ..foundation.errors import DataError, RunError, SettingError, VideoError, unknown_name
from ..foundation.files import find_clips
from ..networks.backbones import VideoNet
from ..networks.checkpoints import ModelCard, load_model
from ..networks.inference import prepare_for_inference
from ..networks.named import output_names
from ..testing.asking import find_videos
from .clips import Clips
from .session import DRAWS, Network, Session

__all__ = ["open_session"]

log = logging.getLogger(__name__)

Model = str | Path | VideoNet  # a model file, or a network in memory
Paths = str | Path | Sequence[str | Path]


def _reader(model: VideoNet) -> ClipReader:
    """How the network sees clips: as its card says; without a card as the tiny networks do."""
    card: ModelCard | None = getattr(model, "card", None)
    if card is not None:
        return ClipReader.from_card(card)
    log.warning("the network has no card: clips are seen at 64 pixels, %d frames each", model.num_frames)
    return ClipReader(TransformConfig(size=64, resize=None), Sampling(num_frames=model.num_frames))


def is_dataset(root: Path) -> bool:
    """Whether a folder has lists; a folder inside a dataset is refused, for its clips have classes."""
    if not root.is_dir():
        return False
    if (root / "category.txt").exists() or (root / "trainValTest").exists():
        return True
    if (root.parent / "category.txt").is_file():
        raise SettingError(
            f"{root} holds the clips of a dataset",
            subject=str(root),
            remedy=f"open {root.parent}, which holds category.txt",
        )
    try:
        find_clips(root)
    except DataError:
        return True  # neither videos nor lists: the reader of lists says what is missing
    return False


def _names(paths: Sequence[str]) -> list[str]:
    """The files' names, or the paths where two files share a name."""
    names = [Path(path).name or path for path in paths]
    return [name if names.count(name) == 1 else path for path, name in zip(paths, names, strict=True)]


def found_clips(
    paths: Sequence[str | Path],  # videos, folders of frames, or folders with any of these below
    model: VideoNet,  # how it sees clips
    labels: Mapping[str, int | None],  # true class by the file's name, where known
    rest: int | None = None,  # of all others
) -> Clips:  # those that can be read
    """Clips without lists; those that cannot be read are left out, and named."""
    reader = _reader(model)
    left_out: dict[str, str] = {}
    found = find_videos(paths, left_out)
    for why in left_out.values():
        log.warning("%s", why)
    roots = [Path(path) for path in paths if Path(path).is_dir()]
    names = [
        Path(path).relative_to(roots[0]).as_posix()
        if len(paths) == 1 and roots and path != str(roots[0])
        else name
        for path, name in zip(found, _names(found), strict=True)
    ]
    records = []
    for name, path in zip(names, found, strict=True):
        try:
            reader(path)
        except (VideoError, OSError, ValueError) as err:
            left_out[name] = str(err)
            log.warning("%s is left out: %s", name, err)
        else:
            records.append(Record(name, path, 0))
    if not records:
        raise RunError("None of the clips can be shown. " + " ".join(left_out.values()))
    card = getattr(model, "card", None)
    classes = output_names(card and card.class_names, model.num_classes)
    data = ClipDataset(records, classes, reader.sampling, reader.config or reader.transform)
    return Clips(data, {one.id: labels.get(Path(one.path).name, rest) for one in records}, left_out)


def open_session(
    model: Model,  # that is looked at
    clips: Paths,  # a dataset folder, a folder of videos, or videos
    split: str = "test",  # of a dataset, list in trainValTest/
    other: Model | None = None,  # that can stand beside it
    trace: str | Path | None = None,  # .npz: read when it is there, else written
    device: str = "auto",
    precision: str = "auto",
    labels: Mapping[str, str] | None = None,  # true class by the file's name, for clips without lists
    label: str = "",  # true class of all others
    target: str = "",  # class to ask about
    draws: int = DRAWS,  # controls at random of every edit
) -> Session:
    """Networks and clips, opened."""
    paths = [clips] if isinstance(clips, str | Path) else list(clips)
    if not paths:
        raise SettingError(
            "there is nothing to inspect", remedy="name at least one clip, or a folder of clips"
        )
    root = Path(paths[0]) if len(paths) == 1 and is_dataset(Path(paths[0])) else None
    names = read_classes(root / "category.txt") if root else None

    def network(file: Model) -> Network:
        if isinstance(file, VideoNet):
            return Network(file, file.name)
        if Path(file).is_dir():
            raise SettingError(
                f"{file} is a folder, not a model file",
                subject=str(file),
                remedy="inspect(model file, clips)",
            )
        loaded = prepare_for_inference(load_model(file, class_names=names), precision, device)
        return Network(loaded, Path(file).stem, str(file))

    networks = [network(file) for file in (model, other) if file is not None]
    first = networks[0].model
    if root is not None:
        reader = _reader(first)
        chosen = Clips(open_dataset(root, split, reader.sampling, reader.config, train=False))
    else:
        outputs = first.card.names if getattr(first, "card", None) else []
        known = {file: class_index(name, outputs) for file, name in (labels or {}).items()}
        chosen = found_clips(paths, first, known, class_index(label, outputs) if label else None)
    kept = None
    if trace is not None and networks[0].blocks:
        if Path(trace).is_file():
            kept = Trace.load(trace)
        else:
            kept = trace_clips(first, chosen.data)
            kept.save(trace)
    asked = class_index(target, chosen.data.class_names) if target else None
    truth = str(root) if root is not None and (root / "truth").is_dir() else None
    session = Session(networks, chosen, asked, read_pairs(root) if root else (), truth, kept, draws)
    if len(networks) > 1 and networks[0].fingerprint == networks[1].fingerprint:
        log.warning("both networks have the same parameters")
    return session


def class_index(
    text: str,  # a name, or a number from 0
    class_names: Sequence[str],  # K names
) -> int:
    """The class that somebody means; an unknown one is answered with the nearest."""
    if text in class_names:
        return list(class_names).index(text)
    if text.isascii() and text.isdecimal() and int(text) < len(class_names):
        return int(text)
    raise unknown_name("class", text, class_names)
