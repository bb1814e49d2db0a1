"""The benchmarks measure what they say; no test asserts how long anything took."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from index_fakes import WordEmbedder, document

from corpus.errors import EvaluationError, ModelError
from corpus.limits import ReadLimits
from eval.bench import (
    TimedEmbedder,
    TimedReader,
    TimedReading,
    _process,
    bench_ask,
    bench_ingest,
    bench_search,
    grow,
)
from eval.bench_limits import (
    Limit,
    MachineLimits,
    ModelSize,
    embedding_limit,
    exact_search_limit,
    measure_limits,
    next_token_limit,
    pass_limit,
    read_model_size,
)
from eval.bench_report import BenchReport, Figure, save_by_commit
from index.collection import Collection
from rag.answerer import Answerer
from rag.answers import Style
from rag.reading import Claim, Reading, ReadingListener, ReadRequest

# 200 operations a second and 50 bytes read a second at best, weights of 2 bytes.
MACHINE = MachineLimits(1, 2, flops=(100.0, 200.0), bytes_read=(50.0, 20.0))
# Two layers of 10 weights: 40 operations a token besides attention, which sees a width of 4.
SIZE = ModelSize(layers=2, layer_weights=10, attention_width=4, is_causal=False)


@dataclass(slots=True)
class WordByWordReader:
    """Tells of three words and has written four tokens."""

    id: str = "fake/words"

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        for text in ("Het", "Het is", "Het is koud."):
            if listener is not None:
                listener.on_text(text)
        return Reading((Claim("Het is koud.", (1,)),), request.passages, 0.0, 0.9, 100, 4)

    def read_batch(self, requests: object, on_done: object = None) -> list[Reading]:
        raise NotImplementedError


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_text(self, text: str) -> bool:
        self.texts.append(text)
        return True


def test_a_figure_has_its_minimum_median_and_maximum() -> None:
    figure = Figure("work", "ms", (3.0, 1.0, 10.0, 2.0))
    assert figure.median == 2.5
    assert figure.share is None
    assert figure.row() == ("work (ms)", "4", "1", "2.5", "10", "", "")


def test_a_time_reaches_the_part_of_its_limit_that_it_is_above_it() -> None:
    time = Figure("work", "s", (4.0, 5.0, 6.0)).within(Limit(2.0, "reading", is_time=True))
    rate = Figure("work", "tokens/s", (4.0, 5.0, 6.0)).within(Limit(20.0, "arithmetic", is_time=False))
    assert time.share == 0.4
    assert rate.share == 0.25
    assert rate.row()[-2:] == ("20", "25%")


def test_the_arithmetic_of_a_pass_is_two_operations_a_weight_and_attention_between_all_pairs() -> None:
    # 3 tokens: 2 layers * (2 * 3 * 10 + 2 products * 2 * 3 * 3 * 4) = 2 * (60 + 144)
    assert SIZE.flops(3) == 408
    causal = ModelSize(2, 10, 4, is_causal=True)
    assert causal.flops(3) == 2 * (60 + 72)


def test_a_pass_is_bounded_by_the_slower_of_arithmetic_and_reading_the_weights() -> None:
    # Reading 20 weights of 2 bytes at 50 a second takes 0.8 s; 408 operations at 200 a second take 2.04 s.
    assert pass_limit(SIZE, 3, MACHINE).value == pytest.approx(2.04)
    assert "arithmetic" in pass_limit(SIZE, 3, MACHINE).basis
    # One token: 2 * (20 + 16) = 72 operations, 0.36 s.
    assert pass_limit(SIZE, 1, MACHINE).value == pytest.approx(0.8)
    assert next_token_limit(SIZE, MACHINE, unit_s=0.001).value == pytest.approx(400)  # 8 bits


def test_embedding_and_exact_search_are_bounded_by_arithmetic_and_by_memory() -> None:
    assert embedding_limit(SIZE, 3, MACHINE).value == pytest.approx(3 / 2.04)
    assert not embedding_limit(SIZE, 3, MACHINE).is_time
    # 10 vectors of 5 numbers of 2 bytes at 50 bytes a second
    assert exact_search_limit(10, 5, MACHINE).value == pytest.approx(2.0)


def test_limits_measured_twice_are_one_measurement() -> None:
    joined = MACHINE.joined(MachineLimits(1, 2, (500.0,), (10.0,)))
    assert joined.flops == (100.0, 200.0, 500.0)
    assert joined.bytes_read == (50.0, 20.0, 10.0)


def test_the_machine_is_measured_in_operations_and_bytes_a_second() -> None:
    found = measure_limits(repeats=1)
    assert found.bytes_per_weight in (2, 4)
    assert min(found.flops) > 1e8
    assert min(found.bytes_read) > 1e8


def test_an_encoders_size_is_read_from_its_config(tmp_path: Path) -> None:
    config = {"hidden_size": 6, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 10}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # four projections of 6 x 6 and two matrices of 6 x 10
    assert read_model_size(tmp_path) == ModelSize(3, 4 * 36 + 2 * 60, 6, is_causal=False)


def test_a_decoders_size_counts_shared_heads_and_a_gated_block(tmp_path: Path) -> None:
    config = {
        "hidden_size": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 5,
        "num_hidden_layers": 3,
        "intermediate_size": 10,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    # queries and output 6 x 20 each, keys and values 6 x 5 each, three matrices of 6 x 10
    assert read_model_size(tmp_path) == ModelSize(3, 2 * 120 + 2 * 30 + 3 * 60, 20, is_causal=True)


def test_a_folder_without_a_config_has_no_size(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        read_model_size(tmp_path)


def test_the_timed_embedder_changes_nothing_but_books_tokens_and_time() -> None:
    inner = WordEmbedder()
    timed = TimedEmbedder(inner)
    np.testing.assert_array_equal(
        timed.embed_passages(["een twee drie"]), inner.embed_passages(["een twee drie"])
    )
    np.testing.assert_array_equal(timed.embed_queries(["een"]), inner.embed_queries(["een"]))
    assert timed.tokens == 3
    assert timed.forward_s > 0


def test_the_timed_reader_passes_everything_on_and_books_the_first_token() -> None:
    reader, heard = TimedReader(WordByWordReader()), Heard()
    reading = reader.read(ReadRequest("Wat?", "nl", (), Style.FULL), heard)
    assert reading.new_tokens == 4
    assert heard.texts == ["Het", "Het is", "Het is koud."]
    (booked,) = reader.readings
    assert (booked.prompt_tokens, booked.new_tokens) == (100, 4)
    assert 0 < booked.first_s <= booked.read_s


def test_a_further_token_takes_what_the_first_left_over() -> None:
    assert TimedReading(100, 4, first_s=1.0, read_s=2.5).further_s == 0.5


def test_ingest_is_measured_on_every_passage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Het water is koud. " * 100)
    embedder = WordEmbedder()
    report = bench_ingest([tmp_path / "a.txt"], embedder, ReadLimits(), repeats=2, size=SIZE)
    figures = {figure.name: figure for figure in report.figures}
    passages = 1 + 2 * (embedder.embedded - 1) // 2
    assert passages > 3
    assert report.settings["passages"] == (embedder.embedded - 1) // 2
    assert len(figures["ingest"].values) == len(figures["embedding model alone"].values) == 2
    ingest, embedding = figures["ingest"].limit, figures["embedding model alone"].limit
    assert ingest is not None
    assert embedding is not None
    assert embedding.value / ingest.value == pytest.approx(report.settings["tokens_per_passage"], rel=0.01)


def test_search_is_measured_for_every_question_and_mode(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", "c", WordEmbedder()) as collection:
        collection.add(document(number) for number in range(5))
        report = bench_search(collection, ["water", "kaas", "brood"], size=SIZE)
    measured = report.figures[:4]
    assert [figure.name.split()[0] for figure in measured] == ["embedding", "dense", "lexical", "fused"]
    assert [len(figure.values) for figure in measured] == [3, 3, 3, 3]
    # So few vectors stay in the processor's cache: reading memory says nothing about their search.
    assert [figure.limit is not None for figure in measured] == [True, False, False, False]


def test_an_answer_is_measured_by_stage_and_by_token(tmp_path: Path) -> None:
    embedder = WordEmbedder()
    with Collection.create(tmp_path / "c", "c", embedder) as collection:
        collection.add(document(number) for number in range(5))
        reader = TimedReader(WordByWordReader())
        answerer = Answerer(collection, reader, embedder)
        report = bench_ask(answerer, reader, ["water", "kaas"], Style.FULL, SIZE)
    figures = {figure.name: figure for figure in report.figures}
    assert figures["ask: prompt"].values == (100.0, 100.0)
    assert figures["ask: written"].values == (4.0, 4.0)
    assert {"ask: embed", "ask: search", "ask: read", "ask: cite", "ask: total"} < figures.keys()
    further, pace = figures["ask: each further token"], figures["ask: reading"]
    assert further.limit is not None
    assert further.limit.is_time
    assert pace.limit is not None
    assert not pace.limit.is_time


def test_a_report_is_kept_by_commit_without_a_path_in_it(tmp_path: Path) -> None:
    figure = Figure("work", "s", (4.0, 6.0)).within(Limit(2.0, "reading", is_time=True))
    report = BenchReport("start", {"repeats": 2}, (figure,), MACHINE)
    file = report.save(tmp_path)
    assert file.name == "start.json"
    assert file.parent.parent == tmp_path
    content = json.loads(file.read_text())
    assert content["figures"] == [
        {
            "name": "work",
            "unit": "s",
            "n": 2,
            "min": 4.0,
            "median": 5.0,
            "max": 6.0,
            "values": [4.0, 6.0],
            "limit": 2.0,
            "limit_basis": "reading",
            "share_of_limit": 0.4,
        }
    ]
    assert content["limits"]["flops"] == [100.0, 200.0]
    assert str(tmp_path) not in file.read_text()


def test_a_folder_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="file"):
        save_by_commit(tmp_path / "file", "a.json", {})


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


def test_a_process_that_fails_is_named_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VRAAGBAAK_HOME", str(tmp_path))
    with pytest.raises(EvaluationError, match=r"`vraagbaak ask --collection nowhere .*nowhere"):
        _process(["ask", "--collection", "nowhere", "Why?"])
