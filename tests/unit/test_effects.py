"""Effects: what is changed and what is not, in whatever order hooks are made; bad input; exact sums."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hooks import hooks

from sda.explaining.answers import logits_of, readings
from sda.explaining.attribution import KINDS, Attribution, from_trace
from sda.explaining.effects import ablation_map, ablation_table, attribute, measure, rank_agreement
from sda.explaining.interventions import (
    blur,
    changed,
    drop,
    drop_frames,
    force,
    freeze,
    from_class,
    from_clip,
    keep,
    patch_shuffle,
    reverse,
    set_weights,
    shuffle,
    temperature,
    uniform,
)
from sda.explaining.trace import trace_clips
from sda.explaining.tracer import Tracer
from sda.foundation.errors import DataError, SettingError, UnknownNameError
from sda.networks.backbones import create_model, sda_blocks
from sda.networks.blocks import DEPENDENCIES
from sda.networks.checkpoints import ModelCard
from sda.networks.named import output_names

CHANGES = [
    drop("LT"),
    keep("LS", "S122"),
    keep(),
    force("LST"),
    uniform(),
    set_weights([0.1, 0.2, 0.3, 0.4]),
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


class OnPurposeError(Exception):
    """What nothing else raises."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.name)
def test_nothing_is_left_behind_and_the_control_is_seeded(change, model, clips):
    before = logits_of(model, clips)
    one, two, other = (logits_of(model, clips, change.random(s)) for s in (0, 0, 5))
    assert np.array_equal(one, two) and np.isfinite(other).all()
    assert np.isfinite(logits_of(model, clips, change)).all()
    assert np.array_equal(logits_of(model, clips), before)
    with pytest.raises(OnPurposeError), change.on(model):
        raise OnPurposeError
    assert hooks(model) == 0


def test_outputs_that_nobody_named_are_called_alike(model, clips):
    names = output_names(None, 4)
    assert names == output_names([], 4) == ["class 0", "class 1", "class 2", "class 3"]
    assert output_names(names[::-1], 4) == names[::-1]
    trace = trace_clips(model, clips, labels=[3, 0, 1])
    assert (
        ModelCard.of(model).names == trace.classes == measure(model, clips, drop("LT")).class_names == names
    )
    assert set(from_trace(trace).table()["class"]) == {"class 3", "class 0", "class 1"}


def test_a_change_that_does_not_fit_leaves_no_hook_of_another(model):
    with pytest.raises(UnknownNameError), changed(model, drop("LTS"), reverse(), drop("LT")):
        pass
    assert hooks(model) == 0


def test_a_tracer_hears_the_changed_weights_whoever_came_first(model, clips):
    with torch.no_grad():
        with Tracer(model) as tracer, force("LS").on(model):
            model(clips)
        first = tracer.take()
        with force("LS").on(model), Tracer(model) as tracer:
            model(clips)
        second = tracer.take()
    for taken in (first, second):
        assert all((rows["weights"] == np.array([0, 0, 1, 0])).all() for rows in taken.values())


def test_interventions_are_made_in_their_order(model, clips):
    with changed(model, force("LS"), drop("LS")):
        weights = trace_clips(model, clips).weights
    assert not weights.any()  # what is left out last was all there was; nothing that is shut opens
    with changed(model, drop("LS"), force("LS")):
        weights = trace_clips(model, clips).weights
    assert (weights == [0, 0, 1, 0]).all()


def test_only_where_asked(model, clips):
    before = trace_clips(model, clips).weights
    with drop("S122", where=["layer3", "layer4.0"]).on(model):
        weights = trace_clips(model, clips).weights
    assert np.array_equal(weights[:, :2], before[:, :2]) and (weights[:, 2:, 3] == 0).all()


def test_leaving_out_and_equal_weights_are_what_they_say(model, clips):
    with drop("LT").on(model):
        assert (trace_clips(model, clips).weights[..., 1] == 0).all()
    with uniform().on(model):
        assert (trace_clips(model, clips).weights == 0.25).all()
    assert len(sda_blocks(model)) == 4


