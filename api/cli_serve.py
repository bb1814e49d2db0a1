"""`vraagbaak serve`, and `vraagbaak keys` for who may use it."""

import errno
import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.console import exits_on_error, note, print_json
from corpus.errors import ServiceError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.config import ServiceConfig
    from api.keys import Key
    from api.service import Engine
    from rag.settings import Settings

_KEEP_ALIVE_S = 75
keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [8000]")
    ] = None,
    keys: Annotated[
        bool | None, typer.Option("--keys/--no-keys", help="Ask for an API key; needed on any other address.")
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="No keys on any address: whoever reaches it may use it.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that the service is reached under, besides its address.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Another site whose pages may call it (https://…).")
    ] = None,
    queue_length: Annotated[
        int | None, typer.Option(min=0, help="Questions that may wait for the reader. [8]")
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option(min=1, help="Most seconds for one request. [60]")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, help="For each key; 0: no limit. [600]")
    ] = None,
    samples: Annotated[
        bool | None,
        typer.Option(
            "--samples/--no-samples",
            help="Put the sample documents in where there is no collection yet.",
        ),
    ] = None,
    log_content: Annotated[
        bool | None, typer.Option("--log-content/--no-log-content", help="Write questions to the log.")
    ] = None,
    traces: Annotated[
        bool | None, typer.Option("--traces/--no-traces", help="OpenTelemetry traces by stage.")
    ] = None,
) -> None:
    """Answer over HTTP, with a web page; see docs/api.md.

    Each option is also a setting, VRAAGBAAK_SERVE_… or serve_… in vraagbaak.toml; the option wins.
    """
    from api.config import service_config
    from rag.settings import load_settings

    given = {
        "host": host,
        "port": port,
        "keys": keys,
        "open_to_all": open_to_all or None,
        "allow_hosts": tuple(allow_host) if allow_host else None,
        "allow_origins": tuple(allow_origin) if allow_origin else None,
        "queue_length": queue_length,
        "deadline_s": deadline_s,
        "requests_per_minute": requests_per_minute,
        "samples": samples,
        "log_content": log_content,
        "traces": traces,
    }
    with exits_on_error():
        settings = load_settings(
            **{f"serve_{name}": value for name, value in given.items() if value is not None}
        )
        config = service_config(settings)
        run(service_app(settings, config), config)


def service_app(settings: "Settings", config: "ServiceConfig") -> "FastAPI":
    """The application on the models of the settings."""
    from api.app import create_app

    return create_app(config, settings.home, lambda: load_engine(settings))


def load_engine(settings: "Settings") -> "Engine":
    """Loads both models; raises ModelError."""
    import eval as evaluation
    from api.runtime import SAMPLES, open_library, open_reader
    from api.service import Engine

    library = open_library(settings)
    reader = open_reader(settings)
    library.embedder.embed_queries(["warm"])
    return Engine(
        library=library,
        reader=reader,
        answerer=settings.answerer(),
        limits=settings.read_limits(),
        samples=SAMPLES if settings.serve_samples and SAMPLES.is_dir() else None,
        evaluation_sets=Path(evaluation.__path__[0]) / "sets",
    )


def run(app: "FastAPI", config: "ServiceConfig") -> None:
    """Serves until a signal; then what runs is finished and what is new is refused.

    Raises ServiceError where the address can't be had.
    """
    import uvicorn

    set_up_logs()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            # The forwarded address of a proxy would be taken on trust.
            proxy_headers=False,
            timeout_graceful_shutdown=int(config.shutdown_s),
            # Longer than clients and proxies keep a connection that they may use again (5 s in httpx, 60 s in
            # nginx): who closes first must be the one who sends next, or a request meets a closed connection.
            timeout_keep_alive=_KEEP_ALIVE_S,
            h11_max_incomplete_event_size=64 * 1024,
            limit_concurrency=2000,
            ws="none",
        )
    )
    with listening(config.host, config.port) as listener:
        name = f"[{config.host}]" if ":" in config.host else config.host
        note(f"vraagbaak: http://{name}:{listener.getsockname()[1]} (stop with Ctrl+C)")
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(1)


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound to the address; raises ServiceError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        remedy = "choose another with --port" if error.errno == errno.EADDRINUSE else "see --host and --port"
        raise ServiceError(
            f"can't listen on {host}, port {port}: {error.strerror or error}; {remedy}"
        ) from error
    return listener


def set_up_logs() -> None:
    """JSON lines on stderr."""
    from api.telemetry import JsonFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("vraagbaak").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


@keys_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, to tell it from the others.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "read",
    collection: Annotated[
        list[str] | None, typer.Option("--collection", "-c", help="Only this collection; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")] = False,
) -> None:
    """Make a key. It is shown this once, and kept only as a hash."""
    from api.keys import KeyStore, Role
    from corpus.errors import InputError
    from rag.settings import load_settings

    with exits_on_error():
        if role not in list(Role):
            raise InputError(f"--role {role!r}: there are {', '.join(Role)}")
        key, text = KeyStore(load_settings().home).create(name, Role(role), collection or None)
        if as_json:
            print_json({**_row(key), "key": text})
            return
        typer.echo(text)
        note(f"key {key.id} ({key.role}) for {key.name}; it can't be shown again")


@keys_app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")] = False,
) -> None:
    """The keys, without their secrets."""
    from api.keys import KeyStore
    from rag.settings import load_settings

    with exits_on_error():
        keys = KeyStore(load_settings().home).list()
        if as_json:
            print_json([_row(key) for key in keys])
            return
        if not keys:
            typer.echo("no keys yet; make one with: vraagbaak keys create NAME")
        for key in keys:
            where = "all collections" if key.collections is None else ", ".join(key.collections)
            typer.echo(f"{key.id}  {key.role:<5}  {key.created_at}  {key.name} ({where})")


@keys_app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="What stands after vb_ in the key.")]) -> None:
    """Delete a key; a running service refuses it from the next request on."""
    from api.keys import KeyStore
    from rag.settings import load_settings

    with exits_on_error():
        key = KeyStore(load_settings().home).revoke(key_id)
        typer.echo(f"key {key.id} of {key.name} is revoked")


def _row(key: "Key") -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.value,
        "collections": key.collections,
        "created_at": key.created_at,
    }
