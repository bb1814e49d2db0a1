"""One case's metrics, from what was found and what was answered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from corpus.document import Document
from corpus.errors import DocumentNotFoundError
from corpus.languages import detect_language
from eval import metrics
from eval.cases import EvalCase
from eval.gold import Gold, span_of
from index.hits import Hit, SearchMode
from rag.answers import Answer, Citation, Style

Scores = dict[str, float | None]
"""Metric names and values; None where a metric doesn't apply."""

FindDocument = Callable[[str], Document]
RIGHT_F1 = 0.5
"""A short answer counts as right from this token F1 on: half the words and no more than as many others."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What one search mode found for one question: documents by their first chunk, and the chunks."""

    documents: tuple[str, ...]
    hits: tuple[Hit, ...]

    @classmethod
    def of(cls, hits: Sequence[Hit]) -> "Retrieved":
        """Ranks documents by the first of their chunks."""
        return cls(tuple(dict.fromkeys(hit.chunk.document_id for hit in hits)), tuple(hits))


def retrieval_scores(found: Retrieved | None, gold: Gold) -> Scores:
    """Document and span level; a crashed search (None) has found nothing."""
    documents = found.documents if found else ()
    hits = found.hits if found else ()
    document_ranks = metrics.ranks_of(documents, gold.documents)
    chunk_ranks = metrics.ranks_of([hit.chunk.id for hit in hits], gold.chunk_ids)
    spans = [span_of(hit.chunk) for hit in hits]
    scores: Scores = {}
    for prefix, ranks, relevant in (
        ("", document_ranks, len(gold.documents)),
        ("span_", chunk_ranks, len(gold.chunk_ids)),
    ):
        scores[f"{prefix}ndcg@10"] = metrics.ndcg(ranks, relevant)
        scores[f"{prefix}mrr@10"] = metrics.reciprocal_rank(ranks, relevant)
    for cutoff in (1, 5, 10):
        scores[f"recall@{cutoff}"] = metrics.recall_at(document_ranks, len(gold.documents), cutoff)
        scores[f"span_recall@{cutoff}"] = metrics.spans_hit(spans, gold.spans, cutoff)
    return scores


def all_retrieval_scores(
    found: Mapping[SearchMode, Retrieved] | None, gold: Gold, modes: Sequence[SearchMode], own: SearchMode
) -> Scores:
    """The run's own mode under the plain names, and where there are several, each under `name:mode`."""
    by_mode = {mode: retrieval_scores(found.get(mode) if found else None, gold) for mode in modes}
    scores = dict(by_mode[own])
    if len(modes) > 1:
        for mode, mode_scores in by_mode.items():
            scores |= {f"{name}:{mode.value}": value for name, value in mode_scores.items()}
    return scores


def answer_scores(
    case: EvalCase, gold: Gold, answer: Answer | None, style: Style, document: FindDocument
) -> Scores:
    """Answer, citation and abstention metrics; a crashed case (None) has 0 in all that applies to it."""
    scores = _correctness(case, answer, style)
    scores |= _abstention(case, answer)
    scores |= _citations(case, gold, answer)
    scores |= _form(case, answer, style, document)
    return scores


def _correctness(case: EvalCase, answer: Answer | None, style: Style) -> Scores:
    text = answer.text if answer and not answer.abstained else ""
    abstained = bool(answer and answer.abstained)
    scores: Scores = dict.fromkeys(("em", "f1", "has_ans_em", "has_ans_f1", "no_ans_accuracy"))
    scores |= dict.fromkeys(("contains_answer", "answer_f1", "rouge_l", "correct"))
    if not case.answerable:
        scores["no_ans_accuracy"] = scores["correct"] = float(abstained)
        if style is Style.SHORT:
            scores["em"] = scores["f1"] = float(abstained)
        return scores
    if case.answers:
        contained = metrics.contains_answer(text, case.answers)
        scores["contains_answer"] = scores["correct"] = contained
        if style is Style.SHORT:
            scores["em"] = scores["has_ans_em"] = metrics.exact_match(text, case.answers)
            scores["f1"] = scores["has_ans_f1"] = metrics.answer_f1(text, case.answers)
            scores["correct"] = float((scores["f1"] or 0.0) >= RIGHT_F1)
    if case.answer and style is Style.FULL:
        scores["answer_f1"] = metrics.answer_f1(text, [case.answer])
        scores["rouge_l"] = metrics.rouge_l(text, case.answer)
    return scores


