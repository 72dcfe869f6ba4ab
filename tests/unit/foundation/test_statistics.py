"""Statistics against values computed by hand and against the plain definitions."""

import math

import numpy as np
import pytest

from sda.foundation.errors import DataError, SettingError
from sda.foundation.statistics import (
    auc,
    bootstrap_interval,
    mcnemar,
    mean_interval,
    rank_correlation,
    rank_rows,
    softmax,
    spearman,
    t_interval,
    wilson_interval,
)


def test_softmax():
    assert softmax([[0.0, math.log(3)]])[0].tolist() == pytest.approx([0.25, 0.75])
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]
    assert softmax(np.zeros((2, 4), np.float32)).dtype == np.float32


def test_wilson_interval():
    low, high = wilson_interval(8, 10)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178))  # by the formula, with z = 1.959964
    assert wilson_interval(0, 5)[0] == 0
    assert wilson_interval(5, 5)[1] == 1
    assert wilson_interval(np.int64(8), 10, level=0.5)[0] > low


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_no_share_no_interval(hits, n):
    with pytest.raises(DataError):
        wilson_interval(hits, n)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_a_probability(level):
    with pytest.raises(SettingError):
        wilson_interval(1, 2, level)
    with pytest.raises(SettingError):
        t_interval([1, 2], level)
    with pytest.raises(SettingError):
        bootstrap_interval([1.0, 2], level=level)


def test_mcnemar():
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)


def test_t_interval():
    mean, low, high = t_interval([1.0, 2.0, 3.0, np.nan])
    assert (mean, low, high) == pytest.approx((2, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert np.isnan(t_interval([])).tolist() == [True, True, True]
    assert np.isnan(t_interval([4.0])).tolist() == [False, True, True]


def test_a_bootstrap_draws_whole_rows():
    values = np.random.default_rng(1).normal(size=(7, 3, 2))
    picks = np.random.default_rng(5).integers(0, 7, (200, 7))
    known = np.percentile(values[picks].mean(1), [2.5, 97.5], axis=0)
    assert (bootstrap_interval(values, draws=200, seed=5) == known).all()


def test_a_bootstrap_of_another_statistic():
    values = np.random.default_rng(1).normal(size=9)
    picks = np.random.default_rng(0).integers(0, 9, (1000, 9))
    known = np.percentile(np.median(values[picks], axis=1), [5, 95])
    assert (bootstrap_interval(values, lambda drawn: np.median(drawn, axis=1), level=0.9) == known).all()


def test_a_bootstrap_by_counts():
    values = np.random.default_rng(1).normal(size=(7, 3))
    numbers = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), 1000)
    known = np.percentile(numbers @ values / 7, [2.5, 97.5], axis=0)
    assert bootstrap_interval(values, counts=np.ones(7)) == pytest.approx(known)
    gains = np.random.default_rng(0).multinomial(10, np.array([1, 3, 6]) / 10, 50)
    known = np.quantile((gains[:, 1] - gains[:, 0]) / 10, [0.025, 0.975])
    assert (bootstrap_interval([-1, 1, 0], counts=[1, 3, 6], draws=50) == known).all()
    with pytest.raises(SettingError):
        bootstrap_interval([1.0, 2.0], np.median, counts=[1, 1])


def test_a_generator_goes_on():
    rng = np.random.default_rng(0)
    values = np.arange(20.0)
    first, second = bootstrap_interval(values, seed=rng), bootstrap_interval(values, seed=rng)
    assert (first == bootstrap_interval(values)).all()
    assert (first != second).any()


def test_samples_without_a_number_are_left_out():
    some = bootstrap_interval([0.0, 1.0], lambda drawn: np.where(drawn.sum(1) > 0, drawn.mean(1), np.nan))
    assert some.tolist() == [0.5, 1]
    assert np.isnan(bootstrap_interval([0.0, 1.0], lambda drawn: np.full(len(drawn), np.nan))).all()
    with pytest.raises(DataError):
        bootstrap_interval([])


def test_mean_interval():
    low, high = mean_interval([1.0, np.nan, 3.0, 2.0], draws=100, seed=2)
    picks = np.random.default_rng(2).integers(0, 3, (100, 3))
    assert [low, high] == np.percentile(np.array([1.0, 3.0, 2.0])[picks].mean(1), [2.5, 97.5]).tolist()
    assert np.isnan(mean_interval([1.0, np.nan])).all()


def test_ranks():
    assert rank_rows([[3, 1, 3], [5, 6, 4]]).tolist() == [[2.5, 1, 2.5], [2, 3, 1]]
    assert np.isnan(rank_rows([2.0, np.nan, 1.0])).tolist() == [False, True, False]
    assert rank_rows([2.0, np.nan, 1.0])[[0, 2]].tolist() == [2, 1]


def test_spearman():
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([[1, 2, 3], [1, 1, 1]], [[6, 5, 4], [1, 2, 3]])[0] == -1
    assert np.isnan(spearman([[1, 2, 3], [1, 1, 1]], [[6, 5, 4], [1, 2, 3]])[1])
    assert np.isnan(spearman([1.0, np.nan, 3.0], [1.0, 2.0, 3.0]))
    assert isinstance(spearman([1, 2, 3], [1, 3, 2]), float)


def test_auc():
    assert auc([1, 2, 3], [False, False, True]) == 1
    assert auc([1, 2, 2], [False, False, True]) == 0.75
    assert auc([1, 1], [True, False]) == 0.5
    assert np.isnan(auc([1, 2], [True, True]))
    assert np.isnan(auc([1, 2], [False, False]))


def test_rank_correlation_over_clips():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    assert rank_correlation(a, np.exp(a)) == (1, 1, 1)
    rho, low, high = rank_correlation(a, rng.normal(size=200))
    assert low < 0 < high and low < rho < high
    assert np.isclose(rank_correlation([1, 2, 3, 4], [1, 2, 2, 4])[0], 0.9486833, atol=1e-6)  # ties
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3])).all(), "one side does not vary"
    pooled = rank_correlation(np.stack([a, a + 1], 1), np.stack([a, a + 1], 1))
    assert np.allclose(pooled, 1)
    for x, y in (([1, 2], [2, 1]), ([1, 2, 3], [1, 2])):
        with pytest.raises(DataError):
            rank_correlation(x, y)


def test_the_interval_of_a_mean_is_that_of_a_normal_distribution():
    values = np.random.default_rng(0).normal(size=400)
    ends = mean_interval(np.append(values, np.nan), draws=4000)
    half = 1.96 * values.std() / 20
    assert np.allclose(ends, [values.mean() - half, values.mean() + half], atol=0.01)
