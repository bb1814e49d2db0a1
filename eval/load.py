"""Load on a service, from outside it: `python -m eval.load --help`.

Only HTTP is used, so the same measurements run on any service; each loop is bounded in count or time, and the
service must be on this machine (`--url`, or one that is started for it).

::

    fill         documents of a .jsonl, or made up of common words, until there are so many chunks
    search       so many searches at once
    ask          questions at a multiple of the rate that is served
    consistency  askers and writers at once; each response is checked against what must be in
"""

import argparse
import asyncio
import itertools
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from corpus.errors import VraagbaakError
from eval.serving import MemoryWatch, chunks_in, put, served, write_json

# fmt: off
WORDS = (
    "gemeente", "vergunning", "aanvraag", "subsidie", "paspoort", "rijbewijs", "belasting", "inkomen",
    "woning", "huur", "zorg", "school", "leraar", "energie", "water", "afval", "natuur", "verkeer",
    "fiets", "trein", "station", "brug", "haven", "dijk", "provincie", "minister", "kamer", "begroting",
    "onderzoek", "universiteit", "techniek", "industrie", "bedrijf", "werk", "loon", "pensioen",
    "verzekering", "rechter", "wet", "artikel", "besluit",
)
# fmt: on
REFUSED = (429, 503)
QUICK_S = 0.1
"""A refusal that takes longer than this isn't "at once"."""
_ALONE = 20
_WARM = 3
_BATCH = 20
"""Documents put in together."""

Questions = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: its status (0: no answer at all, `error` says why) and how long it took.

    `own_s` is the time that the service names itself (`timings.total_s`): without waiting in the queue.
    """

    status: int
    seconds: float
    own_s: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Latencies of one kind of outcome, in milliseconds; `share` is of all requests."""

    outcome: str
    n: int
    share: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, outcome: str, seconds: Sequence[float], total: int) -> "Row":
        """`seconds` isn't empty."""
        times = sorted(each * 1000 for each in seconds)
        marks = [percentile(times, share) for share in (0.5, 0.95, 0.99, 1.0)]
        return cls(outcome, len(times), len(times) / total, *marks)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a run came to; `notes` are sentences, `figures` the same numbers for machines."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    memory_mib: tuple[float, ...] = ()

    def markdown(self) -> str:
        """As it stands in docs/operations.md."""
        parts = [f"{self.title}:", table(self.rows)]
        parts += [" ".join(self.notes)] if self.notes else []
        parts += [f"No response {count} times: {reason}." for reason, count in self.errors.items()]
        return "\n\n".join(parts)


