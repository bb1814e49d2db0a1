"""`python -m rag.training`: train the reader's adapter, resume it, export it."""

from pathlib import Path
from typing import Annotated

import typer

from rag.training.train import TrainConfig, train

app = typer.Typer(no_args_is_help=True, add_completion=False)

Folder = Annotated[Path, typer.Option(exists=True, file_okay=False)]


@app.command("train")
def train_command(
    base: Folder,
    embedder: Folder,
    shared: Folder,
    run: Path = Path("runs/reader"),
    minutes: Annotated[float, typer.Option(min=1)] = 90.0,
    rank: int = 32,
    alpha: int = 64,
    peak_rate: float = 4e-4,
    seed: int = 1,
    threads: int = 2,
) -> None:
    """Train for `minutes`, or go on from the checkpoint in `run` until they are used."""
    config = TrainConfig(
        base,
        embedder,
        shared,
        run,
        minutes * 60,
        seed,
        rank,
        alpha,
        peak_rate=peak_rate,
        threads=threads,
    )
    position = train(config)
    typer.echo(f"{position.questions} questions in {position.step} steps; the adapter is in {run}")


@app.command()
def export() -> None:
    """Placeholder until the export lands."""
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
