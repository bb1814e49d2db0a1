"""`Answerer`: a question in, a cited answer or an abstention out.

::

    question ─check─▶ search ─▶ Passage… ─▶ Reader ─▶ Reading ─▶ cite ─▶ decide ─▶ Answer

It abstains where there is nothing to read, where the reader does, where nothing that it wrote rests on a
passage, and where the calibrated confidence is below the reader's threshold.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from corpus import detect_language
from corpus.document import DUTCH, ENGLISH, Document, Language
from corpus.errors import DocumentNotFoundError, InputError, QuestionError
from index.embedder import Embedder, Vectors
from index.hits import Filters, Hit, SearchMode
from rag.answers import Answer, Passage, Style
from rag.calibration import Calibration
from rag.citations import CitedText, cite
from rag.reading import Reader, Reading, ReadingListener, ReadRequest
from rag.support import Similarity

ABSTENTIONS: Mapping[Language, str] = {
    DUTCH: "Dat staat niet in de documenten.",
    ENGLISH: "The documents do not say.",
}
"""What an answer says where it abstains, by language."""
LANGUAGES = tuple(ABSTENTIONS)
_SPARE_HITS = 4
"""Searched for beyond those asked for, since some may be the same text."""


class SearchableCollection(Protocol):
    """The part of `index.Collection` that answering needs; tests pass a ten-line fake."""

    def search_batch(
        self,
        questions: Sequence[str],
        top_k: int = 10,
        mode: SearchMode = SearchMode.FUSED,
        filters: Filters | None = None,
        vectors: Vectors | None = None,
    ) -> list[list[Hit]]:
        """One list of hits a question, best first."""
        ...

    def document(self, document_id: str) -> Document:
        """Raises DocumentNotFoundError."""
        ...


@runtime_checkable
class CalibratedReader(Protocol):
    """A reader that brings its own calibration (None for a base model)."""

    @property
    def calibration(self) -> Calibration | None: ...


@dataclass(frozen=True, slots=True)
class AnswererConfig:
    """`top_k` passages are offered to the reader, as far as its prompt holds them."""

    top_k: int = 5
    max_question_chars: int = 2000


@dataclass(frozen=True, slots=True)
class _Case:
    """A question that was checked, with what was found for it."""

    question: str
    language: Language
    style: Style
    passages: tuple[Passage, ...]
    documents: Mapping[str, Document]

    def request(self) -> ReadRequest:
        return ReadRequest(self.question, self.language, self.passages, self.style)


class Answerer:
    """Answers from one collection. Safe to use from several threads where reader and collection are."""

    def __init__(
        self,
        collection: SearchableCollection,
        reader: Reader,
        embedder: Embedder,
        config: AnswererConfig | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """`embedder` is the collection's own. `calibration` stands in for the one that the reader brings."""
        self._collection = collection
        self._reader = reader
        self._embedder = embedder
        self._config = config or AnswererConfig()
        brought = reader.calibration if isinstance(reader, CalibratedReader) else None
        self._calibration = calibration or brought

    def ask(
        self,
        question: str,
        *,
        style: Style = Style.FULL,
        language: Language | None = None,
        filters: Filters | None = None,
        top_k: int | None = None,
        mode: SearchMode = SearchMode.FUSED,
        listener: ReadingListener | None = None,
    ) -> Answer:
        """Searches, reads and cites. `language` is the answer's; by default it is the question's.

        `listener` follows what the reader writes; the answer may still turn out to be an abstention.

        Raises QuestionError for a question that is empty, too long or not text, and InputError for another
        argument that can't be.
        """
        clock = _Clock()
        asked = self._checked(question, language)
        found = self._search([asked], top_k, mode, filters, clock)
        case = self._case(asked, language, style, self._existing(found[0]), top_k)
        return self._finish(case, self._read(case, listener, clock), clock)

    def ask_batch(
        self,
        questions: Sequence[str],
        *,
        style: Style = Style.FULL,
        language: Language | None = None,
        filters: Filters | None = None,
        top_k: int | None = None,
        mode: SearchMode = SearchMode.FUSED,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """`ask` for many questions, in their order; one wrong question raises and nothing is answered.

        `on_done` is told how many have been read. The timings of an answer are its share of the batch's.
        """
        clock = _Clock(shared_by=len(questions))
        asked = [self._checked(question, language) for question in questions]
        found = self._search(asked, top_k, mode, filters, clock)
        cases = [
            self._case(question, language, style, self._existing(hits), top_k)
            for question, hits in zip(asked, found, strict=True)
        ]
        return self._answer_cases(cases, clock, on_done)

    def answer_from(
        self,
        question: str,
        hits: Sequence[Hit],
        *,
        style: Style = Style.FULL,
        language: Language | None = None,
    ) -> Answer:
        """Answers from these hits alone, in this order.

        Raises DocumentNotFoundError for a hit whose document is gone, besides what `ask` raises.
        """
        return self.answer_from_batch([question], [hits], style=style, language=language)[0]

    def answer_from_batch(
        self,
        questions: Sequence[str],
        hits: Sequence[Sequence[Hit]],
        *,
        style: Style = Style.FULL,
        language: Language | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """`answer_from` for many questions, each with its hits."""
        clock = _Clock(shared_by=len(questions))
        cases = [
            self._case(
                self._checked(question, language),
                language,
                style,
                [(hit, self._collection.document(hit.chunk.document_id)) for hit in offered],
                len(offered) or None,
            )
            for question, offered in zip(questions, hits, strict=True)
        ]
        return self._answer_cases(cases, clock, on_done)

    def _checked(self, question: str, language: Language | None) -> str:
        """The question without spaces around it; raises where it can't be answered as it is."""
        if language is not None and language not in LANGUAGES:
            raise InputError(f"can't answer in {language!r}; languages are {', '.join(LANGUAGES)}")
        limit = self._config.max_question_chars
        if len(question) > limit:
            raise QuestionError(
                f"the question has {len(question):,} characters; at most {limit:,} are allowed"
            )
        if not question.strip():
            raise QuestionError("the question is empty; ask something")
        bad = next((char for char in question if char == "\0" or "\ud800" <= char <= "\udfff"), None)
        if bad is not None:
            raise QuestionError(
                f"the question isn't text: it has the character U+{ord(bad):04X} at {question.index(bad)}"
            )
        return question.strip()

    def _search(
        self,
        questions: Sequence[str],
        top_k: int | None,
        mode: SearchMode,
        filters: Filters | None,
        clock: "_Clock",
    ) -> list[list[Hit]]:
        wanted = self._config.top_k if top_k is None else top_k
        if wanted < 1:
            raise InputError(f"top_k is {wanted}; it must be at least 1")
        if not questions:
            return []
        vectors = None
        if mode is not SearchMode.LEXICAL:
            vectors = self._embedder.embed_queries(questions)
            clock.lap("embed_s")
        found = self._collection.search_batch(questions, wanted + _SPARE_HITS, mode, filters, vectors)
        clock.lap("search_s")
        return found

    def _existing(self, hits: Sequence[Hit]) -> list[tuple[Hit, Document]]:
        """The hits whose documents are still there; another process may have deleted one since the search."""
        existing = []
        for hit in hits:
            try:
                existing.append((hit, self._collection.document(hit.chunk.document_id)))
            except DocumentNotFoundError:
                continue
        return existing

    def _case(
        self,
        question: str,
        language: Language | None,
        style: Style,
        found: Sequence[tuple[Hit, Document]],
        top_k: int | None,
    ) -> _Case:
        different = _different_texts(found)[: top_k or self._config.top_k]
        passages = tuple(
            Passage(number, hit, document.title, document.source, document.language)
            for number, (hit, document) in enumerate(different, start=1)
        )
        nearest = passages[0].language if passages and passages[0].language in LANGUAGES else ENGLISH
        return _Case(
            question=question,
            language=language or detect_language(question, among=LANGUAGES, fallback=nearest),
            style=style,
            passages=passages,
            documents={document.id: document for _, document in different},
        )

    def _read(self, case: _Case, listener: ReadingListener | None, clock: "_Clock") -> Reading:
        reading = self._reader.read(case.request(), listener) if case.passages else _NOTHING_TO_READ
        clock.lap("read_s")
        return reading

    def _answer_cases(
        self, cases: Sequence[_Case], clock: "_Clock", on_done: Callable[[int], None] | None
    ) -> list[Answer]:
        clock.lap("search_s")
        readable = [case.request() for case in cases if case.passages]
        readings = iter(self._reader.read_batch(readable, on_done) if readable else ())
        clock.lap("read_s")
        ordered = [next(readings) if case.passages else _NOTHING_TO_READ for case in cases]
        return [
            self._finish(case, reading, clock.copy()) for case, reading in zip(cases, ordered, strict=True)
        ]

    def _finish(self, case: _Case, reading: Reading, clock: "_Clock") -> Answer:
        """The citation step and the decision whether to answer."""
        cited = cite(
            reading.claims,
            reading.passages,
            case.documents,
            question=case.question,
            similarity=similarity_of(self._embedder),
        )
        confidence = self._confidence(reading)
        abstained = not cited.citations or self._is_below_threshold(confidence)
        if abstained:
            cited = CitedText(ABSTENTIONS[case.language], (), ())
        clock.lap("cite_s")
        return Answer(
            question=case.question,
            language=case.language,
            text=cited.text,
            sentences=cited.sentences,
            citations=cited.citations,
            passages=reading.passages,
            abstained=abstained,
            confidence=confidence,
            timings=clock.timings(),
        )

    def _confidence(self, reading: Reading) -> float:
        """The probability that an answer from these passages is (or would have been) right.

        Calibrated where the reader brings a calibration. Else it is only the reader's own: its probability of
        not abstaining times the mean probability of what it wrote; it orders answers and promises nothing.
        """
        if not reading.passages:
            return 0.0
        wrote = reading.answer_probability if reading.claims else 1.0
        raw = (1.0 - reading.abstain_probability) * wrote
        return self._calibration.probability(raw) if self._calibration else raw

    def _is_below_threshold(self, confidence: float) -> bool:
        return self._calibration is not None and confidence < self._calibration.threshold


_NOTHING_TO_READ = Reading(
    claims=(), passages=(), abstain_probability=1.0, answer_probability=1.0, prompt_tokens=0, new_tokens=0
)


class _Clock:
    """Seconds by stage, each divided by how many questions shared it."""

    def __init__(self, shared_by: int = 1) -> None:
        self._shared_by = max(1, shared_by)
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Books the time since the last lap under a stage."""
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + (now - self._last) / self._shared_by
        self._last = now

    def copy(self) -> "_Clock":
        """A clock of one question's own, that goes on from here with its share of what went before."""
        clock = _Clock()
        clock._seconds = dict(self._seconds)
        return clock

    def timings(self) -> dict[str, float]:
        """The stages with their total."""
        return {**self._seconds, "total_s": sum(self._seconds.values())}


def _different_texts(found: Sequence[tuple[Hit, Document]]) -> list[tuple[Hit, Document]]:
    """Without hits whose text an earlier one has already."""
    different: list[tuple[Hit, Document]] = []
    seen: list[str] = []
    for hit, document in found:
        text = " ".join(hit.chunk.text.casefold().split())
        if text and not any(text in other for other in seen):
            seen.append(text)
            different.append((hit, document))
    return different


def similarity_of(embedder: Embedder) -> Similarity:
    """Cosines by the embedder. Sentences are compared as like with like, so all carry the query prefix."""

    def cosines(text: str, others: Sequence[str]) -> list[float]:
        vectors = embedder.embed_queries([text, *others])
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]

    return cosines
