"""Throw-away collections for `--corpus`: built once for the same files, model and chunking."""

import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

from corpus.chunking import ChunkingConfig
from corpus.document import Document
from corpus.errors import DocumentError, EvaluationError, StorageError
from corpus.files import SourceFile, find_files
from corpus.limits import ReadLimits
from eval.cases import EvalCase
from index.collection import DATABASE, Collection
from index.embedder import Embedder
from index.fusion import FusionConfig
from index.ingest import Fate, IngestEvent, ingest

FOLDER = "evaluations"
COMPLETE = "complete.json"
WHOLE_PASSAGES = ChunkingConfig(target_tokens=480, max_tokens=480, min_tokens=0)
"""For passages that were cut before: each stays whole as far as the embedding model reads."""

OnProgress = Callable[[int, int], None]
"""Told how many documents are in, and how many there are about."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A collection to evaluate on; `failed` says which files aren't in it and why."""

    collection: Collection
    failed: tuple[str, ...]
    was_cached: bool


def open_corpus(
    paths: Sequence[Path],
    passages: Sequence[Document] = (),
    *,
    home: Path,
    embedder: Embedder,
    chunking: ChunkingConfig | None = None,
    fusion: FusionConfig | None = None,
    limits: ReadLimits | None = None,
    on_progress: OnProgress | None = None,
) -> Corpus:
    """The collection of these files and passages, from the cache under `home` where it was built before.

    A build that was broken off is gone on with. Raises EvaluationError where nothing can be read at all,
    CollectionLockedError while another process builds the same.
    """
    # Ingesting refuses a path with ".."; what was typed here is meant.
    found = list(find_files(path.resolve() for path in paths))
    files = [item for item in found if isinstance(item, SourceFile)]
    if not files and not passages:
        reasons = "; ".join(str(item) for item in found if isinstance(item, DocumentError))
        raise EvaluationError(f"there is nothing to read in the corpus ({reasons or 'it is empty'})")
    how = chunking or (ChunkingConfig() if files else WHOLE_PASSAGES)
    folder = home / FOLDER / _key(files, passages, embedder, how)
    name = ", ".join([*(path.resolve().name for path in paths), *(["passages"] if passages else [])])
    if (folder / COMPLETE).is_file():
        return Corpus(Collection.open(folder, embedder, fusion), _read_failed(folder), was_cached=True)
    if (folder / DATABASE).is_file():
        collection = Collection.open(folder, embedder, fusion)
    else:
        collection = Collection.create(folder, name, embedder, how, fusion)
    try:
        failed = _fill(collection, paths, files, passages, limits, on_progress)
        _write_failed(folder, failed)
    except BaseException:
        collection.close()
        raise
    return Corpus(collection, failed, was_cached=False)


def _key(
    files: Iterable[SourceFile], passages: Iterable[Document], embedder: Embedder, chunking: ChunkingConfig
) -> str:
    content = {
        "files": sorted((file.id, file.sha256) for file in files),
        "passages": sorted((passage.id, passage.sha256) for passage in passages),
        "embedder": asdict(embedder.spec),
        "chunking": asdict(chunking),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _fill(
    collection: Collection,
    paths: Sequence[Path],
    files: Sequence[SourceFile],
    passages: Sequence[Document],
    limits: ReadLimits | None,
    on_progress: OnProgress | None,
) -> tuple[str, ...]:
    total = len(passages) + sum(_documents_in(file) for file in files)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(min(done, total), total)

    def on_event(event: IngestEvent) -> None:
        tell(event.fate in (Fate.ADDED, Fate.REPLACED, Fate.UNCHANGED))

    known = collection.sha256s()
    new = [passage for passage in passages if known.get(passage.id) != passage.sha256]
    tell(len(passages) - len(new))
    with collection.writing(lambda _: tell(1)) as writer:
        for passage in new:
            writer.put(passage)
    if not files:
        return ()
    report = ingest(collection, [path.resolve() for path in paths], limits=limits, on_event=on_event)
    return tuple(f"{Path(error.source).name}: {error.reason}" for error in report.failed)


def _documents_in(file: SourceFile) -> int:
    """Lines of a .jsonl, for showing progress; any other file is one document."""
    if ".jsonl" not in file.path.suffixes:
        return 1
    try:
        with _opened(file.path) as lines:
            return sum(1 for line in lines if line.strip())
    except (OSError, EOFError, lzma.LZMAError):
        # Ingesting says what is wrong with it.
        return 1


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _read_failed(folder: Path) -> tuple[str, ...]:
    try:
        content = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        return tuple(map(str, content["failed"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{folder} is damaged ({error}); delete it, and it is built again") from error


def _write_failed(folder: Path, failed: Sequence[str]) -> None:
    """Written last: a folder that has it is whole."""
    partial = folder / f".{COMPLETE}.partial"
    try:
        partial.write_text(json.dumps({"failed": list(failed)}, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, folder / COMPLETE)
    except OSError as error:
        raise StorageError(f"{folder} can't be written ({error.strerror or error})") from error


def passages_of(cases: Iterable[EvalCase]) -> list[Document]:
    """The passages that cases bring along, each once."""
    return list({case.passage.id: case.passage for case in cases if case.passage}.values())
