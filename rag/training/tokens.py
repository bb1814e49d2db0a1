"""Which tokens of a vocabulary Dutch and English words use, so that the output layer needs no others.

The words are the 29,000 likeliest of each language in wordfreq: as they are, with a capital and in capitals, at
the start of a word and within one. Signs, digits, bytes and pieces of one or two letters are always among them,
so anything can be spelt.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from index.vocabulary import writable_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LANGUAGES = ("nl", "en")
_ALWAYS = re.compile(r"<.*>|[^\W\d_]{0,2}|[\W\d_]+")


def frequent_words() -> Iterator[str]:
    """The words of wordfreq's small lists (at least one in a million words)."""
    from wordfreq import iter_wordlist

    for language in LANGUAGES:
        yield from iter_wordlist(language, "small")


def common_tokens(tokenizer: "Tokenizer", words: Iterable[str]) -> list[int]:
    """Ascending ids of the western tokens that the words use, and of those that spell anything else."""
    vocabulary = list(tokenizer.get_vocab().items())
    western = set(writable_tokens(vocabulary))
    common = {token_id for text, token_id in vocabulary if _ALWAYS.fullmatch(text.strip("▁"))}
    rest = iter(words)
    while some := list(islice(rest, 4096)):
        forms = [f"{space}{form}" for word in some for form in _forms(word) for space in ("", " ")]
        for encoding in tokenizer.encode_batch(forms, add_special_tokens=False):
            common.update(encoding.ids)
    return sorted(common & western)


def _forms(word: str) -> set[str]:
    return {word, word.capitalize(), word.upper()}
