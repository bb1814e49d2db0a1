"""Two result lists into one, so that words help and never drown the vectors.

Reciprocal-rank fusion lets the worst of both sides count as much as the better one: across languages, where a
question shares only names and noise with the right passage, it loses to vectors alone. Here the cosine stays
the score, and words add to it by how much of the question's weight in words the chunk holds:

    score = cosine + weight * coverage

Coverage is absolute (see `index.lexical`), so that a question whose words aren't in the collection gets next
to nothing from the lexical side, whichever chunk is first there. `docs/retrieval.md` says how the weight was
chosen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.dense import DenseHits
from index.lexical import LexicalHits


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """`candidates` from each side; `weight` in units of cosine: E5's best hits differ by about 0.02."""

    candidates: int = 100
    weight: float = 0.1


@dataclass(frozen=True, slots=True)
class FusedHits:
    """Best first: chunk keys and fused scores, each of shape (n,)."""

    keys: NDArray[np.int64]
    scores: NDArray[np.float64]


def union(dense: DenseHits, lexical: LexicalHits) -> NDArray[np.int64]:
    """The keys that either side found, in increasing order."""
    return np.union1d(dense.keys, lexical.keys)


def fuse(
    keys: NDArray[np.int64],
    cosines: NDArray[np.float32],
    lexical: LexicalHits,
    config: FusionConfig,
) -> FusedHits:
    """Orders `keys`, whose cosines with the question are `cosines`; ties are broken by key."""
    coverage = np.zeros(len(keys))
    known = np.isin(lexical.keys, keys)
    coverage[np.searchsorted(keys, lexical.keys[known])] = lexical.coverages[known]
    scores = cosines.astype(np.float64) + config.weight * coverage
    order = np.lexsort((keys, -scores))
    return FusedHits(keys[order], scores[order])
