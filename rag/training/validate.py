"""Figures on fixed dev questions while training goes on: forward passes only, packed like training."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eval.metrics import roc_auc
from rag.prompts import TokenCodec
from rag.reader_format import ABSTAIN_TOKEN, MAX_PASSAGES
from rag.training.contexts import PAIRS, SQUAD, Context, DrawConfig, Drawer
from rag.training.lora import target_logits
from rag.training.packing import Pack, pack, to_tensors
from rag.training.similar import passage_vectors
from rag.training.sources import Kind, Source, read_cases, read_sources

if TYPE_CHECKING:
    import torch

QUESTIONS_A_SET = 60


class ValidationConfig(Protocol):
    """What is needed to draw the fixed questions."""

    @property
    def shared(self) -> Path: ...
    @property
    def embedder(self) -> Path: ...
    @property
    def run(self) -> Path: ...
    @property
    def seed(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def citing_last(self) -> bool: ...


class Checks:
    """Packs of each set, and the token ids between which the first token decides."""

    def __init__(self, packs: dict[str, list[Pack]], codec: TokenCodec) -> None:
        self.packs = packs
        self.abstain_id = codec.token_id(ABSTAIN_TOKEN)
        self.digit_ids = [codec.encode(str(number))[0] for number in range(1, MAX_PASSAGES + 1)]


def validation_packs(config: ValidationConfig, codec: TokenCodec) -> Checks:
    """A fixed sample of `pairs.dev` and `squad2.dev`; the same for every run with the same seed."""
    pairs = read_sources(config.shared, split="dev")
    squad = read_cases(
        config.shared / "eval" / "squad2.dev.jsonl",
        config.shared / "corpora",
        Kind.SQUAD,
    )
    drawn = {
        "pairs": _draw(pairs, config, PAIRS),
        "squad2": _draw(squad, config, SQUAD),
    }
    return Checks(
        {n: [pack(c, codec, config.max_tokens, config.citing_last) for c in cs] for n, cs in drawn.items()},
        codec,
    )


def _draw(sources: list[Source], config: ValidationConfig, how: DrawConfig) -> list[Context]:
    vectors = passage_vectors(sources, config.embedder, config.run / "vectors-dev.npz")
    found: list[Context] = []
    for context in Drawer(sources, vectors, config.seed).epoch(0, how):
        found.append(context)
        if sum(len(c.questions) for c in found) >= QUESTIONS_A_SET:
            break
    random.Random(config.seed).shuffle(found)
    return found


def validate(model: Any, checks: Checks) -> dict[str, float]:
    """By set: mean loss of a target token, and of the first token the share of right decisions between
    answering and abstaining, the area under their ROC curve and the share of right passages.
    """
    import torch

    figures: dict[str, float] = {}
    model.eval()
    with torch.inference_mode():
        for name, packs in checks.packs.items():
            losses, abstains, gold_abstains, right = [], [], [], []
            for packed in packs:
                loss, first, labels = _read(model, packed)
                losses.append(loss)
                for logits, label in zip(first, labels, strict=True):
                    abstain, passage = _decide(logits, checks)
                    abstains.append(abstain)
                    gold_abstains.append(label == checks.abstain_id)
                    if label != checks.abstain_id:
                        right.append(passage == label)
            figures |= _summary(name, losses, abstains, gold_abstains, right)
    model.train()
    return figures


def _read(model: Any, packed: Pack) -> "tuple[float, torch.Tensor, list[int]]":
    import torch

    tensors = to_tensors(packed, int(model.config.sliding_window)).to(model.device)
    logits = target_logits(model, tensors)
    losses = torch.nn.functional.cross_entropy(logits, tensors.labels, reduction="none")
    loss = losses[tensors.weights > 0].mean()
    return float(loss), logits[tensors.firsts], tensors.labels[tensors.firsts].tolist()


def _decide(logits: "torch.Tensor", checks: Checks) -> tuple[float, int]:
    """The probability of abstaining among the abstain token and the digits, and the likeliest digit."""
    among = logits[[checks.abstain_id, *checks.digit_ids]].softmax(-1)
    return float(among[0]), checks.digit_ids[int(among[1:].argmax())]


def _summary(
    name: str,
    losses: Sequence[float],
    abstains: Sequence[float],
    gold: Sequence[bool],
    right: Sequence[bool],
) -> dict[str, float]:
    score, truth = np.array(abstains), np.array(gold)
    decided = (score > 0.5) == truth
    return {
        f"{name}_n": len(truth),
        f"{name}_loss": round(float(np.mean(losses)), 4),
        f"{name}_decision": round(float(decided.mean()), 4),
        f"{name}_auc": round(roc_auc(score, truth), 4),
        f"{name}_passage": round(float(np.mean(right)), 4),
    }
