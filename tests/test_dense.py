"""FAISS against NumPy brute force over what the store has: after insert, delete, restart and rebuild."""

import json
from pathlib import Path

import numpy as np
import pytest
from index_fakes import WordEmbedder, document

import index.dense
from index.collection import Collection, derived_files
from index.dense import Coding, DenseIndex
from index.hits import Filters, SearchMode
from index.store import Transaction

QUESTIONS = ["water en wind", "kaas brood nummer7", "green house", "versie0"]


@pytest.fixture(params=["exact", "coded"])
def collection(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """Comparing everything, and by codes, whose candidates are more than there are chunks here."""
    if request.param == "coded":
        monkeypatch.setattr(index.dense, "EXACT_UP_TO", 20)
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


def coding(collection: Collection) -> Coding | None:
    return collection._dense.coding


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setattr(index.dense, "EXACT_UP_TO", 100)
    return Collection.create(tmp_path / "coded", "coded", WordEmbedder())


def test_the_form_follows_the_number_of_chunks(coded: Collection, tmp_path: Path) -> None:
    coded.add(document(number) for number in range(100))
    assert coding(coded) is None
    coded.add([document(100)])
    first = coding(coded)
    assert first is not None
    assert (first.fitted_on, first.depth, first.recall) == (101, 200, 1.0)
    coded.add(document(number) for number in range(101, 151))
    assert coding(coded) == first  # not yet one and a half times as many
    coded.add([document(151)])
    again = coding(coded)
    assert again is not None
    assert again.fitted_on == 152
    coded.delete([f"doc/{number}" for number in range(102)])
    assert coding(coded) == again  # 50 are left, half of the limit
    coded.delete(["doc/102"])
    assert coding(coded) is None
    check(coded)


def test_codes_are_kept_in_the_snapshot(coded: Collection, tmp_path: Path) -> None:
    coded.add(document(number) for number in range(150))
    kept = coding(coded)
    coded.close()
    saved = DenseIndex.load(tmp_path / "coded", 32, coded.embedder.spec.sha256)
    assert (len(saved), saved.coding) == (150, kept)
    stamp = json.loads((tmp_path / "coded" / "dense.json").read_text())
    assert stamp["coding"] == {"fitted_on": 150, "depth": 200, "recall": 1.0}


def test_a_scan_visits_every_list_of_codes(coded: Collection, tmp_path: Path) -> None:
    coded.add(document(number) for number in range(300))
    saved = DenseIndex.load(tmp_path / "coded", 32, coded.embedder.spec.sha256)
    query = coded.embedder.embed_queries(QUESTIONS[:1])
    for dense in (coded._dense, saved):
        assert dense.coding is not None
        assert dense._index.nlist == dense.coding.fitted_on // index.dense.ROWS_A_LIST > 1  # type: ignore[union-attr]
        assert sorted(dense._scan(query, 300, None)[1][0].tolist()) == list(range(1, 301))
        even = np.arange(2, 301, 2)
        assert sorted(dense._scan(query, 150, even)[1][0].tolist()) == even.tolist()


def test_a_snapshot_without_a_form_is_one_that_compares_everything(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index.dense, "EXACT_UP_TO", 100_000)
    collection.add(document(number) for number in range(60))
    collection.close()
    stamp = tmp_path / "c" / "dense.json"
    stamp.write_text(json.dumps({k: v for k, v in json.loads(stamp.read_text()).items() if k != "coding"}))
    assert len(DenseIndex.load(tmp_path / "c", 32, collection.embedder.spec.sha256)) == 60
    monkeypatch.setattr(index.dense, "EXACT_UP_TO", 20)
    with Collection.open(tmp_path / "c", WordEmbedder()) as again:
        assert coding(again) is not None
        check(again)


def test_another_object_takes_over_the_form_that_was_saved(coded: Collection, tmp_path: Path) -> None:
    coded.add(document(number) for number in range(90))
    with Collection.open(tmp_path / "coded", WordEmbedder()) as reader:
        coded.add(document(number) for number in range(90, 200))
        check(reader)
        assert coding(reader) == coding(coded)
        coded.delete(["doc/5"])
        check(reader)


def test_filters_reach_every_chunk_by_codes(coded: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    coded.add(document(number, half=str(number % 2), tenth=str(number % 10)) for number in range(300))
    assert coding(coded) is not None
    coded._dense.coding = Coding(300, 8, 0.9)
    for filters, count in ((Filters(metadata={"half": "1"}), 150), (Filters(metadata={"tenth": "3"}), 30)):
        with coded._store.reading() as transaction:
            allowed = transaction.matching(filters)
            assert allowed is not None
            assert len(allowed.keys) == count
            keys, rows = transaction.vectors_of(allowed.keys)
        query = coded.embedder.embed_queries(QUESTIONS[:1])[0]
        best = keys[np.argsort(-(rows.astype(np.float32) @ query))[:10]]
        with coded._store.reading() as transaction:
            (hits,) = coded._dense.search(query[None], 200, transaction, allowed.keys)
        assert set(hits.keys.tolist()) <= set(allowed.keys.tolist())
        assert len(hits.keys) == min(count, 200)
        assert hits.keys[:10].tolist() == best.tolist()
        with coded._store.reading() as transaction:
            (some,) = coded._dense.search(query[None], 12, transaction, allowed.keys)  # of 24 candidates
        assert set(some.keys.tolist()) <= set(allowed.keys.tolist())
        assert len(some.keys) == 12
        assert len({*some.keys[:10].tolist()} & {*best.tolist()}) >= 7


def test_candidates_are_put_in_the_order_of_their_stored_vectors(
    coded: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer candidates than chunks: each score is the stored one, and most of the ten best are there."""
    generator = np.random.default_rng(0)
    coded.add(document(number) for number in range(1500))
    found, scores = 0, []
    coded._dense.coding = Coding(1500, 100, 0.9)
    for _ in range(20):
        question = " ".join(generator.choice(["water", "kaas", "zon", "boom", "trein", "house"], 2))
        ids, cosines = brute_force(coded, question, 1500)
        by_id = dict(zip(ids, cosines, strict=True))
        hits = coded.search(question, 10, SearchMode.DENSE)
        scores += [hit.score - by_id[hit.chunk.id] for hit in hits]
        found += len({hit.chunk.id for hit in hits} & set(ids[:10]))
    np.testing.assert_allclose(scores, 0, atol=2e-6)
    assert found >= 150


def test_the_depth_is_the_first_with_enough_recall(
    coded: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded.add(document(number) for number in range(800))
    monkeypatch.setattr(index.dense, "DEPTHS", (10, 50, 100, 400, 800))
    with coded._store.reading() as transaction:
        measured = coded._dense.reshaped(transaction).coding
        recalls = {depth: recall_at(transaction, coded, depth) for depth in index.dense.DEPTHS}
    assert measured is not None
    assert measured.recall == pytest.approx(recalls[measured.depth], abs=1e-4)
    assert measured.recall >= index.dense.ENOUGH_RECALL
    assert all(recalls[depth] < index.dense.ENOUGH_RECALL for depth in recalls if depth < measured.depth)


def recall_at(transaction: Transaction, collection: Collection, depth: int) -> float:
    """Of the trials' ten nearest by brute force, the part that stands among so many candidates."""
    keys, rows = next(transaction.vectors_after(0))
    vectors = rows.astype(np.float32)
    trials = index.dense._trials(vectors)
    true = keys[np.argsort(-(trials @ vectors.T), axis=1)[:, :10]]
    collection._dense = collection._dense.reshaped(transaction)
    found = collection._dense._scan(trials, depth, None)[1]
    return float(
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true.tolist(), found.tolist(), strict=True)])
    )
