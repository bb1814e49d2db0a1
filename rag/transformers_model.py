"""Any causal language model of transformers as a `LanguageModel`; the bundled one goes through `rag.gemma`."""

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.errors import ModelError
from rag.language_model import NextToken
from rag.prompts import Prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WORTH_KEEPING_TOKENS = 32
_KEPT_PREFIXES = 4
_MARK = "\x1aMESSAGE\x1a"


class HuggingFaceCodec:
    """A `TokenCodec` over a transformers tokenizer; safe to use from several threads.

    A fast tokenizer changes its own settings during a call and fails when two threads meet in it, hence the
    lock.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", eos_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._lock = threading.Lock()

    @property
    def bos_id(self) -> int | None:
        """See `TokenCodec`."""
        bos_id: int | None = self._tokenizer.bos_token_id
        return bos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """See `TokenCodec`."""
        return self._eos_ids

    def encode(self, text: str) -> list[int]:
        """See `TokenCodec`."""
        return self._encode(text, split_special_tokens=True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `TokenCodec`."""
        with self._lock:
            return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_id(self, token: str) -> int:
        """See `TokenCodec`."""
        # get_vocab() copies the whole vocabulary: an eighth of a second with 262,144 tokens. An unknown token
        # may come back as the unknown one, so the way back is checked.
        with self._lock:
            token_id = self._tokenizer.convert_tokens_to_ids(token)
            if isinstance(token_id, int) and self._tokenizer.convert_ids_to_tokens(token_id) == token:
                return token_id
        raise ModelError(f"the model's vocabulary has no token {token!r}, which its prompt format needs")

    def piece_id(self, text: str) -> int | None:
        """See `TokenCodec`."""
        ids = self.encode(text)
        return ids[0] if len(ids) == 1 and self.decode(ids) == text else None

    def chat_frame(self) -> tuple[list[int], list[int]] | None:
        """See `TokenCodec`."""
        if not self._tokenizer.chat_template:
            return None
        message = [{"role": "user", "content": _MARK}]
        text = str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        before, mark, after = text.partition(_MARK)
        if not mark:
            raise ModelError(
                "the model's chat template doesn't put the user's message in the prompt unchanged"
            )
        return self._encode(before, split_special_tokens=False), self._encode(
            after, split_special_tokens=False
        )

    def _encode(self, text: str, *, split_special_tokens: bool) -> list[int]:
        with self._lock:
            ids = self._tokenizer.encode(
                text,
                add_special_tokens=False,
                split_special_tokens=split_special_tokens,
            )
        return [int(token_id) for token_id in ids]


class TransformersLogits:
    """`Logits` of rows that were computed over the whole vocabulary."""

    def __init__(self, logits: "torch.Tensor") -> None:
        self._logits = logits

    def every(self) -> "tuple[None, torch.Tensor]":
        """See `Logits`."""
        return None, self._logits

    def among(self, place: int, token_ids: Sequence[int]) -> "torch.Tensor":
        """See `Logits`."""
        import torch

        return self._logits[place][torch.tensor(list(token_ids))]


class TransformersSession:
    """A `Session` over transformers' own cache, rows padded on the left; its sliding layers can't forget."""

    def __init__(self, model: Any, logits: "torch.Tensor", cache: Any, mask: "torch.Tensor | None") -> None:
        self._model, self._logits, self._cache, self._mask = model, logits, cache, mask

    def first(self) -> list[NextToken]:
        """See `Session`."""
        logits = TransformersLogits(self._logits)
        return [NextToken(logits, row) for row in range(len(self._logits))]

    def extend(self, tokens: Sequence[Sequence[int]]) -> list[list[NextToken]]:
        """See `Session`; one token a row."""
        import torch

        ids = torch.tensor([list(row) for row in tokens])
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(ids.shape)], dim=1)
        logits = TransformersLogits(_forward(self._model, ids, self._mask, self._cache))
        return [[NextToken(logits, row)] for row in range(len(ids))]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """See `Session`."""
        import torch

        kept = torch.tensor(list(rows))
        self._cache.batch_select_indices(kept)
        if self._mask is not None:
            self._mask = self._mask[kept]


