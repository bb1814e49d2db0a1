"""Files to documents to passages, with exact offsets.

`read` is the facade. The names below are loaded when they are first used, so that importing this package
costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corpus.chunking import ChunkingConfig, split
    from corpus.document import DUTCH, ENGLISH, UNDETERMINED, Chunk, Document, Language
    from corpus.files import FORMATS, SourceFile, find_files, format_of
    from corpus.languages import detect_language
    from corpus.limits import ReadLimits
    from corpus.readers import read_file
    from corpus.sandbox import Sandbox, read
    from corpus.segmenting import sentences

_HOMES = {
    "corpus.chunking": ("ChunkingConfig", "split"),
    "corpus.document": ("DUTCH", "ENGLISH", "UNDETERMINED", "Chunk", "Document", "Language"),
    "corpus.files": ("FORMATS", "SourceFile", "find_files", "format_of"),
    "corpus.languages": ("detect_language",),
    "corpus.limits": ("ReadLimits",),
    "corpus.readers": ("read_file",),
    "corpus.sandbox": ("Sandbox", "read"),
    "corpus.segmenting": ("sentences",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DUTCH",
    "ENGLISH",
    "FORMATS",
    "UNDETERMINED",
    "Chunk",
    "ChunkingConfig",
    "Document",
    "Language",
    "ReadLimits",
    "Sandbox",
    "SourceFile",
    "detect_language",
    "find_files",
    "format_of",
    "read",
    "read_file",
    "sentences",
    "split",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
