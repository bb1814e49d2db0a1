"""`vraagbaak bench`: the benchmarks of `eval.bench` as a table or as JSON."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.console import exits_on_error, model_progress, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eval.bench import Figure

app = typer.Typer(help="Measure ingest, search, ask and start on this machine.", no_args_is_help=True)

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Which collection.")]
SetOption = Annotated[Path, typer.Option("--set", help="An evaluation set, for its questions.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many of its questions.")]
RepeatOption = Annotated[int, typer.Option("--repeat", min=1, help="How many times.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]


@app.command("ingest")
def bench_ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", metavar="PATH…")],
    repeat: RepeatOption = 3,
    as_json: JsonOption = False,
) -> None:
    """Documents into a throw-away collection."""
    from api.runtime import open_embedder
    from eval.bench import bench_ingest, machine_limits, peak_memory
    from rag.settings import load_settings

    with exits_on_error(), model_progress() as told:
        settings = load_settings()
        figures = bench_ingest(paths, open_embedder(settings, told), settings.read_limits(), repeat)
        _print([*figures, peak_memory(), *machine_limits()], as_json)


@app.command("search")
def bench_search(
    questions: SetOption,
    collection: CollectionOption = "default",
    limit: LimitOption = 100,
    chunks: Annotated[
        int, typer.Option("--chunks", min=0, help="Grow a throw-away copy to so many passages first.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Questions of a set, one at a time, in all three modes."""
    import tempfile

    from api.runtime import open_library
    from eval.bench import bench_search, grow, machine_limits, peak_memory
    from rag.settings import load_settings

    with exits_on_error(), model_progress() as told, tempfile.TemporaryDirectory() as folder:
        with open_library(load_settings(), told).open(collection) as opened:
            searched = grow(opened, Path(folder) / "grown", chunks) if chunks else opened
            figures = bench_search(searched, _questions(questions, limit))
            if chunks:
                searched.close()
        _print([*figures, peak_memory(), *machine_limits()], as_json)


@app.command("ask")
def bench_ask(
    questions: SetOption,
    collection: CollectionOption = "default",
    limit: LimitOption = 20,
    short: Annotated[bool, typer.Option("--short", help="A few words instead of a sentence.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Questions of a set, one at a time, by stage."""
    from api.runtime import open_answerer, open_library, open_reader
    from eval.bench import bench_ask, machine_limits, peak_memory
    from rag.answers import Style
    from rag.settings import load_settings

    settings = load_settings()
    with exits_on_error(), model_progress() as told, open_library(settings, told).open(collection) as opened:
        answerer = open_answerer(opened, open_reader(settings, told), settings)
        style = Style.SHORT if short else Style.FULL
        figures = bench_ask(answerer, _questions(questions, limit), style)
        _print([*figures, peak_memory(), *machine_limits()], as_json)


@app.command("start")
def bench_start(
    question: Annotated[str, typer.Argument(help="The first question.")] = "Wat is een AI-fabriek?",
    collection: CollectionOption = "default",
    repeat: RepeatOption = 5,
    as_json: JsonOption = False,
) -> None:
    """A cold process: its help and its first answer, with the peak of its memory."""
    from eval.bench import bench_start

    with exits_on_error():
        _print(bench_start(collection, question, repeat), as_json)


def _questions(path: Path, limit: int) -> list[str]:
    from eval.cases import read_cases

    return [case.question for case in read_cases(path, limit)]


def _print(figures: "Sequence[Figure]", as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "cores": os.cpu_count(),
                "figures": [{"name": f.name, "unit": f.unit, "values": f.values} for f in figures],
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "n", "min", "median", "max")
    for figure in figures:
        table.add_row(*figure.row())
    Console().print(table)
