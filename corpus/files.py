"""Which files a path names, safely, and what each is called in a collection."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.errors import (
    BrokenDocumentError,
    DocumentError,
    MissingPathError,
    UnsafePathError,
    UnsupportedFormatError,
)
from corpus.normalising import printable

FORMATS = (
    *("txt", "md", "markdown", "html", "htm", "xhtml", "pdf", "docx", "odt", "pptx", "xlsx"),
    *("jsonl", "jsonl.xz", "jsonl.gz"),
)
"""The extensions there is a reader for, without the dot."""

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `id` is `folder/relative/path.ext` in NFC, or the file's name where it was named
    itself. `sha256` is the hex digest and `size` the number of bytes that it was taken over.
    """

    path: Path
    id: str
    sha256: str
    size: int

    @property
    def source(self) -> str:
        """The path as a person can read it."""
        return printable(str(self.path))


def format_of(name: str) -> str | None:
    """One of `FORMATS`, by the file's name; None where there is no reader."""
    lowered = name.lower()
    return max((ext for ext in FORMATS if lowered.endswith(f".{ext}")), key=len, default=None)


def find_files(paths: Iterable[str | os.PathLike[str]]) -> Iterator[SourceFile | DocumentError]:
    """The files that `paths` name, folders recursively and sorted, each once.

    Hidden files and folders and kinds of file that nothing reads are passed over, but a file that was named
    itself is reported where it can't be read. A link that leads out of its folder is an UnsafePathError, as
    is a path with `..`; what two different files would both be called is a DocumentError for the second.
    """
    seen: dict[str, Path] = {}
    for named in paths:
        path = Path(named)
        for found in _files_of(path):
            if isinstance(found, DocumentError):
                yield found
                continue
            file_path, file_id = found
            if file_id not in seen:
                seen[file_id] = file_path
                yield _source_file(file_path, file_id)
            elif not _is_same(seen[file_id], file_path):
                reason = (
                    f"{printable(str(seen[file_id]))} has the same id, {file_id}; rename a folder or a file"
                )
                yield DocumentError(printable(str(file_path)), reason)


def _files_of(path: Path) -> Iterator[tuple[Path, str] | DocumentError]:
    shown = printable(str(path))
    if ".." in path.parts:
        yield UnsafePathError(shown, "a path with '..' can lead anywhere; name the folder by its full path")
        return
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        yield MissingPathError(shown, f"{_why(error)}; check the name")
        return
    if stat.S_ISDIR(mode):
        root = Path(os.path.realpath(path))
        yield from _walk(path, root, root, root.name)
    elif not stat.S_ISREG(mode):
        yield UnsupportedFormatError(shown, "not a regular file but a device, a pipe or a socket")
    elif format_of(path.name) is None:
        yield UnsupportedFormatError(
            shown, f"no reader for this kind of file; there are .{', .'.join(FORMATS)}"
        )
    else:
        yield path, printable(path.name)


def _walk(shown: Path, folder: Path, root: Path, prefix: str) -> Iterator[tuple[Path, str] | DocumentError]:
    """`shown` is how the caller named `folder`, `prefix` how ids in it begin."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield MissingPathError(printable(str(shown)), f"{_why(error)}; check its permissions")
        return
    for entry in entries:
        if entry.name.startswith((".", "~$")):
            continue
        path = shown / entry.name
        name = f"{prefix}/{printable(entry.name)}".lstrip("/")
        if entry.is_symlink():
            yield from _follow(path, Path(entry.path), root, name)
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, Path(entry.path), root, name)
        elif entry.is_file(follow_symlinks=False) and format_of(entry.name):
            yield path, name


def _follow(path: Path, link: Path, root: Path, name: str) -> Iterator[tuple[Path, str] | DocumentError]:
    """A link within its folder is passed over where its target is met anyway; folders aren't followed."""
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(root):
        reason = "the link leads out of the folder that was named; name its target itself to include it"
        yield UnsafePathError(printable(str(path)), reason)
    elif target.is_file() and format_of(path.name):
        is_hidden = any(part.startswith((".", "~$")) for part in target.relative_to(root).parts)
        if is_hidden or not format_of(target.name):
            yield path, name


def _source_file(path: Path, file_id: str) -> SourceFile | DocumentError:
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        return MissingPathError(printable(str(path)), "it disappeared while being read")
    except PermissionError as error:
        return MissingPathError(printable(str(path)), f"{_why(error)}; check its permissions")
    except OSError as error:
        return BrokenDocumentError(printable(str(path)), f"it can't be read: {_why(error)}")
    return SourceFile(path, file_id, digest.hexdigest(), size)


def _is_same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
