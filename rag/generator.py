"""The reading loop: a prompt is read, and tokens are written greedily under the format's constraints.

::

    render ─▶ begin (the prompt is read) ─▶ next token ─▶ next token … ─▶ parse

The model behind it is a `LanguageModel`: the bundled one (`rag.gemma`), or any of transformers'.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.document import UNDETERMINED
from corpus.errors import ModelError
from index.vocabulary import tokenizer_in_background
from rag.answers import Style
from rag.calibration import Calibration, ReaderCard, language_pair, read_card
from rag.language_model import LanguageModel, NextToken, ReversibleSession, Session
from rag.lookup import PromptLookup
from rag.prompts import Prompt, PromptFormat, TokenCodec, format_named
from rag.reading import Reading, ReadingListener, ReadRequest

if TYPE_CHECKING:
    import torch

BUNDLED = "bundled"
_ROWS = 8
_GUESSES = 3
"""With the token before them, as many rows as the product in 8 bits takes at the price of one."""


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What one reading may cost: about 0.4 ms a prompt token and 15 ms a new one on two cores."""

    prompt_tokens: int = 1536
    new_tokens_short: int = 32
    new_tokens_full: int = 160

    def new_tokens(self, style: Style) -> int:
        """The most tokens that are written in a style."""
        return self.new_tokens_short if style is Style.SHORT else self.new_tokens_full


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
    """A `Reader` over a language model. Safe to use from several threads."""

    def __init__(
        self,
        model: LanguageModel,
        codec: TokenCodec,
        prompt_format: PromptFormat,
        limits: ReaderLimits | None = None,
        *,
        reader_id: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        self._model = model
        self._codec = codec
        self._format = prompt_format
        self._limits = limits or ReaderLimits()
        self._id = reader_id or model.name
        self.calibration = calibration

    @property
    def id(self) -> str:
        """Names the weights and the format."""
        return self._id

    @property
    def prompt_format(self) -> PromptFormat:
        """How requests are put to the model."""
        return self._format

    def with_format(self, make: Callable[[TokenCodec], PromptFormat]) -> "CausalReader":
        """The same model and tokenizer behind another format, without a calibration."""
        other = make(self._codec)
        return CausalReader(
            self._model, self._codec, other, self._limits, reader_id=f"{self._id}+{other.name}"
        )

    def read(self, request: ReadRequest, listener: ReadingListener | None = None) -> Reading:
        """See `Reader.read`."""
        row = _Row(0, request, self._format.render(request, self._limits.prompt_tokens))
        with _inference():
            self._write_one(row, listener)
        return self._reading(row)

    def _write_one(self, row: _Row, listener: ReadingListener | None) -> None:
        session = self._model.begin([row.prompt], self._limits.new_tokens(row.request.style) + _GUESSES)
        if isinstance(session, ReversibleSession):
            self._write_guessing(row, session, listener)
            return
        (place,) = session.first()
        while self._take(row, place, listener):
            ((place,),) = session.extend([row.generated[-1:]])

    def _take(self, row: _Row, place: NextToken, listener: ReadingListener | None) -> bool:
        """Takes the row's next token and tells of it; returns whether there is more to write."""
        is_finished = self._advance(row, place)
        return _goes_on(self._format, row, listener) and not is_finished

    def _write_guessing(
        self, row: _Row, session: ReversibleSession, listener: ReadingListener | None
    ) -> None:
        """Reads a few guessed tokens with each that was written, and keeps those that it would have written."""
        lookup = PromptLookup(row.prompt.token_ids)
        places, guesses = session.first(), list[int]()
        while True:
            for number, place in enumerate(places):
                if not self._take(row, place, listener):
                    return
                if number < len(guesses) and row.generated[-1] != guesses[number]:
                    session.cut_back(len(guesses) - number)
                    break
            guesses = self._guess(row, lookup)
            places = session.extend([[row.generated[-1], *guesses]])[0]

    def _guess(self, row: _Row, lookup: PromptLookup) -> list[int]:
        """Tokens that the model will probably write next; a marker's last part is known for sure."""
        allowed = self._format.allowed(row.prompt, row.generated)
        if allowed is not None and len(allowed) == 1:
            return list(allowed)
        guesses = lookup.guess(row.generated, _GUESSES)
        return guesses if allowed is None or guesses[:1] and guesses[0] in allowed else []

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
        if len(rows) == 1:
            self._write_one(rows[0], None)
            return
        room = max(self._limits.new_tokens(row.request.style) for row in rows)
        session: Session = self._model.begin([row.prompt for row in rows], room)
        places = session.first()
        while True:
            going_on = [number for number, row in enumerate(rows) if not self._advance(row, places[number])]
            if not going_on:
                return
            if len(going_on) < len(rows):
                session.keep_rows(going_on)
                rows = [rows[number] for number in going_on]
            places = [place for (place,) in session.extend([row.generated[-1:] for row in rows])]

    def _advance(self, row: _Row, place: NextToken) -> bool:
        """Takes the row's next token; returns whether it is finished."""
        allowed = self._format.allowed(row.prompt, row.generated)
        if not row.generated and self._format.abstain_token_id is not None:
            token_id, log_probability = self._first_token(row, place, allowed)
        else:
            token_id, log_probability = place.best(allowed)
        row.generated.append(token_id)
        row.log_probabilities.append(log_probability)
        is_full = len(row.generated) >= self._limits.new_tokens(row.request.style)
        return is_full or self._format.is_finished(row.prompt, row.generated)

    def _first_token(self, row: _Row, place: NextToken, allowed: Sequence[int] | None) -> tuple[int, float]:
        """The token that decides between answering and abstaining, by the calibrated threshold if any."""
        abstain = self._format.abstain_token_id
        if abstain is None or (allowed is not None and abstain not in allowed):
            return place.best(allowed)
        row.abstain_probability = math.exp(place.log_probability(abstain, allowed))
        if self.calibration is None or self.calibration.abstain_threshold is None:
            return place.best(allowed)
        answering = place.best(allowed, barred=abstain)
        if self.calibration.abstain_logits:
            pair = self._language_pair(row, answering[0])
            row.abstain_probability = self.calibration.abstaining(row.abstain_probability, pair)
        if row.abstain_probability >= self.calibration.abstain_threshold:
            return abstain, math.log(max(row.abstain_probability, 1e-12))
        return answering

    def _language_pair(self, row: _Row, number_id: int) -> str:
        """The languages of the question and of the passage whose number this token is."""
        number = self._codec.decode([number_id]).strip()
        language = next(
            (each.language for each in row.prompt.passages if str(each.number) == number), UNDETERMINED
        )
        return language_pair(row.request.language, language)

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
    plain: bool = False,
) -> CausalReader:
    """The reader in a transformers folder, or of a hub name. `dtype` "auto" is bfloat16 where the CPU
    computes in it, else float32. `plain` takes transformers' own forward pass where the faster one of
    `rag.gemma` could be used, for comparing the two.
    """
    is_local = Path(folder).is_dir()
    if isinstance(folder, Path) and not is_local:
        raise ModelError(f"there is no model folder {folder}; check the setting 'generator'")
    card = read_card(Path(folder)) if is_local else ReaderCard()
    model, codec, name = _load(folder, card.format, dtype, threads, plain)
    return CausalReader(
        model,
        codec,
        format_named(name, codec),
        limits,
        reader_id=card.id or f"{Path(folder).name}+{name}",
        calibration=card.calibration,
    )


