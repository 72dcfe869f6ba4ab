"""What a person changes: one meaning, one name, the numbers of the library, and the same at random."""

import json

import numpy as np
import pytest
import torch
from traitlets import TraitError

from sda.assets import CHECKPOINTS, DEFAULT_MODEL, SAMPLE_CLIPS
from sda.explaining import interventions
from sda.explaining.answers import logits_of
from sda.foundation.errors import SdaError, SettingError, UnknownNameError
from sda.inspector import InspectorState
from sda.inspector.edits import (
    at_random,
    changed_weights,
    check_edits,
    edit,
    edits_key,
    in_words,
    meaning,
    told,
    variant,
)
from sda.inspector.opening import open_session
from sda.networks.backbones import create_model, sda_blocks
from sda.networks.blocks import DEPENDENCIES

CLIP = SAMPLE_CLIPS / "img/test_0000_shake.mp4"
KEYS = [  # the front-end makes the same texts, see tests/browser
    ([], "[]"),
    ([edit("drop", 2, 3)], '[{"kind":"drop","block":2,"dependency":3}]'),
    ([edit("frames", value="reversed"), edit("drop", None, 0)] * 2,
     '[{"kind":"drop","dependency":0},{"kind":"frames","value":"reversed"}]'),
    ([edit("weight", 0, 1, 0.30000001), edit("weight", 0, 2, 1.0), edit("weight", 0, 3, 0)],
     '[{"kind":"weight","block":0,"dependency":1,"value":0.3},'
     '{"kind":"weight","block":0,"dependency":2,"value":1},{"kind":"weight","block":0,"dependency":3,"value":0}]'),
]  # fmt: skip


@pytest.fixture(scope="module")
def session():
    return open_session(DEFAULT_MODEL, CLIP)


@pytest.mark.parametrize("edits, key", KEYS)
def test_the_name_of_edits_does_not_depend_on_their_order(edits, key):
    assert edits_key(edits) == edits_key(edits[::-1]) == key
    assert edits_key(json.loads(key)) == key, "null fields may be left out"


@pytest.mark.parametrize(
    "wrong",
    [
        "drop",
        ["drop"],
        [{"kind": "burn"}],
        [{"kind": "drop", "block": 4, "dependency": 0}],
        [{"kind": "drop", "block": -1, "dependency": 0}],
        [{"kind": "drop", "block": True, "dependency": 0}],
        [{"kind": "drop", "block": 0, "dependency": "LT"}],
        [{"kind": "only", "block": 0}],
        [{"kind": "weight", "block": 0, "dependency": 0, "value": float("nan")}],
        [{"kind": "weight", "block": 0, "dependency": 0, "value": 1.5}],
        [{"kind": "frames", "value": "shuffled 3"}],
        [{"kind": "deal", "block": 0, "value": 1}],
    ],
)
def test_edits_that_cannot_be_are_refused(wrong):
    with pytest.raises(SdaError):
        check_edits(wrong, 4)


def test_edits_answer_as_the_interventions_of_the_library(session):
    """Each by itself and all in one batch, whose copies do not meet."""
    names = list(session.network.blocks)
    same = [
        (edit("drop", 2, 3), interventions.drop("S122", where=names[2])),
        (edit("drop", None, 1), interventions.drop("LT")),
        (edit("only", 1, 0), interventions.keep("LST", where=names[1])),
        (edit("uniform"), interventions.uniform()),
        (edit("uniform", 3), interventions.uniform(names[3])),
        (edit("frames", value="reversed"), interventions.reverse()),
        (edit("frames", value="shuffled"), interventions.shuffle()),
        (edit("frames", value="frozen"), interventions.freeze()),
        (edit("frames", value="blurred"), interventions.blur()),
    ]
    clip_id = "test_0000_shake.mp4"
    views = session.views(clip_id)
    for _ in session.answering(clip_id, [[], *([one] for one, _ in same)], controls=False):
        pass
    alone = [logits_of(session.network.model, views[None], change)[0] for _, change in same]
    found = [session.known(clip_id, [one]) for one, _ in same]
    np.testing.assert_allclose(found, alone, atol=2e-4)
    session.compute(clip_id, [edit("drop", 0, 0)])
    before = interventions.drop("LST", where=names[0])
    one = session.known(clip_id, [edit("drop", 0, 0)])
    np.testing.assert_allclose(one, logits_of(session.network.model, views[None], before)[0], atol=2e-4)


