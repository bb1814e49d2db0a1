"""This project, driven as its own service drives it; the one worker that imports it."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.limits import ReadLimits
from eval.bench import TimedEmbedder, TimedReader
from index.collection import Collection
from index.embedder import load_embedder
from index.ingest import ingest
from index.writer import passage_text
from rag.answerer import Answerer, AnswererConfig
from rag.answers import Style
from rag.calibration import Calibration
from rag.generator import CausalReader, ReaderLimits, load_reader
from rag.reading import Reading, ReadingListener, ReadRequest


@dataclass(slots=True)
class _Noting:
    """The reader, with its last request and reading kept."""

    inner: CausalReader
    request: ReadRequest | None = None
    reading: Reading | None = None

    @property
    def id(self) -> str:
        """See `Reader`."""
        return self.inner.id

    @property
    def calibration(self) -> Calibration | None:
        """The reader's own."""
        return self.inner.calibration

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """See `Reader`."""
        self.request, self.reading = request, self.inner.read(request, listener)
        return self.reading

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """See `Reader`."""
        return self.inner.read_batch(requests, on_done)


class System:
    """`config`: job, threads, home, new_tokens, prompt_tokens, top_k."""

    def __init__(self, config: dict[str, Any], clock: Any) -> None:
        self._config = config
        home = Path(config["home"])
        self._embedder = TimedEmbedder(load_embedder("bundled", home, threads=config["threads"]))
        self._embedder.embed_queries(["warm"])
        self._folder = tempfile.TemporaryDirectory()
        self._collection: Any = None
        self._made = 0
        self._reader: Any = None
        if config["job"] == "ask":
            limits = ReaderLimits(config["prompt_tokens"], config["new_tokens"], config["new_tokens"])
            self._reader = _Noting(load_reader(home=home, limits=limits, threads=config["threads"]))

    def settings(self) -> dict[str, str]:
        """As it comes."""
        return {
            "embedding": "as it comes",
            "index": "as it comes: files read in a sandbox, chunked, FAISS and tantivy over SQLite on disk",
            "generation": "as it comes, with its citation step",
        }

    def cut(self, file: str) -> dict[str, Any]:
        """The passages of a file's documents, as they are embedded, and their tokens (prefixes left out)."""
        collection = self._ingested(file)
        texts = [
            passage_text(collection.document(document_id), chunk)
            for document_id in collection.sha256s()
            for chunk in collection.chunks(document_id)
        ]
        return {"passages": texts, "tokens": sum(self._embedder.count_tokens(texts))}

    def ingest(self, passages: list[str], file: str) -> dict[str, float]:
        """The file's documents into a new collection; `passages`, the same cut up, aren't needed."""
        self._embedder.forward_s = 0.0
        started = time.perf_counter()
        self._collection = self._ingested(file)
        return {"seconds": time.perf_counter() - started, "embed_s": self._embedder.forward_s}

    def _ingested(self, file: str) -> Collection:
        if self._collection is not None:
            self._collection.close()
        self._made += 1
        collection = Collection.create(Path(self._folder.name) / str(self._made), "peers", self._embedder)
        ingest(collection, [Path(file)], limits=ReadLimits())
        self._collection = collection
        return collection

    def ask(self, question: str, prompt: str, prompt_ids: list[int]) -> dict[str, Any]:
        """Searches, reads and cites; its prompt is the one that the others are given."""
        timed = TimedReader(self._reader)
        answerer = Answerer(self._collection, timed, self._embedder, AnswererConfig(self._config["top_k"]))
        started = time.perf_counter()
        answer = answerer.ask(question, style=Style.FULL)
        whole_s = time.perf_counter() - started
        (reading,) = timed.readings
        prompt_format = self._reader.inner.prompt_format
        rendered = prompt_format.render(self._reader.request, self._config["prompt_tokens"])
        return {
            "search_s": answer.timings["embed_s"] + answer.timings["search_s"],
            "first_s": reading.first_s,
            "write_s": reading.read_s - reading.first_s,
            "whole_s": whole_s,
            "prompt_tokens": reading.prompt_tokens,
            "new_tokens": reading.new_tokens,
            "text": " ".join(claim.text for claim in self._reader.reading.claims),
            "prompt_ids": list(rendered.token_ids),
            "passages": len(rendered.passages),
        }
