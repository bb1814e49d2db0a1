"""Documents into passages: cut at headings, paragraphs and sentences, each slice exact.

The text is taken apart into pieces (sentences, list items, table rows), all pieces' tokens are counted in
one call, and a shortest-path search over the cuts puts neighbours together: it weighs a passage's size
against where it would be cut. A heading is a border, except where a section is too short to stand alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from corpus.document import Chunk, Document
from corpus.markdown import FRONT_MATTER
from corpus.segmenting import Span, sentences

__all__ = ["ChunkingConfig", "CountTokens", "sentences", "split"]

CountTokens = Callable[[Sequence[str]], list[int]]
"""Tokens of each text; a whole is taken to have as many as its parts, as with any word-wise tokenizer."""

HEADING_SEPARATOR = " › "
_SEPARATORS = ["\n", "; ", ": ", ", ", " ", ""]
# Possessive, so that no line can make it slow.
_WORDLESS = re.compile(r"\s*+(?:(?:</?[a-zA-Z][^<>]*+>|\{%[^%]*+%\}|\{\{[^{}]*+\}\}|[-*_=]{3,}+)\s*+)*+$")
_HEADING = re.compile(r" {0,3}(?:(#{1,6})[ \t]+|(#{2,6})(?=[^\s#!]))(.*\S)")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|-{3,})\s*$")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_HEADING_CHARS = 500
_PIECE_CHARS = 10_000
_HEADING_MARKUP = re.compile(
    r"\s*\{[#:.][^}]*\}\s*$|[ \t]+#+\s*$|\*\*|__|`|<[^>]+>|!?\[(?=[^\]]*\]\()|\]\([^)]*\)"
)


@dataclass(frozen=True, slots=True)
class ChunkingConfig:
    """Sizes in tokens of the embedding model, without title, heading and prefix.

    A passage is near `target_tokens` and never past `max_tokens`; a section under `min_tokens` may share a
    passage with its neighbour.
    """

    target_tokens: int = 160
    max_tokens: int = 200
    min_tokens: int = 40

    def __post_init__(self) -> None:
        if not 0 <= self.min_tokens <= self.target_tokens <= self.max_tokens or self.max_tokens < 1:
            raise ValueError(f"0 <= min_tokens <= target_tokens <= max_tokens doesn't hold for {self}")


DEFAULT_CHUNKING = ChunkingConfig()


@dataclass(frozen=True, slots=True)
class _Section:
    """A run of text under one path of headings; the heading lines themselves are outside it."""

    path: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """The smallest part that stays whole. `cut_cost` is what it costs to end a passage after it.

    `tokens_before` are those of the headings and markup between the piece before it and this one.
    """

    start: int
    end: int
    section: int
    cut_cost: float
    tokens: int = 0
    tokens_before: int = 0


def split(
    document: Document, count_tokens: CountTokens, config: ChunkingConfig = DEFAULT_CHUNKING
) -> list[Chunk]:
    """The passages of `document`, in order, without overlap.

    Together they hold every character that isn't white space, but for heading lines, front matter, HTML
    comments and lines of nothing but tags. No passage is past `max_tokens`, and only a word that is longer
    than that itself is cut.
    """
    text = document.text
    sections = _sections(text, document.title)
    pieces = _pieces(text, sections, count_tokens, config)
    chunks = []
    for ordinal, (first, last) in enumerate(_grouped(pieces, sections, config)):
        start, end = pieces[first].start, pieces[last].end
        path = _common([sections[piece.section].path for piece in (pieces[first], pieces[last])])
        if pieces[last].section - pieces[first].section > 1:
            path = _common([sections[piece.section].path for piece in pieces[first : last + 1]])
        chunks.append(
            Chunk(
                id=f"{document.id}#{ordinal}",
                document_id=document.id,
                ordinal=ordinal,
                start=start,
                end=end,
                text=text[start:end],
                heading=HEADING_SEPARATOR.join(path),
            )
        )
    return chunks


def _sections(text: str, title: str) -> list[_Section]:
    """Falls back to the whole text where it would find nothing but headings and markup."""
    sections = [section for section in _walk(_masked(text), title) if section.spans]
    return sections or ([_Section((), ((0, len(text)),))] if text.strip() else [])


def _masked(text: str) -> str:
    """The same text with spaces for front matter and HTML comments; every offset stays."""
    front = FRONT_MATTER.match(text)
    spans = [front.span()] if front else []
    start = text.find("<!--")
    while start >= 0 and (end := text.find("-->", start)) >= 0:
        spans.append((start, end + 3))
        start = text.find("<!--", end)
    parts, position = [], 0
    for start, end in spans:
        start = max(start, position)
        parts.append(text[position:start])
        parts.append(re.sub(r"[^\n]", " ", text[start:end]))
        position = max(end, position)
    return "".join([*parts, text[position:]])


def _walk(text: str, title: str) -> Iterator[_Section]:
    """Sections in order; each span is a run of lines without a heading or a wordless line."""
    path: list[tuple[int, str]] = []
    spans: list[Span] = []
    start = position = 0
    fence = ""
    lines = text.splitlines(keepends=True)
    skip = False
    for index, line in enumerate(lines):
        end = position + len(line)
        marker = _FENCE.match(line)
        if marker and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else marker.group(1)
        heading = None if fence or skip else _heading(line, lines[index + 1 : index + 2], start == position)
        if skip or heading or (not fence and _WORDLESS.match(line)):
            if text[start:position].strip():
                spans.append((start, position))
            start = end
        if heading:
            yield _Section(_names(path, title), tuple(spans))
            spans = []
            path = [*(item for item in path if item[0] < heading[0]), heading[:2]]
        skip = bool(heading and heading[2])
        position = end
    if text[start:position].strip():
        spans.append((start, position))
    yield _Section(_names(path, title), tuple(spans))


def _heading(line: str, following: list[str], starts_block: bool) -> tuple[int, str, bool] | None:
    """Level, plain text, and whether the next line is its underline; None for any other line."""
    if len(line) > _HEADING_CHARS:
        return None
    match = _HEADING.match(line)
    if match:
        name = _heading_text(match.group(3))
        return (len(match.group(1) or match.group(2)), name, False) if name else None
    underline = _UNDERLINE.match(following[0]) if following and starts_block else None
    if underline and line.strip() and line.strip()[0] not in "|-*>" and not _WORDLESS.match(line):
        return (1 if underline.group(1) else 2), _heading_text(line), True
    return None


def _heading_text(line: str) -> str:
    return " ".join(_HEADING_MARKUP.sub("", line).split()).rstrip(":").rstrip()


def _names(path: list[tuple[int, str]], title: str) -> tuple[str, ...]:
    names = [name for _, name in path]
    return tuple(names[1:] if names and names[0].casefold() == title.casefold() else names)


def _pieces(
    text: str, sections: Sequence[_Section], count_tokens: CountTokens, config: ChunkingConfig
) -> list[_Piece]:
    found: list[_Piece] = []
    for number, section in enumerate(sections):
        for start, end in section.spans:
            found_here = [(start + first, start + last) for first, last in sentences(text[start:end])]
            spans = [part for span in found_here for part in _bounded(text, span)]
            found.extend(
                _Piece(*span, number, _cut_cost(text, span, following))
                for span, following in pairwise([*spans, (end, end)])
            )
    texts = [text[piece.start : piece.end] for piece in found]
    # Headings and markup between two pieces are in a passage that holds both, so that they count.
    between = [text[one.end : other.start].strip() for one, other in pairwise(found)]
    counts = count_tokens([*texts, *filter(None, between)])
    between_counts = iter(counts[len(texts) :])
    before = [0, *(next(between_counts) if markup else 0 for markup in between)]
    pieces: list[_Piece] = []
    for piece, tokens, tokens_before in zip(found, counts, before, strict=False):
        first, *rest = _fitting(text, piece, tokens, count_tokens, config.max_tokens)
        pieces.extend((replace(first, tokens_before=tokens_before) if tokens_before else first, *rest))
    return pieces


def _bounded(text: str, span: Span) -> Iterator[Span]:
    """The span itself, or parts that a tokenizer takes in its stride, cut at white space if there is any."""
    start, end = span
    while end - start > _PIECE_CHARS:
        cut = max(text.rfind(space, start, start + _PIECE_CHARS) for space in " \n\t") + 1
        cut = cut if cut > start else start + _PIECE_CHARS
        if text[start:cut].strip():
            yield start, start + len(text[start:cut].rstrip())
        start = cut
        while start < end and text[start].isspace():
            start += 1
    yield start, end


def _cut_cost(text: str, span: Span, following: Span) -> float:
    """Nothing at the end of a paragraph, more inside one, most after a line that announces a list."""
    if text[span[1] - 1] == ":" or text.startswith(("!!!", "???", ":::"), span[0]):
        return 0.4
    between = text.count("\n", span[1], following[0])
    return (0.2, 0.1, 0.0)[min(between, 2)] if following[0] < following[1] else 0.0


def _fitting(
    text: str, piece: _Piece, tokens: int, count_tokens: CountTokens, max_tokens: int
) -> list[_Piece]:
    """The piece with its tokens, or parts of it that are short enough."""
    if tokens <= max_tokens or piece.end - piece.start == 1:
        return [replace(piece, tokens=max(1, tokens))]
    size = max(1, (piece.end - piece.start) * max_tokens * 4 // (tokens * 5))
    parts = _cut_long(text, piece, size)
    counts = count_tokens([text[part.start : part.end] for part in parts])
    return [
        fitting
        for part, count in zip(parts, counts, strict=True)
        for fitting in _fitting(text, part, count, count_tokens, max_tokens)
    ]


def _cut_long(text: str, piece: _Piece, max_chars: int) -> list[_Piece]:
    """Parts of at most `max_chars` characters, at a clause or a space where there is one."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        separators=_SEPARATORS,
        keep_separator="end",
        chunk_size=max_chars,
        chunk_overlap=0,
        strip_whitespace=False,
    )
    parts: list[_Piece] = []
    position = piece.start
    for part in splitter.split_text(text[piece.start : piece.end]):
        # langchain's own start index is a guess; this is the next occurrence after the last part.
        start = text.index(part, position, piece.end)
        position = start + len(part)
        stripped = part.strip()
        if stripped:
            start += part.index(stripped)
            parts.append(_Piece(start, start + len(stripped), piece.section, 0.3))
    return [*parts[:-1], _Piece(parts[-1].start, parts[-1].end, piece.section, piece.cut_cost)]


