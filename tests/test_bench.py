"""The benchmarks measure what they say; no test asserts how long anything took."""

from pathlib import Path

import numpy as np
from index_fakes import WordEmbedder, document

from corpus.limits import ReadLimits
from eval.bench import Figure, TimedEmbedder, bench_ingest, bench_search, grow
from index.collection import Collection


def test_a_figure_has_its_minimum_median_and_maximum() -> None:
    figure = Figure("work", "ms", (3.0, 1.0, 10.0, 2.0))
    assert figure.median == 2.5
    assert figure.row() == ("work (ms)", "4", "1", "2.5", "10")


def test_the_timed_embedder_changes_nothing_but_books_tokens_and_time() -> None:
    inner = WordEmbedder()
    timed = TimedEmbedder(inner)
    np.testing.assert_array_equal(
        timed.embed_passages(["een twee drie"]), inner.embed_passages(["een twee drie"])
    )
    np.testing.assert_array_equal(timed.embed_queries(["een"]), inner.embed_queries(["een"]))
    assert timed.tokens == 3
    assert timed.forward_s > 0


def test_ingest_is_measured_on_every_passage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Het water is koud. " * 100)
    embedder = WordEmbedder()
    figures = bench_ingest([tmp_path / "a.txt"], embedder, ReadLimits(), repeats=2)
    assert [len(figure.values) for figure in figures] == [2, 2, 2]
    assert all(value > 0 for figure in figures for value in figure.values)
    passages = 1 + 2 * (embedder.embedded - 1) // 2
    assert passages > 3


def test_search_is_measured_for_every_question_and_mode(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", "c", WordEmbedder()) as collection:
        collection.add(document(number) for number in range(5))
        figures = bench_search(collection, ["water", "kaas", "brood"])
    assert [figure.name.split()[0] for figure in figures] == ["embedding", "dense", "lexical", "fused"]
    assert [len(figure.values) for figure in figures] == [3, 3, 3, 3]


def test_a_grown_collection_has_the_source_first_and_perturbed_copies_after_it(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", "c", WordEmbedder()) as source:
        source.add(document(number, words=300) for number in range(3))
        count = source.stats().chunks
        with grow(source, tmp_path / "grown", 3 * count) as grown:
            assert grown.stats().chunks == 3 * count
            first = source.embeddings("doc/1").astype(np.float32)
            np.testing.assert_array_equal(grown.embeddings("doc/1~0"), first)
            cosines = np.sum(grown.embeddings("doc/1~2").astype(np.float32) * first, axis=1)
            assert (cosines < 0.9999).all()
            assert (cosines > 0.98).all()
