"""A virtual environment for each peer, made once from its pinned requirements."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from corpus.errors import EvaluationError
from index.weights import GENERATOR, materialise

PEERS = ("langchain", "txtai", "llamacpp")
GENERATION_ONLY = frozenset({"llamacpp"})
"""Peers without an index: they are only given a prompt."""

_REQUIREMENTS = Path(__file__).parent / "requirements"
_MADE_FROM = "made-from.txt"
"""Written last, so that an environment that has it is whole."""


def ensure_environment(folder: Path, peer: str, told: Callable[[str], None]) -> Path:
    """The Python of a peer's environment under `folder`, made where it isn't there or was pinned otherwise.

    Raises EvaluationError where it can't be installed.
    """
    wanted = (_REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8")
    environment = folder / peer
    python, mark = environment / "bin" / "python", environment / _MADE_FROM
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return python
    if environment.exists() and not (environment / "pyvenv.cfg").is_file():
        raise EvaluationError(f"{environment} isn't a virtual environment; choose another folder")
    told(f"installing {peer} into {environment}")
    shutil.rmtree(environment, ignore_errors=True)
    requirements = str(_REQUIREMENTS / f"{peer}.txt")
    make = [sys.executable, "-m", "venv", str(environment)]
    install = [str(python), "-m", "pip", "install", "--quiet", "-r", requirements]
    for command in (make, install):
        made = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if made.returncode:
            raise EvaluationError(
                f"{peer} can't be installed into {environment}: {made.stderr.strip()[-800:]}"
            )
    mark.write_text(wanted, encoding="utf-8")
    return python


def packed_generator(folder: Path) -> Path:
    """The bundled generator's GGUF file in one piece, as llama.cpp reads it: the base model, without adapter."""
    model = replace(GENERATOR, name="gemma-3-270m-gguf")

    def write(data: bytes, target: Path, step: Callable[[str, float], None]) -> None:
        (target / "model.gguf").write_bytes(data)

    return materialise(folder, model, write, "packed", None) / "model.gguf"
