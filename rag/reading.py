"""The seam between prompt, reader and citation step: each can be replaced without the others.

::

    ReadRequest ──prompt──▶ str ──generator──▶ raw text ──parse──▶ Reading ──cite──▶ Answer
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corpus.document import Language
from rag.answers import Passage, Style


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One question with the passages to read, best first; `language` is the answer's."""

    question: str
    language: Language
    passages: tuple[Passage, ...]
    style: Style


@dataclass(frozen=True, slots=True)
class Claim:
    """A part of the reader's answer and the numbers of the passages it names for it (may be none)."""

    text: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader made of a request.

    No claims means that it abstained. `abstain_probability` in 0–1 is at the first token, on the scale of the
    reader's calibration where it has one.
    `answer_probability` in 0–1 is the mean probability of the tokens that it wrote (geometric).
    `passages` are those that fitted in the prompt.
    """

    claims: tuple[Claim, ...]
    passages: tuple[Passage, ...]
    abstain_probability: float
    answer_probability: float
    prompt_tokens: int
    new_tokens: int


class ReadingListener(Protocol):
    """Follows one reading as it is written; returning False from `on_text` stops it at the next token."""

    def on_text(self, text: str) -> bool:
        """`text` is all that was written so far, without markers."""
        ...


class Reader(Protocol):
    """Answers from passages, or abstains."""

    @property
    def id(self) -> str:
        """Names the weights, for a run's record."""
        ...

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """Reads greedily; the same request gives the same reading."""
        ...

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """The same for many requests at once, in their order; `on_done` is told how many are finished."""
        ...
