"""Files to documents: one function a format, all of them through `read_file`."""

import gzip
import hashlib
import importlib
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from corpus.decoding import decode_text
from corpus.document import DUTCH, ENGLISH, UNDETERMINED, Document, Language
from corpus.errors import (
    BrokenDocumentError,
    DocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    MissingPathError,
)
from corpus.files import SourceFile, format_of
from corpus.languages import detect_language
from corpus.limits import DEFAULT_LIMITS, MIB, ReadLimits
from corpus.markdown import clean_markdown, first_heading, title_of
from corpus.normalising import normalise, one_line, tidy
from corpus.texts import Text

_RECORD_FIELDS = frozenset(("id", "title", "language", "text", "source"))
_LANGUAGES = frozenset((DUTCH, ENGLISH, UNDETERMINED))
_READERS = {
    "txt": ("corpus.readers", "read_text"),
    "md": ("corpus.readers", "read_markdown"),
    "markdown": ("corpus.readers", "read_markdown"),
    "html": ("corpus.webpages", "read_html"),
    "htm": ("corpus.webpages", "read_html"),
    "xhtml": ("corpus.webpages", "read_html"),
    "pdf": ("corpus.pdf", "read_pdf"),
    "docx": ("corpus.office", "read_docx"),
    "odt": ("corpus.office", "read_odt"),
    "pptx": ("corpus.office", "read_pptx"),
    "xlsx": ("corpus.office", "read_xlsx"),
}
_TITLE_CHARS = 200
_FILE_NAME = re.compile(r"\S+\.(?:md|markdown|html?|txt|pdf|docx)", re.I)


def read_file(source: SourceFile, limits: ReadLimits = DEFAULT_LIMITS) -> Iterator[Document | DocumentError]:
    """The documents in a file; what can't be read comes as an error in its place, and is never raised.

    A .jsonl file gives a document, or an error that names the line, for each line; any other file gives one.
    Reads in this process and trusts the file with its time and memory: see `corpus.sandbox`.
    """
    try:
        if (format_of(source.path.name) or "").startswith("jsonl"):
            yield from _read_records(source, limits)
        else:
            yield _read_one(source, limits)
    except DocumentError as error:
        yield error
    except FileNotFoundError:
        yield MissingPathError(source.source, "it disappeared before it was read")
    except OSError as error:
        yield MissingPathError(source.source, f"it can't be opened: {error.strerror or error}")


def _read_one(source: SourceFile, limits: ReadLimits) -> Document:
    if source.size > limits.max_bytes:
        raise _too_large(source.source, source.size, limits.max_bytes, "read_max_mib")
    if source.size == 0:
        raise EmptyDocumentError(source.source, "the file is empty (0 bytes)")
    read = _reader(format_of(source.path.name) or "")
    found = read(source.path.read_bytes(), source.source, limits)
    if not found.text.strip():
        raise EmptyDocumentError(source.source, "there is no text in it")
    if len(found.text) > limits.max_text_chars:
        reason = f"{len(found.text):,} characters of text, past the limit of {limits.max_text_chars:,}"
        raise DocumentTooLargeError(
            source.source, f"{reason} (read_max_text_chars); split the file or raise the limit"
        )
    return Document(
        id=source.id,
        title=one_line(found.title)[:_TITLE_CHARS] or readable_stem(source.path.name),
        language=detect_language(found.text),
        text=found.text,
        source=source.source,
        metadata=found.metadata,
        sha256=source.sha256,
        page_starts=found.page_starts,
    )


def _reader(extension: str) -> Callable[[bytes, str, ReadLimits], Text]:
    """The libraries behind the formats are heavy, so that each module is loaded when it is needed."""
    module, function = _READERS[extension]
    reader: Callable[[bytes, str, ReadLimits], Text] = getattr(importlib.import_module(module), function)
    return reader


def read_text(data: bytes, source: str, limits: ReadLimits) -> Text:
    """Plain text, in any usual encoding."""
    text = tidy(decode_text(data, source))
    first, _, rest = text.partition("\n")
    # A first line that isn't a sentence is what a person would call the text.
    is_title = (
        bool(rest.strip())
        and len(first) <= _TITLE_CHARS
        and not first.rstrip().endswith((".", ",", ";", ":"))
    )
    return Text(text, (first_heading(text) if first.startswith("#") else first) if is_title else "")


def read_markdown(data: bytes, source: str, limits: ReadLimits) -> Text:
    """Markdown, cleaned."""
    text, title = clean_markdown(decode_text(data, source))
    return Text(text, title)


def readable_stem(name: str) -> str:
    """A title from a file's name: "kosten-en_baten.v2.pdf" becomes "Kosten en baten v2"."""
    extension = format_of(name)
    stem = name[: -len(extension) - 1] if extension else name
    words = one_line(re.sub(r"[-_.+\s]+", " ", stem.encode("utf-8", "replace").decode()))
    return words[:1].upper() + words[1:] or "Document"


