"""`vraagbaak eval`: run a set, compare two runs, check a set, draft one.

Only typer is imported up here; the main command line mounts `app` as `eval`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.console import CANCELLED_EXIT_CODE, exits_on_error, model_progress, note, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from corpus.document import Document
    from eval.cases import Problem
    from eval.checking import CheckReport
    from eval.compare import Comparison
    from eval.corpora import OnProgress
    from eval.intervals import Difference, Estimate
    from eval.runner import RunProgress
    from eval.scoring import FindDocument
    from eval.summary import RunSettings, Summary
    from eval.systems import CollectionSystem, System
    from index.collection import Collection
    from index.hits import SearchMode
    from rag.answers import Style
    from rag.settings import Settings

app = typer.Typer(help="Measure how good it is on questions with known answers.", no_args_is_help=True)

SetArgument = Annotated[
    Path, typer.Argument(metavar="SET", help="The set: .jsonl, also as .xz or .gz.", show_default=False)
]
CorpusOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--corpus", metavar="PATH", help="Files or folders to run on, in a throw-away collection; repeatable."
    ),
]
CollectionOption = Annotated[
    str | None,
    typer.Option("--collection", "-c", help="A collection to run on ('default' without --corpus)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]

_SHOWN = (
    *("has_ans_f1", "has_ans_em", "no_ans_accuracy", "contains_answer", "answer_f1", "rouge_l"),
    *("answer_language", "citation_precision", "citation_recall", "citation_f1", "citation_span_f1"),
    *("verbatim_quotes", "invalid_markers", "abstained", "aurc", "coverage@5%risk"),
)
_SHOWN_FLIPS = 20
_SHOWN_PROBLEMS = 50


@app.command()
def run(
    set_file: SetArgument,
    collection: CollectionOption = None,
    corpus: CorpusOption = None,
    retrieval_only: Annotated[
        bool, typer.Option("--retrieval-only", help="Search, and don't answer: seconds instead of minutes.")
    ] = False,
    gold_passages: Annotated[
        int | None,
        typer.Option(
            "--gold-passages", metavar="K", min=1, max=9, help="Give the reader the gold one among K."
        ),
    ] = None,
    style: Annotated[str, typer.Option("--style", help="short or full answers.")] = "short",
    mode: Annotated[
        str, typer.Option("--mode", help="fused, dense, lexical, or all side by side.")
    ] = "fused",
    language: Annotated[
        list[str] | None,
        typer.Option("--language", help="Search only documents in nl, en or und; repeatable."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="The first N cases.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new folder; by default under runs/.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out that was broken off.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=256, help="Cases that are answered together.")
    ] = 16,
    as_json: JsonOption = False,
) -> None:
    """Run a set: writes cases.jsonl, summary.json and report.html, and prints the figures."""
    with exits_on_error():
        from eval.cases import read_cases
        from eval.runner import check_folder
        from eval.summary import RunSettings
        from rag.settings import load_settings

        own, modes = _modes(mode)
        chosen = RunSettings(
            retrieval_only,
            own,
            modes,
            gold_passages,
            _style(style),
            limit,
            batch_size=batch_size,
            document_languages=_languages(language or ()),
        )
        folder = _folder(out, resume, set_file)
        # What can be wrong with the arguments is told before any model is loaded.
        check_folder(folder, resume)
        brings_passages = next(read_cases(set_file)).passage is not None
        settings = load_settings()
        with _opened(settings, set_file, collection, corpus or [], brings_passages) as opened:
            system = _with_reader(opened, settings, retrieval_only)
            summary = _followed(system, set_file, chosen, folder, resume)
        _print_summary(summary, as_json)
        note(f"written to {folder}: cases.jsonl, summary.json, report.html")
        if not summary.complete:
            note(f"broken off; go on with the same command and: --out {folder} --resume")
            raise typer.Exit(CANCELLED_EXIT_CODE)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="The folder of the earlier run.")],
    after: Annotated[Path, typer.Argument(help="The folder of the later run.")],
    fail_below: Annotated[
        list[str] | None,
        typer.Option("--fail-below", metavar="METRIC=VALUE", help="Exit with 1 where AFTER is below."),
    ] = None,
    fail_if_worse: Annotated[
        list[str] | None,
        typer.Option("--fail-if-worse", metavar="METRIC=DELTA", help="Exit with 1 where AFTER lost more."),
    ] = None,
    every_group: Annotated[bool, typer.Option("--groups", help="Show every group, not only all.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs of one set, on the cases of both. A gate may name a group: f1/language=nl=0.5."""
    with exits_on_error():
        from eval.compare import Gate, check_gates, compare_runs

        below = [Gate.parse(text) for text in fail_below or ()]
        worse = [Gate.parse(text) for text in fail_if_worse or ()]
        comparison = compare_runs(before, after)
        if as_json:
            typer.echo(comparison.to_json())
        else:
            _print_comparison(comparison, every_group)
        check_gates(comparison, below, worse)


