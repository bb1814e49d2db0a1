"""Several collections by name, each a folder of its own under one home."""

import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from corpus.chunking import ChunkingConfig
from corpus.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionNotFoundError,
    InputError,
    StorageError,
)
from index.collection import DATABASE, Collection, Manifest
from index.embedder import Embedder
from index.fusion import FusionConfig
from index.locking import WriteLock
from index.store import Store, StoreCounts

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What a collection may be called: it becomes a folder's name, on any file system."""

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Library:
    """`home` is the data folder; collections lie in `home/collections`. `embedder` is what they are opened with."""

    home: Path
    embedder: Embedder
    chunking: ChunkingConfig = ChunkingConfig()
    fusion: FusionConfig = FusionConfig()

    def names(self) -> list[str]:
        """The collections that are there, in alphabetical order."""
        return collection_names(self.home)

    def create(self, name: str) -> Collection:
        """Raises CollectionExistsError, InputError for a name that can't be one, StorageError."""
        folder = collection_folder(self.home, name)
        if (folder / DATABASE).exists():
            raise CollectionExistsError(
                f"there is a collection {name!r} already; delete it or choose another name"
            )
        return Collection.create(folder, name, self.embedder, self.chunking, self.fusion)

    def open(self, name: str = DEFAULT) -> Collection:
        """Raises CollectionNotFoundError, ModelMismatchError or CollectionCorruptError."""
        folder = collection_folder(self.home, name)
        if not folder.is_dir():
            known = ", ".join(self.names()) or "none yet"
            raise CollectionNotFoundError(
                f"there is no collection {name!r} (there are: {known}); make it with 'vraagbaak ingest PATH'"
            )
        return Collection.open(folder, self.embedder, self.fusion)

    def open_or_create(self, name: str = DEFAULT) -> Collection:
        if collection_folder(self.home, name).is_dir():
            return self.open(name)
        return self.create(name)

    def delete(self, name: str) -> None:
        """Deletes a collection with all its files; see `delete_collection`."""
        delete_collection(self.home, name)

    def restore(self, file: Path, name: str) -> Collection:
        """A new collection out of a backup; raises CollectionExistsError, CollectionCorruptError."""
        from index.backup import read_backup

        folder = collection_folder(self.home, name)
        if folder.exists():
            raise CollectionExistsError(
                f"there is a collection {name!r} already; delete it first, or restore under another name"
            )
        read_backup(file, folder, name)
        try:
            return self.open(name)
        except CollectionError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def collection_folder(home: Path, name: str) -> Path:
    """Where a collection lies; raises InputError for a name that can't be one."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} can't be a collection's name; use up to 63 lower-case letters, digits, '-' and '_', "
            "beginning with a letter or digit"
        )
    return home / "collections" / name


def collection_names(home: Path) -> list[str]:
    """The collections under a home, without opening them."""
    root = home / "collections"
    if not root.is_dir():
        return []
    return sorted(
        folder.name
        for folder in root.iterdir()
        if NAME.fullmatch(folder.name) and (folder / DATABASE).is_file()
    )


def collection_summary(home: Path, name: str) -> tuple[Manifest, StoreCounts]:
    """What a collection is bound to and how much is in it, without opening its indexes or a model."""
    folder = collection_folder(home, name)
    if not (folder / DATABASE).is_file():
        raise CollectionNotFoundError(f"there is no collection {name!r}")
    store = Store.open(folder / DATABASE)
    try:
        with store.reading() as transaction:
            return Manifest.from_json(transaction.meta("manifest")), transaction.counts()
    finally:
        store.close()


def delete_collection(home: Path, name: str) -> None:
    """Raises CollectionNotFoundError, CollectionLockedError while it is written to, StorageError.

    Needs no model, so that one made with another model can be deleted as well.
    """
    folder = collection_folder(home, name)
    if not folder.is_dir():
        raise CollectionNotFoundError(f"there is no collection {name!r}")
    # Renamed first, so that a half-deleted folder is never taken for a collection.
    doomed = folder.with_name(f".{name}.{uuid.uuid4().hex[:8]}.deleted")
    with WriteLock(folder).held():
        try:
            os.replace(folder, doomed)
        except OSError as error:
            raise StorageError(f"{folder} can't be deleted: {error.strerror or error}") from error
    shutil.rmtree(doomed, ignore_errors=True)
