"""Making the reader: crops, contexts without wrong labels, packing, merging, calibration."""

import json
import math
import random
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fakes import WordCodec
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import EvalSetError, MissingPathError, ModelError
from eval.injection import SET
from eval.metrics import roc_auc
from index.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, merge_adapter
from rag.answers import Style
from rag.calibration import CARD, Calibration, language_pair, read_card
from rag.reader_format import ABSTAIN_TOKEN
from rag.reading import Claim, ReadRequest
from rag.training.calibrate import (
    best_threshold,
    expected_calibration_error,
    fit,
    isotonic_points,
    on_one_scale,
    out_of_fold,
    reliability,
    risk_coverage_curve,
)
from rag.training.citing_last import CitingLastFormat
from rag.training.contexts import (
    PAIRS,
    YES_NO,
    Context,
    Drawer,
    Shown,
    cited,
    crop,
    endless,
    shingles,
    split_sentences,
)
from rag.training.decoder import MergedDecoder
from rag.training.evaluate import Outcome, as_passage, read_outcomes, write_outcomes
from rag.training.export import average_adapters, export_adapter, write_calibration
from rag.training.figures import share_figure
from rag.training.lora import (
    LoraShape,
    MasterAdamW,
    Vocabulary,
    adapter_tensors,
    load_trainable,
    pack_loss,
    target_logits,
)
from rag.training.orders import OrderBook, read_orders, with_order
from rag.training.packing import Block, Pack, pack, to_tensors
from rag.training.report import agreement_lines
from rag.training.sources import Asked, Kind, Source, Span, guess_language, read_own, read_sources
from rag.training.train import ADAPTER, CHECKPOINT, TrainConfig, learning_rate, with_share


def asked(name: str, short: str, text: str, *, full: str = "") -> Asked:
    start = text.find(short)
    proof = Span(start, start + len(short)) if short else None
    return Asked(name, Kind.PAIRS, f"Vraag {name}?", "nl", short, full, proof)


def sources_of(count: int, questions: int = 3) -> list[Source]:
    """Passages of their own words; every third question isn't answerable."""
    made = []
    for number in range(count):
        words = [f"woord{number}x{place}" for place in range(60)]
        text = ". ".join(" ".join(words[i : i + 10]).capitalize() for i in range(0, 60, 10)) + "."
        source = Source(f"k{number}", f"d{number}", "pairs", f"Titel {number}", "nl", text)
        for question in range(questions):
            short = "" if question % 3 == 2 else f"woord{number}x{question * 10 + 3}"
            source.asked.append(asked(f"{number}-{question}", short, text, full=short and f"Het is {short}."))
        made.append(source)
    return made


def drawer_of(sources: list[Source], seed: int = 1) -> Drawer:
    vectors = np.random.default_rng(0).normal(size=(len(sources), 8)).astype(np.float32)
    return Drawer(sources, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), seed)


# Sentences and crops


def test_sentences_end_at_stops_but_not_at_abbreviations() -> None:
    text = "Zie art. 3 van de wet. Dat geldt o.a. In Delft.\nNieuwe regel"
    assert [text[s.start : s.end] for s in split_sentences(text)] == [
        "Zie art. 3 van de wet.",
        "Dat geldt o.a. In Delft.",
        "Nieuwe regel",
    ]


@given(st.text(st.sampled_from("aB .!\n"), min_size=1, max_size=80), st.integers(0, 79), st.integers(5, 60))
def test_a_crop_keeps_what_it_must(text: str, place: int, chars: int) -> None:
    start = place % len(text)
    keep = Span(start, min(len(text), start + 5))
    span = crop(text, keep, chars, random.Random(0))
    assert 0 <= span.start <= keep.start
    assert keep.end <= span.end <= len(text)


def test_a_crop_is_whole_sentences_of_about_the_length() -> None:
    text = " ".join(f"Dit is zin {number}." for number in range(20))
    span = crop(text, Span(60, 64), 60, random.Random(3))
    assert span.end - span.start <= 60
    assert text[span.start : span.end].startswith("Dit is zin")
    assert text[span.start : span.end].endswith(".")


# Contexts


def test_an_epoch_asks_every_question_once_beside_those_without_their_passage() -> None:
    sources = sources_of(12)
    contexts = list(drawer_of(sources).epoch(0, PAIRS))
    answered = [q.id for context in contexts for q in context.questions if q.sentences]
    assert sorted(answered) == sorted(q.id for s in sources for q in s.asked if q.answerable)


