"""The encoder against transformers' and sentence-transformers' own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from corpus.errors import ModelError
from index.encoder import Encoder, load_encoder, shape_of


def tiny_model() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=32,
        pad_token_id=1,
        initializer_range=0.5,
    )
    return BertModel(config).eval()


def encoder_of(model: Any) -> Encoder:
    shape = shape_of(model.config.to_dict())
    assert shape is not None
    return Encoder(shape, model.state_dict(), torch.float32)


@pytest.mark.parametrize("lengths", [[7], [9, 9, 9], [12, 5, 1], [32, 31]])
def test_it_computes_the_mean_of_what_transformers_computes(lengths: list[int]) -> None:
    model = tiny_model()
    generator = torch.Generator().manual_seed(len(lengths))
    rows = [torch.randint(2, 50, (length,), generator=generator).tolist() for length in lengths]
    found = encoder_of(model).embed(rows)
    for ids, vector in zip(rows, found, strict=True):
        with torch.inference_mode():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        assert np.allclose(vector, torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [{"model_type": "roberta"}, {"hidden_act": "relu"}, {"is_decoder": True}],
)
def test_only_an_encoder_that_it_computes_is_taken(changed: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    assert load_encoder(tmp_path, torch.float32) is not None
    assert shape_of(model.config.to_dict() | changed) is None


def test_a_broken_folder_is_an_error_with_its_name(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"embedding model .* can't be loaded"):
        load_encoder(tmp_path, torch.float32)


@pytest.mark.model
def test_the_bundled_model_gives_what_sentence_transformers_gives() -> None:
    from sentence_transformers import SentenceTransformer

    from index.embedder import load_embedder
    from index.weights import ensure_embedder
    from rag.settings import load_settings

    home = load_settings().home
    theirs = SentenceTransformer(str(ensure_embedder(home)), device="cpu")
    ours = load_embedder("bundled", home)
    passages = [
        "De dijk is hoog.",
        "The dike was raised in 1934 after the flood. " * 9,
        "water " * 700,
        "é 漢字",
    ]
    expected = theirs.encode([f"passage: {text}" for text in passages], normalize_embeddings=True)
    assert (ours.embed_passages(passages) * expected).sum(axis=1).min() > 0.9995
    questions = ["Hoe hoog is de dijk?", ""]
    expected = theirs.encode([f"query: {text}" for text in questions], normalize_embeddings=True)
    assert (ours.embed_queries(questions) * expected).sum(axis=1).min() > 0.9995
    assert ours.count_tokens([]) == []
    assert ours.embed_passages([]).shape == (0, 384)
    counted = [len(theirs.tokenizer(text, add_special_tokens=False).input_ids) for text in passages]
    assert ours.count_tokens(passages) == counted
