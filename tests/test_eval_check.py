"""`eval check` and `eval from-documents`: every fault at once with its place, and drafts that pass."""

import json
from pathlib import Path

import pytest
from eval_fakes import CASES, DELFT, FakeSystem
from test_runner import write
from typer.testing import CliRunner

from api.cli_eval import app
from corpus.document import Document
from eval.cases import read_cases
from eval.checking import check_set
from eval.drafting import draft_cases, to_line

FAQ = """# Vragen over de bus

## Wat kost een kaartje?

Een kaartje kost 4 euro. Kinderen reizen gratis.

## Openingstijden

Het loket is open van 9 tot 5.

## How do I cancel?

Call us. It is free.

**Waar is de halte?**
Voor het station.

## Leeg?
"""


def test_a_good_set_has_neither_errors_nor_warnings(tmp_path: Path) -> None:
    report = check_set(write(tmp_path, CASES[:1]), FakeSystem().document)
    assert (report.cases, report.errors, report.warnings) == (1, (), ())
    assert dict(report.counts)["with short answers"] == 1


def test_all_errors_are_told_at_once_with_line_and_field(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        [
            {**CASES[0], "relevant": [{"document": "nl/nowhere"}]},
            {"id": "x", "question": "?", "language": "nl"},
            {**CASES[0], "id": "past", "relevant": [{"document": "nl/delft", "start": 0, "end": 5000}]},
            CASES[0],
        ],
    )
    report = check_set(file, FakeSystem().document)
    assert [(problem.line, problem.field) for problem in report.errors] == [
        (1, "relevant[0].document"),
        (2, "answerable"),
        (3, "relevant[0].end"),
        (4, "id"),
    ]


def test_what_is_only_odd_is_a_warning(tmp_path: Path) -> None:
    odd = [
        {**CASES[0], "id": "1", "relevant": []},
        {**CASES[0], "id": "2", "answers": [], "answer": None},
        {**CASES[0], "id": "3", "relevant": [{"document": "nl/delft", "start": 0, "end": 5}]},
        {**CASES[0], "id": "4", "relevant": [{"document": "nl/delft", "quote": "staat er niet"}]},
        {
            **CASES[0],
            "id": "5",
            "relevant": [{"document": "nl/delft", "start": 0, "end": 5, "quote": "1572"}],
        },
        {**CASES[0], "id": "6", "anwser": "x"},
        {**CASES[3], "id": "7", "relevant": [{"document": "nl/delft"}]},
    ]
    report = check_set(write(tmp_path, odd), FakeSystem().document)
    assert report.errors == ()
    assert [(problem.line, problem.field) for problem in report.warnings] == [
        (1, "relevant"),
        (2, "answers"),
        (3, "relevant[0]"),
        (4, "relevant[0].quote"),
        (5, "relevant[0]"),
        (6, "anwser"),
        (7, "relevant"),
    ]
    assert "stands 'Delft', and none of the answers" in report.warnings[2].message


def test_an_empty_set_is_an_error(tmp_path: Path) -> None:
    assert "there are no cases" in str(check_set(write(tmp_path, [])).errors[0])


def test_the_command_prints_line_and_field_and_fails(tmp_path: Path) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["check", str(write(tmp_path, CASES))])
    assert good.exit_code == 0
    assert "5 cases" in good.stdout
    bad = write(tmp_path, [CASES[0], {**CASES[0], "language": "Nederlands"}], "bad.jsonl")
    found = runner.invoke(app, ["check", str(bad)])
    assert found.exit_code == 8
    assert "error: line 2, field 'language'" in found.stdout
    printed = json.loads(runner.invoke(app, ["check", str(bad), "--json"]).stdout)
    assert printed["errors"][0]["line"] == 2


def test_the_command_looks_documents_up_in_files(tmp_path: Path) -> None:
    (tmp_path / "bus.md").write_text(FAQ, encoding="utf-8")
    cases = [{**CASES[0], "relevant": [{"document": name}]} for name in ("bus.md", "tram.md")]
    file = write(tmp_path, [cases[0], {**cases[1], "id": "tram"}])
    found = CliRunner().invoke(app, ["check", str(file), "--corpus", str(tmp_path / "bus.md")])
    assert found.exit_code == 8
    assert "error: line 2, field 'relevant[0].document': there is no document 'tram.md'" in found.stdout
    assert "line 1" not in found.stdout


def test_headings_that_are_questions_become_cases(tmp_path: Path) -> None:
    document = Document("faq.md", "Vragen", "nl", FAQ, "faq.md")
    cases = list(draft_cases([document]))
    assert [(case.question, case.language, case.answer) for case in cases] == [
        ("Wat kost een kaartje?", "nl", "Een kaartje kost 4 euro. Kinderen reizen gratis."),
        ("How do I cancel?", "en", "Call us. It is free."),
        ("Waar is de halte?", "nl", "Voor het station."),
    ]
    (relevant,) = cases[0].relevant
    assert FAQ[relevant.start : relevant.end] == "Een kaartje kost 4 euro. Kinderen reizen gratis."


def test_a_question_in_running_text_is_no_heading() -> None:
    text = "Eerst dit. Waarom dan?\nDaarom.\n\nWaar is het?\nHier.\n\nEen regel\nEn wanneer?\nMorgen."
    assert [case.question for case in draft_cases([Document("a", "", "nl", text, "a")])] == ["Waar is het?"]


def test_a_title_that_is_a_question_is_one_too() -> None:
    document = Document("a", "Waar ligt Delft?", "nl", DELFT, "a")
    (case,) = draft_cases([document])
    assert (case.question, case.answer) == ("Waar ligt Delft?", DELFT)


def test_a_draft_keeps_its_ids_and_passes_the_check(tmp_path: Path) -> None:
    document = Document("nl/delft", "Waar ligt Delft?", "nl", DELFT, "a")
    lines = [to_line(case) for case in draft_cases([document])]
    assert lines == [to_line(case) for case in draft_cases([document, document])][:1]
    file = tmp_path / "draft.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert check_set(file, FakeSystem().document).errors == ()
    assert [case.question for case in read_cases(file)] == ["Waar ligt Delft?"]


def test_the_command_drafts_from_files(tmp_path: Path) -> None:
    (tmp_path / "faq.md").write_text(FAQ, encoding="utf-8")
    out = tmp_path / "draft.jsonl"
    found = CliRunner().invoke(app, ["from-documents", str(tmp_path / "faq.md"), "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert [case.question for case in read_cases(out)] == [
        "Wat kost een kaartje?",
        "How do I cancel?",
        "Waar is de halte?",
    ]


@pytest.mark.parametrize("arguments", [["run", "nothing.jsonl"], ["check", "nothing.jsonl"]])
def test_a_set_that_is_not_there(arguments: list[str]) -> None:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 8
    assert "can't be opened" in found.output
