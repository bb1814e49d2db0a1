"""HTML: the main content as Markdown, without menus, banners and feet (trafilatura, Apache-2.0)."""

import re
from typing import TYPE_CHECKING

from corpus.decoding import decode_text
from corpus.errors import BrokenDocumentError
from corpus.limits import ReadLimits
from corpus.markdown import first_heading
from corpus.normalising import one_line, tidy
from corpus.texts import Text

if TYPE_CHECKING:
    from lxml.html import HtmlElement

_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I)
_ENCODING_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_SEPARATOR_ROW = re.compile(r"^\|(?:[ ]*:?-{2,}:?[ ]*\|)+[ ]*\n?", re.M)
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+?)\*\*")
_SITE = re.compile(r"\s+(?:[|–—»·•-]|::)\s+[^|–—»·•]+$")
_NOT_CONTENT = (
    *("script", "style", "noscript", "template", "svg", "head", "iframe", "dialog"),
    *("nav", "header", "footer", "aside", "form", "button", "select", "menu", "object"),
)
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "ul", "ol", "table", "dl", "figure", "details", "body"}
    | {"blockquote", "pre", "address", "fieldset", "hr", "tbody", "thead", "caption", "summary", "dt", "dd"}
)
_MIN_SHARE = 0.5


def read_html(data: bytes, source: str, limits: ReadLimits) -> Text:
    """The main content of a page; of a page that has none to tell apart, all its text but the menus."""
    from lxml import etree, html

    text = _ENCODING_DECLARATION.sub("", _decoded(data, source), count=1)
    try:
        tree = html.document_fromstring(text) if text.strip() else None
    except (etree.LxmlError, ValueError, AssertionError) as error:
        raise BrokenDocumentError(source, f"this can't be read as HTML: {error}") from error
    if tree is None:
        return Text("")
    page_title = _page_title(tree)
    extracted = tidy(_extracted(text))
    everything = tidy(_walked(tree))
    # The extraction has an eye for articles; of a list of questions or a short page it may leave little.
    is_whole = len(extracted) >= _MIN_SHARE * len(everything)
    keeps_headings = bool(first_heading(extracted)) or not first_heading(everything)
    content = extracted if is_whole and keeps_headings else everything
    return Text(content, first_heading(content) or page_title)


def _decoded(data: bytes, source: str) -> str:
    declared = _CHARSET.search(data[:4096])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        name = declared.group(1).decode("ascii") if declared else ""
    try:
        # Browsers take Latin-1 to mean Windows-1252.
        return data.decode("cp1252" if name.lower() in ("iso-8859-1", "latin1", "latin-1") else name)
    except (LookupError, UnicodeDecodeError):
        return decode_text(data, source)


def _extracted(text: str) -> str:
    import trafilatura

    found = trafilatura.extract(
        text,
        output_format="markdown",
        include_formatting=True,
        include_comments=False,
        include_tables=True,
        include_links=False,
        favor_recall=True,
    )
    return _BOLD.sub(r"\1", _SEPARATOR_ROW.sub("", found or ""))


def _page_title(tree: "HtmlElement") -> str:
    """<title> without the site's name, else the title for social media."""
    title = one_line(" ".join(tree.xpath("//head//title/text()")))
    shared = one_line(" ".join(tree.xpath("//meta[@property='og:title']/@content")[:1]))
    return _SITE.sub("", title) or shared


def _walked(tree: "HtmlElement") -> str:
    """The words of <main>, or else of <body>, in order and without what frames them."""
    from lxml import etree

    for element in tree.xpath("|".join(f"//{name}" for name in _NOT_CONTENT)):
        if element.getparent() is not None and not (element.tag == "header" and _is_in_content(element)):
            element.drop_tree()
    mains = tree.xpath("//main|//*[@role='main']")
    parts: list[str] = []
    for event, element in etree.iterwalk(
        mains[0] if len(mains) == 1 else tree, events=("start", "end", "comment")
    ):
        if event == "comment":
            parts.append(element.tail or "")
        elif event == "start":
            parts.append(_opening(element.tag) + _inline(element.text))
        else:
            parts.append(_closing(element.tag) + _inline(element.tail))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line != "-")


def _is_in_content(element: "HtmlElement") -> bool:
    """An article's own <header> holds its heading."""
    return any(ancestor.tag in ("article", "main") for ancestor in element.iterancestors())


def _opening(tag: object) -> str:
    if not isinstance(tag, str):
        return ""
    if re.fullmatch(r"h[1-6]", tag):
        return f"\n\n{'#' * int(tag[1])} "
    if tag == "li":
        return "\n- "
    if tag in ("td", "th"):
        return " | "
    return "\n" if tag in ("br", "tr") else "\n\n" if tag in _BLOCKS else ""


def _closing(tag: object) -> str:
    if not isinstance(tag, str):
        return ""
    if tag == "tr":
        return " |"
    return "\n\n" if tag in _BLOCKS or re.fullmatch(r"h[1-6]", tag) else ""


def _inline(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")
