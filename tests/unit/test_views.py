"""Named test views: where they cut, and what becomes of the scores of mirrored ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sda.data.crops import VIEWS, MultiCrop
from sda.data.datasets import ClipDataset
from sda.data.lists import Record
from sda.data.sampling import Sampling
from sda.data.transforms import denormalise

NAMES = ["pulling left", "pulling right", "resting"]


@settings(max_examples=10, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.sampled_from(sorted(VIEWS)))
def test_every_view_fits_every_frame(height, width, name):
    views = MultiCrop(name, NAMES)
    out, label = views(torch.zeros(1, height, width, 3, dtype=torch.uint8), 2)
    assert out.shape == (views.views, 3, VIEWS[name].size, VIEWS[name].size) and label == 2


def test_three_crops_are_left_right_centre():
    ramp = torch.arange(340).clamp(max=255).to(torch.uint8).view(1, 1, 340, 1).expand(1, 256, 340, 3)
    views = MultiCrop("3x256", NAMES)
    assert denormalise(views(ramp)[0], views.mean, views.std)[:, 0, 0, 0].tolist() == [0, 84, 42]


@pytest.mark.parametrize("clips", [1, 2])
def test_scores_of_mirrors_are_exchanged(tmp_path, clips):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :20] = 255
    (tmp_path / "a").mkdir()
    for k in range(8):
        Image.fromarray(picture).save(tmp_path / f"a/{k + 1:05d}.png")
    views = MultiCrop("10x224", NAMES)
    sampling = Sampling("twice" if clips == 2 else "segments", 2, clips)
    clip = ClipDataset([Record("a", str(tmp_path / "a"), 0)], NAMES, sampling, views)[0]["clip"]
    assert clip.shape == (10 * clips, 2, 3, 224, 224)
    left = clip[..., :112].mean((1, 2, 3, 4))
    right = clip[..., 112:].mean((1, 2, 3, 4))
    logits = views.scores(
        torch.stack([left - right, right - left, 0 * left], 1)
    )  # class 0: the light is on the left
    assert (logits[4 * clips : 5 * clips, 0] > 0.1).all()  # the centre
    torch.testing.assert_close(logits[: 5 * clips], logits[5 * clips :])


def test_names_scale_with_the_sizes():
    views = MultiCrop("3x64", NAMES, resize=72, size=64)
    assert views(torch.zeros(2, 72, 96, 3, dtype=torch.uint8))[0].shape == (6, 3, 64, 64)
    small, usual = (
        MultiCrop(name, NAMES, resize=r, size=s) for name, r, s in (("10x64", 72, 64), ("10x224", 256, 224))
    )
    assert small.views == usual.views == 10 and repr(small) != repr(
        MultiCrop("10x64", NAMES, resize=80, size=64)
    )
    with pytest.raises(ValueError, match="did you mean '3x72to64'"):
        MultiCrop("3x256to224", NAMES, resize=72, size=64)
