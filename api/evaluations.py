"""Evaluation runs, started and followed over HTTP. They give way to people who ask."""

import json
import shutil
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from api.problems import fault_problem, problem_of
from api.schemas import EvaluationBody, EvaluationProgressView, EvaluationView, ProblemView
from api.telemetry import log_fault
from corpus.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    OverloadedError,
    StorageError,
    VraagbaakError,
)
from corpus.normalising import one_line
from eval.cases import read_cases

if TYPE_CHECKING:
    from api.service import Running
    from eval.compare import Comparison
    from eval.runner import EvaluationRun
    from eval.summary import RunSettings

_WAITING = 8
_BATCH = 4
"""Cases that are read together: whoever asks meanwhile waits for these at most."""


@dataclass(slots=True)
class Evaluation:
    """One run; `run` is None while it waits for the one before."""

    id: str
    name: str
    collection: str
    settings: "RunSettings"
    folder: Path
    set_file: Path
    created_at: datetime
    run: "EvaluationRun | None" = None
    is_cancelled: bool = False
    error: ProblemView | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> str:
        """As in `RunState`; "failed" once the reason is known."""
        if self.error is not None:
            return "failed"
        if self.run is not None:
            state = self.run.state.value
            return "running" if state == "failed" else state
        return "cancelled" if self.is_cancelled else "waiting"

    def view(self) -> EvaluationView:
        """As it is now."""
        progress = self.run.progress if self.run is not None else None
        return EvaluationView(
            id=self.id,
            name=self.name,
            collection=self.collection,
            style=self.settings.style,
            retrieval_only=self.settings.retrieval_only,
            state=self.state,  # type: ignore[arg-type]
            created_at=self.created_at,
            progress=EvaluationProgressView(
                done=progress.done if progress else 0,
                total=progress.total if progress else 0,
                crashed=progress.crashed if progress else 0,
                elapsed_s=progress.elapsed_s if progress else 0.0,
                remaining_s=progress.remaining_s if progress else None,
            ),
            scores=dict(progress.scores) if progress else {},
            summary=self._summary(),
            error=self.error,
        )

    def _summary(self) -> dict[str, object] | None:
        if self.run is None or self.state not in ("done", "cancelled"):
            return None
        summary: dict[str, object] = json.loads(self.run.result(0).to_json())
        return summary

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in ("done", "cancelled", "failed")


