"""The page about some clips: self-contained, escaped, complete or absent; clips that fail are told."""

import logging
import os
import re
import shutil
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sda.commands.report import ModelScores, choose_clips, view_clip, write_report
from sda.data.clips import ClipReader
from sda.data.datasets import open_dataset
from sda.data.lists import read_groups
from sda.data.transforms import TransformConfig
from sda.explaining.effects import ablation_map, logits_of
from sda.explaining.trace import trace_clips
from sda.foundation.errors import FolderError, RunError, SettingError, UnknownNameError
from sda.inspector.page import (
    answers_under,
    best_classes,
    clip_interventions,
    inspect_clips,
    study_clip,
    verdict,
    why_not,
)
from sda.networks.backbones import create_model
from sda.networks.blocks import DEPENDENCIES
from sda.networks.checkpoints import ModelCard, load_model, save_model
from sda.testing.evaluate import evaluate, predict
from sda.testing.predictions import Predictions

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT / "sda/assets/moves_sample/img"
RIGHTWARD = CLIPS / "test_0000_rightward.mp4"
SDA_FILE, TSN_FILE = (
    ROOT / f"sda/assets/checkpoints/{name}_moves.safetensors" for name in ("sda_tsn", "tsn")
)


class Page(HTMLParser):
    """What a page would fetch, what it says, and whether its elements close."""

    def __init__(self, path, files=()):
        super().__init__()
        self.links = []
        self.open = []
        self.text = ""
        self.ids = []
        self.policy = set()
        self.feed(Path(path).read_text(encoding="utf-8"))
        assert self.open == [], "an element is left open"
        assert all(
            link in files or link.startswith(("#", "data:image/png;base64,")) for link in self.links
        ), "the page fetches something"
        assert {link[1:] for link in self.links if link[0] == "#"} <= set(self.ids)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object")
        self.links += [value for key, value in attrs if key in ("src", "href", "data", "action", "srcset")]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""


