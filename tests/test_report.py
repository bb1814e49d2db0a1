"""The report: self-contained, escaped, marked where it should be, and drawn to scale."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from eval_fakes import CASES, FakeSystem
from test_runner import run, write

from eval.charts import duration, latency_chart, recall_chart, risk_coverage_chart
from eval.records import read_records
from eval.report import Kind, Segment, kind_of_fault, render, segments, worst_cases
from eval.runner import evaluate
from eval.summary import RunSettings
from eval.tally import CurvePoint, StageTiming
from index.hits import SearchMode

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, and sees to it that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


@pytest.fixture
def html(tmp_path: Path) -> str:
    evil = {
        **CASES[0],
        "id": "evil",
        "question": 'prins <script>alert(1)</script> & "co"?',
        "answers": ["<b>1572</b>"],
    }
    crash = {**CASES[0], "id": "boom", "question": "crash <i>"}
    run(tmp_path, [*CASES, evil, crash], modes=tuple(SearchMode))
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_it_is_well_formed_and_needs_nothing_else(html: str) -> None:
    page = page_of(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert "style" not in attributes, (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not {"src", "href"} & attributes.keys(), (tag, attributes)


def test_its_policy_allows_exactly_its_own_style_and_script(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert (
            f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1] or f"{tag}-src 'sha256-{digest}'" in policy[1]
        )
    assert policy[1].startswith("default-src 'none'")


def test_what_documents_and_questions_say_is_only_text(html: str) -> None:
    assert "<script>alert" not in html
    page = page_of(html)
    assert 'prins <script>alert(1)</script> & "co"?' in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "crash <i>" in page.text


def test_charts_can_be_read_aloud(html: str) -> None:
    page = page_of(html)
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(charts) == 3
    ids = {
        attributes["id"] for tag, attributes in page.tags if tag in ("title", "desc") and "id" in attributes
    }
    assert {name for chart in charts for name in str(chart["aria-labelledby"]).split()} == ids


def test_crashes_and_kinds_are_shown(html: str) -> None:
    text = page_of(html).text
    assert "1 case crashed" in text
    kinds = re.findall(r'data-kind="([^"]+)"', html)
    assert kinds[0] == "crashed"
    assert Kind.NOT_ABSTAINED.value in kinds


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    from dataclasses import replace

    summary, _ = run(tmp_path)
    part = replace(summary, complete=False, cases={"done": 5, "crashed": 0, "missing": 3})
    assert "This run was broken off: 3 of 5 cases are missing" in render(
        part, tmp_path / "out" / "cases.jsonl"
    )


def test_a_run_of_retrieval_alone_has_a_report(tmp_path: Path) -> None:
    run(tmp_path, retrieval_only=True, modes=tuple(SearchMode))
    page = page_of((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "Recall of documents" in page.text
    assert "Risk and coverage" not in page.text


def test_the_worst_cases_come_first_and_the_fine_ones_not_at_all(tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    run(tmp_path, [*CASES, {**CASES[0], "id": "boom", "question": "crash"}], **settings)
    records = list(read_records(tmp_path / "out" / "cases.jsonl"))
    shown = worst_cases(records, RunSettings())
    assert [case.record.id for case in shown] == ["boom", "trap"]
    assert [case.kind for case in shown] == [Kind.CRASHED, Kind.NOT_ABSTAINED]
    assert len(worst_cases(records, RunSettings(), count=1)) == 1


def test_the_gravest_fault_names_the_kind(tmp_path: Path) -> None:
    from dataclasses import replace

    _, records = run(tmp_path)
    fine = records["delft"]
    assert kind_of_fault(fine) is Kind.FINE
    assert kind_of_fault(records["moon"]) is Kind.FINE
    assert fine.prediction is not None
    abstained = replace(fine, prediction=replace(fine.prediction, abstained=True))
    assert kind_of_fault(abstained) is Kind.WRONGLY_ABSTAINED
    for figures, kind in (
        ({"correct": 0.0, "citation_f1": 0.0}, Kind.WRONG_ANSWER),
        ({"citation_f1": 0.5}, Kind.WRONG_CITATION),
        ({"answer_language": 0.0}, Kind.WRONG_LANGUAGE),
    ):
        assert kind_of_fault(replace(fine, metrics={**fine.metrics, **figures})) is kind
    assert kind_of_fault(replace(fine, prediction=None, metrics={"ndcg@10": 0.6})) is Kind.NOT_FIRST


def test_segments_are_cut_where_marks_begin_and_end() -> None:
    cut = segments("abcdefghij", 100, {"gold": [(102, 105)], "cited": [(104, 120)]})
    assert cut == [
        Segment("ab", ""),
        Segment("cd", "gold"),
        Segment("e", "gold cited"),
        Segment("fghij", "cited"),
    ]
    assert segments("ab", 0, {"gold": [(5, 9)]}) == [Segment("ab", "")]
    assert segments("", 0, {}) == []


def test_charts_are_to_scale() -> None:
    chart = risk_coverage_chart([CurvePoint(0.5, 0.0), CurvePoint(1.0, 0.4)])
    assert chart is not None
    (line,) = chart.lines
    # Half of 300 units from 40; risk 0.4 is the top of the axis.
    assert line.points == ((190.0, 208.0), (340.0, 14.0))
    assert [tick.label for tick in chart.y_ticks] == ["0%", "10%", "20%", "30%", "40%"]
    recall = recall_chart((1, 10, 20), {"dense": [0.5, 1.0, 1.0]})
    assert recall is not None
    assert recall.lines[0].points == ((40.0, 111.0), (340.0, 14.0))
    latency = latency_chart(
        {"total_s": StageTiming(1.0, 2.0, 1.0, 3), "read_s": StageTiming(0.5, 1.0, 0.5, 3)}
    )
    assert latency is not None
    assert [(bar.name, bar.median, bar.whisker) for bar in latency.bars] == [
        ("read", 81.5, 177.0),
        ("total", 163.0, 340.0),
    ]


def test_without_data_there_is_no_chart() -> None:
    assert risk_coverage_chart([]) is None
    assert recall_chart((1, 10), {}) is None
    assert latency_chart({}) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (3.14159, "3.1 s"), (150, "2.5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_report_of_a_run_without_a_fault(tmp_path: Path) -> None:
    evaluate(FakeSystem(), write(tmp_path, [CASES[0]]), RunSettings(), tmp_path / "out")
    assert "nothing went wrong in any case" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
