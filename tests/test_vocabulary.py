"""The tokenizer beside a model, and the list of what it can write."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Replace

from corpus.errors import ModelError
from index import vocabulary
from index.vocabulary import (
    COMMON,
    WRITABLE,
    list_writable,
    load_tokenizer,
    read_writable,
    save_common,
    save_writable,
    tokenizer_in_background,
    writable_tokens,
)
from rag.training.tokens import common_tokens

VOCABULARY = {"a": 0, "漢": 1, "é": 2, "▁": 3, "д": 4, "<0x0A>": 5, "aé": 6, "a漢": 7, "…": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Tokenizer(BPE(VOCABULARY, [("a", "é")])).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_writable_are_latin_letters_signs_and_bytes() -> None:
    assert writable_tokens(list(VOCABULARY.items())) == [0, 2, 3, 5, 6, 8]


def test_the_list_is_kept_beside_the_model(folder: Path) -> None:
    assert read_writable(folder) is None
    save_writable(folder)
    kept = read_writable(folder)
    assert kept is not None
    assert kept.dtype == np.int32
    assert kept.tolist() == [0, 2, 3, 5, 6, 8]


def test_common_tokens_restrict_the_list_of_their_own_vocabulary_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(folder)
    monkeypatch.setattr(vocabulary, "COMMON", folder / "common.npz")
    save_common(tokenizer, [0, 1, 8], folder / "common.npz")
    # 1 is common, but no western token.
    assert list_writable(tokenizer).tolist() == [0, 8]
    renamed = {token if token != "é" else "e": token_id for token, token_id in VOCABULARY.items()}
    assert list_writable(Tokenizer(BPE(renamed, []))).tolist() == [0, 2, 3, 5, 6, 8]


def test_common_tokens_are_those_of_words_and_what_spells_anything() -> None:
    tokens = [
        "a",
        "t",
        "at",
        "▁",
        "▁a",
        "▁at",
        "▁At",
        "ATA",
        "<0x0A>",
        "…",
        "漢",
        "ata",
        "tat",
        "▁ata",
        "▁tat",
    ]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    merges = [("a", "t"), ("at", "a"), ("▁", "ata"), ("▁", "a")]
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.normalizer = Replace(" ", "▁")
    found = {tokens[token_id] for token_id in common_tokens(tokenizer, ["ata"])}
    # No word has "tat"; "ATA" can't be reached by merges, so its letters aren't known either.
    assert found == {"a", "t", "at", "▁", "▁a", "▁at", "▁At", "<0x0A>", "…", "ata", "▁ata"}


@pytest.mark.model
def test_the_common_tokens_are_those_of_the_bundled_generator(models_home: Path) -> None:
    from index.weights import ensure_generator
    from rag.generator import bundled_adapter

    tokenizer = load_tokenizer(ensure_generator(models_home, bundled_adapter()))
    listed = list_writable(tokenizer)
    assert COMMON.is_file()
    assert 50_000 < len(listed) < 110_000
    known = set(listed.tolist())
    text = "De vergunningplicht geldt niet: een Rijksmonument kost 1.250 euro. Don't reapply (BSN) at 10%!"
    assert [
        token for token in tokenizer.encode(text, add_special_tokens=False).ids if token not in known
    ] == []


@pytest.mark.parametrize("damage", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_list_is_an_error_with_its_name(folder: Path, damage: bytes) -> None:
    (folder / WRITABLE).write_bytes(damage)
    with pytest.raises(ModelError, match=rf"{WRITABLE} can't be read"):
        read_writable(folder)


def test_the_tokenizer_is_the_files(folder: Path) -> None:
    assert load_tokenizer(folder).encode("aé").ids == [6]
    with tokenizer_in_background(folder) as loading:
        assert loading.result().get_vocab() == VOCABULARY


@pytest.mark.parametrize("change", ["absent", "cut", "other"])
def test_a_broken_tokenizer_is_an_error_with_its_folders_name(folder: Path, change: str) -> None:
    path = folder / "tokenizer.json"
    data = path.read_bytes()
    path.unlink()
    if change != "absent":
        path.write_bytes(data[:-20] if change == "cut" else b'{"model": 3}')
    with pytest.raises(ModelError, match=f"tokenizer of the model {folder} can't be loaded"):
        load_tokenizer(folder)
    with tokenizer_in_background(folder) as loading, pytest.raises(ModelError):
        loading.result()
