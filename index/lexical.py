"""The lexical side: BM25 with tantivy, stemmed by language, derived from the store.

The words of a chunk are its document's title, its heading and its text, in a field of its language; texts are
not kept in it. The index is made of parts, each a tantivy index of the chunks up to some key. `lexical.json`
names the parts that are current and the generation they stand at; it is replaced after every commit, so that
what it says is on disk is on disk. Parts that hold deleted words are built again in a new folder: that is how
such words leave the disk, since tantivy only marks them. What a deletion costs then depends on the size of a
part, and not on that of the collection.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import chain, islice
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corpus.document import DUTCH, ENGLISH, UNDETERMINED, Language
from corpus.errors import StorageError
from index.store import LARGEST_KEY, IndexedChunk, Transaction

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

PART_CHUNKS = 100_000
"""Chunks in one part: a few seconds to build again. Words weigh the same in every part; only the mean length of
a chunk, which a score depends on a little, is each part's own."""


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
class _Part:
    """The chunks from after the last key of the part before it; `count` of them are not deleted."""

    folder: str
    last_key: int
    count: int
    has_deleted: bool = False


@dataclass(frozen=True, slots=True)
class _Stamp:
    parts: tuple[_Part, ...]
    generation: int
    last_key: int
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
        self._indexes: dict[str, tantivy.Index] = {}

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
        try:
            self._indexes = {part.folder: self._opened(part.folder) for part in stamp.parts} if stamp else {}
            self._stamp = stamp
        except (ValueError, OSError):
            # Derived data that is damaged: forget it, and the next catch-up builds it from SQLite.
            self._stamp, self._indexes = None, {}

    def _opened(self, name: str) -> "tantivy.Index":
        """The part as it is on disk now."""
        assert self._folder is not None
        index = self._indexes.get(name)
        if index is None:
            return _open(self._folder / name)
        index.reload()
        return index

    def catch_up(self, transaction: Transaction, *, settle: bool = False) -> None:
        """Brings the index to the transaction's generation. Only one process may do so at a time.

        tantivy only marks what is deleted; with `settle`, when no one else can be writing, parts that hold
        such words are built again, and all of them if they don't fit the store.
        """
        self.refresh()
        stamp = self._stamp
        if stamp is None or (settle and not self._fits(stamp, transaction)):
            stamp = self._publish(self._grown((), transaction, 0), transaction)
        elif transaction.generation() > stamp.generation:
            stamp = self._extend(stamp, transaction)
        if settle and any(part.has_deleted for part in stamp.parts):
            self._publish(self._erased(stamp.parts, transaction), transaction)

    def _fits(self, stamp: _Stamp, transaction: Transaction) -> bool:
        """False for an index that is ahead of its store, or at its generation with other chunks."""
        if stamp.generation != transaction.generation():
            return stamp.generation < transaction.generation()
        return sum(index.searcher().num_docs for index in self._indexes.values()) == transaction.chunk_count()

    def _extend(self, stamp: _Stamp, transaction: Transaction) -> _Stamp:
        removed = np.array(transaction.removed_since(stamp.generation), np.int64)
        parts = self._marked(stamp.parts, removed) if len(removed) else stamp.parts
        return self._publish(self._grown(parts, transaction, stamp.last_key), transaction)

    def _marked(self, parts: Sequence[_Part], removed: NDArray[np.int64]) -> tuple[_Part, ...]:
        """The parts without these keys. Keys past the last part are in it if a process was killed before
        it could say so."""
        import tantivy

        ends = [part.last_key for part in parts[:-1]]
        places = np.searchsorted(np.array(ends, np.int64), removed)
        marked = []
        for place, part in enumerate(parts):
            keys = removed[places == place].tolist()
            if keys:
                index = self._indexes[part.folder]
                writer = index.writer(WRITER_BYTES, 1)
                # Not by term: tantivy-py makes a signed one of an int, which matches nothing in this field.
                writer.delete_documents_by_query(tantivy.Query.term_set_query(index.schema, "key", keys))
                _commit(writer, index)
                part = replace(part, count=index.searcher().num_docs, has_deleted=True)
            marked.append(part)
        return tuple(marked)

    def _grown(self, parts: Sequence[_Part], transaction: Transaction, after: int) -> tuple[_Part, ...]:
        """The parts with the store's chunks after this key: in the last one while it has room, then in new ones."""
        texts, last_key = transaction.texts_after(after), transaction.last_key()
        grown = list(parts)
        for first in texts:
            more = chain([first], texts)
            if grown and grown[-1].count < PART_CHUNKS:
                grown[-1] = self._filled(grown[-1], more)
            else:
                grown.append(self._built(islice(more, PART_CHUNKS)))
        return (*grown[:-1], replace(grown[-1], last_key=last_key)) if grown else ()

    def _filled(self, part: _Part, texts: Iterator[IndexedChunk]) -> _Part:
        import tantivy

        index = self._indexes[part.folder]
        writer = index.writer(WRITER_BYTES, 1)
        # A process that was killed may have put some of these in without saying so.
        unsaid = tantivy.Query.range_query(
            index.schema, "key", tantivy.FieldType.Unsigned, part.last_key + 1, LARGEST_KEY
        )
        writer.delete_documents_by_query(unsaid)
        last_key = _add(writer, islice(texts, PART_CHUNKS - part.count))
        _commit(writer, index)
        return replace(part, last_key=last_key, count=index.searcher().num_docs)

    def _built(self, texts: Iterable[IndexedChunk]) -> _Part:
        """A new part of these chunks."""
        name = f"lexical-{uuid.uuid4().hex[:12]}"
        if self._folder is not None:
            (self._folder / name).mkdir()
        index = self._indexes[name] = _create(self._folder / name if self._folder else None)
        writer = index.writer(WRITER_BYTES, 1)
        last_key = _add(writer, texts)
        _commit(writer, index)
        return _Part(name, last_key, index.searcher().num_docs)

    def _erased(self, parts: Sequence[_Part], transaction: Transaction) -> tuple[_Part, ...]:
        """The parts without a trace of what was deleted; small ones are made one on the way."""
        erased, before = list[_Part](), 0
        for group in _groups(parts):
            last_key = group[-1].last_key
            if any(part.has_deleted for part in group):
                built = self._built(transaction.texts_after(before, last_key))
                erased += [replace(built, last_key=last_key)] if built.count else []
            else:
                erased += group
            before = last_key
        return tuple(erased)

    def _publish(self, parts: tuple[_Part, ...], transaction: Transaction) -> _Stamp:
        """These parts are the index from here on; what is in no part any more is deleted."""
        stamp = self._stamp = _Stamp(parts, transaction.generation(), transaction.last_key())
        named = {part.folder for part in parts}
        self._indexes = {name: index for name, index in self._indexes.items() if name in named}
        if self._folder is None:
            return stamp
        partial = self._folder / f".{STAMP}.partial"
        partial.write_text(json.dumps(asdict(stamp)), encoding="utf-8")
        os.replace(partial, self._folder / STAMP)
        for old in self._folder.glob("lexical-*"):
            if old.name not in named:
                shutil.rmtree(old, ignore_errors=True)
        return stamp

    def search(self, question: str, limit: int, documents: Sequence[int] | None = None) -> LexicalHits:
        """The `limit` best chunks for the question's words, or of those in documents with an allowed key."""
        if not self._indexes:
            return LexicalHits(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))
        schema = next(iter(self._indexes.values())).schema
        searchers = [index.searcher() for index in self._indexes.values()]
        inside = None if documents is None else _inside(schema, documents)
        found = [_search_field(searchers, schema, field, question, limit, inside) for field in FIELDS]
        keys, scores, coverages = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((keys, -scores))[:limit]
        return LexicalHits(keys[order], scores[order], coverages[order])


