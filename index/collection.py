"""`Collection`: documents in, passages out.

::

    add ──Writer──▶ Store ──generation──▶ DenseIndex, LexicalIndex
    search ──embed──▶ both indexes ──fuse──▶ keys ──Store──▶ Hit

The store is the truth. Whoever searches first compares generations and takes in what changed, whichever process
changed it; so a running service sees what a command line has just ingested.
"""

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from corpus.chunking import ChunkingConfig
from corpus.document import Chunk, Document
from corpus.errors import CollectionCorruptError, CollectionNotFoundError, ModelMismatchError, StorageError
from index.dense import SNAPSHOT, STAMP, DenseHits, DenseIndex
from index.embedder import Embedder, EmbedderSpec, Vectors
from index.fusion import FusedHits, FusionConfig, fuse, union
from index.hits import Filters, Hit, SearchMode
from index.lexical import LexicalHits, LexicalIndex
from index.locking import WriteLock
from index.store import Allowed, DocumentInfo, Original, Store, Transaction
from index.writer import Stored, Writer

DATABASE = "collection.sqlite"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a collection is bound to from its first day; `id` tells two collections of one name apart."""

    name: str
    id: str
    created_at: str
    embedder: EmbedderSpec
    chunking: ChunkingConfig

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises CollectionCorruptError where the text isn't a manifest."""
        try:
            content = json.loads(text)
            content["embedder"] = EmbedderSpec(**content["embedder"])
            content["chunking"] = ChunkingConfig(**content["chunking"])
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise CollectionCorruptError(
                f"the collection's manifest is damaged ({error}); restore it from a backup"
            ) from error


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """How much is in a collection; `disk_bytes` is all of its files."""

    documents: int
    chunks: int
    characters: int
    languages: dict[str, int] = field(default_factory=dict)
    disk_bytes: int = 0


