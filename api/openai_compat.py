"""OpenAI's chat completions, so that its clients can ask: the last user message is the question.

Citations are the message's annotations, of OpenAI's type `url_citation` with fields of ours beside its own.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.asking import HungUpError, Watch, await_watched
from api.documentation import errors
from api.problems import internal_problem, problem_of
from api.routes_ask import deadline_s
from api.schemas import AnswerView, PlainText
from api.service import Question, Service, key_of, request_id_of, service_of
from api.shelf import no_such_collection
from api.sse import AnswerStream, EventStream
from corpus.errors import CollectionNotFoundError, InputError, NotFoundError, VraagbaakError
from rag.answers import Answer, Citation, Style

router = APIRouter(prefix="/v1", tags=["openai"])
MODEL = "vraagbaak"


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: PlainText


class ChatMessage(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: PlainText | list[TextPart] | None = None

    def text(self) -> str:
        """All its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """How to stream."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatBody(BaseModel):
    """OpenAI's request. What isn't named here (temperature, max_tokens, seed, user …) is passed over."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(max_length=200, examples=[MODEL])]
    messages: list[ChatMessage] = Field(
        min_length=1, max_length=1000, examples=[[{"role": "user", "content": "Wie betaalt de helft?"}]]
    )
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = Field(1, description="One answer is all there is.")
    tools: list[object] | None = Field(None, max_length=0, description="Not supported.")
    response_format: dict[str, object] | None = Field(None, description='Only `{"type": "text"}`.')
    style: Style = Field(Style.FULL, description="Ours: `short` or `full`.")


class UrlCitation(BaseModel):
    """`start_index` and `end_index` are code points of the content."""

    start_index: int
    end_index: int
    title: str
    url: str
    number: int
    document_id: str
    quote: str
    source_start: int
    source_end: int
    page: int | None


class Annotation(BaseModel):
    """A citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class ChatAnswer(BaseModel):
    """The message that answers."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None
    annotations: list[Annotation]


class Choice(BaseModel):
    """The one choice."""

    index: int = 0
    message: ChatAnswer
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class Usage(BaseModel):
    """The reader's own tokens: the prompt with the passages in it, and all that was written, markers included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, watch: Watch) -> "Usage":
        """What the request came to, once it is answered."""
        return cls(
            prompt_tokens=watch.prompt_tokens,
            completion_tokens=watch.new_tokens,
            total_tokens=watch.prompt_tokens + watch.new_tokens,
        )


class ChatView(BaseModel):
    """OpenAI's response, with the whole answer beside it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    answer: AnswerView


class ModelView(BaseModel):
    """A collection as a model."""

    id: str = Field(examples=[MODEL])
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "vraagbaak"


class ModelsView(BaseModel):
    """`vraagbaak` and one for each collection."""

    object: Literal["list"] = "list"
    data: list[ModelView]


def collection_of(model: str, default: str) -> str:
    """`vraagbaak` is the default collection, `vraagbaak/NAME` another; raises NotFoundError."""
    if model == MODEL:
        return default
    prefix, _, name = model.partition("/")
    if prefix != MODEL or not name:
        raise NotFoundError(f"there is no model {model!r}; ask {MODEL!r}, or '{MODEL}/COLLECTION'")
    return name


def question_of(messages: list[ChatMessage]) -> str:
    """The last message of the user; raises InputError without one."""
    for message in reversed(messages):
        if message.role == "user":
            return message.text()
    raise InputError("there is no message with the role 'user'; the last one is the question")


