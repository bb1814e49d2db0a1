"""Markdown as it is found on websites, without what isn't text: front matter, comments, tags, templates."""

import html
import re
from collections.abc import Iterator

from corpus.normalising import one_line, tidy

FRONT_MATTER = re.compile(
    r"\A\s*---[ \t]*\n(?=(?:[ \t]*\n|#[^\n]*\n)*+[\w\"' .-]{1,60}:\s)(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)",
    re.S,
)
"""YAML at the top of a text, with the fields as its first group."""

_TITLE = re.compile(r"^title:[ \t]*(?P<quote>[\"']?)(?P<title>[^\n]*?)(?P=quote)[ \t]*$", re.M)
_FENCE = re.compile(r"[ \t]{0,6}(```+|~~~+)")
_CODE_SPAN = re.compile(r"(`+[^`\n]+`+)")
_TAGS = """
    a abbr address area article aside audio b blockquote body br button caption center cite code col
    colgroup dd del details dfn div dl dt em embed figcaption figure font footer form h1 h2 h3 h4 h5 h6
    head header hr html i iframe img input ins kbd label li link main map mark meta nav noscript object
    ol option p path picture pre q rp rt ruby s samp section select small source span strike strong sub
    summary sup svg table tbody td textarea tfoot th thead time tr u ul var video
"""
_TAG = rf"(?:{'|'.join(sorted(_TAGS.split(), key=len, reverse=True))})(?:\s[^<>]*)?/?"
_REMOVED = re.compile(
    r"<(script|style)\b[^>]{0,500}>.{0,5000}?</\1\s*>|\{%[^%]{0,1000}%\}|\{\{[<%].{0,1000}?[>%]\}\}"
    r"|\{\{[^{}]{0,1000}\}\}|<\?xml[^<>]{0,200}\?>|<!doctype[^<>]{0,500}>",
    re.S | re.I,
)
_REPLACED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"</(?:t[dh])\s*>\s*<(?:t[dh])\b[^>]*>", re.I), " | "),
    (re.compile(r"<br\s*/?>", re.I), " "),
    (re.compile(r"<li\b[^>]*>[ \t]*", re.I), "\n- "),
    (re.compile(r"</?(?:p|div|tr|table|ul|ol|section|article|details|blockquote)(?:\s[^<>]*)?>", re.I), "\n"),
    (re.compile(rf"</?{_TAG}>", re.I), ""),
    (re.compile(r"<((?:https?://|mailto:)[^\s<>]+|[^\s<>@]+@[^\s<>@]+)>"), r"\1"),
    (re.compile(r"!\[([^\]\n]{0,500})\]\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)"), r"\1"),
    # A link within the same site leads nowhere from here; its words stay. A full address stays whole.
    (
        re.compile(r"\[([^\[\]\n]+)\]\((?!<?(?:https?:|mailto:|tel:))[^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)"),
        r"\1",
    ),
    (re.compile(r"\[([^\[\]\n]+)\]\[[^\[\]\n]*\]"), r"\1"),
    (re.compile(r"(?<![ \t])[ \t]*+\{[:#.][^{}\n]{0,200}\}"), ""),
    (re.compile(r"(?<![*\w])\*\*(?=\S)([^*\n]+?)\*\*(?!\*)"), r"\1"),
    (re.compile(r"(?<![_\w])__(?=\S)([^_\n]+?)__(?![_\w])"), r"\1"),
    (re.compile(r"^[ \t]*(?:!!!|\?\?\?\+?)[ \t]+[\w \t-]*?(?:\"([^\"\n]*)\")?[ \t]*$", re.M), r"\1"),
    (re.compile(r"^[ \t]*:{3,}[ \t]*\w*[ \t]*(?:\[([^\]\n]*)\])?.*$", re.M), r"\1"),
    (re.compile(r"^(?=[^\n]*\|)(?=[^\n]*--)[-:| \t]++(?:\n|\Z)", re.M), ""),
    (re.compile(r"^(?=\S)([^\n|>#-][^\n]*)\n=+[ \t]*$", re.M), r"# \1"),
    (re.compile(r"(?:(?<=\n\n)|\A)(?=\S)([^\n|>#-][^\n]*)\n-{3,}[ \t]*$", re.M), r"## \1"),
    (re.compile(r"^[ \t]{0,3}(#{2,6})(?=[^#\s!])", re.M), r"\1 "),
    (re.compile(r"^[ \t]{0,3}(#{1,6}[ \t]+.*?)[ \t]+#+[ \t]*$", re.M), r"\1"),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]*$", re.M), ""),
    (re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~])"), r"\1"),
)
_HTML_HEADING = re.compile(r"<h([1-6])\b[^<>]{0,500}>(.{0,1000}?)</h\1\s*>", re.S | re.I)
_MANY_SPACES = re.compile(r"[ \t]{40,}+")
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+)$", re.M)


