"""Rounds to figures: each system's median and, question by question, how many times longer than ours it took."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eval.peers.jobs import OURS, Answered, Ingested

_Record = TypeVar("_Record", Answered, Ingested)


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum of n values."""

    n: int
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A system's figure: its values, and the ratios of the same rounds to ours (above 1: ours is better).

    `ratios` is None for ourselves.
    """

    unit: str
    values: Spread
    ratios: Spread | None


@dataclass(frozen=True, slots=True)
class Row:
    """One system; a cell is None where the system doesn't do that."""

    system: str
    cells: Mapping[str, Cell | None]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(len(values), min(values), statistics.median(values), max(values))


def ask_rows(answered: Mapping[str, Sequence[Answered]]) -> list[Row]:
    """Times: ratios are theirs over ours."""
    return _rows(
        answered,
        {
            "first token": ("s", lambda answer: answer.first_s, False),
            "each further token": ("ms", lambda answer: answer.step_ms, False),
            "all tokens": ("s", lambda answer: answer.write_s, False),
            "question to answer": ("s", lambda answer: answer.whole_s, False),
        },
    )


def ingest_rows(ingested: Mapping[str, Sequence[Ingested]]) -> list[Row]:
    """Rates: ratios are ours over theirs."""
    return _rows(
        ingested,
        {
            "passages": ("/s", lambda took: took.passages / took.seconds, True),
            "embedding alone": (
                "tokens/s",
                lambda took: None if took.embed_s is None else took.tokens / took.embed_s,
                True,
            ),
        },
    )


def same_answers(answered: Mapping[str, Sequence[Answered]]) -> dict[str, int]:
    """In how many rounds a system wrote the words that we did."""
    ours = [answer.text for answer in answered[OURS]]
    return {
        system: sum(one.text == other for one, other in zip(answers, ours, strict=True))
        for system, answers in answered.items()
        if system != OURS
    }


def markdown(rows: Sequence[Row]) -> str:
    """A table with medians, and ratios as "4.1× [3.6–4.8]"."""
    names = list(rows[0].cells)
    lines = [f"| system | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for row in rows:
        lines.append(f"| {row.system} | {' | '.join(_text(row.cells[name]) for name in names)} |")
    return "\n".join(lines)


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    values = cell.values
    digits = 0 if values.median >= 100 else 1 if values.median >= 10 else 2
    low, middle, high = (f"{value:,.{digits}f}" for value in (values.low, values.median, values.high))
    text = f"{middle} {cell.unit} [{low}–{high}]"
    ratios = cell.ratios
    return text if ratios is None else f"{text}, {ratios.median:.1f}× [{ratios.low:.1f}–{ratios.high:.1f}]"


def _rows(
    records: Mapping[str, Sequence[_Record]],
    columns: Mapping[str, tuple[str, Callable[[_Record], float | None], bool]],
) -> list[Row]:
    return [
        Row(system, {name: _cell(system, records, *column) for name, column in columns.items()})
        for system in records
    ]


def _cell(
    system: str,
    records: Mapping[str, Sequence[_Record]],
    unit: str,
    value_of: Callable[[_Record], float | None],
    more_is_better: bool,
) -> Cell | None:
    """None unless the system has a value in every round."""
    pairs = [
        (mine, theirs)
        for our, their in zip(records[OURS], records[system], strict=True)
        if (mine := value_of(our)) is not None and (theirs := value_of(their)) is not None
    ]
    if len(pairs) < len(records[system]) or not pairs:
        return None
    ratios = [mine / theirs if more_is_better else theirs / mine for mine, theirs in pairs]
    return Cell(unit, spread([theirs for _, theirs in pairs]), None if system == OURS else spread(ratios))


def to_dict(records: Mapping[str, Sequence[Answered | Ingested]], rows: Sequence[Row]) -> dict[str, Any]:
    """For JSON: the table, and every single round."""
    from dataclasses import asdict

    return {
        "table": [asdict(row) for row in rows],
        "rounds": {system: [asdict(record) for record in each] for system, each in records.items()},
    }
