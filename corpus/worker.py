"""The other side of `corpus.sandbox`: reads files in a process of its own, under limits, and imports no more.

Requests and replies are JSON, a line each. Not pickle: whoever takes this process over by means of a file
must not be able to run code in the one that started it.
"""

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from corpus.document import Document
from corpus.errors import BrokenDocumentError, DocumentError, DocumentTooLargeError
from corpus.files import SourceFile
from corpus.limits import MIB, ReadLimits
from corpus.readers import read_file

# The parent's own clock comes first; this one is for when the parent is gone.
_GRACE_S = 5


def main() -> None:
    """Serves requests from standard input until it ends. The only argument is the limits as JSON."""
    limits = ReadLimits(**json.loads(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "wb")
    # What a library prints must not get between the replies.
    os.dup2(2, 1)
    _limit_memory(limits.max_memory_bytes)
    for line in sys.stdin.buffer:
        for reply in _replies(decode_source(line), limits):
            _set_alarm(0)
            _write(replies, reply)
            _set_alarm(limits.timeout_s + _GRACE_S)
        _set_alarm(0)
        _write(replies, {"done": True})


def _replies(source: SourceFile, limits: ReadLimits) -> Iterator[dict[str, object]]:
    _set_alarm(limits.timeout_s + _GRACE_S)
    try:
        for found in read_file(source, limits):
            yield encode_result(found)
    except MemoryError:
        reason = f"reading it takes more than {limits.max_memory_bytes / MIB:,.0f} MiB (read_max_memory_mib)"
        yield encode_result(
            DocumentTooLargeError(source.source, f"{reason}; split the file or raise the limit")
        )
    except RecursionError:
        yield encode_result(BrokenDocumentError(source.source, "its parts are nested too deeply"))


def encode_source(source: SourceFile) -> bytes:
    """A request's line; the path may hold bytes that aren't text."""
    path = os.fsencode(source.path).decode("latin-1")
    return json.dumps([path, source.id, source.sha256, source.size]).encode() + b"\n"


def decode_source(line: bytes) -> SourceFile:
    """The reverse of `encode_source`."""
    path, file_id, sha256, size = json.loads(line)
    return SourceFile(Path(os.fsdecode(path.encode("latin-1"))), file_id, sha256, size)


def encode_result(result: Document | DocumentError) -> dict[str, object]:
    """A reply's content."""
    if isinstance(result, Document):
        return {"document": asdict(result)}
    return {"error": [type(result).__name__, result.source, result.reason]}


def decode_result(reply: dict[str, object]) -> Document | DocumentError:
    """The reverse of `encode_result`. Raises ValueError, TypeError or KeyError for anything else."""
    fields = reply.get("document")
    if isinstance(fields, dict):
        page_starts = tuple(int(start) for start in fields.pop("page_starts"))
        return Document(**fields, page_starts=page_starts)
    parts = reply["error"]
    if not isinstance(parts, list):
        raise TypeError("a reply that is neither a document nor an error")
    name, source, reason = map(str, parts)
    kinds = {kind.__name__: kind for kind in DocumentError.__subclasses__()}
    return (DocumentError if name == DocumentError.__name__ else kinds[name])(source, reason)


def _write(replies: BinaryIO, reply: dict[str, object]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


def _set_alarm(seconds: float) -> None:
    """Ends this process after that time, whatever it is doing then; 0 calls it off. Unix only."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(seconds))


def _limit_memory(max_bytes: int) -> None:
    """Address space on top of what is in use now. Windows has no such limit, and macOS doesn't heed it."""
    try:
        import resource
    except ImportError:
        return
    in_use = 0
    with contextlib.suppress(OSError, ValueError):
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in ((resource.RLIMIT_AS, in_use + max_bytes), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(limit)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, hard))
