"""Files made to break something: each becomes an error with the file's name and the reason, in bounded time."""

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from document_files import pdf_bytes

from corpus import Document, ReadLimits, Sandbox, find_files, read, split
from corpus.errors import BrokenDocumentError, DocumentError, DocumentTooLargeError, EmptyDocumentError
from corpus.limits import MIB

DOCUMENTS = ("txt", "md", "html", "pdf", "docx", "odt", "pptx", "xlsx")
LIMITS = ReadLimits(timeout_s=60.0)
# One worker for the module: starting one for each test would take most of the time.
SHARED = Sandbox(LIMITS)


@pytest.fixture(scope="module", autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    SHARED.close()


def results_of(path: Path) -> list[Document | DocumentError]:
    (source,) = find_files([path])
    return [source] if isinstance(source, DocumentError) else list(SHARED.read(source))


def error_of(path: Path, limits: ReadLimits = LIMITS) -> DocumentError:
    """The one error that reading `path` gives; it names the file."""
    (error,) = results_of(path) if limits is LIMITS else read([path], limits)
    assert isinstance(error, DocumentError), error
    assert error.source == str(path)
    return error


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def docx_bytes() -> bytes:
    import docx

    made, out = docx.Document(), io.BytesIO()
    made.add_heading("Kop", 1)
    made.add_paragraph("De fabriek start in 2026.")
    made.save(out)
    return out.getvalue()


def xlsx_bytes() -> bytes:
    import openpyxl

    made, out = openpyxl.Workbook(), io.BytesIO()
    made.active.append(["Gemeente", "Bedrag"])
    made.active.append(["Delft", 5])
    made.save(out)
    return out.getvalue()


def pptx_bytes() -> bytes:
    import pptx

    made, out = pptx.Presentation(), io.BytesIO()
    made.slides.add_slide(made.slide_layouts[5]).shapes.title.text = "De planning"
    made.save(out)
    return out.getvalue()


def odt_bytes() -> bytes:
    from odf import text
    from odf.opendocument import OpenDocumentText

    made, out = OpenDocumentText(), io.BytesIO()
    made.text.addElement(text.P(text="De fabriek start in 2026."))
    made.save(out)
    return out.getvalue()


VALID: dict[str, Callable[[], bytes]] = {
    "pdf": lambda: pdf_bytes([["De fabriek start in 2026."], ["Einde."]]),
    "docx": docx_bytes,
    "odt": odt_bytes,
    "pptx": pptx_bytes,
    "xlsx": xlsx_bytes,
}
MAIN_PART = {
    "docx": "word/document.xml",
    "odt": "content.xml",
    "pptx": "ppt/slides/slide1.xml",
    "xlsx": "xl/worksheets/sheet1.xml",
}


def with_part(data: bytes, name: str, content: bytes) -> bytes:
    """The same archive with another content for one of its parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
    return out.getvalue()


@pytest.mark.parametrize("extension", [*DOCUMENTS, "jsonl", "jsonl.xz", "jsonl.gz"])
def test_an_empty_file(tmp_path: Path, extension: str) -> None:
    error = error_of(written(tmp_path / f"leeg.{extension}", b""))
    assert isinstance(error, EmptyDocumentError | BrokenDocumentError)


@pytest.mark.parametrize("extension", DOCUMENTS)
def test_only_white_space(tmp_path: Path, extension: str) -> None:
    error = error_of(written(tmp_path / f"wit.{extension}", b" \n\t \r\n"))
    assert isinstance(error, EmptyDocumentError | BrokenDocumentError)


@pytest.mark.parametrize("extension", [*DOCUMENTS, "jsonl", "jsonl.xz", "jsonl.gz"])
@pytest.mark.parametrize("kind", ["random", "png", "elf"])
def test_binary_content_under_any_name(tmp_path: Path, extension: str, kind: str) -> None:
    noise = random.Random(5).randbytes(20_000).replace(b"\n", b"\x01")
    data = {"random": noise, "png": b"\x89PNG\r\n\x1a\n" + noise, "elf": b"\x7fELF" + noise}[kind]
    path = written(tmp_path / f"binair.{extension}", data)
    results = results_of(path)
    assert results
    assert all(isinstance(result, BrokenDocumentError) for result in results)


@pytest.mark.parametrize("extension", ["txt", "pdf", "docx", "html"])
def test_a_file_of_200_megabytes_names_size_limit_and_setting(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"groot.{extension}"
    with path.open("wb") as file:
        file.truncate(200 * MIB)
    error = error_of(path)
    assert isinstance(error, DocumentTooLargeError)
    for part in ("200.0 MiB", "50 MiB", "read_max_mib"):
        assert part in error.reason


def test_text_past_the_limit_of_characters(tmp_path: Path) -> None:
    error = error_of(written(tmp_path / "a.txt", b"tekst " * 1000), ReadLimits(max_text_chars=1000))
    assert isinstance(error, DocumentTooLargeError)
    assert "read_max_text_chars" in error.reason


# ── PDF ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_scan_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    error = error_of(written(tmp_path / "scan.pdf", pdf_bytes([[], []])))
    assert isinstance(error, EmptyDocumentError)
    assert "scan" in error.reason
    assert "OCR" in error.reason


@pytest.mark.parametrize("keep", [5, 60, 300])
def test_a_broken_pdf(tmp_path: Path, keep: int) -> None:
    error = error_of(written(tmp_path / "stuk.pdf", pdf_bytes([["Tekst."]])[:keep]))
    assert isinstance(error, BrokenDocumentError)
    assert "PDF" in error.reason


def test_a_pdf_with_a_password_says_so(tmp_path: Path) -> None:
    encrypt = f"/Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}>"
    data = pdf_bytes([["Geheim."]]).replace(b"/Root 1 0 R", f"/Root 1 0 R /Encrypt << {encrypt} >>".encode())
    data = data.replace(b"%%EOF", b"%%EOF").replace(
        b"/Size", f"/ID [<{'43' * 16}> <{'43' * 16}>] /Size".encode()
    )
    error = error_of(written(tmp_path / "geheim.pdf", data))
    assert isinstance(error, BrokenDocumentError)
    assert "password" in error.reason


def test_a_pdf_whose_pages_hold_themselves(tmp_path: Path) -> None:
    data = pdf_bytes([["Tekst."]]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")
    assert isinstance(error_of(written(tmp_path / "lus.pdf", data)), DocumentError)


# ── zip archives ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("extension", MAIN_PART)
def test_a_zip_bomb(tmp_path: Path, extension: str) -> None:
    data = with_part(VALID[extension](), MAIN_PART[extension], b" " * (30 * MIB))
    path = written(tmp_path / f"bom.{extension}", data)
    assert "read_max_compression_ratio" in error_of(path).reason
    error = error_of(path, ReadLimits(max_uncompressed_bytes=20 * MIB, max_compression_ratio=10**9))
    assert isinstance(error, DocumentTooLargeError)
    assert "read_max_unpacked_mib" in error.reason
    assert "zip bomb" in error.reason


@pytest.mark.parametrize("extension", MAIN_PART)
def test_a_zip_bomb_that_lies_about_its_size(tmp_path: Path, extension: str) -> None:
    data = with_part(VALID[extension](), MAIN_PART[extension], b" " * (30 * MIB))
    lie = data.replace(struct.pack("<I", 30 * MIB), struct.pack("<I", 1000))
    assert lie != data
    error = error_of(written(tmp_path / f"bom.{extension}", lie))
    assert isinstance(error, BrokenDocumentError | DocumentTooLargeError)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("extension", MAIN_PART)
def test_entities_that_multiply(tmp_path: Path, extension: str, encoding: str) -> None:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    xml = (
        f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [<!ENTITY l0 "lol">{entities}]><x>&l11;</x>'
    )
    data = with_part(VALID[extension](), MAIN_PART[extension], xml.encode(encoding))
    error = error_of(written(tmp_path / f"lach.{extension}", data))
    assert isinstance(error, BrokenDocumentError)
    assert "entities" in error.reason


@pytest.mark.parametrize("extension", MAIN_PART)
def test_an_archive_of_another_kind(tmp_path: Path, extension: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "niets")
    assert isinstance(
        error_of(written(tmp_path / f"anders.{extension}", out.getvalue())), BrokenDocumentError
    )


def test_a_word_document_under_another_name(tmp_path: Path) -> None:
    error = error_of(written(tmp_path / "brief.xlsx", docx_bytes()))
    assert isinstance(error, BrokenDocumentError)


def test_an_old_word_document_says_what_to_do(tmp_path: Path) -> None:
    error = error_of(written(tmp_path / "oud.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000)))
    assert isinstance(error, BrokenDocumentError)
    assert "old Office file" in error.reason


def test_a_sheet_that_says_it_has_every_cell_there_can_be(tmp_path: Path) -> None:
    part = MAIN_PART["xlsx"]
    with zipfile.ZipFile(io.BytesIO(xlsx_bytes())) as archive:
        xml = archive.read(part).replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"')
    (document,) = results_of(written(tmp_path / "a.xlsx", with_part(xlsx_bytes(), part, xml)))
    assert isinstance(document, Document)
    assert document.text.endswith("- Gemeente: Delft; Bedrag: 5")


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "unit",
    [
        "<div>",
        "<b><i>",
        "<!--",
        "{%",
        "{{",
        "[[",
        "[a](",
        "![",
        "`",
        "**a",
        "|-",
        "# a\n",
        "```\n",
        "- ",
        ".",
        "&amp;",
    ],
)
@pytest.mark.parametrize("extension", ["md", "html"])
def test_markup_that_never_ends(tmp_path: Path, unit: str, extension: str) -> None:
    path = written(tmp_path / f"lang.{extension}", (unit * 20_000 + " einde").encode())
    for result in results_of(path):
        if isinstance(result, Document):
            assert split(result, lambda texts: [len(text) // 4 for text in texts])


def test_an_unbroken_word_and_a_million_accents(tmp_path: Path) -> None:
    text = "x" * 100_000 + " a" + "\u0316\u0300" * 100_000
    (document,) = results_of(written(tmp_path / "a.txt", text.encode()))
    assert isinstance(document, Document)
    assert len(document.text) < 100_100
    chunks = split(document, lambda texts: [len(text) // 4 for text in texts])
    assert "".join(chunk.text for chunk in chunks).startswith("x" * 100_000)


# ── anything ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("extension", VALID)
def test_damage_anywhere_gives_a_document_or_an_error(tmp_path: Path, extension: str) -> None:
    intact = VALID[extension]()
    chance = random.Random(extension)
    for number in range(15):
        damaged = bytearray(intact)
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if number % 3 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        (result,) = results_of(written(tmp_path / f"{number}.{extension}", bytes(damaged)))
        assert isinstance(result, Document | DocumentError)