class Evaluations:
    """Runs one at a time, in a folder that goes with the process."""

    def __init__(self, running: "Running") -> None:
        self._running = running
        self._folder = Path(tempfile.mkdtemp(prefix="vraagbaak-evaluations-"))
        self._all: dict[str, Evaluation] = {}
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._closing = False

    def sets(self) -> dict[str, int]:
        """The sets that come with the service, with how many cases are in each."""
        folder = self._running.engine.evaluation_sets
        if folder is None:
            return {}
        return {file.stem: sum(1 for _ in read_cases(file)) for file in sorted(folder.glob("samples*.jsonl"))}

    def start(self, body: EvaluationBody) -> Evaluation:
        """Queues a run; raises EvalSetError, InputError, OverloadedError."""
        if (body.set is None) == (body.jsonl is None):
            raise InputError("give either set, a set that comes with the service, or jsonl, your own")
        with self._guard:
            self._check_room()
        from eval.summary import RunSettings

        identifier = uuid.uuid4().hex
        folder = self._folder / identifier
        evaluation = Evaluation(
            id=identifier,
            name=body.set or one_line(body.name),
            collection=body.collection,
            settings=RunSettings(
                style=body.style,
                retrieval_only=body.retrieval_only,
                limit=body.limit,
                batch_size=_BATCH,
            ),
            folder=folder / "run",
            set_file=self._set_file(body, folder),
            created_at=datetime.now(UTC),
        )
        for _ in read_cases(evaluation.set_file, body.limit):
            pass  # a wrong line is an error now, not later
        with self._guard:
            self._check_room()
            self._all[identifier] = evaluation
            self._forget()
        threading.Thread(target=self._work, args=(evaluation,), name="evaluations", daemon=True).start()
        return evaluation

    def _check_room(self) -> None:
        if self._closing or sum(not each.is_over for each in self._all.values()) >= _WAITING:
            raise OverloadedError("too many evaluations are waiting; cancel one or try again later", 60)

    def _set_file(self, body: EvaluationBody, folder: Path) -> Path:
        try:
            folder.mkdir(parents=True)
            file = folder / "set.jsonl"
            if body.jsonl is not None:
                file.write_text(body.jsonl, encoding="utf-8")
                return file
            known = self.sets()
            sets = self._running.engine.evaluation_sets
            if body.set not in known or sets is None:
                raise InputError(f"there is no set {body.set!r}; there are: {', '.join(known) or 'none'}")
            shutil.copyfile(sets / f"{body.set}.jsonl", file)
        except OSError as error:
            raise StorageError(f"{folder} can't be written: {error.strerror or error}") from error
        return file

    def _work(self, evaluation: Evaluation) -> None:
        try:
            with self._turn:
                self._run_one(evaluation)
        except VraagbaakError as error:
            evaluation.error = problem_of(error).view()
        except BaseException as error:  # the thread ends here; whoever follows the run gets the reason
            log_fault("evaluation failed", {"evaluation": evaluation.id})
            evaluation.error = fault_problem(error).view()
        finally:
            evaluation.finished.set()

    def _run_one(self, evaluation: Evaluation) -> None:
        from eval.runner import EvaluationRun
        from eval.systems import CollectionSystem, MeteredReader

        if evaluation.is_cancelled:
            return
        with self._running.shelf.using(evaluation.collection) as collection:
            answerer, reader = None, None
            if not evaluation.settings.retrieval_only:
                reader = MeteredReader(self._running.patient_reader())
                answerer = self._running.answerer(collection, reader)
            system = CollectionSystem(collection, answerer, reader)
            with self._guard:  # cancelled before it has a run, or afterwards by it; never in between
                if evaluation.is_cancelled:
                    return
                run = EvaluationRun(system, evaluation.set_file, evaluation.settings, evaluation.folder)
                evaluation.run = run
            run.start().result()

    def get(self, identifier: str) -> Evaluation:
        """Raises NotFoundError."""
        evaluation = self._all.get(identifier)
        if evaluation is None:
            raise no_such_evaluation(identifier)
        return evaluation

    def all(self) -> list[Evaluation]:
        """Newest first."""
        return list(reversed(list(self._all.values())))

    def cancel(self, evaluation: Evaluation) -> None:
        """Stops it after the batch under way; raises ConflictError where it is over."""
        with self._guard:
            if evaluation.is_over:
                raise ConflictError(f"evaluation {evaluation.id} is {evaluation.state} already")
            evaluation.is_cancelled = True
            if evaluation.run is not None:
                evaluation.run.cancel()

    def file(self, evaluation: Evaluation, name: str) -> Path:
        """The report or the cases; raises ConflictError where they aren't there yet."""
        file = evaluation.folder / name
        if not file.is_file():
            raise ConflictError(f"evaluation {evaluation.id} is {evaluation.state}, and has no {name} yet")
        return file

    def report(self, evaluation: Evaluation) -> Path:
        """See `file`."""
        from eval.runner import REPORT

        return self.file(evaluation, REPORT)

    def cases(self, evaluation: Evaluation) -> Path:
        """See `file`."""
        from eval.summary import CASES

        return self.file(evaluation, CASES)

    def compare(self, before: Evaluation, after: Evaluation) -> "Comparison":
        """Raises ConflictError where one has no cases yet, EvaluationError where they are of different sets."""
        from eval.compare import compare_runs

        return compare_runs(self.cases(before), self.cases(after))

    def close(self, timeout_s: float) -> None:
        """Cancels what waits and runs, and waits so long for the batch under way."""
        with self._guard:
            self._closing = True
            under_way = [each for each in self._all.values() if not each.is_over]
            for evaluation in under_way:
                evaluation.is_cancelled = True
                if evaluation.run is not None:
                    evaluation.run.cancel()
        ends = time.monotonic() + timeout_s
        for evaluation in under_way:
            evaluation.finished.wait(max(0.0, ends - time.monotonic()))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _forget(self) -> None:
        over = [each for each in self._all.values() if each.is_over]
        surplus = len(self._all) - self._running.config.max_kept_evaluations
        for evaluation in over[: max(0, surplus)]:
            del self._all[evaluation.id]
            shutil.rmtree(evaluation.folder.parent, ignore_errors=True)


def no_such_evaluation(identifier: str) -> NotFoundError:
    """The same words whether it isn't there or isn't the caller's."""
    return NotFoundError(f"there is no evaluation {identifier!r}; they are kept until the service restarts")
