"""Merging a LoRA adapter into a model's weights, without peft.

For each adapted layer `W ← W + (alpha / r) · B A`, with A of shape (r, in), B of shape (out, r) and W of
shape (out, in) (Hu et al. 2021, LoRA, equation 3). Computed in float32 and rounded to the model's own dtype
once: load the base in float32, merge, then convert, so that nothing is rounded twice.
"""

import json
import re
from pathlib import Path
from typing import Any

from corpus.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_LORA_NAME = re.compile(r"^base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")


def merge_adapter(model: Any, adapter_folder: Path) -> None:
    """Adds the adapter in `adapter_folder` (peft's form) to the weights of a transformers model, in place.

    Raises ModelError where the folder isn't a LoRA adapter of this model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    scale = _read_scale(adapter_folder / ADAPTER_CONFIG)
    path = adapter_folder / ADAPTER_WEIGHTS
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the adapter {path} can't be read: {error}; restore the file") from error
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for layer, sides in _by_layer(tensors, path).items():
            weight = parameters.get(f"{layer}.weight")
            if weight is None:
                raise ModelError(f"the adapter {path} adapts {layer}, which the model doesn't have")
            product = sides["B"].float() @ sides["A"].float()
            if product.shape != weight.shape:
                raise ModelError(
                    f"the adapter {path} has {tuple(product.shape)} for {layer}, the model has "
                    f"{tuple(weight.shape)}; use the base model that it was trained on"
                )
            weight.copy_(weight.float() + scale * product)


def _read_scale(path: Path) -> float:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = float(config["r"]), float(config["lora_alpha"])
        rooted = bool(config.get("use_rslora", False))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} isn't the configuration of a LoRA adapter: {error}") from error
    return alpha / rank**0.5 if rooted else alpha / rank


def _by_layer(tensors: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Both matrices of each layer; raises ModelError where one is missing or is something else."""
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        match = _LORA_NAME.match(name)
        if match is None:
            raise ModelError(f"the adapter {path} has a tensor {name!r}, which isn't one of LoRA's")
        layers.setdefault(match["layer"], {})[match["side"]] = tensor
    for layer, sides in layers.items():
        if set(sides) != {"A", "B"}:
            raise ModelError(f"the adapter {path} lacks one of the two matrices of {layer}")
    return layers
