"""What reading one file may cost; past a limit the file is refused by name and the others go in."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Limits on one file. Sizes are bytes unless the name says otherwise. Messages name the settings
    (`read_…`) that these are set by.

    `max_bytes` is a document's file size; `max_corpus_bytes` that of a .jsonl (or its compressed form,
    unpacked), which is streamed, so that only `max_bytes` of it, one record, is held at a time.
    `max_uncompressed_bytes` and `max_compression_ratio` are for the formats that are zip archives.
    `max_text_chars` is the text that comes out. `timeout_s` is per document, and with `max_memory_bytes`
    (address space on top of what the parsing process starts with) holds in the worker process alone.
    """

    max_bytes: int = 50 * MIB
    max_corpus_bytes: int = 4096 * MIB
    max_text_chars: int = 20_000_000
    max_uncompressed_bytes: int = 300 * MIB
    max_compression_ratio: int = 200
    timeout_s: float = 120.0
    max_memory_bytes: int = 1536 * MIB


DEFAULT_LIMITS = ReadLimits()
