"""The inspector without a browser: state, provider, panels, widgets, files, and bad input."""
import datetime
import gc
import json
import time

import numpy as np
import pytest
import torch
from notebooks import ROOT
from traitlets import TraitError

from sda.backbones import create_model, sda_blocks
from sda.inspector import (
    ACTIONS,
    MAX_UPLOAD,
    OVERLAYS,
    PANELS,
    PRESETS,
    VIEWS,
    Inspector,
    InspectorState,
    ModelProvider,
    draw,
    inspect_folder,
)
from sda.trace import Trace

FOLDER, CHECKPOINTS = ROOT / "data/moves_sample", ROOT / "data/checkpoints"
A, B = CHECKPOINTS / "sda_tsn_moves.safetensors", CHECKPOINTS / "sda_tsn_moves_fast_query.safetensors"
FILE = FOLDER / "img/test_0000_swing.mp4"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
widgets = pytest.importorskip("ipywidgets")


class Counting(ModelProvider):
    """A provider that counts the questions it is asked."""

    asked = 0

    def cam(self, *args):
        self.asked += 1
        return super().cam(*args)


@pytest.fixture(scope="module")
def opened():
    return inspect_folder(FOLDER, A, other=B, strict=True)


@pytest.fixture
def ins(opened):
    """A fresh inspector on one provider."""
    inspector = Inspector(opened.provider, strict=True, source=opened.source)
    inspector.drawn = opened.drawn  # what another test has drawn is not drawn again
    inspector.show()
    yield inspector
    inspector.view.close()


@pytest.fixture
def light(ins, monkeypatch):
    """The same with stand-ins for pictures: what is drawn elsewhere need not be drawn again."""
    def stand_in(self, panel="strip"):
        self.provider.seen(self.state.clip_id or draw(self.provider, self.state, panel))
        return b"\x89PNG" + self.state.to_json().encode()
    monkeypatch.setattr(Inspector, "png", stand_in)
    return ins


def png(view, panel):
    return bytes(view.images[panel].value)


def test_first_pictures_are_quick(tmp_path):
    start = time.process_time()
    inspect_folder(FOLDER, A, trace=tmp_path / "t.npz").png("strip")
    computed = time.process_time() - start
    start = time.process_time()
    inspect_folder(FOLDER, A, trace=tmp_path / "t.npz").png("strip")
    assert time.process_time() - start < 1 and computed < 3


CHANGES = [("overlay", "Grad-CAM", "strip"), ("overlay", "gate", "strip"), ("clip_id", "test_0000_up.mp4", "prediction"),
           ("view", "contribution", "selection"), ("view", "effect", "selection"), ("view", "triptych", "selection"),
           ("view", "minus class mean", "selection"), ("view", "minus mean", "selection"), ("frame", 5, "frame"),
           ("compare_id", "test_0000_up.mp4", "compare"), ("compare", "checkpoint", "compare")]


@pytest.mark.parametrize("name, value, panel", CHANGES)
def test_a_control_sets_the_state_and_redraws_its_panel(ins, name, value, panel):
    before = png(ins.view, panel)
    ins.view.controls[name].value = value
    assert getattr(ins.state, name) == value
    assert png(ins.view, panel).startswith(b"\x89PNG") and png(ins.view, panel) != before


@pytest.mark.parametrize("name, value", [("layer", "layer2"), ("target", "runner-up"), ("method", "hirescam"),
                                         ("scale", "frame"), ("opacity", .2)])
def test_a_control_of_the_map_redraws_the_strip(ins, name, value):
    ins.state.overlay = "Grad-CAM"
    before = png(ins.view, "strip")
    ins.view.controls[name].value = value
    assert png(ins.view, "strip") != before


def test_the_map_is_computed_once(opened):
    provider = Counting(opened.provider.model, opened.provider.clips.data, opened.provider.trace)
    inspector = Inspector(provider, InspectorState(overlay="Grad-CAM"), strict=True).show()
    asked = provider.asked
    inspector.state.view = "contribution"
    assert provider.asked == asked, "another panel's setting asks for no map"
    inspector.state.opacity = .3
    assert len([key for key in provider.cache.kept if key[0] == "cam"]) == 1
    inspector.view.close()


