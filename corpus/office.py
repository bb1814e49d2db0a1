"""Office files: .docx, .odt, .pptx and .xlsx, all of them zip archives of XML."""

import datetime
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from corpus.errors import BrokenDocumentError, DocumentTooLargeError
from corpus.limits import MIB, ReadLimits
from corpus.normalising import one_line, tidy
from corpus.texts import Text

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

_BLOCK_BYTES = 1 << 16
_NOT_TITLES = frozenset(
    ("", "powerpoint presentation", "powerpoint-presentatie", "word document", "untitled")
)
# What the libraries raise where a part is missing or isn't what it should be.
_DAMAGE = (LookupError, ValueError, TypeError, AttributeError, AssertionError, OSError)
_DEFAULT_SHEET = re.compile(r"(?:sheet|blad)\d*", re.I)
_HEADING_STYLE = re.compile(r"(?:heading|kop|titel|title|subtitle|ondertitel)\s*(\d?)$", re.I)
_LIST_STYLE = re.compile(r"list|lijst|opsomming|bullet", re.I)
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"


def read_docx(data: bytes, source: str, limits: ReadLimits) -> Text:
    """Paragraphs, headings, lists and tables in their order; tracked deletions are left out."""
    import docx
    from lxml import etree

    _check_archive(data, source, limits)
    try:
        document = docx.Document(io.BytesIO(data))
        blocks = list(_docx_blocks(document.element.body, document))
        title = document.core_properties.title
    except (*_DAMAGE, etree.LxmlError, docx.exceptions.PythonDocxError) as error:
        raise _damaged(source, "Word document", error) from error
    return _text_of(blocks, title)


def read_odt(data: bytes, source: str, limits: ReadLimits) -> Text:
    """Paragraphs, headings, lists and tables in their order."""
    from xml.sax import SAXException

    from odf.opendocument import load

    _check_archive(data, source, limits)
    try:
        document = load(io.BytesIO(data))
    except (*_DAMAGE, SAXException) as error:
        raise _damaged(source, "OpenDocument text", error) from error
    titles = [_odt_text(node) for node in document.meta.childNodes if node.qname[1] == "title"]
    return _text_of(list(_odt_blocks(document.text)), " ".join(titles))


def read_pptx(data: bytes, source: str, limits: ReadLimits) -> Text:
    """A heading a slide, then its text from top to bottom, tables, and the speaker's notes."""
    import pptx
    from lxml import etree

    _check_archive(data, source, limits)
    try:
        presentation = pptx.Presentation(io.BytesIO(data))
        blocks = [block for slide in presentation.slides for block in _slide_blocks(slide)]
        title = presentation.core_properties.title
    except (*_DAMAGE, etree.LxmlError, pptx.exc.PythonPptxError) as error:
        raise _damaged(source, "presentation", error) from error
    return _text_of(blocks, title)


def read_xlsx(data: bytes, source: str, limits: ReadLimits) -> Text:
    """A heading a sheet and a line a row, each value with its column's name: "Plaats: Delft; Jaar: 2024"."""
    import openpyxl
    from defusedxml import DefusedXmlException
    from openpyxl.utils.exceptions import InvalidFileException

    _check_archive(data, source, limits)
    blocks: list[str] = []
    chars = 0
    try:
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        for sheet in workbook.worksheets:
            if sheet.sheet_state != "visible":
                continue
            for block in _sheet_blocks(sheet):
                blocks.append(block)
                chars += len(block)
                if chars > limits.max_text_chars:
                    reason = f"more than {limits.max_text_chars:,} characters of text (read_max_text_chars)"
                    raise DocumentTooLargeError(source, f"{reason}; split the file or raise the limit")
        title = workbook.properties.title
    except (*_DAMAGE, SyntaxError, InvalidFileException, DefusedXmlException) as error:
        raise _damaged(source, "workbook", error) from error
    return _text_of(blocks, title)


