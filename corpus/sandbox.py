"""Parsing in a process of its own, so that a hostile file can't take the service down.

The worker is started from the interpreter and this package alone. `multiprocessing` would run the caller's
main module again in it, and with that, whatever the caller imports.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from corpus.document import Document
from corpus.errors import BrokenDocumentError, DocumentError, DocumentTooLargeError
from corpus.files import SourceFile, find_files, format_of
from corpus.limits import DEFAULT_LIMITS, MIB, ReadLimits
from corpus.readers import read_file
from corpus.worker import decode_result, encode_source

IN_PROCESS = frozenset(("txt", "jsonl"))
"""Read here: nothing parses them but the standard library, in time and memory that their size limits.

Markdown isn't among them, since it is cleaned by patterns that a hostile text could make slow.
"""

_FILES_PER_WORKER = 200
_COMMAND = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from corpus.worker import main
main()
"""
_KEPT_ENVIRONMENT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE"),
    *("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV"),
)


class _Worker:
    """One worker process and the pipes to it."""

    def __init__(self, limits: ReadLimits) -> None:
        self.files = 0
        self._limits = limits
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        package_root = str(Path(__file__).parent.parent)
        paths = json.dumps([package_root, *(path for path in sys.path if path)])
        self._process = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", _COMMAND, paths, json.dumps(asdict(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
        )

    def send(self, source: SourceFile) -> None:
        """Raises BrokenPipeError where the worker has died in the meantime."""
        assert self._process.stdin is not None
        self.files += 1
        self._process.stdin.write(encode_source(source))
        self._process.stdin.flush()

    def receive(self, source: SourceFile) -> dict[str, object]:
        """The next reply. Raises a DocumentError where the worker died, or gave none within `timeout_s`."""
        assert self._process.stdout is not None
        timed_out = threading.Event()
        timer = threading.Timer(self._limits.timeout_s, self._time_out, (timed_out,))
        timer.daemon = True
        timer.start()
        try:
            # Escaped as JSON a character takes up to 12 bytes.
            line = self._process.stdout.readline(self._limits.max_text_chars * 12 + MIB)
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            reply: dict[str, object] = json.loads(line)
            return reply
        raise self._why(source, timed_out.is_set(), bool(line))

    def close(self) -> None:
        """Ends the process, at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    # What was left in the buffer has no reader any more.
                    continue
        self._errors.close()

    def _time_out(self, timed_out: threading.Event) -> None:
        timed_out.set()
        self._process.kill()

    def _why(self, source: SourceFile, timed_out: bool, began_reply: bool) -> DocumentError:
        if timed_out:
            reason = f"reading it takes more than {self._limits.timeout_s:g} s (read_timeout_s)"
            return DocumentTooLargeError(source.source, f"{reason}; split the file or raise the limit")
        code = self._process.wait()
        if code == -getattr(signal, "SIGKILL", 9):
            reason = "the system ended the process that read it, which it does when memory runs out"
            return DocumentTooLargeError(source.source, reason)
        self._errors.seek(0)
        lines = self._errors.read()[-4096:].decode("utf-8", "replace").strip().splitlines() or [""]
        if began_reply or "MemoryError" in lines[-1]:
            return DocumentTooLargeError(
                source.source, "reading it takes more memory than read_max_memory_mib"
            )
        how = f"signal {-code}" if code < 0 else lines[-1][:200]
        return BrokenDocumentError(source.source, f"the file is damaged: reading it failed ({how})")


class Sandbox:
    """Reads files one after another in a worker process that is kept; a context manager, for one thread.

    What a file does in there, hang, crash or fill the memory, ends the worker and becomes that file's error.
    """

    def __init__(self, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._worker: _Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker process, if there is one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def read(self, source: SourceFile) -> Iterator[Document | DocumentError]:
        """What `read_file` gives, as it is read; never raises for a bad file."""
        if format_of(source.path.name) in IN_PROCESS:
            yield from read_file(source, self.limits)
            return
        is_done = False
        try:
            worker = self._started(source)
            while not (is_done := "done" in (reply := worker.receive(source))):
                yield decode_result(reply)
        except DocumentError as error:
            yield error
        except (ValueError, TypeError, KeyError) as error:
            yield BrokenDocumentError(
                source.source, f"the file is damaged: reading it gave nonsense ({error})"
            )
        finally:
            if not is_done:
                self.close()

    def _started(self, source: SourceFile) -> _Worker:
        """A worker that has the request: the one there is, or a new one in its place."""
        if self._worker is not None and self._worker.files < _FILES_PER_WORKER:
            try:
                self._worker.send(source)
            except BrokenPipeError:
                self.close()
            else:
                return self._worker
        self.close()
        self._worker = _Worker(self.limits)
        self._worker.send(source)
        return self._worker


def read(
    paths: Iterable[str | os.PathLike[str]], limits: ReadLimits = DEFAULT_LIMITS
) -> Iterator[Document | DocumentError]:
    """Every document that `paths` name; what can't be read comes as an error in its place."""
    with Sandbox(limits) as sandbox:
        for found in find_files(paths):
            if isinstance(found, DocumentError):
                yield found
            else:
                yield from sandbox.read(found)
