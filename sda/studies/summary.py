"""Numbers of the evidence that ship with the package: its figures can be drawn without the records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..assets import EVIDENCE
from ..foundation.files import write_atomic
from ..foundation.reading import read_json
from ..foundation.runs import load_records
from ..networks.blocks import DEPENDENCIES
from ..testing.compare import compare
from ..testing.predictions import Predictions
from .accuracy import SeedRun, by_seed, load_runs
from .ground_truth import (
    CAN_ENCODE,
    accuracy_of_pairs,
    accuracy_trained_alone,
    can_encode,
    constant_answer,
    evaluate_run,
    measured_encoding,
    pair_accuracies,
    right_within_pairs,
)
from .selection import ROWS, agreement_of_seeds, pair_means, selectivity

__all__ = ["summarise", "load_summary"]

NETWORKS = ("tsn", "sda_tsn", "tsm", "sda_tsm")
QUERIES = ("sda_tsn", "query_lr3", "temperature0.3", "query_lr10", "query_lr30")
_DIGITS = 4  # of every number that is kept


def map_energy(
    run: SeedRun,  # with explanations
    mask: str,  # object or evidence
) -> dict[str, float]:  # map and controls -> share of the positive values inside; "area" is the chance level
    """How much of its class-activation maps a network puts where the thing is, mean over the test clips."""
    kept = run.explanations
    values = kept["pointing"][:, list(kept["masks"]).index(mask)].astype(float)  # maps, clips, 3
    energy = np.nanmean(values[..., 1], 1)
    names = [str(name) for name in kept["maps"]]
    return dict(zip(names, energy.tolist(), strict=True)) | {"area": float(np.nanmean(values[0, :, 2]))}


def _selection(runs: Sequence[SeedRun]) -> dict[str, Any]:
    """Weight, share of the response and effect, by pair, block and dependency."""
    keys = {"weight": "weights", "share": "contribution", "effect": "block_effect"}
    tables = {name: [pair_means(run, key).tolist() for run in runs] for name, key in keys.items()}
    return {"blocks": [str(b) for b in runs[0].explanations["blocks"]], "pairs": list(ROWS), **tables}


def _scores(runs: Sequence[SeedRun], encoding: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How well each explanation names the cue, with chance level and the best constant answer."""
    tables = [evaluate_run(run, encoding) for run in runs]
    columns = ("hit", "within clips", "between clips")
    known = [can_encode(run.classes, encoding)[right_within_pairs(run, encoding)] for run in runs]
    constant = [constant_answer(truth) for truth in known]
    return {
        "explanations": {
            str(name): {column: [float(t.loc[name, column]) for t in tables] for column in columns}
            for name in tables[0].index
        },
        "chance": {"hit": [float(truth.mean()) for truth in known]},
        "constant answer": {column: [one[column] for one in constant] for column in columns},
        "its dependency": sorted({DEPENDENCIES[int(truth.mean(0).argmax())] for truth in known}),
        "clips": [int(t.n.iloc[0]) for t in tables],
    }


def _methods(folder: Path) -> dict[str, Any]:
    """Every method with and without SDA, seed 0: accuracies, and the paired difference."""
    found = {}
    for path in sorted(folder.glob("sda_*_tiny-s0.npz")):
        name = path.name.removeprefix("sda_").removesuffix("_tiny-s0.npz")
        one, two = (Predictions.load(folder / f"{n}_tiny-s0.npz") for n in (name, f"sda_{name}"))
        found[name] = compare(one, two)
    return found


def _own_clips(folder: Path) -> dict[str, Any]:
    """Right answers of every network in every fold of the real clips, from the shipped weights."""
    found: dict[str, list[int]] = {}
    for record in sorted(load_records(folder, "test"), key=lambda r: r["split"]):
        if record["start"]:
            hits = Predictions.load(folder / f"{record['name']}.npz").correct()
            found.setdefault(record["model"].removesuffix("_tiny"), []).append(int(hits.sum()))
    return {"right": found, "clips in a fold": len(hits), "classes": 6}


def _rounded(value: Any) -> Any:
    """The value as JSON has it, its numbers rounded."""
    if isinstance(value, dict):
        return {str(key): _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), _DIGITS)
    return int(value) if isinstance(value, np.integer) else value


def summarise(
    results: str | Path,  # data/results, with the records of the evidence
) -> dict[str, Any]:  # plain values
    """Everything that the learn shelf tells of the evidence."""
    results = Path(results)
    runs, more = load_runs(results / "evidence"), load_runs(results / "evidence" / "more")
    explained = {stem: [run for run in runs[stem] if run.explained] for stem in NETWORKS}
    trained = [*NETWORKS, "averaged", *(f"{how}_{d}" for how in ("only", "without") for d in DEPENDENCIES)]
    sda = explained["sda_tsn"]
    looking = json.loads((results / "looking.json").read_text(encoding="utf-8"))["parts"]
    found = {
        "test clips": int(runs["tsn"][0].record["metrics"]["n"]),
        "accuracy": {stem: by_seed(runs[stem]).to_dict("list") for stem in trained},
        "accuracy, whole recipe, 2,000 clips": {
            stem.removeprefix("whole_"): by_seed(found).to_dict("list") for stem, found in more.items()
        },
        "pairs": {
            stem: {name: [float(accuracy_of_pairs(run)[name]) for run in runs[stem]] for name in ROWS}
            for stem in NETWORKS
        },
        "without LS and S122": [pair_accuracies(run, ["LST", "LT"]).to_dict() for run in sda],
        "trained alone": accuracy_trained_alone(runs).to_dict("index"),
        "can encode": {"argued": CAN_ENCODE, "measured": measured_encoding(runs)},
        "queries": {stem: [selectivity(run) for run in runs[stem] if run.explained] for stem in QUERIES},
        "selection": _selection(sda),
        "agreement of seeds": agreement_of_seeds(sda).to_dict("index"),
        "scores": {
            how: _scores(sda, encoding)
            for how, encoding in (("argued", CAN_ENCODE), ("measured", measured_encoding(runs)))
        },
        "maps": {
            mask: {stem: [map_energy(run, mask) for run in explained[stem]] for stem in NETWORKS}
            for mask in ("object", "evidence")
        },
        "map checks": {
            "pointing": looking["maps"]["pointing"],
            "over space": looking["curves"]["areas_space"],
            "over frames": looking["curves"]["areas_frames"],
            "randomisation": looking["scrambled"]["scrambled"],
        },
        "methods": _methods(results / "evidence"),
        "own clips": _own_clips(results / "own_clips"),
    }
    return _rounded(found)


def load_summary() -> dict[str, Any]:
    """The summary that ships with the package."""
    return dict(read_json(EVIDENCE))


def write_summary(
    results: str | Path,  # data/results
    path: str | Path = EVIDENCE,  # file to write
) -> Path:
    """Write the summary of these records."""
    return write_atomic(path, json.dumps(summarise(results), ensure_ascii=False, indent=0) + "\n")
