"""Collections, documents, uploads and jobs over HTTP."""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.config import ServiceConfig
from api.jobs import document_id
from tests.api_fakes import client, put, wait

SAMPLES = Path(__file__).parent.parent / "corpus" / "samples"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def collection(api: TestClient, request: pytest.FixtureRequest) -> str:
    name = f"c{abs(hash(request.node.nodeid)):x}"
    assert api.post("/v1/collections", json={"name": name}).status_code == 201
    return name


def upload(api: TestClient, collection: str, *files: tuple[str, bytes]) -> dict[str, object]:
    parts = [("files", (name, content, "application/octet-stream")) for name, content in files]
    response = api.post(f"/v1/collections/{collection}/documents", files=parts)
    assert response.status_code == 202, response.text
    job = wait(api, response.json()["id"])
    assert job == api.get(f"/v1/jobs/{job['id']}").json()
    return job


def states(job: dict[str, object]) -> list[str]:
    return [file["state"] for file in job["files"]]  # type: ignore[index, attr-defined]


# Collections


def test_a_collection_from_making_to_deleting(api: TestClient) -> None:
    assert api.put("/v1/collections/life").status_code == 201
    assert api.put("/v1/collections/life").status_code == 200
    assert api.post("/v1/collections", json={"name": "life"}).status_code == 409
    assert "life" in [each["name"] for each in api.get("/v1/collections").json()["collections"]]
    put(api, "life", {"a": "water wind zon"})
    view = api.get("/v1/collections/life").json()
    assert (view["documents"], view["chunks"], view["characters"]) == (1, 1, 14)
    assert api.delete("/v1/collections/life").status_code == 204
    for path in ("", "/documents", "/documents/a"):
        assert api.get(f"/v1/collections/life{path}").status_code == 404


@pytest.mark.parametrize("name", ["Upper", "..", "a b", "-a", "x" * 64, "é"])
def test_a_name_that_cant_be_one_is_refused(api: TestClient, name: str) -> None:
    assert api.post("/v1/collections", json={"name": name}).status_code == 422
    assert api.get(f"/v1/collections/{name}").status_code == 404


# Documents


def test_documents_are_listed_in_pages(api: TestClient, collection: str) -> None:
    put(api, collection, {f"doc/{number:02}": f"water wind {number}" for number in range(7)})
    first = api.get(f"/v1/collections/{collection}/documents?limit=3").json()
    assert [each["id"] for each in first["documents"]] == ["doc/00", "doc/01", "doc/02"]
    assert (first["next_offset"], first["total"]) == (3, 7)
    last = api.get(f"/v1/collections/{collection}/documents?limit=3&offset=6").json()
    assert [each["id"] for each in last["documents"]] == ["doc/06"]
    assert last["next_offset"] is None
    found = api.get(f"/v1/collections/{collection}/documents?contains=C/05").json()["documents"]
    assert [each["id"] for each in found] == ["doc/05"]


def test_a_document_its_text_and_a_place_in_it(api: TestClient, collection: str) -> None:
    text = "Éen 😀 zin vooraf. De provincies betalen de helft. En een zin achteraf."
    put(api, collection, {"a/b?c#d": text})
    base = f"/v1/collections/{collection}"
    name = "a/b%3Fc%23d"
    document = api.get(f"{base}/documents/{name}").json()
    assert document["text"] == text
    assert api.get(f"{base}/texts/{name}").text == text
    start = text.index("De provincies")
    end = text.index(" En een")
    place = api.get(f"{base}/passages/{name}", params={"start": start, "end": end, "context": 8}).json()
    assert place["text"] == text[start:end]
    assert place["before"] == text[start - 8 : start]
    assert place["after"] == text[end : end + 8]
    assert place["page"] is None
    wrong = api.get(f"{base}/passages/{name}", params={"start": end, "end": 10_000})
    assert wrong.status_code == 422
    assert str(len(text)) in wrong.json()["detail"]


def test_a_document_is_put_replaced_and_erased(api: TestClient, collection: str) -> None:
    path = f"/v1/collections/{collection}/documents/map/one"
    for text, state in (("water wind", "added"), ("water zon", "replaced"), ("water zon", "unchanged")):
        job = wait(api, api.put(path, json={"title": "One", "text": text}).json()["id"])
        assert states(job) == [state]
        assert api.get(path).json()["text"] == text
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert api.delete(path).status_code == 404
    found = api.post("/v1/search", json={"question": "zon", "collection": collection}).json()
    assert found["passages"] == []


