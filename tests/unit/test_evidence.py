"""Evidence: runs over seeds, and explanations marked against the truth."""

import sys
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sda.data.datasets import open_dataset
from sda.explaining.answers import logits_of
from sda.explaining.effects import coalitions
from sda.explaining.interventions import drop
from sda.foundation.errors import FolderError
from sda.foundation.runs import new_record, save_record
from sda.foundation.statistics import auc, t_interval
from sda.moves.classes import CLASSES, NEEDS, PAIRS
from sda.networks.backbones import create_model, list_models
from sda.networks.blocks import DEPENDENCIES
from sda.studies.accuracy import PAIR_OF, SeedRun, by_seed, gain_over_seeds, in_words, load_runs
from sda.studies.ground_truth import (
    CAN_ENCODE,
    ablation_effects,
    accuracy_of_others,
    accuracy_trained_alone,
    attributions,
    can_encode,
    constant_answer,
    evaluate_attribution,
    evaluate_run,
    measured_encoding,
    pair_accuracies,
)
from sda.studies.selection import fig_selection_over_seeds, meaning, order_of_losses, pair_means
from sda.studies.summary import load_summary, summarise
from sda.testing.predictions import Predictions
from sda.training.recipes import recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
NAMES = sorted(c.name for c in CLASSES)


def leave(folder, name, top1, seed):
    """A record and answers as a training leaves them."""
    metrics = dict(top1=top1, top5=1.0, n=20, by_need=dict.fromkeys(NEEDS, top1))
    save_record(
        new_record(
            "test",
            model="tsn_tiny",
            options={},
            recipe="moves",
            seed=seed,
            dataset="moves",
            split="test",
            protocol="1 view",
            classes="0" * 16,
            metrics=metrics,
            run=name,
        ),
        folder / f"{name}.json",
    )
    found = Predictions([f"v{i}" for i in range(20)], np.eye(20)[:, None] * 9, np.arange(20), NAMES)
    found.save(folder / f"{name}.npz")


def explained(margin, labels=None):
    """A run whose pair margins for every coalition are given, [16, N]."""
    run = SeedRun("x-s0", {"seed": 0}, Path("nowhere"))
    n = margin.shape[1]
    rng = np.random.default_rng(0)
    run.explanations = dict(
        coalitions=np.array(["+".join(some) for some in coalitions()]),
        coalition_pair_margin=margin,
        coalition_probability=1 / (1 + np.exp(-margin)),
        class_names=np.array(NAMES),
        labels=np.arange(n) % 20 if labels is None else labels,
        **{k: rng.random((n, 4, 4)) for k in ("weights", "contribution", "gradient", "block_effect")},
    )
    return run


def additive(worth):
    """Margins [16, N] of a game in which every dependency adds its own worth [N, 4]."""
    return np.stack(
        [sum((worth[:, DEPENDENCIES.index(d)] for d in some), np.zeros(len(worth))) for some in coalitions()]
    )


def test_runs_are_grouped_by_stem_and_ordered_by_seed(tmp_path):
    for seed, name in ((10, "a-s10"), (2, "a-s2"), (0, "b-c-s0")):
        leave(tmp_path, name, 0.5 + seed / 100, seed)
    runs = load_runs(tmp_path)
    assert {k: [r.record["seed"] for r in v] for k, v in runs.items()} == {"a": [2, 10], "b-c": [0]}
    assert runs["a"][0].predictions.accuracy() == 1 and list(by_seed(runs["a"])["all"]) == [0.52, 0.6]
    with pytest.raises(FolderError) as error:
        _ = runs["a"][0].explanations
    assert error.value.subject == str(tmp_path / "a-s2-explain.npz") and "--explain" in error.value.remedy


def test_a_folder_without_runs_says_how_to_make_them(tmp_path):
    with pytest.raises(FolderError) as error:
        load_runs(tmp_path)
    assert error.value.subject == str(tmp_path) and "make evidence" in error.value.remedy


@pytest.mark.parametrize(("n", "factor"), [(2, 12.706), (3, 4.303), (5, 2.776)])
def test_interval_has_students_factor(n, factor):
    values = np.random.default_rng(n).random(n)
    mean, low, high = t_interval([*values, np.nan])
    assert mean == pytest.approx(values.mean())
    assert (
        high - mean
        == pytest.approx(mean - low)
        == pytest.approx(factor * values.std(ddof=1) / n**0.5, rel=1e-3)
    )


