"""Writing: one thread takes uploads in, a few files at a time, and deletions in between.

::

    upload ──spool (names of our own)──▶ Job ──slices──▶ Sandbox.read ──▶ Writer.put ──commit──▶ fate of each file
"""

import hashlib
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from api.problems import fault_problem, problem_of
from api.schemas import FileState, FileView, JobState, JobView, ProblemView, ProgressView
from api.telemetry import log, log_fault
from corpus import detect_language
from corpus.document import Document
from corpus.errors import (
    ConflictError,
    DocumentError,
    NotFoundError,
    OverloadedError,
    StorageError,
    UnsupportedFormatError,
    VraagbaakError,
)
from corpus.files import FORMATS, SourceFile, format_of
from corpus.limits import MIB, ReadLimits
from corpus.normalising import one_line, printable, tidy
from corpus.readers import readable_stem
from corpus.sandbox import Sandbox
from index.collection import Collection
from index.store import Origin, Original
from index.writer import Stored, Writer

T = TypeVar("T")
UPLOADED = "upload:"
"""Begins the origin of documents whose uploaded file is kept."""
_RECORDS = "record:"
_MAX_ID_CHARS = 512
_SLICE_FILES = 16
_SLICE_BYTES = 8 * MIB
_GOOD = (FileState.ADDED, FileState.REPLACED, FileState.UNCHANGED)

Using = Callable[[str], AbstractContextManager[Collection]]


def document_id(file_name: str) -> str:
    """What a document is called that was uploaded under this name: without anything that leads elsewhere."""
    parts = one_line(printable(file_name.replace("\\", "/").replace("\0", ""))).split("/")
    kept = [part.strip() for part in parts if part.strip() not in ("", ".", "..")]
    return "/".join(kept)[-_MAX_ID_CHARS:].lstrip("/") or "unnamed"


@dataclass(slots=True)
class Item:
    """One file or JSON document of a job. `path` is in the spool, under a name of ours."""

    name: str
    path: Path | None = None
    size: int = 0
    sha256: str = ""
    document: Document | None = None
    state: FileState = FileState.WAITING
    documents: list[str] = field(default_factory=list)
    chunks: int = 0
    error: ProblemView | None = None

    def settle(self, state: FileState) -> None:
        """Of several documents in one file, one that went in counts."""
        if self.state not in _GOOD or state in (FileState.ADDED, FileState.REPLACED):
            self.state = state

    def fail(self, error: VraagbaakError, reason: str) -> None:
        """The first reason is kept."""
        if self.error is None:
            self.error = problem_of(error).view().model_copy(update={"detail": f"{self.name}: {reason}"})
        self.settle(FileState.FAILED)

    def view(self) -> FileView:
        """As it is now."""
        return FileView(
            name=self.name,
            state=self.state,
            documents=self.documents[:100],
            chunks=self.chunks,
            error=self.error,
        )


@dataclass(slots=True)
class Job:
    """An ingest; changed by the writing thread alone, but for `cancelled`."""

    id: str
    collection: str
    items: list[Item]
    folder: Path | None
    created_at: datetime
    state: JobState = JobState.QUEUED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done: int = 0
    error: ProblemView | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def view(self) -> JobView:
        """As it is now."""
        return JobView(
            id=self.id,
            kind="ingest",
            collection=self.collection,
            state=self.state,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            progress=ProgressView(done=self.done, total=len(self.items)),
            files=[item.view() for item in self.items],
            error=self.error,
        )


