"""The tokenizer of a model folder as the `TokenCodec` that prompts are made with."""

from pathlib import Path

from rag.transformers_model import HuggingFaceCodec


def folder_codec(folder: Path) -> HuggingFaceCodec:
    """The product's own codec, so that training sees the tokens that answering will."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return HuggingFaceCodec(tokenizer, frozenset({int(tokenizer.eos_token_id)}))
