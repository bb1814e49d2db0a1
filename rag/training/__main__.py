"""`python -m rag.training`: train the reader's adapter (or go on), export it, evaluate and calibrate it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from index.vocabulary import load_tokenizer, save_common
from index.weights import ensure_generator
from rag.answers import Style
from rag.calibration import Calibration
from rag.generator import load_reader_folder
from rag.training.calibrate import (
    ABSTAIN_AT,
    expected_calibration_error,
    fit,
    is_right,
    on_one_scale,
    out_of_fold,
    raw_confidence,
    reliability,
    risk_coverage_curve,
)
from rag.training.citing_last import CitingLastFormat
from rag.training.evaluate import Outcome, dev_sets, evaluate_set, read_outcomes, write_outcomes
from rag.training.export import ADAPTER_FOLDER, average_adapters, export_adapter, write_calibration
from rag.training.figures import share_figure
from rag.training.lora import LoraShape
from rag.training.report import agreement_lines, summary_lines
from rag.training.tokens import common_tokens, frequent_words
from rag.training.train import TrainConfig, train, with_share

app = typer.Typer(no_args_is_help=True, add_completion=False)

Folder = Annotated[Path, typer.Option(exists=True, file_okay=False)]
RunFolder = Annotated[Path, typer.Argument(exists=True, file_okay=False)]
Run = Annotated[Path, typer.Option(help="Checkpoints, vectors and logs; not part of the repository.")]


@app.command("train")
def train_command(
    base: Annotated[Path, typer.Option(help="The base model as a transformers folder.")],
    embedder: Annotated[Path, typer.Option(help="The embedding model as a sentence-transformers folder.")],
    shared: Annotated[Path, typer.Option(help="The folder with reader/, corpora/ and eval/.")],
    run: Run = Path("runs/reader"),
    minutes: Annotated[float, typer.Option(min=1)] = 90.0,
    rank: int = 32,
    alpha: int = 64,
    peak_rate: float = 4e-4,
    seed: int = 1,
    threads: int = 2,
    citing_last: Annotated[bool, typer.Option(help="The other answer format, for comparing.")] = False,
    start_from: Annotated[
        Path | None, typer.Option(help="An exported adapter to go on from, when the run starts anew.")
    ] = None,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="Of the adapter's inputs.")] = 0.0,
    own_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Contexts of the project's own passages, of all.")
    ] = None,
    into: Annotated[Path, typer.Option(help="Where the adapter is written at the end.")] = ADAPTER_FOLDER,
) -> None:
    """Train for `minutes`, or go on from the checkpoint in `run` until they are used; then export."""
    config = TrainConfig(
        base=base,
        embedder=embedder,
        shared=shared,
        run=run,
        budget_s=minutes * 60,
        seed=seed,
        rank=rank,
        alpha=alpha,
        peak_rate=peak_rate,
        threads=threads,
        citing_last=citing_last,
        start_from=start_from,
        dropout=dropout,
    )
    if own_share is not None:
        config = replace(config, mixture=with_share(config.mixture, "own", own_share))
    position = train(config)
    typer.echo(f"{position.questions} questions in {position.step} steps")
    if not citing_last:
        typer.echo(f"exported to {export_adapter(run, into, LoraShape(rank, alpha))}")


@app.command("export")
def export_command(
    run: Run = Path("runs/reader"), rank: int = 32, alpha: int = 64, into: Path = ADAPTER_FOLDER
) -> None:
    """Write the adapter of the run's last checkpoint, without a calibration."""
    typer.echo(f"exported to {export_adapter(run, into, LoraShape(rank, alpha))}")


@app.command("average")
def average_command(
    earlier: Annotated[Path, typer.Argument(exists=True, help="The adapter that the other went on from.")],
    later: Annotated[Path, typer.Argument(exists=True)],
    share: Annotated[float, typer.Option(min=0, max=1, help="How much of the later one.")] = 0.5,
    into: Path = ADAPTER_FOLDER,
) -> None:
    """Average two adapters of one run's path, weight by weight, without a calibration."""
    typer.echo(f"exported to {average_adapters(earlier, later, share, into)}")


@app.command("merge")
def merge_command(
    home: Annotated[Path, typer.Option(help="The folder under which models are materialised.")],
    adapter: Annotated[Path, typer.Option(exists=True)] = ADAPTER_FOLDER,
) -> None:
    """Merge an adapter into the bundled base model, as the product does, and say where it is."""
    typer.echo(ensure_generator(home, adapter=adapter))


