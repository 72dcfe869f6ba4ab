"""Properties of samplers and list files that hold for any input; `derandomize` makes runs the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sda.data.lists import read_list
from sda.data.sampling import SAMPLERS, Sampling, get_sampler
from sda.foundation.errors import DataError

STRATEGIES = sorted(SAMPLERS)
NAMES = ["a", "b", "c"]
totals = st.integers(1, 5000)
frames = st.integers(1, 64)
seeds = st.integers(0, 2**32)


def tidy(name):
    return "/".join(" ".join(part.split()) for part in name.split("/") if part.strip())  # no doubled blanks


names = st.text(alphabet="abcZ019 _-/é", min_size=1, max_size=20).map(tidy)
rows = st.lists(
    st.tuples(names.filter(bool).map(lambda n: "v" + n + "x"), st.integers(1, 999), st.integers(0, 2)),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)


def bounded(cases):
    return settings(max_examples=cases, deadline=None, derandomize=True, database=None)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drawn(name, total, count, random, seed, views):
    """Frames of every view; fixed strategies say their own number of views."""
    own = {"twice": 2, "segments": 1, "segments_tail": 1, "segments_legacy": 1, "uniform": 1}.get(name, views)
    return get_sampler(name)(
        total, count, random, seeded(seed), views if random else own
    ), views if random else own


@pytest.mark.parametrize("name", STRATEGIES)
def test_any_strategy(name):
    @bounded(60)
    @given(totals, frames, st.integers(1, 6), st.booleans(), seeds)
    def check(total, count, views, random, seed):
        got, expected = drawn(name, total, count, random, seed, views)
        assert len(got) == expected and all(len(view) == count for view in got)
        assert all(type(i) is int and 0 <= i < total for view in got for i in view)
        if name != "dense_legacy":
            assert all(view == sorted(view) for view in got)  # it wraps, as published
        assert got == drawn(name, total, count, random, seed, views)[0]
        if not random:
            assert got == drawn(name, total, count, random, seed + 1, views)[0]

    check()


@bounded(60)
@given(totals, frames, st.booleans(), seeds)
def test_legacy_is_the_published_formula(total, count, random, seed):
    u = torch.rand(count, generator=seeded(seed), dtype=torch.float64).tolist()
    if random:
        step = total // count
        expected = [i * step + int(x * step) for i, x in enumerate(u)] if step else [0] * count
    else:
        expected = [((2 * i + 1) * total) // (2 * count) if total > count else 0 for i in range(count)]
    assert get_sampler("segments_legacy")(total, count, random, seeded(seed)) == [expected]
    span = max(1, 1 + total - 64)
    stride = 64 // count
    starts = [int(x) for x in torch.linspace(0, span - 1, 10, dtype=torch.float64).add(1e-9)]
    assert get_sampler("dense_legacy")(total, count) == [
        [(s + i * stride) % total for i in range(count)] for s in starts
    ]


@bounded(80)
@given(totals, frames, st.floats(0.01, 3), st.floats(1, 120), st.booleans(), seeds)
def test_seconds_keep_their_step(total, count, step, fps, random, seed):
    (got,) = Sampling("seconds", count, step=step, fps=fps).indices(total, random, seeded(seed))
    if (total - 1) / fps < (count - 1) * step:  # shorter than the span: spread
        assert got == get_sampler("segments")(total, count, random, seeded(seed))[0]
        if total >= count:
            assert len(set(got)) == count
    else:
        assert all(abs(b - a - step * fps) < 1.001 for a, b in zip(got, got[1:], strict=False))


@bounded(60)
@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=80), frames, st.floats(0.01, 1), st.booleans(), seeds
)
def test_seconds_follow_a_clock_that_varies(gaps, count, step, random, seed):
    times = torch.tensor([0, *gaps], dtype=torch.float64).cumsum(0).tolist()
    (got,) = Sampling("seconds", count, step=step).indices(len(times), random, seeded(seed), times)
    if times[-1] >= (count - 1) * step:  # the frame shown is at most its own duration old
        ends = [*times[1:], times[-1] + 1e9]
        for i, a in enumerate(got):
            assert times[a] - times[got[0]] <= i * step + ends[got[0]] - times[got[0]] + 1e-6
            assert ends[a] - times[got[0]] >= i * step - 1e-6
    assert got == sorted(got) and 0 <= got[0] and got[-1] < len(times)


@bounded(60)
@given(rows, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_lists_survive_editors(tmp_path_factory, rows, bom, end, last):
    file = tmp_path_factory.getbasetemp() / "list.txt"
    text = end.join(f"{name} {count} {label}" for name, count, label in rows) + end * last
    file.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    records = read_list(file, file.parent, NAMES, offsets=False)
    assert [(r.id, r.num_frames, r.label) for r in records] == rows
    assert all(r.path == str(file.parent / name) for r, (name, *_) in zip(records, rows, strict=True))


BAD = [
    "alone",
    "clip 3",
    "clip x 1",
    "clip 8 -1",
    "clip 8 1.5",
    "clip 0 1",
    "clip 8 3",
    "../clip 8 1",
    "/clip 8 1",
]


@bounded(60)
@given(rows, st.integers(0, 8), st.sampled_from(BAD), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_a_bad_line_is_named_with_its_number(tmp_path_factory, rows, place, bad, bom, end):
    file = tmp_path_factory.getbasetemp() / "bad.txt"
    lines = [f"{name} {count} {label}" for name, count, label in rows]
    place = min(place, len(lines))
    lines.insert(place, bad)
    file.write_bytes(end.join(lines).encode("utf-8-sig" if bom else "utf-8"))
    with pytest.raises(DataError) as caught:
        read_list(file, file.parent, NAMES, offsets=False)
    assert str(caught.value).startswith(f"{file}:{place + 1}: ") and "\n" not in str(caught.value)
