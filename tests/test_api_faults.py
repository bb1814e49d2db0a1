"""What nobody thought of ends one request or one job, with its reason, and nothing else."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.config import ServiceConfig
from api.service import Engine, Service
from tests.api_fakes import client, put, wait

TEXT = {"memo.txt": "De provincies betalen samen de helft."}


class UnexpectedError(BaseException):
    """What no list of exceptions has."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    with client(tmp_path) as made:
        put(made, "default", TEXT)
        yield made


def _failing(error: type[BaseException]) -> object:
    def fails(*_: object, **__: object) -> None:
        raise error("nobody thought of this")

    return fails


@pytest.mark.parametrize("error", [AttributeError, KeyError, MemoryError, UnexpectedError])
@pytest.mark.parametrize("place", ["index.writer.Writer.put", "api.jobs._Slice.__init__", "api.jobs.Sandbox"])
def test_a_job_fails_with_its_reason_and_the_next_one_runs(
    api: TestClient,
    place: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR, logger="vraagbaak"):
        patched.setattr(place, _failing(error))
        failed = put(api, "default", {"a.txt": "Water."})
    assert failed["state"] == "failed"
    assert error.__name__ in failed["error"]["detail"]  # type: ignore[index]
    assert failed["finished_at"]
    assert "nobody thought of this" in caplog.text
    assert "Traceback" in caplog.text
    assert put(api, "default", {"a.txt": "Water."})["state"] == "done"


def test_a_search_that_fails_is_one_error_and_the_next_is_answered(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = {"question": "provincies betalen"}
    with monkeypatch.context() as patched:
        patched.setattr("tests.index_fakes.WordEmbedder.embed_queries", _failing(AttributeError))
        response = api.post("/v1/search", json=asking)
        assert response.status_code == 500
        assert response.json()["type"].endswith(":internal")
    assert api.post("/v1/search", json=asking).json()["passages"]


@pytest.mark.parametrize("path", ["/v1/ask", "/v1/chat/completions"])
def test_a_stream_that_fails_says_so_before_it_ends(
    api: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {
        "/v1/ask": {"question": "provincies", "stream": True},
        "/v1/chat/completions": {
            "model": "vraagbaak",
            "stream": True,
            "messages": [{"role": "user", "content": "provincies"}],
        },
    }[path]
    with monkeypatch.context() as patched:
        patched.setattr("rag.answerer.cite", _failing(AttributeError))
        text = api.post(path, json=body).text
    assert "urn:vraagbaak:problem:internal" in text
    assert "nobody thought of this" not in text
    assert "provincies betalen" in api.post("/v1/ask", json={"question": "provincies"}).text


def test_models_that_fail_to_load_for_any_reason_are_named(tmp_path: Path) -> None:
    def load() -> Engine:
        raise AttributeError("nobody thought of this")

    app = create_app(ServiceConfig(), tmp_path, load)
    with TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as api:
        service: Service = app.state.service
        assert service.wait_until_loaded(20)
        ready = api.get("/readyz")
        assert ready.status_code == 503
        assert "AttributeError" in ready.text
        assert api.post("/v1/ask", json={"question": "x"}).status_code == 503


def test_a_deletion_that_fails_is_one_error(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("index.collection.Collection.delete", _failing(AttributeError))
        assert api.delete("/v1/collections/default/documents/memo.txt").status_code == 500
    body = {"documents": [{"id": "b", "text": "Wind."}]}
    job = api.post("/v1/collections/default/documents", json=body).json()
    assert wait(api, job["id"])["state"] == "done"
    assert api.delete("/v1/collections/default/documents/memo.txt").status_code == 204
