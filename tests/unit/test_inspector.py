"""The inspector without a browser: state, provider, panels, widgets, files, and bad input."""

import asyncio
import base64
import datetime
import gc
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from notebooks import ROOT
from traitlets import TraitError

from sda.data.datasets import open_dataset
from sda.explaining.checks import CheckInput, CheckResult, FaithfulnessReport, check_steps
from sda.explaining.trace import Trace
from sda.figures.style import to_png
from sda.foundation.errors import FolderError, SettingError, UnknownNameError, VideoError
from sda.inspector import Inspector, InspectorState, clip_table, find_clips, inspect_folder
from sda.inspector.figures import PANELS, draw
from sda.inspector.provider import MAX_UPLOAD, ModelProvider
from sda.inspector.session import MEASURED, PRESETS
from sda.inspector.state import ACTIONS
from sda.networks.backbones import VideoNet, create_model, sda_blocks

FOLDER = ROOT / "sda/assets/moves_sample"
CHECKPOINTS = ROOT / "sda/assets/checkpoints"
A = CHECKPOINTS / "sda_tsn_moves.safetensors"
B = CHECKPOINTS / "sda_tsn_moves_fast_query.safetensors"
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


@pytest.fixture(scope="module")
def shown(opened):
    """One panel for the tests that change nothing for good; see `start_again`."""
    inspector = Inspector(opened.provider, strict=True, source=opened.source).show()
    inspector.free = {
        name: inspector.view.controls[name].value for name in ("folder", "panel", "text", "path", "most")
    }
    yield inspector
    inspector.view.close()


def start_again(inspector):
    """As it was when it was opened; what was drawn need not be drawn again."""
    view = inspector.view
    state = inspector.state
    drawn = inspector.drawn
    inspector.strict = False
    inspector.look_into(inspector.provider, inspector.source)
    inspector.drawn = drawn
    fresh = InspectorState(clip_id=inspector.table.video[0])
    with state.hold_trait_notifications():
        for name in state.names():
            setattr(state, name, getattr(fresh, name))
    for name, value in inspector.free.items():
        view.controls[name].value = value
    view.pull()
    view.redraw(set(PANELS))
    view.show_checks()
    for panel in MEASURED:
        view.put(panel, b"")
    view.shown["log"].value = ""
    view.shown["pins"].children = ()
    inspector.strict = True


@pytest.fixture
def ins(shown):
    """An inspector as it is opened."""
    yield shown
    start_again(shown)


@pytest.fixture
def light(ins, monkeypatch):
    """The same with stand-ins for pictures and few draws: what is drawn elsewhere need not be drawn again."""
    monkeypatch.setattr(ins.provider, "draws", 2)

    def stand_in(self, panel="strip"):
        self.provider.seen(self.state.clip_id or draw(self.provider, self.state, panel))
        return b"\x89PNG" + self.state.to_json().encode()

    monkeypatch.setattr(Inspector, "png", stand_in)
    return ins


def png(view, panel):
    return bytes(view.images[panel].value)


def test_the_first_picture_waits_for_nothing_that_it_does_not_need(tmp_path, monkeypatch):
    passes = []
    forward = VideoNet.forward
    monkeypatch.setattr(
        VideoNet, "forward", lambda self, clips: passes.append(len(clips)) or forward(self, clips)
    )
    assert inspect_folder(FOLDER, A, trace=tmp_path / "t.npz").png("strip") and sum(passes) == 20
    passes.clear()
    cached = inspect_folder(FOLDER, A, trace=tmp_path / "t.npz")
    assert cached.overview() and not passes, "a kept trace answers without the network"
    cached.show()
    assert sum(passes) <= 1, "the shapes of the layers, for the menu"
    cached.close()


CHANGES = [
    ("overlay", "Grad-CAM", "strip"),
    ("overlay", "gate", "strip"),
    ("clip_id", "test_0000_up.mp4", "prediction"),
    ("view", "contribution", "selection"),
    ("view", "effect", "selection"),
    ("view", "triptych", "selection"),
    ("view", "minus class mean", "selection"),
    ("view", "minus mean", "selection"),
    ("frame", 5, "frame"),
    ("compare_id", "test_0000_up.mp4", "compare"),
    ("compare", "checkpoint", "compare"),
]


