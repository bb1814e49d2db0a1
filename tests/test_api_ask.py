"""Asking and searching over HTTP, on fake models and real collections."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.config import ServiceConfig
from tests.api_fakes import ABSTAIN, QuotingReader, client, put

TEXTS = {
    "memo.txt": "De provincies betalen samen de helft. Het Rijk betaalt de rest. Niemand weet hoe lang.",
    "map/sub/brief.txt": "The river is green and quiet. A stone lies in the water.",
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    with client(tmp_path) as made:
        put(made, "default", TEXTS)
        yield made


def events(text: str) -> list[tuple[str, dict[str, object]]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_ask_gives_the_answer_with_both_spans(api: TestClient) -> None:
    answer = api.post("/v1/ask", json={"question": "Wie betalen de helft? provincies"}).json()
    assert set(answer) == {
        *("question", "language", "text", "sentences", "citations", "passages", "abstained", "confidence"),
        "timings",
    }
    assert answer["text"] == "De provincies betalen samen de helft."
    citation = answer["citations"][0]
    text = api.get(f"/v1/collections/default/documents/{citation['document_id']}").json()["text"]
    assert text[citation["source_start"] : citation["source_end"]] == citation["quote"]
    assert answer["text"][citation["answer_start"] : citation["answer_end"]] == answer["text"]
    assert answer["passages"][0]["hit"]["chunk"]["document_id"] == "memo.txt"


def test_streams_passages_tokens_citations_and_the_answer(api: TestClient) -> None:
    response = api.post("/v1/ask", json={"question": "provincies betalen helft", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    names = [name for name, _ in found]
    assert names[0] == "passages"
    assert names[-1] == "done"
    assert names[-2] == "citation"
    written = ""
    for name, data in found:
        if name == "token":
            written = written[: int(str(data["start"]))] + str(data["text"])
    assert written == found[-1][1]["text"]


def test_an_abstention_has_passages_and_no_citations(api: TestClient) -> None:
    answer = api.post("/v1/ask", json={"question": f"{ABSTAIN} provincies", "language": "nl"}).json()
    assert answer["abstained"]
    assert answer["text"] == "Dat staat niet in de documenten."
    assert answer["citations"] == []
    assert answer["passages"]


def test_a_batch_answers_in_order(api: TestClient) -> None:
    questions = ["provincies betalen helft", "river green quiet"] * 10
    answers = api.post("/v1/ask/batch", json={"questions": questions}).json()["answers"]
    assert [answer["question"] for answer in answers] == questions
    assert answers[1]["text"] == "The river is green and quiet."


@pytest.mark.parametrize("mode", ["fused", "dense", "lexical"])
def test_search_finds_by_each_mode(api: TestClient, mode: str) -> None:
    body = {"question": "green river", "mode": mode, "top_k": 1}
    found = api.post("/v1/search", json=body).json()
    assert [each["hit"]["chunk"]["document_id"] for each in found["passages"]] == ["map/sub/brief.txt"]
    assert found["passages"][0]["title"] == "map/sub/brief.txt"
    assert set(found["timings"]) == {"embed_s", "search_s", "total_s"}


def test_filters_hold(api: TestClient) -> None:
    body = {"question": "green river", "filters": {"documents": ["memo.txt"]}}
    found = api.post("/v1/search", json=body).json()["passages"]
    assert {each["hit"]["chunk"]["document_id"] for each in found} == {"memo.txt"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ({"question": "   "}, "question"),
        ({"question": "x" * 20_001}, "question"),
        ({"question": "a\0b"}, "question"),
        ({"question": "x", "top_k": 0}, "top_k"),
        ({"question": "x", "language": "de"}, "language"),
        ({"question": "x", "style": "long"}, "style"),
        ({"question": "x", "filters": {"languages": [3]}}, "filters.languages[0]"),
        ({"question": "x", "colection": "default"}, "colection"),
        ({"question": "x", "collection": "../etc"}, "collection"),
    ],
)
def test_a_wrong_field_is_named(api: TestClient, body: dict[str, object], field: str) -> None:
    response = api.post("/v1/ask", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:vraagbaak:problem:validation"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["instance"] == "/v1/ask"
    assert problem["request_id"] == response.headers["x-request-id"]


def test_a_question_past_the_settings_limit_is_refused_by_name(api: TestClient) -> None:
    response = api.post("/v1/ask", json={"question": "x " * 5000})
    assert response.status_code == 422
    assert "2,000" in response.json()["detail"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'{"question": "\\ud800"}', b"null", b""])
def test_a_broken_body_is_no_fault_of_the_service(api: TestClient, content: bytes) -> None:
    response = api.post("/v1/ask", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["request_id"]


def test_an_unknown_collection_is_not_found(api: TestClient) -> None:
    for path in ("/v1/ask", "/v1/search"):
        response = api.post(path, json={"question": "x", "collection": "elsewhere"})
        assert response.status_code == 404
        assert response.json()["type"].endswith(":no-such-collection")


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    reader = QuotingReader()
    with client(tmp_path, reader, ServiceConfig(queue_length=1)) as api:
        put(api, "default", TEXTS)
        reader.held.set()
        answers: list[int] = []

        def ask() -> None:
            answers.append(api.post("/v1/ask", json={"question": "provincies"}).status_code)

        first = threading.Thread(target=ask)
        first.start()
        assert reader.reading.acquire(timeout=10)
        second = threading.Thread(target=ask)
        second.start()
        queue = api.app.state.service.running.queue  # type: ignore[attr-defined]
        while not len(queue):
            threading.Event().wait(0.005)
        refused = api.post("/v1/ask", json={"question": "provincies"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert api.post("/v1/search", json={"question": "river"}).status_code == 200
        reader.released.set()
        first.join()
        second.join()
        assert answers == [200, 200]


def test_a_deadline_ends_reading_and_waiting(tmp_path: Path) -> None:
    reader = QuotingReader()
    with client(tmp_path, reader) as api:
        put(api, "default", TEXTS)
        reader.held.set()
        response = api.post("/v1/ask", json={"question": "provincies", "timeout_s": 0.2})
        assert response.status_code == 504
        assert response.json()["type"].endswith(":deadline")
        assert reader.stopped.acquire(timeout=10)
        streamed = api.post("/v1/ask", json={"question": "provincies", "timeout_s": 0.2, "stream": True})
        assert events(streamed.text)[-1][0] == "error"
        assert events(streamed.text)[-1][1]["status"] == 504
        reader.released.set()
        assert api.post("/v1/ask", json={"question": "provincies"}).status_code == 200


def test_until_the_models_are_loaded_it_says_so(tmp_path: Path) -> None:
    from fastapi.testclient import TestClient as Plain

    from api.app import create_app
    from tests.api_fakes import engine

    go = threading.Event()

    def load() -> object:
        go.wait(20)
        return engine(tmp_path)

    app = create_app(ServiceConfig(), tmp_path, load)  # type: ignore[arg-type]
    with Plain(app, base_url="http://localhost") as api:
        assert api.get("/healthz").status_code == 200
        assert api.get("/readyz").status_code == 503
        response = api.post("/v1/ask", json={"question": "x"})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        go.set()
        assert app.state.service.wait_until_loaded(20)
        assert api.get("/readyz").json()["status"] == "ready"
