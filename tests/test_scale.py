"""The measurements at scale, on collections small enough for a test."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from index_fakes import WORDS, WordEmbedder

import eval.scale
import index.dense
from corpus.document import Document
from eval.scale import Sample, build, copier, fill, ingest_many, nearest, sample_collection, serve, table
from index.collection import DATABASE, Collection
from index.store import Store


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    embedder, generator = WordEmbedder(), np.random.default_rng(2)
    passages = [" ".join(generator.choice(WORDS, 12)) for _ in range(200)]
    questions = [" ".join(generator.choice(WORDS, 3)) for _ in range(25)]
    folder = tmp_path / "sample"
    folder.mkdir()
    np.save(folder / "vectors.npy", embedder.embed_passages(passages).astype(np.float16))
    np.save(folder / "questions.npy", embedder.embed_queries(questions))
    words = {"passages": passages, "questions": questions, "spec": asdict(embedder.spec)}
    (folder / "sample.json").write_text(json.dumps(words))
    return folder


def test_a_whole_collection_can_be_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = WordEmbedder()
    monkeypatch.setattr(eval.scale, "load_embedder", lambda name, home: embedder)
    with Collection.create(tmp_path / "c", "c", embedder) as collection:
        collection.add(
            Document(f"d{n}", "", "nl", f"{WORDS[n]} {WORDS[n + 1]}", "test", {}, str(n)) for n in range(9)
        )
    assert sample_collection(tmp_path / "s", tmp_path / "c", [WORDS[3]], tmp_path) == 9
    sample = Sample.load(tmp_path / "s")
    assert list(sample.passages) == [f"{WORDS[n]} {WORDS[n + 1]}" for n in range(9)]
    np.testing.assert_allclose(sample.vectors, embedder.embed_passages(sample.passages), atol=2e-3)
    np.testing.assert_allclose(sample.question_vectors, embedder.embed_queries([WORDS[3]]), atol=1e-6)


def test_copies_are_near_what_they_were_made_of_and_distinct(sample: Path) -> None:
    vectors = Sample.load(sample).vectors
    copies = np.concatenate([copier(vectors, 1)(150), copier(vectors, 2)(150)])
    assert copies.shape == (300, 32)
    np.testing.assert_allclose(np.linalg.norm(copies, axis=1), 1, atol=1e-5)
    near = np.sum(copies * np.tile(vectors[:150], (2, 1)), axis=1)
    # Moved by 0.55 of a difference whose squared length is at most 4, and mostly about 1.
    assert 0.6 < np.median(near) < 0.97
    assert len(np.unique(copies.round(4), axis=0)) == 300


def test_the_nearest_are_those_of_all_batches() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(90, 8)).astype(np.float16)
    queries = generator.normal(size=(4, 8)).astype(np.float32)
    batches = ((np.arange(at, at + 30) * 2, rows[at : at + 30]) for at in (0, 30, 60))
    true = np.argsort(-(queries @ rows.astype(np.float32).T), axis=1)[:, :10] * 2
    found = nearest(batches, queries)
    assert np.sort(found, axis=1).tolist() == np.sort(true, axis=1).tolist()


@pytest.mark.parametrize("exact", [True, False])
def test_a_size_is_filled_built_and_searched(
    sample: Path, tmp_path: Path, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval.scale, "DOCUMENTS_A_TRANSACTION", 4)
    for module in (index.dense, eval.scale):
        monkeypatch.setattr(module, "EXACT_UP_TO", 1000 if exact else 100)
    folder = tmp_path / "c"
    fill(folder, Sample.load(sample), 410)
    store = Store.open(folder / DATABASE)
    with store.reading() as transaction:
        assert (transaction.chunk_count(), transaction.counts().documents) == (410, 11)
        document = transaction.document("d/40")
        assert [document.text[c.start : c.end] for c in transaction.chunks_of("d/40")] == [
            c.text for c in transaction.chunks_of("d/40")
        ]
    store.close()
    built, served = build(folder, sample), serve(folder, sample, 1000)
    assert served.form == ("exact" if exact else "codes")
    assert served.recall == 1.0 if exact else served.recall > 0.8
    assert served.exact is not None
    assert served.fused.p50 <= served.fused.p95
    (line,) = table([(410, built, served)]).splitlines()[2:]
    assert line.startswith("| 410 | exact |" if exact else "| 410 | codes, ")
    assert line.count("|") == table([]).splitlines()[0].count("|")


def test_an_ingest_tells_what_is_in_and_goes_on(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval.scale, "REPORT_EVERY", 2)
    files = tmp_path / "files"
    files.mkdir()
    for number in range(4):
        (files / f"{number}.txt").write_text(f"{number}. Het water is vandaag koud en helder.")
    ingest_many(files, tmp_path / "c", sample)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["documents"] for line in lines[:-1]] == [2, 4]
    assert (lines[-1]["added"], lines[-1]["chunks"]) == (4, 4)
    ingest_many(files, tmp_path / "c", sample)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unchanged"] == 4
