"""The other answer format, each marker after its sentence, for comparing the two at an equal budget.

::

    citing first    Short answer: [2] ten years         citing last    Short answer: ten years [2]

Abstaining is the same token in the same place: the first one written. Only training uses this.
"""

from collections.abc import Sequence
from dataclasses import replace

from corpus.document import DUTCH
from rag.answers import Style
from rag.prompts import MarkerTokens, Prompt, TokenCodec, as_data, parse_marked, without_markers
from rag.reader_format import ABSTAIN_TOKEN, YES_NO, CitedSentence, ReaderFormat, words_of
from rag.reading import Claim, ReadRequest
from rag.spans import following_tokens

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
        self._opening = codec.encode(_OPENED)[-1]

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
        """See `PromptFormat`. A short answer's marker names a passage in which its words stand."""
        if not prompt.passages:
            return (self._abstain,)
        is_held = prompt.style is Style.SHORT and all(p.language == prompt.language for p in prompt.passages)
        marker = self._markers.allowed(len(prompt.passages), generated)
        if marker is not None:
            return self._numbers_with(prompt, generated, marker) if is_held else marker
        if not is_held:
            return None
        texts = "\n".join(words_of(passage) for passage in prompt.passages)
        yes_no = YES_NO[prompt.language == DUTCH]
        found = following_tokens(self._codec, texts, self._codec.decode(generated), yes_no)
        # The answer ends with its marker.
        ids = {self._opening if token in self._codec.eos_ids else token for token in found}
        return tuple(sorted(ids if generated else ids | {self._abstain}))

    def _numbers_with(
        self, prompt: Prompt, generated: Sequence[int], allowed: tuple[int, ...]
    ) -> tuple[int, ...]:
        words = without_markers(self._codec.decode(generated))
        digits = {
            self._codec.encode(str(passage.number))[0]
            for passage in prompt.passages
            if words in words_of(passage)
        }
        return tuple(token for token in allowed if token in digits) or allowed

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
