"""The dense side: the chunks nearest to a question by cosine, with FAISS, derived from the store.

Up to `EXACT_UP_TO` chunks every stored vector is compared, as float16, just as SQLite has them. Beyond, each
vector is kept as one bit a dimension (RaBitQ, Gao and Long 2024); all of these are scanned, and the best
`depth` are compared again with the vectors that SQLite has. Either way a score depends only on what was stored.

The codes lie in `LISTS` inverted lists, so that each is taken around a centre near it, and every list is scanned:
questions are embedded apart from passages, and the lists nearest to one miss its passages (`docs/retrieval.md` has
the figures). A snapshot on disk saves reading all vectors again; it carries the generation that it was made at, and
one that doesn't fit is left alone and the index built from SQLite.
"""

import json
import os
from dataclasses import asdict, dataclass
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

EXACT_UP_TO = 100_000
"""Chunks up to which every vector is compared: 77 MB, and as fast as codes are, rescoring included."""

REFIT_AT_TIMES = 1.5
"""The codes are made anew once there are this many times the chunks that they were fitted on: the more chunks, the
more candidates have to be compared again (225,700 with what was enough for 100,000: 0.963 of the ten nearest)."""

FIT_ROWS = 20_000
ROWS_A_LIST = 40
LISTS = 64
"""Around how many centres codes are taken, where the sample has `ROWS_A_LIST` rows for each (FAISS asks for 39). With
64, 800 candidates have about the recall that 1,200 have with one; with 256 it is worse again."""

DEPTHS = (200, 300, 400, 500, 600, 800)
"""How many candidates may be compared again; the first with enough recall is taken, or the last. With the last, 200
real questions find 0.984 of their ten nearest of 225,700 real passages, and 0.993 of a million copies of them; more
would take a million over ten milliseconds."""

RECALL_AT = 10
ENOUGH_RECALL = 0.995
TRIAL_QUERIES = 128
TRIAL_COSINE = 0.8
"""Trials are stored vectors with noise of all directions, at this cosine with what they were: E5's questions
stand at about 0.85 with the best passage. Stored vectors themselves would be far too easy, and trials are still
easier than real questions (0.995 where these have 0.984, on all laws), so that more is asked of them."""


@dataclass(frozen=True, slots=True)
class DenseHits:
    """For one question, best first: chunk keys and cosines, each of shape (n,)."""

    keys: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Coding:
    """What codes were fitted on, how many candidates are compared again, and recall@10 of trials with that."""

    fitted_on: int
    depth: int
    recall: float


@dataclass(frozen=True, slots=True)
class _Stamp:
    generation: int
    last_key: int
    count: int
    model: str
    coding: Coding | None