def rows_of(samples: Sequence[Sample]) -> tuple[Row, ...]:
    """A row a status; what was served also by the time that the service itself names."""
    rows = []
    for status in sorted({sample.status for sample in samples}):
        some = [sample for sample in samples if sample.status == status]
        name = str(status) if status else "no response"
        rows.append(Row.of(name, [sample.seconds for sample in some], len(samples)))
        own = [sample.own_s for sample in some if sample.own_s is not None]
        if own:
            rows.append(Row.of(f"{name}, without waiting", own, len(samples)))
    return tuple(rows)


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = ["| outcome | n | share | p50 ms | p95 ms | p99 ms | max ms |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        marks = (f"{mark:.0f}" for mark in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms))
        lines.append(f"| {row.outcome} | {row.n} | {row.share:.1%} | {' | '.join(marks)} |")
    return "\n".join(lines)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values doesn't exceed; `ordered` isn't empty."""
    place = max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1)
    return ordered[min(place, len(ordered) - 1)]


def errors_of(samples: Sequence[Sample]) -> dict[str, int]:
    """How often there was no response, by reason."""
    return dict(Counter(sample.error for sample in samples if sample.error))


def questions_from(set_file: Path | None, seed: int) -> Questions:
    """Questions of an evaluation set over and over, or made up of common words; a seed gives the same ones."""
    generator = random.Random(seed)
    if set_file is None:
        return lambda: f"Wat zegt de {' '.join(generator.sample(WORDS, 5))}?"
    from eval.cases import read_cases

    questions = [case.question for case in read_cases(set_file)]
    generator.shuffle(questions)
    endless = itertools.cycle(questions)
    return lambda: next(endless)


async def _timed(http: httpx.AsyncClient, path: str, body: dict[str, object]) -> Sample:
    started = time.perf_counter()
    try:
        response = await http.post(path, json=body)
    except httpx.TransportError as error:
        reason = f"{type(error).__name__} {error}".strip()
        return Sample(0, time.perf_counter() - started, error=reason)
    seconds = time.perf_counter() - started
    is_answer = response.status_code == 200 and path == "/v1/ask"  # a search's own time has its waiting in it
    own = response.json()["timings"]["total_s"] if is_answer else None
    return Sample(response.status_code, seconds, own)


# Searching


async def search_load(
    url: str, collection: str, at_once: int, count: int, question: Questions
) -> list[Sample]:
    """`count` searches, `at_once` under way all the time, each on a connection of its own.

    One client's pool looks at all its connections for each request, and takes more of the processor than the search.
    """
    samples: list[Sample] = []
    certificates = httpx.create_ssl_context(
        verify=False
    )  # the service is on this machine; to make one takes long

    async def one_after_another(share: int) -> None:
        async with httpx.AsyncClient(base_url=url, verify=certificates, timeout=60, trust_env=False) as http:
            for _ in range(share):
                body: dict[str, object] = {"question": question(), "collection": collection}
                samples.append(await _timed(http, "/v1/search", body))

    await asyncio.gather(*(one_after_another(max(1, count // at_once)) for _ in range(at_once)))
    return samples


def measure_search(url: str, collection: str, at_once: int, count: int, set_file: Path | None) -> LoadReport:
    """The proof that searches at once are all answered."""
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        chunks = chunks_in(http, collection)
        question = questions_from(set_file, 1)
        for _ in range(_WARM):
            body = {"question": question(), "collection": collection}
            http.post("/v1/search", json=body).raise_for_status()
    with MemoryWatch(url) as memory:
        started = time.perf_counter()
        samples = asyncio.run(search_load(url, collection, at_once, count, question))
        seconds = time.perf_counter() - started
    per_second = len(samples) / seconds
    notes = (f"{per_second:.1f} searches a second.", *_memory_notes(memory.mib))
    return LoadReport(
        f"{at_once} searches at once over {chunks:,} chunks, {len(samples):,} in all",
        rows_of(samples),
        notes,
        {"per_second": per_second, "chunks": chunks, "seconds": seconds},
        errors_of(samples),
        tuple(memory.mib),
    )


# Asking


async def ask_load(
    url: str, collection: str, per_second: float, seconds: float, style: str, question: Questions
) -> list[Sample]:
    """Questions at a steady rate, whether they are served or not; new connections as they are needed."""
    limits = httpx.Limits(max_connections=1000)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120, trust_env=False) as http:
        asking = []
        started = time.perf_counter()
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            body: dict[str, object] = {"question": question(), "collection": collection, "style": style}
            asking.append(asyncio.ensure_future(_timed(http, "/v1/ask", body)))
        return list(await asyncio.gather(*asking))


async def served_alone(
    url: str, collection: str, count: int, style: str, question: Questions
) -> list[Sample]:
    """Questions asked one after another: what the service does without any load."""
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        samples = []
        for _ in range(count):
            body: dict[str, object] = {"question": question(), "collection": collection, "style": style}
            samples.append(await _timed(http, "/v1/ask", body))
        return samples


def measure_ask(
    url: str, collection: str, times: float, seconds: float, style: str, set_file: Path | None
) -> LoadReport:
    """The proof that what is served keeps its latency, and that the rest is refused at once."""
    question = questions_from(set_file, 2)
    asyncio.run(served_alone(url, collection, _WARM, style, question))
    alone = asyncio.run(served_alone(url, collection, _ALONE, style, question))
    mean_s = statistics.mean(sample.seconds for sample in alone)
    with MemoryWatch(url) as memory:
        samples = asyncio.run(ask_load(url, collection, times / mean_s, seconds, style, question))
    served_ones = [sample for sample in samples if sample.status == 200]
    refused = [sample.seconds for sample in samples if sample.status in REFUSED]
    figures = {
        "alone_per_second": 1 / mean_s,
        "offered_per_second": times / mean_s,
        "served_per_second": len(served_ones) / seconds,
        "refused_within_100_ms": sum(each < QUICK_S for each in refused) / len(refused) if refused else 1.0,
    }
    notes = (
        f"Alone it answers {figures['alone_per_second']:.2f} a second; "
        f"{figures['offered_per_second']:.2f} a second were asked.",
        f"Refused within 100 ms: {figures['refused_within_100_ms']:.1%}.",
        *_memory_notes(memory.mib),
    )
    rows = (Row.of("alone", [sample.seconds for sample in alone], len(alone)), *rows_of(samples))
    title = f"/ask ({style}) at {times:g} times what it can serve, for {seconds:g} s"
    return LoadReport(title, rows, notes, figures, errors_of(samples), tuple(memory.mib))


def _memory_notes(mib: Sequence[float]) -> Iterator[str]:
    if len(mib) < 2:
        return
    quarters = [mib[round(share * (len(mib) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    told = ", ".join(f"{each:.0f}" for each in quarters)
    yield f"Memory in MiB at the start and after each quarter: {told}; at most {max(mib):.0f}."


# Filling


def fill(url: str, collection: str, chunks: int, corpus: Path | None) -> int:
    """Puts documents in until there are so many chunks; returns how many there are."""
    documents = _made_up() if corpus is None else _read(corpus)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        http.put(f"/v1/collections/{collection}").raise_for_status()
        while (there := chunks_in(http, collection)) < chunks:
            some = list(itertools.islice(documents, min(_BATCH, 1 + (chunks - there) // 4)))
            if not some:
                break
            put(http, collection, some)
        return there


def _made_up() -> Iterator[dict[str, str]]:
    generator = random.Random(0)
    for number in itertools.count(1):
        sentences = (" ".join(generator.choices(WORDS, k=12)).capitalize() for _ in range(40))
        yield {"id": f"load/{number}", "text": ". ".join(sentences) + "."}


def _read(corpus: Path) -> Iterator[dict[str, str]]:
    from corpus import read
    from corpus.document import Document

    for document in read([corpus]):
        if isinstance(document, Document):
            fields = ("id", "title", "text", "language", "source")
            yield {name: getattr(document, name) for name in fields}


# The command line


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fill", "search", "ask", "consistency"))
    parser.add_argument("--url", help="a service that runs; without it one is started and stopped")
    parser.add_argument("--collection", default="load")
    parser.add_argument("--chunks", type=int, default=10_000, help="fill: until there are so many")
    parser.add_argument("--corpus", type=Path, help="fill: a .jsonl of documents, instead of made-up ones")
    parser.add_argument("--set", type=Path, help="search, ask: an evaluation set, for its questions")
    parser.add_argument("--at-once", type=int, default=200, help="search: how many")
    parser.add_argument("--count", type=int, default=2000, help="search: how many in all")
    parser.add_argument("--times", type=float, default=2.0, help="ask: multiple of the rate that is served")
    parser.add_argument("--style", choices=("short", "full"), default="short", help="ask: of the answers")
    parser.add_argument("--seconds", type=float, default=60.0, help="ask, consistency: how long")
    parser.add_argument("--askers", type=int, default=4, help="consistency: how many at once")
    parser.add_argument("--writers", type=int, default=2, help="consistency: how many at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, url: str) -> int:
    """Runs what was asked for, prints it, and says whether it came out well."""
    if arguments.what == "fill":
        print(f"{fill(url, arguments.collection, arguments.chunks, arguments.corpus):,} chunks")
        return 0
    if arguments.what == "consistency":
        from eval.consistency import ConsistencyRun

        askers, writers = arguments.askers, arguments.writers
        outcome = ConsistencyRun(url, arguments.collection, arguments.seconds, askers, writers).run()
        print(outcome.summary())
        _write(arguments.json, asdict(outcome))
        return 1 if outcome.faults else 0
    good = {"200"}
    if arguments.what == "search":
        at_once, count = arguments.at_once, arguments.count
        report = measure_search(url, arguments.collection, at_once, count, arguments.set)
    else:
        times, seconds, style = arguments.times, arguments.seconds, arguments.style
        report = measure_ask(url, arguments.collection, times, seconds, style, arguments.set)
        good |= {"alone", *(str(status) for status in REFUSED)}
    print(report.markdown())
    _write(arguments.json, {**asdict(report), "cores": os.cpu_count(), "load_average": os.getloadavg()[0]})
    return 0 if {row.outcome.partition(",")[0] for row in report.rows} <= good else 1


def _write(file: Path | None, content: object) -> None:
    if file is not None:
        write_json(file, content)


def main() -> int:
    """Runs one measurement and prints it; 1 where something came out that mustn't."""
    arguments = _arguments()
    try:
        with served(arguments.url) as url:
            return _measure(arguments, url)
    except (VraagbaakError, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
