"""One page about some clips: the answer, the selection, and what the network does without it."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.clips import ClipReader, LoadedClip
from ..data.video import Video
from ..explaining.answers import logits_of, twin_index
from ..explaining.cam import clip_cam
from ..explaining.effects import Effect
from ..explaining.interventions import (
    InputChange,
    Intervention,
    SelectionChange,
    drop,
    freeze,
    reverse,
    uniform,
)
from ..explaining.trace import trace_clips
from ..explaining.tracer import select_blocks
from ..figures.clips import fig_cam_strip, fig_clip
from ..figures.effects import fig_interventions, fig_triptych
from ..foundation.devices import place_model
from ..foundation.errors import RunError, SettingError, VideoError, unknown_name
from ..foundation.files import check_folder, fingerprint, write_atomic
from ..foundation.statistics import softmax
from ..networks.backbones import VideoNet, list_models, sda_blocks
from ..networks.blocks import DEPENDENCIES
from ..networks.checkpoints import load_model
from ..testing.evaluate import find_videos, who_answers
from .html import render

__all__ = ["study_clip", "verdict", "Inspection", "inspect_clips"]

log = logging.getLogger(__name__)


TEMPLATE = Path(__file__).resolve().parent / "templates" / "clips.html"


@dataclass
class ClipStudy:
    """What is computed about one clip."""

    name: str  # of the clip, as shown
    true: str | None  # its class, where known
    seen: LoadedClip  # the clip
    probabilities: np.ndarray  # [K], views averaged before the softmax
    read: str  # class whose probability is read
    asked: bool  # whether that class was asked for: why not this one?
    blocks: list[str]  # R SDA blocks, none for another network
    weights: np.ndarray  # [R,4], mean over the views
    contributions: np.ndarray  # [R,4]
    effects: np.ndarray  # [R,4], fall of the probability when one dependency is left out of one block
    done: list[Effect]  # interventions with their random controls

    def change(
        self,
        effect: Effect,  # one of `done`
    ) -> tuple[float, np.ndarray]:
        """Change of the probability, and under the draws [D]."""
        now, drawn = effect.changes()
        return float(now[0]), drawn[:, 0]


def clip_interventions(
    model: nn.Module,  # any network; without SDA blocks only the clip is changed
    num_frames: int,  # T, frames of the clip; the one in the middle is frozen
) -> list[Intervention]:
    """What the page tries: each dependency left out, equal weights, the clip backwards, a frozen frame."""
    present = [
        n for n in DEPENDENCIES if any(n in block.dependencies for block in sda_blocks(model).values())
    ]
    inside: list[Intervention] = [one for one in map(drop, present) if one.fits(model)]
    if present:
        inside.append(uniform())
    return [*inside, reverse(), freeze(num_frames // 2)]


def _each(model: nn.Module, changes: Sequence[Intervention]) -> SelectionChange:
    """One change for a batch of copies: the first copy is changed as the first says, and so on."""
    where = [select_blocks(model, one.where) if isinstance(one, SelectionChange) else {} for one in changes]
    for one in changes:
        if isinstance(one, SelectionChange) and one.trace is not None:
            one.trace.check_model(model)

    def change(block: str, names: tuple[str, ...], weights: Tensor) -> Tensor:
        rows = (
            weights.unflatten(0, (len(changes), -1))
            if len(weights) > 1
            else weights.expand(len(changes), 1, -1)
        )
        new = [
            one.change(block, names, row) if block in places_ else row
            for one, places_, row in zip(changes, where, rows, strict=True)
        ]
        return torch.cat(new) if len(weights) > 1 else weights  # a single row is the trial before the pass

    return SelectionChange(
        "each copy its own", change, lambda seed: _each(model, [one.random(seed) for one in changes])
    )


def answers_under(
    model: nn.Module,  # any network
    views: Tensor,  # one clip [V,T,3,h,w]
    changes: Sequence[Intervention],  # what is done, D times
    together: int = 8,  # copies of 8 frames of 64 x 64 in a batch; fewer of larger clips
) -> np.ndarray:  # logits [D,K], views averaged
    """The answers to one clip under many interventions, in few passes."""
    step = max(1, together * 8 * 64 * 64 // (views.shape[0] * views.shape[1] * views[0, 0, 0].numel()))
    found = []
    for start in range(0, len(changes), step):
        some = changes[start : start + step]
        copies = torch.stack([one(views) if isinstance(one, InputChange) else views for one in some])
        if len(some) == 1:
            found.append(logits_of(model, views[None], some[0]))
        elif sda_blocks(model):
            found.append(logits_of(model, copies, _each(model, some)))
        else:
            found.append(logits_of(model, copies))
    return np.concatenate(found)


def study_clip(
    model: VideoNet,  # network with a card
    seen: LoadedClip,  # from `ClipReader.from_card(model.card)`
    draws: int = 10,  # random controls of every intervention
    name: str = "",  # of the clip, as shown; the file's name if left out
    true: str | None = None,  # its class, where known; else the answer is read
    target: str | None = None,  # class to ask about: its probability is read instead
) -> ClipStudy:
    """Answer, selection, ablation and interventions of one clip."""
    names: list[str] = model.card.class_names
    clip = seen.clip[None]
    name = name or Path(seen.path).name
    for one in (true, target):
        if one is not None and one not in names:
            raise unknown_name("class", one, names)
    before = logits_of(model, clip)
    wanted = target or true
    read = names.index(wanted) if wanted else int(before.argmax())
    tried = clip_interventions(model, clip.shape[2])
    blocks = sda_blocks(model)
    single = {
        (b, d): drop(DEPENDENCIES[d], where=name)
        for b, name in enumerate(blocks)
        for d in range(4)
        if drop(DEPENDENCIES[d], where=name).fits(model)
    }
    every = [change for one in tried for change in (one, *(one.random(i) for i in range(draws)))]
    logits = answers_under(model, seen.clip, [*every, *single.values()])
    done = [
        Effect(
            one.name,
            before,
            after[:1],
            after[1:, None],
            np.array([read]),
            [name],
            list(names),
            twin_index(names, ()),
        )
        for one, after in zip(tried, logits[: len(every)].reshape(len(tried), draws + 1, -1), strict=True)
    ]
    weights = contributions = effect = np.empty((0, 4))
    if blocks:
        trace = trace_clips(model, clip)
        effect = np.full((len(blocks), 4), np.nan)
        for place, after in zip(single, logits[len(every) :], strict=True):
            effect[place] = softmax(before)[0, read] - softmax(after[None])[0, read]
        row = [[i for i, part in enumerate(trace.blocks) if part.split("[")[0] == block] for block in blocks]
        weights, contributions = (
            np.stack([values[:, some].mean((0, 1)) for some in row])
            for values in (trace.weights, trace.contribution())
        )
    return ClipStudy(
        name,
        true,
        seen,
        softmax(before)[0],
        names[read],
        target is not None,
        list(blocks),
        weights,
        contributions,
        effect,
        done,
    )


def why_not(
    study: ClipStudy,  # of a class that was asked for
    class_names: Sequence[str],  # K names
) -> str:  # plain text, empty where no class was asked for
    """Where the class that was asked for stands, and which change brings it up most."""
    if not study.asked:
        return ""
    k = list(class_names).index(study.read)
    p = study.probabilities
    best = int(p.argmax())
    if best == k:
        return f"'{study.read}' is the answer ({p[k]:.2f})."
    place = int((p >= p[k]).sum())
    said = (
        f"Why not '{study.read}'? It has {p[k]:.2f} and place {place} of {len(p)}; the answer is "
        f"'{class_names[best]}' with {p[best]:.2f}. "
    )
    effect = max(study.done, key=lambda one: study.change(one)[0])
    gain = study.change(effect)[0]
    if gain < 0.01:
        return said + "Nothing that was tried brings it up."
    now = class_names[int(effect.after[0].argmax())]
    said += f"What brings it up most is '{effect.name}': {p[k]:.2f} becomes {p[k] + gain:.2f}"
    return said + (", and it becomes the answer." if now == study.read else f"; the answer is then '{now}'.")


def verdict(
    study: ClipStudy,  # from `study_clip`
) -> str:  # plain text, empty where nothing could be left out
    """Largest weight, contribution and effect in words, and whether they agree."""
    removed = {
        e.name.removeprefix("without "): study.change(e) for e in study.done if e.name.startswith("without ")
    }
    if not removed:
        return ""
    weight, share = (DEPENDENCIES[np.nanargmax(v.mean(0))] for v in (study.weights, study.contributions))
    worst = min(change for change, _ in removed.values())
    what = f"'{study.read}'" if study.asked else "The answer"
    needed = [name for name, (change, _) in removed.items() if change < worst + 0.05]
    said = (
        f"Averaged over the blocks, the largest weight is on {weight} "
        f"({np.nanmax(study.weights.mean(0)):.2f}) and the largest contribution is that of {share}. "
    )
    if worst > -0.05:
        told = f"the probability of {what}" if study.asked else "this answer"
        return said + f"No single dependency matters for {told}: without any one of them it stays."
    said += f"{what} loses most without {' or '.join(needed)}: its probability falls by {-worst:.2f}. "
    if weight in needed:
        said += "Here weight and effect point the same way; on other clips they need not."
    else:
        said += "So the weight alone would have misled you."
    if any(len(drawn) and worst >= drawn.min() for _, drawn in (removed[name] for name in needed)):
        said += " But random removals can do as much to this clip, so do not build on it alone."
    return said


def draw_interventions(
    study: ClipStudy,  # from `study_clip`
) -> Figure:
    """Every intervention on one clip beside the same at random."""
    changes, drawn = zip(*map(study.change, study.done), strict=True)
    ends = [(d.min(), d.mean(), d.max()) if len(d) else (np.nan,) * 3 for d in drawn]
    low, mean, high = zip(*ends, strict=True)
    names = [e.name for e in study.done]
    reading = f"probability of '{study.read}'"
    return fig_interventions(names, changes, low, mean, high, len(drawn[0]), reading=reading)


def facts(
    seen: LoadedClip,  # from a reader
) -> str:  # e.g. "24 frames of 72 x 72 pixels, 12 per second"
    """What the source of a clip is like."""
    video = seen.source
    said = f"{len(video)} frames"
    if isinstance(video, Video):
        height, width = video.full_size
        said += f" of {width} x {height} pixels"
        if video.fps:
            said += f", {video.fps:.3g} per second"
    return said


def best_classes(
    study: ClipStudy,  # from `study_clip`
    class_names: Sequence[str],  # K names
    k: int = 5,  # how many
) -> list[tuple[str, float]]:
    """The most probable classes, and the true one even when it is not among them."""
    order = np.argsort(-study.probabilities, kind="stable")
    shown = [*order[:k], *(i for i in order[k:] if class_names[i] == study.true)]
    return [(class_names[i], float(study.probabilities[i])) for i in shown]


def clip_part(
    study: ClipStudy,  # from `study_clip`
    model: VideoNet,  # the network that was studied
) -> dict[str, Any]:
    """What the template needs to know about one clip; texts and figures."""
    seen = study.seen
    part: dict[str, Any] = {
        "study": study,
        "facts": facts(seen),
        "views": len(seen.clip),
        "strip": fig_clip(seen.frames, seen.indices[0], seen.times),
        "best": best_classes(study, model.card.class_names),
        "why_not": why_not(study, model.card.class_names),
        "verdict": verdict(study),
        "triptych": None,
        "interventions": draw_interventions(study),
        "cam": None,
    }
    if study.blocks:
        part["triptych"] = fig_triptych(
            study.weights, study.contributions, study.effects, study.blocks, reading="probability"
        )
    names = model.card.class_names
    answer = names[int(study.probabilities.argmax())]
    against = study.asked and study.read != answer
    try:
        cam = clip_cam(model, seen.clip[0], (study.read, answer) if against else answer)
    except ImportError as err:
        return part | {"no_cam": str(err)}
    strip = fig_cam_strip(
        seen.frames, cam.scaled("clip"), cam.range, cam.title, cam.note, indices=seen.indices[0]
    )
    return part | {"cam": cam, "cam_strip": strip}


@dataclass
class Inspection:
    """What was written, and what could not be read."""

    path: Path  # the page
    shown: list[str]  # clips on it
    failed: dict[str, str]  # clip -> why it is not on it


def overview(
    studies: Sequence[ClipStudy],  # one per clip that is shown
    class_names: Sequence[str],  # K names
) -> pd.DataFrame:
    """A row per clip: the answer, and with SDA blocks the largest weight and the largest effect."""
    rows = []
    for s in studies:
        row: dict[str, object] = {
            "clip": s.name,
            "answer": class_names[int(s.probabilities.argmax())],
            "probability": float(s.probabilities.max()),
        }
        if any(other.true for other in studies):
            row["true class"] = s.true
        removed = {e.name: s.change(e)[0] for e in s.done if e.name.startswith("without ")}
        if removed:
            change, worst = min((change, name) for name, change in removed.items())
            row["largest weight"] = DEPENDENCIES[int(np.nanargmax(s.weights.mean(0)))]
            row["largest effect"] = f"{worst} ({change:+.2f})"
        rows.append(row)
    return pd.DataFrame(rows)


def _shown_names(paths: Iterable[str | Path]) -> dict[str, str]:
    """Path -> the file's name, or the path where two files share a name; a path given twice counts once."""
    once = list(dict.fromkeys(map(str, paths)))
    named = [Path(path).name or path for path in once]
    return {path: name if named.count(name) == 1 else path for path, name in zip(once, named, strict=True)}


