"""Effects: what is changed and what is not, in whatever order hooks are made; bad input explained; exact sums."""

import numpy as np
import pytest
import torch

from sda.explaining.effects import (
    blur,
    can_drop,
    changed,
    changed_selection,
    check_weights,
    drop,
    drop_frames,
    freeze,
    from_clip,
    given,
    keep,
    knock_out_map,
    knock_outs,
    leak_between_clips,
    logits_of,
    mean_interval,
    measure,
    one_hot,
    order_sensitivity,
    patch_shuffle,
    rank_correlation,
    reverse,
    shapley,
    shuffle,
    temperature,
    uniform,
    weight_against_effect,
)
from sda.explaining.trace import Tracer, trace_clips
from sda.networks.backbones import create_model, sda_blocks

CHANGES = [
    drop("LT"),
    keep("LS", "S122"),
    keep(),
    one_hot("LST"),
    uniform(),
    given([0.1, 0.2, 0.3, 0.4]),
    temperature(0.5),
    reverse(),
    shuffle(1),
    freeze(-1),
    drop_frames(0, 2),
    patch_shuffle(2),
    blur(),
]


def make(name="sda_tsn_tiny", **options):
    torch.manual_seed(0)
    return create_model(name, 4, num_frames=4, **options).eval()


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def clips():
    return torch.randn(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.name)
def test_nothing_is_left_behind_and_the_control_is_seeded(change, model, clips):
    before = logits_of(model, clips)
    one, two, other = (logits_of(model, clips, change.random(s)) for s in (0, 0, 5))
    assert (
        np.array_equal(one, two)
        and np.isfinite(other).all()
        and np.isfinite(logits_of(model, clips, change)).all()
    )
    assert np.array_equal(logits_of(model, clips), before)
    with pytest.raises(RuntimeError, match="on purpose"), change.on(model):
        raise RuntimeError("on purpose")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_tracer_hears_the_changed_weights_whoever_came_first(model, clips):
    with torch.no_grad():
        with Tracer(model) as tracer, one_hot("LS").on(model):
            model(clips)
        first = tracer.take()
        with one_hot("LS").on(model), Tracer(model) as tracer:
            model(clips)
        second = tracer.take()
    for taken in (first, second):
        assert all((rows["weights"] == np.array([0, 0, 1, 0])).all() for rows in taken.values())


def test_interventions_are_made_in_their_order(model, clips):
    with changed(model, one_hot("LS"), drop("LS")):
        weights = trace_clips(model, clips).weights
    assert np.allclose(weights, [1 / 3, 1 / 3, 0, 1 / 3], atol=1e-6)
    with changed(model, drop("LS"), one_hot("LS")):
        weights = trace_clips(model, clips).weights
    assert (weights == [0, 0, 1, 0]).all()


def test_only_where_asked(model, clips):
    before = trace_clips(model, clips).weights
    with drop("S122", where=["layer3", "layer4.0"]).on(model):
        weights = trace_clips(model, clips).weights
    assert np.array_equal(weights[:, :2], before[:, :2]) and (weights[:, 2:, 3] == 0).all()


def test_split_blocks_and_fewer_dependencies(clips):
    split = make(split=2)
    trace = trace_clips(split, clips)
    with from_clip(trace, "clip-1").on(split):
        lent = trace_clips(split, clips)
    assert len(trace.blocks) == 8 and np.allclose(lent.weights, trace.weights[1], atol=1e-5)
    two = make(dependencies=("LT", "S122"))
    assert np.isnan(knock_out_map(two, clips).effect[..., [0, 2]]).all()
    shares = shapley(two, clips, [0, 1, 2], "margin")
    assert len(shares.worth) == 4 and np.isnan(shares.values[:, [0, 2]]).all()
    assert np.allclose(np.nansum(shares.values, 1), shares.worth["LT", "S122"] - shares.worth[()])
    with pytest.raises(ValueError, match="no dependency 'LS'"), drop("LS").on(two):
        pass


class Toy(list):
    """Clips as a data set."""

    class_names = list("abcd")


def test_a_single_dependency_has_nothing_to_put_in_its_place(model, clips):
    one = make(dependencies=["LST"])
    two = make(dependencies=("LT", "S122"))
    found = knock_out_map(one, clips)
    assert np.isnan(found.effect).all() and found.effect.shape == (3, 4, 4)
    assert (
        not can_drop(one, "LST")
        and can_drop(two, "LT", "layer2")
        and not can_drop(two, "LS")
        and can_drop(model, "LS")
    )
    data = Toy({"clip": clip, "label": k, "id": str(k)} for k, clip in enumerate(clips))
    rows = knock_outs(one, data, pairs=[("a", "b")])
    assert rows.index.tolist() == ["as selected", "without LST", "all weights equal", "chance"]
    assert rows.loc["without LST"].isna().all() and rows.drop("without LST").notna().all(axis=None)
    assert knock_outs(two, data).notna().all(axis=None)
    with pytest.raises(ValueError, match="two dependencies or more"):
        weight_against_effect(trace_clips(one, clips), found)
    with pytest.raises(ValueError, match="nothing would be left"), drop("LST").on(one):
        one(clips)
    told = weight_against_effect(trace_clips(two, clips), knock_out_map(two, clips), draws=20)
    assert set(told.loc["weight"].index) == {"LT", "S122", "pooled", "within clips", "best matches"}


