"""A benchmark's figures: how one is stated, and how a run is kept by commit."""

import json
import statistics
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corpus.errors import EvaluationError
from eval.bench_limits import Limit, MachineLimits
from eval.summary import git_commit, this_machine


@dataclass(frozen=True, slots=True)
class Figure:
    """Repeated measurements of one quantity; `unit` is what a value counts.

    `limit` is None where no limit of the machine's says anything about it.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    limit: Limit | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def share(self) -> float | None:
        """How much of the limit the median reaches, 1 being all of it."""
        return self.limit.share(self.median) if self.limit else None

    def within(self, limit: Limit) -> "Figure":
        """The same beside its limit."""
        return replace(self, limit=limit)

    def row(self) -> tuple[str, str, str, str, str, str, str]:
        """Name with unit, n, minimum, median and maximum, the limit and the share of it, as text."""
        low, middle, high = (f"{value:,.4g}" for value in (min(self.values), self.median, max(self.values)))
        limit = f"{self.limit.value:,.4g}" if self.limit else ""
        share = f"{self.share:.0%}" if self.share is not None else ""
        return f"{self.name} ({self.unit})", str(len(self.values)), low, middle, high, limit, share


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured, in what circumstances; `settings` are those of the benchmark itself."""

    what: str
    settings: dict[str, Any]
    figures: tuple[Figure, ...]
    machine: MachineLimits | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON. It names no host and no path."""
        return {
            "what": self.what,
            "settings": self.settings,
            "git_commit": git_commit(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(this_machine()),
            "limits": asdict(self.machine) if self.machine else None,
            "figures": [_figure_dict(figure) for figure in self.figures],
        }

    def save(self, folder: Path) -> Path:
        """Writes `folder`/<commit>/<what>.json and returns its path; raises EvaluationError."""
        content = self.to_dict()
        return save_by_commit(folder, f"{self.what}.json", content)


def save_by_commit(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Writes JSON under the first twelve digits of this checkout's commit; raises EvaluationError."""
    commit = git_commit() or "no-commit"
    short = commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")
    file = folder / short / name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{file} can't be written ({error.strerror or error}); choose another folder"
        ) from error
    return file


def limit_figures(machine: MachineLimits) -> list[Figure]:
    """The limits themselves, as they were measured."""
    bits = machine.bytes_per_weight * 8
    return [
        Figure(f"limit: {bits}-bit matrix product", "GFLOP/s", tuple(each / 1e9 for each in machine.flops)),
        Figure("limit: reading memory", "GB/s", tuple(each / 1e9 for each in machine.bytes_read)),
    ]


def _figure_dict(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "n": len(figure.values),
        "min": min(figure.values),
        "median": figure.median,
        "max": max(figure.values),
        "values": figure.values,
        "limit": figure.limit.value if figure.limit else None,
        "limit_basis": figure.limit.basis if figure.limit else None,
        "share_of_limit": figure.share,
    }
