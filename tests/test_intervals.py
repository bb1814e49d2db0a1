"""Bootstrap intervals against a plain loop, known distributions and hand-made cases."""

import numpy as np
import pytest

from eval import intervals
from eval.metrics import area_under_risk_coverage

NAN = float("nan")


def plain(values: list[float], clusters: list[int], resamples: int, seed: int) -> tuple[float, float]:
    """The same bootstrap, one draw at a time."""
    documents = sorted(set(clusters))
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(documents), len(documents))
        cases = [
            value
            for place in drawn
            for value, owner in zip(values, clusters, strict=True)
            if owner == documents[place]
        ]
        means.append(sum(cases) / len(cases))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_means_equal_a_plain_loop() -> None:
    values, clusters = [1.0, 0.0, 0.5, 1.0, 0.0, 0.25], [7, 7, 3, 3, 3, 9]
    (estimate,) = intervals.estimate_means(np.array([values]).T, np.array(clusters), resamples=200, seed=5)
    assert estimate.n == 6
    assert estimate.mean == pytest.approx(2.75 / 6)
    assert (estimate.low, estimate.high) == pytest.approx(plain(values, clusters, 200, 5))


def test_what_does_not_apply_is_left_out_and_not_zero() -> None:
    values = np.array([[1.0, NAN], [1.0, 0.5], [NAN, NAN], [1.0, 1.0]])
    first, second = intervals.estimate_means(values, np.array([0, 1, 2, 3]))
    assert (first.mean, first.n, first.low, first.high) == (1.0, 3, 1.0, 1.0)
    assert (second.mean, second.n) == (0.75, 2)


def test_nothing_to_average_is_null() -> None:
    (estimate,) = intervals.estimate_means(np.array([[NAN], [NAN]]), np.array([0, 1]))
    assert estimate == intervals.Estimate(None, 0, None, None)
    assert intervals.estimate_means(np.empty((0, 1)), np.empty(0, np.int64)) == [estimate]


def test_one_document_has_no_interval() -> None:
    (estimate,) = intervals.estimate_means(np.array([[1.0], [0.0]]), np.array([4, 4]))
    assert estimate == intervals.Estimate(0.5, 2, None, None)


def test_clustering_widens_the_interval() -> None:
    # 20 documents with 10 cases that all succeed or all fail: as uncertain as 20 cases.
    values = np.repeat([0.0, 1.0] * 10, 10)[:, None]
    (clustered,) = intervals.estimate_means(values, np.repeat(np.arange(20), 10))
    (apart,) = intervals.estimate_means(values, np.arange(200))
    assert clustered.low is not None
    assert clustered.high is not None
    assert apart.low is not None
    assert apart.high is not None
    assert clustered.high - clustered.low > 2.5 * (apart.high - apart.low)
    # The normal approximation for 20 fair coins: 0.5 ± 1.96 * 0.5 / sqrt(20).
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, abs=0.06)


def test_a_statistic_that_is_a_mean_gets_the_interval_of_the_mean() -> None:
    values, clusters = np.array([1.0, 0.0, NAN, 1.0, 0.5]), np.array([0, 0, 1, 2, 3])
    (wanted,) = intervals.estimate_means(values[[0, 1, 3, 4], None], clusters[[0, 1, 3, 4]])
    found = intervals.estimate_statistic(intervals.mean_of(values[[0, 1, 3, 4]]), clusters[[0, 1, 3, 4]])
    assert (found.mean, found.low, found.high) == pytest.approx((wanted.mean, wanted.low, wanted.high))


def test_an_aggregate_is_drawn_by_document_too() -> None:
    confidence, loss = np.linspace(1, 0, 40), np.tile([0.0, 1.0], 20)
    found = intervals.estimate_statistic(
        lambda weights: area_under_risk_coverage(confidence, loss, weights), np.arange(40)
    )
    assert found.mean is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high


def test_the_same_twice() -> None:
    values, clusters = np.random.default_rng(0).random((300, 4)), np.arange(300) % 41
    assert intervals.estimate_means(values, clusters) == intervals.estimate_means(values, clusters)


def test_comparing_a_run_with_itself_finds_nothing() -> None:
    run = intervals.mean_of(np.array([1.0, 0.0, 1.0, NAN]))
    found = intervals.compare(run, run, np.array([0, 1, 2, 3]))
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_small_steady_gain_is_seen_through_large_differences_between_cases() -> None:
    hard = np.random.default_rng(1).random(200)
    found = intervals.compare(intervals.mean_of(hard), intervals.mean_of(hard + 0.01), np.arange(200))
    assert found.difference == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01)
    assert found.p is not None
    assert found.p < 0.01


def test_no_cases_in_common() -> None:
    run = intervals.mean_of(np.empty(0))
    assert intervals.compare(run, run, np.empty(0, np.int64)).difference is None


def test_the_p_value_counts_both_tails() -> None:
    assert intervals.two_sided([1.0] * 99) == pytest.approx(2 / 100)
    assert intervals.two_sided([-1.0, 1.0]) == 1.0
