"""The page at the end of a demo: how well the models do, what was selected, and what it was good for."""

import html
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn
from torch.utils.data import Dataset

from ..data.transforms import TransformConfig, denormalise
from ..explaining.cam import ClipCam, clip_cam
from ..explaining.trace import Trace
from ..figures.clips import fig_cam_strip
from ..figures.selection import fig_selection, fig_selection_by_class, fig_selection_by_stage
from ..foundation.errors import RunError
from ..foundation.files import check_folder, write_atomic
from ..foundation.runs import machine_in_words
from ..inspector.html import FOUR, page, picture, table, words
from ..testing.evaluate import Predictions

__all__ = ["Tested", "choose_clips", "view_clip", "write_report"]

log = logging.getLogger(__name__)


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
    return out + words(
        f"Seconds were measured on: {machine_in_words(tested[-1].record.get('machine'))}.", note
    )


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
    out = words(FOUR)
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
            raise RunError(
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
        raise RunError("There is nothing to report: give at least one tested model.")
    folder = check_folder(folder)
    _same_clips(tested, trace)
    sections = {
        "Accuracy": accuracy_section(tested, needs, pairs),
        "Selection": selection_section(trace, effects),
    }
    if views:
        sections["Clips"] = clip_section(views)
    sections |= {"Classes": class_section(tested, needs), "Files": files_section(folder, files)}
    log.info("report in %s", folder / "report.html")
    return write_atomic(folder / "report.html", page(title, sections))