@pytest.mark.parametrize("name, value, panel", CHANGES)
def test_a_control_sets_the_state_and_redraws_its_panel(ins, name, value, panel):
    before = png(ins.view, panel)
    ins.view.controls[name].value = value
    assert getattr(ins.state, name) == value
    assert png(ins.view, panel).startswith(b"\x89PNG") and png(ins.view, panel) != before


@pytest.mark.parametrize(
    "name, value",
    [
        ("layer", "layer1"),
        ("target", "runner-up"),
        ("method", "hirescam"),
        ("scale", "frame"),
        ("opacity", 0.2),
    ],
)
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
    inspector.state.opacity = 0.3
    assert len([key for key in provider.cache.kept if key[0] == "cam"]) == 1
    inspector.view.close()


@pytest.mark.parametrize(
    "name, value",
    [
        ("true", "Something appearing"),
        ("predicted", "Something appearing"),
        ("outcome", "right"),
        ("dominant", "LT"),
        ("confidence", (0.0, 0.5)),
        ("entropy", (0.5, 1.0)),
    ],
)
def test_a_filter_narrows_the_choice(light, name, value):
    light.view.controls[name].value = value
    fits = light.table
    if name in ("true", "predicted", "dominant"):
        fits = fits[fits[name] == value]
    elif name == "outcome":
        fits = fits[fits.right]
    else:
        fits = fits[fits[name].between(*value)]
    assert list(light.found.video) == list(fits.video)
    assert light.state.clip_id in [*fits.video] or (light.state.clip_id == "" and not len(fits))


def test_sort_and_walk(light):
    light.view.controls["sort"].value = "margin"
    assert light.found.margin.is_monotonic_increasing
    videos = list(light.found.video)
    light.choose(videos[0])
    light.view.press("next")
    assert light.state.clip_id == videos[1]
    light.view.press("previous")
    light.view.press("previous")
    assert light.state.clip_id == videos[-1]
    light.view.press("random")
    assert light.state.clip_id in videos


def test_an_empty_choice_is_said_and_reset_helps(light):
    names = light.provider.class_names
    light.strict = False
    light.view.controls["true"].value = names[0]
    light.view.controls["confidence"].value = (0.0, 0.001)
    assert (
        "No clip fits" in light.view.shown["count"].value
        and "no clip is chosen" in light.view.notes["strip"].value
    )
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
    view.controls["weight LT"].value = 0.75
    assert light.state.weights == [0.25, 0.75, 0.25, 0.25] and light.state.action == "my weights"
    view.controls["scope"].value = "layer3"
    view.press("run")
    view.press("run")
    assert (
        len(light.log) == 2
        and "weights LST 0.17 LT 0.50 LS 0.17 S122 0.17 in layer3" in view.shown["log"].value
    )
    view.press("undo")
    assert len(light.log) == 1
    view.press("run all")
    assert light.log[-1]["clip"] == "20 clips" and "flip" in light.log[-1]["answer"]
    view.controls["sort"].value = "effect"
    assert light.found.effect.is_monotonic_increasing
    view.press("undo")
    view.press("undo")
    with pytest.raises(ValueError, match="empty"):
        view.press("undo")


def test_compare_swap_and_presets(ins):
    with pytest.raises(ValueError, match="no clip B"):
        ins.view.press("swap")
    ins.view.press("most alike")
    a = ins.state.clip_id
    b = ins.state.compare_id
    assert b and b != a and png(ins.view, "compare")
    ins.view.press("swap")
    assert (ins.state.clip_id, ins.state.compare_id) == (b, a) and PRESETS[0] != PRESETS[1]
    with pytest.raises(ValueError, match="no other clip of the class"):
        ins.view.press("most different")


@pytest.mark.parametrize("name", ["weight LST", "weight LT", "weight LS", "weight S122"])
def test_every_slider_makes_weights_of_ones_own(light, name):
    light.view.controls[name].value = 0.75
    assert sorted(light.state.weights) == [0.25, 0.25, 0.25, 0.75] and light.state.action == "my weights"
    assert (
        light.provider.intervene(
            [light.state.clip_id], "all", "my weights", light.state.weights, ""
        ).name.count("0.50")
        == 1
    )


