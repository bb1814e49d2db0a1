"""Gemma 3's text decoder for one CPU: the same arithmetic as transformers', in far fewer and larger steps.

::

    ids ─▶ embedding ─▶ 18 × (norm · qkv · rotary · attention · out · norm ; norm · gate+up · down · norm)
                                      │ keys and values                                    │
                                      ▼                                                    ▼
                                   KeyValues (a fixed block of memory, written in place)   hidden ─▶ Head

What makes it quick (docs/performance.md has the figures): products that share an input are one product;
weights are laid out once in the order in which the matrix units read them; the cache is never copied; the
four query heads that share a key head are rows of one product; and the output layer holds the rows of the
scripts that answers are written in, with the prompt's other tokens added for each request.

Weights stay bfloat16 (float16 overflows in this model) and norms, softmax and logits are float32.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.errors import ModelError
from index.mapped_rows import read_weights

if TYPE_CHECKING:
    import torch

    from index.mapped_rows import Rows

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_FEW_ROWS = 8
"""So many rows are quicker with the weights in 8 bits, whose product isn't made for many, and with attention
as a plain product."""
_QUANTISED_ROWS = 8192
"""At a time, since the output layer in float32 at once would take 400 MB while loading."""
_QUERY_ROWS = 256
"""A long prompt's attention is computed this many rows at a time, each against the keys it can see."""


@dataclass(frozen=True, slots=True)
class GemmaShape:
    """The sizes of a decoder. `is_sliding` says for each layer whether it sees `window` tokens only."""

    hidden: int
    intermediate: int
    heads: int
    head_size: int
    vocabulary: int
    window: int
    eps: float
    is_sliding: tuple[bool, ...]
    theta_sliding: float
    theta_full: float
    scaling: float


def read_shape(folder: Path) -> GemmaShape | None:
    """The shape in a transformers folder, None where it isn't a decoder that this module computes."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    return shape_of(json.loads(path.read_text("utf-8")))


def shape_of(config: dict[str, Any]) -> GemmaShape | None:
    """The shape that a transformers configuration describes, None where it's another kind of model."""
    supported = (
        config.get("model_type") == "gemma3_text"
        and config.get("num_key_value_heads") == 1
        and not config.get("attention_bias")
        and config.get("attn_logit_softcapping") is None
        and config.get("final_logit_softcapping") is None
        and "rope_parameters" in config
    )
    if not supported:
        return None
    rope = config["rope_parameters"]
    if any(kind["rope_type"] != "default" for kind in rope.values()):
        return None
    return GemmaShape(
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        head_size=config["head_dim"],
        vocabulary=config["vocab_size"],
        window=config["sliding_window"],
        eps=config["rms_norm_eps"],
        is_sliding=tuple(kind == "sliding_attention" for kind in config["layer_types"]),
        theta_sliding=rope["sliding_attention"]["rope_theta"],
        theta_full=rope["full_attention"]["rope_theta"],
        scaling=config["query_pre_attn_scalar"] ** -0.5,
    )


@dataclass(slots=True)
class KeyValues:
    """What was computed for the tokens so far: `keys`, `values` (layers, rows, capacity, head size).

    `lengths` holds how many tokens each row has; what lies after them is never read. Cutting a row back is
    setting its length.
    """

    keys: "torch.Tensor"
    values: "torch.Tensor"
    lengths: list[int]

    @property
    def capacity(self) -> int:
        return int(self.keys.shape[2])

    def select(self, rows: Sequence[int]) -> "KeyValues":
        """The same for some of the rows, copied."""
        import torch

        index = torch.tensor(list(rows))
        return KeyValues(self.keys[:, index], self.values[:, index], [self.lengths[row] for row in rows])


