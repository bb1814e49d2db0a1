"""Throw-away collections: built once, found again, gone on with; and a run on a real collection."""

import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_fakes import answer_of
from index_fakes import WordEmbedder
from typer.testing import CliRunner

from api.cli_eval import app
from corpus.document import Document
from corpus.errors import EvaluationError
from eval.cases import read_cases
from eval.corpora import FOLDER, Corpus, open_corpus, passages_of
from eval.records import read_records
from eval.runner import evaluate
from eval.summary import RunSettings
from eval.systems import CollectionSystem, MeteredReader
from index.hits import Filters, Hit, SearchMode
from rag.answers import Answer, Style
from rag.reading import Reading, ReadingListener, ReadRequest

DOCUMENTS = [
    {"id": "d/1", "title": "Bus", "language": "nl", "text": "De bus rijdt elk uur.", "source": "d/1"},
    {
        "id": "d/2",
        "title": "Trein",
        "language": "nl",
        "text": "De trein rijdt elk kwartier.",
        "source": "d/2",
    },
]
PAIRS: list[dict[str, Any]] = [
    {
        "id": f"p{number}",
        "document": f"web/{number}",
        "title": title,
        "passage_language": "nl",
        "passage": passage,
        "question": question,
        "language": "nl",
        "answerable": True,
        "short": short,
        "answer": passage,
        "evidence": passage,
    }
    for number, (title, passage, question, short) in enumerate(
        [
            ("Bus", "De bus rijdt elk uur.", "Hoe vaak rijdt de bus?", "elk uur"),
            ("Trein", "De trein rijdt elk kwartier.", "Hoe vaak rijdt de trein?", "elk kwartier"),
            ("Kaas", "Kaas kost vier euro.", "Wat kost kaas?", "vier euro"),
        ]
    )
]


def corpus_file(folder: Path) -> Path:
    file = folder / "d.jsonl.xz"
    file.write_bytes(lzma.compress("\n".join(map(json.dumps, DOCUMENTS)).encode()))
    return file


def opened(home: Path, paths: Sequence[Path], **options: Any) -> tuple[Corpus, WordEmbedder]:
    embedder = WordEmbedder()
    return open_corpus(paths, home=home, embedder=embedder, **options), embedder


def test_a_corpus_is_built_once_for_the_same_content(tmp_path: Path) -> None:
    file = corpus_file(tmp_path)
    told: list[tuple[int, int]] = []
    built, embedder = opened(
        tmp_path / "home", [file], on_progress=lambda done, total: told.append((done, total))
    )
    with built.collection as collection:
        assert collection.document("d/1").text == "De bus rijdt elk uur."
        assert collection.manifest.name == "d.jsonl.xz"
    assert (built.was_cached, embedder.embedded, told[-1]) == (False, 2, (2, 2))

    again, embedder = opened(tmp_path / "home", [file])
    again.collection.close()
    assert (again.was_cached, embedder.embedded) == (True, 0)

    file.write_bytes(lzma.compress(json.dumps(DOCUMENTS[0]).encode()))
    other, _ = opened(tmp_path / "home", [file])
    with other.collection as collection:
        assert collection.stats().documents == 1
    assert len(list((tmp_path / "home" / FOLDER).iterdir())) == 2


def test_another_model_has_a_corpus_of_its_own(tmp_path: Path) -> None:
    file = corpus_file(tmp_path)
    for name in ("fake/one", "fake/two"):
        open_corpus([file], home=tmp_path, embedder=WordEmbedder(model_id=name)).collection.close()
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


class InterruptedEmbedder(WordEmbedder):
    """The person at the keyboard loses patience at the second passage."""

    def embed_passages(self, passages: Sequence[str], on_progress: Any = None) -> "np.ndarray[Any, Any]":
        if any("trein" in passage for passage in passages):
            raise KeyboardInterrupt
        return super().embed_passages(passages, on_progress)


