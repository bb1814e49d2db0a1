"""What a reader makes of a file's bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Text:
    """Normalised text with Markdown headings, its title ("" where it has none), and a PDF's page offsets."""

    text: str
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    page_starts: tuple[int, ...] = ()