def _text_of(blocks: Iterable[str], title: str | None) -> Text:
    """Without a title of its own, the first heading is the file's."""
    found = [block for block in blocks if block.strip()]
    name = one_line(title or "")
    if name.casefold() in _NOT_TITLES:
        names = [one_line(block.lstrip("#")) for block in found if block.startswith("#")]
        name = next((name for name in names if not _DEFAULT_SHEET.fullmatch(name)), "")
    text = "".join(("\n" if block.startswith(("- ", "| ")) else "\n\n") + block for block in found)
    return Text(tidy(re.sub(r"(?<=[^\n])\n(?=- |\| )", "\n", text)), name)


def _damaged(source: str, kind: str, error: Exception) -> BrokenDocumentError:
    return BrokenDocumentError(
        source, f"the {kind} is damaged: {one_line(str(error))[:200] or type(error).__name__}"
    )


def _check_archive(data: bytes, source: str, limits: ReadLimits) -> None:
    """Refuses a zip bomb: by what its directory declares and, as that may lie, by what comes out."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            declared = sum(member.file_size for member in archive.infolist())
            _check_size(declared, len(data), source, limits)
            unpacked = 0
            for member in archive.infolist():
                for size in _unpack(archive, member, source):
                    unpacked += size
                    _check_size(unpacked, len(data), source, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        kind = "a zip archive, as Office files are" if isinstance(error, zipfile.BadZipFile) else "intact"
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            kind = "in today's format: it is an old Office file, or has a password; save it anew without one"
        raise BrokenDocumentError(source, f"it is not {kind} ({error})") from error


def _check_size(unpacked: int, packed: int, source: str, limits: ReadLimits) -> None:
    """The ratio only counts past a few megabytes: a small, blank document packs very well."""
    is_bomb = unpacked > 8 * MIB and unpacked > limits.max_compression_ratio * packed
    if unpacked > limits.max_uncompressed_bytes or is_bomb:
        setting = "read_max_compression_ratio" if is_bomb else "read_max_unpacked_mib"
        reason = f"{packed / MIB:,.1f} MiB that unpack to {unpacked / MIB:,.0f} MiB or more, past {setting}"
        raise DocumentTooLargeError(source, f"{reason}: a zip bomb, or too large to read")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str) -> Iterator[int]:
    """Sizes of the blocks that come out. XML that defines entities is refused: Office writes none."""
    with archive.open(member) as file:
        tail = b""
        is_xml = member.filename.endswith((".xml", ".rels"))
        while block := file.read(_BLOCK_BYTES):
            if is_xml and b"<!ENTITY" in (tail + block).replace(b"\0", b""):
                raise BrokenDocumentError(source, "its XML defines entities, which Office files never do")
            tail = block[-32:]
            yield len(block)


def _row(cells: Iterable[str]) -> str:
    values = [one_line(cell) for cell in cells]
    return f"| {' | '.join(values)} |" if any(values) else ""


# ── Word ──────────────────────────────────────────────────────────────────────────────────────────────────


def _docx_blocks(container: Any, document: Any) -> Iterator[str]:
    """Of a body, or a content control in it (a cover page, a form field), which python-docx leaves out."""
    for element in container.iterchildren():
        if element.tag == f"{_WORD}p":
            yield _docx_paragraph(element, document)
        elif element.tag == f"{_WORD}tbl":
            yield from _docx_rows(element)
        elif element.tag == f"{_WORD}sdt":
            gallery = element.find(f".//{_WORD}docPartGallery")
            content = element.find(f"{_WORD}sdtContent")
            is_contents = gallery is not None and gallery.get(f"{_WORD}val") == "Table of Contents"
            if content is not None and not is_contents:
                yield from _docx_blocks(content, document)


def _docx_paragraph(element: Any, document: Any) -> str:
    from docx.text.paragraph import Paragraph

    text = tidy(_docx_text(element))
    style = Paragraph(element, document).style
    name = (style.name if style is not None else "") or ""
    heading = _HEADING_STYLE.match(name)
    if not text or (heading is None and not _is_docx_item(element, name)):
        return "" if name.casefold().startswith("toc ") else text
    if heading:
        return f"{'#' * min(6, int(heading.group(1) or 1))} {one_line(text)}"
    return f"- {one_line(text)}"


def _is_docx_item(element: Any, style_name: str) -> bool:
    return element.find(f"{_WORD}pPr/{_WORD}numPr") is not None or _LIST_STYLE.match(style_name) is not None


def _docx_rows(table: Any) -> Iterator[str]:
    for row in table.iterfind(f"{_WORD}tr"):
        yield _row(
            " ".join(_docx_text(p) for p in cell.iter(f"{_WORD}p")) for cell in row.iterfind(f"{_WORD}tc")
        )


def _docx_text(element: Any) -> str:
    """Insertions that are tracked count, deletions don't; a text box is written twice and read once."""
    if element.tag == _FALLBACK:
        return ""
    if element.tag == f"{_WORD}t":
        return element.text or ""
    if element.tag in (f"{_WORD}br", f"{_WORD}cr"):
        return "\n"
    if element.tag in (f"{_WORD}tab", f"{_WORD}noBreakHyphen"):
        return "\t" if element.tag == f"{_WORD}tab" else "-"
    inner = "".join(
        _docx_text(child) for child in element.iterchildren(tag="*") if child.tag != f"{_WORD}pPr"
    )
    return f"\n{inner}\n" if element.tag == f"{_WORD}txbxContent" else inner