def test_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    low, high = mean_interval(np.append(values, np.nan), draws=4000)
    half = 1.96 * values.std() / 20
    assert np.allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.01)
    assert np.isnan(mean_interval(np.array([1.0, np.nan]))).all(), "one clip says nothing about others"


def test_invariances(model, clips):
    table = order_sensitivity(model, clips)
    assert (table.loc["layer1.0", ["LST", "LT"]] < 1e-3).all() and (
        table.loc["layer1.0", ["LS", "S122"]] > 0.01
    ).all()
    size = np.abs(logits_of(model, clips)).max()
    assert leak_between_clips(model, clips) < 1e-3 * size
    assert order_sensitivity(make("sda_tsm_tiny"), clips).loc["layer1.0", "LT"] > 1e-3, (
        "a shift before it mixes frames"
    )
    blind = [logits_of(model, c, drop("LS", "S122")) for c in (clips, shuffle(2)(clips))]
    seeing = [logits_of(model, c) for c in (clips, shuffle(2)(clips))]
    assert np.abs(blind[0] - blind[1]).max() < 1e-3 * size < np.abs(seeing[0] - seeing[1]).max()


def test_measure(model, clips):
    effect = measure(
        model, clips, drop("LT"), [0, 1, 2], draws=2, class_names=list("abcd"), pairs=[("a", "b")]
    )
    rows = effect.summary()
    assert rows.loc["margin", "n"] == 3 and rows.loc["pair margin", "n"] == 2
    assert rows.loc["margin", "low"] <= rows.loc["margin", "random"] <= rows.loc["margin", "high"]
    assert np.allclose(effect.table()["margin change"].mean(), rows.loc["margin", "change"], atol=1e-4)
    own = measure(model, clips, drop("LT"), draws=0)
    assert np.array_equal(own.labels, own.before.argmax(1)), "without labels the model's own answer is read"


def test_weight_against_effect_refuses_another_trace(model, clips):
    effects = knock_out_map(model, clips, [0, 1, 2], "margin", at=["all"])
    assert len(weight_against_effect(trace_clips(model, clips), effects, draws=10)) == 14
    with pytest.raises(ValueError, match="different"):
        weight_against_effect(trace_clips(make(temperature=0.01), clips.flip(0)), effects, draws=10)


def test_other_numbers_can_be_judged_like_weights(model, clips):
    trace = trace_clips(model, clips)
    effects = knock_out_map(model, clips, [0, 1, 2])
    told = weight_against_effect(
        trace, effects, draws=20, more={"effect itself": effects.effect, "weight": trace.weights}
    )
    assert (told.loc["effect itself"].drop(["within clips", "best matches"]).rho.dropna() == 1).all()
    assert told.loc[("effect itself", "best matches"), "rho"] == 1 and len(told) == 3 * 7
    with pytest.raises(ValueError, match="like the weights"):
        weight_against_effect(trace, effects, more={"half": trace.weights[:, :2]})


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m, x: drop(), "name what to leave out"),
        (lambda m, x: logits_of(m, x, drop("LTS")), "did you mean"),
        (lambda m, x: logits_of(m, x, drop("LT", where="layer9")), "no block or stage"),
        (lambda m, x: logits_of(m, x, drop("LT", where=[])), "no place"),
        (lambda m, x: logits_of(make("tsn_tiny"), x, drop("LT")), "no SDA blocks"),
        (lambda m, x: check_weights([0.5, 0.6, -0.1, 0]), "may be negative"),
        (lambda m, x: check_weights([0.5, float("nan"), 0.5, 0]), "may be negative"),
        (lambda m, x: logits_of(m, x, given([0.5, 0.5])), "2 weights for 4"),
        (lambda m, x: given({"LT": 0.5}), "sum to 0.5"),
        (lambda m, x: temperature(0), "must be positive"),
        (lambda m, x: freeze(4)(x), "no frame 4"),
        (lambda m, x: drop_frames(0, 1, 2, 3)(x), "all 4 frames"),
        (lambda m, x: measure(m, x, drop("LT"), [0, 1, 9]), "labels reach"),
        (lambda m, x: measure(m, x, drop("LT"), [0, 1, 2], class_names=["a"]), "class names"),
        (lambda m, x: measure(m, x[:0], drop("LT")), "no clips"),
        (lambda m, x: knock_out_map(m, x, reading="accuracy"), "unknown reading"),
        (lambda m, x: from_clip(trace_clips(m, x), "clip-7"), "nearest"),
        (lambda m, x: rank_correlation([1, 2], [2, 1]), "too few"),
    ],
)
def test_bad_input(call, words, model, clips):
    with pytest.raises(ValueError, match=words):
        call(model, clips)


def test_the_first_names_still_work(model, clips):
    with changed_selection(model, "LT"):
        assert (trace_clips(model, clips).weights[..., 1] == 0).all()
    with changed_selection(model):
        assert (trace_clips(model, clips).weights == 0.25).all()
    assert len(sda_blocks(model)) == 4
