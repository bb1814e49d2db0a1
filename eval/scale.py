"""Search and ingest at sizes that no test reaches: `python -m eval.scale --help`. It prints; it asserts nothing.

::

    sample   embeds real passages and questions, once, into a folder
    search   collections of so many perturbed copies of them: building, memory, latency, recall against all vectors
    ingest   a folder of many documents with vectors that cost nothing: memory as it grows, and after a kill

A copy is a real vector moved along the difference of two others: `v + 0.55 (a - b)`, at unit length. It then
stands about as far from what it was made of as a law's neighbouring passages stand from each other (cosine
0.95), in directions that real vectors differ in. Questions are real ones as the model embeds questions.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.chunking import ChunkingConfig, split
from corpus.document import Chunk, Document
from corpus.errors import DocumentError
from corpus.files import find_files
from corpus.readers import read_file
from index.collection import DATABASE, Collection
from index.dense import EXACT_UP_TO, SNAPSHOT, DenseIndex
from index.embedder import EmbedderSpec, Vectors, load_embedder
from index.hits import Filters, SearchMode
from index.ingest import ingest
from index.store import Origin, Store
from index.writer import passage_text

SHIFT = 0.55
CHUNKS_A_DOCUMENT = 40
CHUNKS_A_FILE = 14
DOCUMENTS_A_TRANSACTION = 100
RECALL_AT = 10
TOP_K = 10
REPORT_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one call each."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Real vectors, shape (n, d), the passages they are of, and vectors of questions, shape (m, d)."""

    vectors: Vectors
    passages: Sequence[str]
    question_vectors: Vectors
    questions: Sequence[str]
    spec: EmbedderSpec

    @classmethod
    def load(cls, folder: Path) -> "Sample":
        words = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
        vectors = np.load(folder / "vectors.npy").astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return cls(
            vectors,
            words["passages"],
            np.load(folder / "questions.npy").astype(np.float32),
            words["questions"],
            EmbedderSpec(**words["spec"]),
        )


@dataclass(frozen=True, slots=True)
class Built:
    """What building both indexes from a filled database took; the peak is of the process that did."""

    dense_s: float
    lexical_s: float
    peak_mb: float
    dense_mb: float
    lexical_mb: float
    database_mb: float


@dataclass(frozen=True, slots=True)
class Served:
    """What searching took, in a fresh process; `exact` is the form that compares every vector, where measured.

    `resident_mb` is of the process with the collection open and searched, without the embedding model;
    `recall` is of the ten nearest among all vectors, and `trials` that of the trials at building.
    """

    open_s: float
    resident_mb: float
    form: str
    depth: int
    trials: float
    recall: float
    vectors: Latency
    exact: Latency | None
    words: Latency
    fused: Latency
    fused_half: Latency
    fused_one: Latency
    add_s: float
    delete_s: float


