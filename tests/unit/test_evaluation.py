"""Predictions, evaluation, prediction: accuracies, joins, bad input, broken files, tests that break off."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from sda.data.datasets import ClipDataset
from sda.data.lists import Record
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.figures.training import fig_reliability
from sda.foundation.errors import DataError, FolderError, RunError, SettingError, UnknownNameError, VideoError
from sda.foundation.statistics import softmax
from sda.moves.classes import CLASSES, GROUPS, NEEDS
from sda.networks.backbones import create_model
from sda.networks.checkpoints import ModelCard, load_model, save_model
from sda.testing.compare import actions, compare, ensemble, same_videos
from sda.testing.evaluate import evaluate, predict, protocol, slide, windows
from sda.testing.predictions import (
    Predictions,
    by_attribute,
    by_class,
    by_clip,
    by_group,
    calibration,
    calibration_error,
    mean_class_accuracy,
    pair_accuracy,
    summary,
)

# videos, classes, seed of `toy` -> calibration error
REFERENCE = {
    (40, 5, 0): 0.23708385229110718,
    (1, 2, 1): 0.7023818492889404,
    (500, 20, 2): 0.08056066930294037,
    (60, 3, 3): 0.2712313234806061,
}


def toy(n=40, k=5, views=2, seed=0, classes=None):
    rng = np.random.default_rng(seed)
    names = [f"class {i}" for i in range(k)]
    labels = rng.integers(0, classes or k, n)
    return Predictions([f"v{i}" for i in range(n)], rng.normal(size=(n, views, k)), labels, names)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(2, 8), st.integers(0, 10**6), st.integers(1, 3))
def test_top_k_is_the_share_of_true_classes_among_the_best(n, k, seed, top):
    p = toy(n, k, seed=seed)
    best = np.argsort(-p.logits.mean(1), 1)[:, :top]
    assert p.accuracy(min(top, k)) == pytest.approx((best == p.labels[:, None]).any(1).mean(), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.randoms())
def test_order_of_videos_does_not_matter(n, random):
    p = toy(n)
    order = list(range(n))
    random.shuffle(order)
    q = Predictions([p.ids[i] for i in order], p.logits[order], p.labels[order], p.class_names)
    assert (same_videos(p, q)[1].logits == p.logits).all()
    assert q.accuracy() == p.accuracy() and by_class(q).equals(by_class(p))
    assert np.allclose(ensemble([p, q], average="logits").scores(), p.scores())


def test_absent_classes_and_json():
    table = by_class(toy(k=6, classes=4))
    assert table["n"].tolist()[4:] == [0, 0] and table["accuracy"].isna().tolist()[4:] == [True, True]
    assert mean_class_accuracy(toy(k=6, classes=4)) == pytest.approx(
        table["accuracy"][:4].astype(float).mean()
    )
    assert "NaN" not in json.dumps(json.loads(table.to_json()))


def test_pairs_ignore_other_classes():
    p = toy(k=4)
    p.logits[:, :, 3] += 100  # a third class wins everywhere
    fair = pair_accuracy(p, [("class 0", "class 1")])
    p.logits[:, :, 3] -= 200
    assert fair.equals(pair_accuracy(p, [("class 0", "class 1")])) and 0 < fair["right"][0] < fair["n"][0]
    with pytest.raises(UnknownNameError) as error:
        pair_accuracy(p, [("class 0", "nobody")])
    assert error.value.subject == "nobody" and list(error.value.choices) == p.class_names


def test_blind_model_gets_no_pair_right():
    p = Predictions(list("abcd"), np.zeros((4, 1, 2)), [0, 1, 0, 1], ["l", "r"])
    assert pair_accuracy(p, [("l", "r")])["right"][0] == 0 and p.accuracy() == 0


def test_groups_must_cover_everything():
    with pytest.raises(SettingError) as error:
        by_group(toy(), {"class 0": "a"})
    assert error.value.subject in toy().ids


@pytest.mark.parametrize(
    "change, subject",
    [
        (dict(ids=["a", "a"]), "a"),
        (dict(labels=[0, 7]), "b"),
        (dict(labels=[0]), None),
        (dict(logits=np.array([[0, np.inf], [0, 1]])), "a"),
        (dict(class_names=["x"]), None),
    ],
)
def test_nonsense_is_refused(change, subject):
    good = dict(ids=["a", "b"], logits=np.zeros((2, 2)), labels=[0, 1], class_names=["x", "y"])
    Predictions(**good)
    with pytest.raises(DataError) as error:
        Predictions(**good | change)
    assert error.value.subject == subject


def test_files(tmp_path):
    p = toy()
    p.groups = {"kind": {name: name[-1] for name in p.class_names}}
    path = p.save(tmp_path / "deep" / "scores.npz")
    q = Predictions.load(path)
    assert q.ids == p.ids and (q.logits == p.logits).all() and (q.labels == p.labels).all()
    assert q.groups == p.groups and Predictions.load(toy().save(tmp_path / "plain")).groups == {}
    assert [f.name for f in path.parent.iterdir()] == ["scores.npz"]
    np.savez(tmp_path / "evil.npz", ids=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    for name in ("evil.npz", "text.npz", "missing.npz"):
        with pytest.raises(DataError) as error:
            Predictions.load(tmp_path / name)
        assert error.value.subject == str(tmp_path / name)


def test_a_file_of_other_scores_or_none_at_all_is_named(tmp_path):
    toy().save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(array := tmp_path / "array.npy", np.zeros(3))
    twice = dict(ids=["a", "a"], logits=np.zeros((2, 2)), labels=[0, 1], class_names=["x", "y"])
    np.savez(tmp_path / "twice.npz", **twice)
    np.savez(tmp_path / "words.npz", **twice | {"ids": ["a", "b"], "labels": ["x", "y"]})
    for name, data in {
        "cut.npz": whole[:-30],
        "hole.npz": whole[:200] + bytes(60) + whole[260:],
        "none.npz": b"",
        "array.npz": array.read_bytes(),
    }.items():
        (tmp_path / name).write_bytes(data)
    for name in ("cut.npz", "hole.npz", "none.npz", "array.npz"):
        with pytest.raises(DataError) as error:
            Predictions.load(tmp_path / name)
        assert error.value.subject == str(tmp_path / name) and "sda test --out" in error.value.remedy
    for name in ("twice.npz", "words.npz"):
        with pytest.raises(DataError) as error:
            Predictions.load(tmp_path / name)
        assert error.value.subject == str(tmp_path / name)


def test_the_interval_of_an_accuracy_is_wilsons():
    p = Predictions(list("abcde"), np.eye(2)[[0] * 5], [0] * 5, ["x", "y"])
    assert np.allclose(p.interval(), (0.5655, 1), atol=1e-4)
    with pytest.raises(SettingError):
        p.interval(level=95)


def test_other_videos_and_classes_are_not_joined():
    p = toy()
    odd = set(p.ids) - set(toy(n=39).ids)
    for other, subjects in (
        (Predictions(p.ids, p.logits, p.labels, p.class_names[::-1]), p.class_names),
        (toy(n=39), odd),
        (Predictions(p.ids, p.logits, (p.labels + 1) % 5, p.class_names), p.ids),
    ):
        with pytest.raises(DataError) as error:
            same_videos(p, other)
        assert error.value.subject in subjects


def test_compare_is_the_exact_test():
    p = toy(n=30)
    right = p.labels.copy()
    q = Predictions(p.ids, 10 * np.eye(5)[right][:, None], right, p.class_names)
    result = compare(p, q)
    odd = int((~np.equal(p.predicted(), p.labels)).sum())
    assert result["only_second"] == odd and result["only_first"] == 0
    assert result["p"] == pytest.approx(2 * 0.5**odd) and result["low"] > 0
    assert compare(q, p)["difference"] == -result["difference"]


def test_compare_agrees_with_a_plain_paired_bootstrap():
    p = toy(n=60, seed=1, k=3)
    q = toy(n=60, seed=2, k=3)
    q = Predictions(q.ids, q.logits + np.eye(3)[p.labels][:, None], p.labels, q.class_names)
    gain = q.correct().astype(float) - p.correct()
    picks = np.random.default_rng(5).integers(0, 60, (4000, 60))
    low, high = np.quantile(gain[picks].mean(1), [0.025, 0.975])
    found = compare(p, q)
    assert found["low"] == pytest.approx(low, abs=0.035) and found["high"] == pytest.approx(high, abs=0.035)


# -- calibration, actions, attributes


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(1, 20), st.integers(0, 10**6))
def test_calibration_table_adds_up_to_the_error(n, k, bins, seed):
    p = toy(n, k, seed=seed)
    table = calibration(p, bins)
    gaps = (table.n * (table.confidence - table.accuracy).abs()).sum() / n
    assert table.n.sum() == n and gaps == pytest.approx(calibration_error(p, bins), abs=1e-5)


def test_the_calibration_error_is_that_of_torchmetrics():
    """Numbers of torchmetrics 1.9: `multiclass_calibration_error(probabilities, labels, K, n_bins=15)`."""
    found = [calibration_error(toy(n, k, seed=seed)) for n, k, seed in REFERENCE]
    assert found == pytest.approx(list(REFERENCE.values()), abs=1e-6)


def test_full_confidence_has_a_bin():
    p = Predictions(["a", "b"], 1e4 * np.eye(2), [0, 0], ["x", "y"])
    assert calibration(p)["n"].tolist() == [0] * 9 + [2] and calibration_error(p) == pytest.approx(0.5)
    assert "n = 2" in fig_reliability(calibration(p), calibration_error(p)).axes[0].get_title()


def test_actions_are_ranked_among_all_pairs():
    verbs = toy(k=4, seed=1)
    nouns = toy(k=6, seed=2)
    turned = Predictions(nouns.ids[::-1], nouns.logits[::-1], nouns.labels[::-1], nouns.class_names)
    table = actions(verbs, turned).set_index("what")
    pairs = softmax(verbs.scores())[:, :, None] * softmax(nouns.scores())[:, None]
    for k in (1, 5):
        best = np.argsort(-pairs.reshape(40, -1), 1)[:, :k]
        want = (best == (verbs.labels * 6 + nouns.labels)[:, None]).any(1).mean()
        assert table[f"top{k}"]["action"] == pytest.approx(want)
    assert table.top1["noun"] == nouns.accuracy() and table.top1["verb"] == verbs.accuracy()
    with pytest.raises(DataError) as error:
        actions(verbs, toy(n=39))
    assert {error.value.subject} == set(verbs.ids) - set(toy(n=39).ids)


@pytest.mark.parametrize(
    ("verbs", "nouns", "subject"),
    [
        (125, 125, "nouns"),  # the same scores given twice
        (300, 97, "nouns"),  # exchanged, of EPIC-KITCHENS-100
        (352, 9, "verbs"),
    ],
)
def test_verbs_are_not_taken_for_nouns(verbs, nouns, subject):
    def scores(kind, K):
        return Predictions(["a", "b"], np.eye(2, K), [0, 1], [f"{kind} {k}" for k in range(K)])

    first = scores("verb", verbs)
    second = first if verbs == nouns else scores("noun", nouns)
    with pytest.raises(DataError) as error:
        actions(first, second)
    assert error.value.subject == subject and error.value.remedy
    fits = actions(scores("verb", 125), scores("noun", 352))
    assert fits.set_index("what").top1["action"] == 1


def test_scores_are_not_lost_to_others_of_the_same_name(tmp_path):
    first = Predictions(["a"], [[0.0, 1.0]], [0], ["x", "y"])
    file = first.save(tmp_path / "scores")
    assert first.save(tmp_path / "scores") == file
    with pytest.raises(FolderError) as error:
        Predictions(["a"], [[0.0, 1.0]], [1], ["x", "y"]).save(file)
    assert error.value.subject == str(file) and Predictions.load(file).labels.tolist() == [0]
    file.write_bytes(b"notes of mine")
    with pytest.raises(FolderError):
        first.save(file)
    assert Predictions.load(first.save(file, replace=True)).ids == ["a"]


def test_one_row_per_clip_names_the_answer_and_the_rank_of_the_truth():
    p = Predictions(["a", "b"], [[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]], [1, 1], ["x", "y", "z"])
    table = by_clip(p)
    assert table.to_dict("list")["answer"] == ["x", "y"] and table.true_rank.tolist() == [3, 1]
    assert table.right.tolist() == [False, True]
    assert table.true_probability[1] == table.probability[1] and table.true_probability[0] < 0.1


def test_attributes_of_diving48(tmp_path):
    from sda.data.annotations import read_diving48_vocabulary

    vocabulary = [
        ["Back", "15som", "05Twis", "FREE"],
        ["Back", "25som", "NoTwis", "PIKE"],
        ["Inward", "25som", "NoTwis", "TUCK"],
    ]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    names, groups = read_diving48_vocabulary(tmp_path / "vocab.json")
    p = Predictions(list("abcd"), np.eye(3)[[0, 1, 1, 1]], [0, 0, 1, 2], names)
    table = by_attribute(p, groups).set_index(["attribute", "value"])
    assert table.loc[("takeoff", "Back"), ["n", "accuracy", "attribute_right"]].tolist() == [3, 2 / 3, 1]
    assert table.loc[("somersault", "25som"), ["n", "accuracy", "attribute_right"]].tolist() == [2, 0.5, 1]
    assert table.loc[("position", "TUCK"), "attribute_right"] == 0
    with pytest.raises(SettingError) as error:
        by_attribute(toy(), groups)
    assert error.value.subject == "class 0"


def test_summary_is_plain_json_and_has_the_groups_of_the_data_set():
    found = summary(toy())
    assert json.loads(json.dumps(found)) == found and "by_need" not in found and found["n"] == 40
    names = [c.name for c in CLASSES]
    moves = summary(Predictions(names, np.eye(20), range(20), names, GROUPS))
    assert list(moves["by_need"]) == list(NEEDS) and set(moves["by_need"].values()) == {1}
    assert json.loads(json.dumps(moves)) == moves


@pytest.mark.parametrize("weights", [[1], [0, 0], [1, -1], [1, float("nan")]])
def test_weights_that_make_no_mean(weights):
    with pytest.raises(SettingError) as error:
        ensemble([toy(), toy()], weights)
    assert error.value.subject == "weights"


def test_an_ensemble_is_the_weighted_mean_by_id():
    p = toy(seed=3)
    q = toy(seed=4)
    q = Predictions(q.ids, q.logits, p.labels, q.class_names)
    turned = Predictions(q.ids[::-1], q.logits[::-1], q.labels[::-1], q.class_names)
    want = 0.75 * p.scores("probabilities") + 0.25 * q.scores("probabilities")
    assert np.allclose(softmax(ensemble([p, turned], [3, 1]).scores()), want, atol=1e-5)
    assert np.allclose(
        ensemble([p, turned], [3, 1], "logits").scores(), 0.75 * p.scores() + 0.25 * q.scores(), atol=1e-5
    )


class Clips(torch.utils.data.Dataset):
    class_names = ["a", "b", "c"]

    def __init__(self, n=7, bad=None):
        self.n, self.bad = n, bad

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.bad:
            raise RuntimeError("moov atom not found")
        clip = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(i))
        return {"clip": clip, "label": i % 3, "id": f"c{i}"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("sda_tsm_tiny", 3, num_frames=4)


def test_batch_size_does_not_change_scores(model):
    a, b = (evaluate(model, Clips(), batch_size=s, progress=False) for s in (1, 5))
    assert a.ids == b.ids and np.allclose(a.logits, b.logits, atol=1e-5) and a.logits.std() > 0
    assert model.training


def test_workers_give_the_same(model):
    a = evaluate(model, Clips(), progress=False)
    assert (evaluate(model, Clips(), progress=False, num_workers=2).logits == a.logits).all()


def test_evaluation_names_what_is_wrong(model):
    with pytest.raises(RunError) as error:
        evaluate(model, Clips(bad=2), progress=False)
    assert "2" in error.value.subject and str(error.value.__cause__) in str(error.value)
    assert model.training, "the mode is put back after an error too"
    with pytest.raises(RunError) as error:
        evaluate(model, Clips(n=0), progress=False)
    assert error.value.remedy
    broken = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 32 * 32, 3))
    nn.init.constant_(broken[1].bias, float("nan"))
    with pytest.raises(DataError) as error:
        evaluate(broken, Clips(), progress=False)
    assert error.value.subject == "c0"


def test_other_class_names_are_refused(model):
    model.card = ModelCard.of(model, ["a", "c", "b"])
    try:
        with pytest.raises(RunError) as error:
            evaluate(model, Clips(), progress=False)
        assert error.value.choices == ("a", "c", "b") and "category.txt" in error.value.remedy
        evaluate(model, Clips(), progress=False, allow_other_classes=True)
    finally:
        del model.card


# -- named views

SIDES = ["light on the left", "light on the right", "dark"]


class Side(nn.Module):
    """Three classes: where the light is."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.most = 0

    def forward(self, clips):
        self.most = max(self.most, len(clips))
        left, right = (half.mean((1, 2, 3, 4)) * self.scale for half in clips.chunk(2, -1))
        return torch.stack([left - right, right - left, -left.abs() - right.abs() - 9], 1)


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """Five clips of four frames whose left or right third is light."""
    folder = tmp_path_factory.mktemp("lights")
    records = []
    for i in range(5):
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, :20] = 255
        (folder / f"c{i}").mkdir()
        for t in range(4):
            Image.fromarray(picture[:, ::-1] if i % 2 else picture).save(folder / f"c{i}/{t + 1:05d}.png")
        records.append(Record(f"c{i}", str(folder / f"c{i}"), i % 2))
    return records


