"""Passages and sentences: every offset exact, nothing lost, cut where a person would."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import Chunk, ChunkingConfig, Document, sentences, split

SMALL = ChunkingConfig(target_tokens=12, max_tokens=16, min_tokens=4)


def count_words(texts: Sequence[str]) -> list[int]:
    """A tokenizer that can be followed by hand: a token a word, and one for each further ten characters."""
    return [sum(1 + (len(word) - 1) // 10 for word in text.split()) for text in texts]


def chunks_of(text: str, config: ChunkingConfig = SMALL, title: str = "Titel") -> list[Chunk]:
    return split(Document("map/a.md", title, "nl", text, "map/a.md"), count_words, config)


def words(count: int, stem: str = "woord") -> str:
    return " ".join(f"{stem}{number}" for number in range(count))


# ── passages ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_short_text_is_one_passage() -> None:
    (chunk,) = chunks_of("Een zin. Nog een zin.\n")
    assert chunk == Chunk("map/a.md#0", "map/a.md", 0, 0, 21, "Een zin. Nog een zin.", "")


def test_headings_are_borders_and_paths() -> None:
    text = f"# Titel\n\n{words(10)}\n\n## Kosten\n\n{words(9, 'geld')}\n\n### Korting\n\n{words(8, 'min')}\n"
    chunks = chunks_of(text)
    assert [chunk.heading for chunk in chunks] == ["", "Kosten", "Kosten › Korting"]
    assert [chunk.text for chunk in chunks] == [words(10), words(9, "geld"), words(8, "min")]


def test_a_top_heading_other_than_the_title_stays_in_the_path() -> None:
    (chunk,) = chunks_of(f"# Hoofdstuk 1\n\n## Doel\n\n{words(9)}\n")
    assert chunk.heading == "Hoofdstuk 1 › Doel"


def test_a_level_that_comes_back_ends_the_deeper_ones() -> None:
    levels = (("#", "A"), ("###", "B"), ("##", "C"))
    text = "".join(f"{level} {name}\n\n{words(9, name)}\n\n" for level, name in levels)
    assert [chunk.heading for chunk in chunks_of(text)] == ["A", "A › B", "A › C"]


@pytest.mark.parametrize(
    "heading",
    [
        "## Kop",
        "##Kop",
        "## Kop ##",
        "## **Kop**",
        "## [Kop](x.md)",
        "## Kop {#anker}",
        "## Kop:",
        "Kop\n---",
    ],
)
def test_ways_to_write_a_heading(heading: str) -> None:
    (chunk,) = chunks_of(f"{heading}\n\n{words(9)}\n")
    assert (chunk.heading, chunk.text) == ("Kop", words(9))


def test_hashes_in_code_and_tags_are_no_headings() -> None:
    text = f"{words(5)}\n\n```sh\n# commentaar\nls\n```\n\n#hashtag\n"
    (chunk,) = chunks_of(text)
    assert chunk.heading == ""
    assert "# commentaar" in chunk.text
    assert chunk.text.endswith("#hashtag")


def test_short_sections_join_a_neighbour_and_share_the_path_above() -> None:
    text = f"## Vragen\n\n### Een\n\nJa.\n\n### Twee\n\nNee.\n\n### Drie\n\n{words(5)}\n"
    (chunk,) = chunks_of(text)
    assert chunk.heading == "Vragen"
    assert chunk.text.startswith("Ja.")
    assert chunk.text.endswith("woord4")


def test_a_short_section_doesnt_join_another_chapter() -> None:
    chunks = chunks_of(f"# A\n\n## Een\n\nJa.\n\n# B\n\n## Twee\n\n{words(6)}\n")
    assert [chunk.heading for chunk in chunks] == ["A › Een", "B › Twee"]


def test_paragraphs_stay_whole_where_they_can() -> None:
    paragraphs = [words(10, stem) + "." for stem in "abcd"]
    assert [chunk.text for chunk in chunks_of("\n\n".join(paragraphs))] == paragraphs


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_a_cut_between_paragraphs_is_better_than_one_inside(sizes: tuple[int, int]) -> None:
    paragraphs = [
        " ".join(f"Zin {words(4, f'{stem}{number}')}." for number in range(size))
        for stem, size in zip("ab", sizes, strict=True)
    ]
    assert [chunk.text for chunk in chunks_of("\n\n".join(paragraphs))] == paragraphs


def test_a_leftover_is_shared_out() -> None:
    text = " ".join(f"Zin {words(3, stem)} einde." for stem in "abcd")
    sizes = [count_words([chunk.text])[0] for chunk in chunks_of(text)]
    assert sizes == [10, 10]


def test_a_line_that_announces_a_list_stays_with_it() -> None:
    items = "\n".join(f"- punt {words(2, stem)}" for stem in "abcd")
    chunks = chunks_of(f"{words(9)}.\n\nU heeft dit nodig:\n{items}\n")
    assert not any(chunk.text.endswith(":") for chunk in chunks)


def test_front_matter_comments_and_bare_markup_are_left_out() -> None:
    text = (
        "---\n# het opschrift\ntitle: Iets\ntags:\n- a\n---\n\n<!-- niet\ntonen -->\n\n<div class='x'>\n\n"
        "Dit is de tekst zelf.\n\n</div>\n\n{% include voet.html %}\n\n---\n"
    )
    (chunk,) = chunks_of(text)
    assert chunk.text == "Dit is de tekst zelf."


@pytest.mark.parametrize("text", ["# Alleen\n\n## Koppen\n", "<div>\n", "---\ntitle: x\n---\n", "<!-- x -->"])
def test_a_text_of_nothing_else_is_kept(text: str) -> None:
    (chunk,) = chunks_of(text)
    assert chunk.text == text.strip()


@pytest.mark.parametrize("text", ["", " \n\t\n "])
def test_no_text_gives_no_passages(text: str) -> None:
    assert chunks_of(text) == []


def test_a_word_of_5000_characters_is_cut_and_nothing_lost() -> None:
    text = f"Voor {'x' * 5000} na."
    chunks = chunks_of(text)
    assert "".join(chunk.text for chunk in chunks).replace(" ", "") == text.replace(" ", "")
    assert all(count <= SMALL.max_tokens for count in count_words([chunk.text for chunk in chunks]))


def test_a_long_sentence_is_cut_at_clauses_and_never_inside_a_word() -> None:
    text = ", ".join(f"een bijzin met {words(3, stem)}" for stem in "abcdefgh") + "."
    chunks = chunks_of(text)
    assert len(chunks) > 1
    assert re.findall(r"\w+", " ".join(chunk.text for chunk in chunks)) == re.findall(r"\w+", text)
    assert all(chunk.text.endswith((",", ".")) for chunk in chunks)


def test_tokens_are_counted_in_one_call() -> None:
    calls = []

    def count(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return count_words(texts)

    text = "\n\n".join(f"## Kop {number}\n\nEen zin hier. Nog een zin daar." for number in range(50))
    split(Document("a", "", "nl", text, ""), count, SMALL)
    # A hundred sentences, and the 49 headings between them.
    assert calls == [149]


def test_sizes_are_near_the_target_on_plain_prose() -> None:
    text = " ".join(f"Dit is zin nummer {number} van de tekst." for number in range(500))
    config = ChunkingConfig()
    sizes = count_words([chunk.text for chunk in chunks_of(text, config)])
    assert all(120 <= size <= 200 for size in sizes)


@pytest.mark.parametrize("sizes", [(10, 5, 1), (10, 20, 11), (0, 0, 0), (10, 20, -1)])
def test_sizes_that_contradict_are_refused(sizes: tuple[int, int, int]) -> None:
    target, most, least = sizes
    with pytest.raises(ValueError, match="min_tokens"):
        ChunkingConfig(target_tokens=target, max_tokens=most, min_tokens=least)


_LINES = st.sampled_from(
    [
        "",
        "",
        "# Kop",
        "## Kop **twee** ##",
        "####Artikel 3",
        "```",
        "~~~",
        "- een punt. Met nog een zin.",
        "1. Zij bezit rechtspersoonlijkheid.",
        "| a | b |",
        "Een gewone regel zonder einde",
        "Zie art. 5 van de wet, o.a. dr. Jansen. Dan verder! Echt waar?",
        "---",
        "===",
        "<!-- begin",
        "einde -->",
        "<div>",
        "{% tag %}",
        "title: x",
        "\u3000\u00a0",
        "é́ 😀 👩‍👩‍👧 ﷺ",
        "x" * 300,
    ]
)
_TEXTS = st.one_of(st.lists(_LINES, max_size=30).map("\n".join), st.text(max_size=300))


def _letters(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=400, deadline=None)
@given(text=_TEXTS, most=st.integers(1, 40), title=st.sampled_from(["", "Kop", "Anders"]))
def test_slices_are_exact_in_order_and_within_the_limit(text: str, most: int, title: str) -> None:
    config = ChunkingConfig(target_tokens=max(1, most * 3 // 4), max_tokens=most, min_tokens=most // 4)
    chunks = chunks_of(text, config, title)
    assert bool(chunks) == bool(text.strip())
    end = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip() == chunk.text != ""
        assert chunk.start >= end
        assert (chunk.ordinal, chunk.id) == (ordinal, f"map/a.md#{ordinal}")
        end = chunk.end
        assert count_words([chunk.text])[0] <= most


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(_LINES.filter(lambda line: not re.match(r"[<{=-]|einde|```|~~~|title", line)), max_size=30)
)
def test_every_character_but_heading_lines_is_in_a_passage(text: list[str]) -> None:
    body = "\n".join(text)
    if not any(line.strip() and not line.startswith("#") for line in text):
        return
    covered = set[int]()
    for chunk in chunks_of(body):
        covered.update(range(chunk.start, chunk.end))
    position = 0
    for line in text:
        if not line.startswith("#"):
            offsets = range(position, position + len(line))
            assert not [at for at in offsets if not body[at].isspace() and at not in covered], line
        position += len(line) + 1


# ── sentences ─────────────────────────────────────────────────────────────────────────────────────────────


def parts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dit is een zin.", "Dit ook!", "En dit?", "Ja."],
        ["Zie art. 5 van de wet.", "Dat geldt o.a. voor dr. Jansen en mr. De Wit."],
        ["Volgens J. de Boer, drs. P. Smit en A.B. Mulder is dat zo.", "Anderen niet."],
        ["Het kost ca. 3.500 euro per jaar (excl. btw).", "Dat is bijv. 10% meer."],
        ["Nr. 5 en no. 6 zijn klaar.", "No.", "It isn't a work of art.", "The rest is."],
        ["See e.g. Fig. 3 and Dr. Smith et al. 2020.", "Mr. Jones, i.e. the owner, agreed."],
        ["Zij zei: “Dat klopt.”", "‘s Ochtends niet."],
        ["'s Middags is het loket open.", "'t Is zo."],
        ["De wet van 1 jan. 2025 geldt.", "De regels e.d. zijn bekend."],
        ["Wacht… er komt meer.", "Echt?!", "Ja!"],
        ["Versie 2.1.3 staat op example.nl/pad.html en is nieuw.", "Download die."],
        ["Het U.S. Congress besloot dat.", "B.V. Jansen ook."],
        ["He lives in the U.S.", "The house is big."],
        ["Dat is stap 3.", "4 mensen kwamen."],
        ["Vitamine C.", "De rest niet."],
    ],
)
def test_sentences_of_a_line(expected: list[str]) -> None:
    assert parts(" ".join(expected)) == expected


def test_list_items_rows_and_headings_are_sentences() -> None:
    lines = [
        "# Kop",
        "Dit is nodig:",
        "- een paspoort",
        "* een foto",
        "1. geld",
        "a) tijd",
        "| x | y |",
        "| 1 | 2 |",
    ]
    assert parts("\n".join(lines)) == lines


def test_a_wrapped_paragraph_is_put_together() -> None:
    text = (
        "Spectral is een linter waarmee je regels vastlegt\nin een ruleset die daarna automatisch\n"
        "controleert. Het ligt onder vuur."
    )
    assert parts(text) == [text[:100], "Het ligt onder vuur."]


def test_a_line_that_was_broken_off_on_purpose_ends_a_sentence() -> None:
    text = (
        "Omgevingsvergunning\nIn het loket ziet u of er een vergunning nodig is voor uw plan. Vraag het na."
    )
    assert parts(text)[0] == "Omgevingsvergunning"
    assert len(parts(text)) == 3


@settings(max_examples=400, deadline=None)
@given(text=_TEXTS)
def test_sentences_cover_every_letter_in_order(text: str) -> None:
    spans = sentences(text)
    end = 0
    for start, stop in spans:
        assert end <= start < stop
        assert text[start:stop] == text[start:stop].strip()
        end = stop
    assert _letters("".join(text[start:stop] for start, stop in spans)) == _letters(text)
