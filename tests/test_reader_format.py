"""The trained reader's format: what the prompt looks like, what may be written, and what is read from it."""

import pytest
from fakes import WordCodec
from hypothesis import given
from hypothesis import strategies as st

from corpus.document import Chunk
from corpus.errors import QuestionError
from index.hits import Hit
from rag.answers import Passage, Style
from rag.prompts import format_named
from rag.reader_format import (
    ABSTAIN_TOKEN,
    FORMAT_NAME,
    MAX_PASSAGES,
    CitedSentence,
    ReaderFormat,
    target_ids,
)
from rag.reading import Claim, ReadRequest


def passage(number: int, text: str, title: str = "Paspoort", heading: str = "") -> Passage:
    chunk = Chunk(f"c{number}", f"d{number}", 0, 0, len(text), text, heading)
    return Passage(number, Hit(chunk, 1.0), title, "bron", "nl")


@pytest.fixture
def codec() -> WordCodec:
    made = WordCodec()
    made.encode(ABSTAIN_TOKEN)
    return made


def request(*texts: str, language: str = "nl", style: Style = Style.SHORT) -> ReadRequest:
    passages = tuple(passage(number, text) for number, text in enumerate(texts, start=1))
    return ReadRequest("Wat kost het?", language, passages, style)


def test_the_prompt_shows_passages_then_the_question_and_opens_a_marker(
    codec: WordCodec,
) -> None:
    made = ReadRequest(
        "Wat kost\nhet?", "nl", (passage(1, "Het kost 5 euro.", "Paspoort", "Prijs › 2026"),), Style.SHORT
    )
    prompt = ReaderFormat(codec).render(made, 500)
    assert codec.decode(prompt.token_ids) == (
        "[1] Paspoort › Prijs › 2026\nHet kost 5 euro.\n\nVraag: Wat kost het?\nKort antwoord: ["
    )
    assert prompt.token_ids[0] == codec.bos_id


@pytest.mark.parametrize(
    ("language", "style", "cue"),
    [
        ("nl", Style.SHORT, "Vraag: Wat kost het?\nKort antwoord: ["),
        ("nl", Style.FULL, "Vraag: Wat kost het?\nAntwoord: ["),
        ("en", Style.SHORT, "Question: Wat kost het?\nShort answer: ["),
        ("en", Style.FULL, "Question: Wat kost het?\nAnswer: ["),
        ("und", Style.FULL, "Question: Wat kost het?\nAnswer: ["),
    ],
)
def test_the_cue_names_language_and_style(codec: WordCodec, language: str, style: Style, cue: str) -> None:
    prompt = ReaderFormat(codec).render(request("Vijf euro.", language=language, style=style), 500)
    assert codec.decode(prompt.token_ids).endswith("\n\n" + cue)


def test_a_marker_inside_a_passage_is_not_one(codec: WordCodec) -> None:
    prompt = ReaderFormat(codec).render(request("Zie [2] en [3, 4]."), 500)
    text = codec.decode(prompt.token_ids)
    assert "Zie (2) en (3, 4)." in text
    assert text.count("[") == 2


def test_passages_that_do_not_fit_are_left_out_from_the_end(codec: WordCodec) -> None:
    prompt = ReaderFormat(codec).render(request("een twee drie", "vier vijf zes " * 40), 40)
    assert [each.number for each in prompt.passages] == [1]
    assert len(prompt.token_ids) <= 40


def test_a_question_that_leaves_no_room_is_refused(codec: WordCodec) -> None:
    with pytest.raises(QuestionError, match="leaves no room"):
        ReaderFormat(codec).render(request("een twee drie"), 14)


def test_at_most_nine_passages_since_a_number_is_one_digit(codec: WordCodec) -> None:
    prompt = ReaderFormat(codec).render(request(*["woord"] * 12), 5000)
    assert len(prompt.passages) == MAX_PASSAGES


