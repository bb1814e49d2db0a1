"""Two runs side by side: differences, flips, missing cases, gates."""

import json
from pathlib import Path

import pytest
from eval_fakes import CASES, FakeSystem
from test_runner import write
from typer.testing import CliRunner

from api.cli_eval import app
from corpus.errors import EvaluationError, GateError
from eval.compare import Comparison, Gate, check_gates, compare_runs
from eval.runner import evaluate
from eval.summary import RunSettings

WORSE = [{**case, "answers": ["nee"]} if case["id"] == "delft" else case for case in CASES]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The second gets one case wrong that the first has right."""
    for name, cases in (("before", CASES), ("after", WORSE)):
        evaluate(FakeSystem(), write(tmp_path, cases, f"{name}.jsonl"), RunSettings(), tmp_path / name)
    return tmp_path / "before", tmp_path / "after"


def compared(runs: tuple[Path, Path]) -> Comparison:
    return compare_runs(*runs, resamples=200)


def test_differences_are_of_the_means(runs: tuple[Path, Path]) -> None:
    comparison = compared(runs)
    found = comparison.differences["f1"]["all"]
    assert (found.before, found.after, found.difference) == pytest.approx((0.7, 0.5, -0.2))
    assert comparison.differences["f1"]["language=en"].difference == 0.0
    assert comparison.differences["aurc"]["all"].difference is not None
    assert comparison.shared == 5


def test_flipped_cases_are_named(runs: tuple[Path, Path]) -> None:
    (flip,) = compared(runs).flips
    assert (flip.id, flip.before, flip.after, flip.is_gain) == ("delft", 1.0, 0.0, False)


def test_a_run_against_itself(runs: tuple[Path, Path]) -> None:
    comparison = compare_runs(runs[0], runs[0], resamples=200)
    assert comparison.flips == ()
    for groups in comparison.differences.values():
        for found in groups.values():
            assert found.difference == 0.0
            assert found.low in (0.0, None)
            assert found.p in (1.0, None)


def test_only_shared_cases_are_compared(tmp_path: Path) -> None:
    for name, cases in (("before", CASES[:4]), ("after", CASES[1:])):
        evaluate(FakeSystem(), write(tmp_path, cases, f"{name}.jsonl"), RunSettings(), tmp_path / name)
    comparison = compare_runs(tmp_path / "before", tmp_path / "after", resamples=200)
    assert (comparison.shared, comparison.only_before, comparison.only_after) == (3, 1, 1)
    with pytest.raises(GateError, match="after lacks 1 cases that before has"):
        check_gates(comparison, fail_below=[Gate.parse("f1=0")])


def test_runs_of_different_sets_are_refused(tmp_path: Path) -> None:
    other = [{**CASES[0], "question": "Waar ligt de prins?"}]
    for name, cases in (("one", CASES[:1]), ("two", other), ("three", CASES[1:2])):
        evaluate(FakeSystem(), write(tmp_path, cases, f"{name}.jsonl"), RunSettings(), tmp_path / name)
    with pytest.raises(EvaluationError, match="asks something else"):
        compare_runs(tmp_path / "one", tmp_path / "two")
    with pytest.raises(EvaluationError, match="no case in common"):
        compare_runs(tmp_path / "one", tmp_path / "three")
    with pytest.raises(EvaluationError, match="can't be read"):
        compare_runs(tmp_path / "one", tmp_path / "nothing")


def test_gates(runs: tuple[Path, Path]) -> None:
    comparison = compared(runs)
    check_gates(comparison)
    check_gates(comparison, [Gate.parse("f1=0.5"), Gate.parse("aurc=1")], [Gate.parse("f1=0.2")])
    for below, worse, message in (
        ("f1=0.51", None, r"f1 is 0\.5000, below 0\.51"),
        ("f1/language=en=1.01", None, r"f1/language=en is 1\.0000, below 1\.01"),
        ("invalid_markers=-1", None, r"invalid_markers is 0\.0000, above -1"),
        (None, "f1=0.1", r"f1 went from 0\.7000 to 0\.5000, worse by more than 0\.1"),
        (None, "aurc=0", "aurc went from"),
        ("rouge_l=0", None, "rouge_l isn't in both runs"),
        (None, "f1/tag:set=z=0", "f1/tag:set=z isn't in both runs"),
    ):
        with pytest.raises(GateError, match=message):
            check_gates(
                comparison,
                [Gate.parse(below)] if below else [],
                [Gate.parse(worse)] if worse else [],
            )


@pytest.mark.parametrize("text", ["f1", "f1=much", "accuracy=0.5", "=1"])
def test_a_gate_that_is_no_gate(text: str) -> None:
    with pytest.raises(EvaluationError):
        Gate.parse(text)


def test_the_command_line_gates_with_its_exit_code(runs: tuple[Path, Path]) -> None:
    names = [str(folder) for folder in runs]
    runner = CliRunner()
    assert runner.invoke(app, ["compare", *names]).exit_code == 0
    assert runner.invoke(app, ["compare", *names, "--fail-if-worse", "f1=0.1"]).exit_code == 1
    assert runner.invoke(app, ["compare", *names, "--fail-below", "f1=0.4"]).exit_code == 0
    assert runner.invoke(app, ["compare", *names, "--fail-below", "nonsense=0.4"]).exit_code == 8
    printed = runner.invoke(app, ["compare", *names, "--json"])
    assert json.loads(printed.stdout)["differences"]["f1"]["all"]["difference"] == pytest.approx(-0.2)
    assert "1 went wrong" in runner.invoke(app, ["compare", *names, "--groups"]).stdout
