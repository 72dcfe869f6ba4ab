"""Faithfulness: known curves, masks and maps give known numbers; the record of the study holds together."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hooks import hooks

from sda.explaining.agreement import seed_agreement
from sda.explaining.faithfulness import (
    curve_areas,
    curve_words,
    deletion_insertion,
    map_agreement,
    norm_maps,
    pointing_game,
)
from sda.explaining.trace import trace_clips
from sda.figures.effects import fig_curves
from sda.foundation.errors import SettingError, UnknownNameError
from sda.networks.backbones import create_model

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"


class Bright(torch.nn.Module):
    """Class 1 when the top left corner of frame 0 is bright."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.0))

    def forward(self, clips):
        return self.scale * torch.stack(
            [torch.full((len(clips),), 0.3), clips[:, 0, 0, :4, :4].mean((1, 2))], 1
        )


@pytest.fixture(scope="module")
def clips():
    clips = torch.zeros(3, 4, 3, 32, 32)
    clips[:, 0, :, :4, :4] = 1
    return clips


def true_map():
    maps = np.zeros((3, 4, 8, 8))
    maps[:, 0, 0, 0] = 1
    return maps


def test_the_right_map_beats_random_and_the_wrong_one_does_not(clips):
    right = curve_areas(
        deletion_insertion(Bright(), clips, true_map(), steps=8, grid=8, draws=4, fill="mean")
    )
    wrong = curve_areas(
        deletion_insertion(Bright(), clips, -true_map(), steps=8, grid=8, draws=4, fill="mean")
    )
    assert right.loc["map", "low"] > 0.1 and wrong.loc["map", "high"] < -0.1


def test_several_maps_share_their_controls(clips):
    both = deletion_insertion(
        Bright(), clips, {"right": true_map(), "wrong": -true_map()}, steps=4, grid=8, fill="mean"
    )
    alone = deletion_insertion(Bright(), clips, true_map(), steps=4, grid=8, fill="mean")
    table = curve_areas(both)
    single = curve_areas(alone)
    assert list(table.index) == ["right", "wrong", "centre", "random"]
    assert table.loc["right"].equals(single.loc["map"].rename("right")) and table.loc["centre"].equals(
        single.loc["centre"]
    )
    assert "matter more than random" in curve_words(
        both, "right"
    ) and "matter less than random" in curve_words(both, "wrong")
    assert [t.get_text() for t in fig_curves(both).axes[1].get_legend().get_texts()] == list(table.index)
    for maps, subject in (({"centre": true_map()}, "centre"), ({}, "maps")):
        with pytest.raises(SettingError) as error:
            deletion_insertion(Bright(), clips, maps)
        assert error.value.subject == subject


def test_activation_is_the_length_of_the_features(clips):
    torch.manual_seed(0)
    model = create_model("tsn_tiny", 4, num_frames=4).eval()
    with torch.no_grad():
        features = model.layer1(
            torch.nn.functional.max_pool2d(torch.relu(model.bn1(model.conv1(clips.flatten(0, 1)))), 3, 2, 1),
            4,
        )
    found = norm_maps(model, clips, "layer1", batch_size=2)
    assert np.allclose(found, features.square().sum(1).sqrt().unflatten(0, (3, 4)), atol=1e-5)
    assert hooks(model) == 0
    with pytest.raises(UnknownNameError) as error:
        norm_maps(model, clips, "layer_1")
    assert error.value.subject == "layer_1" and "'layer1'" in error.value.remedy


def test_the_record_of_the_study_and_its_arrays_agree():
    record = json.loads((RESULTS / "looking.json").read_text())
    arrays = np.load(RESULTS / "looking.npz")
    parts = record["parts"]
    assert sum(part["cpu_seconds"] for part in parts.values()) < 480 and record["machine"]["cpu"]
    assert sum((RESULTS / f"looking.{kind}").stat().st_size for kind in ("json", "npz")) < 300_000
    shares = pd.DataFrame(parts["shares"]["shapley"]).query(
        "reading == 'pair probability' and `class` == 'all'"
    )
    assert np.allclose(
        shares["mean"], np.nanmean(arrays["shapley_pair_probability"].astype(float), 0), atol=1e-3
    )
    everywhere = pd.DataFrame(parts["coalitions"]["changes"]).set_index(["reading", "change"])["mean"][
        "pair probability"
    ]
    assert shares["mean"].sum() == pytest.approx(
        -everywhere["no dependency"], abs=2e-3
    )  # shares add up: all minus none
    blocks = pd.DataFrame(parts["blocks"]["blocks"]).query("reading == 'pair probability'")["mean"].to_numpy()
    assert np.allclose(
        -blocks.reshape(4, 4), np.nanmean(arrays["block_pair_probability"].astype(float), 0), atol=1e-3
    )
    for part in parts.values():
        for table in (
            pd.DataFrame(t) for t in part.values() if isinstance(t, dict) and isinstance(t.get("n"), list)
        ):
            if {"mean", "low", "high"} <= set(table):
                assert (table.dropna().eval("low <= mean <= high")).all()


def test_over_frames(clips):
    curves = deletion_insertion(Bright(), clips, true_map(), over="frames", draws=1)
    fall = curves[(curves.order == "map") & (curves.curve == "deletion")].groupby("share").probability.mean()
    assert fall.iloc[0] > 0.99 and (fall.iloc[1:] < 0.01).all()  # frame 0 is the only one that counts


def test_pointing_and_agreement():
    masks = np.zeros((3, 4, 32, 32), bool)
    masks[:, 0, :8, :8] = True
    found = pointing_game(true_map(), masks)
    assert (found.point == 1).all() and (found.energy > 0.9).all() and np.allclose(found.area, 1 / 64)
    assert (pointing_game(true_map()[:, ::-1], masks).point == 0).all()
    assert np.isnan(map_agreement(np.zeros((1, 2, 2, 2)), np.ones((1, 2, 2, 2)))).all()


def test_seed_agreement():
    clips = torch.randn(4, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    traces = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        traces[f"seed {seed}"] = trace_clips(create_model("sda_tsn_tiny", 4, num_frames=4).eval(), clips)
    table = seed_agreement(traces, draws=10)
    assert len(table) == 5 * 4 and (table.n == 4).all() and table.rho.between(-1, 1).all()
    with pytest.raises(SettingError) as error:
        seed_agreement({"a": traces["seed 0"], "b": traces["seed 0"]})
    assert error.value.subject == "b"


def test_bad_maps(clips):
    with pytest.raises(SettingError) as error:
        deletion_insertion(Bright(), clips, true_map()[:, :3])
    assert error.value.subject == "map" and "per frame" in error.value.remedy
    with pytest.raises(SettingError) as error:
        deletion_insertion(Bright(), clips, true_map() * np.nan)
    assert error.value.subject == "map" and not error.value.remedy
    with pytest.raises(UnknownNameError) as error:
        deletion_insertion(Bright(), clips, true_map(), over="time")
    assert error.value.subject == "time" and error.value.choices == ("space", "frames")
    with pytest.raises(SettingError) as error:
        deletion_insertion(Bright(), clips, true_map(), steps=0)
    assert error.value.subject == "steps"
