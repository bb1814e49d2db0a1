"""What a run writes of each case: a line of `cases.jsonl` has all that is needed to look at it again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from corpus.errors import EvaluationError, StorageError
from eval.cases import EvalCase, TagValue
from eval.gold import Gold
from eval.scoring import Retrieved, is_gold
from index.hits import Hit
from rag.answers import Answer

KEPT_HITS = 10
KEPT_TEXTS = 3
"""Passages whose text is kept where only retrieval is measured."""


@dataclass(frozen=True, slots=True)
class GoldRecord:
    """A relevant place; offsets are None where the set doesn't say."""

    document: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class HitRecord:
    """A chunk that one search mode found."""

    document: str
    chunk: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class PassageRecord:
    """A passage as it was shown to the reader, or as it was found first."""

    number: int
    document: str
    start: int
    end: int
    heading: str
    text: str
    gold: bool


@dataclass(frozen=True, slots=True)
class CitationRecord:
    """A citation with both its spans."""

    number: int
    document: str
    quote: str
    source_start: int
    source_end: int
    answer_start: int
    answer_end: int
    gold: bool


@dataclass(frozen=True, slots=True)
class SentenceRecord:
    """A sentence of the answer."""

    start: int
    end: int
    support: float
    supported: bool


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """What the service answered."""

    text: str
    language: str
    abstained: bool
    confidence: float
    sentences: tuple[SentenceRecord, ...]
    citations: tuple[CitationRecord, ...]


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One case with all that happened to it.

    `found` has the first hits by mode and `ranks` the ranks of all relevant documents among those found.
    `error` says why it crashed. `timings` are seconds; a batch's are shared out evenly.
    """

    id: str
    question: str
    language: str
    answerable: bool
    answers: tuple[str, ...]
    reference: str | None
    relevant: tuple[GoldRecord, ...]
    tags: Mapping[str, TagValue]
    cluster: str
    crosslingual: bool | None
    metrics: Mapping[str, float | None]
    found: Mapping[str, tuple[HitRecord, ...]] = field(default_factory=dict)
    ranks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    passages: tuple[PassageRecord, ...] = ()
    prediction: AnswerRecord | None = None
    error: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)


def gold_records(case: EvalCase, gold: Gold) -> tuple[GoldRecord, ...]:
    """The relevant places as they were found in the documents."""
    placed = tuple(GoldRecord(*span) for span in gold.spans)
    return placed + tuple(GoldRecord(name) for name in case.documents if name in gold.unplaced)


def hit_records(found: Retrieved) -> tuple[HitRecord, ...]:
    """The first hits, without their text."""
    return tuple(
        HitRecord(hit.chunk.document_id, hit.chunk.id, hit.chunk.start, hit.chunk.end, round(hit.score, 6))
        for hit in found.hits[:KEPT_HITS]
    )


def passage_records(hits: Sequence[Hit], gold: Gold) -> tuple[PassageRecord, ...]:
    """Hits in their order as numbered passages."""
    return tuple(
        PassageRecord(
            number=number,
            document=hit.chunk.document_id,
            start=hit.chunk.start,
            end=hit.chunk.end,
            heading=hit.chunk.heading,
            text=hit.chunk.text,
            gold=gold.holds(hit.chunk),
        )
        for number, hit in enumerate(hits, 1)
    )


def answer_record(answer: Answer, gold: Gold) -> AnswerRecord:
    """An answer without what a record has elsewhere."""
    return AnswerRecord(
        text=answer.text,
        language=answer.language,
        abstained=answer.abstained,
        confidence=round(answer.confidence, 6),
        sentences=tuple(
            SentenceRecord(item.start, item.end, round(item.support, 6), item.supported)
            for item in answer.sentences
        ),
        citations=tuple(
            CitationRecord(
                number=item.number,
                document=item.document_id,
                quote=item.quote,
                source_start=item.source_start,
                source_end=item.source_end,
                answer_start=item.answer_start,
                answer_end=item.answer_end,
                gold=is_gold(item, answer, gold),
            )
            for item in answer.citations
        ),
    )


@cache
def _adapter() -> TypeAdapter[CaseRecord]:
    return TypeAdapter(CaseRecord)


def to_line(record: CaseRecord) -> str:
    """One line of JSON, without its end."""
    return json.dumps(_adapter().dump_python(record, mode="json"), ensure_ascii=False)


def read_records(file: Path) -> Iterator[CaseRecord]:
    """The cases of a run, one at a time; raises EvaluationError where a line isn't one."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield _adapter().validate_json(line)
                except ValidationError as error:
                    message = f"{file.name}: line {number} isn't a case of a run ({error.errors()[0]['msg']})"
                    raise EvaluationError(message) from error
    except OSError as error:
        raise EvaluationError(
            f"{file} can't be read ({error.strerror or error}); name a run's folder"
        ) from error


def drop_torn_line(file: Path) -> None:
    """Cuts off a last line that was being written when the process was killed; raises StorageError."""
    if not file.exists():
        return
    try:
        with file.open("r+b") as stream:
            content_end = stream.seek(0, 2)
            while content_end:
                block = min(content_end, 1 << 16)
                stream.seek(content_end - block)
                newline = stream.read(block).rfind(b"\n")
                if newline >= 0:
                    stream.truncate(content_end - block + newline + 1)
                    return
                content_end -= block
            stream.truncate(0)
    except OSError as error:
        raise StorageError(f"{file} can't be mended ({error.strerror or error})") from error
