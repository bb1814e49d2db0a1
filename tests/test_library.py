"""Named collections, the writer's lock, backup and restore."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from index_fakes import WordEmbedder, document

from corpus.errors import (
    CollectionCorruptError,
    CollectionExistsError,
    CollectionLockedError,
    CollectionNotFoundError,
    InputError,
    MissingPathError,
)
from index.library import Library
from index.locking import WriteLock

HOLD_LOCK = """
import sys
from pathlib import Path
from index.locking import WriteLock
with WriteLock(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path, WordEmbedder())


def test_collections_are_apart(library: Library) -> None:
    with library.create("one") as one, library.create("two") as two:
        one.add([document(1)])
        two.add([document(2)])
        assert [info.id for info in one.documents()] == ["doc/1"]
        assert [info.id for info in two.documents()] == ["doc/2"]
    assert library.names() == ["one", "two"]
    library.delete("one")
    assert library.names() == ["two"]
    assert sorted(path.name for path in (library.home / "collections").iterdir()) == ["two"]


def test_names_what_is_wrong(library: Library) -> None:
    library.create("one").close()
    with pytest.raises(CollectionExistsError, match="'one'"):
        library.create("one")
    with pytest.raises(CollectionNotFoundError, match=r"'two' \(there are: one\)"):
        library.open("two")
    with pytest.raises(CollectionNotFoundError, match="'two'"):
        library.delete("two")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 64, "-a", "naïef", "a b", "a\n"])
def test_refuses_a_name_that_could_be_a_path(library: Library, name: str) -> None:
    for action in (library.create, library.open, library.delete):
        with pytest.raises(InputError, match="can't be a collection's name"):
            action(name)


def test_another_process_that_writes_is_named_and_readers_go_on(library: Library) -> None:
    collection = library.create("c")
    collection.add([document(1)])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(collection.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CollectionLockedError, match=f"process {holder.pid} is writing"):
            collection.add([document(2)])
        with pytest.raises(CollectionLockedError):
            library.delete("c")
        assert [hit.chunk.document_id for hit in collection.search("water", 5)] == ["doc/1"]
        with library.open("c") as again:
            assert [hit.chunk.document_id for hit in again.search("water", 5)] == ["doc/1"]
    finally:
        holder.communicate()
    collection.add([document(2)])
    assert collection.stats().documents == 2


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    lock = WriteLock(tmp_path)
    with pytest.raises(ValueError, match="inside"), lock.held():
        raise ValueError("inside")
    with WriteLock(tmp_path).if_free() as held:
        assert held


def test_a_backup_restores_to_the_same_answers(library: Library, tmp_path: Path) -> None:
    with library.create("c") as collection:
        collection.add(document(number, words=200) for number in range(20))
        before = collection.search("water en kaas", 10)
        collection.backup(tmp_path / "c.vraagbaak")
        collection.delete(["doc/3"])
    with library.restore(tmp_path / "c.vraagbaak", "d") as restored:
        assert restored.name == "d"
        assert restored.search("water en kaas", 10) == before
        assert restored.document("doc/3").id == "doc/3"
        restored.add([document(77)])
    assert library.names() == ["c", "d"]


def test_a_bad_backup_leaves_nothing_behind(library: Library, tmp_path: Path) -> None:
    with library.create("c") as collection:
        collection.add([document(1)])
        collection.backup(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    unpacked = bytearray(gzip.decompress(good))
    unpacked[len(unpacked) // 2] ^= 255
    for name, content in {
        "cut": good[: len(good) // 2],
        "text": b"not a backup",
        "empty": b"",
        "flipped": gzip.compress(bytes(unpacked)),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CollectionCorruptError, match="not a whole backup"):
            library.restore(tmp_path / name, "d")
    with pytest.raises(MissingPathError):
        library.restore(tmp_path / "absent", "d")
    with pytest.raises(CollectionExistsError):
        library.restore(tmp_path / "good", "c")
    assert sorted(path.name for path in (tmp_path / "collections").iterdir()) == ["c"]