def test_a_build_that_was_broken_off_is_gone_on_with(tmp_path: Path) -> None:
    file = corpus_file(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        open_corpus([file], home=tmp_path, embedder=InterruptedEmbedder())
    built, _ = opened(tmp_path, [file])
    with built.collection as collection:
        assert sorted(collection.sha256s()) == ["d/1", "d/2"]
    assert not built.was_cached


def test_files_that_cannot_be_read_are_named_every_time(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.md").write_text("# Bus\n\nDe bus rijdt elk uur.\n", encoding="utf-8")
    (folder / "empty.md").write_bytes(b"")
    for _ in range(2):
        built, _ = opened(tmp_path / "home", [folder])
        built.collection.close()
        assert [failure.split(":")[0] for failure in built.failed] == ["empty.md"]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="there is nothing to read in the corpus"):
        opened(tmp_path, [tmp_path / "nowhere"])


class NamedReader:
    """In a folder of this machine, which is nobody's business; reads 10 tokens and writes 2."""

    id = "/models/reader"

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        return Reading((), request.passages, 1.0, 1.0, 10, 2)

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        return [self.read(request) for request in requests]


def test_what_a_reader_reads_and_writes_is_counted() -> None:
    reader = MeteredReader(NamedReader())
    request = ReadRequest("?", "nl", (), Style.SHORT)
    reader.read_batch([request, request])
    reader.read(request)
    assert (reader.usage.prompt_tokens, reader.usage.new_tokens) == (30, 6)
    assert reader.usage.read_s > 0
    assert reader.calibration is None


class LastWord:
    """Answers by the rule of the fake system."""

    def ask_batch(
        self, questions: Sequence[str], *, style: Style, mode: SearchMode, filters: Filters | None
    ) -> Sequence[Answer]:
        raise AssertionError("the passages are given")

    def answer_from_batch(
        self, questions: Sequence[str], hits: Sequence[Sequence[Hit]], *, style: Style
    ) -> Sequence[Answer]:
        return [
            answer_of(question, offered, style) for question, offered in zip(questions, hits, strict=True)
        ]


def test_pairs_are_run_on_their_own_passages(tmp_path: Path) -> None:
    set_file = tmp_path / "pairs.jsonl"
    set_file.write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    passages = passages_of(read_cases(set_file))
    built, _ = opened(tmp_path / "home", [], passages=passages)
    with built.collection as collection:
        system = CollectionSystem(collection, LastWord(), MeteredReader(NamedReader()))
        assert (system.info.reader, system.info.collection.documents) == ("reader", 3)
        evaluate(system, set_file, RunSettings(gold_passages=2), tmp_path / "out")
    records = list(read_records(tmp_path / "out" / "cases.jsonl"))
    for record in records:
        assert [passage.gold for passage in record.passages].count(True) == 1
        assert len(record.passages) == 2
        assert record.crosslingual is False
    # The last word of two.
    assert {record.metrics["has_ans_f1"] for record in records} == {0.666667}


def test_passages_stay_whole(tmp_path: Path) -> None:
    text = " ".join(f"Zin nummer {number} staat hier." for number in range(60))
    passage = Document("p#1", "T", "nl", text, "p", sha256="1" * 64)
    built, _ = opened(tmp_path, [], passages=[passage])
    with built.collection as collection:
        (chunk,) = collection.chunks("p#1")
    assert chunk.text == text


def test_a_run_searches_a_real_collection(tmp_path: Path) -> None:
    set_file = tmp_path / "set.jsonl"
    cases = [
        {
            "id": "1",
            "question": "bus rijdt",
            "language": "nl",
            "answerable": True,
            "relevant": [{"document": "d/1"}],
        },
        {
            "id": "2",
            "question": "trein",
            "language": "en",
            "answerable": True,
            "relevant": [{"document": "d/2"}],
        },
    ]
    set_file.write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    built, _ = opened(tmp_path / "home", [corpus_file(tmp_path)])
    with built.collection as collection:
        settings = RunSettings(retrieval_only=True, modes=tuple(SearchMode))
        summary = evaluate(CollectionSystem(collection), set_file, settings, tmp_path / "out")
    for mode in SearchMode:
        assert summary.metrics[f"recall@1:{mode.value}"]["all"].mean == 1.0
    assert summary.metrics["ndcg@10"]["crosslingual=true"].n == 1
    assert set(summary.timings.stages) == {"embed_s", "search_dense_s", "search_lexical_s", "search_fused_s"}


@pytest.mark.model
def test_the_command_line_runs_a_set_with_the_real_models(tmp_path: Path, home: Path) -> None:
    set_file = tmp_path / "pairs.jsonl"
    set_file.write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    runner = CliRunner()
    found = runner.invoke(
        app,
        [
            "run",
            str(set_file),
            "--gold-passages",
            "2",
            "--limit",
            "2",
            "--out",
            str(tmp_path / "read"),
            "--json",
        ],
    )
    assert found.exit_code == 0, found.output
    summary = json.loads(found.stdout)
    assert summary["metrics"]["verbatim_quotes"]["all"]["mean"] in (1.0, None)
    assert summary["metrics"]["invalid_markers"]["all"]["mean"] in (0.0, None)
    assert len(summary["system"]["reader_sha256"]) == 64
    assert str(home) not in found.stdout

    out = str(tmp_path / "searched")
    arguments = ["run", str(set_file), "--retrieval-only", "--mode", "all", "--out", out]
    assert runner.invoke(app, arguments).exit_code == 0
    assert (
        json.loads((tmp_path / "searched" / "summary.json").read_text())["metrics"]["recall@1"]["all"]["mean"]
        == 1.0
    )
    assert runner.invoke(app, arguments).exit_code == 8
    assert runner.invoke(app, [*arguments, "--resume"]).exit_code == 0
    assert runner.invoke(app, ["compare", out, out, "--fail-if-worse", "ndcg@10=0"]).exit_code == 0