def test_what_a_plan_makes_of_weights():
    own = torch.tensor([[0.1, 0.2, 0.3, 0.4]])

    def changed(*edits):
        return changed_weights(own, told(edits, 0, DEPENDENCIES), "layer1.0")[0].tolist()

    assert told([], 0, DEPENDENCIES) is None, "nothing is touched"
    assert changed(edit("weight", 0, 0, 0.5)) == pytest.approx([0.5, 1 / 9, 1 / 6, 2 / 9])
    assert changed(edit("weight", 0, 0, 0.5), edit("drop", 0, 3)) == pytest.approx(
        [9 / 14, 1 / 7, 3 / 14, 0], abs=1e-6
    )
    assert changed(edit("weight", 0, 0, 1), edit("weight", None, 1, 1)) == pytest.approx([0.5, 0.5, 0, 0])
    assert changed(edit("only", 0, 0), edit("only", 0, 1)) == pytest.approx([1 / 3, 2 / 3, 0, 0])
    assert changed(*(edit("drop", None, d) for d in range(4))) == [0, 0, 0, 0], "nothing is added"
    assert told([edit("drop", 1, 0)], 0, DEPENDENCIES) is None, "another block"
    few = told([edit("drop", None, 0), edit("drop", None, 1)], 0, ("LT", "S122"))
    assert few.gone == (True, False), "what a block lacks is not left out of it"


def test_what_a_plan_makes_of_independent_gates():
    own, wide = torch.tensor([[0.1, 0, 0.2, 0]]), (0.25, 0.3, 0.2, 0.1)

    def changed(*edits):
        return changed_weights(own, told(edits, 0, DEPENDENCIES), "layer1.0", wide)[0].tolist()

    assert changed(edit("open", 0, 1)) == pytest.approx([0.1, 0.3, 0.2, 0]), "the others stay"
    assert changed(edit("weight", 0, 0, 0.05)) == pytest.approx([0.05, 0, 0.2, 0])
    assert changed(edit("drop", 0, 0)) == pytest.approx([0, 0, 0.3, 0]), "nothing shut opens"
    assert changed(edit("drop", 0, 1)) == pytest.approx(own[0].tolist())
    assert changed(edit("only", 0, 3)) == [0, 0, 0, 0]
    assert changed(edit("open", 0, 3), edit("only", 0, 3)) == pytest.approx([0, 0, 0, 0.4])
    assert changed(edit("uniform")) == pytest.approx(list(wide))


def test_what_is_closed_changes_nothing_until_it_is_opened():
    """Of the shipped network with gates."""
    gated = open_session(CHECKPOINTS / "sda_tsn_moves_gated.safetensors", CLIP, draws=2)
    clip_id = gated.clips.ids()[0]
    closed = gated.closed(clip_id)
    b, d = np.argwhere(closed)[-1].tolist()
    shut, opened = [edit("drop", b, d)], [edit("open", b, d)]
    assert gated.known(clip_id, shut) is gated.known(clip_id, []), "no pass is made for it"
    assert gated.answer(clip_id, shut)["change"] == 0
    model, views, block = gated.network.model, gated.views(clip_id)[None], gated.network.blocks
    name = list(block)[b]
    alone = logits_of(model, views, interventions.drop(DEPENDENCIES[d], where=name))[0]
    np.testing.assert_allclose(gated.known(clip_id, []), alone, atol=1e-4)
    moved = [edit("frames", value="reversed"), *shut]
    assert gated.meant(clip_id, moved) != gated.meant(clip_id, moved[:1]), "other frames may open it"
    for _ in gated.answering(clip_id, [opened]):
        pass

    def wide_open(module, args, weights):
        weights[:, d] = block[name].attention.scale[d] / 4
        return weights

    handle = block[name].hook_weights.register_forward_hook(wide_open)
    expected = logits_of(model, views)[0]
    handle.remove()
    np.testing.assert_allclose(gated.known(clip_id, opened), expected, atol=1e-4)
    assert gated.answer(clip_id, opened)["control"]["n"] == 2


