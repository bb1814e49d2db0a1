"""Runs on a fake system: scores, crashes, interrupting and going on, bad sets, many cases."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eval_fakes import CASES, DELFT, TEXTS, FakeSystem, answer_of, span

from corpus.errors import EvalSetError, EvaluationError, ModelError
from eval.cases import EvalCase, Relevant
from eval.gold import GoldFinder, place
from eval.passages import PassagePicker, origin_of, place_of, word_runs
from eval.records import CaseRecord, read_records
from eval.runner import EvaluationRun, RunProgress, RunState, evaluate
from eval.scoring import Retrieved, answer_scores, is_verbatim, language_right, retrieval_scores
from eval.summary import RunSettings, Summary, read_summary
from eval.systems import Searched
from index.hits import Filters, Hit, SearchMode
from rag.answers import Answer, AnswerSentence, Style


def write(folder: Path, records: Sequence[Mapping[str, object]], name: str = "set.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def run(
    folder: Path, cases: Sequence[Mapping[str, object]] = CASES, **settings: Any
) -> tuple[Summary, dict[str, CaseRecord]]:
    out = folder / "out"
    summary = evaluate(FakeSystem(), write(folder, cases), RunSettings(**settings), out)
    return summary, {record.id: record for record in read_records(out / "cases.jsonl")}


def mean(summary: Summary, name: str, group: str = "all") -> float | None:
    return summary.metrics[name][group].mean


# Scores


def test_short_answers_are_scored_by_hand(tmp_path: Path) -> None:
    summary, records = run(tmp_path)
    # "1572" is right; "euro" shares 1 word with "200 miljoen euro"; "Davies" is right; "Wie?" is abstained
    # from, and the trap is answered.
    assert [records[name].metrics["f1"] for name in ("delft", "kosten", "named", "moon", "trap")] == [
        1,
        0.5,
        1,
        1,
        0,
    ]
    assert [records[name].metrics["em"] for name in ("delft", "kosten", "named", "moon", "trap")] == [
        1,
        0,
        1,
        1,
        0,
    ]
    assert mean(summary, "f1") == pytest.approx(3.5 / 5)
    assert mean(summary, "has_ans_f1") == pytest.approx(2.5 / 3, abs=1e-6)
    assert mean(summary, "no_ans_accuracy") == mean(summary, "abstention_recall") == 0.5
    assert mean(summary, "abstention_precision") == 1.0
    # One right abstention of one, two unanswerable: 2 / (1 + 2).
    assert mean(summary, "abstention_f1") == pytest.approx(2 / 3, abs=1e-6)
    assert mean(summary, "correct") == 0.8
    assert mean(summary, "citation_precision") == mean(summary, "citation_recall") == 1.0
    assert summary.metrics["citation_f1"]["all"].n == 3
    assert mean(summary, "verbatim_quotes") == 1.0
    assert mean(summary, "invalid_markers") == 0.0


def test_risk_and_coverage_of_a_run_by_hand(tmp_path: Path) -> None:
    summary, _ = run(tmp_path)
    # From the surest on: "named" (0.9) right; "delft" and "kosten" (0.7) right; the trap (0.5) wrong; and the
    # abstention last, as a loss: risks 0, 0, 1/4 and 2/5 at coverages 0.2, 0.6, 0.8 and 1.
    assert [(point.coverage, point.risk) for point in summary.risk_coverage] == [
        (0.2, 0.0),
        (0.6, 0.0),
        (0.8, 0.25),
        (1.0, 0.4),
    ]
    assert mean(summary, "aurc") == pytest.approx(0.2 * 0.25 + 0.2 * 0.4)
    assert mean(summary, "coverage@5%risk") == 0.6


def test_what_does_not_apply_is_null(tmp_path: Path) -> None:
    _, records = run(tmp_path)
    delft, moon = records["delft"].metrics, records["moon"].metrics
    assert delft["no_ans_accuracy"] is delft["answer_language"] is delft["answer_f1"] is None
    assert moon["has_ans_f1"] is moon["citation_f1"] is moon["ndcg@10"] is moon["supported"] is None


def test_a_wrong_abstention_scores_zero_and_has_no_citations_to_judge(tmp_path: Path) -> None:
    _, records = run(tmp_path, [{**CASES[0], "question": "Wie?"}])
    figures = records["delft"].metrics
    assert figures["has_ans_f1"] == figures["correct"] == figures["abstention_precision"] == 0.0
    assert figures["abstained"] == 1.0
    for name in ("citation_precision", "citation_recall", "citation_f1", "citation_span_f1", "supported"):
        assert figures[name] is None, name


def test_full_answers_have_their_own_metrics(tmp_path: Path) -> None:
    summary, records = run(tmp_path, style=Style.FULL)
    assert records["delft"].metrics["answer_f1"] == records["delft"].metrics["rouge_l"] == 1.0
    assert records["delft"].metrics["contains_answer"] == 1.0
    assert records["delft"].metrics["f1"] is None
    assert summary.metrics["answer_f1"]["all"].n == 1
    assert records["named"].metrics["answer_language"] == 1.0


def test_groups(tmp_path: Path) -> None:
    summary, records = run(tmp_path)
    assert {name: estimate.n for name, estimate in summary.metrics["correct"].items()} == {
        "all": 5,
        "answerable=false": 2,
        "answerable=true": 3,
        "crosslingual=false": 5,
        "language=en": 1,
        "language=nl": 4,
        "tag:set=a": 2,
        "tag:set=b": 3,
    }
    assert records["named"].crosslingual is False


def test_a_question_in_another_language_than_its_document_is_crosslingual(tmp_path: Path) -> None:
    _, records = run(tmp_path, [{**CASES[2], "language": "nl"}, {**CASES[0], "tags": {"crosslingual": True}}])
    assert [record.crosslingual for record in records.values()] == [True, True]


def test_a_tag_with_many_values_is_no_group(tmp_path: Path) -> None:
    cases = [{**CASES[0], "id": str(i), "tags": {"page": i, "set": "s"}} for i in range(25)]
    summary, _ = run(tmp_path, cases, retrieval_only=True)
    groups = summary.metrics["ndcg@10"]
    assert "tag:set=s" in groups
    assert not any(name.startswith("tag:page") for name in groups)


def test_modes_side_by_side(tmp_path: Path) -> None:
    summary, records = run(tmp_path, retrieval_only=True, modes=tuple(SearchMode))
    assert mean(summary, "ndcg@10") == mean(summary, "ndcg@10:dense") == 1.0
    # From the wrong end, a chunk without any shared word is first: of the right document for one in three.
    assert mean(summary, "recall@1:lexical") == pytest.approx(1 / 3, abs=1e-6)
    assert set(records["delft"].found) == {"dense", "lexical", "fused"}
    assert summary.recall["fused"][0] == 1.0
    assert summary.recall["lexical"][0] == pytest.approx(1 / 3, abs=1e-6)


def test_a_search_can_be_narrowed_to_documents_in_a_language(tmp_path: Path) -> None:
    summary, records = run(tmp_path, document_languages=("nl",))
    assert records["named"].metrics["recall@10"] == 0.0
    assert all(
        passage.document.startswith("nl/") for record in records.values() for passage in record.passages
    )
    assert records["delft"].metrics["recall@1"] == 1.0
    assert summary.settings.document_languages == ("nl",)


def test_span_level_retrieval_by_hand() -> None:
    system = FakeSystem()
    finder = GoldFinder(system.document, system.chunks)
    case = EvalCase(
        "x",
        "?",
        "nl",
        True,
        relevant=(Relevant("nl/delft", quote="1572"), Relevant("nl/delft", quote="1620")),
    )
    gold = finder.find(case)
    assert [DELFT[start:end] for _, start, end in gold.spans] == ["1572", "1620"]
    chunks = system.chunks("nl/delft")
    scores = retrieval_scores(Retrieved.of([Hit(chunks[0], 3.0), Hit(chunks[2], 2.0)]), gold)
    assert (scores["recall@1"], scores["mrr@10"]) == (1.0, 1.0)
    assert (scores["span_recall@1"], scores["span_recall@5"], scores["span_mrr@10"]) == (0.0, 0.5, 0.5)


def test_a_span_over_two_passages_makes_both_relevant() -> None:
    system = FakeSystem()
    finder = GoldFinder(system.document, system.chunks)
    chunks = system.chunks("nl/delft")
    case = EvalCase("x", "?", "nl", True, relevant=(Relevant("nl/delft", quote="er in 1572. Het stadhuis"),))
    scores = retrieval_scores(Retrieved.of([Hit(chunks[1], 2.0), Hit(chunks[0], 1.0)]), finder.find(case))
    # One of two relevant passages, in the first place: 1 / (1 + 1 / log2(3)).
    assert scores["span_ndcg@10"] == pytest.approx(1 / (1 + 1 / 1.5849625))
    assert scores["span_recall@1"] == 1.0


def test_the_recall_curve_with_two_relevant_documents(tmp_path: Path) -> None:
    two = {**CASES[2], "relevant": [{"document": "en/packets"}, {"document": "nl/nothing"}]}
    system = FakeSystem({**TEXTS, "nl/nothing": "Niets."})
    summary = evaluate(system, write(tmp_path, [two]), RunSettings(retrieval_only=True), tmp_path / "out")
    assert summary.recall_cutoffs[:5] == (1, 2, 3, 4, 5)
    assert summary.recall["fused"][:5] == (0.5, 0.5, 0.5, 1.0, 1.0)


def test_a_citation_of_another_passage_is_not_gold() -> None:
    system = FakeSystem()
    case = EvalCase("x", "?", "nl", True, answers=("1572",), relevant=(Relevant("nl/delft", quote="1572"),))
    gold = GoldFinder(system.document, system.chunks).find(case)
    chunks = system.chunks("nl/delft")
    wrong = answer_of("stadhuis", [Hit(chunks[2], 1.0), Hit(chunks[1], 0.5)], Style.SHORT)
    scores = answer_scores(case, gold, wrong, Style.SHORT, system.document)
    assert (scores["citation_precision"], scores["citation_recall"], scores["citation_span_f1"]) == (
        0.0,
        0.0,
        0.0,
    )
    right = answer_of("prins", [Hit(chunks[2], 1.0), Hit(chunks[1], 0.5)], Style.SHORT)
    scores = answer_scores(case, gold, right, Style.SHORT, system.document)
    assert scores["citation_f1"] == 1.0
    # The quote is 27 characters, the gold span 4 of them.
    assert scores["citation_span_f1"] == pytest.approx(2 * 4 / (27 + 4))


def test_invented_numbers_and_changed_quotes_are_seen() -> None:
    system = FakeSystem()
    case = EvalCase("x", "?", "nl", True, relevant=(Relevant("nl/delft"),))
    gold = GoldFinder(system.document, system.chunks).find(case)
    answer = answer_of("prins", [Hit(system.chunks("nl/delft")[1], 1.0)], Style.SHORT)
    (citation,) = answer.citations
    bad = replace(
        answer,
        text=answer.text + " [7]",
        citations=(replace(citation, number=4, quote="De prins woonde hier."),),
    )
    scores = answer_scores(case, gold, bad, Style.SHORT, system.document)
    assert scores["invalid_markers"] == 2.0
    assert scores["verbatim_quotes"] == 0.0


def test_a_quote_that_stands_elsewhere_in_its_document_is_not_verbatim() -> None:
    system = FakeSystem()
    answer = answer_of("prins", [Hit(system.chunks("nl/delft")[1], 1.0)], Style.SHORT)
    (citation,) = answer.citations
    moved = replace(citation, source_start=citation.source_start + 1, source_end=citation.source_end + 1)
    assert is_verbatim(citation, answer, system.document)
    assert not is_verbatim(moved, answer, system.document)
    assert not is_verbatim(replace(citation, answer_end=99), answer, system.document)
    assert not is_verbatim(replace(citation, document_id="nl/nowhere"), answer, system.document)


def test_each_sentence_is_judged_by_its_own_citations() -> None:
    system = FakeSystem()
    case = EvalCase("x", "?", "nl", True, relevant=(Relevant("nl/delft", quote="1572"),))
    gold = GoldFinder(system.document, system.chunks).find(case)
    chunks = system.chunks("nl/delft")
    answer = answer_of("prins", [Hit(chunks[1], 1.0), Hit(chunks[2], 0.5)], Style.FULL)
    (right,) = answer.citations
    wrong = replace(right, number=2, chunk_id=chunks[2].id, answer_start=20, answer_end=27)
    two = replace(
        answer,
        sentences=(AnswerSentence(0, 10, 1.0, True), AnswerSentence(20, 27, 0.1, False)),
        citations=(replace(right, answer_end=10), wrong),
    )
    scores = answer_scores(case, gold, two, Style.FULL, system.document)
    assert (scores["citation_precision"], scores["citation_recall"]) == (0.5, 0.5)
    assert scores["supported"] == 0.5


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("De prins woonde er in het jaar 1572.", "nl", 1.0),
        ("The prince lived there in that year.", "nl", 0.0),
        ("1572", "nl", None),
        ("De prins woonde er.", "und", None),
    ],
)
def test_the_language_of_an_answer(text: str, language: str, expected: float | None) -> None:
    assert language_right(text, language) == expected


def test_what_an_abstention_says_is_no_answer(tmp_path: Path) -> None:
    _, records = run(tmp_path, [{**CASES[0], "question": "Wie?", "answers": ["Dat staat er niet."]}])
    assert records["delft"].metrics["contains_answer"] == records["delft"].metrics["em"] == 0.0


# Gold places


def test_a_quote_that_moved_is_found_again() -> None:
    document = FakeSystem().document("nl/delft")
    moved = Relevant("nl/delft", 5, 14, "De prins\n woonde")
    found = place(moved, document)
    assert found is not None
    assert document.text[slice(*found)] == "De prins woonde"
    assert place(Relevant("nl/delft", quote="nergens"), document) is None
    assert place(Relevant("nl/delft"), document) is None


def test_of_two_places_the_nearest_is_taken() -> None:
    document = FakeSystem({"nl/a": "Ja, wel. Nee, niet. Ja, wel."}).document("nl/a")
    assert place(Relevant("nl/a", 22, 29, "Ja, wel."), document) == (20, 28)
    assert place(Relevant("nl/a", 1, 9, "Ja, wel."), document) == (0, 8)


# Crashes


def test_a_crash_counts_as_zero_and_the_others_go_on(tmp_path: Path) -> None:
    crash = {**CASES[0], "id": "boom", "question": "crash"}
    summary, records = run(tmp_path, [CASES[0], crash, CASES[2]], style=Style.SHORT)
    assert summary.cases == {"done": 3, "crashed": 1, "missing": 0}
    assert records["boom"].error == "QuestionError: 'crash' can't be asked"
    for name in ("f1", "em", "correct", "citation_f1", "ndcg@10", "span_recall@5", "supported"):
        assert records["boom"].metrics[name] == 0.0, name
        assert summary.metrics[name]["all"].n == 3
        assert mean(summary, name) == pytest.approx(2 / 3, abs=1e-6)


def test_a_crash_on_a_full_answer_is_in_the_wrong_language_too(tmp_path: Path) -> None:
    _, records = run(tmp_path, [{**CASES[0], "question": "crash"}], style=Style.FULL)
    figures = records["delft"].metrics
    for name in ("answer_language", "answer_f1", "rouge_l", "contains_answer", "citation_span_f1", "correct"):
        assert figures[name] == 0.0, name
    assert figures["verbatim_quotes"] is figures["invalid_markers"] is None


def test_a_crash_on_an_unanswerable_case_is_no_abstention(tmp_path: Path) -> None:
    summary, _ = run(tmp_path, [{**CASES[3], "question": "crash"}])
    assert mean(summary, "no_ans_accuracy") == mean(summary, "f1") == 0.0


class BrokenSystem(FakeSystem):
    """Its model fails after the first batch."""

    def answer(
        self, questions: Sequence[str], style: Style, mode: SearchMode, filters: Filters | None = None
    ) -> Sequence[Answer]:
        if self.asked:
            raise ModelError("the weights are gone")
        return super().answer(questions, style, mode, filters)


def test_what_fails_for_all_ends_the_run_and_keeps_what_was_done(tmp_path: Path) -> None:
    set_file, out = write(tmp_path, CASES), tmp_path / "out"
    going = EvaluationRun(BrokenSystem(), set_file, RunSettings(batch_size=2), out).start()
    with pytest.raises(ModelError, match="the weights are gone"):
        going.result()
    assert going.state is RunState.FAILED
    assert [record.id for record in read_records(out / "cases.jsonl")] == ["delft", "kosten"]


# Starting, following, cancelling, going on


def test_a_run_can_be_followed(tmp_path: Path) -> None:
    seen: list[RunProgress] = []
    evaluate(
        FakeSystem(),
        write(tmp_path, CASES),
        RunSettings(batch_size=2),
        tmp_path / "out",
        on_progress=seen.append,
    )
    assert [(item.state, item.done) for item in seen] == [
        (RunState.CHECKING, 0),
        (RunState.RUNNING, 0),
        (RunState.RUNNING, 2),
        (RunState.RUNNING, 4),
        (RunState.RUNNING, 5),
        (RunState.DONE, 5),
    ]
    assert dict(seen[2].scores)["f1"] == 0.75
    assert seen[2].remaining_s is not None


class HaltingSystem(FakeSystem):
    """Stops in the second batch until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def answer(
        self, questions: Sequence[str], style: Style, mode: SearchMode, filters: Filters | None = None
    ) -> Sequence[Answer]:
        if len(self.asked) == 1:
            self.reached.set()
            assert self.go.wait(30)
        return super().answer(questions, style, mode, filters)


