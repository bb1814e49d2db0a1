"""A run of a set: started, followed and cancelled from anywhere.

::

    run = EvaluationRun(system, Path("set.jsonl"), RunSettings(), Path("runs/first"))
    run.start()
    while not run.wait(0.2):
        print(run.progress)
    summary = run.result()

Cases go through in the set's order, a batch at a time, and each batch is on disk before the next begins. So
whatever ends a run, what it did is kept, and `resume=True` goes on after it.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path

from corpus.errors import (
    CollectionError,
    EvalSetError,
    EvaluationError,
    ModelError,
    StorageError,
    VraagbaakError,
)
from eval.cases import EvalCase, read_cases, set_sha256
from eval.gold import Gold, GoldFinder
from eval.passages import PassagePicker
from eval.records import (
    KEPT_TEXTS,
    CaseRecord,
    answer_record,
    drop_torn_line,
    gold_records,
    hit_records,
    passage_records,
    read_records,
    to_line,
)
from eval.scoring import Retrieved, all_retrieval_scores, answer_scores
from eval.summary import (
    CASES,
    SUMMARY,
    VERSION,
    Cost,
    RunSettings,
    SetInfo,
    Summary,
    git_commit,
    peak_memory_bytes,
    this_machine,
)
from eval.systems import System
from eval.tally import CUTOFFS, Tally
from index.hits import Hit, SearchMode
from rag.answers import Answer

RUN = "run.json"
REPORT = "report.html"
_SHOWN_PROBLEMS = 20
_RETRIEVAL_BATCH = 64

_CRASHES = (VraagbaakError, ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What one case can die of while the others go on."""

_FATAL = (CollectionError, ModelError, StorageError, EvaluationError)
"""What no other case would survive either."""


class RunState(StrEnum):
    """Where a run stands; the last three are final."""

    WAITING = "waiting"
    CHECKING = "checking"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen any more."""
        return self in (RunState.DONE, RunState.CANCELLED, RunState.FAILED)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is. `scores` are means so far; `remaining_s` is None until a first batch is through."""

    state: RunState
    done: int = 0
    total: int = 0
    crashed: int = 0
    elapsed_s: float = 0.0
    remaining_s: float | None = None
    scores: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class _Batch:
    """Cases on their way through, with what is known of each."""

    cases: Sequence[EvalCase]
    golds: Sequence[Gold]
    found: dict[SearchMode, list[Retrieved]] = field(default_factory=dict)
    given: list[list[Hit]] = field(default_factory=list)
    answers: Sequence[Answer] = ()
    timings: dict[str, float] = field(default_factory=dict)


