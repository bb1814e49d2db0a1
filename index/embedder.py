"""Text to unit vectors, with the model that a collection is bound to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (n, dimension); every row has unit length."""


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What must be equal for two sets of vectors to be comparable."""

    id: str
    sha256: str
    dimension: int
    max_tokens: int
    query_prefix: str
    passage_prefix: str
    pooling: str


class Embedder(Protocol):
    """The part of an embedding model that the index needs; tests pass a ten-line fake."""

    @property
    def spec(self) -> EmbedderSpec: ...

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(questions), dimension); the query prefix is added here."""
        ...

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """Unit vectors of shape (len(passages), dimension); `on_progress` is told of each batch's size."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the model's own tokenizer, without prefix and special tokens."""
        ...