def _groups(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Parts that are built again, each with neighbours as far as they fit in one; the others by themselves."""
    groups: list[list[_Part]] = []
    for part in parts:
        last = groups[-1] if groups else []
        again = part.has_deleted or any(other.has_deleted for other in last)
        if last and again and sum(other.count for other in last) + part.count <= PART_CHUNKS:
            last.append(part)
        else:
            groups.append([part])
    return groups


def _search_field(
    searchers: "Sequence[tantivy.Searcher]",
    schema: "tantivy.Schema",
    field: Language,
    question: str,
    limit: int,
    inside: "tantivy.Query | None",
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Keys, BM25 scores and coverages, each of shape (n,), of the best chunks of each part in one field."""
    words = list(dict.fromkeys(analyzer(field).analyze(question)))[:MAX_QUERY_WORDS]
    total = sum(searcher.num_docs for searcher in searchers)
    weights = {
        word: _weight(total, sum(searcher.doc_freq(field, word) for searcher in searchers)) for word in words
    }
    keys, scores = list[int](), list[float]()
    for searcher in searchers if words else ():
        query = _query(searcher, schema, field, weights, inside, is_alone=len(searchers) == 1)
        hits = searcher.search(query, limit, count=False).hits
        addresses = [address for _, address in hits]
        keys += [int(key or 0) for key in searcher.fast_field_values("key", addresses)] if hits else []
        scores += [score for score, _ in hits]
    # The bound of BM25: each word's weight is under idf * (k1 + 1); Robertson and Zaragoza 2009, eq. 3.15.
    best = (K1 + 1) * sum(weights.values()) or 1.0
    found = np.array(scores, np.float32)
    return np.array(keys, np.int64), found, found / best


def _query(
    searcher: "tantivy.Searcher",
    schema: "tantivy.Schema",
    field: Language,
    weights: Mapping[str, float],
    inside: "tantivy.Query | None",
    *,
    is_alone: bool,
) -> "tantivy.Query":
    """Any of the words, each with the weight that it has in all parts together."""
    import tantivy

    terms = []
    for word, weight in weights.items():
        term = tantivy.Query.term_query(schema, field, word, "freq")
        if not is_alone:
            own = _weight(searcher.num_docs, searcher.doc_freq(field, word))
            term = tantivy.Query.boost_query(term, weight / own)
        terms.append((tantivy.Occur.Should, term))
    query = tantivy.Query.boolean_query(terms)
    if inside is None:
        return query
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, inside)])