def join(parts: Sequence[KeyValues], capacity: int) -> KeyValues:
    """Rows of several caches as one, each with room for `capacity` tokens."""
    import torch

    rows = sum(len(part.lengths) for part in parts)
    layers, _, _, size = parts[0].keys.shape
    keys, values = (torch.zeros(layers, rows, capacity, size, dtype=parts[0].keys.dtype) for _ in range(2))
    row = 0
    for part in parts:
        longest = max(part.lengths)
        keys[:, row : row + len(part.lengths), :longest] = part.keys[:, :, :longest]
        values[:, row : row + len(part.lengths), :longest] = part.values[:, :, :longest]
        row += len(part.lengths)
    return KeyValues(keys, values, [length for part in parts for length in part.lengths])


@dataclass(frozen=True, slots=True)
class _Sight:
    """What some queries (places `first` to `last`) may see: the keys from `begin` to `end` but those hidden.

    `mask` (rows, T, 1, end - begin) is added to the scores; None where nothing is hidden.
    """

    first: int
    last: int
    begin: int
    end: int
    mask: "torch.Tensor | None"


@dataclass(frozen=True, slots=True)
class _Layer:
    """One block's weights; `key_query_norm` (heads + 1, head size) has the query norm once for each head."""

    input_norm: "torch.Tensor"
    qkv: "Linear"
    head_norm: "torch.Tensor"
    out: "Linear"
    attention_norm: "torch.Tensor"
    feed_norm: "torch.Tensor"
    gate_up: "Linear"
    down: "Linear"
    output_norm: "torch.Tensor"
    is_sliding: bool


class Linear:
    """A product with a fixed matrix (out, in), laid out for the CPU's matrix units where it has them.

    Many rows, a prompt, are limited by arithmetic and multiplied in the weights' own type. Few rows, a token
    and the guesses after it, are limited by reading the weights: for them bfloat16 weights are kept in 8 bits
    as well. Products in float32 stay exact.
    """

    def __init__(self, weight: "torch.Tensor") -> None:
        import torch

        self._packed = None
        self._weight = weight
        self._few = EightBits(weight) if weight.dtype == torch.bfloat16 else None
        if weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            # A layout for one row: reading a prompt is as quick with it as with any other.
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
            self._weight = weight.new_empty(0)
            self._multiply = torch.ops.mkldnn._linear_pointwise

    def __call__(self, rows: "torch.Tensor") -> "torch.Tensor":
        """(N, in) → (N, out)."""
        import torch

        if self._few is not None and len(rows) <= _FEW_ROWS:
            return self._few(rows)
        if self._packed is not None:
            product: torch.Tensor = self._multiply(rows, self._packed, None, "none", [], "")
            return product
        return torch.nn.functional.linear(rows, self._weight)


class EightBits:
    """A product with a fixed matrix (out, in) of whole numbers between -127 and 127, a scale to each row.

    Half as much to read as in bfloat16. A weight is off by at most half of its row's scale.
    """

    def __init__(self, weight: "torch.Tensor") -> None:
        import torch

        self._numbers = torch.empty(weight.shape, dtype=torch.int8)
        self._scales = torch.empty(len(weight), dtype=weight.dtype)
        for first in range(0, len(weight), _QUANTISED_ROWS):
            part = slice(first, first + _QUANTISED_ROWS)
            exact = weight[part].float()
            # Rounded before it divides, so that its rounding doesn't add to the error.
            scales = (exact.abs().amax(dim=1) / 127).clamp(min=1e-12).to(weight.dtype)
            self._scales[part] = scales
            self._numbers[part] = (exact / scales.float()[:, None]).round_().clamp_(-127, 127)

    def __call__(self, rows: "torch.Tensor") -> "torch.Tensor":
        """(N, in) → (N, out); meant for few rows."""
        import torch

        product: torch.Tensor = torch.ops.aten._weight_int8pack_mm(rows, self._numbers, self._scales)
        return product


