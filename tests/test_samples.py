"""The sample documents and the questions about them: they are read, and they hold together."""

import json
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import corpus
from corpus.document import Document

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "corpus" / "samples"
QUESTIONS = ROOT / "eval" / "sets" / "samples.jsonl"
EXAMPLES = SAMPLES / ".examples.json"
KINDS = {"fact", "number", "date", "who", "why", "yesno"}


@cache
def documents() -> dict[str, Document]:
    found: dict[str, Document] = {}
    for item in corpus.read([SAMPLES]):
        assert isinstance(item, Document), item
        assert item.id not in found
        found[item.id] = item
    return found


@cache
def cases() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines())


def gold_quotes() -> list[tuple[str, dict[str, Any]]]:
    return [(case["id"], passage) for case in cases() for passage in case["relevant"]]


def one_line(text: str) -> str:
    return " ".join(text.split()).casefold()


def test_every_sample_is_read() -> None:
    files = {path.relative_to(SAMPLES) for path in SAMPLES.glob("*/*")}
    assert len(files) == 15
    assert len(documents()) == 16
    by_file = {f"samples/{path.as_posix()}" for path in files if path.suffix != ".jsonl"}
    assert set(documents()) == by_file | {
        "samples/nl/kort-nieuws-1",
        "samples/nl/kort-nieuws-2",
    }


def test_the_formats_are_all_there() -> None:
    suffixes = {path.suffix for path in SAMPLES.glob("*/*")}
    assert suffixes == {
        ".md",
        ".txt",
        ".html",
        ".pdf",
        ".docx",
        ".odt",
        ".pptx",
        ".xlsx",
        ".jsonl",
    }


def test_languages_are_those_of_the_folders() -> None:
    for document in documents().values():
        assert document.language == document.id.split("/")[1], document.id
    assert Counter(document.language for document in documents().values()) == {
        "nl": 10,
        "en": 6,
    }


def test_titles_are_informative() -> None:
    titles = [document.title for document in documents().values()]
    assert len(set(titles)) == 16
    assert all(len(title.split()) >= 3 for title in titles), titles


def test_web_pages_lose_their_menu_and_footer() -> None:
    dutch = documents()["samples/nl/veelgestelde-vragen.html"].text
    english = documents()["samples/en/press-review.html"].text
    for word in (
        "Inloggen",
        "Nieuwsarchief",
        "nieuwsbrief",
        "Cookie",
        "Privacyverklaring",
    ):
        assert word not in dutch
    for word in ("Subscribe", "Vacancies", "Terms of use", "window.visits"):
        assert word not in english


def test_front_matter_is_left_out() -> None:
    assert "title:" not in documents()["samples/nl/groningen-wil-ai-fabriek.md"].text


def test_pages_are_kept() -> None:
    assert len(documents()["samples/en/policy-note-location.pdf"].page_starts) == 2
    assert len(documents()["samples/nl/licht-en-brein-londen.pdf"].page_starts) == 1


def test_files_are_small_and_tell_nothing_of_where_they_were_made() -> None:
    files = [path for path in SAMPLES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 500_000
    for path in files:
        parts = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                parts += [archive.read(name) for name in archive.namelist()]
        for marker in (b"/home/", b"/" + b"root/", b"/Users/", b"/tmp/", b"C:\\"):
            assert not any(marker in part for part in parts), (path.name, marker)


def test_there_are_enough_questions_of_each_sort() -> None:
    total = len(cases())
    languages = Counter(case["language"] for case in cases())
    assert total >= 48
    assert set(languages) == {"nl", "en"}
    assert min(languages.values()) >= 0.4 * total
    assert sum(not case["answerable"] for case in cases()) >= total / 4
    assert sum(case["tags"]["crosslingual"] for case in cases()) >= total / 4


def test_cases_have_the_agreed_form() -> None:
    fields = {
        "id",
        "question",
        "language",
        "answerable",
        "answers",
        "answer",
        "relevant",
        "tags",
    }
    for case in cases():
        assert set(case) == fields, case["id"]
        assert set(case["tags"]) == {"set", "crosslingual", "kind"}, case["id"]
        assert case["tags"]["set"] == "samples"
        assert case["tags"]["kind"] in KINDS, case["id"]
        assert case["question"] == case["question"].strip()


def test_ids_and_questions_are_unique() -> None:
    assert len({case["id"] for case in cases()}) == len(cases())
    assert len({one_line(case["question"]) for case in cases()}) == len(cases())


def test_answers_and_passages_are_there_exactly_when_there_is_an_answer() -> None:
    for case in cases():
        filled = [bool(case[name]) for name in ("answers", "answer", "relevant")]
        assert filled == [case["answerable"]] * 3, case["id"]
        assert len(case["answers"]) <= 3


def test_every_quote_is_verbatim_where_it_says() -> None:
    for case_id, passage in gold_quotes():
        text = documents()[passage["document"]].text
        assert passage["quote"].strip() == passage["quote"] != "", case_id
        assert text[passage["start"] : passage["end"]] == passage["quote"], case_id


def test_every_document_is_asked_about_at_least_twice() -> None:
    asked = Counter(name for case in cases() for name in {hit["document"] for hit in case["relevant"]})
    assert {name for name, n in asked.items() if n >= 2} == set(documents())


def test_crosslingual_means_that_no_answer_is_in_the_question_s_language() -> None:
    for case in cases():
        languages = {documents()[hit["document"]].language for hit in case["relevant"]}
        across = bool(languages) and case["language"] not in languages
        assert case["tags"]["crosslingual"] is across, case["id"]


def test_one_short_answer_is_verbatim_where_the_languages_agree() -> None:
    for case in cases():
        if (
            not case["answerable"]
            or case["tags"]["crosslingual"]
            or case["tags"]["kind"] in ("yesno", "number")
        ):
            continue
        texts = [documents()[hit["document"]] for hit in case["relevant"]]
        same = [one_line(text.text) for text in texts if text.language == case["language"]]
        assert any(one_line(answer) in text for answer in case["answers"] for text in same), case["id"]


@pytest.mark.parametrize("language", ["nl", "en"])
def test_the_example_questions_can_be_answered(language: str) -> None:
    examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))[language]
    answerable = {case["question"] for case in cases() if case["answerable"] and case["language"] == language}
    assert len(examples) == 3
    assert set(examples) <= answerable
