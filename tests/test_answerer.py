import dataclasses
import json

import pytest
from fakes import LetterEmbedder, ListCollection, ScriptedReader, text_document, whole_hit
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import DocumentNotFoundError, InputError, ModelError, QuestionError
from index.hits import Filters, SearchMode
from rag.answerer import ABSTENTIONS, Answerer, AnswererConfig
from rag.answers import Answer, Citation, Style
from rag.calibration import Calibration, read_card
from rag.reading import Claim, Reader
from rag.rendering import answer_to_dict, answer_to_json, render_markers

FERRY = text_document(1, "Het veer vaart elk uur. Een kaartje kost 3 euro.")
CRANE = text_document(2, "The crane is 12 metres high. It stands in Delft.", "en")
ANSWERING = (Claim("Een kaartje kost 3 euro.", (1,)),)


def answerer(
    reader: Reader | None = None, *documents, config: AnswererConfig | None = None, **more: object
) -> Answerer:
    collection = ListCollection(documents or (FERRY, CRANE))
    return Answerer(collection, reader or ScriptedReader(*ANSWERING), LetterEmbedder(), config, **more)  # type: ignore[arg-type]


def test_an_answer_is_cited_to_the_letter() -> None:
    answer = answerer().ask("Wat kost het veer?")
    assert answer.text == "Een kaartje kost 3 euro."
    assert not answer.abstained
    assert answer.language == "nl"
    (citation,) = answer.citations
    assert (
        citation.quote
        == FERRY.text[citation.source_start : citation.source_end]
        == "Een kaartje kost 3 euro."
    )
    assert (citation.title, citation.source, citation.page) == ("Titel 1", "d1.txt", None)
    assert [passage.number for passage in answer.passages] == [1, 2]
    assert set(answer.timings) == {"embed_s", "search_s", "read_s", "cite_s", "total_s"}
    stages = sum(seconds for stage, seconds in answer.timings.items() if stage != "total_s")
    assert answer.timings["total_s"] == pytest.approx(stages)