def test_the_first_token_is_a_given_number_or_abstaining(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een", "twee"), 500)
    digits = {codec.encode(digit)[0] for digit in "12"}
    assert set(form.allowed(prompt, []) or ()) == digits | {form.abstain_token_id}


def test_after_the_number_the_marker_closes_and_words_are_free(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een", "twee"), 500)
    one, close, word = codec.encode("1")[0], codec.encode("]")[0], codec.encode(" een")[0]
    assert form.allowed(prompt, [one]) == (close,)
    assert set(form.allowed(prompt, [one, close]) or ()) >= {word}


def test_a_short_answer_is_held_to_the_words_of_the_passage_it_names(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een kat", "twee honden blaffen"), 500)
    first, second = codec.encode("1]"), codec.encode("2]")
    codec.encode(" een kat twee honden blaffen ja nee Paspoort")

    def words(ids: list[int]) -> set[str]:
        return {codec.decode([token]) for token in form.allowed(prompt, ids) or ()}

    assert words(first) == {" een", " kat", " ja", " nee", " Paspoort"}
    assert words([*second, *codec.encode(" twee")]) == {" honden", ""}


def test_a_short_answer_may_begin_with_a_figure(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("kost 80 euro"), 500)
    space, eight = codec.encode(" ")[0], codec.encode("8")[0]
    first = codec.encode("1]")
    assert space in (form.allowed(prompt, first) or ())
    assert eight in (form.allowed(prompt, [*first, space]) or ())
    assert space not in (form.allowed(prompt, [*first, space]) or ())


@pytest.mark.parametrize(("language", "style"), [("en", Style.SHORT), ("nl", Style.FULL)])
def test_a_translation_and_a_full_answer_are_in_words_of_their_own(
    codec: WordCodec, language: str, style: Style
) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een", language=language, style=style), 500)
    assert form.allowed(prompt, codec.encode("1]")) is None


def test_a_later_marker_holds_only_given_numbers(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een", "twee", style=Style.FULL), 500)
    written = codec.encode("1] Ja. [")
    assert set(form.allowed(prompt, written) or ()) == {codec.encode(digit)[0] for digit in "12"}


def test_without_passages_it_can_only_abstain(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request(), 500)
    assert form.allowed(prompt, []) == (form.abstain_token_id,)


def test_a_target_reads_back_as_its_claims(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een", "twee", style=Style.FULL), 500)
    sentences = (CitedSentence(2, "Het kost vijf euro."), CitedSentence(1, "Dat is per jaar."))
    ids = target_ids(codec, sentences, 1)
    assert codec.decode(ids) == "2] Het kost vijf euro. [1] Dat is per jaar."
    assert form.parse(prompt, ids) == (Claim("Het kost vijf euro.", (2,)), Claim("Dat is per jaar.", (1,)))
    assert form.visible_text(prompt, ids) == "Het kost vijf euro. Dat is per jaar."
    assert form.is_finished(prompt, ids)
    assert not form.is_finished(prompt, ids[:-1])


def test_abstaining_is_one_token_and_no_claims(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een"), 500)
    ids = target_ids(codec, (), 1)
    assert ids == [form.abstain_token_id, 1]
    assert form.is_finished(prompt, ids[:1])
    assert form.parse(prompt, ids) == ()


def test_a_short_answer_ends_at_a_second_marker(codec: WordCodec) -> None:
    form = ReaderFormat(codec)
    prompt = form.render(request("een", "twee"), 500)
    ids = codec.encode("2] vijf euro [")
    assert form.is_finished(prompt, ids)
    assert form.parse(prompt, ids) == (Claim("vijf euro", (2,)),)


def test_the_format_is_known_by_its_name(codec: WordCodec) -> None:
    assert isinstance(format_named(FORMAT_NAME, codec), ReaderFormat)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.text(st.sampled_from("abc .,"), min_size=1, max_size=20)),
        min_size=1,
        max_size=4,
    )
)
def test_every_target_reads_back(written: list[tuple[int, str]]) -> None:
    codec = WordCodec()
    codec.encode(ABSTAIN_TOKEN)
    form = ReaderFormat(codec)
    prompt = form.render(request("een", "twee", "drie", style=Style.FULL), 500)
    sentences = [CitedSentence(number, text) for number, text in written if text.strip()]
    claims = form.parse(prompt, target_ids(codec, sentences, 1))
    assert claims == tuple(Claim(" ".join(s.text.split()), (s.number,)) for s in sentences)
