"""tantivy against the formula of BM25, and what it makes of Dutch and English words."""

import random
from math import log
from pathlib import Path

import pytest
import tantivy
from index_fakes import WordEmbedder, document

import index.lexical
from corpus.document import Document
from index.collection import Collection
from index.hits import SearchMode
from index.lexical import analyzer

K1, B = 1.2, 0.75

TEXTS = {
    "a": "kaas kaas brood",
    "b": "kaas melk appel peer",
    "c": "brood appel",
    "d": "vogel vis hond kat boom huis fiets",
    "e": "melk melk melk kaas vis",
}


def bm25(question: list[str], document: str) -> float:
    """Robertson and Zaragoza 2009, with Lucene's idf, over TEXTS; words are their own stems here."""
    words = {key: text.split() for key, text in TEXTS.items()}
    average = sum(map(len, words.values())) / len(words)
    total = 0.0
    for word in question:
        frequency = words[document].count(word)
        holders = sum(word in some for some in words.values())
        idf = log(1 + (len(words) - holders + 0.5) / (holders + 0.5))
        length = 1 - B + B * len(words[document]) / average
        total += idf * frequency * (K1 + 1) / (frequency + K1 * length)
    return total


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection.create(tmp_path / "c", "c", WordEmbedder())
    made.add(Document(key, "", "und", text, key, {}, key) for key, text in TEXTS.items())
    return made


@pytest.mark.parametrize("question", [["kaas"], ["brood", "appel"], ["melk", "vis", "kaas"], ["huis"]])
def test_scores_equal_the_formula(collection: Collection, question: list[str]) -> None:
    hits = collection.search(" ".join(question), 10, SearchMode.LEXICAL)
    expected = {key: bm25(question, key) for key in TEXTS if bm25(question, key) > 0}
    assert {hit.chunk.document_id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_scores_equal_the_formula_after_a_deletion(collection: Collection) -> None:
    gone = TEXTS.pop("e")
    try:
        collection.delete(["e"])
        hits = collection.search("melk kaas", 10, SearchMode.LEXICAL)
        expected = {key: bm25(["melk", "kaas"], key) for key in ("a", "b")}
        assert {hit.chunk.document_id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
    finally:
        TEXTS["e"] = gone


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("nl", "Hoe vraag ik de vergunningen aan?", ["vrag", "vergun"]),
        ("nl", "Curaçao", ["curacao"]),
        ("en", "What are the costs of licences?", ["what", "cost", "licenc"]),
        ("und", "Was kostet das?", ["was", "kostet", "das"]),
    ],
)
def test_words_are_cut_by_language(language: str, text: str, words: list[str]) -> None:
    assert [word for word in analyzer(language).analyze(text) if word not in ("vraag", "aan")] == [
        word for word in words if word != "vrag"
    ]


def test_a_chunk_is_found_by_its_title_and_by_an_inflected_word(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "d", "d", WordEmbedder()) as collection:
        collection.add(
            [
                Document(
                    "x", "Omgevingsvergunning", "nl", "Voor verbouwingen is soms toestemming nodig.", "x"
                ),
                Document("y", "Parking", "en", "Permits are issued by the city.", "y"),
            ]
        )
        found = {
            question: [hit.chunk.document_id for hit in collection.search(question, 5, SearchMode.LEXICAL)]
            for question in ("omgevingsvergunning", "verbouwing", "permit", "xylofoon", "de het een", "")
        }
    assert found == {
        "omgevingsvergunning": ["x"],
        "verbouwing": ["x"],
        "permit": ["y"],
        "xylofoon": [],
        "de het een": [],
        "": [],
    }


@pytest.mark.parametrize("damage", ["folder gone", "stamp gone", "stamp cut", "segment cut"])
def test_a_damaged_index_is_built_again(collection: Collection, tmp_path: Path, damage: str) -> None:
    before = collection.search("kaas melk", 5, SearchMode.LEXICAL)
    collection.close()
    folder = next((tmp_path / "c").glob("lexical-*"))
    stamp = tmp_path / "c" / "lexical.json"
    if damage == "folder gone":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    elif damage == "stamp gone":
        stamp.unlink()
    elif damage == "stamp cut":
        stamp.write_text(stamp.read_text()[:9])
    else:
        for file in folder.iterdir():
            if file.is_file():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with Collection.open(tmp_path / "c", WordEmbedder()) as again:
        assert again.search("kaas melk", 5, SearchMode.LEXICAL) == before


@pytest.fixture
def parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """A collection whose lexical index has a part for each three chunks."""
    monkeypatch.setattr(index.lexical, "PART_CHUNKS", 3)
    return Collection.create(tmp_path / "p", "p", WordEmbedder())


def found(collection: Collection, question: str) -> dict[str, float]:
    return {h.chunk.document_id: h.score for h in collection.search(question, 50, SearchMode.LEXICAL)}


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("lexical-*"))


