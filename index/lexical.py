"""The lexical side: BM25 with tantivy, stemmed by language, derived from the store.

The words of a chunk are its document's title, its heading and its text, in a field of its language; texts are
not kept in it. `lexical.json` names the folder that is current and the generation it stands at; it is replaced
after every commit, so that what it says is on disk is on disk. A rebuild goes into a new folder: that is also
how deleted words leave the disk, since tantivy only marks them.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corpus.document import DUTCH, ENGLISH, UNDETERMINED, Language
from corpus.errors import StorageError
from index.store import IndexedChunk, Transaction

if TYPE_CHECKING:
    import tantivy

STAMP = "lexical.json"
ANALYSIS_VERSION = 1
"""Goes up when words are cut or stemmed otherwise, so that an old index is rebuilt."""

K1 = 1.2
STEMMED: dict[Language, str] = {DUTCH: "dutch", ENGLISH: "english"}
FIELDS: tuple[Language, ...] = (DUTCH, ENGLISH, UNDETERMINED)
MAX_WORD_BYTES = 60
MAX_QUERY_WORDS = 64
WRITER_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class LexicalHits:
    """For one question, best first: chunk keys, BM25 scores and coverages, each of shape (n,).

    A coverage in 0–1 is the score over the best one that these words could have in that language: how much of
    the question's weight in words the chunk has. Words that the collection doesn't know weigh most, so that
    what a question in another language shares by chance comes to little.
    """

    keys: NDArray[np.int64]
    scores: NDArray[np.float32]
    coverages: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Stamp:
    folder: str
    generation: int
    last_key: int
    has_deleted: bool = False
    analysis: int = ANALYSIS_VERSION


@cache
def analyzer(language: Language) -> "tantivy.TextAnalyzer":
    """Words of a text as they are indexed: lower case, without accents, stop words and endings."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    builder = (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(MAX_WORD_BYTES))
        .filter(Filter.lowercase())
    )
    if language in STEMMED:
        builder = builder.filter(Filter.stopword(STEMMED[language])).filter(Filter.stemmer(STEMMED[language]))
    return builder.filter(Filter.ascii_fold()).build()


def field_of(language: Language) -> Language:
    """The field that a text of this language is indexed in."""
    return language if language in STEMMED else UNDETERMINED


class LexicalIndex:
    """One collection's words. `folder` None keeps them in memory, where the disk can't be written."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._stamp: _Stamp | None = None
        self._index: tantivy.Index | None = None

    @property
    def generation(self) -> int:
        """The generation that is searched; -1 before there is any."""
        return self._stamp.generation if self._stamp else -1

    def refresh(self) -> None:
        """Opens what `lexical.json` names now, if another process has changed it."""
        if self._folder is None:
            return
        stamp = _read_stamp(self._folder)
        if stamp == self._stamp:
            return
        if stamp is None:
            self._stamp = self._index = None
            return
        if self._stamp is None or self._stamp.folder != stamp.folder or self._index is None:
            try:
                self._index = _open(self._folder / stamp.folder)
            except (ValueError, OSError):
                # Derived data that is damaged: forget it, and the next catch-up builds it from SQLite.
                self._stamp = self._index = None
                return
        else:
            self._index.reload()
        self._stamp = stamp

    def catch_up(self, transaction: Transaction, *, settle: bool = False) -> None:
        """Brings the index to the transaction's generation. Only one process may do so at a time.

        tantivy only marks what is deleted; with `settle`, when no one else can be writing, the index is
        rebuilt if it holds such words, or if it doesn't fit the store.
        """
        self.refresh()
        stamp, generation = self._stamp, transaction.generation()
        if stamp is None or self._index is None:
            self._rebuild(transaction)
            return
        removed = transaction.removed_since(stamp.generation)
        if settle and (removed or stamp.has_deleted or not self._fits(transaction)):
            self._rebuild(transaction)
        elif generation > stamp.generation:
            self._extend(self._index, stamp, transaction, removed)

    def _fits(self, transaction: Transaction) -> bool:
        """False for an index that is ahead of its store, or at its generation with other chunks."""
        assert self._index is not None
        if self.generation != transaction.generation():
            return self.generation < transaction.generation()
        return bool(self._index.searcher().num_docs == transaction.chunk_count())

    def _extend(
        self, index: "tantivy.Index", stamp: _Stamp, transaction: Transaction, removed: Sequence[int]
    ) -> None:
        writer = index.writer(WRITER_BYTES, 1)
        for key in removed:
            writer.delete_documents_by_term("key", key)
        # Deleting first makes it harmless that a killed process had committed some of these.
        _add(writer, transaction.texts_after(stamp.last_key), replace_existing=True)
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._publish(
            replace(
                stamp,
                generation=transaction.generation(),
                last_key=transaction.last_key(),
                has_deleted=stamp.has_deleted or bool(removed),
            )
        )

    def _rebuild(self, transaction: Transaction) -> None:
        name = f"lexical-{uuid.uuid4().hex[:12]}"
        if self._folder is not None:
            (self._folder / name).mkdir()
        index = _create(self._folder / name if self._folder else None)
        writer = index.writer(WRITER_BYTES, 1)
        _add(writer, transaction.texts_after(0), replace_existing=False)
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._index = index
        self._publish(_Stamp(name, transaction.generation(), transaction.last_key()))

    def _publish(self, stamp: _Stamp) -> None:
        self._stamp = stamp
        if self._folder is None:
            return
        partial = self._folder / f".{STAMP}.partial"
        partial.write_text(json.dumps(asdict(stamp)), encoding="utf-8")
        os.replace(partial, self._folder / STAMP)
        for old in self._folder.glob("lexical-*"):
            if old.name != stamp.folder:
                shutil.rmtree(old, ignore_errors=True)

    def search(self, question: str, limit: int, documents: Sequence[int] | None = None) -> LexicalHits:
        """The `limit` best chunks for the question's words, or of those in documents with an allowed key."""
        empty = LexicalHits(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))
        if self._index is None:
            return empty
        searcher, schema = self._index.searcher(), self._index.schema
        inside = None if documents is None else _inside(schema, documents)
        found = [_search_field(searcher, schema, field, question, limit, inside) for field in FIELDS]
        keys, scores, coverages = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((keys, -scores))[:limit]
        return LexicalHits(keys[order], scores[order], coverages[order])


