"""A system for evaluation tests: three documents, words instead of vectors, and answers by rule."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corpus.chunking import ChunkingConfig
from corpus.document import Chunk, Document
from corpus.errors import DocumentNotFoundError, QuestionError
from eval.systems import CollectionInfo, Searched, SystemInfo, Usage
from index.embedder import EmbedderSpec
from index.hits import Filters, Hit, SearchMode
from rag.answers import Answer, AnswerSentence, Citation, Passage, Style

DELFT = "Delft ligt in Zuid-Holland. De prins woonde er in 1572. Het stadhuis is van 1620."
GRONINGEN = "Groningen krijgt een fabriek voor AI. Die kost 200 miljoen euro. De bouw begint in 2026."
SQUAD = "Packet switching was named by Davies. It came from the post office. Others called it something else."
TEXTS = {"nl/delft": DELFT, "nl/groningen": GRONINGEN, "en/packets": SQUAD}


def document_of(name: str, text: str) -> Document:
    return Document(id=name, title=name, language=name[:2], text=text, source=f"{name}.txt", sha256=name)


def chunks_of(document: Document) -> list[Chunk]:
    """One chunk a sentence."""
    found = re.finditer(r"[^.]+\.", document.text)
    return [
        Chunk(f"{document.id}:{n}", document.id, n, match.start(), match.end(), match.group())
        for n, match in enumerate(found)
    ]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


@dataclass
class FakeSystem:
    """Finds by shared words, and answers with the last word of the best passage's sentence.

    A question with "crash" in it raises. One without a word of more than three letters in common with the
    passages is abstained from.
    """

    texts: Mapping[str, str] = field(default_factory=lambda: dict(TEXTS))
    asked: list[int] = field(default_factory=list)
    bad: str = "crash"

    @property
    def info(self) -> SystemInfo:
        spec = EmbedderSpec("fake", "0" * 64, 8, 512, "", "", "mean")
        count = sum(len(self.chunks(name)) for name in self.texts)
        collection = CollectionInfo(
            "fake", len(self.texts), count, 0, {"nl": 2, "en": 1}, ChunkingConfig(), "1" * 64
        )
        return SystemInfo(spec, collection, "rule")

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=100, new_tokens=20, read_s=4.0)

    def document(self, document_id: str) -> Document:
        if document_id not in self.texts:
            raise DocumentNotFoundError(f"there is no document {document_id!r}")
        return document_of(document_id, self.texts[document_id])

    def chunks(self, document_id: str) -> Sequence[Chunk]:
        return chunks_of(self.document(document_id))

    def search(
        self,
        questions: Sequence[str],
        modes: Sequence[SearchMode],
        top_k: int,
        filters: Filters | None = None,
    ) -> Searched:
        wanted = filters or Filters()
        names = [name for name in self.texts if not wanted.documents or name in wanted.documents]
        names = [name for name in names if not wanted.languages or name[:2] in wanted.languages]
        every = [chunk for name in names for chunk in self.chunks(name)]
        hits = {}
        for mode in modes:
            # The lexical side finds the same from the wrong end, so that modes can be told apart.
            sign = -1 if mode is SearchMode.LEXICAL else 1
            hits[mode] = [
                [
                    Hit(chunk, float(len(words(chunk.text) & words(question))))
                    for chunk in sorted(
                        every, key=lambda chunk: -sign * len(words(chunk.text) & words(question))
                    )
                ][:top_k]
                for question in self._checked(questions)
            ]
        return Searched(hits, {"embed_s": 0.001 * len(questions)})

    def answer(
        self, questions: Sequence[str], style: Style, mode: SearchMode, filters: Filters | None = None
    ) -> Sequence[Answer]:
        hits = self.search(questions, [mode], 3, filters).hits[mode]
        return self.answer_from(questions, hits, style)

    def answer_from(
        self, questions: Sequence[str], hits: Sequence[Sequence[Hit]], style: Style
    ) -> Sequence[Answer]:
        self.asked.append(len(questions))
        return [
            answer_of(question, offered, style)
            for question, offered in zip(self._checked(questions), hits, strict=True)
        ]

    def _checked(self, questions: Sequence[str]) -> Sequence[str]:
        for question in questions:
            if self.bad in question:
                raise QuestionError(f"{question!r} can't be asked")
        return questions


def answer_of(question: str, hits: Sequence[Hit], style: Style) -> Answer:
    passages = tuple(
        Passage(number, hit, hit.chunk.document_id, "", "nl") for number, hit in enumerate(hits, 1)
    )
    best = max(
        passages, key=lambda passage: len(words(passage.hit.chunk.text) & words(question)), default=None
    )
    shared = (
        {word for word in words(best.hit.chunk.text) & words(question) if len(word) > 3} if best else set()
    )
    timings = {"read_s": 0.01, "total_s": 0.02}
    if best is None or not shared:
        return Answer(question, "nl", "Dat staat er niet.", (), (), passages, True, 0.1, timings)
    chunk = best.hit.chunk
    text = chunk.text.strip() if style is Style.FULL else chunk.text.strip(" .").split()[-1]
    quote = chunk.text.strip()
    start = chunk.start + chunk.text.index(quote)
    citation = Citation(
        best.number, chunk.id, chunk.document_id, "", "", quote, start, start + len(quote), None, 0, len(text)
    )
    sentence = AnswerSentence(0, len(text), 0.9, True)
    confidence = min(0.99, 0.3 + 0.2 * len(shared))
    return Answer(question, "nl", text, (sentence,), (citation,), passages, False, confidence, timings)


def span(document: str, quote: str) -> dict[str, object]:
    start = TEXTS[document].index(quote)
    return {"document": document, "start": start, "end": start + len(quote)}


CASES: list[dict[str, object]] = [
    {
        "id": "delft",
        "question": "In welk jaar woonde de prins er?",
        "language": "nl",
        "answerable": True,
        "answers": ["1572"],
        "answer": "De prins woonde er in 1572.",
        "relevant": [span("nl/delft", "1572")],
        "tags": {"set": "a"},
    },
    {
        "id": "kosten",
        "question": "Hoeveel euro kost die?",
        "language": "nl",
        "answerable": True,
        "answers": ["200 miljoen euro"],
        "relevant": [span("nl/groningen", "200 miljoen euro")],
        "tags": {"set": "b"},
    },
    {
        "id": "named",
        "question": "Who named packet switching?",
        "language": "en",
        "answerable": True,
        "answers": ["Davies"],
        "relevant": [span("en/packets", "Davies")],
        "tags": {"set": "a"},
    },
    {
        "id": "moon",
        "question": "Wie?",
        "language": "nl",
        "answerable": False,
        "relevant": [],
        "tags": {"set": "b", "document": "nl/delft"},
    },
    {
        "id": "trap",
        "question": "Waar komt de bouw van het tweede stadhuis?",
        "language": "nl",
        "answerable": False,
        "relevant": [],
        "tags": {"set": "b", "document": "nl/delft"},
    },
]
