"""One page about some clips: the answer, the selection, and what the network does without it."""

import html
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.sampling import Sampling
from ..data.transforms import TransformConfig, denormalise
from ..data.video import open_video
from ..explaining.cam import clip_cam
from ..explaining.effects import (
    Effect,
    InputChange,
    Intervention,
    SelectionChange,
    can_drop,
    drop,
    freeze,
    logits_of,
    partners,
    places,
    reverse,
    uniform,
)
from ..explaining.trace import fingerprint, trace_clips
from ..figures.clips import fig_cam_strip, fig_clip
from ..figures.effects import fig_interventions, fig_triptych
from ..foundation.devices import pick_device
from ..foundation.errors import DataError, RunError, SettingError, VideoError, unknown_name
from ..foundation.files import check_folder, write_atomic
from ..networks.backbones import list_models, sda_blocks
from ..networks.blocks import DEPENDENCIES
from ..networks.checkpoints import ModelCard, load_model
from ..testing.evaluate import softmax
from .html import FOUR, page, picture, table, words

__all__ = ["SeenClip", "see_clip", "ClipStudy", "study_clip", "verdict", "Inspection", "inspect_clips"]

log = logging.getLogger(__name__)


@dataclass
class SeenClip:
    """A clip as the network sees it."""

    name: str  # as shown on the page
    facts: str  # frames, size and rate in words
    views: Tensor  # float [V,T,3,h,w]
    frames: np.ndarray  # uint8 [T,h,w,3] of the first view
    indices: list[int]  # their places in the file
    times: np.ndarray | None  # their seconds, None where the source has no clock
    true: str | None = None  # true class, if known


def see_clip(
    path: str | Path,  # video file or folder of frames
    card: ModelCard,  # of the model: its sampling and transform
    name: str = "",  # as shown; the file's name if left out
) -> SeenClip:
    """Decode, sample and crop a clip as the model's card says."""
    config = TransformConfig.from_dict(card.transform)
    transform = config.test()
    video = open_video(path, short_side=transform.short_side)
    lists = Sampling.from_dict(card.sampling).indices(len(video), times=video.times)
    views = torch.stack([transform(video.frames(indices), 0)[0] for indices in lists])
    times = None if video.times is None else video.times[lists[0]]
    height, width = video.full_size
    facts = f"{len(video)} frames of {width} x {height} pixels" + (
        f", {video.fps:.3g} per second" if video.fps else ""
    )
    return SeenClip(
        name or Path(path).name,
        facts,
        views,
        denormalise(views[0], config.mean, config.std).numpy(),
        list(lists[0]),
        times,
    )


def bars(
    class_names: Sequence[str],  # K names
    probabilities: np.ndarray,  # [K]
    true: str | None = None,  # marked, and listed even when it is not among the first
    k: int = 5,  # how many
) -> str:  # HTML
    """The most probable classes as a table with bars."""
    order = list(np.argsort(-probabilities, kind="stable"))
    shown = order[:k] + [i for i in order[k:] if class_names[i] == true]
    rows = "".join(
        f"<tr><td>{html.escape(class_names[i])}{' <b>(true)</b>' * (class_names[i] == true)}</td>"
        f'<td>{probabilities[i]:.2f}</td><td class="bar"><div style="width:{100 * probabilities[i]:.1f}%">'
        "</div></td></tr>"
        for i in shown
    )
    return f"<table>{rows}</table>"


