"""Reads `e5-small-q4.bin`, multilingual-e5-small in 4 bits, and writes a sentence-transformers folder.

The file, little endian: magic "E5S1", u32 version, nine model sizes, the SentencePiece unigram vocabulary
(ids, offsets, scores, UTF-8 pieces), a normalisation table, then a directory of named tensors, each float32 or
Q4_0: blocks of 18 bytes, a float16 scale and 32 nibbles (16 low ones first), value = (nibble - 8) * scale.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corpus.errors import ModelError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

MAGIC = b"E5S1"
FLOAT32 = 0
BLOCK_BYTES = 18
METASPACE = "▁"

LAYER_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""A tensor's short name in the file and its place in a BERT layer."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The model's dimensions, in the order in which the file has them."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int


class PackedModel:
    """The parsed file: `sizes`, the vocabulary and `tensor(name)`."""

    def __init__(self, packed: bytes) -> None:
        if packed[:4] != MAGIC:
            raise ModelError(f"the embedding model's file starts with {packed[:4]!r} instead of {MAGIC!r}")
        self._packed = packed
        self._at = 8
        self.sizes = Sizes(*self._take("<7i"))
        self.layer_norm_epsilon, _ = self._take("<fi")
        n_pieces, self.bos, self.eos, self.pad, self.unk = self._take("<5i")
        self.pieces = self._vocabulary(n_pieces)
        _, table_bytes = self._take("<iI")
        self._at += table_bytes
        self._directory = self._read_directory()

    def _take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._packed, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _array(self, dtype: str, count: int) -> NDArray[np.generic]:
        array = np.frombuffer(self._packed, dtype, count, self._at)
        self._at += array.nbytes
        return array

    def _vocabulary(self, n_pieces: int) -> list[tuple[str, float]]:
        """The pieces with their log probabilities, padded to the embedding table's rows."""
        (blob_bytes,) = self._take("<Q")
        offsets = [int(offset) for offset in self._array("<u4", n_pieces + 1)]
        scores = [float(score) for score in self._array("<f4", n_pieces)]
        blob = self._packed[self._at : self._at + blob_bytes]
        self._at += blob_bytes
        pieces = [
            (blob[start:end].decode(), score)
            for start, end, score in zip(offsets, offsets[1:], scores, strict=False)
        ]
        return pieces + [(f"<extra_{i}>", -100.0) for i in range(n_pieces, self.sizes.vocabulary)]

    def _read_directory(self) -> dict[str, tuple[int, int, int]]:
        (n_tensors,) = self._take("<i")
        directory = {}
        for _ in range(n_tensors):
            (length,) = self._take("<H")
            name = self._packed[self._at : self._at + length].decode()
            self._at += length
            dtype, _, offset, n_bytes = self._take("<BIQQ")
            directory[name] = (dtype, offset, n_bytes)
        return directory

    def tensor(self, name: str) -> "torch.Tensor":
        """The named tensor, flat, in float32."""
        import torch

        dtype, offset, n_bytes = self._directory[name]
        if dtype == FLOAT32:
            return torch.from_numpy(np.frombuffer(self._packed, "<f4", n_bytes // 4, offset).copy())
        blocks = np.frombuffer(self._packed, np.uint8, n_bytes, offset).reshape(-1, BLOCK_BYTES)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
        nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
        return torch.from_numpy((nibbles * scales).ravel())

    def state(self) -> dict[str, "torch.Tensor"]:
        """Flat tensors under the names that transformers' BertModel gives them."""
        import torch

        sizes = self.sizes
        types = self.tensor("emb.type")
        missing = sizes.token_types * sizes.hidden - len(types)
        tensors = {
            "embeddings.word_embeddings.weight": self.tensor("emb.word"),
            "embeddings.position_embeddings.weight": self.tensor("emb.pos"),
            "embeddings.token_type_embeddings.weight": torch.cat([types, torch.zeros(missing)]),
            "embeddings.LayerNorm.weight": self.tensor("emb.ln.w"),
            "embeddings.LayerNorm.bias": self.tensor("emb.ln.b"),
        }
        for name in self._directory:
            if name.startswith("l"):
                layer, part, kind = name.split(".")
                place = f"encoder.layer.{layer[1:]}.{LAYER_PARTS[part]}"
                tensors[f"{place}.{'weight' if kind == 'w' else 'bias'}"] = self.tensor(name)
        return tensors


def _tokenizer(model: PackedModel) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(model.pieces, unk_id=model.unk, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(METASPACE, "always", split=True)
    tokenizer.decoder = decoders.Metaspace(METASPACE, "always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", model.bos), ("</s>", model.eos)],
    )
    return tokenizer


def write_sentence_transformer(packed: bytes, folder: Path) -> None:
    """Writes the model as a sentence-transformers folder, float16, mean pooling, unit length, E5's prompts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    model = PackedModel(packed)
    sizes = model.sizes
    config = BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.feed_forward,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.token_types,
        layer_norm_eps=model.layer_norm_epsilon,
        pad_token_id=model.pad,
    )
    with torch.device("meta"):
        bert = BertModel(config, add_pooling_layer=False)
    shapes = {name: parameter.shape for name, parameter in bert.state_dict().items()}
    state = {name: tensor.reshape(shapes[name]).half() for name, tensor in model.state().items()}
    bert = BertModel(config, add_pooling_layer=False)
    for parameter in bert.parameters():
        parameter.data = parameter.data.half()
    bert.load_state_dict(state)
    bare = folder / "bare"
    bert.save_pretrained(bare)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_tokenizer(model),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_max_length=sizes.positions,
    ).save_pretrained(bare)
    transformer = Transformer(
        str(bare),
        max_seq_length=sizes.positions,
        model_kwargs={"add_pooling_layer": False, "dtype": torch.float16},
    )
    SentenceTransformer(
        modules=[transformer, Pooling(sizes.hidden, "mean"), Normalize()],
        # Under "document" too: encode_document looks there first and would find an empty prompt.
        prompts={"query": "query: ", "passage": "passage: ", "document": "passage: "},
        device="cpu",
    ).save(str(folder), create_model_card=False)
    for file in bare.iterdir():
        file.unlink()
    bare.rmdir()
