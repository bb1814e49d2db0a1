"""Traces by stage where they are on; where they are off, OpenTelemetry stays the bare API that FastAPI imports."""

import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from api import telemetry
from api.config import ServiceConfig
from api.telemetry import OpenTelemetryTracer
from corpus.errors import SettingsError
from tests.api_fakes import client, put

QUESTION = "Wie betalen de helft? provincies"


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider is set up yet in this process, nor afterwards."""
    trace = pytest.importorskip("opentelemetry.trace", reason="the traces extra has OpenTelemetry")
    pytest.importorskip("opentelemetry.sdk.trace", reason="the traces extra has OpenTelemetry")
    once = pytest.importorskip("opentelemetry.util._once")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", once.Once())
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("unset")
def test_each_answer_and_search_is_exported_with_its_stages(tmp_path: Path) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with client(tmp_path, config=ServiceConfig(traces=True)) as api:
        put(api, "default", {"memo.txt": "De provincies betalen samen de helft."})
        asked = api.post("/v1/ask", json={"question": QUESTION}, headers={"X-Request-Id": "mine"})
        api.post("/v1/search", json={"question": QUESTION})
    spans = exporter.get_finished_spans()
    parents = {span.context.span_id: span for span in spans if span.parent is None}
    assert sorted(parent.name for parent in parents.values()) == ["answer", "search"]
    stages: dict[str, list[str]] = {"answer": [], "search": []}
    for span in spans:
        if span.parent is not None:
            parent = parents[span.parent.span_id]
            assert parent.start_time <= span.start_time <= span.end_time <= parent.end_time
            stages[parent.name].append(span.name)
    assert stages == {"answer": ["embed", "search", "read", "cite"], "search": ["embed", "search"]}
    answer = next(span for span in parents.values() if span.name == "answer")
    assert dict(answer.attributes) == {
        "collection": "default",
        "language": "nl",
        "abstained": False,
        "request_id": "mine",
    }
    read = next(span for span in spans if span.name == "read")
    assert (read.end_time - read.start_time) / 1e9 == pytest.approx(
        asked.json()["timings"]["read_s"], abs=1e-6
    )
    assert QUESTION not in "".join(span.to_json() for span in spans)


@pytest.mark.usefixtures("unset")
def test_an_exporter_that_isnt_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nonsense")
    with pytest.raises(SettingsError, match=r"no exporter 'nonsense'.*console"):
        OpenTelemetryTracer()


def test_the_exporter_is_the_one_that_the_environment_names() -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="the traces extra has OpenTelemetry")
    code = (
        "from api.telemetry import OpenTelemetryTracer; tracer = OpenTelemetryTracer(); "
        "tracer.searched({'embed_s': 0.1, 'total_s': 0.1}, 'default'); tracer.close()"
    )
    written = _run(code, OTEL_TRACES_EXPORTER="console")
    assert '"name": "search"' in written
    assert '"name": "embed"' in written
    assert '"service.name": "vraagbaak"' in written
    assert '"service.name": "mine"' in _run(code, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")
    assert _run(code, OTEL_TRACES_EXPORTER="none") == ""


class Collector(ThreadingHTTPServer):
    """Takes in what exporters send by OTLP over HTTP, on a port of this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.received: list[tuple[str, str, bytes]] = []


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is written to stderr."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("protocol", ["", "http/protobuf"])
def test_spans_arrive_at_a_collector_by_otlp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the traces extra has the exporter")
    from opentelemetry import trace
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        with client(tmp_path, config=ServiceConfig(traces=True)) as api:
            put(api, "default", {"memo.txt": "De provincies betalen samen de helft."})
            api.post("/v1/ask", json={"question": QUESTION})
        trace.get_tracer_provider().shutdown()
    assert {(path, kind) for path, kind, _ in collector.received} == {
        ("/v1/traces", "application/x-protobuf")
    }
    resources = [
        resource
        for _, _, body in collector.received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
    ]
    service = {pair.key: pair.value.string_value for pair in resources[0].resource.attributes}["service.name"]
    names = sorted(
        span.name for resource in resources for scope in resource.scope_spans for span in scope.spans
    )
    assert (service, names) == ("vraagbaak", ["answer", "cite", "embed", "read", "search"])
    assert QUESTION.encode() not in b"".join(body for _, _, body in collector.received)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "otlp_proto_http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp_proto_grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "otlp_proto_http"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "otlp_proto_http",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, "otlp_proto_grpc"),
    ],
)
def test_the_protocol_is_the_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, unset: None, environment: dict[str, str], expected: str
) -> None:
    # All that opentelemetry-exporter-otlp brings: its "otlp" is gRPC, whatever the protocol says.
    names = ("otlp", "otlp_proto_grpc", "otlp_proto_http")
    chosen: list[str] = []
    known = EntryPoints(EntryPoint(name, "json:JSONDecoder", "traces") for name in names)
    monkeypatch.setattr(EntryPoint, "load", lambda entry: lambda: chosen.append(entry.name))
    monkeypatch.setattr(telemetry.metadata, "entry_points", lambda group: known)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    telemetry._exporter(environment.get("OTEL_TRACES_EXPORTER", "otlp"))
    assert chosen == [expected]


@pytest.mark.usefixtures("unset")
def test_a_protocol_that_isnt_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(SettingsError, match=r"'http/json'.*http/protobuf"):
        OpenTelemetryTracer()


def test_the_extra_has_all_that_otlp_needs() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">=")[0] for requirement in project["optional-dependencies"]["traces"]}
    assert names == {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}


def _run(code: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    root = Path(__file__).parent.parent
    surroundings = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=surroundings)
    return done.stdout.strip()


def test_the_sdk_is_not_imported_and_nothing_set_up_where_traces_are_off(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from api.app import create_app; from api.config import ServiceConfig; "
        "create_app(ServiceConfig(), Path(sys.argv[1]), lambda: None); "
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    assert _run(code, str(tmp_path), OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") == "[]"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"vraagbaak\[traces\]"):
        OpenTelemetryTracer()
