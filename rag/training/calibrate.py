"""One confidence, one threshold: from outcomes on the dev sets to the calibration in `reader.json`.

The raw confidence of an answer is `(1 - P(abstain)) · P(answer's tokens)`, as the answerer computes it. Its
map to the probability of being right is isotonic (Zadrozny & Elkan 2002, by pooling adjacent violators), kept
as a few points. The reader abstains where `P(abstain)` reaches a threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rag.training.evaluate import Outcome

Floats = NDArray[np.float64]
RIGHT_F1 = 0.5
"""An answer counts as right where its F1 with a gold answer reaches this."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What goes into `reader.json`, and how well it holds on the outcomes that it was fitted on."""

    abstain_threshold: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of a reliability diagram: `n` answers of about the same confidence."""

    n: int
    confidence: float
    accuracy: float


def raw_confidence(outcomes: Sequence[Outcome]) -> Floats:
    """Of shape (n,), in 0–1."""
    return np.array([(1.0 - o.abstain_probability) * o.answer_probability for o in outcomes])


def is_right(outcome: Outcome) -> bool:
    """Whether the answer, if given, would have been right."""
    return outcome.answerable and outcome.f1 >= RIGHT_F1


def fit(outcomes: Sequence[Outcome]) -> Fitted:
    """Threshold and map on the short answers of the dev sets."""
    threshold = best_threshold(outcomes)
    answered = [o for o in outcomes if o.abstain_probability < threshold]
    right = np.array([is_right(o) for o in answered], dtype=np.float64)
    return Fitted(threshold, isotonic_points(raw_confidence(answered), right))


def best_threshold(outcomes: Sequence[Outcome], steps: int = 99) -> float:
    """The P(abstain) at which answerable and unanswerable questions together score best.

    The score is the mean of the sets' means of (HasAns F1 + NoAns abstained) / 2, so that neither kind of
    question and neither set outweighs the other.
    """
    candidates = np.linspace(0.01, 0.99, steps)
    scores = [_balanced(outcomes, float(threshold)) for threshold in candidates]
    # The middle of the best plateau rather than its edge, which is where chance put it.
    best = np.flatnonzero(np.array(scores) >= max(scores) - 1e-9)
    return round(float(candidates[best[len(best) // 2]]), 3)


def _balanced(outcomes: Sequence[Outcome], threshold: float) -> float:
    means = []
    for name in sorted({o.set for o in outcomes}):
        mine = [o for o in outcomes if o.set == name]
        has = [o.f1 if o.abstain_probability < threshold else 0.0 for o in mine if o.answerable]
        none = [o.abstain_probability >= threshold for o in mine if not o.answerable]
        means.append((float(np.mean(has)) + float(np.mean(none))) / 2)
    return float(np.mean(means))


def isotonic_points(raw: Floats, right: Floats, least: int = 25) -> tuple[tuple[float, float], ...]:
    """Rising (raw, probability) points; no block of fewer than `least` answers stands alone."""
    order = np.argsort(raw, kind="stable")
    chunks = np.array_split(order, max(1, len(order) // least))
    blocks: list[list[float]] = []
    for chunk in chunks:
        blocks.append([float(raw[chunk].mean()), float(right[chunk].mean()), float(len(chunk))])
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            last, before = blocks.pop(), blocks.pop()
            n = last[2] + before[2]
            blocks.append(
                [(a * last[2] + b * before[2]) / n for a, b in zip(last[:2], before[:2], strict=True)] + [n]
            )
    points = [(round(x, 4), round(y, 4)) for x, y, _ in blocks]
    return tuple(p for i, p in enumerate(points) if i == 0 or p[0] > points[i - 1][0])


def reliability(confidence: Floats, right: Floats, bins: int = 10) -> list[Bin]:
    """Answers in `bins` groups of equal size by confidence."""
    order = np.argsort(confidence, kind="stable")
    return [
        Bin(len(chunk), float(confidence[chunk].mean()), float(right[chunk].mean()))
        for chunk in np.array_split(order, bins)
        if len(chunk)
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance between confidence and accuracy (Naeini et al. 2015), weighted by n."""
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.confidence - each.accuracy) for each in bins) / max(1, total)


def risk_coverage_curve(confidence: Floats, right: Floats) -> list[tuple[float, float]]:
    """(coverage, share of wrong answers) when only the most confident answers are given, at each tenth."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1.0 - right[order])
    sizes = [round(len(order) * tenth / 10) for tenth in range(1, 11)]
    return [(n / len(order), float(wrong[n - 1] / n)) for n in sizes if n]


def is_rising(points: Sequence[tuple[float, float]]) -> bool:
    """What `rag.calibration.Calibration` asks of its points."""
    return all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(points))
