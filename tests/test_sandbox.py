"""Whatever a file does to the process that reads it, the others go in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from document_files import pdf_bytes

import corpus.sandbox
from corpus import Document, ReadLimits, Sandbox, SourceFile, find_files, read
from corpus.errors import BrokenDocumentError, DocumentError, DocumentTooLargeError, MissingPathError
from corpus.worker import decode_result, decode_source, encode_result, encode_source

# In place of the PDF reader: does what the file says, as a bug in a C library would.
EVIL = """
import json, os, sys, time, types
sys.path[:] = json.loads(sys.argv.pop(1))
import corpus.readers
from corpus.texts import Text

def read(data, source, limits):
    name, _, rest = data.decode().partition(" ")
    acts = {
        "hang": lambda: time.sleep(600),
        "abort": os.abort,
        "exit": lambda: os._exit(3),
        "memory": lambda: bytearray(8 << 30),
        "recurse": lambda: read(data, source, limits),
        "raise": lambda: {}["no such key"],
        "print": lambda: print("noise on standard output"),
        "nonsense": lambda: os.write(REPLIES, b'{"document": {"id": 1}}' + chr(10).encode()),
        "garbage": lambda: os.write(REPLIES, b"\\xff\\xfe{" + chr(10).encode()),
    }
    acts.get(name, str)()
    return Text(str(os.getpid()))

