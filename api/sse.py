"""Server-sent events: an answer while it is written, over a connection that may end at any time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.asking import HungUpError, Watch, await_watched
from api.problems import Problem, internal_problem, problem_of
from api.schemas import AnswerView, CitationView, PassagesEvent, TokenEvent
from corpus.errors import VraagbaakError
from rag.answers import Answer, Passage

KEEP_ALIVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `data` is JSON on one line."""

    name: str
    data: str

    def encode(self) -> bytes:
        """As it goes over the wire."""
        return f"event: {self.name}\ndata: {self.data}\n\n".encode()


def event(name: str, model: BaseModel) -> Event:
    """An event with a model as its data."""
    return Event(name, model.model_dump_json())


class TextDifference:
    """What of a growing text is new: from where on it now reads what. Offsets are code points."""

    def __init__(self) -> None:
        self._text = ""

    def to(self, text: str) -> TokenEvent | None:
        """The change to `text`; None where there is none."""
        if text == self._text:
            return None
        start = 0
        for old, new in zip(self._text, text, strict=False):
            if old != new:
                break
            start += 1
        self._text = text
        return TokenEvent(start=start, text=text[start:])


class EventStream(Response):
    """Sends what is put in a queue, with a comment now and then while there is nothing.

    `on_hang_up` is called at once when the client is gone.
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], on_hang_up: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._on_hang_up = on_hang_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the end, or until the client hangs up."""
        sending = asyncio.ensure_future(self._send(send))
        listening = asyncio.ensure_future(_until_disconnected(receive))
        try:
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._on_hang_up()
            sending.cancel()
            listening.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


class AnswerStream:
    """Follows one answer. Make it, submit the question with its `watch`, then `respond`."""

    def __init__(self, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[Passage, ...] | str] = asyncio.Queue()
        self.watch = Watch(deadline_s, self._put, self._put)

    def _put(self, item: tuple[Passage, ...] | str) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def progress(
        self, future: "Future[Answer]"
    ) -> AsyncIterator[tuple[Passage, ...] | str | Answer | None]:
        """Passages, then text as far as it was written, then the answer; None while there is nothing new.

        Raises what asking raises.
        """
        answer = asyncio.ensure_future(await_watched(future, self.watch))
        try:
            while True:
                item = asyncio.ensure_future(self._queue.get())
                await asyncio.wait({item, answer}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    yield item.result()
                    continue
                item.cancel()
                if answer.done():
                    while not self._queue.empty():
                        yield self._queue.get_nowait()
                    yield answer.result()
                    return
                yield None
        finally:
            answer.cancel()

    def respond(self, future: "Future[Answer]", request: Request, request_id: str) -> EventStream:
        """The five events of `POST /v1/ask`."""
        return EventStream(self._events(future, request.url.path, request_id), self.watch.hang_up)

    async def _events(self, future: "Future[Answer]", path: str, request_id: str) -> AsyncIterator[bytes]:
        difference = TextDifference()
        offered = False
        try:
            async for item in self.progress(future):
                if item is None:
                    yield b": waiting\n\n"
                elif isinstance(item, Answer):
                    for each in _final(item, offered):
                        yield each.encode()
                elif isinstance(item, str):
                    if (token := difference.to(item)) is not None:
                        yield event("token", token).encode()
                else:
                    offered = True
                    yield event("passages", PassagesEvent.of(item)).encode()
        except HungUpError:
            return
        except VraagbaakError as error:
            yield _error(problem_of(error), path, request_id).encode()
        except Exception:  # the stream has begun, so this is the only way left to tell; the guard logs it
            yield _error(internal_problem(), path, request_id).encode()
            raise


def _final(answer: Answer, offered: bool) -> Sequence[Event]:
    events = [] if offered else [event("passages", PassagesEvent.of(answer.passages))]
    events += [event("citation", CitationView.model_validate(each)) for each in answer.citations]
    return [*events, event("done", AnswerView.of(answer))]


def _error(problem: Problem, path: str, request_id: str) -> Event:
    return Event("error", json.dumps(json.loads(problem.body(path, request_id))))
