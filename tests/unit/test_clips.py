"""One way from a file or a record to what a network sees, whoever asks; mirrored views are put back."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sda.data.clips import ClipReader, put_back
from sda.data.datasets import ClipDataset
from sda.data.lists import Record
from sda.data.sampling import Sampling
from sda.data.sources import read_clip
from sda.data.transforms import TransformConfig, denormalise, flip_map
from sda.foundation.errors import SettingError, UnknownNameError, VideoError

NAMES = ["pulling left", "pulling right", "resting"]
CONFIG = TransformConfig(size=64, resize=72)
SAMPLING = Sampling("segments", 4)


def card(sampling=SAMPLING, transform=CONFIG):
    """What of a model's card says how clips are seen."""
    return SimpleNamespace(
        sampling=sampling.to_dict(), transform=transform.to_dict() if transform else {}, class_names=NAMES
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve frames of 72x96 pixels of noise under a light at the left."""
    path = tmp_path_factory.mktemp("clips") / "light"
    path.mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        picture = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
        picture[:, :30] = 200 + 4 * k
        Image.fromarray(picture).save(path / f"{k + 1:05d}.png")
    return path


def test_a_path_a_record_and_an_opened_video_are_seen_alike(folder):
    reader = ClipReader.from_card(card(), fps=10)
    by_path = reader(folder)
    by_record = reader(Record("light", str(folder), 1))
    by_video = reader(reader.open(folder))
    data = ClipDataset([Record("light", str(folder), 1)], NAMES, Sampling("segments", 4), CONFIG)
    assert by_path.clip.shape == (1, 4, 3, 64, 64) and by_path.indices == [[1, 4, 7, 10]]
    for other in (by_record.clip, by_video.clip, data[0]["clip"][None], data.load(0).clip):
        assert torch.equal(by_path.clip, other)
    assert (by_record.id, by_record.label) == ("light", 1) and by_path.label is None
    assert by_path.id == by_path.path == str(folder) and by_path.total == 12
    assert np.allclose(by_path.times, [0.1, 0.4, 0.7, 1.0]) and data.load(0).times is None


def test_people_are_shown_what_the_network_gets(folder):
    for transform in (CONFIG, TransformConfig(size=48, resize=50, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))):
        seen = ClipReader.from_card(card(transform=transform))(folder)
        back = denormalise(seen.clip[0], transform.mean, transform.std)
        assert seen.frames.dtype == np.uint8 and np.array_equal(seen.frames, back.numpy())


def test_a_part_is_seen_as_a_clip_of_its_own(folder):
    reader = ClipReader.from_card(card(), fps=10)
    part = reader(folder, span=(4, 12))
    record = reader(Record("part", str(folder), 0, num_frames=8, offset=4))
    assert torch.equal(part.clip, record.clip) and part.indices == record.indices == [[1, 3, 5, 7]]
    assert np.allclose(part.times, [0.5, 0.7, 0.9, 1.1]) and np.allclose(record.times, part.times)
    whole = read_clip(Record("light", str(folder), 0))
    assert torch.equal(read_clip(Record("part", str(folder), 0, 8, 4)), whole[4:])
    with pytest.raises(VideoError):
        reader(Record("long", str(folder), 0, num_frames=9, offset=4))


@pytest.mark.parametrize("without", ["card", "transform", "sampling"])
def test_a_card_that_does_not_say_how_is_refused(without):
    given = card()
    if without == "card":
        given = None
    else:
        setattr(given, without, {})
    with pytest.raises(SettingError):
        ClipReader.from_card(given)


def test_crops_and_clips_are_views_and_their_wrong_names_are_told(folder):
    reader = ClipReader.from_card(card(), crops="10x64", clips=2)
    seen = reader(folder)
    assert seen.clip.shape == (20, 4, 3, 64, 64) and len(seen.indices) == 2
    assert seen.mirrored == [False] * 10 + [True] * 10 == reader.mirrored
    assert torch.equal(seen.clip[10:], seen.clip[:10].flip(-1))
    with pytest.raises(UnknownNameError) as error:
        ClipReader.from_card(card(), crops="3x256")
    assert "3x64" in error.value.choices
    with pytest.raises(SettingError):
        ClipReader.from_card(card(), clips=3)
    with pytest.raises(SettingError):
        ClipReader.from_card(card(transform=TransformConfig(size=64, resize=None)), crops="3x64")


def test_two_clips_of_a_card_and_one_of_two(folder):
    one = ClipReader.from_card(card(), clips=2)
    two = ClipReader.from_card(card(Sampling("twice", 4, 2)))
    assert torch.equal(one(folder).clip, two(folder).clip)
    assert torch.equal(
        ClipReader.from_card(card(Sampling("twice", 4, 2)), clips=1)(folder).clip,
        ClipReader.from_card(card())(folder).clip,
    )


@pytest.mark.parametrize("clips", [1, 2])
def test_scores_of_mirrored_views_are_put_back(folder, clips):
    reader = ClipReader.from_card(card(), crops="10x64", clips=clips)
    clip = reader(folder).clip
    left = clip[..., :32].mean((1, 2, 3, 4))
    right = clip[..., 32:].mean((1, 2, 3, 4))
    logits = reader.put_back(torch.stack([left - right, right - left, 0 * left], 1))
    assert (logits[4 * clips : 5 * clips, 0] > 0.1).all()  # the centre: the light is on the left
    torch.testing.assert_close(logits[: 5 * clips], logits[5 * clips :])


def test_put_back_takes_batches_and_leaves_the_rest_alone():
    pairs = flip_map(NAMES)
    logits = torch.arange(12.0).view(2, 2, 3)
    found = put_back(logits, [False, True], pairs)
    assert found[:, 0].equal(logits[:, 0]) and found[:, 1].equal(logits[:, 1, [1, 0, 2]])
    each = put_back(logits, torch.tensor([[False, True], [True, False]]), pairs)
    assert each[0].equal(found[0]) and each[1, 0].equal(logits[1, 0, [1, 0, 2]])
    assert put_back(logits, [True, True], {}).equal(logits)
    assert put_back(logits, [False, False], pairs).equal(logits)
    with pytest.raises(SettingError):
        put_back(logits, [True], pairs)


def test_a_callable_of_ones_own_gives_numbers_and_no_pictures(folder):
    reader = ClipReader(lambda clip, label, generator: (clip.permute(0, 3, 1, 2) / 255, label), "segments")
    seen = reader(folder)
    assert seen.clip.shape == (1, 8, 3, 72, 96)
    with pytest.raises(SettingError):
        _ = seen.frames


def test_training_clips_are_drawn_from_their_generator(folder):
    reader = ClipReader(TransformConfig(size=48, resize=None, crop="random"), "segments", NAMES, train=True)
    record = Record("light", str(folder), 0)
    one, same, other = (reader(record, generator=torch.Generator().manual_seed(k)) for k in (0, 0, 1))
    assert torch.equal(one.clip, same.clip) and one.label == same.label
    assert not torch.equal(one.clip, other.clip)
    drawn = {reader(record, generator=torch.Generator().manual_seed(k)).label for k in range(12)}
    assert drawn == {0, 1}, "a mirrored training clip shows the other class"
