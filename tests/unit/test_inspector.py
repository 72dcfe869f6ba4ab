"""The inspector without a browser: opening, the session, what the widget is told, messages, and bad input."""

import asyncio
import json
import shutil
import threading
import time

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter

from sda.assets import DEFAULT_MODEL, FOLDER, SAMPLE_CLIPS
from sda.explaining.effects import ablation_map
from sda.foundation.errors import RunError, SettingError, UnknownNameError, VideoError
from sda.inspector import Inspector, inspect
from sda.inspector.background import Background
from sda.inspector.clips import Clips
from sda.inspector.edits import edit, edits_key
from sda.inspector.keep import draw_state
from sda.inspector.opening import open_session
from sda.inspector.questions import QUESTIONS
from sda.inspector.scenes import scene_of
from sda.inspector.session import planned
from sda.inspector.state import InspectorState
from sda.networks.backbones import create_model
from sda.testing.evaluate import predict

pytest.importorskip("anywidget")
B = DEFAULT_MODEL.parent / "sda_tsn_moves_fast_query.safetensors"
PLAIN = DEFAULT_MODEL.parent / "tsn_moves.safetensors"
DRAWS = 2  # controls, for the sake of time
SHAKE, UP, SWING = (f"test_0000_{name}.mp4" for name in ("shake", "up", "swing"))
FILE = SAMPLE_CLIPS / "img" / SWING


@pytest.fixture(scope="module")
def session():
    """Three clips with classes, two networks; everything of the first clip is measured."""
    found = open_session(DEFAULT_MODEL, SAMPLE_CLIPS, other=B, draws=DRAWS)
    for clip_id in (SHAKE, UP, SWING):
        found.read(clip_id)
    for controls, part in planned(found, SHAKE):
        for _ in found.answering(SHAKE, part, controls):
            pass
    return found


@pytest.fixture
def shown(session):
    """A widget on the session; it starts nothing by itself, for there is no loop."""
    made = Inspector(session)
    made.state.selected = SHAKE
    made.show()
    yield made
    made.view.close()


def finite(value):
    """Whether a value is JSON that a browser reads."""
    return json.loads(json.dumps(value, allow_nan=False))


def run(view, name=None):
    """Do the work in the background, or one job of it."""
    while view.background.jobs if name is None else name in view.background.jobs:
        view.background.step()


# ---- Opening