def test_clips_without_a_true_class_are_neither_right_nor_wrong(opened):
    known = opened.provider.trace
    unknown = replace(known, labels=None)
    assert len(find_clips(unknown)) == len(clip_table(unknown)) > 0 and clip_table(unknown).right.isna().all()
    assert find_clips(unknown, outcome="wrong").empty and find_clips(unknown, outcome="right").empty
    parts = [set(find_clips(known, outcome=outcome).video) for outcome in ("right", "wrong")]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == set(known.videos) and parts[0]
    table = clip_table(known)
    table.loc[0, "right"] = pd.NA  # one of many
    assert table.video[0] not in {
        *find_clips(table, outcome="right").video,
        *find_clips(table, outcome="wrong").video,
    }


def test_a_network_with_a_single_dependency_is_shown_without_effects(tmp_path):
    torch.manual_seed(0)
    one = create_model("sda_tsn_tiny", 20, dependencies=["LST"])
    inspector = inspect_folder(FOLDER, one, strict=True)
    assert np.isnan(inspector.provider.effects(inspector.state.clip_id)).all()
    for view in ("weight", "effect", "triptych"):
        inspector.state.view = view
        assert inspector.png("selection").startswith(b"\x89PNG")
    inspector.state.action = "drop LST"
    with pytest.raises(ValueError, match="nothing would be left"):
        inspector.run()
    inspector.provider.trial = {"steps": 2, "draws": 1}
    judged = inspector.trust(3)
    assert "two dependencies or more" in judged.missing["selection"] and {"space", "frames"} <= set(
        judged.words
    )


def test_a_map_judged_in_place_of_another_says_so(opened, monkeypatch):
    monkeypatch.setattr(opened.provider, "trial", {"steps": 2, "draws": 1})
    inspector = Inspector(opened.provider, InspectorState(method="occlusion"), strict=True)
    judged = inspector.trust(3)
    for question, words in judged.words.items():
        of_maps = question in ("space", "frames", "randomisation", "pointing")
        assert ("maps of layercam: those of occlusion" in words) == of_maps, question
    named = judged.table().query("check in ('space', 'frames')").what
    assert set(named) == {"map of layercam", "the centre"}
    with pytest.raises(UnknownNameError) as error:
        list(opened.provider.trust(inspector.table.video, 3, "layer2", "layercan"))
    assert error.value.subject == "layercan" and "'layercam'" in error.value.remedy
    clips = torch.stack([opened.provider.seen(i).clip for i in inspector.table.video[:3]])
    _, report = next(check_steps(CheckInput(opened.provider.model, clips, [0, 1, 2])))
    assert "give trace=" in report.missing["selection"]


def test_trust_says_numbers_with_interval_and_n(ins, monkeypatch):
    monkeypatch.setattr(ins.provider, "trial", {"steps": 2, "draws": 1})
    ins.view.controls["most"].value = 6
    ins.view.press("trust")
    found = ins.judged.table()
    said = ins.view.shown["trust"].value
    assert set(found.check) == {"selection", "space", "frames", "randomisation", "pointing", "seeds"}, (
        ins.judged.missing
    )
    assert (found.n <= 6).all() and (found.n > 0).all() and ins.judged.n == 6
    known = found.dropna(subset=["low"])
    assert (
        (known.low <= known.value).all()
        and (known.value <= known.high).all()
        and len(known) >= len(found) - 2
    )
    assert said.count("<li") == 6 and said.count("n = 6") >= 4 and "rank correlation" in said
    for panel in MEASURED[1:]:
        assert png(ins.view, panel).startswith(b"\x89PNG")
    assert not hooks_of(ins.provider.model)


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_trust_of_too_few_clips_is_refused(ins):
    ins.filter(text="disc_cross")
    with pytest.raises(ValueError, match="1 clips are too few"):
        ins.view.press("trust")


