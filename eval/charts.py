"""The geometry of the report's charts: values in, SVG coordinates out; the template draws them.

Every chart is `WIDTH` by `HEIGHT` units, about the pixels that it has on a phone, so that its text is legible
there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10

from eval.tally import CurvePoint, StageTiming

WIDTH, HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 20, 14, 42
_BAR_HEIGHT = 34


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis; `at` is its coordinate along the axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One series; `points` are its markers, `area` closes the path down to the axis."""

    name: str
    path: str
    area: str
    points: tuple[tuple[float, float], ...]
    end: tuple[float, float]
    summary: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over two axes."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage: the bar ends at the median, the whisker at the 95th percentile."""

    name: str
    y: float
    median: float
    whisker: float
    label: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars with whiskers."""

    title: str
    description: str
    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    height: int
    left: int = 14
    right: int = WIDTH - _RIGHT
    bottom: int = 0
    width: int = WIDTH


def risk_coverage_chart(points: Sequence[CurvePoint]) -> LineChart | None:
    """Risk over coverage, from nothing answered to everything answered."""
    if not points:
        return None
    top = _ceiling(max(point.risk for point in points))
    places = [(_x(point.coverage), _y(point.risk / top)) for point in points]
    last = points[-1]
    return LineChart(
        title="Risk and coverage",
        description=(
            f"Answering every question would be wrong in {last.risk:.0%} of the cases. Each point answers "
            "only the questions that the service is surest of."
        ),
        x_label="coverage: share of the questions answered",
        y_label="risk: share wrong",
        x_ticks=tuple(Tick(_x(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)),
        y_ticks=tuple(Tick(_y(share), f"{share * top:.0%}") for share in _shares(top)),
        lines=(
            _line("risk", places, markers=len(places) <= 12, summary=f"{last.risk:.0%} at full coverage"),
        ),
    )


def recall_chart(cutoffs: Sequence[int], recall: Mapping[str, Sequence[float]]) -> LineChart | None:
    """Recall over the number of documents looked at, one line a search mode."""
    if not recall:
        return None
    shown = [place for place, cutoff in enumerate(cutoffs) if cutoff <= 10]
    first, last = cutoffs[shown[0]], cutoffs[shown[-1]]
    lines = []
    for mode, values in recall.items():
        places = [(_x((cutoffs[i] - first) / (last - first)), _y(values[i])) for i in shown]
        lines.append(_line(mode, places, markers=True, summary=f"{values[shown[-1]]:.3f} at {last}"))
    described = "; ".join(f"{line.name} {line.summary}" for line in lines)
    return LineChart(
        title="Recall of documents",
        description=f"Share of the relevant documents among the first found: {described}.",
        x_label="documents looked at",
        y_label="recall",
        x_ticks=tuple(
            Tick(_x((cutoff - first) / (last - first)), str(cutoff)) for cutoff in (1, 2, 4, 6, 8, 10)
        ),
        y_ticks=tuple(Tick(_y(step / 4), f"{step / 4:.2f}") for step in range(5)),
        lines=tuple(lines),
    )


def latency_chart(stages: Mapping[str, StageTiming]) -> BarChart | None:
    """Median and 95th percentile of each stage, in order of appearance, the total last."""
    if not stages:
        return None
    ordered = sorted(stages.items(), key=lambda item: (item[0].startswith("total"), item[0]))
    top = _ceiling(max(timing.p95_s for _, timing in ordered)) or 1.0
    left, right = 14, WIDTH - _RIGHT
    bars = tuple(
        Bar(
            name=stage.removesuffix("_s").replace("_", " "),
            y=20 + row * _BAR_HEIGHT,
            median=round(timing.p50_s / top * (right - left), 1),
            whisker=round(left + timing.p95_s / top * (right - left), 1),
            label=f"{duration(timing.p50_s)} · {duration(timing.p95_s)}",
        )
        for row, (stage, timing) in enumerate(ordered)
    )
    bottom = 20 + len(bars) * _BAR_HEIGHT
    described = "; ".join(f"{bar.name} {bar.label}" for bar in bars)
    return BarChart(
        title="Latency by stage",
        description=f"Median and 95th percentile of a case: {described}.",
        bars=bars,
        x_ticks=tuple(
            Tick(round(left + step / 4 * (right - left), 1), duration(step / 4 * top)) for step in (0, 2, 4)
        ),
        height=bottom + 26,
        bottom=bottom,
    )


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds >= 100:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 or not seconds else f"{seconds * 1000:.1f} ms"


def _line(name: str, places: Sequence[tuple[float, float]], *, markers: bool, summary: str) -> Line:
    path = "M" + " L".join(f"{x} {y}" for x, y in places)
    floor_y = HEIGHT - _BOTTOM
    area = f"{path} L{places[-1][0]} {floor_y} L{places[0][0]} {floor_y} Z"
    return Line(name, path, area, tuple(places) if markers else (), places[-1], summary)


def _x(share: float) -> float:
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def _shares(top: float) -> list[float]:
    """Where an axis that ends at `_ceiling` has its ticks, so that their labels are round."""
    steps = 4 if round(top / 10.0 ** floor(log10(top) + 1e-9)) in (2, 4) else 5
    return [step / steps for step in range(steps + 1)]


def _ceiling(value: float) -> float:
    """The next round number (1, 2, 4, 5 or 10 times a power of ten)."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** floor(log10(value))
    return next(step * scale for step in (1, 2, 4, 5, 10) if value <= step * scale * (1 + 1e-9))