def test_few_values_have_no_interval():
    assert np.isnan(t_interval([])).all()
    assert t_interval([0.5])[0] == 0.5 and np.isnan(t_interval([0.5])[1:]).all()
    assert in_words([0.5]) == "50.0" and in_words([0.7, 0.7]) == "70.0 ± 0.0"


def test_gains_are_paired_by_seed(tmp_path):
    for seed in range(4):
        leave(tmp_path, f"a-s{seed}", 0.1 * seed, seed)
        if seed:
            leave(tmp_path, f"b-s{seed}", 0.1 * seed + 0.2 + 0.01 * seed, seed)
    runs = load_runs(tmp_path)
    gain = gain_over_seeds(runs["a"], runs["b"])
    assert (
        gain["seeds"] == gain["won"] == 3 and gain["difference"] == pytest.approx(0.22) and gain["low"] > 0.19
    )


@pytest.mark.parametrize("encoding", [CAN_ENCODE, {"swap": ("LS",), "left/right": ("LS", "LT")}])
def test_no_ranking_that_is_the_same_for_every_clip_beats_the_constant_answer(encoding):
    truth = can_encode(NAMES, encoding)
    truth = truth[truth.any(1)]
    best = constant_answer(truth)
    others = [
        evaluate_attribution(np.tile(order, (len(truth), 1)), truth) for order in permutations(range(4))
    ]
    for score in ("hit", "within clips"):
        assert best[score] == pytest.approx(max(other[score] for other in others))


def test_truth_names_known_pairs_and_leaves_static_out():
    assert set(CAN_ENCODE) == {c.pair for c in CLASSES} - {"striped/spotted"}
    truth = can_encode(NAMES)
    assert {NAMES[i] for i in np.flatnonzero(~truth.any(1))} == {
        "Showing something striped",
        "Showing something spotted",
    }
    temporal = np.array([next(c.need for c in CLASSES if c.name == n) in ("motion", "order") for n in NAMES])
    assert not truth[temporal][:, :2].any() and truth[temporal][:, 3].all()  # LST and LT see no order
    by_name = dict(zip(NAMES, truth.tolist(), strict=True))
    assert all(by_name[a] == by_name[b] for a, b in PAIRS)


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_textbooks(seed):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, 60)
    truth = rng.random(60) < 0.4  # many ties
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert np.isnan(auc(scores, np.zeros(60, bool)))


def test_marks_tell_truth_from_luck_and_from_habit():
    truth = can_encode([n for n in NAMES if can_encode([n]).any()] * 20)
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.random(truth.shape)
    best = evaluate_attribution(truth + noise, truth)
    worst = evaluate_attribution(noise - truth, truth)
    assert best["hit"] == best["within clips"] == best["between clips"] == 1
    assert worst["hit"] == worst["within clips"] == worst["between clips"] == 0
    habit = evaluate_attribution(np.tile([0, 1, 2, 3.0], (len(truth), 1)), truth)
    assert habit["between clips"] == 0.5 and habit["hit"] == truth[:, 3].mean()


def test_knock_outs_and_shapley_values_of_an_additive_game_are_its_worths():
    worth = np.random.default_rng(0).normal(size=(40, 4))
    run = explained(additive(worth))
    assert np.allclose(ablation_effects(run, "pair_margin"), worth)
    said = attributions(run)
    assert np.allclose(said["Shapley, within pairs"], worth) and np.allclose(
        said["ablation, within pairs"], worth
    )
    assert np.allclose(said["weight"], run.explanations["weights"].mean(1))


def test_only_clips_told_from_their_partners_are_marked():
    truth = can_encode(NAMES * 2)
    worth = truth + 0.01
    worth[:20] *= -1  # the first clip of every class goes to its partner
    table = evaluate_run(explained(additive(worth)))
    assert (table.n == 18).all()  # and the two static classes are not asked
    assert (
        table.loc["ablation, within pairs", "hit"] == table.loc["Shapley, within pairs", "between clips"] == 1
    )


def test_accuracy_within_pairs_follows_the_kept_dependencies():
    worth = np.tile([-0.5, -0.5, -0.5, 5.0], (20, 1))
    run = explained(additive(worth))
    assert (pair_accuracies(run) == 1).all()
    assert (
        pair_accuracies(run, ["LS", "LST", "LT"]) == 0
    ).all()  # the order in which they are named does not matter


