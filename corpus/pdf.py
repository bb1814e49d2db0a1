"""PDFs: pages kept, lines put back together into paragraphs, running heads and feet left out.

A PDF only says where each line stands. A line end was meant where there is more white above the next line
than usual, where the type changes, or where the next word would still have fitted; else it is a space.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corpus.errors import BrokenDocumentError, DocumentTooLargeError, EmptyDocumentError
from corpus.limits import ReadLimits
from corpus.normalising import one_line, tidy
from corpus.texts import Text

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage, PdfTextPage

_LINE = re.compile("[^\r\n\x02\ufffe]+")
# PDFium marks a hyphen at a line's end so, whether it splits a word or belongs to it.
_HYPHENS = "\x02\ufffe"
_BULLET = re.compile(r"(?:[-–•‣▪◦*·]|\(?(?:\d{1,3}|[a-z])[.)])\s")
_PAGE_NUMBER = re.compile(r"^\d+(?=\s|$)|(?<!\S)\d+(?:\s*(?:/|van|of)\s*\d+)?$")
_CLOSING = re.compile(r"[.,;:!?)\]»”](?:\s|$)")
_ROW = re.compile(r"\s[€$+-]?\d[\d.,]*%?$")
_FILE_NAME = re.compile(r"\.(?:docx?|pptx?|pdf|indd|qxd|rtf)$", re.I)
_NO_TITLES = frozenset(("", "none", "untitled", "document", "naamloos", "geen titel"))
_NEIGHBOURS = 5
_EDGE_LINES = 3
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’»)\]]*\d{0,2}$")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a page with its box in points, from the page's lower left corner."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    is_hyphenated: bool = False

    @property
    def size(self) -> float:
        return self.top - self.bottom


def read_pdf(data: bytes, source: str, limits: ReadLimits) -> Text:
    """Text with `page_starts`. A scan is an EmptyDocumentError; one with a password has its own reason."""
    from pypdfium2 import PdfiumError

    try:
        document = _opened(data, source)
        try:
            pages = [_lines(page) for page in _pages(document, source, limits)]
            title = _metadata_title(document)
        finally:
            document.close()
    except PdfiumError as error:
        raise BrokenDocumentError(source, f"the PDF is damaged: {error}") from error
    if not any(pages):
        reason = f"no text on its {len(pages)} page(s): a scan; run it through OCR (text recognition) first"
        raise EmptyDocumentError(source, reason)
    title = title or _printed_title(pages[0])
    text, page_starts = _joined([tidy(_paragraphs(page)) for page in _without_running_lines(pages)])
    return Text(text, title, page_starts=page_starts)


def _opened(data: bytes, source: str) -> "PdfDocument":
    from pypdfium2 import PdfDocument, PdfiumError, raw

    try:
        document = PdfDocument(data)
    except PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            reason = "the PDF is encrypted with a password; save it without one first"
        elif not data[:1024].lstrip().startswith(b"%PDF-"):
            reason = "this is not a PDF, whatever its name says"
        else:
            reason = f"the PDF is damaged: {error}"
        raise BrokenDocumentError(source, reason) from error
    if not len(document):
        raise BrokenDocumentError(source, "the PDF has no pages")
    return document


def _pages(document: "PdfDocument", source: str, limits: ReadLimits) -> "Iterator[PdfTextPage]":
    chars = 0
    for index in range(len(document)):
        page: PdfPage = document[index]
        text_page = page.get_textpage()
        chars += text_page.count_chars()
        if chars > limits.max_text_chars:
            reason = f"more than {limits.max_text_chars:,} characters of text (read_max_text_chars); split the file"
            raise DocumentTooLargeError(source, reason)
        yield text_page
        text_page.close()
        page.close()


def _lines(page: "PdfTextPage") -> list[_Line]:
    text = page.get_text_range()
    # Where PDFium's text and its list of characters differ, boxes can't be told; the page is one block then.
    has_boxes = len(text) == page.count_chars()
    lines = []
    for match in _LINE.finditer(text):
        content = match.group().rstrip()
        first = match.start() + len(content) - len(content.lstrip())
        if not content.strip():
            continue
        box = _box(page, first, match.start() + len(content) - 1) if has_boxes else (0.0, 0.0, 0.0, 0.0)
        is_hyphenated = text[match.end() : match.end() + 1] in _HYPHENS and match.end() < len(text)
        lines.append(_Line(content.strip(), *box, is_hyphenated))
    return lines


def _box(page: "PdfTextPage", first: int, last: int) -> tuple[float, float, float, float]:
    left, bottom, _, top = page.get_charbox(first, loose=True)
    _, last_bottom, right, last_top = page.get_charbox(last, loose=True)
    # A footnote's number at the end is small and high: the line's own type is at its start, or the other way.
    return left, min(bottom, last_bottom), right, max(top, last_top) if last_bottom < bottom else top


def _without_running_lines(pages: Sequence[list[_Line]]) -> list[list[_Line]]:
    """Drops lines at a page's edges that stand at the same height, but for a number, on most pages."""
    edges = [{_place(line) for line in (*page[:_EDGE_LINES], *page[-_EDGE_LINES:])} for page in pages]
    counts = Counter(place for edge in edges for place in edge)
    running = {place for place, count in counts.items() if count >= 2 and count >= 0.6 * len(pages)}
    return [_without_edges(page, running) for page in pages]


