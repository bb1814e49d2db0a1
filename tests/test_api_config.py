"""The service's settings: environment and files, and the options of `serve` that win over them."""

import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from api.cli import app
from api.cli_serve import listening, run
from api.config import ServiceConfig, service_config
from corpus.errors import ServiceError, SettingsError
from rag.settings import Settings, load_settings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"VRAAGBAAK_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VRAAGBAAK_HOME", str(tmp_path))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServiceConfig]:
    """What `serve` was about to run with; it runs nothing."""
    configs: list[ServiceConfig] = []
    monkeypatch.setattr("api.cli_serve.run", lambda _, config: configs.append(config))
    return configs


def _serve(*options: str, **environment: str) -> Any:
    return CliRunner(env=environment).invoke(app, ["serve", *options])


def test_defaults_are_those_of_the_service() -> None:
    assert service_config(load_settings()) == ServiceConfig()


def test_each_setting_reaches_the_service(tmp_path: Path) -> None:
    (tmp_path / "vraagbaak.toml").write_text(
        'serve_host = "::1"\nserve_port = 81\nserve_keys = true\nserve_open_to_all = true\n'
        'serve_allow_hosts = ["a.nl", "b.nl"]\nserve_allow_origins = ["https://c.nl"]\nserve_readers = 2\n'
        "serve_queue_length = 3\nserve_search_queue_length = 4\nserve_deadline_s = 5\n"
        "serve_batch_deadline_s = 6\nserve_body_timeout_s = 7\nserve_requests_per_minute = 8\nserve_burst = 9\n"
        "serve_max_upload_mib = 10\nserve_max_upload_files = 11\nserve_max_queued_jobs = 12\n"
        "serve_shutdown_s = 13\nserve_samples = false\nserve_log_content = true\nserve_traces = true\n"
    )
    settings = load_settings()
    assert service_config(settings) == ServiceConfig(
        host="::1",
        port=81,
        authentication=True,
        open_to_all=True,
        hosts=("a.nl", "b.nl"),
        origins=("https://c.nl",),
        readers=2,
        queue_length=3,
        search_queue_length=4,
        deadline_s=5,
        batch_deadline_s=6,
        body_timeout_s=7,
        requests_per_minute=8,
        burst=9,
        max_upload_bytes=10 * 2**20,
        max_upload_files=11,
        max_queued_jobs=12,
        shutdown_s=13,
        log_content=True,
        traces=True,
    )
    names = [name for name in Settings.model_fields if name.startswith("serve_")]
    assert [name for name in names if getattr(settings, name) == Settings.model_fields[name].default] == []


def test_names_are_separated_by_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRAAGBAAK_SERVE_ALLOW_HOSTS", "vragen.example.nl, intern")
    config = service_config(load_settings())
    assert config.hosts == ("vragen.example.nl", "intern")
    assert {"vragen.example.nl", "intern"} <= config.allowed_hosts


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, started: list[ServiceConfig]
) -> None:
    (tmp_path / "vraagbaak.toml").write_text("serve_port = 1\nserve_queue_length = 1\nserve_deadline_s = 1\n")
    environment = {"VRAAGBAAK_SERVE_PORT": "2", "VRAAGBAAK_SERVE_QUEUE_LENGTH": "2"}
    result = _serve("--port", "3", "--allow-host", "a", "--allow-host", "b", **environment)
    assert result.exit_code == 0, result.output
    assert (started[0].port, started[0].queue_length, started[0].deadline_s) == (3, 2, 1)
    assert started[0].hosts == ("a", "b")


def test_a_flag_can_be_taken_back(started: list[ServiceConfig]) -> None:
    on = {"VRAAGBAAK_SERVE_KEYS": "true", "VRAAGBAAK_SERVE_LOG_CONTENT": "true"}
    assert _serve(**on).exit_code == 0
    assert _serve("--no-keys", "--no-log-content", **on).exit_code == 0
    assert [(each.authentication, each.log_content) for each in started] == [(True, True), (False, False)]


def test_the_rule_on_open_addresses_holds_for_settings_too(started: list[ServiceConfig]) -> None:
    refused = _serve(VRAAGBAAK_SERVE_HOST="0.0.0.0")
    assert refused.exit_code != 0
    assert "--keys" in refused.output
    wrong = _serve(VRAAGBAAK_SERVE_PORT="99999")
    assert "VRAAGBAAK_SERVE_PORT is '99999'" in wrong.output
    assert started == []
    with pytest.raises(SettingsError, match="serve_samples"):
        load_settings(serve_sample=True)


def test_the_settings_page_has_them_all() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        if name.startswith("serve_"):
            assert f"| `{name}` |" in page
            assert str(field.description) in page


def test_a_taken_port_is_named() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(ServiceError, match=f"port {port}: .*--port"):
            listening("127.0.0.1", port)
    with pytest.raises(ServiceError, match="can't listen on 192.0.2.1"):
        listening("192.0.2.1", 0)


def test_idle_connections_outlive_those_of_clients_and_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a request meets a connection that is being closed: httpx keeps them for 5 s, nginx for 60 s."""
    import uvicorn

    made: list[uvicorn.Config] = []

    class Idle(uvicorn.Server):
        def run(self, sockets: list[socket.socket] | None = None) -> None:
            made.append(self.config)
            self.started = True

    monkeypatch.setattr(uvicorn, "Server", Idle)
    monkeypatch.setattr("api.cli_serve.set_up_logs", lambda: None)
    run(FastAPI(), ServiceConfig(port=0))
    assert made[0].timeout_keep_alive > 60


def test_both_families_are_listened_on() -> None:
    with listening("::1", 0) as listener:
        assert listener.family is socket.AF_INET6
