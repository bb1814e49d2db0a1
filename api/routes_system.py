"""Health, metrics, who asks, the examples, and the API's own page."""

import importlib.util
import json
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse, HTMLResponse, JSONResponse

from api.documentation import errors
from api.guard import TICKET_S
from api.schemas import AliveView, ExamplesView, ReadyView, SessionView, TicketBody, TicketView
from api.service import key_of, service_of
from corpus.errors import CollectionError, NotFoundError, StorageError

router = APIRouter()
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Vraagbaak: the HTTP API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
"""
_START = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null,
  persistAuthorization: false, presets: [SwaggerUIBundle.presets.apis]});
"""
_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


@router.get("/healthz", tags=["service"], summary="Whether the process answers")
def alive() -> AliveView:
    """Needs no key and no model."""
    return AliveView()


@router.get(
    "/readyz",
    tags=["service"],
    responses={503: {"model": ReadyView, "description": "Not yet, or not any more."}},
    summary="Whether questions can be answered",
)
def ready(request: Request) -> Response:
    """Models loaded, collection open."""
    checks = service_of(request).checks()
    is_ready = all(check == "ok" for check in checks.values())
    view = ReadyView(status="ready" if is_ready else "not ready", checks=checks)
    headers = {} if is_ready else {"Retry-After": "5"}
    return JSONResponse(view.model_dump(), 200 if is_ready else 503, headers)


@router.get(
    "/metrics",
    tags=["service"],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors()},
    response_class=Response,
    summary="Prometheus metrics",
)
def metrics(request: Request) -> Response:
    """Requests, latency by stage, queue, tokens, abstentions, sizes of collections."""
    content = service_of(request).metrics.render()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/session", tags=["service"], responses=errors(), summary="Who asks")
def session(request: Request) -> SessionView:
    """The key's name, role and collections."""
    key = key_of(request)
    return SessionView(
        authentication="key" if service_of(request).config.authentication else "off",
        name=key.name,
        role=key.role,
        collections=None if key.collections is None else list(key.collections),
    )


@router.post("/v1/tickets", tags=["service"], responses=errors(400, 413), summary="A link without a key")
def ticket(body: TicketBody, request: Request) -> TicketView:
    """Whoever has the link may GET that one path for a minute, with the rights of the key that asked."""
    return TicketView(
        url=service_of(request).tickets.issue(body.path, key_of(request)), expires_in_s=TICKET_S
    )


@router.get("/v1/examples", tags=["ask"], responses=errors(404), summary="Questions to try")
def examples(request: Request) -> ExamplesView:
    """For the sample documents, where the default collection has them."""
    service = service_of(request)
    name = service.config.default_collection
    samples = service.running.engine.samples
    questions: dict[str, list[str]] = {}
    try:
        with service.collection(name, key_of(request)) as collection:
            if samples is not None and collection.documents(0, 1, f"{samples.name}/"):
                questions = json.loads((samples / ".examples.json").read_text(encoding="utf-8"))
    except CollectionError:
        return ExamplesView(collection=name, questions={})
    except (OSError, ValueError) as error:
        raise StorageError(f"the example questions can't be read: {error}") from error
    return ExamplesView(collection=name, questions=questions)


# Pages


@router.get("/docs", include_in_schema=False)
def docs() -> HTMLResponse:
    """The API's own page; everything on it comes from here."""
    return HTMLResponse(_DOCS, headers={"Content-Security-Policy": _DOCS_POLICY, "Cache-Control": "no-cache"})


@router.get("/docs/{name}", include_in_schema=False)
def docs_file(name: str) -> Response:
    """What the page is made of."""
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers={"Cache-Control": "no-cache"})
    if name not in _FILES:
        raise NotFoundError(f"there is no {name!r} here")
    return FileResponse(
        swagger_folder() / name, media_type=_FILES[name], headers={"Cache-Control": "no-cache"}
    )


def swagger_folder() -> Path:
    """Swagger UI as the package fastapi-offline ships it; the package itself isn't imported."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise NotFoundError(
            "Swagger UI isn't installed; install the package fastapi-offline, or read /openapi.json"
        )
    return Path(spec.origin).parent / "static"


def static_folder() -> Path:
    """The web page's files."""
    return Path(str(resources.files("api"))) / "static"
