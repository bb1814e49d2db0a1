"""What this machine could do at most, measured, and what that means for a model: the roofline of each figure.

A pass over tokens can take no less than its arithmetic at the machine's best matrix throughput, and no less
than one read of the weights at its best memory bandwidth (Williams et al., "Roofline", 2009).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.errors import ModelError

MATRIX_SIZES = (1024, 2048)
READ_BYTES = 256 * 1024 * 1024
"""Many times what a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """Measured with `threads`: one value a repetition. The best of them is the limit.

    `flops` are floating-point operations a second of a matrix product in the type that models compute in,
    whose weights have `bytes_per_weight`; `bytes_read` are bytes a second read from memory.
    """

    threads: int
    bytes_per_weight: int
    flops: tuple[float, ...]
    bytes_read: tuple[float, ...]

    def joined(self, other: "MachineLimits") -> "MachineLimits":
        """Both measurements as one: before and after a benchmark, since a machine's load changes."""
        return MachineLimits(
            self.threads, self.bytes_per_weight, self.flops + other.flops, self.bytes_read + other.bytes_read
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """The best that a figure could be, in the figure's unit; a rate can't be above it, a time not below."""

    value: float
    basis: str
    is_time: bool

    def share(self, measured: float) -> float:
        """How much of what is possible was reached: 1 is all of it."""
        return self.value / measured if self.is_time else measured / self.value


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A transformer's layers: `layer_weights` in the matrices of one, `attention_width` over all its heads.

    Embedding tables and output layers are left out: how much of them is needed is the program's choice.
    """

    layers: int
    layer_weights: int
    attention_width: int
    is_causal: bool

    def flops(self, tokens: float) -> float:
        """Of one pass over a text of so many tokens."""
        attention = 4 * tokens * tokens * self.attention_width * (0.5 if self.is_causal else 1.0)
        return self.layers * (2 * tokens * self.layer_weights + attention)

    def weights(self) -> int:
        """In all matrices."""
        return self.layers * self.layer_weights


def measure_limits(threads: int = 0, repeats: int = 10) -> MachineLimits:
    """Matrix products and reads of a large block; `threads` of torch are left as they are where it is 0."""
    import torch

    from index.embedder import compute_dtype

    if threads:
        torch.set_num_threads(threads)
    dtype = compute_dtype()
    flops = tuple(
        2 * size**3 / seconds
        for size in MATRIX_SIZES
        for seconds in _timed_products(torch.randn(size, size).to(dtype), repeats)
    )
    block = torch.ones(READ_BYTES // 4)
    seconds = [_seconds(block.sum) for _ in range(repeats + 1)][1:]
    reads = tuple(READ_BYTES / each for each in seconds)
    return MachineLimits(torch.get_num_threads(), dtype.itemsize, flops, reads)


def compute_dtype_name() -> str:
    """The type that models compute in here, as transformers takes it: "bfloat16" or "float32"."""
    from index.embedder import compute_dtype

    return str(compute_dtype()).removeprefix("torch.")


def _timed_products(matrix: Any, repeats: int) -> list[float]:
    """Seconds of each; the first builds the kernel and isn't one of them."""
    return [_seconds(lambda: matrix @ matrix) for _ in range(repeats + 1)][1:]


def read_model_size(folder: Path) -> ModelSize:
    """From the config.json of a transformers or sentence-transformers folder; raises ModelError.

    A model with key-value heads of its own counts as a decoder with a gated feed-forward block.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        is_causal = "num_key_value_heads" in config
        head_size = config.get("head_dim") or hidden // heads
        key_value_heads = config.get("num_key_value_heads", heads)
        projections = 2 * hidden * head_size * (heads + key_value_heads)
        feed_forward = (3 if is_causal else 2) * hidden * config["intermediate_size"]
        layers = config["num_hidden_layers"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} has no config.json that says how large the model is: {error!r}"
        ) from error
    return ModelSize(layers, projections + feed_forward, head_size * heads, is_causal)


def pass_limit(size: ModelSize, tokens: float, machine: MachineLimits, unit_s: float = 1.0) -> Limit:
    """The least time of one pass over a text of `tokens`, in units of `unit_s` seconds."""
    computing = size.flops(tokens) / max(machine.flops)
    reading = size.weights() * machine.bytes_per_weight / max(machine.bytes_read)
    what = "the arithmetic" if computing >= reading else "one read of the layers' weights"
    return Limit(
        max(computing, reading) / unit_s, f"{what} of a pass over {tokens:,.0f} tokens", is_time=True
    )


def next_token_limit(size: ModelSize, machine: MachineLimits, unit_s: float = 1.0) -> Limit:
    """The least time of a token that is written by itself.

    Where models compute in 16 bits the bundled reader keeps its weights in 8 bits as well, for this.
    """
    per_weight = 1 if machine.bytes_per_weight == 2 else machine.bytes_per_weight
    reading = size.weights() * per_weight / max(machine.bytes_read)
    basis = f"one read of the layers' weights in {per_weight * 8} bits"
    return Limit(reading / unit_s, basis, is_time=True)


def embedding_limit(size: ModelSize, tokens_per_text: float, machine: MachineLimits) -> Limit:
    """The most tokens a second of texts of that length, many at once."""
    per_second = max(machine.flops) * tokens_per_text / size.flops(tokens_per_text)
    return Limit(per_second, f"the arithmetic of texts of {tokens_per_text:,.0f} tokens", is_time=False)


def exact_search_limit(vectors: int, dimension: int, machine: MachineLimits, unit_s: float = 1.0) -> Limit:
    """The least time of an exact search: one read of all vectors in float16, as they are kept."""
    reading = vectors * dimension * 2 / max(machine.bytes_read)
    return Limit(reading / unit_s, "one read of all vectors, as an exact search needs", is_time=True)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
