"""What an evaluation runs on: the service's own search and answers behind a narrow protocol."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Protocol, TypeVar

from corpus.chunking import ChunkingConfig
from corpus.document import Chunk, Document
from corpus.errors import EvaluationError
from index.collection import Collection
from index.embedder import EmbedderSpec
from index.hits import Filters, Hit, SearchMode
from rag.answerer import CalibratedReader
from rag.answers import Answer, Style
from rag.calibration import Calibration
from rag.reading import Reader, Reading, ReadingListener, ReadRequest

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What was searched. `content_sha256` is over all documents' ids and sha256s, whenever they went in."""

    name: str
    documents: int
    chunks: int
    characters: int
    languages: Mapping[str, int]
    chunking: ChunkingConfig
    content_sha256: str


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """What a run was of: enough to tell two systems apart. `reader` is None where nothing answered."""

    embedder: EmbedderSpec
    collection: CollectionInfo
    reader: str | None = None
    reader_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the reader has read and written so far, and the seconds that it took."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    read_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Searched:
    """For each mode one list of hits a question; `timings` are seconds for all questions together."""

    hits: Mapping[SearchMode, Sequence[Sequence[Hit]]]
    timings: Mapping[str, float] = field(default_factory=dict)


class System(Protocol):
    """All that `EvaluationRun` needs; tests pass a fake."""

    @property
    def info(self) -> SystemInfo: ...

    @property
    def usage(self) -> Usage: ...

    def document(self, document_id: str) -> Document:
        """Raises DocumentNotFoundError."""
        ...

    def chunks(self, document_id: str) -> Sequence[Chunk]:
        """In their order; raises DocumentNotFoundError."""
        ...

    def search(
        self,
        questions: Sequence[str],
        modes: Sequence[SearchMode],
        top_k: int,
        filters: Filters | None = None,
    ) -> Searched:
        """The `top_k` best chunks by each mode, of the documents that fit."""
        ...

    def answer(
        self, questions: Sequence[str], style: Style, mode: SearchMode, filters: Filters | None = None
    ) -> Sequence[Answer]:
        """Answers as the service gives them, search and all; one a question."""
        ...

    def answer_from(
        self, questions: Sequence[str], hits: Sequence[Sequence[Hit]], style: Style
    ) -> Sequence[Answer]:
        """Answers from these passages alone, in this order."""
        ...


class BatchAnswerer(Protocol):
    """The part of `rag.answerer.Answerer` that is used here."""

    def ask_batch(
        self, questions: Sequence[str], *, style: Style, mode: SearchMode, filters: Filters | None
    ) -> Sequence[Answer]:
        """One answer a question."""
        ...

    def answer_from_batch(
        self, questions: Sequence[str], hits: Sequence[Sequence[Hit]], *, style: Style
    ) -> Sequence[Answer]:
        """One answer a question, from its hits alone."""
        ...


class MeteredReader:
    """A reader that counts what goes through it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.usage = Usage()

    @property
    def id(self) -> str:
        """See `Reader`."""
        return self._reader.id

    @property
    def calibration(self) -> Calibration | None:
        """That of the reader inside, where it has one."""
        return self._reader.calibration if isinstance(self._reader, CalibratedReader) else None

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """See `Reader`."""
        reading, seconds = _timed(lambda: self._reader.read(request, listener))
        self._count([reading], seconds)
        return reading

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """See `Reader`."""
        readings, seconds = _timed(lambda: self._reader.read_batch(requests, on_done))
        self._count(readings, seconds)
        return readings

    def _count(self, readings: Sequence[Reading], seconds: float) -> None:
        self.usage = Usage(
            self.usage.prompt_tokens + sum(reading.prompt_tokens for reading in readings),
            self.usage.new_tokens + sum(reading.new_tokens for reading in readings),
            self.usage.read_s + seconds,
        )


class CollectionSystem:
    """A `System` over a collection and, unless only retrieval is measured, an answerer on it."""

    def __init__(
        self,
        collection: Collection,
        answerer: BatchAnswerer | None = None,
        reader: MeteredReader | None = None,
        reader_sha256: str | None = None,
    ) -> None:
        """`reader` is what `answerer` reads with."""
        self._collection = collection
        self._answerer = answerer
        self._reader = reader
        name = reader.id if reader else None
        self._info = SystemInfo(
            embedder=_without_path(collection.manifest.embedder),
            collection=_collection_info(collection),
            reader=PurePath(name).name if name and PurePath(name).is_absolute() else name,
            reader_sha256=reader_sha256,
        )

    @property
    def info(self) -> SystemInfo:
        """See `System`."""
        return self._info

    @property
    def usage(self) -> Usage:
        """See `System`."""
        return self._reader.usage if self._reader else Usage()

    def document(self, document_id: str) -> Document:
        """See `System`."""
        return self._collection.document(document_id)

    def chunks(self, document_id: str) -> Sequence[Chunk]:
        """See `System`."""
        return self._collection.chunks(document_id)

    def search(
        self,
        questions: Sequence[str],
        modes: Sequence[SearchMode],
        top_k: int,
        filters: Filters | None = None,
    ) -> Searched:
        """See `System`; the questions are embedded once for all modes."""
        timings: dict[str, float] = {}
        vectors = None
        if any(mode is not SearchMode.LEXICAL for mode in modes):
            vectors, timings["embed_s"] = _timed(lambda: self._collection.embedder.embed_queries(questions))
        hits = {}
        for mode in modes:
            hits[mode], timings[f"search_{mode.value}_s"] = _timed(
                lambda mode=mode: self._collection.search_batch(  # type: ignore[misc]
                    questions, top_k, mode, filters, vectors
                )
            )
        return Searched(hits, timings)

    def answer(
        self, questions: Sequence[str], style: Style, mode: SearchMode, filters: Filters | None = None
    ) -> Sequence[Answer]:
        """See `System`; raises EvaluationError without an answerer."""
        return self._required().ask_batch(questions, style=style, mode=mode, filters=filters)

    def answer_from(
        self, questions: Sequence[str], hits: Sequence[Sequence[Hit]], style: Style
    ) -> Sequence[Answer]:
        """See `System`; raises EvaluationError without an answerer."""
        return self._required().answer_from_batch(questions, hits, style=style)

    def _required(self) -> BatchAnswerer:
        if self._answerer is None:
            raise EvaluationError("there is no reader in this run; measure retrieval only, or load one")
        return self._answerer


def _timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _without_path(spec: EmbedderSpec) -> EmbedderSpec:
    """A model in a folder is named by the folder alone: a summary is for others to read."""
    return replace(spec, id=PurePath(spec.id).name) if PurePath(spec.id).is_absolute() else spec


def _collection_info(collection: Collection) -> CollectionInfo:
    stats = collection.stats()
    content = json.dumps(sorted(collection.sha256s().items()), ensure_ascii=False)
    return CollectionInfo(
        name=collection.manifest.name,
        documents=stats.documents,
        chunks=stats.chunks,
        characters=stats.characters,
        languages=dict(sorted(stats.languages.items())),
        chunking=collection.manifest.chunking,
        content_sha256=hashlib.sha256(content.encode()).hexdigest(),
    )
