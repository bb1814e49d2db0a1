"""Each format read into text with headings, titles and exact records."""

import datetime
import gzip
import hashlib
import json
import lzma
import unicodedata
from pathlib import Path

import pytest
from document_files import pdf_bytes
from hypothesis import given
from hypothesis import strategies as st

from corpus import Document, ReadLimits, SourceFile, find_files, read_file
from corpus.errors import BrokenDocumentError, DocumentError, DocumentTooLargeError, EmptyDocumentError
from corpus.markdown import clean_markdown
from corpus.normalising import normalise, tidy
from corpus.readers import readable_stem


def results(path: Path, limits: ReadLimits | None = None) -> list[Document | DocumentError]:
    (source,) = find_files([path])
    assert isinstance(source, SourceFile)
    return list(read_file(source, limits or ReadLimits()))


def read_bytes(folder: Path, name: str, data: bytes) -> Document:
    path = folder / name
    path.write_bytes(data)
    (document,) = results(path)
    assert isinstance(document, Document), document
    return document


def read_text(folder: Path, name: str, text: str) -> Document:
    return read_bytes(folder, name, text.encode())


# ── what all formats share ────────────────────────────────────────────────────────────────────────────────


def test_a_document_says_where_it_is_from(tmp_path: Path) -> None:
    document = read_text(tmp_path, "kosten-baten.txt", "De kosten zijn hoog.\n")
    assert document == Document(
        id="kosten-baten.txt",
        title="Kosten baten",
        language="nl",
        text="De kosten zijn hoog.",
        source=str(tmp_path / "kosten-baten.txt"),
        sha256=hashlib.sha256(b"De kosten zijn hoog.\n").hexdigest(),
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("kosten-en_baten.v2.pdf", "Kosten en baten v2"),
        ("corpus.jsonl.xz", "Corpus"),
        ("AI-fabriek.md", "AI fabriek"),
        ("---.txt", "Document"),
    ],
)
def test_readable_stem(name: str, title: str) -> None:
    assert readable_stem(name) == title


def test_characters_are_composed_and_the_invisible_ones_dropped() -> None:
    text = "cafe\u0301\r\nna\u00adme\u200b\x00\x07\u00a0x\u202e\ud800\U000e0041 \ud83d\ude00\rk\u2028l"
    assert normalise(text) == "café\nname x 😀\nk\nl"


def test_emoji_and_scripts_that_need_joiners_keep_them() -> None:
    assert normalise("👩‍👩‍👧 نمی‌خواهم") == "👩‍👩‍👧 نمی‌خواهم"


def test_tidy_trims_lines_and_blank_runs() -> None:
    assert tidy("\n\n a  \n\t\nb \n\n\n\nc\n\n") == "a\n\nb\n\nc"


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert unicodedata.is_normalized("NFC", once)
    once.encode("utf-8")


# ── plain text ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
def test_text_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    text = "Één geïnteresseerde coördinator vroeg naar de financiële gegevens van het café in België."
    assert read_bytes(tmp_path, "a.txt", text.encode(encoding)).text == text


def test_windows_quotes_and_euro(tmp_path: Path) -> None:
    text = "Hij zei: “dat kost € 5” – en meer niet, volgens de coördinator…"
    assert read_bytes(tmp_path, "a.txt", text.encode("cp1252")).text == text


def test_text_with_nul_bytes_and_lone_surrogates_is_read_without_them(tmp_path: Path) -> None:
    data = "De gemeente heeft geïnvesteerd".encode() + b"\0\0 in \xed\xa0\x80zorg."
    assert read_bytes(tmp_path, "a.txt", data).text == "De gemeente heeft geïnvesteerd in zorg."


def test_utf8_with_a_cut_in_it_isnt_taken_for_latin(tmp_path: Path) -> None:
    data = "Geïnteresseerde coördinatoren in België".encode() + b"\xc3"
    assert read_bytes(tmp_path, "a.txt", data).text.startswith("Geïnteresseerde coördinatoren in België")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Een opschrift\n\nEen zin.", "Een opschrift"),
        ("Dit is meteen een zin.\nNog een.", "Bestand 1"),
        ("# Kop\n\nTekst.", "Kop"),
        ("Alleen één regel", "Bestand 1"),
    ],
)
def test_title_of_a_text(tmp_path: Path, text: str, title: str) -> None:
    assert read_text(tmp_path, "bestand-1.txt", text).title == title


