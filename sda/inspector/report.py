"""One HTML file that shows how well a model does, what it selected, and how far each picture can be trusted."""

__all__ = [
    "log",
    "ReportError",
    "check_writable",
    "write_page",
    "words",
    "table",
    "picture",
    "page",
    "Tested",
    "accuracy_rows",
    "accuracy_section",
    "class_section",
    "spread_sentence",
    "selection_section",
    "choose_clips",
    "ClipView",
    "view_clip",
    "clip_section",
    "files_section",
    "write_report",
    "SeenClip",
    "see_clip",
    "bars",
    "ClipStudy",
    "clip_interventions",
    "answers_under",
    "study_clip",
    "verdict",
    "draw_interventions",
    "selection_part",
    "cam_part",
    "clip_page",
    "Inspection",
    "overview",
    "inspect_clips",
    "changed_selection",
    "knock_outs",
]

import base64
import html
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..data.sampling import Sampling
from ..data.transforms import TransformConfig, denormalise
from ..data.video import open_video
from ..explaining.cam import ClipCam, clip_cam
from ..explaining.effects import (
    Effect,
    InputChange,
    Intervention,
    SelectionChange,
    can_drop,
    changed_selection,
    drop,
    freeze,
    knock_outs,
    logits_of,
    partners,
    places,
    reverse,
    uniform,
)
from ..explaining.trace import Trace, fingerprint, trace_clips
from ..figures.clips import fig_cam_strip, fig_clip
from ..figures.effects import fig_interventions, fig_triptych
from ..figures.selection import fig_selection, fig_selection_by_class, fig_selection_by_stage
from ..figures.style import to_png
from ..foundation.errors import VideoError, unknown_name
from ..networks.backbones import list_models, sda_blocks
from ..networks.blocks import DEPENDENCIES
from ..networks.checkpoints import ModelCard, load_model
from ..testing.evaluate import Predictions, softmax

log = logging.getLogger(__name__)


class ReportError(RuntimeError):
    """A report that cannot be written; the message names the folder or the part, and the remedy."""


def check_writable(
    folder: str | Path,  # made when missing
) -> Path:  # the folder
    """Make the folder and write a probe into it; an error now rather than after the work."""
    folder = Path(folder)
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as err:
        raise ReportError(
            f"Nothing can be written into {folder} ({err.strerror}): choose another folder."
        ) from err
    return folder


def write_page(
    path: Path,  # file, replaced if it exists; ReportError where it cannot be written
    text: str,  # a whole HTML document
) -> Path:  # the file
    """Write a page in one move."""
    part = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as err:
        raise ReportError(
            f"{path} cannot be written ({err.strerror}): free some space or choose another file."
        ) from err
    finally:
        part.unlink(missing_ok=True)
    return path


def words(
    *sentences: str,  # plain text
    tag: str = "p",  # HTML element around it
) -> str:  # HTML
    """Plain sentences as one escaped element."""
    return f"<{tag}>{html.escape(' '.join(sentences))}</{tag}>"


def table(
    frame: pd.DataFrame,  # numbers and text; the index is shown when it has a name
    caption: str = "",  # line above, plain text
) -> str:  # HTML
    """A table: shares with two digits, missing values as a dash, everything escaped."""

    def text(value: object) -> str:
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            return "–"
        return f"{value:.2f}" if isinstance(value, float | np.floating) else str(value)

    shown = frame.reset_index() if frame.index.name else frame
    shown = shown.astype(object).map(text)
    body = shown.to_html(index=False, border=0, escape=True, justify="unset")
    return words(caption, tag="h3") * bool(caption) + f'<div class="wide">{body}</div>'


def picture(
    figure: Figure,  # from sda.figures
    caption: str,  # says how to read it, plain text
    alt: str = "",  # what it shows, for screen readers; the caption's first sentence if left out
) -> str:  # HTML
    """A figure inside the page, with its caption."""
    data = base64.b64encode(to_png(figure)).decode()
    alt = html.escape(alt or caption.split(". ")[0], quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">{words(caption, tag="figcaption")}</figure>'


_CSS = """
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.2rem 4rem; color: #222; background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { line-height: 1.2; margin-bottom: .2em; } h2 { margin-top: 2.4em; border-bottom: 2px solid #ddd; }
h3 { margin: 1.4em 0 .3em; font-size: 1em; } p { max-width: 46rem; } nav a { margin-right: 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; } tr:hover td { background: #f6f6f6; }
.wide { overflow-x: auto; } figure { margin: 1.2em 0; } img { max-width: 100%; height: auto; }
figcaption { max-width: 46rem; color: #444; font-size: .92em; }
.left td, .left th { text-align: left; } .bar { width: 12rem; } .bar div { background: #0072B2; height: .8em; min-width: 1px; }
.limit { border-left: 4px solid #E69F00; padding-left: .8em; } footer { margin-top: 3em; color: #555; font-size: .9em; }
@media print { nav { display: none; } h2 { page-break-after: avoid; } figure { page-break-inside: avoid; } }
"""


def page(
    title: str,  # plain text
    sections: Mapping[str, str],  # heading -> HTML of the section
) -> str:  # a whole HTML document
    """The sections as one self-contained document with a list of contents."""
    keys = {name: f"s{i}" for i, name in enumerate(sections)}
    links = "".join(f'<a href="#{key}">{html.escape(name)}</a>' for name, key in keys.items())
    body = "".join(
        f'<section><h2 id="{keys[name]}">{html.escape(name)}</h2>\n{content}</section>\n'
        for name, content in sections.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}</body></html>\n"
    )