def test_a_cited_passage_holds_the_answer_and_a_missing_one_does_not() -> None:
    sources = sources_of(12)
    shorts = {q.id: q.short for s in sources for q in s.asked}
    missing = 0
    for context in drawer_of(sources).epoch(0, PAIRS):
        for question in context.questions:
            short = shorts[question.id]
            if question.sentences:
                assert short in context.passages[question.sentences[0].number - 1].text
            elif short:
                missing += 1
                assert all(short not in shown.text for shown in context.passages)
    assert missing > 0


def test_passages_that_overlap_never_share_a_context() -> None:
    sources = sources_of(6)
    twin = Source("twin", "elsewhere", "pairs", "", "nl", "Vooraf. " + sources[0].text)
    twin.asked.append(asked("twin", "woord0x33", twin.text))
    for seed in range(5):
        for context in drawer_of([*sources, twin], seed).epoch(0, PAIRS):
            assert not {"k0", "twin"} <= {shown.key for shown in context.passages}


def questions_like(sources: list[Source], vectors: Any, shift: int) -> dict[str, Any]:
    """For each question the vector of the passage `shift` further on, so that this one is found for it."""
    return {
        question.question: vectors[(number + shift) % len(sources)]
        for number, source in enumerate(sources)
        for question in source.asked
    }


def test_each_question_alone_is_beside_what_is_found_for_it() -> None:
    sources = sources_of(9)
    sources[5].document = sources[0].document
    vectors = np.eye(9, dtype=np.float32)
    drawer = Drawer(sources, vectors, 1, questions_like(sources, vectors, 4))
    contexts = list(drawer.each_alone(replace(PAIRS, style=Style.SHORT), 4))
    keys = [source.key for source in sources]
    assert len(contexts) == sum(len(source.asked) for source in sources)
    for context in contexts:
        (posed,) = context.questions
        own, others = posed.about - 1, [shown.key for shown in context.passages]
        number = keys.index(others[own])
        assert posed.id.startswith(f"{number}-")
        assert len(set(others)) == 4
        # Passage 0 is what is found for 5's questions, but of the same document.
        assert (keys[(number + 4) % 9] in others) is (number != 5)
        assert all(shown.text in {source.text for source in sources} for shown in context.passages)


def test_a_distractor_is_found_for_a_question_but_never_has_its_answer() -> None:
    sources = sources_of(20)
    vectors = np.eye(20, dtype=np.float32)
    config = replace(PAIRS, question_share=1.0, crop_share=0.0, missing_share=0.0, passage_counts=(0, 1))
    drawer = Drawer(sources, vectors, 1, questions_like(sources, vectors, 3))

    def share_found(question_share: float) -> float:
        drawn = replace(config, question_share=question_share)
        pairs = [
            [int(shown.key[1:]) for shown in c.passages] for n in range(3) for c in drawer.epoch(n, drawn)
        ]
        return sum((a - b) % 20 in {3, 17} for a, b in pairs) / len(pairs)

    assert share_found(1.0) > share_found(0.0) + 0.1
    taken = [(number + 3) % 20 for number in range(20)]
    for number, source in enumerate(sources):
        sources[taken[number]].text += "".join(f" {q.short}" for q in source.asked)
    drawer = Drawer(sources, vectors, 1, questions_like(sources, vectors, 3))
    for context in drawer.epoch(0, config):
        for posed in context.questions:
            if posed.sentences and posed.style is Style.SHORT:
                holders = [n for n, p in enumerate(context.passages, 1) if posed.sentences[0].text in p.text]
                assert holders == [posed.sentences[0].number]


def test_a_question_without_its_passage_is_one_that_would_find_those_shown() -> None:
    sources = sources_of(20, questions=6)
    vectors = np.eye(20, dtype=np.float32)
    config = replace(PAIRS, missing_share=0.2, crop_share=0.0, passage_counts=(0, 1))
    # The questions of passage n find passage n + 3.
    drawer = Drawer(sources, vectors, 1, questions_like(sources, vectors, 3))
    near, missing = 0, 0
    for number in range(3):
        for context in drawer.epoch(number, config):
            shown = {int(passage.key[1:]) for passage in context.passages}
            for posed in context.questions:
                if not posed.about:
                    missing += 1
                    near += (int(posed.id.split("-")[0]) + 3) % 20 in shown
    assert missing > 40
    assert near > 0.5 * missing  # by chance it would be about a tenth


def test_epochs_differ_and_repeat_with_the_seed() -> None:
    sources = sources_of(8)
    assert list(drawer_of(sources).epoch(0, PAIRS)) == list(drawer_of(sources).epoch(0, PAIRS))
    assert list(drawer_of(sources).epoch(0, PAIRS)) != list(drawer_of(sources).epoch(1, PAIRS))


