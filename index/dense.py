"""The dense side: exact inner products over unit vectors with FAISS, derived from the store.

Vectors are kept as float16, just as SQLite has them, so that a score depends only on what was stored. A
snapshot on disk saves reading them all again; it carries the generation that it was made at, and one that
doesn't fit is left alone and the index built from SQLite.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.embedder import Vectors
from index.store import Transaction

if TYPE_CHECKING:
    import faiss

SNAPSHOT = "dense.faiss"
STAMP = "dense.json"


@dataclass(frozen=True, slots=True)
class DenseHits:
    """For one question, best first: chunk keys and cosines, each of shape (n,)."""

    keys: NDArray[np.int64]
    scores: NDArray[np.float32]


class DenseIndex:
    """Not safe for threads by itself: the collection holds a lock around it."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.generation = -1
        self.last_key = 0
        self._index = _empty(dimension)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def catch_up(self, transaction: Transaction, *, settle: bool = False) -> bool:
        """Takes in what was added and drops what was removed since; False where nothing had changed.

        A transaction that began before this index was last brought up to date changes nothing. With
        `settle`, when no one else can be writing, an index ahead of its store is one of another store.
        """
        generation = transaction.generation()
        if settle and (generation < self.generation or self._miscounts(transaction)):
            self._clear()
        if generation <= self.generation:
            return False
        removed = transaction.removed_since(self.generation) if self.generation >= 0 else []
        if removed:
            self._index.remove_ids(np.array(removed, np.int64))  # type: ignore[arg-type]
        for keys, vectors in transaction.vectors_after(self.last_key):
            self._index.add_with_ids(vectors.astype(np.float32), keys)
        self.last_key = transaction.last_key()
        self.generation = generation
        return True

    def _miscounts(self, transaction: Transaction) -> bool:
        same = self.generation == transaction.generation()
        return same and len(self) != transaction.chunk_count()

    def search(
        self, queries: Vectors, limit: int, allowed: NDArray[np.int64] | None = None
    ) -> list[DenseHits]:
        """The `limit` nearest chunks of each query, or of those with an allowed key; `queries` is (n, d)."""
        import faiss

        if not len(self):
            return [DenseHits(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        selector = None if allowed is None else faiss.IDSelectorBatch(allowed)
        parameters = None if selector is None else faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, keys = self._index.search(queries, min(limit, len(self)), params=parameters)
        return [DenseHits(row[row >= 0], score[row >= 0]) for row, score in zip(keys, scores, strict=True)]

    def cosines(self, query: Vectors, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """The cosines of one query, shape (1, d), with the chunks of these keys; NaN for one that isn't in."""
        vectors = np.full((len(keys), self.dimension), np.nan, np.float32)
        for row, key in enumerate(keys.tolist()):
            try:
                vectors[row] = self._index.reconstruct(key)
            except RuntimeError:  # FAISS has no other way to say that a key isn't there
                continue
        cosines: NDArray[np.float32] = vectors @ query[0]
        return cosines

    def is_saved(self, folder: Path) -> bool:
        """Whether the snapshot in the folder stands at this index's generation."""
        try:
            stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
            return bool(stamp["generation"] == self.generation) and (folder / SNAPSHOT).is_file()
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def save(self, folder: Path, model_sha256: str) -> None:
        """Writes the snapshot and then its stamp, each beside the old one and renamed."""
        import faiss

        (folder / STAMP).unlink(missing_ok=True)
        partial = folder / f".{SNAPSHOT}.partial"
        faiss.write_index(self._index, str(partial))
        os.replace(partial, folder / SNAPSHOT)
        stamp = {
            "generation": self.generation,
            "last_key": self.last_key,
            "count": len(self),
            "model": model_sha256,
        }
        partial = folder / f".{STAMP}.partial"
        partial.write_text(json.dumps(stamp), encoding="utf-8")
        os.replace(partial, folder / STAMP)

    @classmethod
    def load(cls, folder: Path, dimension: int, model_sha256: str) -> "DenseIndex":
        """The snapshot where it is whole and of this model; an empty index, to be caught up, where not."""
        import faiss

        index = cls(dimension)
        try:
            stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
            loaded = faiss.read_index(str(folder / SNAPSHOT))
            fits = (stamp["model"], stamp["count"]) == (model_sha256, loaded.ntotal)
            if fits and loaded.d == dimension:
                index._index = loaded  # type: ignore[assignment]
                index.generation, index.last_key = int(stamp["generation"]), int(stamp["last_key"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            # Derived data: whatever is wrong with it, SQLite has the truth and the index is built from that.
            return cls(dimension)
        return index

    def _clear(self) -> None:
        self._index = _empty(self.dimension)
        self.generation, self.last_key = -1, 0


def _empty(dimension: int) -> "faiss.IndexIDMap2":
    import faiss

    flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIDMap2(flat)
