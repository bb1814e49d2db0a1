"""Readers see a document with all its chunks or not at all while writers work."""

import random
from pathlib import Path

import pytest

from api.config import ServiceConfig
from eval.consistency import (
    Consistency,
    ConsistencyRun,
    Ledger,
    check_answer,
    check_search,
    version_text,
)
from tests.api_fakes import Live, QuotingReader

SECONDS = 60
"""What the service promises is checked for a minute; the only test that takes its time on purpose."""


def test_four_askers_and_two_writers_for_a_minute(tmp_path: Path) -> None:
    config = ServiceConfig(queue_length=20)
    with Live(tmp_path, QuotingReader(), config).running() as live:
        outcome: Consistency = ConsistencyRun(live.url, "busy", SECONDS).run()
    assert outcome.faults == []
    assert outcome.changes > 20
    assert outcome.searches > 20
    assert outcome.answers > 20


# The checks themselves find what they look for


def _found(document: str, *pieces: tuple[int, int, int, str]) -> dict[str, list[dict[str, object]]]:
    passages: list[dict[str, object]] = [
        {"hit": {"chunk": {"document_id": document, "ordinal": n, "start": start, "end": end, "text": text}}}
        for n, start, end, text in pieces
    ]
    return {"passages": passages}


def test_half_a_document_is_a_fault() -> None:
    whole = [(0, 0, 3, "abc"), (1, 4, 7, "def")]
    assert check_search(_found("d", *whole), "d", ["abc def"]) == []  # type: ignore[arg-type]
    assert check_search(_found("d", *whole), "d", ["old", "abc def"]) == []  # type: ignore[arg-type]
    assert check_search(_found("d", whole[0]), "d", ["abc def"])  # type: ignore[arg-type]
    assert check_search(_found("d", whole[1]), "d", ["abc def"])  # type: ignore[arg-type]
    assert check_search(_found("d", *whole), "d", ["abc xef"])  # type: ignore[arg-type]
    assert check_search(_found("e", *whole), "d", ["abc def"])  # type: ignore[arg-type]
    assert check_search({"passages": []}, "d", ["abc def"])
    assert check_search({"passages": []}, "d", ["abc def", None]) == []


def test_a_quote_of_no_version_is_a_fault() -> None:
    def cited(start: int, end: int, quote: str) -> dict[str, list[dict[str, object]]]:
        citation: dict[str, object] = {"source_start": start, "source_end": end, "quote": quote}
        return {"passages": [{}], "citations": [{"document_id": "d", **citation}]}

    assert check_answer(cited(0, 3, "abc"), "d", ["abc def"]) == []
    assert check_answer(cited(1, 4, "abc"), "d", ["abc def"])
    assert check_answer(cited(0, 3, "abc"), "e", ["abc def"])
    assert check_answer({"passages": [], "citations": []}, "d", ["abc def"])
    assert check_answer({"passages": [], "citations": []}, "d", [None, "abc def"]) == []


def test_the_ledger_knows_what_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("eval.consistency.time.monotonic", lambda: now[0])
    ledger = Ledger()
    for instant, step in ((1, "begin"), (2, "end"), (3, "begin"), (4, "end")):
        now[0] = float(instant)
        if step == "begin":
            ledger.begin("d", f"v{instant}")
        else:
            ledger.end("d")
    assert ledger.possible("d", 0.5, 0.6) == [None]
    assert ledger.possible("d", 1.5, 1.6) == [None, "v1"]
    assert ledger.possible("d", 2.5, 2.6) == ["v1"]
    assert ledger.possible("d", 2.5, 3.5) == ["v1", "v3"]
    assert ledger.possible("d", 4.5, 9.0) == ["v3"]


def test_versions_name_themselves_in_every_sentence() -> None:
    text = version_text("writer0/1", 7, random.Random(1))
    assert all(sentence.startswith("writer0x1 versie7 ") for sentence in text[:-1].split(". "))
