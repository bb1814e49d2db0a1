"""The bundled reader as a `LanguageModel`: `rag.gemma`'s decoder, loaded without transformers."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.errors import ModelError
from index.memory import give_back_memory
from index.vocabulary import list_writable, read_writable
from rag.gemma import GemmaDecoder, GemmaShape, Head, KeyValues, join, load_decoder
from rag.language_model import NextToken
from rag.prompts import Prompt

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_WORTH_KEEPING_TOKENS = 32
_KEPT_PREFIXES = 4


class TokenizerCodec:
    """A `TokenCodec` over a tokenizer's own file; safe to use from several threads."""

    def __init__(self, tokenizer: "Tokenizer", bos_id: int | None, eos_ids: frozenset[int]) -> None:
        # Text that looks like a special token stays text.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._bos_id, self._eos_ids = bos_id, eos_ids

    @property
    def bos_id(self) -> int | None:
        """See `TokenCodec`."""
        return self._bos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """See `TokenCodec`."""
        return self._eos_ids

    def encode(self, text: str) -> list[int]:
        """See `TokenCodec`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `TokenCodec`."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_id(self, token: str) -> int:
        """See `TokenCodec`."""
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise ModelError(f"the model's vocabulary has no token {token!r}, which its prompt format needs")
        return int(token_id)

    def piece_id(self, text: str) -> int | None:
        """See `TokenCodec`; a space is "▁" in this vocabulary."""
        token_id: int | None = self._tokenizer.token_to_id(text.replace(" ", "▁"))
        return token_id

    def chat_frame(self) -> tuple[list[int], list[int]] | None:
        """See `TokenCodec`; a model with a chat template isn't loaded this way."""
        return None


class GemmaLogits:
    """`Logits` of hidden states (M, hidden); the output layer runs once, when it is first needed."""

    def __init__(self, head: Head, hidden: "torch.Tensor") -> None:
        self._head, self._hidden = head, hidden
        self._every: torch.Tensor | None = None

    def every(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """See `Logits`."""
        if self._every is None:
            self._every = self._head.logits(self._hidden)
        return self._head.ids, self._every

    def among(self, place: int, token_ids: Sequence[int]) -> "torch.Tensor":
        """See `Logits`."""
        return self._head.some_logits(self._hidden[place : place + 1], token_ids)[0]


class GemmaSession:
    """A `ReversibleSession` over one cache for all rows."""

    def __init__(
        self, decoder: GemmaDecoder, head: Head, cache: KeyValues, last_hidden: "torch.Tensor"
    ) -> None:
        self._decoder, self._head, self._cache = decoder, head, cache
        self._last = last_hidden

    def first(self) -> list[NextToken]:
        """See `Session`."""
        logits = GemmaLogits(self._head, self._last)
        return [NextToken(logits, row) for row in range(len(self._last))]

    def extend(self, tokens: Sequence[Sequence[int]]) -> list[list[NextToken]]:
        """See `Session`."""
        import torch

        hidden = self._decoder.forward(torch.tensor([list(row) for row in tokens]), self._cache)
        rows, count, size = hidden.shape
        logits = GemmaLogits(self._head, hidden.reshape(rows * count, size))
        return [[NextToken(logits, row * count + place) for place in range(count)] for row in range(rows)]

    def cut_back(self, count: int) -> None:
        """See `ReversibleSession`."""
        self._cache.lengths = [length - count for length in self._cache.lengths]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """See `Session`."""
        self._cache = self._cache.select(rows)


class GemmaModel:
    """The decoder with its output layer, and the computed beginnings that many prompts share."""

    def __init__(
        self, decoder: GemmaDecoder, writable: "Sequence[int] | NDArray[np.int32]", name: str
    ) -> None:
        import torch

        self._decoder = decoder
        self._head = Head(decoder.output, torch.as_tensor(writable, dtype=torch.long))
        self._name = name
        self._prefixes: dict[tuple[int, ...], KeyValues] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """See `LanguageModel`."""
        return self._name

    @property
    def dtype(self) -> "torch.dtype":
        """What the weights are held and multiplied in."""
        return self._decoder.dtype

    def begin(self, prompts: Sequence[Prompt], new_tokens: int) -> GemmaSession:
        """See `LanguageModel`. Each prompt is read by itself: reading fills the cores with one as with many."""
        import torch

        head = self._head.with_tokens([token for prompt in prompts for token in prompt.token_ids])
        caches, hidden = [], []
        for prompt in prompts:
            room = len(prompt.token_ids) + (new_tokens if len(prompts) == 1 else 0)
            cache = self._decoder.new_cache(room)
            known = self._copy_beginning(prompt, cache)
            states = self._decoder.forward(torch.tensor([prompt.token_ids[known:]]), cache, last_only=True)
            caches.append(cache)
            hidden.append(states[0])
        if len(prompts) > 1:
            longest = max(len(prompt.token_ids) for prompt in prompts)
            caches = [join(caches, longest + new_tokens)]
        return GemmaSession(self._decoder, head, caches[0], torch.cat(hidden))

    def _copy_beginning(self, prompt: Prompt, cache: KeyValues) -> int:
        """Fills the cache with what was computed for a prompt's fixed part; how many tokens that is."""
        fixed = prompt.token_ids[: prompt.fixed_tokens]
        if len(fixed) < _WORTH_KEEPING_TOKENS or len(fixed) == len(prompt.token_ids):
            return 0
        kept = self._beginning(fixed)
        count = len(fixed)
        cache.keys[:, :, :count] = kept.keys
        cache.values[:, :, :count] = kept.values
        cache.lengths = [count]
        return count

    def _beginning(self, fixed: tuple[int, ...]) -> KeyValues:
        import torch

        with self._lock:
            kept = self._prefixes.get(fixed)
        if kept is None:
            kept = self._decoder.new_cache(len(fixed))
            self._decoder.forward(torch.tensor([fixed]), kept)
            with self._lock:
                if len(self._prefixes) < _KEPT_PREFIXES:
                    self._prefixes[fixed] = kept
        return kept


def load_gemma(
    folder: Path, shape: GemmaShape, dtype: "torch.dtype", tokenizer: "Future[Tokenizer]"
) -> tuple[GemmaModel, TokenizerCodec]:
    """The model and its tokenizer, which is loaded elsewhere, in a transformers folder without a chat template.

    Raises ModelError.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the generator {folder} can't be loaded: {error}; fetch the models anew") from error
    decoder = load_decoder(folder, shape, dtype)
    writable = read_writable(folder)
    if writable is None:
        writable = list_writable(tokenizer.result())
    if len(writable) == 0 or writable[-1] >= len(decoder.output):
        raise ModelError(f"the tokens of {folder} aren't those of its weights; fetch the models anew")
    model = GemmaModel(decoder, writable, folder.name)
    codec = TokenizerCodec(tokenizer.result(), config.get("bos_token_id"), eos_ids(folder, config))
    give_back_memory()
    return model, codec


def has_chat_template(folder: Path) -> bool:
    """Whether a folder's tokenizer puts messages in a frame of its own."""
    path = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file():
        return True
    return path.is_file() and bool(json.loads(path.read_text("utf-8")).get("chat_template"))


def eos_ids(folder: Path, config: dict[str, Any]) -> frozenset[int]:
    """The ids that end a sequence, of the model's and of its generation settings."""
    path = folder / "generation_config.json"
    generation = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    named = [config.get("eos_token_id"), generation.get("eos_token_id")]
    flat = [token for value in named for token in (value if isinstance(value, list) else [value])]
    return frozenset(int(token) for token in flat if token is not None)