def test_a_folder_of_videos_opens_without_lists(tmp_path):
    for name in ("b.mp4", "sub/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FILE, tmp_path / name)
    (tmp_path / "broken.mp4").write_bytes(FILE.read_bytes()[:900])
    found = open_session(DEFAULT_MODEL, tmp_path)
    assert found.clips.ids() == ["b.mp4", "sub/a.mp4"] and list(found.clips.left_out) == ["broken.mp4"]
    assert (
        found.clips.label("b.mp4") is None
        and found.class_read("b.mp4") == found.read("b.mp4").logits.argmax()
    )
    assert scene_of(found, "b.mp4")["label"] is None
    found.clips.add_path(tmp_path / "sub")
    assert found.clips.ids() == ["a.mp4", "b.mp4", "sub/a.mp4"], "one's own come first"


@pytest.mark.parametrize(
    "model, clips, error",
    [
        (DEFAULT_MODEL, SAMPLE_CLIPS / "img", SettingError),  # the clips of a dataset, without its lists
        (SAMPLE_CLIPS, DEFAULT_MODEL, SettingError),  # the wrong way round
        (DEFAULT_MODEL, FOLDER / "gone.mp4", RunError),
        (DEFAULT_MODEL, [], SettingError),
    ],
)
def test_what_cannot_be_opened_is_refused(model, clips, error):
    with pytest.raises(error):
        open_session(model, clips)


def test_a_stored_trace_is_used_and_one_of_another_network_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.npz"
    first = open_session(DEFAULT_MODEL, SAMPLE_CLIPS, trace=path)
    again = open_session(DEFAULT_MODEL, SAMPLE_CLIPS, trace=path)
    assert not again.unread() and path.is_file()
    np.testing.assert_array_equal(again.read(UP).weights, first.read(UP).weights)
    with pytest.raises(SettingError):
        open_session(B, SAMPLE_CLIPS, trace=path)


# ---- The session


def test_a_scene_agrees_with_what_it_is_made_of(session):
    scene = finite(scene_of(session, SHAKE))
    table = predict(SAMPLE_CLIPS / "img" / SHAKE, session.network.model, top=20).set_index("class")[
        "probability"
    ]
    np.testing.assert_allclose(scene["probabilities"], table[session.class_names], atol=1e-3)
    effect = ablation_map(session.network.model, session.views(SHAKE)[None], [scene["read"]]).values[0]
    np.testing.assert_allclose(np.array(scene["losses"], float), effect, atol=1e-3)
    assert {how for row in scene["loss_is"] for how in row} == {"measured"}
    assert len(scene["frames"]) == 8 and all(one.startswith("data:image/jpeg") for one in scene["frames"])
    assert [one["class"] for one in scene["top"] if one["true"]] == [scene["label"]]
    found = scene["finding"]
    assert found["control"]["n"] == DRAWS and found["control"]["low"] <= found["control"]["high"]
    assert f"{found['value']:+.2f}".replace("-", "−") in found["sentence"]
    backwards = scene_of(session, SHAKE, frames="reversed")
    assert backwards["order"] == list(range(8))[::-1] and backwards["frames"] == scene["frames"][::-1]


def test_estimates_rank_losses_before_they_are_measured(session):
    guess = session.guess(SHAKE)
    losses, _ = session.losses(SHAKE)
    assert guess.shape == losses.shape and np.isfinite(guess).all()
    assert np.abs(guess).max() <= 1
    fresh = open_session(DEFAULT_MODEL, SAMPLE_CLIPS)
    assert {how for row in fresh.losses(UP)[1] for how in row} == {None}
    fresh.guess(UP)
    values, how = fresh.losses(UP)
    assert {one for row in how for one in row} == {"estimated"} and np.isfinite(values).all()
    fresh.compute(UP, [edit("drop", 1, 2)])
    assert fresh.losses(UP)[1][1][2] == "measured"


def test_everything_planned_is_known_with_its_controls(session):
    keys = [edits_key(e) for _, part in planned(session, SHAKE) for e in part]
    answers = {key: session.answer(SHAKE, json.loads(key)) for key in {*map(fill, keys)}}
    assert all(answers.values())
    assert all(one["control"]["n"] == DRAWS for key, one in answers.items() if key != "[]")
    sets = [json.loads(key) for key in keys]
    everywhere = [s for s in sets if s and all(e["kind"] == "drop" and "block" not in e for e in s)]
    assert len({frozenset(e["dependency"] for e in s) for s in everywhere}) == 15, (
        "every set but the whole one"
    )


def fill(key):
    """A key whose edits have all their fields."""
    return json.dumps([edit(**one) for one in json.loads(key)])


def test_percentiles_are_of_the_class_and_say_n(session):
    assert session.percentiles(SHAKE) is None, "one clip of a class has no place among others"
    labels = dict.fromkeys(session.clips.known, 0)
    few = Clips(session.clips.data, labels)
    mine = type(session)(session.networks, few)
    found = mine.percentiles(UP)
    assert found["n"] == 3 and found["of"] == 0
    assert all(0 <= value <= 100 for row in found["weights"] for value in row)


def test_a_network_without_selection_and_one_with_a_single_dependency(tmp_path):
    plain = inspect(PLAIN, FILE, strict=True)
    plain.show()
    run(plain.view)
    assert (
        plain.view.panel.scene["weights"] == []
        and "no SDA blocks" in plain.view.panel.about["network"]["note"]
    )
    assert edits_key([edit("frames", value="reversed")]) in plain.view.panel.answers["items"]
    plain.view.receive({"ask": "keep", "what": "png"})
    plain.close()
    one = open_session(create_model("sda_tsn_tiny", 3, 8, dependencies=("LST",)), FILE)
    assert one.cells() == [] and {how for row in one.losses(SWING)[1] for how in row} == {None, "absent"}


# ---- The widget


def test_the_first_picture_needs_nothing_from_the_background(shown):
    panel = shown.view.panel
    for name in ("about", "clips", "scene", "answers", "questions"):
        finite(getattr(panel, name))
    assert panel.scene["clip"] == shown.state.selected == panel.selected
    assert panel.answers["items"]["[]"]["change"] == 0
    bundle, _ = DisplayFormatter().format(shown)  # as a notebook asks
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["image/png"].startswith("iVBOR")


def test_the_background_fills_in_what_is_not_known(session):
    few = Inspector(open_session(DEFAULT_MODEL, [FILE, SAMPLE_CLIPS / "img" / UP]))
    view = few.show().view
    assert view.panel.clips[1]["predicted"] is None
    run(view, "first")
    assert view.panel.progress["finding"] and {h for row in view.panel.progress["loss_is"] for h in row} == {
        "measured"
    }
    run(view, "clips")
    assert view.panel.clips[1]["predicted"] is not None
    few.close()


def test_an_edit_is_answered_at_once_and_its_control_follows(shown):
    fresh = [edit("weight", 1, 1, 0.77), edit("frames", value="blurred")]
    shown.view.panel.edits = fresh
    answers = shown.view.panel.answers["items"]
    assert shown.state.edits == fresh and answers[edits_key(fresh)]["control"] is None
    run(shown.view, "edits")
    assert shown.view.panel.answers["items"][edits_key(fresh)]["control"]["n"] == DRAWS
    shown.state.undo()
    assert shown.view.panel.edits == fresh[:1]


@pytest.mark.parametrize(
    "name, wrong",
    [("edits", [{"kind": "burn"}]), ("selected", "../../etc/passwd"), ("beside", {"frames": "burnt"}),
     ("reading", "effect"), ("filters", {"sort": "size"})],
)  # fmt: skip
def test_wrong_values_from_the_page_go_back_with_words(shown, name, wrong):
    before = getattr(shown.state, name)
    setattr(shown.view.panel, name, wrong)
    assert getattr(shown.state, name) == getattr(shown.view.panel, name) == before
    assert shown.view.panel.status["state"] == "error" and shown.view.panel.status["message"]


def test_a_change_reaches_only_what_depends_on_it(shown):
    seen = []
    shown.view.panel.observe(lambda change: seen.append(change["name"]))
    shown.state.look = {"opacity": 0.3}
    shown.state.filters = {"text": "a"}
    shown.state.reading = "loss"
    assert sorted(seen) == ["filters", "look", "reading"]


def test_maps_travel_raw_once_for_the_best_classes(shown):
    shown.view.receive({"ask": "map", "layer": "layer2", "method": "layercam", "target": None})
    found = finite(shown.view.panel.map)
    assert found["shape"] == [8, 8, 8]
    assert {str(one["class"]) for one in shown.view.panel.scene["top"]} <= found["targets"].keys()
    shown.view.receive({"ask": "map", "layer": "layer3.0", "method": "gate", "target": None})
    assert shown.view.panel.map["method"] == "gate"
    shown.view.receive({"ask": "map", "layer": "layer9", "method": "layercam", "target": None})
    assert shown.view.panel.status["where"] == "map" and shown.view.panel.status["state"] == "error"
    shown.view.receive({"ask": "map", "layer": None})
    assert shown.view.panel.map is None


def test_beside_a_clip_stands_another_its_reverse_or_another_network(shown):
    for beside, clip, network in (
        ({"clip": UP}, UP, 0),
        ({"frames": "reversed"}, SHAKE, 0),
        ({"network": 1}, SHAKE, 1),
    ):
        shown.state.beside = beside
        other = finite(shown.view.panel.other)
        assert (other["clip"], other["network"]) == (clip, network)
    shown.state.beside = {"network": 2}
    assert shown.view.panel.status["state"] == "error"
    shown.state.beside = None
    assert shown.view.panel.other is None


def test_questions_are_answered_in_steps_and_can_be_cancelled(shown):
    view = shown.view
    view.receive({"ask": "question", "name": "shapley"})
    assert view.panel.questions["shapley"]["state"] == "running"
    run(view, "question")
    found = view.panel.questions["shapley"]
    scene = shown.view.panel.scene
    none = shown.session.answer(SHAKE, [edit("drop", None, d) for d in range(4)])["change"]
    assert found["state"] == "done" and sum(r["value"] for r in found["rows"]) == pytest.approx(
        -none, abs=1e-3
    )
    assert scene["read"] == shown.session.class_read(SHAKE)
    view.receive({"ask": "question", "name": "edits"})
    run(view, "question")
    assert view.panel.questions["edits"]["state"] == "failed" and view.panel.questions["edits"]["message"]
    view.receive({"ask": "question", "name": "space"})
    view.background.step()
    view.receive({"ask": "cancel"})
    assert view.panel.questions["space"]["state"] == "unmeasured" and "question" not in view.background.jobs
    view.receive({"ask": "question", "name": "seeds"})
    run(view, "question")
    assert view.panel.questions["seeds"]["state"] == "done" and set(view.panel.questions) == set(QUESTIONS)


def test_the_present_edits_are_asked_of_the_clips_that_fit(shown):
    shown.state.edits = [edit("drop", None, 3)]
    shown.view.receive({"ask": "question", "name": "edits", "ids": [SWING, "gone"]})
    run(shown.view, "question")
    found = shown.view.panel.questions["edits"]
    assert found["state"] == "done" and found["clips"] == 1 and "at random" in found["rows"][1]["label"]
    shown.state.edits = []


# ---- Bringing clips, keeping results


def send(view, name, content, pieces=3, size=None):
    """Upload a file in pieces."""
    step = -(-len(content) // pieces)
    for index in range(pieces):
        message = {
            "ask": "upload",
            "name": name,
            "index": index,
            "total": pieces,
            "bytes": size or len(content),
        }
        view.receive(message, [memoryview(content)[index * step : (index + 1) * step]])


def test_an_upload_in_pieces_is_a_clip_like_others(shown):
    name = '<img src=x onerror=alert(1)>" .mp4'
    send(shown.view, name, FILE.read_bytes())
    assert shown.state.selected == name and shown.view.panel.scene["name"] == name
    assert shown.view.panel.clips[0]["id"] == name and shown.view.panel.clips[0]["own"]
    assert shown.view.panel.scene["label"] is None
    send(shown.view, name, FILE.read_bytes())
    assert shown.state.selected == f"{name} (2)", "nothing is replaced"
    folder = shown.session.clips.folder.name
    for clip_id in (name, f"{name} (2)"):
        shown.view.receive({"ask": "forget", "clip": clip_id})
    assert shown.state.selected != name and name not in shown.session.clips.ids()
    shown.view.receive({"ask": "forget", "clip": UP})
    assert UP in shown.session.clips.ids() and folder


@pytest.mark.parametrize(
    "content, size",
    [(b"MZ" + bytes(4000), None), (FILE.read_bytes()[:900], None), (FILE.read_bytes(), 10**9),
     (FILE.read_bytes(), 100)],
    ids=["no video", "broken", "too large", "more than it said"],
)  # fmt: skip
def test_an_upload_that_is_no_good_is_refused_with_words(shown, content, size):
    before = shown.session.clips.ids()
    send(shown.view, "x.mp4", content, size=size)
    assert shown.session.clips.ids() == before and not shown.session.clips.coming
    assert shown.view.panel.status["state"] == "error" and shown.view.panel.status["where"] == "upload"


def test_uploads_have_a_limit_together_and_leave_nothing_behind(monkeypatch, session):
    clips = Clips(session.clips.data)
    content = FILE.read_bytes()
    monkeypatch.setattr("sda.inspector.clips.MAX_UPLOADS", 2 * len(content) - 1)
    clips.piece("1.mp4", 0, 1, len(content), content)
    with pytest.raises(SettingError):
        clips.piece("2.mp4", 0, 1, len(content), content)
    with pytest.raises(SettingError):
        clips.piece("3.mp4", 1, 2, 10, content)
    folder = clips.folder.name
    clips.close()
    assert not shutil.os.path.exists(folder)


def test_visitors_reach_no_path(monkeypatch, session):
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://localhost/")
    offers = {
        "with SDA": {"model": str(DEFAULT_MODEL), "clips": str(SAMPLE_CLIPS)},
        "without": {"model": str(PLAIN), "clips": str(SAMPLE_CLIPS)},
    }
    visited = inspect(DEFAULT_MODEL, SAMPLE_CLIPS, offers=offers)
    view = visited.show().view
    view.receive({"ask": "path", "path": str(FILE)})
    assert view.panel.status["state"] == "error" and SWING not in visited.session.clips.added
    view.receive({"ask": "keep", "what": "code"})
    assert view.panel.status["state"] == "error"
    view.failed("clips", VideoError(f"there is no file {FILE}"))
    told = json.dumps([getattr(view.panel, name) for name in ("about", "clips", "scene", "status")])
    assert SWING in view.panel.status["message"] and str(FOLDER) not in told
    view.receive({"ask": "open", "offer": "without"})
    assert view.panel.about["offer"] == "without" and view.panel.about["network"]["blocks"] == []
    view.receive({"ask": "open", "offer": str(SAMPLE_CLIPS)})
    assert view.panel.status["state"] == "error" and view.panel.about["offer"] == "without"
    visited.close()


def test_what_is_kept_is_this_state(shown, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sent = []
    monkeypatch.setattr(shown.view.panel, "send", lambda message, buffers=(): sent.append((message, buffers)))
    shown.state.edits = [edit("drop", 2, 3)]
    for what in ("png", "svg", "state"):
        shown.view.receive({"ask": "keep", "what": what})
    (png, [picture]), (svg, [drawing]), (state, _) = sent
    assert picture.startswith(b"\x89PNG") and b"<svg" in drawing and not list(tmp_path.iterdir())
    shown.state.edits = []
    shown.view.receive({"ask": "load", "state": state["text"]})
    assert shown.state.edits == [edit("drop", 2, 3)]
    for wrong in ("{", '{"selected": "gone.mp4"}', '{"edits": [{"kind": "burn"}]}', "[]"):
        shown.view.receive({"ask": "load", "state": wrong})
        assert shown.view.panel.status["state"] == "error" and shown.state.selected == SHAKE
    shown.state.edits = []


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Moving something from left to right", "Moving something from left to\nright"),
        ("Moving " * 20, "Moving Moving Moving Moving\nMoving Moving Moving Moving…"),
    ],
)
def test_class_names_in_the_picture_take_two_lines_before_they_are_cut(session, monkeypatch, name, lines):
    monkeypatch.setattr(session, "class_names", [name] * 20)
    answer = draw_state(session, InspectorState(selected=SHAKE)).axes[1]
    assert {label.get_text().removesuffix(" (true)") for label in answer.get_yticklabels()} == {lines}


def test_the_code_opens_the_same_state_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(FOLDER)
    made = inspect("checkpoints/sda_tsn_moves.safetensors", "moves_sample", reading="loss")
    made.state.edits = [edit("uniform")]
    code = made.code()
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(code.replace("\ninspector\n", "\n"), "code", "exec"), found)
    assert found["inspector"].state.to_json() == made.state.to_json()
    with pytest.raises(SettingError):
        inspect(made.session.network.model, [FILE]).code()


