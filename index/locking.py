"""One writer at a time for a collection, across threads and processes. Readers never take this lock."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from corpus.errors import CollectionLockedError, StorageError

LOCK = "write.lock"
OWNER = "write.pid"


class WriteLock:
    """Threads of one process queue for it; another process is told at once who holds it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = threading.RLock()
        self._file = FileLock(folder / LOCK, thread_local=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises CollectionLockedError where another process writes, StorageError where nobody can."""
        with self._threads:
            self._acquire()
            try:
                yield
            finally:
                self._file.release()

    def _acquire(self) -> None:
        try:
            self._file.acquire(timeout=0)
            (self._folder / OWNER).write_text(str(os.getpid()), encoding="ascii")
        except Timeout as error:
            raise CollectionLockedError(
                f"process {self._owner()} is writing to {self._folder}; wait until it is done, or stop it"
            ) from error
        except OSError as error:
            if self._file.is_locked:
                self._file.release()
            raise StorageError(f"{self._folder} can't be written: {error.strerror or error}") from error

    @contextmanager
    def if_free(self) -> Iterator[bool]:
        """Holds the lock if nobody else does; yields whether it is held."""
        if not self._threads.acquire(blocking=False):
            yield False
            return
        try:
            try:
                self._file.acquire(timeout=0)
            except (Timeout, OSError):
                yield False
                return
            try:
                yield True
            finally:
                self._file.release()
        finally:
            self._threads.release()

    def _owner(self) -> str:
        try:
            return (self._folder / OWNER).read_text(encoding="ascii").strip() or "another"
        except OSError:
            return "another"
