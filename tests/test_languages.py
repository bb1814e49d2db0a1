"""Dutch, English, neither."""

import json
from pathlib import Path

import pytest

from corpus import detect_language

PAIRS = Path(__file__).parents[2] / "shared" / "data" / "reader" / "pairs.train.jsonl"


@pytest.mark.parametrize(
    "question",
    [
        "Wat kost het?",
        "Hoe werkt de AI-fabriek?",
        "Wie betaalt dat?",
        "Wat is greenwashing?",
        "Waar zit het kantoor van Algorithm Audit?",
        "Wanneer gaat de supercomputer open?",
        "Is er een deadline?",
        "kosten?",
        "Hoeveel fte heeft het loket nodig?",
    ],
)
def test_short_dutch_questions(question: str) -> None:
    assert detect_language(question, among=("nl", "en")) == "nl"
    assert detect_language(question) == "nl"


@pytest.mark.parametrize(
    "question",
    [
        "Who pays?",
        "What is the BSN?",
        "When does the Cyberbeveiligingswet take effect?",
        "What does the Autoriteit Persoonsgegevens do?",
        "How many people work at the Rijksdienst voor het Wegverkeer?",
        "Does it cost money?",
        "How do I get rid of an AutoFilter?",
    ],
)
def test_short_english_questions_with_dutch_names(question: str) -> None:
    assert detect_language(question, among=("nl", "en")) == "en"
    assert detect_language(question) == "en"


@pytest.mark.parametrize(
    "text",
    [
        "Die Bundesregierung hat beschlossen, dass die neue Verordnung ab dem ersten Januar gilt.",
        "Le gouvernement a décidé que la nouvelle règle est applicable dans toutes les communes.",
        "El gobierno ha decidido que la nueva norma se aplica en todos los municipios.",
        "De nije plannen binne hjoed presintearre troch de minister, dy't it wurk net langer útstelle wol.",
        "Die regering het besluit dat die nuwe reël vir al die munisipaliteite van toepassing is.",
        "Il governo ha deciso che la nuova regola è valida in tutti i comuni.",
        "Rząd zdecydował, że nowa zasada obowiązuje we wszystkich gminach.",
        "Правительство решило, что новое правило действует во всех муниципалитетах.",
        "政府は新しい規則がすべての自治体に適用されると決定した。",
        "12345 67,89 € 100% 2024-01-01",
        "",
        " \n\t",
    ],
)
def test_neither_is_undetermined(text: str) -> None:
    assert detect_language(text) == "und"


def test_a_choice_is_forced_only_on_evidence() -> None:
    assert detect_language("1234?", among=("nl", "en"), fallback="nl") == "nl"
    assert detect_language("1234?", among=("nl", "en")) == "und"
    assert detect_language("Wer bezahlt das?", among=("nl", "en"), fallback="en") in ("nl", "en")


def test_a_foreign_preface_doesnt_decide_for_a_long_document() -> None:
    english = "This report was translated from the Dutch. " * 20
    dutch = "De gemeente heeft besloten dat het loket voortaan ook in het weekend open is. " * 400
    assert detect_language(english + dutch) == "nl"


def test_real_questions_are_right() -> None:
    if not PAIRS.exists():
        pytest.skip(f"development data is absent: {PAIRS}")
    with PAIRS.open(encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    wrong = [pair["question"] for pair in pairs if detect_language(pair["question"]) != pair["language"]]
    assert len(wrong) <= 0.005 * len(pairs), wrong