def test_a_stream_goes_on_where_a_checkpoint_left_it() -> None:
    drawer = drawer_of(sources_of(8))

    def draw(number: int) -> Any:
        return drawer.epoch(number, PAIRS)

    first = endless(draw)
    seen = [next(first) for _ in range(7)]
    resumed = endless(draw, seen[3][0], seen[3][1])
    assert [next(resumed) for _ in range(3)] == seen[4:7]


def test_every_sentence_of_a_full_answer_carries_its_number() -> None:
    question = asked("q", "vijf", "Het is vijf.", full="Het kost vijf euro. Dat is per jaar.")
    assert [(s.number, s.text) for s in cited(question, 2, Style.FULL)] == [
        (2, "Het kost vijf euro."),
        (2, "Dat is per jaar."),
    ]
    assert [s.text for s in cited(question, 2, Style.SHORT)] == ["vijf"]


def test_shingles_tell_a_shared_run_of_six_words() -> None:
    one, other = "a b c d e f g", "x b c d e f g y"
    assert len(shingles(one) & shingles(other)) == 1
    assert not shingles(one) & shingles("a b c d e x f g")


# Sources


def write_shared(folder: Path, lines: list[dict[str, Any]]) -> Path:
    (folder / "reader").mkdir()
    (folder / "reader" / "pairs.dev.jsonl").write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    return folder


def pair(name: str, **changes: Any) -> dict[str, Any]:
    base = {
        "id": name,
        "document": "d",
        "source": "vac",
        "title": "Titel > Kop",
        "passage_language": "nl",
        "passage": "Het kost vijf euro. Per jaar.",
        "question": "Wat kost het?",
        "language": "nl",
        "answerable": True,
        "short": "vijf euro",
        "answer": "Het kost vijf euro.",
        "evidence": "Het kost vijf euro.",
    }
    return base | changes


def test_pairs_on_one_passage_become_one_source(tmp_path: Path) -> None:
    lines = [pair("a"), pair("b", answerable=False, short=None, answer="", evidence=None)]
    (source,) = read_sources(write_shared(tmp_path, lines), split="dev")
    assert source.title == "Titel › Kop"
    assert [q.proof for q in source.asked] == [Span(0, 19), None]


def test_a_missing_folder_and_a_broken_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"pairs\.dev\.jsonl"):
        read_sources(tmp_path, split="dev")
    shared = write_shared(tmp_path, [pair("a")])
    (shared / "reader" / "pairs.dev.jsonl").write_text('{"id": "a"}\n{"id":', "utf-8")
    with pytest.raises(EvalSetError, match="line 2"):
        read_sources(write_broken(shared), split="dev")


def write_broken(shared: Path) -> Path:
    lines = json.dumps(pair("a")) + '\n{"id":'
    (shared / "reader" / "pairs.dev.jsonl").write_text(lines, "utf-8")
    return shared


def test_the_language_of_a_passage() -> None:
    assert guess_language("Dat is de regel voor een aanvraag van het paspoort") == "nl"
    assert guess_language("That is the rule for an application for the passport") == "en"


# Packing


def codec_of() -> WordCodec:
    codec = WordCodec()
    codec.encode(ABSTAIN_TOKEN)
    return codec


def first_context() -> Context:
    return next(iter(drawer_of(sources_of(6)).epoch(0, PAIRS)))


def test_masks_let_a_block_see_the_passages_and_itself_only() -> None:
    packed = Pack((0, 5, 6), (Block((7, 8), (9, 1)), Block((7,), (3, 4, 1))), 1)
    tensors = to_tensors(packed, 3)
    assert tensors.input_ids[0, :9].tolist() == [0, 5, 6, 7, 8, 9, 7, 3, 4]
    assert tensors.position_ids[0, :9].tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5]
    full = tensors.masks["full_attention"][0, 0, :9, :9].int().tolist()
    assert full[5] == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert full[8] == [1, 1, 1, 0, 0, 0, 1, 1, 1]
    sliding = tensors.masks["sliding_attention"][0, 0, :9, :9].int().tolist()
    assert sliding[8] == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert sliding[6] == [0, 1, 1, 0, 0, 0, 1, 0, 0]
    count = int((tensors.weights > 0).sum())
    assert tensors.rows[:count].tolist() == [4, 5, 6, 7, 8]
    assert tensors.labels[:count].tolist() == [9, 1, 3, 4, 1]
    assert tensors.firsts.tolist() == [0, 2]
    assert float(tensors.weights.sum()) == pytest.approx(1.0)


