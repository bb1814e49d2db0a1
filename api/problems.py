"""Errors as problem details (RFC 9457), all from the one table in `corpus.errors`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.schemas import FieldErrorView, ProblemView, RequestProblemView
from corpus.errors import ErrorKind, OverloadedError, UnauthorizedError, VraagbaakError, kind_of

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:vraagbaak:problem:"
_HTTP_KINDS = {
    400: ErrorKind("malformed-body", "The body can't be parsed", 400, 1),
    404: ErrorKind("not-found", "Not found", 404, 1),
    405: ErrorKind("method-not-allowed", "Not with this method", 405, 1),
    413: ErrorKind("payload-too-large", "The request is too large", 413, 1),
    415: ErrorKind("unsupported-media-type", "Not with this content type", 415, 1),
    422: ErrorKind("validation", "The request is wrong", 422, 2),
    500: ErrorKind("internal", "Something went wrong", 500, 1),
    504: ErrorKind("deadline", "It took too long", 504, 1),
}
_MESSAGES = {
    "model_attributes_type": "this must be a JSON object; send it with 'Content-Type: application/json'",
    "extra_forbidden": "there is no such field",
}
"""In place of pydantic's own, where those don't tell a caller what to do."""
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What becomes an error response."""

    kind: ErrorKind
    detail: str
    errors: tuple[FieldErrorView, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def view(self) -> ProblemView:
        """As part of a job or evaluation."""
        return ProblemView(
            type=_PREFIX + self.kind.slug,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
        )

    def body(self, path: str, request_id: str) -> bytes:
        """The response's body; under `/v1/chat` with the `error` that OpenAI's clients look for."""
        view = RequestProblemView(
            **self.view().model_dump(),
            instance=path,
            request_id=request_id,
            errors=list(self.errors) or None,
        )
        content = view.model_dump(exclude_none=True)
        if path.startswith(("/v1/chat", "/v1/models")):
            content["error"] = {
                "message": self.detail,
                "type": _OPENAI_TYPES.get(self.kind.status, "invalid_request_error"),
                "param": self.errors[0].field if self.errors else None,
                "code": self.kind.slug,
            }
        return json.dumps(content).encode()


def problem_of(error: VraagbaakError) -> Problem:
    """The problem that an error of ours is."""
    kind = kind_of(error)
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after_s)
    elif kind.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "5"
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(kind, str(error), headers=headers)


def fault_problem(error: BaseException) -> Problem:
    """A fault of ours in work that goes on after its request; what it was is in the log."""
    return Problem(_HTTP_KINDS[500], f"the service failed ({type(error).__name__}); its log has the reason")


def http_problem(error: HTTPException) -> Problem:
    """What the framework refuses by itself."""
    kind = _HTTP_KINDS.get(error.status_code)
    if kind is None:
        phrase = HTTPStatus(error.status_code).phrase
        kind = ErrorKind(phrase.lower().replace(" ", "-"), phrase, error.status_code, 1)
    allowed = (error.headers or {}).get("Allow")
    details = {404: "there is nothing at this path; /docs lists what there is"}
    if allowed:
        details[405] = f"this path takes {allowed}; /docs lists what there is"
    detail = error.detail if isinstance(error.detail, str) else kind.title
    if detail in (HTTPStatus(error.status_code).phrase, kind.title):
        detail = details.get(error.status_code, kind.title)
    return Problem(kind, detail, headers=dict(error.headers or {}))


def validation_problem(error: RequestValidationError) -> Problem:
    """Wrong fields by name."""
    found = error.errors()
    if found and found[0].get("type") == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", "")
        return Problem(_HTTP_KINDS[400], f"the body isn't JSON: {reason} at character {found[0]['loc'][-1]}")
    fields = tuple(
        FieldErrorView(field=field_name(each["loc"]), message=_MESSAGES.get(each["type"], each["msg"]))
        for each in found[:20]
    )
    named = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in fields[:5])
    return Problem(_HTTP_KINDS[422], named or "the request is wrong", fields)


def field_name(location: Sequence[object]) -> str:
    """`("body", "filters", "languages", 0)` as `filters.languages[0]`; other places keep their first word."""
    parts = list(location)
    if parts and parts[0] == "body":
        parts = parts[1:]
    name = ""
    for part in parts:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else str(part)
    return name.encode("utf-8", "backslashreplace").decode()


def internal_problem() -> Problem:
    """A fault of ours; what it was is in the log, under the request's id."""
    return Problem(_HTTP_KINDS[500], "the service failed; its log has the reason under this request's id")
