import re

import pytest
from fakes import WordCodec, passages_of
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import ModelError, QuestionError
from rag.answers import Style
from rag.chat_format import ChatFormat
from rag.few_shot_format import FewShotFormat
from rag.prompts import (
    MarkerTokens,
    PromptFormat,
    as_data,
    fit_passages,
    format_named,
    parse_marked,
    passage_line,
    without_markers,
)
from rag.reading import Claim, ReadRequest

TEXTS = ("De kraan is 12 meter hoog. Hij staat in Delft.", "Het veer kost 3 euro. Honden mogen mee.")


def request(question: str = "Wat kost het veer?", style: Style = Style.SHORT, texts: tuple[str, ...] = TEXTS):
    return ReadRequest(question, "nl", passages_of(*texts), style)


def write(prompt_format: PromptFormat, prompt, codec: WordCodec, text: str) -> list[int]:
    """The token ids of a text, each checked to be allowed where it stands."""
    generated: list[int] = []
    for token in codec.encode(text):
        allowed = prompt_format.allowed(prompt, generated)
        assert allowed is None or token in allowed, codec.decode([token])
        generated.append(token)
    return generated


# Text in documents is data


def test_a_marker_in_a_passage_is_not_a_marker_in_the_prompt() -> None:
    assert as_data("zie [3] en [ 4, 5 ] en [noot]") == "zie (3) en (4, 5) en [noot]"


def test_a_label_in_a_passage_cannot_start_a_line() -> None:
    assert as_data("Ja.\nQuestion: niet\r\n\u2028Answer:\x00 [1]") == "Ja. Question: niet Answer: (1)"


@given(st.text())
def test_data_is_one_line_without_markers(text: str) -> None:
    data = as_data(text)
    assert not re.search(r"\[\s*\d+\s*\]", data)
    assert len(data.splitlines()) <= 1


def test_a_passage_line_has_title_heading_and_text() -> None:
    assert passage_line(passages_of("Tekst.")[0], "Tekst [1].") == "[1] Titel 1: Tekst (1).\n"


# Fitting


def words(passage, text: str) -> list[int]:
    return [passage.number] * len(text.split())


def test_the_last_passages_are_dropped() -> None:
    fitted, ids = fit_passages(passages_of("a b c", "d e f", "g"), 6, words)
    assert [passage.number for passage in fitted] == [1, 2]
    assert ids == [1, 1, 1, 2, 2, 2]


def test_a_first_passage_that_is_too_long_is_cropped_at_a_sentence() -> None:
    cropped = []

    def block(passage, text: str) -> list[int]:
        cropped.append(text)
        return words(passage, text)

    fitted, ids = fit_passages(passages_of("Een twee. Drie vier. Vijf zes zeven."), 5, block)
    assert len(fitted) == 1
    assert len(ids) == 4
    assert cropped[-1] == "Een twee. Drie vier."


def test_a_first_sentence_that_is_too_long_is_cropped_at_a_word() -> None:
    fitted, ids = fit_passages(passages_of("een twee drie vier vijf zes."), 4, words)
    assert len(fitted) == 1
    assert len(ids) == 4


def test_nothing_fits_in_nothing() -> None:
    assert fit_passages(passages_of("een twee"), 0, words) == ((), [])


# Markers


def test_only_numbers_of_passages_may_follow_an_opened_marker() -> None:
    codec = WordCodec()
    markers = MarkerTokens(codec)
    opened = codec.encode("een [")
    digits = {codec.encode(str(number))[0]: number for number in range(1, 10)}
    assert sorted(digits[token] for token in markers.allowed(3, opened) or ()) == [1, 2, 3]
    assert markers.allowed(3, [*opened, *codec.encode("2")]) == (codec.encode("]")[0],)
    assert markers.allowed(3, codec.encode("een [2] en")) is None
    assert markers.allowed(3, []) is None


def test_numbers_of_two_digits_are_spelled_out() -> None:
    codec = WordCodec()
    allowed = MarkerTokens(codec).allowed(12, codec.encode("x [1")) or ()
    assert {codec.decode([token]) for token in allowed} == {"]", "0", "1", "2"}


def test_claims_end_at_their_markers() -> None:
    assert parse_marked("Het is groen [1]. Het is groot [2][3], ja [9]", 3) == (
        Claim("Het is groen.", (1,)),
        Claim("Het is groot,", (2, 3)),
        Claim("ja", ()),
    )


def test_text_without_markers_is_a_claim_without_numbers() -> None:
    assert parse_marked("Het is groen [", 3) == (Claim("Het is groen", ()),)
    assert parse_marked("  ", 3) == ()


@given(st.text(alphabet="ab .[]0123,;\n") | st.text(), st.integers(0, 9))
def test_no_claim_names_a_passage_that_is_not_there(text: str, count: int) -> None:
    for claim in parse_marked(text, count):
        assert all(1 <= number <= count for number in claim.numbers)
        assert claim.text.strip()


