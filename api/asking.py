"""Questions in front of the reader: a permit, a bounded queue, deadlines, and hanging up.

::

    admit ──full──▶ OverloadedError at once
      │
      ▼
    queue ──permit──▶ Answerer.ask ──listener──▶ Watch: passages, text; False stops the reader

Everything here is threads; `await_watched` is the one bridge to the event loop.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from corpus.errors import DeadlineError, OverloadedError, ServiceError
from rag.answers import Passage
from rag.calibration import Calibration
from rag.reading import Reader, Reading, ReadingListener, ReadRequest

T = TypeVar("T")


class HungUpError(ServiceError):
    """The client is gone, so nobody gets this."""


class Watch:
    """Follows one request: when it must be done, whether anybody still waits, what is written, in how many tokens.

    Is the `ReadingListener` of its reading; the callbacks are called in the reader's thread.
    """

    def __init__(
        self,
        deadline_s: float,
        on_passages: Callable[[tuple[Passage, ...]], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.deadline_s = deadline_s
        self._ends = time.monotonic() + deadline_s
        self._hung_up = threading.Event()
        self._on_passages = on_passages
        self._on_text = on_text
        self.prompt_tokens = 0
        """What was read, in the reader's own tokens; 0 where it had nothing to read."""
        self.new_tokens = 0
        """What was written; an answer has fewer words of it than that where a part wasn't supported."""

    @property
    def remaining_s(self) -> float:
        """Seconds to the deadline; negative past it."""
        return self._ends - time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether going on makes no sense."""
        return self._hung_up.is_set() or self.remaining_s <= 0

    def hang_up(self) -> None:
        """Nobody waits any more."""
        self._hung_up.set()

    def check(self) -> None:
        """Raises HungUpError or DeadlineError where going on makes no sense."""
        if self._hung_up.is_set():
            raise HungUpError("the client hung up")
        if self.remaining_s <= 0:
            raise DeadlineError(
                f"not done within {self.deadline_s:g} s; ask a shorter question, ask again when there is less to "
                "do, or allow more time"
            )

    def on_passages(self, passages: tuple[Passage, ...]) -> None:
        """What the reader is about to read."""
        if self._on_passages is not None:
            self._on_passages(passages)

    def on_reading(self, reading: Reading) -> None:
        """What it came to."""
        self.prompt_tokens += reading.prompt_tokens
        self.new_tokens += reading.new_tokens

    def on_text(self, text: str) -> bool:
        """See `ReadingListener`."""
        if self.is_over:
            return False
        if self._on_text is not None:
            self._on_text(text)
        return True


class Turns:
    """So many may read at once; those in a hurry go before those that aren't."""

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._hurried = 0
        self._condition = threading.Condition()

    @contextmanager
    def taken(self, *, hurried: bool) -> Iterator[None]:
        """Waits for a permit and holds it."""
        with self._condition:
            self._hurried += hurried
            while not self._free or (self._hurried and not hurried):
                self._condition.wait()
            self._hurried -= hurried
            self._free -= 1
        try:
            yield
        finally:
            with self._condition:
                self._free += 1
                self._condition.notify_all()


class SharedReader:
    """A reader that takes turns, tells a `Watch` of the passages, and counts tokens."""

    def __init__(
        self, reader: Reader, turns: Turns, on_reading: Callable[[Reading], None], *, hurried: bool = True
    ) -> None:
        self._reader = reader
        self._turns = turns
        self._on_reading = on_reading
        self._hurried = hurried
        self.calibration: Calibration | None = getattr(reader, "calibration", None)

    @property
    def id(self) -> str:
        """See `Reader`."""
        return self._reader.id

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """See `Reader`."""
        with self._turns.taken(hurried=self._hurried):
            if isinstance(listener, Watch):
                listener.check()
                listener.on_passages(request.passages)
            reading = self._reader.read(request, listener)
        if isinstance(listener, Watch):
            listener.on_reading(reading)
        self._on_reading(reading)
        return reading

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """See `Reader`."""
        with self._turns.taken(hurried=self._hurried):
            readings = self._reader.read_batch(requests, on_done)
        for reading in readings:
            self._on_reading(reading)
        return readings


@dataclass(eq=False, slots=True)
class _Entry(Generic[T]):
    work: Callable[[], T]
    watch: Watch
    future: "Future[T]"
    since: float


class ReaderQueue:
    """Runs questions in threads of its own, `permits` at once, `length` waiting at most."""

    def __init__(self, permits: int, length: int, on_wait: Callable[[float], None] = lambda _: None) -> None:
        self._permits = permits
        self._length = length
        self._on_wait = on_wait
        self._waiting: deque[_Entry[object]] = deque()
        self._running = 0
        self._closing = False
        self._mean_s = 2.0
        self._condition = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"reader-{number}", daemon=True)
            for number in range(permits)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, work: Callable[[], T], watch: Watch, *, must: bool = False) -> "Future[T]":
        """Queues work. Raises OverloadedError at once when the queue is full; `must` goes in all the same."""
        entry = _Entry(work, watch, Future[T](), time.monotonic())
        with self._condition:
            if self._closing:
                raise OverloadedError("the service is shutting down; ask again in a minute", 30)
            if not must and self._running + len(self._waiting) >= self._permits + self._length:
                raise OverloadedError(
                    f"{len(self._waiting)} questions are waiting already; try again later", self._wait_s()
                )
            self._waiting.append(entry)  # type: ignore[arg-type]
            self._condition.notify()
        entry.future.add_done_callback(lambda _: self._drop(entry))  # type: ignore[arg-type]
        return entry.future

    def close(self, timeout_s: float) -> None:
        """Takes nothing new, and waits so long for what is under way."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        ends = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _wait_s(self) -> int:
        queued = self._running + len(self._waiting)
        return min(60, max(1, math.ceil(self._mean_s * queued / self._permits)))

    def _drop(self, entry: _Entry[object]) -> None:
        """Whoever gives up leaves the queue, and doesn't keep a place in it."""
        with self._condition:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            started = time.monotonic()
            self._on_wait(started - entry.since)
            try:
                entry.watch.check()
                entry.future.set_result(entry.work())
            except BaseException as error:  # whoever waits for the future gets it
                entry.future.set_exception(error)
            with self._condition:
                self._running -= 1
                self._mean_s += 0.2 * (time.monotonic() - started - self._mean_s)

    def _next(self) -> _Entry[object] | None:
        with self._condition:
            while True:
                while self._waiting:
                    entry = self._waiting.popleft()
                    if entry.future.set_running_or_notify_cancel():
                        self._running += 1
                        return entry
                if self._closing:
                    return None
                self._condition.wait()


async def await_watched(future: "Future[T]", watch: Watch, request: Request | None = None) -> T:
    """The result, or DeadlineError when it is due, or HungUpError when the client is gone.

    Either way nothing goes on that nobody waits for.
    """
    waiting = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request)) if request is not None else None
    try:
        either: set[asyncio.Future[Any]] = {waiting} if gone is None else {waiting, gone}
        done, _ = await asyncio.wait(
            either,
            timeout=max(0.0, watch.remaining_s),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if waiting in done:
            return waiting.result()
        if gone is not None and gone in done:
            watch.hang_up()
        watch.check()
        raise DeadlineError(f"not done within {watch.deadline_s:g} s")
    finally:
        if not waiting.done():
            watch.hang_up()
            waiting.cancel()
        if gone is not None:
            gone.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client hangs up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
