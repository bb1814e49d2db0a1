"""A client for Python programs.

::

    with Vraagbaak("http://127.0.0.1:8000") as vraagbaak:
        answer = vraagbaak.ask("Wie betaalt de helft?")
        for citation in answer.citations:
            print(citation.quote, citation.title)
        for piece in vraagbaak.stream("Who pays half?"):
            ...                                     # Offered, Written, then the Answer

Answers and passages are the service's own types. A 429 or 503 is tried again after the time that the service
names, as long as `retries` and the patience last.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from api.schemas import (
    CollectionView,
    DocumentInfoView,
    DocumentsView,
    DocumentView,
    EvaluationView,
    JobView,
    PlaceView,
)
from corpus.errors import ServiceError
from index.hits import Filters, SearchMode
from rag.answers import Answer, Passage, Style

T = TypeVar("T")
_AGAIN = (429, 503)
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
_ANSWERS: TypeAdapter[list[Answer]] = TypeAdapter(list[Answer])
_PASSAGES: TypeAdapter[tuple[Passage, ...]] = TypeAdapter(tuple[Passage, ...])


class RequestError(ServiceError):
    """The service refused; `status`, `kind` (the end of the problem's type) and `request_id` say how."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"status {status}"))
        self.status = status
        self.kind = str(problem.get("type", "")).rpartition(":")[2]
        self.request_id = str(problem.get("request_id", ""))
        self.errors = tuple(problem.get("errors") or ())


class UnreachableError(ServiceError):
    """Nobody answers at that address, or the connection broke."""


@dataclass(frozen=True, slots=True)
class Offered:
    """The passages that the reader is about to read."""

    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """The answer as far as it was written."""

    text: str


class Vraagbaak:
    """A connection to a service; a context manager. Not for several threads at once."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout_s, transport=transport, trust_env=False
        )
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    # Asking

    def ask(
        self,
        question: str,
        collection: str = "default",
        *,
        style: Style = Style.FULL,
        language: str | None = None,
        filters: Filters | None = None,
        top_k: int | None = None,
    ) -> Answer:
        """Raises RequestError, UnreachableError."""
        body = _asking(collection, style, language, filters, top_k)
        return _ANSWER.validate_json(
            self._send("POST", "/v1/ask", json={"question": question, **body}).content
        )

    def ask_batch(
        self,
        questions: Sequence[str],
        collection: str = "default",
        *,
        style: Style = Style.FULL,
        language: str | None = None,
        filters: Filters | None = None,
        top_k: int | None = None,
    ) -> list[Answer]:
        """Up to 64 questions; the answers are in their order."""
        body = _asking(collection, style, language, filters, top_k)
        response = self._send("POST", "/v1/ask/batch", json={"questions": list(questions), **body})
        return _ANSWERS.validate_python(response.json()["answers"])

    def stream(
        self,
        question: str,
        collection: str = "default",
        *,
        style: Style = Style.FULL,
        language: str | None = None,
        filters: Filters | None = None,
        top_k: int | None = None,
    ) -> Iterator[Offered | Written | Answer]:
        """The passages, the answer while it is written, and the Answer last. Closing it stops the service."""
        body = {"question": question, "stream": True, **_asking(collection, style, language, filters, top_k)}
        response = self._send("POST", "/v1/ask", stream=True, json=body)
        written = ""
        try:
            for name, data in _events(_lines(response.iter_text())):
                if name == "passages":
                    yield Offered(_PASSAGES.validate_python(json.loads(data)["passages"]))
                elif name == "token":
                    token = json.loads(data)
                    written = written[: token["start"]] + token["text"]
                    yield Written(written)
                elif name == "done":
                    yield _ANSWER.validate_json(data)
                elif name == "error":
                    problem = json.loads(data)
                    raise RequestError(problem, problem["status"])
        except httpx.TransportError as error:
            raise UnreachableError(f"the connection broke: {error}") from error
        finally:
            response.close()

    def search(
        self,
        question: str,
        collection: str = "default",
        *,
        top_k: int = 10,
        mode: SearchMode = SearchMode.FUSED,
        filters: Filters | None = None,
    ) -> tuple[Passage, ...]:
        """The best passages, best first."""
        body = {
            "question": question,
            "collection": collection,
            "top_k": top_k,
            "mode": mode.value,
            "filters": _filters(filters),
        }
        return _PASSAGES.validate_python(self._send("POST", "/v1/search", json=body).json()["passages"])

    # Collections and documents

    def collections(self) -> list[CollectionView]:
        """Those that the key may see."""
        found = self._send("GET", "/v1/collections").json()["collections"]
        return [CollectionView.model_validate(each) for each in found]

    def create_collection(self, name: str) -> CollectionView:
        """Makes it, unless it is there."""
        return CollectionView.model_validate(self._send("PUT", f"/v1/collections/{quote(name, '')}").json())

    def delete_collection(self, name: str) -> None:
        """Deletes it with all its documents."""
        self._send("DELETE", f"/v1/collections/{quote(name, '')}")

    def documents(self, collection: str = "default", contains: str = "") -> Iterator[DocumentInfoView]:
        """All of them, a page at a time."""
        offset: int | None = 0
        while offset is not None:
            params: dict[str, str | int] = {"offset": offset, "limit": 200, "contains": contains}
            response = self._send("GET", _path(collection, "documents"), params=params)
            page = DocumentsView.model_validate(response.json())
            yield from page.documents
            offset = page.next_offset

    def document(self, document_id: str, collection: str = "default") -> DocumentView:
        """With its text."""
        return DocumentView.model_validate(
            self._send("GET", _path(collection, "documents", document_id)).json()
        )

    def original(self, document_id: str, collection: str = "default") -> bytes:
        """The file that was uploaded."""
        return self._send("GET", _path(collection, "originals", document_id)).content

    def passage(
        self, document_id: str, start: int, end: int, collection: str = "default", context: int = 300
    ) -> PlaceView:
        """A place in its context."""
        params: dict[str, str | int] = {"start": start, "end": end, "context": context}
        response = self._send("GET", _path(collection, "passages", document_id), params=params)
        return PlaceView.model_validate(response.json())

    def delete_document(self, document_id: str, collection: str = "default") -> None:
        """Erases it."""
        self._send("DELETE", _path(collection, "documents", document_id))

    def upload(self, files: Sequence[Path], collection: str = "default") -> JobView:
        """Uploads files; see `wait` for what becomes of them."""
        parts = [("files", (file.name, file.read_bytes(), "application/octet-stream")) for file in files]
        return JobView.model_validate(self._send("POST", _path(collection, "documents"), files=parts).json())

    def put_documents(
        self, documents: Sequence[Mapping[str, object]], collection: str = "default"
    ) -> JobView:
        """Documents as JSON: `id`, `text`, and if you like `title`, `language`, `source`, `metadata`."""
        body = {"documents": [dict(document) for document in documents]}
        return JobView.model_validate(self._send("POST", _path(collection, "documents"), json=body).json())

    def job(self, job_id: str) -> JobView:
        """As it is now."""
        return JobView.model_validate(self._send("GET", f"/v1/jobs/{quote(job_id, '')}").json())

    def wait(self, job: JobView, timeout_s: float = 600.0) -> JobView:
        """The job once it is over; raises RequestError where that takes longer."""
        ends = time.monotonic() + timeout_s
        pause_s = 0.05
        while not job.state.is_final:
            if time.monotonic() > ends:
                raise RequestError({"detail": f"job {job.id} isn't over after {timeout_s:g} s"}, 504)
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 1.5)
            job = self.job(job.id)
        return job

    def evaluate(self, body: Mapping[str, object]) -> EvaluationView:
        """Starts an evaluation, as in docs/api.md."""
        return EvaluationView.model_validate(self._send("POST", "/v1/evaluations", json=dict(body)).json())

    def evaluation(self, evaluation_id: str) -> EvaluationView:
        """As it is now."""
        path = f"/v1/evaluations/{quote(evaluation_id, '')}"
        return EvaluationView.model_validate(self._send("GET", path).json())

    # Sending

    def _send(self, method: str, path: str, *, stream: bool = False, **options: Any) -> httpx.Response:
        for attempt in range(self._retries + 1):
            try:
                response = self._http.send(self._http.build_request(method, path, **options), stream=stream)
            except httpx.TransportError as error:
                raise UnreachableError(f"{self._http.base_url} doesn't answer: {error}") from error
            if response.status_code not in _AGAIN or attempt == self._retries:
                break
            response.close()
            time.sleep(_pause_s(response, attempt))
        if response.is_success:
            return response
        response.read()
        response.close()
        raise RequestError(_problem(response), response.status_code)


def _pause_s(response: httpx.Response, attempt: int) -> float:
    """What the service asks for, and a little more by chance, so that not all come back at once."""
    named = response.headers.get("retry-after", "")
    seconds = float(named) if named.isascii() and named.isdigit() else 0.5 * 2**attempt
    return min(60.0, seconds * random.uniform(1.0, 1.25))


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Lines that end with a line feed: the others that Unicode knows may stand in the data."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Names and data of server-sent events; comments are passed over."""
    name, data = "", ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        elif not line and data:
            yield name, data
            name, data = "", ""


def _asking(
    collection: str, style: Style, language: str | None, filters: Filters | None, top_k: int | None
) -> dict[str, object]:
    return {
        "collection": collection,
        "style": style.value,
        "language": language,
        "filters": _filters(filters),
        "top_k": top_k,
    }


def _filters(filters: Filters | None) -> dict[str, object]:
    if filters is None:
        return {}
    return {
        "languages": sorted(filters.languages),
        "documents": sorted(filters.documents),
        "metadata": dict(filters.metadata),
    }


def _path(collection: str, kind: str, document_id: str | None = None) -> str:
    path = f"/v1/collections/{quote(collection, '')}/{kind}"
    return path if document_id is None else f"{path}/{quote(document_id)}"