def test_long_work_is_cancelled_between_two_steps(light, monkeypatch):
    view, light.strict = light.view, False
    monkeypatch.setattr(light.provider, "trial", {"steps": 2, "draws": 1, "together": 2})

    async def cancelled(name, after):
        view.click(name)
        while not view.working or (after and len(light.judged.results) < after):
            await asyncio.sleep(0.01)
        assert "working …" in view.shown["status"].value and not view.controls["cancel"].disabled
        view.click("trust")  # a second job
        assert "still measuring" in view.shown["status"].value
        view.press("cancel")
        await view.task

    asyncio.run(cancelled("trust", 1))
    assert {f.check for f in light.judged.results} == {"selection"} and "stopped" in view.shown[
        "status"
    ].value
    assert "Weight" in view.shown["trust"].value and view.controls["cancel"].disabled
    asyncio.run(cancelled("run all", 0))
    assert (
        not light.log
        and "nothing was changed" in view.shown["status"].value
        and not hooks_of(light.provider.model)
    )
    view.press("cancel")
    assert "nothing to cancel" in view.shown["status"].value


def test_an_error_in_the_background_is_words_too(light):
    light.strict = False
    light.filter(text="disc_cross")

    async def clicked():
        light.view.click("trust")
        await light.view.task

    asyncio.run(clicked())
    assert "too few" in light.view.shown["status"].value


