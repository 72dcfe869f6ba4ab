"""Predictions, evaluation and prediction: joins, bad input, agreement with torchmetrics."""
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchmetrics.functional import accuracy as reference_accuracy

from sda.backbones import create_model
from sda.checkpoints import ModelCard, load_model, save_model
from sda.evaluation import (
    EvaluationError,
    Predictions,
    compare,
    ensemble,
    evaluate,
    predict,
    same_videos,
    slide,
    windows,
)
from sda.sampling import Sampling
from sda.transforms import TransformConfig
from sda.video import VideoError


def toy(n=40, k=5, views=2, seed=0, classes=None):
    rng = np.random.default_rng(seed)
    names = [f"class {i}" for i in range(k)]
    labels = rng.integers(0, classes or k, n)
    return Predictions([f"v{i}" for i in range(n)], rng.normal(size=(n, views, k)), labels, names)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(2, 8), st.integers(0, 10**6), st.integers(1, 3))
def test_top_k_agrees_with_torchmetrics(n, k, seed, top):
    p = toy(n, k, seed=seed)
    top = min(top, k)
    want = reference_accuracy(torch.tensor(p.scores()), torch.tensor(p.labels), task="multiclass", num_classes=k,
                              top_k=top, average="micro")
    assert p.accuracy(top) == pytest.approx(want.item(), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.randoms())
def test_order_of_videos_does_not_matter(n, random):
    p = toy(n)
    order = list(range(n))
    random.shuffle(order)
    q = Predictions([p.ids[i] for i in order], p.logits[order], p.labels[order], p.class_names)
    assert (same_videos(p, q)[1].logits == p.logits).all()
    assert q.accuracy() == p.accuracy() and q.by_class().equals(p.by_class())
    assert np.allclose(ensemble([p, q], average="logits").scores(), p.scores())


def test_absent_classes_and_json():
    table = toy(k=6, classes=4).by_class()
    assert table["n"].tolist()[4:] == [0, 0] and table["accuracy"].isna().tolist()[4:] == [True, True]
    assert toy(k=6, classes=4).mean_class_accuracy() == pytest.approx(table["accuracy"][:4].astype(float).mean())
    assert "NaN" not in json.dumps(json.loads(table.to_json()))


def test_pairs_ignore_other_classes():
    p = toy(k=4)
    p.logits[:, :, 3] += 100  # a third class wins everywhere
    fair = p.pair_accuracy([("class 0", "class 1")])
    p.logits[:, :, 3] -= 200
    assert fair.equals(p.pair_accuracy([("class 0", "class 1")])) and 0 < fair["right"][0] < fair["n"][0]
    with pytest.raises(EvaluationError, match="no class 'nobody'"): p.pair_accuracy([("class 0", "nobody")])


def test_blind_model_gets_no_pair_right():
    p = Predictions(list("abcd"), np.zeros((4, 1, 2)), [0, 1, 0, 1], ["l", "r"])
    assert p.pair_accuracy([("l", "r")])["right"][0] == 0 and p.accuracy() == 0


def test_groups_must_cover_everything():
    with pytest.raises(EvaluationError, match="No group is given"): toy().by_group({"class 0": "a"})


@pytest.mark.parametrize("change, words", [
    (dict(ids=["a", "a"]), "twice"), (dict(labels=[0, 7]), "Labels outside"), (dict(labels=[0]), "do not fit"),
    (dict(logits=np.array([[0, np.inf], [0, 1]])), "not finite for 'a'"), (dict(class_names=["x"]), "do not fit")])
def test_nonsense_is_refused(change, words):
    good = dict(ids=["a", "b"], logits=np.zeros((2, 2)), labels=[0, 1], class_names=["x", "y"])
    Predictions(**good)
    with pytest.raises(EvaluationError, match=words): Predictions(**good | change)


def test_files(tmp_path):
    p = toy()
    path = p.save(tmp_path / "deep" / "scores.npz")
    q = Predictions.load(path)
    assert q.ids == p.ids and (q.logits == p.logits).all() and (q.labels == p.labels).all()
    assert [f.name for f in path.parent.iterdir()] == ["scores.npz"]
    np.savez(tmp_path / "evil.npz", ids=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    for name in ("evil.npz", "text.npz", "missing.npz"):
        with pytest.raises(EvaluationError, match=name): Predictions.load(tmp_path / name)


def test_other_videos_and_classes_are_not_joined():
    p = toy()
    with pytest.raises(EvaluationError, match="class names differ"):
        same_videos(p, Predictions(p.ids, p.logits, p.labels, p.class_names[::-1]))
    with pytest.raises(EvaluationError, match="in one set only"): same_videos(p, toy(n=39))
    with pytest.raises(EvaluationError, match="labels of the same videos differ"):
        same_videos(p, Predictions(p.ids, p.logits, (p.labels + 1) % 5, p.class_names))


def test_compare_is_the_exact_test():
    p = toy(n=30)
    right = p.labels.copy()
    q = Predictions(p.ids, 10 * np.eye(5)[right][:, None], right, p.class_names)
    result = compare(p, q)
    odd = int((~np.equal(p.top1(), p.labels)).sum())
    assert result["only_second"] == odd and result["only_first"] == 0
    assert result["p"] == pytest.approx(2 * 0.5**odd) and result["low"] > 0
    assert compare(q, p)["difference"] == -result["difference"]


class Clips(torch.utils.data.Dataset):
    class_names = ["a", "b", "c"]

    def __init__(self, n=7, bad=None): self.n, self.bad = n, bad
    def __len__(self): return self.n

    def __getitem__(self, i):
        if i == self.bad: raise RuntimeError("moov atom not found")
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
    with pytest.raises(EvaluationError, match="number 2.*moov"): evaluate(model, Clips(bad=2), progress=False)
    assert model.training, "the mode is put back after an error too"
    with pytest.raises(EvaluationError, match="no clips"): evaluate(model, Clips(n=0), progress=False)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 32 * 32, 3))
    nn.init.constant_(broken[1].bias, float("nan"))
    with pytest.raises(EvaluationError, match="not finite for 'c0'"): evaluate(broken, Clips(), progress=False)