def test_metadata_and_language_are_kept(api: TestClient, collection: str) -> None:
    body = {"documents": [{"id": "m", "text": "water", "language": "en", "metadata": {"year": "2024"}}]}
    job_id = api.post(f"/v1/collections/{collection}/documents", json=body).json()["id"]
    wait(api, job_id)
    filters = {"languages": ["en"], "metadata": {"year": "2024"}}
    body = {"question": "water", "collection": collection, "filters": filters}
    assert len(api.post("/v1/search", json=body).json()["passages"]) == 1
    filters["metadata"] = {"year": "2025"}
    assert api.post("/v1/search", json=body).json()["passages"] == []


# Uploads


def test_the_samples_go_in_as_files_and_come_out_as_they_were(api: TestClient, collection: str) -> None:
    names = ["nl/memo-provincies.docx", "en/policy-note-location.pdf", "nl/kort-nieuws.jsonl"]
    job = upload(api, collection, *((f"samples/{name}", (SAMPLES / name).read_bytes()) for name in names))
    assert states(job) == ["added"] * 3
    assert job["progress"] == {"done": 3, "total": 3}
    base = f"/v1/collections/{collection}"
    document = api.get(f"{base}/documents/samples/en/policy-note-location.pdf").json()
    assert len(document["page_starts"]) == 2
    assert document["source"] == "samples/en/policy-note-location.pdf"
    second = document["page_starts"][1]
    place = api.get(f"{base}/passages/{document['id']}", params={"start": second, "end": second + 5}).json()
    assert place["page"] == 2
    original = api.get(f"{base}/originals/samples/en/policy-note-location.pdf")
    assert original.content == (SAMPLES / names[1]).read_bytes()
    assert original.headers["content-type"] == "application/octet-stream"
    assert original.headers["content-disposition"].startswith("attachment; filename*=UTF-8''policy-note")
    shown = api.get(f"{base}/originals/samples/en/policy-note-location.pdf?disposition=inline")
    assert shown.headers["content-type"] == "application/pdf"
    flags = {each["id"]: each["has_original"] for each in api.get(f"{base}/documents").json()["documents"]}
    assert flags["samples/nl/memo-provincies.docx"]
    assert sum(flags.values()) == 2
    assert states(upload(api, collection, (f"samples/{names[0]}", (SAMPLES / names[0]).read_bytes()))) == [
        "unchanged"
    ]


def test_a_page_with_scripts_is_never_shown_as_one(api: TestClient, collection: str) -> None:
    page = (
        b"<html><body><article><p>"
        + b"Water wind zon maan. " * 30
        + b"</p><script>alert(1)</script></article>"
    )
    upload(api, collection, ("evil.html", page))
    shown = api.get(f"/v1/collections/{collection}/originals/evil.html?disposition=inline")
    assert shown.headers["content-type"] == "application/octet-stream"
    assert shown.headers["content-disposition"].startswith("attachment")
    assert shown.headers["x-content-type-options"] == "nosniff"


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"0" * 80_000_000)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "an empty file": ("empty.txt", b"", "empty-document"),
    "a binary file": ("noise.txt", os.urandom(4096), "broken-document"),
    "a broken PDF": ("broken.pdf", b"%PDF-1.7\n" + os.urandom(2000), "broken-document"),
    "a zip bomb": ("bomb.docx", _zip_bomb(), "document-too-large"),
    "not a zip": ("not.docx", b"hello", "broken-document"),
    "a kind that nothing reads": ("a.exe", b"MZ" + os.urandom(100), "unsupported-format"),
    "no extension": ("README", b"text", "unsupported-format"),
    "too large": ("large.txt", b"water " * 400_000, "document-too-large"),
    "broken lines": ("bad.jsonl", b'{"id": 1}\n{nonsense\n', "bad-document"),
    "only NULs": ("nul.txt", b"\0" * 1000, "empty-document"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_fails_by_name_and_the_rest_goes_in(
    api: TestClient, collection: str, kind: str
) -> None:
    name, content, problem = HOSTILE[kind]
    job = upload(api, collection, (name, content), ("good.txt", b"Water wind zon."))
    assert job["state"] == "done"
    assert states(job) == ["failed", "added"]
    error = job["files"][0]["error"]  # type: ignore[index]
    kinds = {problem, "bad-document", "broken-document", "empty-document"}
    assert error["type"].rpartition(":")[2] in kinds, error
    assert name in error["detail"]
    assert "upload-" not in error["detail"]
    assert "uploads/" not in error["detail"]
    answer = api.post("/v1/ask", json={"question": "water wind", "collection": collection})
    assert answer.json()["text"] == "Water wind zon."


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b"Caf\xe9 en cr\xe8me br\xfbl\xe9e, na\xefef en co\xf6rdinatie.",
            "Café en crème brûlée, naïef en coördinatie.",
        ),
        (b"Water\0 wind.", "Water wind."),
        ("Water 😀 wind.".encode("utf-16"), "Water 😀 wind."),
    ],
)
def test_odd_text_goes_in(api: TestClient, collection: str, content: bytes, text: str) -> None:
    assert states(upload(api, collection, ("odd.txt", content))) == ["added"]
    assert api.get(f"/v1/collections/{collection}/texts/odd.txt").text == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd.txt", "etc/passwd.txt"),
        ("/etc/passwd.txt", "etc/passwd.txt"),
        ("..\\..\\windows\\a.txt", "windows/a.txt"),
        ("C:\\Users\\a.txt", "C:/Users/a.txt"),
        ("a\r\nb.txt", "a b.txt"),
        ("....//....//x.txt", "..../..../x.txt"),
        ("con.txt", "con.txt"),
        ("%2e%2e%2fa.txt", "%2e%2e%2fa.txt"),
        ("x" * 3000 + ".txt", "x" * 508 + ".txt"),
        ("<img src=x onerror=alert(1)>.txt", "<img src=x onerror=alert(1)>.txt"),
    ],
)
def test_a_file_name_is_only_ever_shown(
    api: TestClient, collection: str, name: str, expected: str, tmp_path: Path
) -> None:
    assert document_id(name) == expected
    home = api.app.state.service.running.engine.library.home  # type: ignore[attr-defined]
    before = {path for path in home.parent.rglob("*") if "collections" not in path.parts}
    job = upload(api, collection, (name, b"Water wind zon."))
    assert states(job) == ["added"]
    assert {path for path in home.parent.rglob("*") if "collections" not in path.parts} <= before | {
        home / "uploads"
    }
    ids = [each["id"] for each in api.get(f"/v1/collections/{collection}/documents").json()["documents"]]
    assert len(ids) == 1


