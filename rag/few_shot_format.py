"""Drives a base model, which follows no instructions, by worked examples and by letting it quote only.

Left to itself such a model makes answers up. So it may only write what stands in a passage: in the short
style any run of a passage's tokens, in the full style one of the passages' sentences. Where the words stand
says which passage they are from, so it writes no numbers. What it can't do is answer in another language than
the passage's; that takes a trained reader.

The examples are the same for every question in a language and a style, so what the model computes for them is
kept (`Prompt.fixed_tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from corpus import sentences
from corpus.document import DUTCH, ENGLISH
from corpus.errors import QuestionError
from rag.answers import Passage, Style
from rag.matching import contains_span
from rag.prompts import Prompt, TokenCodec, as_data, fit_passages, passage_line
from rag.reading import Claim, ReadRequest

ABSTAIN = "?"


@dataclass(frozen=True, slots=True)
class _Example:
    """A worked example: its passages, question, and the answer in both styles."""

    passages: tuple[str, ...]
    question: str
    short: str
    full: str


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
                "Op zondag is het bad open van 10.00 tot 16.00 uur.",
            ),
            _Example(
                ("Bibliotheek: Leden mogen tien boeken tegelijk lenen. Een pas kost 30 euro per jaar.",),
                "Hoeveel boeken mag je lenen?",
                "tien boeken",
                "Leden mogen tien boeken tegelijk lenen.",
            ),
            _Example(
                (
                    "Dorpshuis: De zaal wordt verhuurd aan verenigingen.",
                    "Dorpshuis: Er zijn 40 stoelen.",
                ),
                "Wie is de voorzitter van het dorpshuis?",
                ABSTAIN,
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
                "On Sundays the pool is open from 10:00 to 16:00.",
            ),
            _Example(
                ("Library: Members may borrow ten books at a time. A card costs 30 euros a year.",),
                "How many books may you borrow?",
                "ten books",
                "Members may borrow ten books at a time.",
            ),
            _Example(
                (
                    "Village hall: The hall is let to clubs.",
                    "Village hall: There are 40 chairs.",
                ),
                "Who chairs the village hall?",
                ABSTAIN,
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
        fixed = self._fixed(wording, request.style)
        question = self._codec.encode(f"{wording.question} {as_data(request.question)}\n{wording.answer}")
        room = budget_tokens - len(fixed) - len(question)
        passages, blocks = fit_passages(request.passages, room, self._encode_passage)
        if request.passages and not passages:
            raise QuestionError(
                f"the question is too long: it leaves no room for a passage in {budget_tokens} tokens"
            )
        return Prompt((*fixed, *blocks, *question), passages, request.language, request.style, len(fixed))

    def allowed(self, prompt: Prompt, generated: Sequence[int]) -> Sequence[int] | None:
        """What continues a run of a passage's tokens (a sentence, in the full style), or ends it."""
        following = {
            source.token_ids[place] if place < len(source.token_ids) else self._line_end
            for source, place in self._places(prompt, generated)
        }
        if not generated:
            return (*sorted(following), self._abstain_token_id)
        if prompt.style is Style.SHORT:
            following.add(self._line_end)
        return tuple(sorted(following)) or (self._line_end,)

    def is_finished(self, prompt: Prompt, generated: Sequence[int]) -> bool:
        """At the end of the line, after "?", and in the full style when only one sentence is left."""
        if not generated:
            return False
        if generated[-1] in (self._line_end, self._abstain_token_id) or generated[-1] in self._codec.eos_ids:
            return True
        return prompt.style is Style.FULL and len(self._chosen(prompt, generated)) == 1

    def visible_text(self, prompt: Prompt, generated: Sequence[int]) -> str:
        """The words quoted so far."""
        return "" if self._abstains(generated) else self._codec.decode(generated).strip()

    def parse(self, prompt: Prompt, generated: Sequence[int]) -> tuple[Claim, ...]:
        """One claim: the run of words, or the sentence that was begun."""
        if self._abstains(generated):
            return ()
        if prompt.style is Style.FULL:
            chosen = self._chosen(prompt, generated)[:1]
            return tuple(Claim(source.text, (source.number,)) for source in chosen)
        text = self._codec.decode([token for token in generated if token not in self._codec.eos_ids]).strip()
        return (Claim(text, _holders(text, prompt.passages)),) if text else ()

    def _abstains(self, generated: Sequence[int]) -> bool:
        return not generated or generated[0] == self._abstain_token_id

    def _chosen(self, prompt: Prompt, generated: Sequence[int]) -> list["_Source"]:
        """The different sentences that begin with what was written."""
        chosen = {source.text: source for source, _ in reversed(self._places(prompt, generated))}
        return list(reversed(chosen.values()))

    def _places(self, prompt: Prompt, generated: Sequence[int]) -> list[tuple["_Source", int]]:
        """Every source, and the place in it after what was written; all places where nothing was."""
        written = tuple(token for token in generated if token != self._line_end)
        length = len(written)
        places: list[tuple[_Source, int]] = []
        for source in self._sources(prompt):
            whole = prompt.style is Style.FULL
            starts = range(1 if whole else len(source.token_ids) - length)
            places.extend(
                (source, start + length)
                for start in starts
                if source.token_ids[start : start + length] == written
            )
        return places

    def _encode_sources(self, prompt: Prompt) -> tuple["_Source", ...]:
        """What may be quoted: whole passages, or their sentences in the full style."""
        sources: list[_Source] = []
        for passage in prompt.passages:
            text = passage.hit.chunk.text
            pieces = [(0, len(text))] if prompt.style is Style.SHORT else sentences(text)
            for start, end in pieces:
                piece = as_data(text[start:end])
                sources.append(_Source(passage.number, piece, tuple(self._codec.encode(f" {piece}"))))
        return tuple(sources)

    def _fixed(self, wording: _Wording, style: Style) -> list[int]:
        parts = [wording.instruction]
        for example in wording.examples:
            passages = "".join(
                f"[{number}] {text}\n" for number, text in enumerate(example.passages, start=1)
            )
            answer = example.short if style is Style.SHORT else example.full
            parts.append(f"{passages}{wording.question} {example.question}\n{wording.answer} {answer}")
        start = [] if self._codec.bos_id is None else [self._codec.bos_id]
        return start + self._codec.encode("\n\n".join(parts) + "\n\n")

    def _encode_passage(self, passage: Passage, text: str) -> list[int]:
        return self._codec.encode(passage_line(passage, text))


@dataclass(frozen=True, slots=True)
class _Source:
    """A text that may be quoted, of the passage with that number."""

    number: int
    text: str
    token_ids: tuple[int, ...]


def _holders(text: str, passages: Sequence[Passage]) -> tuple[int, ...]:
    """The number of the first passage that has these words."""
    return tuple(passage.number for passage in passages if contains_span(passage.hit.chunk.text, text))[:1]
