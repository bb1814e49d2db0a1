"""Words of two texts compared as a reader would: without case, accents and thousands separators (pure).

Two figures after two others may be a time or an amount: "12.30" is either, "12:30" a time, "12,30" an amount, and
so is what stands beside a currency or a percentage. Such a key keeps its separator, and `same_figure` says which
go together.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_TIME = r"(?<![\d:.,])(?:[01]?\d|2[0-4]):[0-5]\d(?![\d:]|[.,]\d)"
_WORD = re.compile(rf"{_TIME}|\d+(?:[.,]\d+)*|[^\W\d_]+")
_HOURS_AND_MINUTES = re.compile(r"([01]?\d|2[0-4])([.,:])([0-5]\d)")
_CURRENCY_BEFORE = re.compile(r"(?:[€$£]|\bEUR|\bUSD)\s?$")
_AMOUNT_AFTER = re.compile(
    r"\s?(?:[€$£%]|(?:euro|eur|usd|dollar|pound|cent|procent|percent|miljoen|miljard|million|billion)s?\b)",
    re.I,
)
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SMALL_NUMBERS = {
    word: str(value)
    for words in (
        "nul één twee drie vier vijf zes zeven acht negen tien elf twaalf",
        "zero one two three four five six seven eight nine ten eleven twelve",
    )
    for value, word in enumerate(words.split())
    if word not in ("één", "one")
}
"""Spelled numbers that a document and an answer write differently; "one" and "één" mean too much else."""

STOP_WORDS = _word_set(
    "de het een en van ik te dat die in is zijn op met voor niet aan er om als dan maar hij zij ze wij we "
    "je jij  u uw mijn ons onze hun haar hem ook naar door over bij uit tot wordt worden werd werden wat "
    "wie waar wanneer  waarom hoe hoeveel welke welk heeft hebben had kan kunnen moet moeten mag zal "
    "zullen zou was waren wel nog  al of deze dit daar hier na dus veel meer zo toch want per ja nee the "
    "a an of and to in are were be been  being i you he she it they me him her us them my your his its "
    "our their this that these those what which  who whom whose when where why how many much do does did "
    "done has have having can could may might must shall  should will would not no yes on at by for from "
    "with as but or if so than then there here all any"
)
"""Dutch and English words that carry no claim."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word at `start:end` of its text; `key` is what is compared."""

    key: str
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        """Whether the key is a figure, written as such or spelled out."""
        return self.key[0].isdigit()

    @property
    def is_content(self) -> bool:
        """Whether the word says something by itself."""
        return self.is_number or self.key not in STOP_WORDS


def words_of(text: str) -> list[Word]:
    """The words and figures of a text, in order."""
    return [Word(_key(match), match.start(), match.end()) for match in _WORD.finditer(text)]


def find_words(haystack: Sequence[Word], needle: Sequence[Word]) -> tuple[int, int] | None:
    """Offsets, in the haystack's text, of the first place where the needle's words stand in one run."""
    keys = [word.key for word in needle]
    if not keys:
        return None
    for first in range(len(haystack) - len(keys) + 1):
        if all(_is_found(key, haystack[first + offset].key) for offset, key in enumerate(keys)):
            return haystack[first].start, haystack[first + len(keys) - 1].end
    return None


def contains_span(text: str, span: str) -> bool:
    """Whether the words of `span` stand in `text` in one run; False where it has none."""
    return find_words(words_of(text), words_of(span)) is not None


def same_word(one: str, other: str) -> bool:
    """Whether two keys are forms of one word: equal, or one long stem with other endings.

    It stands in for a stemmer of each language, and lets cognates through ("universiteit", "university").
    """
    if one == other:
        return True
    if one[0].isdigit() or other[0].isdigit():
        return same_figure(one, other)
    shared = _shared_prefix(one, other)
    return shared >= 4 and shared >= 0.65 * max(len(one), len(other))


def same_figure(one: str, other: str) -> bool:
    """Whether two keys may be one figure: equal, or a "12.30" that may be the other's time or amount."""
    if one == other:
        return True
    left, right = _HOURS_AND_MINUTES.fullmatch(one), _HOURS_AND_MINUTES.fullmatch(other)
    if left is None or right is None:
        return False
    return left.group(1, 3) == right.group(1, 3) and "." in (left[2], right[2])


def _is_found(key: str, other: str) -> bool:
    return key == other or (key[0].isdigit() and same_figure(key, other))


def _shared_prefix(one: str, other: str) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))


def _key(match: re.Match[str]) -> str:
    word = match.group()
    if word[0].isdigit():
        return _number_key(match)
    if word.isascii():
        folded = word.casefold()
        return _SMALL_NUMBERS.get(folded, folded)
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char)) or word


def _number_key(match: re.Match[str]) -> str:
    """Reads "1.000" and "1,000" as 1000, "3,5" and "3.5" as 3.5; "1.234" is taken for thousands.

    A time or an amount has its separator kept, and an hour of one figure ("09:30" is "9:30").
    """
    figure = match.group()
    if _GROUPED.fullmatch(figure):
        return re.sub(r"[.,]", "", figure)
    if parts := _HOURS_AND_MINUTES.fullmatch(figure):
        separator = "," if parts[2] == "." and _is_amount(match) else parts[2]
        return f"{int(parts[1])}{separator}{parts[3]}"
    return figure.replace(",", ".")


def _is_amount(match: re.Match[str]) -> bool:
    """Whether a currency or a percentage stands beside the figure."""
    before = match.string[max(0, match.start() - 4) : match.start()]
    return bool(_CURRENCY_BEFORE.search(before) or _AMOUNT_AFTER.match(match.string, match.end()))
