"""The reader on the last turn of conversations, over the passages that came with them: `python -m eval.multi_turn`.

For sets in the form of MTRAG-UN (Katsis et al., TACL 2025, and its sequel on unanswerable turns): `input` is the
conversation, `contexts` are the passages found for its last turn, `targets` is what an assistant should say. The
product answers questions one by one, so the last turn is asked by itself, or with the question before it in front
(`--previous`), which is what a person would type again.

The set doesn't say which turns can be answered. Counted are: how many turns without any passage are abstained from
(all must be), and of those with passages how many are answered, and ROUGE-L of the answers with the target. Turns
whose target says that there is no information are told apart by its words.
"""

import json
import lzma
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from corpus.document import ENGLISH, Chunk
from corpus.errors import EvalSetError, MissingPathError, VraagbaakError
from eval.intervals import Estimate, estimate_means
from eval.metrics import rouge_l
from index.hits import Hit
from rag.answers import Passage, Style
from rag.generator import load_reader
from rag.reading import Reader, ReadRequest

MOST_PASSAGES = 6
_DECLINES = re.compile(
    r"\b(?:do(?:es)? not|don't|doesn't|cannot|can't|unable|no) (?:\w+ ){0,3}"
    r"(?:information|answer|know|mention|details|find)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """The last question of a conversation, the one before it, its passages and what should be said."""

    id: str
    question: str
    previous: str
    contexts: tuple[str, ...]
    target: str

    @property
    def is_declined(self) -> bool:
        """Whether the target says that the passages don't tell."""
        return bool(_DECLINES.search(self.target))


@dataclass(frozen=True, slots=True)
class Said:
    """What the reader said on a turn, "" where it abstained."""

    turn: Turn
    text: str


def read_turns(path: Path) -> list[Turn]:
    """The turns of a file of JSON lines, compressed by xz or not."""
    if not path.exists():
        raise MissingPathError(str(path), "there is no such file; name a set of conversations")
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8")
    return [_turn(json.loads(line), path) for line in text.splitlines() if line.strip()]


def _turn(record: dict[str, Any], path: Path) -> Turn:
    asked = [turn["text"] for turn in record["input"] if turn["speaker"] == "user"]
    if not asked or not record["targets"]:
        raise EvalSetError(f"{path.name}: {record.get('task_id')} has no question or no target; correct it")
    return Turn(
        id=record["task_id"],
        question=asked[-1],
        previous=asked[-2] if len(asked) > 1 else "",
        contexts=tuple(context["text"].strip() for context in record["contexts"] or ())[:MOST_PASSAGES],
        target=record["targets"][0]["text"],
    )


def answer(turns: Sequence[Turn], reader: Reader, with_previous: bool) -> list[Said]:
    """Full answers from the passages given; a turn without passages can't be answered."""
    said = []
    for turn in turns:
        passages = tuple(_passage(number, text) for number, text in enumerate(turn.contexts, start=1))
        question = f"{turn.previous} {turn.question}".strip() if with_previous else turn.question
        reading = (
            reader.read(ReadRequest(question[-600:], ENGLISH, passages, Style.FULL)) if passages else None
        )
        said.append(Said(turn, " ".join(claim.text for claim in reading.claims) if reading else ""))
    return said


def _passage(number: int, text: str) -> Passage:
    return Passage(number, Hit(Chunk("", "", 0, 0, len(text), text), 0.0), "", "", ENGLISH)


def summary_lines(said: Sequence[Said]) -> list[str]:
    """The figures with their intervals over turns."""
    groups = {
        "no passages: abstained": [float(not s.text) for s in said if not s.turn.contexts],
        "passages, target declines: abstained": [
            float(not s.text) for s in said if s.turn.contexts and s.turn.is_declined
        ],
        "passages, target answers: answered": [
            float(bool(s.text)) for s in said if s.turn.contexts and not s.turn.is_declined
        ],
        "of these answered: ROUGE-L": [
            rouge_l(s.text, s.turn.target)
            for s in said
            if s.text and s.turn.contexts and not s.turn.is_declined
        ],
    }
    return [f"{name}: {_shown(values)}" for name, values in groups.items()]


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "–, n 0"
    column = np.array(values)[:, None]
    estimate: Estimate = estimate_means(column, np.arange(len(values)))[0]
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}–{estimate.high:.3f}]"
    return f"{estimate.mean:.3f}{interval}, n {estimate.n}"


def main(
    file: Annotated[Path, typer.Argument(metavar="SET")],
    home: Annotated[Path, typer.Option(help="The folder under which models are materialised.")],
    previous: Annotated[bool, typer.Option(help="Ask with the question before it in front.")] = False,
    limit: Annotated[int, typer.Option(help="The first so many turns.")] = 10**9,
) -> None:
    """Answer the last turn of each conversation and print the figures."""
    turns = read_turns(file)[:limit]
    for line in summary_lines(answer(turns, load_reader(home=home), previous)):
        typer.echo(line)


if __name__ == "__main__":
    try:
        typer.run(main)
    except VraagbaakError as error:
        sys.exit(str(error))
