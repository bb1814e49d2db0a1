"""What an answer consists of. Offsets are code points, half-open."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from corpus.document import Language
from index.hits import Hit


class Style(StrEnum):
    """A span, or a sentence or two."""

    SHORT = "short"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit as it is shown to the reader: `number` counts from 1 and is what a citation marker names."""

    number: int
    hit: Hit
    title: str
    source: str
    language: Language


@dataclass(frozen=True, slots=True)
class Citation:
    """Both ends of a claim: where the answer makes it, and the words of the document that carry it.

    `quote == document.text[source_start:source_end]`, always. `answer_start:answer_end` is the part of
    `Answer.text` that it supports. `page` counts from 1 and is None for a document without pages.
    """

    number: int
    chunk_id: str
    document_id: str
    title: str
    source: str
    quote: str
    source_start: int
    source_end: int
    page: int | None
    answer_start: int
    answer_end: int


@dataclass(frozen=True, slots=True)
class AnswerSentence:
    """A sentence of the answer; `support` in 0–1 is how well what it cites carries it."""

    start: int
    end: int
    support: float
    supported: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer with all that is needed to check it.

    `text` carries no markers: `citations` say which part rests on what. `confidence` in 0–1 is the estimated
    probability that the answer is right; where `abstained`, that an answer from these passages would have
    been. `timings` are seconds by stage: "embed_s", "search_s", "read_s", "cite_s", "total_s".
    """

    question: str
    language: Language
    text: str
    sentences: tuple[AnswerSentence, ...]
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    abstained: bool
    confidence: float
    timings: Mapping[str, float]
