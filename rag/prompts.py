"""How a question and its passages become a prompt, and how what the reader writes becomes claims.

A `PromptFormat` is all that differs between a base model, an instruct model and the trained reader; the
decoding loop (`rag.generator`) knows none of them. It goes through a format like this::

    prompt = format.render(request, budget_tokens)          # token ids, and the passages that fitted
    while not format.is_finished(prompt, generated):
        allowed = format.allowed(prompt, generated)         # None: anything; else only these token ids
        generated.append(best of allowed)
        listener.on_text(format.visible_text(prompt, generated))
    claims = format.parse(prompt, generated)                # () means that the reader abstained

Every method is pure: the same arguments give the same result, and nothing is kept between calls.

Text in documents is data. `as_data` sees to it that a passage can't look like a marker of ours.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rag.answers import Passage, Style
from rag.reading import Claim, ReadRequest


class TokenCodec(Protocol):
    """The part of a tokenizer that a format needs; tests pass a ten-line fake."""

    @property
    def bos_id(self) -> int | None:
        """The token that starts every sequence, None where the model has none."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end a sequence."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, without special tokens; text that looks like one stays plain text."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        ...

    def token_id(self, token: str) -> int:
        """The id of a token by its exact name in the vocabulary ("<unused0>"); raises ModelError."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered request.

    `passages` are those that fitted, with the numbers that they carry in the prompt. The first
    `fixed_tokens` token ids are the same for every prompt of this format, language and style, so what the
    model computes for them can be kept.
    """

    token_ids: tuple[int, ...]
    passages: tuple[Passage, ...]
    language: str
    style: Style
    fixed_tokens: int = 0


class PromptFormat(Protocol):
    """One way of talking to a model; see the module's docstring for the order of calls."""

    @property
    def name(self) -> str:
        """What the model folder's `reader.json` says under "format"."""
        ...

    @property
    def abstain_token_id(self) -> int | None:
        """The token whose probability as the first one (among those allowed) is the reader's own
        probability of abstaining; None where the format has no such token.
        """
        ...

    def render(self, request: ReadRequest, budget_tokens: int) -> Prompt:
        """The prompt in at most `budget_tokens` tokens: the last passages are dropped until it fits, and a
        first passage that doesn't fit alone is cropped at the end of a sentence.

        Raises PromptTooLongError where not even the question fits.
        """
        ...

    def allowed(self, prompt: Prompt, generated: Sequence[int]) -> Sequence[int] | None:
        """The token ids that may come next, None for any: where a marker stands, only the numbers of
        `prompt.passages` or the abstain token. Never empty. The loop never picks others.
        """
        ...

    def is_finished(self, prompt: Prompt, generated: Sequence[int]) -> bool:
        """Whether nothing more should be written (end of sequence, a newline, abstained)."""
        ...

    def visible_text(self, prompt: Prompt, generated: Sequence[int]) -> str:
        """What was written so far, as a person should see it while it grows: without markers."""
        ...

    def parse(self, prompt: Prompt, generated: Sequence[int]) -> tuple[Claim, ...]:
        """The claims with the numbers they name; only numbers of `prompt.passages`. Empty: abstained."""
        ...
