"""The page at the end of a demo: how well the models do, what was selected, and what it was good for."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from ..data.datasets import ClipDataset
from ..explaining.cam import ClipCam, clip_cam
from ..explaining.trace import Trace
from ..figures.clips import fig_cam_strip
from ..figures.groups import fig_selection_by_class, fig_selection_by_stage
from ..figures.selection import fig_selection
from ..foundation.errors import RunError
from ..foundation.files import check_folder, write_atomic
from ..foundation.runs import machine_in_words
from ..foundation.statistics import softmax
from ..inspector.html import render
from ..testing.predictions import Predictions, by_class, by_group, confusion, pair_accuracy

__all__ = ["write_report"]

log = logging.getLogger(__name__)
TEMPLATE = Path(__file__).resolve().parent / "templates" / "report.html"


@dataclass
class ModelScores:
    """One model of the report: what it answered on the test clips, and the record of that test."""

    name: str  # as shown, e.g. "SDA-TSN"
    predictions: Predictions  # of the test clips
    record: dict = field(default_factory=dict)  # from sda.testing.results: seed, train_seconds, machine


def accuracy_rows(
    tested: Sequence[ModelScores],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
    pairs: Sequence[tuple[str, str]] = (),  # classes made of the same frames in another order
) -> pd.DataFrame:  # one row per model, and one for chance
    """Accuracy overall, by need and within pairs, with training seconds."""
    rows: dict[str, dict[str, object]] = {}
    for one in tested:
        p = one.predictions
        low, high = p.interval()
        row: dict[str, object] = {
            "all": p.accuracy(),
            "95 % interval": f"{low:.2f} to {high:.2f}",
            "clips": len(p),
        }
        if needs:
            row |= dict(by_group(p, dict(needs))[["group", "accuracy"]].itertuples(index=False))
        if pairs:
            row["within pairs"] = float(pair_accuracy(p, list(pairs))["accuracy"].dropna().mean())
        seconds = one.record.get("train_seconds")
        rows[one.name] = row | {"training s": None if seconds is None else round(seconds)}
    chance = 1 / len(tested[0].predictions.class_names)
    rows["chance"] = {"all": chance, **dict.fromkeys((needs or {}).values(), chance)}
    if pairs:
        rows["chance"]["within pairs"] = 0.5
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return frame.astype({"clips": "Int64", "training s": "Int64"})


def class_rows(
    tested: Sequence[ModelScores],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
) -> pd.DataFrame:  # one row per class
    """Accuracy of every class under every model, and what the last model says instead."""
    last = tested[-1].predictions
    frame = by_class(last)[["class", "n"]]
    if needs:
        frame.insert(1, "need", frame["class"].map(needs))
    for one in tested:
        frame[one.name] = by_class(one.predictions)["accuracy"].astype(object)
    counts = confusion(last).to_numpy(copy=True)
    np.fill_diagonal(counts, 0)
    frame["most frequent mistake"] = [
        f"{last.class_names[row.argmax()]} ({row.max()})" if row.max() else "–" for row in counts
    ]
    return frame


def spread_sentence(
    trace: Trace,  # selections of some clips
) -> str:  # two sentences, plain text
    """How undecided the blocks are, and how much clips differ, in words."""
    low, high = np.nanpercentile(trace.weights, [10, 90], axis=0)  # over clips: [R,4]
    wide = np.unravel_index(np.nanargmax(high - low), low.shape)
    return (
        f"The normalised entropy of the weights is {float(trace.entropy().mean()):.3f}, where 1 is uniform "
        "and 0 is one dependency alone. They differ most between clips for "
        f"{trace.dependencies[wide[1]]} in {trace.blocks[wide[0]]}, where the middle 80 % of the clips lie "
        f"between {low[wide]:.2f} and {high[wide]:.2f}."
    )


def choose_clips(
    tested: Sequence[ModelScores],  # models, the baseline first
    needs: Mapping[str, str] | None = None,  # class name -> need
) -> list[int]:  # positions in the list of clips
    """One clip per need by a fixed rule, and one that the last model gets wrong."""
    first = tested[0].predictions
    last = tested[-1].predictions
    right = last.predicted() == last.labels
    gained = right & (first.predicted() != first.labels)
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
    answers: dict[str, str]  # model name -> class and probability in words
    cam: ClipCam  # evidence for the answer of the last model
    cam_strip: Figure  # the frames that the network saw, and the evidence over them
    selection: Figure  # weight of every dependency in every block


def view_clip(
    model: nn.Module,  # the last model
    data: ClipDataset,  # test clips
    index: int,  # position in the list
    tested: Sequence[ModelScores],  # models, the baseline first
    trace: Trace,  # selections of the same clips
) -> ClipView:
    """Frames, answers, selection and Grad-CAM of one clip."""
    seen = data.load(index)
    names = tested[-1].predictions.class_names
    answers = {}
    for one in tested:
        share = softmax(one.predictions.scores()[one.predictions.ids.index(seen.id)])
        answers[one.name] = f"{names[share.argmax()]} ({share.max():.2f})"
    weights = trace.weights[list(trace.videos).index(seen.id)]
    cam = clip_cam(model, seen.clip[0], class_names=names)
    return ClipView(
        seen.id,
        "class not known" if seen.label is None else names[seen.label],
        answers,
        cam,
        fig_cam_strip(seen.frames, cam.scaled("clip"), cam.range, cam.title, cam.note),
        fig_selection(weights, list(trace.blocks)),
    )


def _same_clips(tested: Sequence[ModelScores], trace: Trace) -> None:
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
    tested: Sequence[ModelScores],  # models, the baseline first
    trace: Trace,  # selections of the last model on the test clips
    views: Sequence[ClipView] = (),  # from `view_clip`
    effects: pd.DataFrame | None = None,  # from `ablation_table`
    needs: Mapping[str, str] | None = None,  # class name -> need
    pairs: Sequence[tuple[str, str]] = (),  # classes made of the same frames in another order
    files: Iterable[str | Path] = (),  # records and model files to point to
    title: str = "What the video model selects",  # plain text
) -> Path:  # the file
    """Write report.html: self-contained, readable offline, complete or not at all."""
    if not tested:
        raise RunError("There is nothing to report: give at least one tested model.")
    folder = check_folder(folder)
    _same_clips(tested, trace)
    headings = ["Accuracy", "Selection", "Classes", "Files"]
    if views:
        headings.insert(2, "Clips")
    classes = class_rows(tested, needs)
    text = render(
        TEMPLATE,
        title=title,
        headings=headings,
        accuracy=accuracy_rows(tested, needs, pairs),
        pairs=pairs,
        machine=machine_in_words(tested[-1].record.get("machine")),
        seeds=sorted({str(one.record["seed"]) for one in tested if "seed" in one.record}),
        trace=trace,
        by_class=fig_selection_by_class(*trace.by_class()),
        by_stage=fig_selection_by_stage(*trace.by_stage()),
        spread=spread_sentence(trace),
        effects=effects,
        clips=views,
        classes=classes,
        last=tested[-1].name,
        most=int(classes["n"].max()),
        files=[Path(os.path.relpath(file, folder)).as_posix() for file in files],
    )
    log.info("report in %s", folder / "report.html")
    return write_atomic(folder / "report.html", text)