# ── OpenDocument ──────────────────────────────────────────────────────────────────────────────────────────


def _odt_blocks(node: Any) -> Iterator[str]:
    for child in node.childNodes:
        name = child.qname[1] if hasattr(child, "qname") else ""
        if name == "h":
            level = int(child.getAttribute("outlinelevel") or 1)
            text = one_line(_odt_text(child))
            yield f"{'#' * max(1, min(6, level))} {text}" if text else ""
        elif name == "p":
            is_title = str(child.getAttribute("stylename") or "").casefold() == "title"
            text = tidy(_odt_text(child))
            yield f"# {one_line(text)}" if is_title and text else text
        elif name == "list-item":
            yield from (
                f"- {one_line(block.removeprefix('- '))}" for block in _odt_blocks(child) if block.strip()
            )
        elif name == "table-row":
            yield _row(_odt_text(cell) for cell in child.childNodes if hasattr(cell, "qname"))
        elif name not in ("tracked-changes", "table-of-content", "alphabetical-index", "sequence-decls"):
            yield from _odt_blocks(child)


def _odt_text(node: Any) -> str:
    from odf.teletype import extractText

    return str(extractText(node))


# ── PowerPoint ────────────────────────────────────────────────────────────────────────────────────────────


def _slide_blocks(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    heading = one_line(title.text_frame.text) if title is not None and title.has_text_frame else ""
    if heading:
        yield f"# {heading}"
    shapes = [shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id]
    for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
        yield from _shape_blocks(shape)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield tidy(slide.notes_slide.notes_text_frame.text)


def _shape_blocks(shape: Any) -> Iterator[str]:
    if hasattr(shape, "shapes"):
        for inner in shape.shapes:
            yield from _shape_blocks(inner)
    elif shape.has_text_frame:
        lines = [one_line(paragraph.text) for paragraph in shape.text_frame.paragraphs]
        filled = [line for line in lines if line]
        # A frame of several paragraphs is a list on nearly every slide.
        yield from (f"- {line}" for line in filled) if len(filled) > 1 else filled
    elif shape.has_table:
        yield from (_row(cell.text for cell in row.cells) for row in shape.table.rows)


# ── Excel ─────────────────────────────────────────────────────────────────────────────────────────────────


def _sheet_blocks(sheet: "ReadOnlyWorksheet") -> Iterator[str]:
    # A sheet may say that it has a million columns; read what is there.
    sheet.reset_dimensions()
    headers: list[str] = []
    yield f"# {one_line(sheet.title)}"
    for row in sheet.iter_rows(values_only=True):
        values = [_cell(value) for value in row]
        filled = [value for value in values if value]
        if not filled:
            continue
        if (
            not headers
            and len(filled) > 1
            and all(isinstance(value, str) for value in row if value is not None)
        ):
            headers = values
        elif len(filled) == 1 and not headers:
            yield filled[0]
        else:
            yield f"- {_named(headers, values)}"


def _named(headers: list[str], values: list[str]) -> str:
    names = [*headers, *[""] * (len(values) - len(headers))]
    pairs = [(name, value) for name, value in zip(names, values, strict=False) if value]
    return "; ".join(f"{name}: {value}" if name else value for name, value in pairs)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return one_line(str(value))
