"""A service to measure over HTTP: one that runs already or one started for it, on this machine only."""

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from corpus.errors import EvaluationError

_POLL_S = 0.05
_START_S = 600.0
_STOP_S = 60.0
_MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


def check_is_here(url: str) -> None:
    """Raises EvaluationError for another machine: load and attacks are for a service of one's own."""
    host = urlsplit(url).hostname or ""
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise EvaluationError(f"{url} isn't on this machine; only a service of one's own is measured")


@contextmanager
def served(url: str | None, options: Sequence[str] = ()) -> Iterator[str]:
    """The address of a service that is ready and has nothing to do.

    Without `url` one is started with `vraagbaak serve` on a free port and the settings of the environment, and
    stopped afterwards; `options` are more of its options. Raises EvaluationError where it doesn't come up.
    """
    if url is not None:
        check_is_here(url)
        _wait_until_idle(url, None)
        yield url
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "api", "serve", "--port", str(port), *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
        try:
            _wait_until_idle(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        except EvaluationError as error:
            log.seek(0)
            told = log.read().decode(errors="replace").strip()
            raise EvaluationError(f"{error}\n{told[-2000:]}" if told else str(error)) from error
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_idle(url: str, process: "subprocess.Popen[bytes] | None") -> None:
    """Until it is ready and no job is under way (the sample documents, at a first start)."""
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends:
        if process is not None and process.poll() is not None:
            raise EvaluationError(f"the service ended with status {process.returncode}")
        if _is_idle(url):
            return
        time.sleep(_POLL_S)
    raise EvaluationError(f"{url} isn't ready after {_START_S:g} s")


def _is_idle(url: str) -> bool:
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            if http.get("/readyz").status_code != 200:
                return False
            jobs = http.get("/v1/jobs").raise_for_status().json()["jobs"]
            return all(job["state"] not in ("queued", "running") for job in jobs)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError as error:
        raise EvaluationError(f"{url} can't be used: {error}") from error


# Documents


def chunks_in(http: httpx.Client, collection: str) -> int:
    """How many there are."""
    return int(http.get(f"/v1/collections/{quote(collection)}").raise_for_status().json()["chunks"])


def put(
    http: httpx.Client, collection: str, documents: Sequence[Mapping[str, Any]], timeout_s: float = 600.0
) -> None:
    """Puts documents in and waits until they are.

    Raises EvaluationError where one fails, or where it takes longer than `timeout_s`.
    """
    path = f"/v1/collections/{quote(collection)}/documents"
    body = {"documents": [dict(document) for document in documents]}
    job = http.post(path, json=body).raise_for_status().json()
    ends = time.monotonic() + timeout_s
    while job["state"] in ("queued", "running"):
        if time.monotonic() > ends:
            raise EvaluationError(f"job {job['id']} isn't over after {timeout_s:g} s")
        time.sleep(_POLL_S)
        job = http.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["state"] != "done" or any(file["state"] == "failed" for file in job["files"]):
        raise EvaluationError(f"documents could not be put in: {json.dumps(job)[:500]}")


# Memory


class MemoryWatch:
    """The service's resident memory in MiB, about once a second, by its own `/metrics`; a context manager."""

    def __init__(self, url: str, every_s: float = 1.0) -> None:
        self.mib: list[float] = []
        self._url = url
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as http:
            while True:
                try:
                    text = http.get("/metrics").text
                except httpx.TransportError:
                    text = ""  # too busy to tell: a figure less
                if found := _MEMORY.search(text):
                    self.mib.append(float(found[1]) / 2**20)
                if self._over.wait(self._every_s):
                    return


def write_json(file: Path, content: object) -> None:
    """Raises EvaluationError where it can't be written."""
    try:
        file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{file} can't be written: {error.strerror or error}") from error