def _too_large(source: str, size: int, limit: int, setting: str) -> DocumentTooLargeError:
    reason = f"{size / MIB:,.1f} MiB, past the limit of {limit / MIB:,.0f} MiB ({setting})"
    return DocumentTooLargeError(source, f"{reason}; split the file or raise the limit")


def _read_records(source: SourceFile, limits: ReadLimits) -> Iterator[Document | DocumentError]:
    """A line a document, streamed. A wrong line is an error of its own."""
    seen: set[str] = set()
    is_empty = True
    with closing(_record_lines(source, limits)) as lines:
        for number, line in lines:
            where = f"{source.source}, line {number}"
            if isinstance(line, DocumentError):
                is_empty = False
                yield line
            elif line.strip(b" \t\r\n\0\xef\xbb\xbf"):
                is_empty = False
                try:
                    document = _record(line, where, f"{source.id}:{number}", limits)
                    if document.id in seen:
                        raise BrokenDocumentError(where, f"the id {document.id!r} is on an earlier line too")
                except DocumentError as error:
                    yield error
                else:
                    seen.add(document.id)
                    yield document
    if is_empty:
        raise EmptyDocumentError(source.source, "there are no records in it")


def _record_lines(source: SourceFile, limits: ReadLimits) -> Generator[tuple[int, bytes | DocumentError]]:
    """Lines with their numbers from 1. One past `max_bytes` is skipped without holding it."""
    number = total = 0
    with _opened(source) as file:
        try:
            while line := file.readline(limits.max_bytes + 1):
                number += 1
                size = len(line)
                is_long = size > limits.max_bytes
                while line and not line.endswith(b"\n") and is_long:
                    line = file.readline(MIB)
                    size += len(line)
                    _check_total(source, total + size, limits)
                total += size
                _check_total(source, total, limits)
                where = f"{source.source}, line {number}"
                yield number, _too_large(where, size, limits.max_bytes, "read_max_mib") if is_long else line
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            reason = f"the compressed data is damaged after line {number}: {error}"
            raise BrokenDocumentError(source.source, reason) from error


def _check_total(source: SourceFile, total: int, limits: ReadLimits) -> None:
    if total > limits.max_corpus_bytes:
        raise _too_large(source.source, total, limits.max_corpus_bytes, "read_max_corpus_mib")


def _opened(source: SourceFile) -> io.BufferedIOBase:
    name = source.path.name.lower()
    if name.endswith(".xz"):
        return lzma.open(source.path, "rb")
    return gzip.open(source.path, "rb") if name.endswith(".gz") else source.path.open("rb")


def _record(line: bytes, where: str, default_id: str, limits: ReadLimits) -> Document:
    record = _parsed(line, where)
    text = normalise(_string(record, "text", where))
    if not text.strip():
        raise EmptyDocumentError(where, "the field 'text' is empty or missing")
    if len(text) > limits.max_text_chars:
        raise DocumentTooLargeError(
            where, f"'text' is past {limits.max_text_chars:,} characters (read_max_text_chars)"
        )
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return Document(
        id=one_line(_string(record, "id", where)) or default_id,
        title=_record_title(one_line(_string(record, "title", where)), text)[:_TITLE_CHARS],
        language=_record_language(record, text, where),
        text=text,
        source=one_line(_string(record, "source", where)) or where,
        metadata={
            one_line(key): _scalar(value)
            for key, value in record.items()
            if key not in _RECORD_FIELDS and isinstance(value, str | int | float) and one_line(key)
        },
        sha256=hashlib.sha256(canonical.encode()).hexdigest(),
    )


def _parsed(line: bytes, where: str) -> dict[str, object]:
    try:
        record = json.loads(decode_text(line, where).replace("\0", ""))
    except json.JSONDecodeError as error:
        reason = f"not valid JSON: {error.msg} at character {error.pos + 1}; every line is one JSON object"
        raise BrokenDocumentError(where, reason) from error
    except (ValueError, RecursionError) as error:
        raise BrokenDocumentError(where, f"JSON that can't be read: {error}") from error
    if not isinstance(record, dict):
        raise BrokenDocumentError(where, "the line is not a JSON object with the field 'text'")
    return record


def _string(record: dict[str, object], field: str, where: str) -> str:
    """Empty where the field is missing or null."""
    value = record.get(field)
    if value is None:
        return ""
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BrokenDocumentError(where, f"the field '{field}' is a {type(value).__name__}, not a string")
    return value


def _record_language(record: dict[str, object], text: str, where: str) -> Language:
    language = _string(record, "language", where).strip().lower()
    return language if language in _LANGUAGES else detect_language(text)


def _record_title(title: str, text: str) -> str:
    """A file's name says less than the title in the text; without either the title stays empty."""
    if title and not _FILE_NAME.fullmatch(title):
        return title
    return title_of(text) or title


def _scalar(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else normalise(str(value))
