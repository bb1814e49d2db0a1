"""`summary.json`: a run in figures, with what is needed to repeat it."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from corpus.document import Language
from corpus.errors import EvaluationError
from eval.intervals import Estimate
from eval.systems import SystemInfo
from eval.tally import CurvePoint, StageTiming
from index.hits import Filters, SearchMode
from rag.answers import Style

VERSION = 1
SUMMARY = "summary.json"
CASES = "cases.jsonl"
_PACKAGES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "tantivy")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run measures, and how.

    `modes` are the search modes side by side; the plain metric names are of `mode`, which is the one that
    answers are searched with. With `gold_passages` the reader gets the gold passage among so many, and
    nothing is searched for. `top_k` chunks are searched to rank ten documents. `limit` stops after so many.
    Only documents in one of `document_languages` are searched, where there are any.
    """

    retrieval_only: bool = False
    mode: SearchMode = SearchMode.FUSED
    modes: tuple[SearchMode, ...] = (SearchMode.FUSED,)
    gold_passages: int | None = None
    style: Style = Style.SHORT
    limit: int | None = None
    top_k: int = 100
    batch_size: int = 16
    resamples: int = 1000
    document_languages: tuple[Language, ...] = ()

    @property
    def filters(self) -> Filters | None:
        """What searches are narrowed to."""
        return Filters(languages=frozenset(self.document_languages)) if self.document_languages else None

    def __post_init__(self) -> None:
        if self.retrieval_only and self.gold_passages is not None:
            raise EvaluationError("retrieval only and gold passages exclude each other; choose one")
        for name, value, least in (
            ("gold_passages", self.gold_passages, 1),
            ("limit", self.limit, 1),
            ("top_k", self.top_k, 10),
            ("batch_size", self.batch_size, 1),
            ("resamples", self.resamples, 100),
        ):
            if value is not None and value < least:
                raise EvaluationError(f"{name} is {value}; it must be at least {least}")
        if self.mode not in self.modes:
            raise EvaluationError(f"the run's own mode {self.mode.value!r} is not among its modes")


@dataclass(frozen=True, slots=True)
class SetInfo:
    """Which set was run; `sha256` is of the file unpacked, `cases` how many of it were to be run."""

    name: str
    sha256: str
    cases: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the timings are from; it names no host and no path."""

    processor: str
    cores: int
    memory_gb: float | None
    system: str
    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run took; `stages` are seconds a case. `peak_memory_bytes` is of the whole process.

    `new_tokens_per_s` are tokens written a second of reading, prompts and all; over this sitting alone where
    a run was resumed, as is `cases_per_s`.
    """

    wall_s: float
    cases_per_s: float | None
    prompt_tokens: int
    new_tokens: int
    new_tokens_per_s: float | None
    peak_memory_bytes: int | None
    stages: Mapping[str, StageTiming]


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in figures. All but `timings` and `machine` is the same for two runs of the same.

    `complete` is False for a run that was interrupted: `cases` then counts what is missing. A crashed case is
    in the means as 0. `metrics` is by name, then by group ("all", "language=nl", "tag:set=vac" …).
    """

    version: int
    complete: bool
    set: SetInfo
    cases: Mapping[str, int]
    settings: RunSettings
    system: SystemInfo
    git_commit: str | None
    metrics: Mapping[str, Mapping[str, Estimate]]
    risk_coverage: tuple[CurvePoint, ...]
    recall_cutoffs: tuple[int, ...]
    recall: Mapping[str, tuple[float, ...]]
    timings: Cost
    machine: Machine

    def to_json(self) -> str:
        """Indented, so that two summaries can be told apart line by line."""
        return (
            json.dumps(TypeAdapter(Summary).dump_python(self, mode="json"), ensure_ascii=False, indent=1)
            + "\n"
        )


def read_summary(folder: Path) -> Summary:
    """Raises EvaluationError where the folder holds no run."""
    file = folder / SUMMARY if folder.is_dir() else folder
    try:
        return TypeAdapter(Summary).validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(
            f"there is no {SUMMARY} in {folder} ({error.strerror or error}); "
            "name a folder that 'eval run' made"
        ) from error
    except ValidationError as error:
        raise EvaluationError(f"{file} isn't a run's summary ({error.errors()[0]['msg']})") from error


def git_commit() -> str | None:
    """The commit of this checkout, with "-dirty" where files differ from it; None where it isn't one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def this_machine() -> Machine:
    """Of this process's machine."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: version for name in _PACKAGES if (version := _version(name))},
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> float | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had; None where the system doesn't say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
