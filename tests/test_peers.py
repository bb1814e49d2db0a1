"""The comparison with other programs: the wire, the rounds and the arithmetic of the table, without any peer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corpus.document import Document
from corpus.errors import EvaluationError
from eval.peers import environments
from eval.peers.environments import ensure_environment
from eval.peers.jobs import (
    Answered,
    Ingested,
    Question,
    ask_rounds,
    fill,
    ingest_rounds,
    long_answers,
    without_markers,
    write_files,
)
from eval.peers.process import Worker
from eval.peers.tables import ask_rows, ingest_rows, markdown, same_answers, spread, to_dict
from eval.peers.workers.wire import TokenClock

WIRE = Path(environments.__file__).parent / "workers" / "wire.py"
FAKE_WORKER = """
class System:
    def __init__(self, config, clock):
        print("a library's banner")
        self.base = config["base"]
    def settings(self):
        return {"kind": "fake"}
    def add(self, number):
        print("chatter")
        return self.base + number
"""
QUESTIONS = [Question(f"vraag {number}", "prompt", (1, 2)) for number in range(3)]


class FakeSystem:
    """Answers from a script and keeps, in a list that all systems share, what it was asked."""

    def __init__(self, name: str, calls: list[tuple[str, str]], tokens: int = 25) -> None:
        self.name = name
        self.calls = calls
        self.tokens = tokens

    def call(self, do: str, **arguments: Any) -> Any:
        self.calls.append((self.name, do))
        if do == "cut":
            return {"passages": ["een", "twee"], "tokens": 10}
        if do == "ingest":
            assert arguments["passages"] == ["een", "twee"]
            return {"seconds": 4.0, "embed_s": 2.0}
        return {
            "search_s": 0.1,
            "first_s": 1.0,
            "write_s": 2.4,
            "whole_s": 3.6,
            "prompt_tokens": 580,
            "new_tokens": self.tokens if "lang" in arguments["question"] or not arguments["prompt"] else 25,
            "text": "2] Een zin. [",
            "prompt_ids": [5, 6],
        }


def answered(first: float, whole: float | None, text: str = "een") -> Answered:
    return Answered(first, 10.0 * first, first + 1, whole, 580, 25, text)


def test_the_wire_carries_results_only_whatever_a_library_prints(tmp_path: Path) -> None:
    (tmp_path / "fake_worker.py").write_text(FAKE_WORKER)
    done = subprocess.run(
        [sys.executable, WIRE, "fake_worker", '{"base": 40}'],
        input='{"do": "add", "number": 2}\n{"do": "add", "number": 3}\n',
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["result"] for result in results] == [{"kind": "fake"}, 42, 43]
    assert all(result["peak_mb"] > 0 for result in results)
    assert "chatter" in done.stderr


def test_a_worker_that_cant_start_is_named_with_its_reason(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(EvaluationError, match="No module named 'nowhere_worker'"):
        Worker("nowhere", Path(sys.executable), {"threads": 1}, log)


def test_a_token_clock_counts_the_prompt_once_and_then_tokens() -> None:
    class Ids:
        shape = (1, 580)

    clock = TokenClock()
    for _ in range(4):
        clock.put(Ids())
    clock.end()
    result = clock.result(0.5, "tekst")
    assert (result["prompt_tokens"], result["new_tokens"], result["text"]) == (580, 3, "tekst")
    assert result["first_s"] + result["write_s"] <= result["whole_s"] - 0.5


def test_every_round_asks_all_systems_and_begins_with_the_next_one() -> None:
    calls: list[tuple[str, str]] = []
    systems = [FakeSystem(name, calls) for name in ("vraagbaak", "txtai", "llamacpp")]
    answers = ask_rounds(systems, QUESTIONS, lambda _: None)
    asked = [name for name, _ in calls]
    assert asked[:3] == ["vraagbaak", "txtai", "llamacpp"]
    assert asked[3:] == [
        *("vraagbaak", "txtai", "llamacpp"),
        *("txtai", "llamacpp", "vraagbaak"),
        *("llamacpp", "vraagbaak", "txtai"),
    ]
    assert {name: len(each) for name, each in answers.items()} == {
        "vraagbaak": 3,
        "txtai": 3,
        "llamacpp": 3,
    }
    one = answers["txtai"][0]
    assert (one.step_ms, one.write_s, one.whole_s, one.text) == (100.0, 3.4, 3.6, "Een zin.")
    assert answers["llamacpp"][0].whole_s is None


def test_all_systems_ingest_what_ours_cut(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []
    systems = [FakeSystem(name, calls) for name in ("vraagbaak", "txtai")]
    rounds = ingest_rounds(systems, [tmp_path / "a", tmp_path / "b"], lambda _: None)
    assert calls[:2] == [("vraagbaak", "cut")] * 2
    assert [name for name, _ in calls[2:]] == [
        "vraagbaak",
        "txtai",
        "vraagbaak",
        "txtai",
        "txtai",
        "vraagbaak",
    ]
    assert rounds["txtai"] == [Ingested(2, 10, 4.0, 2.0)] * 2


def test_a_system_without_an_index_is_given_nothing_to_index(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []
    assert fill([FakeSystem(name, calls) for name in ("vraagbaak", "llamacpp")], tmp_path / "a") == 2
    assert calls == [("vraagbaak", "cut"), ("vraagbaak", "ingest")]


def test_only_questions_with_long_answers_are_asked() -> None:
    told: list[str] = []
    found = long_answers(
        FakeSystem("vraagbaak", []), ["a", "b", "c"], 2, 25, lambda ids: f"prompt {ids}", told.append
    )
    assert [question.text for question in found] == ["a", "b"]
    assert found[0].prompt == "prompt (5, 6)"
    assert told == ["2 of 2 questions have an answer of at least 25 tokens"]
    with pytest.raises(EvaluationError, match="none of 3"):
        long_answers(FakeSystem("vraagbaak", [], tokens=9), ["a", "b", "c"], 2, 25, str, told.append)


def test_documents_fill_files_until_they_run_out(tmp_path: Path) -> None:
    documents = [Document(f"d/{n}", "", "nl", "x" * 60, "s", {}, "", ()) for n in range(5)]
    files = write_files(iter(documents), tmp_path, 4, 100)
    ids = [[json.loads(line)["id"] for line in file.read_text().splitlines()] for file in files]
    assert ids == [["d/0", "d/1"], ["d/2", "d/3"], ["d/4"]]
    with pytest.raises(EvaluationError, match="no documents"):
        write_files([], tmp_path, 1, 100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2] Een zin. [3] Nog een zin.", "Een zin. Nog een zin."),
        ("1] Een zin. [", "Een zin."),
        ("Een [zin] van 12 euro", "Een [zin] van 12 euro"),
    ],
)
def test_answers_are_compared_without_markers(text: str, words: str) -> None:
    assert without_markers(text) == words


def test_a_spread_is_minimum_median_and_maximum() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.n, found.low, found.median, found.high) == (4, 1.0, 2.5, 10.0)


def test_ratios_are_taken_round_by_round() -> None:
    # Medians of 2 and 6 would give 3; each round by itself gives 6, 3 and 2.
    ours = [answered(1.0, 1.0), answered(2.0, 1.0), answered(5.0, 1.0)]
    theirs = [answered(6.0, 4.0), answered(6.0, 4.0), answered(10.0, 4.0)]
    rows = ask_rows({"vraagbaak": ours, "txtai": theirs})
    cell = rows[1].cells["first token"]
    assert cell is not None
    assert cell.ratios == spread([6.0, 3.0, 2.0])
    assert cell.values == spread([6.0, 6.0, 10.0])
    assert all(cell is None or cell.ratios is None for cell in rows[0].cells.values())


def test_a_rate_is_better_the_higher_it_is() -> None:
    rows = ingest_rows(
        {
            "vraagbaak": [Ingested(100, 1000, 2.0, 1.0)],
            "langchain": [Ingested(100, 1000, 5.0, 4.0)],
            "txtai": [Ingested(100, 1000, 8.0, None)],
        }
    )
    passages, embedding = rows[1].cells["passages"], rows[1].cells["embedding alone"]
    assert passages is not None
    assert embedding is not None
    assert passages.ratios == spread([2.5])
    assert embedding.ratios == spread([4.0])
    assert rows[2].cells["embedding alone"] is None


def test_the_table_has_medians_ratios_and_a_dash_for_what_a_system_doesnt_do() -> None:
    rounds = {"vraagbaak": [answered(0.5, 1.0)], "llamacpp": [answered(2.0, None)]}
    rows = ask_rows(rounds)
    lines = markdown(rows).splitlines()
    assert lines[0] == "| system | first token | each further token | all tokens | question to answer |"
    assert lines[1] == "|---|---|---|---|---|"
    assert lines[2].startswith("| vraagbaak | 0.50 s [0.50–0.50] | 5.00 ms")
    assert lines[3] == (
        "| llamacpp | 2.00 s [2.00–2.00], 4.0× [4.0–4.0] | 20.0 ms [20.0–20.0], 4.0× [4.0–4.0] "
        "| 3.00 s [3.00–3.00], 2.0× [2.0–2.0] | – |"
    )
    kept = json.loads(json.dumps(to_dict(rounds, rows)))
    assert kept["rounds"]["llamacpp"][0]["whole_s"] is None


def test_the_same_words_are_counted() -> None:
    rounds = {
        "vraagbaak": [answered(1, 1, "een"), answered(1, 1, "twee")],
        "txtai": [answered(1, 1, "een"), answered(1, 1, "drie")],
    }
    assert same_answers(rounds) == {"txtai": 1}


def test_an_environment_is_made_once_and_no_other_folder_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "llamacpp.txt").write_text("")
    monkeypatch.setattr(environments, "_REQUIREMENTS", requirements)
    told: list[str] = []
    python = ensure_environment(tmp_path / "envs", "llamacpp", told.append)
    assert python.exists()
    assert ensure_environment(tmp_path / "envs", "llamacpp", told.append) == python
    assert len(told) == 1
    (tmp_path / "mine" / "llamacpp").mkdir(parents=True)
    with pytest.raises(EvaluationError, match="isn't a virtual environment"):
        ensure_environment(tmp_path / "mine", "llamacpp", told.append)


@pytest.mark.model
def test_our_own_worker_answers_over_the_wire(home: Path, tmp_path: Path) -> None:
    documents = [
        Document("d/1", "Paspoort", "nl", "Een paspoort kost 75 euro bij de gemeente.", "s", {}, "", ()),
        Document("d/2", "Afval", "nl", "Het afval wordt op maandag opgehaald.", "s", {}, "", ()),
    ]
    (file,) = write_files(documents, tmp_path, 1, 10_000)
    config = {
        "job": "ask",
        "threads": 1,
        "home": str(home),
        "new_tokens": 24,
        "prompt_tokens": 300,
        "top_k": 2,
    }
    with Worker("vraagbaak", Path(sys.executable), config, tmp_path / "log") as worker:
        assert set(worker.settings) == {"embedding", "index", "generation"}
        cut = worker.call("cut", file=str(file))
        assert sorted(cut["passages"])[1].startswith("Paspoort\nEen paspoort")
        took = worker.call("ingest", passages=cut["passages"], file=str(file))
        assert 0 < took["embed_s"] < took["seconds"]
        answer = worker.call("ask", question="Wat kost een paspoort?", prompt="", prompt_ids=[])
        assert len(answer["prompt_ids"]) == answer["prompt_tokens"]
        assert answer["first_s"] <= answer["whole_s"]
        assert "75" in answer["text"]
