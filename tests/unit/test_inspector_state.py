"""What the inspector looks at, without a panel: the table of clips, its filters, the state, the actions."""

import numpy as np
import pytest
from notebooks import ROOT
from traitlets import TraitError

from sda.assets import DEFAULT_MODEL
from sda.foundation.errors import SettingError, UnknownNameError
from sda.inspector import InspectorState, find_clips
from sda.inspector.figures import draw
from sda.inspector.provider import chosen_of, open_provider, video_suffix
from sda.inspector.session import Session
from sda.inspector.state import ACTIONS, make_intervention

FOLDER = ROOT / "sda/assets/moves_sample"
CLIP = "test_0000_swing.mp4"


@pytest.fixture(scope="module")
def provider():
    return open_provider(FOLDER, DEFAULT_MODEL)[0]


@pytest.fixture
def session(provider):
    return Session(provider)


def test_filters_keep_what_fits_every_condition(provider):
    trace = provider.trace
    names = trace.class_names
    assert len(find_clips(trace)) == 20
    assert find_clips(trace, true=names[0], predicted=names[19]).empty
    assert len(find_clips(trace, outcome="right")) + len(find_clips(trace, outcome="wrong")) == 20
    assert find_clips(trace, text="SWING").true.item() == "Swinging something slowly"
    assert find_clips(trace, sort="entropy").entropy.is_monotonic_increasing
    assert set(find_clips(trace, dominant="LT").dominant) <= {"LT"}


def test_filters_that_cannot_be_are_refused(provider):
    with pytest.raises(UnknownNameError) as told:
        find_clips(provider.trace, true="Shaking something")
    assert "Shaking something fast" in told.value.choices
    with pytest.raises(SettingError):
        find_clips(provider.trace, sort="effect")  # nothing was measured


def test_a_state_goes_through_json():
    state = InspectorState(clip_id="swing", view="contribution", filters={"outcome": "wrong"})
    again = InspectorState()
    again.load_json(state.to_json())
    assert again.to_json() == state.to_json() and again.view == "contribution"


@pytest.mark.parametrize(
    "text, error",
    [
        ('{"opacty": 1}', UnknownNameError),
        ("clip_id = swing", SettingError),
        ("[1, 2]", SettingError),
        ('{"frame": 3, "scale": "mine"}', TraitError),
    ],
)
def test_a_state_that_cannot_be_changes_nothing(text, error):
    state = InspectorState()
    before = state.to_json()
    with pytest.raises(error):
        state.load_json(text)
    assert state.to_json() == before


@pytest.mark.parametrize(
    "name, value", [("weights", [0.5, 0.5, 0.5, -0.5]), ("view", "importance"), ("opacity", 2.0)]
)
def test_settings_have_a_range(name, value):
    with pytest.raises(TraitError):
        setattr(InspectorState(), name, value)


def test_every_action_is_an_intervention(provider):
    trace = provider.trace
    own = (trace, trace.class_names[0])
    lender = (trace, trace.videos[0])
    assert all(make_intervention(action, own=own, lender=lender) for action in ACTIONS)
    with pytest.raises(SettingError):
        make_intervention("weights of clip B")
    with pytest.raises(SettingError):
        make_intervention("weights of its class", own=(trace, None))
    with pytest.raises(UnknownNameError):
        make_intervention("drop LTT")


def test_what_a_clip_selected(provider):
    chosen = chosen_of(provider.trace, CLIP)
    assert np.allclose(chosen.weights.sum(1), 1) and np.isclose(chosen.probabilities.sum(), 1)
    assert chosen.views == 1
    with pytest.raises(UnknownNameError) as told:
        chosen_of(provider.trace, "swing.mp4")
    assert CLIP in told.value.choices


def test_a_clip_is_shown_as_the_network_sees_it(provider):
    seen = provider.seen(provider.ids()[0])
    assert 20 < seen.frames.mean() < 235  # pictures, not white paper
    assert seen.frames.shape == (8, 64, 64, 3) and len(seen.indices[0]) == len(seen.times) == 8
    assert seen.label == 0 and (np.diff(seen.times) > 0).all()


def test_the_kind_of_a_video_is_read_from_its_bytes():
    assert video_suffix("swing", (FOLDER / "img" / CLIP).read_bytes()) == ".mp4"
    packet = b"\x47" + bytes(187)
    assert video_suffix("camcorder.mts", (bytes(4) + packet) * 3) == ".m2ts"
    assert video_suffix("recording.ts", packet * 3) == ".ts"
    with pytest.raises(SettingError):
        video_suffix("text.ts", b"G is a letter" * 30)


def test_pictures_that_cannot_be_drawn_say_why(provider, session):
    with pytest.raises(UnknownNameError):
        draw(provider, session.state, "stripe")
    for state, panel in ((InspectorState(), "strip"), (session.state, "compare")):
        with pytest.raises(SettingError):
            draw(provider, state, panel)
    with pytest.raises(SettingError):
        session.figure("trust")


def test_walking_through_the_clips(session):
    first = session.state.clip_id
    session.move(-1)
    session.move(+1)
    assert session.state.clip_id == first
    with pytest.raises(UnknownNameError):
        session.choose("test_0000_swings.mp4")
    session.filter(text="no such clip")
    assert session.count.startswith("No clip fits") and session.state.clip_id == ""
    session.reset()
    session.preset("same selection, different class")
    assert session.state.compare_id not in ("", session.state.clip_id)


def test_who_observes_a_session_learns_of_other_data_when_it_is_all_there(session, monkeypatch):
    monkeypatch.setattr(session.provider, "close", lambda: None)  # other tests look into it
    session.filter(text="swing")
    told = []
    session.observe(lambda change: told.append((session.state.filters, len(session.table))), "provider")
    session.open(str(FOLDER), str(DEFAULT_MODEL))
    assert told == [({}, 20)] and session.state.clip_id == session.table.video[0]
