"""Clips are treated as one: geometry, labels and numbers."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sda.data.transforms import (
    TransformConfig,
    centre_crop,
    crop_places,
    crop_shapes,
    cut_clips,
    denormalise,
    flip_map,
    mirror_name,
    multi_scale_crop,
    normalise,
    random_crop,
    resize_clip,
    resize_short,
    to_float,
)
from sda.foundation.errors import SettingError, UnknownNameError


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(frames=4, height=72, width=96):
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=seeded(0))


@settings(max_examples=200, deadline=None)
@given(st.integers(32, 700), st.integers(32, 700), st.integers(32, 256))
def test_every_multi_scale_crop_lies_inside(height, width, size):
    for h, w in crop_shapes(height, width, size):
        assert 0 < h <= height and 0 < w <= width
        places = crop_places(height, width, h, w)
        assert len(places) == 13 and all(
            0 <= top <= height - h and 0 <= left <= width - w for top, left in places
        )


def test_shapes_are_tsn_s():
    sides = crop_shapes(240, 320, 224)
    assert len(sides) == 10 and {s for pair in sides for s in pair} == {240, 210, 180, 158}
    assert {s for pair in crop_shapes(256, 340, 224) for s in pair} == {256, 224, 192, 168}
    assert {s for pair in crop_shapes(255, 340, 224) for s in pair} == {
        255,
        224,
        191,
        168,
    }  # 223 snaps to the input size


@pytest.mark.parametrize(
    "config",
    [
        TransformConfig(size=48, resize=56),
        TransformConfig(size=64, resize=None, crop="random", colour="permute"),
        TransformConfig(size=64, resize=64, crop="centre"),
        TransformConfig(size=48, resize=64, crop="resized"),
        TransformConfig(size=64, resize=64, crop="random", colour="jitter", erase=0.5),
        TransformConfig(size=64, resize=64, crop="centre", rand_augment=15),
        TransformConfig(size=48, resize=64, crop="resized", colour="jitter", rand_augment=30, erase=1.0),
    ],
)
def test_frames_of_a_clip_are_treated_alike(config):
    clip = noise(1).expand(6, -1, -1, -1)
    for seed in range(6):
        out, _ = config.train(["a", "b"])(clip, 0, seeded(seed))
        assert out.shape == (6, 3, config.size, config.size) and out.dtype == torch.float32
        assert torch.equal(out, out[:1].expand_as(out)) and torch.isfinite(out).all() and out.is_contiguous()
        assert torch.equal(out, config.train(["a", "b"])(clip, 0, seeded(seed))[0])


def test_inputs_are_left_alone():
    clip = noise()
    before = clip.clone()
    for config in (
        TransformConfig(size=48, resize=64, colour="permute"),
        TransformConfig(size=64, resize=None, crop="random"),
    ):
        config.train(["left", "right"])(clip, 0, seeded(1))
        config.test()(clip, 0)
    assert torch.equal(clip, before)


@pytest.mark.parametrize(
    "change", [dict(crop="resized"), dict(colour="jitter"), dict(rand_augment=9), dict(erase=1.0)]
)
def test_borrowed_augmentations_hear_the_generator_only(change):
    clip = noise(3, 64, 64)
    train = TransformConfig(**dict(size=64, resize=64, crop="centre", flip=False) | change).train(["a"])
    torch.manual_seed(1)
    one = train(clip, 0, seeded(5))[0]
    state = torch.get_rng_state()
    torch.manual_seed(2)
    two = train(clip, 0, seeded(5))[0]
    after = torch.get_rng_state()
    torch.manual_seed(2)
    assert (
        torch.equal(one, two) and torch.equal(after, torch.get_rng_state()) and not torch.equal(state, after)
    )
    assert len({train(clip, 0, seeded(s))[0].sum().item() for s in range(12)}) > 3


def test_erased_pixels_are_zero_for_the_network():
    config = TransformConfig(size=64, resize=64, crop="centre", flip=False, erase=1.0)
    out = config.train(["a"])(torch.full((2, 64, 64, 3), 250, dtype=torch.uint8), 0, seeded(0))[0]
    share = (out.abs() < 0.02).all(1).float().mean((1, 2))
    assert 0.01 < share[0] < 0.4 and share[0] == share[1]


@pytest.mark.parametrize(
    "config",
    [
        TransformConfig(size=48, resize=56),
        TransformConfig(size=64, resize=None, crop="random", colour="permute"),
        TransformConfig(size=64, resize=64, crop="centre", colour="jitter", erase=0.5),
    ],
)
def test_bytes_and_their_affine_step_are_the_same_floats(config):
    clips = [noise(3), noise(3).flip(2)]
    for transform in (config.train(["left", "right"]), config.test()):
        whole = torch.stack([transform(c, 0, seeded(4))[0] for c in clips])
        parts = [transform.pixels(c, 0, seeded(4)) for c in clips]
        pixels, _, scale, shift = zip(*parts, strict=True)
        assert pixels[0].dtype == torch.uint8
        assert torch.equal(to_float(torch.stack(pixels), torch.stack(scale), torch.stack(shift)), whole)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 4), st.integers(2, 5))
def test_cutmix_shares_are_areas(seed, alpha, count):
    torch.manual_seed(seed)
    clips = torch.arange(float(count)).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 12, 17)
    before = clips.clone()
    mixed, partners, share = cut_clips(clips, torch.arange(count), alpha)
    assert sorted(partners.tolist()) == list(range(count)) and 0 <= share <= 1 and torch.equal(clips, before)
    shown = mixed.flatten(1)
    for k in range(count):
        if partners[k] != k:
            assert (shown[k] == k).float().mean().item() == pytest.approx(share, abs=1e-5)
        assert set(shown[k].tolist()) <= {float(k), float(partners[k])}


def test_permutation_with_no_strength_only_reorders():
    config = TransformConfig(size=72, resize=None, crop="centre", flip=False, colour="permute", strength=0.0)
    clip = noise(2, 72, 72)
    orders = set()
    for seed in range(60):
        back = denormalise(config.train(["a"])(clip, 0, seeded(seed))[0], config.mean, config.std)
        order = [next(c for c in range(3) if torch.equal(back[..., i], clip[..., c])) for i in range(3)]
        orders.add(tuple(order))
    assert len(orders) == 6


def test_gain_and_offset_stay_within_the_strength():
    config = TransformConfig(
        size=64, resize=None, crop="centre", flip=False, colour="permute", mean=(0, 0, 0), std=(1, 1, 1)
    )
    dark, light = (torch.full((1, 64, 64, 3), v, dtype=torch.uint8) for v in (0, 255))
    for seed in range(50):
        low, high = (config.train(["a"])(c, 0, seeded(seed))[0][0, :, 0, 0] for c in (dark, light))
        assert (low.abs() <= 0.1001).all() and ((high - low - 1).abs() <= 0.2001).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_normalising_is_undone_exactly(seed):
    clip = torch.randint(0, 256, (2, 9, 11, 3), dtype=torch.uint8, generator=seeded(seed))
    config = TransformConfig()
    assert torch.equal(denormalise(normalise(clip, config.mean, config.std), config.mean, config.std), clip)


def test_something_something_pairs_by_name():
    names = [
        "Pulling something from left to right",
        "Pulling something from right to left",
        "Pushing something so it falls upright",
        "Pushing something from left to right",
        "Pushing something from right to left",
        "pulling it right out",
        "Turning the camera left while filming something",
        "Turning the camera right while filming something",
    ]
    assert flip_map(names) == {0: 1, 1: 0, 3: 4, 4: 3, 6: 7, 7: 6}
    shuffled = names[::-1]
    by_name = [{n[a]: n[b] for a, b in flip_map(n).items()} for n in (names, shuffled)]
    assert by_name[0] == by_name[1]


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_mirroring_a_name_twice_gives_it_back(name):
    if name.lower() == name:
        assert mirror_name(mirror_name(name)) == name


def test_flips_follow_the_label():
    config = TransformConfig(size=64, resize=None, crop="centre", mean=(0, 0, 0), std=(1, 1, 1))
    clip = noise(1, 64, 64)
    train = config.train(["moving left", "moving right", "waiting"])
    seen = set()
    for seed in range(30):
        for label in range(3):
            out, new = train(clip, label, seeded(seed))
            mirrored = torch.equal(denormalise(out, config.mean, config.std), clip.flip(2))
            assert new == ({0: 1, 1: 0, 2: 2}[label] if mirrored else label)
            seen.add(mirrored)
    assert seen == {True, False}


def test_resizing_and_crops():
    clip = noise(2, 60, 90)
    assert resize_short(clip, 30).shape == (2, 30, 45, 3) and resize_short(
        clip.transpose(1, 2), 30
    ).shape == (2, 45, 30, 3)
    assert resize_clip(clip, 64, 64).dtype == torch.uint8
    assert torch.equal(centre_crop(clip, 40), clip[:, 10:50, 25:65])
    assert random_crop(clip, 60, seeded(0)).shape == (2, 60, 60, 3)
    assert multi_scale_crop(clip, 33, generator=seeded(0)).shape == (2, 33, 33, 3)
    test, label = TransformConfig(size=224, resize=256).test()(noise(2, 100, 176), 5)
    assert test.shape == (2, 3, 224, 224) and label == 5


def test_errors():
    with pytest.raises(SettingError) as error:
        random_crop(noise(1, 60, 90), 61)
    assert error.value.subject == "61x61" and "90x60" in str(error.value)
    for values in (
        dict(resize=200, size=224),
        dict(size=16),
        dict(rand_augment=40),
        dict(erase=1.5),
        dict(area=(0.5, 0.1)),
    ):
        with pytest.raises(SettingError) as error:
            TransformConfig(**values)
        assert error.value.subject == next(iter(values))
    for name, word, near in (("crop", "randon", "random"), ("colour", "jiter", "jitter")):
        with pytest.raises(UnknownNameError) as error:
            TransformConfig(**{name: word})
        assert error.value.subject == word and repr(near) in error.value.remedy
    config = TransformConfig(size=64, resize=None, crop="random", colour="permute", rand_augment=3)
    old = {k: v for k, v in TransformConfig().to_dict().items() if k not in ("area", "rand_augment", "erase")}
    assert TransformConfig.from_dict(old) == TransformConfig()  # model files written before these fields
    assert TransformConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("shape", [(4, 40, 56, 3), (2, 3, 40, 56, 3), (2, 3, 2, 40, 56, 3)])
def test_both_layouts_and_used_memory_hold_the_same_numbers(shape):
    """Bytes as a clip, a batch and a batch of views; contiguous, mirrored, and over what was there before."""
    g = torch.Generator().manual_seed(0)
    bytes_ = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
    scale, shift = torch.rand((2, 3) if len(shape) == 4 else (2, shape[0], 3), generator=g)
    for clip in (bytes_, bytes_.flip(-2), bytes_[..., 3:35, 5:50, :]):
        wide = (*scale.shape[:-1], *[1] * (clip.ndim - scale.ndim), 3)
        wanted = (clip.float() * scale.view(wide) + shift.view(wide)).movedim(-1, -3)
        plain = to_float(clip, scale, shift)
        last = to_float(clip, scale, shift, channels_last=True)
        assert torch.equal(plain, wanted) and torch.equal(last, wanted) and plain.is_contiguous()
        assert last.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)
        for kind, old in ((False, plain), (True, last)):
            again = to_float(clip.flip(-3), scale, shift, kind, old)
            assert again is old and torch.equal(again, wanted.flip(-2))
            assert to_float(clip, scale, shift, not kind, old) is not old  # the other layout: new memory