@pytest.mark.parametrize("name, start", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_save_writes_a_picture_and_what_it_shows(ins, tmp_path, name, start):
    kind = name
    ins.view.controls["folder"].value = str(tmp_path / "kept")
    ins.view.controls["panel"].value = "selection"
    ins.view.press(kind)
    (path,) = (tmp_path / "kept").glob(f"*.{kind}")
    side = json.loads(path.with_suffix(".json").read_text())
    assert path.read_bytes().startswith(start) and side["clip"] == ins.state.clip_id
    assert side["fingerprint"] == ins.provider.trace.fingerprint and side["state"]["view"] == ins.state.view
    assert (
        side["transform"]["size"]
        and side["versions"]["sda"]
        and str(path.name) in ins.view.shown["status"].value
    )


def test_two_pictures_of_one_name_are_both_kept(ins, tmp_path, monkeypatch):
    """Clips of two folders have the same name, and so has one clip in another light."""
    first = ins.save(tmp_path, "prediction")
    assert ins.save(tmp_path, "prediction") == first, "the same again is no second picture"
    clip = ins.state.clip_id
    there = ins.provider.clips
    monkeypatch.setitem(there.known, f"other/{clip}", there.known["test_0000_up.mp4"])
    monkeypatch.setattr(ins.provider, "chosen", lambda *_, real=ins.provider.chosen: real("test_0000_up.mp4"))
    ins.state.clip_id = f"other/{clip}"
    second = ins.save(tmp_path, "prediction")
    assert second != first and len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.json"))) == 2
    sides = [json.loads(path.with_suffix(".json").read_text())["clip"] for path in (first, second)]
    assert sides == [clip, f"other/{clip}"] and first.read_bytes() != second.read_bytes()


def test_visitors_choose_among_offers_and_reach_no_path(monkeypatch, tmp_path):
    """Under Voila: no control takes or shows a path, results are downloads, uploads have a total."""
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://localhost/")
    monkeypatch.chdir(tmp_path)
    offers = {
        "with SDA": {"root": str(FOLDER), "checkpoint": str(A)},
        "without": {"root": str(FOLDER), "checkpoint": str(CHECKPOINTS / "tsn_moves.safetensors")},
    }
    inspector = inspect_folder(FOLDER, A, offers=offers).show()
    view = inspector.view
    paths = {"root", "split", "checkpoint", "other", "folder", "path", "open", "code"}
    assert not paths & view.controls.keys() and view.controls["offer"].options == tuple(offers)
    view.controls["panel"].value = "prediction"
    view.press("png")
    assert 'download="test_0000' in view.shown["download"].value and not list(tmp_path.iterdir())
    payload = base64.b64decode(
        re.search(r"application/json;base64,([^\"]+)", view.shown["download"].value)[1]
    )
    values = [
        w.value
        for w in (*view.controls.values(), *view.shown.values())
        if isinstance(getattr(w, "value", 0), str)
    ]
    assert str(ROOT) not in payload.decode() and not any(str(ROOT) in value for value in values)
    view.say(f"there is no file {FOLDER}/img/x.mp4", error=True)
    assert "x.mp4" in view.shown["status"].value and str(ROOT) not in view.shown["status"].value
    view.say("/srv/secret/x.mp4 cannot be read", error=True)
    assert ">x.mp4 cannot" in view.shown["status"].value
    content = FILE.read_bytes()
    monkeypatch.setattr("sda.inspector.provider.MAX_UPLOADS", 2 * len(content) - 1)
    for name, refused in (("1.mp4", False), ("2.mp4", True)):
        view.controls["upload"].value = (
            {"name": name, "type": "", "size": 1, "content": content, "last_modified": NOW},
        )
        assert ("together" in view.shown["status"].value) == refused
    view.controls["offer"].value = "without"
    view.press("open data")
    assert "tsn_moves" in view.shown["status"].value and view.controls["offer"].value == "without"
    with pytest.raises(UnknownNameError):
        inspector.open_offer(str(FOLDER))
    inspector.close()


def test_a_folder_of_videos_opens_without_lists(tmp_path):
    for name in ("b.mp4", "sub/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FILE, tmp_path / name)
    (tmp_path / "broken.mp4").write_bytes(FILE.read_bytes()[:900])
    inspector = inspect_folder(tmp_path, A)
    assert inspector.table.video.tolist() == ["b.mp4", "sub/a.mp4"] and inspector.table.true.isna().all()
    assert "broken.mp4" in inspector.count and inspector.provider.left_out.keys() == {"broken.mp4"}
    assert "true class not known" in inspector.figure("strip").get_suptitle()
    assert inspector.overview().startswith(b"\x89PNG")
    with pytest.raises(SettingError):
        inspect_folder(FOLDER / "img", A)
    added = inspector.provider.add_path(tmp_path / "sub")
    assert added == "a.mp4" and added in inspector.provider.ids()


def test_pins_make_a_sheet(ins, tmp_path):
    ins.view.controls["folder"].value = str(tmp_path)
    with pytest.raises(ValueError, match="nothing is pinned"):
        ins.view.press("sheet")
    ins.view.press("pin")
    ins.view.press("pin")
    ins.view.press("sheet")
    assert len(ins.view.shown["pins"].children) == 2 and list(tmp_path.glob("*sheet.png"))


def made_by(code):
    """The figure at the end of some lines of code."""
    *lines, last = code.splitlines()
    names = {}
    exec("\n".join([*lines, f"found = {last}"]), names)
    return to_png(names["found"])


def test_copied_code_makes_the_same_picture(ins):
    ins.state.view = "contribution"
    ins.state.clip_id = "test_0000_up.mp4"
    ins.view.controls["panel"].value = "selection"
    ins.view.press("code")
    assert made_by(ins.view.controls["text"].value) == ins.png("selection")


def test_code_of_every_panel_makes_its_picture(ins, monkeypatch):
    def reopened(*args, **options):
        assert (args, options) == ((str(FOLDER), str(A)), {"split": "test", "other": str(B)})
        return Inspector(ins.provider, source=ins.source)

    asked = []
    curves = [
        pd.DataFrame(
            {
                "over": over,
                "curve": curve,
                "order": order,
                "draw": 0,
                "share": [0.0, 0.5, 1.0],
                "clip": 0,
                "probability": [0.1, 0.4, 0.9],
            }
        )
        for over in ("space", "frames")
        for curve in ("deletion", "insertion")
        for order in ("map", "centre", "random")
    ]

    def judged(*question):
        asked.append(question)
        yield (
            "",
            FaithfulnessReport(
                3,
                (CheckResult("selection", "weight", 0.5, 0.2, 0.7, 3),),
                curves=tuple(pd.concat(curves[k : k + 6]) for k in (0, 6)),
            ),
        )

    with pytest.raises(ValueError, match="nothing was measured"):
        ins.code("trust")
    monkeypatch.setattr("sda.inspector.app.inspect_folder", reopened)
    monkeypatch.setattr(ins.provider, "draws", 2)
    monkeypatch.setattr(ins.provider, "trust", judged)
    ins.filter(text="se")
    ins.state.compare_id = "test_0000_up.mp4"
    ins.state.overlay = "gate"
    ins.trust(3)
    ins.run()
    ins.state.action = "uniform"
    ins.run(everywhere=True)
    for panel in (*PANELS, *MEASURED):
        assert made_by(ins.code(panel)) == ins.png(panel), panel
    assert len(asked) == 4 and asked == asked[:1] * 4, "the same question about the same clips"


def test_state_goes_out_and_in(light):
    light.state.overlay = "gate"
    light.state.filters = {"outcome": "right", "confidence": [0, 1]}
    light.view.press("state")
    text = light.view.controls["text"].value
    light.view.press("reset")
    light.state.overlay = "none"
    light.view.controls["text"].value = text
    light.view.press("load")
    assert light.state.overlay == "gate" and light.view.controls["outcome"].value == "right"
    light.view.controls["text"].value = '{"view": "importance"}'
    with pytest.raises(TraitError):
        light.view.press("load")


def test_a_clip_of_ones_own(ins, tmp_path):
    ins.view.controls["upload"].value = (
        {"name": "my cup.mp4", "type": "", "size": 1, "content": FILE.read_bytes(), "last_modified": NOW},
    )
    mine = ins.state.clip_id
    assert mine.startswith("my_cup") and mine in ins.view.controls["clip_id"].options
    assert np.allclose(
        ins.provider.chosen(mine).weights, ins.provider.chosen("test_0000_swing.mp4").weights, atol=1e-5
    )
    assert "true class not known" in ins.figure("strip").get_suptitle()
    ins.view.controls["path"].value = str(FILE)
    ins.view.press("open")
    assert ins.state.clip_id == "my test_0000_swing.mp4"


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.mp4", b"#!/bin/sh", "not a video"),
        ("b.mp4", b"", "not a video"),
        ("c.mp4", bytes(MAX_UPLOAD + 1), "at most 8 MB"),
        ("d.mp4", b"\0\0\0\x18ftypmp42" + bytes(999), "d-"),
    ],
)
def test_a_bad_upload_is_refused_in_words(light, name, content, words):
    light.strict = False
    before = light.state.clip_id
    light.view.controls["upload"].value = (
        {"name": name, "type": "video/mp4", "size": len(content), "content": content, "last_modified": NOW},
    )
    assert words in light.view.shown["status"].value and light.state.clip_id == before


