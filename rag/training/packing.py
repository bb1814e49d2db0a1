"""Many questions in one sequence: the passages once, then each question with its answer as a block.

::

    passages passages passages | question₁ answer₁ | question₂ answer₂ | …
    positions 0 … c-1          | c …               | c …               | …

A block attends to the passages and to itself, never to another block, and its positions go on from the
passages' end; so each block's logits are those of the sequence "passages + block" alone, for a fraction of
the cost. The sliding layers' mask goes by positions, not by places in the sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.prompts import TokenCodec
from rag.reader_format import passage_text, question_ids, target_ids
from rag.training import citing_last
from rag.training.contexts import Context

if TYPE_CHECKING:
    import torch

FIRST_TOKEN_WEIGHT = 3.0
LENGTH_STEP = 16
ROWS_STEP = 32
"""Lengths are rounded up to these: for every new one, kernels are chosen and compiled anew."""


@dataclass(frozen=True, slots=True)
class Block:
    """One question's tokens: `prompt_ids` are read, `target_ids` are learnt."""

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """A context's tokens, begin-of-sequence first, its blocks, and how many passages it shows."""

    context_ids: tuple[int, ...]
    blocks: tuple[Block, ...]
    passages: int

    @property
    def length(self) -> int:
        return len(self.context_ids) + sum(len(b.prompt_ids) + len(b.target_ids) - 1 for b in self.blocks)


@dataclass(frozen=True, slots=True)
class PackTensors:
    """`input_ids`, `position_ids` (1, T); masks (1, 1, T, T), bool; `rows` (N,) are the places whose logits
    predict `labels` (N,), with `weights` (N,) that sum to 1; `firsts` are the places in `rows` of each
    block's first target token. Both T and N are padded; padding weighs nothing.
    """

    input_ids: "torch.Tensor"
    position_ids: "torch.Tensor"
    masks: dict[str, "torch.Tensor"]
    rows: "torch.Tensor"
    labels: "torch.Tensor"
    weights: "torch.Tensor"
    firsts: "torch.Tensor"

    def to(self, device: "torch.device | str") -> "PackTensors":
        """The same on another device."""
        moved = {name: mask.to(device) for name, mask in self.masks.items()}
        rest = (self.rows, self.labels, self.weights, self.firsts)
        return PackTensors(
            self.input_ids.to(device),
            self.position_ids.to(device),
            moved,
            *(each.to(device) for each in rest),
        )


def pack(context: Context, codec: TokenCodec, max_tokens: int, is_citing_last: bool = False) -> Pack:
    """A context's tokens; blocks past `max_tokens` are left out, but never all of them.

    `is_citing_last` puts each marker after its sentence, for comparing the two formats.
    """
    ids = [] if codec.bos_id is None else [codec.bos_id]
    for number, shown in enumerate(context.passages, start=1):
        ids += codec.encode(passage_text(number, shown.title, "", shown.text))
    blocks: list[Block] = []
    room = max_tokens - len(ids)
    for posed in context.questions:
        prompt = question_ids(codec, posed.question, posed.language, posed.style)
        if is_citing_last:
            prompt = citing_last.prompt_ids(codec, prompt)
            target = citing_last.target_ids(codec, posed.sentences, min(codec.eos_ids))
        else:
            target = target_ids(codec, posed.sentences, min(codec.eos_ids))
        room -= len(prompt) + len(target) - 1
        if room < 0 and blocks:
            break
        blocks.append(Block(tuple(prompt), tuple(target)))
    return Pack(tuple(ids), tuple(blocks), len(context.passages))


def to_tensors(packed: Pack, sliding_window: int) -> PackTensors:
    """The pack as tensors; the last target token of a block is only a label, never an input."""
    import torch

    start = len(packed.context_ids)
    ids, positions, owners = list(packed.context_ids), list(range(start)), [0] * start
    rows: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    firsts: list[int] = []
    for owner, block in enumerate(packed.blocks, start=1):
        tokens = block.prompt_ids + block.target_ids[:-1]
        firsts.append(len(rows))
        first_row = len(ids) + len(block.prompt_ids) - 1
        rows += range(first_row, first_row + len(block.target_ids))
        labels += block.target_ids
        weights += token_weights(len(block.target_ids))
        ids += tokens
        positions += range(start, start + len(tokens))
        owners += [owner] * len(tokens)
    _pad(ids, LENGTH_STEP, 0)
    _pad(positions, LENGTH_STEP, 0)
    _pad(owners, LENGTH_STEP, len(packed.blocks) + 1)
    _pad(rows, ROWS_STEP, 0)
    _pad(labels, ROWS_STEP, 0)
    _pad(weights, ROWS_STEP, 0.0)
    position, owner_of = torch.tensor(positions), torch.tensor(owners)
    distance = position[:, None] - position[None, :]
    mine = (owner_of[None, :] == 0) | (owner_of[:, None] == owner_of[None, :])
    full = (distance >= 0) & mine
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
        weights=weight / weight.sum(),
        firsts=torch.tensor(firsts),
    )


def _pad(values: list[Any], step: int, filler: Any) -> None:
    values += [filler] * (-len(values) % step)


def token_weights(length: int) -> Sequence[float]:
    """A long answer weighs more than a short one, but less than its length; the decision weighs most."""
    each = length**-0.5
    return [each * FIRST_TOKEN_WEIGHT] + [each] * (length - 1)
