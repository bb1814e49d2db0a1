"""Settings to live objects: which library, embedder and reader a command or the service works with."""

from collections.abc import Callable
from pathlib import Path

from index.collection import Collection
from index.embedder import Embedder, load_embedder
from index.library import Library
from rag.answerer import Answerer
from rag.reading import Reader
from rag.settings import Settings

ModelProgress = Callable[[str, float], None]
SAMPLES = Path(__file__).resolve().parent.parent / "corpus" / "samples"


def open_embedder(settings: Settings, on_progress: ModelProgress | None = None) -> Embedder:
    """The embedding model of the settings; the bundled one is loaded when it is first used."""
    return load_embedder(
        settings.embedder, settings.home, threads=settings.threads or None, on_progress=on_progress
    )


def open_library(settings: Settings, on_progress: ModelProgress | None = None) -> Library:
    """The collections under the settings' home."""
    return Library(
        settings.home, open_embedder(settings, on_progress), settings.chunking(), settings.fusion()
    )


def open_reader(settings: Settings, on_progress: ModelProgress | None = None) -> Reader:
    """The generator of the settings, loaded."""
    from rag.generator import load_reader

    return load_reader(
        settings.generator,
        home=settings.home,
        limits=settings.reader_limits(),
        threads=settings.threads,
        on_progress=on_progress,
    )


def open_answerer(collection: Collection, reader: Reader, settings: Settings) -> Answerer:
    """What answers from one collection."""
    return Answerer(collection, reader, collection.embedder, settings.answerer())
