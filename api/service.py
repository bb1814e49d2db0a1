"""The service behind the routes: models loaded in the background, and everything that runs on them."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from api.asking import ReaderQueue, SharedReader, Turns, Watch, await_watched
from api.config import ServiceConfig
from api.guard import Exchange, Tickets
from api.jobs import Spool, WritingThread
from api.keys import Key, KeyStore
from api.problems import problem_of
from api.searching import QueryEmbedder, SearchGate
from api.shelf import Shelf, no_such_collection
from api.telemetry import Metrics, NoTracer, OpenTelemetryTracer, Tracer, log, log_fault, request_id
from corpus.errors import DocumentNotFoundError, ModelError, OverloadedError, VraagbaakError
from corpus.limits import ReadLimits
from index.collection import Collection, CollectionStats
from index.hits import Filters, Hit, SearchMode
from index.library import Library
from rag.answerer import Answerer, AnswererConfig
from rag.answers import Answer, Passage, Style
from rag.reading import Reader

_SUB_BATCH = 8
"""Questions of a batch that are read together, before others have their turn."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The models, and where the collections are. `samples` are files for a home without any collection."""

    library: Library
    reader: Reader
    answerer: AnswererConfig = field(default_factory=AnswererConfig)
    limits: ReadLimits = field(default_factory=ReadLimits)
    samples: Path | None = None
    evaluation_sets: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one collection, with its options."""

    text: str
    collection: str
    style: Style = Style.FULL
    language: str | None = None
    filters: Filters = field(default_factory=Filters)
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Passages with the time that they took."""

    passages: tuple[Passage, ...]
    timings: Mapping[str, float]


class Running:
    """All that needs the models; made once they are loaded."""

    def __init__(self, engine: Engine, config: ServiceConfig, metrics: Metrics) -> None:
        self.engine = engine
        self.config = config
        self.metrics = metrics
        self.shelf = Shelf(engine.library)
        self.turns = Turns(config.readers)
        self.reader = SharedReader(engine.reader, self.turns, metrics.read)
        self.queue = ReaderQueue(config.readers, config.queue_length, metrics.wait_seconds.observe)
        self.query_embedder = QueryEmbedder(engine.library.embedder)
        self.gate = SearchGate(config.search_threads, config.search_queue_length)
        self.spool = Spool(engine.library.home / "uploads")
        self.writer = WritingThread(
            self.shelf.using,
            engine.limits,
            config.max_queued_jobs,
            config.max_kept_jobs,
            lambda fate: metrics.documents.labels(fate.value).inc(),
        )
        from api.evaluations import Evaluations

        self.evaluations = Evaluations(self)

    def answerer(self, collection: Collection, reader: Reader | None = None) -> Answerer:
        """An answerer that takes its turns; it costs nothing to make."""
        embedder = self.engine.library.embedder
        return Answerer(collection, reader or self.reader, embedder, self.engine.answerer)

    def patient_reader(self) -> Reader:
        """The reader for what can wait: questions that people ask go first."""
        return SharedReader(self.engine.reader, self.turns, self.metrics.read, hurried=False)

    async def close(self) -> None:
        """Finishes what runs and lets go of everything."""
        self.writer.close(0)
        await asyncio.to_thread(self.queue.close, self.config.shutdown_s)
        await asyncio.to_thread(self.evaluations.close, self.config.shutdown_s)
        await self.gate.close()
        await asyncio.to_thread(self.query_embedder.close)
        await asyncio.to_thread(self.writer.close, self.config.shutdown_s)
        self.shelf.close()


