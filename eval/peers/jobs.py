"""The two jobs: documents into an index, and a question to an answer of so many tokens.

Every round asks all systems once, each time beginning with the next one.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from corpus.document import Document
from corpus.errors import EvaluationError
from eval.peers.environments import GENERATION_ONLY

OURS = "vraagbaak"
_MARKER = re.compile(r"\s*\[?\d\]\s*|\s*\[$")

Told = Callable[[str], None]


class System(Protocol):
    """The part of a worker that the jobs need; tests pass a fake."""

    name: str

    def call(self, do: str, **arguments: Any) -> Any:
        """The result of one of its methods."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer in seconds, except `step_ms`: milliseconds a token after the first.

    `write_s` is from the prompt to the last token, `whole_s` from the question to the answer; the latter is
    None for a system that doesn't search.
    """

    first_s: float
    step_ms: float
    write_s: float
    whole_s: float | None
    prompt_tokens: int
    new_tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """One ingest. `embed_s` is the embedding's part of it, None where a system doesn't tell it apart."""

    passages: int
    tokens: int
    seconds: float
    embed_s: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the prompt that this project makes of it, as text and as token ids."""

    text: str
    prompt: str
    prompt_ids: tuple[int, ...]


def ask_rounds(
    workers: Sequence[System], questions: Sequence[Question], told: Told
) -> dict[str, list[Answered]]:
    """Each question to each system; a first round that warms them up isn't counted."""
    for worker in workers:
        _ask(worker, questions[0])
    answered: dict[str, list[Answered]] = {worker.name: [] for worker in workers}
    for number, question in enumerate(questions):
        for worker in _rotated(workers, number):
            answered[worker.name].append(_ask(worker, question))
        told(f"asked {number + 1} of {len(questions)}")
    return answered


def ingest_rounds(workers: Sequence[System], files: Sequence[Path], told: Told) -> dict[str, list[Ingested]]:
    """Each file's documents into a new index of each system; the first file also warms them up."""
    ours = _ours(workers)
    cuts = [ours.call("cut", file=str(file)) for file in files]
    for worker in workers:
        _ingest(worker, files[0], cuts[0])
    ingested: dict[str, list[Ingested]] = {worker.name: [] for worker in workers}
    for number, (file, cut) in enumerate(zip(files, cuts, strict=True)):
        for worker in _rotated(workers, number):
            ingested[worker.name].append(_ingest(worker, file, cut))
        told(f"ingested {number + 1} of {len(files)}")
    return ingested


def fill(workers: Sequence[System], file: Path) -> int:
    """The same passages in every system's index; returns how many."""
    cut = _ours(workers).call("cut", file=str(file))
    for worker in workers:
        if worker.name not in GENERATION_ONLY:
            _ingest(worker, file, cut)
    return len(cut["passages"])


def long_answers(
    ours: System,
    questions: Iterable[str],
    count: int,
    new_tokens: int,
    decode: Callable[[Sequence[int]], str],
    told: Told,
) -> list[Question]:
    """The first `count` questions that this project's reader, cut off at `new_tokens`, writes so many to.

    So all systems write the same number of tokens without being made to write on after an answer's end.
    """
    found: list[Question] = []
    tried = 0
    for text in questions:
        if len(found) == count:
            break
        tried += 1
        answer = ours.call("ask", question=text, prompt="", prompt_ids=[])
        if answer["new_tokens"] == new_tokens:
            ids = tuple(answer["prompt_ids"])
            found.append(Question(text, decode(ids), ids))
    if not found:
        raise EvaluationError(
            f"none of {tried} questions has an answer of {new_tokens} tokens; choose fewer with --new-tokens"
        )
    told(f"{len(found)} of {tried} questions have an answer of at least {new_tokens} tokens")
    return found


def write_files(documents: Iterable[Document], folder: Path, count: int, characters: int) -> list[Path]:
    """`count` .jsonl files, each with documents until it has so many characters; fewer where they run out."""
    files = []
    rest = iter(documents)
    for number in range(count):
        lines = list(_lines(rest, characters))
        if not lines:
            break
        file = folder / f"documents-{number}.jsonl"
        file.write_text("".join(lines), encoding="utf-8")
        files.append(file)
    if not files:
        raise EvaluationError("there are no documents in the corpus")
    return files


def without_markers(text: str) -> str:
    """What was written, without "2]" and "[3]", so that answers can be compared."""
    return " ".join(_MARKER.sub(" ", text).split())


def _lines(documents: Iterator[Document], characters: int) -> Iterator[str]:
    have = 0
    while have < characters and (document := next(documents, None)) is not None:
        have += len(document.text)
        fields = {name: getattr(document, name) for name in ("id", "title", "language", "text", "source")}
        yield json.dumps(fields, ensure_ascii=False) + "\n"


def _ask(worker: System, question: Question) -> Answered:
    answer = worker.call(
        "ask", question=question.text, prompt=question.prompt, prompt_ids=question.prompt_ids
    )
    return Answered(
        first_s=answer["first_s"],
        step_ms=answer["write_s"] * 1000 / max(answer["new_tokens"] - 1, 1),
        write_s=answer["first_s"] + answer["write_s"],
        whole_s=None if worker.name in GENERATION_ONLY else answer["whole_s"],
        prompt_tokens=answer["prompt_tokens"],
        new_tokens=answer["new_tokens"],
        text=without_markers(answer["text"]),
    )


def _ingest(worker: System, file: Path, cut: Mapping[str, Any]) -> Ingested:
    took = worker.call("ingest", passages=cut["passages"], file=str(file))
    return Ingested(len(cut["passages"]), cut["tokens"], took["seconds"], took["embed_s"])


def _ours(workers: Sequence[System]) -> System:
    return next(worker for worker in workers if worker.name == OURS)


def _rotated(workers: Sequence[System], number: int) -> list[System]:
    first = number % len(workers)
    return [*workers[first:], *workers[:first]]
