"""The page about some clips: self-contained, escaped, complete or absent; clips that fail are told."""

import dataclasses
import json
import logging
import os
import re
import shutil
import stat
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from sda.commands.report import ModelScores, choose_clips, view_clip, write_report
from sda.data.clips import ClipReader
from sda.data.datasets import open_dataset
from sda.data.lists import read_groups
from sda.data.transforms import TransformConfig
from sda.explaining.answers import logits_of
from sda.explaining.interventions import drop, keep, reverse, uniform
from sda.explaining.trace import trace_clips
from sda.foundation.errors import FolderError, RunError, SettingError, UnknownNameError
from sda.foundation.statistics import softmax
from sda.inspector.edits import FRAMES, edit, edits_key
from sda.inspector.page import inspect_clips
from sda.networks.backbones import create_model
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


def recorded(path):
    """What a recorded page holds, and the page itself; whatever is in it stays text."""
    page = Path(path).read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2, "names and code close no element"
    data = re.search(r'<script type="application/json" id="sda-record">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in data and "default-src 'none'" in page
    return json.loads(data), page


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A page with a clip of an awful name, one that is known, one that is broken and one that is missing."""
    folder = tmp_path_factory.mktemp("some clips")
    awful = folder / '<!--<script>alert(1)<\u2028 "é" $\\frac{1$ 日本.mp4'
    shutil.copy(CLIPS / "test_0000_dense.mp4", awful)
    (folder / "broken.mp4").write_bytes(RIGHTWARD.read_bytes()[:2000])
    return inspect_clips(
        [awful, folder / "broken.mp4", RIGHTWARD, RIGHTWARD, folder / "missing.mp4"],
        SDA_FILE,
        folder / "new/clips.html",
        true={RIGHTWARD.name: "Moving something from left to right"},
        draws=1,
        progress=False,
    ), awful


def test_page_is_complete_and_self_contained(told, model):
    inspection, awful = told
    found, page = recorded(inspection.path)
    assert [p.name for p in inspection.path.parent.iterdir()] == ["clips.html"]
    assert inspection.shown == [awful.name, RIGHTWARD.name] == [one["id"] for one in found["clips"]]
    assert found["about"]["live"] is False and str(ROOT) not in page, "no folders of this machine"
    for clip_id in inspection.shown:
        one = found["record"][clip_id]
        assert len(one["scene"]["frames"]) == 8 and one["maps"] and set(one["frames"]) == set(FRAMES)
        assert all(answer["control"] for key, answer in one["answers"]["items"].items() if key != "[]")
    answer = predict(RIGHTWARD, model, top=1)
    best = found["record"][RIGHTWARD.name]["scene"]["top"][0]
    assert found["about"]["network"]["classes"][best["class"]] == answer["class"][0] and best["true"]
    assert best["probability"] == pytest.approx(answer["probability"][0], abs=1e-3)


def test_what_a_reader_may_click_is_recorded_as_the_network_answers(told, model):
    found, _ = recorded(told[0].path)
    items = found["record"][RIGHTWARD.name]["answers"]["items"]
    views = ClipReader.from_card(model.card)(RIGHTWARD).clip[None]
    label = model.card.class_names.index("Moving something from left to right")
    before = softmax(logits_of(model, views))[0, label]
    for edits, change in (
        ([edit("drop", 2, 3)], drop("S122", where="layer3.0")),
        ([edit("drop", None, 0), edit("drop", None, 2)], drop("LST", "LS")),
        ([edit("only", 1, 1)], keep("LT", where="layer2.0")),
        ([edit("uniform")], uniform()),
        ([edit("frames", value="reversed")], reverse()),
    ):
        after = softmax(logits_of(model, views, change))[0, label]
        assert items[edits_key(edits)]["change"] == pytest.approx(after - before, abs=1e-3), edits
    assert items[edits_key([edit("frames", value="reversed")])]["change"] < -0.5, "it is the other class"
    sets = [key for key in items if key.startswith('[{"kind":"drop","block":0') and '"block":1' not in key]
    assert len(sets) == 15, "every set of dependencies of a block, but the whole one"


def test_clips_that_cannot_be_read_are_listed_with_the_reason(told):
    inspection, _ = told
    found, page = recorded(inspection.path)
    assert list(inspection.failed) == list(found["about"]["left_out"]) == ["broken.mp4", "missing.mp4"]
    assert "does not exist" in inspection.failed["missing.mp4"]
    assert page.count("missing.mp4") >= 2, "also for readers without scripts"


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


def test_network_without_selection_gets_frames_answer_and_map(tmp_path):
    found, _ = recorded(
        inspect_clips([RIGHTWARD], TSN_FILE, tmp_path / "x.html", draws=1, progress=False).path
    )
    one = found["record"][RIGHTWARD.name]
    assert "no SDA blocks" in found["about"]["network"]["note"] and one["scene"]["weights"] == []
    assert one["maps"] and edits_key([edit("frames", value="frozen")]) in one["answers"]["items"]


def test_a_network_without_names_is_shown_with_numbers(tmp_path):
    net = load_model(TSN_FILE)
    file = save_model(tmp_path / "nameless.safetensors", net, dataclasses.replace(net.card, class_names=[]))
    page = inspect_clips([RIGHTWARD], file, tmp_path / "x.html", label="class 2", draws=1, progress=False)
    found, _ = recorded(page.path)
    assert found["about"]["network"]["classes"] == [f"class {k}" for k in range(20)]
    assert found["record"][RIGHTWARD.name]["scene"]["label"] == 2


def test_a_page_without_the_package_of_maps_has_no_map(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    page = inspect_clips([RIGHTWARD], TSN_FILE, tmp_path / "x.html", draws=1, progress=False)
    found, _ = recorded(page.path)
    assert found["record"][RIGHTWARD.name]["maps"] == [] and found["about"]["layers"] == []


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
    made = inspect_clips(
        [RIGHTWARD], tmp_path / "m.safetensors", tmp_path / "x.html", draws=1, progress=False
    )
    found, _ = recorded(made.path)
    scene = found["record"][RIGHTWARD.name]["scene"]
    assert scene["present"][0] == [False, True, False, True] and scene["weights"][0][0] is None
    assert sum(filter(None, scene["weights"][0])) == pytest.approx(1, abs=1e-3)
    assert found["about"]["network"]["classes"] == ["a", "b", "<c>"]


def test_the_class_that_is_asked_about_is_read(model, tmp_path):
    """By name or number; backwards, the clip is of that class."""
    names = model.card.class_names
    other = names.index("Moving something from right to left")
    made = inspect_clips([RIGHTWARD], model, tmp_path / "x.html", target=str(other), draws=1, progress=False)
    one = recorded(made.path)[0]["record"][RIGHTWARD.name]
    assert one["scene"]["read"] == other
    assert one["answers"]["items"][edits_key([edit("frames", value="reversed")])]["change"] > 0.5
    with pytest.raises(UnknownNameError):
        inspect_clips([RIGHTWARD], model, tmp_path / "x.html", target="20", draws=1, progress=False)


def test_unknown_true_class_is_told(model, tmp_path):
    true = {RIGHTWARD.name: "Moving something lft"}
    with pytest.raises(UnknownNameError) as told:
        inspect_clips([RIGHTWARD], model, tmp_path / "x.html", true=true, progress=False)
    assert told.value.choices == tuple(model.card.class_names)


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