class Collection:
    """Open it with `Library`; one object can be shared by threads."""

    def __init__(self, folder: Path, store: Store, embedder: Embedder, fusion: FusionConfig) -> None:
        self.folder = folder
        self.embedder = embedder
        self._fusion = fusion
        self._store = store
        self._write_lock = WriteLock(folder)
        # FAISS may not be searched while it grows, so searching and catching up take turns.
        self._index_lock = threading.RLock()
        with store.reading() as transaction:
            self.manifest = Manifest.from_json(transaction.meta("manifest"))
        self._check_model()
        self._dense = self._saved_dense()
        self._lexical = LexicalIndex(None if store.read_only else folder)
        self.refresh()

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        embedder: Embedder,
        chunking: ChunkingConfig | None = None,
        fusion: FusionConfig | None = None,
    ) -> "Collection":
        """Makes a new collection in a folder that doesn't exist yet: built beside it and renamed."""
        manifest = Manifest(
            name=name,
            id=uuid.uuid4().hex,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            embedder=embedder.spec,
            chunking=chunking or ChunkingConfig(),
        )
        partial = folder.with_name(f".{folder.name}.{manifest.id[:8]}.partial")
        try:
            partial.mkdir(parents=True)
            Store.create(partial / DATABASE, manifest.to_json()).close()
            partial.rename(folder)
        except OSError as error:
            raise StorageError(
                f"{folder} can't be made: {error.strerror or error}; set VRAAGBAAK_HOME to a folder that can"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls.open(folder, embedder, fusion)

    @classmethod
    def open(cls, folder: Path, embedder: Embedder, fusion: FusionConfig | None = None) -> "Collection":
        """Raises CollectionNotFoundError, ModelMismatchError or CollectionCorruptError."""
        if not (folder / DATABASE).is_file():
            if (folder / SNAPSHOT).exists():
                raise CollectionCorruptError(f"{folder} has lost its database; restore it from a backup")
            raise CollectionNotFoundError(f"there is no collection {folder.name!r}")
        store = Store.open(folder / DATABASE)
        try:
            return cls(folder, store, embedder, fusion or FusionConfig())
        except BaseException:
            store.close()
            raise

    def _check_model(self) -> None:
        made, now = self.manifest.embedder, self.embedder.spec
        if made != now:
            differences = ", ".join(
                f"{name} {value!r} (now {asdict(now)[name]!r})"
                for name, value in asdict(made).items()
                if value != asdict(now)[name]
            )
            raise ModelMismatchError(
                f"collection {self.manifest.name!r} was made with the embedding model {made.id}, and the settings "
                f"name {now.id}: {differences}. Set VRAAGBAAK_EMBEDDER back, or make a new collection and "
                "ingest the documents again"
            )

    def __enter__(self) -> "Collection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self.manifest.name

    def close(self) -> None:
        """Lets go of the files; the object can't be used afterwards."""
        self._store.close()

    # Reading

    def search(
        self,
        question: str,
        top_k: int = 10,
        mode: SearchMode = SearchMode.FUSED,
        filters: Filters | None = None,
        vector: Vectors | None = None,
    ) -> list[Hit]:
        """The `top_k` best chunks, best first. `vector` of shape (1, d) saves embedding the question again."""
        return self.search_batch([question], top_k, mode, filters, vector)[0]

    def search_batch(
        self,
        questions: Sequence[str],
        top_k: int = 10,
        mode: SearchMode = SearchMode.FUSED,
        filters: Filters | None = None,
        vectors: Vectors | None = None,
    ) -> list[list[Hit]]:
        """`search` for many questions, embedded and looked up together; one list a question."""
        if vectors is None and mode is not SearchMode.LEXICAL:
            vectors = self.embedder.embed_queries(questions)
        limit = max(top_k, self._fusion.candidates if mode is SearchMode.FUSED else top_k)
        # The lock comes first: an index that another thread took past this snapshot would miss what was replaced.
        with self._index_lock, self._store.reading() as transaction:
            self._catch_up(transaction)
            allowed = transaction.matching(filters) if filters else None
            dense = self._dense_hits(transaction, questions, vectors, limit, mode, allowed)
            lexical = self._lexical_hits(questions, limit, mode, allowed)
            orders = self._order(transaction, dense, lexical, vectors, mode)
            return self._hits(transaction, orders, dense, lexical, top_k)

    def _dense_hits(
        self,
        transaction: Transaction,
        questions: Sequence[str],
        vectors: Vectors | None,
        limit: int,
        mode: SearchMode,
        allowed: Allowed | None,
    ) -> list[DenseHits]:
        if vectors is None or mode is SearchMode.LEXICAL:
            return [DenseHits(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in questions]
        return self._dense.search(vectors, limit, transaction, None if allowed is None else allowed.keys)

    def _lexical_hits(
        self,
        questions: Sequence[str],
        limit: int,
        mode: SearchMode,
        allowed: Allowed | None,
    ) -> list[LexicalHits]:
        if mode is SearchMode.DENSE:
            nothing = np.empty(0, np.float32)
            return [LexicalHits(np.empty(0, np.int64), nothing, nothing) for _ in questions]
        documents = None if allowed is None else allowed.documents
        return [self._lexical.search(question, limit, documents) for question in questions]

    def _order(
        self,
        transaction: Transaction,
        dense: Sequence[DenseHits],
        lexical: Sequence[LexicalHits],
        vectors: Vectors | None,
        mode: SearchMode,
    ) -> list[FusedHits]:
        if mode is SearchMode.DENSE:
            return [FusedHits(hits.keys, hits.scores.astype(np.float64)) for hits in dense]
        if mode is SearchMode.LEXICAL or vectors is None:
            return [FusedHits(hits.keys, hits.scores.astype(np.float64)) for hits in lexical]
        fused = []
        for number, (near, worded) in enumerate(zip(dense, lexical, strict=True)):
            keys = union(near, worded)
            cosines = self._dense.cosines(vectors[number : number + 1], keys, transaction)
            # Another process may be between its two commits: words without a vector wait for the next search.
            there = ~np.isnan(cosines)
            fused.append(fuse(keys[there], cosines[there], worded, self._fusion))
        return fused

    def _hits(
        self,
        transaction: Transaction,
        orders: Sequence[FusedHits],
        dense: Sequence[DenseHits],
        lexical: Sequence[LexicalHits],
        top_k: int,
    ) -> list[list[Hit]]:
        found = []
        for order, near, worded in zip(orders, dense, lexical, strict=True):
            chunks = transaction.chunks_by_key(order.keys[:top_k].tolist())
            dense_ranks = {key: rank for rank, key in enumerate(near.keys.tolist(), 1)}
            lexical_ranks = {key: rank for rank, key in enumerate(worded.keys.tolist(), 1)}
            found.append(
                [
                    Hit(chunks[key], score, dense_ranks.get(key), lexical_ranks.get(key))
                    for key, score in zip(order.keys[:top_k].tolist(), order.scores.tolist(), strict=False)
                    if key in chunks
                ]
            )
        return found

    def document(self, document_id: str) -> Document:
        """Raises DocumentNotFoundError."""
        with self._store.reading() as transaction:
            return transaction.document(document_id)

    def original(self, document_id: str) -> Original:
        """The uploaded file; raises DocumentNotFoundError where none is kept."""
        with self._store.reading() as transaction:
            return transaction.original(document_id)

    def documents(self, offset: int = 0, limit: int = 50, contains: str = "") -> list[DocumentInfo]:
        """A page of the documents, by id; `contains` is looked for in id and title, whatever its case."""
        with self._store.reading() as transaction:
            return transaction.infos(offset, limit, contains)

    def chunks(self, document_id: str) -> list[Chunk]:
        """A document's chunks in their order; raises DocumentNotFoundError."""
        with self._store.reading() as transaction:
            return transaction.chunks_of(transaction.document(document_id).id)

    def embeddings(self, document_id: str) -> NDArray[np.float16]:
        """The stored vectors of a document's chunks, shape (n, dimension), in their order."""
        with self._store.reading() as transaction:
            return transaction.embeddings_of(document_id)

    def stats(self) -> CollectionStats:
        with self._store.reading() as transaction:
            counts = transaction.counts()
        files = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return CollectionStats(
            counts.documents, counts.chunks, counts.characters, dict(counts.languages), files
        )

    def sha256s(self) -> dict[str, str]:
        """Each document's id and sha256, to tell what has changed."""
        with self._store.reading() as transaction:
            return transaction.sha256s()

    def origins(self) -> list[tuple[str, str, str]]:
        """Each document's id with the path and sha256 of the file that it came from."""
        with self._store.reading() as transaction:
            return transaction.origins()

    def generation(self) -> int:
        """Raised by one with every change."""
        with self._store.reading() as transaction:
            return transaction.generation()

    def check(self) -> None:
        """Reads the whole database; raises CollectionCorruptError where it is damaged."""
        self._store.check()

    # Writing

    @contextmanager
    def writing(self, on_stored: Callable[[Stored], None] | None = None) -> Iterator[Writer]:
        """Many changes under one lock; `on_stored` is told of each document once it can't be lost any more.

        Raises CollectionLockedError where another process is writing.
        """
        if self._store.read_only:
            raise StorageError(f"{self.folder} can't be written; check the disk and its permissions")
        with self._write_lock.held():
            writer = Writer(self._store, self.embedder, self.manifest.chunking, self._take_in, on_stored)
            try:
                yield writer
                writer.flush()
            finally:
                self._settle()

    def add(self, documents: Iterable[Document]) -> int:
        """Puts documents in, each in place of the one that has its id; returns how many."""
        count = 0
        with self.writing() as writer:
            for document in documents:
                writer.put(document)
                count += 1
        return count

    def delete(self, document_ids: Iterable[str]) -> int:
        """Erases documents from the database, its log, both indexes and the snapshot; returns how many."""
        with self.writing() as writer:
            return writer.delete(document_ids)

    def backup(self, file: Path) -> None:
        """Writes the whole collection to one file, consistent while it is in use; see `index.backup`."""
        from index.backup import write_backup

        write_backup(self._store, self.manifest.name, file)

    def refresh(self) -> None:
        """Takes in what other processes changed, and mends derived files that are missing or stale."""
        with self._write_lock.if_free() as held:
            if held and not self._store.read_only:
                self._settle()
                return
        with self._index_lock, self._store.reading() as transaction:
            self._catch_up(transaction)

    def _catch_up(self, transaction: Transaction) -> None:
        """Under the index lock: the vectors always, the words where nobody else is busy with them."""
        if self._dense.is_outgrown() and self._dense.has_better_saved(self.folder):
            self._dense = self._saved_dense()
        self._dense.catch_up(transaction)
        self._lexical.refresh()
        if self._lexical.generation >= transaction.generation():
            return
        if self._store.read_only:
            self._lexical.catch_up(transaction)
            return
        with self._write_lock.if_free() as held:
            if held:
                self._lexical.catch_up(transaction)

    def _saved_dense(self) -> DenseIndex:
        return DenseIndex.load(self.folder, self.embedder.spec.dimension, self.embedder.spec.sha256)

    def _reshape(self) -> None:
        """With the write lock: gives the vectors the form that fits their number, while searches go on."""
        with self._store.reading() as transaction:
            if not self._dense.is_outgrown(transaction.chunk_count()):
                return
            reshaped = self._dense.reshaped(transaction)
        with self._index_lock:
            self._dense = reshaped

    def _take_in(self) -> None:
        """Called by the writer after its commits."""
        self._reshape()
        with self._index_lock, self._store.reading() as transaction:
            self._dense.catch_up(transaction)
            self._lexical.catch_up(transaction)

    def _settle(self) -> None:
        """With the write lock: both indexes and their files at the store's generation, deleted words gone."""
        self._reshape()
        with self._index_lock, self._store.reading() as transaction:
            self._dense.catch_up(transaction, settle=True)
            self._lexical.catch_up(transaction, settle=True)
            if not self._dense.is_saved(self.folder):
                self._dense.save(self.folder, self.embedder.spec.sha256)
        self._store.erase_log()


def derived_files(folder: Path) -> list[Path]:
    """What can be deleted at any time and is built again from the database."""
    return [folder / SNAPSHOT, folder / STAMP, *folder.glob("lexical*")]