class Spool:
    """Where uploads wait. What an earlier process left is cleared; names in here are all ours."""

    def __init__(self, root: Path) -> None:
        self._root = root
        shutil.rmtree(root, ignore_errors=True)

    def folder(self) -> Path:
        """A new folder; raises StorageError."""
        folder = self._root / uuid.uuid4().hex
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"{self._root} can't be written: {error.strerror or error}") from error
        return folder

    def drop(self, folder: Path) -> None:
        """Deletes a folder with all in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def keep(self, folder: Path, name: str, file: BinaryIO) -> Item:
        """Copies an uploaded file in, under a name of ours; raises StorageError."""
        item = Item(document_id(name))
        extension = format_of(item.name)
        if extension is None:
            item.fail(
                UnsupportedFormatError(item.name, ""),
                f"no reader for this kind of file; there are .{', .'.join(FORMATS)}",
            )
            return item
        item.path = folder / f"upload-{uuid.uuid4().hex}.{extension}"
        digest = hashlib.sha256()
        try:
            with item.path.open("xb") as copy:
                while block := file.read(MIB):
                    digest.update(block)
                    item.size += len(block)
                    copy.write(block)
        except OSError as error:
            raise StorageError(f"the upload can't be kept: {error.strerror or error}; make room") from error
        item.sha256 = digest.hexdigest()
        return item


class WritingThread:
    """All changes that come through the service. Close it to end the thread."""

    def __init__(
        self,
        using: Using,
        limits: ReadLimits,
        max_queued: int,
        max_kept: int,
        on_fate: Callable[[FileState], None] = lambda _: None,
    ) -> None:
        self._using = using
        self._limits = limits
        self._max_queued = max_queued
        self._max_kept = max_kept
        self._on_fate = on_fate
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._urgent: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    # From any thread

    def submit(self, collection: str, items: list[Item], folder: Path | None) -> Job:
        """Queues a job; raises OverloadedError."""
        job = Job(uuid.uuid4().hex, collection, items, folder, datetime.now(UTC))
        with self._condition:
            if self._closing:
                raise OverloadedError("the service is shutting down; upload again in a minute", 30)
            if len(self._queue) >= self._max_queued:
                raise OverloadedError(f"{len(self._queue)} jobs are waiting already; try again later", 10)
            self._jobs[job.id] = job
            self._queue.append(job)
            self._forget()
            self._condition.notify()
        return job

    def check_room(self) -> None:
        """Raises OverloadedError where `submit` would, before a body is read."""
        if self._closing or len(self._queue) >= self._max_queued:
            raise OverloadedError(f"{len(self._queue)} jobs are waiting already; try again later", 10)

    def run(self, change: Callable[[], T]) -> "Future[T]":
        """Makes a change before the next slice of any job."""
        future = Future[T]()
        with self._condition:
            if self._closing:
                raise OverloadedError("the service is shutting down; try again in a minute", 30)
            self._urgent.append((change, future))  # type: ignore[arg-type]
            self._condition.notify()
        return future

    def job(self, job_id: str) -> Job:
        """Raises NotFoundError."""
        job = self._jobs.get(job_id)
        if job is None:
            raise no_such_job(job_id)
        return job

    def jobs(self) -> list[Job]:
        """All that are remembered, newest first."""
        return list(reversed(list(self._jobs.values())))

    def cancel(self, job: Job) -> None:
        """Stops a job before its next document; raises ConflictError where it is over."""
        with self._condition:
            if job.state.is_final:
                raise ConflictError(f"job {job.id} is {job.state.value} already; there is nothing to cancel")
            job.cancelled.set()
            self._condition.notify()

    def close(self, timeout_s: float) -> None:
        """Finishes the slice under way and cancels the rest."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout_s)

    def _forget(self) -> None:
        surplus = len(self._jobs) - self._max_kept
        over = [job_id for job_id, job in self._jobs.items() if job.state.is_final]
        for job_id in over[: max(0, surplus)]:
            del self._jobs[job_id]

    # In the writing thread

    def _work(self) -> None:
        while True:
            with self._condition:
                while not (self._urgent or self._queue or self._closing):
                    self._condition.wait()
                if self._closing and not self._urgent and not self._queue:
                    return
            self._do_urgent()
            if self._queue:
                job = self._queue.popleft()
                self._run(job)

    def _do_urgent(self) -> None:
        while self._urgent:
            change, future = self._urgent.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(change())
            except BaseException as error:  # whoever waits for the future gets it
                future.set_exception(error)

    def _is_stopped(self, job: Job) -> bool:
        return self._closing or job.cancelled.is_set()

    def _run(self, job: Job) -> None:
        job.started_at = datetime.now(UTC)
        job.state = JobState.RUNNING
        try:
            with Sandbox(self._limits) as sandbox:
                for items in _slices(job.items):
                    self._do_urgent()
                    if self._is_stopped(job):
                        break
                    with self._using(job.collection) as collection:
                        _Slice(collection, sandbox, items, lambda: self._is_stopped(job)).run(job)
            state = (
                JobState.CANCELLED if self._is_stopped(job) and job.done < len(job.items) else JobState.DONE
            )
        except VraagbaakError as error:
            job.error = problem_of(error).view()
            state = JobState.FAILED
        except BaseException as error:  # the thread goes on; whoever follows the job gets the reason
            log_fault("job failed", {"job": job.id})
            job.error = fault_problem(error).view()
            state = JobState.FAILED
        self._finish(job, state)

    def _finish(self, job: Job, state: JobState) -> None:
        for item in job.items:
            if item.state in (FileState.WAITING, FileState.READING):
                item.state = FileState.CANCELLED
            self._on_fate(item.state)
        if job.folder is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
        job.finished_at = datetime.now(UTC)
        job.state = state
        job.finished.set()
        log("job finished", {"job": job.id, "state": state.value, "files": len(job.items), "done": job.done})


