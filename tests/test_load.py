"""The load measurements count right, on fakes and on a service with fake models."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpcore import AsyncHTTPConnection

from api.config import ServiceConfig
from corpus.errors import EvaluationError
from eval.load import (
    LoadReport,
    Row,
    Sample,
    errors_of,
    fill,
    main,
    measure_ask,
    measure_search,
    percentile,
    questions_from,
    rows_of,
    search_load,
    table,
)
from eval.serving import MemoryWatch, check_is_here, chunks_in, put, served
from tests.api_fakes import Live, QuotingReader


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    config = ServiceConfig(queue_length=1)
    with Live(tmp_path_factory.mktemp("home"), QuotingReader(), config).running() as made:
        assert fill(made.url, "load", 30, None) >= 30
        yield made


def test_figures_are_counted_right() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (0.25, 0.5, 0.51, 0.95, 1.0)] == [1, 2, 3, 4, 4]
    samples = [
        Sample(200, 0.010, 0.004),
        Sample(200, 0.030, 0.006),
        Sample(503, 0.001),
        Sample(0, 1.0, error="ReadError"),
    ]
    rows = rows_of(samples)
    assert [row.outcome for row in rows] == ["no response", "200", "200, without waiting", "503"]
    assert rows[1] == Row("200", 2, 0.5, 10, 30, 30, 30)
    assert rows[2].max_ms == 6
    assert "| 200 | 2 | 50.0% | 10 | 30 | 30 | 30 |" in table(rows)
    assert "| no response | 1 | 25.0% | 1000 |" in table(rows)
    assert errors_of(samples) == {"ReadError": 1}


def test_a_report_is_a_title_a_table_and_sentences() -> None:
    report = LoadReport(
        "A title", (Row("200", 1, 1.0, 1, 1, 1, 1),), ("One.", "Two."), errors={"ReadError": 2}
    )
    assert report.markdown().split("\n\n") == [
        "A title:",
        table(report.rows),
        "One. Two.",
        "No response 2 times: ReadError.",
    ]


def test_questions_are_those_of_a_set_over_and_over(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    lines = [{"id": str(n), "question": f"q{n}", "language": "nl", "answerable": False} for n in range(3)]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    question = questions_from(file, 1)
    asked = [question() for _ in range(6)]
    assert sorted(asked[:3]) == ["q0", "q1", "q2"]
    assert asked[:3] == asked[3:]
    made_up = questions_from(None, 1), questions_from(None, 1)
    assert made_up[0]() == made_up[1]()


def test_searches_at_once_are_all_answered(live: Live) -> None:
    report = measure_search(live.url, "load", at_once=20, count=100, set_file=None)
    assert [row.outcome for row in report.rows] == ["200"]
    assert report.rows[0].n == 100
    assert report.figures["chunks"] >= 30
    assert report.errors == {}
    assert report.memory_mib


def test_a_searcher_costs_no_more_where_there_are_many(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    has_expired = AsyncHTTPConnection.has_expired

    def count(connection: AsyncHTTPConnection) -> bool:
        nonlocal looked_at
        looked_at += 1
        return has_expired(connection)

    # A pool that all share looks at each of its connections for each request.
    monkeypatch.setattr(AsyncHTTPConnection, "has_expired", count)
    samples = asyncio.run(search_load(live.url, "load", 30, 90, questions_from(None, 1)))
    assert [sample.status for sample in samples] == [200] * 90
    assert looked_at <= 4 * len(samples)


def test_asking_more_than_it_can_serve_is_told_apart(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader is slowed down to a known rate, so that twice that is too much."""
    read = QuotingReader.read

    def slowly(self: QuotingReader, *arguments: object) -> object:
        threading.Event().wait(0.05)
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(QuotingReader, "read", slowly)
    report = measure_ask(live.url, "load", times=4, seconds=2, style="short", set_file=None)
    outcomes = {row.outcome: row for row in report.rows}
    assert {"alone", "200", "503"} <= set(outcomes)
    assert outcomes["alone"].n == 20
    assert sum(row.n for name, row in outcomes.items() if name in ("200", "503")) == int(
        report.figures["offered_per_second"] * 2
    )
    assert 0 <= report.figures["refused_within_100_ms"] <= 1
    assert "times what it can serve" in report.markdown()


def test_a_corpus_fills_a_collection_until_there_is_enough(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    lines = [
        {"id": f"d{n}", "title": "T", "language": "nl", "text": f"Water stroomt {n}. " * 9, "source": "s"}
        for n in range(30)
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    there = fill(live.url, "real", 5, file)
    assert 5 <= there < 30
    assert fill(live.url, "real", 1000, file) == fill(live.url, "real", 1000, file)


def test_the_command_prints_a_table_and_writes_json(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    options = ["search", "--url", live.url, "--at-once", "5", "--count", "20", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["load", *options])
    assert main() == 0
    assert "5 searches at once over" in capsys.readouterr().out
    written = json.loads(file.read_text())
    assert written["rows"][0]["n"] == 20
    assert written["cores"]
    monkeypatch.setattr(sys, "argv", ["load", "search", "--url", live.url, "--collection", "nowhere"])
    assert main() == 1
    assert "404" in capsys.readouterr().err


def test_the_command_checks_consistency(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    options = [
        "consistency",
        "--url",
        live.url,
        "--collection",
        "busy",
        "--seconds",
        "1",
        "--json",
        str(file),
    ]
    monkeypatch.setattr(sys, "argv", ["load", *options])
    assert main() == 0
    assert ": 0 faults" in capsys.readouterr().out
    assert json.loads(file.read_text())["faults"] == []
    with httpx.Client(base_url=live.url, trust_env=False) as http:
        assert chunks_in(http, "busy") == 0


# The service that is measured


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "http://vraagbaak.example.nl", "nonsense"])
def test_another_machine_is_never_loaded(url: str) -> None:
    with pytest.raises(EvaluationError, match="isn't on this machine"):
        check_is_here(url)
    with pytest.raises(EvaluationError, match="isn't on this machine"), served(url):
        pass


def test_a_service_that_doesnt_come_up_is_told_with_its_own_words() -> None:
    with (
        pytest.raises(EvaluationError, match=r"ended with status 2[\s\S]*--nonsense"),
        served(None, ["--nonsense"]),
    ):
        pass


def test_waiting_for_a_job_has_a_bound() -> None:
    job = {"id": "1", "state": "running", "files": []}
    transport = httpx.MockTransport(lambda request: httpx.Response(202, json=job))
    with httpx.Client(base_url="http://service", transport=transport) as http:
        with pytest.raises(EvaluationError, match="job 1 isn't over after 0"):
            put(http, "c", [], timeout_s=0)
        job["state"] = "failed"
        with pytest.raises(EvaluationError, match="could not be put in"):
            put(http, "c", [])


def test_memory_is_the_services_own(live: Live) -> None:
    with MemoryWatch(live.url, every_s=0.01) as memory:
        httpx.get(f"{live.url}/healthz", trust_env=False)
    assert memory.mib
    assert 10 < memory.mib[0] < 100_000
