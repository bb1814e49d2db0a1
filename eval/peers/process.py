"""The parent's side of the wire: a worker process that is asked one thing at a time."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from corpus.errors import EvaluationError

_WORKERS = Path(__file__).parent / "workers"
_PROJECT = _WORKERS.parent.parent.parent


class Worker:
    """A system in a process of its own, loaded once and kept. Not for several threads.

    `settings` is what it says about itself, `peak_mb` the most memory that it has taken so far.
    """

    def __init__(self, name: str, python: Path, config: Mapping[str, Any], log: Path) -> None:
        self.name = name
        self.peak_mb = 0.0
        self._log = log
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, _WORKERS / "wire.py", f"{name}_worker", json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=_environment(name, config["threads"]),
            )
        try:
            self.settings: dict[str, str] = self._receive()
        except BaseException:
            self.close()
            raise

    def call(self, do: str, **arguments: Any) -> Any:
        """The result of one of the worker's methods; raises EvaluationError where it died."""
        stdin = self._process.stdin
        if stdin is None:
            raise EvaluationError(f"{self.name} can't be talked to")
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise EvaluationError(f"{self.name} has ended; its last words are in {self._log}") from error
        return self._receive()

    def _receive(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it said nothing"
            raise EvaluationError(f"{self.name} has ended: {last}; see {self._log}")
        answer = json.loads(line)
        self.peak_mb = answer["peak_mb"]
        return answer["result"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _environment(name: str, threads: int) -> dict[str, str]:
    """The same number of threads for all, no hub, and the project on the path of its own worker only."""
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    variables.pop("PYTHONPATH", None)
    return {**variables, "PYTHONPATH": str(_PROJECT)} if name == "vraagbaak" else variables
