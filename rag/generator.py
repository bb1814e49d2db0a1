"""The decoding loop over a causal language model, and how one is loaded.

::

    render ─▶ prefill (once, the format's fixed part kept) ─▶ next token ─▶ next token … ─▶ parse

Greedy, with the format's constraints as a mask on the logits. `generate` isn't used: it can't ask a format
what is allowed, and computes logits for more positions than the last.
"""

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.errors import ModelError
from rag.answers import Style
from rag.calibration import Calibration, ReaderCard, read_card
from rag.prompts import Prompt, PromptFormat, TokenCodec, format_named
from rag.reading import Reading, ReadingListener, ReadRequest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = "bundled"
_WORTH_KEEPING_TOKENS = 32
_KEPT_PREFIXES = 4
_ROWS = 8
_MARK = "\x1aMESSAGE\x1a"


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What one reading may cost: about 1 ms a prompt token and 35 ms a new one on two cores."""

    prompt_tokens: int = 1536
    new_tokens_short: int = 32
    new_tokens_full: int = 160

    def new_tokens(self, style: Style) -> int:
        """The most tokens that are written in a style."""
        return self.new_tokens_short if style is Style.SHORT else self.new_tokens_full


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
        token_id = self._tokenizer.get_vocab().get(token)
        if token_id is None:
            raise ModelError(f"the model's vocabulary has no token {token!r}, which its prompt format needs")
        return int(token_id)

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


@dataclass(slots=True)
class _Row:
    """One reading while it is written."""

    index: int
    request: ReadRequest
    prompt: Prompt
    generated: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    abstain_probability: float = 0.0


class CausalReader:
    """A `Reader` over any causal LM of transformers. Safe to use from several threads."""

    def __init__(
        self,
        model: "PreTrainedModel",
        codec: TokenCodec,
        prompt_format: PromptFormat,
        limits: ReaderLimits | None = None,
        *,
        reader_id: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        self._model: Any = model
        self._codec = codec
        self._format = prompt_format
        self._limits = limits or ReaderLimits()
        self._id = reader_id or str(model.config.name_or_path)
        self._prefixes: dict[tuple[int, ...], Any] = {}
        self.calibration = calibration
        _make_head_contiguous(model)

    @property
    def id(self) -> str:
        """Names the weights and the format."""
        return self._id

    @property
    def prompt_format(self) -> PromptFormat:
        """How requests are put to the model."""
        return self._format

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """See `Reader.read`."""
        import torch

        row = _Row(0, request, self._format.render(request, self._limits.prompt_tokens))
        with _inference():
            logits, cache = self._prefill_one(row.prompt)
            is_finished = self._advance(row, logits[0])
            while _goes_on(self._format, row, listener) and not is_finished:
                logits, cache = self._forward(torch.tensor([row.generated[-1:]]), None, cache)
                is_finished = self._advance(row, logits[0])
        return self._reading(row)

    def read_batch(
        self,
        requests: Sequence[ReadRequest],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Reading]:
        """See `Reader.read_batch`. Prompts of similar length share a batch of up to eight."""
        rows = [
            _Row(index, request, self._format.render(request, self._limits.prompt_tokens))
            for index, request in enumerate(requests)
        ]
        ordered = sorted(rows, key=lambda row: len(row.prompt.token_ids))
        done = 0
        for first in range(0, len(ordered), _ROWS):
            batch = ordered[first : first + _ROWS]
            with _inference():
                self._write_batch(batch)
            done += len(batch)
            if on_done:
                on_done(done)
        return [self._reading(row) for row in rows]

    def _write_batch(self, rows: list[_Row]) -> None:
        """Writes all rows to their end; those that have ended leave the batch at once."""
        import torch

        ids, mask = _left_padded([row.prompt.token_ids for row in rows])
        logits, cache = self._forward(ids, mask, self._new_cache())
        while True:
            going_on = [place for place, row in enumerate(rows) if not self._advance(row, logits[place])]
            if not going_on:
                return
            if len(going_on) < len(rows):
                kept = torch.tensor(going_on)
                cache.batch_select_indices(kept)
                mask = mask[kept]
                rows = [rows[place] for place in going_on]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits, cache = self._forward(torch.tensor([[row.generated[-1]] for row in rows]), mask, cache)

    def _advance(self, row: _Row, logits: "torch.Tensor") -> bool:
        """Takes the row's next token from logits of shape (vocabulary,); returns whether it is finished."""
        allowed = self._format.allowed(row.prompt, row.generated)
        if not row.generated and self._format.abstain_token_id is not None:
            token_id, log_probability = self._first_token(row, logits, allowed)
        else:
            token_id, log_probability = _best(logits, allowed)
        row.generated.append(token_id)
        row.log_probabilities.append(log_probability)
        is_full = len(row.generated) >= self._limits.new_tokens(row.request.style)
        return is_full or self._format.is_finished(row.prompt, row.generated)

    def _first_token(
        self, row: _Row, logits: "torch.Tensor", allowed: Sequence[int] | None
    ) -> tuple[int, float]:
        """The token that decides between answering and abstaining, by the calibrated threshold if any."""
        abstain = self._format.abstain_token_id
        if abstain is None or (allowed is not None and abstain not in allowed):
            return _best(logits, allowed)
        row.abstain_probability = math.exp(_log_probability(logits, abstain, allowed))
        threshold = self.calibration.abstain_threshold if self.calibration else None
        if threshold is None:
            return _best(logits, allowed)
        if row.abstain_probability >= threshold:
            return abstain, math.log(max(row.abstain_probability, 1e-12))
        return _best(logits, allowed, barred=abstain)

    def _prefill_one(self, prompt: Prompt) -> tuple["torch.Tensor", Any]:
        """Logits of shape (1, vocabulary) for the first new token, and the cache; no padding."""
        import torch

        fixed = prompt.token_ids[: prompt.fixed_tokens]
        if len(fixed) < _WORTH_KEEPING_TOKENS:
            return self._forward(torch.tensor([prompt.token_ids]), None, self._new_cache())
        cache = copy.deepcopy(self._prefix_cache(fixed))
        return self._forward(torch.tensor([prompt.token_ids[len(fixed) :]]), None, cache)

    def _prefix_cache(self, fixed: tuple[int, ...]) -> Any:
        """What the model computed for the fixed part of a prompt; never written to after it was made."""
        import torch

        kept = self._prefixes.get(fixed)
        if kept is None:
            _, kept = self._forward(torch.tensor([fixed]), None, self._new_cache())
            if len(self._prefixes) < _KEPT_PREFIXES:
                self._prefixes[fixed] = kept
        return kept

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        # With the config it makes a sliding layer where the model has one.
        return DynamicCache(config=self._model.config)

    def _forward(
        self, ids: "torch.Tensor", mask: "torch.Tensor | None", cache: Any
    ) -> tuple["torch.Tensor", Any]:
        """One pass over ids of shape (rows, new tokens); `mask` is (rows, all tokens), None without padding.

        Returns float32 logits of shape (rows, vocabulary) for the last position, and the cache.
        """
        positions = None
        if mask is not None:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1, :].float(), cache

    def _reading(self, row: _Row) -> Reading:
        claims = self._format.parse(row.prompt, row.generated)
        mean = sum(row.log_probabilities) / max(len(row.log_probabilities), 1)
        return Reading(
            claims=claims,
            passages=row.prompt.passages,
            abstain_probability=row.abstain_probability,
            answer_probability=math.exp(mean),
            prompt_tokens=len(row.prompt.token_ids),
            new_tokens=len(row.generated),
        )


