"""Tables of scores: a row per clip, mistake, group, or value of an attribute; lines and files of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..foundation.errors import SettingError
from ..foundation.files import csv_text, write_atomic
from ..foundation.statistics import softmax, wilson_interval
from .scores import Scores

__all__ = ["by_clip", "confusion"]


def by_clip(
    predictions: Scores,  # scores of N videos
) -> pd.DataFrame:  # columns clip, true, answer, right, probability, true_probability, true_rank
    """One row per clip: answer, probability of the answer and of the true class, and its rank."""
    scores = predictions.scores()
    shares = softmax(scores)
    rows = np.arange(len(scores))
    best = predictions.predicted()
    names = np.array(predictions.class_names, dtype=object)
    columns = {
        "clip": predictions.ids,
        "true": names[predictions.labels],
        "answer": names[best],
        "right": predictions.correct(),
        "probability": shares[rows, best],
        "true_probability": shares[rows, predictions.labels],
        "true_rank": (scores >= scores[rows, predictions.labels][:, None]).sum(1),
    }
    return pd.DataFrame(columns)


def most_confused(
    predictions: Scores,  # scores of N videos
    count: int = 10,  # at most so many rows
) -> pd.DataFrame:  # columns true, answer, n, videos (ids); the most frequent first
    """The most frequent mistakes: true class, answer, how often, which videos."""
    best = predictions.predicted()
    wrong = np.flatnonzero(best != predictions.labels)
    names = np.array(predictions.class_names, dtype=object)
    rows = pd.DataFrame(
        {
            "true": names[predictions.labels[wrong]],
            "answer": names[best[wrong]],
            "video": [predictions.ids[i] for i in wrong],
        }
    )
    if rows.empty:
        return pd.DataFrame(columns=["true", "answer", "n", "videos"])
    table = rows.groupby(["true", "answer"], sort=False)["video"].agg(n="size", videos=list).reset_index()
    return table.sort_values("n", ascending=False, kind="stable", ignore_index=True).head(count)


def by_attribute(
    predictions: Scores,  # scores of N videos
    groups: Mapping[str, Mapping[str, str]],  # attribute -> class name -> value, e.g. `predictions.groups`
) -> pd.DataFrame:
    """One row per attribute and value: videos, accuracy, share whose answer has at least this value."""
    best = predictions.predicted()
    tables = []
    for attribute, values in groups.items():
        if missing := [name for name in predictions.class_names if name not in values]:
            raise SettingError(
                f"The attribute {attribute!r} has no value for the class {missing[0]!r} "
                f"({len(missing)} missing): take the vocabulary the dataset was made with.",
                subject=missing[0],
            )
        kinds = np.array([values[name] for name in predictions.class_names], dtype=object)
        frame = pd.DataFrame(
            {
                "attribute": attribute,
                "value": kinds[predictions.labels],
                "accuracy": predictions.correct(),
                "attribute_right": kinds[best] == kinds[predictions.labels],
            }
        )
        by_value = frame.groupby(["attribute", "value"])[["accuracy", "attribute_right"]]
        tables.append(by_value.mean().assign(n=by_value.size()).reset_index())
    columns = ["attribute", "value", "n", "accuracy", "attribute_right"]
    return pd.concat(tables, ignore_index=True)[columns]


def confusion(
    predictions: Scores,  # scores of N videos
) -> pd.DataFrame:  # [K,K], class names on both sides
    """Counts: row = true class, column = best-scored class."""
    k = len(predictions.class_names)
    counts = np.zeros((k, k), int)
    np.add.at(counts, (predictions.labels, predictions.predicted()), 1)
    return pd.DataFrame(counts, index=predictions.class_names, columns=predictions.class_names)


def by_group(
    predictions: Scores,  # scores of N videos
    groups: dict[str, str],  # class name -> group, or video id -> group
    k: int = 1,  # how many best classes count
) -> pd.DataFrame:
    """One row per group: videos, right ones, accuracy."""
    names = [predictions.class_names[label] for label in predictions.labels]
    keys = names if set(names) <= groups.keys() else predictions.ids
    if missing := sorted({key for key in keys if key not in groups}):
        raise SettingError(
            f"No group is given for {missing[0]!r} ({len(missing)} missing): map every class name "
            "that occurs, or every video id.",
            subject=missing[0],
        )
    frame = pd.DataFrame({"group": [groups[key] for key in keys], "right": predictions.correct(k)})
    table = (
        frame.groupby("group", sort=False)["right"].agg(n="size", right="sum", accuracy="mean").reset_index()
    )
    order = list(dict.fromkeys(groups.values()))
    return table.sort_values("group", key=lambda g: g.map(order.index), ignore_index=True)


def lines(
    predictions: Scores,  # scores of N videos
    found: Mapping[str, Any],  # their `summary`
    title: str,  # how the first line begins
    most: int,  # mistakes to name
) -> list[str]:
    """Accuracies, accuracy by group, and the most frequent mistakes with a clip each."""
    right = predictions.correct()
    low, high = wilson_interval(int(right.sum()), len(right))
    said = [
        f"{title}: top-1 {found['top1']:.3f} (95 % interval {low:.3f} to {high:.3f}), "
        f"top-5 {found['top5']:.3f}, mean over classes {found['mean_class']:.3f}, "
        f"calibration error {found['calibration_error']:.3f}"
    ]
    for attribute in predictions.groups:
        said += [f"  {group:8} {share:.3f}" for group, share in found[f"by_{attribute}"].items()]
    for row in most_confused(predictions, most).itertuples():
        said.append(f"  {row.n} x {row.true!r} taken for {row.answer!r}, e.g. {row.videos[0]}")
    return said


def write_tables(
    stem: str | Path,  # how the files' paths begin
    tables: Mapping[str, pd.DataFrame],  # ending of the file -> its table
    reliability: tuple[pd.DataFrame, float],  # bins of confidence, and the calibration error
) -> list[Path]:  # the files
    """Write STEM-ENDING.csv of every table, and STEM-reliability.png."""
    from ..figures.style import to_png
    from ..figures.training import fig_reliability

    stem = Path(stem)
    contents: dict[str, str | bytes] = {
        f"{name}.csv": csv_text(table, "true class" if name == "confusion" else "")
        for name, table in tables.items()
    }
    contents["reliability.png"] = to_png(fig_reliability(*reliability))
    return [write_atomic(stem.with_name(f"{stem.name}-{end}"), text) for end, text in contents.items()]