@dataclass
class Tested:
    """One model of the report: what it answered on the test clips, and the record of that test."""

    name: str  # as shown, e.g. "SDA-TSN"
    predictions: Predictions  # of the test clips
    record: dict = field(default_factory=dict)  # from sda.testing.results: seed, train_seconds, machine


def accuracy_rows(
    tested: Sequence[Tested],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
    pairs: Sequence[tuple[str, str]] = (),  # twin classes, made of the same frames in another order
) -> pd.DataFrame:  # one row per model, and one for chance
    """Accuracy overall, by need and between twins, with training seconds."""
    rows = {}
    for one in tested:
        p = one.predictions
        low, high = p.interval()
        row = {"all": p.accuracy(), "95 % interval": f"{low:.2f} to {high:.2f}", "clips": len(p)}
        if needs:
            row |= dict(p.by_group(dict(needs))[["group", "accuracy"]].itertuples(index=False))
        if pairs:
            row["between twins"] = float(p.pair_accuracy(list(pairs))["accuracy"].dropna().mean())
        seconds = one.record.get("train_seconds")
        rows[one.name] = row | {"training s": None if seconds is None else round(seconds)}
    chance = 1 / len(tested[0].predictions.class_names)
    rows["chance"] = {"all": chance, **dict.fromkeys(needs.values() if needs else (), chance)} | (
        {"between twins": 0.5} if pairs else {}
    )
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return frame.astype({"clips": "Int64", "training s": "Int64"})


def _machine(record: Mapping) -> str:
    """The machine of a record in words; no names, no folders."""
    m = record.get("machine") or {}
    parts = [
        m.get("gpu") or m.get("cpu"),
        f"{m['cores']} cores" if m.get("cores") else None,
        f"torch {m['torch']}" if m.get("torch") else None,
    ]
    return ", ".join(p for p in parts if p) or "not recorded"


def accuracy_section(
    tested: Sequence[Tested],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
    pairs: Sequence[tuple[str, str]] = (),  # twin classes, made of the same frames in another order
) -> str:  # HTML
    """The accuracy table and how to read it."""
    out = table(accuracy_rows(tested, needs, pairs))
    out += words(
        "Share of test clips whose best-scored class is the true one. Test clips were never used in training "
        "or to choose anything. The 95 % interval covers the choice of clips, not the choice of the seed."
    )
    if pairs:
        out += words(
            f"Between twins: the mean over {len(pairs)} pair{'s' * (len(pairs) > 1)} of classes. Only the scores "
            "of the two classes of a pair are compared, so a coin gets .50. Twins are made of the same frames "
            "in another order; a model that looks at frames one by one and averages cannot tell them apart."
        )
    seeds = sorted({str(t.record["seed"]) for t in tested if "seed" in t.record})
    note = (
        f"One run each (seed {', '.join(seeds)}); another seed moves these numbers by a few points."
        if seeds
        else ""
    )
    return out + words(f"Seconds were measured on: {_machine(tested[-1].record)}.", note)


def class_section(
    tested: Sequence[Tested],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
) -> str:  # HTML
    """Accuracy of every class under every model, and what the last model says instead."""
    last = tested[-1].predictions
    frame = last.by_class()[["class", "n"]]
    if needs:
        frame.insert(1, "need", frame["class"].map(needs))
    for one in tested:
        frame[one.name] = one.predictions.by_class()["accuracy"].astype(object)
    counts = last.confusion().to_numpy(copy=True)
    np.fill_diagonal(counts, 0)
    frame["most frequent mistake"] = [
        f"{last.class_names[row.argmax()]} ({row.max()})" if row.max() else "–" for row in counts
    ]
    return table(frame) + words(
        f"The last column belongs to {tested[-1].name}; the number in brackets counts clips. With {frame['n'].max()} "
        "clips in a class, one clip more or less is "
        f"{1 / max(frame['n'].max(), 1):.2f}: do not read small differences."
    )


