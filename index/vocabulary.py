"""A model's tokenizer, and the tokens of it that answers are written in, loaded quickly.

A tokenizer of a quarter of a million tokens takes seconds to build. Tokenizers does that without holding the
interpreter, so it runs beside the import of torch and the laying out of the weights. The writable tokens are
listed once, when the model is made.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from corpus.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

WRITABLE = "writable-1.npy"
"""The listed tokens beside a model; the number goes up when `writable_tokens` chooses others."""
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
    """Ascending ids of the tokens in which Dutch and English are written: Latin letters, digits, signs.

    Byte tokens and control tokens are among them, since their names are ASCII.
    """
    is_western = _WESTERN.fullmatch
    return sorted(token_id for text, token_id in tokens if is_western(text))


def list_writable(tokenizer: "Tokenizer") -> "NDArray[np.int32]":
    """The same of a tokenizer."""
    return np.array(writable_tokens(list(tokenizer.get_vocab().items())), np.int32)


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
