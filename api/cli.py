"""The command line: `vraagbaak ingest`, `ask`, `search`, `status` and the rest.

Only typer is imported up here; whatever is heavy is imported by the command that needs it, so that `--help`
and typing errors answer at once.
"""

import atexit
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.console import exits_on_error, human_bytes, model_progress, note, print_json

if TYPE_CHECKING:
    from corpus.document import Language
    from index.hits import Filters
    from rag.settings import Settings

app = typer.Typer(
    name="vraagbaak",
    help="Answers questions about your own documents, in Dutch or English, with citations exact to the letter.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
collections_app = typer.Typer(help="List, make and delete collections.", no_args_is_help=True)
models_app = typer.Typer(
    help="What models there are; 'fetch' prepares them ahead.", invoke_without_command=True
)
app.add_typer(collections_app, name="collections")
app.add_typer(models_app, name="models")

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Which collection.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]
LanguageFilter = Annotated[
    list[str] | None, typer.Option("--language", help="Only documents in nl, en or und.")
]
DocumentFilter = Annotated[list[str] | None, typer.Option("--document", help="Only documents with this id.")]
MetadataFilter = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Only documents with this metadata."),
]


@app.command()
def ingest(
    paths: Annotated[
        list[Path], typer.Argument(help="Files and folders.", metavar="PATH…", show_default=False)
    ],
    collection: CollectionOption = "default",
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete documents whose file under PATH is gone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put documents in a collection: new ones are added, changed ones replaced, others left as they are."""
    from api.cli_ingest import run_ingest

    with exits_on_error():
        run_ingest(_settings(), paths, collection, prune=prune, as_json=as_json)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="In Dutch or English; '-' reads it from standard input.")],
    collection: CollectionOption = "default",
    short: Annotated[bool, typer.Option("--short", help="A few words instead of a sentence.")] = False,
    answer_in: Annotated[
        str | None, typer.Option("--answer-in", help="nl or en; by default the question's language.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, max=9, help="Passages to read.")] = None,
    language: LanguageFilter = None,
    document: DocumentFilter = None,
    metadata: MetadataFilter = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the documents, with citations."""
    from api.cli_ask import run_ask

    with exits_on_error():
        filters = _filters(language, document, metadata)
        run_ask(
            _settings(),
            _from_stdin(question),
            collection,
            short=short,
            language=_answer_language(answer_in),
            top_k=top_k,
            filters=filters,
            as_json=as_json,
        )


@app.command()
def search(
    question: Annotated[str, typer.Argument(help="In Dutch or English.")],
    collection: CollectionOption = "default",
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=1000, help="How many passages.")] = 10,
    mode: Annotated[str, typer.Option("--mode", help="fused, dense (vectors) or lexical (words).")] = "fused",
    language: LanguageFilter = None,
    document: DocumentFilter = None,
    metadata: MetadataFilter = None,
    as_json: JsonOption = False,
) -> None:
    """Find passages, without an answer."""
    from api.cli_ask import run_search

    with exits_on_error():
        filters = _filters(language, document, metadata)
        run_search(_settings(), _from_stdin(question), collection, top_k, mode, filters, as_json=as_json)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """What there is: settings, models and collections."""
    from index.library import collection_names, collection_summary

    with exits_on_error():
        settings = _settings()
        models = _model_rows(settings)
        collections = []
        for name in collection_names(settings.home):
            manifest, counts = collection_summary(settings.home, name)
            collections.append(
                {
                    "name": name,
                    "documents": counts.documents,
                    "chunks": counts.chunks,
                    "languages": counts.languages,
                    "embedder": manifest.embedder.id,
                }
            )
        if as_json:
            print_json({"home": settings.home, "models": models, "collections": collections})
            return
        typer.echo(f"home: {settings.home}")
        _print_models(models)
        _print_collections(collections)


