"""Properties of every strategy, and the published conventions by their published numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sda.data.sampling import SAMPLERS, Sampling, get_sampler, register_sampler, sample_segments
from sda.foundation.errors import SettingError, UnknownNameError


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SAMPLERS)),
    st.integers(1, 2000),
    st.integers(1, 64),
    st.booleans(),
    st.integers(0, 99),
)
def test_frames_exist_and_come_back_with_the_seed(name, total, frames, random, seed):
    views = Sampling(name, frames, 2 if name == "twice" else 1).indices(total, random, seeded(seed))
    assert len(views) == (1 if random or name != "twice" else 2)
    assert all(len(view) == frames and 0 <= min(view) and max(view) < total for view in views)
    again = Sampling(name, frames, 2 if name == "twice" else 1).indices(total, random, seeded(seed))
    assert views == again
    if "legacy" not in name:
        assert all(view == sorted(view) for view in views)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.integers(1, 32), st.booleans(), st.integers(0, 99))
def test_segments_keep_to_their_segment(total, frames, random, seed):
    chosen = sample_segments(total, frames, random, seeded(seed))
    step = total / frames
    if total >= frames:
        length = total // frames if random else step
        assert all(i * length - 1 < c < (i + 1) * length + 1e-9 for i, c in enumerate(chosen))
        assert len(set(chosen)) == frames
    elif not random:
        assert set(chosen) == set(range(total))  # every frame of a short clip is seen


def one_based(name, total, frames=8, **kwargs):
    return [i + 1 for i in get_sampler(name)(total, frames, **kwargs)[0]]


def test_published_numbers():
    assert one_based("segments", 40) == [3, 8, 13, 18, 23, 28, 33, 38]
    assert one_based("uniform", 40) == [3, 8, 13, 18, 23, 27, 32, 37]
    assert one_based("uniform", 12) == [1, 3, 4, 6, 7, 8, 10, 11]
    assert one_based("segments_legacy", 8) == [1] * 8 and one_based("segments", 8) == list(range(1, 9))
    centres, starts = get_sampler("twice")(40, 8)
    assert [i + 1 for i in centres] == [3, 8, 13, 18, 23, 28, 33, 38] and [i + 1 for i in starts] == list(
        range(1, 37, 5)
    )


@pytest.mark.parametrize("frames", [8, 16])
def test_centres_are_those_of_the_float_formula(frames):
    for total in range(1, 400):
        step = total / frames
        assert sample_segments(total, frames) == [int(step / 2 + step * i) for i in range(frames)]


@pytest.mark.parametrize("frames", [8, 16])
def test_legacy_validation_differs_exactly_up_to_the_clip_length(frames):
    different = [
        n
        for n in range(1, 400)
        if one_based("segments", n, frames) != one_based("segments_legacy", n, frames)
    ]
    assert different == list(range(2, frames + 1))


def test_tail_of_training():
    def reach(name, total, frames):
        g = seeded(0)
        return max(max(get_sampler(name)(total, frames, True, g)[0]) for _ in range(300))

    assert (
        reach("segments", 47, 8) == 39 and reach("segments", 47, 16) == 31 and reach("segments", 63, 16) == 47
    )
    assert reach("segments_tail", 47, 8) == 46 and reach("segments_tail", 63, 16) == 62


def test_dense_windows():
    assert get_sampler("dense")(164, 8, views=3) == [[s + 8 * i for i in range(8)] for s in (0, 50, 100)]
    g = seeded(0)
    assert {get_sampler("dense")(65, 8, True, g)[0][0] for _ in range(60)} == {
        0,
        1,
    }  # the last start is drawn
    assert {get_sampler("dense_legacy")(65, 8, True, g, 1)[0][0] for _ in range(60)} == {0}
    assert get_sampler("dense")(40, 8)[0] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert len(get_sampler("dense_legacy")(40, 8)) == 10


def test_training_draws_every_frame_of_a_segment():
    g = seeded(1)
    drawn = torch.tensor([sample_segments(40, 8, True, g) for _ in range(400)])
    for i in range(8):
        assert set(drawn[:, i].tolist()) == set(range(5 * i, 5 * i + 5))


def test_errors():
    with pytest.raises(UnknownNameError) as error:
        get_sampler("segment_tail")
    assert error.value.subject == "segment_tail" and "'segments_tail'" in error.value.remedy
    for call, subject, remedy in (
        (lambda: sample_segments(0, 8), "total", None),
        (lambda: Sampling(num_frames=0), "num_frames", None),
        (lambda: Sampling("segments", 8, 3).indices(40), "views", "set views=1"),
        (lambda: register_sampler("dense")(print), "dense", "choose another name"),
    ):
        with pytest.raises(SettingError) as error:
            call()
        assert (error.value.subject, error.value.remedy) == (subject, remedy)
    with pytest.raises(TypeError):
        Sampling.from_dict({"strategies": "dense"})
    assert Sampling.from_dict(Sampling("dense", 16, 4).to_dict()) == Sampling("dense", 16, 4)


def test_seconds():
    seconds = get_sampler("seconds")
    assert (
        seconds(150, 8, fps=12)[0] == list(range(64, 86, 3))
        and seconds(150, 8, fps=12, views=3)[2][-1] == 149
    )
    assert len({seconds(150, 8, True, seeded(s), fps=12)[0][0] for s in range(40)}) > 20  # random starts
    assert seconds(20, 8, fps=12)[0] == sample_segments(20, 8)  # shorter than the span
    kept = Sampling("seconds", 4, step=0.5, fps=12.0)
    assert Sampling.from_dict(kept.to_dict()) == kept and kept.indices(60) == [[20, 26, 32, 38]]
    assert kept.indices(60, times=[i / 24 for i in range(60)]) == [
        [11, 23, 35, 47]
    ]  # the clock wins over fps
    assert set(Sampling().to_dict()) == {
        "strategy",
        "num_frames",
        "views",
    }  # other model files stay as they were
    with pytest.raises(SettingError) as error:
        kept.indices(60, times=range(59))
    assert error.value.subject == "times" and "59" in str(error.value) and "60" in str(error.value)
    with pytest.raises(SettingError) as error:
        Sampling("seconds", fps=0)
    assert error.value.subject == "fps"


def test_the_published_still_picture_is_no_second_view():
    with pytest.raises(SettingError) as error:
        Sampling("segments_legacy", 8, 2).indices(5)
    assert (error.value.subject, error.value.remedy) == ("views", "set views=1")