class EvaluationRun:
    """One run of one set on one system, in a thread of its own. See the module for how to use it."""

    def __init__(
        self,
        system: System,
        set_file: Path,
        settings: RunSettings,
        out: Path,
        *,
        resume: bool = False,
        on_progress: Callable[[RunProgress], None] | None = None,
    ) -> None:
        """`out` is a new or empty folder, or with `resume` that of a run of the same that was broken off."""
        self._system = system
        self._set_file = set_file
        self._settings = settings
        self._out = out
        self._resume = resume
        self._on_progress = on_progress
        self._finder = GoldFinder(system.document, system.chunks)
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress = RunProgress(RunState.WAITING)
        self._summary: Summary | None = None
        self._error: BaseException | None = None

    @property
    def progress(self) -> RunProgress:
        """How far it is; safe from any thread."""
        return self._progress

    @property
    def state(self) -> RunState:
        """Where it stands; safe from any thread."""
        return self._progress.state

    def start(self) -> "EvaluationRun":
        """Begins, and returns at once; raises EvaluationError the second time."""
        if self._thread is not None:
            raise EvaluationError("this run was started already; make a new one")
        self._thread = threading.Thread(target=self._guarded, name="evaluation", daemon=True)
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Stops after the batch that is under way; what was done is kept and summed up."""
        self._cancelled.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it is over, after waiting so long at most."""
        return self._finished.wait(timeout_s)

    def result(self, timeout_s: float | None = None) -> Summary:
        """Waits for the end. Raises what the run failed of, and EvaluationError where it isn't over in time.

        A cancelled run has a summary too, with `complete` False.
        """
        if not self.wait(timeout_s):
            raise EvaluationError(f"the run isn't over after {timeout_s} s; wait longer, or cancel it")
        if self._error is not None:
            raise self._error
        if self._summary is None:
            raise EvaluationError("the run ended without a summary")
        return self._summary

    def _guarded(self) -> None:
        try:
            self._summary = self._run()
            state = RunState.DONE if self._summary.complete else RunState.CANCELLED
        except BaseException as error:  # the thread ends here; `result` raises it to whoever waits
            self._error = error
            state = RunState.FAILED
        self._tell(replace(self._progress, state=state, remaining_s=None))
        self._finished.set()

    def _tell(self, progress: RunProgress) -> None:
        self._progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)

    def _run(self) -> Summary:
        started = time.perf_counter()
        self._tell(RunProgress(RunState.CHECKING))
        set_info = self._check()
        tally = self._open(set_info)
        done = tally.count
        self._tell(RunProgress(RunState.RUNNING, done, set_info.cases))
        self._work(tally, set_info.cases, started)
        summary = self._summarise(tally, set_info, tally.count - done, time.perf_counter() - started)
        self._write(SUMMARY, summary.to_json())
        self._report(summary)
        return summary

    def _check(self) -> SetInfo:
        """Reads the whole set, so that no error comes up after an hour."""
        problems = []
        count = 0
        for case in read_cases(self._set_file, self._settings.limit):
            problems += self._finder.problems(case)
            count += 1
            if len(problems) >= _SHOWN_PROBLEMS:
                break
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
            raise EvalSetError(f"{self._set_file.name} doesn't fit the collection:\n{listed}")
        return SetInfo(self._set_file.name, set_sha256(self._set_file), count)

    def _open(self, set_info: SetInfo) -> Tally:
        """The output folder made ready, and what an earlier part of this run did."""
        tally = Tally()
        fingerprint = self._fingerprint(set_info)
        if check_folder(self._out, self._resume):
            try:
                self._out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"{self._out} can't be made ({error.strerror or error})") from error
            self._write(RUN, json.dumps(fingerprint, ensure_ascii=False, indent=1) + "\n")
            return tally
        known = _read_fingerprint(self._out / RUN)
        if known != fingerprint:
            differing = sorted(
                key for key in fingerprint if known is None or known.get(key) != fingerprint[key]
            )
            raise EvaluationError(
                f"the run in {self._out} was another one: it differs in {', '.join(differing)}; "
                "choose another folder"
            )
        drop_torn_line(self._out / CASES)
        if (self._out / CASES).exists():
            for record in read_records(self._out / CASES):
                tally.add(record)
        return tally

    def _fingerprint(self, set_info: SetInfo) -> dict[str, object]:
        content = {
            "set": asdict(set_info),
            "settings": asdict(self._settings),
            "system": asdict(self._system.info),
        }
        fingerprint: dict[str, object] = json.loads(json.dumps(content))
        return fingerprint

    def _work(self, tally: Tally, total: int, started: float) -> None:
        cases = islice(read_cases(self._set_file, self._settings.limit), tally.count, None)
        size = _RETRIEVAL_BATCH if self._settings.retrieval_only else self._settings.batch_size
        before, began = tally.count, time.perf_counter()
        try:
            with (self._out / CASES).open("a", encoding="utf-8") as file:
                while not self._cancelled.is_set() and (batch := list(islice(cases, size))):
                    for record in self._records(batch):
                        file.write(to_line(record) + "\n")
                        tally.add(record)
                    file.flush()
                    elapsed = time.perf_counter() - began
                    remaining = elapsed / (tally.count - before) * (total - tally.count)
                    self._tell(self._running(tally, total, time.perf_counter() - started, remaining))
        except OSError as error:
            raise StorageError(f"{self._out / CASES} can't be written ({error.strerror or error})") from error

    def _running(self, tally: Tally, total: int, elapsed_s: float, remaining_s: float) -> RunProgress:
        names = (
            ("ndcg@10",)
            if self._settings.retrieval_only
            else ("correct", "f1", "answer_f1", "citation_f1", "no_ans_accuracy")
        )
        scores = tuple((name, mean) for name in names if (mean := tally.running_mean(name)) is not None)
        return RunProgress(
            RunState.RUNNING, tally.count, total, tally.crashed, elapsed_s, remaining_s, scores
        )

    def _records(self, cases: Sequence[EvalCase]) -> Iterator[CaseRecord]:
        """A batch at once; where it fails, each case by itself, so that only the one at fault does."""
        try:
            yield from self._together(cases)
        except _FATAL:
            raise
        except _CRASHES as error:
            if len(cases) == 1:
                yield self._crashed(cases[0], error)
                return
            for case in cases:
                yield from self._records([case])

    def _together(self, cases: Sequence[EvalCase]) -> list[CaseRecord]:
        batch = _Batch(cases, [self._finder.find(case) for case in cases])
        if self._settings.gold_passages is None:
            self._search(batch)
        if not self._settings.retrieval_only:
            self._answer(batch)
        return [self._record(batch, place) for place in range(len(cases))]

    def _search(self, batch: _Batch) -> None:
        questions = [case.question for case in batch.cases]
        settings = self._settings
        searched = self._system.search(questions, settings.modes, settings.top_k, settings.filters)
        for mode in self._settings.modes:
            batch.found[mode] = [Retrieved.of(hits) for hits in searched.hits[mode]]
        if self._settings.retrieval_only:
            batch.timings = {stage: seconds / len(questions) for stage, seconds in searched.timings.items()}

    def _answer(self, batch: _Batch) -> None:
        questions = [case.question for case in batch.cases]
        settings = self._settings
        if settings.gold_passages is None:
            batch.answers = self._system.answer(questions, settings.style, settings.mode, settings.filters)
        else:
            picker = PassagePicker(self._system, self._finder, settings.gold_passages, settings.filters)
            batch.given = picker.pick(batch.cases, batch.golds)
            batch.answers = self._system.answer_from(questions, batch.given, settings.style)
        if len(batch.answers) != len(questions):
            raise EvaluationError(f"{len(batch.answers)} answers came back for {len(questions)} questions")

    def _record(self, batch: _Batch, place: int) -> CaseRecord:
        case, gold = batch.cases[place], batch.golds[place]
        found = {mode: retrieved[place] for mode, retrieved in batch.found.items()}
        answer = batch.answers[place] if batch.answers else None
        shown = [passage.hit for passage in answer.passages] if answer else []
        if self._settings.retrieval_only:
            shown = list(found[self._settings.mode].hits[:KEPT_TEXTS])
        return replace(
            self._blank(case, gold),
            metrics=self._scores(case, gold, found, answer),
            found={mode.value: hit_records(retrieved) for mode, retrieved in found.items()},
            ranks={mode.value: _ranks(retrieved, gold) for mode, retrieved in found.items()},
            passages=passage_records(shown, gold),
            prediction=answer_record(answer, gold) if answer else None,
            timings=_rounded(answer.timings if answer else batch.timings),
        )

    def _crashed(self, case: EvalCase, error: Exception) -> CaseRecord:
        gold = self._finder.find(case)
        return replace(
            self._blank(case, gold),
            metrics=self._scores(case, gold, None, None),
            ranks={mode.value: () for mode in self._modes()},
            error=f"{type(error).__name__}: {error}",
        )

    def _modes(self) -> tuple[SearchMode, ...]:
        return self._settings.modes if self._settings.gold_passages is None else ()

    def _scores(
        self, case: EvalCase, gold: Gold, found: dict[SearchMode, Retrieved] | None, answer: Answer | None
    ) -> dict[str, float | None]:
        scores: dict[str, float | None] = {}
        if self._modes():
            scores |= all_retrieval_scores(found, gold, self._modes(), self._settings.mode)
        if not self._settings.retrieval_only:
            scores |= answer_scores(case, gold, answer, self._settings.style, self._system.document)
        return {name: None if value is None else round(value, 6) for name, value in scores.items()}

    def _blank(self, case: EvalCase, gold: Gold) -> CaseRecord:
        return CaseRecord(
            id=case.id,
            question=case.question,
            language=case.language,
            answerable=case.answerable,
            answers=case.answers,
            reference=case.answer,
            relevant=gold_records(case, gold),
            tags=case.tags,
            cluster=case.cluster,
            crosslingual=self._finder.is_crosslingual(case, gold),
            metrics={},
        )

    def _cost(self, tally: Tally, worked: int, wall_s: float) -> Cost:
        usage = self._system.usage
        return Cost(
            wall_s=round(wall_s, 3),
            cases_per_s=round(worked / wall_s, 3) if worked else None,
            prompt_tokens=usage.prompt_tokens,
            new_tokens=usage.new_tokens,
            new_tokens_per_s=round(usage.new_tokens / usage.read_s, 3) if usage.read_s else None,
            peak_memory_bytes=peak_memory_bytes(),
            stages=tally.timings(),
        )

    def _summarise(self, tally: Tally, set_info: SetInfo, worked: int, wall_s: float) -> Summary:
        return Summary(
            version=VERSION,
            complete=tally.count == set_info.cases,
            set=set_info,
            cases={"done": tally.count, "crashed": tally.crashed, "missing": set_info.cases - tally.count},
            settings=self._settings,
            system=self._system.info,
            git_commit=git_commit(),
            metrics=tally.estimates(self._settings.resamples),
            risk_coverage=tuple(tally.risk_coverage()),
            recall_cutoffs=CUTOFFS,
            recall={mode: tuple(curve) for mode, curve in tally.recall_curve().items()},
            timings=self._cost(tally, worked, wall_s),
            machine=this_machine(),
        )

    def _report(self, summary: Summary) -> None:
        from eval.report import render

        self._write(REPORT, render(summary, self._out / CASES))

    def _write(self, name: str, text: str) -> None:
        partial = self._out / f".{name}.partial"
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, self._out / name)
        except OSError as error:
            raise StorageError(f"{self._out / name} can't be written ({error.strerror or error})") from error


