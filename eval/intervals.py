"""95% intervals by a bootstrap over documents.

Cases on one document succeed and fail together, so documents are drawn, not cases (Field & Welsh, JRSS-B
2007). Two runs on the same cases are compared under the same draws (paired bootstrap, Efron & Tibshirani,
ch. 16), so that what is hard for both cancels out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Statistic = Callable[[Floats], float | None]
"""From how often each case was drawn, of shape (n,), to a figure; None where it isn't defined."""

RESAMPLES = 1000
SEED = 20_250_101
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over `n` cases with its 95% interval; None where there is nothing to take it over.

    The interval needs two documents at least.
    """

    mean: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """`after` less `before` over `n` shared cases; `p` is two-sided, for there being no difference."""

    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def estimate_means(
    values: Floats, clusters: Integers, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Estimate]:
    """One estimate a column of `values`, of shape (n, m), in which NaN is "doesn't apply".

    `clusters` of shape (n,) numbers each case's document. A mean is over the cases it applies to, and only
    their documents are drawn.
    """
    estimates: list[Estimate | None] = [None] * values.shape[1]
    applies = ~np.isnan(values)
    for columns in _alike(applies):
        rows = applies[:, columns[0]]
        for column, estimate in zip(
            columns,
            _estimate_alike(values[rows][:, columns], clusters[rows], resamples, seed),
            strict=True,
        ):
            estimates[column] = estimate
    return [estimate for estimate in estimates if estimate is not None]


def _alike(applies: NDArray[np.bool_]) -> list[list[int]]:
    """Columns that apply to the same cases: these share their draws."""
    groups: dict[bytes, list[int]] = {}
    for column in range(applies.shape[1]):
        groups.setdefault(np.packbits(applies[:, column]).tobytes(), []).append(column)
    return list(groups.values())


def _estimate_alike(values: Floats, clusters: Integers, resamples: int, seed: int) -> list[Estimate]:
    n, columns = values.shape
    if not n:
        return [Estimate(None, 0, None, None)] * columns
    means = values.mean(axis=0)
    documents, owner = np.unique(clusters, return_inverse=True)
    if len(documents) < 2:
        return [Estimate(float(mean), n, None, None) for mean in means]
    sums = np.zeros((len(documents), columns))
    np.add.at(sums, owner, values)
    sizes = np.bincount(owner, minlength=len(documents)).astype(np.float64)
    drawn = np.concatenate(
        [(draws @ sums) / (draws @ sizes)[:, None] for draws in _draws(len(documents), resamples, seed)]
    )
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return [Estimate(float(means[i]), n, float(low[i]), float(high[i])) for i in range(columns)]


def _draws(documents: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each document is drawn: blocks of shape (b, documents), `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK_CELLS // documents))
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        drawn = generator.integers(0, documents, (rows, documents))
        drawn += np.arange(rows)[:, None] * documents
        counts = np.bincount(drawn.ravel(), minlength=rows * documents)
        yield counts.reshape(rows, documents).astype(np.float64)


def estimate_statistic(
    statistic: Statistic,
    clusters: Integers,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """The same for a figure that isn't a mean; `clusters` has shape (n,)."""
    n = len(clusters)
    figure = statistic(np.ones(n)) if n else None
    if figure is None:
        return Estimate(None, 0, None, None)
    drawn = [
        value
        for weights in _case_draws(clusters, resamples, seed)
        if (value := statistic(weights)) is not None
    ]
    if len(drawn) < 2 or len(np.unique(clusters)) < 2:
        return Estimate(figure, n, None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(figure, n, float(low), float(high))


def _case_draws(clusters: Integers, resamples: int, seed: int) -> Iterator[Floats]:
    documents, owner = np.unique(clusters, return_inverse=True)
    for block in _draws(len(documents), resamples, seed):
        for draw in block:
            yield draw[owner]


def mean_of(values: Floats) -> Statistic:
    """The weighted mean of `values`, of shape (n,), over those that aren't NaN."""
    applies = ~np.isnan(values)
    known = np.where(applies, values, 0.0)

    def mean(weights: Floats) -> float | None:
        total = float(weights @ applies)
        return float(weights @ known) / total if total else None

    return mean


def compare(
    before: Statistic,
    after: Statistic,
    clusters: Integers,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Two runs' figures over the same cases, in the same order, under the same draws."""
    n = len(clusters)
    first, second = (before(np.ones(n)), after(np.ones(n))) if n else (None, None)
    if first is None or second is None:
        return Difference(first, second, None, None, None, None, n)
    drawn = [
        new - old
        for weights in _case_draws(clusters, resamples, seed)
        if (old := before(weights)) is not None and (new := after(weights)) is not None
    ]
    if len(drawn) < 2 or len(np.unique(clusters)) < 2:
        return Difference(first, second, second - first, None, None, None, n)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(first, second, second - first, float(low), float(high), two_sided(drawn), n)


def two_sided(differences: Sequence[float]) -> float:
    """Twice the smaller tail at zero, a draw of zero counting on both sides; at least 1/(draws + 1)."""
    draws = np.asarray(differences)
    tail = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))
