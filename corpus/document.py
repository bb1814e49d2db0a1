"""The two types that everything else stands on. Offsets are Unicode code points, half-open."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Language = str
"""An ISO 639-1 code: "nl", "en", or "und" where the language is neither or can't be told."""

DUTCH: Language = "nl"
ENGLISH: Language = "en"
UNDETERMINED: Language = "und"


@dataclass(frozen=True, slots=True)
class Document:
    """A text that was read, normalised to NFC with "\\n" line ends.

    `source` is where a person finds it again (a path or a URL). `sha256` is the hex digest of what it was
    read from: the file's bytes, or the record's canonical JSON. `page_starts` are the offsets in `text`
    where a PDF's pages begin; page 1 is `page_starts[0]`, and it is empty for anything without pages.
    """

    id: str
    title: str
    language: Language
    text: str
    source: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `document.text[start:end] == text`, always.

    `ordinal` counts from 0 in its document. `heading` is the path of headings above the passage, joined by
    " › ", without the document's title; empty where there is none.
    """

    id: str
    document_id: str
    ordinal: int
    start: int
    end: int
    text: str
    heading: str = ""