def _load(
    folder: str | Path, named_format: str, dtype: str, threads: int, plain: bool
) -> tuple[LanguageModel, TokenCodec, str]:
    """Model, tokenizer and the name of the format: the card's, or what the tokenizer has a template for."""
    from rag.gemma import read_shape
    from rag.gemma_model import has_chat_template, load_gemma

    shape = None if plain else read_shape(Path(folder))
    if shape is not None and named_format != "chat" and not has_chat_template(Path(folder)):
        # Begun before torch is imported, which takes a second.
        with tokenizer_in_background(Path(folder)) as tokenizer:
            gemma, own_codec = load_gemma(Path(folder), shape, _set_up_torch(dtype, threads), tokenizer)
        return gemma, own_codec, named_format or "few-shot"
    from rag.transformers_model import load_transformers

    model, codec, has_template = load_transformers(folder, _set_up_torch(dtype, threads))
    return model, codec, named_format or ("chat" if has_template else "few-shot")


def _set_up_torch(dtype: str, threads: int) -> "torch.dtype":
    """Imports it, sets its threads, and says what to compute in."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return _dtype(dtype)


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


@contextmanager
def _inference() -> Iterator[None]:
    import torch

    with torch.inference_mode():
        yield


def _goes_on(prompt_format: PromptFormat, row: _Row, listener: ReadingListener | None) -> bool:
    if listener is None:
        return True
    return listener.on_text(prompt_format.visible_text(row.prompt, row.generated))