evil = types.ModuleType("evil")
evil.read = read
sys.modules["evil"] = evil
corpus.readers._READERS["pdf"] = ("evil", "read")
from corpus.worker import main
REPLIES = os.dup(1)
main()
"""


def source_of(folder: Path, name: str, content: bytes) -> SourceFile:
    path = folder / name
    path.write_bytes(content)
    (source,) = find_files([path])
    assert isinstance(source, SourceFile)
    return source


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setattr(corpus.sandbox, "_COMMAND", EVIL)
    with Sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("act", "kind", "why"),
    [
        ("abort", BrokenDocumentError, "damaged"),
        ("exit", BrokenDocumentError, "damaged"),
        ("recurse", BrokenDocumentError, "nested too deeply"),
        ("raise", BrokenDocumentError, "no such key"),
        ("nonsense", BrokenDocumentError, "nonsense"),
        ("garbage", BrokenDocumentError, "nonsense"),
    ],
)
def test_a_file_that_ends_the_worker_is_named_and_the_next_goes_in(
    evil: Sandbox, tmp_path: Path, act: str, kind: type[DocumentError], why: str
) -> None:
    bad, good = source_of(tmp_path, "bad.pdf", act.encode()), source_of(tmp_path, "good.pdf", b"good")
    (error,) = evil.read(bad)
    assert type(error) is kind
    assert error.source == str(tmp_path / "bad.pdf")
    assert why in error.reason
    (document,) = evil.read(good)
    assert isinstance(document, Document)
    assert document.id == "good.pdf"


def test_a_file_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.sandbox, "_COMMAND", EVIL)
    with Sandbox(ReadLimits(timeout_s=1.5)) as sandbox:
        (error,) = sandbox.read(source_of(tmp_path, "bad.pdf", b"hang"))
    assert isinstance(error, DocumentTooLargeError)
    assert "more than 1.5 s (read_timeout_s)" in error.reason


@pytest.mark.skipif(sys.platform != "linux", reason="only there the address space is limited")
def test_a_file_that_fills_the_memory_is_too_large(evil: Sandbox, tmp_path: Path) -> None:
    (error,) = evil.read(source_of(tmp_path, "bad.pdf", b"memory"))
    assert isinstance(error, DocumentTooLargeError)
    assert "read_max_memory_mib" in error.reason


def test_what_a_library_prints_doesnt_get_between_the_replies(evil: Sandbox, tmp_path: Path) -> None:
    (document,) = evil.read(source_of(tmp_path, "a.pdf", b"print"))
    assert isinstance(document, Document)


def test_the_worker_is_kept_and_now_and_then_renewed(
    evil: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus.sandbox, "_FILES_PER_WORKER", 3)
    source = source_of(tmp_path, "a.pdf", b"good")
    pids = [found.text for _ in range(6) for found in evil.read(source) if isinstance(found, Document)]
    assert len(pids) == 6
    assert pids[0] == pids[2] != pids[3] == pids[5]
    assert str(os.getpid()) not in pids


def test_a_reader_that_isnt_read_to_its_end_leaves_nothing_behind(tmp_path: Path) -> None:
    import lzma

    lines = "".join(f'{{"id": "{number}", "text": "tekst {number}"}}\n' for number in range(20_000))
    big = source_of(tmp_path, "big.jsonl.xz", lzma.compress(lines.encode()))
    with Sandbox() as sandbox:
        reading = sandbox.read(big)
        assert isinstance(next(reading), Document)
        reading.close()  # type: ignore[attr-defined]
        assert len(list(sandbox.read(big))) == 20_000


def test_a_worker_that_died_in_between_is_replaced(evil: Sandbox, tmp_path: Path) -> None:
    source = source_of(tmp_path, "a.pdf", b"good")
    (first,) = evil.read(source)
    assert isinstance(first, Document)
    assert evil._worker is not None
    evil._worker._process.kill()
    evil._worker._process.wait()
    (second,) = evil.read(source)
    assert isinstance(second, Document)
    assert second.text != first.text


def test_the_real_readers_give_the_same_in_and_out_of_the_sandbox(tmp_path: Path) -> None:
    from corpus import read_file

    source = source_of(tmp_path, "a.pdf", pdf_bytes([["Een bladzijde."], ["Nog een."]]))
    with Sandbox() as sandbox:
        assert list(sandbox.read(source)) == list(read_file(source))


def test_a_file_that_disappears_is_reported(tmp_path: Path) -> None:
    for name in ("a.pdf", "a.txt"):
        source = source_of(tmp_path, name, b"Tekst.")
        source.path.unlink()
        with Sandbox() as sandbox:
            (error,) = sandbox.read(source)
        assert isinstance(error, MissingPathError)


def test_closing_twice_and_using_it_again_is_fine(tmp_path: Path) -> None:
    source = source_of(tmp_path, "a.pdf", pdf_bytes([["Tekst."]]))
    sandbox = Sandbox()
    sandbox.close()
    assert len(list(sandbox.read(source))) == 1
    sandbox.close()
    sandbox.close()
    assert len(list(sandbox.read(source))) == 1
    sandbox.close()


def test_read_takes_a_folder_with_good_and_bad(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Tekst.", encoding="utf-8")
    (tmp_path / "docs" / "b.pdf").write_bytes(b"no pdf")
    (tmp_path / "docs" / "c.pdf").write_bytes(pdf_bytes([["Tekst."]]))
    found = list(read([tmp_path / "docs", tmp_path / "nowhere"]))
    assert [type(result) for result in found] == [Document, BrokenDocumentError, Document, MissingPathError]


def test_requests_and_replies_survive_the_pipe() -> None:
    odd = SourceFile(Path(os.fsdecode(b"/x/caf\xe9 \n.pdf")), "x/é.pdf", "ab", 5)
    assert decode_source(encode_source(odd)) == odd
    document = Document("a", "t", "nl", "tekst 😀\n", "s", {"k": "v"}, "ff", (0, 3))
    assert decode_result(encode_result(document)) == document
    kinds: list[type[DocumentError]] = [DocumentError]
    for kind in kinds + DocumentError.__subclasses__():
        back = decode_result(encode_result(kind("bron", "reden")))
        assert isinstance(back, DocumentError)
        assert type(back) is kind
        assert (back.source, back.reason) == ("bron", "reden")


def test_importing_the_package_is_cheap_and_the_worker_imports_no_model() -> None:
    code = "import sys, corpus, corpus.worker; print(*sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "torch",
        "transformers",
        "numpy",
        "lxml",
        "trafilatura",
        "pypdfium2",
        "docx",
        "openpyxl",
        "lingua",
    }
    assert not heavy & set(out)


def test_public_names_are_exactly_these() -> None:
    import corpus as package

    assert set(package.__all__) == {
        *("Chunk", "ChunkingConfig", "Document", "DUTCH", "ENGLISH", "UNDETERMINED", "Language", "FORMATS"),
        *("ReadLimits", "Sandbox", "SourceFile", "detect_language", "find_files", "format_of", "read"),
        *("read_file", "sentences", "split"),
    }
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
