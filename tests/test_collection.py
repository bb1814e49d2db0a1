"""The facade: filters, replacing, erasing, other processes, another model, damage."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tantivy
from hypothesis import given
from hypothesis import strategies as st
from index_fakes import WordEmbedder, document

from corpus.document import Chunk, Document
from corpus.errors import (
    CollectionCorruptError,
    CollectionNotFoundError,
    DocumentNotFoundError,
    EmptyDocumentError,
    ModelMismatchError,
    StorageError,
)
from index.collection import DATABASE, Collection
from index.hits import Filters, SearchMode
from index.store import Origin, Store, StoreCounts, Transaction


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "c"


@pytest.fixture
def collection(folder: Path) -> Collection:
    return Collection.create(folder, "c", WordEmbedder())


def ids(collection: Collection, question: str = "water", **options: object) -> set[str]:
    return {hit.chunk.document_id for hit in collection.search(question, 50, **options)}  # type: ignore[arg-type]


def test_a_chunk_is_a_slice_of_its_document(collection: Collection) -> None:
    collection.add(document(number, words=500) for number in range(3))
    for hit in collection.search("water zon kaas", 20):
        text = collection.document(hit.chunk.document_id).text
        assert text[hit.chunk.start : hit.chunk.end] == hit.chunk.text
    assert [chunk.ordinal for chunk in collection.chunks("doc/1")] == list(
        range(len(collection.chunks("doc/1")))
    )


@pytest.mark.parametrize("mode", list(SearchMode))
def test_filters(collection: Collection, mode: SearchMode) -> None:
    collection.add(document(number, language="nl", year="2024") for number in range(5))
    collection.add(document(number, language="en", year="2025") for number in range(5, 10))
    question = "water zon kaas brood melk huis boom"

    def found(filters: Filters) -> set[str]:
        return ids(collection, question, mode=mode, filters=filters)

    assert found(Filters()) == {f"doc/{number}" for number in range(10)}
    assert found(Filters(languages=frozenset({"en"}))) == {f"doc/{number}" for number in range(5, 10)}
    assert found(Filters(documents=frozenset({"doc/3", "doc/7", "doc/none"}))) == {"doc/3", "doc/7"}
    assert found(Filters(metadata={"year": "2024"})) == {f"doc/{number}" for number in range(5)}
    both = Filters(languages=frozenset({"nl"}), documents=frozenset({"doc/3", "doc/7"}))
    assert found(both) == {"doc/3"}
    assert found(Filters(metadata={"year": "1999"})) == set()


def test_a_document_takes_the_place_of_the_one_with_its_id(collection: Collection) -> None:
    collection.add([document(1, seed=0), document(2)])
    collection.add([document(1, seed=1)])
    assert "versie1" in collection.document("doc/1").text
    assert collection.stats().documents == 2
    assert not any("versie0" in chunk.text for chunk in collection.chunks("doc/1"))


def test_a_batch_gives_what_single_searches_give(collection: Collection) -> None:
    collection.add(document(number) for number in range(30))
    questions = ["water en wind", "kaas", "huis boom straat"]
    assert collection.search_batch(questions, 5) == [collection.search(question, 5) for question in questions]


def lexical_terms(folder: Path, prefix: str) -> list[str]:
    """The Dutch words of the index on disk; the files themselves are compressed."""
    (index,) = folder.glob("lexical-*")
    searcher = tantivy.Index.open(str(index)).searcher()
    return [term for term, _ in searcher.terms_with_prefix("nl", prefix)]


def test_deleted_words_are_nowhere_in_the_files(collection: Collection, folder: Path) -> None:
    secret = Document(
        "s", "Geheimtitel", "nl", "Het wachtwoord is zwaluwstaartverbinding. " * 40, "s", {}, "s"
    )
    collection.add([secret, *(document(number) for number in range(5))])
    assert any(b"zwaluwstaartverbind" in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert lexical_terms(folder, "zwaluw") == ["zwaluwstaartverbind"]
    assert collection.delete(["s", "never there"]) == 1
    assert lexical_terms(folder, "zwaluw") == []
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes().lower()
            assert b"zwaluwstaart" not in content, file
            assert b"geheimtitel" not in content, file
    assert "s" not in ids(collection, "zwaluwstaartverbinding")
    with pytest.raises(DocumentNotFoundError, match="'s'"):
        collection.document("s")


def test_a_replaced_documents_old_words_are_nowhere_in_the_files(
    collection: Collection, folder: Path
) -> None:
    collection.add([Document("r", "", "nl", "Oud woord: kolibrievleugel. " * 30, "r", {}, "1"), document(1)])
    collection.add([Document("r", "", "nl", "Nieuw woord.", "r", {}, "2")])
    assert lexical_terms(folder, "kolibrie") == []
    for file in folder.rglob("*"):
        if file.is_file():
            assert b"kolibrie" not in file.read_bytes().lower(), file


def test_another_object_sees_what_was_added_and_deleted(collection: Collection, folder: Path) -> None:
    with Collection.open(folder, WordEmbedder()) as reader:
        assert ids(reader) == set()
        collection.add(document(number) for number in range(3))
        assert ids(reader) == {"doc/0", "doc/1", "doc/2"}
        assert ids(reader, "nummer1", mode=SearchMode.LEXICAL) == {"doc/1"}
        collection.delete(["doc/1"])
        assert ids(reader) == {"doc/0", "doc/2"}
        assert ids(reader, "nummer1", mode=SearchMode.LEXICAL) == set()


def test_refuses_another_model_and_names_both(collection: Collection, folder: Path) -> None:
    collection.close()
    with pytest.raises(ModelMismatchError, match=r"fake/words.*other/model.*ingest the documents again"):
        Collection.open(folder, WordEmbedder(model_id="other/model"))
    with pytest.raises(ModelMismatchError, match=r"dimension 32 \(now 16\)"):
        Collection.open(folder, WordEmbedder(dimension=16))


def test_names_a_collection_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFoundError, match="'nothing'"):
        Collection.open(tmp_path / "nothing", WordEmbedder())


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "pages"])
def test_a_damaged_database_is_named_with_the_remedy(
    collection: Collection, folder: Path, damage: str
) -> None:
    collection.add(document(number, words=3000) for number in range(5))
    collection.close()
    database = folder / DATABASE
    content = database.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "text": b"this is not a database at all " * 100,
        "empty": b"",
        "pages": content[:4096] + b"\xff" * (len(content) - 4096),
    }[damage]
    database.write_bytes(damaged)
    with pytest.raises(CollectionCorruptError, match="backup"):
        Collection.open(folder, WordEmbedder()).check()


def test_a_database_that_cannot_be_written_still_answers(collection: Collection, folder: Path) -> None:
    collection.add(document(number) for number in range(3))
    collection.close()
    store = Store(folder / DATABASE, read_only=True)
    from index.fusion import FusionConfig

    with Collection(folder, store, WordEmbedder(), FusionConfig()) as reader:
        assert ids(reader) == {"doc/0", "doc/1", "doc/2"}
        assert ids(reader, "nummer2", mode=SearchMode.LEXICAL) == {"doc/2"}
        with pytest.raises(StorageError, match="can't be written"):
            reader.add([document(9)])


def test_a_full_disk_loses_nothing(collection: Collection, folder: Path) -> None:
    collection.add(document(number) for number in range(3))
    pages = collection._store._connection().execute("PRAGMA page_count").fetchone()[0]
    collection._store._connection().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"full.*make room"):
        collection.add(document(number, words=20_000) for number in range(10, 13))
    collection._store._connection().execute("PRAGMA max_page_count = 1000000")
    assert ids(collection) == {"doc/0", "doc/1", "doc/2"}
    collection.add([document(11)])
    assert "doc/11" in ids(collection)


def test_a_document_without_words_is_refused_by_name(collection: Collection) -> None:
    with pytest.raises(EmptyDocumentError, match="leeg.txt"):
        collection.add([Document("e", "", "nl", "  \n ", "leeg.txt")])


def test_documents_are_listed_by_page_and_by_name(collection: Collection) -> None:
    collection.add(document(number, year="2024") for number in range(12))
    page = collection.documents(offset=2, limit=3)
    assert [info.id for info in page] == ["doc/10", "doc/11", "doc/2"]
    assert [info.id for info in collection.documents(contains="DOCUMENT 7")] == ["doc/7"]
    assert page[0].metadata == {"year": "2024"}
    assert page[0].characters == len(collection.document("doc/10").text)


def test_the_schema_is_migrated_or_refused_by_version(collection: Collection, folder: Path) -> None:
    collection.close()
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Exception, match="newer Vraagbaak"):
        Collection.open(folder, WordEmbedder())


def make_version_1(folder: Path) -> None:
    connection = sqlite3.connect(folder / DATABASE)
    connection.executescript(
        """DROP TRIGGER chunk_in; DROP TRIGGER chunk_out; DROP TRIGGER document_in; DROP TRIGGER document_out;
        DROP TABLE sizes; DROP TABLE languages; DROP INDEX documents_by_metadata; PRAGMA user_version = 1;"""
    )
    connection.close()


def test_a_collection_of_version_1_is_migrated(collection: Collection, folder: Path) -> None:
    collection.add(document(number, year=str(number % 2)) for number in range(6))
    sizes = collection.stats()
    collection.close()
    make_version_1(folder)
    with Collection.open(folder, WordEmbedder()) as again:
        assert again._store.version() == 3
        assert again.stats() == replace(sizes, disk_bytes=again.stats().disk_bytes)
        assert ids(again, filters=Filters(metadata={"year": "1"})) == {"doc/1", "doc/3", "doc/5"}
        plan = again._store._connection().execute(
            "EXPLAIN QUERY PLAN SELECT key FROM documents WHERE EXISTS (SELECT 1 FROM json_each(metadata))"
        )
        assert "COVERING INDEX documents_by_metadata" in str(plan.fetchall())


def test_a_collection_of_version_1_that_cannot_be_written_is_read_as_it_is(
    collection: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add(document(number) for number in range(3))
    collection.close()
    make_version_1(folder)
    version = Store.version

    def refused(store: Store) -> int:
        if not store.read_only:
            raise sqlite3.OperationalError("unable to open database file")
        return version(store)

    monkeypatch.setattr(Store, "version", refused)
    with Collection.open(folder, WordEmbedder()) as reader:
        assert ids(reader) == {"doc/0", "doc/1", "doc/2"}
        assert (reader.stats().documents, reader.stats().chunks) == (3, 3)


def counted(store: Store) -> StoreCounts:
    """What is in, row by row."""
    with store.reading() as transaction:
        documents = [transaction.document(info.id) for info in transaction.infos(0, 1000)]
        chunks = [chunk for document in documents for chunk in transaction.chunks_of(document.id)]
    languages = Counter(document.language for document in documents)
    characters = sum(chunk.end - chunk.start for chunk in chunks)
    return StoreCounts(len(documents), len(chunks), characters, dict(sorted(languages.items())))


@given(
    st.lists(st.tuples(st.sampled_from("+-!"), st.integers(0, 5), st.sampled_from(["nl", "en"])), max_size=12)
)
def test_the_sizes_are_those_of_the_rows(changes: list[tuple[str, int, str]]) -> None:
    with TemporaryDirectory() as home, closing(Store.create(Path(home) / DATABASE, "{}")) as store:
        for change, number, language in changes:
            text = "water " * (number + 1)
            pieces = [(at, at + 6) for at in range(0, len(text), 6)]
            chunks = [
                Chunk(f"d#{n}", "d", n, *piece, text[slice(*piece)], "") for n, piece in enumerate(pieces)
            ]
            new = Document(str(number), "", language, text, "", {}, "", ())
            with suppress(ZeroDivisionError), store.writing() as transaction:
                transaction.delete([str(number)])
                if change != "-":
                    transaction.insert(new, chunks, np.zeros((len(chunks), 4), np.float32), Origin())
                if change == "!":
                    raise ZeroDivisionError  # rolled back
        with store.reading() as transaction:
            counts = transaction.counts()
        assert counts == counted(store)


def test_the_sizes_are_told_without_reading_a_row_of_documents_or_chunks(collection: Collection) -> None:
    collection.add(document(number) for number in range(3))
    collection.delete(["doc/1"])
    read: set[str | None] = set()

    def note(action: int, table: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            read.add(table)
        return sqlite3.SQLITE_OK

    collection._store._connection().set_authorizer(note)
    stats = collection.stats()
    collection._store._connection().set_authorizer(None)
    assert (stats.documents, stats.chunks, stats.languages) == (2, 2, {"nl": 2})
    assert stats.characters == sum(len(collection.chunks(name)[0].text) for name in ("doc/0", "doc/2"))
    assert not read & {"documents", "chunks"}


def test_filters_that_let_everything_through_filter_nothing(collection: Collection) -> None:
    collection.add(document(number, half=str(number % 2), words=200) for number in range(10))
    collection.delete(["doc/4"])
    collection.add([document(3, seed=1, words=300, half="1")])
    with collection._store.reading() as transaction:
        assert transaction.matching(Filters(languages=frozenset({"nl"}))) is None
        nothing = transaction.matching(Filters(languages=frozenset({"en"})))
        assert nothing is not None
        assert (len(nothing.keys), list(nothing.documents)) == (0, [])
        half = transaction.matching(Filters(metadata={"half": "1"}))
        assert half is not None
        rows = transaction._connection.execute(
            "SELECT chunks.key FROM chunks JOIN documents ON documents.key = document_key "
            "WHERE json_extract(metadata, '$.half') = '1' ORDER BY 1"
        )
        assert half.keys.tolist() == [row[0] for row in rows]


def test_a_document_that_is_replaced_meanwhile_is_found_in_one_of_its_forms(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add([document(1, seed=0)])
    begin = collection._store.reading
    others = [threading.Thread(target=collection.add, args=([document(1, seed=1)],))]

    @contextmanager
    def replaced_meanwhile() -> Iterator[Transaction]:
        with begin() as transaction:
            transaction.generation()  # what is read first fixes the snapshot
            if threading.current_thread() is threading.main_thread():
                monkeypatch.undo()
                others[0].start()
                others[0].join(timeout=1)  # ends now, unless the search keeps the index from moving on
            yield transaction

    monkeypatch.setattr(collection._store, "reading", replaced_meanwhile)
    assert ids(collection) == {"doc/1"}
    others[0].join()
    assert ids(collection, "versie1", mode=SearchMode.LEXICAL) == {"doc/1"}
