"""`vraagbaak ask` and `search`: an answer with its quotes as a person reads them, or as JSON."""

from dataclasses import asdict

import typer

from api.console import model_progress, note, print_json
from api.runtime import open_answerer, open_library, open_reader
from corpus.document import Language
from corpus.errors import InputError
from index.hits import Filters, Hit, SearchMode
from rag.answers import Answer, Citation, Style
from rag.rendering import answer_to_dict, render_markers
from rag.settings import Settings

LOW_CONFIDENCE = 0.5


def run_ask(
    settings: Settings,
    question: str,
    collection: str,
    *,
    short: bool,
    language: Language | None,
    top_k: int | None,
    filters: Filters,
    as_json: bool,
) -> None:
    """Answers one question; raises QuestionError, CollectionNotFoundError and what loading raises."""
    with model_progress() as told:
        library = open_library(settings, told)
        with library.open(collection) as opened:
            reader = open_reader(settings, told)
            answer = open_answerer(opened, reader, settings).ask(
                question,
                style=Style.SHORT if short else Style.FULL,
                language=language,
                filters=filters,
                top_k=top_k,
            )
    if as_json:
        print_json(answer_to_dict(answer))
    else:
        print_answer(answer)


def print_answer(answer: Answer) -> None:
    """The answer with markers, then each citation's quote with where it stands."""
    typer.echo(render_markers(answer))
    if answer.abstained:
        for passage in answer.passages[:3]:
            note(
                f"  nearest: {passage.title or passage.hit.chunk.document_id} ({passage.hit.chunk.document_id})"
            )
        return
    shown = set()
    for citation in answer.citations:
        key = (citation.number, citation.source_start, citation.source_end)
        if key not in shown:
            shown.add(key)
            typer.echo(f"\n  [{citation.number}] “{_one_line(citation.quote)}”\n      {_place(citation)}")
    unsupported = sum(not sentence.supported for sentence in answer.sentences)
    if unsupported:
        note(f"\nnote: {unsupported} sentence(s) of this answer are not clearly supported by what they cite")
    elif answer.confidence < LOW_CONFIDENCE:
        note(f"\nnote: the reader is not sure of this answer (confidence {answer.confidence:.2f})")


def _place(citation: Citation) -> str:
    page = f", page {citation.page}" if citation.page else ""
    title = f"{citation.title} — " if citation.title else ""
    return f"{title}{citation.source}{page}, characters {citation.source_start}–{citation.source_end}"


def run_search(
    settings: Settings,
    question: str,
    collection: str,
    top_k: int,
    mode: str,
    filters: Filters,
    *,
    as_json: bool,
) -> None:
    """Prints the passages found, best first."""
    if mode not in list(SearchMode):
        raise InputError(f"--mode {mode!r}: choose {', '.join(SearchMode)}")
    if not question.strip():
        raise InputError("the question is empty; type what to look for")
    with model_progress() as told, open_library(settings, told).open(collection) as opened:
        hits = opened.search(question[: settings.max_question_chars], top_k, SearchMode(mode), filters)
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    for place, hit in enumerate(hits, 1):
        _print_hit(place, hit)
    if not hits:
        typer.echo("nothing found")


def _print_hit(place: int, hit: Hit) -> None:
    heading = f" › {hit.chunk.heading}" if hit.chunk.heading else ""
    typer.echo(
        f"{place:3}. {hit.score:.3f}  {hit.chunk.document_id}{heading}  ({hit.chunk.start}–{hit.chunk.end})"
    )
    typer.echo(f"     {_one_line(hit.chunk.text)[:160]}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
