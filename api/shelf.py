"""The collections that the service has open, each opened once and shared by all threads."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from corpus.errors import CollectionNotFoundError, InputError, VraagbaakError
from index.collection import DATABASE, Collection, CollectionStats
from index.library import Library, collection_folder


def no_such_collection(name: str) -> CollectionNotFoundError:
    """The same words whether it isn't there or isn't the caller's."""
    return CollectionNotFoundError(f"there is no collection {name!r}; GET /v1/collections lists yours")


@dataclass(slots=True)
class _Open:
    collection: Collection
    stamp: tuple[int, int]
    users: int = 0
    doomed: bool = False


class Shelf:
    """Hands out open collections. One that another process deleted or put anew is noticed at the next use."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._open: dict[str, _Open] = {}
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """The collections that are there."""
        return self.library.names()

    def __contains__(self, name: str) -> bool:
        return self._stamp(name) is not None

    @contextmanager
    def using(self, name: str) -> Iterator[Collection]:
        """An open collection, which stays open until the end of the block.

        Raises CollectionNotFoundError, ModelMismatchError, CollectionCorruptError.
        """
        entry = self._take(name)
        try:
            yield entry.collection
        finally:
            with self._lock:
                entry.users -= 1
                if entry.doomed and not entry.users:
                    entry.collection.close()

    def _take(self, name: str) -> _Open:
        stamp = self._stamp(name)
        with self._lock:
            entry = self._open.get(name)
            if entry is not None and entry.stamp != stamp:
                self._drop(name)
                entry = None
            if entry is None:
                if stamp is None:
                    raise no_such_collection(name)
                entry = self._open[name] = _Open(self.library.open(name), stamp)
            entry.users += 1
            return entry

    def _stamp(self, name: str) -> tuple[int, int] | None:
        try:
            stat = (collection_folder(self.library.home, name) / DATABASE).stat()
        except (FileNotFoundError, NotADirectoryError, InputError):
            return None
        return stat.st_dev, stat.st_ino

    def _drop(self, name: str) -> None:
        entry = self._open.pop(name, None)
        if entry is not None:
            entry.doomed = True
            if not entry.users:
                entry.collection.close()

    def create(self, name: str) -> None:
        """Raises CollectionExistsError, InputError, StorageError."""
        self.library.create(name).close()

    def delete(self, name: str) -> None:
        """Raises CollectionNotFoundError, CollectionLockedError."""
        if self._stamp(name) is None:
            raise no_such_collection(name)
        self.library.delete(name)
        with self._lock:
            self._drop(name)

    def stats(self, sees: Callable[[str], bool] = lambda _: True) -> Mapping[str, CollectionStats]:
        """Sizes by name; those that can't be opened are left out."""
        sizes = {}
        for name in self.names():
            if not sees(name):
                continue
            try:
                with self.using(name) as collection:
                    sizes[name] = collection.stats()
            except VraagbaakError:
                continue
        return sizes

    def close(self) -> None:
        """Closes all that nobody uses any more."""
        with self._lock:
            for name in list(self._open):
                self._drop(name)
