"""`create_app`: the HTTP service as an ASGI application.

::

    Guard (pure ASGI) ─▶ CORS ─▶ routes ─▶ Service ─▶ reader, search and writing threads
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from api import openai_compat, routes_ask, routes_collections, routes_runs, routes_system
from api.asking import HungUpError
from api.config import ServiceConfig
from api.guard import PAGE_POLICY, Guard
from api.problems import MEDIA_TYPE, Problem, http_problem, problem_of, validation_problem
from api.schemas import DocumentsBody, RequestProblemView
from api.service import Engine, Service, request_id_of
from corpus.errors import VraagbaakError

_TAGS = [
    {"name": "ask", "description": "Questions, answers with citations, passages."},
    {"name": "collections", "description": "Collections and their documents."},
    {"name": "jobs", "description": "Uploads on their way in."},
    {"name": "evaluations", "description": "How good it is."},
    {"name": "openai", "description": "For OpenAI's clients."},
    {"name": "service", "description": "Health, metrics, keys."},
]
_DESCRIPTION = (
    "Answers questions about your own documents, in Dutch or English, with citations to the letter. "
    "Offsets are Unicode code points, half-open. Errors are problem details (RFC 9457)."
)


def create_app(
    config: ServiceConfig, home: Path, load: Callable[[], Engine], static: Path | None = None
) -> FastAPI:
    """The application. `load` gives the models, in a thread, once the application starts.

    `home` is where the API keys are kept, `static` the folder of the web page.
    """
    service = Service(config, home, load)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="Vraagbaak",
        version=_version(),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        # FastAPI's own spans have paths in them, so names of documents; ours carry no content.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=_middleware(config, service),
        exception_handlers={
            VraagbaakError: _on_error,
            RequestValidationError: _on_wrong_field,
            HTTPException: _on_http_error,
        },
    )
    app.state.service = service
    for router in (
        routes_ask.router,
        routes_collections.router,
        routes_runs.jobs,
        routes_runs.evaluations,
        openai_compat.router,
        routes_system.router,
    ):
        app.include_router(router)
    _add_page(app, static or routes_system.static_folder())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _version() -> str:
    try:
        return metadata.version("vraagbaak")
    except metadata.PackageNotFoundError:
        return "0"


def _middleware(config: ServiceConfig, service: Service) -> list[Middleware]:
    layers = [
        Middleware(Guard, config=config, keys=service.keys, tickets=service.tickets, metrics=service.metrics)
    ]
    if config.origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(config.origins),
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=["Authorization", "X-API-Key", "Content-Type", "X-Request-Id"],
                expose_headers=["X-Request-Id", "Retry-After"],
            )
        )
    return layers


# Errors


def _respond(problem: Problem, request: Request) -> Response:
    body = problem.body(request.url.path, request_id_of(request))
    return Response(body, problem.kind.status, dict(problem.headers), MEDIA_TYPE)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VraagbaakError)
    if isinstance(error, HungUpError):
        return Response(status_code=499)
    return _respond(problem_of(error), request)


async def _on_wrong_field(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(validation_problem(error), request)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _respond(http_problem(error), request)


# The web page


class _PageFiles(StaticFiles):
    """Asked for again each time, and 304 where unchanged."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """With the page's policy and caching."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response


def _add_page(app: FastAPI, folder: Path) -> None:
    files = _PageFiles(directory=folder, check_dir=False)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if not (folder / "index.html").is_file():
            raise HTTPException(404, "there is no web page in this installation; /docs shows the API")
        return await files.get_response("index.html", request.scope)

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(status_code=204)

    app.mount("/static", files, name="static")


# The document


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Made once; with the schemas that routes name themselves, keys as a security scheme, and our 422."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        tags=_TAGS,
        routes=app.routes,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (RequestProblemView, DocumentsBody):
        content = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(content.pop("$defs", {}))
        schemas[model.__name__] = content
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    app.openapi_schema = document
    return document
