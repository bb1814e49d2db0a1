"""Examples as tokens, and several of them side by side in one sequence.

::

    example₁            | example₂            | example₃ …
    positions 0 1 2 …   | 0 1 2 …             | 0 1 2 …

Each token attends to its own example only, so an example's logits are those of the example alone, and no
length is padded to another's. The sliding layers' mask goes by positions, not by places in the sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.prompts import TokenCodec
from rag.reader_format import (
    leading_ids,
    passage_text,
    question_ids,
    target_ids,
)
from rag.training import citing_last
from rag.training.contexts import Posed, Shown

if TYPE_CHECKING:
    import torch

DECISION_WEIGHT = 1.5
LENGTH_STEP = 16
ROWS_STEP = 32
"""Lengths are rounded up to these: for every new one, kernels are chosen and compiled anew."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its passages: `prompt_ids` are read, `target_ids` are learnt."""

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids) - 1


@dataclass(frozen=True, slots=True)
class PackTensors:
    """`input_ids`, `position_ids` (1, T); masks (1, 1, T, T), bool; `rows` (N,) are the places whose logits
    predict `labels` (N,), with `weights` (N,); `firsts` are the places in
    `rows` of each example's first target token. Both T and N are padded; padding weighs nothing.
    """

    input_ids: "torch.Tensor"
    position_ids: "torch.Tensor"
    masks: dict[str, "torch.Tensor"]
    rows: "torch.Tensor"
    labels: "torch.Tensor"
    weights: "torch.Tensor"
    firsts: "torch.Tensor"


def encode_example(
    passages: Sequence[Shown], posed: Posed, codec: TokenCodec, is_citing_last: bool = False
) -> Example:
    """The tokens of a question over its passages, as `ReaderFormat.render` makes them, and of its answer.

    `is_citing_last` puts each marker after its sentence, for comparing the two formats.
    """
    ids = [] if codec.bos_id is None else [codec.bos_id]
    ids += leading_ids(codec, posed.question, posed.language)
    for number, shown in enumerate(passages, start=1):
        ids += codec.encode(passage_text(number, shown.title, "", shown.text))
    prompt = question_ids(codec, posed.question, posed.language, posed.style)
    if is_citing_last:
        prompt = citing_last.prompt_ids(codec, prompt)
        target = citing_last.target_ids(codec, posed.sentences, min(codec.eos_ids))
    else:
        target = target_ids(codec, posed.sentences, min(codec.eos_ids))
    return Example((*ids, *prompt), tuple(target))


def take_pack(waiting: list[Example], max_tokens: int) -> list[Example]:
    """Takes examples off the list, the first ones that fit together in `max_tokens`, and at least one."""
    taken: list[Example] = []
    left: list[Example] = []
    room = max_tokens
    for example in waiting:
        if example.length <= room or not taken:
            taken.append(example)
            room -= example.length
        else:
            left.append(example)
    waiting[:] = left
    return taken


def to_tensors(examples: Sequence[Example], sliding_window: int) -> PackTensors:
    """Examples side by side; the last target token of each is only a label, never an input."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    rows: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    firsts: list[int] = []
    for owner, example in enumerate(examples):
        firsts.append(len(rows))
        first_row = len(ids) + len(example.prompt_ids) - 1
        rows += range(first_row, first_row + len(example.target_ids))
        labels += example.target_ids
        weights += token_weights(len(example.target_ids))
        ids += example.prompt_ids + example.target_ids[:-1]
        positions += range(example.length)
        owners += [owner] * example.length
    _pad(ids, LENGTH_STEP, 0)
    _pad(positions, LENGTH_STEP, 0)
    _pad(owners, LENGTH_STEP, len(examples))
    _pad(rows, ROWS_STEP, 0)
    _pad(labels, ROWS_STEP, 0)
    _pad(weights, ROWS_STEP, 0.0)
    position, owner_of = torch.tensor(positions), torch.tensor(owners)
    distance = position[:, None] - position[None, :]
    full = (distance >= 0) & (owner_of[:, None] == owner_of[None, :])
    weight = torch.tensor(weights)
    return PackTensors(
        input_ids=torch.tensor(ids)[None],
        position_ids=position[None],
        masks={
            "full_attention": full[None, None],
            "sliding_attention": (full & (distance < sliding_window))[None, None],
        },
        rows=torch.tensor(rows),
        labels=torch.tensor(labels),
        weights=weight,
        firsts=torch.tensor(firsts),
    )


def _pad(values: list[Any], step: int, filler: Any) -> None:
    values += [filler] * (-len(values) % step)


def token_weights(length: int) -> Sequence[float]:
    """Each decision weighs the same; a long answer more than a short one, but less than its length."""
    return [DECISION_WEIGHT] + [max(1, length - 1) ** -0.5] * (length - 1)