@given(st.text(max_size=200))
def test_no_name_leads_anywhere(name: str) -> None:
    parts = document_id(name).split("/")
    assert parts
    assert all(part not in ("", ".", "..") for part in parts)
    assert len(document_id(name)) <= 512
    assert "\0" not in document_id(name)
    document_id(name).encode()


def test_an_upload_without_files_says_so(api: TestClient, collection: str) -> None:
    path = f"/v1/collections/{collection}/documents"
    response = api.post(path, files=[("other", ("a.txt", b"x"))])
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "files"
    assert api.post(path, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    broken = api.post(path, content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert broken.status_code in (400, 422)
    response = api.post(path, json={"documents": [{"id": "a", "text": "x", "titel": "y"}]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "documents[0].titel"


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    with client(tmp_path, config=ServiceConfig(max_upload_files=3)) as api:
        parts = [("files", (f"{number}.txt", b"water")) for number in range(5)]
        assert api.post("/v1/collections/default/documents", files=parts).status_code == 400
        assert not list((tmp_path / "uploads").glob("*"))


# Jobs


def test_a_job_is_cancelled_and_others_go_on(api: TestClient, collection: str) -> None:
    running = api.app.state.service.running  # type: ignore[attr-defined]
    import threading

    held, reached = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        held.wait(20)

    running.writer.run(hold)
    assert reached.wait(20)
    parts = [("files", ("a.txt", b"Water."))]
    first = api.post(f"/v1/collections/{collection}/documents", files=parts).json()
    second = put_async(api, collection)
    assert api.get(f"/v1/jobs/{first['id']}").json()["state"] == "queued"
    assert api.delete(f"/v1/jobs/{first['id']}").status_code == 202
    held.set()
    assert wait(api, first["id"])["state"] == "cancelled"
    assert states(wait(api, first["id"])) == ["cancelled"]
    assert wait(api, second)["state"] == "done"
    assert api.delete(f"/v1/jobs/{first['id']}").status_code == 409
    assert api.get("/v1/jobs/nonsense").status_code == 404
    listed = api.get(f"/v1/jobs?collection={collection}").json()["jobs"]
    assert [job["id"] for job in listed] == [second, first["id"]]


def put_async(api: TestClient, collection: str) -> str:
    body = {"documents": [{"id": "b", "text": "Wind."}]}
    return str(api.post(f"/v1/collections/{collection}/documents", json=body).json()["id"])


def test_the_first_start_puts_the_samples_in(tmp_path: Path) -> None:
    with client(tmp_path, samples=SAMPLES) as api:
        job = api.get("/v1/jobs").json()["jobs"][0]
        finished = wait(api, job["id"])
        assert set(states(finished)) == {"added"}
        listed = api.get("/v1/collections/default/documents").json()
        assert listed["total"] == 16
        examples = api.get("/v1/examples").json()
        assert {language: len(questions) for language, questions in examples["questions"].items()} == {
            "nl": 3,
            "en": 3,
        }
    with client(tmp_path, samples=SAMPLES) as api:
        assert api.get("/v1/jobs").json() == {"jobs": []}
        assert api.get("/v1/collections/default/documents").json()["total"] == 16
