"""Files in, changed, gone; what fails is named and the rest goes in."""

import json
from pathlib import Path

import pytest
from index_fakes import WordEmbedder

from index.collection import Collection
from index.ingest import Fate, IngestEvent, ingest


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "c", "c", WordEmbedder())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    (made / "sub").mkdir(parents=True)
    (made / "a.txt").write_text("Het water is vandaag koud en helder.")
    (made / "sub" / "b.md").write_text("# Kaas\n\nDe kaas wordt op de markt verkocht.")
    (made / "c.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "id": f"r/{n}",
                    "title": "R",
                    "language": "nl",
                    "text": f"Regel {n} over brood.",
                    "source": "s",
                }
            )
            + "\n"
            for n in range(3)
        )
    )
    return made


def listed(collection: Collection) -> list[str]:
    return [info.id for info in collection.documents()]


def test_everything_once_then_nothing_then_what_changed(collection: Collection, folder: Path) -> None:
    first = ingest(collection, [folder])
    assert (first.added, first.replaced, first.unchanged, first.failed) == (5, 0, 0, [])
    assert listed(collection) == ["docs/a.txt", "docs/sub/b.md", "r/0", "r/1", "r/2"]

    embedded = collection.embedder.embedded  # type: ignore[attr-defined]
    second = ingest(collection, [folder])
    assert (second.added, second.replaced, second.unchanged) == (0, 0, 5)
    assert collection.embedder.embedded == embedded  # type: ignore[attr-defined]

    (folder / "a.txt").write_text("Het water is vandaag warm.")
    lines = (folder / "c.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace("over brood", "over melk")
    (folder / "c.jsonl").write_text("\n".join(lines))
    third = ingest(collection, [folder])
    assert (third.added, third.replaced, third.unchanged) == (0, 2, 3)
    assert "warm" in collection.document("docs/a.txt").text
    assert "melk" in collection.document("r/1").text


def test_prune_removes_what_is_gone_and_nothing_else(
    collection: Collection, folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "other.txt"
    elsewhere.write_text("Een vogel in de boom.")
    ingest(collection, [folder, elsewhere])
    (folder / "a.txt").unlink()
    (folder / "c.jsonl").write_text("\n".join((folder / "c.jsonl").read_text().splitlines()[:2]))
    elsewhere.unlink()
    assert ingest(collection, [folder]).removed == 0
    assert ingest(collection, [folder], prune=True).removed == 2
    assert listed(collection) == ["docs/sub/b.md", "other.txt", "r/0", "r/1"]


def test_prune_keeps_a_file_that_cannot_be_read_now(collection: Collection, folder: Path) -> None:
    ingest(collection, [folder])
    (folder / "a.txt").write_bytes(b"")
    report = ingest(collection, [folder], prune=True)
    assert [error.reason for error in report.failed]
    assert "koud" in collection.document("docs/a.txt").text


def test_a_bad_file_is_named_and_the_rest_goes_in(collection: Collection, folder: Path) -> None:
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7 nonsense")
    events: list[IngestEvent] = []
    report = ingest(collection, [folder, folder / "none.txt"], on_event=events.append)
    assert report.added == 5
    assert sorted(Path(error.source).name for error in report.failed) == ["bad.pdf", "none.txt"]
    failed = [event for event in events if event.fate is Fate.FAILED]
    assert all(event.reason for event in failed)
    assert events[-1].files_total == 4


def test_the_same_file_by_another_way_keeps_its_id(collection: Collection, folder: Path) -> None:
    ingest(collection, [folder])
    report = ingest(collection, [folder / "a.txt"])
    assert (report.added, report.unchanged) == (0, 1)
    (folder / "a.txt").write_text("Iets heel anders over fietsen.")
    assert ingest(collection, [folder / "a.txt"]).replaced == 1
    assert "docs/a.txt" in listed(collection)
    assert "a.txt" not in listed(collection)


def test_two_folders_of_one_name_do_not_overwrite_each_other(collection: Collection, tmp_path: Path) -> None:
    for parent in ("x", "y"):
        (tmp_path / parent / "docs").mkdir(parents=True)
        (tmp_path / parent / "docs" / "a.txt").write_text(f"Tekst uit map {parent}.")
        ingest(collection, [tmp_path / parent / "docs"])
    ids = listed(collection)
    assert len(ids) == 2
    assert ids[0] == "docs/a.txt"
    assert {collection.document(name).text for name in ids} == {"Tekst uit map x.", "Tekst uit map y."}
    assert ingest(collection, [tmp_path / "y" / "docs"]).unchanged == 1


def test_cancelling_keeps_what_is_in(collection: Collection, folder: Path) -> None:
    calls = iter([False, False, True, True, True, True, True, True])
    ingest(collection, [folder], is_cancelled=lambda: next(calls))
    assert listed(collection) == ["docs/a.txt"]


def test_an_original_is_kept_under_its_own_name(collection: Collection, tmp_path: Path) -> None:
    file = tmp_path / "upload-1.txt"
    file.write_text("Een geüpload bestand.")
    ingest(collection, [file], originals={file: "../../Mijn bestand.txt"})
    original = collection.original("upload-1.txt")
    assert (original.name, original.content) == ("../../Mijn bestand.txt", file.read_bytes())


def test_a_bad_record_is_reported_again_until_it_is_mended(collection: Collection, folder: Path) -> None:
    file = folder / "c.jsonl"
    whole = file.read_text()
    file.write_text(whole + "not json\n")
    assert len(ingest(collection, [file]).failed) == 1
    again = ingest(collection, [file])
    assert (again.added, again.replaced, again.unchanged, len(again.failed)) == (0, 0, 3, 1)
    file.write_text(whole)
    mended = ingest(collection, [file])
    assert (mended.unchanged, mended.failed) == (3, [])


def test_a_file_of_records_that_was_broken_off_is_gone_on_with(collection: Collection, folder: Path) -> None:
    asked = iter([False, False, False, True])
    ingest(collection, [folder / "c.jsonl"], is_cancelled=lambda: next(asked))
    assert listed(collection) == ["r/0", "r/1"]
    rest = ingest(collection, [folder / "c.jsonl"])
    assert (rest.added, rest.unchanged) == (1, 2)
    assert ingest(collection, [folder / "c.jsonl"]).unchanged == 3


def test_unchanged_records_cost_no_change_of_the_collection(collection: Collection, folder: Path) -> None:
    ingest(collection, [folder])
    before = collection.generation()
    ingest(collection, [folder])
    assert collection.generation() == before
    (folder / "c.jsonl").write_text((folder / "c.jsonl").read_text() + "\n")
    assert ingest(collection, [folder]).unchanged == 5
    assert collection.generation() == before + 1
