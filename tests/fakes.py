"""Stand-ins for the tokenizer, the reader, the embedder and the collection."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from corpus.document import Chunk, Document
from corpus.errors import DocumentNotFoundError
from index.embedder import EmbedderSpec, Vectors
from index.hits import Filters, Hit, SearchMode
from rag.answers import Passage
from rag.reading import Claim, Reading, ReadingListener, ReadRequest


class WordCodec:
    """Tokens are words, single digits and signs, each with the space before it; ids are given as they come."""

    bos_id: int | None = 0
    eos_ids = frozenset((1,))

    def __init__(self, frame: tuple[str, str] | None = None) -> None:
        self._ids = {"<bos>": 0, "<eos>": 1}
        self._frame = frame

    def encode(self, text: str) -> list[int]:
        tokens = re.findall(r" ?[^\W\d_]+| ?\d| ?[^\w\s]|_|\s", text)
        return [self._ids.setdefault(token, len(self._ids)) for token in tokens]

    def decode(self, token_ids: Sequence[int]) -> str:
        tokens = list(self._ids)
        return "".join(tokens[token] for token in token_ids if token > 1)

    def token_id(self, token: str) -> int:
        return self._ids[token]

    def piece_id(self, text: str) -> int | None:
        return self._ids.get(text)

    def chat_frame(self) -> tuple[list[int], list[int]] | None:
        return None if self._frame is None else (self.encode(self._frame[0]), self.encode(self._frame[1]))


class LetterEmbedder:
    """A text's vector counts its letters, at unit length."""

    spec = EmbedderSpec("fake/letters", "0" * 64, 26, 512, "", "", "mean")

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        rows = np.array([[text.lower().count(letter) + 1e-3 for letter in _LETTERS] for text in questions])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        return self.embed_queries(passages)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


class ListCollection:
    """Every search finds the same hits, in the order given; remembers what it was asked."""

    def __init__(self, documents: Sequence[Document], hits: Sequence[Hit] | None = None) -> None:
        self.documents = {document.id: document for document in documents}
        self.hits = [whole_hit(document) for document in documents] if hits is None else list(hits)
        self.asked: list[tuple[Sequence[str], int, SearchMode, Filters | None]] = []

    def search_batch(
        self,
        questions: Sequence[str],
        top_k: int = 10,
        mode: SearchMode = SearchMode.FUSED,
        filters: Filters | None = None,
        vectors: Vectors | None = None,
    ) -> list[list[Hit]]:
        self.asked.append((questions, top_k, mode, filters))
        return [self.hits[:top_k] for _ in questions]

    def document(self, document_id: str) -> Document:
        if document_id not in self.documents:
            raise DocumentNotFoundError(f"there is no document {document_id!r}")
        return self.documents[document_id]


class ScriptedReader:
    """Writes the same claims whatever is asked."""

    id = "fake/scripted"

    def __init__(self, *claims: Claim, abstain: float = 0.1, wrote: float = 0.5) -> None:
        self.claims = claims
        self.requests: list[ReadRequest] = []
        self._abstain, self._wrote = abstain, wrote

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        self.requests.append(request)
        if listener:
            listener.on_text(" ".join(claim.text for claim in self.claims))
        return Reading(self.claims, request.passages, self._abstain, self._wrote, 10, 5)

    def read_batch(
        self, requests: Sequence[ReadRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Reading]:
        readings = [self.read(request) for request in requests]
        if on_done:
            on_done(len(readings))
        return readings


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def whole_hit(document: Document, start: int = 0, end: int | None = None) -> Hit:
    """A hit on one chunk of a document, by default the whole."""
    stop = len(document.text) if end is None else end
    chunk = Chunk(f"{document.id}#{start}", document.id, 0, start, stop, document.text[start:stop])
    return Hit(chunk, 1.0)


def text_document(number: int, text: str, language: str = "nl", **more: object) -> Document:
    """A document `d1`, `d2` … with that text."""
    return Document(f"d{number}", f"Titel {number}", language, text, f"d{number}.txt", **more)  # type: ignore[arg-type]


def passages_of(*texts: str, language: str = "nl") -> tuple[Passage, ...]:
    """Passages 1, 2 … of documents `d1`, `d2` …, each a whole text."""
    documents = [text_document(number, text, language) for number, text in enumerate(texts, start=1)]
    return tuple(
        Passage(number, whole_hit(document), document.title, document.source, language)
        for number, document in enumerate(documents, start=1)
    )


def documents_of(passages: Sequence[Passage]) -> Mapping[str, Document]:
    """The documents that `passages_of` made its passages from."""
    return {
        passage.hit.chunk.document_id: text_document(passage.number, passage.hit.chunk.text, passage.language)
        for passage in passages
    }