def test_errors_are_words_in_the_panel_and_raised_when_strict(ins):
    with pytest.raises(UnknownNameError) as error:
        ins.view.controls["clip_id"].value = "test_0000_swings.mp4"
    assert error.value.subject == "test_0000_swings.mp4" and set(error.value.choices) == set(
        ins.provider.ids()
    )
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
    with pytest.raises(UnknownNameError) as error:
        Inspector(ins.provider, InspectorState(overlay="Grad-CAM", layer="layer9")).figure("strip")
    assert error.value.subject == "layer9" and "layer4" in error.value.choices
    with pytest.raises(TraitError):
        ins.state.weights = [0, 0, 0, 0]
    with pytest.raises(UnknownNameError) as error:
        ins.provider.intervene([ins.state.clip_id], "layr3", "uniform", [1] * 4, "")
    assert error.value.subject == "layr3" and "layer3" in error.value.remedy
    file = tmp_path / "a file"
    file.write_text("")
    with pytest.raises(FolderError) as error:
        ins.save(file / "below")
    assert error.value.subject == str(file / "below") and error.value.remedy


def test_a_clip_that_cannot_be_decoded_is_words_in_the_panel(opened, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "set")
    broken = "test_0000_up.mp4"
    (folder / "img" / broken).write_bytes((folder / "img" / broken).read_bytes()[:900])
    with pytest.raises(VideoError, match=broken):
        inspect_folder(folder, A)
    data = open_dataset(
        folder, "test", opened.provider.clips.data.sampling, opened.provider.clips.data.transform_config
    )
    inspector = Inspector(
        ModelProvider(opened.provider.model, data, opened.provider.trace)
    ).show()  # traced before
    view = inspector.view
    view.controls["clip_id"].value = broken
    for panel in ("strip", "frame", "prediction"):
        assert broken in view.notes[panel].value and view.images[panel].layout.display == "none", panel
    view.press("run")
    assert broken in view.shown["status"].value and not inspector.log
    view.press("next")
    assert view.images["strip"].layout.display is None and not view.notes["strip"].value, (
        "the next clip is shown again"
    )
    inspector.strict = True
    with pytest.raises(VideoError, match=broken):
        view.controls["clip_id"].value = broken
    inspector.close()