@app.command()
def delete(
    documents: Annotated[
        list[str], typer.Argument(help="Document ids, as 'search' shows them.", metavar="ID…")
    ],
    collection: CollectionOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Erase documents: from the database, its log and both indexes."""
    from api.runtime import open_library
    from corpus.errors import DocumentNotFoundError

    with exits_on_error(), open_library(_settings()).open(collection) as opened:
        known = opened.sha256s()
        missing = [name for name in documents if name not in known]
        count = opened.delete(name for name in documents if name in known)
        if as_json:
            print_json({"deleted": count, "missing": missing})
        else:
            typer.echo(f"{count} deleted from {collection}")
        if missing:
            raise DocumentNotFoundError(
                f"not in collection {collection!r}: {', '.join(missing)}; 'vraagbaak search' shows the ids"
            )


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.")], collection: CollectionOption = "default"
) -> None:
    """Write a whole collection to one file; it can be in use meanwhile."""
    from api.runtime import open_library

    with exits_on_error(), open_library(_settings()).open(collection) as opened:
        opened.backup(file)
        typer.echo(f"{collection} written to {file} ({human_bytes(file.stat().st_size)})")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that 'backup' wrote.")],
    collection: CollectionOption = "default",
) -> None:
    """Make a new collection out of a backup."""
    from api.runtime import open_library

    with exits_on_error(), open_library(_settings()).restore(file, collection) as opened:
        typer.echo(f"{collection} restored from {file}: {opened.stats().documents} documents")


@collections_app.command("list")
def collections_list(as_json: JsonOption = False) -> None:
    """The collections and how much is in each."""
    from index.library import collection_names, collection_summary

    with exits_on_error():
        home = _settings().home
        rows = []
        for name in collection_names(home):
            manifest, counts = collection_summary(home, name)
            rows.append(
                {
                    "name": name,
                    "documents": counts.documents,
                    "chunks": counts.chunks,
                    "languages": counts.languages,
                    "embedder": manifest.embedder.id,
                }
            )
        if as_json:
            print_json(rows)
        else:
            _print_collections(rows)


@collections_app.command("create")
def collections_create(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
) -> None:
    """Make an empty collection."""
    from api.runtime import open_library

    with exits_on_error(), open_library(_settings()).create(name):
        typer.echo(f"{name} made; next: vraagbaak ingest PATH --collection {name}")


@collections_app.command("delete")
def collections_delete(
    name: Annotated[str, typer.Argument(help="Which collection.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Delete a collection with all its documents."""
    from index.library import collection_summary, delete_collection

    with exits_on_error():
        home = _settings().home
        if not yes:
            _, counts = collection_summary(home, name)
            typer.confirm(f"Delete {name} with its {counts.documents} documents?", abort=True, err=True)
        delete_collection(home, name)
        typer.echo(f"{name} deleted")


@models_app.callback()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """The bundled models: what is there and how big."""
    if context.invoked_subcommand:
        return
    with exits_on_error():
        rows = _model_rows(_settings())
        if as_json:
            print_json(rows)
        else:
            _print_models(rows)


@models_app.command("fetch")
def models_fetch(
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file with its checksum.")] = False,
) -> None:
    """Make the bundled models ready, for instance while an image is built."""
    from index import weights
    from rag.generator import bundled_adapter

    with exits_on_error():
        home = _settings().home
        with model_progress() as told:
            folders = [
                weights.ensure_embedder(home, told),
                weights.ensure_generator(home, bundled_adapter(), told),
            ]
        for folder in folders:
            if verify:
                weights.verify(folder)
            note(f"{folder.name} is ready{' and verified' if verify else ''}")


def _settings() -> "Settings":
    from rag.settings import load_settings

    return load_settings()


def _from_stdin(question: str) -> str:
    return typer.get_text_stream("stdin").read().strip() if question == "-" else question


def _filters(
    languages: Sequence[str] | None, documents: Sequence[str] | None, metadata: Sequence[str] | None
) -> "Filters":
    from corpus.errors import FilterError
    from index.hits import Filters

    for language in languages or ():
        if language not in ("nl", "en", "und"):
            raise FilterError(f"--language {language!r}: documents are in nl, en or und")
    pairs = {}
    for pair in metadata or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise FilterError(f"--metadata {pair!r}: write it as KEY=VALUE")
        pairs[key] = value
    return Filters(frozenset(languages or ()), frozenset(documents or ()), pairs)


def _answer_language(language: str | None) -> "Language | None":
    from corpus.errors import InputError

    if language not in (None, "nl", "en"):
        raise InputError(f"--answer-in {language!r}: answers are in nl or en")
    return language


def _model_rows(settings: "Settings") -> list[dict[str, Any]]:
    from index.weights import model_status
    from rag.generator import bundled_adapter

    return [
        {
            "name": row.name,
            "title": row.title,
            "licence": row.licence,
            "path": row.path,
            "bytes": row.bytes,
            "sha256": row.sha256,
        }
        for row in model_status(settings.home, bundled_adapter())
    ]


def _print_models(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        state = human_bytes(row["bytes"]) if row["path"] else "not made yet: vraagbaak models fetch"
        typer.echo(f"model {row['title']} ({row['licence']}): {state}")
        if row["path"]:
            typer.echo(f"      {row['path']}")


def _print_collections(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        typer.echo("no collections yet; make one with: vraagbaak ingest PATH")
    for row in rows:
        languages = ", ".join(f"{count} {language}" for language, count in row["languages"].items())
        typer.echo(
            f"collection {row['name']}: {row['documents']} documents ({languages or 'empty'}), "
            f"{row['chunks']} passages"
        )


def _mount(module: str, **names: str) -> None:
    """Adds commands from modules that only typer is needed to import."""
    mounted = importlib.import_module(module)
    for name, attribute in names.items():
        added = getattr(mounted, attribute)
        if isinstance(added, typer.Typer):
            app.add_typer(added, name=name)
        else:
            app.command(name)(added)


_mount("api.cli_bench", bench="app")
_mount("api.cli_eval", eval="app")
_mount("api.cli_serve", serve="serve", keys="keys_app")


def main() -> None:
    """The console script's entry."""
    _set_defaults()
    try:
        app()
    except SystemExit as end:
        if sys.argv[1:2] in (["ask"], ["search"]) and isinstance(end.code, int):
            _leave(end.code)
        raise


def _leave(status: int) -> None:
    """Ends the process without taking it apart first, which keeps the shell waiting after the answer for half a
    second: torch and the tokenizers are freed piece by piece. What is registered for the end is still done.
    """
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads on, or the stream is closed: the usual end knows what to do
        return
    os._exit(status)


def _set_defaults() -> None:
    """Sets what OpenMP and oneDNN read from the environment once, when torch is loaded.

    Whoever sets one of the variables knows better. OpenMP's threads should sleep soon when they wait for each
    other: by default they spin for milliseconds, and a second busy program then makes every product a hundred
    times slower. And by default oneDNN and what calls it keep the code that they make for 1,024 shapes each, and
    each length of a prompt is some new ones: memory would grow by 7 MiB an answer.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, "16")
