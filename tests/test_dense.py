"""FAISS against NumPy brute force over what the store has: after insert, delete, restart and rebuild."""

from pathlib import Path

import numpy as np
import pytest
from index_fakes import WordEmbedder, document

from index.collection import Collection, derived_files
from index.hits import SearchMode

QUESTIONS = ["water en wind", "kaas brood nummer7", "green house", "versie0"]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "c", "c", WordEmbedder())


def brute_force(collection: Collection, question: str, limit: int) -> tuple[list[str], np.ndarray]:
    """The nearest chunks by NumPy alone, from the embeddings as SQLite has them."""
    with collection._store.reading() as transaction:
        batches = list(transaction.vectors_after(0))
        keys = np.concatenate([keys for keys, _ in batches])
        vectors = np.concatenate([vectors for _, vectors in batches]).astype(np.float64)
        chunks = transaction.chunks_by_key(keys.tolist())
    scores = vectors @ collection.embedder.embed_queries([question])[0].astype(np.float64)
    order = np.argsort(-scores, kind="stable")[:limit]
    return [chunks[int(keys[place])].id for place in order], scores[order]


def check(collection: Collection) -> None:
    for question in QUESTIONS:
        hits = collection.search(question, 10, SearchMode.DENSE)
        ids, scores = brute_force(collection, question, 10)
        np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=0, atol=2e-6)
        assert [hit.chunk.id for hit in hits] == ids
        assert [hit.dense_rank for hit in hits] == list(range(1, len(hits) + 1))


def test_equals_brute_force_through_a_collections_life(collection: Collection, tmp_path: Path) -> None:
    collection.add(document(number, words=400) for number in range(40))
    check(collection)
    collection.delete([f"doc/{number}" for number in range(0, 40, 3)])
    check(collection)
    collection.add([document(5, words=300, seed=1), document(100)])
    check(collection)
    collection.close()
    with Collection.open(tmp_path / "c", WordEmbedder()) as again:
        check(again)
    for file in derived_files(tmp_path / "c"):
        if file.is_file():
            file.unlink()
    with Collection.open(tmp_path / "c", WordEmbedder()) as rebuilt:
        check(rebuilt)


def test_finds_nothing_in_an_empty_collection(collection: Collection) -> None:
    assert collection.search("water", 5) == []
    collection.add([document(1)])
    collection.delete(["doc/1"])
    assert collection.search("water", 5) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "stamp"])
def test_a_damaged_snapshot_is_built_again(collection: Collection, tmp_path: Path, damage: str) -> None:
    collection.add(document(number) for number in range(20))
    collection.close()
    snapshot, stamp = tmp_path / "c" / "dense.faiss", tmp_path / "c" / "dense.json"
    content = snapshot.read_bytes()
    if damage == "stamp":
        stamp.write_text('{"generation": "many"}')
    else:
        snapshot.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"x" * 99}[damage])
    with Collection.open(tmp_path / "c", WordEmbedder()) as again:
        check(again)


def test_a_snapshot_of_another_state_is_not_believed(collection: Collection, tmp_path: Path) -> None:
    collection.add(document(number) for number in range(20))
    old = {name: (tmp_path / "c" / name).read_bytes() for name in ("dense.faiss", "dense.json")}
    collection.delete(["doc/3", "doc/4"])
    collection.add([document(50)])
    collection.close()
    for name, content in old.items():
        (tmp_path / "c" / name).write_bytes(content)
    with Collection.open(tmp_path / "c", WordEmbedder()) as again:
        check(again)