def test_what_is_asked_reaches_search_and_reader() -> None:
    collection, reader = ListCollection((FERRY, CRANE)), ScriptedReader(*ANSWERING)
    filters = Filters(languages=frozenset({"en"}))
    Answerer(collection, reader, LetterEmbedder()).ask(
        " Wat kost het? ", style=Style.SHORT, language="en", filters=filters, top_k=1, mode=SearchMode.DENSE
    )
    assert collection.asked == [(["Wat kost het?"], 5, SearchMode.DENSE, filters)]
    (request,) = reader.requests
    assert (request.question, request.language, request.style) == ("Wat kost het?", "en", Style.SHORT)
    assert len(request.passages) == 1


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("a" * 101, r"101 characters; at most 100"),
        ("Wat \ud800 kost het?", r"U\+D800 at 4"),
        ("Wat\0kost het?", r"U\+0000 at 3"),
    ],
)
def test_a_question_that_cannot_be_used_is_refused(question: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        answerer(config=AnswererConfig(max_question_chars=100)).ask(question)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(InputError, match="'de'.*nl, en"):
        answerer().ask("Wat?", language="de")
    with pytest.raises(InputError, match="top_k is 0"):
        answerer().ask("Wat?", top_k=0)


# Abstaining


@pytest.mark.parametrize("language", ["nl", "en"])
def test_a_reader_that_abstains_makes_an_answer_that_says_so(language: str) -> None:
    answer = answerer(ScriptedReader(abstain=0.8)).ask("Wat kost het?", language=language)
    assert answer.abstained
    assert answer.text == ABSTENTIONS[language]
    assert (answer.sentences, answer.citations) == ((), ())
    assert answer.confidence == pytest.approx(0.2)
    assert len(answer.passages) == 2


def test_without_hits_the_reader_is_not_asked() -> None:
    reader = ScriptedReader(*ANSWERING)
    answer = Answerer(ListCollection(()), reader, LetterEmbedder()).ask("Wat kost het?")
    assert answer.abstained
    assert answer.confidence == 0.0
    assert reader.requests == []


def test_an_answer_that_rests_on_no_passage_is_withheld() -> None:
    assert answerer(ScriptedReader(Claim("42", ()))).ask("Wat?", style=Style.SHORT).abstained


def test_a_claim_without_support_is_marked_beside_one_that_has_it() -> None:
    answer = answerer(ScriptedReader(*ANSWERING, Claim("Bananen zijn krom.", ()))).ask("Wat kost het?")
    assert not answer.abstained
    assert [sentence.supported for sentence in answer.sentences] == [True, False]


def test_confidence_is_calibrated_and_decides() -> None:
    calibration = Calibration(threshold=0.5, points=((0.0, 0.0), (0.9, 0.45)))
    reader = ScriptedReader(*ANSWERING, abstain=0.2, wrote=0.5)
    assert answerer(reader).ask("Wat?").confidence == pytest.approx(0.8 * 0.5)
    withheld = answerer(reader, calibration=calibration).ask("Wat?")
    assert withheld.confidence == pytest.approx(0.2)
    assert withheld.abstained


# Passages


def test_the_same_text_is_read_once() -> None:
    copy = text_document(3, "Het veer vaart  elk uur. Een kaartje kost 3 euro.")
    part = text_document(4, "Een kaartje kost 3 euro.")
    reader = ScriptedReader(*ANSWERING)
    answerer(reader, FERRY, copy, part, CRANE).ask("Wat kost het?")
    ids = [passage.hit.chunk.document_id for passage in reader.requests[0].passages]
    assert ids == ["d1", "d2"]
    assert [passage.number for passage in reader.requests[0].passages] == [1, 2]


def test_a_document_deleted_since_the_search_is_left_out() -> None:
    collection = ListCollection((FERRY, CRANE))
    del collection.documents["d1"]
    answer = Answerer(collection, ScriptedReader(*ANSWERING), LetterEmbedder()).ask("Wat kost het?")
    assert [passage.title for passage in answer.passages] == ["Titel 2"]


def test_given_hits_are_read_in_their_order() -> None:
    reader = ScriptedReader(*ANSWERING)
    subject = answerer(reader)
    subject.answer_from("Wat kost het?", [whole_hit(CRANE), whole_hit(FERRY)])
    assert [passage.title for passage in reader.requests[0].passages] == ["Titel 2", "Titel 1"]
    with pytest.raises(DocumentNotFoundError):
        subject.answer_from("Wat?", [whole_hit(text_document(9, "weg"))])
    assert subject.answer_from("Wat?", []).abstained


def test_the_language_of_the_best_passage_decides_where_the_question_has_none() -> None:
    assert answerer(None, CRANE, FERRY).ask("2026?").language == "en"
    assert answerer(None, FERRY, CRANE).ask("2026?").language == "nl"
    assert answerer().ask("How much is the ferry?").language == "en"


def test_a_batch_gives_what_single_questions_give() -> None:
    questions = ["Wat kost het veer?", "How high is the crane?"]
    done: list[int] = []
    batch = answerer().ask_batch(questions, on_done=done.append)
    singles = [answerer().ask(question) for question in questions]
    assert [without_timings(answer) for answer in batch] == [without_timings(answer) for answer in singles]
    assert set(batch[0].timings) == {"embed_s", "search_s", "read_s", "cite_s", "total_s"}
    assert done == [2]
    assert answerer().ask_batch([]) == []


def without_timings(answer: Answer) -> Answer:
    return dataclasses.replace(answer, timings={})


@given(st.text(max_size=40), st.text())
def test_whatever_is_asked_and_written_no_marker_is_invented(question: str, written: str) -> None:
    subject = answerer(ScriptedReader(Claim(written or "x", (1, 2, 3))))
    try:
        answer = subject.ask(question)
    except QuestionError:
        return
    for citation in answer.citations:
        assert citation.number in (1, 2)
        assert citation.quote in (FERRY.text, CRANE.text)[citation.number - 1]
    json.loads(answer_to_json(answer))


# Rendering


def test_markers_stand_after_what_they_support() -> None:
    answer = answerer(
        ScriptedReader(*ANSWERING, Claim("The crane is 12 metres high.", (2, 1)), Claim("Los.", ()))
    ).ask("Wat kost het?")
    assert render_markers(answer) == "Een kaartje kost 3 euro. [1] The crane is 12 metres high. [2][1] Los."


def test_json_has_the_field_names_of_the_types() -> None:
    content = answer_to_dict(answerer().ask("Wat kost het veer?"))
    assert list(content) == [field.name for field in dataclasses.fields(Answer)]
    (citation,) = content["citations"]  # type: ignore[misc]
    assert list(citation) == [field.name for field in dataclasses.fields(Citation)]
    assert content["passages"][0]["hit"]["chunk"]["text"] == FERRY.text  # type: ignore[index]


# Calibration


def test_calibration_is_linear_between_its_points() -> None:
    calibration = Calibration(points=((0.2, 0.1), (0.6, 0.5), (0.8, 0.9)))
    for raw, expected in [(0.0, 0.1), (0.2, 0.1), (0.4, 0.3), (0.7, 0.7), (1.0, 0.9)]:
        assert calibration.probability(raw) == pytest.approx(expected)
    assert Calibration().probability(0.37) == 0.37


def test_calibration_never_falls() -> None:
    with pytest.raises(ValueError, match="must rise"):
        Calibration(points=((0.0, 0.5), (1.0, 0.4)))


def test_a_readers_card_is_read_and_checked(tmp_path) -> None:
    assert read_card(tmp_path).calibration is None
    card = tmp_path / "reader.json"
    card.write_text(
        '{"id": "r1", "format": "chat", "calibration": {"threshold": 0.4, "points": [[0, 0], [1, 0.9]]}}'
    )
    assert read_card(tmp_path).calibration == Calibration(0.4, ((0.0, 0.0), (1.0, 0.9)))
    assert read_card(tmp_path).format == "chat"
    for wrong in (
        "[]",
        "{",
        '{"calibration": {"points": [[1, 1], [0, 0]]}}',
        '{"calibration": {"points": 3}}',
    ):
        card.write_text(wrong)
        with pytest.raises(ModelError, match=r"reader\.json isn't"):
            read_card(tmp_path)
