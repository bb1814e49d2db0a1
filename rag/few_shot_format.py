"""Drives a base model, which follows no instructions, by worked examples and by letting it quote only.

Left to itself such a model makes answers up. So it may only write a run of a passage's words; where those
stand says which passage they are from, so it writes no numbers. A full answer is the sentence around them:
asked for sentences, a model of this size chooses worse. What it can't do is answer in another language than
the passage's; that takes a trained reader.

The examples are the same for every question in a language, so what the model computes for them is kept
(`Prompt.fixed_tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from corpus import sentences
from corpus.document import DUTCH, ENGLISH
from corpus.errors import QuestionError
from rag.answers import Passage, Style
from rag.matching import find_words, words_of
from rag.prompts import Prompt, TokenCodec, as_data, fit_passages, passage_line
from rag.reading import Claim, ReadRequest

ABSTAIN = "?"


@dataclass(frozen=True, slots=True)
class _Example:
    """A worked example: its passages, question and answer."""

    passages: tuple[str, ...]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Wording:
    """What a prompt says in one language."""

    instruction: str
    question: str
    answer: str
    examples: tuple[_Example, ...]


_WORDINGS = {
    DUTCH: _Wording(
        instruction=(
            "Beantwoord elke vraag alleen met wat er in de passages staat, in de woorden van de passage. "
            "Staat het er niet in, dan is het antwoord ?."
        ),
        question="Vraag:",
        answer="Antwoord:",
        examples=(
            _Example(
                (
                    "Zwembad De Golf: Een kaartje kost 6 euro. Kinderen tot 4 jaar zwemmen gratis.",
                    "Zwembad De Golf › Tijden: Op zondag is het bad open van 10.00 tot 16.00 uur.",
                ),
                "Hoe laat sluit het zwembad op zondag?",
                "16.00 uur",
            ),
            _Example(
                ("Bibliotheek: Leden mogen tien boeken tegelijk lenen. Een pas kost 30 euro per jaar.",),
                "Hoeveel boeken mag je lenen?",
                "tien boeken",
            ),
            _Example(
                (
                    "Dorpshuis: De zaal wordt verhuurd aan verenigingen.",
                    "Dorpshuis: Er zijn 40 stoelen.",
                ),
                "Wie is de voorzitter van het dorpshuis?",
                ABSTAIN,
            ),
        ),
    ),
    ENGLISH: _Wording(
        instruction=(
            "Answer each question only with what the passages say, in the words of the passage. "
            "If they do not say it, the answer is ?."
        ),
        question="Question:",
        answer="Answer:",
        examples=(
            _Example(
                (
                    "Wave Pool: A ticket costs 6 euros. Children under 4 swim free.",
                    "Wave Pool › Hours: On Sundays the pool is open from 10:00 to 16:00.",
                ),
                "When does the pool close on Sundays?",
                "16:00",
            ),
            _Example(
                ("Library: Members may borrow ten books at a time. A card costs 30 euros a year.",),
                "How many books may you borrow?",
                "ten books",
            ),
            _Example(
                (
                    "Village hall: The hall is let to clubs.",
                    "Village hall: There are 40 chairs.",
                ),
                "Who chairs the village hall?",
                ABSTAIN,
            ),
        ),
    ),
}


class FewShotFormat:
    """A `PromptFormat` for models that only continue text."""

    name = "few-shot"

    def __init__(self, codec: TokenCodec) -> None:
        self._codec = codec
        self._line_end = codec.encode("\n")[-1]
        self._abstain_token_id = codec.encode(f" {ABSTAIN}")[-1]
        self._sources = lru_cache(maxsize=16)(self._encode_sources)

    @property
    def abstain_token_id(self) -> int | None:
        """The token of " ?"."""
        return self._abstain_token_id

    def render(self, request: ReadRequest, budget_tokens: int) -> Prompt:
        """See `PromptFormat.render`. Languages other than Dutch are asked in English."""
        wording = _WORDINGS.get(request.language, _WORDINGS[ENGLISH])
        fixed = self._fixed(wording)
        question = self._codec.encode(f"{wording.question} {as_data(request.question)}\n{wording.answer}")
        room = budget_tokens - len(fixed) - len(question)
        passages, blocks = fit_passages(request.passages, room, self._encode_passage)
        if request.passages and not passages:
            raise QuestionError(
                f"the question is too long: it leaves no room for a passage in {budget_tokens} tokens"
            )
        return Prompt((*fixed, *blocks, *question), passages, request.language, request.style, len(fixed))

    def allowed(self, prompt: Prompt, generated: Sequence[int]) -> Sequence[int] | None:
        """What continues a run of a passage's tokens from the start of a word, or ends it after one."""
        if not generated:
            starts = {token for source in self._sources(prompt) for token in source.word_starts}
            return (*sorted(starts), self._abstain_token_id)
        written = tuple(token for token in generated if token != self._line_end)
        following: set[int] = set()
        for source in self._sources(prompt):
            for place in source.places_after(written):
                following.add(source.token_ids[place] if place < len(source.token_ids) else self._line_end)
                if source.is_word_end(place):
                    following.add(self._line_end)
        return tuple(sorted(following)) or (self._line_end,)

    def is_finished(self, prompt: Prompt, generated: Sequence[int]) -> bool:
        """At the end of the line or the sequence, and after "?"."""
        return bool(generated) and (
            generated[-1] in (self._line_end, *self._codec.eos_ids) or self._abstains(generated)
        )

    def visible_text(self, prompt: Prompt, generated: Sequence[int]) -> str:
        """The words quoted so far."""
        if self._abstains(generated):
            return ""
        return self._codec.decode([token for token in generated if token not in self._codec.eos_ids]).strip()

    def parse(self, prompt: Prompt, generated: Sequence[int]) -> tuple[Claim, ...]:
        """One claim: the words, or in the full style the sentences around them."""
        text = self.visible_text(prompt, generated)
        if not text:
            return ()
        for passage in prompt.passages:
            place = find_words(words_of(passage.hit.chunk.text), words_of(text))
            if place:
                whole = prompt.style is Style.FULL
                return (Claim(_around(passage, place) if whole else text, (passage.number,)),)
        return (Claim(text, ()),)

    def _abstains(self, generated: Sequence[int]) -> bool:
        return not generated or generated[0] == self._abstain_token_id

    def _encode_sources(self, prompt: Prompt) -> tuple["_Source", ...]:
        sources = []
        for passage in prompt.passages:
            token_ids = tuple(self._codec.encode(f" {as_data(passage.hit.chunk.text)}"))
            sources.append(_Source(token_ids, tuple(self._codec.decode([token]) for token in token_ids)))
        return tuple(sources)

    def _fixed(self, wording: _Wording) -> list[int]:
        parts = [wording.instruction]
        for example in wording.examples:
            passages = "".join(
                f"[{number}] {text}\n" for number, text in enumerate(example.passages, start=1)
            )
            parts.append(
                f"{passages}{wording.question} {example.question}\n{wording.answer} {example.answer}"
            )
        start = [] if self._codec.bos_id is None else [self._codec.bos_id]
        return start + self._codec.encode("\n\n".join(parts) + "\n\n")

    def _encode_passage(self, passage: Passage, text: str) -> list[int]:
        return self._codec.encode(passage_line(passage, text))


@dataclass(frozen=True, slots=True)
class _Source:
    """The tokens of a passage's text as one line, each word with the space before it."""

    token_ids: tuple[int, ...]
    texts: tuple[str, ...]

    @property
    def word_starts(self) -> set[int]:
        """The tokens that begin with a space."""
        return {token for token, text in zip(self.token_ids, self.texts, strict=True) if text[:1] == " "}

    def places_after(self, written: tuple[int, ...]) -> list[int]:
        """The places that follow `written` where it stands from the start of a word."""
        length = len(written)
        return [
            start + length
            for start in range(len(self.token_ids) - length + 1)
            if start < len(self.texts) and self.texts[start][:1] == " "
            if self.token_ids[start : start + length] == written
        ]

    def is_word_end(self, place: int) -> bool:
        """Whether a word may end before the token at `place`."""
        return place >= len(self.texts) or not self.texts[place][:1].isalnum()


def _around(passage: Passage, place: tuple[int, int]) -> str:
    """The sentences that hold a place of the passage's text."""
    text = passage.hit.chunk.text
    spans = [span for span in sentences(text) if span[0] < place[1] and span[1] > place[0]]
    return text[spans[0][0] : spans[-1][1]]
