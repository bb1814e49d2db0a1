"""`report.html`: one page that needs nothing else, and runs nothing but its own few lines of script."""

import base64
import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from eval.charts import LineChart, duration, latency_chart, recall_chart, risk_coverage_chart
from eval.intervals import Estimate
from eval.metrics import METRICS, RETRIEVAL_METRICS, Metric, metric_of
from eval.records import CaseRecord, PassageRecord, read_records
from eval.summary import RunSettings, Summary
from eval.tally import ALL

if TYPE_CHECKING:
    from jinja2 import Environment

SHOWN_CASES = 30
_TEMPLATES = Path(__file__).parent / "templates"
_KEY_METRICS = (
    "has_ans_f1",
    "answer_f1",
    "no_ans_accuracy",
    "citation_f1",
    "answer_language",
    "coverage@5%risk",
)
_KEY_RETRIEVAL = ("ndcg@10", "recall@1", "recall@10", "mrr@10", "span_recall@5")


class Kind(StrEnum):
    """What went wrong in a case."""

    CRASHED = "crashed"
    WRONG_ANSWER = "wrong answer"
    NOT_ABSTAINED = "answered the unanswerable"
    WRONGLY_ABSTAINED = "abstained wrongly"
    WRONG_CITATION = "wrong citation"
    WRONG_LANGUAGE = "wrong language"
    NOT_FIRST = "not found first"
    FINE = "nothing"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of text that is marked in one way: "", "gold", "cited" or "gold cited"."""

    text: str
    marks: str


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """A passage with what is gold and what is cited in it marked."""

    number: int
    document: str
    heading: str
    gold: bool
    cited: bool
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class ShownCase:
    """A case as the report shows it."""

    record: CaseRecord
    kind: Kind
    score: float
    passages: tuple[ShownPassage, ...]
    ranks: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A metric's line in a table; the interval's ends are on a scale of 0–100."""

    metric: Metric
    estimate: Estimate
    mean_at: float
    low_at: float
    high_at: float


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics that belong together."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ModeRow:
    """One retrieval metric's figures for each search mode."""

    metric: Metric
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group's figures for the key metrics, None where they don't apply."""

    name: str
    n: int
    estimates: tuple[Estimate | None, ...]


def render(summary: Summary, cases: Path) -> str:
    """The page, from a run's summary and its cases; raises EvaluationError where these can't be read."""
    worst = worst_cases(read_records(cases), summary.settings) if cases.exists() else []
    style, script = (_TEMPLATES / name for name in ("report.css", "report.js"))
    css, javascript = style.read_text(encoding="utf-8"), script.read_text(encoding="utf-8")
    key = key_metrics(summary)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            css=css,
            javascript=javascript,
            css_hash=_csp_hash(css),
            javascript_hash=_csp_hash(javascript),
            key=[row for name in key if (row := _row(name, summary.metrics[name][ALL]))],
            families=families(summary),
            modes=mode_rows(summary),
            groups=group_rows(summary, key),
            key_metrics=[metric_of(name) for name in key],
            line_charts=_line_charts(summary),
            latency=latency_chart(summary.timings.stages),
            worst=worst,
            kinds=list(dict.fromkeys(case.kind for case in worst)),
        )
    )


def _line_charts(summary: Summary) -> list[LineChart]:
    charts = (
        risk_coverage_chart(summary.risk_coverage),
        recall_chart(summary.recall_cutoffs, summary.recall),
    )
    return [chart for chart in charts if chart]


def key_metrics(summary: Summary) -> list[str]:
    """The few names that stand at the top: those that this run has."""
    wanted = _KEY_RETRIEVAL if summary.settings.retrieval_only else (*_KEY_METRICS, "ndcg@10")
    return [name for name in wanted if name in summary.metrics and summary.metrics[name][ALL].n]


def families(summary: Summary) -> list[Family]:
    """All metrics with at least one case, in their order."""
    plain = [name for name in METRICS if name in summary.metrics]
    parts = (
        ("Answers, citations and abstention", [name for name in plain if name not in RETRIEVAL_METRICS]),
        (f"Retrieval ({summary.settings.mode.value})", [name for name in plain if name in RETRIEVAL_METRICS]),
    )
    found = []
    for title, names in parts:
        rows = tuple(row for name in names if (row := _row(name, summary.metrics[name][ALL])))
        if rows:
            found.append(Family(title, rows))
    return found


def mode_rows(summary: Summary) -> list[ModeRow]:
    """Retrieval by search mode, in the order of `RunSettings.modes`; empty where there is only one."""
    modes = summary.settings.modes
    return [
        ModeRow(METRICS[name], tuple(summary.metrics[f"{name}:{mode.value}"][ALL] for mode in modes))
        for name in RETRIEVAL_METRICS
        if len(modes) > 1 and name in summary.metrics and summary.metrics[name][ALL].n
    ]


def _row(name: str, estimate: Estimate) -> Row | None:
    if estimate.mean is None:
        return None
    low = estimate.mean if estimate.low is None else estimate.low
    high = estimate.mean if estimate.high is None else estimate.high
    return Row(
        metric_of(name),
        estimate,
        *(round(100 * min(1.0, max(0.0, at)), 1) for at in (estimate.mean, low, high)),
    )


def group_rows(summary: Summary, names: Sequence[str]) -> list[GroupRow]:
    """The key metrics by group, all cases first."""
    groups = sorted({group for name in names for group in summary.metrics[name]}, key=lambda g: (g != ALL, g))
    rows = []
    for group in groups:
        estimates = tuple(summary.metrics[name].get(group) for name in names)
        rows.append(GroupRow(group, max((item.n for item in estimates if item), default=0), estimates))
    return rows


def worst_cases(
    records: Iterable[CaseRecord], settings: RunSettings, count: int = SHOWN_CASES
) -> list[ShownCase]:
    """The lowest scores, the surest of the wrong first; perfect cases are none of them."""
    faulty = (record for record in records if kind_of_fault(record) is not Kind.FINE)
    return [_shown(record) for record in heapq.nsmallest(count, faulty, key=_badness)]


def _badness(record: CaseRecord) -> tuple[float, float, str]:
    confidence = record.prediction.confidence if record.prediction else 0.0
    return score_of(record), -confidence, record.id


def score_of(record: CaseRecord) -> float:
    """The one figure that a case is ranked by, in 0–1: the first that applies."""
    if record.error is not None:
        return -1.0
    names = ("f1", "correct", "answer_f1", "citation_f1", "ndcg@10")
    return next((value for name in names if (value := record.metrics.get(name)) is not None), 1.0)


def kind_of_fault(record: CaseRecord) -> Kind:
    """The gravest thing that is wrong with a case."""
    figures = record.metrics
    prediction = record.prediction
    if record.error is not None:
        return Kind.CRASHED
    if prediction is None:
        return Kind.NOT_FIRST if _below(figures, "ndcg@10", 1.0) else Kind.FINE
    if not record.answerable:
        return Kind.FINE if prediction.abstained else Kind.NOT_ABSTAINED
    if prediction.abstained:
        return Kind.WRONGLY_ABSTAINED
    if _below(figures, "correct", 1.0) or (
        figures.get("correct") is None and _below(figures, "answer_f1", 0.5)
    ):
        return Kind.WRONG_ANSWER
    if _below(figures, "citation_f1", 1.0):
        return Kind.WRONG_CITATION
    return Kind.WRONG_LANGUAGE if _below(figures, "answer_language", 1.0) else Kind.FINE


def _below(figures: Mapping[str, float | None], name: str, wanted: float) -> bool:
    value = figures.get(name)
    return value is not None and value < wanted


def _shown(record: CaseRecord) -> ShownCase:
    return ShownCase(
        record=record,
        kind=kind_of_fault(record),
        score=max(0.0, score_of(record)),
        passages=tuple(_shown_passage(passage, record) for passage in record.passages),
        ranks=tuple(
            (mode, ", ".join(map(str, ranks)) if ranks else "not found")
            for mode, ranks in record.ranks.items()
            if record.relevant
        ),
        figures=tuple(
            (metric_of(name).title, value) for name, value in record.metrics.items() if value is not None
        ),
    )


def _shown_passage(passage: PassageRecord, record: CaseRecord) -> ShownPassage:
    gold = [
        (place.start, place.end)
        for place in record.relevant
        if place.document == passage.document and place.start is not None and place.end is not None
    ]
    citations = record.prediction.citations if record.prediction else ()
    cited = [(item.source_start, item.source_end) for item in citations if item.number == passage.number]
    return ShownPassage(
        number=passage.number,
        document=passage.document,
        heading=passage.heading,
        gold=passage.gold,
        cited=bool(cited),
        segments=tuple(segments(passage.text, passage.start, {"gold": gold, "cited": cited})),
    )


def segments(text: str, offset: int, marks: Mapping[str, Sequence[tuple[int, int]]]) -> list[Segment]:
    """`text`, which begins at `offset` of its document, cut where a mark's spans begin and end."""
    borders = {0, len(text)}
    for spans in marks.values():
        borders |= {min(len(text), max(0, border - offset)) for span in spans for border in span}
    ordered = sorted(borders)
    cut = []
    for start, end in zip(ordered, ordered[1:], strict=False):
        names = [
            name
            for name, spans in marks.items()
            if any(low < end + offset and start + offset < high for low, high in spans)
        ]
        cut.append(Segment(text[start:end], " ".join(names)))
    return cut


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{estimate.low:.3f} – {estimate.high:.3f}"


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["interval"] = _interval
    return environment