class TransformersModel:
    """A `LanguageModel` over a model that transformers loaded."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model: Any = model
        self._prefixes: dict[tuple[int, ...], Any] = {}
        _make_head_contiguous(model)

    @property
    def name(self) -> str:
        """See `LanguageModel`."""
        return str(self._model.config.name_or_path)

    def begin(self, prompts: Sequence[Prompt], new_tokens: int) -> TransformersSession:
        """See `LanguageModel`; the cache grows by itself."""
        if len(prompts) == 1:
            logits, cache = self._read_one(prompts[0])
            return TransformersSession(self._model, logits, cache, None)
        ids, mask = _left_padded([prompt.token_ids for prompt in prompts])
        cache = self._new_cache()
        return TransformersSession(self._model, _forward(self._model, ids, mask, cache), cache, mask)

    def _read_one(self, prompt: Prompt) -> tuple["torch.Tensor", Any]:
        """Logits of shape (1, vocabulary) for the first new token, and the cache; no padding."""
        import torch

        fixed = prompt.token_ids[: prompt.fixed_tokens]
        if len(fixed) < _WORTH_KEEPING_TOKENS:
            cache = self._new_cache()
            return _forward(self._model, torch.tensor([prompt.token_ids]), None, cache), cache
        cache = copy.deepcopy(self._prefix_cache(fixed))
        return _forward(self._model, torch.tensor([prompt.token_ids[len(fixed) :]]), None, cache), cache

    def _prefix_cache(self, fixed: tuple[int, ...]) -> Any:
        """What the model computed for the fixed part of a prompt; never written to after it was made."""
        import torch

        kept = self._prefixes.get(fixed)
        if kept is None:
            kept = self._new_cache()
            _forward(self._model, torch.tensor([fixed]), None, kept)
            if len(self._prefixes) < _KEPT_PREFIXES:
                self._prefixes[fixed] = kept
        return kept

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        # With the config it makes a sliding layer where the model has one.
        return DynamicCache(config=self._model.config)


def _forward(model: Any, ids: "torch.Tensor", mask: "torch.Tensor | None", cache: Any) -> "torch.Tensor":
    """One pass over ids of shape (rows, new tokens); `mask` is (rows, all tokens), None without padding.

    Returns float32 logits of shape (rows, vocabulary) for the last position.
    """
    positions = None
    if mask is not None:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        cache=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[:, -1, :].float()
    return logits


def load_transformers(
    folder: str | Path, dtype: "torch.dtype"
) -> tuple[TransformersModel, HuggingFaceCodec, bool]:
    """The model in a folder or of a hub name, its tokenizer, and whether that has a chat template.

    Raises ModelError.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    is_local = Path(folder).is_dir()
    with _loading_errors(folder), _quiet_loading():
        model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=is_local)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=is_local)
    codec = HuggingFaceCodec(tokenizer, _eos_ids(model, tokenizer))
    return TransformersModel(model.eval()), codec, bool(tokenizer.chat_template)


def _eos_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """An instruct model ends its turn with another token than its sequence; generation_config names both."""
    generation = getattr(model, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


@contextmanager
def _loading_errors(folder: str | Path) -> Iterator[None]:
    """transformers, safetensors and tokenizers each raise their own kinds of error."""
    from safetensors import SafetensorError

    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        SafetensorError,
        ImportError,
    ) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ModelError(
            f"the generator {folder} can't be loaded: {reason}; check the setting 'generator'"
        ) from error


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without transformers' own progress bar, which would end up in a script's output."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _make_head_contiguous(model: Any) -> None:
    """The last positions of a batch aren't contiguous, and the matrix product is then many times slower."""
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0].contiguous(), *inputs[1:])
    )


def _left_padded(
    rows: Sequence[Sequence[int]],
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Token ids and their mask, both of shape (rows, longest row); padding (0) on the left."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row)
        mask[place, width - len(row) :] = 1
    return ids, mask