_FOUR = (
    "Every SDA block gives each of its four dependencies a weight per clip; the weights of a block add up to 1. LST "
    "looks at the whole clip at once, LT at space with time averaged, LS at time with space averaged, S122 at small "
    "neighbourhoods in space and time."
)


def spread_sentence(
    trace: Trace,  # selections of some clips
) -> str:  # two sentences, plain text
    """How undecided the blocks are, and how much clips differ, in words."""
    low, high = np.nanpercentile(trace.weights, [10, 90], axis=0)  # over clips: [R,4]
    wide = np.unravel_index(np.nanargmax(high - low), low.shape)
    return (
        f"The weights have {float(trace.entropy().mean()):.3f} of the largest possible entropy, where 1 is no "
        "preference at all and 0 is one dependency alone. They differ most between clips for "
        f"{trace.dependencies[wide[1]]} in {trace.blocks[wide[0]]}, where the middle 80 % of the clips lie between "
        f"{low[wide]:.2f} and {high[wide]:.2f}."
    )


def selection_section(
    trace: Trace,  # selections of the test clips
    effects: pd.DataFrame | None = None,  # from `knock_outs`
) -> str:  # HTML
    """Selection by class and by stage, with the knock-out beside it."""
    out = words(_FOUR)
    out += picture(
        fig_selection_by_class(*trace.by_class()),
        f"Mean weight by class, over all {len(trace.blocks)} blocks. A row that differs from the others "
        "means that clips of this class are treated differently, not that they need what is large.",
    )
    out += picture(
        fig_selection_by_stage(*trace.by_stage()),
        "Mean weight from the first stage to the last. Bars are 95 % intervals of the mean over clips; "
        "single clips differ more. The dashed line is no preference.",
    ) + words(spread_sentence(trace))
    out += '<div class="limit">' + words(
        "A weight is not an effect. It says how strongly a response points along the "
        "learnt query, not that the answer rests on it."
    )
    if effects is not None:
        out += words(
            "The table below tests the effect: one dependency is left out in every block, the others share "
            "its weight, and accuracy is counted again. What drops is what the network cannot do without; "
            "part of a drop may come from the change itself."
        ) + table(effects)
    return out + "</div>"


def choose_clips(
    tested: Sequence[Tested],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
) -> list[int]:  # positions in the list of clips
    """One clip per need by a fixed rule, and one that the last model gets wrong."""
    first = tested[0].predictions
    last = tested[-1].predictions
    right = last.top1() == last.labels
    gained = right & (first.top1() != first.labels)
    groups = np.array([(needs or {}).get(last.class_names[k], "all") for k in last.labels])
    chosen = []
    for group in sorted(set(groups)):
        for mask in (gained, right):
            found = np.flatnonzero(mask & (groups == group))
            if len(found):
                chosen.append(int(found[0]))
                break
    return chosen + np.flatnonzero(~right)[:1].tolist()


@dataclass
class ClipView:
    """What the report shows of one clip."""

    id: str  # clip id
    true: str  # true class
    frames: np.ndarray  # uint8 [T,h,w,3], what the network saw
    answers: dict[str, str]  # model name -> class and probability in words
    weights: np.ndarray  # [blocks,4] selection
    blocks: list[str]  # block names
    cam: ClipCam  # evidence for the answer of the last model


def view_clip(
    model: nn.Module,  # the last model
    data: Dataset,  # test clips
    index: int,  # position in the list
    tested: Sequence[Tested],  # models, the baseline first
    trace: Trace,  # selections of the same clips
) -> ClipView:
    """Frames, answers, selection and Grad-CAM of one clip."""
    item = data[index]
    config = getattr(data, "transform_config", None) or TransformConfig()
    last = tested[-1].predictions
    answers = {}
    for one in tested:
        score = one.predictions.scores()[one.predictions.ids.index(item["id"])]
        share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
        answers[one.name] = f"{last.class_names[score.argmax()]} ({share.max():.2f})"
    place = list(trace.videos).index(item["id"])
    frames = denormalise(item["clip"], config.mean, config.std).numpy()
    return ClipView(
        item["id"],
        last.class_names[item["label"]],
        frames,
        answers,
        trace.weights[place],
        list(trace.blocks),
        clip_cam(model, item["clip"], class_names=last.class_names),
    )