def test_the_empty_coalition_counts_as_knowing_nothing():
    worth = np.random.default_rng(0).normal(size=(40, 4))
    margins = additive(worth)
    margins[0] = 300 * np.random.default_rng(1).normal(size=40)  # what an untrained-for coalition answers
    assert np.allclose(attributions(explained(margins))["Shapley, within pairs"], worth)


def test_the_mapping_can_be_contradicted():
    """A network that reads translation with LS shows it where S122 is denied."""
    worth = np.tile([-0.1, -0.1, 5.0, 5.0], (20, 1))
    denied = accuracy_of_others(explained(additive(worth)))
    assert denied["left/right"] == denied["turning"] == 1 and denied["closer/away"] == denied["swap"] == 0


def answering(right):
    """A run that is right within pairs in the named pairs, and says the first of both elsewhere."""
    index = {name: i for i, name in enumerate(NAMES)}
    said = [index[a] if PAIR_OF[a] not in right else index[n] for n in NAMES for a, b in PAIRS if n in (a, b)]
    found = Predictions([f"v{i}" for i in range(20)], np.eye(20)[said][:, None] * 9, np.arange(20), NAMES)
    return SimpleNamespace(predictions=found)


def test_what_a_dependency_can_encode_is_what_it_learns_alone():
    alone = {"LST": ["flakes"], "LT": ["flakes"], "LS": ["swap", "left/right"], "S122": ["left/right"]}
    runs = {f"only_{d}": [answering(right)] * 2 for d, right in alone.items()}
    table = accuracy_trained_alone(runs)
    assert table.loc["left/right"].tolist() == [0.5, 0.5, 1, 1] and table.loc["flakes", "LST"] == 1
    can = measured_encoding(runs)
    assert can == {"left/right": ("LS", "S122"), "swap": ("LS",)}, "neither flakes, nor what nobody learns"
    marked = evaluate_run(explained(additive(can_encode(NAMES * 2, can) + 0.01)), can)
    assert (marked.n == 8).all() and marked.loc["ablation, within pairs", "hit"] == 1


def test_means_of_a_pair_are_those_of_its_clips():
    run = explained(np.zeros((16, 60)))
    means = pair_means(run, "weights")
    mine = [PAIRS.index(p) for p in PAIRS if {"Moving something up", "Moving something down"} == set(p)]
    clips = np.isin(np.array(NAMES)[run.explanations["labels"]], PAIRS[mine[0]])
    assert means.shape == (10, 16)
    assert np.allclose(
        means[1 + list(CAN_ENCODE).index("down/up")],
        run.explanations["weights"][clips].reshape(6, 16).mean(0),
    )


def test_only_what_every_seed_says_gets_a_dot():
    runs = [explained(np.zeros((16, 20))) for _ in range(4)]
    for i, run in enumerate(runs):
        run.explanations["blocks"] = np.array([f"layer{k}.0" for k in range(1, 5)])
        run.explanations["weights"] = (
            np.full((20, 4, 4), 0.25) + (-1) ** i * 0.1
        )  # two seeds above, two below
        run.explanations["weights"][:, 2, 3] = 0.6 + 0.01 * i
        run.explanations["contribution"] = np.full((20, 4, 4), 0.25) + 0.01 * (-1) ** i
        run.explanations["block_effect"] = 0.01 * (-1) ** i * np.ones((20, 4, 4))
    weight, contribution, effect = fig_selection_over_seeds(runs).axes[:3]
    x, y = weight.lines[0].get_data()
    assert set(x) == {2 * 4 + 3} and sorted(y) == list(range(10))
    assert all(len(axes.lines[0].get_xdata()) == 0 for axes in (contribution, effect))


@pytest.fixture(scope="module")
def grid():
    """The program that trains the evidence."""
    import evidence

    return evidence


def test_grid_asks_what_it_says(grid):
    found = grid.families()
    every = {run.name: run for runs in found.values() for run in runs}
    assert len({(r.model, r.seed, str(r.options), str(r.changes)) for r in every.values()}) == len(every)
    assert {r.model for r in found["methods"]} == set(list_models("*_tiny"))
    assert sorted({r.name.rsplit("-s", 1)[0] for r in found["seeds"]}) == ["sda_tsm", "sda_tsn", "tsm", "tsn"]
    assert all(
        sum(r.name.startswith(f"{m}-s") for r in found["seeds"]) >= 5
        for m in ("tsn", "tsm", "sda_tsn", "sda_tsm")
    )
    asked = [tuple(r.options.get("dependencies", DEPENDENCIES)) for r in found["dependencies"] if r.seed == 0]
    assert all((d,) in asked and tuple(x for x in DEPENDENCIES if x != d) in asked for d in DEPENDENCIES)


