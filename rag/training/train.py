"""The training loop: a stream of contexts, two to a step, for a given time; resumable at any checkpoint.

The budget is time and not steps, since the same run must end in time on a busy machine as well: the learning
rate's cosine goes by the share of the budget that was used, counted over all resumptions.
"""

import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.prompts import TokenCodec
from rag.training.codec import folder_codec
from rag.training.contexts import (
    OWN,
    PAIRS,
    POLICY,
    SQUAD,
    WRITTEN,
    Context,
    DrawConfig,
    Drawer,
    endless,
)
from rag.training.lora import (
    LoraShape,
    MasterAdamW,
    Vocabulary,
    adapter_tensors,
    load_trainable,
    pack_loss,
)
from rag.training.orders import read_orders, with_order
from rag.training.packing import Pack, pack
from rag.training.similar import passage_vectors, question_vectors
from rag.training.sources import Kind, read_sources
from rag.training.validate import validate, validation_packs

if TYPE_CHECKING:
    from rag.training.decoder import MergedDecoder

CHECKPOINT = "checkpoint.pt"
ADAPTER = "adapter.safetensors"
LOG = "log.jsonl"
_CONFIGS: dict[Kind, DrawConfig] = {
    Kind.PAIRS: PAIRS,
    Kind.WRITTEN: WRITTEN,
    Kind.OWN: OWN,
    Kind.SQUAD: SQUAD,
    Kind.POLICY: POLICY,
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A run. `mixture` says how often a context of each kind is drawn, `order_share` how many of them
    hold an order; times are seconds of training.

    Every `validate_every`th checkpoint is validated, and the last. `start_from` is an exported adapter to go
    on from where the run has no checkpoint of its own.
    """

    base: Path
    embedder: Path
    shared: Path
    run: Path
    budget_s: float
    seed: int = 1
    rank: int = 32
    alpha: int = 64
    peak_rate: float = 4e-4
    floor: float = 0.04
    warmup_s: float = 90.0
    packs_a_step: int = 2
    max_tokens: int = 1500
    checkpoint_s: float = 480.0
    validate_every: int = 4
    drawn_vocabulary: int = 40_000
    threads: int = 2
    citing_last: bool = False
    order_share: float = 0.15
    start_from: Path | None = None
    dropout: float = 0.0
    mixture: dict[str, float] = field(
        default_factory=lambda: {
            "pairs": 0.28,
            "written": 0.28,
            "own": 0.14,
            "squad2": 0.25,
            "policyqa": 0.05,
        }
    )


def with_share(mixture: Mapping[str, float], name: str, share: float) -> dict[str, float]:
    """The mixture with that share of one kind; the others keep their proportions."""
    rest = sum(value for kind, value in mixture.items() if kind != name)
    return {kind: share if kind == name else value * (1 - share) / rest for kind, value in mixture.items()}


@dataclass(slots=True)
class Position:
    """Where a run stands; `places` are (epoch, position) of each kind's stream."""

    step: int = 0
    trained_s: float = 0.0
    packs: int = 0
    questions: int = 0
    tokens: int = 0
    places: dict[str, tuple[int, int]] = field(default_factory=dict)


class ContextStream:
    """Contexts of all kinds, mixed; sources are read again at each epoch of a kind, so new files count."""

    def __init__(self, config: TrainConfig, places: dict[str, tuple[int, int]]) -> None:
        self._config = config
        self.places = places
        self._orders = read_orders()
        self._streams = {kind: self._stream(kind) for kind in Kind if config.mixture.get(kind.value)}

    def _stream(self, kind: Kind) -> Iterator[tuple[int, int, Context]]:
        epoch, skip = self.places.get(kind.value, (0, 0))

        def draw(number: int) -> Iterator[Context]:
            sources = read_sources(self._config.shared)
            config = self._config
            vectors = passage_vectors(sources, config.embedder, config.run / "vectors.npz")
            questions = question_vectors(sources, config.embedder, config.run / "vectors-questions.npz")
            return Drawer(sources, vectors, config.seed, questions).epoch(number, _CONFIGS[kind])

        return endless(draw, epoch, skip)

    def packs(self, number: int, codec: TokenCodec) -> list[Pack]:
        """The packs of one step, of which the first is the run's `number`th."""
        config = self._config
        contexts = [self._next(number + place) for place in range(config.packs_a_step)]
        return [pack(context, codec, config.max_tokens, config.citing_last) for context in contexts]

    def _next(self, number: int) -> Context:
        rng = random.Random(f"{self._config.seed}/{number}")
        kinds = list(self._streams)
        kind = rng.choices(kinds, [self._config.mixture[k.value] for k in kinds])[0]
        epoch, position, context = next(self._streams[kind])
        self.places[kind.value] = (epoch, position)
        if rng.random() < self._config.order_share:
            return with_order(context, self._orders, rng)
        return context


def learning_rate(trained_s: float, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine from the peak to `floor` of it at the end of the budget."""
    if trained_s < config.warmup_s:
        return config.peak_rate * (trained_s + 1.0) / (config.warmup_s + 1.0)
    done = min(1.0, (trained_s - config.warmup_s) / max(1.0, config.budget_s - config.warmup_s))
    return config.peak_rate * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * done)))


def train(config: TrainConfig) -> Position:
    """Trains until the budget is used, from the run folder's checkpoint where there is one."""
    import torch

    torch.set_num_threads(config.threads)
    config.run.mkdir(parents=True, exist_ok=True)
    codec = folder_codec(config.base)
    shape = LoraShape(config.rank, config.alpha)
    model = load_trainable(config.base, shape, config.seed, config.start_from, config.dropout)
    optimizer = MasterAdamW(model.parameters())
    position = _resume(config, optimizer)
    stream = ContextStream(config, position.places)
    checks = validation_packs(config, codec)
    vocabulary = Vocabulary(model.config.vocab_size, config.drawn_vocabulary, config.seed + position.step)
    settings = {name: str(value) for name, value in asdict(config).items()}
    _log(config.run, {"event": "start", **settings, "step": position.step})
    since_checkpoint, checkpoints, recent = 0.0, 0, []
    model.train()
    decoder = _decoder(model, shape, config)
    while position.trained_s < config.budget_s:
        started = time.monotonic()
        packs = stream.packs(position.packs, codec)
        rate = learning_rate(position.trained_s, config)
        recent.append(_step(model, packs, optimizer, vocabulary, rate, decoder))
        _advance(position, packs, time.monotonic() - started)
        since_checkpoint += time.monotonic() - started
        if position.step % 10 == 0:
            mean = sum(recent) / len(recent)
            _log(config.run, {"event": "step", **_figures(position), "loss": mean, "rate": rate})
            recent = []
        if since_checkpoint >= config.checkpoint_s:
            _save(config, model, optimizer, position)
            since_checkpoint, checkpoints = 0.0, checkpoints + 1
            if checkpoints % config.validate_every == 0:
                _log(config.run, {"event": "validation", **_figures(position), **validate(model, checks)})
    _save(config, model, optimizer, position)
    _log(config.run, {"event": "end", **_figures(position), **validate(model, checks)})
    return position


def _decoder(model: Any, shape: LoraShape, config: TrainConfig) -> "MergedDecoder | None":
    """The quicker decoder; None with dropout, which leaves out an adapter's inputs and not the weights'."""
    from rag.training.decoder import MergedDecoder

    return None if config.dropout else MergedDecoder(model, shape)


def _step(
    model: Any,
    packs: list[Pack],
    optimizer: MasterAdamW,
    vocabulary: Vocabulary,
    rate: float,
    decoder: "MergedDecoder | None",
) -> float:
    window = int(model.config.sliding_window)
    total = 0.0
    for packed in packs:
        loss = pack_loss(model, packed, window, vocabulary, decoder)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    optimizer.step(rate, 1.0 / len(packs))
    if decoder is not None:
        decoder.refresh()
    return total / len(packs)


def _advance(position: Position, packs: list[Pack], seconds: float) -> None:
    position.step += 1
    position.trained_s += seconds
    position.packs += len(packs)
    position.questions += sum(len(packed.blocks) for packed in packs)
    position.tokens += sum(packed.length for packed in packs)


def _figures(position: Position) -> dict[str, Any]:
    return {**asdict(position), "trained_s": round(position.trained_s, 1)}


def _save(config: TrainConfig, model: Any, optimizer: MasterAdamW, position: Position) -> None:
    """Written beside and renamed, so that a checkpoint is whole or absent."""
    import torch
    from safetensors.torch import save_file

    beside = config.run / (CHECKPOINT + ".part")
    torch.save({"optimizer": optimizer.state(), "position": asdict(position)}, beside)
    beside.replace(config.run / CHECKPOINT)
    beside = config.run / (ADAPTER + ".part")
    save_file(adapter_tensors(model), beside)
    beside.replace(config.run / ADAPTER)


def _resume(config: TrainConfig, optimizer: MasterAdamW) -> Position:
    import torch

    path = config.run / CHECKPOINT
    if not path.exists():
        return Position()
    saved = torch.load(path, weights_only=True, map_location="cpu")
    optimizer.load(saved["optimizer"])
    return Position(**saved["position"])


def _log(run: Path, record: dict[str, Any]) -> None:
    with (run / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"at": time.strftime("%H:%M:%S"), **record}) + "\n")
