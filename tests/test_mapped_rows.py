"""Rows that stay in their file, against the tensor that was written to it."""

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from index import mapped_rows
from index.mapped_rows import MappedRows, read_weights

ROWS, COLUMNS = 700, 48


def table(dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)).to(dtype)


def mapped(
    folder: Path, stored: torch.dtype = torch.bfloat16, dtype: torch.dtype = torch.bfloat16
) -> MappedRows:
    path = folder / "model.safetensors"
    # The bias shifts where the table begins.
    save_file({"a.bias": torch.ones(3, dtype=stored), "table": table(stored), "z": torch.ones(5)}, path)
    weights, tables = read_weights(path, ["table", "absent"], dtype)
    assert sorted(weights) == ["a.bias", "z"]
    assert weights["a.bias"].dtype == stored
    return tables["table"]


def resident_bytes(rows: MappedRows) -> int:
    """How much of the file's mapping is in memory, by the kernel's own account."""
    address = rows._stored.data_ptr()
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "Rss:":
            return int(line.split()[1]) * 1024
    raise AssertionError("the table isn't mapped")


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_are_those_of_the_table_in_the_type_asked_for(
    tmp_path: Path, stored: torch.dtype, dtype: torch.dtype
) -> None:
    rows = mapped(tmp_path, stored, dtype)
    ids = torch.tensor([[0, 699, 3], [3, 3, 350]])
    assert len(rows) == ROWS
    assert rows.dtype == dtype
    assert torch.equal(rows[ids], table(stored).to(dtype)[ids])


def test_any_number_of_rows_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_rows, "_ROWS_AT_ONCE", 16)
    rows, expected = mapped(tmp_path), table()

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.integers(0, ROWS - 1), max_size=60))
    def check(ids: list[int]) -> None:
        wanted = torch.tensor(ids, dtype=torch.long)
        assert torch.equal(rows[wanted], expected[wanted])

    check()


def test_what_was_looked_up_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"table": torch.zeros(100_000, 64)}, path)
    rows = read_weights(path, ["table"], torch.float32)[1]["table"]
    rows[torch.arange(100_000)]
    assert resident_bytes(rows) == 0
    rows[torch.tensor([5])]
    assert 0 < resident_bytes(rows) <= 128 * 1024


def test_several_threads_get_their_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_rows, "_ROWS_KEPT", 1)
    rows, expected = mapped(tmp_path), table()
    wrong = []

    def look(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(200):
            ids = torch.randint(0, ROWS, (40,), generator=generator)
            if not torch.equal(rows[ids], expected[ids]):
                wrong.append(ids)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_type_that_is_no_float_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"table": torch.zeros(4, 4, dtype=torch.int8)}, path)
    with pytest.raises(KeyError, match="I8"):
        read_weights(path, ["table"], torch.float32)
