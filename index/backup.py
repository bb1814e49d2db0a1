"""A collection in one file and back: a gzip-compressed tar of its database, and a checksum of that.

The indexes aren't in it: they are derived, and built again when the restored collection is first opened.
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import uuid
from pathlib import Path

from corpus.errors import CollectionCorruptError, MissingPathError, StorageError
from index.store import Store

DATABASE_ENTRY = "collection.sqlite"
MANIFEST_ENTRY = "backup.json"
BACKUP_VERSION = 1


def write_backup(store: Store, name: str, file: Path) -> None:
    """Writes a consistent copy, while others read and write; an existing file is replaced at the end."""
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.partial")
    copy = partial.with_suffix(".sqlite")
    try:
        store.copy_to(copy)
        with copy.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        manifest = {"version": BACKUP_VERSION, "collection": name, "sha256": digest}
        with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
            _add_bytes(archive, MANIFEST_ENTRY, json.dumps(manifest).encode())
            archive.add(copy, DATABASE_ENTRY, filter=_anonymous)
        os.replace(partial, file)
    except OSError as error:
        raise StorageError(f"the backup {file} can't be written: {error.strerror or error}") from error
    finally:
        copy.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def read_backup(file: Path, folder: Path, name: str) -> None:
    """Makes `folder` out of a backup, verified; the collection in it is then called `name`."""
    if not file.is_file():
        raise MissingPathError(str(file), "there is no such backup")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        _extract(file, partial / DATABASE_ENTRY)
        _rename_collection(partial / DATABASE_ENTRY, name)
        os.replace(partial, folder)
    except (tarfile.TarError, EOFError, ValueError, KeyError, sqlite3.DatabaseError) as error:
        raise CollectionCorruptError(f"{file} is not a whole backup ({error}); use another one") from error
    except OSError as error:
        if error.errno is None:  # gzip says "not a gzipped file" without a number
            raise CollectionCorruptError(
                f"{file} is not a whole backup ({error}); use another one"
            ) from error
        raise StorageError(f"{folder} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(file: Path, database: Path) -> None:
    """Only the one entry, under a name of our own, so that no path in the archive is followed."""
    digest = hashlib.sha256()
    with tarfile.open(file, "r:gz") as archive:
        manifest_file = archive.extractfile(MANIFEST_ENTRY)
        content = archive.extractfile(DATABASE_ENTRY)
        if manifest_file is None or content is None:
            raise ValueError("an entry is missing")
        manifest = json.loads(manifest_file.read())
        with database.open("wb") as target:
            while block := content.read(1 << 20):
                digest.update(block)
                target.write(block)
    if digest.hexdigest() != manifest["sha256"]:
        raise ValueError("the checksum doesn't fit")


def _rename_collection(database: Path, name: str) -> None:
    """Under its new name, and with a new identity, since it goes its own way from here."""
    connection = sqlite3.connect(database)
    try:
        with connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'manifest'").fetchone()
            manifest = json.loads(row[0]) | {"name": name, "id": uuid.uuid4().hex}
            connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'manifest'",
                (json.dumps(manifest, ensure_ascii=False),),
            )
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the user's name and id."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
