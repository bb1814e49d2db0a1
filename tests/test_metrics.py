"""Each metric against values worked out by hand, and retrieval against ir-measures."""

from math import isclose, log2

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import metrics

LETTERS = "abcdefghijklmnopqrstuvwxyz"


# Retrieval


@given(st.permutations(LETTERS), st.sets(st.sampled_from(LETTERS + "XYZ"), min_size=1, max_size=15))
def test_retrieval_is_what_ir_measures_says(ranking: list[str], relevant: set[str]) -> None:
    qrels = [ir_measures.Qrel("q", item, 1) for item in sorted(relevant)]
    run = [ir_measures.ScoredDoc("q", item, 100.0 - place) for place, item in enumerate(ranking)]
    wanted = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10, ir_measures.RR @ 10, *(ir_measures.R @ cutoff for cutoff in (1, 5, 10))],
        qrels,
        run,
    )
    ranks = metrics.ranks_of(ranking, relevant)
    ours = {
        ir_measures.nDCG @ 10: metrics.ndcg(ranks, len(relevant)),
        ir_measures.RR @ 10: metrics.reciprocal_rank(ranks, len(relevant)),
        **{ir_measures.R @ cutoff: metrics.recall_at(ranks, len(relevant), cutoff) for cutoff in (1, 5, 10)},
    }
    for measure, value in wanted.items():
        assert value == pytest.approx(ours[measure], abs=1e-6), measure


def test_retrieval_by_hand() -> None:
    # Relevant at ranks 2 and 4, a third one not found.
    assert metrics.recall_at([2, 4], 3, 1) == 0.0
    assert metrics.recall_at([2, 4], 3, 5) == pytest.approx(2 / 3)
    assert metrics.reciprocal_rank([2, 4], 3) == 0.5
    ideal = 1 + 1 / log2(3) + 0.5
    assert metrics.ndcg([2, 4], 3) == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert metrics.reciprocal_rank([11], 1) == 0.0
    assert metrics.ndcg([11], 1) == 0.0


def test_retrieval_does_not_apply_with_nothing_relevant() -> None:
    assert metrics.recall_at([], 0, 5) is None
    assert metrics.reciprocal_rank([], 0) is None
    assert metrics.ndcg([], 0) is None
    assert metrics.spans_hit([("d", 0, 5)], [], 5) is None


def test_a_hit_covers_every_span_it_overlaps() -> None:
    hits = [("e", 0, 100), ("d", 0, 50), ("d", 50, 90)]
    gold = [("d", 10, 20), ("d", 45, 55), ("d", 89, 95), ("d", 90, 95)]
    assert metrics.spans_hit(hits, gold, 1) == 0.0
    assert metrics.spans_hit(hits, gold, 2) == 0.5
    assert metrics.spans_hit(hits, gold, 3) == 0.75


@pytest.mark.parametrize(
    ("other", "expected"),
    [(("d", 5, 6), True), (("d", 10, 12), False), (("d", 0, 5), False), (("e", 5, 6), False)],
)
def test_half_open_spans_that_touch_do_not_overlap(other: metrics.Span, expected: bool) -> None:
    assert metrics.overlaps(("d", 5, 10), other) is expected


# Answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat, sat!", "cat sat"),
        ("De kat en het huis van een man", "kat en huis van man"),
        ("an apple a day", "apple day"),
        ("“Delft” – 1,5 km", "delft 15 km"),
        ("theatre dekking hetzelfde eentje", "theatre dekking hetzelfde eentje"),
        ("CAFE\u0301", "café"),
        ("...", ""),
    ],
)
def test_normalising_an_answer(text: str, expected: str) -> None:
    assert metrics.normalise_answer(text) == expected


def test_exact_match_and_f1_by_hand() -> None:
    assert metrics.exact_match("de Maas", ["Rijn", "Maas"]) == 1.0
    assert metrics.exact_match("de Maas en Rijn", ["Maas"]) == 0.0
    # 2 shared of 4 predicted and 3 wanted.
    assert metrics.answer_f1("in the old city centre", ["old city hall"]) == pytest.approx(2 * 2 / (4 + 3))
    # A word said twice is shared once where it is wanted once.
    assert metrics.answer_f1("ja ja", ["ja"]) == pytest.approx(2 / 3)
    assert metrics.answer_f1("ten", ["10", "ten"]) == 1.0


def test_no_answer_wants_nothing() -> None:
    assert metrics.exact_match("", []) == metrics.answer_f1("", []) == 1.0
    assert metrics.exact_match("Maas", []) == metrics.answer_f1("Maas", []) == 0.0
    assert metrics.answer_f1("", ["Maas"]) == 0.0


def test_containing_an_answer_is_by_words() -> None:
    assert metrics.contains_answer("Dat kost de gemeente 10 euro.", ["10 euro", "tien euro"]) == 1.0
    assert metrics.contains_answer("Dat kost 100 euro.", ["10"]) == 0.0
    assert metrics.contains_answer("iets", []) is None


