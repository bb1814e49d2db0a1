"""The gold passage among others, so that reading is measured apart from finding."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.document import Chunk
from corpus.errors import DocumentNotFoundError
from eval.cases import EvalCase
from eval.gold import Gold, GoldFinder, span_of
from eval.metrics import overlaps
from eval.systems import System
from index.hits import Filters, Hit, SearchMode

_MINED = 50
_SHARED_WORDS = 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class PassagePicker:
    """Gives each case `count` passages: the gold one at a place that its id decides, and mined ones.

    The others are what the collection finds for the question, without the gold document and without what
    shares a run of eight words with the gold passage. A case that isn't answerable gets the passage it was
    written on (`tags.document`) where it names one, and mined ones alone where it doesn't.
    """

    system: System
    finder: GoldFinder
    count: int
    filters: Filters | None = None

    def pick(self, cases: Sequence[EvalCase], golds: Sequence[Gold]) -> list[list[Hit]]:
        """One list of hits a case, in the order in which the reader is to see them."""
        questions = [case.question for case in cases]
        mined = self.system.search(questions, [SearchMode.FUSED], _MINED, self.filters)
        found = mined.hits[SearchMode.FUSED]
        return [self._pick(case, gold, hits) for case, gold, hits in zip(cases, golds, found, strict=True)]

    def _pick(self, case: EvalCase, gold: Gold, mined: Sequence[Hit]) -> list[Hit]:
        target = self._target(case, gold, mined)
        names = [*gold.documents, *([target.chunk.document_id] if target else [])]
        origins = {origin_of(name) for name in names}
        runs = word_runs(target.chunk.text) if target else frozenset()
        others = [
            hit
            for hit in mined
            if origin_of(hit.chunk.document_id) not in origins and not runs & word_runs(hit.chunk.text)
        ]
        if target is None:
            return others[: self.count]
        picked = others[: self.count - 1]
        picked.insert(place_of(case.id, len(picked) + 1), target)
        return picked

    def _target(self, case: EvalCase, gold: Gold, mined: Sequence[Hit]) -> Hit | None:
        documents = frozenset(gold.documents) or frozenset(filter(None, [case.asked_about]))
        if not documents:
            return None
        only = Filters(documents=documents)
        inside = self.system.search([case.question], [SearchMode.FUSED], _MINED, only)
        hits = list(inside.hits[SearchMode.FUSED][0])
        if not gold.spans:
            return hits[0] if hits else self._first_chunk(documents)
        chunk = self._best_overlap(gold)
        if chunk is None:
            return hits[0] if hits else None
        return next((hit for hit in [*mined, *hits] if hit.chunk.id == chunk.id), Hit(chunk, 0.0))

    def _best_overlap(self, gold: Gold) -> Chunk | None:
        """The chunk that holds most of the gold spans; the first of equals."""
        names = dict.fromkeys(span[0] for span in gold.spans)
        chunks = [chunk for name in names for chunk in self.finder.chunks(name)]
        best = max(chunks, key=lambda chunk: _shared_characters(chunk, gold), default=None)
        return best if best is not None and _shared_characters(best, gold) else None

    def _first_chunk(self, documents: frozenset[str]) -> Hit | None:
        for name in sorted(documents):
            try:
                chunks = self.finder.chunks(name)
            except DocumentNotFoundError:
                # An unanswerable case may name a document that this collection leaves out.
                continue
            if chunks:
                return Hit(chunks[0], 0.0)
        return None


def _shared_characters(chunk: Chunk, gold: Gold) -> int:
    place = span_of(chunk)
    return sum(
        min(chunk.end, span[2]) - max(chunk.start, span[1]) for span in gold.spans if overlaps(place, span)
    )


def place_of(case_id: str, places: int) -> int:
    """A place in 0 … places - 1, the same every time and without a pattern over the cases."""
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big") % places


def origin_of(document_id: str) -> str:
    """The document that a pair's passage was taken from; any other document is its own origin."""
    return document_id.rpartition("#")[0] or document_id


def word_runs(text: str) -> frozenset[str]:
    """Every run of eight words, or all words where there are fewer: texts that share one overlap."""
    words = _WORD.findall(text.casefold())
    last = max(1, len(words) - _SHARED_WORDS + 1)
    return frozenset(" ".join(words[first : first + _SHARED_WORDS]) for first in range(last))