class GemmaDecoder:
    """The decoder's weights and its forward pass. Safe to use from several threads; caches are not.

    `embedding` and `output`, the output layer's weights, are (vocabulary, hidden), often the same; they may be
    given apart, as `tables` under their names.
    """

    def __init__(
        self,
        shape: GemmaShape,
        weights: "dict[str, torch.Tensor]",
        tables: "Mapping[str, Rows] | None" = None,
    ) -> None:
        import torch

        self.shape = shape
        found: Mapping[str, Rows] = {**weights, **(tables or {})}
        self.embedding = found[_EMBEDDING]
        self.output = found.get(_OUTPUT, self.embedding)
        self.dtype = self.embedding.dtype
        # transformers rounds the scale to the weights' type as well.
        self._embedding_scale = torch.tensor(math.sqrt(shape.hidden)).to(self.dtype)
        self._layers = [_layer(weights, shape, index) for index in range(len(shape.is_sliding))]
        self._final_norm = 1.0 + weights["model.norm.weight"].float()
        self._angles = {
            sliding: _angles(shape.theta_sliding if sliding else shape.theta_full, shape.head_size)
            for sliding in (True, False)
        }

    def new_cache(self, capacity: int, rows: int = 1) -> KeyValues:
        """Room for `capacity` tokens in each of `rows` sequences."""
        import torch

        size = (len(self._layers), rows, capacity, self.shape.head_size)
        return KeyValues(torch.empty(size, dtype=self.dtype), torch.empty(size, dtype=self.dtype), [0] * rows)

    def forward(self, ids: "torch.Tensor", cache: KeyValues, last_only: bool = False) -> "torch.Tensor":
        """Reads ids (rows, T) after what `cache` holds and adds them to it; hidden states (rows, T, hidden).

        One row may bring any number of tokens; several rows may have different lengths. `last_only`, for one
        row, returns the last token's state (1, 1, hidden): the last layer then computes no other.
        """
        import torch

        rows, count = ids.shape
        if max(cache.lengths) + count > cache.capacity:
            raise ModelError(
                f"{max(cache.lengths) + count} tokens don't fit a cache for {cache.capacity}; make it larger"
            )
        starts = torch.tensor(cache.lengths)
        positions = starts[:, None] + torch.arange(count)
        turns = {sliding: _turns(positions, angles, self.dtype) for sliding, angles in self._angles.items()}
        # Made once for all layers of a kind.
        sights = {sliding: self._sights(cache.lengths, count, sliding) for sliding in (True, False)}
        state = (self.embedding[ids] * self._embedding_scale).reshape(rows * count, -1)
        for index, layer in enumerate(self._layers):
            ends = last_only and layer is self._layers[-1]
            seen = sights[layer.is_sliding]
            if ends:
                seen = self._sights([cache.lengths[0] + count - 1], 1, layer.is_sliding)
            state = self._block(state, layer, index, cache, turns[layer.is_sliding], seen, positions, ends)
        cache.lengths = [length + count for length in cache.lengths]
        return _rms_norm(state, self._final_norm, self.shape.eps).view(rows, -1, self.shape.hidden)

    def _block(
        self,
        state: "torch.Tensor",
        layer: _Layer,
        index: int,
        cache: KeyValues,
        turn: "tuple[torch.Tensor, torch.Tensor]",
        sights: "Sequence[_Sight]",
        positions: "torch.Tensor",
        last_only: bool,
    ) -> "torch.Tensor":
        """One layer on states (rows · T, hidden); `last_only` returns the last state alone, (1, hidden)."""
        import torch

        shape, eps = self.shape, self.shape.eps
        rows, count = positions.shape
        mixed = layer.qkv(_rms_norm(state, layer.input_norm, eps)).view(rows, count, -1, shape.head_size)
        turned = _rotate(_rms_norm(mixed[:, :, :-1], layer.head_norm, eps), turn)
        query, key, value = turned[:, :, :-1], turned[:, :, -1], mixed[:, :, -1]
        if rows == 1:
            start = cache.lengths[0]
            cache.keys[index, 0, start : start + count] = key[0]
            cache.values[index, 0, start : start + count] = value[0]
        else:
            places = torch.arange(rows)[:, None]
            cache.keys[index][places, positions] = key
            cache.values[index][places, positions] = value
        if last_only:
            state, query, count = state[-1:], query[:, -1:], 1
        attended = self._attend(query, index, cache, sights)
        state = state + _rms_norm(layer.out(attended.reshape(rows * count, -1)), layer.attention_norm, eps)
        gate, up = layer.gate_up(_rms_norm(state, layer.feed_norm, eps)).chunk(2, dim=-1)
        fed = layer.down(torch.nn.functional.gelu(gate, approximate="tanh") * up)
        return state + _rms_norm(fed, layer.output_norm, eps)

    def _attend(
        self, query: "torch.Tensor", index: int, cache: KeyValues, sights: "Sequence[_Sight]"
    ) -> "torch.Tensor":
        """Attention of queries (rows, T, heads, size) in one layer, the same shape."""
        import torch

        keys, values, scaling = cache.keys[index], cache.values[index], self.shape.scaling
        pieces = [
            _attention(
                query[:, sight.first : sight.last],
                keys[:, sight.begin : sight.end],
                values[:, sight.begin : sight.end],
                sight.mask,
                scaling,
            )
            for sight in sights
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _sights(self, lengths: Sequence[int], count: int, is_sliding: bool) -> list[_Sight]:
        """What `count` queries of each row may see, `lengths` tokens being there before.

        The queries of one row are parted, so that none is multiplied with many keys that it can't see.
        """
        if len(lengths) > 1:
            longest = max(lengths) + count
            return [_Sight(0, count, 0, longest, self._mask(lengths, count, 0, longest, is_sliding))]
        (start,) = lengths
        sights = []
        for first in range(0, count, _QUERY_ROWS):
            last = min(first + _QUERY_ROWS, count)
            begin = max(0, start + first - self.shape.window + 1) if is_sliding else 0
            end = start + last
            part = last - first
            mask = self._mask([start + first], part, begin, end, is_sliding) if part > 1 else None
            sights.append(_Sight(first, last, begin, end, mask))
        return sights

    def _mask(
        self, lengths: Sequence[int], count: int, begin: int, end: int, is_sliding: bool
    ) -> "torch.Tensor":
        """What is added to the scores of `count` queries of each row for the keys from `begin` to `end`."""
        import torch

        asking = torch.tensor(lengths)[:, None, None] + torch.arange(count)[None, :, None]
        distance = asking - torch.arange(begin, end)
        hidden = distance < 0
        if is_sliding:
            hidden |= distance >= self.shape.window
        return torch.zeros(distance.shape, dtype=self.dtype).masked_fill_(hidden, -math.inf)[:, :, None]


class Head:
    """The output layer over the rows that answers need: logits of those token ids only.

    `ids` (N,) ascending; a request's other tokens are added by `with_tokens`, so that whatever stands in a
    passage can be copied.
    """

    def __init__(self, weight: "Rows", ids: "torch.Tensor") -> None:
        import torch

        self._weight = weight
        rows = weight[ids]
        # In 8 bits alone: a head never sees more than a token and the guesses after it, or a batch's tokens.
        self._linear = EightBits(rows) if rows.dtype == torch.bfloat16 else Linear(rows)
        self.ids = ids
        self._extra: torch.Tensor | None = None

    def with_tokens(self, token_ids: Sequence[int]) -> "Head":
        """A head that also knows these tokens; the large part is shared."""
        import torch

        wanted = torch.unique(torch.tensor(list(token_ids), dtype=torch.long))
        places = torch.searchsorted(self.ids, wanted).clamp(max=len(self.ids) - 1)
        missing = wanted[self.ids[places] != wanted]
        if not len(missing):
            return self
        head = Head.__new__(Head)
        head._weight, head._linear = self._weight, self._linear
        head.ids = torch.cat([self.ids, missing])
        head._extra = self._weight[missing]
        return head

    def logits(self, hidden: "torch.Tensor") -> "torch.Tensor":
        """Float32 logits (N, len(ids)) of hidden states (N, hidden)."""
        import torch

        found = self._linear(hidden).float()
        if self._extra is None:
            return found
        return torch.cat([found, (hidden @ self._extra.T).float()], dim=-1)

    def some_logits(self, hidden: "torch.Tensor", token_ids: Sequence[int]) -> "torch.Tensor":
        """Float32 logits (N, len(token_ids)) of any tokens, without the others."""
        import torch

        return (hidden @ self._weight[torch.tensor(list(token_ids))].T).float()


def load_decoder(folder: Path, shape: GemmaShape, dtype: "torch.dtype") -> GemmaDecoder:
    """The decoder in a transformers folder, in bfloat16 or float32.

    The embedding and the output layer stay in the file until a row is needed. Raises ModelError.
    """
    from safetensors import SafetensorError

    try:
        weights, tables = read_weights(folder / "model.safetensors", (_EMBEDDING, _OUTPUT), dtype)
        converted = {name: weight.to(dtype) for name, weight in weights.items()}
        return GemmaDecoder(shape, converted, tables)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"the generator {folder} can't be loaded: {error}; fetch the models anew") from error