def test_split_blocks_and_fewer_dependencies(clips):
    split = make(split=2)
    trace = trace_clips(split, clips)
    with from_clip(trace, "clip-1").on(split):
        lent = trace_clips(split, clips)
    assert len(trace.blocks) == 8 and np.allclose(lent.weights, trace.weights[1], atol=1e-5)
    assert attribute(split, clips, "gradient x weight").places == trace.blocks
    two = make(dependencies=("LT", "S122"))
    assert np.isnan(ablation_map(two, clips).values[..., [0, 2]]).all()
    labels = [0, 1, 2]
    shares = attribute(two, clips, "shapley", labels, "margin").values
    assert shares.shape == (3, 1, 4) and np.isnan(shares[..., [0, 2]]).all()
    whole, none = (readings(logits_of(two, clips, *c), labels)["margin"] for c in ((), (keep(),)))
    assert np.allclose(np.nansum(shares[:, 0], 1), whole - none)
    with pytest.raises(UnknownNameError) as error, drop("LS").on(two):
        pass
    assert error.value.subject == "LS" and error.value.choices == ("LT", "S122")


class Toy(list):
    """Clips as a data set."""

    class_names = list("abcd")


def test_a_single_dependency_has_nothing_to_put_in_its_place(model, clips):
    one = make(dependencies=["LST"])
    two = make(dependencies=("LT", "S122"))
    found = ablation_map(one, clips)
    assert np.isnan(found.values).all() and found.values.shape == (3, 4, 4)
    assert not drop("LST").fits(one) and drop("LS").fits(model)
    assert drop("LT", where="layer2").fits(two) and not drop("LS").fits(two)
    with pytest.raises(UnknownNameError):
        drop("LT", where="layer9").fits(two)
    data = Toy({"clip": clip, "label": k, "id": str(k)} for k, clip in enumerate(clips))
    rows = ablation_table(one, data, pairs=[("a", "b")])
    assert rows.index.tolist() == ["as selected", "without LST", "all weights equal", "chance"]
    assert rows.loc["without LST"].isna().all() and rows.drop("without LST").notna().all(axis=None)
    assert ablation_table(two, data).notna().all(axis=None)
    with pytest.raises(SettingError) as error:
        rank_agreement(from_trace(trace_clips(one, clips)), found)
    assert "two that can be left out" in error.value.remedy
    with pytest.raises(SettingError) as error, drop("LST").on(one):
        one(clips)
    assert error.value.subject == "layer1.0"
    told = rank_agreement(from_trace(trace_clips(two, clips)), ablation_map(two, clips), draws=20)
    assert set(told.loc["weight"].index) == {"LT", "S122", "pooled", "within clips", "best matches"}


def test_what_cannot_know_the_order_of_frames_does_not(model, clips):
    size = np.abs(logits_of(model, clips)).max()
    blind = [logits_of(model, c, drop("LS", "S122")) for c in (clips, shuffle(2)(clips))]
    seeing = [logits_of(model, c) for c in (clips, shuffle(2)(clips))]
    assert np.abs(blind[0] - blind[1]).max() < 1e-3 * size < np.abs(seeing[0] - seeing[1]).max()
    order = np.random.default_rng(2).permutation(clips.shape[1])
    for name, mixes in (("sda_tsn_tiny", False), ("sda_tsm_tiny", True)):  # a shift before it mixes frames
        net = make(name)
        old, new = (
            trace_clips(net, c, responses=True).responses["layer1.0"] for c in (clips, clips[:, order])
        )
        change = {n: np.linalg.norm(new[n] - old[n]) / np.linalg.norm(old[n]) for n in ("LST", "LT")}
        assert (change["LT"] > 1e-3) == mixes
        if not mixes:
            assert change["LST"] < 1e-3
            for n in ("LS", "S122"):  # their frames put back in order
                assert np.linalg.norm(new[n] - old[n][:, order]) > 0.01 * np.linalg.norm(old[n])


def test_a_clip_does_not_touch_the_answer_to_another(model, clips):
    intact = logits_of(model, clips)
    for n in range(len(clips)):
        other = clips.clone()
        other[n] = torch.randn(clips.shape[1:], generator=torch.Generator().manual_seed(n))
        change = np.abs(logits_of(model, other) - intact).max(1)
        assert change[n] > 0 and np.delete(change, n).max() < 1e-3 * np.abs(intact).max()


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


