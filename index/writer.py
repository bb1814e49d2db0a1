"""Documents on their way in: chunked, embedded many at a time, stored one transaction each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from corpus.chunking import ChunkingConfig, split
from corpus.document import Chunk, Document
from corpus.errors import EmptyDocumentError
from index.embedder import Embedder, Vectors
from index.store import Origin, Original, Store

FLUSH_CHUNKS = 256
"""Chunks that are embedded together: enough to fill batches of equal length, a few seconds' work."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that is in: committed, with all its chunks."""

    document_id: str
    source: str
    chunks: int
    replaced: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    document: Document
    chunks: Sequence[Chunk]
    origin: Origin
    original: Original | None


class Writer:
    """Handed out by `Collection.writing`; nothing is kept for good before `flush`, which also ends a session."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        chunking: ChunkingConfig,
        take_in: Callable[[], None],
        on_stored: Callable[[Stored], None] | None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._chunking = chunking
        self._take_in = take_in
        self._on_stored = on_stored
        self._waiting: list[_Waiting] = []
        self._waiting_chunks = 0

    def put(self, document: Document, origin: Origin | None = None, original: Original | None = None) -> None:
        """Takes a document in, in place of one with its id; raises EmptyDocumentError without any text."""
        chunks = split(document, self._embedder.count_tokens, self._chunking)
        if not chunks:
            raise EmptyDocumentError(document.source or document.id, "there is no text in it")
        self._waiting.append(_Waiting(document, chunks, origin or Origin(), original))
        self._waiting_chunks += len(chunks)
        if self._waiting_chunks >= FLUSH_CHUNKS:
            self.flush()

    def flush(self) -> None:
        """Embeds and commits what waits, and tells of each document after its commit."""
        waiting, self._waiting, self._waiting_chunks = self._waiting, [], 0
        if not waiting:
            return
        vectors = self._embedder.embed_passages(
            [passage_text(item.document, chunk) for item in waiting for chunk in item.chunks]
        )
        at = 0
        for item in waiting:
            self._store_one(item, vectors[at : at + len(item.chunks)])
            at += len(item.chunks)
        self._take_in()

    def _store_one(self, item: _Waiting, vectors: Vectors) -> None:
        with self._store.writing() as transaction:
            replaced = transaction.delete([item.document.id]) > 0
            transaction.insert(item.document, item.chunks, vectors, item.origin, item.original)
        if self._on_stored is not None:
            self._on_stored(Stored(item.document.id, item.document.source, len(item.chunks), replaced))

    def delete(self, document_ids: Iterable[str]) -> int:
        """Takes documents out; returns how many were there."""
        self.flush()
        with self._store.writing() as transaction:
            count = transaction.delete(document_ids)
        self._take_in()
        return count

    def mark(self, origins: Mapping[str, Origin]) -> None:
        """Records, by document id, where documents that are in were found."""
        with self._store.writing() as transaction:
            transaction.set_origins(origins)


def passage_text(document: Document, chunk: Chunk) -> str:
    """What is embedded for a chunk: the document's title and the heading stand before the text."""
    return "\n".join(filter(None, (document.title, chunk.heading, chunk.text)))
