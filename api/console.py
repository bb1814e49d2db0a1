"""How the command line talks: results on stdout, progress and errors on stderr, `--json` for scripts."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from corpus.errors import VraagbaakError, kind_of

CANCELLED_EXIT_CODE = 130


def print_json(value: object) -> None:
    """One JSON value on stdout; what isn't JSON by itself (a path, a date) as text."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def note(text: str) -> None:
    """A line on stderr, where it doesn't get between a script and its result."""
    typer.echo(text, err=True)


def fail(error: VraagbaakError) -> NoReturn:
    """Ends the process with the error's line and its exit code from the one table."""
    note(f"vraagbaak: {error}")
    sys.exit(kind_of(error).exit_code)


@contextmanager
def exits_on_error() -> Iterator[None]:
    """Turns the project's errors into one useful line and an exit code; anything else is a bug and shows as one."""
    try:
        yield
    except VraagbaakError as error:
        fail(error)
    except KeyboardInterrupt:
        note("\nvraagbaak: stopped; what was finished is kept")
        sys.exit(CANCELLED_EXIT_CODE)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); there is nobody to tell.
        sys.stderr.close()
        sys.exit(0)


@contextmanager
def model_progress(quiet: bool = False) -> Iterator[Callable[[str, float], None]]:
    """A progress bar for making the bundled models; it shows only if they have to be made."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        tasks: dict[str, int] = {}

        def told(step: str, done: float) -> None:
            if "bar" not in tasks:
                tasks["bar"] = progress.add_task(step, total=1.0)
            progress.update(tasks["bar"], description=step, completed=done)  # type: ignore[arg-type]

        yield told


def human_bytes(count: int) -> str:
    """1.2 GB, 34 MB, 5 kB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count} B"