@pytest.fixture
def side():
    net = Side()
    net.card = ModelCard(
        "side",
        {},
        3,
        2,
        SIDES,
        TransformConfig(size=32, resize=36).to_dict(),
        Sampling("segments", 2).to_dict(),
    )
    return net


def seen(records, net, views="", clips=0):
    sampling, crops, _ = protocol(net.card, views, clips)
    return ClipDataset(records, SIDES, sampling, crops)


def test_mirrored_views_are_put_back_per_view(lights, side):
    ten = evaluate(side, seen(lights, side, "10x32", 2), progress=False)
    assert ten.logits.shape == (5, 20, 3) and ten.accuracy() == 1
    centres = ten.logits[:, [8, 9, 18, 19]].argmax(2)  # the centre crop of both clips, and the same mirrored
    assert (centres == ten.labels[:, None]).all()


def test_memory_is_bounded_by_views_not_videos(lights, side):
    evaluate(side, seen(lights, side, "10x32", 2), batch_size=8, progress=False)
    assert side.most <= 8
    a, b = (evaluate(side, seen(lights, side, "3x32"), batch_size=s, progress=False).logits for s in (1, 64))
    assert np.allclose(a, b)


def test_scores_of_other_views_are_not_taken(lights, side, tmp_path):
    plain = evaluate(side, seen(lights, side, "center32"), progress=False, parts=tmp_path)
    other = evaluate(side, seen(lights, side, "center36to32"), progress=False, parts=tmp_path)
    assert plain.logits.shape == other.logits.shape and not np.allclose(plain.logits, other.logits)
    assert len(list(tmp_path.iterdir())) == 2
    side.forward = None  # a third call must not need the network
    assert (
        evaluate(side, seen(lights, side, "center32"), progress=False, parts=tmp_path).logits == plain.logits
    ).all()