def check_folder(out: Path, resume: bool) -> bool:
    """Whether `out` is new or empty. Raises EvaluationError where it isn't and nothing is to be resumed."""
    try:
        is_new = not out.exists() or not any(out.iterdir())
    except OSError as error:
        raise StorageError(f"{out} can't be used ({error.strerror or error}); choose another") from error
    if not is_new and not resume:
        raise EvaluationError(f"{out} isn't empty; go on in it with --resume, or choose another folder")
    return is_new


def evaluate(
    system: System,
    set_file: Path,
    settings: RunSettings,
    out: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[RunProgress], None] | None = None,
) -> Summary:
    """Runs a set from beginning to end; `EvaluationRun` for one that can be followed and cancelled."""
    run = EvaluationRun(system, set_file, settings, out, resume=resume, on_progress=on_progress)
    return run.start().result()


def _ranks(found: Retrieved, gold: Gold) -> tuple[int, ...]:
    return tuple(rank for rank, name in enumerate(found.documents, 1) if name in gold.documents)


def _rounded(timings: "Mapping[str, float]") -> dict[str, float]:
    return {stage: round(seconds, 6) for stage, seconds in timings.items()}


def _read_fingerprint(file: Path) -> dict[str, object] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        return None
    return content if isinstance(content, dict) else None