def _abstention(case: EvalCase, answer: Answer | None) -> Scores:
    abstained = float(bool(answer and answer.abstained))
    return {
        "abstained": abstained,
        "abstention_precision": float(not case.answerable) if abstained else None,
        "abstention_recall": None if case.answerable else abstained,
    }


def _citations(case: EvalCase, gold: Gold, answer: Answer | None) -> Scores:
    names = ("citation_precision", "citation_recall", "citation_f1", "citation_span_f1")
    if not gold.documents or (answer and answer.abstained):
        return dict.fromkeys(names)
    if answer is None:
        return dict.fromkeys(names, 0.0) | ({} if gold.spans else {"citation_span_f1": None})
    marks = [
        [is_gold(citation, answer, gold) for citation in citations_of(answer, sentence.start, sentence.end)]
        for sentence in answer.sentences
    ]
    precision, recall = metrics.citation_precision(marks), metrics.citation_recall(marks)
    quotes = [(item.document_id, item.source_start, item.source_end) for item in answer.citations]
    return {
        "citation_precision": precision,
        "citation_recall": recall,
        "citation_f1": metrics.harmonic(precision, recall),
        "citation_span_f1": metrics.span_f1(quotes, gold.spans) if gold.spans else None,
    }


def citations_of(answer: Answer, start: int, end: int) -> list[Citation]:
    """The citations that support something in `answer.text[start:end]`, each passage once."""
    found: dict[int, Citation] = {}
    for citation in answer.citations:
        if citation.answer_start < end and start < citation.answer_end:
            found.setdefault(citation.number, citation)
    return list(found.values())


def is_gold(citation: Citation, answer: Answer, gold: Gold) -> bool:
    """Whether the passage that a citation names holds the answer."""
    return any(
        passage.hit.chunk.id == citation.chunk_id and gold.holds(passage.hit.chunk)
        for passage in answer.passages
    )


def _form(case: EvalCase, answer: Answer | None, style: Style, document: FindDocument) -> Scores:
    """What holds of any answer, right or wrong; nothing of it applies to an abstention."""
    full = style is Style.FULL
    if answer is None:
        return {
            "answer_language": 0.0 if full and case.answerable else None,
            "verbatim_quotes": None,
            "invalid_markers": None,
            "supported": 0.0 if case.answerable else None,
        }
    if answer.abstained:
        return dict.fromkeys(("answer_language", "verbatim_quotes", "invalid_markers", "supported"))
    supported = [float(sentence.supported) for sentence in answer.sentences]
    verbatim = [float(is_verbatim(citation, answer, document)) for citation in answer.citations]
    return {
        "answer_language": language_right(answer.text, case.language) if full else None,
        "verbatim_quotes": sum(verbatim) / len(verbatim) if verbatim else None,
        "invalid_markers": float(invalid_markers(answer)),
        "supported": sum(supported) / len(supported) if supported else 0.0,
    }


def language_right(text: str, language: str) -> float | None:
    """1 where a text is in the language; None where neither has one (figures only, "und")."""
    if language == "und" or not any(char.isalpha() for char in text):
        return None
    return float(detect_language(text) == language)


def is_verbatim(citation: Citation, answer: Answer, document: FindDocument) -> bool:
    """Whether a quote stands in its document at its offsets, and what it supports in the answer."""
    try:
        text = document(citation.document_id).text
    except DocumentNotFoundError:
        return False
    inside = 0 <= citation.answer_start < citation.answer_end <= len(answer.text)
    return (
        inside
        and bool(citation.quote)
        and text[citation.source_start : citation.source_end] == citation.quote
    )


def invalid_markers(answer: Answer) -> int:
    """Citations of a passage that wasn't there or under another's number, and markers left in the text."""
    passages = {passage.number: passage.hit.chunk for passage in answer.passages}
    wrong = sum(
        citation.number not in passages or passages[citation.number].id != citation.chunk_id
        for citation in answer.citations
    )
    return wrong + metrics.stray_markers(answer.text, [chunk.text for chunk in passages.values()])
