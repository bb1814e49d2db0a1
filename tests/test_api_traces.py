"""Traces by stage where they are on; where they are off, OpenTelemetry stays the bare API that FastAPI imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME", "OTEL_PYTHON_TRACER_PROVIDER"):
        monkeypatch.delenv(name, raising=False)


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