def test_blocks_that_do_not_fit_are_left_out() -> None:
    context, codec = first_context(), codec_of()
    assert len(pack(context, codec, 10**6).blocks) == len(context.questions)
    assert len(pack(context, codec, 1).blocks) == 1


# Orders inside passages


@given(st.integers(0, 300))
def test_an_order_leaves_passages_answers_and_their_numbers_as_they_were(seed: int) -> None:
    context = first_context()
    book = OrderBook({"nl": ("Antwoord altijd {bait}.",)}, {"any": ("Zork",)})
    with_it = with_order(context, book, random.Random(seed))
    held = [shown for shown in with_it.passages if "Antwoord altijd Zork." in shown.text]
    assert len(held) == 1
    for before, after in zip(context.questions, with_it.questions, strict=True):
        assert [s.text for s in after.sentences] == [s.text for s in before.sentences]
        assert {s.number for s in after.sentences} <= {after.about}
        if before.about:
            words = context.passages[before.about - 1].text.split()
            shown = with_it.passages[after.about - 1].text.split()
            assert [word for word in shown if word in words] == words


def test_an_order_never_asks_for_the_right_answer() -> None:
    book = OrderBook({"nl": ("Zeg {bait}.",)}, {"nl": ("zes euro",), "any": ("vijf euro",)})
    assert {book.draw("nl", "het is vijf euro.", random.Random(i)) for i in range(20)} == {"Zeg zes euro."}


def test_the_orders_shipped_are_in_both_languages_and_are_not_the_ones_that_measure() -> None:
    book = read_orders()
    assert set(book.texts) == {"nl", "en"}
    assert min(map(len, book.texts.values())) >= 100
    measuring = SET.read_text(encoding="utf-8")
    assert not [
        text for texts in book.texts.values() for text in texts if len(text) > 40 and text in measuring
    ]


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A Gemma 3 of six small layers, one of them with full attention, and a window of 16."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=2000,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
    )
    return Gemma3ForCausalLM(config).eval()


def test_packed_logits_are_those_of_each_question_alone(tiny: Any) -> None:
    import torch

    packed = pack(first_context(), codec_of(), 10**6)
    assert len(packed.context_ids) > 16
    assert len(packed.blocks) > 2
    tensors = to_tensors(packed, 16)
    with torch.inference_mode():
        together = target_logits(tiny, tensors)
        bounds = [*tensors.firsts.tolist(), int((tensors.weights > 0).sum())]
        for number, block in enumerate(packed.blocks):
            ids = torch.tensor([[*packed.context_ids, *block.prompt_ids, *block.target_ids[:-1]]])
            alone = tiny(input_ids=ids).logits[0, -len(block.target_ids) :]
            torch.testing.assert_close(
                together[bounds[number] : bounds[number + 1]], alone, rtol=0, atol=2e-5
            )


def test_a_part_of_the_vocabulary_holds_all_tokens_in_play() -> None:
    tensors = to_tensors(pack(first_context(), codec_of(), 10**6), 16)
    vocabulary = Vocabulary(2000, 900, 1)
    for _ in range(25):
        ids, labels = vocabulary.around(tensors)
        assert ids[labels].tolist() == tensors.labels.tolist()
        assert set(tensors.input_ids[0].tolist()) <= set(ids.tolist())
        assert len(ids) == 900
        assert len(set(ids.tolist())) == 900


# Training


def config_of(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        tmp_path, tmp_path, tmp_path, tmp_path, 1000.0, warmup_s=100.0, peak_rate=1.0, floor=0.1
    )


@pytest.mark.parametrize(
    ("at", "rate"), [(49.5, 0.5), (100.0, 1.0), (550.0, 0.55), (1000.0, 0.1), (2000.0, 0.1)]
)
def test_the_rate_warms_up_and_falls_by_a_cosine(tmp_path: Path, at: float, rate: float) -> None:
    assert learning_rate(at, config_of(tmp_path)) == pytest.approx(rate)


