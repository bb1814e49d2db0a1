"""`python -m eval.peers`: the comparison as a table, and as JSON by commit."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corpus.document import Document
from corpus.errors import DocumentError, VraagbaakError
from eval.peers.environments import GENERATION_ONLY, PEERS, ensure_environment, packed_generator
from eval.peers.jobs import (
    OURS,
    Answered,
    Ingested,
    ask_rounds,
    fill,
    ingest_rounds,
    long_answers,
    write_files,
)
from eval.peers.process import Worker
from eval.peers.tables import ask_rows, ingest_rows, markdown, same_answers, to_dict

_CHARACTERS_PER_PASSAGE = 600


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's exit code."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _run(options, Path(scratch))
    except VraagbaakError as error:
        _tell(f"peers: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval.peers", description=__doc__)
    add = parser.add_argument
    add("--envs", type=Path, required=True, help="folder for the peers' virtual environments (about 3 GB)")
    add("--corpus", type=Path, nargs="+", required=True, help="files and folders to ingest")
    add("--set", type=Path, nargs="+", required=True, help="evaluation sets, for their questions")
    add("--job", choices=["ask", "ingest", "both"], default="both")
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    add("--questions", type=int, default=20, help="questions asked")
    add("--passages", type=int, default=500, help="passages to ask about, about")
    add("--rounds", type=int, default=5, help="ingests")
    add("--ingest-passages", type=int, default=128, help="passages of each ingest, about")
    add("--prompt-tokens", type=int, default=580, help="most tokens of a prompt")
    add("--new-tokens", type=int, default=25, help="tokens that each writes")
    add("--top-k", type=int, default=5, help="passages that each searches")
    add("--threads", type=int, default=os.cpu_count() or 1, help="threads of each system")
    add("--dtype", choices=["bfloat16", "float32"], help="what the peers compute in; the processor's best")
    add("--save", type=Path, help="folder to write results to, as <commit>/peers-<job>.json")
    return parser


def _run(options: argparse.Namespace, scratch: Path) -> None:
    from eval.bench_limits import measure_limits

    pythons = {OURS: Path(sys.executable)}
    options.envs.mkdir(parents=True, exist_ok=True)
    for peer in options.peers:
        pythons[peer] = ensure_environment(options.envs.resolve(), peer, _tell)
    config = _config(options)
    jobs: dict[str, Callable[..., dict[str, Any]]] = {"ingest": _ingest_job, "ask": _ask_job}
    for job, run in jobs.items():
        if options.job in (job, "both"):
            result = run(options, {**config, "job": job}, pythons, scratch)
            result["limits"] = asdict(measure_limits(options.threads))
            _keep(options, job, config, result)


def _config(options: argparse.Namespace) -> dict[str, Any]:
    """What every worker is told."""
    from eval.bench_limits import compute_dtype_name
    from index.weights import ensure_embedder, ensure_generator
    from rag.generator import bundled_adapter
    from rag.settings import load_settings

    home = load_settings().home
    return {
        "threads": options.threads,
        "dtype": options.dtype or compute_dtype_name(),
        "home": str(home),
        "embedder": str(ensure_embedder(home)),
        "reader": str(ensure_generator(home, bundled_adapter())),
        "gguf": str(packed_generator(options.envs.resolve())) if "llamacpp" in options.peers else "",
        "new_tokens": options.new_tokens,
        "prompt_tokens": options.prompt_tokens,
        "top_k": options.top_k,
    }


def _ingest_job(
    options: argparse.Namespace, config: Mapping[str, Any], pythons: Mapping[str, Path], scratch: Path
) -> dict[str, Any]:
    characters = options.ingest_passages * _CHARACTERS_PER_PASSAGE
    files = write_files(_documents(options.corpus), scratch, options.rounds, characters)
    with ExitStack() as stack:
        workers = _start(
            stack, options, config, [name for name in pythons if name not in GENERATION_ONLY], pythons
        )
        rounds: dict[str, list[Ingested]] = ingest_rounds(workers, files, _tell)
        rows = ingest_rows(rounds)
        print(f"\n{markdown(rows)}\n")
        return {**to_dict(rounds, rows), **_about(workers)}


def _ask_job(
    options: argparse.Namespace, config: Mapping[str, Any], pythons: Mapping[str, Path], scratch: Path
) -> dict[str, Any]:
    from eval.cases import read_cases

    characters = options.passages * _CHARACTERS_PER_PASSAGE
    (file,) = write_files(_documents(options.corpus), scratch, 1, characters)
    with ExitStack() as stack:
        workers = _start(stack, options, config, list(pythons), pythons)
        passages = fill(workers, file)
        cases = (case.question for file in options.set for case in read_cases(file))
        decode = _decoder(Path(config["reader"]))
        count, new_tokens = options.questions, options.new_tokens
        questions = long_answers(workers[0], cases, count, new_tokens, decode, _tell)
        rounds: dict[str, list[Answered]] = ask_rounds(workers, questions, _tell)
        rows, same = ask_rows(rounds), same_answers(rounds)
        print(f"\n{markdown(rows)}\n\nthe same words as {OURS}, of {len(questions)}: {same}\n")
        return {
            **to_dict(rounds, rows),
            **_about(workers),
            "indexed_passages": passages,
            "same_answers": same,
        }


def _start(
    stack: ExitStack,
    options: argparse.Namespace,
    config: Mapping[str, Any],
    names: Sequence[str],
    pythons: Mapping[str, Path],
) -> list[Worker]:
    """One after another, since loading takes all cores."""
    workers = []
    for name in names:
        _tell(f"loading {name}")
        log = options.envs / f"{name}.log"
        workers.append(stack.enter_context(Worker(name, pythons[name], config, log)))
    return workers


def _about(workers: Sequence[Worker]) -> dict[str, Any]:
    return {
        "systems": {worker.name: worker.settings for worker in workers},
        "peak_mb": {worker.name: round(worker.peak_mb) for worker in workers},
    }


def _documents(paths: Sequence[Path]) -> Iterator[Document]:
    from corpus import read

    for found in read([path.resolve() for path in paths]):
        if isinstance(found, DocumentError):
            _tell(f"left out: {found}")
        else:
            yield found


def _decoder(folder: Path) -> Callable[[Sequence[int]], str]:
    """Token ids to text, by the reader's tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    return decode


def _keep(
    options: argparse.Namespace, job: str, config: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    from eval.bench_report import save_by_commit
    from eval.summary import git_commit, this_machine

    if options.save is None:
        return
    kept = ("threads", "dtype", "new_tokens", "prompt_tokens", "top_k")
    settings = {name: config[name] for name in kept} | {"corpus": [path.name for path in options.corpus]}
    content = {"what": f"peers-{job}", "settings": settings, "git_commit": git_commit()}
    content |= {"machine": asdict(this_machine()), **result}
    _tell(f"kept in {save_by_commit(options.save, f'peers-{job}.json', content)}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