def _layer(weights: "dict[str, torch.Tensor]", shape: GemmaShape, index: int) -> _Layer:
    import torch

    def of(name: str) -> "torch.Tensor":
        return weights[f"model.layers.{index}.{name}.weight"]

    def norm(name: str) -> "torch.Tensor":
        return 1.0 + of(name).float()

    query, key = norm("self_attn.q_norm"), norm("self_attn.k_norm")
    return _Layer(
        input_norm=norm("input_layernorm"),
        qkv=Linear(torch.cat([of(f"self_attn.{part}_proj") for part in "qkv"])),
        head_norm=torch.stack([query] * shape.heads + [key]),
        out=Linear(of("self_attn.o_proj")),
        attention_norm=norm("post_attention_layernorm"),
        feed_norm=norm("pre_feedforward_layernorm"),
        gate_up=Linear(torch.cat([of("mlp.gate_proj"), of("mlp.up_proj")])),
        down=Linear(of("mlp.down_proj")),
        output_norm=norm("post_feedforward_layernorm"),
        is_sliding=shape.is_sliding[index],
    )


def _rms_norm(state: "torch.Tensor", weight: "torch.Tensor", eps: float) -> "torch.Tensor":
    """Root-mean-square norm in float32 over the last axis, rounded to the state's type."""
    import torch

    exact = state.float()
    scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    return (exact * scale * weight).to(state.dtype)