class FixedEmbedder:
    """Has a model's name, and vectors of nothing: `embed_passages` gives copies of real ones."""

    def __init__(self, spec: EmbedderSpec, copies: Callable[[int], Vectors]) -> None:
        self.spec = spec
        self._copies = copies

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return self._copies(len(questions))

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """See `Embedder`."""
        return self._copies(len(passages))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """About as many as a multilingual model makes of Dutch: one for four characters."""
        return [len(text) // 4 + 1 for text in texts]


def copier(vectors: Vectors, seed: int) -> Callable[[int], Vectors]:
    """Gives so many perturbed copies, one of each real vector in turn."""
    generator, at = np.random.default_rng(seed), 0

    def copies(count: int) -> Vectors:
        nonlocal at
        places = np.arange(at, at + count) % len(vectors)
        at += count
        one, other = generator.integers(0, len(vectors), (2, count))
        moved = vectors[places] + SHIFT * (vectors[one] - vectors[other])
        copied: Vectors = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        return copied

    return copies


# sample


def make_sample(
    folder: Path, corpus: Sequence[Path], questions: Sequence[str], count: int, home: Path
) -> None:
    """Embeds up to `count` passages of a random choice of the files."""
    embedder = load_embedder("bundled", home)
    files = [found for found in find_files(corpus) if not isinstance(found, DocumentError)]
    random.Random(1).shuffle(files)
    passages: list[str] = []
    for file in files:
        for read in read_file(file):
            if isinstance(read, Document):
                chunks = split(read, embedder.count_tokens, ChunkingConfig())[:CHUNKS_A_FILE]
                passages += [passage_text(read, chunk) for chunk in chunks]
        if len(passages) >= count:
            break
    vectors = embedder.embed_passages(passages[:count])
    _keep(
        folder, Sample(vectors, passages[:count], embedder.embed_queries(questions), questions, embedder.spec)
    )


def sample_collection(folder: Path, collection: Path, questions: Sequence[str], home: Path) -> int:
    """All passages of a collection with the vectors that it has of them; returns how many."""
    embedder = load_embedder("bundled", home)
    with Collection.open(collection, embedder) as opened, opened._store.reading() as transaction:
        vectors = np.concatenate([rows for _, rows in transaction.vectors_after(0)])
        passages = [chunk.text for chunk in transaction.texts_after(0)]
    _keep(folder, Sample(vectors, passages, embedder.embed_queries(questions), questions, embedder.spec))
    return len(passages)


def _keep(folder: Path, sample: Sample) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", sample.vectors.astype(np.float16))
    np.save(folder / "questions.npy", sample.question_vectors)
    words = {"passages": sample.passages, "questions": sample.questions, "spec": asdict(sample.spec)}
    (folder / "sample.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")


# search


def fill(folder: Path, sample: Sample, count: int) -> None:
    """A collection whose database has `count` chunks, in documents of forty, and no index yet."""
    embedder = FixedEmbedder(sample.spec, copier(sample.vectors, 5))
    Collection.create(folder, "scale", embedder).close()
    store = Store.open(folder / DATABASE)
    documents = _documents(sample, count)
    while some := list(itertools.islice(documents, DOCUMENTS_A_TRANSACTION)):
        with store.writing() as transaction:
            for document in some:
                chunks = _chunks(document)
                transaction.insert(
                    document, chunks, embedder.embed_passages([c.text for c in chunks]), Origin()
                )
    store.erase_log()
    store.close()


def _documents(sample: Sample, count: int) -> Iterator[Document]:
    """Documents of passages with a quarter of their words exchanged, so that words spread as copies do."""
    chance = random.Random(1)
    words = [word for passage in sample.passages[:2000] for word in passage.split()]
    for number in range(0, count, CHUNKS_A_DOCUMENT):
        passages = []
        for place in range(number, min(count, number + CHUNKS_A_DOCUMENT)):
            passage = sample.passages[place % len(sample.passages)].split()
            for _ in range(len(passage) // 4):
                passage[chance.randrange(len(passage))] = words[chance.randrange(len(words))]
            passages.append(" ".join(passage))
        half = {"half": str(number // CHUNKS_A_DOCUMENT % 2)}
        yield Document(f"d/{number}", "", "nl", "\n".join(passages), "scale", half, str(number))


def _chunks(document: Document) -> list[Chunk]:
    chunks, start = [], 0
    for ordinal, text in enumerate(document.text.split("\n")):
        end = start + len(text)
        chunks.append(Chunk(f"{document.id}#{ordinal}", document.id, ordinal, start, end, text, ""))
        start = end + 1
    return chunks


def build(folder: Path, sample_folder: Path) -> Built:
    """In a process of its own: opens a filled collection, which makes both indexes."""
    sample = Sample.load(sample_folder)
    store = Store.open(folder / DATABASE)
    started = time.perf_counter()
    with store.reading() as transaction:
        count = transaction.chunk_count()
        DenseIndex.built(transaction, sample.spec.dimension, exact=count <= EXACT_UP_TO)
    dense_s = time.perf_counter() - started
    store.close()
    started = time.perf_counter()
    Collection.open(folder, FixedEmbedder(sample.spec, copier(sample.vectors, 6))).close()
    both_s = time.perf_counter() - started
    lexical = sum(file.stat().st_size for part in folder.glob("lexical-*") for file in part.iterdir())
    return Built(
        round(dense_s, 2),
        round(both_s - dense_s, 2),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        round((folder / SNAPSHOT).stat().st_size / 1e6, 1),
        round(lexical / 1e6, 1),
        round((folder / DATABASE).stat().st_size / 1e6, 1),
    )


def serve(folder: Path, sample_folder: Path, exact_up_to: int) -> Served:
    """In a process of its own: opens the collection and searches it."""
    sample = Sample.load(sample_folder)
    embedder = FixedEmbedder(sample.spec, copier(sample.vectors, 7))
    asked = list(zip(sample.questions, sample.question_vectors[:, None], strict=True))
    started = time.perf_counter()
    with Collection.open(folder, embedder) as collection:
        open_s = time.perf_counter() - started

        def search(mode: SearchMode, filters: Filters | None = None) -> Latency:
            return _latency(asked, lambda q, v: collection.search(q, TOP_K, mode, filters, vector=v))

        words, fused = search(SearchMode.LEXICAL), search(SearchMode.FUSED)
        half = search(SearchMode.FUSED, Filters(metadata={"half": "1"}))
        one = search(SearchMode.FUSED, Filters(documents=frozenset({"d/0"})))
        resident_mb = _resident_mb()
        dense = collection._dense
        with collection._store.reading() as transaction:
            vectors = _latency(asked, lambda q, v: dense.search(v, 100, transaction))
            true = nearest(transaction.vectors_after(0), sample.question_vectors)
            found = [
                hits.keys[:RECALL_AT] for hits in dense.search(sample.question_vectors, 100, transaction)
            ]
            exact = None
            if dense.coding is not None and len(dense) <= exact_up_to:
                every = DenseIndex.built(transaction, sample.spec.dimension, exact=True)
                exact = _latency(asked, lambda q, v: every.search(v, 100, transaction))
        add_s, delete_s = _change(collection)
    share = np.mean([np.isin(some, keys).mean() for some, keys in zip(true, found, strict=True)])
    coding = dense.coding
    return Served(
        open_s=round(open_s, 2),
        resident_mb=resident_mb,
        form="exact" if coding is None else "codes",
        depth=0 if coding is None else coding.depth,
        trials=1.0 if coding is None else coding.recall,
        recall=round(float(share), 4),
        vectors=vectors,
        exact=exact if coding is not None else vectors,
        words=words,
        fused=fused,
        fused_half=half,
        fused_one=one,
        add_s=add_s,
        delete_s=delete_s,
    )


def _change(collection: Collection) -> tuple[float, float]:
    """Seconds to add one document and to delete it again, with its words gone from the files."""
    text = "Een nieuw document over de toeslag voor het onderhoud van dijken. " * 5
    started = time.perf_counter()
    collection.add([Document("new/1", "", "nl", text, "scale", {}, "new")])
    added = time.perf_counter()
    collection.delete(["new/1"])
    deleted = time.perf_counter()
    return round(added - started, 2), round(deleted - added, 2)


def nearest(
    batches: Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]], queries: Vectors
) -> NDArray[np.int64]:
    """Keys of each query's nearest among all vectors, shape (n, RECALL_AT), by multiplying all with all."""
    scores, keys = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for some, rows in batches:
        scores = np.concatenate([scores, queries @ rows.astype(np.float32).T], axis=1)
        keys = np.concatenate([keys, np.broadcast_to(some, (len(queries), len(some)))], axis=1)
        best = np.argpartition(-scores, RECALL_AT - 1, axis=1)[:, :RECALL_AT]
        scores, keys = np.take_along_axis(scores, best, axis=1), np.take_along_axis(keys, best, axis=1)
    return keys


def _latency(
    asked: Sequence[tuple[str, Vectors]], search: Callable[[str, Vectors], object], warm: int = 10
) -> Latency:
    for question, vector in asked[:warm]:
        search(question, vector)
    times = []
    for question, vector in asked:
        started = time.perf_counter()
        search(question, vector)
        times.append((time.perf_counter() - started) * 1000)
    return Latency(round(statistics.median(times), 2), round(statistics.quantiles(times, n=20)[-1], 2))


def _resident_mb(pid: int | str = "self") -> float:
    """What a process has in memory now (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def search_at(count: int, sample_folder: Path, work: Path, exact_up_to: int) -> tuple[Built, Served]:
    """Fills, builds and searches one size; the collection is deleted afterwards."""
    folder = work / f"scale-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        fill(folder, Sample.load(sample_folder), count)
        fresh = multiprocessing.get_context("spawn")
        with fresh.Pool(1, maxtasksperchild=1) as pool:
            built: Built = pool.apply(build, (folder, sample_folder))
            served: Served = pool.apply(serve, (folder, sample_folder, exact_up_to))
        return built, served
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ingest


def ingest_many(folder: Path, collection: Path, sample_folder: Path) -> None:
    """In a process of its own: ingests a folder, and prints the documents that are in and the memory taken."""
    sample = Sample.load(sample_folder)
    embedder = FixedEmbedder(sample.spec, copier(sample.vectors[:500], 8))
    del sample
    is_there = (collection / DATABASE).is_file()
    opened = (
        Collection.open(collection, embedder) if is_there else Collection.create(collection, "s", embedder)
    )
    done = 0

    def tell(_: object) -> None:
        nonlocal done
        done += 1
        if done % REPORT_EVERY == 0:
            print(json.dumps({"documents": done, "resident_mb": _resident_mb()}), flush=True)

    started = time.perf_counter()
    with opened:
        report = ingest(opened, [folder], on_event=tell)
        figures = {
            "seconds": round(time.perf_counter() - started, 1),
            "added": report.added,
            "unchanged": report.unchanged,
            "chunks": opened.stats().chunks,
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        }
    print(json.dumps(figures), flush=True)


def ingest_and_kill(count: int, sample_folder: Path, work: Path) -> list[dict[str, float]]:
    """The lines of an ingest that was killed in the middle, and those of the one that went on from there."""
    files, collection = work / "ingest-files", work / "ingest-collection"
    for folder in (files, collection):
        shutil.rmtree(folder, ignore_errors=True)
    sample = Sample.load(sample_folder)
    for number, document in enumerate(_documents(sample, count * CHUNKS_A_DOCUMENT)):
        (files / str(number // 1000)).mkdir(parents=True, exist_ok=True)
        text = document.text[:4000]
        (files / str(number // 1000) / f"{number}.txt").write_text(f"{number}. {text}", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "eval.scale",
        "ingest-one",
        *map(str, (files, collection, sample_folder)),
    ]
    lines: list[dict[str, float]] = []
    for is_first in (True, False):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(json.loads(line))
                print(line, end="", flush=True)
                if is_first and lines[-1].get("documents", 0) >= count // 2:
                    process.send_signal(signal.SIGKILL)
                    break
    for folder in (files, collection):
        shutil.rmtree(folder, ignore_errors=True)
    return lines


# What is printed


def table(rows: Sequence[tuple[int, Built, Served]]) -> str:
    """Markdown, a line a size."""
    head = (
        "| chunks | form | built, s (vectors / words) | peak, MB | vectors on disk, MB | resident, MB "
        "| recall@10 | every vector, ms | vector stage, ms | words, ms | fused, ms | of half / of one document, ms "
        "| add / delete, s |"
    )
    lines = [head, "|" + "---|" * 13]
    for count, built, served in rows:
        form = served.form if served.form == "exact" else f"codes, {served.depth} again"
        lines.append(
            f"| {count:,} | {form} | {built.dense_s} / {built.lexical_s} | {built.peak_mb:,.0f} | {built.dense_mb} "
            f"| {served.resident_mb:,.0f} | {served.recall:.4f} | {_both(served.exact)} | {_both(served.vectors)} "
            f"| {_both(served.words)} | {_both(served.fused)} "
            f"| {_both(served.fused_half)} / {_both(served.fused_one)} | {served.add_s} / {served.delete_s} |"
        )
    return "\n".join(lines)


def _both(latency: Latency | None) -> str:
    return "–" if latency is None else f"{latency.p50:.1f} ({latency.p95:.1f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sample = commands.add_parser("sample", help="embed real passages and questions")
    sample.add_argument("folder", type=Path)
    source = sample.add_mutually_exclusive_group(required=True)
    source.add_argument("--corpus", type=Path, nargs="+")
    source.add_argument("--collection", type=Path, help="a collection's folder, for all of its passages")
    sample.add_argument("--questions", type=Path, required=True, help="a text file, one a line")
    sample.add_argument("--passages", type=int, default=8000)
    sample.add_argument("--home", type=Path, required=True, help="where the bundled model lies")
    search = commands.add_parser("search", help="collections of many chunks")
    search.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    search.add_argument(
        "--exact-up-to", type=int, default=400_000, help="compare with every vector up to here"
    )
    many = commands.add_parser("ingest", help="many documents, killed half-way and gone on with")
    many.add_argument("--documents", type=int, default=20_000)
    for command in (search, many):
        command.add_argument("--sample", type=Path, required=True, help="the folder that `sample` made")
        command.add_argument(
            "--work", type=Path, required=True, help="a folder for what is deleted afterwards"
        )
        command.add_argument("--json", type=Path, help="write the figures here as well")
    one = commands.add_parser("ingest-one", help="used by `ingest`")
    one.add_argument("paths", type=Path, nargs=3)
    return parser.parse_args()


def main() -> int:
    """What the command line asks."""
    arguments = _arguments()
    if arguments.command == "sample":
        questions = arguments.questions.read_text(encoding="utf-8").splitlines()
        if arguments.collection:
            sample_collection(arguments.folder, arguments.collection, questions, arguments.home)
        else:
            make_sample(arguments.folder, arguments.corpus, questions, arguments.passages, arguments.home)
        return 0
    if arguments.command == "ingest-one":
        ingest_many(*arguments.paths)
        return 0
    arguments.work.mkdir(parents=True, exist_ok=True)
    figures: object
    if arguments.command == "search":
        rows = []
        for count in arguments.sizes:
            at_size = search_at(count, arguments.sample, arguments.work, arguments.exact_up_to)
            rows.append((count, *at_size))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        print(table(rows))
        figures = [{"chunks": count, **asdict(built), **asdict(served)} for count, built, served in rows]
    else:
        figures = ingest_and_kill(arguments.documents, arguments.sample, arguments.work)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