# ── Markdown ──────────────────────────────────────────────────────────────────────────────────────────────


def test_markdown_keeps_headings_and_words_and_drops_the_rest(tmp_path: Path) -> None:
    text = """---
title: "De titel: een vraag"
tags: [a]
---

<!-- niet
tonen -->
{% include kop.html %}
<div class="kader">

## Wat kost **het**? {#kosten}

Zie [de pagina](/kosten) of [de site](https://example.nl/x). <br> Let&nbsp;op: `<b> ** &amp;` blijft.
![Een foto](foto.png)

| a | b |
|---|:--|
| 1 | 2 |

!!! info "Goed om te weten"
    Het loket is dicht.

</div>
Onder
-----
Slot
"""
    document = read_text(tmp_path, "x.md", text)
    assert document.title == "De titel: een vraag"
    assert document.text == (
        "## Wat kost het?\n\n"
        "Zie de pagina of [de site](https://example.nl/x).   Let op: `<b> ** &amp;` blijft.\nEen foto\n\n"
        "| a | b |\n| 1 | 2 |\n\nGoed om te weten\n    Het loket is dicht.\n\n## Onder\nSlot"
    )


def test_code_in_markdown_is_kept_to_the_letter() -> None:
    code = "```html\n<div>{{ x }}</div> <!-- y -->\n# geen kop\n```"
    assert clean_markdown(f"# Kop\n\n{code}\n") == (f"# Kop\n\n{code}", "Kop")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Tekst\n\n## Lager\n\n# Hoogst\n", "Hoogst"),
        ("Titel\n=====\n\nTekst\n", "Titel"),
        ("##Zonder spatie\n\nTekst\n", "Zonder spatie"),
        ("---\ntitle: >-\n  Over meer regels\n---\n# Kop\n", "Kop"),
        ("---\ntitle: ''\n---\nTekst\n", ""),
        ("<h1 class='x'>In HTML</h1>\n\nTekst\n", "In HTML"),
        ("Geen titel.\n", ""),
    ],
)
def test_title_of_markdown(text: str, title: str) -> None:
    assert clean_markdown(text)[1] == title


def test_placeholders_that_are_no_tags_stay() -> None:
    assert clean_markdown("Vul <naam> in en 3 < 4 > 2.\n")[0] == "Vul <naam> in en 3 < 4 > 2."


