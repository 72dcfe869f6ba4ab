"""The recorded page: one HTML file with the same view, and the answers that were measured before."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..explaining.cam import LAYER, METHOD
from ..foundation.errors import SettingError
from ..foundation.files import check_folder, write_atomic
from ..networks.backbones import VideoNet
from .edits import FRAMES
from .html import STATIC, render
from .opening import open_session
from .scenes import about, answers_of, map_of, row_of, scene_of, thumb_of
from .session import DRAWS, FEW, Session, planned
from .state import InspectorState

__all__ = ["Inspection", "inspect_clips"]

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).resolve().parent / "templates" / "recorded.html"


def recording(
    session: Session,
    ids: Sequence[str],  # clips that the page will show
) -> Iterator[tuple[int, int]]:  # passes that are done, and about how many there are
    """Measure everything that a page holds, a short step at a time."""
    sizes: dict[str, int] = {}
    done = 0
    for number, clip_id in enumerate(ids, 1):
        for controls, part in planned(session, clip_id):
            before = len(session.answered.get(clip_id, ()))
            for _ in session.answering(clip_id, part, controls):
                sizes[clip_id] = len(session.answered[clip_id])
                yield done + sizes[clip_id], max(done + sizes[clip_id], _expected(session) * len(ids))
            sizes[clip_id] = max(before, sizes.get(clip_id, 0))
        done += sizes[clip_id]
        for name in FRAMES:
            session.read(clip_id, 0, name)
        _maps(session, clip_id)
        log.debug("%d of %d clips", number, len(ids))
        yield done, max(done, _expected(session) * len(ids))


def _expected(session: Session) -> int:
    """About how many passes one clip takes."""
    P = len(session.network.blocks)
    return 90 + (31 if P <= FEW else 9) * P if P else 40


def _maps(session: Session, clip_id: str) -> list[dict[str, Any]]:
    """The default map for the best classes; none where its package is missing."""
    targets: list[int | str] = [row["class"] for row in scene_of(session, clip_id, pictures=False)["top"]]
    try:
        return [map_of(session.cams(clip_id, LAYER, METHOD, targets), targets, clip_id)]
    except (ImportError, SettingError) as err:
        log.warning("no map of %s: %s", clip_id, err)
        return []


def record_of(
    session: Session,
    clip_id: str,  # of which everything was measured, see `recording`
) -> dict[str, Any]:
    """What the page holds of one clip."""
    items = answers_of(session, clip_id)
    return {
        "scene": scene_of(session, clip_id),
        "answers": {"clip": clip_id, "items": items, "done": len(items), "total": len(items), "left_s": 0},
        "maps": _maps(session, clip_id),
        "frames": {name: scene_of(session, clip_id, 0, name, pictures=False) for name in FRAMES},
    }


def page_of(
    session: Session,
    ids: Sequence[str],  # clips, the first is shown
    state: InspectorState | None = None,  # to begin with
    title: str = "",
    code: str = "",  # that opens it live
) -> str:  # a whole HTML document
    """The page; `recording` comes first."""
    shown = InspectorState(selected=ids[0]) if state is None else state
    record = {clip_id: record_of(session, clip_id) for clip_id in ids}
    layer = {"name": LAYER, "words": LAYER}
    told = about(session, title, live=False) | {
        "layers": [layer] if any(one["maps"] for one in record.values()) else [],
        "methods": [METHOD],
        "recorded": "every cell left out, kept alone or opened, every set of dependencies everywhere"
        + (" and in each block" if len(session.network.blocks) <= FEW else "")
        + ", uniform weights, and reversed, shuffled, frozen and blurred frames, with controls at random",
    }
    told["questions"] = []
    everything = {
        "about": told,
        "clips": [row_of(session, clip_id, thumb_of(session, clip_id)) for clip_id in ids],
        "filters": shown.filters,
        "selected": shown.selected,
        "beside": shown.beside,
        "edits": shown.edits,
        "reading": shown.reading,
        "look": shown.look,
        "questions": {},
        "record": record,
        "state": shown.to_json(),
        "code": code,
    }
    return render(
        TEMPLATE,
        title=told["title"],
        who=told["network"]["trained_on"],
        left_out=session.clips.left_out,
        rows=[_summary(session, record[clip_id]["scene"]) for clip_id in ids],
        css=(STATIC / "widget.css").read_text(encoding="utf-8").replace("</", "<\\/"),
        script=(STATIC / "widget.js").read_text(encoding="utf-8").replace("</script", "<\\/script"),
        record=in_script(everything),
    )


def in_script(value: object) -> str:
    """JSON that stays text inside a script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _summary(session: Session, scene: dict[str, Any]) -> dict[str, str]:
    """A clip in words, for readers without scripts."""
    best = scene["top"][0]
    found = scene["finding"]
    return {
        "clip": scene["clip"],
        "answer": f"{session.class_names[best['class']]} ({best['probability']:.2f})",
        "finding": found["sentence"] if found else "",
    }


@dataclass
class Inspection:
    """What was written, and what could not be read."""

    path: Path  # the page
    shown: list[str]  # clips on it
    failed: dict[str, str]  # clip -> why it is not on it


def _target(out: str | Path) -> Path:
    """The file to write, tried before the work."""
    out = Path(out)
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        example = out / "clips.html" if out.is_dir() else out.with_suffix(".html")
        raise SettingError(f"{out} is no name of a page: give a file that ends in .html, e.g. {example}")
    check_folder(out.parent)
    return out


def inspect_clips(
    paths: Sequence[str | Path],  # video files, folders of frames, or folders with any of these below
    checkpoint: str | Path | VideoNet,  # model file, or a network that `load_model` has loaded
    out: str | Path = "report.html",  # the page; replaced if it exists
    true: Mapping[str, str] | None = None,  # true class by file name, where known
    label: str = "",  # true class of all others, by name or number
    target: str = "",  # class to ask about, by name or number: why not that one?
    draws: int = DRAWS,  # controls at random of every change
    title: str = "",  # plain text
    progress: bool = True,  # show a bar over the answers
    device: str = "auto",  # where to compute with a model file; a network stays where it is
    precision: str = "auto",  # in which number format, likewise: auto, fp32, bf16 or fp16
) -> Inspection:
    """Write one self-contained page about some clips, with the answers a reader may ask for."""
    out = _target(out)
    words: dict[str, Any] = {"labels": true, "label": label, "target": target, "draws": draws}
    session = open_session(checkpoint, paths, device=device, precision=precision, **words)
    ids = session.clips.ids()
    with tqdm(desc="inspect", unit="pass", disable=not progress) as bar:
        for done, total in recording(session, ids):
            bar.total = total
            bar.update(done - bar.n)
    first = ids[0] if len(ids) == 1 else f"{len(ids)} clips"
    write_atomic(out, page_of(session, ids, title=title or f"{first}: selected, and needed"))
    log.info("page in %s", out)
    return Inspection(out, ids, dict(session.clips.left_out))
