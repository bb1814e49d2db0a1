"""A draft set out of documents whose headings are questions; a person then edits it."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator

from corpus.document import Document
from corpus.languages import detect_language
from corpus.segmenting import sentences
from eval.cases import EvalCase, Relevant

_HEADING = re.compile(
    r"^[ \t]*(#{1,6}[ \t]+|\*\*)?(?P<text>[^\n]{4,300}?)(?:\*\*)?[ \t]*#*[ \t]*$", re.MULTILINE
)
_MAX_ANSWER_CHARS = 400


def draft_cases(documents: Iterable[Document]) -> Iterator[EvalCase]:
    """A case for every heading that ends in a question mark and has text below it.

    The answer is the section's first sentences, the relevant place the whole section: both are to be read and
    mended by a person. A title that is a question is one, too. Ids don't change with the order of documents.
    """
    for document in documents:
        seen: set[str] = set()
        for question, start, end in _sections(document):
            if question in seen:
                continue
            seen.add(question)
            digest = hashlib.sha256(f"{document.id}\n{question}".encode()).hexdigest()[:8]
            yield EvalCase(
                id=f"{document.id}/{digest}",
                question=question,
                language=detect_language(question, fallback=document.language),
                answerable=True,
                answer=_beginning(document.text[start:end]),
                relevant=(Relevant(document.id, start, end),),
                tags={"set": "draft"},
            )


def _sections(document: Document) -> Iterator[tuple[str, int, int]]:
    """Questions with where the text below them begins and ends."""
    headings = [match for match in _HEADING.finditer(document.text) if _is_heading(match)]
    title = document.title.strip()
    if title.endswith("?") and not (headings and headings[0].group("text").strip() == title):
        end = headings[0].start() if headings else len(document.text)
        yield from _section(document.text, title, 0, end)
    ends = [heading.start() for heading in headings[1:]] + [len(document.text)]
    for heading, end in zip(headings, ends, strict=False):
        question = heading.group("text").strip()
        if question.endswith("?"):
            yield from _section(document.text, question, heading.end(), end)


def _is_heading(match: re.Match[str]) -> bool:
    """Marked as one, or a question that stands alone at the beginning of a paragraph."""
    if match.group(1):
        return match.group(1).startswith("#") or match.group("text").endswith("?")
    before = match.string[: match.start()].rstrip(" \t")
    is_first = not before or before.endswith("\n\n")
    text = match.group("text").strip()
    return is_first and text.endswith("?") and len(sentences(text)) == 1


def _section(text: str, question: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    body = text[start:end]
    first = start + len(body) - len(body.lstrip())
    last = start + len(body.rstrip())
    if first < last:
        yield question, first, last


def _beginning(text: str) -> str:
    """Whole sentences up to 400 characters; the first in any case."""
    ends = [end for _, end in sentences(text)]
    fitting = [end for end in ends if end <= _MAX_ANSWER_CHARS]
    return text[: fitting[-1] if fitting else ends[0] if ends else len(text)].strip()


def to_line(case: EvalCase) -> str:
    """A case in a set's own form, on one line."""
    record = {
        "id": case.id,
        "question": case.question,
        "language": case.language,
        "answerable": case.answerable,
        "answers": list(case.answers),
        "answer": case.answer,
        "relevant": [
            {
                key: value
                for key, value in (
                    ("document", item.document),
                    ("start", item.start),
                    ("end", item.end),
                    ("quote", item.quote),
                )
                if value is not None
            }
            for item in case.relevant
        ],
        "tags": dict(case.tags),
    }
    return json.dumps(record, ensure_ascii=False)