@given(st.text(alphabet="ab .[]01"))
def test_visible_text_has_no_markers(text: str) -> None:
    assert not re.search(r"\[\d+\]", without_markers(without_markers(text)))


# The few-shot format


def test_few_shot_keeps_its_beginning() -> None:
    prompt_format = FewShotFormat(WordCodec())
    one = prompt_format.render(request("Wat?"), 1000)
    other = prompt_format.render(request("Hoe hoog?", texts=("Iets anders.",)), 1000)
    assert one.fixed_tokens == other.fixed_tokens > 50
    assert one.token_ids[: one.fixed_tokens] == other.token_ids[: other.fixed_tokens]


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("make", [FewShotFormat, ChatFormat])
def test_a_prompt_stays_within_its_budget(style: Style, make) -> None:
    prompt_format = make(WordCodec(("<user>", "<model>")))
    long = request(style=style, texts=("Een zin van zes hele woorden. " * 100,) * 3)
    for budget in (400, 700, 1500):
        prompt = prompt_format.render(long, budget)
        assert len(prompt.token_ids) <= budget
        assert prompt.passages


@pytest.mark.parametrize("make", [FewShotFormat, ChatFormat])
def test_a_question_that_leaves_no_room_is_refused(make) -> None:
    prompt_format = make(WordCodec(("<user>", "<model>")))
    with pytest.raises(QuestionError, match="too long"):
        prompt_format.render(request("woord " * 600), 600)


def test_few_shot_writes_a_run_of_a_passages_words() -> None:
    codec = WordCodec()
    prompt_format = FewShotFormat(codec)
    prompt = prompt_format.render(request(), 1000)
    generated = write(prompt_format, prompt, codec, " 3 euro")
    assert not prompt_format.is_finished(prompt, generated)
    following = {codec.decode([token]) for token in prompt_format.allowed(prompt, generated) or ()}
    assert following == {".", "\n"}
    generated += codec.encode("\n")
    assert prompt_format.is_finished(prompt, generated)
    assert prompt_format.parse(prompt, generated) == (Claim("3 euro", (2,)),)


def test_few_shot_gives_the_sentence_around_the_words_in_the_full_style() -> None:
    codec = WordCodec()
    prompt_format = FewShotFormat(codec)
    prompt = prompt_format.render(request(style=Style.FULL), 1000)
    generated = write(prompt_format, prompt, codec, " Honden\n")
    assert prompt_format.is_finished(prompt, generated)
    assert prompt_format.parse(prompt, generated) == (Claim("Honden mogen mee.", (2,)),)


@pytest.mark.parametrize("style", list(Style))
def test_few_shot_abstains_with_its_first_token(style: Style) -> None:
    codec = WordCodec()
    prompt_format = FewShotFormat(codec)
    prompt = prompt_format.render(request(style=style), 1000)
    generated = write(prompt_format, prompt, codec, " ?")
    assert generated == [prompt_format.abstain_token_id]
    assert prompt_format.is_finished(prompt, generated)
    assert prompt_format.parse(prompt, generated) == ()
    assert prompt_format.visible_text(prompt, generated) == ""


@given(st.lists(st.integers(0, 400), max_size=12), st.sampled_from(list(Style)))
def test_few_shot_parses_whatever_was_written(generated: list[int], style: Style) -> None:
    codec = WordCodec()
    prompt_format = FewShotFormat(codec)
    prompt = prompt_format.render(request(style=style), 1000)
    known = [token for token in generated if token < len(codec._ids)]
    for claim in prompt_format.parse(prompt, known):
        assert set(claim.numbers) <= {1, 2}
    assert prompt_format.allowed(prompt, known)


# The chat format


def test_chat_puts_the_message_in_the_models_frame() -> None:
    codec = WordCodec(("<user>", "<model>"))
    text = codec.decode(ChatFormat(codec).render(request(), 1000).token_ids)
    assert text.startswith("<user>")
    assert text.endswith("Vraag: Wat kost het veer?<model>")
    assert "[2] Titel 2: Het veer kost 3 euro." in text


def test_chat_reads_claims_and_abstentions() -> None:
    codec = WordCodec(("<user>", "<model>"))
    prompt_format = ChatFormat(codec)
    prompt = prompt_format.render(request(style=Style.FULL), 1000)
    generated = write(prompt_format, prompt, codec, "Het veer kost 3 euro [2]. ")
    assert not prompt_format.is_finished(prompt, generated)
    assert prompt_format.parse(prompt, generated) == (Claim("Het veer kost 3 euro.", (2,)),)
    assert prompt_format.visible_text(prompt, generated) == "Het veer kost 3 euro."
    assert prompt_format.is_finished(prompt, [*generated, 1])
    assert prompt_format.parse(prompt, codec.encode("?")) == ()


def test_chat_needs_a_template() -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatFormat(WordCodec())


def test_an_unknown_format_is_named_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'poem'.*few-shot"):
        format_named("poem", WordCodec())
    assert format_named("few-shot", WordCodec()).name == "few-shot"