def _grouped(
    pieces: Sequence[_Piece], sections: Sequence[_Section], config: ChunkingConfig
) -> list[tuple[int, int]]:
    """First and last piece of each passage: the cheapest way to cut the whole document.

    A passage costs how far it is from the target size, how bad its end is as a cut, and what each heading
    inside it costs.
    """
    joinable = _joinable(pieces, sections, config.min_tokens)
    best = [0.0] * (len(pieces) + 1)
    cut_before = [0] * (len(pieces) + 1)
    for end in range(1, len(pieces) + 1):
        best[end], tokens, headings = float("inf"), 0, 0
        for start in range(end - 1, -1, -1):
            tokens += pieces[start].tokens
            if start < end - 1:
                tokens += pieces[start + 1].tokens_before
                if tokens > config.max_tokens:
                    break
                if pieces[start].section != pieces[start + 1].section:
                    headings += 1
                    if not joinable[pieces[start].section]:
                        break
            size_cost = ((config.target_tokens - tokens) / config.target_tokens) ** 2
            cost = best[start] + size_cost + pieces[end - 1].cut_cost + 0.15 * headings
            if cost < best[end]:
                best[end], cut_before[end] = cost, start
    groups = []
    end = len(pieces)
    while end:
        groups.append((cut_before[end], end - 1))
        end = cut_before[end]
    return groups[::-1]


def _joinable(pieces: Sequence[_Piece], sections: Sequence[_Section], min_tokens: int) -> list[bool]:
    """Whether a passage may run over the heading after each section: one of the two sides is too short to
    stand alone, and the second is a part of the first or has the same parent."""
    tokens = [0] * len(sections)
    for piece in pieces:
        tokens[piece.section] += piece.tokens
    joins = [
        min(tokens[index], tokens[index + 1]) < min_tokens and _are_related(one.path, other.path)
        for index, (one, other) in enumerate(pairwise(sections))
    ]
    return [*joins, False]


def _are_related(path: tuple[str, ...], following: tuple[str, ...]) -> bool:
    return following[: len(path)] == path or (len(path) > 0 and path[:-1] == following[:-1])


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest path that all of them begin with."""
    shortest, longest = min(paths), max(paths)
    same = [one == other for one, other in zip(shortest, longest, strict=False)]
    return shortest[: (*same, False).index(False)]
