"""`/v1/ask`, `/v1/ask/batch`, `/v1/search`."""

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from api.asking import Watch, await_watched
from api.documentation import EVENTS, errors
from api.schemas import (
    AnswersView,
    AnswerView,
    AskBatchBody,
    AskBody,
    PassageView,
    SearchBody,
    SearchView,
)
from api.service import Question, key_of, request_id_of, service_of
from api.sse import AnswerStream

router = APIRouter(prefix="/v1", tags=["ask"])

_ASK_EXAMPLES = {
    "simple": {
        "summary": "Only a question",
        "value": {"question": "Wie betaalt de helft van een AI-fabriek?"},
    },
    "all": {
        "summary": "Every option",
        "value": {
            "question": "When was the online mission to France?",
            "collection": "default",
            "style": "short",
            "language": "en",
            "filters": {"languages": ["en"], "documents": [], "metadata": {}},
            "top_k": 5,
            "timeout_s": 30,
            "stream": True,
        },
    },
}


def deadline_s(asked: float | None, limit: float) -> float:
    """A caller may shorten the service's deadline, and not lengthen it."""
    return limit if asked is None else min(asked, limit)


@router.post(
    "/ask",
    response_model=AnswerView,
    responses={200: EVENTS, **errors(400, 404, 413, 504)},
    summary="Answer a question from a collection, with citations",
)
async def ask(
    body: Annotated[AskBody, Body(openapi_examples=_ASK_EXAMPLES)],
    request: Request,
) -> AnswerView | Response:
    """Searches, reads and cites. A client that hangs up stops the generation at the next token."""
    service = service_of(request)
    question = Question(
        body.question, body.collection, body.style, body.language, body.filters.to_filters(), body.top_k
    )
    limit_s = deadline_s(body.timeout_s, service.config.deadline_s)
    if not body.stream:
        watch = Watch(limit_s)
        service.check_open(question.collection, key_of(request))
        future = service.submit(question, key_of(request), watch)
        return AnswerView.of(await await_watched(future, watch, request))
    stream = AnswerStream(limit_s)
    service.check_open(question.collection, key_of(request))
    future = service.submit(question, key_of(request), stream.watch)
    return stream.respond(future, request, request_id_of(request))


@router.post(
    "/ask/batch",
    responses=errors(400, 404, 413, 504),
    summary="Answer up to 64 questions",
)
async def ask_batch(body: AskBatchBody, request: Request) -> AnswersView:
    """The questions are read together, a few at a time; the answers are in their order."""
    service = service_of(request)
    watch = Watch(deadline_s(body.timeout_s, service.config.batch_deadline_s))
    options = Question("", body.collection, body.style, body.language, body.filters.to_filters(), body.top_k)
    service.check_open(body.collection, key_of(request))
    answers = await service.ask_batch(list(body.questions), options, key_of(request), watch, request)
    return AnswersView(answers=[AnswerView.of(answer) for answer in answers])


@router.post("/search", responses=errors(400, 404, 413, 504), summary="Find passages")
async def search(body: SearchBody, request: Request) -> SearchView:
    """By meaning, by words, or both fused; best first."""
    service = service_of(request)
    watch = Watch(deadline_s(body.timeout_s, service.config.deadline_s))
    question = Question(body.question, body.collection, filters=body.filters.to_filters(), top_k=body.top_k)
    found = await service.search(question, body.mode, key_of(request), watch)
    passages = [PassageView.model_validate(passage) for passage in found.passages]
    return SearchView(passages=passages, timings=dict(found.timings))
