"""Evaluation sets: one case a line, read as a stream, each error with its line and field.

A set is JSONL, plain or compressed (.xz, .gz). Two forms are told apart by their fields: the set's own form
(see `docs/evaluation.md`), and question-answer pairs that carry their passage with them (`from_pair`).
"""

import gzip
import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from corpus.document import Document, Language
from corpus.errors import EvalSetError
from corpus.normalising import normalise

TagValue = str | bool | int | float

_PAIR_FIELDS = frozenset({"passage", "question", "short", "evidence"})
_MAX_LINE_CHARS = 20_000_000


@dataclass(frozen=True, slots=True)
class Relevant:
    """A document that answers the question, and where in it if that is known.

    `start` and `end` are code points in the document's text, both or neither; `quote` is what stands there.
    """

    document: str
    start: int | None = None
    end: int | None = None
    quote: str | None = None


@dataclass(frozen=True, slots=True)
class EvalCase:
    """One question with what a right answer is.

    `answers` are short answers, each of them right; `answer` is a full sentence. An empty `relevant` says
    nothing on retrieval. `passage` is the document that came with the case itself (pairs only), and `line`
    counts from 1 in the set's file.
    """

    id: str
    question: str
    language: Language
    answerable: bool
    answers: tuple[str, ...] = ()
    answer: str | None = None
    relevant: tuple[Relevant, ...] = ()
    tags: Mapping[str, TagValue] = field(default_factory=dict)
    line: int = 0
    passage: Document | None = None

    @property
    def documents(self) -> tuple[str, ...]:
        """The relevant documents' ids, each once, in their order."""
        return tuple(dict.fromkeys(relevant.document for relevant in self.relevant))

    @property
    def asked_about(self) -> str | None:
        """The document that the question was written on, whether or not it answers it."""
        if self.relevant:
            return self.relevant[0].document
        tag = self.tags.get("document")
        return tag if isinstance(tag, str) else None

    @property
    def cluster(self) -> str:
        """What is drawn together in a bootstrap: cases on one document are not independent."""
        return self.asked_about or f"case:{self.id}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in a set; `line` counts from 1 (0: the whole file), `field` is like `relevant[0].end`."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line else []
        where += [f"field {self.field!r}"] if self.field else []
        return ": ".join(filter(None, (", ".join(where), self.message)))


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class _RelevantLine(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    document: _Text
    start: Annotated[int, Field(ge=0)] | None = None
    end: Annotated[int, Field(ge=1)] | None = None
    quote: str | None = None

    @model_validator(mode="after")
    def _both_offsets(self) -> "_RelevantLine":
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end come together; give both or leave both out")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(
                f"start {self.start} must be below end {self.end}; end is the first offset after"
            )
        return self


