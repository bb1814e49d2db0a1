"""`vraagbaak bench`: the benchmarks of `eval.bench` as a table or as JSON, kept by commit where asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.console import exits_on_error, model_progress, note, print_json

if TYPE_CHECKING:
    from eval.bench_limits import ModelSize
    from eval.bench_report import BenchReport
    from rag.settings import Settings

app = typer.Typer(help="Measure ingest, search, ask and start on this machine.", no_args_is_help=True)

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Which collection.")]
SetOption = Annotated[Path, typer.Option("--set", help="An evaluation set, for its questions.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many of its questions.")]
RepeatOption = Annotated[int, typer.Option("--repeat", min=1, help="How many times.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]
SaveOption = Annotated[
    Path | None,
    typer.Option("--save", metavar="FOLDER", help="Also write it as JSON under FOLDER/<commit>/."),
]


@app.command("ingest")
def bench_ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", metavar="PATH…")],
    repeat: RepeatOption = 3,
    as_json: JsonOption = False,
    save: SaveOption = None,
) -> None:
    """Documents into a throw-away collection."""
    from api.runtime import open_embedder
    from eval.bench import bench_ingest
    from rag.settings import load_settings

    with exits_on_error(), model_progress() as told:
        settings = load_settings()
        embedder = open_embedder(settings, told)
        report = bench_ingest(paths, embedder, settings.read_limits(), repeat, _embedder_size(settings))
        _show(report, as_json, save)


@app.command("search")
def bench_search(
    questions: SetOption,
    collection: CollectionOption = "default",
    limit: LimitOption = 100,
    chunks: Annotated[
        int, typer.Option("--chunks", min=0, help="Grow a throw-away copy to so many passages first.")
    ] = 0,
    as_json: JsonOption = False,
    save: SaveOption = None,
) -> None:
    """Questions of a set, one at a time, in all three modes."""
    import tempfile

    from api.runtime import open_library
    from eval.bench import bench_search, grow
    from rag.settings import load_settings

    with exits_on_error(), model_progress() as told, tempfile.TemporaryDirectory() as folder:
        settings = load_settings()
        with open_library(settings, told).open(collection) as opened:
            searched = grow(opened, Path(folder) / "grown", chunks) if chunks else opened
            asked = _questions(questions, limit)
            report = bench_search(searched, asked, settings.top_k, _embedder_size(settings))
            if chunks:
                searched.close()
        _show(report, as_json, save)


@app.command("ask")
def bench_ask(
    questions: SetOption,
    collection: CollectionOption = "default",
    limit: LimitOption = 20,
    short: Annotated[bool, typer.Option("--short", help="A few words instead of a sentence.")] = False,
    as_json: JsonOption = False,
    save: SaveOption = None,
) -> None:
    """Questions of a set, one at a time, by stage and by token."""
    from api.runtime import open_answerer, open_library, open_reader
    from eval.bench import TimedReader, bench_ask
    from rag.answers import Style
    from rag.settings import load_settings

    settings = load_settings()
    with exits_on_error(), model_progress() as told, open_library(settings, told).open(collection) as opened:
        reader = TimedReader(open_reader(settings, told))
        answerer = open_answerer(opened, reader, settings)
        style = Style.SHORT if short else Style.FULL
        report = bench_ask(answerer, reader, _questions(questions, limit), style, _reader_size(settings))
        _show(report, as_json, save)


@app.command("start")
def bench_start(
    question: Annotated[str, typer.Argument(help="The first question.")] = "Wat is een AI-fabriek?",
    collection: CollectionOption = "default",
    repeat: RepeatOption = 5,
    as_json: JsonOption = False,
    save: SaveOption = None,
) -> None:
    """A cold process: its help and its first answer, with the peak of its memory."""
    from eval.bench import bench_start

    with exits_on_error():
        _show(bench_start(collection, question, repeat), as_json, save)


def _questions(path: Path, limit: int) -> list[str]:
    from eval.cases import read_cases

    return [case.question for case in read_cases(path, limit)]


def _embedder_size(settings: "Settings") -> "ModelSize | None":
    from index.weights import ensure_embedder

    bundled = ensure_embedder(settings.home) if settings.embedder == "bundled" else None
    return _size_of(bundled or Path(settings.embedder).expanduser())


def _reader_size(settings: "Settings") -> "ModelSize | None":
    from index.weights import ensure_generator
    from rag.generator import BUNDLED, bundled_adapter

    bundled = ensure_generator(settings.home, bundled_adapter()) if settings.generator == BUNDLED else None
    return _size_of(bundled or Path(settings.generator).expanduser())


def _size_of(folder: Path) -> "ModelSize | None":
    """None for a hub name: its files are somewhere in a cache, and its figures then stand without limits."""
    from eval.bench_limits import read_model_size

    return read_model_size(folder) if folder.is_dir() else None


def _show(report: "BenchReport", as_json: bool, save: Path | None) -> None:
    if save is not None:
        note(f"kept in {report.save(save)}")
    if as_json:
        print_json(report.to_dict())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "n", "min", "median", "max", "limit", "reached")
    for figure in report.figures:
        table.add_row(*figure.row())
    console = Console()
    console.print(table)
    for basis in dict.fromkeys(f"{f.name}: {f.limit.basis}" for f in report.figures if f.limit):
        console.print(f"limit of {basis}", highlight=False)
