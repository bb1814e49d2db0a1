"""SIGKILL at random instants: the collection opens, answers, and has every acknowledged document."""

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_fakes import WordEmbedder

import index.dense
import index.lexical
from index.collection import Collection
from index.hits import SearchMode

KILLS = 30

# Chunks from which vectors are kept as codes, and chunks in a part of the lexical index: as the product has
# them, and so few that killing meets both again and again.
SIZES = [(100_000, 100_000), (150, 90)]

# Both print a document's id once it is acknowledged. One replaces, adds and deletes as it goes; the other
# ingests a folder of files.
WRITE = """
import sys
from pathlib import Path
import index.dense, index.lexical, index.writer
from index_fakes import WordEmbedder, document
from index.collection import Collection
index.writer.FLUSH_CHUNKS = 8
index.dense.EXACT_UP_TO, index.lexical.PART_CHUNKS = int(sys.argv[3]), int(sys.argv[4])
round_number = int(sys.argv[2])
with Collection.open(Path(sys.argv[1]), WordEmbedder()) as collection:
    print("open", flush=True)
    with collection.writing(lambda stored: print("stored", stored.document_id, flush=True)) as writer:
        for number in range(400):
            writer.put(document(round_number * 1000 + number, words=150))
            if number % 25 == 24:
                gone = f"doc/{round_number * 1000 + number - 20}"
                print("deleting", gone, flush=True)
                writer.delete([gone])
"""
INGEST = """
import sys
from pathlib import Path
import index.dense, index.lexical, index.writer
from index_fakes import WordEmbedder, document
from index.collection import Collection
from index.ingest import ingest
index.writer.FLUSH_CHUNKS = 8
index.dense.EXACT_UP_TO, index.lexical.PART_CHUNKS = int(sys.argv[3]), int(sys.argv[4])
round_number = int(sys.argv[2])
folder = Path(sys.argv[1]).parent / f"files{round_number}"
folder.mkdir()
for number in range(200):
    (folder / f"{number}.txt").write_text(document(round_number * 1000 + number, words=150).text)
with Collection.open(Path(sys.argv[1]), WordEmbedder()) as collection:
    print("open", flush=True)
    ingest(collection, [folder], on_event=lambda event: print("stored", event.document_id, flush=True))
"""


@pytest.mark.parametrize("sizes", SIZES)
def test_nothing_acknowledged_is_lost(
    tmp_path: Path, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index.dense, "EXACT_UP_TO", sizes[0])
    monkeypatch.setattr(index.lexical, "PART_CHUNKS", sizes[1])
    folder = tmp_path / "c"
    Collection.create(folder, "c", WordEmbedder()).close()
    chance = random.Random(7)
    expected: set[str] = set()
    for round_number in range(KILLS if sizes == SIZES[0] else KILLS // 2):
        acknowledged, deleting = run_and_kill(folder, round_number, chance.randrange(1, 150), sizes)
        expected |= acknowledged
        with Collection.open(folder, WordEmbedder()) as collection:
            collection.check()
            there = {info.id for info in collection.documents(limit=100_000)}
            assert expected - deleting <= there, f"round {round_number}"
            expected -= deleting - there
            check_whole(collection)


def run_and_kill(
    folder: Path, round_number: int, lines: int, sizes: tuple[int, int]
) -> tuple[set[str], set[str]]:
    """Kills the writer after so many lines; returns what it acknowledged and what it may have deleted."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", INGEST if round_number % 2 else WRITE),
            *(str(folder), str(round_number), *map(str, sizes)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{Path.cwd()}:{Path(__file__).parent}", "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout is not None
    seen = [line for _, line in zip(range(lines), process.stdout, strict=False)]
    process.send_signal(signal.SIGKILL)
    seen += process.communicate()[0].splitlines(keepends=True)
    assert seen[:1] == ["open\n"]
    words = [line.split() for line in seen if line.endswith("\n") and " " in line]
    return (
        {word[1] for word in words if word[0] == "stored"},
        {word[1] for word in words if word[0] == "deleting"},
    )


def check_whole(collection: Collection) -> None:
    """Both indexes have exactly the store's chunks, and every document has all of its own."""
    with collection._store.reading() as transaction:
        count = transaction.chunk_count()
        keys = np.concatenate([keys for keys, _ in transaction.vectors_after(0)] or [np.empty(0, np.int64)])
        chunks = transaction.chunks_by_key(keys.tolist())
        assert len(chunks) == count == len(collection._dense)
        words = collection._lexical._indexes.values()
        assert sum(part.searcher().num_docs for part in words) == count
        rows = transaction._connection.execute(
            "SELECT chunk_count, (SELECT count(*) FROM chunks WHERE document_key = documents.key) FROM documents"
        )
        assert all(said == found for said, found in rows)
    if count:
        some = next(iter(chunks.values()))
        number = re.search(r"nummer\d+", collection.document(some.document_id).text)
        assert number is not None
        worded = collection.search(number[0], 3, SearchMode.LEXICAL)
        assert worded[0].chunk.document_id == some.document_id
        assert len(collection.search("water kaas", 10)) == min(10, count)
