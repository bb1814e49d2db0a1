"""Benchmarks: what an ingest, a search, an answer and a start cost on this machine. They print; they assert nothing.

Each figure is measured several times and printed with its minimum, median and maximum, beside what this machine
could do at most: its matrix throughput in bfloat16 and its memory bandwidth, measured in the same run.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from corpus.limits import ReadLimits
from index.collection import DATABASE, Collection
from index.embedder import Embedder, EmbedderSpec, Vectors
from index.hits import SearchMode
from index.ingest import ingest
from index.store import Origin, Store
from rag.answerer import Answerer
from rag.answers import Style

MATRIX_SIZE = 2048
COPY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """Repeated measurements of one quantity; `unit` is what a value counts."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def row(self) -> tuple[str, str, str, str, str]:
        """Name with unit, n, and minimum, median and maximum as text."""
        low, middle, high = (f"{value:,.4g}" for value in (min(self.values), self.median, max(self.values)))
        return f"{self.name} ({self.unit})", str(len(self.values)), low, middle, high


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


def machine_limits(repeats: int = 5) -> list[Figure]:
    """What this machine can do at most: bfloat16 matrix products and copying memory."""
    import torch

    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE).to(torch.bfloat16)
    block = np.ones(COPY_BYTES // 8)
    matrix @ matrix
    products = [_seconds(lambda: matrix @ matrix) for _ in range(repeats)]
    copies = [_seconds(block.copy) for _ in range(repeats)]
    return [
        Figure("bfloat16 matrix product", "GFLOP/s", tuple(2 * MATRIX_SIZE**3 / s / 1e9 for s in products)),
        Figure("memory copy, read and write", "GB/s", tuple(2 * COPY_BYTES / s / 1e9 for s in copies)),
    ]


def bench_ingest(paths: Sequence[Path], embedder: Embedder, limits: ReadLimits, repeats: int) -> list[Figure]:
    """Ingests into a throw-away collection; `rest / forward` is all but the model's pass, over that pass."""
    embedder.embed_passages(["warm"])
    rows: dict[str, list[float]] = {"chunks/s": [], "tokens/s": [], "rest": []}
    for _ in range(repeats):
        timed = TimedEmbedder(embedder)
        with (
            tempfile.TemporaryDirectory() as folder,
            Collection.create(Path(folder) / "bench", "bench", timed) as collection,
        ):
            total = _seconds(lambda opened=collection: ingest(opened, paths, limits=limits))  # type: ignore[misc]
            rows["chunks/s"].append(collection.stats().chunks / total)
        rows["tokens/s"].append(timed.tokens / timed.forward_s)
        rows["rest"].append((total - timed.forward_s) / timed.forward_s)
    return [
        Figure("ingest", "passages/s", tuple(rows["chunks/s"])),
        Figure("embedding model alone", "tokens/s", tuple(rows["tokens/s"])),
        Figure("rest / forward pass", "ratio", tuple(rows["rest"])),
    ]


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


def bench_search(collection: Collection, questions: Sequence[str], top_k: int = 10) -> list[Figure]:
    """One question at a time; the embedding of the question is measured apart."""
    collection.search(questions[0], top_k)
    embeds, searches = [], {mode: list[float]() for mode in SearchMode}
    for question in questions:
        started = time.perf_counter()
        vector = collection.embedder.embed_queries([question])
        embeds.append((time.perf_counter() - started) * 1000)
        for mode, times in searches.items():
            times.append(_seconds(lambda m=mode: collection.search(question, top_k, m, vector=vector)) * 1000)  # type: ignore[misc] # noqa: B023
    chunks = collection.stats().chunks
    return [
        Figure("embedding a question", "ms", tuple(embeds)),
        *(Figure(f"{mode} search over {chunks:,} passages", "ms", tuple(t)) for mode, t in searches.items()),
    ]


def bench_ask(answerer: Answerer, questions: Sequence[str], style: Style) -> list[Figure]:
    """One question at a time, by stage."""
    answerer.ask(questions[0], style=style)
    stages: dict[str, list[float]] = {}
    for question in questions:
        for stage, seconds in answerer.ask(question, style=style).timings.items():
            stages.setdefault(stage, []).append(seconds)
    return [Figure(f"ask {style}: {stage.removesuffix('_s')}", "s", tuple(v)) for stage, v in stages.items()]


def bench_start(collection: str, question: str, repeats: int) -> list[Figure]:
    """A process of its own each time: `--help`, and a first answer; files are in the system's cache."""
    help_s = [_process(["--help"])[0] for _ in range(repeats)]
    asks = [_process(["ask", "--collection", collection, question, "--json"]) for _ in range(repeats)]
    return [
        Figure("vraagbaak --help", "s", tuple(help_s)),
        Figure("first answer of a cold process", "s", tuple(seconds for seconds, _ in asks)),
        Figure("its peak memory", "MB", tuple(peak for _, peak in asks)),
    ]


def _process(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one run of the command line."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "api", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return seconds, usage.ru_maxrss / 1000


def peak_memory() -> Figure:
    """Of this process so far."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Figure("peak memory of this process", "MB", (peak_kib / 1000,))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
