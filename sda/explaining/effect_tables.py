"""Tables of effects: a change in rows and in words, agreement of ranks, accuracies without a dependency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from ..data.datasets import ClipDataset
from ..foundation.errors import SettingError
from ..foundation.statistics import mean_interval, rank_correlation, spearman
from ..networks.blocks import DEPENDENCIES
from ..testing.evaluate import evaluate
from ..testing.predictions import Predictions, by_group, pair_accuracy
from .answers import READINGS, readings
from .attribution import Attribution
from .interventions import changed, drop, uniform
from .tracer import select_blocks

__all__ = ["ablation_table"]


def _draw_range(drawn: np.ndarray) -> tuple[float, float, float]:
    """Mean, lowest and highest of the draws' means over clips [D,N]; NaN without draws."""
    means = np.nanmean(drawn, 1) if drawn.size else np.array([np.nan])
    return float(means.mean()), float(means.min()), float(means.max())


def summary_of(
    effect: Any,  # an `Effect`
) -> pd.DataFrame:
    """See `Effect.summary`."""
    old = readings(effect.before, effect.labels, effect.partner)
    new = readings(effect.after, effect.labels, effect.partner)
    names = ("before", "after", "change", "random", "low", "high", "n")
    rows = {}
    for reading in READINGS:
        n = int((~np.isnan(old[reading])).sum())
        if n:
            now, drawn = effect.changes(reading)
            means = (np.nanmean(old[reading]), np.nanmean(new[reading]), np.nanmean(now))
            rows[reading] = (*means, *_draw_range(drawn), n)
    flipped, drawn = effect.flips()
    rows["flips"] = (0.0, flipped.mean(), flipped.mean(), *_draw_range(drawn.astype(float)), len(flipped))
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis(effect.name).round(4)


def table_of(
    effect: Any,  # an `Effect`
) -> pd.DataFrame:
    """See `Effect.table`."""
    names = np.array(effect.class_names, object)
    columns = {
        "clip": effect.ids,
        "class": names[effect.labels],
        "answer before": names[effect.before.argmax(1)],
        "answer after": names[effect.after.argmax(1)],
        "flip": effect.flips()[0],
    }
    for reading in ("probability", "margin"):
        now, drawn = effect.changes(reading)
        columns[f"{reading} before"] = readings(effect.before, effect.labels)[reading]
        columns[f"{reading} change"] = now
        if len(drawn):
            columns[f"{reading} at random"] = drawn.mean(0)
            columns[f"{reading} random low"] = drawn.min(0)
            columns[f"{reading} random high"] = drawn.max(0)
    return pd.DataFrame(columns)


def words_of(
    effect: Any,  # an `Effect`
    reading: str,  # one of READINGS
) -> str:
    """See `Effect.words`."""
    now, drawn = effect.changes(reading)
    mean, low, high = _draw_range(drawn)
    said = f"{effect.name}: {reading} changes by {np.nanmean(now):+.3f} (n = {int((~np.isnan(now)).sum())})"
    if not len(drawn):
        return said + "; no random control was run"
    said += f"; the same at random {mean:+.3f} ({low:+.3f} to {high:+.3f}, draws: {len(drawn)})"
    if len(drawn) < 5:
        return said + ", too few to tell"
    return said + (": inside" if low <= np.nanmean(now) <= high else ": outside") + " the range of chance"


def players_at(
    model: nn.Module,  # network with SDA blocks
    place: str,  # see `select_blocks`
) -> tuple[str, ...]:
    """The dependencies of the blocks at a place, which must be the same."""
    sets = {
        tuple(n for n in DEPENDENCIES if n in block.dependencies)
        for block in select_blocks(model, place).values()
    }
    if len(sets) > 1:
        raise SettingError(
            "the blocks have different dependencies",
            subject=place,
            remedy="ask for one block or stage at a time",
        )
    return sets.pop()