@pytest.fixture(scope="module")
def model():
    return load_model(SDA_FILE)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A page with a clip of an awful name, one that is known, one that is broken and one that is missing."""
    folder = tmp_path_factory.mktemp("some clips")
    awful = folder / '<img src=x onerror=alert(1)> "é" $\\frac{1$ 日本.mp4'
    shutil.copy(CLIPS / "test_0000_dense.mp4", awful)
    (folder / "broken.mp4").write_bytes(RIGHTWARD.read_bytes()[:2000])
    return inspect_clips(
        [awful, folder / "broken.mp4", RIGHTWARD, RIGHTWARD, folder / "missing.mp4"],
        SDA_FILE,
        folder / "new/clips.html",
        true={RIGHTWARD.name: "Moving something from left to right"},
        draws=2,
        progress=False,
    ), awful


def test_page_is_complete_and_self_contained(told, model):
    inspection, awful = told
    page = Page(inspection.path)
    assert [p.name for p in inspection.path.parent.iterdir()] == ["clips.html"]
    assert inspection.shown == [awful.name, RIGHTWARD.name], "in order, each once"
    assert (
        sum(link.startswith("data:") for link in page.links) == 2 * 4
    )  # strip, triptych, interventions, Grad-CAM
    for words in (
        awful.name,
        "without S122",
        "Weight, contribution and effect",
        "(true)",
        "A weight is not an effect",
    ):
        assert words in page.text or words in inspection.path.read_text(), words
    answer = predict(RIGHTWARD, model, top=1)
    assert f"{answer['class'][0]} (true){answer['probability'][0]:.2f}" in page.text
    assert str(ROOT) not in page.text, "no folders of this machine"


def test_clips_that_cannot_be_read_are_listed_with_the_reason(told):
    inspection, _ = told
    assert list(inspection.failed) == ["broken.mp4", "missing.mp4"]
    assert "does not exist" in inspection.failed["missing.mp4"]
    text = Page(inspection.path).text
    assert "Not shown" in text and text.count("missing.mp4") >= 1


def test_no_clip_no_page(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(RunError) as error:
        inspect_clips([tmp_path / "missing.mp4"], SDA_FILE, tmp_path / "x.html", progress=False)
    assert not list(tmp_path.iterdir()) and all("missing.mp4" in s for s in (str(error.value), caplog.text))


@pytest.mark.parametrize(
    "out, error",
    [("report.pdf", SettingError), (".", SettingError), ("file/x.html", FolderError)],
)
def test_place_is_tried_before_the_work(tmp_path, out, error):
    (tmp_path / "file").write_text("")
    with pytest.raises(error):
        inspect_clips(["missing.mp4"], "missing.safetensors", tmp_path / out)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_told_first(tmp_path):
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(FolderError):
        inspect_clips([RIGHTWARD], SDA_FILE, tmp_path / "x.html")


def test_network_without_selection_gets_strip_answer_and_map(tmp_path):
    page = Page(inspect_clips([RIGHTWARD], TSN_FILE, tmp_path / "x.html", draws=1, progress=False).path)
    assert "tsn_tiny has no SDA blocks" in page.text and "sda_tsn_" in page.text
    assert sum(link.startswith("data:") for link in page.links) == 3
    assert (
        "without" not in page.text and "reversed" not in page.text
    )  # interventions on the clip are in a picture


def test_missing_grad_cam_is_said_on_the_page(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    page = Page(inspect_clips([RIGHTWARD], TSN_FILE, tmp_path / "x.html", draws=0, progress=False).path)
    assert "sda-workbench[cam]" in page.text and sum(link.startswith("data:") for link in page.links) == 2


def test_study_agrees_with_what_it_is_made_of(model):
    seen = ClipReader.from_card(model.card)(RIGHTWARD)
    study = study_clip(model, seen, draws=3)
    table = predict(RIGHTWARD, model, top=20).set_index("class")["probability"]
    np.testing.assert_allclose(study.probabilities, table[model.card.class_names], atol=1e-5)
    assert study.read == table.index[0] and study.weights.shape == study.effects.shape == (4, 4)
    assert [e.name for e in study.done[:4]] == [f"without {name}" for name in DEPENDENCIES]
    assert all(len(study.change(e)[1]) == 3 for e in study.done)
    assert re.search(r"largest weight is on (LST|LT|LS|S122) \(0\.\d\d\)", verdict(study))


def test_several_views_some_dependencies_and_two_halves(tmp_path):
    model = create_model("sda_tsn_tiny", 3, 8, dependencies=("LT", "S122"), split=4)
    card = ModelCard(
        "sda_tsn_tiny",
        model.options,
        3,
        8,
        ["a", "b", "<c>"],
        dict(size=64, resize=72),
        dict(strategy="twice", num_frames=8, views=2),
    )
    save_model(tmp_path / "m.safetensors", model, card)
    page = Page(
        inspect_clips(
            [RIGHTWARD], tmp_path / "m.safetensors", tmp_path / "x.html", draws=1, progress=False
        ).path
    )
    assert "Of 2 views the first is shown" in page.text and "<c>" in page.text


def test_why_not_that_class(model, tmp_path):
    """The class that is asked about is read everywhere, by name or number; the map speaks for it."""
    names = model.card.class_names
    other = names.index("Moving something from right to left")
    page = inspect_clips([RIGHTWARD], model, tmp_path / "x.html", target=str(other), draws=1, progress=False)
    text = Page(page.path).text
    assert f"Why not '{names[other]}'?" in text and f"{names[other]} against " in page.path.read_text()
    study = study_clip(model, ClipReader.from_card(model.card)(RIGHTWARD), 0, target=names[other])
    backwards = next(e for e in study.done if e.name == "reversed")
    assert study.read == names[other] and study.change(backwards)[0] > 0.5, "backwards is that class"
    assert "'reversed'" in why_not(study, names) and "it becomes the answer" in why_not(study, names)
    labelled = inspect_clips([RIGHTWARD], model, tmp_path / "y.html", label=names[3], draws=1, progress=False)
    assert f"{names[3]} (true)" in " ".join(Page(labelled.path).text.split())
    with pytest.raises(UnknownNameError):
        inspect_clips([RIGHTWARD], model, tmp_path / "x.html", target="20", draws=1, progress=False)


def test_a_folder_of_clips_is_a_page(model, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(RIGHTWARD, folder / "a.mp4")
    (folder / "broken.mp4").write_bytes(RIGHTWARD.read_bytes()[:2000])
    done = inspect_clips([folder], model, tmp_path / "x.html", draws=1, progress=False)
    assert done.shown == ["a.mp4"] and list(done.failed) == ["broken.mp4"]
    assert "knows 20 classes of drawn clips" in Page(done.path).text


def test_unknown_true_class_is_told(model, tmp_path):
    with pytest.raises(UnknownNameError) as told:
        inspect_clips(
            [RIGHTWARD],
            model,
            tmp_path / "x.html",
            true={RIGHTWARD.name: "Moving something lft"},
            draws=0,
            progress=False,
        )
    assert told.value.choices == tuple(model.card.class_names)


def test_many_interventions_in_few_passes_answer_as_one_by_one(model):
    views = ClipReader.from_card(model.card)(RIGHTWARD).clip
    tried = clip_interventions(model, 8)
    one_by_one = np.concatenate([logits_of(model, views[None], change) for change in tried])
    for together in (1, 8):
        np.testing.assert_allclose(answers_under(model, views, tried, together), one_by_one, atol=1e-4)
    twice = torch.cat([views, views.flip(1)])  # two views of the clip, averaged
    alone = logits_of(model, twice[None], tried[1])[0]
    np.testing.assert_allclose(answers_under(model, twice, tried)[1], alone, atol=1e-4)


def test_effects_of_a_study_are_those_of_the_library(model):
    seen = ClipReader.from_card(model.card)(RIGHTWARD)
    study = study_clip(model, seen, draws=2)
    read = [model.card.class_names.index(study.read)]
    assert np.allclose(study.weights.sum(1), 1) and np.allclose(study.contributions.sum(1), 1)
    np.testing.assert_allclose(study.effects, ablation_map(model, seen.clip[None], read).values[0], atol=1e-4)
    assert [e.name for e in study.done[4:]] == ["all weights equal", "reversed", "frame 4 frozen"]
    assert study.change(study.done[5])[0] < -0.5, "backwards is the other class"


def test_the_true_class_is_listed_even_when_it_is_improbable(model):
    study = study_clip(model, ClipReader.from_card(model.card)(RIGHTWARD), draws=0)
    names = model.card.class_names
    study.true = names[int(study.probabilities.argmin())]
    assert [name for name, _ in best_classes(study, names, 2)][2:] == [study.true]


def test_report_of_two_models(model, tmp_path):
    net = load_model(TSN_FILE)
    data = open_dataset(CLIPS.parent, "test", "segments", TransformConfig.from_dict(net.card.transform))
    tested = [
        ModelScores(name, evaluate(one, data, progress=False)) for name, one in (("<A>", net), ("B", model))
    ]
    trace = trace_clips(model, data)
    groups = read_groups(CLIPS.parent)["need"]
    shown = choose_clips(tested, groups)
    right = tested[1].predictions.predicted() == tested[1].predictions.labels
    assert len({groups[net.card.class_names[k]] for k in tested[1].predictions.labels[shown]}) >= 3
    assert right[shown[:-1]].all()
    views = [view_clip(model, data, shown[0], tested, trace)]
    effects = pd.DataFrame({"all": [0.9]}, index=pd.Index(["without <LT>"], name="selection"))
    file = tmp_path / "a&b.json"
    pairs = [tuple(net.card.class_names[:2])]
    path = write_report(tmp_path, tested, trace, views, effects, groups, pairs, [file], "A <title>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    page = Page(path, ["a&b.json"])
    text = path.read_text(encoding="utf-8")
    assert "http" not in text and text.count("<img") == 4 and "<title>A &lt;title&gt;</title>" in text
    for words in (
        "<A>",
        "without <LT>",
        "the mean over 1 pair of",
        "A weight is not an effect",
        "not recorded",
    ):
        assert words in page.text, words


def test_a_report_of_different_clips_is_refused(model, tmp_path):
    data = open_dataset(CLIPS.parent, "test", "segments", TransformConfig.from_dict(model.card.transform))
    found = evaluate(model, data, progress=False)
    fewer = Predictions(found.ids[1:], found.logits[1:], found.labels[1:], found.class_names)
    with pytest.raises(RunError):
        write_report(tmp_path, [ModelScores("A", found), ModelScores("B", fewer)], trace_clips(model, data))
    with pytest.raises(RunError):
        write_report(tmp_path, [], trace_clips(model, data))
    assert not list(tmp_path.iterdir())
