"""Searches beside the reader: questions that come together are embedded together."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from api.asking import Watch, await_watched
from corpus.errors import OverloadedError
from index.embedder import Embedder, Vectors

T = TypeVar("T")
_TOGETHER = 16


@dataclass(slots=True)
class _Question:
    text: str
    future: "Future[Vectors]"


class QueryEmbedder:
    """Embeds questions in one thread, up to 16 in a batch where so many wait."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._waiting: deque[_Question] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="query-embedder", daemon=True)
        self._thread.start()

    def embed(self, question: str) -> "Future[Vectors]":
        """A unit vector of shape (1, dimension)."""
        asked = _Question(question, Future())
        with self._condition:
            self._waiting.append(asked)
            self._condition.notify()
        return asked.future

    def close(self) -> None:
        """Ends the thread once nothing waits."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(10)

    def _work(self) -> None:
        while batch := self._next():
            try:
                vectors = self._embedder.embed_queries([asked.text for asked in batch])
            except BaseException as error:  # the thread goes on; whoever asked gets it
                for asked in batch:
                    asked.future.set_exception(error)
                continue
            for place, asked in enumerate(batch):
                asked.future.set_result(vectors[place : place + 1])

    def _next(self) -> list[_Question]:
        with self._condition:
            while True:
                batch: list[_Question] = []
                while self._waiting and len(batch) < _TOGETHER:
                    asked = self._waiting.popleft()
                    if asked.future.set_running_or_notify_cancel():
                        batch.append(asked)
                if batch or self._closing:
                    return batch
                self._condition.wait()


class SearchGate:
    """Lets so many searches in; the next is refused at once. Used on the event loop alone."""

    def __init__(self, threads: int, length: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._limit = threads + length
        self._inside = 0

    async def run(
        self, vector: "Future[Vectors] | None", search: Callable[[Vectors | None], T], watch: Watch
    ) -> T:
        """Waits for the question's vector, then searches with it in a thread.

        The caller has entered by `enter`. Raises DeadlineError.
        """
        try:
            ready: Vectors | None = None
            if vector is not None:
                ready = await await_watched(vector, watch)
            return await await_watched(self._executor.submit(search, ready), watch)
        finally:
            self._inside -= 1

    def enter(self) -> None:
        """Raises OverloadedError when it is full."""
        if self._inside >= self._limit:
            raise OverloadedError(f"{self._inside} searches are waiting already; try again in a second", 1)
        self._inside += 1

    async def close(self) -> None:
        """Waits for what runs."""
        await asyncio.to_thread(self._executor.shutdown, True, cancel_futures=True)
