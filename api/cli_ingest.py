"""`vraagbaak ingest`: a progress bar by file, what failed and why, and what to type next."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.console import model_progress, note, print_json
from api.runtime import open_library
from corpus.errors import DocumentError, MissingPathError
from index.embedder import LazyEmbedder
from index.ingest import Fate, IngestEvent, IngestReport, ingest
from rag.settings import Settings


def run_ingest(
    settings: Settings, paths: Sequence[Path], collection: str, *, prune: bool, as_json: bool
) -> None:
    """Raises the first file's error at the end where nothing at all went in, so that a script notices."""
    _check_paths(paths)
    with model_progress() as told:
        library = open_library(settings, told)
        if isinstance(library.embedder, LazyEmbedder):
            library.embedder.load()
    with library.open_or_create(collection) as opened, _bar() as progress:
        task = progress.add_task("reading", total=None)

        def follow(event: IngestEvent) -> None:
            if event.fate is Fate.FAILED:
                line = f"[yellow]not read[/] {escape(event.source)}: {escape(event.reason)}"
                progress.console.print(line, soft_wrap=True)
            progress.update(
                task,
                completed=event.files_done,
                total=event.files_total or None,
                description=_shortened(event.source),
            )

        # A citation's source should lead to the file from wherever it is read.
        absolute = [path.absolute() for path in paths]
        report = ingest(opened, absolute, prune=prune, limits=settings.read_limits(), on_event=follow)
        progress.update(task, visible=False)
        stats = opened.stats()
    if as_json:
        failed = [{"source": error.source, "reason": error.reason} for error in report.failed]
        print_json(
            asdict(report) | {"failed": failed, "collection": collection, "documents": stats.documents}
        )
    else:
        typer.echo(summary(report))
        typer.echo(f"{collection} has {stats.documents} documents in {stats.chunks} passages")
        if report.added or report.replaced or report.unchanged:
            note('next: vraagbaak ask "…"')
    _raise_if_nothing_went_in(report)


def summary(report: IngestReport) -> str:
    """`3 added, 1 replaced, 2 failed`, without what didn't happen."""
    parts = [
        f"{count} {fate}"
        for fate, count in (
            (Fate.ADDED, report.added),
            (Fate.REPLACED, report.replaced),
            (Fate.UNCHANGED, report.unchanged),
            (Fate.REMOVED, report.removed),
            (Fate.FAILED, len(report.failed)),
        )
        if count
    ]
    return ", ".join(parts) or "nothing to read there: no file of a known kind"


def _raise_if_nothing_went_in(report: IngestReport) -> None:
    if report.failed and not (report.added or report.replaced or report.unchanged):
        error = report.failed[0]
        more = f" (and {len(report.failed) - 1} more)" if len(report.failed) > 1 else ""
        raise type(error)(error.source, error.reason + more) if more else error
    if not (report.added or report.replaced or report.unchanged or report.removed):
        raise DocumentError("ingest", "nothing was found to read; name files or folders with documents")


def _check_paths(paths: Sequence[Path]) -> None:
    """Before a model is loaded or a collection made for nothing."""
    if not any(path.exists() for path in paths):
        raise MissingPathError(str(paths[0]), "there is no such file or folder; check the name")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _shortened(source: str, width: int = 40) -> str:
    return escape(source if len(source) <= width else "…" + source[-width + 1 :])