def test_lists_that_come_to_the_same_are_answered_once(session):
    blocks = session.network.blocks
    three = [edit("drop", 1, d) for d in (0, 1, 2)]
    assert meaning(three, blocks) == meaning([edit("only", 1, 3)], blocks)
    assert meaning([edit("drop", b, 2) for b in range(4)], blocks) == meaning([edit("drop", None, 2)], blocks)
    assert meaning(three, blocks) != meaning(three[:2], blocks)


def test_controls_are_as_large_stay_in_their_blocks_and_come_again():
    blocks = sda_blocks(create_model("sda_tsn_tiny", 3, 8))
    asked = [edit("drop", 2, 3), edit("weight", 1, 0, 0.9)]
    lots = [at_random(asked, seed, blocks, 8) for seed in range(40)]
    assert lots == [at_random(asked, seed, blocks, 8) for seed in range(40)]
    assert all(
        sorted((one["kind"], one["block"]) for one in lot) == [("drop", 2), ("weight", 1)] for lot in lots
    )
    assert {one["dependency"] for lot in lots for one in lot if one["kind"] == "drop"} == {0, 1, 2, 3}
    everywhere = at_random([edit("drop", None, 1)], 0, blocks, 8)
    assert [one["block"] for one in everywhere] == [0, 1, 2, 3]
    assert everywhere == at_random([edit("drop", None, 3)], 0, blocks, 8), "shared by changes of one size"
    own = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    dealt = at_random([edit("uniform", 0)], 3, blocks, 8)
    asked = told(dealt, 0, DEPENDENCIES)
    assert sorted(changed_weights(own, asked, next(iter(blocks)))[0].tolist()) == own[0].tolist()
    frames = {
        at_random([edit("frames", value="reversed")], seed, blocks, 8)[0]["value"] for seed in range(10)
    }
    assert len(frames) == 10 and "shuffled 0" not in frames


def test_a_network_whose_blocks_make_two_selections_a_clip(session):
    model = create_model("sda_tsn_tiny", 3, 8, split=4).eval()
    clips = session.views("test_0000_shake.mp4")[None]
    asked = variant([edit("drop", None, 0)], sda_blocks(model))
    alone = logits_of(model, clips, interventions.drop("LST"))
    np.testing.assert_allclose(logits_of(model, clips, *asked), alone, atol=1e-4)


def test_words():
    said = in_words([edit("drop", 2, 3), edit("frames", value="reversed")], ["a", "b", "layer3.0"])
    assert said == "without S122 in layer3.0, frames reversed" and in_words([], []) == "as it is"


def test_a_state_survives_json_and_refuses_what_cannot_be():
    state = InspectorState(selected="a", edits=[edit("drop", 2, 3)], beside={"clip": "b", "frames": "frozen"})
    state.filters = {"text": "<b>", "classes": [1], "right": None, "sort": "margin"}
    again = InspectorState()
    again.load_json(state.to_json())
    assert again.to_json() == state.to_json()
    for text, error in (
        ("{", SettingError),
        ("[]", SettingError),
        ('{"selectd": "a"}', UnknownNameError),
        ('{"selected": "z", "reading": "effect"}', TraitError),
        ('{"selected": "z", "beside": {"frames": "burnt"}}', UnknownNameError),
        ('{"selected": "z", "filters": {"right": "yes"}}', TraitError),
    ):
        with pytest.raises(error):
            again.load_json(text)
    assert again.to_json() == state.to_json(), "all of it or nothing"


def test_edits_are_taken_back_one_by_one():
    state = InspectorState(edits=[edit("drop", 2, 3), edit("uniform")])
    state.undo()
    assert state.edits == [edit("drop", 2, 3)]
    state.undo()
    with pytest.raises(SettingError):
        state.undo()
