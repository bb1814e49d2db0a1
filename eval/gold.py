"""What a case calls relevant, found in the documents as they are stored."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from corpus.document import Chunk, Document, Language
from corpus.errors import DocumentNotFoundError
from corpus.normalising import normalise
from eval.cases import EvalCase, Problem, Relevant
from eval.metrics import Span, overlaps

_CACHED_DOCUMENTS = 512


@dataclass(frozen=True, slots=True)
class Gold:
    """Where the right answer to a case stands.

    `spans` are those relevant places whose offsets are known; `chunk_ids` are the chunks that overlap one;
    `unplaced` are the relevant documents with a place that isn't known, each of whose passages counts.
    """

    documents: tuple[str, ...]
    spans: tuple[Span, ...]
    chunk_ids: frozenset[str]
    unplaced: frozenset[str]
    languages: frozenset[Language]

    def holds(self, chunk: Chunk) -> bool:
        """Whether a passage is a gold one."""
        return chunk.document_id in self.unplaced or any(
            overlaps(span_of(chunk), span) for span in self.spans
        )


def span_of(chunk: Chunk) -> Span:
    """A chunk's place in its document."""
    return chunk.document_id, chunk.start, chunk.end


class GoldFinder:
    """Looks relevant places up in a collection; keeps the last documents it saw."""

    def __init__(self, document: Callable[[str], Document], chunks: Callable[[str], Sequence[Chunk]]) -> None:
        self._document = lru_cache(_CACHED_DOCUMENTS)(document)
        self._chunks = lru_cache(_CACHED_DOCUMENTS)(chunks)

    def find(self, case: EvalCase) -> Gold:
        """Raises DocumentNotFoundError for a relevant document that isn't there."""
        documents = {name: self._document(name) for name in case.documents} if case.answerable else {}
        places = [
            (item.document, place(item, documents[item.document])) for item in case.relevant if documents
        ]
        spans = tuple(dict.fromkeys((name, *found) for name, found in places if found))
        return Gold(
            documents=tuple(documents),
            spans=spans,
            chunk_ids=frozenset(
                chunk.id
                for name in dict.fromkeys(span[0] for span in spans)
                for chunk in self._chunks(name)
                if any(overlaps(span_of(chunk), span) for span in spans)
            ),
            unplaced=frozenset(name for name, found in places if not found),
            languages=frozenset(document.language for document in documents.values()),
        )

    def chunks(self, document_id: str) -> Sequence[Chunk]:
        """A document's chunks; raises DocumentNotFoundError."""
        return self._chunks(document_id)

    def is_crosslingual(self, case: EvalCase, gold: Gold) -> bool | None:
        """Whether question and documents are in different languages; None where that can't be told."""
        tagged = case.tags.get("crosslingual")
        if isinstance(tagged, bool):
            return tagged
        languages = gold.languages
        if not languages and case.asked_about is not None:
            try:
                languages = frozenset({self._document(case.asked_about).language})
            except DocumentNotFoundError:
                return None
        known = languages - {"und"}
        return case.language not in known if known else None

    def problems(self, case: EvalCase) -> list[Problem]:
        """What a case says of documents that doesn't hold in this collection."""
        found = []
        for number, relevant in enumerate(case.relevant):
            field = f"relevant[{number}]"
            try:
                document = self._document(relevant.document)
            except DocumentNotFoundError:
                message = (
                    f"there is no document {relevant.document!r} in the collection; ingest it or mend the id"
                )
                found.append(Problem(case.line, f"{field}.document", message))
                continue
            if relevant.end is not None and relevant.end > len(document.text):
                message = (
                    f"{relevant.end} is past the end of {relevant.document!r}, "
                    f"which has {len(document.text)} characters"
                )
                found.append(Problem(case.line, f"{field}.end", message))
        return found


def place(relevant: Relevant, document: Document) -> tuple[int, int] | None:
    """Start and end of a relevant place, None where it isn't known.

    Offsets hold as they are unless there is a quote and it stands elsewhere: then it has moved (normalising
    can drop characters), and its nearest place is taken.
    """
    quote = normalise(relevant.quote).strip() if relevant.quote else ""
    if relevant.start is not None and relevant.end is not None:
        if not quote or document.text[relevant.start : relevant.end].strip() == quote:
            return relevant.start, relevant.end
        places = _places(quote, document.text)
        return min(places, key=lambda found: abs(found[0] - (relevant.start or 0)), default=None)
    places = _places(quote, document.text) if quote else []
    return places[0] if places else None


def _places(quote: str, text: str) -> list[tuple[int, int]]:
    """Where a quote stands, however its words are spaced."""
    pattern = r"\s+".join(re.escape(word) for word in quote.split())
    return [match.span() for match in re.finditer(pattern, text)]