def test_a_loss_is_positive_in_every_attribution(model, clips):
    labels = [0, 1, 2]
    change = measure(model, clips, drop("LT", where="layer2"), labels, draws=0).changes()[0]
    lost = attribute(model, clips, "ablation", labels, at=["layer2"])
    assert np.allclose(lost.values[:, 0, 1], -change, atol=1e-6)
    whole, none = (readings(logits_of(model, clips, *c), labels)["probability"] for c in ((), (keep(),)))
    shares = attribute(model, clips, "shapley", labels)
    assert np.allclose(shares.values[:, 0].sum(1), whole - none, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_one_table_and_one_file(kind, model, clips, tmp_path):
    found = attribute(model, clips, kind, [0, 1, 2], "margin", batch_size=2)
    assert found.kind == kind and found.clips == ["clip-0", "clip-1", "clip-2"] and found.labels == [0, 1, 2]
    assert found.places == (["all"] if kind == "shapley" else list(sda_blocks(model)))
    assert np.allclose(found.logits, logits_of(model, clips), atol=1e-5)
    table = found.table()
    assert len(table) == found.values.size and table.value.tolist() == found.values.ravel().tolist()
    assert found.by_class().n.tolist() == [1] * (3 * len(found.places))
    again = Attribution.load(found.save(tmp_path / "sub" / "found.npz"))
    assert np.array_equal(again.values, found.values) and np.array_equal(again.logits, found.logits)
    for name in ("kind", "reading", "clips", "places", "dependencies", "labels", "class_names"):
        assert getattr(again, name) == getattr(found, name)
    some = found.of_clips([2, 0])
    assert some.clips == ["clip-2", "clip-0"] and np.array_equal(some.values, found.values[[2, 0]])
    assert np.allclose(found.at(["all"]).values[:, 0], found.values.mean(1))
    with pytest.raises(DataError):
        Attribution(kind, found.values, found.clips[:2], found.places)


def test_a_first_order_estimate_is_the_slope_of_an_ablation():
    """So small a part of the way to the weights of an ablation must cost that part of the estimate."""
    net = make(split=2).double()
    clips = 3 * torch.randn(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    torch.nn.init.normal_(net.fc.weight, generator=torch.Generator().manual_seed(2))
    labels = [0, 1, 2]
    told = attribute(net, clips, "first-order", labels, "margin")
    for b, d in ((0, 3), (1, 1), (3, 0)):
        gone = drop(DEPENDENCIES[d], where=told.places[b])

        def margin(part, gone=gone):
            def change(block, names, weights):
                return weights + part * (gone.change(block, names, weights) - weights)

            with torch.no_grad(), replace(gone, change=change).on(net):
                return readings(net(clips).numpy(), labels)["margin"]  # in float64

        slope = (margin(-1e-5) - margin(1e-5)) / 2e-5
        np.testing.assert_allclose(told.values[:, b, d], slope, rtol=1e-3, atol=1e-5)
    assert np.abs(told.values).max() > 0.1
    frozen = attribute(net.requires_grad_(False), clips, "first-order", labels, "margin")
    np.testing.assert_allclose(frozen.values, told.values)
    everywhere = attribute(net, clips, "first-order", labels, "margin", ["all"])
    np.testing.assert_allclose(everywhere.values[:, 0], told.values.sum(1))
    sure = attribute(net, clips, "first-order", labels, "probability")
    assert (np.abs(sure.values) <= 1).all() and np.isfinite(sure.values).all()


def test_a_first_order_estimate_lacks_what_an_ablation_lacks(clips):
    net = make(dependencies=["LT", "S122"])
    for options in ({"dependencies": ["LT", "S122"]}, {"dependencies": ["LT"]}):
        net = make(**options)
        for reading, pairs in (("pair probability", [("class 0", "class 1")]), ("top-1", ())):
            asked = {"labels": [0, 1, 2], "reading": reading, "pairs": pairs}
            told, exact = (
                attribute(net, clips, kind, **asked).values for kind in ("first-order", "ablation")
            )
            assert np.array_equal(np.isnan(told), np.isnan(exact))


def test_views_of_a_video_are_one_row(model, clips):
    views = torch.stack([clips, clips.flip(-1)], 1)
    trace = trace_clips(model, views, labels=[0, 1, 2])
    found = from_trace(trace, "contribution")
    assert len(found) == 3 and found.labels == [0, 1, 2]
    assert np.allclose(found.values[1], trace.contribution()[2:4].mean(0), atol=1e-6)
    assert np.allclose(found.logits, logits_of(model, views), atol=1e-5)


def test_rank_agreement_refuses_another_trace(model, clips):
    effects = ablation_map(model, clips, [0, 1, 2], "margin", at=["all"])
    trace = trace_clips(model, clips)
    both = [from_trace(trace), from_trace(trace, "contribution")]
    assert len(rank_agreement(both, effects, draws=10)) == 14
    other = from_trace(trace_clips(make(temperature=0.01), clips.flip(0)))
    with pytest.raises(SettingError) as error:
        rank_agreement(other, effects, draws=10)
    assert error.value.subject == "weight"


def test_any_attribution_can_be_judged(model, clips):
    effects = ablation_map(model, clips, [0, 1, 2])
    judged = [
        from_trace(trace_clips(model, clips)),
        effects,
        attribute(model, clips, "gradient x weight", [0, 1, 2]),
    ]
    told = rank_agreement(judged, effects, draws=20)
    assert (told.loc["ablation"].drop(["within clips", "best matches"]).rho.dropna() == 1).all()
    assert told.loc[("ablation", "best matches"), "rho"] == 1 and len(told) == 3 * 7
    half = Attribution("half", effects.values[:, :2], effects.clips, effects.places[:2])
    with pytest.raises(UnknownNameError):
        rank_agreement(half, effects)


@pytest.mark.parametrize(
    "call, subject, choice",
    [
        (lambda m, x: drop(), None, "LST"),
        (lambda m, x: logits_of(m, x, drop("LTS")), "LTS", "LT"),
        (lambda m, x: logits_of(m, x, drop("LT", where="layer9")), "layer9", "layer4"),
        (lambda m, x: logits_of(m, x, drop("LT", where=[])), None, "layer1.0"),
        (lambda m, x: logits_of(make("tsn_tiny"), x, drop("LT")), "tsn_tiny", "sda_tsn_tiny"),
        (lambda m, x: logits_of(m, x, set_weights([0.5, 0.6, -0.1, 0])), "LS", None),
        (lambda m, x: logits_of(m, x, set_weights([0.5, float("nan"), 0.5, 0])), "LT", None),
        (lambda m, x: logits_of(m, x, set_weights([0.5, 0.5])), "weights", None),
        (lambda m, x: set_weights({"LT": 0.5}), "weights", None),
        (lambda m, x: temperature(0), "temperature", None),
        (lambda m, x: freeze(4)(x), "4", None),
        (lambda m, x: drop_frames(0, 1, 2, 3)(x), "frames", None),
        (lambda m, x: measure(m, x, drop("LT"), [0, 1, 9]), "labels", None),
        (lambda m, x: measure(m, x, drop("LT"), [0, 1, 2], class_names=["a"]), "class_names", None),
        (lambda m, x: measure(m, x[:0], drop("LT")), "clips", None),
        (lambda m, x: ablation_map(m, x, reading="accuracy"), "accuracy", "top-1"),
        (lambda m, x: attribute(m, x, "importance"), "importance", "shapley"),
        (lambda m, x: from_clip(trace_clips(m, x), "clip-7"), "clip-7", "clip-2"),
        (lambda m, x: from_class(trace_clips(m, x, labels=[0, 1, 2]), "class 3"), "class 3", None),
        (lambda m, x: from_class(trace_clips(m, x, labels=[0, 1, 2]), "running"), "running", "class 0"),
    ],
)
def test_bad_input(call, subject, choice, model, clips):
    with pytest.raises((SettingError, UnknownNameError)) as error:
        call(model, clips)
    assert error.value.subject == subject
    assert choice in error.value.choices if choice else not error.value.choices
