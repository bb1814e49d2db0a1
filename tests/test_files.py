"""Which files a path names, and what they are called."""

import hashlib
import os
import sys
import unicodedata
from pathlib import Path

import pytest

from corpus import FORMATS, SourceFile, find_files, format_of
from corpus.errors import DocumentError, MissingPathError, UnsafePathError, UnsupportedFormatError

no_symlinks = pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege there")


def _write(path: Path, text: str = "Tekst.") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _ids(*paths: Path) -> list[str]:
    return [found.id for found in find_files(paths) if isinstance(found, SourceFile)]


def _errors(*paths: Path) -> list[DocumentError]:
    return [found for found in find_files(paths) if isinstance(found, DocumentError)]


def test_folders_are_walked_in_order_with_stable_ids(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "sub/d.html", "sub/c.pdf", "sub/deep/e.jsonl.xz"):
        _write(tmp_path / "docs" / name)
    expected = ["docs/a.md", "docs/b.txt", "docs/sub/c.pdf", "docs/sub/d.html", "docs/sub/deep/e.jsonl.xz"]
    assert _ids(tmp_path / "docs") == expected
    assert _ids(tmp_path / "docs" / "sub" / "c.pdf") == ["c.pdf"]


def test_id_of_the_current_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "docs" / "a.md")
    monkeypatch.chdir(tmp_path / "docs")
    assert _ids(Path(".")) == ["docs/a.md"]


def test_hidden_and_unknown_files_are_passed_over_in_folders(tmp_path: Path) -> None:
    for name in (".hidden.md", ".git/x.md", "photo.png", "~$open.docx", "README", "keep.MD"):
        _write(tmp_path / "docs" / name)
    assert _ids(tmp_path / "docs") == ["docs/keep.MD"]
    assert not _errors(tmp_path / "docs")


def test_a_kind_of_file_without_reader_is_reported_when_named(tmp_path: Path) -> None:
    (error,) = _errors(_write(tmp_path / "photo.png"))
    assert isinstance(error, UnsupportedFormatError)
    assert "photo.png" in str(error)
    assert ".pdf" in error.reason


def test_a_missing_path_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = _write(tmp_path / "good.txt")
    found = list(find_files([tmp_path / "nowhere", good]))
    assert isinstance(found[0], MissingPathError)
    assert isinstance(found[1], SourceFile)


def test_dots_in_a_path_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "secret.txt")
    (tmp_path / "docs").mkdir()
    (error,) = _errors(tmp_path / "docs" / ".." / "secret.txt")
    assert isinstance(error, UnsafePathError)
    assert _ids(_write(tmp_path / "docs" / "wacht...even..md")) == ["wacht...even..md"]


@no_symlinks
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret = _write(tmp_path / "outside" / "secret.txt")
    docs = tmp_path / "docs"
    _write(docs / "a.txt")
    (docs / "link.txt").symlink_to(secret)
    (docs / "folder").symlink_to(secret.parent)
    errors = _errors(docs)
    assert {type(error) for error in errors} == {UnsafePathError}
    assert [Path(error.source).name for error in errors] == ["folder", "link.txt"]
    assert _ids(docs) == ["docs/a.txt"]


@no_symlinks
def test_links_inside_the_folder_dont_double_or_loop(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    _write(docs / "a.txt")
    _write(docs / ".data" / "b.txt")
    (docs / "again.txt").symlink_to(docs / "a.txt")
    (docs / "loop").symlink_to(docs)
    (docs / "b.txt").symlink_to(docs / ".data" / "b.txt")
    assert _ids(docs) == ["docs/a.txt", "docs/b.txt"]
    assert not _errors(docs)


@no_symlinks
def test_a_link_to_a_folder_that_was_named_is_followed(tmp_path: Path) -> None:
    _write(tmp_path / "real" / "a.txt")
    (tmp_path / "named").symlink_to(tmp_path / "real")
    assert _ids(tmp_path / "named") == ["real/a.txt"]


@no_symlinks
def test_a_dangling_link_leads_out_or_is_missing(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "never")
    (error,) = _errors(tmp_path / "gone.txt")
    assert isinstance(error, MissingPathError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (error,) = _errors(tmp_path / "pipe.txt")
    assert isinstance(error, UnsupportedFormatError)
    assert _ids(tmp_path) == []


def test_sha256_and_size_are_those_of_the_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    path = tmp_path / "big.txt"
    path.write_bytes(data)
    (found,) = find_files([path])
    assert isinstance(found, SourceFile)
    assert (found.sha256, found.size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_same_file_named_twice_comes_once_and_another_of_its_name_is_reported(tmp_path: Path) -> None:
    one, other = _write(tmp_path / "x" / "docs" / "a.md"), _write(tmp_path / "y" / "docs" / "a.md")
    assert _ids(one.parent, one.parent) == ["docs/a.md"]
    assert _ids(one.parent, other.parent) == ["docs/a.md"]
    (error,) = _errors(one.parent, other.parent)
    assert "docs/a.md" in error.reason


@pytest.mark.skipif(sys.platform != "linux", reason="only there a file name is any bytes")
def test_a_name_that_is_no_text_is_shown_and_stored_as_text(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(raw)).write_text("Tekst.", encoding="utf-8")
    (found,) = find_files([tmp_path])
    assert isinstance(found, SourceFile)
    assert found.id == f"{tmp_path.name}/caf\\xe9.txt"
    found.id.encode("utf-8")
    found.source.encode("utf-8")


def test_ids_are_composed(tmp_path: Path) -> None:
    _write(tmp_path / unicodedata.normalize("NFD", "café.txt"))
    (found_id,) = _ids(tmp_path)
    assert found_id == f"{tmp_path.name}/café.txt"
    assert unicodedata.is_normalized("NFC", found_id)


@pytest.mark.parametrize("name", ["a.pdf", "A.PDF", "x.jsonl.xz", "x.tar.docx"])
def test_format_goes_by_the_longest_known_extension(name: str) -> None:
    assert format_of(name) in FORMATS
    assert name.lower().endswith(str(format_of(name)))


@pytest.mark.parametrize("name", ["pdf", "a.txt.xz", "a.doc", "a", "a.txt/"])
def test_other_names_have_no_format(name: str) -> None:
    assert format_of(name) is None