def agreement_of(
    values: np.ndarray,  # [N,P,4]
    effect: np.ndarray,  # [N,P,4]
    draws: int,  # bootstrap samples
    seed: int,  # of the bootstrap
) -> dict[str, tuple[float, float, float, int]]:
    """What `rank_agreement` says of values and effects [N,P,4]: name of the row -> rho, low, high, n."""
    N = len(effect)
    gone = np.isnan(effect).all(0).any(0)  # at some place: lacking, or the only one
    usable = ~gone & ~np.isnan(values).any((0, 1))
    known = np.flatnonzero(usable)
    if len(known) < 2:
        raise SettingError(
            f"weight and effect are compared over two dependencies or more, here over {len(known)}",
            remedy="each of these blocks must have two that can be left out",
        )
    rows = {
        DEPENDENCIES[d]: (*rank_correlation(values[..., d], effect[..., d], draws, seed), N) for d in known
    }
    a = values[..., known].mean(1)  # per clip, over places
    b = effect[..., known].mean(1)
    rows["pooled"] = (*rank_correlation(a, b, draws, seed), N)
    means = {"within clips": spearman(a, b), "best matches": (a.argmax(1) == b.argmax(1)).astype(float)}
    for over, each in means.items():
        each = each[~np.isnan(each)]
        mean = float(each.mean()) if len(each) else np.nan
        rows[over] = (mean, *mean_interval(each, draws, seed), len(each))
    return rows


def check_same_clips(
    told: Attribution,  # what is judged
    effect: Attribution,  # what it is judged by
) -> None:
    """Refuse attributions of other clips, or of another network: both have different answers."""
    if told.logits is None or effect.logits is None:
        same = told.clips == effect.clips
    else:
        near = 1e-3 * np.abs(effect.logits).max()  # rounding differs between batches
        same = told.logits.shape == effect.logits.shape and np.abs(told.logits - effect.logits).max() <= near
    if not same:
        text = f"{told.kind} and {effect.kind} are of different clips, or of different models"
        raise SettingError(text, subject=told.kind)


def _accuracies(
    found: Predictions, groups: Mapping[str, str] | None, pairs: Sequence[tuple[str, str]]
) -> dict[str, float]:
    """Accuracy overall, by group, within pairs."""
    row = {"all": found.accuracy()}
    if groups:
        row |= dict(by_group(found, dict(groups))[["group", "accuracy"]].itertuples(index=False))
    if pairs:
        row["within pairs"] = float(pair_accuracy(found, list(pairs))["accuracy"].dropna().mean())
    return row


def ablation_table(
    model: nn.Module,  # trained network with SDA blocks
    data: ClipDataset,  # test clips
    groups: Mapping[str, str] | None = None,  # class name -> its group, such as what it needs
    pairs: Sequence[tuple[str, str]] = (),  # classes that make a pair
    batch_size: int = 50,  # clips at once
    progress: bool = False,  # show a bar
) -> pd.DataFrame:  # one row per change
    """Accuracy as selected, without each dependency (NaN where that cannot be), and with equal weights."""
    present = {name for block in select_blocks(model).values() for name in block.dependencies}
    changes = {f"without {name}": drop(name) for name in DEPENDENCIES if name in present}
    rows = dict.fromkeys(["as selected", *changes], {"all": np.nan})
    changes |= {"all weights equal": uniform()}
    passes = {"as selected": ()} | {name: (one,) for name, one in changes.items() if one.fits(model)}
    for name, change in tqdm(passes.items(), desc="ablation", disable=not progress):
        with changed(model, *change):
            found = evaluate(model, data, batch_size=batch_size, progress=False)
        rows[name] = _accuracies(found, groups, pairs)
    guess = 1 / len(found.class_names)
    rows["chance"] = {"all": guess} | dict.fromkeys((groups or {}).values(), guess)
    if pairs:
        rows["chance"]["within pairs"] = 0.5
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("selection")