@router.post(
    "/chat/completions",
    response_model=ChatView,
    responses={
        200: {
            "description": "The answer, or with `stream` its chunks.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **errors(400, 404, 413, 504),
    },
    summary="Chat completions as OpenAI's clients know them",
)
async def complete(body: ChatBody, request: Request) -> ChatView | Response:
    """The last user message is the question; earlier ones are passed over."""
    if body.response_format is not None and body.response_format.get("type", "text") != "text":
        raise InputError("response_format can only be text; /v1/ask answers in JSON")
    service = service_of(request)
    name = collection_of(body.model, service.config.default_collection)
    question = Question(question_of(body.messages), name, body.style)
    try:
        service.check_open(name, key_of(request))
    except CollectionNotFoundError as error:
        raise NotFoundError(f"there is no model {body.model!r}; GET /v1/models lists yours") from error
    limit_s = deadline_s(None, service.config.deadline_s)
    if body.stream:
        return _stream(service, question, body, request, limit_s)
    watch = Watch(limit_s)
    answer = await await_watched(service.submit(question, key_of(request), watch), watch, request)
    message = ChatAnswer(content=answer.text, annotations=annotations_of(answer, name, request))
    return ChatView(
        id=f"chatcmpl-{request_id_of(request)}",
        created=int(time.time()),
        model=body.model,
        choices=[Choice(message=message)],
        usage=Usage.of(watch),
        answer=AnswerView.of(answer),
    )


def annotations_of(answer: Answer, collection: str, request: Request) -> list[Annotation]:
    """The answer's citations; `url` is the document's own where it has one, else a link to the passage."""
    base = str(request.base_url).rstrip("/")
    return [
        Annotation(
            url_citation=UrlCitation(
                start_index=citation.answer_start,
                end_index=citation.answer_end,
                title=citation.title,
                url=_url(citation, collection, base),
                number=citation.number,
                document_id=citation.document_id,
                quote=citation.quote,
                source_start=citation.source_start,
                source_end=citation.source_end,
                page=citation.page,
            )
        )
        for citation in answer.citations
    ]


def _url(citation: Citation, collection: str, base: str) -> str:
    if citation.source.startswith(("https://", "http://")):
        return citation.source
    place = f"{quote(collection)}/passages/{quote(citation.document_id)}"
    return f"{base}/v1/collections/{place}?start={citation.source_start}&end={citation.source_end}"


def _stream(
    service: Service, question: Question, body: ChatBody, request: Request, limit_s: float
) -> EventStream:
    stream = AnswerStream(limit_s)
    future = service.submit(question, key_of(request), stream.watch)
    chunks = _Chunks(body.model, f"chatcmpl-{request_id_of(request)}")

    async def events() -> AsyncIterator[bytes]:
        written = ""
        yield chunks.delta({"role": "assistant", "content": ""})
        try:
            async for item in stream.progress(future):
                if item is None:
                    yield b": waiting\n\n"
                elif isinstance(item, Answer):
                    for chunk in _last(chunks, item, written, question.collection, request):
                        yield chunk
                    if body.stream_options is not None and body.stream_options.include_usage:
                        yield chunks.usage(Usage.of(stream.watch))
                elif isinstance(item, str) and item.startswith(written) and item != written:
                    # A client can only append, so a text that was rewritten waits for the end.
                    yield chunks.delta({"content": item[len(written) :]})
                    written = item
        except HungUpError:
            return
        except VraagbaakError as error:
            yield _failure(problem_of(error).body(request.url.path, request_id_of(request)))
        except Exception:  # the stream has begun, so this is the only way left to tell; the guard logs it
            yield _failure(internal_problem().body(request.url.path, request_id_of(request)))
            raise
        yield b"data: [DONE]\n\n"

    return EventStream(events(), stream.watch.hang_up)


def _failure(body: bytes) -> bytes:
    return b"data: " + json.dumps(json.loads(body)).encode() + b"\n\n"


def _last(chunks: "_Chunks", answer: Answer, written: str, collection: str, request: Request) -> list[bytes]:
    rest = answer.text[len(written) :] if answer.text.startswith(written) else f"\n\n{answer.text}"
    shift = 0 if answer.text.startswith(written) else len(written) + 2
    annotations = [each.model_dump() for each in annotations_of(answer, collection, request)]
    for each in annotations:
        each["url_citation"]["start_index"] += shift
        each["url_citation"]["end_index"] += shift
    return [
        chunks.delta({"content": rest, "annotations": annotations}),
        chunks.delta({}, finish="stop"),
    ]


class _Chunks:
    def __init__(self, model: str, identifier: str) -> None:
        self._frame: dict[str, object] = {
            "id": identifier,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    def delta(self, delta: dict[str, object], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._encode({**self._frame, "choices": [choice]})

    def usage(self, usage: Usage) -> bytes:
        return self._encode({**self._frame, "choices": [], "usage": usage.model_dump()})

    def _encode(self, chunk: dict[str, object]) -> bytes:
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


@router.get("/models", responses=errors(), summary="The collections as models")
def list_models(request: Request) -> ModelsView:
    """`vraagbaak` is the default collection."""
    service, key = service_of(request), key_of(request)
    names = [name for name in service.running.shelf.names() if key.sees(name)]
    ids = [MODEL] if service.config.default_collection in names else []
    ids += [f"{MODEL}/{name}" for name in names]
    return ModelsView(data=[ModelView(id=identifier, created=0) for identifier in ids])


@router.get("/models/{model_id:path}", responses=errors(404), summary="One of them")
def get_model(
    model_id: Annotated[str, Path(max_length=200, description="Its id.", examples=[MODEL])], request: Request
) -> ModelView:
    """Whether it is there for you."""
    service, key = service_of(request), key_of(request)
    name = collection_of(model_id, service.config.default_collection)
    if not key.sees(name) or name not in service.running.shelf.names():
        raise no_such_collection(name)
    return ModelView(id=model_id, created=0)
