"""Load on a running service, from outside it: `python -m eval.load --help`.

Only HTTP is used, so the same measurements run on any service; each loop is bounded in count or time, and the
service must be on this machine.

::

    fill         documents made up of common words, until there are so many chunks
    search       so many searches at once
    ask          questions at a multiple of the rate that is served
    consistency  askers and writers at once; each response is checked against what must be in
"""

import argparse
import asyncio
import ipaddress
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from corpus.errors import EvaluationError

# fmt: off
_WORDS = (
    "gemeente", "vergunning", "aanvraag", "subsidie", "paspoort", "rijbewijs", "belasting", "inkomen",
    "woning", "huur", "zorg", "school", "leraar", "energie", "water", "afval", "natuur", "verkeer",
    "fiets", "trein", "station", "brug", "haven", "dijk", "provincie", "minister", "kamer", "begroting",
    "onderzoek", "universiteit", "techniek", "industrie", "bedrijf", "werk", "loon", "pensioen",
    "verzekering", "rechter", "wet", "artikel", "besluit",
)
# fmt: on
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: its status (0: no answer at all) and how long it took."""

    status: int
    seconds: float


def table(samples: Sequence[Sample]) -> str:
    """A line a status: how many, and latencies in milliseconds."""
    lines = ["| status | n | share | p50 ms | p95 ms | p99 ms | max ms |", "|---|---|---|---|---|---|---|"]
    for status in sorted({sample.status for sample in samples}):
        times = sorted(sample.seconds * 1000 for sample in samples if sample.status == status)
        marks = [f"{percentile(times, share):.0f}" for share in (0.5, 0.95, 0.99, 1.0)]
        share = len(times) / len(samples)
        lines.append(f"| {status or 'none'} | {len(times)} | {share:.1%} | {' | '.join(marks)} |")
    return "\n".join(lines)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values doesn't exceed; `ordered` isn't empty."""
    place = max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1)
    return ordered[min(place, len(ordered) - 1)]


async def _timed(http: httpx.AsyncClient, path: str, body: dict[str, object]) -> Sample:
    started = time.perf_counter()
    try:
        response = await http.post(path, json=body)
        status = response.status_code
    except httpx.TransportError:
        status = 0
    return Sample(status, time.perf_counter() - started)


def _questions(seed: int) -> Callable[[], str]:
    generator = random.Random(seed)
    return lambda: f"Wat zegt de {' '.join(generator.sample(_WORDS, 5))}?"