def _search_field(
    searcher: "tantivy.Searcher",
    schema: "tantivy.Schema",
    field: Language,
    question: str,
    limit: int,
    inside: "tantivy.Query | None",
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Keys, BM25 scores and coverages, each of shape (n,), of the best chunks in one field."""
    import tantivy

    words = list(dict.fromkeys(analyzer(field).analyze(question)))[:MAX_QUERY_WORDS]
    terms = [tantivy.Query.term_query(schema, field, word, "freq") for word in words]
    query = tantivy.Query.boolean_query([(tantivy.Occur.Should, term) for term in terms])
    if inside is not None:
        query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, inside)])
    found = searcher.search(query, limit, count=False).hits if words else []
    keys = searcher.fast_field_values("key", [address for _, address in found]) if found else []
    scores = np.array([score for score, _ in found], np.float32)
    return np.array(keys, np.int64), scores, scores / (_best_possible(searcher, field, words) or 1.0)


def _inside(schema: "tantivy.Schema", documents: Sequence[int]) -> "tantivy.Query":
    """Lets only these documents through, without adding to a score."""
    import tantivy

    return tantivy.Query.const_score_query(
        tantivy.Query.term_set_query(schema, "document", list(documents)), 0.0
    )


def _best_possible(searcher: "tantivy.Searcher", field: Language, words: Sequence[str]) -> float:
    """The bound of BM25: each word's weight is under idf * (k1 + 1); Robertson and Zaragoza 2009, eq. 3.15."""
    total = searcher.num_docs
    return sum(
        (K1 + 1) * log(1 + (total - frequency + 0.5) / (frequency + 0.5))
        for frequency in (searcher.doc_freq(field, word) for word in words)
    )


def _schema() -> "tantivy.Schema":
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("key", indexed=True, fast=True)
    builder.add_unsigned_field("document", indexed=True)
    for field in FIELDS:
        builder.add_text_field(field, tokenizer_name=field, index_option="freq")
    return builder.build()


def _create(folder: Path | None) -> "tantivy.Index":
    import tantivy

    index = tantivy.Index(_schema(), path=None if folder is None else str(folder))
    return _with_analyzers(index)


def _open(folder: Path) -> "tantivy.Index":
    import tantivy

    return _with_analyzers(tantivy.Index.open(str(folder)))


def _with_analyzers(index: "tantivy.Index") -> "tantivy.Index":
    for field in FIELDS:
        index.register_tokenizer(field, analyzer(field))
    return index


def _add(writer: "tantivy.IndexWriter", chunks: Iterable[IndexedChunk], *, replace_existing: bool) -> None:
    import tantivy

    try:
        for chunk in chunks:
            if replace_existing:
                writer.delete_documents_by_term("key", chunk.key)
            document = tantivy.Document()
            document.add_unsigned("key", chunk.key)
            document.add_unsigned("document", chunk.document_key)
            words = "\n".join(filter(None, (chunk.title, chunk.heading, chunk.text)))
            document.add_text(field_of(chunk.language), words)
            writer.add_document(document)
    except OSError as error:
        raise StorageError(f"the lexical index can't be written: {error}; make room on the disk") from error


def _read_stamp(folder: Path) -> _Stamp | None:
    """What `lexical.json` says; None where there is none, or one of another analysis or form."""
    try:
        content = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        stamp = _Stamp(
            str(content["folder"]),
            int(content["generation"]),
            int(content["last_key"]),
            bool(content["has_deleted"]),
            int(content["analysis"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # The name is checked, since it becomes a path.
    plain = stamp.folder.startswith("lexical-") and "/" not in stamp.folder and ".." not in stamp.folder
    return (
        stamp if stamp.analysis == ANALYSIS_VERSION and plain and (folder / stamp.folder).is_dir() else None
    )
