"""`make run`: the sample documents in a collection of their own, one question in each language, what to type next."""

import json

import typer

from api.cli_ask import print_answer
from api.console import exits_on_error, model_progress, note
from api.runtime import SAMPLES, open_answerer, open_library, open_reader
from index.ingest import ingest
from rag.settings import load_settings

COLLECTION = "samples"


def main() -> None:
    """Does the main job once, from start to end, with the real models."""
    with exits_on_error(), model_progress() as told:
        settings = load_settings()
        library = open_library(settings, told)
        with library.open_or_create(COLLECTION) as collection:
            report = ingest(collection, [SAMPLES], prune=True, limits=settings.read_limits())
            note(f"sample documents: {report.added} added, {report.unchanged} unchanged")
            answerer = open_answerer(collection, open_reader(settings, told), settings)
            examples = json.loads((SAMPLES / ".examples.json").read_text(encoding="utf-8"))
            for question in (examples["nl"][0], examples["en"][0]):
                typer.echo(f"\n{question}")
                print_answer(answerer.ask(question))
    typer.echo(
        "\nNext, with your own documents:\n"
        "  .venv/bin/vraagbaak ingest PATH-TO-YOUR-FOLDER\n"
        '  .venv/bin/vraagbaak ask "Your question, in Dutch or English"\n'
        "Or with these samples:\n"
        f'  .venv/bin/vraagbaak ask --collection {COLLECTION} "{examples["nl"][1]}"'
    )


if __name__ == "__main__":
    main()
