"""Text as it is stored: NFC, "\\n" line ends, and no character that can't be seen."""

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_WIDE_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
# Control characters, lone surrogates, soft hyphens and zero-width or direction-changing characters. The tag
# characters at U+E0000 can hide whole sentences from a person that a model would still read. The joiners
# U+200C and U+200D stay: emoji and several scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f]"
)
_BLANK_LINES = re.compile(r"\n{3,}")
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"
)
# Unicode's stream-safe format allows 30 marks on a letter; sorting a million of them takes hours.
_MANY_MARKS = re.compile(f"([{_MARKS}]{{30}})[{_MARKS}]+")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def normalise(text: str) -> str:
    """Characters only: what the lines look like is left as it is, so that a record's own offsets hold."""
    if not text.isascii():
        text = _SURROGATE_PAIR.sub(_joined_pair, text)
        text = _MANY_MARKS.sub(r"\1", _WIDE_SPACES.sub(" ", text))
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    return unicodedata.normalize("NFC", text)


def tidy(text: str) -> str:
    """Normalised, and without trailing spaces, runs of blank lines or blank ends."""
    text = "\n".join(line.rstrip(" \t") for line in normalise(text).split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip("\n ")


def one_line(text: str) -> str:
    """Normalised, on one line, without double spaces: a title, a table cell, a heading."""
    return " ".join(normalise(text).split())


def printable(name: str) -> str:
    """A file name that can be printed and stored: bytes that aren't text are shown as \\xNN."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def _joined_pair(match: re.Match[str]) -> str:
    return match.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le")
