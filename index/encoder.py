"""A BERT-shaped text encoder for one CPU, with mean pooling: what the bundled embedding model is.

::

    texts ─▶ token ids, longest first, batches of nearly equal length ─▶ 12 × (attention ; feed-forward)
          ─▶ mean over each text's tokens ─▶ unit length

The same arithmetic as sentence-transformers', which loads any other model; this one needs neither its import
(seconds) nor a kernel that attends head by head. Weights are laid out once in the order in which the matrix
units read them, query, key and value are one product, and GELU is part of the product before it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corpus.errors import ModelError
from index.mapped_rows import read_weights

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from index.mapped_rows import Rows

_WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The sizes of an encoder; `max_tokens` counts the start and end tokens."""

    hidden: int
    layers: int
    heads: int
    max_tokens: int
    eps: float
    pad_id: int


def shape_of(config: dict[str, Any]) -> EncoderShape | None:
    """The shape that a transformers configuration describes, None where it isn't one computed here."""
    supported = (
        config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
    )
    if not supported:
        return None
    return EncoderShape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        max_tokens=config["max_position_embeddings"],
        eps=config["layer_norm_eps"],
        pad_id=config["pad_token_id"],
    )


class _Linear:
    """A product with a fixed matrix (out, in) and a bias, with GELU after it where `gelu`."""

    def __init__(self, weight: "torch.Tensor", bias: "torch.Tensor", *, gelu: bool = False) -> None:
        import torch

        self._gelu = gelu
        self._bias = bias
        self._weight = weight
        self._packed = None
        if weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
            self._weight = weight.new_empty(0)

    def __call__(self, rows: "torch.Tensor") -> "torch.Tensor":
        """(N, in) → (N, out)."""
        import torch

        if self._packed is not None:
            after, how = ("gelu", "none") if self._gelu else ("none", "")
            product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                rows, self._packed, self._bias, after, [], how
            )
            return product
        product = torch.nn.functional.linear(rows, self._weight, self._bias)
        return torch.nn.functional.gelu(product) if self._gelu else product


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: "torch.Tensor"
    bias: "torch.Tensor"
    eps: float

    def __call__(self, state: "torch.Tensor") -> "torch.Tensor":
        import torch

        return torch.nn.functional.layer_norm(state, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: _Linear
    out: _Linear
    attention_norm: _Norm
    up: _Linear
    down: _Linear
    output_norm: _Norm


class Encoder:
    """The encoder's weights and its forward pass. Safe to use from several threads.

    `words`, the embedding of each token, may be given apart from the other weights.
    """

    def __init__(
        self,
        shape: EncoderShape,
        weights: "dict[str, torch.Tensor]",
        dtype: "torch.dtype",
        words: "Rows | None" = None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        # A row at a time is converted: the table is most of the model, and little of it is ever needed.
        self._words: Rows = weights[_WORDS] if words is None else words
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        self._places = (weights["embeddings.position_embeddings.weight"] + kind).to(dtype)
        self._first_norm = _norm(weights, "embeddings.LayerNorm", shape, dtype)
        self._layers = [_layer(weights, index, shape, dtype) for index in range(shape.layers)]

    def embed(self, token_ids: Sequence[Sequence[int]]) -> "NDArray[np.float32]":
        """Unit vectors (len(token_ids), hidden) of one batch; shorter rows are padded to the longest."""
        import torch

        lengths = torch.tensor([len(ids) for ids in token_ids])
        longest = int(lengths.max())
        padded = np.full((len(token_ids), longest), self.shape.pad_id, np.int64)
        for row, ids in enumerate(token_ids):
            padded[row, : len(ids)] = ids
        seen = torch.arange(longest) < lengths[:, None]
        with torch.inference_mode():
            states = self._forward(torch.from_numpy(padded), None if bool(seen.all()) else seen)
            # Unit length makes the mean and the sum one.
            total = (states.float() * seen[..., None]).sum(dim=1)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(total, dim=-1).numpy()
        return vectors

    def _forward(self, ids: "torch.Tensor", seen: "torch.Tensor | None") -> "torch.Tensor":
        """States (B, T, hidden) of ids (B, T); `seen` (B, T) is false on padding."""
        import torch

        rows, count = ids.shape
        words = self._words[ids].to(self.dtype)
        state = self._first_norm(words + self._places[:count]).view(rows * count, -1)
        mask = None
        if seen is not None:
            mask = torch.zeros(rows, 1, 1, count, dtype=self.dtype).masked_fill_(
                ~seen[:, None, None], -math.inf
            )
        for layer in self._layers:
            mixed = layer.qkv(state).view(rows, count, 3, self.shape.heads, -1)
            attended = _attention(mixed, mask).reshape(rows * count, -1)
            state = layer.attention_norm(layer.out(attended) + state)
            state = layer.output_norm(layer.down(layer.up(state)) + state)
        return state.view(rows, count, -1)


def _attention(mixed: "torch.Tensor", mask: "torch.Tensor | None") -> "torch.Tensor":
    """(B, T, hidden) of queries, keys and values (B, T, 3, heads, size); the query is scaled already."""
    import torch

    rows, count, _, heads, size = mixed.shape
    query, key, value = mixed.permute(2, 0, 3, 1, 4).reshape(3, rows * heads, count, size)
    scores = torch.bmm(query, key.transpose(1, 2))
    if mask is not None:
        scores.view(rows, heads, count, count).add_(mask)
    # In bfloat16 rounding a weight costs a thousandth part; the sum is taken in float32 within.
    weights = torch.softmax(scores, dim=-1)
    return torch.bmm(weights, value).view(rows, heads, count, size).transpose(1, 2).reshape(rows, count, -1)


def load_encoder(folder: Path, dtype: "torch.dtype") -> Encoder | None:
    """The encoder in a transformers folder, None where it is of another shape. Raises ModelError."""
    from safetensors import SafetensorError

    try:
        shape = shape_of(json.loads((folder / "config.json").read_text("utf-8")))
        if shape is None:
            return None
        weights, tables = read_weights(folder / "model.safetensors", (_WORDS,), dtype)
        return Encoder(shape, weights, dtype, tables[_WORDS])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"the embedding model {folder} can't be loaded: {error}; fetch it anew") from error


def _layer(
    weights: "dict[str, torch.Tensor]", index: int, shape: EncoderShape, dtype: "torch.dtype"
) -> _Layer:
    import torch

    name = f"encoder.layer.{index}"

    def pair(part: str) -> "tuple[torch.Tensor, torch.Tensor]":
        return weights[f"{name}.{part}.weight"].float(), weights[f"{name}.{part}.bias"].float()

    query, key, value = (pair(f"attention.self.{part}") for part in ("query", "key", "value"))
    scale = (shape.hidden // shape.heads) ** -0.5
    joined = torch.cat([query[0] * scale, key[0], value[0]]), torch.cat([query[1] * scale, key[1], value[1]])

    def linear(weight: "torch.Tensor", bias: "torch.Tensor", *, gelu: bool = False) -> _Linear:
        return _Linear(weight.to(dtype), bias.to(dtype), gelu=gelu)

    return _Layer(
        qkv=linear(*joined),
        out=linear(*pair("attention.output.dense")),
        attention_norm=_norm(weights, f"{name}.attention.output.LayerNorm", shape, dtype),
        up=linear(*pair("intermediate.dense"), gelu=True),
        down=linear(*pair("output.dense")),
        output_norm=_norm(weights, f"{name}.output.LayerNorm", shape, dtype),
    )


def _norm(weights: "dict[str, torch.Tensor]", name: str, shape: EncoderShape, dtype: "torch.dtype") -> _Norm:
    return _Norm(weights[f"{name}.weight"].to(dtype), weights[f"{name}.bias"].to(dtype), shape.eps)