def clean_markdown(text: str) -> tuple[str, str]:
    """The text, with Markdown headings, lists, tables and code kept, and its title, or "" for none.

    Words are kept, whatever they stand in; front matter is dropped except for its title.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    front = FRONT_MATTER.match(text)
    body = text[front.end() :] if front else text
    cleaned = tidy("".join(block if is_code else _clean_prose(block) for block, is_code in _blocks(body)))
    return cleaned, (title_of(front.group()) if front else "") or first_heading(cleaned)


def title_of(text: str) -> str:
    """The title that front matter gives, else the first heading; "" where there is neither."""
    front = FRONT_MATTER.match(text)
    found = _TITLE.search(front.group(1)) if front else None
    # A title that runs on over the next lines is marked so and left alone.
    title = one_line(found.group("title")) if found and found.group("title")[:1] not in (">", "|") else ""
    return title.strip("'\"") or first_heading(text[front.end() :] if front else text)


def first_heading(text: str) -> str:
    """The first heading of the highest level, as plain text; "" where there is none outside code."""
    prose = "".join(block for block, is_code in _blocks(text) if not is_code)
    headings = [(len(level), name) for level, name in _HEADING.findall(prose)]
    name = min(headings, key=lambda heading: heading[0])[1] if headings else ""
    return one_line(re.sub(r"[*`]|!?\[(?=[^\]]*\]\()|\]\([^)]*\)", "", name))


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Runs of lines, each with whether it is a fenced block of code."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        marker = _FENCE.match(line)
        if marker and not fence:
            yield "".join(lines), False
            lines, fence = [line], marker.group(1)
            continue
        lines.append(line)
        if fence and line.strip().startswith(fence):
            yield "".join(lines), True
            lines, fence = [], ""
    yield "".join(lines), bool(fence)


def _without_comments(text: str) -> str:
    """One that isn't closed stays; found by searching on, which is never slow."""
    parts, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start)) >= 0:
        parts.append(text[position:start])
        position = end + 3
    return "".join([*parts, text[position:]])


def _markdown_heading(found: re.Match[str]) -> str:
    return f"\n\n{'#' * int(found[1])} {one_line(found[2])}\n\n"


def _clean_prose(text: str) -> str:
    text = _REMOVED.sub("", _without_comments(_MANY_SPACES.sub(" ", text)))
    text = _HTML_HEADING.sub(_markdown_heading, text)
    # Code in backticks is kept to the letter: a number between two characters that no text has stands in.
    spans: list[str] = []

    def _set_aside(found: re.Match[str]) -> str:
        spans.append(found[0])
        return f"\ufdd0{len(spans) - 1}\ufdd1"

    text = _CODE_SPAN.sub(_set_aside, re.sub("[\ufdd0\ufdd1]", "", text))
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return re.sub("\ufdd0(\\d+)\ufdd1", lambda found: spans[int(found[1])], html.unescape(text))
