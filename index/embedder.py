"""Text to unit vectors, with the model that a collection is bound to."""

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from corpus.errors import ModelError
from index.memory import give_back_memory
from index.vocabulary import tokenizer_in_background

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from index.encoder import Encoder

Vectors = NDArray[np.float32]
"""Shape (n, dimension); every row has unit length."""


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What must be equal for two sets of vectors to be comparable."""

    id: str
    sha256: str
    dimension: int
    max_tokens: int
    query_prefix: str
    passage_prefix: str
    pooling: str


class Embedder(Protocol):
    """The part of an embedding model that the index needs; tests pass a ten-line fake."""

    @property
    def spec(self) -> EmbedderSpec: ...

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(questions), dimension); the query prefix is added here."""
        ...

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """Unit vectors of shape (len(passages), dimension); `on_progress` is told of each batch's size."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the model's own tokenizer, without prefix and special tokens."""
        ...


class SentenceTransformerEmbedder:
    """Any other sentence-transformers model. Load it with `load_embedder`."""

    def __init__(self, model: "SentenceTransformer", spec: EmbedderSpec, batch_tokens: int = 4096) -> None:
        self.spec = spec
        self._model = model
        self._batch_tokens = batch_tokens
        self._lock = threading.Lock()
        self._counter: Tokenizer | None = None

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(questions), dimension)."""
        return self._embed([self.spec.query_prefix + question for question in questions], None)

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """Unit vectors of shape (len(passages), dimension); what is past the model's length is cut off."""
        return self._embed([self.spec.passage_prefix + passage for passage in passages], on_progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without prefix and special tokens."""
        if not texts:
            return []
        encoded = self._tokenizer().encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encoded]

    def _tokenizer(self) -> "Tokenizer":
        """A copy of the model's: encoding switches padding and truncation on in the model's own."""
        if self._counter is None:
            counter = copy.deepcopy(self._model.tokenizer.backend_tokenizer)
            counter.no_padding()
            counter.no_truncation()
            self._counter = counter
        return self._counter

    def _embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None) -> Vectors:
        vectors = np.empty((len(texts), self.spec.dimension), np.float32)
        lengths = self.count_tokens(texts) if len(texts) > 1 else [1]
        for batch in _batches(lengths, self._batch_tokens):
            with self._lock:
                rows = self._model.encode(
                    [texts[i] for i in batch],
                    batch_size=len(batch),
                    convert_to_numpy=True,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
            # A model in bfloat16 gives rows that are a little off unit length.
            rows = np.asarray(rows, np.float32)
            vectors[batch] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            if on_progress is not None:
                on_progress(len(batch))
        return vectors


def _batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Places of texts, longest first, cut where the next would take the padded batch past `batch_tokens`."""
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


class EncoderEmbedder:
    """The bundled model over `index.encoder`. Safe to use from several threads."""

    def __init__(
        self, encoder: "Encoder", tokenizer: "Tokenizer", spec: EmbedderSpec, batch_tokens: int = 2048
    ) -> None:
        self.spec = spec
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(questions), dimension)."""
        return self._embed([self.spec.query_prefix + question for question in questions], None)

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """Unit vectors of shape (len(passages), dimension); what is past the model's length is cut off."""
        return self._embed([self.spec.passage_prefix + passage for passage in passages], on_progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without prefix and special tokens."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encoded]

    def _embed(self, texts: Sequence[str], on_progress: Callable[[int], None] | None) -> Vectors:
        token_ids = [self._cut(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        vectors = np.empty((len(texts), self.spec.dimension), np.float32)
        for batch in _batches([len(ids) for ids in token_ids], self._batch_tokens):
            vectors[batch] = self._encoder.embed([token_ids[place] for place in batch])
            if on_progress is not None:
                on_progress(len(batch))
        return vectors

    def _cut(self, ids: list[int]) -> list[int]:
        """At most as many tokens as the model takes, its end token last."""
        return ids if len(ids) <= self.spec.max_tokens else [*ids[: self.spec.max_tokens - 1], ids[-1]]


class LazyEmbedder:
    """A model whose spec is known beforehand and that is loaded when something is first embedded or counted.

    Listing, deleting, backing up and searching by words then cost no loading.
    """

    def __init__(self, spec: EmbedderSpec, load: Callable[[], Embedder]) -> None:
        self.spec = spec
        self._load = load
        self._loaded: Embedder | None = None
        self._lock = threading.Lock()

    def load(self) -> Embedder:
        """The model itself; raises ModelError where it isn't what its spec says."""
        with self._lock:
            if self._loaded is None:
                loaded = self._load()
                if loaded.spec != self.spec:
                    raise ModelError(f"the embedding model is {loaded.spec} instead of {self.spec}")
                self._loaded = loaded
            return self._loaded

    def embed_queries(self, questions: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return self.load().embed_queries(questions)

    def embed_passages(
        self, passages: Sequence[str], on_progress: Callable[[int], None] | None = None
    ) -> Vectors:
        """See `Embedder`."""
        return self.load().embed_passages(passages, on_progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Embedder`."""
        return self.load().count_tokens(texts)


def load_embedder(
    name: str,
    home: Path,
    *,
    threads: int | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> Embedder:
    """ "bundled", which is loaded when it is first used, or a folder or hub name in the local cache.

    Raises ModelError where it can't be loaded or isn't a sentence-transformers model.
    """
    from index.weights import EMBEDDER, ensure_embedder

    if name == "bundled":
        sha256 = EMBEDDER.source.sha256
        spec = EmbedderSpec(EMBEDDER.title, sha256, 384, 512, "query: ", "passage: ", "mean")

        def load() -> Embedder:
            return _load_bundled(ensure_embedder(home, on_progress), spec, threads)

        return LazyEmbedder(spec, load)
    folder = Path(name).expanduser()
    return _load(str(folder) if folder.is_dir() else name, name, None, threads)


def _load_bundled(folder: Path, spec: EmbedderSpec, threads: int | None) -> Embedder:
    with tokenizer_in_background(folder) as loading:
        # Imports torch, which takes a second.
        from index.encoder import load_encoder

        _set_threads(threads)
        encoder = load_encoder(folder, compute_dtype())
        if encoder is None:
            raise ModelError(
                f"{folder} isn't the bundled embedding model; remove it and fetch the models anew"
            )
        tokenizer = loading.result()
    tokenizer.no_padding()
    tokenizer.no_truncation()
    give_back_memory()
    return EncoderEmbedder(encoder, tokenizer, spec)


def _set_threads(threads: int | None) -> None:
    """Torch and faiss each bring an OpenMP of their own, and both take all cores unless told."""
    if threads:
        import faiss
        import torch

        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)


def _load(path: str, model_id: str, sha256: str | None, threads: int | None) -> SentenceTransformerEmbedder:
    import transformers
    from sentence_transformers import SentenceTransformer

    _set_threads(threads)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(path, device="cpu", model_kwargs={"dtype": compute_dtype()})
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"the embedding model {model_id!r} can't be loaded ({error}); set VRAAGBAAK_EMBEDDER to 'bundled' "
            "or to the folder of a sentence-transformers model"
        ) from error
    prompts = model.prompts
    spec = EmbedderSpec(
        id=model_id,
        sha256=sha256 or _weights_sha256(model),
        dimension=int(model.get_embedding_dimension() or 0),
        max_tokens=int(model.max_seq_length or 512),
        query_prefix=prompts.get("query") or "",
        passage_prefix=prompts.get("document") or prompts.get("passage") or "",
        pooling=_pooling(model),
    )
    return SentenceTransformerEmbedder(model, spec)


def compute_dtype() -> "torch.dtype":
    """bfloat16 where the CPU multiplies in it, else float32 (in software it would be slower)."""
    import torch

    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def _pooling(model: "SentenceTransformer") -> str:
    modes = [getattr(module, "pooling_mode", None) for module in model]
    return ",".join(str(mode) for mode in modes if mode) or "none"


def _weights_sha256(model: "SentenceTransformer") -> str:
    """Of all parameters by name, so that it doesn't depend on how the files are laid out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().numpy().tobytes())
    return digest.hexdigest()
