"""Reading evaluation sets: both forms, compressed or not, and every error with its line and field."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from corpus.errors import EvalSetError
from eval.cases import EvalCase, Problem, Relevant, from_pair, read_cases, scan, set_sha256, unknown_fields

CASE: dict[str, Any] = {
    "id": "a/1",
    "question": "Wat kost het?",
    "language": "nl",
    "answerable": True,
    "answers": ["tien euro", "€ 10"],
    "answer": "Het kost tien euro.",
    "relevant": [{"document": "d/1", "start": 8, "end": 17, "quote": "tien euro"}],
    "tags": {"set": "a", "hard": True, "hops": 2},
}
PAIR: dict[str, Any] = {
    "id": "t1",
    "document": "web/page",
    "source": "gov",
    "title": "Kosten",
    "passage_language": "nl",
    "passage": "Het kost tien euro.\r\nNiet meer.",
    "question": "What does it cost?",
    "language": "en",
    "answerable": True,
    "short": "ten euros",
    "answer": "It costs ten euros.",
    "evidence": "Het kost tien euro.",
}


def write(folder: Path, *records: object, name: str = "set.jsonl") -> Path:
    file = folder / name
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_case_keeps_every_field(tmp_path: Path) -> None:
    assert list(read_cases(write(tmp_path, CASE))) == [
        EvalCase(
            id="a/1",
            question="Wat kost het?",
            language="nl",
            answerable=True,
            answers=("tien euro", "€ 10"),
            answer="Het kost tien euro.",
            relevant=(Relevant("d/1", 8, 17, "tien euro"),),
            tags={"set": "a", "hard": True, "hops": 2},
            line=1,
        )
    ]


def test_optional_fields_may_be_missing(tmp_path: Path) -> None:
    bare = {
        "id": "a",
        "question": "Wat?",
        "language": "nl",
        "answerable": True,
        "relevant": [{"document": "d"}],
    }
    (case,) = read_cases(write(tmp_path, bare))
    assert (case.answers, case.answer, case.relevant) == ((), None, (Relevant("d"),))
    assert case.cluster == "d"


def test_cases_are_clustered_by_the_document_they_were_written_on() -> None:
    def case(**fields: Any) -> EvalCase:
        return EvalCase("x", "?", "nl", False, **fields)

    assert case(tags={"document": "d/7"}).cluster == "d/7"
    assert case().cluster == "case:x"


def test_compressed_sets_are_read_as_they_are(tmp_path: Path) -> None:
    plain = write(tmp_path, CASE)
    data = plain.read_bytes()
    (tmp_path / "set.jsonl.xz").write_bytes(lzma.compress(data))
    (tmp_path / "set.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("set.jsonl.xz", "set.jsonl.gz"):
        assert list(read_cases(tmp_path / name)) == list(read_cases(plain))
        assert set_sha256(tmp_path / name) == set_sha256(plain)


@pytest.mark.parametrize("field", ["id", "question", "language", "answerable"])
def test_a_missing_field_is_named_with_its_line(tmp_path: Path, field: str) -> None:
    broken = {**CASE, "id": "a/2"}
    del broken[field]
    with pytest.raises(EvalSetError, match=rf"set\.jsonl: line 2, field '{field}': it is missing"):
        list(read_cases(write(tmp_path, CASE, broken)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": "  "}, "question"),
        ({"language": "Dutch"}, "language"),
        ({"answerable": "yes"}, "answerable"),
        ({"answers": ["ok", 3]}, r"answers\[1\]"),
        ({"relevant": [{"document": "d"}, {"start": 1, "end": 2}]}, r"relevant\[1\]\.document"),
        ({"relevant": [{"document": "d", "start": -1, "end": 2}]}, r"relevant\[0\]\.start"),
        ({"relevant": [{"document": "d", "start": 5}]}, r"relevant\[0\]"),
        ({"relevant": [{"document": "d", "start": 5, "end": 5}]}, r"relevant\[0\]"),
        ({"tags": {"set": None}}, r"tags\.set"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(EvalSetError, match=rf"line 1, field '{field}'"):
        list(read_cases(write(tmp_path, CASE | change)))


def test_an_unanswerable_case_with_an_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="line 1: answerable is false, and yet there is an answer"):
        list(read_cases(write(tmp_path, CASE | {"answerable": False})))


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="line 3, field 'id': 'a/1' was there already, on line 1"):
        list(read_cases(write(tmp_path, CASE, CASE | {"id": "b"}, CASE)))


@pytest.mark.parametrize("line", ["{", "[1, 2]", '"text"'])
def test_what_is_not_an_object_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(EvalSetError, match="line 2: "):
        list(read_cases(write(tmp_path, CASE, line)))


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="there are no cases in it"):
        list(read_cases(write(tmp_path, "", "  ")))


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="can't be opened"):
        list(read_cases(tmp_path / "nothing.jsonl"))
    (tmp_path / "cut.jsonl.xz").write_bytes(lzma.compress(json.dumps(CASE).encode() * 500)[:-40])
    with pytest.raises(EvalSetError, match="damaged"):
        list(read_cases(tmp_path / "cut.jsonl.xz"))
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(EvalSetError, match="line 1: not UTF-8"):
        list(read_cases(tmp_path / "latin.jsonl"))


def test_scanning_goes_on_after_an_error(tmp_path: Path) -> None:
    found = list(scan(write(tmp_path, "{", CASE, {"id": 3})))
    assert [type(item) for item in found] == [Problem, EvalCase, Problem]
    assert str(found[2]) == "line 3, field 'id': Input should be a valid string (it is 3)"


def test_a_limit_stops_early_and_fields_nothing_reads_are_pointed_at(tmp_path: Path) -> None:
    file = write(tmp_path, CASE | {"anwsers": ["x"]}, "{")
    assert [case.id for case in read_cases(file, limit=1)] == ["a/1"]
    assert [(problem.line, problem.field) for problem in unknown_fields(file)] == [(1, "anwsers")]


def test_a_pair_brings_its_passage_as_a_document(tmp_path: Path) -> None:
    (case,) = read_cases(write(tmp_path, PAIR))
    assert case.passage is not None
    assert case.passage.text == "Het kost tien euro.\nNiet meer."
    assert case.passage.id.startswith("web/page#")
    assert case.relevant == (Relevant(case.passage.id, 0, 19, "Het kost tien euro."),)
    assert (case.answers, case.answer) == (("ten euros",), "It costs ten euros.")
    assert case.tags["crosslingual"] is True
    assert case.cluster == case.passage.id


def test_a_pair_that_is_not_answerable_has_nothing_relevant() -> None:
    case = from_pair(PAIR | {"answerable": False, "short": "", "answer": "", "evidence": ""})
    assert (case.answers, case.answer, case.relevant) == ((), None, ())
    assert case.asked_about == (case.passage and case.passage.id)


def test_one_passage_is_one_document_whatever_is_asked_about_it() -> None:
    one, other = from_pair(PAIR), from_pair(PAIR | {"id": "t2", "evidence": "elsewhere"})
    assert one.passage == other.passage
    assert other.relevant[0].start is None
