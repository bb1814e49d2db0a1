"""Files into a collection: what is new goes in, what changed is replaced, what is the same is passed over.

::

    find_files ──sha256 known?──▶ Sandbox.read ──▶ Writer.put ──commit──▶ IngestEvent

One file that can't be read is reported by name and reason; the rest goes in.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from corpus.document import Document
from corpus.errors import DocumentError
from corpus.files import SourceFile, find_files, format_of
from corpus.limits import ReadLimits
from corpus.sandbox import Sandbox
from index.collection import Collection
from index.store import Origin, Original
from index.writer import Stored, Writer


class Fate(StrEnum):
    """What became of a document or file."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class IngestEvent:
    """One document's fate, told once it is certain: a document that is ADDED can't be lost any more.

    `document_id` is empty where a file failed before it had one. `files_done` of `files_total` were read.
    """

    fate: Fate
    document_id: str
    source: str
    chunks: int = 0
    reason: str = ""
    files_done: int = 0
    files_total: int = 0


@dataclass(slots=True)
class IngestReport:
    """How many documents met which fate, and why those that failed did."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    failed: list[DocumentError] = field(default_factory=list)


Listener = Callable[[IngestEvent], None]


def ingest(
    collection: Collection,
    paths: Sequence[Path],
    *,
    prune: bool = False,
    limits: ReadLimits | None = None,
    on_event: Listener | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    originals: dict[Path, str] | None = None,
) -> IngestReport:
    """Brings the documents of files and folders into a collection.

    With `prune`, documents that came from these paths before and are not there any more are deleted.
    `originals` maps files whose bytes are to be kept in the collection to the names that they were uploaded
    under. `is_cancelled` is asked before each document; what is in by then stays. Raises CollectionLockedError,
    StorageError and ModelError; whatever is wrong with one file is in the report instead.
    """
    run = _Ingest(collection, on_event, originals or {})
    files = []
    for found in find_files(paths):
        if isinstance(found, DocumentError):
            run.fail(found)
        else:
            files.append(found)
    run.files_total = len(files)
    with Sandbox(limits or ReadLimits()) as sandbox, collection.writing(run.stored) as writer:
        for file in files:
            if is_cancelled():
                break
            run.file(file, sandbox, writer, is_cancelled)
        run.finish(writer)
        if prune and not is_cancelled():
            run.prune(paths, writer)
    return run.report


class _Ingest:
    """The state of one run; `known` is what the collection has, by document id."""

    def __init__(self, collection: Collection, on_event: Listener | None, originals: dict[Path, str]) -> None:
        self.report = IngestReport()
        self.files_total = 0
        self._files_done = 0
        self._on_event = on_event
        self._originals = originals
        self._known = collection.sha256s()
        self._origins = {
            document_id: Origin(path, digest) for document_id, path, digest in collection.origins()
        }
        self._stored_origins = dict(self._origins)
        self._whole: list[tuple[list[str], Origin]] = []
        self._ids_by_path: dict[str, list[str]] = {}
        for document_id, origin in self._origins.items():
            self._ids_by_path.setdefault(origin.path, []).append(document_id)
        self._seen: set[str] = set()

    def file(
        self, file: SourceFile, sandbox: Sandbox, writer: Writer, is_cancelled: Callable[[], bool]
    ) -> None:
        """Reads one file, unless all that came from it last time came from these very bytes."""
        origin = Origin(_origin_path(file), file.sha256)
        earlier = self._ids_by_path.get(origin.path, [])
        if earlier and all(self._origins[document_id] == origin for document_id in earlier):
            for document_id in earlier:
                self._unchanged(document_id, file.source)
        else:
            self._read(file, origin, earlier, sandbox, writer, is_cancelled)
        self._files_done += 1

    def _read(
        self,
        file: SourceFile,
        origin: Origin,
        earlier: Sequence[str],
        sandbox: Sandbox,
        writer: Writer,
        is_cancelled: Callable[[], bool],
    ) -> None:
        """A file of records is marked as read when all of it is in, so that one broken off is read again."""
        has_records = (format_of(file.path.name) or "").startswith("jsonl")
        original, failures, ids = self._original(file), len(self.report.failed), list[str]()
        for read in sandbox.read(file):
            if is_cancelled():
                return
            if isinstance(read, DocumentError):
                self.fail(read, keep=earlier)
            else:
                document = self._named(read, file, origin)
                ids.append(document.id)
                self._document(document, Origin(origin.path) if has_records else origin, original, writer)
        if ids and len(self.report.failed) == failures:
            self._whole.append((ids, origin))

    def finish(self, writer: Writer) -> None:
        """Marks the files that are wholly in, so that the next run passes them over without reading them."""
        writer.flush()
        marks = {
            document_id: origin
            for ids, origin in self._whole
            for document_id in ids
            if self._stored_origins.get(document_id) != origin
        }
        if marks:
            writer.mark(marks)

    def _original(self, file: SourceFile) -> Original | None:
        name = self._originals.get(file.path)
        return Original(name, file.path.read_bytes()) if name is not None else None

    def _named(self, document: Document, file: SourceFile, origin: Origin) -> Document:
        """Under the id that it has had from this file, or else one that no other file's document has.

        A record of a .jsonl names itself, and takes the place of whatever had its id.
        """
        if document.id != file.id:
            return document
        earlier = self._ids_by_path.get(origin.path, [])
        if len(earlier) == 1:
            return replace(document, id=earlier[0])
        holder = self._origins.get(document.id)
        if holder is None or holder.path in ("", origin.path):
            return document
        suffix = hashlib.sha256(origin.path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return replace(document, id=f"{document.id}~{suffix}")

    def _document(
        self, document: Document, origin: Origin, original: Original | None, writer: Writer
    ) -> None:
        if self._known.get(document.id) == document.sha256:
            self._unchanged(document.id, document.source)
            return
        try:
            writer.put(document, origin, original)
        except DocumentError as error:
            self.fail(error)
            return
        self._seen.add(document.id)
        self._known[document.id] = document.sha256
        self._origins[document.id] = self._stored_origins[document.id] = origin

    def prune(self, paths: Sequence[Path], writer: Writer) -> None:
        """Deletes what came from under these paths before, and neither was found now nor failed to be read."""
        roots = [os.path.realpath(path) for path in paths]
        gone = [
            document_id
            for document_id, origin in self._origins.items()
            if document_id not in self._seen
            and any(origin.path == root or origin.path.startswith(root + os.sep) for root in roots)
        ]
        self.report.removed = writer.delete(gone)
        for document_id in gone:
            self._tell(Fate.REMOVED, document_id, self._origins[document_id].path)

    def stored(self, stored: Stored) -> None:
        """Called by the writer after a document's commit."""
        if stored.replaced:
            self.report.replaced += 1
        else:
            self.report.added += 1
        self.report.chunks += stored.chunks
        fate = Fate.REPLACED if stored.replaced else Fate.ADDED
        self._tell(fate, stored.document_id, stored.source, stored.chunks)

    def fail(self, error: DocumentError, keep: Sequence[str] = ()) -> None:
        """Reports a file or record; what it had put in before stays in."""
        self._seen.update(keep)
        self.report.failed.append(error)
        self._tell(Fate.FAILED, "", error.source, reason=error.reason)

    def _unchanged(self, document_id: str, source: str) -> None:
        self._seen.add(document_id)
        self.report.unchanged += 1
        self._tell(Fate.UNCHANGED, document_id, source)

    def _tell(self, fate: Fate, document_id: str, source: str, chunks: int = 0, reason: str = "") -> None:
        if self._on_event is not None:
            event = IngestEvent(fate, document_id, source, chunks, reason, self._files_done, self.files_total)
            self._on_event(event)


def _origin_path(file: SourceFile) -> str:
    """Absolute and without links; bytes that aren't text become their escapes, since SQLite stores text."""
    return os.path.realpath(file.path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
