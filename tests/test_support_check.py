"""Measuring the support score: what is read, what counts as support, and the figures."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from corpus.errors import MissingPathError
from eval.support_check import Judged, Scored, auc_interval, read_expertqa, read_sick, score, summary_lines


def write(path: Path, *records: dict[str, object]) -> Path:
    path.write_bytes(lzma.compress("\n".join(map(json.dumps, records)).encode()))
    return path


def test_a_sick_pair_is_read_in_dutch_in_english_and_across(tmp_path: Path) -> None:
    record = {
        "sentence_A": "Een man rent",
        "sentence_B": "Iemand rent",
        "sentence_A_original": "A man runs",
        "sentence_B_original": "Somebody runs",
        "entailment_label": "ENTAILMENT",
    }
    pairs = list(read_sick(write(tmp_path / "s.xz", record, record | {"entailment_label": "NEUTRAL"})))
    assert [(p.set, p.text, p.claim) for p in pairs[:3]] == [
        ("sick nl", "Een man rent", "Iemand rent"),
        ("sick en", "A man runs", "Somebody runs"),
        ("sick nl on en", "A man runs", "Iemand rent"),
    ]
    assert [p.is_supported for p in pairs] == [True] * 3 + [False] * 3


def test_expertqa_loses_markers_and_addresses_and_what_was_not_judged(tmp_path: Path) -> None:
    record = {"claim": "It harms children [3].", "evidence": ["[3] https://a.example/x\n\nIt harms."]}
    path = write(
        tmp_path / "e.xz",
        *(record | {"support": label} for label in ("Complete", "Partial", "N/A")),
        record | {"support": "Complete", "evidence": []},
    )
    pairs = list(read_expertqa(path))
    assert [(p.claim, p.text, p.is_supported) for p in pairs] == [
        ("It harms children.", "It harms.", True),
        ("It harms children.", "It harms.", False),
    ]


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"s\.xz"):
        list(read_sick(tmp_path / "s.xz"))


def test_a_claim_is_scored_against_the_sentence_that_carries_it() -> None:
    text = "De balie is open op maandag. Een paspoort kost 80 euro."
    carried = score(Judged("s", "l", "Een paspoort kost 80 euro.", text, True), None)
    other = score(Judged("s", "l", "Een paspoort kost 90 euro.", text, False), None)
    assert carried.score == 1.0
    assert other.score < 0.5


def test_the_figures_of_a_perfect_score() -> None:
    judged = [Judged("s", "entailment" if i % 2 else "neutral", "c", "t", bool(i % 2)) for i in range(40)]
    (line,) = summary_lines([Scored(j, 1.0 if j.is_supported else 0.1) for j in judged], "words alone")
    assert "n 40, supported 0.50, AUC 1.000 [1.000, 1.000]" in line
    assert "entailment 1.00, neutral 0.00" in line


def test_the_interval_holds_the_area() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.5
    scores = truth + rng.normal(size=300)
    low, high = auc_interval(scores, truth)
    assert low < 0.76 < high
    assert high - low < 0.2
