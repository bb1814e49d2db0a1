"""tantivy against the formula of BM25, and what it makes of Dutch and English words."""

from math import log
from pathlib import Path

import pytest
from index_fakes import WordEmbedder

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
