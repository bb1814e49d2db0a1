"""Evaluations over HTTP, on fake models."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.evaluations import Evaluation
from rag.reading import Reader
from tests.api_fakes import ABSTAIN, QuotingReader, client, put

LINES = [
    {
        "id": "1",
        "question": "provincies betalen",
        "language": "nl",
        "answerable": True,
        "answers": ["de helft"],
    },
    {"id": "2", "question": f"{ABSTAIN} provincies", "language": "nl", "answerable": False},
]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    with client(tmp_path) as made:
        put(made, "default", {"memo.txt": "De provincies betalen samen de helft."})
        yield made


def _run(api: TestClient, **options: object) -> dict[str, object]:
    body = {"name": "mine", "jsonl": "\n".join(json.dumps(line) for line in LINES), **options}
    response = api.post("/v1/evaluations", json=body)
    assert response.status_code == 202, response.text
    started = response.json()
    evaluation = api.app.state.service.running.evaluations.get(started["id"])  # type: ignore[attr-defined]
    assert evaluation.finished.wait(60)
    found: dict[str, object] = api.get(f"/v1/evaluations/{started['id']}").json()
    return found


def test_a_run_is_followed_to_its_report_and_compared(api: TestClient) -> None:
    first, second = _run(api), _run(api)
    assert first["state"] == "done", first
    assert first["progress"]["done"] == 2  # type: ignore[index]
    assert first["summary"]["metrics"]  # type: ignore[index]
    report = api.get(f"/v1/evaluations/{first['id']}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert "sandbox" in report.headers["content-security-policy"]
    assert len(api.get(f"/v1/evaluations/{first['id']}/cases").text.splitlines()) == 2
    compared = api.get(f"/v1/evaluations/{first['id']}/compare/{second['id']}").json()
    assert compared["shared"] == 2
    assert api.delete(f"/v1/evaluations/{first['id']}").status_code == 409
    listed = api.get("/v1/evaluations").json()["evaluations"]
    assert [each["id"] for each in listed] == [second["id"], first["id"]]


def test_a_wrong_line_is_named(api: TestClient) -> None:
    response = api.post("/v1/evaluations", json={"jsonl": '{"id": "1"}\n'})
    assert response.status_code == 422
    assert "line 1" in response.json()["detail"]
    assert api.post("/v1/evaluations", json={"set": "nothing"}).status_code == 422
    assert api.post("/v1/evaluations", json={}).status_code == 422


class _Unexpected(BaseException):
    """What no list of exceptions has."""


@pytest.mark.parametrize(
    "error", [AttributeError, NotImplementedError, AssertionError, MemoryError, _Unexpected]
)
@pytest.mark.parametrize(
    "place", ["eval.systems.CollectionSystem.__init__", "eval.runner.EvaluationRun._run"]
)
def test_a_fault_ends_the_run_with_its_reason_and_the_log_has_the_traceback(
    api: TestClient,
    place: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error("nobody thought of this")

    with monkeypatch.context() as patched:
        patched.setattr(place, fails)
        with caplog.at_level(logging.ERROR, logger="vraagbaak"):
            failed = _run(api)
    assert failed["state"] == "failed"
    assert error.__name__ in failed["error"]["detail"]  # type: ignore[index]
    assert "nobody thought of this" in caplog.text
    assert "Traceback" in caplog.text
    assert _run(api)["state"] == "done"


def _start(api: TestClient) -> tuple[Evaluation, str]:
    lines = [{**LINES[0], "id": str(number)} for number in range(6)]  # more than are read together
    body = {"name": "mine", "jsonl": "\n".join(json.dumps(line) for line in lines)}
    identifier: str = api.post("/v1/evaluations", json=body).json()["id"]
    return api.app.state.service.running.evaluations.get(identifier), identifier  # type: ignore[attr-defined]


def test_one_that_waits_and_one_that_runs_can_be_cancelled(tmp_path: Path) -> None:
    reader = QuotingReader()
    with client(tmp_path, reader) as api:
        put(api, "default", {"memo.txt": "De provincies betalen samen de helft."})
        reader.held.set()
        running, first = _start(api)
        assert reader.reading.acquire(timeout=20)
        waiting, second = _start(api)
        assert api.get(f"/v1/evaluations/{second}").json()["state"] == "waiting"
        assert api.delete(f"/v1/evaluations/{second}").json()["state"] == "cancelled"
        assert api.delete(f"/v1/evaluations/{first}").status_code == 202
        reader.released.set()
        assert running.finished.wait(20)
        assert waiting.finished.wait(20)
        assert (running.state, waiting.state) == ("cancelled", "cancelled")
        assert api.delete(f"/v1/evaluations/{second}").status_code == 409


def test_cancelling_at_the_very_start_isnt_lost(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, cancelled = threading.Event(), threading.Event()

    def slow() -> Reader:
        opened.set()
        assert cancelled.wait(20)
        return QuotingReader()

    running = api.app.state.service.running  # type: ignore[attr-defined]
    monkeypatch.setattr(running, "patient_reader", slow)
    evaluation, identifier = _start(api)
    assert opened.wait(20)
    assert api.delete(f"/v1/evaluations/{identifier}").status_code == 202
    cancelled.set()
    assert evaluation.finished.wait(20)
    assert api.get(f"/v1/evaluations/{identifier}").json()["state"] == "cancelled"
