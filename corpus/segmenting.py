"""Where sentences begin and end, in Dutch and English, by rules; offsets are exact.

pysbd knows more rules and takes seconds for what this does in milliseconds; it doesn't keep offsets, and it
takes every line end for a sentence's end, which wrapped text isn't.
"""

import re
from collections.abc import Iterator

Span = tuple[int, int]
"""Start and end, code points, half-open."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LAST = _words(
    """
    aant adm afb afd afl alg approx artt assoc attn bijl bijv bijz blz br bv ca capt cf circ cit cmdr
    comdr corp dd dept dhr dir dl dr dra drs ds eds eig eng esp evt excl fam figs fr geb gebr gem gr
    hfst hoofdst hr incl ing ir jhr jkvr jl jr lic ll lt luit m.a.w maj mej mevr mgr mld mln mr mrd mrs
    ms msgr mw nl nr nrs ong opm penn plm plv pres prof resp rk secr sen sgt sr st stb stcrt str supt
    tel tj toel trb tw vb vgl viz vlg vnl voorz vs wd zg zgn
    """
)
# Words of their own too, or what often ends a sentence: an abbreviation only before a number.
_BEFORE_NUMBER = _words(
    """
    al apr art aug cat col dec dist div ed eq est ex feb fig jan jul jun max min mrt no nos nov oct okt
    op p par para pp prop pt ref rep rev sec sect sep sept ser tab vol vols
    """
)
# These may end a sentence or not; what follows tells.
_MAY_END = frozenset({"a.m", "e.a", "e.d", "i.d", "o.i.d", "p.m"})
_STARTERS = _words(
    """
    a after als an and at because before bij but by daarnaast daarom dat de deze die dit dus een er for
    from he het hij hoe how i if ik in it je maar met na om omdat on ook op she since sinds that the
    there these they this those to toen u volgens voor waar wat we what when where who wie wij you ze
    zij
    """
)
# A run of full stops is looked at once, from its start: the time stays linear.
_END = re.compile(r"(?<![.!?…。！？])[.!?…。！？]++[\"'”’»)\]*_]*+(?=\s|$)")
_LINE = re.compile(r"[^\n]+")
_MARKER = re.compile(
    r"\s*(?:[-*+•‣▪◦–—]\s+|\|\s*\S|>|#{1,6}\s|(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)°]\s+|\(\w{1,3}\)\s)"
)
_OPENERS = "\"'“‘«„([*_¿¡`"
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«„*_]+$")
_SENTENCE_ENDS = (".", "!", "?", "…", ":", ";")


def sentences(text: str) -> list[Span]:
    """Spans of the sentences of `text`, in order, without the spaces around them.

    They cover every character that isn't white space. A list item, a table row and a heading are sentences of
    their own; so is a line that a wrapped paragraph wouldn't have ended there.
    """
    return [span for start, end in _units(text) for span in _split_unit(text, start, end)]


def _units(text: str) -> Iterator[Span]:
    """Runs of lines that belong together: paragraphs with their wrapping undone, list items, rows."""
    for paragraph in _paragraphs(text):
        width = max(end - start for start, end in paragraph)
        first = 0
        for index in range(1, len(paragraph)):
            if _breaks_between(text, paragraph[index - 1], paragraph[index], width):
                yield paragraph[first][0], paragraph[index - 1][1]
                first = index
        yield paragraph[first][0], paragraph[-1][1]


def _paragraphs(text: str) -> Iterator[list[Span]]:
    lines: list[Span] = []
    for match in _LINE.finditer(text):
        start, end = _trim(text, *match.span())
        if start == end:
            continue
        if lines and text.count("\n", lines[-1][1], start) > 1:
            yield lines
            lines = []
        lines.append((start, end))
    if lines:
        yield lines


def _trim(text: str, start: int, end: int) -> Span:
    line = text[start:end].rstrip()
    return start + len(line) - len(line.lstrip()), start + len(line)


def _breaks_between(text: str, line: Span, following: Span, width: int) -> bool:
    """Whether the line end between two lines of a paragraph was meant.

    A wrapper fills each line as far as it can: where the next line's first word would still have fitted in
    the widest line, somebody broke off on purpose.
    """
    if _MARKER.match(text, following[0], following[1]) or text[line[0]] in "#|":
        return True
    if text[following[0]].islower() and text[line[1] - 1] not in _SENTENCE_ENDS:
        return False
    next_word = text[following[0] : following[1]].split(maxsplit=1)[0]
    return line[1] - line[0] + 1 + len(next_word) <= width


def _split_unit(text: str, start: int, end: int) -> Iterator[Span]:
    marker = _MARKER.match(text, start, end)
    first = marker.end() if marker else start
    for match in _END.finditer(text, first, end):
        stop = match.end()
        if stop < end and _ends_sentence(text, start, match, end):
            yield start, stop
            start = stop + len(text[stop:end]) - len(text[stop:end].lstrip())
    if start < end:
        yield start, end


def _ends_sentence(text: str, start: int, match: re.Match[str], end: int) -> bool:
    rest = text[match.end() : min(end, match.end() + 60)].lstrip()
    head = rest.lstrip(_OPENERS)
    starts_new = head[:1].isupper() or head[:1].isdigit() or rest[:1] in "“‘«„([*_¿¡`•-–" or not head
    starts_new = starts_new or (head[:2] in ("s ", "t ", "n ") and rest[:1] in "'’")
    if not starts_new:
        return False
    if match.group()[0] != "." or match.group().startswith(".."):
        return True
    return not _is_abbreviated(text[max(start, match.start() - 40) : match.start()], head)


def _is_abbreviated(before: str, following: str) -> bool:
    """Whether the full stop after `before` belongs to an abbreviation or a number, given what follows."""
    found = _LAST_WORD.search(before)
    word = found.group() if found else ""
    next_word = re.split(r"\W", following, maxsplit=1)[0]
    if len(word) == 1 and word.isupper():
        # "J. de Vries", but "vitamin C. The".
        return next_word.casefold() not in _STARTERS
    if "." in word and all(len(part) <= 2 for part in word.split(".")):
        return (word[0].islower() and word not in _MAY_END) or next_word.casefold() not in _STARTERS
    lowered = word.casefold()
    return lowered in _NEVER_LAST or (lowered in _BEFORE_NUMBER and following[:1].isdigit())
