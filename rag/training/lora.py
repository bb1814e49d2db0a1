"""The base model with a LoRA adapter, its loss on a pack, and the optimiser's float32 copies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.errors import ModelError
from index.adapter import ADAPTER_WEIGHTS
from rag import attention
from rag.training.packing import Pack, PackTensors, to_tensors

if TYPE_CHECKING:
    import torch

    from rag.training.decoder import MergedDecoder


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Rank and scale of the adapter on every linear layer; `alpha / rank` scales its product."""

    rank: int = 32
    alpha: int = 64


def training_device() -> str:
    """The first GPU that torch can compute on, else the processor."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_trainable(
    base: Path, shape: LoraShape, seed: int, start_from: Path | None = None, dropout: float = 0.0
) -> Any:
    """The base model in bfloat16 with an adapter, a fresh one or that of a folder; only it is trainable.
    It is on a GPU where there is one.

    `dropout` is the share of the adapter's inputs left out at random in each step.
    """
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16, attn_implementation=attention.register()
    )
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainable = get_peft_model(model, config, autocast_adapter_dtype=False)
    if start_from is not None:
        tensors = load_file(start_from / ADAPTER_WEIGHTS)
        if _shapes(tensors) != _shapes(adapter_tensors(trainable)):
            raise ModelError(
                f"{start_from} isn't an adapter of rank {shape.rank} for this model; name another"
            )
        set_peft_model_state_dict(trainable, tensors)
    return trainable.to(training_device())


def _shapes(tensors: "dict[str, torch.Tensor]") -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def target_logits(
    model: Any,
    tensors: PackTensors,
    vocabulary: "torch.Tensor | None" = None,
    decoder: "MergedDecoder | None" = None,
) -> "torch.Tensor":
    """Float32 logits at the target rows: (N, vocab_size), or (N, len(vocabulary)) for those ids alone.
    All on the model's device.

    `decoder` computes the model's hidden states where it is given. Only rows with a label reach the output
    layer, gathered first: a product over a strided slice of the hidden states costs several times as much.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    masks = {name: additive(mask, causal.dtype) for name, mask in tensors.masks.items()}
    if decoder is not None:
        hidden = decoder.hidden(tensors.input_ids, tensors.position_ids, masks)
    else:
        hidden = causal.model(
            input_ids=tensors.input_ids,
            position_ids=tensors.position_ids,
            attention_mask=masks,
            use_cache=False,
        ).last_hidden_state[0]
    rows = hidden[tensors.rows].contiguous()
    weight = causal.lm_head.weight
    if vocabulary is not None:
        weight = weight[vocabulary]
    logits: torch.Tensor = (rows @ weight.T).float()
    return logits


def additive(mask: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """A mask of what may be seen, as what is added to the scores; finite, since padding sees nothing else."""
    import torch

    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -1e9)


class Vocabulary:
    """A random part of the vocabulary for the softmax of one step, always with the tokens in play.

    Gemma's 262,144 rows make the output layer a quarter of a step. Tokens that stand in the pack are always
    there, so that copying is learnt against every token that could be copied; the rest is redrawn.
    """

    def __init__(self, size: int, drawn: int, seed: int) -> None:
        import torch

        self._size, self._drawn = size, drawn
        self._generator = torch.Generator().manual_seed(seed)
        self._base = self._draw()
        self._uses = 0

    def _draw(self) -> "torch.Tensor":
        import torch

        return torch.randperm(self._size, generator=self._generator)[: self._drawn]

    def around(self, tensors: PackTensors) -> "tuple[torch.Tensor, torch.Tensor]":
        """Sorted token ids for this pack, always as many, and the labels as places among them."""
        import torch

        self._uses += 1
        if self._uses % 20 == 0:
            self._base = self._draw()
        needed = torch.unique(torch.cat([tensors.labels, tensors.input_ids[0]]))
        others = self._base[~torch.isin(self._base, needed)][: self._drawn - len(needed)]
        ids = torch.cat([needed, others]).sort().values
        return ids, torch.searchsorted(ids, tensors.labels)


def pack_loss(
    model: Any, packed: Pack, window: int, vocabulary: Vocabulary, decoder: "MergedDecoder | None" = None
) -> "torch.Tensor":
    """Weighted cross-entropy of a pack's targets."""
    import torch

    tensors = to_tensors(packed, window)
    ids, labels = (each.to(model.device) for each in vocabulary.around(tensors))
    tensors = tensors.to(model.device)
    logits = target_logits(model, tensors, ids, decoder)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return (losses * tensors.weights).sum()


class MasterAdamW:
    """AdamW on float32 copies of bfloat16 parameters: small updates would round away in bfloat16."""

    def __init__(self, parameters: Iterator["torch.nn.Parameter"], weight_decay: float = 0.0) -> None:
        import torch

        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.masters = [torch.nn.Parameter(parameter.detach().float()) for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1.0, betas=(0.9, 0.98), weight_decay=weight_decay)

    def step(self, learning_rate: float, scale: float, max_norm: float = 1.0) -> float:
        """One update from the summed gradients times `scale`; returns their norm before clipping."""
        import torch

        for master, parameter in zip(self.masters, self.parameters, strict=True):
            if parameter.grad is not None:
                master.grad = parameter.grad.float() * scale
                parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, max_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.publish()
        return float(norm)

    def publish(self) -> None:
        """Rounds the float32 copies into the model."""
        import torch

        with torch.no_grad():
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                parameter.copy_(master)

    def state(self) -> dict[str, Any]:
        return {
            "masters": [m.detach() for m in self.masters],
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for master, saved in zip(self.masters, state["masters"], strict=True):
                master.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.publish()


def adapter_tensors(model: Any) -> "dict[str, torch.Tensor]":
    """The adapter's tensors by peft's own names."""
    from peft import get_peft_model_state_dict

    return {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(model).items()}
