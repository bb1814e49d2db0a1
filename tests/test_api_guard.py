"""What a request passes before its body is read: Host, Origin, keys, roles, rates, sizes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.config import ServiceConfig
from api.guard import Tickets, role_needed
from api.keys import KeyStore, Role
from api.rates import RateLimiter
from corpus.errors import InputError, NotFoundError, SettingsError, StorageError
from tests.api_fakes import client, put

TEXTS = {"memo.txt": "De provincies betalen samen de helft."}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client(tmp_path_factory.mktemp("home")) as made:
        put(made, "default", TEXTS)
        yield made


class Keyed:
    """A service that asks for keys, with a key of each kind."""

    def __init__(self, api: TestClient, home: Path) -> None:
        self.api = api
        self.store = KeyStore(home)
        self.read = self.header("reader", Role.READ)
        self.write = self.header("writer", Role.WRITE)
        self.admin = self.header("admin", Role.ADMIN)
        self.limited = self.header("limited", Role.WRITE, ["own"])

    def header(self, name: str, role: Role, collections: list[str] | None = None) -> dict[str, str]:
        _, text = self.store.create(name, role, collections)
        return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    home = tmp_path_factory.mktemp("home")
    config = ServiceConfig(authentication=True, requests_per_minute=100_000, burst=10_000)
    with client(home, config=config) as made:
        service = Keyed(made, home)
        made.put("/v1/collections/own", headers=service.admin)
        put(made, "default", TEXTS, **service.admin)
        put(made, "own", TEXTS, **service.admin)
        yield service


# Keys on disk


def test_a_key_is_found_by_its_text_alone_and_gone_when_revoked(tmp_path: Path) -> None:
    store, other = KeyStore(tmp_path), KeyStore(tmp_path)
    key, text = store.create("web", Role.READ, ["a", "b"])
    assert other.find(text) == key
    assert other.find(text[:-1] + ("A" if text[-1] != "A" else "B")) is None
    assert other.find(f"vb_00000000_{text[12:]}") is None
    assert other.find("") is None
    content = (tmp_path / "keys.json").read_text()
    assert text not in content
    assert text[12:] not in content
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert store.revoke(key.id) == key
    assert other.find(text) is None
    with pytest.raises(NotFoundError):
        store.revoke(key.id)


def test_wrong_keys_are_not_made(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    for name, collections in (("", None), ("x" * 101, None), ("a", []), ("a", ["../x"])):
        with pytest.raises(InputError):
            store.create(name, Role.READ, collections)
    (tmp_path / "keys.json").write_text("{nonsense")
    with pytest.raises(StorageError, match=r"keys\.json"):
        store.find("x")


def test_roles_include_those_before_them() -> None:
    assert [[role.may(needed) for needed in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/", None),
        ("GET", "/static/app.js", None),
        ("GET", "/healthz", None),
        ("GET", "/metrics", Role.READ),
        ("POST", "/v1/ask", Role.READ),
        ("POST", "/v1/chat/completions", Role.READ),
        ("GET", "/v1/collections/a/documents", Role.READ),
        ("POST", "/v1/collections/a/documents", Role.WRITE),
        ("DELETE", "/v1/collections/a/documents/b", Role.WRITE),
        ("PUT", "/v1/collections/a", Role.WRITE),
        ("DELETE", "/v1/collections/a", Role.ADMIN),
        ("DELETE", "/v1/collections/a/", Role.ADMIN),
        ("POST", "/v1/evaluations", Role.WRITE),
        ("POST", "/v1/anything/new", Role.WRITE),
        ("PATCH", "/v1/ask", Role.WRITE),
    ],
)
def test_what_each_route_needs(method: str, path: str, role: Role | None) -> None:
    assert role_needed(method, path) is role


# Keys over HTTP


def test_without_a_known_key_nothing_but_health_and_the_page(keyed: Keyed) -> None:
    for headers in ({}, {"Authorization": "Bearer vb_nonsense"}, {"Authorization": "Basic eDp5"}):
        response = keyed.api.post("/v1/ask", json={"question": "x"}, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["type"].endswith(":unauthorized")
    assert keyed.api.get("/healthz").status_code == 200
    assert keyed.api.get("/readyz").status_code == 200
    assert keyed.api.get("/docs").status_code == 200
    assert keyed.api.get("/metrics").status_code == 401


def test_a_refusal_comes_before_the_body_is_read(keyed: Keyed) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(1)
        yield b"x" * 100

    response = keyed.api.post("/v1/collections/default/documents", content=body())
    assert response.status_code == 401
    keyed.api.post("/v1/collections/default/documents", content=b"", headers=keyed.read)


def test_roles_hold(keyed: Keyed) -> None:
    api = keyed.api
    assert api.post("/v1/ask", json={"question": "provincies"}, headers=keyed.read).status_code == 200
    body = {"documents": [{"id": "a", "text": "water"}]}
    assert api.post("/v1/collections/default/documents", json=body, headers=keyed.read).status_code == 403
    assert api.delete("/v1/collections/default/documents/x", headers=keyed.read).status_code == 403
    assert api.put("/v1/collections/extra", headers=keyed.write).status_code == 201
    assert api.delete("/v1/collections/extra", headers=keyed.write).status_code == 403
    assert api.delete("/v1/collections/extra", headers=keyed.admin).status_code == 204
    session = api.get("/v1/session", headers=keyed.limited).json()
    assert session == {"authentication": "key", "name": "limited", "role": "write", "collections": ["own"]}


def test_not_there_and_not_yours_are_the_same(keyed: Keyed) -> None:
    api, key = keyed.api, keyed.limited
    assert [each["name"] for each in api.get("/v1/collections", headers=key).json()["collections"]] == ["own"]

    def outcome(method: str, path: str, name: str, body: object = None) -> tuple[int, str]:
        response = api.request(method, path.replace("NAME", name), json=body, headers=key)
        problem = response.json()
        for field in ("request_id", "instance"):
            problem.pop(field)
        return response.status_code, str(problem).replace(name, "NAME")

    for method, path, body in (
        ("GET", "/v1/collections/NAME", None),
        ("GET", "/v1/collections/NAME/documents", None),
        ("GET", "/v1/collections/NAME/documents/memo.txt", None),
        ("GET", "/v1/collections/NAME/originals/memo.txt", None),
        ("DELETE", "/v1/collections/NAME/documents/memo.txt", None),
        ("POST", "/v1/collections/NAME/documents", {"documents": [{"id": "a", "text": "b"}]}),
    ):
        theirs, nobodys = outcome(method, path, "default", body), outcome(method, path, "nowhere", body)
        assert theirs == nobodys
        assert theirs[0] == 404
    for path in ("/v1/ask", "/v1/ask/batch", "/v1/search", "/v1/evaluations"):
        for question in ({"question": "x"}, {"questions": ["x"]}, {"set": "samples"}):
            theirs = outcome("POST", path, "default", {**question, "collection": "default"})
            nobodys = outcome("POST", path, "nowhere", {**question, "collection": "nowhere"})
            assert theirs == nobodys
            assert theirs[0] in (404, 422)
    assert outcome("POST", "/v1/chat/completions", "default", _chat("default")) == outcome(
        "POST", "/v1/chat/completions", "nowhere", _chat("nowhere")
    )
    assert outcome("POST", "/v1/collections", "default", {"name": "default"}) == outcome(
        "POST", "/v1/collections", "nowhere", {"name": "nowhere"}
    )
    jobs = keyed.api.get("/v1/jobs", headers=keyed.admin).json()["jobs"]
    hidden = next(job["id"] for job in jobs if job["collection"] == "default")
    assert outcome("GET", "/v1/jobs/NAME", hidden) == outcome("GET", "/v1/jobs/NAME", "0" * 32)
    assert api.get("/metrics", headers=key).status_code == 403
    assert api.get("/metrics", headers=keyed.read).status_code == 200


def _chat(name: str) -> dict[str, object]:
    return {"model": f"vraagbaak/{name}", "messages": [{"role": "user", "content": "x"}]}


def test_a_ticket_opens_one_path_for_a_while(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/v1/collections/own/passages/memo.txt?start=0&end=5"
    url = keyed.api.post("/v1/tickets", json={"path": path}, headers=keyed.limited).json()["url"]
    assert keyed.api.get(url).json()["text"] == "De pr"
    assert keyed.api.get(url.replace("end=5", "end=6")).status_code == 401
    assert keyed.api.get(url.replace("own", "default")).status_code == 401
    assert keyed.api.delete(url).status_code == 401
    assert keyed.api.get(url[:-1]).status_code == 401
    elsewhere = keyed.api.post(
        "/v1/tickets", json={"path": "/v1/collections/default/texts/memo.txt"}, headers=keyed.limited
    )
    assert keyed.api.get(elsewhere.json()["url"]).status_code == 404
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert keyed.api.get(url).status_code == 401


def test_a_ticket_of_another_process_is_worth_nothing() -> None:
    from api.keys import LOCAL

    url = Tickets().issue("/v1/a", LOCAL)
    scope = {"method": "GET", "path": "/v1/a", "query_string": url.partition("?")[2].encode()}
    assert Tickets().key_id(scope) is None


def test_a_revoked_key_is_refused_at_once(keyed: Keyed) -> None:
    headers = keyed.header("short-lived", Role.READ)
    assert keyed.api.get("/v1/session", headers=headers).status_code == 200
    keyed.store.revoke(headers["Authorization"].split("_")[1])
    assert keyed.api.get("/v1/session", headers=headers).status_code == 401


def test_each_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    config = ServiceConfig(authentication=True, requests_per_minute=60, burst=3)
    with client(tmp_path, config=config) as api:
        service = Keyed(api, tmp_path)
        statuses = [api.get("/v1/session", headers=service.read).status_code for _ in range(5)]
        assert statuses[:3] == [200] * 3
        assert statuses[-1] == 429
        refused = api.get("/v1/session", headers=service.read)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["type"].endswith(":rate-limited")
        assert api.get("/v1/session", headers=service.admin).status_code == 200
        guesses = [
            api.get("/v1/session", headers={"X-API-Key": f"vb_{number:08}_x"}).status_code
            for number in range(5)
        ]
        assert guesses[-1] == 429


def test_a_bucket_fills_with_time() -> None:
    now = [0.0]
    limiter = RateLimiter(60, 2, lambda: now[0])
    assert [limiter.wait_s("a") for _ in range(3)] == [0, 0, 1]
    assert limiter.wait_s("b") == 0
    now[0] = 1.0
    assert [limiter.wait_s("a") for _ in range(2)] == [0, 1]
    now[0] = 1000.0
    assert [limiter.wait_s("a") for _ in range(3)] == [0, 0, 1]
    assert RateLimiter(0, 1).wait_s("a") == 0


# Where a request comes from


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.5:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:8000", 403),
        ("", 403),
    ],
)
def test_only_the_services_own_names_are_answered(local: TestClient, host: str, status: int) -> None:
    assert local.get("/healthz", headers={"Host": host}).status_code == status
    assert local.post("/v1/search", json={"question": "x"}, headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8000"}, 200),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
    ],
)
def test_another_sites_page_cant_use_it(local: TestClient, headers: dict[str, str], status: int) -> None:
    assert local.post("/v1/search", json={"question": "x"}, headers=headers).status_code == status
    assert (
        local.put(
            "/v1/collections/default/documents/memo.txt", json={"text": TEXTS["memo.txt"]}, headers=headers
        ).status_code
        == {200: 202, 403: 403}[status]
    )


def test_a_link_from_elsewhere_may_be_followed_and_nothing_else(local: TestClient) -> None:
    site = {"Sec-Fetch-Site": "cross-site"}
    link = {**site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    path = "/v1/collections/default/texts/memo.txt"
    assert local.get(path, headers=link).status_code == 200
    for wrong in ({"Sec-Fetch-Mode": "no-cors"}, {**link, "Sec-Fetch-Dest": "iframe"}):
        assert local.get(path, headers={**site, **wrong}).status_code == 403
    assert local.get("/docs", headers=link).status_code == 200


def test_cors_is_closed_unless_a_site_is_named(local: TestClient, tmp_path: Path) -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert local.options("/v1/ask", headers=preflight).status_code == 403
    config = ServiceConfig(origins=("https://app.example",), authentication=True)
    with client(tmp_path, config=config) as api:
        allowed = api.options("/v1/ask", headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        other = {**preflight, "Origin": "https://evil.example"}
        assert api.options("/v1/ask", headers=other).status_code == 403
        asked = api.post("/v1/ask", json={"question": "x"}, headers={"Origin": "https://app.example"})
        assert asked.status_code == 401


def test_without_keys_it_listens_at_home_alone() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        ServiceConfig(host=host)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(SettingsError, match="open-to-all"):
            ServiceConfig(host=host)
        ServiceConfig(host=host, authentication=True)
        ServiceConfig(host=host, open_to_all=True)


# Sizes


def test_a_body_past_its_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    config = ServiceConfig(max_body_bytes=1000, max_upload_bytes=5000, max_json_documents_bytes=3000)
    with client(tmp_path, config=config) as api:
        sent = []

        def chunks() -> Iterator[bytes]:
            for number in range(100):
                sent.append(number)
                yield b" " * 100

        declared = api.post("/v1/ask", json={"question": "x" * 2000})
        assert declared.status_code == 413
        assert "1,000" in declared.json()["detail"]
        streamed = api.post("/v1/ask", content=chunks(), headers={"Content-Type": "application/json"})
        assert streamed.status_code == 413
        parts = [("files", ("a.txt", b"x" * 6000))]
        assert api.post("/v1/collections/default/documents", files=parts).status_code == 413
        body = {"documents": [{"id": "a", "text": "x" * 4000}]}
        assert api.post("/v1/collections/default/documents", json=body).status_code == 413
        parts = [("files", ("a.txt", b"water " * 600))]
        assert api.post("/v1/collections/default/documents", files=parts).status_code == 202


# What every response carries


def test_every_response_has_an_id_and_is_safe_to_show(local: TestClient) -> None:
    for path in ("/healthz", "/v1/session", "/nowhere", "/v1/collections/nowhere", "/docs"):
        response = local.get(path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-request-id"]
    given = local.get("/healthz", headers={"X-Request-Id": "mine-1.2"})
    assert given.headers["x-request-id"] == "mine-1.2"
    assert local.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"
    assert local.get("/v1/session").headers["cache-control"] == "no-store"


def test_errors_of_the_framework_are_problems_too(local: TestClient) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("PATCH", "/v1/ask", 405),
        ("GET", "/v1/ask", 405),
    ):
        response = local.request(method, path)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_common_mistakes_are_told_how_to_mend_them(local: TestClient) -> None:
    def detail(method: str, path: str, **options: Any) -> str:
        return str(local.request(method, path, **options).json()["detail"])

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert "application/json" in detail("POST", "/v1/ask", content='{"question": "x"}', headers=form)
    assert "JSON object" in detail("POST", "/v1/ask", json=["x"])
    misspelt = detail("POST", "/v1/ask", json={"question": "x", "colection": "y"})
    assert misspelt == "colection: there is no such field"
    assert detail("GET", "/v1/ask") == "this path takes POST; /docs lists what there is"


def test_a_fault_is_a_500_with_an_id_and_no_detail(
    local: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = local.app.state.service  # type: ignore[attr-defined]

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(service, "check_open", broken)
    response = local.post("/v1/ask", json={"question": "x"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["type"].endswith(":internal")
    monkeypatch.undo()
    assert local.post("/v1/ask", json={"question": "provincies"}).status_code == 200


def test_the_page_of_the_api_needs_no_internet(local: TestClient) -> None:
    page = local.get("/docs")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert local.get(f"/docs/{name}").status_code == 200
        assert f"/docs/{name}" in page.text
    assert local.get("/docs/../keys.json").status_code == 404
    assert local.get("/docs/%2e%2e%2fpyproject.toml").status_code == 404


def test_the_web_page_is_served_with_a_strict_policy(tmp_path: Path) -> None:
    page = tmp_path / "static"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>x</title>")
    (page / "app.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    with client(tmp_path / "home", static=page) as api:
        for path in ("/", "/static/app.js"):
            response = api.get(path)
            assert response.status_code == 200
            assert "unsafe-inline" not in response.headers["content-security-policy"]
            assert "script-src 'self'" in response.headers["content-security-policy"]
            assert response.headers["cache-control"] == "no-cache"
            again = api.get(path, headers={"If-None-Match": response.headers["etag"]})
            assert again.status_code == 304
        assert api.get("/static/app.js").headers["content-type"].startswith("text/javascript")
        for path in ("/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/nothing.js"):
            assert api.get(path).status_code == 404


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    with client(tmp_path) as api:
        put(api, "default", TEXTS)
        for question in ("provincies", "onbekend provincies"):
            assert api.post("/v1/ask", json={"question": question, "language": "nl"}).status_code == 200
        text = api.get("/metrics").text
        assert 'vraagbaak_answers_total{abstained="false",language="nl"} 1.0' in text
        assert 'vraagbaak_answers_total{abstained="true",language="nl"} 1.0' in text
        assert 'vraagbaak_tokens_total{kind="new"} 20.0' in text
        assert 'vraagbaak_requests_total{method="POST",route="/v1/ask",status="200"} 2.0' in text
        assert 'vraagbaak_collection_documents{collection="default"} 1.0' in text
        assert 'vraagbaak_stage_seconds_count{stage="read"} 2.0' in text
        assert "vraagbaak_queue_length 0.0" in text


def test_questions_are_logged_only_when_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import json
    import logging

    from api.telemetry import JsonFormatter

    caplog.set_level(logging.INFO, "vraagbaak")
    with client(tmp_path / "a") as api:
        put(api, "default", TEXTS)
        api.post("/v1/ask", json={"question": "provincies geheim"}, headers={"X-Request-Id": "r1"})
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert "geheim" not in "".join(lines)
    assert "helft" not in "".join(lines)
    request = next(json.loads(line) for line in lines if '"/v1/ask"' in line)
    assert (request["message"], request["status"], request["method"]) == ("request", 200, "POST")
    caplog.clear()
    with client(tmp_path / "b", config=ServiceConfig(log_content=True)) as api:
        put(api, "default", TEXTS)
        api.post("/v1/ask", json={"question": "provincies geheim"})
    assert any("geheim" in JsonFormatter().format(record) for record in caplog.records)
