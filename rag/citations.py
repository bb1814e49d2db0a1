"""From claims and passages to an answer whose every part can be checked to the letter (pure).

Each sentence of the answer is paired with the sentence (or two, or three) of the named passage that carries
it best, as offsets into the document. What a claim names is believed only where it is a passage's number; a
claim that names none is given to a passage that has it word for word, and else stays without citation.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpus import sentences
from corpus.document import Document
from rag.answers import AnswerSentence, Citation, Passage
from rag.matching import Word, find_words, words_of
from rag.prompts import without_markers
from rag.reading import Claim
from rag.support import SUPPORT_THRESHOLD, Similarity, nearness, support_score, word_coverage

_MOST_SENTENCES = 3
_WORTH_A_SENTENCE = 0.2
"""A neighbouring sentence is taken in where it has this much more of the claim's words."""
_WORDS_SUFFICE = 0.5
"""The share of a claim's words above which words alone decide where it comes from."""
_QUESTION_WEIGHT = 0.25
"""How much of a sentence's score is that it has the question's words; decides where the claim's words tie."""


@dataclass(frozen=True, slots=True)
class CitedText:
    """An answer's text with its sentences and citations, in the order of the text."""

    text: str
    sentences: tuple[AnswerSentence, ...]
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence of the answer and the passages that it names."""

    start: int
    end: int
    numbers: tuple[int, ...]


def cite(
    claims: Sequence[Claim],
    passages: Sequence[Passage],
    documents: Mapping[str, Document],
    *,
    question: str = "",
    similarity: Similarity | None = None,
) -> CitedText:
    """The answer that the claims make, with its citations.

    `documents` by id; a passage whose document isn't there, or no longer has its text, isn't cited. Claims
    that say the same twice are said once. `question` helps to find the right sentence for a short answer.
    """
    text, pieces = _assemble(claims, passages)
    by_number = {passage.number: passage for passage in passages}
    answer_sentences: list[AnswerSentence] = []
    citations: list[Citation] = []
    for piece in pieces:
        found = [
            citation
            for number in piece.numbers
            if (citation := _citation(text, piece, by_number[number], documents, question, similarity))
        ]
        quotes = " ".join(citation.quote for citation in found)
        support = support_score(text[piece.start : piece.end], quotes, similarity) if found else 0.0
        answer_sentences.append(AnswerSentence(piece.start, piece.end, support, support >= SUPPORT_THRESHOLD))
        citations.extend(found)
    return CitedText(text, tuple(answer_sentences), tuple(citations))


def narrow(
    claim: str, passage_text: str, *, question: str = "", similarity: Similarity | None = None
) -> tuple[int, int]:
    """Offsets, in the passage, of the one to three neighbouring sentences that carry the claim best.

    A sentence that has the claim word for word comes first, then the share of the claim's words, then of the
    question's. Where less than half of the claim's words are found, as across languages, `similarity` has a
    say as well; without it, and without one shared word, the whole passage is returned.
    """
    spans = sentences(passage_text)
    if not spans:
        return 0, len(passage_text)
    claimed, asked = words_of(claim), words_of(question)
    units = [words_of(passage_text[start:end]) for start, end in spans]
    scores = [_score(claimed, asked, unit) for unit in units]
    most = max(_coverage(claimed, unit) for unit in units)
    if most < _WORDS_SUFFICE and similarity:
        cosines = similarity(claim, [passage_text[start:end] for start, end in spans])
        scores = [score + nearness(cosine) for score, cosine in zip(scores, cosines, strict=True)]
    elif most == 0.0:
        return spans[0][0], spans[-1][1]
    best = max(range(len(spans)), key=scores.__getitem__)
    first, last = _widen(claimed, units, best)
    return spans[first][0], spans[last][1]


def page_of(document: Document, offset: int) -> int | None:
    """The page, from 1, where the offset stands; None for a document without pages."""
    if not document.page_starts:
        return None
    return max(1, bisect_right(document.page_starts, offset))


def _assemble(claims: Sequence[Claim], passages: Sequence[Passage]) -> tuple[str, list[_Piece]]:
    """The text of all claims in a row, and its sentences with the numbers that hold for them."""
    text = ""
    pieces: list[_Piece] = []
    said: set[str] = set()
    for claim in claims:
        words = without_markers(" ".join(claim.text.split()))
        if not words or words.casefold() in said:
            continue
        said.add(words.casefold())
        text += " " if text and words[0] not in ".,;:!?)" else ""
        start = len(text)
        text += words
        numbers = _numbers(claim, words, passages)
        pieces.extend(_Piece(start + left, start + right, numbers) for left, right in sentences(words))
    return text, pieces


def _numbers(claim: Claim, text: str, passages: Sequence[Passage]) -> tuple[int, ...]:
    """The numbers of passages that a claim rests on; never one that isn't a passage's."""
    known = {passage.number for passage in passages}
    named = tuple(dict.fromkeys(number for number in claim.numbers if number in known))
    if named:
        return named
    needle = words_of(text)
    holding = (passage.number for passage in passages if find_words(words_of(passage.hit.chunk.text), needle))
    return tuple(holding)[:1]


def _citation(
    text: str,
    piece: _Piece,
    passage: Passage,
    documents: Mapping[str, Document],
    question: str,
    similarity: Similarity | None,
) -> Citation | None:
    chunk = passage.hit.chunk
    document = documents.get(chunk.document_id)
    # Another process may have replaced the document since the search.
    if document is None or not chunk.text.strip() or document.text[chunk.start : chunk.end] != chunk.text:
        return None
    claim = text[piece.start : piece.end]
    start, end = narrow(claim, chunk.text, question=question, similarity=similarity)
    return Citation(
        number=passage.number,
        chunk_id=chunk.id,
        document_id=document.id,
        title=passage.title,
        source=passage.source,
        quote=document.text[chunk.start + start : chunk.start + end],
        source_start=chunk.start + start,
        source_end=chunk.start + end,
        page=page_of(document, chunk.start + start),
        answer_start=piece.start,
        answer_end=piece.end,
    )


def _score(claimed: list[Word], asked: list[Word], unit: list[Word]) -> float:
    verbatim = 1.0 if find_words(unit, claimed) else 0.0
    return verbatim + _coverage(claimed, unit) + _QUESTION_WEIGHT * _coverage(asked, unit)


def _coverage(words: list[Word], unit: list[Word]) -> float:
    return word_coverage(words, unit) if words else 0.0


def _widen(claimed: list[Word], units: list[list[Word]], best: int) -> tuple[int, int]:
    """First and last of the sentences around `best` that are needed to carry the claim."""
    first = last = best
    have = list(units[best])
    while last - first + 1 < _MOST_SENTENCES:
        covered = _coverage(claimed, have)
        gains = {
            place: _coverage(claimed, have + units[place]) - covered
            for place in (first - 1, last + 1)
            if 0 <= place < len(units)
        }
        place = max(gains, key=gains.__getitem__, default=-1)
        if place < 0 or gains[place] < _WORTH_A_SENTENCE:
            break
        have += units[place]
        first, last = min(first, place), max(last, place)
    return first, last