async def search_load(url: str, collection: str, at_once: int, count: int) -> list[Sample]:
    """`count` searches, `at_once` under way all the time."""
    question = _questions(1)
    samples: list[Sample] = []
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False) as http:

        async def one_after_another(share: int) -> None:
            for _ in range(share):
                body: dict[str, object] = {"question": question(), "collection": collection}
                samples.append(await _timed(http, "/v1/search", body))

        await asyncio.gather(*(one_after_another(max(1, count // at_once)) for _ in range(at_once)))
    return samples


async def ask_load(url: str, collection: str, per_second: float, seconds: float) -> list[Sample]:
    """Questions at a steady rate, whether they are served or not; new connections as they are needed."""
    question = _questions(2)
    limits = httpx.Limits(max_connections=1000)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120, trust_env=False) as http:
        asking = []
        started = time.perf_counter()
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            body: dict[str, object] = {"question": question(), "collection": collection, "style": "short"}
            asking.append(asyncio.ensure_future(_timed(http, "/v1/ask", body)))
        return list(await asyncio.gather(*asking))


def served_alone(url: str, collection: str, count: int) -> list[float]:
    """Seconds of questions asked one after another: what the service does without any load."""
    question = _questions(3)
    times = []
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        for _ in range(count):
            started = time.perf_counter()
            body = {"question": question(), "collection": collection, "style": "short"}
            http.post("/v1/ask", json=body).raise_for_status()
            times.append(time.perf_counter() - started)
    return times


def fill(url: str, collection: str, chunks: int) -> int:
    """Puts made-up documents in until there are so many chunks; returns how many there are."""
    generator = random.Random(0)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        http.put(f"/v1/collections/{collection}").raise_for_status()
        number = 0
        while (there := _collection(http, collection)["chunks"]) < chunks:
            documents = []
            for _ in range(min(50, 1 + (chunks - there) // 4)):
                number += 1
                sentences = (" ".join(generator.choices(_WORDS, k=12)).capitalize() for _ in range(40))
                documents.append({"id": f"load/{number}", "text": ". ".join(sentences) + "."})
            _put(http, collection, documents)
        return int(there)


def _collection(http: httpx.Client, name: str) -> dict[str, int]:
    found: dict[str, int] = http.get(f"/v1/collections/{name}").raise_for_status().json()
    return found


def _put(http: httpx.Client, collection: str, documents: Sequence[dict[str, str]]) -> None:
    """Puts documents in and waits until they are."""
    path = f"/v1/collections/{collection}/documents"
    job = http.post(path, json={"documents": list(documents)}).raise_for_status().json()
    while job["state"] in ("queued", "running"):
        time.sleep(_POLL_S)
        job = http.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["state"] != "done" or any(file["state"] == "failed" for file in job["files"]):
        raise EvaluationError(f"documents could not be put in: {json.dumps(job)[:500]}")


# Consistency


@dataclass(slots=True)
class _Version:
    """A document's content, None where it is deleted, and between which instants it may be seen."""

    text: str | None
    begins: float
    ends: float = float("inf")


@dataclass(slots=True)
class Ledger:
    """What may be in at each instant: a change is possible from its request on, certain from its answer on."""

    _versions: dict[str, list[_Version]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, document: str, text: str | None) -> None:
        """A change was asked for."""
        with self._lock:
            history = self._versions.setdefault(document, [_Version(None, 0.0)])
            history.append(_Version(text, time.monotonic()))

    def end(self, document: str) -> None:
        """The change was acknowledged: what was there before can't be seen by who asks from now on."""
        with self._lock:
            now = time.monotonic()
            for version in self._versions[document][:-1]:
                version.ends = min(version.ends, now)

    def possible(self, document: str, since: float, until: float) -> list[str | None]:
        """What a request between two instants may have seen."""
        with self._lock:
            history = self._versions.get(document, [_Version(None, 0.0)])
            return [each.text for each in history if each.begins <= until and each.ends >= since]


@dataclass(slots=True)
class Consistency:
    """What came of a run; `faults` must be empty."""

    searches: int = 0
    answers: int = 0
    changes: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)


class ConsistencyRun:
    """Askers and writers for so many seconds. Each writer changes documents of its own."""

    def __init__(self, url: str, collection: str, seconds: float, askers: int = 4, writers: int = 2) -> None:
        self._url = url
        self._collection = collection
        self._ends = time.monotonic() + seconds
        self._askers = askers
        self._writers = writers
        self._documents = [f"writer{writer}/{number}" for writer in range(writers) for number in range(4)]
        self._ledger = Ledger()
        self._outcome = Consistency()
        self._lock = threading.Lock()

    def run(self) -> Consistency:
        """Runs to the end and says what was seen."""
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(self._writers)]
        threads += [threading.Thread(target=self._ask, args=(number,)) for number in range(self._askers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._outcome

    def _guarded(self, step: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            while time.monotonic() < self._ends and len(self._outcome.faults) < 20:
                try:
                    step(http)
                except (httpx.HTTPError, EvaluationError, KeyError) as error:
                    self._fault(f"{type(error).__name__}: {error}")

    def _fault(self, what: str) -> None:
        with self._lock:
            self._outcome.faults.append(what)

    def _count(self, name: str) -> None:
        with self._lock:
            setattr(self._outcome, name, getattr(self._outcome, name) + 1)

    def _write(self, writer: int) -> None:
        generator = random.Random(writer)
        own = [name for name in self._documents if name.startswith(f"writer{writer}/")]
        version = 0

        def step(http: httpx.Client) -> None:
            nonlocal version
            version += 1
            document = generator.choice(own)
            if generator.random() < 0.2:
                self._ledger.begin(document, None)
                response = http.delete(f"/v1/collections/{self._collection}/documents/{document}")
                if response.status_code not in (204, 404):
                    response.raise_for_status()
            else:
                text = version_text(document, version, generator)
                self._ledger.begin(document, text)
                _put(http, self._collection, [{"id": document, "text": text}])
            self._ledger.end(document)
            self._count("changes")

        self._guarded(step)

    def _ask(self, asker: int) -> None:
        generator = random.Random(100 + asker)

        def step(http: httpx.Client) -> None:
            document = generator.choice(self._documents)
            asking = generator.random() < 0.5
            since = time.monotonic()
            question = f"{' '.join(generator.sample(_WORDS, 3))} {_tag(document)}"
            body: dict[str, object] = {
                "question": question,
                "collection": self._collection,
                "filters": {"documents": [document]},
                "top_k": 9 if asking else 100,
            }
            response = http.post("/v1/ask" if asking else "/v1/search", json=body)
            if response.status_code == 503:
                self._count("refused")
                time.sleep(_POLL_S)
                return
            content = response.raise_for_status().json()
            possible = self._ledger.possible(document, since, time.monotonic())
            self._count("answers" if asking else "searches")
            check = check_answer if asking else check_search
            for fault in check(content, document, possible):
                self._fault(f"{document}: {fault}")

        self._guarded(step)


def _tag(document: str) -> str:
    return document.replace("/", "x")


def version_text(document: str, version: int, generator: random.Random) -> str:
    """Several chunks' worth of sentences, each of which names the document and its version."""
    sentences = [
        f"{_tag(document)} versie{version} {' '.join(generator.choices(_WORDS, k=10))}."
        for _ in range(generator.randint(20, 60))
    ]
    return " ".join(sentences)


def check_search(
    content: dict[str, list[dict[str, dict[str, dict[str, object]]]]],
    document: str,
    possible: Sequence[str | None],
) -> list[str]:
    """A document is there with all its chunks, in a version that may be there, or not at all."""
    chunks = sorted(
        (each["hit"]["chunk"] for each in content["passages"]), key=lambda each: str(each["start"])
    )
    if not chunks:
        return [] if None in possible else ["nothing was found, and the document was there all the time"]
    if any(chunk["document_id"] != document for chunk in chunks):
        return ["another document passed the filter"]
    for text in possible:
        if text is not None and _covers(chunks, text):
            return []
    return [f"{len(chunks)} chunks are no whole version of the {len(possible)} that may be there"]


def _covers(chunks: Sequence[dict[str, object]], text: str) -> bool:
    """Whether these are all the chunks of this text: consecutive, from its first to its last character."""
    places = sorted(
        (int(str(chunk["start"])), int(str(chunk["end"])), str(chunk["text"])) for chunk in chunks
    )
    ordinals = sorted(int(str(chunk["ordinal"])) for chunk in chunks)
    return (
        all(text[start:end] == slice_ for start, end, slice_ in places)
        and ordinals == list(range(len(chunks)))
        and places[0][0] == 0
        and max(end for _, end, _ in places) == len(text)
    )


def check_answer(
    content: dict[str, list[dict[str, object]]], document: str, possible: Sequence[str | None]
) -> list[str]:
    """Every quote stands in one version that may be there, at its offsets."""
    faults = []
    texts = [text for text in possible if text is not None]
    if not content["passages"] and None not in possible:
        faults.append("an answer without passages, and the document was there all the time")
    for citation in content["citations"]:
        start, end = int(str(citation["source_start"])), int(str(citation["source_end"]))
        if citation["document_id"] != document:
            faults.append("a citation of another document")
        elif not any(text[start:end] == citation["quote"] for text in texts):
            faults.append(f"the quote {str(citation['quote'])[:60]!r} isn't at its offsets in any version")
    return faults


# The command line


def _memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _check_is_here(url: str) -> None:
    host = urlsplit(url).hostname or ""
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise EvaluationError(f"{url} isn't on this machine; load is only ever put on a service of one's own")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m eval.load", description=__doc__)
    parser.add_argument("what", choices=("fill", "search", "ask", "consistency"))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--collection", default="load")
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--times", type=float, default=2.0, help="multiple of the rate that is served")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pid", type=int, default=0, help="the service's process, to see its memory")
    return parser.parse_args()


def _run_ask(arguments: argparse.Namespace) -> None:
    alone = served_alone(arguments.url, arguments.collection, 10)
    mean = statistics.mean(alone)
    print(f"alone: mean {mean:.3f} s, p95 {percentile(sorted(alone), 0.95):.3f} s, {1 / mean:.2f} a second")
    before = _memory_mib(arguments.pid) if arguments.pid else 0.0
    rate = arguments.times / mean
    samples = asyncio.run(ask_load(arguments.url, arguments.collection, rate, arguments.seconds))
    print(f"offered: {rate:.2f} a second for {arguments.seconds:g} s")
    print(table(samples))
    refused = [sample for sample in samples if sample.status in (429, 503)]
    if refused:
        quick = sum(sample.seconds < 0.1 for sample in refused) / len(refused)
        print(f"refused within 100 ms: {quick:.1%}")
    if arguments.pid:
        print(f"memory: {before:.0f} MiB before, {_memory_mib(arguments.pid):.0f} MiB after")


def main() -> int:
    """Runs one measurement and prints it."""
    arguments = _arguments()
    _check_is_here(arguments.url)
    if arguments.what == "fill":
        print(f"{fill(arguments.url, arguments.collection, arguments.chunks)} chunks")
    elif arguments.what == "search":
        started = time.perf_counter()
        load = search_load(arguments.url, arguments.collection, arguments.at_once, arguments.count)
        samples = asyncio.run(load)
        seconds = time.perf_counter() - started
        print(table(samples))
        print(f"{len(samples) / seconds:.0f} searches a second, {arguments.at_once} at once")
    elif arguments.what == "ask":
        _run_ask(arguments)
    else:
        outcome = ConsistencyRun(arguments.url, arguments.collection, arguments.seconds).run()
        print(outcome)
        return 1 if outcome.faults else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