def test_one_kind_gets_its_share_and_the_others_keep_their_proportions() -> None:
    mixture = with_share({"a": 0.2, "b": 0.6, "c": 0.2}, "a", 0.5)
    assert mixture == pytest.approx({"a": 0.5, "b": 0.375, "c": 0.125})


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_dropout_is_in_training_alone(tiny: Any, tmp_path: Path) -> None:
    import torch

    tiny.save_pretrained(tmp_path)
    model = load_trainable(tmp_path, LoraShape(2, 4), 1, dropout=0.5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    ids = torch.arange(6)[None]
    model.train()
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    model.eval()
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("compiled", [False, True])
def test_the_quick_decoder_has_the_loss_and_the_gradients_of_peft(tiny: Any, compiled: bool) -> None:
    import torch

    if compiled and shutil.which("c++") is None:
        pytest.skip("no C++ compiler, which torch.compile needs")
    model = adapted(tiny)
    packed = pack(first_context(), codec_of(), 10**6)

    def loss_and_gradients(decoder: MergedDecoder | None) -> tuple[float, list[torch.Tensor]]:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.grad = None
        loss = pack_loss(model, packed, 16, Vocabulary(2000, 900, 1), decoder)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), [cast(torch.Tensor, p.grad).clone() for p in trainable]

    decoder = MergedDecoder(model, LoraShape(4, 8), compiled)
    for step in range(2):
        expected, gradients = loss_and_gradients(None)
        found, others = loss_and_gradients(decoder)
        assert found == pytest.approx(expected, rel=1e-5)
        assert any(float(gradient.abs().max()) > 1e-4 for gradient in gradients)
        for gradient, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.01 * (step + 1)
        decoder.refresh()


def test_small_updates_survive_in_the_float32_copies() -> None:
    import torch

    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterAdamW(iter([parameter]))
    for _ in range(8):
        parameter.grad = torch.ones(4, dtype=torch.bfloat16)
        optimizer.step(1e-3, 1.0)
    assert float(optimizer.masters[0].detach()[0]) == pytest.approx(1 - 8e-3, abs=1e-4)
    assert float(parameter.detach()[0]) == pytest.approx(1 - 8e-3, abs=4e-3)


def test_the_optimiser_resumes_exactly() -> None:
    import torch

    def steps(optimizer: MasterAdamW, parameter: Any, values: list[float]) -> None:
        for value in values:
            parameter.grad = torch.full((3,), value, dtype=torch.bfloat16)
            optimizer.step(1e-2, 1.0)

    one, other = (torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2))
    straight, stopped = MasterAdamW(iter([one])), MasterAdamW(iter([other]))
    steps(straight, one, [1.0, -2.0, 3.0])
    steps(stopped, other, [1.0, -2.0])
    third = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    resumed = MasterAdamW(iter([third]))
    resumed.load(stopped.state())
    steps(resumed, third, [3.0])
    assert torch.equal(third, one)


@pytest.mark.parametrize(
    ("score", "truth", "area"),
    [([0.9, 0.1], [True, False], 1.0), ([0.1, 0.9], [True, False], 0.0), ([0.5, 0.5], [True, False], 0.5)],
)
def test_area_under_the_curve(score: list[float], truth: list[bool], area: float) -> None:
    assert roc_auc(np.array(score), np.array(truth)) == area


# The adapter