def load_reader(
    generator: str = BUNDLED,
    *,
    home: Path,
    limits: ReaderLimits | None = None,
    threads: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> CausalReader:
    """The reader that the settings name.

    `generator` is "bundled", a folder, or a model's hub name (which may download it). `threads` of torch
    are left as they are where it is 0. `on_progress` is told how far the bundled weights are, when they
    have to be made first.

    Raises ModelError where the weights are missing or no causal LM, StorageError where the bundled ones
    can't be written.
    """
    if generator == BUNDLED:
        from index.weights import ensure_generator

        folder = ensure_generator(home, adapter=bundled_adapter(), on_progress=on_progress)
        return load_reader_folder(folder, limits=limits, threads=threads)
    folder = Path(generator).expanduser()
    return load_reader_folder(folder if folder.is_dir() else generator, limits=limits, threads=threads)


def bundled_adapter() -> Path | None:
    """The folder of the trained adapter that the project ships, None where it has none."""
    folder = Path(__file__).parent / "adapter"
    return folder if (folder / "adapter_model.safetensors").is_file() else None


def load_reader_folder(
    folder: str | Path,
    *,
    limits: ReaderLimits | None = None,
    threads: int = 0,
    dtype: str = "auto",
) -> CausalReader:
    """The reader in a transformers folder, or of a hub name. `dtype` "auto" is bfloat16 where the CPU
    computes in it, else float32.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if threads:
        torch.set_num_threads(threads)
    is_local = Path(folder).is_dir()
    if isinstance(folder, Path) and not is_local:
        raise ModelError(f"there is no model folder {folder}; check the setting 'generator'")
    chosen = _dtype(dtype)
    with _loading_errors(folder), _quiet_loading():
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=chosen, local_files_only=is_local
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=is_local)
    card = read_card(Path(folder)) if is_local else ReaderCard()
    codec = HuggingFaceCodec(tokenizer, _eos_ids(model, tokenizer))
    name = card.format or ("chat" if tokenizer.chat_template else "few-shot")
    return CausalReader(
        model.eval(),
        codec,
        format_named(name, codec),
        limits,
        reader_id=card.id or f"{Path(folder).name}+{name}",
        calibration=card.calibration,
    )


def _dtype(name: str) -> "torch.dtype":
    import torch

    if name != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
    return torch.bfloat16 if computes_in_bfloat16() else torch.float32


def computes_in_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively; elsewhere it is emulated, and slower than float32."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


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


@contextmanager
def _inference() -> Iterator[None]:
    import torch

    with torch.inference_mode():
        yield


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


def _best(
    logits: "torch.Tensor", allowed: Sequence[int] | None, barred: int | None = None
) -> tuple[int, float]:
    """The likeliest token and its log-probability among those allowed."""
    import torch

    if allowed is not None:
        candidates = [token for token in allowed if token != barred] or list(allowed)
        scores = logits[torch.tensor(candidates)]
        place = int(scores.argmax())
        return candidates[place], float(scores.log_softmax(dim=0)[place])
    if barred is not None:
        logits = logits.clone()
        logits[barred] = -torch.inf
    token_id = int(logits.argmax())
    return token_id, float(logits[token_id] - logits.logsumexp(dim=0))


def _log_probability(logits: "torch.Tensor", token_id: int, allowed: Sequence[int] | None) -> float:
    import torch

    among = logits if allowed is None else logits[torch.tensor(list(allowed))]
    return min(0.0, float(logits[token_id] - among.logsumexp(dim=0)))


def _goes_on(prompt_format: PromptFormat, row: _Row, listener: ReadingListener | None) -> bool:
    if listener is None:
        return True
    return listener.on_text(prompt_format.visible_text(row.prompt, row.generated))