def clip_section(
    views: Sequence[ClipView],  # from `view_clip`, chosen by `choose_clips`
) -> str:  # HTML
    """Frames with class-activation maps, answers and selection of some clips."""
    out = words(
        "For every need: the first test clip that the last model gets right and the first model wrong, or where "
        "there is none the first that the last model gets right. The last clip is one that it gets wrong, if "
        "there is any. Frames are what the network saw, after cropping."
    )
    for view in views:
        answers = "; ".join(f"{name} says {answer}" for name, answer in view.answers.items())
        out += words(f"{view.true} · {view.id}", tag="h3") + words(f"{answers}.")
        cam = view.cam
        out += picture(
            fig_cam_strip(view.frames, cam.scaled("clip"), cam.range, cam.title, cam.note),
            f"Grad-CAM: where the evidence for '{cam.target}' lies, on one scale for the whole clip.",
        )
        out += picture(
            fig_selection(view.weights, view.blocks),
            "Selection of this clip, input at the top. Orange is more than no preference (.25), purple less.",
        )
    return (
        out
        + '<div class="limit">'
        + words(
            "A class-activation map is coarse (a few cells stretched over the frame) and even a network with random "
            "weights prefers moving or bright places. It is a question to ask, not an explanation."
        )
        + "</div>"
    )


def files_section(
    folder: Path,  # of the report
    files: Iterable[str | Path],  # records, predictions and model files
) -> str:  # HTML
    """Where the numbers lie: links relative to the report."""
    items = []
    for file in files:
        name = Path(os.path.relpath(file, folder)).as_posix()
        items.append(f'<li><a href="{html.escape(name, quote=True)}">{html.escape(name)}</a></li>')
    out = words("Every number above comes from these files, which lie beside the report.")
    return out + f"<ul>{''.join(items)}</ul>"


def _same_clips(tested: Sequence[Tested], trace: Trace) -> None:
    """Refuse tests and selections of different clips."""
    ids = set(tested[0].predictions.ids)
    for name, other in [*((t.name, t.predictions.ids) for t in tested), ("the trace", trace.videos)]:
        if odd := sorted(ids ^ set(map(str, other))):
            raise ReportError(
                f"{name} and {tested[0].name} cover different clips, e.g. {odd[0]!r}: test and trace all "
                "models on the same list."
            )


def write_report(
    folder: str | Path,  # where report.html goes
    tested: Sequence[Tested],  # models, the baseline first
    trace: Trace,  # selections of the last model on the test clips
    views: Sequence[ClipView] = (),  # from `view_clip`
    effects: pd.DataFrame | None = None,  # from `knock_outs`
    needs: Mapping[str, str] | None = None,  # class name -> need
    pairs: Sequence[tuple[str, str]] = (),  # twin classes, made of the same frames in another order
    files: Iterable[str | Path] = (),  # records and model files to point to
    title: str = "What the video model selects",  # plain text
) -> Path:  # the file
    """Write report.html: self-contained, readable offline, complete or not at all."""
    if not tested:
        raise ReportError("There is nothing to report: give at least one tested model.")
    folder = check_writable(folder)
    _same_clips(tested, trace)
    sections = {
        "Accuracy": accuracy_section(tested, needs, pairs),
        "Selection": selection_section(trace, effects),
    }
    if views:
        sections["Clips"] = clip_section(views)
    sections |= {"Classes": class_section(tested, needs), "Files": files_section(folder, files)}
    log.info("report in %s", folder / "report.html")
    return write_page(folder / "report.html", page(title, sections))


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
        raise ReportError(f"{seen.name}: {unknown_name('class', seen.true, list(names))}")
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
        out += words(_FOUR) + '<div class="limit">'
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
        raise ReportError(
            f"{out} should be the name of a file that ends in .html, e.g. {out.with_suffix('') / 'clips.html'}"
            if out.is_dir()
            else f"{out} should end in .html"
        )
    check_writable(out.parent)
    return out


def inspect_clips(
    paths: Sequence[str | Path],  # video files, or folders of frames
    checkpoint: str | Path | nn.Module,  # model file, or a network that `load_model` has loaded
    out: str | Path = "report.html",  # the page; replaced if it exists
    true: Mapping[str, str] | None = None,  # true class by file name, where known
    draws: int = 10,  # random controls of every intervention
    title: str = "",  # plain text
    progress: bool = True,  # show a bar over the clips
) -> Inspection:
    """Write one self-contained page about some clips."""
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise ReportError("There is nothing to inspect: name at least one clip.")
    out = _target(out)
    source = "" if isinstance(checkpoint, nn.Module) else f" from {Path(checkpoint).name}"
    model = checkpoint if isinstance(checkpoint, nn.Module) else load_model(checkpoint)
    card = getattr(model, "card", None)
    studies = {}
    failed = {}
    if card is None or not card.transform or not card.sampling:
        raise ReportError(
            f"The model{source} does not say how clips are sampled and cropped: use a file that sda train "
            "wrote."
        )
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
        raise ReportError("None of the clips can be shown. " + " ".join(failed.values()))
    title = (
        title
        or (next(iter(studies)) if len(studies) == 1 else f"{len(studies)} clips") + ": selected, and needed"
    )
    sections = {"Overview": overview([s for s, _ in studies.values()], failed, model, source)}
    write_page(out, page(title, sections | {name: text for name, (_, text) in studies.items()}))
    return Inspection(out, list(studies), failed)
