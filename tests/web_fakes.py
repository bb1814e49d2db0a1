"""The page's service: fake models behind a real server on a port of its own, and documents to ask about."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.config import ServiceConfig
from api.jobs import Item, json_document
from api.keys import KeyStore, Role
from api.service import Service
from corpus import sentences
from rag.reading import Claim, Reading, ReadingListener, ReadRequest
from tests.api_fakes import ABSTAIN, QuotingReader, engine

INVENTED = "verzonnen"
"""A question with this word gets a second sentence that no passage has."""

HOSTILE_HTML = (
    "<script>window.broken = 1</script> Het kasteel staat op een heuvel. "
    "<img src=x onerror=\"window.broken = 2\"> <a href='javascript:window.broken = 3'>klik</a>"
)
SAMPLES = {
    "nl/warmte.txt": (
        "🎉🎉 Nieuws uit de gemeente 🔥.\n\nDe wethouder opent een warmtenet in de wijk. "
        "Het warmtenet kost twaalf miljoen euro.\n\nDe bewoners betalen niets. De aanleg duurt drie jaar."
    ),
    "nl/fietsen.txt": "De fietsbrug is twee kilometer lang. De brug verbindt het station met de haven.",
    "en/harbour.txt": "The harbour opens in spring. The harbour master expects ninety ships a week.",
}
EXAMPLES = {
    "nl": [
        "Wie opent een warmtenet in de wijk?",
        "Hoe lang is de fietsbrug?",
        "Wat verbindt het station met de haven?",
    ],
    "en": ["When does the harbour open?", "How many ships a week?", "Who expects ninety ships?"],
}


class PageReader(QuotingReader):
    """Says the sentence of the passages that shares most words with the question."""

    def _best(self, request: ReadRequest) -> tuple[str, int]:
        asked = _words(request.question)
        found = [
            (len(asked & _words(text[start:end])), -passage.number, text[start:end])
            for passage in request.passages
            for text in (passage.hit.chunk.text,)
            for start, end in sentences(text)
        ]
        _, number, sentence = max(found)
        return sentence, -number

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        self.reading.release()
        if ABSTAIN in request.question:
            return Reading((), request.passages, 0.9, 0.9, 100, 10)
        sentence, number = self._best(request)
        claims = [Claim(sentence, (number,))]
        if INVENTED in request.question:
            claims.append(Claim("Olifanten zingen zelden opera.", ()))
        self._write(" ".join(claim.text for claim in claims), listener)
        return Reading(tuple(claims), request.passages, 0.0, 0.9, 100, 10)

    def _write(self, text: str, listener: ReadingListener | None) -> None:
        written = ""
        for word in text.split():
            written = f"{written} {word}".strip()
            if listener is not None and not listener.on_text(written):
                self.stopped.release()
                return
            if self.held.is_set():
                self._hold(listener, written)

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        return [self.read(request) for request in requests]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


class _Server(uvicorn.Server):
    """Says when it is up, and on which port."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()


@dataclass(frozen=True, slots=True)
class PageService:
    """A running service and what tests do with it behind the page's back."""

    url: str
    home: Path
    reader: PageReader
    service: Service

    def put(self, collection: str, documents: dict[str, tuple[str, str]]) -> None:
        """Documents by id as (source, text)."""
        items = []
        for name, (source, text) in documents.items():
            document = json_document(name, name, text, None, source, {})
            items.append(Item(name=name, size=len(text), sha256=document.sha256, document=document))
        job = self.service.running.writer.submit(collection, items, None)
        assert job.finished.wait(60)

    def documents(self, collection: str = "default") -> list[str]:
        """Ids of the documents that are in."""
        with self.service.running.shelf.using(collection) as opened:
            return [info.id for info in opened.documents(0, 100)]

    def text(self, document_id: str, collection: str = "default") -> str:
        """A document's text."""
        with self.service.running.shelf.using(collection) as opened:
            return opened.document(document_id).text


@contextmanager
def page_service(
    home: Path, *, keys: bool = False, given: tuple[Path, Path] | None = None
) -> Iterator[PageService]:
    """A service on fake models; `given` are folders of samples and of evaluation sets."""
    reader = PageReader()
    samples, sets = given or (_samples(home / "given"), _sets(home / "given"))
    made = engine(home, reader, samples=samples, evaluation_sets=sets)
    app = create_app(ServiceConfig(port=0, authentication=keys, deadline_s=30), home, lambda: made)
    try:
        with serving(app) as url:
            yield PageService(url, home, reader, app.state.service)
    finally:
        reader.released.set()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of an application that is ready, with its samples read."""
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, name="page-service", daemon=True)
    thread.start()
    try:
        assert server.up.wait(60)
        service: Service = app.state.service
        assert service.wait_until_loaded(300)
        for job in service.running.writer.jobs():
            assert job.finished.wait(300)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def new_key(home: Path, role: Role = Role.ADMIN) -> str:
    """A key's text."""
    return KeyStore(home).create("test", role)[1]


def _samples(folder: Path) -> Path:
    root = folder / "samples"
    for name, text in SAMPLES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (root / ".examples.json").write_text(json.dumps(EXAMPLES), encoding="utf-8")
    return root


def _sets(folder: Path) -> Path:
    root = folder / "sets"
    root.mkdir(parents=True, exist_ok=True)
    (root / "samples.jsonl").write_text(set_lines(), encoding="utf-8")
    return root


def set_lines() -> str:
    """An evaluation set over the samples, a case a line."""
    cases = [
        ("w1", "Wie opent een warmtenet in de wijk?", "nl", "De wethouder", "samples/nl/warmte.txt"),
        ("f1", "Hoe lang is de fietsbrug?", "nl", "twee kilometer", "samples/nl/fietsen.txt"),
        ("h1", "When does the harbour open?", "en", "in spring", "samples/en/harbour.txt"),
    ]
    lines = [
        {
            "id": name,
            "question": question,
            "language": language,
            "answerable": True,
            "answers": [answer],
            "answer": None,
            "relevant": [{"document": document}],
            "tags": {"set": "page"},
        }
        for name, question, language, answer, document in cases
    ]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
