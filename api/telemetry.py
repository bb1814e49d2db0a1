"""What the service tells of itself: Prometheus metrics, JSON logs, traces. No content unless asked for."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from corpus.errors import SettingsError
from index.collection import CollectionStats
from rag.answers import Answer
from rag.reading import Reading

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

LOGGER = logging.getLogger("vraagbaak")
request_id: ContextVar[str] = ContextVar("request_id", default="")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_OTLP_EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""By protocol; the name "otlp" itself, where it is installed, is gRPC's."""

StatsSource = Callable[[], Mapping[str, CollectionStats]]


class Metrics:
    """One service's metrics, in a registry of their own."""

    def __init__(self, stats: StatsSource, queue_length: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_CollectionSizes(stats))
        ProcessCollector(registry=self._registry)  # memory, processor time, open files
        self.requests = Counter(
            "vraagbaak_requests", "Requests", ("method", "route", "status"), registry=self._registry
        )
        self.request_seconds = Histogram(
            "vraagbaak_request_seconds",
            "Time to the end of the response",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.stage_seconds = Histogram(
            "vraagbaak_stage_seconds",
            "Time of an answer by stage",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.search_stage_seconds = Histogram(
            "vraagbaak_search_stage_seconds",
            "Time of a search by stage, waiting included",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.searches = Counter("vraagbaak_searches", "Searches", registry=self._registry)
        self.wait_seconds = Histogram(
            "vraagbaak_queue_wait_seconds",
            "Time that a question waited for the reader",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.answers = Counter(
            "vraagbaak_answers", "Answers", ("language", "abstained"), registry=self._registry
        )
        self.tokens = Counter("vraagbaak_tokens", "Tokens of the reader", ("kind",), registry=self._registry)
        self.refused = Counter(
            "vraagbaak_refused", "Requests refused for load", ("reason",), registry=self._registry
        )
        self.documents = Counter(
            "vraagbaak_ingested_documents", "Documents by fate", ("fate",), registry=self._registry
        )
        waiting = Gauge(
            "vraagbaak_queue_length", "Questions that wait for the reader", registry=self._registry
        )
        waiting.set_function(queue_length)

    def answered(self, answer: Answer) -> None:
        """Counts an answer."""
        self.answers.labels(answer.language, str(answer.abstained).lower()).inc()
        for stage, seconds in answer.timings.items():
            self.stage_seconds.labels(stage.removesuffix("_s")).observe(seconds)

    def searched(self, timings: Mapping[str, float]) -> None:
        """Counts a search."""
        self.searches.inc()
        for stage, seconds in timings.items():
            self.search_stage_seconds.labels(stage.removesuffix("_s")).observe(seconds)

    def read(self, reading: Reading) -> None:
        """Counts a reading's tokens."""
        self.tokens.labels("prompt").inc(reading.prompt_tokens)
        self.tokens.labels("new").inc(reading.new_tokens)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _CollectionSizes(Collector):
    def __init__(self, stats: StatsSource) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        """Nothing: the collections aren't known before they are asked for."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Sizes as they are now."""
        documents = GaugeMetricFamily("vraagbaak_collection_documents", "Documents", labels=["collection"])
        chunks = GaugeMetricFamily("vraagbaak_collection_chunks", "Chunks", labels=["collection"])
        disk = GaugeMetricFamily("vraagbaak_collection_disk_bytes", "Size on disk", labels=["collection"])
        for name, stats in self._stats().items():
            documents.add_metric([name], stats.documents)
            chunks.add_metric([name], stats.chunks)
            disk.add_metric([name], stats.disk_bytes)
        yield from (documents, chunks, disk)


class JsonFormatter(logging.Formatter):
    """A line of JSON a record; fields come from `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identifier := request_id.get():
            entry["request_id"] = identifier
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def log(message: str, fields: Mapping[str, object] | None = None, *, level: int = logging.INFO) -> None:
    """Writes a line with fields."""
    LOGGER.log(level, message, extra={"fields": fields or {}})


def log_fault(message: str, fields: Mapping[str, object]) -> None:
    """Writes a line with the traceback of the exception that is being handled."""
    LOGGER.exception(message, extra={"fields": fields})


class Tracer(Protocol):
    """Takes note of answers and searches as traces by stage; carries no content."""

    def answered(self, answer: Answer, collection: str) -> None:
        """One trace, with a span a stage."""
        ...

    def searched(self, timings: Mapping[str, float], collection: str) -> None:
        """Likewise."""
        ...

    def close(self) -> None:
        """Sends what wasn't sent yet."""
        ...


class NoTracer:
    """Where traces are off."""

    def answered(self, answer: Answer, collection: str) -> None:
        """See `Tracer`."""

    def searched(self, timings: Mapping[str, float], collection: str) -> None:
        """See `Tracer`."""

    def close(self) -> None:
        """See `Tracer`."""


class OpenTelemetryTracer:
    """Spans by OpenTelemetry, which is imported here alone.

    A provider that is set up already (by `opentelemetry-instrument`, say) is used as it is. Else one is made for
    the exporters that `OTEL_TRACES_EXPORTER` names (`otlp` by default, `console`, `none`), with the other `OTEL_…`
    variables as they are known. Raises SettingsError where a package is missing.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
        except ImportError as error:
            raise SettingsError(
                "traces need OpenTelemetry; install vraagbaak[traces] or leave them off"
            ) from error
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(_provider())
        provider = trace.get_tracer_provider()
        self._provider = provider if isinstance(provider, TracerProvider) else None
        self._tracer = trace.get_tracer("vraagbaak")
        self._in_span = trace.set_span_in_context

    def answered(self, answer: Answer, collection: str) -> None:
        """See `Tracer`."""
        about: dict[str, str | bool] = {
            "collection": collection,
            "language": answer.language,
            "abstained": answer.abstained,
        }
        self._note("answer", answer.timings, about)

    def searched(self, timings: Mapping[str, float], collection: str) -> None:
        """See `Tracer`."""
        self._note("search", timings, {"collection": collection})

    def close(self) -> None:
        """See `Tracer`."""
        if self._provider is not None:
            self._provider.force_flush()

    def _note(self, name: str, timings: Mapping[str, float], about: Mapping[str, str | bool]) -> None:
        """The stages are laid out one after another, ending now."""
        stages = {stage: seconds for stage, seconds in timings.items() if stage != "total_s"}
        at = time.time_ns() - int(sum(stages.values()) * 1e9)
        attributes = {**about, "request_id": request_id.get()}
        parent = self._tracer.start_span(name, start_time=at, attributes=attributes)
        for stage, seconds in stages.items():
            span = self._tracer.start_span(
                stage.removesuffix("_s"), context=self._in_span(parent), start_time=at
            )
            at += int(seconds * 1e9)
            span.end(end_time=at)
        parent.end(end_time=at)


def _provider() -> "TracerProvider":
    """For the exporters that the environment names."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # The environment's own OTEL_SERVICE_NAME wins over ours.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "vraagbaak"}
    provider = TracerProvider(resource=Resource.create(named))
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    for name in (each.strip() for each in wanted.split(",")):
        if name != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def _exporter(name: str) -> "SpanExporter":
    known = metadata.entry_points(group="opentelemetry_traces_exporter")
    names = _otlp_names() if name == "otlp" else (name,)
    found = [entry for each in names for entry in known.select(name=each)]
    if not found:
        raise SettingsError(
            f"there is no exporter {name!r} for traces; install its package (vraagbaak[traces] for OTLP by HTTP, "
            "opentelemetry-exporter-otlp-proto-grpc for gRPC), or set OTEL_TRACES_EXPORTER to one of: "
            f"{', '.join([*sorted(known.names), 'none'])}"
        )
    try:
        exporter: SpanExporter = found[0].load()()
    except ImportError as error:
        raise SettingsError(f"the exporter {name!r} for traces can't be loaded: {error}") from error
    return exporter


def _otlp_names() -> tuple[str, ...]:
    """Exporters for the protocol that the environment names; without one HTTP, or gRPC where that alone is there."""
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(variable, "").strip():
            if protocol not in _OTLP_EXPORTERS:
                raise SettingsError(
                    f"{variable}={protocol!r} isn't known; set it to one of: {', '.join(_OTLP_EXPORTERS)}"
                )
            return (_OTLP_EXPORTERS[protocol],)
    return tuple(_OTLP_EXPORTERS.values())
