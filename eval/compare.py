"""Two runs of one set: what changed, and whether it could be chance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from corpus.errors import EvaluationError, GateError
from eval.intervals import RESAMPLES, Difference
from eval.intervals import compare as compare_statistics
from eval.metrics import AGGREGATES, metric_of
from eval.records import CaseRecord, read_records
from eval.report import score_of
from eval.summary import CASES
from eval.tally import ALL, Table, Tally

RIGHT = 0.5
"""A case is flipped where its score crosses this."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A case that went from right to wrong or back; the texts are what was answered."""

    id: str
    question: str
    before: float
    after: float
    answer_before: str
    answer_after: str

    @property
    def is_gain(self) -> bool:
        """Whether it is right now."""
        return self.after > self.before


@dataclass(frozen=True, slots=True)
class Comparison:
    """`after` against `before` over the cases that both have.

    `differences` are by metric, then by group. `only_before` and `only_after` count the cases that the other
    run lacks.
    """

    before: str
    after: str
    shared: int
    only_before: int
    only_after: int
    differences: Mapping[str, Mapping[str, Difference]]
    flips: tuple[Flip, ...]

    def to_json(self) -> str:
        """The whole comparison for a script."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on a figure: `metric`, or `metric/group` such as "f1/language=nl"."""

    metric: str
    group: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """From `metric=value` or `metric/group=value`; raises EvaluationError."""
        name, separator, number = text.rpartition("=")
        metric, _, group = name.partition("/")
        try:
            if not separator:
                raise ValueError("there is no '='")
            metric_of(metric)
            return cls(metric, group or ALL, float(number))
        except KeyError as error:
            raise EvaluationError(
                f"{text!r}: there is no metric {metric!r}; 'eval run' lists them"
            ) from error
        except ValueError as error:
            raise EvaluationError(f"{text!r} isn't metric=value, as in f1=0.6 ({error})") from error

    @property
    def name(self) -> str:
        """As it was written."""
        return self.metric if self.group == ALL else f"{self.metric}/{self.group}"


def compare_runs(before: Path, after: Path, resamples: int = RESAMPLES) -> Comparison:
    """Reads both runs' cases; raises EvaluationError where one isn't a run or they share no case."""
    old_file, new_file = (folder / CASES if folder.is_dir() else folder for folder in (before, after))
    old = {record.id: _slim(record) for record in read_records(old_file)}
    new = {record.id: _slim(record) for record in read_records(new_file)}
    shared = [name for name in old if name in new]
    if not shared:
        raise EvaluationError(f"{before} and {after} have no case in common; are they of the same set?")
    _check_same_questions(old, new, shared)
    return Comparison(
        before=before.name,
        after=after.name,
        shared=len(shared),
        only_before=len(old) - len(shared),
        only_after=len(new) - len(shared),
        differences=_differences([old[name] for name in shared], [new[name] for name in shared], resamples),
        flips=tuple(flip for name in shared if (flip := _flip(old[name], new[name]))),
    )


def _slim(record: CaseRecord) -> CaseRecord:
    """Without passages and hits, which nothing here looks at."""
    from dataclasses import replace

    return replace(record, passages=(), found={})


def _check_same_questions(
    old: Mapping[str, CaseRecord], new: Mapping[str, CaseRecord], shared: Sequence[str]
) -> None:
    other = next((name for name in shared if old[name].question != new[name].question), None)
    if other is not None:
        raise EvaluationError(f"case {other!r} asks something else in either run; they are of different sets")


def _differences(
    old: Sequence[CaseRecord], new: Sequence[CaseRecord], resamples: int
) -> dict[str, dict[str, Difference]]:
    first, second = Tally(), Tally()
    for record in old:
        first.add(record)
    for record in new:
        second.add(record)
    before, after = first.table(), second.table()
    names = [
        *(name for name in before.values if name in after.values and name not in AGGREGATES),
        *AGGREGATES,
    ]
    found: dict[str, dict[str, Difference]] = {}
    for group, mask in first.groups():
        parts = before.where(mask), after.where(mask)
        for name in names:
            difference = _difference(*parts, name, resamples)
            if difference is not None:
                found.setdefault(name, {})[group] = difference
    return found


def _difference(before: Table, after: Table, name: str, resamples: int) -> Difference | None:
    """Both runs' figures under the same draws, of the cases that count in at least one of them."""
    rows = np.flatnonzero(before.applies(name) | after.applies(name))
    old, new = before.where(rows), after.where(rows)
    first, second = old.statistic(name), new.statistic(name)
    if first is None or second is None:
        return None
    return compare_statistics(first, second, old.clusters, resamples)


def _flip(old: CaseRecord, new: CaseRecord) -> Flip | None:
    before, after = max(0.0, score_of(old)), max(0.0, score_of(new))
    if (before >= RIGHT) == (after >= RIGHT):
        return None
    return Flip(old.id, old.question, before, after, _said(old), _said(new))


def _said(record: CaseRecord) -> str:
    if record.error is not None:
        return f"(crashed: {record.error})"
    return record.prediction.text if record.prediction else ""


def check_gates(
    comparison: Comparison, fail_below: Sequence[Gate] = (), fail_if_worse: Sequence[Gate] = ()
) -> None:
    """Raises GateError that lists every gate that doesn't hold.

    `fail_below` is on the later run's figure, `fail_if_worse` on how much worse it is than the earlier one's;
    for a metric of which less is better, both are turned round. A figure that isn't there breaks its gate,
    and so does a later run that lacks cases of the earlier one: leaving out what is hard is no progress.
    """
    if not fail_below and not fail_if_worse:
        return
    broken = []
    if comparison.only_before:
        broken.append(f"{comparison.after} lacks {comparison.only_before} cases that {comparison.before} has")
    for gate in fail_below:
        broken += _below(gate, comparison)
    for gate in fail_if_worse:
        broken += _worse(gate, comparison)
    if broken:
        raise GateError("; ".join(broken))


def _found(gate: Gate, comparison: Comparison) -> Difference | None:
    return comparison.differences.get(gate.metric, {}).get(gate.group)


def _below(gate: Gate, comparison: Comparison) -> list[str]:
    found = _found(gate, comparison)
    if found is None or found.after is None:
        return [f"{gate.name} isn't in both runs"]
    if metric_of(gate.metric).higher_is_better is False:
        return [f"{gate.name} is {found.after:.4f}, above {gate.value:g}"] if found.after > gate.value else []
    return [f"{gate.name} is {found.after:.4f}, below {gate.value:g}"] if found.after < gate.value else []


def _worse(gate: Gate, comparison: Comparison) -> list[str]:
    found = _found(gate, comparison)
    if found is None or found.difference is None:
        return [f"{gate.name} isn't in both runs"]
    less = metric_of(gate.metric).higher_is_better is False
    loss = found.difference if less else -found.difference
    # A difference of exactly the limit, but for rounding, is allowed.
    if loss <= gate.value + 1e-9:
        return []
    return [
        f"{gate.name} went from {found.before:.4f} to {found.after:.4f}, worse by more than {gate.value:g}"
    ]
