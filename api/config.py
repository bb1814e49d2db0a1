"""What the service is run with. Each field says what changing it costs."""

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corpus.errors import SettingsError
from corpus.limits import MIB

if TYPE_CHECKING:
    from rag.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Sizes are bytes and times seconds where the name says so.

    `authentication` may be off on a loopback address alone, unless `open_to_all` says so in so many words.
    `hosts` are names that the service is reached under besides its own address: any other `Host` is refused,
    which is what stops DNS rebinding. `origins` are other sites whose pages may call it (CORS); none by default.

    `readers` answers are generated at once: more than one shares the same cores and makes each slower.
    `queue_length` questions may wait for that; each adds one answer's time to the wait of the last, and when
    it is full the next is refused at once. `search_queue_length` is the same for searches.
    `deadline_s` is the most that one request may take, waiting included; `batch_deadline_s` is for
    `/v1/ask/batch`. `body_timeout_s` is how long a body may take to arrive.
    `requests_per_minute` and `burst` limit each key (0: no limit).
    `shutdown_s` is how long what runs may go on after a signal to stop.
    `log_content` writes questions to the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    authentication: bool = False
    open_to_all: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    default_collection: str = "default"
    readers: int = 1
    queue_length: int = 8
    search_threads: int = 4
    search_queue_length: int = 256
    deadline_s: float = 60.0
    batch_deadline_s: float = 600.0
    body_timeout_s: float = 60.0
    max_body_bytes: int = 1 * MIB
    max_json_documents_bytes: int = 32 * MIB
    max_upload_bytes: int = 256 * MIB
    max_upload_files: int = 200
    max_queued_jobs: int = 200
    max_kept_jobs: int = 500
    max_kept_evaluations: int = 50
    requests_per_minute: int = 600
    burst: int = 120
    shutdown_s: float = 30.0
    log_content: bool = False
    traces: bool = False
    allowed_hosts: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if not self.authentication and not self.open_to_all and not is_loopback(self.host):
            raise SettingsError(
                f"on {self.host} anyone who can reach this machine could use the service; ask for API keys "
                "(--keys, made with 'vraagbaak keys create'), listen on 127.0.0.1, or say "
                "--open-to-all if that is what you want"
            )
        names = {*LOOPBACK_NAMES, *(name.lower() for name in self.hosts)}
        if not _is_wildcard(self.host):
            names.add(f"[{self.host}]" if ":" in self.host else self.host.lower())
        object.__setattr__(self, "allowed_hosts", frozenset(names))


def service_config(settings: "Settings") -> ServiceConfig:
    """As the settings `serve_…` say; raises SettingsError where they don't go together."""
    return ServiceConfig(
        host=settings.serve_host,
        port=settings.serve_port,
        authentication=settings.serve_keys,
        open_to_all=settings.serve_open_to_all,
        hosts=settings.serve_allow_hosts,
        origins=settings.serve_allow_origins,
        readers=settings.serve_readers,
        queue_length=settings.serve_queue_length,
        search_queue_length=settings.serve_search_queue_length,
        deadline_s=settings.serve_deadline_s,
        batch_deadline_s=settings.serve_batch_deadline_s,
        body_timeout_s=settings.serve_body_timeout_s,
        requests_per_minute=settings.serve_requests_per_minute,
        burst=settings.serve_burst,
        max_upload_bytes=settings.serve_max_upload_mib * MIB,
        max_upload_files=settings.serve_max_upload_files,
        max_queued_jobs=settings.serve_max_queued_jobs,
        shutdown_s=settings.serve_shutdown_s,
        log_content=settings.serve_log_content,
        traces=settings.serve_traces,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""
