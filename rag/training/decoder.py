"""Gemma's decoder for training an adapter: peft's function, in fewer and larger steps.

peft adds two small products, a scaling and a sum to each of 126 linear layers, and every norm is five passes over
memory. Here the adapter is multiplied into the weights once an optimiser step (`MergedDecoder.refresh`), and only
its gradients go through the small products; layers that share an input are one product; and what lies between the
products is compiled where there is a compiler. The parameters stay peft's own.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from rag.gemma import GemmaShape, shape_of
from rag.training.lora import LoraShape


class _MergedProduct(torch.autograd.Function):
    """x @ weightᵀ with gradients for x and for the adapter's factors, of which `weight` holds the product."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, scale: float, *factors: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, *factors)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, weight, *factors = ctx.saved_tensors
        downs, ups = factors[: len(factors) // 2], factors[len(factors) // 2 :]
        down = torch.cat(downs) if len(downs) > 1 else downs[0]
        small = (x @ down.T) * ctx.scale
        rank = len(downs[0])
        pieces = torch.split(grad, [len(up) for up in ups], dim=1)
        through, grad_ups = grad.new_empty(len(grad), len(down)), []
        for part, (piece, up) in enumerate(zip(pieces, ups, strict=True)):
            ranks = slice(part * rank, (part + 1) * rank)
            piece = piece.contiguous()
            grad_ups.append(piece.T @ small[:, ranks])
            through[:, ranks] = piece @ up
        grad_downs = torch.split((through * ctx.scale).T @ x, rank)
        return (grad @ weight, None, None, *grad_downs, *grad_ups)


class _Merged:
    """peft's linear layers of one input as one product; `weight` (sum of their outputs, inputs)."""

    def __init__(self, layers: list[Any], scale: float) -> None:
        self._bases = [layer.base_layer.weight.detach() for layer in layers]
        self._downs = [layer.lora_A["default"].weight for layer in layers]
        self._ups = [layer.lora_B["default"].weight for layer in layers]
        self._scale = scale
        self._weight = torch.cat(self._bases)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        first = 0
        for base, down, up in zip(self._bases, self._downs, self._ups, strict=True):
            part = self._weight[first : first + len(base)]
            torch.addmm(base, up, down, alpha=self._scale, out=part)
            first += len(base)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        product = _MergedProduct.apply(x, self._weight, self._scale, *self._downs, *self._ups)  # type: ignore[no-untyped-call]
        return cast(torch.Tensor, product)


@dataclass(frozen=True, slots=True)
class _Layer:
    is_sliding: bool
    qkv: _Merged
    out: _Merged
    gate_up: _Merged
    down: _Merged
    norms: dict[str, torch.Tensor]
    head_norm: torch.Tensor


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    exact = x.float()
    return (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def _norm_add(state: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return state + _norm(x, weight, eps)


def _gated(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.gelu(gate, approximate="tanh") * up


def _turn(
    x: torch.Tensor, weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
) -> torch.Tensor:
    """(tokens, heads, size), normed by head and then rotated by position."""
    y = _norm(x, weight, eps)
    first, second = y.chunk(2, dim=-1)
    return y * cos + torch.cat([-second, first], dim=-1) * sin


def _soft(scores: torch.Tensor, mask: torch.Tensor, scaling: float) -> torch.Tensor:
    return torch.softmax((scores * scaling + mask).float(), dim=-1).to(scores.dtype)


class MergedDecoder:
    """The decoder of a peft model of Gemma 3 with one key head; `refresh` after each change of the adapter."""

    def __init__(self, model: Any, lora: LoraShape, compiled: bool | None = None) -> None:
        """`compiled` by default where a C++ compiler is found, which torch needs for it."""
        shape = shape_of(model.get_base_model().config.to_dict())
        if shape is None:
            raise ValueError("this decoder computes Gemma 3 with one key head")
        self._shape: GemmaShape = shape
        base = model.get_base_model().model
        self._embedding = base.embed_tokens.weight.detach()
        self._final = 1 + base.norm.weight.detach().float()
        self._layers = [
            self._layer(block, is_sliding, lora.alpha / lora.rank)
            for block, is_sliding in zip(base.layers, shape.is_sliding, strict=True)
        ]
        is_compiled = shutil.which("c++") is not None if compiled is None else compiled
        self._norm, self._norm_add = _maybe(_norm, is_compiled), _maybe(_norm_add, is_compiled)
        self._gated, self._turn = _maybe(_gated, is_compiled), _maybe(_turn, is_compiled)
        self._soft = _maybe(_soft, is_compiled)

    def _layer(self, block: Any, is_sliding: bool, scale: float) -> _Layer:
        modules = dict(block.named_modules())
        names = (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
        query, key = (
            1 + getattr(block.self_attn, name).weight.detach().float() for name in ("q_norm", "k_norm")
        )

        def merged(*parts: str) -> _Merged:
            return _Merged([modules[part] for part in parts], scale)

        return _Layer(
            is_sliding,
            qkv=merged("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            out=merged("self_attn.o_proj"),
            gate_up=merged("mlp.gate_proj", "mlp.up_proj"),
            down=merged("mlp.down_proj"),
            norms={name: 1 + modules[name].weight.detach().float() for name in names},
            head_norm=torch.stack([query] * self._shape.heads + [key]),
        )

    def refresh(self) -> None:
        """Takes in the adapter as it is now."""
        for layer in self._layers:
            for merged in (layer.qkv, layer.out, layer.gate_up, layer.down):
                merged.refresh()

    def hidden(
        self, ids: torch.Tensor, positions: torch.Tensor, masks: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Final hidden states, (T, hidden), of ids and positions, each (1, T); masks are added, (1, 1, T, T)."""
        shape, dtype, eps = self._shape, self._embedding.dtype, self._shape.eps
        length = ids.shape[1]
        state = self._embedding[ids[0]] * torch.tensor(shape.hidden**0.5).to(dtype)
        turns = {sliding: self._turns(positions[0], sliding) for sliding in (True, False)}
        # One row for each token and head, as the scores are: the heads share their key.
        added = {
            sliding: masks[name][0, 0][:, None]
            for sliding, name in ((True, "sliding_attention"), (False, "full_attention"))
        }
        for layer in self._layers:
            norms = layer.norms
            mixed = layer.qkv(self._norm(state, norms["input_layernorm"], eps))
            mixed = mixed.view(length, shape.heads + 2, shape.head_size)
            turned = self._turn(mixed[:, :-1], layer.head_norm, *turns[layer.is_sliding], eps)
            query = turned[:, :-1].reshape(length * shape.heads, shape.head_size)
            scores = (query @ turned[:, -1].T).view(length, shape.heads, length)
            weights = self._soft(scores, added[layer.is_sliding], shape.scaling)
            seen = (weights.view(length * shape.heads, length) @ mixed[:, -1]).view(length, -1)
            state = self._norm_add(state, layer.out(seen), norms["post_attention_layernorm"], eps)
            fed = self._gated(layer.gate_up(self._norm(state, norms["pre_feedforward_layernorm"], eps)))
            state = self._norm_add(state, layer.down(fed), norms["post_feedforward_layernorm"], eps)
        return self._norm(state, self._final, eps)

    def _turns(self, positions: torch.Tensor, sliding: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each (T, 1, head size)."""
        shape, dtype = self._shape, self._embedding.dtype
        theta = shape.theta_sliding if sliding else shape.theta_full
        places = torch.arange(0, shape.head_size, 2, device=positions.device).float()
        rates = 1.0 / theta ** (places / shape.head_size)
        angles = positions[:, None].float() * torch.cat([rates, rates])
        return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def _maybe(function: Callable[..., torch.Tensor], is_compiled: bool) -> Callable[..., torch.Tensor]:
    return torch.compile(function, dynamic=True) if is_compiled else function
