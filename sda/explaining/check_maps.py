"""Checks of maps: removal against random orders, random weights, pointing at known objects."""

import numpy as np
import pandas as pd

from ..foundation.errors import SettingError
from .check_report import Check, CheckInput, CheckResult, result_of
from .faithfulness import (
    control_maps,
    curve_areas,
    curve_words,
    deletion_insertion,
    parameter_randomisation,
    pointing_table,
)


def removal_check(inputs: CheckInput, over: str) -> Check:
    """Deletion and insertion over space or over frames, against random orders and the centre."""
    N = len(inputs.clips)
    yield f"maps of {N} clips"
    maps = inputs.maps
    parts = []
    for start in range(0, N, inputs.together):
        end = min(start + inputs.together, N)
        yield f"deletion and insertion over {over}, clips {start + 1} to {end} of {N}"
        some = slice(start, end)
        part = deletion_insertion(
            inputs.model,
            inputs.clips[some],
            maps[some],
            over,
            inputs.steps,
            inputs.labels[some],
            inputs.draws,
            seed=start,
        )
        parts.append(part.assign(clip=part["clip"] + start))
    curves = pd.concat(parts, ignore_index=True)
    areas = curve_areas(curves)
    numbers = areas[["beyond random", "low", "high"]]
    results = [
        result_of(over, inputs.map_name, numbers.loc["map"], areas.loc["map", "n"]),
        result_of(over, "the centre", numbers.loc["centre"], areas.loc["centre", "n"], control=True),
    ]
    return results, curve_words(curves) + inputs.note, [curves]


def randomisation_check(inputs: CheckInput) -> Check:
    """The map against itself under random weights."""
    yield "randomising the network from the top"
    labels = list(map(int, inputs.labels))
    table = parameter_randomisation(inputs.model, inputs.clips, labels, **inputs.map_options)
    table = table.loc[["classifier", table.index[len(table) // 2], "stem"]]
    results = [
        result_of("randomisation", f"random down to {part}", row.iloc[:3], row["n"])
        for part, row in table.iterrows()
    ]
    last = results[-1]
    if not last.n:
        return results, "Maps of random weights have no contrast: nothing can be said." + inputs.note, []
    outcome = "depends"
    if last.value > 0.6:
        outcome = "hardly depends"
    elif last.high > 0.3:
        outcome = "depends only in part"
    words = (
        f"The map {outcome} on what the network has learned: rank correlation {last.value:+.2f} "
        f"[{last.low:+.2f}, {last.high:+.2f}] with the map of random weights, n = {last.n}."
    )
    return results, words + inputs.note, []


def _points_at(name: str, rows: pd.DataFrame, map_name: str) -> tuple[list[CheckResult], str]:
    """Results and a sentence for one kind of mask; rows are maps, see `pointing_table`."""
    controls = ("random weights", "another clip", "centre")
    results = [
        result_of(
            "pointing",
            f"{name}: {map_name if kind == 'map' else kind}",
            rows.loc[kind, ["point", "point low", "point high"]],
            rows.loc[kind, "n"],
            kind != "map",
        )
        for kind in ("map", *controls)
    ]
    mine = results[0]
    area = float(rows.loc["map", "area"])
    results.append(CheckResult("pointing", f"{name}: by area alone", area, np.nan, np.nan, mine.n, True))
    best = max(result.value for result in results[1:])
    outcome = "more often" if mine.low > best else "no more often, as far as these clips tell,"
    return results, (
        f"It points at the {name} in {mine.value:.2f} [{mine.low:.2f}, {mine.high:.2f}] "
        f"of {mine.n} clips, {outcome} than the best control ({best:.2f})"
    )


def pointing_check(inputs: CheckInput) -> Check:
    """The pointing game, where masks are known."""
    if inputs.masks is None:
        raise SettingError("nobody knows where the evidence lies in these clips; they need masks in truth/")
    yield f"pointing at {' and at '.join(f'the {name}' for name in inputs.masks)}"
    labels = list(map(int, inputs.labels))
    maps = control_maps(inputs.model, inputs.clips, labels, **inputs.map_options)
    table = pointing_table(maps, inputs.masks)
    found = [_points_at(name, table.loc[name], inputs.map_name) for name in inputs.masks]
    words = ". ".join(sentence for _, sentence in found) + "." + inputs.note
    return [result for results, _ in found for result in results], words, []
