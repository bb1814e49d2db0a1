"""The last turns of conversations: how they are read, asked and counted."""

import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from corpus.errors import EvalSetError, MissingPathError
from eval.multi_turn import Said, Turn, answer, read_turns, summary_lines
from rag.reading import Claim, Reading, ReadingListener, ReadRequest


def record(**changes: Any) -> dict[str, Any]:
    base = {
        "task_id": "t1",
        "input": [
            {"speaker": "user", "text": "What is SASE?"},
            {"speaker": "agent", "text": "A service."},
            {"speaker": "user", "text": "Who runs it?"},
        ],
        "contexts": [{"document_id": "d", "text": "\nCGEN runs it."}],
        "targets": [{"text": "CGEN does."}],
    }
    return base | changes


class EchoReader:
    """Answers with the first passage."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def id(self) -> str:
        return "echo"

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        self.asked.append(request.question)
        claim = Claim(request.passages[0].hit.chunk.text, (1,))
        return Reading((claim,), request.passages, 0.0, 1.0, 1, 1)

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        return [self.read(request) for request in requests]


def test_a_turn_is_the_last_question_with_its_passages(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.xz"
    lines = [record(), record(task_id="t2", contexts=None)]
    path.write_bytes(lzma.compress("\n".join(map(json.dumps, lines)).encode()))
    first, second = read_turns(path)
    assert first == Turn("t1", "Who runs it?", "What is SASE?", ("CGEN runs it.",), "CGEN does.")
    assert second.contexts == ()


def test_a_missing_file_and_a_record_without_target_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError):
        read_turns(tmp_path / "none.jsonl")
    (tmp_path / "s.jsonl").write_text(json.dumps(record(targets=[])), "utf-8")
    with pytest.raises(EvalSetError, match="t1"):
        read_turns(tmp_path / "s.jsonl")


def test_without_passages_nothing_is_asked_and_the_question_before_can_come_along() -> None:
    reader = EchoReader()
    turns = [Turn("a", "Who?", "What?", ("It.",), "It."), Turn("b", "Who?", "", (), "No idea.")]
    assert [said.text for said in answer(turns, reader, with_previous=True)] == ["It.", ""]
    assert reader.asked == ["What? Who?"]


def test_targets_that_decline_are_counted_apart() -> None:
    def turn(target: str, *contexts: str) -> Turn:
        return Turn("t", "q", "", contexts, target)

    said = [
        Said(turn("I do not have information on that."), ""),
        Said(turn("I do not have information on that.", "p"), ""),
        Said(turn("It is CGEN.", "p"), "It is CGEN."),
        Said(turn("It is CGEN.", "p"), ""),
    ]
    lines = summary_lines(said)
    assert lines[0].startswith("no passages: abstained: 1.000")
    assert lines[1].startswith("passages, target declines: abstained: 1.000")
    assert lines[2].startswith("passages, target answers: answered: 0.500")
    assert lines[3].startswith("of these answered: ROUGE-L: 1.000")