def _without_edges(page: list[_Line], running: set[tuple[str, int]]) -> list[_Line]:
    """A page of a few lines is left alone: they are its text."""
    if len(page) <= 2 * _EDGE_LINES:
        return page
    middle = page[_EDGE_LINES:-_EDGE_LINES]
    head = [line for line in page[:_EDGE_LINES] if _place(line) not in running]
    foot = [line for line in page[-_EDGE_LINES:] if _place(line) not in running]
    return [*head, *middle, *foot]


def _place(line: _Line) -> tuple[str, int]:
    """What is the same of a running line on every page: its words without the page's number, its height."""
    return _PAGE_NUMBER.sub("#", line.text), round(line.bottom / 3)


def _paragraphs(lines: list[_Line]) -> str:
    """The lines of a page as paragraphs, a blank line between them."""
    pitch = _pitch(lines)
    parts = []
    for index, line in enumerate(lines[:-1]):
        parts.append(line.text)
        parts.append(_separator(lines, index, pitch))
    parts.extend(line.text for line in lines[-1:])
    return "".join(parts)


def _pitch(lines: Sequence[_Line]) -> float:
    """The usual distance from one line to the next; 0 where there is nothing to measure."""
    steps = [above.bottom - below.bottom for above, below in zip(lines, lines[1:], strict=False)]
    near = [step for step, line in zip(steps, lines, strict=False) if 0 < step < 3 * line.size]
    return statistics.median(near) if near else 0.0


def _separator(lines: Sequence[_Line], index: int, pitch: float) -> str:
    line, following = lines[index], lines[index + 1]
    if line.is_hyphenated:
        return _hyphen(line.text, following.text)
    if _CLOSING.match(following.text):
        # A footnote's number, raised, has torn a full stop from its sentence.
        return ""
    step = line.bottom - following.bottom
    goes_on = following.text[0].islower() and not _SENTENCE_END.search(line.text)
    if _ROW.search(line.text) and _ROW.search(following.text) and not goes_on:
        return "\n"
    if _BULLET.match(following.text):
        return "\n\n" if step > 1.6 * pitch else "\n"
    if step < -pitch:
        # A new column, or a foot that was drawn before the text.
        return " " if goes_on else "\n\n"
    if step > 1.35 * pitch or abs(line.size - following.size) > 0.15 * max(line.size, following.size):
        return " " if goes_on and step < 1.6 * pitch else "\n\n"
    return " " if goes_on or not _has_room(lines, index) else "\n"


def _has_room(lines: Sequence[_Line], index: int) -> bool:
    """Whether the next line's first word would have fitted here, in a column as wide as the lines around."""
    line, following = lines[index], lines[index + 1]
    near = lines[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS + 1]
    column = [other.right for other in near if other.left < line.right and other.right > line.left]
    char_width = (following.right - following.left) / len(following.text)
    word = following.text.split(maxsplit=1)[0]
    return max(column) - line.right > (len(word) + 1) * char_width


def _hyphen(text: str, following: str) -> str:
    """A hyphen stays where it belongs to the word: in addresses, after capitals ("VN-"), before digits."""
    before, after = text.split()[-1], following.split(maxsplit=1)[0]
    is_address = "/" in before or "/" in after or "@" in before
    splits_word = before[-1:].islower() and after[:1].islower() and len(before) > 1
    return "" if splits_word and not is_address else "-"


def _joined(pages: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """One text and where each page begins in it. A sentence that runs on over a page's end isn't cut."""
    text, starts = "", []
    parts: list[str] = []
    length = 0
    for page in pages:
        if page and length:
            goes_on = page[0].islower() and not _SENTENCE_END.search(parts[-1])
            parts.append(" " if goes_on else "\n\n")
            length += len(parts[-1])
        starts.append(length)
        if page:
            parts.append(page)
            length += len(page)
    text = "".join(parts)
    return text, tuple(min(start, len(text)) for start in starts)


def _metadata_title(document: "PdfDocument") -> str:
    metadata = document.get_metadata_dict()
    for field in ("Title", "Subject"):
        title = re.sub(
            r"^Microsoft (?:Office )?(?:Word|PowerPoint) - ", "", one_line(metadata.get(field, ""))
        )
        if title.casefold() not in _NO_TITLES and not re.search(
            r"\.(?:docx?|pptx?|pdf|indd|qxd|rtf)$", title, re.I
        ):
            return title
    return ""


def _printed_title(lines: Sequence[_Line]) -> str:
    """The largest type on the first page, where it is larger than the rest."""
    if not lines:
        return ""
    largest = max(line.size for line in lines)
    if largest < 1.2 * statistics.median(line.size for line in lines):
        return ""
    first = next(index for index, line in enumerate(lines) if line.size > 0.95 * largest)
    title = [line.text for line in lines[first : first + 3] if line.size > 0.95 * largest]
    return " ".join(title)
