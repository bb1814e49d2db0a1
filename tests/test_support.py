import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.matching import contains_span, find_words, same_word, words_of
from rag.support import MISSING_NUMBER_CAP, NEGATION_CAP, SUPPORT_THRESHOLD, support_score

QUOTE = "De fabriek in Groningen kost 200 miljoen euro en opent in 2026."


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("200 miljoen euro", 1.0),
        ("in groningen KOST 200", 1.0),
        ("", 0.0),
        ("!?", 0.0),
        # fabriek, groningen found; sluit not: 2 of 3.
        ("De fabriek in Groningen sluit", 2 / 3),
        # 2026 counts double: opent, 2026 of opent, 2026, nooit; the negation caps it.
        ("opent nooit in 2026", NEGATION_CAP),
        ("De fabriek in Groningen kost 300 miljoen euro", MISSING_NUMBER_CAP),
    ],
)
def test_scores_by_hand(claim: str, expected: float) -> None:
    assert support_score(claim, QUOTE) == pytest.approx(expected)


def test_a_paraphrase_is_believed_as_far_as_its_meaning_is_near() -> None:
    claim = "The plant starts then"
    assert support_score(claim, QUOTE) < SUPPORT_THRESHOLD
    assert support_score(claim, QUOTE, lambda text, others: [0.94]) == pytest.approx(1.0)
    assert support_score(claim, QUOTE, lambda text, others: [0.82]) < SUPPORT_THRESHOLD


def test_no_similarity_makes_up_for_a_wrong_figure() -> None:
    assert (
        support_score("The plant costs 300 million", QUOTE, lambda text, others: [1.0]) <= MISSING_NUMBER_CAP
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.000", "1000"),
        ("1,000", "1.000"),
        ("3,5", "3.5"),
        ("drie", "three"),
        ("drie", "3"),
        ("Café", "cafe"),
        ("ÉÉN", "een"),
    ],
)
def test_one_thing_written_in_two_ways(one: str, other: str) -> None:
    assert words_of(one)[0].key == words_of(other)[0].key


def test_what_differs_stays_different() -> None:
    assert words_of("3,5")[0].key != words_of("35")[0].key
    assert not same_word("2025", "2026")
    assert not same_word("groningen", "groente")
    assert same_word("universiteit", "university")
    assert same_word("fabrieken", "fabriek")


@pytest.mark.parametrize(
    ("passage", "answer"),
    [
        ("De vergadering begint om 12.30 uur.", "om 12:30 uur"),
        ("The meeting starts at 12:30.", "12.30"),
        ("Open van 09.00 tot 17.00 uur.", "9:00 tot 17:00"),
        ("Aanvang: 9:05u", "09.05u"),
        ("Het kaartje kost € 12,30.", "12.30"),
        ("Pi is 3,14.", "3.14"),
    ],
)
def test_a_time_or_an_amount_is_found_with_another_separator(passage: str, answer: str) -> None:
    assert contains_span(passage, answer)
    assert support_score(f"Antwoord: {answer}", passage) > MISSING_NUMBER_CAP


@pytest.mark.parametrize(
    ("passage", "answer"),
    [
        ("Het kaartje kost € 12.30.", "12:30"),
        ("Het kaartje kost 12.30 euro.", "12:30"),
        ("Het kaartje kost 12,30.", "12:30"),
        ("De rente is 12.30%.", "12:30"),
        ("De vergadering begint om 12.30 uur.", "12:31"),
        ("De vergadering begint om 12:30 uur.", "€ 12.30"),
        ("Het is 12.75.", "12:75"),
        ("De tijd was 12:30:15.", "12.30"),
    ],
)
def test_a_time_is_not_an_amount(passage: str, answer: str) -> None:
    assert not contains_span(passage, answer)
    assert support_score(f"Antwoord: {answer}", passage) <= MISSING_NUMBER_CAP


def test_a_span_is_found_at_word_boundaries() -> None:
    assert contains_span("Het kost 300 euro.", "300 EURO")
    assert not contains_span("Het kost 1300 euro.", "300 euro")
    assert not contains_span("Iets", "")
    assert find_words(words_of("een twee, drie"), words_of("twee drie")) == (4, 14)


@given(st.text(), st.text())
def test_a_score_is_a_share(claim: str, quote: str) -> None:
    assert 0.0 <= support_score(claim, quote) <= 1.0


@given(st.text())
def test_words_are_where_they_say(text: str) -> None:
    for word in words_of(text):
        assert word.key
        assert text[word.start : word.end].strip()
