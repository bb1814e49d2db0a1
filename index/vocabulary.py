"""A model's tokenizer, and the tokens of it that answers are written in, loaded quickly.

A tokenizer of a quarter of a million tokens takes seconds to build. Tokenizers does that without holding the
interpreter, so it runs beside the import of torch and the laying out of the weights. The writable tokens are
listed once, when the model is made.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from corpus.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

WRITABLE = "writable-2.npy"
"""The listed tokens beside a model; the number goes up when `list_writable` chooses others."""
COMMON = Path(__file__).parent / "common_tokens.npz"
"""Which tokens of the bundled generator the words of Dutch and English use (`python -m rag.training tokens`)."""
_WESTERN = re.compile("[\x00-\u024f\u2010-\u22ff\u2581]*")


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer in a transformers folder. Raises ModelError."""
    from tokenizers import Tokenizer

    try:
        # From bytes: as text it would take four times its size, and be copied once more.
        data = (folder / "tokenizer.json").read_bytes()
        return Tokenizer.from_buffer(data)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer of the model {folder} can't be loaded: {error}; fetch the models anew"
        ) from error


@contextmanager
def tokenizer_in_background(folder: Path) -> Iterator["Future[Tokenizer]"]:
    """`load_tokenizer` beside what is done meanwhile; its result raises what that raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as pool:
        yield pool.submit(load_tokenizer, folder)


def writable_tokens(tokens: Sequence[tuple[str, int]]) -> list[int]:
    """Ascending ids of the tokens in which western languages are written: Latin letters, digits, signs.

    Byte tokens and control tokens are among them, since their names are ASCII.
    """
    is_western = _WESTERN.fullmatch
    return sorted(token_id for text, token_id in tokens if is_western(text))


def list_writable(tokenizer: "Tokenizer") -> "NDArray[np.int32]":
    """Ascending ids of the tokens in which answers are written.

    Of the bundled generator's vocabulary those that Dutch and English use, of another all western ones. What
    is missing can still be copied from a prompt (`rag.gemma.Head.with_tokens`) or be spelt in smaller pieces.
    """
    vocabulary = tokenizer.get_vocab()
    western = np.array(writable_tokens(list(vocabulary.items())), np.int32)
    with np.load(COMMON, allow_pickle=False) as kept:
        if str(kept["vocabulary"]) != vocabulary_id(vocabulary):
            return western
        is_common = np.unpackbits(kept["bits"]).astype(np.bool_)
    common: NDArray[np.int32] = western[is_common[western]]
    return common


def save_common(tokenizer: "Tokenizer", common: Iterable[int], path: Path = COMMON) -> None:
    """Writes which tokens are common, a bit to each of the vocabulary."""
    vocabulary = tokenizer.get_vocab()
    is_common = np.zeros(max(vocabulary.values()) + 1, np.bool_)
    is_common[list(common)] = True
    np.savez_compressed(path, bits=np.packbits(is_common), vocabulary=np.array(vocabulary_id(vocabulary)))


def vocabulary_id(vocabulary: Mapping[str, int]) -> str:
    """SHA-256 of the tokens in the order of their ids."""
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return hashlib.sha256("\n".join(ordered).encode("utf-8", "surrogatepass")).hexdigest()


def save_writable(folder: Path) -> None:
    """Writes the list beside the model in a folder."""
    np.save(folder / WRITABLE, list_writable(load_tokenizer(folder)))


def read_writable(folder: Path) -> "NDArray[np.int32] | None":
    """The list beside a model, None where an earlier version made the folder. Raises ModelError."""
    path = folder / WRITABLE
    if not path.is_file():
        return None
    try:
        ids: NDArray[np.int32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} can't be read: {error}; delete it") from error
    return ids
