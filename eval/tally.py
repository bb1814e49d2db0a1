"""From cases to a summary, in memory that holds a few numbers a case and nothing of its text."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eval import metrics
from eval.intervals import (
    RESAMPLES,
    SEED,
    Estimate,
    Floats,
    Integers,
    Statistic,
    estimate_means,
    estimate_statistic,
    mean_of,
)
from eval.records import CaseRecord

Mask = NDArray[np.bool_]
"""Shape (cases,)."""

MAX_TAG_VALUES = 20
_NO_GROUPS = ("crosslingual", "document")
"""Tags with a meaning of their own."""
ALL = "all"
CUTOFFS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50)
_CURVE_POINTS = 100
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Seconds a case at one stage."""

    p50_s: float
    p95_s: float
    mean_s: float
    n: int


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of the risk-coverage curve."""

    coverage: float
    risk: float


@dataclass(slots=True)
class _Column:
    """One value a case out of a small vocabulary, as a code; -1 where a case has none."""

    codes: "array[int]" = field(default_factory=lambda: array("i"))
    vocabulary: dict[str, int] = field(default_factory=dict)

    def put(self, place: int, value: str) -> None:
        self.codes.extend([-1] * (place - len(self.codes)))
        self.codes.append(self.vocabulary.setdefault(value, len(self.vocabulary)))

    def masks(self, cases: int) -> Iterator[tuple[str, Mask]]:
        codes = np.full(cases, -1)
        codes[: len(self.codes)] = self.codes
        for value, code in sorted(self.vocabulary.items()):
            yield value, codes == code


class Tally:
    """Takes records in as they come, and sums them up at any time."""

    def __init__(self) -> None:
        self.count = 0
        self.crashed = 0
        self._values: dict[str, array[float]] = {}
        self._running: dict[str, tuple[float, int]] = {}
        self._columns: dict[str, _Column] = {}
        self._many: set[str] = set()
        self._clusters: dict[str, int] = {}
        self._owners = array("l")
        self._confidence = array("d")
        self._timings: dict[str, array[float]] = {}
        self._found_at: dict[str, list[float]] = {}
        self._searched: Counter[str] = Counter()

    def add(self, record: CaseRecord) -> None:
        """Takes one case in."""
        for name, value in record.metrics.items():
            self._put(self._values, name, _NAN if value is None else value)
            if value is not None:
                total, n = self._running.get(name, (0.0, 0))
                self._running[name] = (total + value, n + 1)
        for stage, seconds in record.timings.items():
            self._put(self._timings, stage, seconds)
        self._group(record)
        self._owners.append(self._clusters.setdefault(record.cluster, len(self._clusters)))
        self._confidence.append(_confidence_of(record))
        self._curve(record)
        self.count += 1
        self.crashed += record.error is not None

    def _put(self, values: "dict[str, array[float]]", name: str, value: float) -> None:
        column = values.setdefault(name, array("d"))
        column.extend([_NAN] * (self.count - len(column)))
        column.append(value)

    def _group(self, record: CaseRecord) -> None:
        found = {"language": record.language, "answerable": _flag(record.answerable)}
        if record.crosslingual is not None:
            found["crosslingual"] = _flag(record.crosslingual)
        for key, tag in record.tags.items():
            if key not in _NO_GROUPS:
                found[f"tag:{key}"] = _flag(tag) if isinstance(tag, bool) else str(tag)
        for key, value in found.items():
            if key in self._many:
                continue
            column = self._columns.setdefault(key, _Column())
            column.put(self.count, value)
            if len(column.vocabulary) > MAX_TAG_VALUES and key.startswith("tag:"):
                self._many.add(key)
                del self._columns[key]

    def _curve(self, record: CaseRecord) -> None:
        relevant = len({gold.document for gold in record.relevant})
        if not relevant:
            return
        for mode, ranks in record.ranks.items():
            sums = self._found_at.setdefault(mode, [0.0] * len(CUTOFFS))
            for place, cutoff in enumerate(CUTOFFS):
                sums[place] += sum(rank <= cutoff for rank in ranks) / relevant
            self._searched[mode] += 1

    def running_mean(self, name: str) -> float | None:
        """The mean so far, for showing progress."""
        total, n = self._running.get(name, (0.0, 0))
        return total / n if n else None

    def recall_curve(self) -> dict[str, list[float]]:
        """Mean document recall at each of `CUTOFFS`, by search mode."""
        return {
            mode: [round(value / self._searched[mode], 6) for value in sums]
            for mode, sums in self._found_at.items()
        }

    def timings(self) -> dict[str, StageTiming]:
        """Over the cases that went through the stage."""
        stages = {}
        for stage, seconds in sorted(self._timings.items()):
            known = np.asarray(seconds)[~np.isnan(seconds)]
            p50, p95 = np.percentile(known, [50, 95])
            stages[stage] = StageTiming(
                round(float(p50), 6), round(float(p95), 6), round(float(known.mean()), 6), len(known)
            )
        return stages

    def estimates(self, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, dict[str, Estimate]]:
        """By metric, then by group, `all` first; a group without a single case of a metric is left out."""
        table = self.table()
        names = [name for name in table.values if name not in metrics.AGGREGATES]
        matrix = (
            np.column_stack([table.values[name] for name in names]) if names else np.empty((self.count, 0))
        )
        found: dict[str, dict[str, Estimate]] = {name: {} for name in names}
        for group, mask in self.groups():
            estimates = estimate_means(matrix[mask], table.clusters[mask], resamples, seed)
            for name, estimate in zip(names, estimates, strict=True):
                if estimate.n or group == ALL:
                    found[name][group] = _rounded(estimate)
        for name in metrics.AGGREGATES:
            by_group = {
                group: self._aggregate(name, table.where(mask), resamples, seed)
                for group, mask in self.groups()
            }
            if by_group[ALL].n:
                found[name] = {group: estimate for group, estimate in by_group.items() if estimate.n}
        return found

    def _aggregate(self, name: str, table: "Table", resamples: int, seed: int) -> Estimate:
        part = table.where(table.applies(name))
        statistic = part.statistic(name)
        if statistic is None:
            return Estimate(None, 0, None, None)
        return _rounded(estimate_statistic(statistic, part.clusters, resamples, seed))

    def groups(self) -> Iterator[tuple[str, Mask]]:
        """Group names with a mask over the cases."""
        yield ALL, np.ones(self.count, np.bool_)
        for key, column in sorted(self._columns.items()):
            for value, mask in column.masks(self.count):
                yield f"{key}={value}", mask

    def table(self) -> "Table":
        """All values as arrays of shape (cases,)."""
        values = {}
        for name, column in self._values.items():
            padded = np.full(self.count, _NAN)
            padded[: len(column)] = column
            values[name] = padded
        return Table(values, np.asarray(self._confidence), np.asarray(self._owners, np.int64))

    def risk_coverage(self) -> list[CurvePoint]:
        """The curve over all cases, thinned to a hundred points; empty where nothing was answered."""
        table = self.table()
        table = table.where(table.applies("aurc"))
        if not len(table.clusters):
            return []
        coverage, risk = metrics.risk_coverage(table.confidence, table.loss(), np.ones(len(table.clusters)))
        kept = np.unique(np.linspace(0, len(coverage) - 1, _CURVE_POINTS).round().astype(int))
        return [CurvePoint(round(float(coverage[i]), 6), round(float(risk[i]), 6)) for i in kept]


@dataclass(frozen=True, slots=True)
class Table:
    """Values by metric, confidences and cluster numbers, each of shape (cases,); NaN is "doesn't apply"."""

    values: Mapping[str, Floats]
    confidence: Floats
    clusters: Integers

    def where(self, rows: Mask | Integers) -> "Table":
        """The same for some of the cases."""
        values = {name: column[rows] for name, column in self.values.items()}
        return Table(values, self.confidence[rows], self.clusters[rows])

    def applies(self, name: str) -> Mask:
        """Which cases a metric, mean or not, is over."""
        needed = {"abstention_f1": "abstained", "aurc": "correct", "coverage@5%risk": "correct"}.get(
            name, name
        )
        if needed not in self.values:
            return np.zeros(len(self.clusters), np.bool_)
        return ~np.isnan(self.values[needed])

    def loss(self) -> Floats:
        """1 for a wrong answer, and for an abstention: taken for an answer, it wouldn't be a right one."""
        return np.where(self.values["abstained"] == 1.0, 1.0, 1.0 - self.values["correct"])

    def statistic(self, name: str) -> Statistic | None:
        """From weights of shape (cases,) to a metric's figure; None where it applies to no case."""
        applies = self.applies(name)
        if not applies.any():
            return None
        if name == "abstention_f1":
            return self._abstention_f1()
        if name not in metrics.AGGREGATES:
            return mean_of(self.values[name])
        confidence, loss = self.confidence[applies], self.loss()[applies]
        measure = metrics.area_under_risk_coverage if name == "aurc" else metrics.coverage_at_risk
        return lambda weights: measure(confidence, loss, weights[applies])

    def _abstention_f1(self) -> Statistic | None:
        recall = self.values["abstention_recall"]
        unanswerable = ~np.isnan(recall)
        if not unanswerable.any():
            return None
        right, abstained = np.nan_to_num(recall), self.values["abstained"]

        def figure(weights: Floats) -> float | None:
            size = float(weights @ abstained + weights @ unanswerable)
            return 2 * float(weights @ right) / size if size else None

        return figure


def _confidence_of(record: CaseRecord) -> float:
    """An abstention's is below any answer's: no threshold on confidence would let it through."""
    if "abstained" not in record.metrics:
        return _NAN
    if record.prediction is None:
        return 0.0
    return -1.0 if record.prediction.abstained else record.prediction.confidence


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _rounded(estimate: Estimate) -> Estimate:
    def short(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return Estimate(short(estimate.mean), estimate.n, short(estimate.low), short(estimate.high))
