"""Evaluation: cases, metrics, runs, reports and comparisons.

`evaluate` is the facade, `EvaluationRun` the same to be followed and cancelled. The names below are loaded when
they are first used, so that importing this package costs nothing.

`import eval` hides Python's builtin of that name: write `from eval import evaluate` instead.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.cases import EvalCase, Relevant, read_cases
    from eval.compare import compare_runs
    from eval.runner import EvaluationRun, RunProgress, RunState, evaluate
    from eval.summary import RunSettings, Summary, read_summary
    from eval.systems import CollectionSystem, MeteredReader, System

_HOMES = {
    "eval.cases": ("EvalCase", "Relevant", "read_cases"),
    "eval.compare": ("compare_runs",),
    "eval.runner": ("EvaluationRun", "RunProgress", "RunState", "evaluate"),
    "eval.summary": ("RunSettings", "Summary", "read_summary"),
    "eval.systems": ("CollectionSystem", "MeteredReader", "System"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CollectionSystem",
    "EvalCase",
    "EvaluationRun",
    "MeteredReader",
    "Relevant",
    "RunProgress",
    "RunSettings",
    "RunState",
    "Summary",
    "System",
    "compare_runs",
    "evaluate",
    "read_cases",
    "read_summary",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
