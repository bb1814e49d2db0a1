"""The command line as a person or a script uses it, in a process of its own, with the real models."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corpus.errors import ERROR_KINDS, DocumentError, VraagbaakError, kind_of

SAMPLES = Path(__file__).parent.parent / "corpus" / "samples"


def vraagbaak(
    *arguments: object, cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        env=os.environ | {"PYTHONPATH": str(SAMPLES.parent.parent), "COLUMNS": "200"},
        cwd=cwd,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "faiss", "transformers", "fastapi", "pydantic", "numpy")
    code = f"import sys; import api.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_has_a_line_in_the_table_and_in_the_tree() -> None:
    import corpus.errors

    tree = corpus.errors.__doc__ or ""

    def all_of(cls: type[VraagbaakError]) -> set[type[VraagbaakError]]:
        return {cls}.union(*(all_of(sub) for sub in cls.__subclasses__()))

    ours = {cls for cls in all_of(VraagbaakError) if cls.__module__ == "corpus.errors"}
    assert ours == set(ERROR_KINDS)
    assert all(cls.__name__ in tree for cls in ours)
    assert all(kind.exit_code > 0 and 400 <= kind.status < 600 for kind in ERROR_KINDS.values())

    class UnlistedError(DocumentError):
        pass

    assert kind_of(UnlistedError("a", "b")) is ERROR_KINDS[DocumentError]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ask", "Wat?", "-c", "nergens"), 4, "there is no collection 'nergens'"),
        (("ask", "Wat?", "-c", "../x"), 2, "can't be a collection's name"),
        (("ingest", "nergens.txt"), 3, "nergens.txt: there is no such file"),
        (("delete", "x", "-c", "nergens"), 4, "no collection"),
        (("restore", "nergens.bak", "-c", "new"), 3, "nergens.bak: there is no such backup"),
        (("search", "x", "--mode", "magic"), 2, "choose dense, lexical, fused"),
        (("ask", "x", "--metadata", "year"), 2, "KEY=VALUE"),
        (("ask", "x", "--answer-in", "fr"), 2, "nl or en"),
        (("collections", "delete", "nergens", "--yes"), 4, "nergens"),
    ],
)
def test_an_error_is_one_line_with_the_tables_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.setenv("VRAAGBAAK_HOME", str(tmp_path))
    done = vraagbaak(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRAAGBAAK_HOME", str(tmp_path))
    monkeypatch.setenv("VRAAGBAAK_TOPK", "3")
    done = vraagbaak("status")
    assert done.returncode == 2
    assert "VRAAGBAAK_TOPK" in done.stderr


@pytest.mark.model
def test_from_documents_to_a_cited_answer(home: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(SAMPLES / "nl", docs)
    (docs / "scan.pdf").write_bytes(b"%PDF-1.4\n%broken")

    done = vraagbaak("ingest", docs, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["added"], report["replaced"], report["unchanged"]) == (10, 0, 0)
    assert [Path(failed["source"]).name for failed in report["failed"]] == ["scan.pdf"]
    assert json.loads(vraagbaak("ingest", docs, "--json").stdout)["unchanged"] == 10

    done = vraagbaak("ask", "Wie organiseerde de reis naar Silicon Valley?", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {
        *("question", "language", "text", "sentences", "citations"),
        *("passages", "abstained", "confidence", "timings"),
    }
    assert answer["language"] == "nl"
    check_citations(answer)

    hits = json.loads(vraagbaak("search", "Silicon Valley", "--json", "--top-k", "3").stdout)
    assert hits[0]["chunk"]["document_id"] == "docs/reisverslag-silicon-valley.md"

    gone = vraagbaak("delete", "docs/reisverslag-silicon-valley.md", "nooit-geweest", "--json")
    assert gone.returncode == 4
    assert json.loads(gone.stdout) == {"deleted": 1, "missing": ["nooit-geweest"]}
    hits = json.loads(vraagbaak("search", "Silicon Valley", "--json").stdout)
    assert "docs/reisverslag-silicon-valley.md" not in {hit["chunk"]["document_id"] for hit in hits}

    assert vraagbaak("backup", tmp_path / "b").returncode == 0
    assert vraagbaak("restore", tmp_path / "b", "-c", "again").returncode == 0
    listed = json.loads(vraagbaak("collections", "list", "--json").stdout)
    assert {row["name"]: row["documents"] for row in listed} == {"again": 9, "default": 9}
    assert vraagbaak("collections", "delete", "again", stdin="n\n").returncode == 1
    assert vraagbaak("collections", "delete", "again", "--yes").returncode == 0
    status = json.loads(vraagbaak("status", "--json").stdout)
    assert [row["name"] for row in status["collections"]] == ["default"]
    assert all(model["bytes"] > 0 for model in status["models"])


def check_citations(answer: dict[str, object]) -> None:
    from index.library import collection_folder
    from index.store import Store
    from rag.settings import load_settings

    store = Store.open(collection_folder(load_settings().home, "default") / "collection.sqlite")
    numbers = {passage["number"] for passage in answer["passages"]}  # type: ignore[attr-defined]
    with store.reading() as transaction:
        for citation in answer["citations"]:  # type: ignore[attr-defined]
            text = transaction.document(citation["document_id"]).text
            assert text[citation["source_start"] : citation["source_end"]] == citation["quote"]
            assert citation["number"] in numbers
            assert 0 <= citation["answer_start"] < citation["answer_end"] <= len(str(answer["text"]))
    store.close()
    if not answer["abstained"]:
        assert answer["citations"]


@pytest.mark.model
@pytest.mark.parametrize(
    ("question", "words"),
    [("", "empty"), ("   ", "empty"), ("x" * 100_000, "characters"), ("a\x00b", "character")],
)
def test_a_bad_question_is_explained(home: Path, tmp_path: Path, question: str, words: str) -> None:
    (tmp_path / "a.txt").write_text("Het water is koud.")
    assert vraagbaak("ingest", "a.txt", cwd=tmp_path).returncode == 0
    hits = json.loads(vraagbaak("search", "water", "--mode", "lexical", "--json").stdout)
    assert [hit["chunk"]["document_id"] for hit in hits] == ["a.txt"]
    done = vraagbaak("ask", "-", stdin=question)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.model
def test_a_source_leads_to_the_file_from_anywhere(home: Path, tmp_path: Path) -> None:
    from index.store import Store

    (tmp_path / "a.txt").write_text("Het water is koud.")
    assert vraagbaak("ingest", "a.txt", cwd=tmp_path).returncode == 0
    store = Store.open(home / "collections" / "default" / "collection.sqlite")
    with store.reading() as transaction:
        assert transaction.document("a.txt").source == str(tmp_path / "a.txt")
    store.close()


def test_waiting_threads_sleep_soon_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from api.cli import _set_defaults

    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    _set_defaults()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    _set_defaults()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    _set_defaults()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_every_command_keeps_few_shapes_unless_told_otherwise() -> None:
    script = """
