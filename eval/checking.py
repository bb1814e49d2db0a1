"""`eval check`: everything that is wrong with a set at once, and what is only odd about it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.document import Document
from corpus.errors import DocumentNotFoundError
from corpus.normalising import normalise
from eval.cases import EvalCase, Problem, scan, unknown_fields
from eval.gold import GoldFinder, place
from eval.metrics import contains_answer
from eval.scoring import FindDocument


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`errors` keep a set from being run; `warnings` may be meant. `counts` says what is in it."""

    cases: int
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    counts: tuple[tuple[str, int], ...]


def check_set(file: Path, document: FindDocument | None = None) -> CheckReport:
    """Reads the whole set, against the documents that `document` finds where it is given.

    `document` raises DocumentNotFoundError for an id that isn't there.

    Raises EvalSetError only where the file can't be read as lines of text at all.
    """
    errors: list[Problem] = []
    warnings = list(unknown_fields(file))
    counts: Counter[str] = Counter()
    finder = GoldFinder(document, lambda _: ()) if document else None
    for found in scan(file):
        if isinstance(found, Problem):
            errors.append(found)
            continue
        counts.update(_traits(found))
        warnings += _oddities(found)
        if finder and document and not found.passage:
            problems = finder.problems(found)
            errors += problems
            warnings += [] if problems else _misplaced(found, document)
    cases = counts.pop("cases", 0)
    if not cases and not errors:
        errors.append(Problem(0, "", "there are no cases in it; a set has one JSON object a line"))
    ordered = sorted(warnings, key=lambda problem: problem.line)
    return CheckReport(cases, tuple(errors), tuple(ordered), tuple(sorted(counts.items())))


def _traits(case: EvalCase) -> Iterator[str]:
    yield "cases"
    yield f"language {case.language}"
    yield "answerable" if case.answerable else "not answerable"
    if case.answers:
        yield "with short answers"
    if case.answer:
        yield "with a full answer"
    if case.relevant:
        yield "with relevant documents"
    if any(relevant.start is not None or relevant.quote for relevant in case.relevant):
        yield "with a place in them"


def _oddities(case: EvalCase) -> Iterator[Problem]:
    if case.answerable and not case.relevant:
        yield Problem(
            case.line, "relevant", "it is answerable, and yet nothing is relevant: retrieval isn't measured"
        )
    if case.answerable and not case.answers and not case.answer:
        yield Problem(case.line, "answers", "there is no answer: only retrieval and citations are measured")
    if not case.answerable and case.relevant:
        yield Problem(
            case.line, "relevant", "it isn't answerable, and yet something is relevant: that is passed over"
        )


def _misplaced(case: EvalCase, find: FindDocument) -> Iterator[Problem]:
    for number, relevant in enumerate(case.relevant):
        field = f"relevant[{number}]"
        try:
            document = find(relevant.document)
        except DocumentNotFoundError:
            continue
        if relevant.quote and place(relevant, document) is None:
            yield Problem(
                case.line, f"{field}.quote", f"it doesn't stand in {relevant.document!r}, spaces apart"
            )
        elif relevant.start is not None and relevant.end is not None:
            yield from _wrong_offsets(case, number, document)


def _wrong_offsets(case: EvalCase, number: int, document: Document) -> Iterator[Problem]:
    relevant = case.relevant[number]
    found = document.text[relevant.start : relevant.end]
    shown = found if len(found) <= 60 else f"{found[:57]}…"
    if relevant.quote:
        if found.strip() != normalise(relevant.quote).strip():
            message = (
                f"at these offsets stands {shown!r} and not the quote; the quote's nearest place is taken"
            )
            yield Problem(case.line, f"relevant[{number}]", message)
    elif case.answers and case.language == document.language and not _holds(found, case.answers):
        message = f"at these offsets stands {shown!r}, and none of the answers is in it"
        yield Problem(case.line, f"relevant[{number}]", message)


def _holds(text: str, answers: tuple[str, ...]) -> bool:
    return contains_answer(text, answers) == 1.0 or any(
        contains_answer(item, [text]) == 1.0 for item in answers
    )
