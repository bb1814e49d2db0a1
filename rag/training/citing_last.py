"""The other answer format, each marker after its sentence, for comparing the two at an equal budget.

::

    citing first    Short answer: [2] ten years         citing last    Short answer: ten years [2]

Abstaining is the same token in the same place: the first one written. Only training uses this.
"""

from collections.abc import Sequence
from dataclasses import replace

from rag.answers import Style
from rag.prompts import MarkerTokens, Prompt, TokenCodec, as_data, parse_marked, without_markers
from rag.reader_format import ABSTAIN_TOKEN, CitedSentence, ReaderFormat
from rag.reading import Claim, ReadRequest

_OPENED = " ["


def prompt_ids(codec: TokenCodec, citing_first: Sequence[int]) -> list[int]:
    """The prompt without the marker that citing first opens at its end."""
    return list(citing_first)[: -len(codec.encode(_OPENED))]


def target_ids(codec: TokenCodec, sentences: Sequence[CitedSentence], eos_id: int) -> list[int]:
    """The target with each marker after its sentence; abstaining is the same single token."""
    if not sentences:
        return [codec.token_id(ABSTAIN_TOKEN), eos_id]
    ids: list[int] = []
    for sentence in sentences:
        ids += codec.encode(f" {as_data(sentence.text)}")
        ids += codec.encode(_OPENED) + codec.encode(f"{sentence.number}]")
    return [*ids, eos_id]


class CitingLastFormat:
    """A `PromptFormat` over `ReaderFormat`'s prompt."""

    def __init__(self, codec: TokenCodec) -> None:
        self._codec = codec
        self._first = ReaderFormat(codec)
        self._markers = MarkerTokens(codec)
        self._abstain = codec.token_id(ABSTAIN_TOKEN)

    @property
    def name(self) -> str:
        """See `PromptFormat`."""
        return "citing-last"

    @property
    def abstain_token_id(self) -> int | None:
        """See `PromptFormat`; its probability is among all tokens, since any word may come first."""
        return self._abstain

    def render(self, request: ReadRequest, budget_tokens: int) -> Prompt:
        """See `PromptFormat`."""
        prompt = self._first.render(request, budget_tokens)
        return replace(prompt, token_ids=tuple(prompt_ids(self._codec, prompt.token_ids)))

    def allowed(self, prompt: Prompt, generated: Sequence[int]) -> Sequence[int] | None:
        """See `PromptFormat`."""
        return self._markers.allowed(len(prompt.passages), generated)

    def is_finished(self, prompt: Prompt, generated: Sequence[int]) -> bool:
        """See `PromptFormat`. A short answer ends with its marker."""
        if not generated:
            return False
        if generated[0] == self._abstain or generated[-1] in self._codec.eos_ids:
            return True
        is_short = prompt.style is Style.SHORT
        return "\n" in self._codec.decode(generated) or (is_short and self._markers.just_closed(generated))

    def visible_text(self, prompt: Prompt, generated: Sequence[int]) -> str:
        """See `PromptFormat`."""
        return without_markers(self._codec.decode(generated))

    def parse(self, prompt: Prompt, generated: Sequence[int]) -> tuple[Claim, ...]:
        """See `PromptFormat`."""
        if not generated or generated[0] == self._abstain:
            return ()
        return parse_marked(self._codec.decode(generated).strip().split("\n")[0], len(prompt.passages))
