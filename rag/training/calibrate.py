"""One confidence, one threshold: from outcomes on the dev sets to the calibration in `reader.json`.

A reader doesn't doubt alike in all languages: trained on adversarial English questions, it abstains from Dutch ones
and across languages at lower probabilities than it should. So P(abstain) is first put on one scale, by pair of
languages of question and passage, on which one half is where the two kinds of question part. The raw confidence of
an answer is `(1 - P(abstain)) · P(answer's tokens)`, as the answerer computes it. Its map to the probability of
being right is isotonic (Zadrozny & Elkan 2002, by pooling adjacent violators), kept as a few points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corpus.errors import EvalSetError
from rag.calibration import Calibration, language_pair, log_odds
from rag.training.evaluate import Outcome

Floats = NDArray[np.float64]
RIGHT_F1 = 0.5
"""An answer counts as right where its F1 with a gold answer reaches this."""

ABSTAIN_AT = 0.5
LEAST_ABSTAINED = 0.8
"""The part of each set's unanswerable questions, in each pair of languages, that has to be abstained from."""
FEW = 20
"""Of fewer unanswerable questions a part says too little to decide for its whole pair."""
ABOUT = 0.01
"""Thresholds that part the questions so nearly as well are about as good: between them chance decides."""
FOLDS = 5


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


def fit(outcomes: Sequence[Outcome]) -> Calibration:
    """Scale, threshold and map on the short answers of the dev sets, answered without a calibration.

    Raises EvalSetError where there is nothing to fit on.
    """
    if not outcomes:
        raise EvalSetError("there are no outcomes to calibrate on; run `evaluate` into this folder first")
    pairs = {pair_of(outcome) for outcome in outcomes}
    middles = {
        pair: round(log_odds(best_threshold([o for o in outcomes if pair_of(o) == pair])), 3)
        for pair in sorted(pairs)
    }
    scale = Calibration(abstain_threshold=ABSTAIN_AT, abstain_logits=middles)
    answered = [o for o in on_one_scale(outcomes, scale) if o.abstain_probability < ABSTAIN_AT]
    if not answered:
        raise EvalSetError("every question was abstained from, so no confidence can be fitted")
    right = np.array([is_right(o) for o in answered], dtype=np.float64)
    return replace(scale, points=isotonic_points(raw_confidence(answered), right))


def pair_of(outcome: Outcome) -> str:
    """The languages of the question and of the passage that was cited for it."""
    return language_pair(outcome.language, outcome.cited_language)


def on_one_scale(outcomes: Sequence[Outcome], calibration: Calibration) -> list[Outcome]:
    """The outcomes with P(abstain) as the product has it with this calibration."""
    return [
        replace(o, abstain_probability=calibration.abstaining(o.abstain_probability, pair_of(o)))
        for o in outcomes
    ]


def out_of_fold(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, each on the scale that was fitted on the four fifths that it isn't in."""
    kept: list[Outcome] = []
    for fold in range(FOLDS):
        mine = [o for number, o in enumerate(outcomes) if number % FOLDS == fold]
        others = [o for number, o in enumerate(outcomes) if number % FOLDS != fold]
        kept += on_one_scale(mine, fit(others))
    return kept


def best_threshold(outcomes: Sequence[Outcome], steps: int = 99) -> float:
    """The P(abstain) that tells answerable and unanswerable questions apart best, of those at which enough of
    the unanswerable ones are abstained from; 1 / (steps + 1) where none is low enough. Of all that are about
    as good, the one that abstains soonest: an answer that is none costs its reader more than a missing one.

    Best is the highest mean of the sets' (share answered + share abstained) / 2. What an answer is worth is
    the confidence's business: a threshold that weighs F1 abstains from what it reads badly.
    """
    candidates = np.linspace(0.0, 1.0, steps + 2)[1:-1]
    told = [_told_apart(outcomes, float(threshold)) for threshold in candidates]
    scores = np.array([score if least >= LEAST_ABSTAINED else -1.0 for score, least in told])
    best = np.flatnonzero(scores >= scores.max() - ABOUT) if scores.max() >= 0 else np.array([0])
    return round(float(candidates[best[0]]), 3)


def _told_apart(outcomes: Sequence[Outcome], threshold: float) -> tuple[float, float]:
    """The mean of the sets' balanced accuracies, and the least share that a set's unanswerable abstained in."""
    balanced, least = [], 1.0
    for name in sorted({o.set for o in outcomes}):
        mine = [o for o in outcomes if o.set == name]
        answered = [o.abstain_probability < threshold for o in mine if o.answerable]
        abstained = [o.abstain_probability >= threshold for o in mine if not o.answerable]
        shares = [float(np.mean(each)) for each in (answered, abstained) if each]
        balanced.append(sum(shares) / len(shares))
        least = min(least, float(np.mean(abstained)) if len(abstained) >= FEW else 1.0)
    return float(np.mean(balanced)), least


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
