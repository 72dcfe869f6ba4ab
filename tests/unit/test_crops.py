"""Named crops: where they cut, and which of them are mirrored."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sda.data.crops import MultiCrop, named_crops
from sda.data.transforms import denormalise
from sda.foundation.errors import UnknownNameError


@settings(max_examples=10, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.sampled_from(sorted(named_crops())))
def test_every_crop_fits_every_frame(height, width, name):
    crops = MultiCrop(name)
    out, label = crops(torch.zeros(1, height, width, 3, dtype=torch.uint8), 2)
    layout = named_crops()[name]
    assert out.shape == (layout.count, 3, layout.size, layout.size) and label == 2
    assert len(crops.mirrored) == layout.count


def test_three_crops_are_left_right_centre():
    ramp = torch.arange(340).clamp(max=255).to(torch.uint8).view(1, 1, 340, 1).expand(1, 256, 340, 3)
    crops = MultiCrop("3x256")
    assert denormalise(crops(ramp)[0], crops.mean, crops.std)[:, 0, 0, 0].tolist() == [0, 84, 42]


def test_the_second_half_of_ten_crops_is_mirrored():
    crops = MultiCrop("10x224")
    clip = torch.randint(256, (2, 256, 300, 3), generator=torch.Generator().manual_seed(0))
    out = crops(clip.to(torch.uint8))[0].unflatten(0, (10, 2))
    assert crops.mirrored == (False,) * 5 + (True,) * 5 and torch.equal(out[5:], out[:5].flip(-1))
    assert not any(MultiCrop("5x224").mirrored)


def test_names_scale_with_the_sizes():
    crops = MultiCrop("3x64", resize=72, size=64)
    assert crops(torch.zeros(2, 72, 96, 3, dtype=torch.uint8))[0].shape == (6, 3, 64, 64)
    small = MultiCrop("10x64", resize=72, size=64)
    assert repr(small) != repr(MultiCrop("10x64", resize=80, size=64)), (
        "a test that goes on must tell them apart"
    )
    with pytest.raises(UnknownNameError) as error:
        MultiCrop("3x256to224", resize=72, size=64)
    assert set(error.value.choices) == set(named_crops(72, 64)) and "3x72to64" in error.value.remedy