@dataclass
class ClipStudy:
    """What is computed about one clip."""

    seen: SeenClip  # the clip
    probabilities: np.ndarray  # [K], views averaged before the softmax
    read: str  # class whose probability is read
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
    """What the page tries out: every dependency left out, all weights equal, the clip backwards, a frozen frame."""
    present = [
        n for n in DEPENDENCIES if any(n in block.dependencies for block in sda_blocks(model).values())
    ]
    inside = [drop(n) for n in present if can_drop(model, n)]
    return [*inside, *([uniform()] if present else []), reverse(), freeze(num_frames // 2)]


def _each(model: nn.Module, changes: Sequence[Intervention]) -> SelectionChange:
    """One change for a batch of copies: the first copy is changed as the first says, and so on."""
    where = [places(model, one.where) if isinstance(one, SelectionChange) else {} for one in changes]
    for one in changes:
        if getattr(one, "check", None):
            one.check(model)

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
        else:
            found.append(logits_of(model, copies, *([_each(model, some)] if sda_blocks(model) else [])))
    return np.concatenate(found)


def study_clip(
    model: nn.Module,  # network with a card
    seen: SeenClip,  # from `see_clip`
    draws: int = 10,  # random controls of every intervention
) -> ClipStudy:
    """Answer, selection, knock-outs and interventions of one clip."""
    names = model.card.class_names
    clip = seen.views[None]
    if seen.true is not None and seen.true not in names:
        raise unknown_name("class", seen.true, names)
    before = logits_of(model, clip)
    read = names.index(seen.true) if seen.true else int(before.argmax())
    tried = clip_interventions(model, seen.views.shape[1])
    blocks = sda_blocks(model)
    single = {
        (b, d): drop(DEPENDENCIES[d], where=name)
        for b, name in enumerate(blocks)
        for d in range(4)
        if can_drop(model, DEPENDENCIES[d], name)
    }
    every = [change for one in tried for change in (one, *(one.random(i) for i in range(draws)))]
    logits = answers_under(model, seen.views, [*every, *single.values()])
    done = [
        Effect(
            one.name,
            before,
            after[:1],
            after[1:, None],
            np.array([read]),
            [seen.name],
            list(names),
            partners(names, ()),
        )
        for one, after in zip(tried, logits[: len(every)].reshape(len(tried), draws + 1, -1), strict=True)
    ]
    selected = [np.empty((0, 4))] * 3
    if blocks:
        trace = trace_clips(model, clip)
        effect = np.full((len(blocks), 4), np.nan)
        for place, after in zip(single, logits[len(every) :], strict=True):
            effect[place] = softmax(before)[0, read] - softmax(after[None])[0, read]
        row = [[i for i, part in enumerate(trace.blocks) if part.split("[")[0] == block] for block in blocks]
        selected = [
            np.stack([values[:, some].mean((0, 1)) for some in row])
            for values in (trace.weights, trace.contribution())
        ] + [effect]
    return ClipStudy(seen, softmax(before)[0], names[read], list(blocks), *selected, done)


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
    needed = [name for name, (change, _) in removed.items() if change < worst + 0.05]
    said = (
        f"Averaged over the blocks, the largest weight is on {weight} ({np.nanmax(study.weights.mean(0)):.2f}) and "
        f"the largest contribution is that of {share}. "
    )
    if worst > -0.05:
        return said + "No single dependency matters for this answer: without any one of them it stays."
    said += f"The answer loses most without {' or '.join(needed)}: its probability falls by {-worst:.2f}. "
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
    return fig_interventions(
        [e.name for e in study.done],
        changes,
        *zip(*ends, strict=True),
        draws=len(drawn[0]),
        reading=f"probability of '{study.read}'",
    )


def selection_part(
    study: ClipStudy,  # from `study_clip`
    model_name: str,  # as shown
) -> str:  # HTML
    """The triptych with its verdict, or the sentence that there is no selection."""
    if not study.blocks:
        names = list_models("sda_*")
        return words(
            f"{model_name} has no SDA blocks, so it selects nothing. Those that do have names that begin with "
            f"sda_, such as {names[0]} and {names[-1]}; sda models lists all {len(names)}."
        )
    figure = fig_triptych(
        study.weights, study.contributions, study.effects, study.blocks, reading="probability"
    )
    return words(verdict(study)) + picture(
        figure,
        "Weight, contribution and effect of every block, input at the top. The outlined cell is the largest of "
        f"its row. Effect: how much the probability of '{study.read}' falls when this dependency is left out of "
        "this block and the others share its weight. A red cell was needed, a blue one was in the way.",
    )


def cam_part(
    model: nn.Module,  # network with a card
    seen: SeenClip,  # the clip; its first view is asked about
) -> str:  # HTML
    """Grad-CAM of the first view, or the sentence what is missing for it."""
    try:
        cam = clip_cam(model, seen.views[0])
    except ImportError as err:
        return words(f"Not drawn: {err}.")
    return picture(
        fig_cam_strip(seen.frames, cam.scaled("clip"), cam.range, cam.title, cam.note, indices=seen.indices),
        f"Where the evidence for '{cam.target}' lies, on one scale for the whole clip. A map is coarse, and "
        "even a network with random weights prefers what stands out: a question to ask, not an explanation.",
    )


def clip_page(
    study: ClipStudy,  # from `study_clip`
    model: nn.Module,  # the network that was studied
) -> str:  # HTML
    """Everything about one clip."""
    seen = study.seen
    name = getattr(model, "name", "This network")
    views = f" Of {len(seen.views)} views the first is shown; answer and weights are averaged over all." * (
        len(seen.views) > 1
    )
    out = words(f"{seen.facts}; the network saw {len(seen.frames)} of them.{views}")
    out += picture(
        fig_clip(seen.frames, seen.indices, seen.times), "The frames that the network saw, after the crop."
    )
    out += words("Answer", tag="h3") + bars(model.card.class_names, study.probabilities, seen.true)
    out += words("Selection: weight, contribution, effect", tag="h3") + selection_part(study, name)
    out += words("What happens if", tag="h3") + picture(
        draw_interventions(study),
        "Each intervention changes the network or the clip and asks again. Grey: the same "
        "intervention at random (another dependency in every block, another order, another frame). A dot inside the "
        "grey is nothing special.",
    )
    return out + words("Where the evidence lies", tag="h3") + cam_part(model, seen)


@dataclass
class Inspection:
    """What was written, and what could not be read."""

    path: Path  # the page
    shown: list[str]  # clips on it
    failed: dict[str, str]  # clip -> why it is not on it


def overview(
    studies: Sequence[ClipStudy],  # one per clip that is shown
    failed: Mapping[str, str],  # clip -> why it is not shown
    model: nn.Module,  # the network that was studied
    source: str,  # where it comes from, e.g. " from model.safetensors"; may be empty
) -> str:  # HTML
    """The opening of the page: the model, a row per clip, and the clips that are missing."""
    rows = []
    for s in studies:
        row = {
            "clip": s.seen.name,
            "answer": model.card.class_names[s.probabilities.argmax()],
            "probability": float(s.probabilities.max()),
        }
        if any(other.seen.true for other in studies):
            row["true class"] = s.seen.true
        removed = {e.name: s.change(e)[0] for e in s.done if e.name.startswith("without ")}
        if removed:
            worst = min(removed, key=removed.get)
            row |= {
                "largest weight": DEPENDENCIES[np.nanargmax(s.weights.mean(0))],
                "largest effect": f"{worst} ({removed[worst]:+.2f})",
            }
        rows.append(row)
    out = words(
        f"Model: {getattr(model, 'name', type(model).__name__)}{source}, {len(model.card.class_names)} classes, "
        f"fingerprint {fingerprint(model)}. It knows no other classes: a clip of anything else gets one of them."
    )
    out += f'<div class="left">{table(pd.DataFrame(rows))}</div>'
    if any("largest weight" in row for row in rows):
        out += words(FOUR) + '<div class="limit">'
        out += (
            words(
                "A weight is not an effect. Weights say what was taken, effects what the answer rests on; read the "
                "right column before you believe the left."
            )
            + "</div>"
        )
    if failed:
        lost = pd.DataFrame({"clip": failed.keys(), "why": failed.values()})
        out += f'<div class="left">{table(lost, "Not shown")}</div>'
    return out


def _shown_names(paths: Iterable[str | Path]) -> dict[str, str]:
    """Path -> the file's name, or the path where two files share a name; a path given twice counts once."""
    paths = [str(path) for path in dict.fromkeys(paths)]
    named = [Path(path).name or path for path in paths]
    return {path: name if named.count(name) == 1 else path for path, name in zip(paths, named, strict=True)}


def _target(out: str | Path) -> Path:
    """The file to write, tried before the work."""
    out = Path(out)
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        example = out / "clips.html" if out.is_dir() else out.with_suffix(".html")
        raise SettingError(f"{out} is no name of a page: give a file that ends in .html, e.g. {example}")
    check_folder(out.parent)
    return out


def inspect_clips(
    paths: Sequence[str | Path],  # video files, or folders of frames
    checkpoint: str | Path | nn.Module,  # model file, or a network that `load_model` has loaded
    out: str | Path = "report.html",  # the page; replaced if it exists
    true: Mapping[str, str] | None = None,  # true class by file name, where known
    draws: int = 10,  # random controls of every intervention
    title: str = "",  # plain text
    progress: bool = True,  # show a bar over the clips
    device: str = "auto",  # where to compute with a model file; a network stays where it is
) -> Inspection:
    """Write one self-contained page about some clips."""
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise SettingError("There is nothing to inspect: name at least one clip.")
    out = _target(out)
    source = "" if isinstance(checkpoint, nn.Module) else f" from {Path(checkpoint).name}"
    model = (
        checkpoint
        if isinstance(checkpoint, nn.Module)
        else load_model(checkpoint, device=pick_device(device))
    )
    card = getattr(model, "card", None)
    studies = {}
    failed = {}
    if card is None or not card.transform or not card.sampling:
        raise DataError(
            f"The model{source} does not say how clips are sampled and cropped: use a file that sda train "
            "wrote."
        )
    for name in (true or {}).values():
        if name not in card.class_names:
            raise unknown_name("class", name, card.class_names)
    for path, name in tqdm(_shown_names(paths).items(), desc="inspect", unit="clip", disable=not progress):
        try:
            seen = see_clip(path, card, name)
            seen.true = (true or {}).get(Path(path).name)
            study = study_clip(model, seen, draws)
            studies[name] = study, clip_page(study, model)
        except (VideoError, OSError, ValueError) as err:
            failed[name] = str(err)
    for name, why in failed.items():
        log.warning("%s is not on the page: %s", name, why)
    if not studies:
        raise RunError("None of the clips can be shown. " + " ".join(failed.values()))
    title = (
        title
        or (next(iter(studies)) if len(studies) == 1 else f"{len(studies)} clips") + ": selected, and needed"
    )
    sections = {"Overview": overview([s for s, _ in studies.values()], failed, model, source)}
    write_atomic(out, page(title, sections | {name: text for name, (_, text) in studies.items()}))
    return Inspection(out, list(studies), failed)
