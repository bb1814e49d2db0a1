"""A service on a socket of this machine: hanging up, stopping, Python's and OpenAI's clients."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.client import Offered, RequestError, UnreachableError, Vraagbaak, Written
from api.config import ServiceConfig
from corpus.errors import ServiceError
from index.hits import Filters, SearchMode
from rag.answers import Answer
from tests.api_fakes import ABSTAIN, Live, QuotingReader

TEXT = "De provincies betalen samen de helft. Het Rijk betaalt de rest."


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with Live(tmp_path, QuotingReader(), ServiceConfig(queue_length=2)).running() as made:
        with Vraagbaak(made.url) as vraagbaak:
            vraagbaak.wait(vraagbaak.put_documents([{"id": "map/memo 100%.txt", "text": TEXT}]))
        yield made


# Hanging up


def test_hanging_up_a_stream_stops_the_generation(live: Live) -> None:
    live.reader.held.set()
    with httpx.Client(base_url=live.url, trust_env=False) as http:
        with http.stream("POST", "/v1/ask", json={"question": "provincies", "stream": True}) as response:
            for line in response.iter_lines():
                if line.startswith("event: token"):
                    break
        assert live.reader.stopped.acquire(timeout=10)


def test_hanging_up_without_a_stream_stops_it_too(live: Live) -> None:
    live.reader.held.set()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{live.url}/v1/ask", json={"question": "provincies"}, timeout=0.5, trust_env=False)
    assert live.reader.stopped.acquire(timeout=10)


def test_hanging_up_in_the_queue_frees_the_place(live: Live) -> None:
    live.reader.held.set()
    first = threading.Thread(target=_ask, args=(live.url, 20.0))
    first.start()
    assert live.reader.reading.acquire(timeout=10)
    for _ in range(4):
        assert _ask(live.url, 0.3) == 0
    for _ in range(2000):  # the service notices in its own time that they are gone
        if not len(live.service.running.queue):
            break
        threading.Event().wait(0.01)
    live.reader.released.set()
    first.join()
    assert _ask(live.url, 20.0) == 200
    assert live.reader.count == 2


def _ask(url: str, timeout_s: float) -> int:
    try:
        response = httpx.post(
            f"{url}/v1/ask", json={"question": "provincies"}, timeout=timeout_s, trust_env=False
        )
    except httpx.ReadTimeout:
        return 0
    return response.status_code


# Stopping


def test_stopping_finishes_what_runs_and_refuses_what_is_new(tmp_path: Path) -> None:
    reader = QuotingReader()
    with Live(tmp_path, reader, ServiceConfig()).running() as live:
        with Vraagbaak(live.url) as vraagbaak:
            vraagbaak.wait(vraagbaak.put_documents([{"id": "a", "text": TEXT}]))
        reader.held.set()
        outcome: list[int] = []
        asking = threading.Thread(target=lambda: outcome.append(_ask(live.url, 20.0)))
        asking.start()
        assert reader.reading.acquire(timeout=10)
        live.server.should_exit = True
        for _ in range(500):
            if _is_refused(live.url):
                break
            threading.Event().wait(0.01)
        assert _is_refused(live.url)
        assert asking.is_alive()
        reader.released.set()
        asking.join(20)
        assert outcome == [200]
        live.thread.join(20)
        assert not live.thread.is_alive()


def _is_refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=2, trust_env=False)
    except httpx.TransportError:
        return True
    return False


# Python's client


def test_the_client_asks_searches_and_reads(live: Live) -> None:
    with Vraagbaak(live.url) as vraagbaak:
        answer = vraagbaak.ask("provincies betalen", language="nl")
        assert isinstance(answer, Answer)
        assert answer.text == "De provincies betalen samen de helft."
        citation = answer.citations[0]
        document = vraagbaak.document(citation.document_id)
        assert document.text[citation.source_start : citation.source_end] == citation.quote
        place = vraagbaak.passage(citation.document_id, citation.source_start, citation.source_end)
        assert place.text == citation.quote
        assert [
            answer.abstained for answer in vraagbaak.ask_batch(["provincies", f"{ABSTAIN} provincies"])
        ] == [
            False,
            True,
        ]
        found = vraagbaak.search("Rijk", mode=SearchMode.LEXICAL, filters=Filters(frozenset({"nl"})))
        assert found[0].hit.chunk.text == TEXT
        assert [info.id for info in vraagbaak.documents()] == ["map/memo 100%.txt"]


def test_the_client_streams(live: Live) -> None:
    with Vraagbaak(live.url) as vraagbaak:
        pieces = list(vraagbaak.stream("provincies betalen"))
        assert isinstance(pieces[0], Offered)
        assert isinstance(pieces[-1], Answer)
        written = [piece.text for piece in pieces if isinstance(piece, Written)]
        assert written[-1] == pieces[-1].text
        assert all(later.startswith(earlier) for earlier, later in zip(written, written[1:], strict=False))
        live.reader.held.set()
        stream = vraagbaak.stream("provincies betalen")
        assert isinstance(next(stream), Offered)
        assert isinstance(next(stream), Written)
        stream.close()  # type: ignore[attr-defined]
        assert live.reader.stopped.acquire(timeout=10)


def test_the_clients_stream_survives_every_line_end_that_unicode_knows(live: Live) -> None:
    question = "provincies\u2028betalen\u0085samen\u2029de\x0bhelft"
    with Vraagbaak(live.url) as vraagbaak:
        last = list(vraagbaak.stream(question))[-1]
    assert isinstance(last, Answer)
    assert last.question == question


def test_the_client_manages_documents(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "nieuw.md"
    file.write_text("# Kop\n\nWater en wind.\n")
    with Vraagbaak(live.url) as vraagbaak:
        vraagbaak.create_collection("own")
        job = vraagbaak.wait(vraagbaak.upload([file], "own"))
        assert [each.state.value for each in job.files] == ["added"]
        assert vraagbaak.original("nieuw.md", "own") == file.read_bytes()
        vraagbaak.delete_document("nieuw.md", "own")
        assert list(vraagbaak.documents("own")) == []
        vraagbaak.delete_collection("own")
        assert "own" not in [each.name for each in vraagbaak.collections()]
        with pytest.raises(RequestError) as caught:
            vraagbaak.documents("own").__next__()
        assert (caught.value.status, caught.value.kind) == (404, "no-such-collection")
        assert caught.value.request_id
        assert isinstance(caught.value, ServiceError)


def test_the_client_tries_again_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("api.client.time.sleep", pauses.append)
    replies = iter(
        (
            httpx.Response(503, headers={"Retry-After": "2"}),
            httpx.Response(429, headers={"Retry-After": "3"}),
            httpx.Response(200, json={"collections": []}),
        )
    )
    transport = httpx.MockTransport(lambda _: next(replies))
    with Vraagbaak("http://service", transport=transport) as vraagbaak:
        assert vraagbaak.collections() == []
    assert 2 <= pauses[0] <= 2.5
    assert 3 <= pauses[1] <= 3.75
    transport = httpx.MockTransport(lambda _: httpx.Response(503, json={"detail": "full", "type": "a:b"}))
    with Vraagbaak("http://service", transport=transport, retries=2) as vraagbaak:
        with pytest.raises(RequestError, match="full") as caught:
            vraagbaak.collections()
        assert (caught.value.kind, len(pauses)) == ("b", 4)


def test_the_client_says_when_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Vraagbaak(f"http://127.0.0.1:{port}") as vraagbaak, pytest.raises(UnreachableError):
        vraagbaak.collections()


# OpenAI's client


def test_openais_client_asks(live: Live) -> None:
    openai = pytest.importorskip("openai", reason="the dev extra has OpenAI's client")
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as chat:
        assert [model.id for model in chat.models.list()] == ["vraagbaak", "vraagbaak/default"]
        assert chat.models.retrieve("vraagbaak/default").id == "vraagbaak/default"
        messages = [
            {"role": "system", "content": "Wees kort."},
            {"role": "user", "content": "Hallo"},
            {"role": "assistant", "content": "Dag"},
            {"role": "user", "content": [{"type": "text", "text": "provincies betalen"}]},
        ]
        completion = chat.chat.completions.create(model="vraagbaak", messages=messages, temperature=0.3)
        message = completion.choices[0].message
        assert message.content == "De provincies betalen samen de helft."
        cited = message.annotations[0].url_citation
        assert message.content[cited.start_index : cited.end_index] == message.content
        assert TEXT[cited.source_start : cited.source_end] == cited.quote
        assert httpx.get(cited.url, trust_env=False).json()["text"] == cited.quote
        assert completion.model_extra["answer"]["text"] == message.content
        usage = completion.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 10, 110)


def test_openais_client_streams(live: Live) -> None:
    openai = pytest.importorskip("openai", reason="the dev extra has OpenAI's client")
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as chat:
        stream = chat.chat.completions.create(
            model="vraagbaak/default",
            messages=[{"role": "user", "content": "provincies betalen"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "De provincies betalen samen de helft."
    annotations = [
        each
        for chunk in chunks
        if chunk.choices
        for each in (chunk.choices[0].delta.model_extra or {}).get("annotations", [])
    ]
    assert annotations[0]["url_citation"]["quote"].startswith("De provincies")
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 110


def test_openais_client_gets_errors_that_it_knows(live: Live) -> None:
    openai = pytest.importorskip("openai", reason="the dev extra has OpenAI's client")
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as chat:
        for model in ("gpt-5", "vraagbaak/nowhere"):
            with pytest.raises(openai.NotFoundError, match="there is no model"):
                chat.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.UnprocessableEntityError, match="tools"):
            chat.chat.completions.create(
                model="vraagbaak",
                messages=[{"role": "user", "content": "x"}],
                tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
            )
        with pytest.raises(openai.UnprocessableEntityError, match="user"):
            chat.chat.completions.create(model="vraagbaak", messages=[{"role": "system", "content": "x"}])


# The command line


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from api.cli_serve import keys_app

    runner = CliRunner(env={"VRAAGBAAK_HOME": str(tmp_path)})
    made = runner.invoke(keys_app, ["create", "web", "--role", "write", "-c", "a", "-c", "b"])
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key.startswith("vb_")
    listed = runner.invoke(keys_app, ["list"]).stdout
    assert "web (a, b)" in listed
    assert key[12:] not in listed
    assert runner.invoke(keys_app, ["create", "x", "--role", "owner"]).exit_code == 2
    assert runner.invoke(keys_app, ["revoke", key.split("_")[1]]).exit_code == 0
    assert runner.invoke(keys_app, ["list", "--json"]).stdout.strip() == "[]"
    assert runner.invoke(keys_app, ["revoke", "nonsense"]).exit_code == 1


@pytest.mark.model
def test_the_real_service_starts_answers_and_stops(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys, typer; from api.cli_serve import serve; app = typer.Typer(); app.command()(serve); "
        f"app(['--port', '{port}'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    )
    try:
        with Vraagbaak(f"http://127.0.0.1:{port}", retries=0) as vraagbaak:
            for _ in range(1200):
                if process.poll() is not None or _is_ready(port):
                    break
                threading.Event().wait(0.1)
            assert process.poll() is None
            for _ in range(1200):
                jobs = httpx.get(f"http://127.0.0.1:{port}/v1/jobs", trust_env=False).json()["jobs"]
                if jobs and jobs[0]["state"] == "done":
                    break
                threading.Event().wait(0.1)
            assert {file["state"] for file in jobs[0]["files"]} == {"added"}
            answer = vraagbaak.ask("Met welke chipbedrijven ging minister Beljaarts praten?")
            assert answer.passages
            for citation in answer.citations:
                document = vraagbaak.document(citation.document_id)
                assert document.text[citation.source_start : citation.source_end] == citation.quote
            last = list(vraagbaak.stream("When was the online mission to France?"))[-1]
            assert isinstance(last, Answer)
            assert last.language == "en"
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM), errors


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
