"""How well weight, contribution, gradient, Shapley value and ablation name what a clip can depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..explaining.effects import shapley_values
from ..foundation.statistics import auc
from ..moves.classes import PAIRS
from ..networks.blocks import DEPENDENCIES
from ..testing.predictions import pair_accuracy
from .accuracy import PAIR_OF, SeedRun

__all__ = [
    "CAN_ENCODE",
    "can_encode",
    "attributions",
    "evaluate_attribution",
    "constant_answer",
    "evaluate_run",
    "pair_accuracies",
    "accuracy_trained_alone",
    "measured_encoding",
]

CAN_ENCODE: dict[str, tuple[str, ...]] = {
    # pair of Moves -> the dependencies that encode its cue, argued in nbs/evidence/83_ground_truth
    "left/right": ("S122",),
    "down/up": ("S122",),
    "turning": ("S122",),
    "shake/swing": ("S122",),
    "there and back": ("S122",),
    "closer/away": ("LS", "S122"),
    "swap": ("LS", "S122"),
    "appear/disappear": ("LS", "S122"),
    "flakes": ("LST", "LT"),
}


def can_encode(
    class_names: Sequence[str] | np.ndarray,  # class of every clip, N names of Moves
    encoding: Mapping[str, Sequence[str]] = CAN_ENCODE,  # pair -> dependencies
) -> np.ndarray:  # bool [N,4] in the order of the dependencies; all False for pairs that `encoding` lacks
    """Which dependencies can encode the cue of each clip's class."""
    return np.array([[d in encoding.get(PAIR_OF[name], ()) for d in DEPENDENCIES] for name in class_names])


def coalition_values(
    run: SeedRun,  # with explanations
    reading: str,  # probability, margin or pair_margin
) -> dict[tuple[str, ...], np.ndarray]:  # coalition of dependencies -> reading [N]
    """What the network answers with every coalition of dependencies."""
    names = [tuple(filter(None, str(some).split("+"))) for some in run.explanations["coalitions"]]
    return dict(zip(names, run.explanations[f"coalition_{reading}"].astype(float), strict=True))


def ablation_effects(
    run: SeedRun,  # with explanations
    reading: str,  # probability, margin or pair_margin
) -> np.ndarray:  # [N,4], before minus after
    """Fall of the reading when a dependency is left out everywhere."""
    values = coalition_values(run, reading)
    rest = [values[tuple(d for d in DEPENDENCIES if d != gone)] for gone in DEPENDENCIES]
    return values[DEPENDENCIES][:, None] - np.stack(rest, 1)


def _shapley(run: SeedRun, reading: str, without_all: float) -> np.ndarray:
    """Shapley values [N,4], where a network without any dependency counts as knowing nothing."""
    values = coalition_values(run, reading)
    shares = shapley_values(values | {(): np.full(len(values[()]), without_all)})
    return np.stack([shares[d] for d in DEPENDENCIES], 1)


def attributions(
    run: SeedRun,  # with explanations
) -> dict[str, np.ndarray]:  # name -> [N,4]
    """Everything that claims to say how much a clip depends on each dependency."""
    kept = run.explanations
    return {
        "weight": kept["weights"].astype(float).mean(1),
        "contribution": kept["contribution"].astype(float).mean(1),
        "gradient × weight": kept["gradient"].astype(float).mean(1),
        "ablation, one block": kept["block_effect"].astype(float).mean(1),
        "Shapley": _shapley(run, "probability", 1 / len(kept["class_names"])),
        "Shapley, within pairs": _shapley(run, "pair_margin", 0.0),
        "ablation": ablation_effects(run, "probability"),
        "ablation, within pairs": ablation_effects(run, "pair_margin"),
    }


