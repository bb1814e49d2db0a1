"""Answers held to a text's words."""

import pytest
from fakes import WordCodec
from hypothesis import given
from hypothesis import strategies as st

from rag.spans import following_tokens

TEXT = "Een paspoort kost 80 euro. Een spoedpaspoort kost 130 euro."


@pytest.fixture
def codec() -> WordCodec:
    made = WordCodec()
    made.encode(" " + TEXT + " ja nee fiets")
    return made


def words(codec: WordCodec, written: str, text: str = TEXT, also: tuple[str, ...] = ()) -> set[str]:
    return {
        codec.decode([token]) if token > 1 else "<eos>"
        for token in following_tokens(codec, text, written, also)
    }


def test_an_answer_begins_with_any_word_of_the_text_and_no_other(codec: WordCodec) -> None:
    assert words(codec, "") >= {" Een", " kost", " spoedpaspoort", " paspoort"}
    assert " fiets" not in words(codec, "")
    assert " ja" not in words(codec, "")
    assert " ja" in words(codec, "", also=("ja", "nee"))


def test_it_goes_on_as_the_text_does_wherever_its_words_stand(codec: WordCodec) -> None:
    assert words(codec, " Een") == {" paspoort", " spoedpaspoort", "<eos>"}
    assert words(codec, " paspoort kost") == {" 8", "<eos>"}
    assert words(codec, " kost") == {" 8", " 1", "<eos>"}


def test_it_ends_only_where_a_word_does(codec: WordCodec) -> None:
    assert words(codec, " kost 8") == {"0"}
    assert words(codec, " kost 80") == {" euro", "<eos>"}


def test_words_inside_another_word_are_no_start(codec: WordCodec) -> None:
    # "paspoort" stands in "spoedpaspoort" as well, but not from the start of a word on.
    assert words(codec, " paspoort") == {" kost", "<eos>"}


def test_a_figure_may_follow_a_space_that_is_a_token_of_its_own() -> None:
    codec = WordCodec()
    space, eight = codec.encode(" ")[0], codec.encode("8")[0]
    text = "kost 80"
    codec.encode(text)
    assert space in following_tokens(codec, text, "")
    assert following_tokens(codec, text, " ") == tuple(sorted({eight, codec.encode("kost")[0]}))
    assert space in following_tokens(codec, text, " kost")
    assert following_tokens(codec, text, " kost ") == (eight,)


def test_an_answer_of_its_own_ends_after_its_word(codec: WordCodec) -> None:
    assert words(codec, " ja", also=("ja", "nee")) == {"<eos>"}


def test_where_nothing_goes_on_the_answer_ends(codec: WordCodec) -> None:
    assert words(codec, " fiets") == {"<eos>"}
    assert words(codec, "", text="") == {"<eos>"}


@given(
    st.lists(st.sampled_from(["een", "twee", "drie", "3", "30", "x,", "(y)"]), min_size=1, max_size=12),
    st.data(),
)
def test_whatever_is_chosen_stands_in_the_text(parts: list[str], data: st.DataObject) -> None:
    text = " ".join(parts)
    codec = WordCodec()
    codec.encode(" " + text)
    codec.encode(text)
    written = ""
    for _ in range(30):
        token = data.draw(st.sampled_from(following_tokens(codec, text, written)))
        if token in codec.eos_ids:
            break
        written += codec.decode([token])
    assert written.strip() in text
