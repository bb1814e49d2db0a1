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

import importlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corpus import sentences
from corpus.errors import ModelError
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

    def piece_id(self, text: str) -> int | None:
        """The id of the token that is exactly this text, spaces and all; None where there is none."""
        ...

    def chat_frame(self) -> tuple[list[int], list[int]] | None:
        """What the model's chat template puts before and after a user's message, up to where the model
        writes, as token ids; None where the model has no template.
        """
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

        Raises QuestionError where the question leaves no room for a passage.
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


_DIGITS_IN_BRACKETS = re.compile(r"[\[［【⟦](\s*\d[\d\s,;-]*)[\]］】⟧]")
_MARKERS = re.compile(r"(?:\s*\[\s*\d+(?:\s*[,;]\s*\d+)*\s*\])+")
_UNFINISHED_MARKER = re.compile(r"\s*\[[\d\s,;]*$")
_LEADING_PUNCTUATION = re.compile(r"\s*([.,;:!?]+)(?=\s|$)")


def as_data(text: str) -> str:
    """Text of a document or a caller, as it may stand in a prompt.

    It becomes one line, so that it can't start one with a label of ours, and "[3]" becomes "(3)", so that it
    isn't a marker. Only the prompt sees this; a quote is always the document's own text.
    """
    printable = "".join(char if char.isprintable() else " " for char in text)
    return _DIGITS_IN_BRACKETS.sub(lambda match: f"({match[1].strip()})", " ".join(printable.split()))


def passage_line(passage: Passage, text: str) -> str:
    """A passage as one line of a prompt: "[2] Title › Heading: text", with a line end."""
    label = as_data(passage.title)[:120]
    if passage.hit.chunk.heading:
        label = f"{label} › {as_data(passage.hit.chunk.heading)[:120]}"
    return (
        f"[{passage.number}] {label}: {as_data(text)}\n" if label else f"[{passage.number}] {as_data(text)}\n"
    )


def fit_passages(
    passages: Sequence[Passage],
    budget_tokens: int,
    encode_passage: Callable[[Passage, str], list[int]],
) -> tuple[tuple[Passage, ...], list[int]]:
    """The first passages that fit in the budget, and the token ids of their blocks, joined.

    `encode_passage` gives the ids of a passage's block with the given text in place of its own. Where not
    even the first fits, it is cropped at the end of a sentence (of a word, where the first sentence is too
    long already). No passages where the budget can't hold a word.
    """
    fitted: list[Passage] = []
    token_ids: list[int] = []
    for passage in passages:
        block = encode_passage(passage, passage.hit.chunk.text)
        if len(token_ids) + len(block) > budget_tokens:
            break
        fitted.append(passage)
        token_ids.extend(block)
    if fitted or not passages:
        return tuple(fitted), token_ids
    return _fit_cropped(passages[0], budget_tokens, encode_passage)


def _fit_cropped(
    passage: Passage,
    budget_tokens: int,
    encode_passage: Callable[[Passage, str], list[int]],
) -> tuple[tuple[Passage, ...], list[int]]:
    text = passage.hit.chunk.text
    for ends in (
        [end for _, end in sentences(text)],
        [match.end() for match in re.finditer(r"\S+", text)],
    ):
        fitting = bisect_right(
            ends,
            budget_tokens,
            key=lambda end: len(encode_passage(passage, text[:end])),
        )
        if fitting:
            return (passage,), encode_passage(passage, text[: ends[fitting - 1]])
    return (), []


class MarkerTokens:
    """The token ids of "[1]", "[2]" …, and which of them may come next."""

    def __init__(self, codec: TokenCodec) -> None:
        self._openings = frozenset((codec.encode(" [")[-1], codec.encode("[")[-1]))
        self._closing = codec.encode("]")[0]
        self._codec = codec

    def allowed(self, count: int, generated: Sequence[int]) -> tuple[int, ...] | None:
        """Where a marker stands open: the tokens that lead to a number of 1 to `count`; else None."""
        written = self._open_marker(generated)
        if written is None:
            return None
        numbers = [(*self._codec.encode(str(number)), self._closing) for number in range(1, count + 1)]
        following = {ids[len(written)] for ids in numbers if ids[: len(written)] == written}
        return tuple(sorted(following)) or (self._closing,)

    def just_closed(self, generated: Sequence[int]) -> bool:
        """Whether the last token closes a marker."""
        return (
            bool(generated)
            and generated[-1] == self._closing
            and self._open_marker(generated[:-1]) is not None
        )

    def _open_marker(self, generated: Sequence[int]) -> tuple[int, ...] | None:
        """What stands after the bracket that was opened last and not closed, None where there is none."""
        for index in range(len(generated) - 1, max(-1, len(generated) - 8), -1):
            if generated[index] in self._openings:
                return tuple(generated[index + 1 :])
            if generated[index] == self._closing:
                return None
        return None


def without_markers(text: str) -> str:
    """The text without "[2]" and without a marker that is being written."""
    return _UNFINISHED_MARKER.sub("", _MARKERS.sub("", text)).strip()


def parse_marked(text: str, count: int) -> tuple[Claim, ...]:
    """Claims of a text that names passages after what they support: "One thing [1]. Another [2][3]."

    Numbers outside 1 to `count` are dropped. Text after the last marker is a claim without numbers.
    """
    claims: list[Claim] = []
    start = 0
    for match in _MARKERS.finditer(text):
        numbers = (int(digits) for digits in re.findall(r"\d+", match.group()))
        valid = tuple(dict.fromkeys(number for number in numbers if 1 <= number <= count))
        _add_claim(claims, text[start : match.start()], valid)
        start = match.end()
    _add_claim(claims, _UNFINISHED_MARKER.sub("", text[start:]), ())
    return tuple(claims)


def _add_claim(claims: list[Claim], text: str, numbers: tuple[int, ...]) -> None:
    """Adds a claim; the punctuation that follows a marker belongs to the claim before it."""
    punctuation = _LEADING_PUNCTUATION.match(text)
    if punctuation and claims:
        claims[-1] = Claim(claims[-1].text + punctuation[1], claims[-1].numbers)
        text = text[punctuation.end() :]
    if text.strip():
        claims.append(Claim(text.strip(), numbers))


def format_named(name: str, codec: TokenCodec) -> PromptFormat:
    """The format of that name: "few-shot", "chat" or "citing-first". Raises ModelError for any other."""
    places = {
        "few-shot": ("rag.few_shot_format", "FewShotFormat"),
        "chat": ("rag.chat_format", "ChatFormat"),
        "citing-first": ("rag.reader_format", "ReaderFormat"),
    }
    if name not in places:
        raise ModelError(f"reader.json names the format {name!r}; known are {', '.join(sorted(places))}")
    module, attribute = places[name]
    # By name, since each of those modules imports this one.
    make: Callable[[TokenCodec], PromptFormat] = getattr(importlib.import_module(module), attribute)
    return make(codec)