def adapted(tiny: Any) -> Any:
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft still asks for a name that transformers is renaming.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing.*")
        model = get_peft_model(copy.deepcopy(tiny), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


@pytest.fixture
def run_folder(tiny: Any, tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    run = tmp_path / "run"
    run.mkdir()
    save_file(adapter_tensors(adapted(tiny)), run / ADAPTER)
    position = {"step": 3, "packs": 6, "questions": 50, "tokens": 4000, "trained_s": 12.4}
    torch.save({"position": position}, run / CHECKPOINT)
    return run


def test_merging_gives_what_the_adapter_computes(tiny: Any, run_folder: Path, tmp_path: Path) -> None:
    import copy

    import torch

    folder = export_adapter(run_folder, tmp_path / "adapter", LoraShape(4, 8))
    merged = copy.deepcopy(tiny)
    merge_adapter(merged, folder)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        expected, base = adapted(tiny)(input_ids=ids).logits, tiny(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=0, atol=0.03)
        assert float((base - expected).abs().max()) > 0.2


def test_the_export_names_no_path_and_carries_the_terms(run_folder: Path, tmp_path: Path) -> None:
    folder = export_adapter(run_folder, tmp_path / "adapter", LoraShape(4, 8))
    assert {path.name for path in folder.iterdir()} == {
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
        CARD,
        "GEMMA_TERMS.html",
        "NOTICE.md",
    }
    for name in (ADAPTER_CONFIG, CARD):
        assert str(tmp_path) not in (folder / name).read_text("utf-8")
    assert read_card(folder).format == "citing-first"


def test_a_calibration_is_read_back_by_the_product(run_folder: Path, tmp_path: Path) -> None:
    folder = export_adapter(run_folder, tmp_path / "adapter", LoraShape(4, 8))
    fitted = Calibration(0.0, ((0.1, 0.2), (0.8, 0.9)), 0.4, {"nl": -1.5, "across": 0.25})
    write_calibration(folder, fitted)
    assert read_card(folder).calibration == fitted


def test_an_adapter_of_another_model_is_refused(tiny: Any, run_folder: Path, tmp_path: Path) -> None:
    folder = export_adapter(run_folder, tmp_path / "adapter", LoraShape(4, 8))
    import torch

    with pytest.raises(ModelError, match="which the model doesn't have"):
        merge_adapter(torch.nn.Linear(2, 2), folder)
    (folder / ADAPTER_CONFIG).write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="isn't the configuration"):
        merge_adapter(tiny, folder)


def test_an_average_lies_between_two_adapters_and_has_no_calibration(
    run_folder: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    one = export_adapter(run_folder, tmp_path / "one", LoraShape(4, 8))
    tensors = load_file(run_folder / ADAPTER)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, run_folder / ADAPTER)
    other = export_adapter(run_folder, tmp_path / "other", LoraShape(4, 8))
    write_calibration(other, Calibration(points=((0.1, 0.2), (0.8, 0.9)), abstain_threshold=0.4))
    between = average_adapters(one, other, 0.25, tmp_path / "between")
    for name, tensor in load_file(between / ADAPTER_WEIGHTS).items():
        torch.testing.assert_close(tensor.float(), tensors[name].float() + 0.25, rtol=0.01, atol=0.01)
    card = read_card(between)
    assert card.calibration is None
    assert card.id not in {read_card(one).id, read_card(other).id}


def test_adapters_of_different_shapes_are_not_averaged(run_folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    one = export_adapter(run_folder, tmp_path / "one", LoraShape(4, 8))
    save_file({"other": torch.ones(2, dtype=torch.bfloat16)}, run_folder / ADAPTER)
    other = export_adapter(run_folder, tmp_path / "other", LoraShape(4, 8))
    with pytest.raises(ModelError, match="aren't adapters of one run"):
        average_adapters(one, other, 0.5, tmp_path / "between")


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="train first"):
        export_adapter(tmp_path, tmp_path / "adapter", LoraShape())


# Calibration


def outcome(abstain: float, f1: float, *, answerable: bool = True, name: str = "s") -> Outcome:
    return Outcome(
        id="q",
        set=name,
        language="nl",
        passage_language="nl",
        style=Style.SHORT,
        question="",
        gold=("x",) if answerable else (),
        gold_number=1 if answerable else 0,
        number=1,
        text="x",
        abstain_probability=abstain,
        answer_probability=1.0,
        f1=f1,
        cited_language="nl",
    )


def test_isotonic_pools_what_falls() -> None:
    raw = np.array([0.1, 0.2, 0.3, 0.4])
    right = np.array([0.0, 1.0, 0.0, 1.0])
    assert isotonic_points(raw, right, least=1) == ((0.1, 0.0), (0.25, 0.5), (0.4, 1.0))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_points_are_always_a_calibration(pairs: list[tuple[float, bool]]) -> None:
    raw, right = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    Calibration(points=isotonic_points(raw, right, least=3))


def test_the_threshold_parts_what_can_be_parted() -> None:
    outcomes = [outcome(0.1, 1.0), outcome(0.3, 1.0), outcome(0.7, 0.0, answerable=False)]
    assert best_threshold(outcomes) == pytest.approx(0.31, abs=0.011)  # the soonest of 0.31 to 0.7
    assert fit(outcomes).points[-1][1] == 1.0


def test_enough_of_each_sets_unanswerable_questions_are_abstained_from() -> None:
    shares = [number / 10 for number in range(1, 10)]
    easy = [outcome(share, 0.5) for share in shares] + [outcome(0.95, 0.0, answerable=False)] * 27
    # Chance alone: a higher threshold gains here as much as it loses, and gains in the easy set.
    hard = [outcome(share, 0.5, answerable=yes, name="hard") for share in shares for yes in (True, False)] * 3
    threshold = best_threshold(easy + hard)
    kept = sum(o.abstain_probability >= threshold for o in hard if not o.answerable)
    assert kept == 24  # of 27, the least that is eight tenths
    impossible = [outcome(0.001, 0.0, answerable=False, name="impossible")] * 27
    assert best_threshold(easy + impossible) == 0.01
    few = [outcome(0.001, 0.0, answerable=False, name="few")] * 3
    assert best_threshold(easy + few) > 0.5


def test_nothing_to_calibrate_on_is_said_before_anything_is_written() -> None:
    with pytest.raises(EvalSetError, match="run `evaluate`"):
        fit([])
    with pytest.raises(EvalSetError, match="every question was abstained from"):
        fit([outcome(1.0, 0.0, answerable=False)] * 30)
    for broken in ({"points": ((float("nan"), 0.5),)}, {"abstain_logits": {"nl": float("inf")}}):
        with pytest.raises(ValueError, match="finite"):
            Calibration(**broken)  # type: ignore[arg-type]


def test_outcomes_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "outcomes-s-short.jsonl"
    kept = write_outcomes([outcome(0.2, 1.0)], path)
    assert read_outcomes(path) == kept
    record = json.loads(path.read_text())
    del record["cited_language"]
    path.write_text(json.dumps(record))
    with pytest.raises(EvalSetError, match="cited_language"):
        read_outcomes(path)


def test_a_question_has_no_part_in_its_own_scale() -> None:
    outcomes = [outcome(0.3, 1.0), *[outcome(0.1, 1.0), outcome(0.8, 0.0, answerable=False)] * 20]
    alone = replace(outcome(0.02, 1.0), language="en", cited_language="en")
    found = out_of_fold([*outcomes, alone])
    assert len(found) == len(outcomes) + 1
    # Of a pair that the other folds lack: on the scale of the most cautious one.
    other = next(o for o in found if o.language == "en")
    assert other.abstain_probability < 0.5


def test_each_pair_of_languages_is_parted_at_one_half_of_its_own_scale() -> None:
    def said(probability: float, cited: str, *, answerable: bool) -> Outcome:
        made = outcome(probability, float(answerable), answerable=answerable)
        return replace(made, cited_language=cited)

    same = [said(p, "nl", answerable=p < 0.5) for p in (0.1, 0.2, 0.8, 0.9)]
    across = [said(p, "en", answerable=p < 0.1) for p in (0.01, 0.02, 0.3, 0.4)]
    fitted = fit(same + across)
    assert set(fitted.abstain_logits) == {"nl", "across"}
    assert fitted.abstain_threshold == 0.5
    for each in on_one_scale(same + across, fitted):
        assert (each.abstain_probability < 0.5) == each.answerable


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-9, 9))
def test_one_scale_keeps_the_order_and_has_its_middle_where_it_was_put(
    one: float, other: float, middle: float
) -> None:
    calibration = Calibration(abstain_logits={"nl": middle, "across": middle - 1})
    low, high = sorted([one, other])
    assert 0 <= calibration.abstaining(low, "nl") <= calibration.abstaining(high, "nl") <= 1
    assert calibration.abstaining(1 / (1 + math.exp(-middle)), "nl") == pytest.approx(0.5)
    # A pair that was never measured is treated as the one that abstains soonest.
    assert calibration.abstaining(one, "fr") == calibration.abstaining(one, "across")
    assert Calibration().abstaining(one, "nl") == one


