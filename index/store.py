"""SQLite, the source of truth: documents, chunks and their embeddings, in one file.

::

    meta       key → value: the manifest (JSON) and the generation, which every change raises by one
    documents  one row a document, `text` whole; `origin` is the file it was read from
    chunks     slices of a document with their float16 embedding; keys only ever grow
    removed    keys of chunks that are gone, so that an index in memory can catch up
    originals  the file a document was uploaded as, where it is kept
    sizes, languages  how many there are of what, kept by triggers in the transaction of each change

WAL lets readers go on while one writer writes. `secure_delete` overwrites what is deleted with zeros, and
`erase_log` empties the write-ahead log, so that deleted text is nowhere in the files.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.document import Chunk, Document
from corpus.errors import (
    CollectionCorruptError,
    CollectionError,
    CollectionLockedError,
    DocumentNotFoundError,
    StorageError,
)
from index.embedder import Vectors
from index.hits import Filters

SCHEMA_VERSION = 3
BUSY_TIMEOUT_MS = 10_000
SQL_VARIABLES = 900
"""SQLite takes at least 999 variables a statement."""

LARGEST_KEY = 2**63 - 1

_COUNT_CHUNKS = 'SELECT count(*), coalesce(sum("end" - start), 0) FROM chunks'
_COUNT_LANGUAGES = "SELECT language, count(*) FROM documents GROUP BY language ORDER BY language"

MIGRATIONS: dict[int, str] = {
    1: """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE documents (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        language TEXT NOT NULL,
        text TEXT NOT NULL,
        source TEXT NOT NULL,
        metadata TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        page_starts TEXT NOT NULL,
        origin TEXT NOT NULL,
        origin_sha256 TEXT NOT NULL,
        chunk_count INTEGER NOT NULL,
        ingested_at TEXT NOT NULL
    );
    CREATE INDEX documents_by_origin ON documents (origin);
    CREATE TABLE chunks (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        document_key INTEGER NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        start INTEGER NOT NULL,
        "end" INTEGER NOT NULL,
        heading TEXT NOT NULL,
        text TEXT NOT NULL,
        embedding BLOB NOT NULL,
        UNIQUE (document_key, ordinal)
    );
    CREATE TABLE removed (key INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
    CREATE INDEX removed_by_generation ON removed (generation);
    CREATE TABLE originals (
        document_key INTEGER PRIMARY KEY REFERENCES documents (key) ON DELETE CASCADE,
        name TEXT NOT NULL,
        content BLOB NOT NULL
    );
    INSERT INTO meta VALUES ('generation', '0');
    """,
    # In a row the metadata lies behind the text, all of whose pages would be read to filter by it.
    2: "CREATE INDEX documents_by_metadata ON documents (language, metadata);",
    # To count the characters, each chunk is read with its text and embedding: gigabytes at a million.
    3: f"""
    CREATE TABLE sizes (chunks INTEGER NOT NULL, characters INTEGER NOT NULL);
    INSERT INTO sizes {_COUNT_CHUNKS};
    CREATE TABLE languages (language TEXT PRIMARY KEY, documents INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO languages {_COUNT_LANGUAGES};
    CREATE TRIGGER chunk_in AFTER INSERT ON chunks BEGIN
        UPDATE sizes SET chunks = chunks + 1, characters = characters + (new."end" - new.start);
    END;
    CREATE TRIGGER chunk_out AFTER DELETE ON chunks BEGIN
        UPDATE sizes SET chunks = chunks - 1, characters = characters - (old."end" - old.start);
    END;
    CREATE TRIGGER document_in AFTER INSERT ON documents BEGIN
        INSERT INTO languages VALUES (new.language, 1)
        ON CONFLICT (language) DO UPDATE SET documents = documents + 1;
    END;
    CREATE TRIGGER document_out AFTER DELETE ON documents BEGIN
        UPDATE languages SET documents = documents - 1 WHERE language = old.language;
        DELETE FROM languages WHERE documents = 0;
    END;
    """,
}
"""What turns version n - 1 into version n."""


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document's row without its text. `characters` counts code points."""

    id: str
    title: str
    language: str
    source: str
    metadata: dict[str, str]
    sha256: str
    origin: str
    chunks: int
    characters: int
    pages: int
    ingested_at: str


@dataclass(frozen=True, slots=True)
class Original:
    """The file that a document was uploaded as; `name` is only ever shown, never used as a path."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Where documents were read from: a file's absolute path and the hex digest of its bytes."""

    path: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """What the derived indexes need of a chunk. `title` and `language` are its document's."""

    key: int
    document_key: int
    language: str
    title: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """What filters let through: the keys of chunks, in increasing order, and of their documents."""

    keys: NDArray[np.int64]
    documents: Sequence[int]


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """How much is in: rows and, for the file, bytes on disk."""

    documents: int
    chunks: int
    characters: int
    languages: dict[str, int]


class Store:
    """One database file. Every thread has its own connection; a connection sees a consistent snapshot
    inside `reading()`, and `writing()` is one transaction, all or nothing."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._guard = threading.Lock()

    @classmethod
    def create(cls, path: Path, manifest: str) -> "Store":
        """Makes the file with the newest schema; `manifest` is kept as it is."""
        store = cls(path)
        with store._errors():
            connection = store._connection()
            connection.execute("PRAGMA auto_vacuum = NONE")
            connection.execute("PRAGMA journal_mode = WAL")
        store.migrate()
        with store.writing() as transaction:
            transaction.set_meta("manifest", manifest)
        return store

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Opens the file, read-only where the folder can't be written; raises CollectionCorruptError."""
        store = cls(path)
        with store._errors():
            store._check_header()
            try:
                version = store.version()
            except sqlite3.OperationalError:
                store.close()
                store = cls(path, read_only=True)
                version = store.version()
        if version > SCHEMA_VERSION:
            raise CollectionError(
                f"{path} was written by a newer Vraagbaak (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade Vraagbaak"
            )
        if version < SCHEMA_VERSION and not store.read_only:
            store.migrate()
        return store

    def _check_header(self) -> None:
        with self.path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                raise CollectionCorruptError(
                    f"{self.path} is not a database any more; restore it from a backup ('vraagbaak restore')"
                )

    def version(self) -> int:
        """The schema's version; 0 for an empty file."""
        return int(self._connection().execute("PRAGMA user_version").fetchone()[0])

    def migrate(self) -> None:
        """Brings the schema to the newest version, all steps in one transaction.

        On a read-only disk an older version is read as it is: the newer ones are only faster.
        """
        connection = self._connection()
        with self._errors():
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Asked inside: another process may have done it meanwhile.
                for version in range(self.version() + 1, SCHEMA_VERSION + 1):
                    for statement in _statements(MIGRATIONS[version]):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {version}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes every thread's connection."""
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    @contextmanager
    def reading(self) -> Iterator["Transaction"]:
        """A snapshot: all reads inside see the same generation, whatever is written meanwhile."""
        with self._errors():
            connection = self._connection()
            if connection.in_transaction:
                yield Transaction(connection)
                return
            connection.execute("BEGIN")
            try:
                yield Transaction(connection)
            finally:
                connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator["Transaction"]:
        """One transaction that raises the generation; rolled back if anything inside it raises."""
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(connection)
                transaction.set_meta("generation", str(transaction.generation() + 1))
                yield transaction
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def erase_log(self) -> bool:
        """Moves the write-ahead log into the database and empties it; False while a reader holds it back."""
        with self._errors():
            row = self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return bool(row) and row[0] == 0

    def copy_to(self, path: Path) -> None:
        """A consistent copy of the whole database, made while it is in use."""
        with self._errors():
            target = sqlite3.connect(path)
            try:
                self._connection().backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
            finally:
                target.close()

    def check(self) -> None:
        """SQLite's own integrity check over the whole file; raises CollectionCorruptError."""
        with self._errors():
            row = self._connection().execute("PRAGMA quick_check(1)").fetchone()
        if row[0] != "ok":
            raise CollectionCorruptError(f"{self.path} is damaged ({row[0]}); restore it from a backup")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            with self._guard:
                self._connections.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        # On a read-only disk the log can't be opened; immutable reads the file as it lies there.
        uri = self.path.absolute().as_uri() + ("?mode=ro&immutable=1" if self.read_only else "")
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.DatabaseError | OSError) -> Exception:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA")) or "malformed" in str(error):
            return CollectionCorruptError(
                f"{self.path} is damaged ({error}); restore it from a backup ('vraagbaak restore')"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return CollectionLockedError(f"another process is writing to {self.path.parent}; try again later")
        if name.startswith("SQLITE_CONSTRAINT"):
            return CollectionError(f"{self.path}: {error}")
        reason = (
            "can't be written" if name.startswith(("SQLITE_READONLY", "SQLITE_FULL")) else "can't be used"
        )
        return StorageError(f"{self.path} {reason}: {error}; make room on the disk or check its permissions")


class Transaction:
    """Reads and writes on one connection, inside one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def generation(self) -> int:
        return int(self.meta("generation"))

    def meta(self, key: str) -> str:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise CollectionCorruptError(f"the collection's database has no {key}; restore it from a backup")
        return str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def insert(
        self,
        document: Document,
        chunks: Sequence[Chunk],
        embeddings: Vectors,
        origin: Origin,
        original: Original | None = None,
    ) -> None:
        """Puts a document in with all its chunks, whose keys follow on each other; its id must not be there."""
        cursor = self._connection.execute(
            "INSERT INTO documents (id, title, language, text, source, metadata, sha256, page_starts, origin, "
            "origin_sha256, chunk_count, ingested_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                document.id,
                document.title,
                document.language,
                document.text,
                document.source,
                json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True),
                document.sha256,
                json.dumps(document.page_starts),
                origin.path,
                origin.sha256,
                len(chunks),
                datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )
        key = cursor.lastrowid
        self._connection.executemany(
            'INSERT INTO chunks (document_key, ordinal, start, "end", heading, text, embedding) '
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (key, chunk.ordinal, chunk.start, chunk.end, chunk.heading, chunk.text, row.tobytes())
                for chunk, row in zip(chunks, embeddings.astype(np.float16), strict=True)
            ),
        )
        if original is not None:
            self._connection.execute(
                "INSERT INTO originals VALUES (?, ?, ?)", (key, original.name, original.content)
            )

    def delete(self, document_ids: Iterable[str]) -> int:
        """Takes documents out with their chunks; ids that aren't there are passed over. Returns how many."""
        count = 0
        for document_id in document_ids:
            row = self._connection.execute(
                "SELECT key FROM documents WHERE id = ?", (document_id,)
            ).fetchone()
            if row is None:
                continue
            self._connection.execute(
                "INSERT INTO removed SELECT key, ? FROM chunks WHERE document_key = ?",
                (self.generation(), row[0]),
            )
            self._connection.execute("DELETE FROM documents WHERE key = ?", row)
            count += 1
        return count

    def document(self, document_id: str) -> Document:
        """The whole document; raises DocumentNotFoundError."""
        row = self._connection.execute(
            "SELECT id, title, language, text, source, metadata, sha256, page_starts FROM documents "
            "WHERE id = ?",
            (document_id,),
        ).fetchone()
        if row is None:
            raise DocumentNotFoundError(f"there is no document {document_id!r} in this collection")
        document_id, title, language, text, source, metadata, sha256, page_starts = row
        pages = tuple(json.loads(page_starts))
        return Document(document_id, title, language, text, source, json.loads(metadata), sha256, pages)

    def original(self, document_id: str) -> Original:
        """The file that was uploaded; raises DocumentNotFoundError where none is kept."""
        row = self._connection.execute(
            "SELECT name, content FROM originals JOIN documents ON key = document_key WHERE id = ?",
            (document_id,),
        ).fetchone()
        if row is None:
            raise DocumentNotFoundError(f"no original file is kept for {document_id!r}")
        return Original(*row)

    def infos(self, offset: int, limit: int, contains: str = "") -> list[DocumentInfo]:
        """A page of documents in the order of their ids, those whose id or title has `contains` in it."""
        rows = self._connection.execute(
            "SELECT id, title, language, source, metadata, sha256, origin, chunk_count, length(text), "
            "json_array_length(page_starts), ingested_at FROM documents "
            "WHERE ?3 = '' OR instr(lower(id), ?3) OR instr(lower(title), ?3) ORDER BY id LIMIT ?1 OFFSET ?2",
            (limit, offset, contains.lower()),
        )
        return [_info(row) for row in rows]

    def counts(self) -> StoreCounts:
        """Without reading a document or a chunk, but on a read-only disk with a database of before version 3."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        sizes, languages = (
            ("SELECT chunks, characters FROM sizes", "SELECT language, documents FROM languages ORDER BY 1")
            if version >= 3
            else (_COUNT_CHUNKS, _COUNT_LANGUAGES)
        )
        chunks, characters = self._connection.execute(sizes).fetchone()
        documents = dict(self._connection.execute(languages))
        return StoreCounts(sum(documents.values()), chunks, characters, documents)

    def chunk_count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def sha256s(self) -> dict[str, str]:
        """Each document's id and sha256."""
        return dict(self._connection.execute("SELECT id, sha256 FROM documents"))

    def origins(self) -> list[tuple[str, str, str]]:
        """Each document's id, the path of the file it came from, and that file's sha256."""
        return list(self._connection.execute("SELECT id, origin, origin_sha256 FROM documents"))

    def set_origins(self, origins: Mapping[str, Origin]) -> None:
        """Records, by document id, which file a document was found in."""
        self._connection.executemany(
            "UPDATE documents SET origin = ?, origin_sha256 = ? WHERE id = ?",
            ((origin.path, origin.sha256, document_id) for document_id, origin in origins.items()),
        )

    def chunks_of(self, document_id: str) -> list[Chunk]:
        """A document's chunks in their order; empty where there is no such document."""
        rows = self._connection.execute(
            'SELECT id, ordinal, start, "end", chunks.text, heading FROM chunks '
            "JOIN documents ON documents.key = document_key WHERE id = ? ORDER BY ordinal",
            (document_id,),
        )
        return [_chunk(*row) for row in rows]

    def embeddings_of(self, document_id: str) -> NDArray[np.float16]:
        """A document's embeddings in the order of its chunks, shape (n, dimension)."""
        rows = self._connection.execute(
            "SELECT embedding FROM chunks JOIN documents ON documents.key = document_key WHERE id = ? "
            "ORDER BY ordinal",
            (document_id,),
        ).fetchall()
        return np.frombuffer(b"".join(row[0] for row in rows), np.float16).reshape(len(rows), -1)

    def chunks_by_key(self, keys: Sequence[int]) -> dict[int, Chunk]:
        """The chunks that are still there, by key."""
        found = {}
        for at in range(0, len(keys), SQL_VARIABLES):
            some = keys[at : at + SQL_VARIABLES]
            rows = self._connection.execute(
                'SELECT chunks.key, id, ordinal, start, "end", chunks.text, heading FROM chunks '
                "JOIN documents ON documents.key = document_key "
                f"WHERE chunks.key IN ({','.join('?' * len(some))})",
                some,
            )
            found.update({row[0]: _chunk(*row[1:]) for row in rows})
        return found

    def vectors_after(
        self, key: int, batch: int = 20_000
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Keys and embeddings of the chunks with a greater key, in the order of their keys, in batches."""
        cursor = self._connection.execute(
            "SELECT key, embedding FROM chunks WHERE key > ? ORDER BY key", (key,)
        )
        while rows := cursor.fetchmany(batch):
            keys = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            vectors = np.frombuffer(b"".join(row[1] for row in rows), np.float16).reshape(len(rows), -1)
            yield keys, vectors

    def texts_after(self, key: int, upto: int | None = None) -> Iterator[IndexedChunk]:
        """What the lexical index takes in, of the chunks with a greater key, in the order of their keys.

        With `upto`, only those whose key is no greater than that.
        """
        rows = self._connection.execute(
            "SELECT chunks.key, document_key, language, title, heading, chunks.text FROM chunks "
            "JOIN documents ON documents.key = document_key WHERE chunks.key > ? AND chunks.key <= ? "
            "ORDER BY chunks.key",
            (key, LARGEST_KEY if upto is None else upto),
        )
        return (IndexedChunk(*row) for row in rows)

    def last_key(self) -> int:
        """The greatest chunk key that was ever given out."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
        return int(row[0]) if row else 0

    def removed_since(self, generation: int) -> list[int]:
        """Keys of the chunks that were removed after this generation."""
        rows = self._connection.execute("SELECT key FROM removed WHERE generation > ?", (generation,))
        return [row[0] for row in rows]

    def vectors_of(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """The embeddings of those of these chunks that are there: keys in increasing order, and (n, d) rows."""
        wanted = np.sort(keys).tolist()
        rows: list[tuple[int, bytes]] = []
        for at in range(0, len(wanted), SQL_VARIABLES):
            some = wanted[at : at + SQL_VARIABLES]
            rows += self._connection.execute(
                f"SELECT key, embedding FROM chunks WHERE key IN ({','.join('?' * len(some))}) ORDER BY key",
                some,
            )
        found = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        vectors = np.frombuffer(bytearray().join(row[1] for row in rows), np.float16)
        return found, vectors.reshape(len(rows), -1) if rows else vectors.reshape(0, 0)

    def matching(self, filters: Filters) -> Allowed | None:
        """What passes the filters; None where every document does."""
        where, values = _conditions(filters)
        # A document's chunks are inserted at one go, so that their keys follow on each other. This needs only
        # an index that covers it, where reading each chunk's key would take a second at a million.
        rows = self._connection.execute(
            "SELECT document_key, min(key), max(key) FROM chunks "
            f"WHERE document_key IN (SELECT key FROM documents WHERE {where}) GROUP BY document_key",
            values,
        ).fetchall()
        total = self._connection.execute("SELECT count(*) FROM documents").fetchone()[0]
        if len(rows) == total:
            return None
        ranges = [np.arange(first, last + 1, dtype=np.int64) for _, first, last in rows]
        keys = np.sort(np.concatenate(ranges)) if ranges else np.empty(0, np.int64)
        return Allowed(keys, [row[0] for row in rows])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, in order; a trigger has semicolons inside."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _conditions(filters: Filters) -> tuple[str, list[str]]:
    parts, values = ["1"], list[str]()
    for column, wanted in (("language", filters.languages), ("id", filters.documents)):
        if wanted:
            parts.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(sorted(wanted)))
    for key, value in filters.metadata.items():
        parts.append(
            "EXISTS (SELECT 1 FROM json_each(metadata) AS pair WHERE pair.key = ? AND pair.value = ?)"
        )
        values += [key, value]
    return " AND ".join(parts), values


def _info(row: tuple[Any, ...]) -> DocumentInfo:
    document_id, title, language, source, metadata, *others = row
    return DocumentInfo(document_id, title, language, source, json.loads(metadata), *others)


def _chunk(document_id: str, ordinal: int, start: int, end: int, text: str, heading: str) -> Chunk:
    return Chunk(f"{document_id}#{ordinal}", document_id, ordinal, start, end, text, heading)