class DenseIndex:
    """Not safe for threads by itself: the collection holds a lock around it.

    `coding` is None while every vector is compared.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.generation = -1
        self.last_key = 0
        self.coding: Coding | None = None
        self._index: faiss.IndexIDMap2 | faiss.IndexIVFRaBitQFastScan = _exact(dimension)

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
        self._stand_at(transaction)
        return True

    def _stand_at(self, transaction: Transaction) -> None:
        self.last_key = transaction.last_key()
        self.generation = transaction.generation()

    def _miscounts(self, transaction: Transaction) -> bool:
        same = self.generation == transaction.generation()
        return same and len(self) != transaction.chunk_count()

    # Which form

    def is_outgrown(self, count: int | None = None) -> bool:
        """Whether so many chunks, by default those that are in, call for another form or for fresh codes."""
        return _is_outgrown(self.coding, len(self) if count is None else count)

    def reshaped(self, transaction: Transaction) -> "DenseIndex":
        """Another index in the form that fits the store now; see `built`."""
        return self.built(transaction, self.dimension, exact=transaction.chunk_count() <= EXACT_UP_TO)

    @classmethod
    def built(cls, transaction: Transaction, dimension: int, *, exact: bool) -> "DenseIndex":
        """From all that the store has; besides the index itself it takes a bounded amount of memory."""
        index = cls(dimension)
        if exact:
            index.catch_up(transaction)
        else:
            index._index, index.coding = _fit(transaction, dimension)
            index._stand_at(transaction)
        return index

    def has_better_saved(self, folder: Path) -> bool:
        """Whether the folder's snapshot is of a form that this index has outgrown its own for."""
        stamp = _read_stamp(folder)
        return (
            stamp is not None and stamp.coding != self.coding and not _is_outgrown(stamp.coding, stamp.count)
        )

    # Searching

    def search(
        self,
        queries: Vectors,
        limit: int,
        transaction: Transaction,
        allowed: NDArray[np.int64] | None = None,
    ) -> list[DenseHits]:
        """The `limit` nearest chunks of each query, or of those with an allowed key; `queries` is (n, d)."""
        if not len(self) or (allowed is not None and not len(allowed)):
            return [DenseHits(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        if self.coding is None:
            scores, keys = self._scan(queries, limit, allowed)
            return [
                DenseHits(row[row >= 0], score[row >= 0]) for row, score in zip(keys, scores, strict=True)
            ]
        depth = max(self.coding.depth, 2 * limit)
        if allowed is not None and len(allowed) <= depth:
            candidates = np.broadcast_to(allowed, (len(queries), len(allowed)))
        else:
            candidates = self._scan(queries, depth, allowed)[1]
        return [
            _nearest(query, row[row >= 0], limit, transaction)
            for query, row in zip(queries, candidates, strict=True)
        ]

    def _scan(
        self, queries: Vectors, limit: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """FAISS' own search: scores and keys, each of shape (n, limit), with keys of -1 where there are fewer."""
        import faiss

        parameters = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(_bitmap(allowed))  # type: ignore[call-arg,arg-type]
            parameters = (
                faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
                if self.coding is None
                else faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist)  # type: ignore[call-arg,union-attr]
            )
        found: tuple[NDArray[np.float32], NDArray[np.int64]] = self._index.search(
            queries, min(limit, len(self)), params=parameters
        )
        return found

    def cosines(
        self, query: Vectors, keys: NDArray[np.int64], transaction: Transaction
    ) -> NDArray[np.float32]:
        """The cosines of one query, shape (1, d), with the chunks of these keys; NaN for one that isn't in."""
        vectors = np.full((len(keys), self.dimension), np.nan, np.float32)
        if self.coding is not None:
            found, rows = transaction.vectors_of(keys)
            vectors[np.isin(keys, found)] = rows
        else:
            for row, key in enumerate(keys.tolist()):
                try:
                    vectors[row] = self._index.reconstruct(key)
                except RuntimeError:  # FAISS has no other way to say that a key isn't there
                    continue
        cosines: NDArray[np.float32] = vectors @ query[0]
        return cosines

    # The snapshot

    def is_saved(self, folder: Path) -> bool:
        """Whether the snapshot in the folder stands at this index's generation, in its form."""
        stamp = _read_stamp(folder)
        return (
            stamp is not None
            and (stamp.generation, stamp.coding) == (self.generation, self.coding)
            and (folder / SNAPSHOT).is_file()
        )

    def save(self, folder: Path, model_sha256: str) -> None:
        """Writes the snapshot and then its stamp, each beside the old one and renamed."""
        import faiss

        (folder / STAMP).unlink(missing_ok=True)
        partial = folder / f".{SNAPSHOT}.partial"
        faiss.write_index(self._index, str(partial))
        os.replace(partial, folder / SNAPSHOT)
        stamp = _Stamp(self.generation, self.last_key, len(self), model_sha256, self.coding)
        partial = folder / f".{STAMP}.partial"
        partial.write_text(json.dumps(asdict(stamp)), encoding="utf-8")
        os.replace(partial, folder / STAMP)

    @classmethod
    def load(cls, folder: Path, dimension: int, model_sha256: str) -> "DenseIndex":
        """The snapshot where it is whole and of this model; an empty index, to be caught up, where not."""
        import faiss

        index = cls(dimension)
        stamp = _read_stamp(folder)
        if stamp is None or stamp.model != model_sha256:
            return index
        try:
            loaded = faiss.read_index(str(folder / SNAPSHOT))
        except RuntimeError:
            # Derived data: whatever is wrong with it, SQLite has the truth and the index is built from that.
            return index
        form = faiss.IndexIDMap2 if stamp.coding is None else faiss.IndexIVFRaBitQFastScan
        # Read again: another process may have replaced both between the two.
        fits = isinstance(loaded, form) and loaded.d == dimension and _read_stamp(folder) == stamp
        if fits and loaded.ntotal == stamp.count:
            index._index, index.coding = loaded, stamp.coding  # type: ignore[assignment]
            index.generation, index.last_key = stamp.generation, stamp.last_key
        return index

    def _clear(self) -> None:
        self._index, self.coding = _exact(self.dimension), None
        self.generation, self.last_key = -1, 0


def _is_outgrown(coding: Coding | None, count: int) -> bool:
    """Going back to comparing everything waits for half the size, so that it isn't done to and fro."""
    if coding is None:
        return count > EXACT_UP_TO
    return count > REFIT_AT_TIMES * coding.fitted_on or count < EXACT_UP_TO // 2


def _exact(dimension: int) -> "faiss.IndexIDMap2":
    import faiss

    flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIDMap2(flat)


def _codes(sample: Vectors) -> "faiss.IndexIVFRaBitQFastScan":
    """An empty index of one-bit codes around centres of the sample, of which a search visits all."""
    import faiss

    dimension, lists = sample.shape[1], max(1, min(LISTS, len(sample) // ROWS_A_LIST))
    index = faiss.IndexIVFRaBitQFastScan(
        faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT
    )
    index.nprobe = lists
    index.cp.spherical = False
    index.cp.max_points_per_centroid = len(sample)
    index.train(sample)
    return index


def _fit(transaction: Transaction, dimension: int) -> "tuple[faiss.IndexIVFRaBitQFastScan, Coding]":
    """Codes of all the store's vectors, with the depth at which trials find enough of their true neighbours."""
    count = transaction.chunk_count()
    step = max(1, count // FIT_ROWS)
    # Copied, since a slice would keep its whole batch.
    parts = [rows[::step].copy() for _, rows in transaction.vectors_after(0)]
    sample = np.concatenate(parts).astype(np.float32)
    index = _codes(sample)
    trials = _trials(sample)
    nearest = _Nearest(trials)
    for keys, rows in transaction.vectors_after(0):
        vectors = rows.astype(np.float32)
        index.add_with_ids(vectors, keys)
        nearest.see(keys, vectors)
    _, found = index.search(trials, min(DEPTHS[-1], count))
    for depth in DEPTHS:
        recall = _share_found(nearest.keys, found[:, :depth])
        if recall >= ENOUGH_RECALL:
            break
    return index, Coding(count, depth, round(recall, 4))


def _trials(sample: Vectors) -> Vectors:
    """Unit vectors of shape (n, d), each at `TRIAL_COSINE` with one of the sample."""
    generator = np.random.default_rng(0)
    chosen = sample[generator.choice(len(sample), min(len(sample), TRIAL_QUERIES), replace=False)]
    noise = generator.normal(size=chosen.shape)
    noise -= np.sum(noise * chosen, axis=1, keepdims=True) * chosen
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    trials = TRIAL_COSINE * chosen + np.sqrt(1 - TRIAL_COSINE**2) * noise
    return np.ascontiguousarray(trials, np.float32)


class _Nearest:
    """The true nearest of each query among all rows seen; `keys` is of shape (n, RECALL_AT) at most."""

    def __init__(self, queries: Vectors) -> None:
        self._queries = queries
        self._scores = np.empty((len(queries), 0), np.float32)
        self.keys = np.empty((len(queries), 0), np.int64)

    def see(self, keys: NDArray[np.int64], vectors: Vectors) -> None:
        scores = np.concatenate([self._scores, self._queries @ vectors.T], axis=1)
        every = np.concatenate([self.keys, np.broadcast_to(keys, (len(scores), len(keys)))], axis=1)
        best = np.argpartition(-scores, min(RECALL_AT, scores.shape[1]) - 1, axis=1)[:, :RECALL_AT]
        self._scores = np.take_along_axis(scores, best, axis=1)
        self.keys = np.take_along_axis(every, best, axis=1)


def _share_found(true: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Which part of each row's true keys is in the same row of `found`, at the mean."""
    return float(np.mean([np.isin(some, row).mean() for some, row in zip(true, found, strict=True)]))


def _nearest(
    query: NDArray[np.float32], keys: NDArray[np.int64], limit: int, transaction: Transaction
) -> DenseHits:
    """The best of these keys by their stored vectors; ties are broken by key."""
    import torch

    there, rows = transaction.vectors_of(keys)
    # numpy takes eight times as long to widen them, a twentieth of the search at a million.
    scores = (torch.from_numpy(rows).float() @ torch.from_numpy(query)).numpy()
    order = np.lexsort((there, -scores))[:limit]
    return DenseHits(there[order], scores[order])


def _bitmap(keys: NDArray[np.int64]) -> NDArray[np.uint8]:
    """One bit a key, as FAISS reads it: the lowest bit of a byte first."""
    bits = np.zeros(int(keys.max()) + 1, bool)
    bits[keys] = True
    return np.packbits(bits, bitorder="little")


def _read_stamp(folder: Path) -> _Stamp | None:
    """What `dense.json` says; None where there is none, or one that can't be understood."""
    try:
        content = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        coding = content.get("coding")
        return _Stamp(
            int(content["generation"]),
            int(content["last_key"]),
            int(content["count"]),
            str(content["model"]),
            None
            if coding is None
            else Coding(int(coding["fitted_on"]), int(coding["depth"]), float(coding["recall"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