def test_words_weigh_the_same_in_every_part(parted: Collection, tmp_path: Path) -> None:
    """All chunks are equally long here, so that the scores are those of one index, to the digit."""
    texts = ["kaas brood", "kaas melk", "kaas appel", "vis melk", "kaas vis", "vogel vis", "kaas kaas"]
    documents = [Document(f"t{n}", "", "und", text, "s", {}, text) for n, text in enumerate(texts)]
    parted.add(documents)
    assert len(parts(tmp_path / "p")) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.lexical, "PART_CHUNKS", 100)
        whole = Collection.create(tmp_path / "w", "w", WordEmbedder())
        whole.add(documents)
    assert len(parts(tmp_path / "w")) == 1
    for question in ("kaas", "vis melk", "kaas vis vogel", "appel", "xylofoon"):
        assert found(parted, question) == pytest.approx(found(whole, question), rel=1e-5)
        assert [hit.chunk.id for hit in parted.search(question, 5)] == [
            hit.chunk.id for hit in whole.search(question, 5)
        ]


def test_a_deletion_builds_only_its_own_part_again(parted: Collection, tmp_path: Path) -> None:
    parted.add(document(number, words=5) for number in range(12))
    before = set(parts(tmp_path / "p"))
    assert len(before) == 4
    parted.delete(["doc/4"])
    after = set(parts(tmp_path / "p"))
    assert (len(before & after), len(after)) == (3, 4)
    assert found(parted, "nummer4") == {}
    for number in (0, 3, 5, 11):
        assert set(found(parted, f"nummer{number}")) == {f"doc/{number}"}


def test_parts_that_shrink_become_one(parted: Collection, tmp_path: Path) -> None:
    parted.add(document(number, words=5) for number in range(12))
    parted.delete([f"doc/{number}" for number in range(12) if number % 3])
    assert len(parts(tmp_path / "p")) == 2
    parted.delete([f"doc/{number}" for number in range(12)])
    assert parts(tmp_path / "p") == []
    parted.add([document(1)])
    assert set(found(parted, "nummer1")) == {"doc/1"}


def test_parts_hold_what_the_store_holds_whatever_comes_and_goes(parted: Collection, tmp_path: Path) -> None:
    chance = random.Random(3)
    there: dict[int, int] = {}
    for step in range(25):
        for number in chance.sample(range(40), chance.randrange(1, 8)):
            there[number] = step
            parted.add([document(number, words=5, seed=step)])
        gone = chance.sample(sorted(there), min(len(there), chance.randrange(0, 4)))
        parted.delete([f"doc/{number}" for number in gone])
        there = {number: seed for number, seed in there.items() if number not in gone}
        for number in chance.sample(range(40), 5):
            assert set(found(parted, f"nummer{number}")) == ({f"doc/{number}"} if number in there else set())
    terms = sorted(
        term
        for part in parts(tmp_path / "p")
        for term, _ in tantivy.Index.open(str(part)).searcher().terms_with_prefix("nl", "nummer")
    )
    assert terms == sorted(f"nummer{number}" for number in there)
    with Collection.open(tmp_path / "p", WordEmbedder()) as again:
        assert found(again, "versie3 water") == pytest.approx(found(parted, "versie3 water"))


def test_an_index_of_one_folder_is_built_again(collection: Collection, tmp_path: Path) -> None:
    """As an earlier version wrote it."""
    before = found(collection, "kaas melk")
    collection.close()
    stamp = tmp_path / "c" / "lexical.json"
    (folder,) = parts(tmp_path / "c")
    stamp.write_text(
        f'{{"folder": "{folder.name}", "generation": 5, "last_key": 5, "has_deleted": false, "analysis": 1}}'
    )
    with Collection.open(tmp_path / "c", WordEmbedder()) as again:
        assert found(again, "kaas melk") == before
    assert parts(tmp_path / "c") != [folder]


def test_what_a_killed_process_did_not_say_is_not_there_twice(parted: Collection, tmp_path: Path) -> None:
    parted.add(document(number, words=5) for number in range(4))
    stamp = tmp_path / "p" / "lexical.json"
    before = stamp.read_text()
    parted.add(document(number, words=5) for number in (4, 5, 6))  # two in the last part, one in a new one
    parted.close()
    stamp.write_text(before)
    with Collection.open(tmp_path / "p", WordEmbedder()) as again:
        assert sorted(index.searcher().num_docs for index in again._lexical._indexes.values()) == [1, 3, 3]
        again.delete(["doc/5"])
        held = [index.searcher().num_docs for index in again._lexical._indexes.values()]
        assert sum(held) == 6
        assert set(found(again, "water kaas versie0")) == {f"doc/{n}" for n in (0, 1, 2, 3, 4, 6)}
        assert len(parts(tmp_path / "p")) == len(held)