def test_scores_of_changed_clips_are_not_taken(lights, side, tmp_path):
    records = []
    for r in lights[:2]:
        shutil.copytree(r.path, tmp_path / r.id)
        records.append(Record(r.id, str(tmp_path / r.id), r.label))
    before = evaluate(side, seen(records, side), progress=False, parts=tmp_path / "parts")
    for t in range(4):
        Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(tmp_path / f"c0/{t + 1:05d}.png")
    after = evaluate(side, seen(records, side), progress=False, parts=tmp_path / "parts")
    assert not np.allclose(before.logits[0], after.logits[0]) and np.allclose(
        before.logits[1], after.logits[1]
    )


def test_missing_clip_is_named(lights, side):
    gone = [*lights, Record("c9", "/nowhere/c9", 0)]
    with pytest.raises(VideoError) as error:
        evaluate(side, seen(gone, side), progress=False)
    assert "c9" in str(error.value)


def test_protocols_have_names_and_errors(side):
    assert protocol(side.card)[2] == "1 view, centre crop"
    sampling, crops, name = protocol(side.card, "3x36to32", 2)
    assert (sampling.strategy, sampling.views, len(crops.mirrored), name) == (
        "twice",
        2,
        3,
        "2 frames x 3x36to32 x 2 clips",
    )
    with pytest.raises(UnknownNameError) as error:
        protocol(side.card, "3x36to23")
    assert error.value.subject == "3x36to23" and "3x36to32" in error.value.remedy
    with pytest.raises(SettingError) as error:
        protocol(side.card, clips=3)
    assert "dense" in str(error.value), "the strategy that takes three"
    side.card.sampling = Sampling("twice", 2, 2).to_dict()
    assert protocol(side.card, clips=1)[0] == Sampling("segments", 2)
    side.card.transform = TransformConfig(size=32, resize=None).to_dict()
    with pytest.raises(SettingError):
        protocol(side.card, "3x36to32")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("m") / "model.safetensors"
    card = ModelCard.of(
        model,
        ["a", "b", "c"],
        transform=TransformConfig(size=32, resize=40).to_dict(),
        sampling=Sampling("twice", 4, 2).to_dict(),
    )
    save_model(path, model, card)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    import av

    folder = tmp_path_factory.mktemp("v")
    for name in ("one.mp4", "two.mp4"):
        with av.open(str(folder / name), "w") as box:
            stream = box.add_stream("libx264", rate=12)
            stream.width = 64
            stream.height = 48
            stream.pix_fmt = "yuv420p"
            for t in range(16):
                frame = np.full((48, 64, 3), 10 * t + (60 if name == "two.mp4" else 0), np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                    box.mux(packet)
            for packet in stream.encode():
                box.mux(packet)
    return [folder / "one.mp4", folder / "two.mp4"]


def test_predict_one_and_many(model_file, videos):
    one = predict(videos[0], model_file)
    assert list(one.columns) == ["class", "probability"] and len(one) == 3
    assert one.probability.sum() == pytest.approx(1, abs=1e-5) and one.probability.is_monotonic_decreasing
    many = predict(videos, model_file, top=2)
    assert list(many.columns) == ["video", "class", "probability"] and many.video.nunique() == 2
    assert np.allclose(many.probability[:2], one.probability[:2])
    assert list(predict([str(videos[0])], model_file, top=1)["video"]) == [str(videos[0])]


def test_outputs_without_names_are_numbered(tmp_path, model_file, model, videos):
    card = dataclasses.replace(load_model(model_file).card, class_names=[])
    file = save_model(tmp_path / "nameless.safetensors", model, card)
    assert set(predict(videos[0], file)["class"]) == {"class 0", "class 1", "class 2"}
    assert slide(videos[0], file, length=8)["class"].str.startswith("class ").all()


def test_predict_in_batches_is_predict_one_by_one(model_file, videos, tmp_path):
    """A clip named twice is answered once."""
    again = shutil.copy(videos[0], tmp_path / "again.mp4")
    paths = [videos[0], videos[1], again, videos[0]]
    a, b = (predict(paths, model_file, batch_size=s) for s in (1, 2))
    assert (
        (a["class"] == b["class"]).all()
        and np.allclose(a.probability, b.probability, atol=1e-5)
        and len(a) == 9
    )
    assert predict([], model_file).empty


def test_predict_bad_clips(model_file, videos, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    one_view = load_model(model_file)
    one_view.card.sampling = {"strategy": "segments", "num_frames": 4, "views": 5}
    with pytest.raises(RunError) as error:
        predict(videos[0], one_view)
    assert error.value.subject.endswith("one.mp4") and "views" in str(error.value)
    for bad in (tmp_path / "none.mp4", tmp_path / "text.mp4"):
        with pytest.raises(VideoError) as error:
            predict([videos[0], bad], model_file)
        assert bad.name in str(error.value)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_broken_file_does_not_cost_the_others_their_answers(model_file, videos, tmp_path, batch_size):
    (tmp_path / "text.mp4").write_text("not a video")
    bad = [tmp_path / "none.mp4", tmp_path / "text.mp4"]
    problems = {}
    table = predict(
        [bad[0], videos[0], bad[1], videos[1]], model_file, batch_size=batch_size, problems=problems
    )
    assert table.equals(predict(videos, model_file, batch_size=batch_size))
    assert list(problems) == [str(path) for path in bad] and all(
        path in why for path, why in problems.items()
    )
    assert predict(bad, model_file, problems={}).empty


def test_a_half_network_predicts_in_its_own_precision(model_file, videos):
    half = load_model(model_file).bfloat16()
    assert np.allclose(
        predict(videos[0], half).probability, predict(videos[0], model_file).probability, atol=0.05
    )


# -- tests that break off, and long videos


class Counted(torch.utils.data.Dataset):
    """Seven clips; reading `stop` of them raises, like a machine that dies."""

    class_names = ["a", "b"]

    def __init__(self, stop=None):
        self.stop, self.read = stop, 0

    def __len__(self):
        return 7

    def __getitem__(self, i):
        self.read += 1
        if self.read == self.stop:
            raise KeyboardInterrupt
        return {"clip": torch.full((2, 3, 4, 4), float(i)), "label": i % 2, "id": f"v{i}"}


class Mean(torch.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, clips):
        return torch.stack([clips.mean((1, 2, 3, 4)) * self.scale, self.scale.expand(len(clips))], 1)


def test_a_test_that_broke_off_goes_on(tmp_path):
    whole = evaluate(Mean(), Counted(), batch_size=2, progress=False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Mean(), Counted(stop=6), 2, False, parts=tmp_path)
    rest = Counted()
    found = evaluate(Mean(), rest, batch_size=3, progress=False, parts=tmp_path)
    assert rest.read == 3 and found.ids == whole.ids and (found.logits == whole.logits).all()
    other = Counted()
    evaluate(Mean(2.0), other, batch_size=2, progress=False, parts=tmp_path)
    assert other.read == 7, "scores of other weights must not be taken"


def test_what_a_power_cut_damaged_is_tested_again(tmp_path, caplog):
    whole = evaluate(Mean(), Counted(), batch_size=2, progress=False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Mean(), Counted(stop=6), 2, False, parts=tmp_path)
    parts = sorted(tmp_path.rglob("0*.npz"))
    data = parts[1].read_bytes()
    for part, damaged in ((parts[0], b""), (parts[1], data[: len(data) // 2])):
        part.write_bytes(damaged)
    rest = Counted()
    with caplog.at_level(logging.WARNING, "sda.testing.running"):
        found = evaluate(Mean(), rest, batch_size=2, progress=False, parts=tmp_path)
    assert (
        found.ids == whole.ids
        and (found.logits == whole.logits).all()
        and rest.read == 7 - 2 * (len(parts) - 2)
    )
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all(str(part) in words for part, words in zip(parts, said, strict=False))
    caplog.clear()
    evaluate(Mean(), again := Counted(), batch_size=2, progress=False, parts=tmp_path)
    assert again.read == 0 and not caplog.records, "the damaged files were replaced"


@pytest.mark.parametrize(
    "total, length, stride", [(100, 40, 20), (90, 40, 20), (10, 40, 20), (41, 40, 40), (7, 1, 3)]
)
def test_windows_cover_a_video(total, length, stride):
    spans = windows(total, length, stride)
    assert spans[0][0] == 0 and spans[-1][1] == total and all(b - a == min(length, total) for a, b in spans)
    assert all(a < b for a, b in zip(spans, spans[1:], strict=False))
    if stride <= length:
        assert {i for a, b in spans for i in range(a, b)} == set(range(total))


def test_sliding_over_a_long_video(tmp_path):
    """Dark frames, then bright ones: the windows say when."""
    for i in range(24):
        picture = Image.fromarray(np.full((40, 40, 3), 255 * (i >= 12), np.uint8))
        picture.save(tmp_path / f"img_{i + 1:05d}.jpg")
    net = Mean()
    net.card = ModelCard(
        "toy",
        {},
        2,
        4,
        ["bright", "dark"],
        TransformConfig(size=32, resize=36).to_dict(),
        Sampling("segments", 4).to_dict(),
    )
    table = slide(tmp_path, net, length=8, stride=4, batch_size=2)
    assert table["start"].tolist() == [0, 4, 8, 12, 16] and table["end"].tolist() == [8, 12, 16, 20, 24]
    assert (table["class"].iloc[0], table["class"].iloc[-1]) == ("dark", "bright")
    assert len(slide(tmp_path, net, length=8, top=2)) == 10 and table["probability"].between(0.5, 1).all()
    with pytest.raises(SettingError) as error:
        slide(tmp_path, net, length=0)
    assert error.value.subject == "length"
