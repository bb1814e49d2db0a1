"""The trained reader's prompt and answer format, one definition for training and for answering.

::

    [1] Title › Heading          Vraag: … / Question: …
    text of the passage          Kort antwoord: [   short, Dutch     Short answer: [   short, English
                                 Antwoord: [        full, Dutch      Answer: [         full, English
    [2] …

The passages come before the question, so that what the model computes for them serves every question. The
prompt ends inside an opened marker: the first token written is a passage's digit or `ABSTAIN_TOKEN`, and so
decides between abstaining and a passage before a word of the answer is there ("citing first"). A short
answer is ``2] span``, a full one ``2] Sentence. [3] Sentence.``, each sentence with its own marker. A short
answer in its passage's language is held to the passage's words (`rag.spans`); only a yes or no needn't stand
there.

Every piece is encoded by itself and the ids are joined: the tokens of a passage never depend on what follows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.document import DUTCH, Language
from corpus.errors import QuestionError
from rag.answers import Passage, Style
from rag.prompts import MarkerTokens, Prompt, TokenCodec, as_data, fit_passages
from rag.reading import Claim, ReadRequest
from rag.spans import following_tokens

FORMAT_NAME = "citing-first"
ABSTAIN_TOKEN = "∅"
MAX_PASSAGES = 9
"""A passage's number is one digit, and so one token."""

_QUESTION_WORD = {True: "Vraag", False: "Question"}
_ANSWER_WORD = {
    (True, Style.SHORT): "Kort antwoord",
    (True, Style.FULL): "Antwoord",
    (False, Style.SHORT): "Short answer",
    (False, Style.FULL): "Answer",
}
YES_NO = {True: ("ja", "nee"), False: ("yes", "no")}
_MARKER = re.compile(r"\s*\[(\d)\]\s*")
_UNFINISHED = re.compile(r"\s*\[\d?$")


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of an answer and the number of the passage that carries it."""

    number: int
    text: str


def passage_text(number: int, title: str, heading: str, text: str) -> str:
    """A passage as the prompt shows it, on two lines; markers inside it are neutralised."""
    line = " › ".join(part for part in (as_data(title), as_data(heading)) if part)
    return f"[{number}] {line}\n{as_data(text)}\n\n"


def words_of(passage: Passage) -> str:
    """What a short answer may be taken from: a passage's text, title and heading as the prompt shows them."""
    label = " › ".join(part for part in (as_data(passage.title), as_data(passage.hit.chunk.heading)) if part)
    return f"{as_data(passage.hit.chunk.text)}\n{label}"


def question_text(question: str, language: Language, style: Style) -> str:
    """What follows the passages, up to the colon before the first marker."""
    dutch = language == DUTCH
    return f"{_QUESTION_WORD[dutch]}: {as_data(question)}\n{_ANSWER_WORD[dutch, style]}:"


def question_ids(codec: TokenCodec, question: str, language: Language, style: Style) -> list[int]:
    """Token ids of the question with its cue and the opened marker."""
    return codec.encode(question_text(question, language, style)) + codec.encode(" [")


def target_ids(codec: TokenCodec, sentences: Sequence[CitedSentence], eos_id: int) -> list[int]:
    """Token ids that the reader should write after `question_ids`; no sentences means abstaining."""
    if not sentences:
        return [codec.token_id(ABSTAIN_TOKEN), eos_id]
    ids: list[int] = []
    for sentence in sentences:
        opened = codec.encode(" [") if ids else []
        ids += opened + codec.encode(f"{sentence.number}]") + codec.encode(f" {as_data(sentence.text)}")
    return [*ids, eos_id]


class ReaderFormat:
    """The `PromptFormat` of the trained reader."""

    def __init__(self, codec: TokenCodec) -> None:
        self._codec = codec
        self._markers = MarkerTokens(codec)
        self._opening = codec.encode(" [")
        self._abstain = codec.token_id(ABSTAIN_TOKEN)

    @property
    def name(self) -> str:
        """See `PromptFormat`."""
        return FORMAT_NAME

    @property
    def abstain_token_id(self) -> int | None:
        """See `PromptFormat`."""
        return self._abstain

    def render(self, request: ReadRequest, budget_tokens: int) -> Prompt:
        """See `PromptFormat`; at most `MAX_PASSAGES` passages."""
        codec = self._codec
        start = [] if codec.bos_id is None else [codec.bos_id]
        end = question_ids(codec, request.question, request.language, request.style)
        room = budget_tokens - len(start) - len(end)
        passages, ids = fit_passages(request.passages[:MAX_PASSAGES], room, self._encode_passage)
        if request.passages and not passages:
            raise QuestionError(
                f"the question takes {len(end)} of {budget_tokens} tokens and leaves no room "
                "for a passage; shorten it"
            )
        return Prompt(tuple(start + ids + end), passages, request.language, request.style)

    def allowed(self, prompt: Prompt, generated: Sequence[int]) -> Sequence[int] | None:
        """See `PromptFormat`. Only the first marker may hold the abstain token instead of a number."""
        count = len(prompt.passages)
        if not count:
            return (self._abstain,)
        allowed = self._markers.allowed(count, [*self._opening, *generated])
        if not generated and allowed is not None:
            return (*allowed, self._abstain)
        if allowed is None and prompt.style is Style.SHORT:
            return self._words_of_the_passage(prompt, generated)
        return allowed

    def _words_of_the_passage(self, prompt: Prompt, generated: Sequence[int]) -> tuple[int, ...] | None:
        """What may follow in a short answer; None (anything) where it is a translation of its passage."""
        digit, _, written = self._codec.decode(generated).partition("]")
        passage = next((each for each in prompt.passages if str(each.number) == digit.strip()), None)
        if passage is None or passage.language != prompt.language:
            return None
        return following_tokens(self._codec, words_of(passage), written, YES_NO[prompt.language == DUTCH])

    def is_finished(self, prompt: Prompt, generated: Sequence[int]) -> bool:
        """See `PromptFormat`. A short answer is one claim, so a second marker ends it."""
        if not generated:
            return False
        if generated[0] == self._abstain or generated[-1] in self._codec.eos_ids:
            return True
        text = self._codec.decode(generated)
        return "\n" in text or (prompt.style is Style.SHORT and "[" in text)

    def visible_text(self, prompt: Prompt, generated: Sequence[int]) -> str:
        """See `PromptFormat`."""
        return " ".join(claim.text for claim in self.parse(prompt, generated))

    def parse(self, prompt: Prompt, generated: Sequence[int]) -> tuple[Claim, ...]:
        """See `PromptFormat`. Neighbouring sentences with the same number stay claims of their own."""
        if not generated or generated[0] == self._abstain:
            return ()
        lines = ("[" + self._codec.decode(generated)).strip().splitlines()
        text = _UNFINISHED.sub("", lines[0])
        numbers = {passage.number for passage in prompt.passages}
        parts = _MARKER.split(text)[1:]
        claims = (
            Claim(words.strip(), (int(digit),) if int(digit) in numbers else ())
            for digit, words in zip(parts[::2], parts[1::2], strict=True)
        )
        return tuple(claim for claim in claims if claim.text)

    def _encode_passage(self, passage: Passage, text: str) -> list[int]:
        return self._codec.encode(
            passage_text(passage.number, passage.title, passage.hit.chunk.heading, text)
        )
