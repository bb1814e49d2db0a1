import pytest
from fakes import documents_of, passages_of, text_document, whole_hit
from hypothesis import given
from hypothesis import strategies as st

from rag.answers import Passage
from rag.citations import cite, narrow, page_of
from rag.prompts import parse_marked
from rag.reading import Claim

FERRY = "Het veer vaart elk uur. Een kaartje kost 3 euro. Honden mogen gratis mee."
CRANE = "De kraan is 12 meter hoog. Hij staat sinds 1931 in Delft."
PASSAGES = passages_of(FERRY, CRANE)
DOCUMENTS = documents_of(PASSAGES)


def quoted(claims: list[Claim]) -> list[tuple[int, str]]:
    return [(citation.number, citation.quote) for citation in cite(claims, PASSAGES, DOCUMENTS).citations]


def test_a_short_answer_is_narrowed_to_the_sentence_that_has_it() -> None:
    cited = cite([Claim("3 euro", (1,))], PASSAGES, DOCUMENTS)
    (citation,) = cited.citations
    assert citation.quote == "Een kaartje kost 3 euro."
    assert (citation.source_start, citation.source_end) == (24, 48)
    assert (citation.answer_start, citation.answer_end) == (0, 6)
    assert cited.text == "3 euro"
    assert cited.sentences[0].support == 1.0


def test_each_sentence_has_a_citation_of_its_own() -> None:
    claims = [Claim("De kraan is 12 meter hoog.", (2,)), Claim("Honden mogen mee.", (1,))]
    cited = cite(claims, PASSAGES, DOCUMENTS)
    assert cited.text == "De kraan is 12 meter hoog. Honden mogen mee."
    assert [(c.number, c.quote) for c in cited.citations] == [
        (2, "De kraan is 12 meter hoog."),
        (1, "Honden mogen gratis mee."),
    ]
    assert cited.text[cited.citations[1].answer_start : cited.citations[1].answer_end] == "Honden mogen mee."
    assert all(sentence.supported for sentence in cited.sentences)


def test_two_sentences_with_one_marker_are_cited_one_by_one() -> None:
    assert quoted([Claim("Een kaartje kost 3 euro. Honden mogen gratis mee.", (1,))]) == [
        (1, "Een kaartje kost 3 euro."),
        (1, "Honden mogen gratis mee."),
    ]


def test_a_claim_that_rests_on_two_sentences_gets_both() -> None:
    assert quoted([Claim("De kraan van 12 meter staat in Delft", (2,))]) == [(2, CRANE)]


def test_a_number_that_is_no_passages_is_never_emitted() -> None:
    assert quoted([Claim("Iets heel anders", (3, 0, -1, 17))]) == []
    assert quoted([Claim("12 meter", (7,))]) == [(2, "De kraan is 12 meter hoog.")]


def test_a_claim_without_number_goes_to_the_passage_that_has_its_words() -> None:
    assert quoted([Claim("sinds 1931", ())]) == [(2, "Hij staat sinds 1931 in Delft.")]


def test_a_claim_without_support_is_marked() -> None:
    cited = cite([Claim("De burgemeester heet Jansen.", (1,))], PASSAGES, DOCUMENTS)
    assert [sentence.supported for sentence in cited.sentences] == [False]


def test_what_is_said_twice_is_said_once() -> None:
    cited = cite([Claim("3 euro", (1,)), Claim("3  EURO", (1,))], PASSAGES, DOCUMENTS)
    assert cited.text == "3 euro"


def test_the_question_decides_between_sentences_that_both_have_the_answer() -> None:
    text = "In 1931 kwam de kraan. In 1931 ging ook de brug open."
    start, end = narrow("1931", text, question="Wanneer ging de brug open?")
    assert text[start:end] == "In 1931 ging ook de brug open."


def test_without_a_shared_word_the_passage_is_the_quote_or_meaning_decides() -> None:
    assert narrow("Dogs are welcome", FERRY) == (0, len(FERRY))
    start, end = narrow("Dogs are welcome", FERRY, similarity=lambda text, others: [0.8, 0.8, 0.93])
    assert FERRY[start:end] == "Honden mogen gratis mee."


def test_offsets_are_into_the_document_not_the_chunk() -> None:
    document = text_document(1, "Voorwoord.\n\n" + FERRY, page_starts=(0, 12))
    passage = Passage(1, whole_hit(document, start=12), "t", "s", "nl")
    (citation,) = cite([Claim("3 euro", (1,))], [passage], {"d1": document}).citations
    assert document.text[citation.source_start : citation.source_end] == citation.quote
    assert citation.source_start == 12 + 24
    assert citation.page == 2


def test_a_document_that_was_replaced_meanwhile_is_not_quoted() -> None:
    assert cite([Claim("3 euro", (1,))], PASSAGES, {"d1": text_document(1, "Nieuwe tekst.")}).citations == ()
    assert cite([Claim("3 euro", (1,))], PASSAGES, {}).citations == ()


@pytest.mark.parametrize(("offset", "page"), [(0, 1), (9, 1), (10, 2), (25, 3), (99, 3)])
def test_pages_count_from_one(offset: int, page: int) -> None:
    assert page_of(text_document(1, "x" * 100, page_starts=(0, 10, 20)), offset) == page


def test_no_pages_no_page() -> None:
    assert page_of(text_document(1, "x"), 0) is None


WRITTEN = (
    st.text() | st.text(alphabet="aeé 12.,[]?!\n") | st.sampled_from([FERRY, CRANE, "3 euro [1] [2] [9]"])
)
SOURCES = st.lists(st.text(min_size=1) | st.just(FERRY), min_size=1, max_size=4)


@given(WRITTEN, SOURCES)
def test_whatever_the_reader_writes_every_citation_holds_to_the_letter(
    written: str, texts: list[str]
) -> None:
    documents = {
        f"d{number}": text_document(number, f"Voorwoord. {text}") for number, text in enumerate(texts, 1)
    }
    passages = [
        Passage(number, whole_hit(document, start=11), document.title, document.source, "nl")
        for number, document in enumerate(documents.values(), start=1)
    ]
    cited = cite(parse_marked(written, 9), passages, documents, question=written[:20])
    for citation in cited.citations:
        text = documents[citation.document_id].text
        assert citation.quote == text[citation.source_start : citation.source_end] != ""
        assert citation.number in {passage.number for passage in passages}
        assert 0 <= citation.answer_start < citation.answer_end <= len(cited.text)
    for sentence in cited.sentences:
        assert 0 <= sentence.start < sentence.end <= len(cited.text)
        assert 0.0 <= sentence.support <= 1.0
