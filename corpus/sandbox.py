"""Reading files with limits of time and memory; so far in this process."""

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from corpus.document import Document
from corpus.errors import DocumentError
from corpus.files import SourceFile, find_files
from corpus.limits import ReadLimits
from corpus.readers import read_file


class Sandbox:
    """Reads files one after another; a context manager."""

    def __init__(self, limits: ReadLimits = ReadLimits()) -> None:
        self.limits = limits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker process, if there is one."""

    def read(self, source: SourceFile) -> Iterator[Document | DocumentError]:
        """What `read_file` gives; never raises for a bad file."""
        yield from read_file(source, self.limits)


def read(
    paths: Iterable[str | os.PathLike[str]], limits: ReadLimits = ReadLimits()
) -> Iterator[Document | DocumentError]:
    """Every document that `paths` name; what can't be read comes as an error in its place."""
    with Sandbox(limits) as sandbox:
        for found in find_files(paths):
            if isinstance(found, DocumentError):
                yield found
            else:
                yield from sandbox.read(found)