@pytest.mark.parametrize("name, value", [("true", "Something appearing"), ("predicted", "Something appearing"),
                                         ("outcome", "right"), ("dominant", "LT"), ("confidence", (.0, .5)),
                                         ("entropy", (.5, 1.))])
def test_a_filter_narrows_the_choice(light, name, value):
    light.view.controls[name].value = value
    fits = light.table
    if name in ("true", "predicted", "dominant"): fits = fits[fits[name] == value]
    elif name == "outcome": fits = fits[fits.right]
    else: fits = fits[fits[name].between(*value)]
    assert list(light.found.video) == list(fits.video)
    assert light.state.clip_id in [*fits.video] or (light.state.clip_id == "" and not len(fits))


def test_sort_and_walk(light):
    light.view.controls["sort"].value = "margin"
    assert light.found.margin.is_monotonic_increasing
    videos = list(light.found.video)
    light.choose(videos[0])
    light.view.press("next")
    assert light.state.clip_id == videos[1]
    light.view.press("previous"); light.view.press("previous")
    assert light.state.clip_id == videos[-1]
    light.view.press("random")
    assert light.state.clip_id in videos


def test_an_empty_choice_is_said_and_reset_helps(light):
    names = light.provider.class_names
    light.strict = False
    light.view.controls["true"].value = names[0]
    light.view.controls["confidence"].value = (.0, .001)
    assert "No clip fits" in light.view.shown["count"].value and "no clip is chosen" in light.view.notes["strip"].value
    assert light.view.images["strip"].layout.display == "none"
    light.view.press("next")
    assert "no clip fits" in light.view.shown["status"].value
    light.view.press("reset")
    assert light.view.controls["true"].value == "" and png(light.view, "strip")
    assert light.view.images["strip"].layout.display is None and not light.view.notes["strip"].value


def test_every_action_is_measured_against_chance(opened, monkeypatch):
    inspector = Inspector(opened.provider, InspectorState(compare_id="test_0000_up.mp4"), strict=True)
    monkeypatch.setattr(opened.provider, "draws", 2)
    for action in ACTIONS:
        inspector.state.action = action
        row = inspector.run()
        assert row["lowest"] <= row["at random"] <= row["highest"] and -1 <= row["p change"] <= 1, action
    assert len(inspector.log) == len(ACTIONS)
    assert all(not block.attention._forward_hooks for block in sda_blocks(opened.provider.model).values())


def test_log_sliders_scope_and_undo(light):
    view = light.view
    view.controls["action"].value = "uniform"
    assert light.state.action == "uniform"
    view.controls["weight LT"].value = .75
    assert light.state.weights == [.25, .75, .25, .25] and light.state.action == "my weights"
    view.controls["scope"].value = "layer3"
    view.press("run"); view.press("run")
    assert len(light.log) == 2 and "weights LST 0.17 LT 0.50 LS 0.17 S122 0.17 in layer3" in view.shown["log"].value
    view.press("undo")
    assert len(light.log) == 1
    view.press("run all")
    assert light.log[-1]["clip"] == "20 clips" and "flip" in light.log[-1]["answer"]
    view.controls["sort"].value = "effect"
    assert light.found.effect.is_monotonic_increasing
    view.press("undo")
    view.press("undo")
    with pytest.raises(ValueError, match="empty"): view.press("undo")


def test_compare_swap_and_presets(ins):
    with pytest.raises(ValueError, match="no clip B"): ins.view.press("swap")
    ins.view.press("most alike")
    a, b = ins.state.clip_id, ins.state.compare_id
    assert b and b != a and png(ins.view, "compare")
    ins.view.press("swap")
    assert (ins.state.clip_id, ins.state.compare_id) == (b, a) and PRESETS[0] != PRESETS[1]
    with pytest.raises(ValueError, match="no other clip of the class"): ins.view.press("most different")


def test_trust_says_numbers_with_intervals(ins):
    ins.filter(text="se")
    n = len(ins.found)
    ins.view.press("trust")
    assert "rank correlation" in ins.view.shown["trust"].value and f"n = {n} clips" in ins.view.shown["trust"].value
    ins.filter(text="disc_cross")
    with pytest.raises(ValueError, match="1 clips are too few"): ins.view.press("trust")