def class_called(
    text: str,  # a name, or a number from 0
    class_names: Sequence[str],  # K names
) -> str:  # its name
    """The class that somebody means; an unknown one is answered with the nearest."""
    if text in class_names:
        return text
    if text.isascii() and text.isdecimal() and int(text) < len(class_names):
        return class_names[int(text)]
    raise unknown_name("class", text, class_names)


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
    draws: int = 10,  # random controls of every intervention
    title: str = "",  # plain text
    progress: bool = True,  # show a bar over the clips
    device: str = "auto",  # where to compute with a model file; a network stays where it is
    precision: str = "auto",  # in which number format, likewise: auto, fp32, bf16 or fp16
) -> Inspection:
    """Write one self-contained page about some clips."""
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise SettingError("There is nothing to inspect: name at least one clip, or a folder of clips.")
    out = _target(out)
    if isinstance(checkpoint, VideoNet):
        model = checkpoint
    else:
        model = place_model(load_model(checkpoint), device, precision)
    reader = ClipReader.from_card(model.card)
    names = model.card.class_names
    known = {file: class_called(name, names) for file, name in (true or {}).items()}
    rest = class_called(label, names) if label else None
    wanted = class_called(target, names) if target else None
    failed: dict[str, str] = {}
    clips = [
        (path, name, known.get(Path(path).name, rest), wanted)
        for path, name in _shown_names(find_videos(paths, failed)).items()
    ]
    for why in failed.values():
        log.warning("%s", why)
    studies = _studies(model, reader, clips, failed, draws, progress)
    if not studies:
        raise RunError("None of the clips can be shown. " + " ".join(failed.values()))
    first = studies[0].name if len(studies) == 1 else f"{len(studies)} clips"
    text = render(
        TEMPLATE,
        title=title or f"{first}: selected, and needed",
        headings=["Overview", *(study.name for study in studies)],
        model=model.name,
        who=who_answers(model, "" if isinstance(checkpoint, VideoNet) else Path(checkpoint).name),
        fingerprint=fingerprint(model),
        overview=overview(studies, model.card.class_names),
        failed=failed,
        lost=pd.DataFrame({"clip": failed.keys(), "why": failed.values()}),
        others=list_models("sda_*"),
        parts_of_clips=[clip_part(study, model) for study in studies],
    )
    write_atomic(out, text)
    log.info("page in %s", out)
    return Inspection(out, [study.name for study in studies], failed)


def _studies(
    model: VideoNet,
    reader: ClipReader,
    clips: Sequence[tuple[str, str, str | None, str | None]],
    failed: dict[str, str],
    draws: int,
    progress: bool,
) -> list[ClipStudy]:
    """Every clip (path, name, true class, class asked about) that can be read; the others by name."""
    studies = []
    for path, name, true, target in tqdm(clips, desc="inspect", unit="clip", disable=not progress):
        try:
            studies.append(study_clip(model, reader(path), draws, name, true, target))
        except (VideoError, OSError, ValueError) as err:
            failed[name] = str(err)
            log.warning("%s is not on the page: %s", name, err)
    return studies
