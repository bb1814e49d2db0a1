"""Benchmarks: what an ingest, a search, an answer and a start cost on this machine. They assert nothing.

Each figure is measured several times and stated with its minimum, median and maximum, beside what this machine
could do at most where that means something (`eval.bench_limits`), measured in the same run with the same threads.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from corpus.errors import EvaluationError
from corpus.limits import ReadLimits
from eval.bench_limits import (
    ModelSize,
    embedding_limit,
    exact_search_limit,
    measure_limits,
    next_token_limit,
    pass_limit,
)
from eval.bench_report import BenchReport, Figure, limit_figures
from index.collection import DATABASE, Collection
from index.embedder import Embedder, EmbedderSpec, Vectors
from index.hits import SearchMode
from index.ingest import ingest
from index.store import Origin, Store
from rag.answerer import Answerer, CalibratedReader
from rag.answers import Style
from rag.calibration import Calibration
from rag.reading import Reader, Reading, ReadingListener, ReadRequest

_SPECIAL_TOKENS = 2
_CACHED_BYTES = 100_000_000
"""Vectors that take less may stay in the processor's cache, and then memory doesn't bound their search."""


class TimedEmbedder:
    """An embedding model that books how long it took, so that the rest of a job is known as well."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.spec: EmbedderSpec = inner.spec
        self.forward_s = 0.0
        self.tokens = 0

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return self._timed(lambda: self._inner.embed_queries(questions))

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """See `Embedder`."""
        self.tokens += sum(self._inner.count_tokens(passages))
        return self._timed(lambda: self._inner.embed_passages(passages, on_progress))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Embedder`."""
        return self._inner.count_tokens(texts)

    def _timed(self, embed: Callable[[], Vectors]) -> Vectors:
        started = time.perf_counter()
        try:
            return embed()
        finally:
            self.forward_s += time.perf_counter() - started


def bench_ingest(
    paths: Sequence[Path], embedder: Embedder, limits: ReadLimits, repeats: int, size: ModelSize | None = None
) -> BenchReport:
    """Ingests into a throw-away collection; `rest / forward` is all but the model's pass, over that pass."""
    embedder.embed_passages(["warm"])
    runs = [_ingest_once(paths, embedder, limits) for _ in range(repeats)]
    peak, machine = peak_memory(), measure_limits()
    ingested = Figure("ingest", "passages/s", tuple(run.chunks / run.total_s for run in runs))
    embedded = Figure("embedding model alone", "tokens/s", tuple(run.tokens / run.forward_s for run in runs))
    length = runs[0].tokens / runs[0].chunks
    if size is not None:
        fastest = embedding_limit(size, length, machine)
        embedded = embedded.within(fastest)
        ingested = ingested.within(replace(fastest, value=fastest.value / length))
    rest = Figure("rest / forward pass", "ratio", tuple(run.total_s / run.forward_s - 1 for run in runs))
    settings = {"passages": runs[0].chunks, "tokens_per_passage": round(length, 1), "repeats": repeats}
    return BenchReport("ingest", settings, (ingested, embedded, rest, peak, *limit_figures(machine)), machine)


@dataclass(frozen=True, slots=True)
class _IngestRun:
    chunks: int
    tokens: int
    total_s: float
    forward_s: float


def _ingest_once(paths: Sequence[Path], embedder: Embedder, limits: ReadLimits) -> _IngestRun:
    timed = TimedEmbedder(embedder)
    with (
        tempfile.TemporaryDirectory() as folder,
        Collection.create(Path(folder) / "bench", "bench", timed) as collection,
    ):
        total_s = _seconds(lambda: ingest(collection, paths, limits=limits))
        return _IngestRun(collection.stats().chunks, timed.tokens, total_s, timed.forward_s)


def grow(source: Collection, folder: Path, chunks: int, seed: int = 0) -> Collection:
    """A collection of at least `chunks` passages in `folder`: the source's, then copies with their vectors perturbed.

    The noise, a tenth of a vector's length, takes a copy about as far as passages on one subject are apart.
    """
    noise = np.random.default_rng(seed)
    Collection.create(folder, "grown", source.embedder, source.manifest.chunking).close()
    store, made, copy = Store.open(folder / DATABASE), 0, 0
    while made < chunks:
        for document_id in source.sha256s():
            document = source.document(document_id)
            pieces = source.chunks(document_id)
            vectors = source.embeddings(document_id).astype(np.float32)
            if copy:
                vectors += noise.normal(0, 0.1 / vectors.shape[1] ** 0.5, vectors.shape).astype(np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            with store.writing() as transaction:
                renamed = replace(document, id=f"{document_id}~{copy}")
                transaction.insert(renamed, pieces, vectors, Origin())
            made += len(pieces)
            if made >= chunks:
                break
        copy += 1
    store.close()
    return Collection.open(folder, source.embedder)


def bench_search(
    collection: Collection, questions: Sequence[str], top_k: int = 10, size: ModelSize | None = None
) -> BenchReport:
    """One question at a time; the embedding of the question is measured apart."""
    embedder = collection.embedder
    collection.search(questions[0], top_k)
    embeds, searches = [], {mode: list[float]() for mode in SearchMode}
    for question in questions:
        started = time.perf_counter()
        vector = embedder.embed_queries([question])
        embeds.append((time.perf_counter() - started) * 1000)
        for mode, times in searches.items():
            times.append(_seconds(lambda m=mode: collection.search(question, top_k, m, vector=vector)) * 1000)  # type: ignore[misc] # noqa: B023
    peak, machine = peak_memory(), measure_limits()
    chunks, dimension = collection.stats().chunks, embedder.spec.dimension
    embedding = Figure("embedding a question", "ms", tuple(embeds))
    if size is not None:
        prefixed = embedder.count_tokens([embedder.spec.query_prefix + question for question in questions])
        tokens = statistics.median(prefixed) + _SPECIAL_TOKENS
        embedding = embedding.within(pass_limit(size, tokens, machine, unit_s=0.001))
    found = [
        Figure(f"{mode} search over {chunks:,} passages", "ms", tuple(t)) for mode, t in searches.items()
    ]
    if chunks * dimension * 2 > _CACHED_BYTES:
        exact = exact_search_limit(chunks, dimension, machine, unit_s=0.001)
        found = [figure.within(exact) if figure.name.startswith("dense") else figure for figure in found]
    settings = {"passages": chunks, "questions": len(questions), "top_k": top_k}
    return BenchReport("search", settings, (embedding, *found, peak, *limit_figures(machine)), machine)


@dataclass(frozen=True, slots=True)
class TimedReading:
    """One reading in figures; `first_s` is from its request to the first token that could be shown."""

    prompt_tokens: int
    new_tokens: int
    first_s: float
    read_s: float

    @property
    def further_s(self) -> float:
        """Seconds of each token after the first; there must be one."""
        return (self.read_s - self.first_s) / (self.new_tokens - 1)


@dataclass(slots=True)
class _FirstText:
    """Notes when a reading is first told of; passes everything on."""

    inner: ReadingListener | None
    at: float | None = None

    def on_text(self, text: str) -> bool:
        """See `ReadingListener`."""
        if self.at is None:
            self.at = time.perf_counter()
        return self.inner.on_text(text) if self.inner else True


@dataclass(slots=True)
class TimedReader:
    """A reader that books each single reading; what it reads in a batch isn't booked."""

    inner: Reader
    readings: list[TimedReading] = field(default_factory=list)

    @property
    def id(self) -> str:
        """See `Reader`."""
        return self.inner.id

    @property
    def calibration(self) -> Calibration | None:
        """That of the reader inside, where it has one."""
        return self.inner.calibration if isinstance(self.inner, CalibratedReader) else None

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """See `Reader`."""
        noted, started = _FirstText(listener), time.perf_counter()
        reading = self.inner.read(request, noted)
        ended = time.perf_counter()
        first_s = (noted.at if noted.at is not None else ended) - started
        self.readings.append(
            TimedReading(reading.prompt_tokens, reading.new_tokens, first_s, ended - started)
        )
        return reading

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """See `Reader`."""
        return self.inner.read_batch(requests, on_done)


def bench_ask(
    answerer: Answerer,
    reader: TimedReader,
    questions: Sequence[str],
    style: Style,
    size: ModelSize | None = None,
) -> BenchReport:
    """One question at a time, by stage and by token. `reader` is what `answerer` reads with."""
    answerer.ask(questions[0], style=style)
    reader.readings.clear()
    answers = [answerer.ask(question, style=style) for question in questions]
    peak, machine = peak_memory(), measure_limits()
    readings = reader.readings
    written = [reading for reading in readings if reading.new_tokens > 1]
    first = Figure("ask: reading, first token", "s", tuple(each.first_s for each in readings))
    pace = Figure(
        "ask: reading", "prompt tokens/s", tuple(each.prompt_tokens / each.first_s for each in readings)
    )
    further = [Figure("ask: each further token", "ms", tuple(each.further_s * 1000 for each in written))]
    if size is not None and readings:
        tokens = statistics.median(reading.prompt_tokens for reading in readings)
        least = pass_limit(size, tokens, machine)
        first = first.within(least)
        pace = pace.within(replace(least, value=tokens / least.value, is_time=False))
        further = [figure.within(next_token_limit(size, machine, unit_s=0.001)) for figure in further]
    stages = [
        Figure(f"ask: {stage.removesuffix('_s')}", "s", tuple(answer.timings[stage] for answer in answers))
        for stage in answers[0].timings
    ]
    counted = [
        Figure("ask: prompt", "tokens", tuple(float(each.prompt_tokens) for each in readings)),
        Figure("ask: written", "tokens", tuple(float(each.new_tokens) for each in readings)),
    ]
    figures = (*stages, first, *further, pace, *counted, peak, *limit_figures(machine))
    settings = {
        "questions": len(questions),
        "style": style.value,
        "abstained": sum(a.abstained for a in answers),
    }
    return BenchReport("ask", settings, tuple(figure for figure in figures if figure.values), machine)


def bench_start(collection: str, question: str, repeats: int) -> BenchReport:
    """A process of its own each time: `--help`, and a first answer; files are in the system's cache."""
    _process(["ask", "--collection", collection, question, "--json"])
    help_s = [_process(["--help"])[0] for _ in range(repeats)]
    asks = [_process(["ask", "--collection", collection, question, "--json"]) for _ in range(repeats)]
    figures = (
        Figure("vraagbaak --help", "s", tuple(help_s)),
        Figure("first answer of a cold process", "s", tuple(seconds for seconds, _ in asks)),
        Figure("its peak memory", "MB", tuple(peak for _, peak in asks)),
    )
    return BenchReport("start", {"repeats": repeats}, figures)


def _process(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one run of the command line. Raises EvaluationError."""
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "api", *arguments], stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            reason = " ".join(said.read().decode(errors="replace").split())
            raise EvaluationError(
                f"`vraagbaak {' '.join(arguments)}` ended with {process.returncode}: {reason or 'no word of why'}"
            )
    return seconds, usage.ru_maxrss / 1000


def peak_memory() -> Figure:
    """Of this process so far."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Figure("peak memory of this process", "MB", (peak_kib / 1000,))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
