"""Unit vectors of the training passages and questions, by the product's embedding model, kept in the run's folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.training.sources import Source


def passage_vectors(sources: Sequence[Source], embedder: Path, cache: Path) -> NDArray[np.float32]:
    """Vectors of shape (len(sources), dimension); only passages that the cache lacks are computed."""
    texts = ["passage: " + f"{source.title}\n{source.text}"[:700] for source in sources]
    return _vectors(texts, embedder, cache)


def question_vectors(
    sources: Sequence[Source], embedder: Path, cache: Path
) -> dict[str, NDArray[np.float32]]:
    """The vector (dimension,) of each question asked about the passages, by its text."""
    questions = sorted({asked.question for source in sources for asked in source.asked})
    vectors = _vectors(["query: " + question for question in questions], embedder, cache)
    return dict(zip(questions, vectors, strict=True))


def _vectors(texts: Sequence[str], embedder: Path, cache: Path) -> NDArray[np.float32]:
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    known: dict[str, NDArray[np.float32]] = {}
    if cache.exists():
        with np.load(cache) as saved:
            known = dict(zip(saved["keys"].tolist(), saved["vectors"], strict=True))
    new = sorted({key: text for key, text in zip(keys, texts, strict=True) if key not in known}.items())
    if new:
        import torch
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(embedder), device="cpu", model_kwargs={"dtype": torch.float32})
        model.max_seq_length = 192
        vectors = model.encode([text for _, text in new], batch_size=16, normalize_embeddings=True, prompt="")
        known |= {key: np.asarray(vector, np.float32) for (key, _), vector in zip(new, vectors, strict=True)}
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    return np.stack([known[key] for key in keys])