def test_what_is_recorded_is_not_trained_again(grid, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(grid, "perform", lambda run, *_: done.append(run.name))
    run = grid.families()["seeds"][0]
    grid.perform_once(run, tmp_path, tmp_path / "runs", 1, tmp_path)
    (tmp_path / f"{run.name}.json").write_text("{}")
    grid.perform_once(run, tmp_path, tmp_path / "runs", 1, tmp_path)
    assert done == [run.name]
    (tmp_path / f"{run.name}.json").unlink()
    with grid.FileLock(tmp_path / "runs" / f"{run.name}.lock"):  # another process is at it
        grid.perform_once(run, tmp_path, tmp_path / "runs", 1, tmp_path)
    assert done == [run.name]


def test_questions_are_about_the_clips_they_name(grid, tmp_path):
    sample = Path(__file__).resolve().parents[2] / "sda" / "assets" / "moves_sample"
    config = recipe("moves")
    test = open_dataset(sample, "test", config.sampling(), config.transform())
    net = create_model("sda_tsn_tiny", len(test.class_names)).eval()
    asked = grid.question(net, test)
    n = len(test)
    last = [str(c) for c in asked["coalitions"]].index("LST+LT+LS+S122")
    assert asked["weights"].shape == asked["block_effect"].shape == (n, 4, 4)
    intact = logits_of(net, test)
    labels = np.array([r.label for r in test.records])
    others = np.where(np.eye(intact.shape[1], dtype=bool)[labels], -np.inf, intact).max(1)
    assert np.allclose(asked["coalition_margin"][last], intact[np.arange(n), labels] - others, atol=2e-3)
    one = [str(c) for c in asked["coalitions"]].index("LST+LT+LS")
    gone = logits_of(net, test, drop("S122"))
    assert np.abs(gone - intact).max() > 1e-4
    p = np.exp(gone) / np.exp(gone).sum(1, keepdims=True)
    assert np.allclose(asked["coalition_probability"][one], p[np.arange(n), labels], atol=1e-3)


def test_a_weight_means_what_the_class_can_be_told_by():
    labels = np.arange(40) % 20
    truth = can_encode([NAMES[k] for k in labels])
    logits = np.eye(20)[labels]
    logits[3] = 0.0  # not told from its partner
    right = meaning(truth + 0.1 * np.arange(4), logits, labels, NAMES, CAN_ENCODE)
    assert right["hit"] == right["between clips"] == 1 and right["n"] == truth.any(1).sum() - 1
    same = meaning(np.tile([1.0, 2, 3, 4], (40, 1)), logits, labels, NAMES, CAN_ENCODE)
    assert same["between clips"] == 0.5 and same["hit"] == same["always the same"] > same["chance"]


def test_the_order_of_losses_is_of_all_clips_of_a_class_or_of_one():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    one, by_class, own = rng.random((4, 4)), rng.random((3, 4, 4)), rng.random((60, 4, 4))
    common = order_of_losses(-np.tile(one, (60, 1, 1)), labels)
    assert common["all clips"] == pytest.approx(1) and common["order of the others"] == pytest.approx(1)
    of_class = order_of_losses(by_class[labels], labels)
    assert of_class["single clip"] == pytest.approx(0) and of_class["order of its class"] == pytest.approx(1)
    alone = order_of_losses(own, labels)
    assert alone["single clip"] > 0.95 and abs(alone["order of the others"]) < 0.1
    assert sum(alone[k] for k in ("all clips", "class", "single clip")) == pytest.approx(1)
    few = np.repeat(np.arange(300), 4)  # a mean of four varies by chance: the class has no part in it
    mixed = order_of_losses(one + rng.random((1200, 4, 4)), few)
    assert abs(mixed["class"]) < 0.01 and 0.2 < mixed["single clip"] < 0.8


@pytest.mark.slow
def test_the_numbers_that_ship_are_those_of_the_records():
    root = Path(__file__).resolve().parents[2]
    assert summarise(root / "data" / "results") == load_summary(), "run python benchmarks/summary.py"
