"""What `/openapi.json` says of errors and bodies that the framework can't see by itself."""

from typing import Any

from api.problems import MEDIA_TYPE
from api.schemas import RequestProblemView

_DESCRIPTIONS = {
    400: "The body can't be parsed.",
    401: "No API key that is known.",
    403: "The key's role doesn't allow it, or the request comes from elsewhere.",
    404: "Not there, or not yours.",
    409: "Not in this state.",
    413: "The body is too large.",
    415: "Not with this content type.",
    422: "A field is wrong.",
    429: "Too many requests with this key.",
    503: "Too busy, still loading, or shutting down.",
    504: "Not done within the deadline.",
    507: "The disk can't be written.",
}
_ALWAYS = (401, 403, 422, 429, 503)

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """The error responses of a route: these, and those that any route may give."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {
                MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{RequestProblemView.__name__}"}}
            },
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


def body(content: dict[str, object], *, required: bool = True) -> dict[str, Any]:
    """A request body by content type, where the route parses it by itself."""
    return {"requestBody": {"required": required, "content": content}}


EVENTS = {
    "description": "The answer, or with `stream` its events: `passages`, `token`, `citation`, `done`, `error`.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'event: token\ndata: {"start": 0, "text": "De provincies"}\n\n',
        }
    },
}