def _weight(total: int, frequency: int) -> float:
    """BM25's idf, as tantivy and Lucene have it: of a word that `frequency` of `total` chunks hold.

    Until a part is built again, its frequencies count deleted chunks, which the total doesn't.
    """
    return log(1 + (max(total, frequency) - frequency + 0.5) / (frequency + 0.5))


def _inside(schema: "tantivy.Schema", documents: Sequence[int]) -> "tantivy.Query":
    """Lets only these documents through, without adding to a score."""
    import tantivy

    return tantivy.Query.const_score_query(
        tantivy.Query.term_set_query(schema, "document", list(documents)), 0.0
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


def _add(writer: "tantivy.IndexWriter", chunks: Iterable[IndexedChunk]) -> int:
    """Puts chunks in, to be committed; returns the last one's key."""
    import tantivy

    key = 0
    try:
        for chunk in chunks:
            key = chunk.key
            document = tantivy.Document()
            document.add_unsigned("key", key)
            document.add_unsigned("document", chunk.document_key)
            words = "\n".join(filter(None, (chunk.title, chunk.heading, chunk.text)))
            document.add_text(field_of(chunk.language), words)
            writer.add_document(document)
    except OSError as error:
        raise _unwritten(error) from error
    return key


def _commit(writer: "tantivy.IndexWriter", index: "tantivy.Index") -> None:
    """Everything on disk, merged as far as tantivy wants to, and seen by the next search."""
    try:
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
    except OSError as error:
        raise _unwritten(error) from error


def _unwritten(error: OSError) -> StorageError:
    return StorageError(f"the lexical index can't be written: {error}; make room on the disk")


def _read_stamp(folder: Path) -> _Stamp | None:
    """What `lexical.json` says; None where there is none, or one of another analysis or form."""
    try:
        content = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        parts = tuple(
            _Part(str(part["folder"]), int(part["last_key"]), int(part["count"]), bool(part["has_deleted"]))
            for part in content["parts"]
        )
        stamp = _Stamp(parts, int(content["generation"]), int(content["last_key"]), int(content["analysis"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_there = stamp.analysis == ANALYSIS_VERSION and all(_is_part(folder, part.folder) for part in parts)
    return stamp if is_there else None


def _is_part(folder: Path, name: str) -> bool:
    """The name is checked, since it becomes a path."""
    return name.startswith("lexical-") and "/" not in name and ".." not in name and (folder / name).is_dir()
