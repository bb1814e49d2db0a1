"""What every request passes before its body is read, as pure ASGI: where it comes from, who asks, how often,
how much; and what every response carries.

::

    request ─▶ id ─▶ Host, Origin ─▶ key, role, collection ─▶ rate ─▶ size ─▶ the app
    response ◀─ id, security headers, log line, metrics ◀──────────────────────┘
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.keys import LOCAL, Key, KeyStore, Role
from api.problems import MEDIA_TYPE, Problem, http_problem, internal_problem, problem_of
from api.rates import RateLimiter
from api.shelf import no_such_collection
from api.telemetry import LOGGER, log, request_id
from corpus.errors import (
    ForbiddenError,
    ForeignRequestError,
    RateLimitedError,
    UnauthorizedError,
    VraagbaakError,
)

if TYPE_CHECKING:
    from api.config import ServiceConfig
    from api.telemetry import Metrics

TICKET_S = 60
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COLLECTION = re.compile(r"/v1/collections/([^/]+)(/.*)?")
_ASKING = ("/v1/ask", "/v1/ask/batch", "/v1/search", "/v1/chat/completions", "/v1/tickets")
_QUIET = ("/healthz", "/readyz", "/metrics")


@dataclass(slots=True)
class Exchange:
    """One request and its response, as far as it has come; in `scope["state"]["exchange"]`."""

    id: str
    key: Key = LOCAL
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    is_under_way: bool = False


class Tickets:
    """Links that open one path for a minute with the rights of a key; forgotten at a restart."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, path: str, key: Key) -> str:
        """The URL to open."""
        expires = int(time.time()) + TICKET_S
        content = f"{key.id}.{expires}"
        ticket = f"{content}.{self._sign(path, content)}"
        return f"{path}{'&' if '?' in path else '?'}ticket={ticket}"

    def key_id(self, scope: Scope) -> str | None:
        """Whose ticket the request's URL carries; None without a valid one."""
        query = scope["query_string"].decode("latin-1")
        rest, _, ticket = query.rpartition("ticket=")
        key_id, _, tail = ticket.partition(".")
        expires, _, signature = tail.partition(".")
        if scope["method"] != "GET" or not expires.isascii() or not expires.isdigit():
            return None
        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.decode("latin-1").partition("?")[0] + (f"?{rest[:-1]}" if rest else "")
        expected = self._sign(path, f"{key_id}.{expires}")
        is_right = hmac.compare_digest(signature.encode(), expected.encode())
        return key_id if is_right and int(expires) >= time.time() else None

    def _sign(self, path: str, content: str) -> str:
        digest = hmac.digest(self._secret, f"{content} {path}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def role_needed(method: str, path: str) -> Role | None:
    """What a request takes; None where anyone may."""
    if path == "/metrics":
        return Role.READ
    if not path.startswith("/v1"):
        return None
    if method in ("GET", "HEAD", "OPTIONS") or (method == "POST" and path in _ASKING):
        return Role.READ
    match = _COLLECTION.fullmatch(path)
    if method == "DELETE" and match and (match[2] or "/") == "/":
        return Role.ADMIN
    return Role.WRITE


class Guard:
    """The outermost layer. `metrics` may be None in tests of the layer alone."""

    def __init__(
        self,
        app: ASGIApp,
        config: "ServiceConfig",
        keys: KeyStore,
        tickets: Tickets,
        metrics: "Metrics | None" = None,
    ) -> None:
        self._app = app
        self._config = config
        self._keys = keys
        self._tickets = tickets
        self._metrics = metrics
        self._rates = RateLimiter(config.requests_per_minute, config.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        exchange = Exchange(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        scope.setdefault("state", {})["exchange"] = exchange
        token = request_id.set(exchange.id)
        answer = _Answer(scope, send, exchange)
        try:
            self._admit(scope, headers, exchange)
            body = _Body(receive, self._body_limit(scope, headers), self._config.body_timeout_s)
            body.check(headers)
            await self._app(scope, body.receive, answer.send)
        except VraagbaakError as error:
            await answer.problem(problem_of(error))
        except HTTPException as error:
            await answer.problem(http_problem(error))
        except Exception:  # the last line of defence: a fault of ours becomes a 500 with an id to look for
            LOGGER.exception(
                "request failed", extra={"fields": {"path": scope["path"], "method": scope["method"]}}
            )
            await answer.problem(internal_problem())
        finally:
            self._close(scope, exchange)
            request_id.reset(token)

    def _admit(self, scope: Scope, headers: Headers, exchange: Exchange) -> None:
        """Raises ForeignRequestError, UnauthorizedError, ForbiddenError, RateLimitedError or 404."""
        method, path = scope["method"], scope["path"]
        self._check_host(headers)
        needed = role_needed(method, path)
        is_preflight = self._check_origin(scope, headers, needed is not None)
        if needed is None or is_preflight:
            return
        exchange.key = self._who(scope, headers)
        self._check_rate(scope, exchange.key)
        if not exchange.key.role.may(needed):
            raise ForbiddenError(
                f"this needs a key with the role {needed.value}, and yours has {exchange.key.role.value}"
            )
        if path == "/metrics" and exchange.key.collections is not None:
            raise ForbiddenError("metrics are of all collections, and your key is limited to some")
        match = _COLLECTION.fullmatch(path)
        if match and not exchange.key.sees(match[1]):
            raise no_such_collection(match[1])

    def _check_host(self, headers: Headers) -> None:
        name = _host_name(headers.get("host", ""))
        if name in self._config.allowed_hosts or _is_address(name):
            return
        raise ForeignRequestError(
            f"the service isn't called {name!r}; start it with --allow-host {name} if it is"
        )

    def _check_origin(self, scope: Scope, headers: Headers, is_api: bool) -> bool:
        """Whether it is a preflight request of a site that may ask."""
        origin = headers.get("origin")
        if origin is not None and origin in self._config.origins:
            return scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            raise ForeignRequestError(
                f"pages of {origin} may not use this service; start it with --allow-origin {origin} if they may"
            )
        site = headers.get("sec-fetch-site", "none")
        is_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        is_page = headers.get("sec-fetch-dest", "document") == "document"
        if is_api and site not in ("none", "same-origin") and not (is_link and is_page):
            raise ForeignRequestError("another site's page may not use this service")
        return False

    def _who(self, scope: Scope, headers: Headers) -> Key:
        if not self._config.authentication:
            return LOCAL
        if b"ticket=" in scope["query_string"]:
            key_id = self._tickets.key_id(scope)
            key = next((key for key in self._keys.list() if key.id == key_id), None)
        else:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            text = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            key = self._keys.find(text)
        if key is None:
            self._check_rate(scope, None)
            raise UnauthorizedError(
                "send an API key that is known as 'Authorization: Bearer vb_…'; an administrator makes one with "
                "'vraagbaak keys create'"
            )
        return key

    def _check_rate(self, scope: Scope, key: Key | None) -> None:
        """By key; by address where there is none. On one's own machine without keys there is no limit."""
        if key is LOCAL and not self._config.open_to_all:
            return
        client = scope.get("client") or ("", 0)
        name = key.id if key is not None and key is not LOCAL else f"from {client[0]}"
        wait_s = self._rates.wait_s(name)
        if wait_s:
            if self._metrics is not None:
                self._metrics.refused.labels("rate").inc()
            raise RateLimitedError(
                f"more than {self._config.requests_per_minute} requests a minute; wait {wait_s} s", wait_s
            )

    def _body_limit(self, scope: Scope, headers: Headers) -> int:
        path = scope["path"]
        if path == "/v1/evaluations":
            return self._config.max_json_documents_bytes
        match = _COLLECTION.fullmatch(path)
        if match and (match[2] or "").startswith("/documents"):
            is_form = headers.get("content-type", "").lower().startswith("multipart/")
            return self._config.max_upload_bytes if is_form else self._config.max_json_documents_bytes
        return self._config.max_body_bytes

    def _close(self, scope: Scope, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.started
        route = _route_of(scope)
        if self._metrics is not None:
            self._metrics.requests.labels(_method(scope), route, str(exchange.status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
        log(
            "request",
            {
                "method": scope["method"],
                "route": route,
                "status": exchange.status,
                "seconds": round(seconds, 4),
                "key": exchange.key.id,
            },
            level=level,
        )


class _Answer:
    """Sends the response with what every response carries."""

    def __init__(self, scope: Scope, send: Send, exchange: Exchange) -> None:
        self._scope = scope
        self._send = send
        self._exchange = exchange

    async def send(self, message: Message) -> None:
        """In place of the server's own."""
        if message["type"] == "http.response.start":
            self._exchange.is_under_way = True
            self._exchange.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._exchange.id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self._scope["path"].startswith("/v1"):
                headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """An error response, unless another response has begun, which is then broken off."""
        if self._exchange.is_under_way:
            return
        body = problem.body(self._scope["path"], self._exchange.id)
        headers = {**problem.headers, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
        if not problem.headers.get("Retry-After") and problem.kind.status in (413, 400):
            # What is left of the body won't be read.
            headers["Connection"] = "close"
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": problem.kind.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})


class _Body:
    """Reads the body up to a limit of bytes and of time."""

    def __init__(self, receive: Receive, limit: int, timeout_s: float) -> None:
        self._receive = receive
        self._limit = limit
        self._timeout_s = timeout_s
        self._ends: float | None = None
        self._bytes = 0
        self._is_read = False

    def check(self, headers: Headers) -> None:
        """Refuses what says itself that it is too large."""
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """In place of the server's own."""
        if self._is_read:
            return await self._receive()
        now = time.monotonic()
        self._ends = self._ends or now + self._timeout_s
        try:
            message = await asyncio.wait_for(self._receive(), max(0.001, self._ends - now))
        except TimeoutError as error:
            raise HTTPException(504, f"the body didn't arrive within {self._timeout_s:g} s") from error
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
            if self._bytes > self._limit:
                raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than the {self._limit:,} bytes that are allowed here")


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    """DNS can't be made to point a number elsewhere, so any address of ours is as good as another."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"


def _route_of(scope: Scope) -> str:
    """The route's pattern: a path would give the metrics a series a document."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if isinstance(path, str) and path:
        return path
    return "/static" if scope["path"].startswith("/static/") else "unmatched"
