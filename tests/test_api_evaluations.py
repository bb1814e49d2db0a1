"""Evaluations over HTTP, on fake models."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api_fakes import ABSTAIN, client, put

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
