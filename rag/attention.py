"""Attention by two plain matrix products, for models whose query heads share few key heads.

Gemma 3 270M has four query heads on one key head. Folding the heads that share a key into the rows makes one
large product of each step, which the CPU's matrix units take at full speed; torch's fused kernel for CPUs
repeats the keys instead and needs more than twice as long, forward and backward (docs/performance.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SHARED_KEYS = "shared_keys"


def shared_key_attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    **_: Any,
) -> "tuple[torch.Tensor, None]":
    """Attention of `query` (B, H, Q, D) on `key`, `value` (B, G, K, D), heads in H/G consecutive folds.

    `attention_mask` is added to the scores, (B or 1, 1, Q, K). The softmax is taken in float32. Returns
    (B, Q, H, D) and no weights, as transformers' attention functions do.
    """
    import torch

    batch, heads, length, size = query.shape
    groups, keys = key.shape[1], key.shape[2]
    rows = query.reshape(batch * groups, heads // groups * length, size)
    scale = size**-0.5 if scaling is None else scaling
    scores = torch.bmm(rows, key.reshape(batch * groups, keys, size).transpose(1, 2)) * scale
    scores = scores.view(batch, heads, length, keys)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed = torch.bmm(weights.view(batch * groups, -1, keys), value.reshape(batch * groups, keys, size))
    return mixed.view(batch, heads, length, size).transpose(1, 2).contiguous(), None


def register() -> str:
    """Makes the function known to transformers; returns its name for `attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(SHARED_KEYS, shared_key_attention)
    return SHARED_KEYS
