"""Every metric as a pure function: values in, a number out.

A function returns None where it doesn't apply to a case; 0 is a verdict. What higher means is in `METRICS`.

- Retrieval: Manning, Raghavan & Schütze, *Introduction to Information Retrieval*, ch. 8; nDCG as in Järvelin
  & Kekäläinen (TOIS 2002) with binary gains and log2 discount, as trec_eval has it.
- Exact match and F1: Rajpurkar et al. (EMNLP 2016; ACL 2018), the official script, with Dutch articles
  dropped as well as English ones, and typographic quotes and dashes as other punctuation.
- Citations: ALCE, Gao et al. (EMNLP 2023), §3, with gold passages in place of the entailment judge.
- ROUGE-L: Lin (2004), F-measure with beta 1.
- Risk and coverage: El-Yaniv & Wiener (JMLR 2010); AURC as in Geifman et al. (ICLR 2019).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Span = tuple[str, int, int]
"""Document id, start, end; code points, half-open."""

_ARTICLES = re.compile(r"\b(?:a|an|the|de|het|een)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’“”„«»–—…")
_MARKER = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Metric:
    """What a name in a summary means; `higher_is_better` is None for what is only reported."""

    name: str
    title: str
    explanation: str
    higher_is_better: bool | None = True


# Retrieval


def recall_at(ranks: Collection[int], relevant: int, cutoff: int) -> float | None:
    """Share of the `relevant` items whose rank (from 1) is within the cutoff; None with nothing relevant."""
    return sum(rank <= cutoff for rank in ranks) / relevant if relevant else None


def reciprocal_rank(ranks: Collection[int], relevant: int, cutoff: int = 10) -> float | None:
    """1 / the first relevant rank, 0 past the cutoff; None with nothing relevant."""
    if not relevant:
        return None
    first = min(ranks, default=cutoff + 1)
    return 1.0 / first if first <= cutoff else 0.0


def ndcg(ranks: Collection[int], relevant: int, cutoff: int = 10) -> float | None:
    """Discounted gain of the relevant ranks over that of a perfect list; None with nothing relevant."""
    if not relevant:
        return None
    ideal = sum(1.0 / log2(rank + 1) for rank in range(1, min(relevant, cutoff) + 1))
    return sum(1.0 / log2(rank + 1) for rank in ranks if rank <= cutoff) / ideal


def ranks_of(ranking: Sequence[str], relevant: Collection[str]) -> list[int]:
    """Ranks from 1, increasing, at which something relevant stands; `ranking` names each item once."""
    return [rank for rank, item in enumerate(ranking, 1) if item in relevant]


def spans_hit(hits: Sequence[Span], gold: Sequence[Span], cutoff: int) -> float | None:
    """Share of the gold spans that one of the first `cutoff` hits overlaps; None without gold spans."""
    if not gold:
        return None
    return sum(any(overlaps(hit, span) for hit in hits[:cutoff]) for span in gold) / len(gold)


def overlaps(one: Span, other: Span) -> bool:
    """Whether two spans are of one document and share at least one character."""
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


# Answers


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles (English and Dutch), single spaces."""
    folded = unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", folded).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1 where the prediction equals one of the answers after normalising. No answers: it should be empty."""
    wanted = list(answers) or [""]
    return float(any(normalise_answer(prediction) == normalise_answer(answer) for answer in wanted))


def answer_f1(prediction: str, answers: Iterable[str]) -> float:
    """The best token F1 with any of the answers. No answers: 1 for an empty prediction, else 0."""
    return max(_token_f1(prediction, answer) for answer in list(answers) or [""])


def _token_f1(prediction: str, answer: str) -> float:
    predicted, wanted = (
        normalise_answer(prediction).split(),
        normalise_answer(answer).split(),
    )
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted))


def contains_answer(prediction: str, answers: Iterable[str]) -> float | None:
    """1 where one of the answers stands in the prediction, word for word, once normalised (ALCE's str-EM)."""
    wanted = [normalised for answer in answers if (normalised := normalise_answer(answer))]
    if not wanted:
        return None
    padded = f" {normalise_answer(prediction)} "
    return float(any(f" {answer} " in padded for answer in wanted))