def test_cancelling_keeps_what_was_done_and_resuming_ends_with_the_same(tmp_path: Path) -> None:
    set_file, settings = write(tmp_path, CASES), RunSettings(batch_size=2)
    whole = evaluate(FakeSystem(), set_file, settings, tmp_path / "whole")
    system = HaltingSystem()
    broken_off = EvaluationRun(system, set_file, settings, tmp_path / "out").start()
    assert system.reached.wait(30)
    broken_off.cancel()
    system.go.set()
    part = broken_off.result()
    assert broken_off.state is RunState.CANCELLED
    assert (part.complete, part.cases["done"], part.cases["missing"]) == (False, 4, 1)

    # As if it had been killed in the middle of a line.
    with (tmp_path / "out" / "cases.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "trap", "quest')
    again = FakeSystem()
    resumed = evaluate(again, set_file, settings, tmp_path / "out", resume=True)
    assert again.asked == [1]
    assert resumed.complete
    assert resumed.metrics == whole.metrics
    names = [
        [record.id for record in read_records(tmp_path / folder / "cases.jsonl")]
        for folder in ("whole", "out")
    ]
    assert names[0] == names[1]


def test_two_identical_runs_give_identical_summaries_but_for_timings(tmp_path: Path) -> None:
    set_file = write(tmp_path, CASES)
    contents = []
    for name in ("one", "two"):
        evaluate(FakeSystem(), set_file, RunSettings(modes=tuple(SearchMode)), tmp_path / name)
        content = json.loads((tmp_path / name / "summary.json").read_text())
        del content["timings"]
        contents.append(content)
    assert contents[0] == contents[1]


def test_what_a_run_costs_is_told(tmp_path: Path) -> None:
    summary, _ = run(tmp_path)
    cost = summary.timings
    assert (cost.prompt_tokens, cost.new_tokens, cost.new_tokens_per_s) == (100, 20, 5.0)
    assert (cost.stages["read_s"].p50_s, cost.stages["total_s"].p95_s, cost.stages["read_s"].n) == (
        0.01,
        0.02,
        5,
    )
    assert cost.peak_memory_bytes is None or cost.peak_memory_bytes > 1_000_000


def test_a_summary_can_be_read_back(tmp_path: Path) -> None:
    summary, _ = run(tmp_path)
    assert read_summary(tmp_path / "out") == summary
    with pytest.raises(EvaluationError, match=r"there is no summary\.json"):
        read_summary(tmp_path)


def test_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    run(tmp_path)
    for name in ("summary.json", "report.html", "run.json", "cases.jsonl"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text(), name


def test_a_used_folder_is_refused_without_resume_and_another_run_with_it(tmp_path: Path) -> None:
    set_file = write(tmp_path, CASES)
    evaluate(FakeSystem(), set_file, RunSettings(), tmp_path / "out")
    with pytest.raises(EvaluationError, match="isn't empty; go on in it with --resume"):
        evaluate(FakeSystem(), set_file, RunSettings(), tmp_path / "out")
    with pytest.raises(EvaluationError, match="was another one: it differs in settings"):
        evaluate(FakeSystem(), set_file, RunSettings(style=Style.FULL), tmp_path / "out", resume=True)


def test_a_run_is_started_once(tmp_path: Path) -> None:
    going = EvaluationRun(FakeSystem(), write(tmp_path, CASES), RunSettings(), tmp_path / "out").start()
    with pytest.raises(EvaluationError, match="started already"):
        going.start()
    going.result()


# Bad sets


def test_a_set_that_does_not_fit_the_collection_is_refused_before_anything_runs(tmp_path: Path) -> None:
    wrong = [
        CASES[0],
        {**CASES[1], "relevant": [{"document": "nl/nowhere"}]},
        {**CASES[2], "relevant": [{"document": "en/packets", "start": 90, "end": 900}]},
    ]
    system = FakeSystem()
    with pytest.raises(EvalSetError) as caught:
        evaluate(system, write(tmp_path, wrong), RunSettings(), tmp_path / "out")
    message = str(caught.value)
    assert "line 2, field 'relevant[0].document': there is no document 'nl/nowhere'" in message
    assert "line 3, field 'relevant[0].end': 900 is past the end of 'en/packets'" in message
    assert system.asked == []
    assert not (tmp_path / "out").exists()


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="there are no cases in it"):
        evaluate(FakeSystem(), write(tmp_path, []), RunSettings(), tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [{"limit": 0}, {"gold_passages": 0}, {"gold_passages": 3, "retrieval_only": True}, {"top_k": 5}],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(EvaluationError):
        RunSettings(**settings)


def test_a_limit_runs_the_first_cases(tmp_path: Path) -> None:
    summary, records = run(tmp_path, limit=2)
    assert list(records) == ["delft", "kosten"]
    assert summary.set.cases == 2


# The gold passage among others


def test_the_gold_passage_is_among_k_at_a_place_that_the_id_decides(tmp_path: Path) -> None:
    cases = [{**CASES[0], "id": f"delft-{i}"} for i in range(40)]
    summary, records = run(tmp_path, cases, gold_passages=3)
    places = set()
    for record in records.values():
        assert [passage.document == "nl/delft" for passage in record.passages].count(True) == 1
        (gold,) = [passage for passage in record.passages if passage.gold]
        assert gold.text.strip() == "De prins woonde er in 1572."
        assert gold.number == place_of(record.id, 3) + 1
        places.add(gold.number)
    assert places == {1, 2, 3}
    assert mean(summary, "has_ans_f1") == 1.0
    assert "ndcg@10" not in summary.metrics


def test_the_gold_passage_is_the_one_that_overlaps_most() -> None:
    system = FakeSystem()
    finder = GoldFinder(system.document, system.chunks)
    for quote, ordinal in (("1572. Het stadhuis is", 2), ("woonde er in 1572. Het", 1)):
        case = EvalCase(
            "x", "Ligt Delft in Zuid-Holland?", "nl", True, relevant=(Relevant("nl/delft", quote=quote),)
        )
        (hits,) = PassagePicker(system, finder, 1).pick([case], [finder.find(case)])
        assert [hit.chunk.ordinal for hit in hits] == [ordinal]


def test_an_unanswerable_case_gets_the_passage_it_was_written_on(tmp_path: Path) -> None:
    _, records = run(tmp_path, [CASES[4], {**CASES[4], "id": "free", "tags": {}}], gold_passages=3)
    assert [passage.document for passage in records["trap"].passages].count("nl/delft") == 1
    assert len(records["free"].passages) == 3


def test_texts_that_overlap_with_the_gold_one_are_no_distractors() -> None:
    copy = "Vooraf. Hier staat het nog eens: " + DELFT
    system = FakeSystem(
        {
            "nl/delft": DELFT.replace(". ", ", "),
            "nl/copy": copy.replace(". ", ", "),
            "nl/other": "Iets over de prins.",
        }
    )
    finder = GoldFinder(system.document, system.chunks)
    case = EvalCase("x", "Waar woonde de prins?", "nl", True, relevant=(Relevant("nl/delft", quote="1572"),))
    (hits,) = PassagePicker(system, finder, 3).pick([case], [finder.find(case)])
    assert {hit.chunk.document_id for hit in hits} == {"nl/delft", "nl/other"}


def test_word_runs_and_origins() -> None:
    assert word_runs("Een twee drie.") == {"een twee drie"}
    assert len(word_runs("a b c d e f g h i")) == 2
    assert origin_of("web/page#0123") == "web/page"
    assert origin_of("faq/002") == "faq/002"


# Many cases


class ManySystem(FakeSystem):
    """Searches in no time."""

    def search(
        self,
        questions: Sequence[str],
        modes: Sequence[SearchMode],
        top_k: int,
        filters: Filters | None = None,
    ) -> Searched:
        chunk = self.chunks("nl/delft")[1]
        return Searched({mode: [[Hit(chunk, 1.0)]] * len(questions) for mode in modes})


def test_many_cases_are_never_held_all_at_once(tmp_path: Path) -> None:
    import tracemalloc

    count = 4000
    cases = (
        {
            "id": f"c{i}",
            "question": "prins? " + "x" * 2000,
            "language": "nl",
            "answerable": True,
            "relevant": [span("nl/delft", "1572")],
        }
        for i in range(count)
    )
    set_file = write(tmp_path, list(cases))
    tracemalloc.start()
    summary = evaluate(
        ManySystem(), set_file, RunSettings(retrieval_only=True, resamples=100), tmp_path / "out"
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary.metrics["ndcg@10"]["all"].n == count
    assert peak < 0.6 * set_file.stat().st_size
