"""A ten-line embedding model and documents for it."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from corpus.document import Document
from index.embedder import EmbedderSpec, Vectors

WORDS = (  # noqa: SIM905
    "water wind zon maan ster huis boom straat fiets trein kaas brood melk appel peer vogel vis hond kat "
    "river cloud stone bread house green yellow market doctor engine"
).split()


class WordEmbedder:
    """Each word points in a direction of its own; a text is the sum of its words, at unit length."""

    def __init__(self, dimension: int = 32, model_id: str = "fake/words") -> None:
        self.spec = EmbedderSpec(model_id, "0" * 64, dimension, 512, "query: ", "passage: ", "mean")
        self.embedded = 0

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        return self._embed(questions)

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        self.embedded += len(passages)
        return self._embed(passages)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def _embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.stack([self._row(text) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _row(self, text: str) -> np.ndarray:
        words = text.lower().split() or ["nothing"]
        return np.sum(
            [
                np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.spec.dimension)
                for word in words
            ],
            axis=0,
        )


def document(number: int, words: int = 60, seed: int = 0, language: str = "nl", **metadata: str) -> Document:
    """A document of its own words, the same for the same number and seed."""
    generator = np.random.default_rng((seed, number))
    text = " ".join(generator.choice(WORDS, words)) + f" nummer{number} versie{seed}."
    return Document(
        id=f"doc/{number}",
        title=f"Document {number}",
        language=language,
        text=text,
        source=f"doc/{number}",
        metadata=metadata,
        sha256=f"{seed}-{number}",
    )
