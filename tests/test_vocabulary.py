"""The tokenizer beside a model, and the list of what it can write."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from corpus.errors import ModelError
from index.vocabulary import (
    WRITABLE,
    load_tokenizer,
    read_writable,
    save_writable,
    tokenizer_in_background,
    writable_tokens,
)

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