class Service:
    """One running service. `load` gives the models; it is called once, in a thread."""

    def __init__(self, config: ServiceConfig, home: Path, load: Callable[[], Engine]) -> None:
        self.config = config
        self.keys = KeyStore(home)
        self.tickets = Tickets()
        self.tracer: Tracer = OpenTelemetryTracer() if config.traces else NoTracer()
        self.metrics = Metrics(self._stats, lambda: len(self._running.queue) if self._running else 0)
        self.is_closing = False
        self._load = load
        self._running: Running | None = None
        self._error: VraagbaakError | None = None
        self._loaded = threading.Event()

    # Life

    def start(self) -> None:
        """Begins to load the models, and returns at once."""
        threading.Thread(target=self._start, name="loader", daemon=True).start()

    def _start(self) -> None:
        started = time.perf_counter()
        try:
            running = Running(self._load(), self.config, self.metrics)
            self._running = running
            self._first_start(running)
            log("ready", {"seconds": round(time.perf_counter() - started, 2)})
        except VraagbaakError as error:
            self._error = error
            log("models can't be loaded", {"reason": str(error)}, level=logging.ERROR)
        except BaseException as error:  # the thread ends here; readiness and every request tell the reason
            log_fault("models can't be loaded", {"reason": repr(error)})
            self._error = ModelError(f"{type(error).__name__}; the log has the reason")
        finally:
            self._loaded.set()

    def _first_start(self, running: Running) -> None:
        """A home without any collection gets one, with the sample documents in it."""
        if running.shelf.names():
            return
        running.shelf.create(self.config.default_collection)
        samples = running.engine.samples
        if samples is None:
            return
        folder = running.spool.folder()
        items = []
        for file in sorted(samples.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                name = f"{samples.name}/{file.relative_to(samples).as_posix()}"
                with file.open("rb") as content:
                    items.append(running.spool.keep(folder, name, content))
        running.writer.submit(self.config.default_collection, items, folder)

    def wait_until_loaded(self, timeout_s: float) -> bool:
        """Whether loading is over, well or not."""
        return self._loaded.wait(timeout_s)

    async def close(self) -> None:
        """Refuses what is new and finishes what runs."""
        self.is_closing = True
        if self._running is not None:
            await self._running.close()
        await asyncio.to_thread(self.tracer.close)

    @property
    def running(self) -> Running:
        """Raises ModelError until the models are loaded, OverloadedError once it is closing."""
        if self.is_closing:
            raise OverloadedError("the service is shutting down; try again in a minute", 30)
        if self._error is not None:
            raise ModelError(f"the models can't be loaded: {self._error}")
        if self._running is None:
            raise ModelError("the models are still being loaded; try again in a few seconds")
        return self._running

    def checks(self) -> dict[str, str]:
        """What readiness rests on: "ok" or the reason that it isn't."""
        try:
            running = self.running
        except (ModelError, OverloadedError) as error:
            return {"models": str(error), "collection": "unknown"}
        names = running.shelf.names()
        if not names:
            return {"models": "ok", "collection": "ok"}
        default = self.config.default_collection
        try:
            with running.shelf.using(default if default in names else names[0]):
                return {"models": "ok", "collection": "ok"}
        except VraagbaakError as error:
            return {"models": "ok", "collection": problem_of(error).kind.title}

    def _stats(self) -> Mapping[str, CollectionStats]:
        return self._running.shelf.stats() if self._running else {}

    # Who sees what

    @contextmanager
    def collection(self, name: str, key: Key) -> Iterator[Collection]:
        """An open collection; the same CollectionNotFoundError where it isn't there and isn't the key's."""
        if not key.sees(name):
            raise no_such_collection(name)
        with self.running.shelf.using(name) as collection:
            yield collection

    def check_sees(self, name: str, key: Key) -> None:
        """Raises CollectionNotFoundError where the collection isn't there for this key."""
        with self.collection(name, key):
            return

    def check_open(self, name: str, key: Key) -> None:
        """`check_sees` without opening anything, quick enough for the event loop."""
        if not key.sees(name) or name not in self.running.shelf:
            raise no_such_collection(name)

    # Asking

    def submit(self, question: Question, key: Key, watch: Watch) -> "Future[Answer]":
        """Queues a question. Raises OverloadedError and CollectionNotFoundError at once."""
        running = self.running
        if not key.sees(question.collection):
            raise no_such_collection(question.collection)
        identifier = request_id.get()

        def work() -> Answer:
            request_id.set(identifier)
            with running.shelf.using(question.collection) as collection:
                answer = running.answerer(collection).ask(
                    question.text,
                    style=question.style,
                    language=question.language,
                    filters=question.filters or None,
                    top_k=question.top_k,
                    listener=watch,
                )
            watch.check()
            self._note(question, answer)
            return answer

        return self._counted(lambda: running.queue.submit(work, watch))

    def _note(self, question: Question, answer: Answer) -> None:
        self.metrics.answered(answer)
        self.tracer.answered(answer, question.collection)
        fields: dict[str, object] = {stage: round(seconds, 4) for stage, seconds in answer.timings.items()}
        if self.config.log_content:
            fields |= {"question": question.text, "answer": answer.text}
        log("answer", {"collection": question.collection, "abstained": answer.abstained, **fields})

    def _counted(self, submit: "Callable[[], Future[Answer]]") -> "Future[Answer]":
        try:
            return submit()
        except OverloadedError:
            self.metrics.refused.labels("queue").inc()
            raise

    async def ask_batch(
        self, texts: list[str], options: Question, key: Key, watch: Watch, request: Request
    ) -> list[Answer]:
        """Answers in the order of the questions, a few at a time, so that others have their turn in between."""
        running = self.running
        if not key.sees(options.collection):
            raise no_such_collection(options.collection)
        answers: list[Answer] = []
        for at in range(0, len(texts), _SUB_BATCH):
            some = texts[at : at + _SUB_BATCH]

            def work(some: list[str] = some) -> list[Answer]:
                with running.shelf.using(options.collection) as collection:
                    return running.answerer(collection).ask_batch(
                        some,
                        style=options.style,
                        language=options.language,
                        filters=options.filters or None,
                        top_k=options.top_k,
                    )

            answers += await await_watched(running.queue.submit(work, watch, must=at > 0), watch, request)
        for answer in answers:
            self._note(options, answer)
        return answers

    # Searching

    async def search(self, question: Question, mode: SearchMode, key: Key, watch: Watch) -> Found:
        """Searches beside the reader. Raises OverloadedError at once when too many wait."""
        running = self.running
        if not key.sees(question.collection):
            raise no_such_collection(question.collection)
        try:
            running.gate.enter()
        except OverloadedError:
            self.metrics.refused.labels("search").inc()
            raise
        started = time.perf_counter()
        is_embedded = mode is not SearchMode.LEXICAL
        vector = running.query_embedder.embed(question.text) if is_embedded else None
        embedded = started

        def look(ready: "object") -> tuple[Passage, ...]:
            nonlocal embedded
            embedded = time.perf_counter()
            with running.shelf.using(question.collection) as collection:
                hits = collection.search(
                    question.text,
                    question.top_k or 10,
                    mode,
                    question.filters or None,
                    ready,  # type: ignore[arg-type]
                )
                return passages_of(collection, hits)

        passages = await running.gate.run(vector, look, watch)
        done = time.perf_counter()
        timings = {"embed_s": embedded - started, "search_s": done - embedded, "total_s": done - started}
        self.metrics.searched(timings)
        self.tracer.searched(timings, question.collection)
        return Found(passages, timings)


def passages_of(collection: Collection, hits: list[Hit]) -> tuple[Passage, ...]:
    """Hits with their documents' titles; one that was deleted since is left out."""
    documents = {}
    for document_id in dict.fromkeys(hit.chunk.document_id for hit in hits):
        try:
            documents[document_id] = collection.document(document_id)
        except DocumentNotFoundError:
            continue
    there = [hit for hit in hits if hit.chunk.document_id in documents]
    return tuple(
        Passage(number, hit, document.title, document.source, document.language)
        for number, hit in enumerate(there, 1)
        for document in (documents[hit.chunk.document_id],)
    )


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


def key_of(request: Request) -> Key:
    """Whose request it is."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange.key


def request_id_of(request: Request) -> str:
    """The request's id."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange.id
