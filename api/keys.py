"""API keys: made, listed and revoked on the command line, and looked up by the service.

A key reads `vb_<id>_<secret>`. The file has its id, role and the SHA-256 of the secret; 256 random bits need no
slow hash. The service notices a changed file at the next request.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from filelock import FileLock

from corpus.errors import InputError, NotFoundError, StorageError
from index.library import NAME

FILE = "keys.json"
_KEY = re.compile(r"vb_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()


class Role(StrEnum):
    """What a key may do; each may all that stands before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def may(self, needed: "Role") -> bool:
        """Whether this role has the rights of `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept; `collections` is None where it may see all."""

    id: str
    name: str
    role: Role
    collections: tuple[str, ...] | None
    created_at: str
    secret_sha256: str

    def sees(self, collection: str) -> bool:
        """Whether the collection exists for this key."""
        return self.collections is None or collection in self.collections


LOCAL = Key("local", "local", Role.ADMIN, None, "", "")
"""Who asks where the service wants no keys."""


class KeyStore:
    """The keys of a home folder. Safe to use from several threads."""

    def __init__(self, home: Path) -> None:
        self._file = home / FILE
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}

    def create(self, name: str, role: Role, collections: Iterable[str] | None = None) -> tuple[Key, str]:
        """Makes a key; returns it with its text, which is nowhere kept. Raises InputError, StorageError."""
        limited = None if collections is None else tuple(sorted(set(collections)))
        if limited is not None and (not limited or not all(NAME.fullmatch(each) for each in limited)):
            raise InputError(f"{', '.join(limited) or 'nothing'} isn't a list of collection names")
        if not name.strip() or len(name) > 100:
            raise InputError("a key has a name of 1 to 100 characters, to tell it from the others")
        secret = secrets.token_urlsafe(32)
        key = Key(
            id=secrets.token_hex(4),
            name=name.strip(),
            role=role,
            collections=limited,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        )
        self._change(lambda keys: {**keys, key.id: key})
        return key, f"vb_{key.id}_{secret}"

    def list(self) -> list[Key]:
        """All keys, oldest first."""
        return sorted(self._current().values(), key=lambda key: (key.created_at, key.id))

    def revoke(self, key_id: str) -> Key:
        """Deletes a key, whose id is what stands after `vb_`; raises NotFoundError."""
        keys = self._current()
        if key_id not in keys:
            raise NotFoundError(f"there is no key {key_id!r}; 'vraagbaak keys list' shows which there are")
        self._change(lambda kept: {other: key for other, key in kept.items() if other != key_id})
        return keys[key_id]

    def find(self, text: str) -> Key | None:
        """The key that this is the text of; takes as long for an unknown id as for a wrong secret."""
        match = _KEY.fullmatch(text)
        key_id, secret = match.groups() if match else ("", "")
        key = self._current().get(key_id)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        is_right = hmac.compare_digest(digest, key.secret_sha256 if key else _NOBODY)
        return key if key is not None and is_right and match else None

    def _current(self) -> dict[str, Key]:
        with self._lock:
            try:
                stat = self._file.stat()
            except FileNotFoundError:
                self._stamp, self._keys = None, {}
                return self._keys
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp != self._stamp:
                self._keys, self._stamp = self._read(), stamp
            return self._keys

    def _read(self) -> dict[str, Key]:
        try:
            rows = json.loads(self._file.read_text(encoding="utf-8"))
            return {row["id"]: _key(row) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{self._file} can't be read ({error}); delete it and make new keys, or put it back"
            ) from error

    def _change(self, change: Callable[[dict[str, Key]], dict[str, Key]]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._file.with_suffix(".lock")):
                keys = change(self._current())
                partial = self._file.with_suffix(".partial")
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump([asdict(key) for key in keys.values()], file, indent=1)
                os.replace(partial, self._file)
        except OSError as error:
            raise StorageError(f"{self._file} can't be written: {error.strerror or error}") from error


def _key(row: dict[str, object]) -> Key:
    names = row["collections"]
    return Key(
        id=str(row["id"]),
        name=str(row["name"]),
        role=Role(str(row["role"])),
        collections=None if names is None else tuple(str(name) for name in names),  # type: ignore[attr-defined]
        created_at=str(row["created_at"]),
        secret_sha256=str(row["secret_sha256"]),
    )