def _angles(theta: float, size: int) -> "torch.Tensor":
    import torch

    frequencies: torch.Tensor = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    return torch.cat([frequencies, frequencies])


def _turns(
    positions: "torch.Tensor", angles: "torch.Tensor", dtype: "torch.dtype"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Cosines and signed sines (rows, T, 1, size): the first half's sines are negative."""
    import torch

    turned = positions[..., None].float() * angles
    sines = turned.sin()
    half = len(angles) // 2
    sines = torch.cat([-sines[..., :half], sines[..., half:]], dim=-1)
    return turned.cos().to(dtype)[:, :, None], sines.to(dtype)[:, :, None]


def _rotate(state: "torch.Tensor", turn: "tuple[torch.Tensor, torch.Tensor]") -> "torch.Tensor":
    cosines, sines = turn
    return state * cosines + state.roll(state.shape[-1] // 2, dims=-1) * sines


def _attention(
    query: "torch.Tensor",
    keys: "torch.Tensor",
    values: "torch.Tensor",
    mask: "torch.Tensor | None",
    scaling: float,
) -> "torch.Tensor":
    """Attention of query (rows, T, heads, size) on one key head (rows, K, size), softmax in float32."""
    import torch

    rows, count, heads, size = query.shape
    # One row's few queries are quicker as a plain product; the sums are the same.
    is_plain = rows == 1 and count <= _FEW_ROWS
    asking = query.reshape(rows, count * heads, size)
    scores = (asking[0] @ keys[0].T) if is_plain else torch.bmm(asking, keys.transpose(1, 2))
    scores = scores.view(rows, count, heads, -1) * scaling
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
    weights = weights.view(rows, count * heads, -1)
    mixed = (weights[0] @ values[0]) if is_plain else torch.bmm(weights, values)
    return mixed.view(rows, count, heads, size)