# ── HTML ──────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = """<!doctype html><html lang="nl"><head><title>Paspoort | Gemeente X</title>
<style>p{{}}</style></head><body>
<header><a href="/">Home</a><nav><ul><li>Menu een</li><li>Menu twee</li></ul></nav></header>{}
<footer>Copyright <a href="/c">Cookies</a></footer><script>alert("x")</script></body></html>"""


def test_html_keeps_the_main_content_as_markdown(tmp_path: Path) -> None:
    body = """<div><h1>Kosten van een paspoort</h1><p>Een paspoort kost <b>83,87 euro</b> bij de balie.</p>
    <h2>Wat heeft u nodig?</h2><ul><li>Een pasfoto</li><li>Uw oude paspoort</li></ul>
    <table><tr><th>Leeftijd</th><th>Prijs</th></tr><tr><td>Tot 18</td><td>63,42</td></tr></table></div>"""
    document = read_text(tmp_path, "x.html", PAGE.format(body))
    assert document.title == "Kosten van een paspoort"
    for line in ("# Kosten van een paspoort", "Een paspoort kost 83,87 euro bij de balie.", "- Een pasfoto"):
        assert line in document.text.splitlines()
    assert "| Tot 18 | 63,42 |" in document.text
    for word in ("Menu", "Copyright", "Cookies", "alert", "---", "**"):
        assert word not in document.text


def test_a_page_of_questions_keeps_all_of_them(tmp_path: Path) -> None:
    items = "".join(f"<details><summary>Vraag {n}?</summary><p>Antwoord {n}.</p></details>" for n in range(5))
    document = read_text(tmp_path, "x.htm", PAGE.format(f"<main><h1>Vragen</h1>{items}</main>"))
    assert all(f"Vraag {n}?" in document.text and f"Antwoord {n}." in document.text for n in range(5))
    assert "Menu" not in document.text


def test_html_without_headings_has_the_page_s_title_without_the_site_s(tmp_path: Path) -> None:
    assert read_text(tmp_path, "x.html", PAGE.format("<p>Een zin van de pagina.</p>")).title == "Paspoort"


def test_html_in_the_encoding_it_declares(tmp_path: Path) -> None:
    page = '<html><head><meta charset="iso-8859-1"></head><body><p>Één café kost € 5.</p></body></html>'
    assert read_bytes(tmp_path, "x.html", page.encode("cp1252")).text == "Één café kost € 5."


# ── PDF ───────────────────────────────────────────────────────────────────────────────────────────────────


LONG = [
    "De gemeente heeft besloten dat het loket voortaan ook in het weekend",
    "open is, zodat iedereen een paspoort kan aanvragen wanneer het hem of",
    "haar uitkomt.",
]


def test_pdf_lines_become_paragraphs_and_pages_are_known(tmp_path: Path) -> None:
    pages = [[*LONG, "", "Een tweede alinea."], ["Op de volgende bladzijde staat dit."]]
    document = read_bytes(tmp_path, "x.pdf", pdf_bytes(pages, "/Title (Het loket)"))
    assert document.text == f"{' '.join(LONG)}\n\nEen tweede alinea.\n\nOp de volgende bladzijde staat dit."
    assert document.title == "Het loket"
    assert document.page_starts == (0, document.text.index("Op de volgende"))


def test_a_sentence_runs_on_over_the_page(tmp_path: Path) -> None:
    document = read_bytes(tmp_path, "x.pdf", pdf_bytes([LONG[:2], [LONG[2]]]))
    assert document.text == " ".join(LONG)
    assert document.text[document.page_starts[1] :] == LONG[2]


def test_running_heads_and_feet_are_left_out(tmp_path: Path) -> None:
    bodies = [[f"Regel {page}.{line} van deze tekst." for line in range(6)] for page in range(4)]
    pages = [["Jaarverslag 2024", *body, f"bladzijde {page + 1}"] for page, body in enumerate(bodies)]
    document = read_bytes(tmp_path, "x.pdf", pdf_bytes(pages))
    assert "Jaarverslag" not in document.text
    assert "bladzijde" not in document.text
    assert all(line in document.text for body in bodies for line in body)
    assert len(document.page_starts) == 4


def test_an_empty_page_keeps_its_number(tmp_path: Path) -> None:
    document = read_bytes(tmp_path, "x.pdf", pdf_bytes([["Voorblad."], [], ["Einde."]]))
    assert document.text == "Voorblad.\n\nEinde."
    assert document.page_starts == (0, 9, 11)


# ── Office ────────────────────────────────────────────────────────────────────────────────────────────────


def test_docx_in_order_with_headings_lists_and_tables(tmp_path: Path) -> None:
    import docx

    made = docx.Document()
    made.core_properties.title = "Jaarplan"
    made.add_heading("Doel", 1)
    made.add_paragraph("De fabriek start in 2026.")
    made.add_paragraph("eerst dit", style="List Bullet")
    made.add_paragraph("dan dat", style="List Number")
    made.add_heading("Kosten", 2)
    table = made.add_table(2, 2)
    cells = [cell for row in table.rows for cell in row.cells]
    for cell, text in zip(cells, ("Post", "Bedrag", "Bouw", "70"), strict=True):
        cell.text = text
    made.add_paragraph("Einde.")
    made.save(str(tmp_path / "x.docx"))
    (document,) = results(tmp_path / "x.docx")
    assert isinstance(document, Document)
    assert document.title == "Jaarplan"
    assert document.text == (
        "# Doel\n\nDe fabriek start in 2026.\n- eerst dit\n- dan dat\n\n"
        "## Kosten\n| Post | Bedrag |\n| Bouw | 70 |\n\nEinde."
    )


def test_odt_in_order_with_headings_lists_and_tables(tmp_path: Path) -> None:
    from odf import dc, table, text
    from odf.opendocument import OpenDocumentText

    made = OpenDocumentText()
    made.meta.addElement(dc.Title(text="Jaarplan"))
    made.text.addElement(text.H(outlinelevel=2, text="Kosten"))
    made.text.addElement(text.P(text="De fabriek start in 2026."))
    items = text.List()
    item = text.ListItem()
    item.addElement(text.P(text="eerst dit"))
    items.addElement(item)
    made.text.addElement(items)
    rows, row = table.Table(), table.TableRow()
    for content in ("Bouw", "70"):
        cell = table.TableCell()
        cell.addElement(text.P(text=content))
        row.addElement(cell)
    rows.addElement(row)
    made.text.addElement(rows)
    made.save(str(tmp_path / "x.odt"))
    (document,) = results(tmp_path / "x.odt")
    assert isinstance(document, Document)
    assert document.title == "Jaarplan"
    assert document.text == "## Kosten\n\nDe fabriek start in 2026.\n- eerst dit\n| Bouw | 70 |"


def test_pptx_has_a_heading_a_slide_and_the_notes(tmp_path: Path) -> None:
    import pptx

    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[1])
    slide.shapes.title.text = "De planning"
    slide.placeholders[1].text = "eerste punt\ntweede punt"
    slide.notes_slide.notes_text_frame.text = "Vertel dit erbij."
    made.save(str(tmp_path / "x.pptx"))
    (document,) = results(tmp_path / "x.pptx")
    assert isinstance(document, Document)
    assert document.title == "De planning"
    assert document.text == "# De planning\n- eerste punt\n- tweede punt\n\nVertel dit erbij."


def test_xlsx_names_each_value_by_its_column(tmp_path: Path) -> None:
    import openpyxl

    made = openpyxl.Workbook()
    sheet = made.active
    sheet.title = "Subsidies"
    rows: list[list[object]] = [
        ["Overzicht van 2025"],
        [],
        ["Gemeente", "Bedrag", "Datum"],
        ["Groningen", 70.0, datetime.datetime(2025, 1, 2)],
        ["Assen", 1.5, None],
        ["Delft"],
    ]
    for row in rows:
        sheet.append(row)
    made.create_sheet("Verborgen").sheet_state = "hidden"
    made.save(tmp_path / "x.xlsx")
    (document,) = results(tmp_path / "x.xlsx")
    assert isinstance(document, Document)
    assert document.title == "Subsidies"
    assert document.text == (
        "# Subsidies\n\nOverzicht van 2025\n- Gemeente: Groningen; Bedrag: 70; Datum: 2025-01-02\n"
        "- Gemeente: Assen; Bedrag: 1.5\n- Gemeente: Delft"
    )


# ── JSONL ─────────────────────────────────────────────────────────────────────────────────────────────────

RECORD = {
    "id": "vac/1",
    "title": "Kosten",
    "language": "nl",
    "text": "Het kost\n\n# niets.  \n",
    "source": "x.nl",
}


def test_a_record_is_kept_as_it_is(tmp_path: Path) -> None:
    record = {**RECORD, "license": "CC0", "year": 2024, "final": True, "none": None, "list": [1]}
    (document,) = (read_text(tmp_path, "x.jsonl", json.dumps(record)),)
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert document == Document(
        id="vac/1",
        title="Kosten",
        language="nl",
        text="Het kost\n\n# niets.  \n",
        source="x.nl",
        metadata={"license": "CC0", "year": "2024", "final": "true"},
        sha256=hashlib.sha256(canonical.encode()).hexdigest(),
    )


def test_what_a_record_leaves_out_is_filled_in(tmp_path: Path) -> None:
    document = read_text(tmp_path, "x.jsonl", '\n{"text": "What does it cost to use the service?"}\n')
    assert (document.id, document.title, document.language) == ("x.jsonl:2", "", "en")
    assert document.source == f"{tmp_path / 'x.jsonl'}, line 2"


@pytest.mark.parametrize("language", ["fr", "", None, "Dutch"])
def test_a_language_that_isnt_one_of_ours_is_detected(tmp_path: Path, language: str | None) -> None:
    line = json.dumps({"text": "Wat kost het om dit te doen?", "language": language})
    assert read_text(tmp_path, "x.jsonl", line).language == "nl"


def test_a_file_name_as_title_gives_way_to_the_text_s_own(tmp_path: Path) -> None:
    record = {"title": "3-a_b.md", "text": "---\ntitle: 'Wat kost het?'\n---\nTekst."}
    assert read_text(tmp_path, "x.jsonl", json.dumps(record)).title == "Wat kost het?"
    assert read_text(tmp_path, "x.jsonl", json.dumps({"title": "a.md", "text": "Tekst."})).title == "a.md"


def test_compressed_corpora_are_read_like_others(tmp_path: Path) -> None:
    data = "".join(json.dumps({"id": str(n), "text": f"Tekst {n}."}) + "\n" for n in range(100)).encode()
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(data))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("a.jsonl.xz", "b.jsonl.gz"):
        assert [found.id for found in results(tmp_path / name) if isinstance(found, Document)] == [
            str(n) for n in range(100)
        ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{broken", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"id": "a"}', "'text' is empty or missing"),
        ('{"id": "a", "text": " "}', "'text' is empty or missing"),
        ('{"id": "a", "text": 5}', "'text' is a int"),
        ('{"id": ["a"], "text": "x"}', "'id' is a list"),
        ('{"id": "0", "text": "x"}', "on an earlier line"),
        ("[" * 100_000, "can't be read"),
        ('{"id": "a", "text": "x", "n": ' + "9" * 5000 + "}", "can't be read"),
    ],
)
def test_a_bad_line_is_named_and_the_others_go_in(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        f'{{"id": "0", "text": "een"}}\n{line}\n{{"id": "2", "text": "twee"}}\n', encoding="utf-8"
    )
    first, error, last = results(path)
    assert isinstance(first, Document)
    assert isinstance(last, Document)
    assert isinstance(error, DocumentError)
    assert error.source.endswith("x.jsonl, line 2")
    assert why in error.reason


def test_a_lone_surrogate_in_a_record_is_dropped(tmp_path: Path) -> None:
    assert read_text(tmp_path, "x.jsonl", '{"text": "a\\ud800b \\ud83d\\ude00"}').text == "ab 😀"


def test_a_record_past_the_limit_is_skipped_and_the_next_goes_in(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "x" * 9000}) + '\n{"id": "2", "text": "twee"}\n', encoding="utf-8")
    error, document = results(path, ReadLimits(max_bytes=1000))
    assert isinstance(error, DocumentTooLargeError)
    assert "line 1" in error.source
    assert isinstance(document, Document)
    assert document.id == "2"


def test_a_corpus_past_the_limit_stops_there(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(json.dumps({"id": str(n), "text": "x" * 50}) + "\n" for n in range(99)), encoding="utf-8"
    )
    found = results(path, ReadLimits(max_corpus_bytes=500))
    assert isinstance(found[-1], DocumentTooLargeError)
    assert "read_max_corpus_mib" in found[-1].reason
    assert len(found) < 10


def test_a_corpus_that_was_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    data = "".join(
        json.dumps({"id": str(n), "text": f"Tekst {n * 7919}."}) + "\n" for n in range(5000)
    ).encode()
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(data)[:-2000])
    *documents, error = results(tmp_path / "x.jsonl.gz")
    assert len(documents) > 1000
    assert isinstance(error, BrokenDocumentError)
    assert "damaged after line" in error.reason


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_a_corpus_without_records_is_empty(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    assert [type(found) for found in results(tmp_path / "x.jsonl")] == [EmptyDocumentError]


@given(text=st.text(min_size=1).filter(lambda text: normalise(text).strip() != ""))
def test_a_record_s_offsets_hold_where_it_is_normal(text: str) -> None:
    from corpus.readers import _record

    normal = normalise(text)
    assert _record(json.dumps({"text": normal}).encode(), "x", "x:1", ReadLimits()).text == normal