def _auc_within(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each row, [N]; all rows at once."""
    above = np.sign(scores[:, :, None] - scores[:, None, :]) / 2 + 0.5
    asked = truth[:, :, None] & ~truth[:, None, :]
    return (above * asked).sum((1, 2)) / asked.sum((1, 2))


def evaluate_attribution(
    scores: np.ndarray,  # [N,4] of an attribution
    truth: np.ndarray,  # bool [N,4], see `can_encode`
) -> dict[str, float]:  # hit, within clips, between clips, and between clips of each dependency
    """How well an attribution names what can encode the cue: hits, and areas under ROC curves."""
    each = {d: auc(scores[:, m], truth[:, m]) for m, d in enumerate(DEPENDENCIES)}
    ranked = [
        value for value in each.values() if not np.isnan(value)
    ]  # what no clip needs, or every one, ranks none
    return {
        "hit": float(truth[np.arange(len(truth)), scores.argmax(1)].mean()),
        "within clips": float(_auc_within(scores, truth).mean()),
        "between clips": float(np.mean(ranked)),
        **each,
    }


def constant_answer(
    truth: np.ndarray,  # bool [N,4], see `can_encode`
) -> dict[str, float]:  # like `evaluate_attribution`
    """Scores of the best ranking that is the same for all clips: by how many cues each can encode."""
    return evaluate_attribution(np.tile(truth.mean(0), (len(truth), 1)), truth)


def right_within_pairs(
    run: SeedRun,  # with explanations
    encoding: Mapping[str, Sequence[str]] = CAN_ENCODE,  # pair -> dependencies; other pairs are left out
) -> np.ndarray:  # bool [N]
    """The clips that the network gets right within their pair; a wrong answer has no evidence to name."""
    right = coalition_values(run, "pair_margin")[DEPENDENCIES] > 0
    return can_encode(run.classes, encoding).any(1) & right


def evaluate_run(
    run: SeedRun,  # with explanations
    encoding: Mapping[str, Sequence[str]] = CAN_ENCODE,  # pair -> dependencies
) -> pd.DataFrame:  # one row per attribution; the last two are the last block's alone
    """How well all attributions of one network do, on the clips it gets right within their pair."""
    truth = can_encode(run.classes, encoding)
    right = right_within_pairs(run, encoding)
    named = attributions(run)
    for name, key in (("weight", "weights"), ("contribution", "contribution")):
        named[f"{name}, last block"] = run.explanations[key].astype(float)[:, -1]
    rows = {
        name: evaluate_attribution(values[right], truth[right]) | {"n": int(right.sum())}
        for name, values in named.items()
    }
    return pd.DataFrame(rows).T


def pair_accuracies(
    run: SeedRun,  # with explanations
    kept: Sequence[str] = DEPENDENCIES,  # the dependencies left in every block
) -> pd.Series:  # pair -> share of clips right within the pair; chance .5
    """Accuracy within pairs with some dependencies only."""
    margin = coalition_values(run, "pair_margin")[tuple(d for d in DEPENDENCIES if d in kept)]
    return pd.Series(margin > 0).groupby(run.pairs).mean()


def accuracy_of_others(
    run: SeedRun,  # with explanations
) -> pd.Series:  # pair -> share of clips right within the pair; chance .5
    """Accuracy within pairs with only the dependencies that `CAN_ENCODE` does not name for the pair."""
    rest = {pair: [d for d in DEPENDENCIES if d not in named] for pair, named in CAN_ENCODE.items()}
    return pd.Series({pair: pair_accuracies(run, kept)[pair] for pair, kept in rest.items()})


def accuracy_of_pairs(
    run: SeedRun,  # a training; explanations are not needed
) -> pd.Series:  # pair -> accuracy; chance .5
    """Accuracy within pairs of the network as it is."""
    table = pair_accuracy(run.predictions, PAIRS)
    return pd.Series(table.accuracy.to_numpy(float), [PAIR_OF[name] for name in table["first"]])


def accuracy_trained_alone(
    runs: Mapping[str, Sequence[SeedRun]],  # from `load_runs`, with only_LST, only_LT, only_LS, only_S122
) -> pd.DataFrame:  # pairs x dependencies; chance .5
    """Accuracy within pairs of networks that were trained with one dependency, mean over seeds."""
    means = {
        d: pd.DataFrame([accuracy_of_pairs(run) for run in runs[f"only_{d}"]]).mean() for d in DEPENDENCIES
    }
    return pd.DataFrame(means)


def measured_encoding(
    runs: Mapping[str, Sequence[SeedRun]],  # from `load_runs`
    least: float = 0.64,  # more than 50 clips give by chance
) -> dict[str, tuple[str, ...]]:  # like `CAN_ENCODE`, without pairs that frames show or none learns
    """What each dependency was able to learn by itself."""
    table = accuracy_trained_alone(runs).loc[[pair for pair in CAN_ENCODE if pair != "flakes"]]
    found = {str(pair): tuple(row.index[row > least]) for pair, row in table.iterrows()}
    return {pair: names for pair, names in found.items() if names}