def test_another_checkpoint_or_folder_is_opened_in_place(opened):
    inspector = Inspector(opened.provider, strict=True, source=opened.source).show()
    view = inspector.view
    box = inspector.view.box
    inspector.provider.close = lambda: None  # other tests look into it
    for name, value, words in (
        ("checkpoint", str(FOLDER / "category.txt"), "category.txt"),
        ("split", "tets", "did you mean"),
        ("root", str(FOLDER / "img"), "category.txt"),
        ("other", "nowhere.safetensors", "nowhere"),
    ):
        before = view.controls[name].value
        view.controls[name].value = value
        with pytest.raises(Exception, match=words):
            view.press("open data")
        assert words in view.shown["status"].value and inspector.provider is opened.provider
        view.controls[name].value = before
    inspector.strict = False  # the table of selections says that there is nothing
    view.controls["checkpoint"].value = str(CHECKPOINTS / "tsn_moves.safetensors")
    view.controls["other"].value = ""
    inspector.filter(text="swing")
    view.press("open data")
    assert "tsn_moves" in view.shown["status"].value and "no SDA blocks" in view.notes["selection"].value
    assert view.box is box and inspector.state.filters == {} and view.controls["compare"].options == ("clip",)
    view.controls["clip_id"].value = "test_0000_up.mp4"
    assert inspector.state.clip_id == "test_0000_up.mp4" and "tsn_moves" in inspector.source
    inspector.view.close()


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
    with pytest.raises(ValueError, match="this trace is of"):
        inspect_folder(FOLDER, B, trace=path)
    assert len(Trace.load(path)) == 20


def test_a_model_in_memory_and_split_blocks():
    torch.manual_seed(0)
    inspector = inspect_folder(
        FOLDER, create_model("sda_tsn_tiny", 20, num_frames=16, split=8), overlay="gate", view="effect"
    )
    assert len(inspector.provider.trace.blocks) == 8 and inspector.png("strip") and inspector.png("selection")
    with pytest.raises(ValueError, match="only an inspector opened with"):
        inspector.code()


def test_opened_and_closed_leaves_nothing(opened, monkeypatch):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in opened.provider.model.modules())

    def listeners(state):
        return sum(len(found) for kinds in state._trait_notifiers.values() for found in kinds.values())

    from ipywidgets.widgets.widget import _instances

    state = InspectorState(clip_id="test_0000_up.mp4", overlay="Grad-CAM")
    fresh = listeners(state)
    kept = hooks()
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


def another(control):
    """A value that a control can have and has not."""
    if hasattr(control, "options") and not isinstance(control, widgets.Combobox):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return next(value for value in values if value != control.value)
    if isinstance(control, widgets.FloatRangeSlider):
        return (0.25, 0.75)
    return control.max if control.value != control.max else control.min


def test_every_control_is_wired(light, monkeypatch):
    """A setting sets the state, a filter the filters, a button calls what it is named after."""
    view = light.view
    light.strict = False
    pressed = []
    monkeypatch.setattr(view, "press", pressed.append)
    monkeypatch.setattr(light, "filter", lambda **filters: pressed.extend(filters))
    # said or moved by hand in the tests above
    alone = {
        "folder",
        "panel",
        "text",
        "path",
        "most",
        "upload",
        "root",
        "split",
        "checkpoint",
        "other",
        "play",
    }
    for name, control in view.controls.items():
        assert control.description, f"{name}: a control says what it is"
        if name in alone or isinstance(control, widgets.Combobox):
            continue
        if isinstance(control, widgets.Button):
            control.disabled = False
            control.click()
            assert pressed.pop() == name
        elif name in light.state.trait_names() and name not in ("compare",):
            value = another(control)
            control.value = value
            assert getattr(light.state, name) == value, name
        elif name.startswith("weight "):
            control.value = 0.75
            assert 0.75 in light.state.weights
        elif name != "compare":
            control.value = another(control)
            assert pressed.pop() == name
    assert not pressed


def test_every_panel_has_a_picture_and_the_player_moves_the_frame(ins):
    assert {*PANELS, *MEASURED} == set(ins.view.images)
    play = ins.view.controls["play"]
    frame = ins.view.controls["frame"]
    assert play.link.source == (play, "value") and play.link.target == (frame, "value")
    assert play.max == frame.max == 7