import os, sys
from unittest.mock import patch
from api import cli
seen = {}
with patch.object(cli, "app", lambda: seen.update(os.environ, torch="torch" in sys.modules)):
    cli.main()
print(seen["torch"], seen["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], seen["LRU_CACHE_CAPACITY"])
"""
    environment = {**os.environ, "LRU_CACHE_CAPACITY": "99"}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["False", "16", "99"], done.stderr


@pytest.mark.parametrize(("command", "is_taken_apart"), [("ask", False), ("search", False), ("serve", True)])
def test_after_an_answer_the_process_ends_at_once(command: str, is_taken_apart: bool) -> None:
    script = """
import atexit, sys
from unittest.mock import patch
from api import cli

class Model:
    def __del__(self):
        print("taken apart")

def app():
    print("answer")
    sys.exit(3)

model = Model()
atexit.register(print, "tidied")
with patch.object(cli, "app", app):
    cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script, command], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    expected = ["answer", "tidied", "taken apart"] if is_taken_apart else ["answer", "tidied"]
    assert done.stdout.splitlines() == expected


def test_an_answer_that_nobody_reads_ends_quietly() -> None:
    script = """
import os, sys
from unittest.mock import patch
from api import cli
from api.console import exits_on_error

def app():
    with exits_on_error():
        print("answer", flush=True)

reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
with patch.object(cli, "app", app):
    cli.main()
"""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # else Python's own last flush makes the status 120
    done = subprocess.run(
        [sys.executable, "-c", script, "search"], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
