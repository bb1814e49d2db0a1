"""Which tokens keep an answer a span of a text, word for word (pure).

A short answer in its passage's language should stand there to the letter; a small model left alone changes an
ending or joins two half words now and then. So after each token only those may follow that go on as the text
does at some place where the words written so far stand, and the end only where a word ends.
"""

from collections.abc import Iterator, Sequence

from rag.prompts import TokenCodec

LONGEST_PIECE = 24
"""Longer tokens than this, in characters, aren't looked up."""


def following_tokens(codec: TokenCodec, text: str, written: str, also: Sequence[str] = ()) -> tuple[int, ...]:
    """The token ids that may follow `written`, the answer so far; an end-of-sequence token where it may end.

    `also` are answers that may be given though the text lacks them. Never empty: where nothing goes on, the
    answer ends.
    """
    words = written.lstrip()
    if not words:
        lead = "" if written else " "
        starts = [text[place : place + LONGEST_PIECE] for place in _word_starts(text)]
        found = _leading_pieces(codec, [lead + start for start in (*also, *starts)])
        return tuple(sorted(found)) or (min(codec.eos_ids),)
    going_on: list[str] = []
    may_end = False
    for whole in (*(each for each in also if each.startswith(words)), text):
        for end in _ends(whole, words):
            going_on.append(whole[end : end + LONGEST_PIECE].partition("\n")[0])
            may_end = may_end or (_is_boundary(whole, end) and not words[-1].isspace())
    found = _leading_pieces(codec, going_on)
    if may_end or not found:
        found.add(min(codec.eos_ids))
    return tuple(sorted(found))


def _leading_pieces(codec: TokenCodec, rests: Sequence[str]) -> set[int]:
    """Ids of all tokens with which one of the texts begins.

    A space is a token of its own only before a figure or a sign, which have none with the space in it.
    """
    pieces = {
        rest[:length]
        for rest in rests
        for length in range(1, min(len(rest), LONGEST_PIECE) + 1)
        if rest[:length].strip() or not rest[length : length + 1].isalpha()
    }
    ids = (codec.piece_id(piece) for piece in pieces)
    return {token_id for token_id in ids if token_id is not None}


def _word_starts(text: str) -> Iterator[int]:
    """Places where an answer may begin: a word, or a sign before one."""
    for place, char in enumerate(text):
        if not char.isspace() and _is_boundary(text, place):
            yield place


def _ends(text: str, words: str) -> Iterator[int]:
    """Where `words` end, each time that they stand in the text from the start of a word on."""
    place = text.find(words)
    while place >= 0:
        if _is_boundary(text, place):
            yield place + len(words)
        place = text.find(words, place + 1)


def _is_boundary(text: str, place: int) -> bool:
    """Whether no word goes on over this place."""
    if place in (0, len(text)):
        return True
    return not (text[place - 1].isalnum() and text[place].isalnum())
