"""What the service tells of itself: Prometheus metrics, JSON logs, traces. No content unless asked for."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from corpus.errors import SettingsError
from index.collection import CollectionStats
from rag.answers import Answer
from rag.reading import Reading

LOGGER = logging.getLogger("vraagbaak")
request_id: ContextVar[str] = ContextVar("request_id", default="")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

StatsSource = Callable[[], Mapping[str, CollectionStats]]


class Metrics:
    """One service's metrics, in a registry of their own."""

    def __init__(self, stats: StatsSource, queue_length: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_CollectionSizes(stats))
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


class Tracer(Protocol):
    """Takes note of answers as traces by stage."""

    def answered(self, answer: Answer, collection: str) -> None:
        """One trace, with a span a stage; carries no content."""
        ...


class NoTracer:
    """Where traces are off."""

    def answered(self, answer: Answer, collection: str) -> None:
        """See `Tracer`."""


class OpenTelemetryTracer:
    """Spans through whatever provider OpenTelemetry is set up with (`OTEL_…` variables)."""

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise SettingsError(
                "traces need OpenTelemetry; install vraagbaak[traces] or leave them off"
            ) from error
        self._tracer = trace.get_tracer("vraagbaak")
        self._in_span = trace.set_span_in_context

    def answered(self, answer: Answer, collection: str) -> None:
        """See `Tracer`; the stages are laid out one after another, ending now."""
        stages = {name: seconds for name, seconds in answer.timings.items() if name != "total_s"}
        at = time.time_ns() - int(sum(stages.values()) * 1e9)
        parent = self._tracer.start_span(
            "answer",
            start_time=at,
            attributes={
                "collection": collection,
                "language": answer.language,
                "abstained": answer.abstained,
                "request_id": request_id.get(),
            },
        )
        for name, seconds in stages.items():
            span = self._tracer.start_span(
                name.removesuffix("_s"), context=self._in_span(parent), start_time=at
            )
            at += int(seconds * 1e9)
            span.end(end_time=at)
        parent.end(end_time=at)