@app.command("evaluate")
def evaluate_command(
    model: Annotated[Path, typer.Option(exists=True, help="The merged model as a transformers folder.")],
    embedder: Folder,
    shared: Folder,
    run: Run = Path("runs/reader"),
    style: Style = Style.SHORT,
    limit: Annotated[int, typer.Option(help="Questions a set, at least.")] = 10**9,
    threads: int = 2,
    citing_last: Annotated[bool, typer.Option(help="The model was trained on the other format.")] = False,
    plain: Annotated[bool, typer.Option(help="Transformers' forward pass, for comparing with ours.")] = False,
) -> None:
    """Answer the dev questions greedily, keep every outcome, and print the figures."""
    reader = load_reader_folder(model, threads=threads, plain=plain)
    if citing_last:
        reader = reader.with_format(CitingLastFormat)
    for dev in dev_sets(shared, embedder, run, style, limit):
        path = run / f"outcomes-{dev.name}-{style.value}.jsonl"
        _print_summary(write_outcomes(evaluate_set(reader, dev), path), 0.5)


@app.command("agree")
def agree_command(before: RunFolder, after: RunFolder) -> None:
    """Compare the outcomes of two runs of `evaluate`: how many answers are the same, and F1."""
    found = [
        [o for path in sorted(run.glob("outcomes-*-short.jsonl")) for o in read_outcomes(path)]
        for run in (before, after)
    ]
    for line in agreement_lines(*found):
        typer.echo(line)


@app.command("calibrate")
def calibrate_command(
    run: Run = Path("runs/reader"),
    into: Path = ADAPTER_FOLDER,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for reliability.svg and risk-coverage.svg.")
    ] = None,
) -> None:
    """Fit threshold and confidence on the outcomes of `evaluate`, and store them in the adapter's card."""
    outcomes = [o for path in sorted(run.glob("outcomes-*-short.jsonl")) for o in read_outcomes(path)]
    fitted = fit(outcomes)
    write_calibration(into, fitted)
    typer.echo(
        f"as likely as not at log odds of P(abstain) of {fitted.abstain_logits}; points {fitted.points}"
    )
    typer.echo("each question on a scale fitted without its fifth:")
    _print_summary(out_of_fold(outcomes), ABSTAIN_AT)
    outcomes = on_one_scale(outcomes, fitted)
    typer.echo("on the scale fitted on all:")
    _print_summary(outcomes, ABSTAIN_AT)
    answered = [o for o in outcomes if o.abstain_probability < ABSTAIN_AT]
    confidence = _confidence(answered, fitted)
    bins = reliability(confidence, np.array([is_right(o) for o in answered], dtype=np.float64))
    for each in bins:
        typer.echo(f"  confidence {each.confidence:.2f}  right {each.accuracy:.2f}  n {each.n}")
    typer.echo(f"expected calibration error {expected_calibration_error(bins):.3f}")
    curve = _risk_coverage(outcomes, fitted)
    for coverage, risk in curve:
        typer.echo(f"  coverage {coverage:.1f}  wrong {risk:.2f}")
    if figures:
        figures.mkdir(parents=True, exist_ok=True)
        (figures / "reliability.svg").write_text(
            share_figure(
                [(each.confidence, each.accuracy) for each in bins],
                "confidence",
                "share right",
                with_diagonal=True,
            ),
            "utf-8",
        )
        (figures / "risk-coverage.svg").write_text(
            share_figure(curve, "share answered", "share wrong of these"), "utf-8"
        )


@app.command("tokens")
def tokens_command(
    model: Annotated[Path, typer.Option(exists=True, help="A model's folder, for its tokenizer.")],
) -> None:
    """List the tokens that Dutch and English words use, which the output layer is restricted to."""
    tokenizer = load_tokenizer(model)
    common = common_tokens(tokenizer, frequent_words())
    save_common(tokenizer, common)
    typer.echo(f"{len(common)} of {tokenizer.get_vocab_size()} tokens")


def _risk_coverage(outcomes: Sequence[Outcome], fitted: Calibration) -> list[tuple[float, float]]:
    """Over all questions, the most confident first; an unanswerable one that is answered is wrong."""
    # The raw confidence breaks ties: the calibrated one is level between its points' ends.
    confidence = _confidence(outcomes, fitted) + 1e-9 * raw_confidence(outcomes)
    return risk_coverage_curve(confidence, np.array([is_right(o) for o in outcomes], dtype=np.float64))


def _confidence(outcomes: Sequence[Outcome], fitted: Calibration) -> NDArray[np.float64]:
    return np.array([fitted.probability(float(raw)) for raw in raw_confidence(outcomes)])


def _print_summary(outcomes: Sequence[Outcome], threshold: float) -> None:
    for line in summary_lines(outcomes, threshold):
        typer.echo(line)


if __name__ == "__main__":
    app()