class _CaseLine(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    id: _Text
    question: _Text
    language: _LanguageCode
    answerable: bool
    answers: list[_Text] = Field(default_factory=list)
    answer: str | None = None
    relevant: list[_RelevantLine] = Field(default_factory=list)
    tags: dict[str, TagValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _unanswerable_has_no_answer(self) -> "_CaseLine":
        if not self.answerable and (self.answers or self.answer):
            raise ValueError("answerable is false, and yet there is an answer; drop one")
        return self


class _PairLine(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    id: _Text
    question: _Text
    language: _LanguageCode
    answerable: bool
    passage: _Text
    passage_language: _LanguageCode = "und"
    document: str = ""
    source: str = ""
    title: str = ""
    short: str = ""
    answer: str | None = None
    evidence: str = ""


KNOWN_FIELDS = frozenset(_CaseLine.model_fields) | frozenset(_PairLine.model_fields)
"""What a line may hold; anything else is passed over when a set is run, and pointed at when it is checked."""


def read_cases(file: Path, limit: int | None = None) -> Iterator[EvalCase]:
    """The cases of a set, one at a time. Raises EvalSetError at the first line that is wrong.

    Ids are kept to find duplicates; nothing else is.
    """
    count = 0
    for found in scan(file):
        if isinstance(found, Problem):
            raise EvalSetError(f"{file.name}: {found}")
        yield found
        count += 1
        if count == limit:
            return
    if not count:
        raise EvalSetError(f"{file.name}: there are no cases in it; a set has one JSON object a line")


def scan(file: Path) -> Iterator[EvalCase | Problem]:
    """Every line as a case or as what is wrong with it, so that all errors can be shown at once."""
    seen: dict[str, int] = {}
    for number, line in _lines(file):
        if not line.strip():
            continue
        found = _parse(line, number)
        if isinstance(found, Problem):
            yield found
        elif found.id in seen:
            yield Problem(
                number,
                "id",
                f"{found.id!r} was there already, on line {seen[found.id]}; ids are unique",
            )
        else:
            seen[found.id] = number
            yield found


def unknown_fields(file: Path) -> Iterator[Problem]:
    """Fields that nothing reads: a typo more often than not."""
    for number, line in _lines(file):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            for name in sorted(record.keys() - KNOWN_FIELDS):
                yield Problem(
                    number,
                    name,
                    "nothing reads this field; what describes a case belongs in tags",
                )


def set_sha256(file: Path) -> str:
    """Of the set's bytes, unpacked, so that compressing it doesn't change it."""
    digest = hashlib.sha256()
    with _opened(file) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def from_pair(record: Mapping[str, Any], line: int = 0) -> EvalCase:
    """A case out of a question-answer pair that carries its passage.

    The passage becomes a document of its own; `evidence` is the quote in it, with its offsets where it stands
    there to the letter. Raises pydantic's ValidationError.
    """
    pair = _PairLine.model_validate(dict(record))
    text = normalise(pair.passage)
    passage = Document(
        id=f"{pair.document or 'pair'}#{hashlib.sha256(text.encode()).hexdigest()[:12]}",
        title=pair.title,
        language=pair.passage_language,
        text=text,
        source=pair.source or pair.document,
        sha256=hashlib.sha256(f"{pair.title}\n{text}".encode()).hexdigest(),
    )
    tags: dict[str, TagValue] = {
        "document": passage.id,
        "source": pair.source or "pairs",
    }
    if pair.passage_language != "und":
        tags["crosslingual"] = pair.passage_language != pair.language
    return EvalCase(
        id=pair.id,
        question=pair.question,
        language=pair.language,
        answerable=pair.answerable,
        answers=(pair.short,) if pair.short else (),
        answer=pair.answer or None,
        relevant=(_evidence(passage, normalise(pair.evidence)),) if pair.answerable else (),
        tags=tags,
        line=line,
        passage=passage,
    )


def _evidence(passage: Document, evidence: str) -> Relevant:
    start = passage.text.find(evidence) if evidence else -1
    if start < 0:
        return Relevant(passage.id, quote=evidence or None)
    return Relevant(passage.id, start, start + len(evidence), evidence)


def is_pair(record: Mapping[str, Any]) -> bool:
    """Whether a record has a pair's fields rather than a case's."""
    return record.keys() >= _PAIR_FIELDS


def _parse(line: str, number: int) -> EvalCase | Problem:
    try:
        record = json.loads(line)
    except ValueError as error:
        return Problem(number, "", f"this isn't JSON ({error}); a set has one JSON object a line")
    if not isinstance(record, dict):
        return Problem(
            number,
            "",
            f"a case is a JSON object, and this is a {type(record).__name__}",
        )
    try:
        return from_pair(record, number) if is_pair(record) else _from_record(record, number)
    except ValidationError as error:
        return _problem_of(error, number)


def _from_record(record: Mapping[str, Any], number: int) -> EvalCase:
    case = _CaseLine.model_validate(record)
    return EvalCase(
        id=case.id,
        question=case.question,
        language=case.language,
        answerable=case.answerable,
        answers=tuple(case.answers),
        answer=(case.answer or "").strip() or None,
        relevant=tuple(Relevant(item.document, item.start, item.end, item.quote) for item in case.relevant),
        tags=case.tags,
        line=number,
    )


def _problem_of(error: ValidationError, number: int) -> Problem:
    first = error.errors(include_url=False)[0]
    path = ""
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in ("str", "bool", "int", "float"):
            path += f".{part}" if path else str(part)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "it is missing; every case has it"
    else:
        shown = repr(first["input"])
        message = f"{message} (it is {shown if len(shown) <= 80 else shown[:77] + '…'})"
    return Problem(number, path, message)


def _opened(file: Path) -> IO[bytes]:
    try:
        if file.suffix == ".xz":
            return cast(IO[bytes], lzma.open(file, "rb"))
        if file.suffix == ".gz":
            return cast(IO[bytes], gzip.open(file, "rb"))
        return file.open("rb")
    except OSError as error:
        raise EvalSetError(
            f"{file}: the set can't be opened ({error.strerror or error}); check its path"
        ) from error


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    with _opened(file) as stream:
        number = 0
        while True:
            number += 1
            try:
                line = stream.readline(_MAX_LINE_CHARS)
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise EvalSetError(
                    f"{file.name}: line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
                ) from error
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise EvalSetError(f"{file.name}: line {number}: the file is damaged ({error})") from error
            if not line:
                return
            yield number, text
