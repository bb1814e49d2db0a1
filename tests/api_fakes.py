"""A service on fake models: the word embedder, and a reader that quotes and can be held."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi.testclient import TestClient

from api.app import create_app
from api.config import ServiceConfig
from api.service import Engine, Service
from corpus.limits import ReadLimits
from index.library import Library
from rag.answerer import AnswererConfig
from rag.reading import Claim, Reading, ReadingListener, ReadRequest
from tests.index_fakes import WordEmbedder

ABSTAIN = "onbekend"


class QuotingReader:
    """Answers with the first sentence of the first passage, word by word; abstains where asked to.

    While `held` is set, each reading waits at its first word until it is let go or stopped.
    """

    id = "fake/quoting"

    def __init__(self) -> None:
        self.held = threading.Event()
        self.released = threading.Event()
        self.reading = threading.Semaphore(0)
        self.stopped = threading.Semaphore(0)
        self.words: list[str] = []
        self.count = 0

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        self.count += 1
        self.reading.release()
        if ABSTAIN in request.question:
            return self._reading(request, ())
        sentence = request.passages[0].hit.chunk.text.split(". ")[0].rstrip(".") + "."
        written = ""
        for word in sentence.split():
            written = f"{written} {word}".strip()
            if listener is not None and not listener.on_text(written):
                self.stopped.release()
                return self._reading(request, (Claim(written, (1,)),))
            if self.held.is_set():
                self._hold(listener, written)
        return self._reading(request, (Claim(sentence, (request.passages[0].number,)),))

    def _hold(self, listener: ReadingListener | None, written: str) -> None:
        while not self.released.wait(0.01):
            if listener is not None and not listener.on_text(written):
                return

    def _reading(self, request: ReadRequest, claims: tuple[Claim, ...]) -> Reading:
        return Reading(claims, request.passages, 0.0 if claims else 0.9, 0.9, 100, 10)

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        return [self.read(request) for request in requests]


def engine(home: Path, reader: QuotingReader | None = None, **options: object) -> Engine:
    """Fake models over real collections."""
    limits = ReadLimits(max_bytes=2_000_000, timeout_s=20)
    return Engine(
        Library(home, WordEmbedder()),
        reader or QuotingReader(),
        AnswererConfig(),
        limits,
        **options,  # type: ignore[arg-type]
    )


@contextmanager
def client(
    home: Path,
    reader: QuotingReader | None = None,
    config: ServiceConfig | None = None,
    static: Path | None = None,
    **options: object,
) -> Iterator[TestClient]:
    """A client of a service that is ready."""
    made = engine(home, reader, **options)
    app = create_app(config or ServiceConfig(), home, lambda: made, static)
    with TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as test_client:
        service: Service = app.state.service
        assert service.wait_until_loaded(20)
        yield test_client


def put(
    test_client: TestClient, collection: str, documents: dict[str, str], **headers: str
) -> dict[str, object]:
    """Puts documents in by id and text, and waits for the job."""
    body = {"documents": [{"id": name, "title": name, "text": text} for name, text in documents.items()]}
    response = test_client.post(f"/v1/collections/{collection}/documents", json=body, headers=headers)
    assert response.status_code == 202, response.text
    return wait(test_client, response.json()["id"])


def wait(test_client: TestClient, job_id: str) -> dict[str, object]:
    """The job once it is over."""
    service: Service = test_client.app.state.service  # type: ignore[attr-defined]
    job = service.running.writer.job(job_id)
    assert job.finished.wait(60)
    return job.view().model_dump(mode="json")


class Live:
    """A service in a thread of its own."""

    def __init__(self, home: Path, reader: QuotingReader, config: ServiceConfig, **options: object) -> None:
        self.reader = reader
        made = engine(home, reader, **options)
        self.app = create_app(config, home, lambda: made)
        self.service: Service = self.app.state.service
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        options = uvicorn.Config(self.app, log_config=None, access_log=False, ws="none", lifespan="on")
        self.server = uvicorn.Server(options)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    @contextmanager
    def running(self) -> Iterator["Live"]:
        self.thread.start()
        try:
            while not self.server.started:
                threading.Event().wait(0.01)
            assert self.service.wait_until_loaded(20)
            yield self
        finally:
            self.reader.released.set()
            self.server.should_exit = True
            self.thread.join(30)
            self.socket.close()