class _Slice:
    """A few files of a job, taken in under one lock."""

    def __init__(
        self, collection: Collection, sandbox: Sandbox, items: Sequence[Item], is_stopped: Callable[[], bool]
    ) -> None:
        self._collection = collection
        self._sandbox = sandbox
        self._items = items
        self._is_stopped = is_stopped
        self._known = collection.sha256s()
        self._owner: dict[str, Item] = {}

    def run(self, job: Job) -> None:
        """Raises CollectionLockedError, StorageError, ModelError; a bad file is its own item's error."""
        with self._collection.writing(self._stored) as writer:
            for item in self._items:
                if self._is_stopped():
                    break
                if item.state is FileState.WAITING:
                    item.state = FileState.READING
                    for read in self._documents(item):
                        self._take(read, item, writer)
                job.done += 1
        for item in self._items:
            if item.path is not None:
                item.path.unlink(missing_ok=True)

    def _documents(self, item: Item) -> Iterator[Document | DocumentError]:
        if item.document is not None:
            yield item.document
        elif item.path is not None:
            source = SourceFile(item.path, item.name, item.sha256, item.size)
            for read in self._sandbox.read(source):
                if self._is_stopped():
                    return
                yield read

    def _take(self, read: Document | DocumentError, item: Item, writer: Writer) -> None:
        if isinstance(read, DocumentError):
            where = read.source.rpartition(", line ")[2] if ", line " in read.source else ""
            item.fail(read, f"line {where}: {read.reason}" if where else read.reason)
            return
        document = _named(read, item)
        item.documents.append(document.id)
        if self._known.get(document.id) == document.sha256:
            item.settle(FileState.UNCHANGED)
            return
        self._known[document.id] = document.sha256
        self._owner[document.id] = item
        is_record = item.document is not None or read.id != item.name
        original = None
        if not is_record and item.path is not None:
            original = Original(item.name, item.path.read_bytes())
        origin = Origin((_RECORDS if is_record else UPLOADED) + item.name, item.sha256)
        try:
            writer.put(document, origin, original)
        except DocumentError as error:
            item.fail(error, error.reason)

    def _stored(self, stored: Stored) -> None:
        item = self._owner[stored.document_id]
        item.chunks += stored.chunks
        item.settle(FileState.REPLACED if stored.replaced else FileState.ADDED)


def _named(document: Document, item: Item) -> Document:
    """Under the uploaded name instead of ours in the spool; a record of a .jsonl names itself."""
    if item.path is None or document.id != item.name:
        return document
    title = document.title
    if title == readable_stem(item.path.name):
        title = readable_stem(item.name.rpartition("/")[2]) or item.name
    return replace(document, title=title, source=item.name)


def _slices(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Runs of items, few and small enough that a deletion needn't wait long."""
    some: list[Item] = []
    for item in items:
        some.append(item)
        if len(some) >= _SLICE_FILES or sum(each.size for each in some) >= _SLICE_BYTES:
            yield some
            some = []
    if some:
        yield some


def json_document(
    document_id: str, title: str, text: str, language: str | None, source: str, metadata: dict[str, str]
) -> Document:
    """A document that came as JSON; `text` is normalised, so that offsets are those of what is served."""
    clean = tidy(text)
    content = repr((document_id, title, clean, language, source, sorted(metadata.items())))
    return Document(
        id=document_id,
        title=one_line(title) or document_id,
        language=language or detect_language(clean),
        text=clean,
        source=source or document_id,
        metadata=metadata,
        sha256=hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def no_such_job(job_id: str) -> NotFoundError:
    """The same words whether it isn't there or isn't the caller's."""
    return NotFoundError(f"there is no job {job_id!r}; jobs are remembered until the service restarts")