@app.command()
def check(
    set_file: SetArgument,
    collection: CollectionOption = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a set, by line and field; with --corpus or --collection also its documents."""
    with exits_on_error():
        from api.runtime import open_library
        from corpus.errors import EvalSetError, InputError
        from eval.checking import check_set
        from rag.settings import load_settings

        if corpus and collection:
            raise InputError("--collection and --corpus exclude each other; choose one")
        if corpus:
            report = check_set(set_file, _finder_of(_read_documents(corpus)))
        elif collection:
            with open_library(load_settings()).open(collection) as opened:
                report = check_set(set_file, opened.document)
        else:
            report = check_set(set_file)
        if as_json:
            print_json(_check_json(report))
        else:
            _print_check(report)
        if report.errors:
            raise EvalSetError(f"{set_file.name}: {len(report.errors)} errors")


@app.command("from-documents")
def from_documents(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Files and folders.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write the set.")] = None,
) -> None:
    """Draft a set out of headings that are questions; a person then reads and mends every line."""
    with exits_on_error():
        from corpus.errors import StorageError
        from eval.drafting import draft_cases, to_line

        documents = _read_documents(paths)
        lines = [to_line(case) for case in draft_cases(documents)]
        if out is None:
            for line in lines:
                typer.echo(line)
        else:
            try:
                out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            except OSError as error:
                raise StorageError(f"{out} can't be written ({error.strerror or error})") from error
        note(
            f"{len(lines)} questions in {len(documents)} documents; read and mend them, then: "
            "vraagbaak eval check"
        )


def _read_documents(paths: Sequence[Path]) -> "list[Document]":
    """All documents of files and folders, without a model; what can't be read is named on stderr."""
    from corpus import read
    from corpus.errors import DocumentError
    from rag.settings import load_settings

    documents = []
    for found in read([path.resolve() for path in paths], load_settings().read_limits()):
        if isinstance(found, DocumentError):
            note(f"not read: {found}")
        else:
            documents.append(found)
    return documents


def _finder_of(documents: "Sequence[Document]") -> "FindDocument":
    from corpus.errors import DocumentNotFoundError

    by_id = {document.id: document for document in documents}

    def find(name: str) -> "Document":
        if name not in by_id:
            raise DocumentNotFoundError(f"there is no document {name!r}")
        return by_id[name]

    return find


def _modes(mode: str) -> "tuple[SearchMode, tuple[SearchMode, ...]]":
    """The run's own mode, and all that are measured."""
    from corpus.errors import InputError
    from index.hits import SearchMode

    if mode == "all":
        return SearchMode.FUSED, tuple(SearchMode)
    if mode not in list(SearchMode):
        raise InputError(f"--mode {mode!r}: choose {', '.join(SearchMode)} or all")
    return SearchMode(mode), (SearchMode(mode),)


def _languages(languages: Sequence[str]) -> tuple[str, ...]:
    from corpus.errors import InputError

    for language in languages:
        if language not in ("nl", "en", "und"):
            raise InputError(f"--language {language!r}: documents are in nl, en or und")
    return tuple(sorted(set(languages)))


def _style(style: str) -> "Style":
    from corpus.errors import InputError
    from rag.answers import Style

    if style not in list(Style):
        raise InputError(f"--style {style!r}: choose {' or '.join(Style)}")
    return Style(style)


def _folder(out: Path | None, resume: bool, set_file: Path) -> Path:
    """The one that was named, or one under runs/ that isn't there yet."""
    from datetime import datetime

    from corpus.errors import InputError

    if out is not None:
        return out
    if resume:
        raise InputError("--resume needs --out: the folder of the run to go on with")
    stem = set_file.name.partition(".jsonl")[0]
    return Path("runs") / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def _opened(
    settings: "Settings",
    set_file: Path,
    collection: str | None,
    corpus: Sequence[Path],
    brings_passages: bool,
) -> Iterator["Collection"]:
    """The collection to run on: one that is there, or one made of files or of the set's own passages."""
    from api.runtime import open_library
    from corpus.errors import InputError
    from eval.cases import read_cases
    from eval.corpora import open_corpus, passages_of

    if collection and corpus:
        raise InputError("--collection and --corpus exclude each other; choose one")
    with model_progress() as told:
        library = open_library(settings, told)
        if not corpus and not brings_passages:
            with library.open(collection or "default") as opened:
                yield opened
            return
        with _corpus_progress() as on_progress:
            built = open_corpus(
                corpus,
                passages_of(read_cases(set_file)) if brings_passages else (),
                home=settings.home,
                embedder=library.embedder,
                chunking=settings.chunking() if corpus else None,
                fusion=settings.fusion(),
                limits=settings.read_limits(),
                on_progress=on_progress,
            )
        for failure in built.failed:
            note(f"not read: {failure}")
        with built.collection as opened:
            yield opened


@contextmanager
def _corpus_progress() -> Iterator["OnProgress"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("building the corpus"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _with_reader(collection: "Collection", settings: "Settings", retrieval_only: bool) -> "CollectionSystem":
    from eval.systems import CollectionSystem, MeteredReader

    if retrieval_only:
        return CollectionSystem(collection)
    from api.runtime import open_answerer, open_reader

    with model_progress() as told:
        reader = MeteredReader(open_reader(settings, told))
    answerer = open_answerer(collection, reader, settings)
    return CollectionSystem(collection, answerer, reader, _reader_sha256(settings))


def _reader_sha256(settings: "Settings") -> str | None:
    """Of the reader's files; None for a hub name."""
    from index.weights import ensure_generator, folder_fingerprint
    from rag.generator import BUNDLED, bundled_adapter

    if settings.generator == BUNDLED:
        return folder_fingerprint(ensure_generator(settings.home, adapter=bundled_adapter()))
    folder = Path(settings.generator).expanduser()
    return folder_fingerprint(folder) if folder.is_dir() else None


def _followed(
    system: "System", set_file: Path, chosen: "RunSettings", folder: Path, resume: bool
) -> "Summary":
    """Runs with a progress bar; an interrupt ends it after the batch under way, a second one at once."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from eval.runner import EvaluationRun

    run = EvaluationRun(system, set_file, chosen, folder, resume=resume)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    interrupted = False
    with Progress(
        TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("", total=None, note="")
        run.start()
        while not run.wait(0):
            state = run.progress
            progress.update(
                task,
                completed=state.done,
                total=state.total or None,
                description="stopping" if interrupted else str(state.state),
                note=_progress_note(state),
            )
            try:
                run.wait(0.2)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                run.cancel()
                progress.console.print("stopping after this batch; once more ends it at once")
    return run.result()


def _progress_note(state: "RunProgress") -> str:
    from eval.charts import duration

    parts = [f"{name} {value:.3f}" for name, value in state.scores]
    if state.crashed:
        parts.append(f"{state.crashed} crashed")
    if state.remaining_s is not None:
        parts.append(f"{duration(state.remaining_s)} left")
    return " · ".join(parts)


def _print_summary(summary: "Summary", as_json: bool) -> None:
    if as_json:
        typer.echo(summary.to_json(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    from eval.metrics import METRICS, RETRIEVAL_METRICS, metric_of
    from eval.tally import ALL

    table = Table(
        title=f"{summary.set.name}: {summary.cases['done']} cases, {summary.cases['crashed']} crashed"
    )
    table.add_column("metric")
    for title in ("mean", "95% interval", "n"):
        table.add_column(title, justify="right")
    retrieval = [name for name in RETRIEVAL_METRICS if name in summary.metrics]
    modes = [name for name in summary.metrics if ":" in name and name.partition(":")[0] == "ndcg@10"]
    shown = [name for name in _SHOWN if name in METRICS and name in summary.metrics]
    for name in (*shown, *retrieval, *modes):
        estimate = summary.metrics[name][ALL]
        if estimate.mean is not None:
            table.add_row(metric_of(name).title, f"{estimate.mean:.3f}", _interval(estimate), str(estimate.n))
    Console().print(table)


def _interval(estimate: "Estimate | Difference") -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.low:.3f} – {estimate.high:.3f}"


def _print_comparison(comparison: "Comparison", every_group: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from eval.metrics import metric_of
    from eval.tally import ALL

    console = Console()
    table = Table(
        title=escape(f"{comparison.after} against {comparison.before}: {comparison.shared} shared cases")
    )
    table.add_column("metric")
    for title in ("before", "after", "difference", "95% interval", "p", "n"):
        table.add_column(title, justify="right")
    for name, groups in comparison.differences.items():
        for group, found in groups.items():
            if found.difference is None or not (every_group or group == ALL):
                continue
            title = metric_of(name).title if group == ALL else f"  {group}"
            table.add_row(
                escape(title),
                f"{found.before:.3f}",
                f"{found.after:.3f}",
                f"{found.difference:+.3f}",
                _interval(found),
                "–" if found.p is None else f"{found.p:.3f}",
                str(found.n),
            )
    console.print(table)
    _print_flips(console, comparison)


def _print_flips(console: "Console", comparison: "Comparison") -> None:
    for count, name in (
        (comparison.only_before, comparison.before),
        (comparison.only_after, comparison.after),
    ):
        if count:
            console.print(f"{count} cases are only in {name}, and left out", markup=False)
    gains = [flip for flip in comparison.flips if flip.is_gain]
    losses = [flip for flip in comparison.flips if not flip.is_gain]
    console.print(f"{len(gains)} cases went right, {len(losses)} went wrong")
    for sign, flips in (("+", gains), ("-", losses)):
        for flip in flips[:_SHOWN_FLIPS]:
            said = (
                f": {flip.answer_before!r} → {flip.answer_after!r}"
                if flip.answer_before or flip.answer_after
                else ""
            )
            console.print(f"{sign} {flip.id}  {flip.question}{said}", markup=False, highlight=False)
        if len(flips) > _SHOWN_FLIPS:
            console.print(f"{sign} … and {len(flips) - _SHOWN_FLIPS} more (--json has them all)")


def _print_check(report: "CheckReport") -> None:
    counts = ", ".join(f"{count} {trait}" for trait, count in report.counts)
    typer.echo(f"{report.cases} cases" + (f": {counts}" if counts else ""))
    for title, problems in (("error", report.errors), ("warning", report.warnings)):
        for problem in problems[:_SHOWN_PROBLEMS]:
            typer.echo(f"{title}: {problem}")
        if len(problems) > _SHOWN_PROBLEMS:
            typer.echo(f"… and {len(problems) - _SHOWN_PROBLEMS} more {title}s (--json has them all)")


def _check_json(report: "CheckReport") -> dict[str, object]:
    def plain(problems: "Sequence[Problem]") -> list[dict[str, object]]:
        return [{"line": item.line, "field": item.field, "message": item.message} for item in problems]

    return {
        "cases": report.cases,
        "counts": dict(report.counts),
        "errors": plain(report.errors),
        "warnings": plain(report.warnings),
    }