def test_other_class_names_are_refused(model):
    model.card = ModelCard.of(model, ["a", "c", "b"])
    try:
        with pytest.raises(EvaluationError, match="category.txt"): evaluate(model, Clips(), progress=False)
        evaluate(model, Clips(), progress=False, allow_other_classes=True)
    finally: del model.card


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("m") / "model.safetensors"
    card = ModelCard.of(model, ["a", "b", "c"], transform=TransformConfig(size=32, resize=40).to_dict(),
                        sampling=Sampling("twice", 4, 2).to_dict())
    save_model(path, model, card)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    import av
    folder = tmp_path_factory.mktemp("v")
    for name in ("one.mp4", "two.mp4"):
        with av.open(str(folder / name), "w") as box:
            stream = box.add_stream("libx264", rate=12)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for t in range(16):
                frame = np.full((48, 64, 3), 10 * t + (60 if name == "two.mp4" else 0), np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")): box.mux(packet)
            for packet in stream.encode(): box.mux(packet)
    return [folder / "one.mp4", folder / "two.mp4"]


def test_predict_one_and_many(model_file, videos):
    one = predict(videos[0], model_file)
    assert list(one.columns) == ["class", "probability"] and len(one) == 3
    assert one.probability.sum() == pytest.approx(1, abs=1e-5) and one.probability.is_monotonic_decreasing
    many = predict(videos, model_file, top=2)
    assert list(many.columns) == ["video", "class", "probability"] and many.video.nunique() == 2
    assert np.allclose(many.probability[:2], one.probability[:2])
    assert list(predict([str(videos[0])], model_file, top=1)["video"]) == [str(videos[0])]


def test_predict_bad_clips(model_file, videos, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    one_view = load_model(model_file)
    one_view.card.sampling = {"strategy": "segments", "num_frames": 4, "views": 5}
    with pytest.raises(EvaluationError, match="one.mp4.*views"): predict(videos[0], one_view)
    for bad in (tmp_path / "none.mp4", tmp_path / "text.mp4"):
        with pytest.raises(VideoError, match=bad.name): predict([videos[0], bad], model_file)


# -- tests that break off, and long videos

class Counted(torch.utils.data.Dataset):
    """Seven clips; reading `stop` of them raises, like a machine that dies."""
    class_names = ["a", "b"]

    def __init__(self, stop=None): self.stop, self.read = stop, 0
    def __len__(self): return 7

    def __getitem__(self, i):
        self.read += 1
        if self.read == self.stop: raise KeyboardInterrupt
        return {"clip": torch.full((2, 3, 4, 4), float(i)), "label": i % 2, "id": f"v{i}"}


class Mean(torch.nn.Module):
    def __init__(self, scale=1.):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, clips): return torch.stack([clips.mean((1, 2, 3, 4)) * self.scale, self.scale.expand(len(clips))], 1)


def test_a_test_that_broke_off_goes_on(tmp_path):
    whole = evaluate(Mean(), Counted(), batch_size=2, progress=False)
    with pytest.raises(KeyboardInterrupt): evaluate(Mean(), Counted(stop=6), 2, False, parts=tmp_path)
    rest = Counted()
    found = evaluate(Mean(), rest, batch_size=3, progress=False, parts=tmp_path)
    assert rest.read == 3 and found.ids == whole.ids and (found.logits == whole.logits).all()
    other = Counted()
    evaluate(Mean(2.), other, batch_size=2, progress=False, parts=tmp_path)
    assert other.read == 7, "scores of other weights must not be taken"


@pytest.mark.parametrize("total, length, stride", [(100, 40, 20), (90, 40, 20), (10, 40, 20), (41, 40, 40), (7, 1, 3)])
def test_windows_cover_a_video(total, length, stride):
    spans = windows(total, length, stride)
    assert spans[0][0] == 0 and spans[-1][1] == total and all(b - a == min(length, total) for a, b in spans)
    assert all(a < b for a, b in zip(spans, spans[1:], strict=False))
    if stride <= length: assert {i for a, b in spans for i in range(a, b)} == set(range(total))


def test_sliding_over_a_long_video(tmp_path):
    """Dark frames, then bright ones: the windows say when."""
    for i in range(24):
        picture = Image.fromarray(np.full((40, 40, 3), 255 * (i >= 12), np.uint8))
        picture.save(tmp_path / f"img_{i + 1:05d}.jpg")
    net = Mean()
    net.card = ModelCard("toy", {}, 2, 4, ["bright", "dark"], TransformConfig(size=32, resize=36).to_dict(),
                         Sampling("segments", 4).to_dict())
    table = slide(tmp_path, net, length=8, stride=4, batch_size=2)
    assert table["start"].tolist() == [0, 4, 8, 12, 16] and table["end"].tolist() == [8, 12, 16, 20, 24]
    assert (table["class"].iloc[0], table["class"].iloc[-1]) == ("dark", "bright")
    assert len(slide(tmp_path, net, length=8, top=2)) == 10 and table["probability"].between(.5, 1).all()
    with pytest.raises(EvaluationError, match="covers nothing"): slide(tmp_path, net, length=0)
