"""What a search is asked and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from corpus.document import Chunk, Language


class SearchMode(StrEnum):
    """Which side of the index answers: vectors, words, or both fused."""

    DENSE = "dense"
    LEXICAL = "lexical"
    FUSED = "fused"


@dataclass(frozen=True, slots=True)
class Filters:
    """Only chunks of documents that fit all of these; an empty field lets everything through.

    `documents` are document ids; `metadata` are exact key-value pairs of `Document.metadata`.
    """

    languages: frozenset[Language] = frozenset()
    documents: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.languages or self.documents or self.metadata)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, best first.

    `score` orders one result list and compares with nothing else. The ranks count from 1 and are None where
    that side didn't find the chunk.
    """

    chunk: Chunk
    score: float
    dense_rank: int | None = None
    lexical_rank: int | None = None