def test_a_passage_of_no_certain_language_shares_the_questions() -> None:
    assert [language_pair("nl", passage) for passage in ("nl", "en", "und")] == ["nl", "across", "nl"]


def test_reliability_and_risk() -> None:
    confidence, right = np.array([0.2, 0.4, 0.6, 0.8]), np.array([0.0, 1.0, 1.0, 1.0])
    low, high = reliability(confidence, right, bins=2)
    assert (low.n, low.confidence, low.accuracy) == (2, pytest.approx(0.3), 0.5)
    assert (high.confidence, high.accuracy) == (pytest.approx(0.7), 1.0)
    assert expected_calibration_error([low, high]) == pytest.approx(0.25)
    curve = dict(risk_coverage_curve(confidence, right))
    assert curve[0.5] == 0.0
    assert curve[1.0] == 0.25


# The other format


def test_two_runs_are_compared_question_by_question() -> None:
    before = [replace(outcome(0.2, 1.0), id=str(n), text=f"word {n}") for n in range(20)]
    after = [replace(o, text="other", f1=0.0, abstain_probability=0.3) if o.id == "3" else o for o in before]
    after += [replace(outcome(0.2, 0.0), id="only here")]
    line, every = agreement_lines(before, after)
    assert every == line.replace("s, same language", "all answerable")
    assert line.startswith("s, same language: 19 of 20 the same, P(abstain) moved 0.0050, F1 1.000 to 0.950")
    # One of twenty is lost: the draws that miss it say 0, and none says more.
    low, high = (float(part) for part in line.rpartition("[")[2].rstrip("]").split(", "))
    assert -0.2 <= low < -0.05 < high <= 0
    with pytest.raises(EvalSetError, match="share no question"):
        agreement_lines(before, after[-1:]).__next__()


