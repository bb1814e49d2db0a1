"""Big tables of a weights file whose rows stay in the file: only what was just looked up is in memory.

A table of embeddings is most of a small model, and a text needs a few hundred of its rows. The file is mapped,
rows are copied out, and the pages that this brought in are given back.
"""

import json
import math
import mmap
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

_ROWS_AT_ONCE = 16_384
_ROWS_KEPT = 256
"""A row looked up leaves up to 64 KiB of its neighbourhood behind: the kernel maps 16 pages at a fault."""


class Rows(Protocol):
    """What a lookup needs of a table (N, columns): a tensor is one too."""

    @property
    def dtype(self) -> "torch.dtype":
        """What the rows come in."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, ids: "torch.Tensor", /) -> "torch.Tensor":
        """Rows (*ids.shape, columns) of ids (…), copied."""
        ...


class MappedRows:
    """`Rows` of a file, converted to `dtype` as they are read. Safe to use from several threads."""

    def __init__(self, stored: "torch.Tensor", mapped: mmap.mmap, dtype: "torch.dtype") -> None:
        self.dtype = dtype
        self._stored, self._mapped = stored, mapped
        self._read = 0

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, ids: "torch.Tensor", /) -> "torch.Tensor":
        """See `Rows`."""
        import torch

        flat = ids.reshape(-1)
        rows = torch.empty(len(flat), self._stored.shape[1], dtype=self.dtype)
        for first in range(0, len(flat), _ROWS_AT_ONCE):
            part = flat[first : first + _ROWS_AT_ONCE]
            rows[first : first + len(part)] = self._stored[part]
            self._let_go(len(part))
        return rows.view(*ids.shape, rows.shape[1])

    def _let_go(self, count: int) -> None:
        """Gives the pages back every few hundred rows; whoever reads meanwhile only has them brought in again."""
        self._read += count
        if self._read >= _ROWS_KEPT:
            self._read = 0
            self._mapped.madvise(mmap.MADV_DONTNEED)


def read_weights(
    path: Path, tables: Collection[str], dtype: "torch.dtype"
) -> "tuple[dict[str, torch.Tensor], dict[str, MappedRows]]":
    """The tensors of a safetensors file as they are, and those named in `tables` as rows in `dtype`.

    A table that the file lacks is left out. Raises OSError, KeyError, ValueError, SafetensorError.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:  # checks that the file is whole
        names = set(file.keys())
        weights = {name: file.get_tensor(name) for name in names.difference(tables)}
    return weights, {name: _map_rows(path, name, dtype) for name in names.intersection(tables)}


def _map_rows(path: Path, name: str, dtype: "torch.dtype") -> MappedRows:
    import torch

    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        entry: dict[str, Any] = json.loads(file.read(header_bytes))[name]
        # Private and writable, since torch warns of memory that isn't; nothing ever writes to it.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    stored_type = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[entry["dtype"]]
    stored = torch.frombuffer(
        mapped,
        dtype=stored_type,
        count=math.prod(entry["shape"]),
        offset=8 + header_bytes + entry["data_offsets"][0],
    ).view(entry["shape"])
    return MappedRows(stored, mapped, dtype)
