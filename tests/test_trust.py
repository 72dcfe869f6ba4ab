"""Trust: known curves, masks and maps give known numbers; bad input is explained."""
import numpy as np
import pytest
import torch

from sda.backbones import create_model
from sda.trace import trace_clips
from sda.trust import curve_areas, deletion_insertion, map_agreement, pointing_game, seed_agreement


class Bright(torch.nn.Module):
    """Class 1 when the top left corner of frame 0 is bright."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.))

    def forward(self, clips):
        return self.scale * torch.stack([torch.full((len(clips),), .3), clips[:, 0, 0, :4, :4].mean((1, 2))], 1)


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
    right = curve_areas(deletion_insertion(Bright(), clips, true_map(), steps=8, grid=8, draws=4, fill="mean"))
    wrong = curve_areas(deletion_insertion(Bright(), clips, -true_map(), steps=8, grid=8, draws=4, fill="mean"))
    assert right.loc["map", "low"] > .1 and wrong.loc["map", "high"] < -.1


def test_over_frames(clips):
    curves = deletion_insertion(Bright(), clips, true_map(), over="frames", draws=1)
    fall = curves[(curves.order == "map") & (curves.curve == "deletion")].groupby("share").probability.mean()
    assert fall.iloc[0] > .99 and (fall.iloc[1:] < .01).all()  # frame 0 is the only one that counts


def test_pointing_and_agreement():
    masks = np.zeros((3, 4, 32, 32), bool)
    masks[:, 0, :8, :8] = True
    found = pointing_game(true_map(), masks)
    assert (found.point == 1).all() and (found.energy > .9).all() and np.allclose(found.area, 1 / 64)
    assert (pointing_game(true_map()[:, ::-1], masks).point == 0).all()
    assert np.isnan(map_agreement(np.zeros((1, 2, 2, 2)), np.ones((1, 2, 2, 2)))).all()


def test_seed_agreement():
    clips, traces = torch.randn(4, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        traces[f"seed {seed}"] = trace_clips(create_model("sda_tsn_tiny", 4, num_frames=4).eval(), clips)
    table = seed_agreement(traces, draws=10)
    assert len(table) == 5 * 4 and (table.n == 4).all() and table.rho.between(-1, 1).all()
    with pytest.raises(ValueError, match="same network"): seed_agreement({"a": traces["seed 0"], "b": traces["seed 0"]})


def test_bad_maps(clips):
    with pytest.raises(ValueError, match="do not fit"): deletion_insertion(Bright(), clips, true_map()[:, :3])
    with pytest.raises(ValueError, match="not finite"): deletion_insertion(Bright(), clips, true_map() * np.nan)
    with pytest.raises(ValueError, match="unknown over"): deletion_insertion(Bright(), clips, true_map(), over="time")
    with pytest.raises(ValueError, match="at least 1"): deletion_insertion(Bright(), clips, true_map(), steps=0)