def test_rouge_l_by_hand() -> None:
    # "police kill gunman" and "police killed gunman": police … gunman, 2 of 3 and 3 (Lin 2004, example).
    assert metrics.rouge_l("police kill gunman", "police killed gunman") == pytest.approx(2 / 3)
    assert metrics.rouge_l("b c x", "x b c") == pytest.approx(2 / 3)
    assert metrics.rouge_l("", "x") == 0.0


@given(st.text(alphabet="ab ", max_size=12), st.text(alphabet="ab ", max_size=12))
def test_rouge_l_is_symmetric_and_never_above_token_f1(one: str, other: str) -> None:
    assert metrics.rouge_l(one, other) == metrics.rouge_l(other, one)
    assert metrics.rouge_l(one, other) <= metrics.answer_f1(one, [other]) + 1e-12


# Citations


def test_citations_by_hand() -> None:
    # Three sentences: one cites gold and something else, one something else, one nothing.
    sentences = [[True, False], [False], []]
    assert metrics.citation_precision(sentences) == pytest.approx(1 / 3)
    assert metrics.citation_recall(sentences) == pytest.approx(1 / 3)
    assert metrics.citation_precision([[True], [True]]) == metrics.citation_recall([[True], [True]]) == 1.0
    assert metrics.citation_precision([[], []]) == metrics.citation_recall([[], []]) == 0.0
    assert metrics.citation_precision([]) == metrics.citation_recall([]) == 0.0
    assert metrics.harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert metrics.harmonic(0.0, 0.0) == 0.0


def test_span_overlap_counts_characters_once() -> None:
    # Quotes cover 0–10 and 5–20 (20 characters), gold 15–25 (10): 5 shared.
    assert metrics.span_f1([("d", 0, 10), ("d", 5, 20)], [("d", 15, 25)]) == pytest.approx(2 * 5 / 30)
    assert metrics.span_f1([("e", 0, 10)], [("d", 0, 10)]) == 0.0
    assert metrics.span_f1([], [("d", 0, 10)]) == 0.0
    assert metrics.span_f1([("d", 0, 10)], [("d", 0, 4), ("d", 4, 10)]) == 1.0


@given(*(st.lists(st.tuples(st.sampled_from("de"), st.integers(0, 20), st.integers(1, 9)), max_size=6),) * 2)
def test_span_overlap_equals_that_of_sets(
    one: list[tuple[str, int, int]], other: list[tuple[str, int, int]]
) -> None:
    spans = [[(name, start, start + size) for name, start, size in side] for side in (one, other)]
    left, right = ({(name, i) for name, start, end in side for i in range(start, end)} for side in spans)
    wanted = 2 * len(left & right) / (len(left) + len(right)) if left or right else 0.0
    assert metrics.span_f1(*spans) == pytest.approx(wanted)


def test_markers_of_the_documents_own_are_not_stray() -> None:
    assert metrics.stray_markers("Zie [3] en [4].", ["volgens noot [3]"]) == 1
    assert metrics.stray_markers("Niets.", []) == 0


# Confidence


def curve(
    confidence: list[float], loss: list[float], weights: list[float] | None = None
) -> tuple[float, float]:
    values = np.array(confidence), np.array(loss), np.array(weights or [1.0] * len(loss))
    area, coverage = metrics.area_under_risk_coverage(*values), metrics.coverage_at_risk(*values, risk=0.25)
    assert area is not None
    assert coverage is not None
    return area, coverage


def test_risk_and_coverage_by_hand() -> None:
    # From the surest on: right, wrong, right, right: risks 0, 1/2, 1/3, 1/4.
    area, coverage = curve([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 0])
    assert area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert coverage == 1.0
    assert curve([0.9, 0.8], [1, 0]) == pytest.approx(((1 + 0.5) / 2, 0.0))


def test_equal_confidence_comes_in_together_whatever_the_order() -> None:
    assert curve([0.5, 0.5], [0, 1]) == curve([0.5, 0.5], [1, 0]) == (0.5, 0.0)


def test_a_weight_is_a_repetition() -> None:
    repeated = curve([0.9, 0.9, 0.4, 0.3], [1, 1, 0, 0])
    weighted = curve([0.9, 0.4, 0.3, 0.2], [1, 0, 0, 1], [2, 1, 1, 0])
    assert all(isclose(one, other) for one, other in zip(repeated, weighted, strict=True))


def test_every_name_has_a_title_and_a_direction() -> None:
    assert metrics.metric_of("ndcg@10:dense").title == "nDCG@10 (dense)"
    assert metrics.metric_of("aurc").higher_is_better is False
    with pytest.raises(KeyError):
        metrics.metric_of("accuracy")