@pytest.mark.parametrize("kind, start", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_save_writes_a_picture_and_what_it_shows(ins, tmp_path, kind, start):
    ins.view.controls["folder"].value = str(tmp_path / "kept")
    ins.view.controls["panel"].value = "selection"
    ins.view.press(kind)
    (path,) = (tmp_path / "kept").glob(f"*.{kind}")
    side = json.loads(path.with_suffix(".json").read_text())
    assert path.read_bytes().startswith(start) and side["clip"] == ins.state.clip_id
    assert side["fingerprint"] == ins.provider.trace.fingerprint and side["state"]["view"] == ins.state.view
    assert side["transform"]["size"] and side["versions"]["sda"] and str(path.name) in ins.view.shown["status"].value


def test_pins_make_a_sheet(ins, tmp_path):
    ins.view.controls["folder"].value = str(tmp_path)
    with pytest.raises(ValueError, match="nothing is pinned"): ins.view.press("sheet")
    ins.view.press("pin"); ins.view.press("pin")
    ins.view.press("sheet")
    assert len(ins.view.shown["pins"].children) == 2 and list(tmp_path.glob("*sheet.png"))


def test_copied_code_makes_the_same_picture(ins):
    ins.state.view, ins.state.clip_id = "contribution", "test_0000_up.mp4"
    ins.view.controls["panel"].value = "selection"
    ins.view.press("code")
    lines = ins.view.controls["text"].value.splitlines()
    names = {}
    exec("\n".join([*lines[:-1], "found = " + lines[-1]]), names)
    from sda.plots import to_png

    assert to_png(names["found"]) == ins.png("selection")


def test_state_goes_out_and_in(light):
    light.state.overlay, light.state.filters = "gate", {"outcome": "right", "confidence": [0, 1]}
    light.view.press("state")
    text = light.view.controls["text"].value
    light.view.press("reset")
    light.state.overlay = "none"
    light.view.controls["text"].value = text
    light.view.press("load")
    assert light.state.overlay == "gate" and light.view.controls["outcome"].value == "right"
    light.view.controls["text"].value = '{"view": "importance"}'
    with pytest.raises(TraitError): light.view.press("load")


def test_a_clip_of_ones_own(ins, tmp_path):
    ins.view.controls["upload"].value = ({"name": "my cup.mp4", "type": "", "size": 1, "content": FILE.read_bytes(),
                                          "last_modified": NOW},)
    mine = ins.state.clip_id
    assert mine.startswith("my_cup") and mine in ins.view.controls["clip_id"].options
    assert np.allclose(ins.provider.chosen(mine).weights, ins.provider.chosen("test_0000_swing.mp4").weights, atol=1e-5)
    assert "true class not known" in str(ins.figure("strip")._suptitle.get_text())
    ins.view.controls["path"].value = str(FILE)
    ins.view.press("open")
    assert ins.state.clip_id == "my test_0000_swing.mp4"


@pytest.mark.parametrize("name, content, words", [("a.mp4", b"#!/bin/sh", "not a video"), ("b.mp4", b"", "not a video"),
                                                  ("c.mp4", bytes(MAX_UPLOAD + 1), "at most 8 MB"),
                                                  ("d.mp4", b"\0\0\0\x18ftypmp42" + bytes(999), "d-")])
def test_a_bad_upload_is_refused_in_words(light, name, content, words):
    light.strict, before = False, light.state.clip_id
    light.view.controls["upload"].value = ({"name": name, "type": "video/mp4", "size": len(content), "content": content,
                                          "last_modified": NOW},)
    assert words in light.view.shown["status"].value and light.state.clip_id == before


def test_errors_are_words_in_the_panel_and_raised_when_strict(ins):
    with pytest.raises(ValueError, match="nearest"): ins.view.controls["clip_id"].value = "test_0000_swings.mp4"
    assert "nearest: test_0000_swing.mp4" in ins.view.shown["status"].value
    ins.strict = False
    ins.view.controls["overlay"].value = "Grad-CAM"
    ins.view.controls["scale"].value = "shared"
    assert "choose a clip B" in ins.view.notes["strip"].value
    assert ins.view.images["strip"].layout.display == "none"


def test_words_are_never_markup(light):
    light.strict = False
    light.view.controls["clip_id"].value = "<img src=x onerror=alert(1)>"
    assert "<img" not in light.view.shown["status"].value and "&lt;img" in light.view.shown["status"].value


def test_bad_settings(ins, tmp_path):
    with pytest.raises(ValueError, match="no layer 'layer9'; did you mean 'layer4'"):
        Inspector(ins.provider, InspectorState(overlay="Grad-CAM", layer="layer9")).figure("strip")
    with pytest.raises(TraitError): ins.state.weights = [0, 0, 0, 0]
    with pytest.raises(ValueError, match="did you mean layer3"):
        ins.provider.intervene([ins.state.clip_id], "layr3", "uniform", [1] * 4, "")
    file = tmp_path / "a file"
    file.write_text("")
    with pytest.raises(Exception, match="another folder"): ins.save(file / "below")


def test_a_network_without_sda_blocks_still_answers():
    inspector = inspect_folder(FOLDER, CHECKPOINTS / "tsn_moves.safetensors").show()
    assert "no SDA blocks" in inspector.view.notes["selection"].value
    assert "sda_tsn_tiny" in inspector.view.notes["selection"].value
    inspector.state.overlay = "Grad-CAM"
    assert png(inspector.view, "strip") and png(inspector.view, "prediction")
    inspector.view.press("run")
    assert "no SDA blocks" in inspector.view.shown["status"].value
    inspector.close()


def test_a_trace_of_another_model_is_refused(tmp_path):
    path = tmp_path / "t.npz"
    inspect_folder(FOLDER, A, trace=path)
    with pytest.raises(ValueError, match="this trace is of"): inspect_folder(FOLDER, B, trace=path)
    assert len(Trace.load(path)) == 20


def test_a_model_in_memory_and_split_blocks():
    torch.manual_seed(0)
    inspector = inspect_folder(FOLDER, create_model("sda_tsn_tiny", 20, num_frames=16, split=8), overlay="gate",
                               view="effect")
    assert len(inspector.provider.trace.blocks) == 8 and inspector.png("strip") and inspector.png("selection")
    with pytest.raises(ValueError, match="only an inspector opened with"): inspector.code()


def test_opened_and_closed_leaves_nothing(opened, monkeypatch):
    def hooks(): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in opened.provider.model.modules())
    def listeners(state): return sum(len(found) for kinds in state._trait_notifiers.values() for found in kinds.values())
    from ipywidgets.widgets.widget import _instances

    state = InspectorState(clip_id="test_0000_up.mp4", overlay="Grad-CAM")
    fresh, kept = listeners(state), hooks()
    counts = []
    monkeypatch.setattr(Inspector, "png", lambda self, panel="strip": b"\x89PNG")
    for i in range(20):
        inspector = Inspector(opened.provider, state)
        inspector.drawn = opened.drawn
        inspector.show().view.close()
        del inspector
        if i in (4, 19):
            gc.collect()
            counts.append((len(_instances), hooks(), listeners(state)))
    assert counts[0] == counts[1] and counts[1][1:] == (kept, fresh)


def test_every_control_is_known():
    """A control that is added must be driven by a test: this list is the report's."""
    inspector = inspect_folder(FOLDER, A).show()
    driven = {name for name, *_ in CHANGES} | {
        "layer", "target", "method", "scale", "opacity", "true", "predicted", "outcome", "dominant", "confidence", "entropy",
        "sort", "next", "previous", "random", "reset", "scope", "action", "run", "run all", "undo", "swap", "most alike",
        "most different", "trust", "panel", "folder", "png", "svg", "pin", "sheet", "code", "state", "load", "text", "path",
        "open", "upload", *(f"weight {d}" for d in inspector.provider.trace.dependencies)}
    assert set(inspector.view.controls) - driven == {"play"}, "play moves the frame slider in the browser alone"
    assert {*PANELS, "log"} == set(inspector.view.images) and len(VIEWS) == 7 and len(OVERLAYS) == 3
    inspector.close()
