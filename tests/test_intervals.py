"""Intervals and tests against figures of the literature and against simulation."""
import math

import numpy as np
import pytest

from runtime.intervals import bootstrap, mcnemar, quantile, student, welch, wilson


def test_wilson_s_interval():
    """Figures from Newcombe, Statistics in Medicine 17 (1998) 857, table I: method 3."""
    for count, total, interval in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)),
                                   (1, 29, (0.0061, 0.1718))):
        assert wilson(count, total) == pytest.approx(interval, abs=5e-5)
    assert wilson(29, 29)[1] == pytest.approx(1) and wilson(0, 0) == [0, 1]


def test_the_bootstrap_interval_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap(values, seed=0)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert bootstrap(values, seed=0) == [low, high] != bootstrap(values, seed=1)
    assert bootstrap([1.0] * 5, seed=0) == [1, 1]


def test_mcnemar_s_exact_test():
    """2 P(X <= k) of a binomial distribution with p = 1/2, by hand."""
    assert mcnemar(0, 0) == mcnemar(3, 3) == mcnemar(4, 5) == 1
    assert mcnemar(0, 5) == mcnemar(5, 0) == 2 / 32
    assert mcnemar(1, 5) == 2 * (1 + 6) / 64
    assert mcnemar(2000, 2300) < 1e-4
    assert mcnemar(70, 90) == 2 * sum(math.comb(160, k) for k in range(71)) / 2**160


def test_student_s_quantiles():
    """Of the usual table, two-sided 95%; at a single degree of freedom it is a Cauchy distribution."""
    for freedom, t in ((1, 12.7062), (2, 4.30265), (5, 2.57058), (30, 2.04227), (1000, 1.96234)):
        assert quantile(freedom) == pytest.approx(t, rel=1e-5)
    assert quantile(2) < quantile(1.5) < quantile(1)


def test_the_interval_of_a_mean_of_three_seeds():
    assert student([0.8]) is None and student([0.8, 0.8, 0.8]) == pytest.approx([0.8, 0.8])
    half = 4.30265 * 0.01 / 3**0.5                                            # standard deviation 0.01
    assert student([0.79, 0.80, 0.81]) == pytest.approx([0.8 - half, 0.8 + half], rel=1e-5)


def test_welch_s_interval_of_a_difference():
    """Equal spreads: freedom 4 and the pooled interval. One without spread: that of the other alone."""
    half = 2.776445 * 0.01 * (2 / 3)**0.5
    assert welch([0.79, 0.80, 0.81], [0.89, 0.90, 0.91]) == pytest.approx([0.1 - half, 0.1 + half], rel=1e-4)
    half = 4.30265 * 0.01 / 3**0.5
    assert welch([0.5] * 3, [0.79, 0.80, 0.81]) == pytest.approx([0.3 - half, 0.3 + half], rel=1e-4)
    assert welch([0.5] * 2, [0.7] * 2) == pytest.approx([0.2, 0.2]) and welch([0.5], [0.7, 0.8]) is None