def test_citing_last_writes_the_marker_after_the_span() -> None:
    codec = codec_of()
    context = first_context()
    posed = next(q for q in context.questions if q.sentences and q.style is Style.SHORT)
    packed = pack(replace(context, questions=(posed,)), codec, 10**6, is_citing_last=True)
    (last,) = packed.blocks
    (sentence,) = posed.sentences
    assert codec.decode(last.target_ids) == f" {sentence.text} [{sentence.number}]"
    form = CitingLastFormat(codec)
    passages = tuple(as_passage(number, shown) for number, shown in enumerate(context.passages, start=1))
    prompt = form.render(ReadRequest(posed.question, posed.language, passages, posed.style), 10**6)
    assert prompt.token_ids == packed.context_ids + last.prompt_ids
    assert form.parse(prompt, last.target_ids) == (Claim(sentence.text, (sentence.number,)),)
    assert form.is_finished(prompt, last.target_ids[:-1])
    assert not form.is_finished(prompt, last.target_ids[:-2])
    assert form.parse(prompt, [form.abstain_token_id or 0]) == ()


def test_citing_last_holds_a_short_answer_to_a_passage_that_it_then_names() -> None:
    codec = WordCodec()
    codec.encode(" een kat twee honden blaffen ja nee∅")
    form = CitingLastFormat(codec)
    passages = tuple(
        as_passage(number, Shown(f"k{number}", "", text, "nl"))
        for number, text in enumerate(("een kat", "twee honden blaffen", "een kat"), start=1)
    )
    prompt = form.render(ReadRequest("Wat?", "nl", passages, Style.SHORT), 500)

    def next_ones(text: str) -> set[str]:
        return {codec.decode([token]) for token in form.allowed(prompt, codec.encode(text)) or ()}

    assert next_ones("") == {" een", " kat", " twee", " honden", " blaffen", " ja", " nee", "∅"}
    assert next_ones(" twee honden") == {" blaffen", " ["}
    assert next_ones(" twee honden [") == {"2"}
    assert next_ones(" een kat [") == {"1", "3"}
    assert next_ones(" ja [") == {"1", "2", "3"}
    assert next_ones(" twee honden [2") == {"]"}


def own_passage(**changes: Any) -> dict[str, Any]:
    asked = {"question": "Wat kost het?", "language": "nl", "short": "vijf euro"}
    answered = asked | {"answer": "Vijf euro.", "evidence": "Het kost vijf euro."}
    base = {
        "id": "own-1",
        "title": "Titel",
        "heading": "Kop",
        "language": "nl",
        "text": "Vooraf. Het kost vijf euro.",
        "questions": [answered, {"question": "Waarom?", "language": "nl", "answerable": False}],
    }
    return base | changes


def test_own_passages_come_with_their_questions(tmp_path: Path) -> None:
    (source,) = read_own(written_own(tmp_path, own_passage()))
    assert (source.title, source.language) == ("Titel › Kop", "nl")
    assert [(q.kind, q.proof, q.short) for q in source.asked] == [
        (Kind.OWN, Span(8, 27), "vijf euro"),
        (Kind.OWN, None, ""),
    ]


def test_evidence_that_does_not_stand_in_its_passage_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="own-1/0"):
        read_own(written_own(tmp_path, own_passage(text="Het kost zes euro, en dat is alles.")))


def written_own(folder: Path, record: dict[str, Any]) -> Path:
    (folder / "own.jsonl").write_text(json.dumps(record), "utf-8")
    return folder


def test_the_own_passages_shipped_are_whole() -> None:
    sources = read_own()
    ids = [question.id for source in sources for question in source.asked]
    assert len(ids) == len(set(ids)) > 1000
    for source in sources:
        assert all(q.language in {"nl", "en"} for q in source.asked)
        verbatim = [q for q in source.asked if q.short and q.language == source.language]
        assert [q.id for q in verbatim if q.short not in source.text and q.short not in YES_NO] == []


def test_a_figure_puts_shares_between_its_axes() -> None:
    from xml.etree import ElementTree

    svg = ElementTree.fromstring(
        share_figure([(0.0, 1.0), (0.5, 0.25)], "answered", "wrong", with_diagonal=True)
    )
    marks = svg.findall("{http://www.w3.org/2000/svg}circle")
    assert [(m.get("cx"), m.get("cy")) for m in marks] == [("44.0", "44.0"), ("204.0", "284.0")]
