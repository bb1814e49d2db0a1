"""Fusion as a pure function: words lift, never bury; nothing found is lost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.dense import DenseHits
from index.fusion import FusionConfig, fuse, union
from index.lexical import LexicalHits

CONFIG = FusionConfig(weight=0.1)


def lexical(*pairs: tuple[int, float]) -> LexicalHits:
    keys = np.array([key for key, _ in pairs], np.int64)
    coverages = np.array([coverage for _, coverage in pairs], np.float32)
    return LexicalHits(keys, coverages * 20, coverages)


def order(cosines: dict[int, float], words: LexicalHits) -> list[int]:
    keys = np.array(sorted(cosines), np.int64)
    values = np.array([cosines[key] for key in sorted(cosines)], np.float32)
    return fuse(keys, values, words, CONFIG).keys.tolist()


def test_by_hand() -> None:
    # 0.85 + 0.1 * 0.5 = 0.90; 0.88 + 0.1 * 0.1 = 0.89; 0.87
    assert order({1: 0.88, 2: 0.87, 3: 0.85}, lexical((3, 0.5), (1, 0.1))) == [3, 1, 2]


def test_without_words_the_vectors_decide_and_ties_go_by_key() -> None:
    assert order({5: 0.9, 2: 0.8, 3: 0.9}, lexical()) == [3, 5, 2]


def test_words_of_an_unknown_chunk_are_passed_over() -> None:
    assert order({1: 0.9, 2: 0.8}, lexical((7, 1.0))) == [1, 2]


cosines = st.dictionaries(st.integers(1, 50), st.floats(0.75, 1, width=32), min_size=1, max_size=20)


@given(cosines, st.dictionaries(st.integers(1, 50), st.floats(0, 1, width=32), max_size=20))
def test_properties(near: dict[int, float], covered: dict[int, float]) -> None:
    keys = np.array(sorted(near), np.int64)
    values = np.array([near[key] for key in sorted(near)], np.float32)
    words = lexical(*covered.items())
    fused = fuse(keys, values, words, CONFIG)
    assert sorted(fused.keys.tolist()) == sorted(near)
    assert (np.diff(fused.scores) <= 0).all()
    for key, score in zip(fused.keys.tolist(), fused.scores.tolist(), strict=True):
        expected = np.float32(near[key]) + 0.1 * float(np.float32(covered.get(key, 0)))
        np.testing.assert_allclose(score, expected, atol=1e-6)


@given(st.lists(st.integers(1, 99), unique=True), st.lists(st.integers(1, 99), unique=True))
def test_union_has_every_key_once(near: list[int], worded: list[int]) -> None:
    scores = np.zeros(len(near), np.float32)
    both = union(DenseHits(np.array(near, np.int64), scores), lexical(*((key, 0.5) for key in worded)))
    assert both.tolist() == sorted({*near, *worded})