def rouge_l(prediction: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, in 0–1."""
    predicted, wanted = (
        normalise_answer(prediction).split(),
        normalise_answer(reference).split(),
    )
    if not predicted or not wanted:
        return float(predicted == wanted)
    return 2 * _common_subsequence(predicted, wanted) / (len(predicted) + len(wanted))


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for left in one:
        diagonal = 0
        for place, right in enumerate(other, 1):
            diagonal, row[place] = (
                row[place],
                diagonal + 1 if left == right else max(row[place], row[place - 1]),
            )
    return row[-1]


# Citations


def citation_precision(sentences: Sequence[Collection[bool]]) -> float:
    """ALCE's precision. `sentences` holds for each sentence, for each of its citations, whether it is gold.

    A citation of another passage is irrelevant by ALCE's rule: it doesn't carry its sentence alone, and
    without it the sentence is carried as well or as little as before. 0 where nothing is cited.
    """
    citations = [is_gold for sentence in sentences for is_gold in sentence]
    return sum(citations) / len(citations) if citations else 0.0


def citation_recall(sentences: Sequence[Collection[bool]]) -> float:
    """ALCE's recall: the share of sentences that are carried by what they cite, here by a gold passage."""
    return sum(any(sentence) for sentence in sentences) / len(sentences) if sentences else 0.0


def harmonic(one: float, other: float) -> float:
    """F1 of a precision and a recall; 0 where both are."""
    return 2 * one * other / (one + other) if one + other else 0.0


def span_f1(predicted: Iterable[Span], gold: Iterable[Span]) -> float:
    """F1 over characters of two sets of spans; a character counts once however often it is covered."""
    one, other = _merged(predicted), _merged(gold)
    size = _size(one) + _size(other)
    return 2 * _shared(one, other) / size if size else 0.0


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for document, start, end in sorted(spans):
        if merged and merged[-1][0] == document and start <= merged[-1][2]:
            merged[-1] = (document, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((document, start, end))
    return merged


def _size(spans: Iterable[Span]) -> int:
    return sum(end - start for _, start, end in spans)


def _shared(one: Sequence[Span], other: Sequence[Span]) -> int:
    return sum(min(a[2], b[2]) - max(a[1], b[1]) for a in one for b in other if overlaps(a, b))


def stray_markers(text: str, passages: Iterable[str]) -> int:
    """Markers like [3] left in an answer's text; one that stands in a passage is the document's own."""
    markers = _MARKER.findall(text)
    return sum(not any(marker in passage for passage in passages) for marker in markers) if markers else 0


# Confidence


def risk_coverage(confidence: Floats, loss: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The curve, one point for each distinct confidence, from the surest on.

    All arguments have shape (n,). Returns coverage and risk, both in 0–1: what share of the cases is at least
    so sure, and the mean loss among them. Cases of equal confidence come in together, so that the order of
    the set decides nothing.
    """
    order = np.argsort(-confidence, kind="stable")
    covered, lost = np.cumsum(weights[order]), np.cumsum((weights * loss)[order])
    last = np.append(np.diff(confidence[order]) != 0, True) & (covered > 0)
    return covered[last] / covered[-1], lost[last] / covered[last]


def area_under_risk_coverage(confidence: Floats, loss: Floats, weights: Floats) -> float | None:
    """The mean risk over all coverages: 0 is perfect. None without cases."""
    if not weights.sum() > 0:
        return None
    coverage, risk = risk_coverage(confidence, loss, weights)
    return float(np.sum(np.diff(coverage, prepend=0.0) * risk))


def coverage_at_risk(confidence: Floats, loss: Floats, weights: Floats, risk: float = 0.05) -> float | None:
    """The largest share of cases whose surest answers are wrong at most so often. None without cases."""
    if not weights.sum() > 0:
        return None
    coverage, risks = risk_coverage(confidence, loss, weights)
    return float(coverage[risks <= risk].max(initial=0.0))


_RETRIEVAL = (
    Metric(
        "ndcg@10",
        "nDCG@10",
        "documents: how high the relevant ones stand in the first ten",
    ),
    Metric("recall@1", "Recall@1", "documents: share of the relevant ones that is first"),
    Metric(
        "recall@5",
        "Recall@5",
        "documents: share of the relevant ones in the first five",
    ),
    Metric(
        "recall@10",
        "Recall@10",
        "documents: share of the relevant ones in the first ten",
    ),
    Metric("mrr@10", "MRR@10", "documents: 1 over the rank of the first relevant one"),
    Metric(
        "span_ndcg@10",
        "Span nDCG@10",
        "passages: as nDCG@10, over those that overlap a gold span",
    ),
    Metric(
        "span_recall@1",
        "Span recall@1",
        "share of the gold spans that the first passage overlaps",
    ),
    Metric(
        "span_recall@5",
        "Span recall@5",
        "share of the gold spans that the first five passages overlap",
    ),
    Metric(
        "span_recall@10",
        "Span recall@10",
        "share of the gold spans that the first ten passages overlap",
    ),
    Metric(
        "span_mrr@10",
        "Span MRR@10",
        "passages: 1 over the rank of the first that overlaps a gold span",
    ),
)
_ANSWERS = (
    Metric(
        "em",
        "Exact match",
        "SQuAD's, short answers; an unanswerable question wants an abstention",
    ),
    Metric(
        "f1",
        "F1",
        "SQuAD's token F1, short answers; an unanswerable question wants an abstention",
    ),
    Metric("has_ans_em", "HasAns EM", "exact match over the answerable questions"),
    Metric("has_ans_f1", "HasAns F1", "token F1 over the answerable questions"),
    Metric(
        "no_ans_accuracy",
        "NoAns",
        "share of the unanswerable questions that are abstained from",
    ),
    Metric(
        "contains_answer",
        "Contains answer",
        "one of the short answers stands in the answer, word for word",
    ),
    Metric(
        "answer_f1",
        "Full-answer F1",
        "token F1 of a full answer with the reference answer",
    ),
    Metric(
        "rouge_l",
        "ROUGE-L",
        "longest common subsequence of a full answer and the reference answer",
    ),
    Metric(
        "answer_language",
        "Language right",
        "full answers that are in the question's language",
    ),
    Metric("correct", "Correct", "right by the short answers, or rightly abstained from"),
)
_CITATIONS = (
    Metric(
        "citation_precision",
        "Citation precision",
        "share of an answer's citations that are of a gold passage",
    ),
    Metric(
        "citation_recall",
        "Citation recall",
        "share of an answer's sentences that cite a gold passage",
    ),
    Metric("citation_f1", "Citation F1", "harmonic mean of the two"),
    Metric(
        "citation_span_f1",
        "Quote overlap",
        "character F1 of the quotes with the gold spans",
    ),
    Metric(
        "verbatim_quotes",
        "Quotes verbatim",
        "share of the quotes that stand in the document to the letter",
    ),
    Metric(
        "invalid_markers",
        "Invalid markers",
        "markers in an answer that name no passage",
        False,
    ),
    Metric(
        "supported",
        "Supported",
        "share of the sentences that the service itself calls supported",
    ),
)
_ABSTENTION = (
    Metric("abstained", "Abstained", "share of the questions that are abstained from", None),
    Metric(
        "abstention_precision",
        "Abstention precision",
        "share of the abstentions that are right",
    ),
    Metric(
        "abstention_recall",
        "Abstention recall",
        "share of the unanswerable questions abstained from",
    ),
    Metric("abstention_f1", "Abstention F1", "harmonic mean of the two"),
    Metric(
        "aurc",
        "AURC",
        "area under the risk-coverage curve: mean risk over all coverages",
        False,
    ),
    Metric(
        "coverage@5%risk",
        "Coverage at 5% risk",
        "share that can be answered with at most 5% wrong",
    ),
)
METRICS = {metric.name: metric for metric in _RETRIEVAL + _ANSWERS + _CITATIONS + _ABSTENTION}
"""By name. With `:dense`, `:lexical` or `:fused` behind it, it is that search mode's beside the run's own."""

RETRIEVAL_METRICS = tuple(metric.name for metric in _RETRIEVAL)
AGGREGATES = ("abstention_f1", "aurc", "coverage@5%risk")
"""Those that aren't a mean over cases."""


def metric_of(name: str) -> Metric:
    """The metric of a summary's name, whatever search mode it is of; raises KeyError."""
    base, _, mode = name.partition(":")
    metric = METRICS[base]
    return (
        Metric(
            name,
            f"{metric.title} ({mode})",
            metric.explanation,
            metric.higher_is_better,
        )
        if mode
        else metric
    )


def roc_auc(score: Floats, truth: NDArray[np.bool_]) -> float:
    """The probability that a true one scores above a false one, ties half; 0.5 where either is missing."""
    above = score[truth][:, None] - score[~truth][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean()) if above.size else 0.5