# ---- Work in steps


def test_jobs_go_by_urgency_and_a_new_one_takes_the_place_of_the_old():
    done = []
    work = Background()

    def steps(name, count):
        for i in range(count):
            done.append(f"{name}{i}")
            yield i

    work.start("late", steps("late", 2), urgency=5)
    work.start("soon", steps("old", 2), urgency=1)
    work.step()
    work.start("soon", steps("soon", 2), urgency=1)
    work.drain()
    assert done == ["old0", "soon0", "soon1", "late0", "late1"]
    ended = []
    work.start("bad", (1 / 0 for _ in range(1)), ended=ended.append)
    work.drain()
    assert isinstance(ended[0], ZeroDivisionError)


def test_nothing_is_computed_before_somebody_looks():
    async def main():
        work = Background()
        work.start("early", iter([1]))
        await asyncio.sleep(0.05)
        waiting = list(work.jobs)
        work.go()
        await asyncio.sleep(0.05)
        return waiting, work.jobs

    assert asyncio.run(main()) == (["early"], {})


def test_a_message_in_another_thread_waits_for_the_step_that_is_made(shown):
    view = shown.view
    entered = threading.Event()
    order = []

    def slow():
        entered.set()
        time.sleep(0.1)
        order.append("step")
        yield

    view.background.start("slow", slow(), urgency=-1)
    other = threading.Thread(target=view.background.step)
    other.start()
    entered.wait(5)
    view.trying("scene", lambda: order.append("message"))
    other.join()
    assert order == ["step", "message"]


def test_work_on_a_loop_leaves_it_time():
    async def main():
        work = Background()
        work.go()
        turns = 0
        work.start("long", (time.sleep(0.01) for _ in range(20)))
        while work.jobs:
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(main()) > 3


def test_unknown_questions_and_messages_do_no_harm(shown):
    shown.view.receive({"ask": "question", "name": "why"})
    assert shown.view.panel.status["state"] == "error"
    for message in ("text", None, {"ask": "burn"}, {"ask": "upload"}, {"ask": "thumbs", "ids": ["gone"]}):
        shown.view.receive(message)
    with pytest.raises(UnknownNameError):
        shown.session.clips.check("gone.mp4")
