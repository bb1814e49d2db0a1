"""The decoding loop against transformers' own, on a tiny random model and on the bundled one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import WordCodec, passages_of
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from corpus.errors import ModelError
from index.vocabulary import WRITABLE, save_writable, tokenizer_in_background
from rag.answers import Style
from rag.calibration import Calibration
from rag.gemma import GemmaDecoder, Linear, read_shape, shape_of
from rag.gemma_model import GemmaModel, TokenizerCodec, load_gemma
from rag.generator import CausalReader, ReaderLimits, computes_in_bfloat16, load_reader_folder
from rag.language_model import ReversibleSession
from rag.prompts import Prompt
from rag.reading import Claim, ReadRequest
from rag.transformers_model import HuggingFaceCodec, TransformersModel

VOCABULARY = 200
WINDOW = 16
ABSTAIN = 7


@pytest.fixture(autouse=True)
def few_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """A tiny model gains nothing from threads, and beside other work they wait for each other."""
    before = torch.get_num_threads()
    if request.node.get_closest_marker("model") is None:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_model(kind: str = "gemma3") -> Any:
    """Two layers of random weights; Gemma's first has a sliding window of 16 tokens."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.6,
        "eos_token_id": 1,
        # Tied ones make random weights repeat their last token for ever.
        "tie_word_embeddings": False,
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    layers = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(
        **sizes, head_dim=16, sliding_window=WINDOW, layer_types=layers, query_pre_attn_scalar=16
    )
    return Gemma3ForCausalLM(config).eval()


def decoder_of(model: Any) -> GemmaDecoder:
    """The project's own decoder over the weights of a model of transformers."""
    shape = shape_of(model.config.to_dict())
    assert shape is not None
    return GemmaDecoder(shape, model.state_dict())


def computed_by(kind: str) -> tuple[Any, Any]:
    """The model that transformers computes, and the `LanguageModel` that is tested against it."""
    model = tiny_model("llama" if kind == "llama" else "gemma3")
    return model, (
        GemmaModel(decoder_of(model), range(VOCABULARY), "own") if kind == "own" else TransformersModel(model)
    )


class RawFormat:
    """The question's numbers are the prompt; what is written is the one claim, as numbers."""

    name = "raw"

    def __init__(
        self, allowed: Sequence[int] | None = None, stop: int = 1, abstain: int | None = None, fixed: int = 0
    ) -> None:
        self._allowed, self._stop, self._fixed = allowed, stop, fixed
        self.abstain_token_id = abstain

    def render(self, request: ReadRequest, budget_tokens: int) -> Prompt:
        ids = tuple(int(number) for number in request.question.split())
        return Prompt(ids, request.passages, request.language, request.style, self._fixed)

    def allowed(self, prompt: Prompt, generated: Sequence[int]) -> Sequence[int] | None:
        return self._allowed

    def is_finished(self, prompt: Prompt, generated: Sequence[int]) -> bool:
        return generated[-1] == self._stop or generated[0] == self.abstain_token_id

    def visible_text(self, prompt: Prompt, generated: Sequence[int]) -> str:
        return " ".join(str(token) for token in generated)

    def parse(self, prompt: Prompt, generated: Sequence[int]) -> tuple[Claim, ...]:
        return (Claim(self.visible_text(prompt, generated), (1,)),)


class Listener:
    """Keeps what it hears; says stop after so many tokens."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.heard: list[str] = []
        self._stop_after = stop_after

    def on_text(self, text: str) -> bool:
        self.heard.append(text)
        return len(self.heard) < self._stop_after


def reader(model: Any, prompt_format: Any = None, tokens: int = 24, **more: Any) -> CausalReader:
    limits = ReaderLimits(prompt_tokens=4096, new_tokens_short=tokens, new_tokens_full=tokens)
    wrapped = model if hasattr(model, "begin") else TransformersModel(model)
    return CausalReader(wrapped, WordCodec(), prompt_format or RawFormat(), limits, **more)


def raw(length: int, seed: int = 0) -> ReadRequest:
    """A request whose prompt is that many random tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, VOCABULARY, (length,), generator=generator).tolist()
    return ReadRequest(" ".join(map(str, ids)), "nl", passages_of("a", "b"), Style.SHORT)


def written(reading: Any) -> list[int]:
    return [int(number) for number in reading.claims[0].text.split()]


def reference(model: Any, request: ReadRequest, tokens: int = 24) -> list[int]:
    """What transformers' own greedy `generate` writes."""
    ids = torch.tensor([[int(number) for number in request.question.split()]])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return [int(token) for token in output[0, ids.shape[1] :]]


# The loop, on random weights


@pytest.mark.parametrize("kind", ["own", "gemma3", "llama"])
@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW])
def test_it_writes_what_generate_writes(kind: str, length: int) -> None:
    model, subject = computed_by(kind)
    for seed in range(3):
        request = raw(length, seed)
        assert written(reader(subject).read(request)) == reference(model, request)


@pytest.mark.parametrize("kind", ["own", "gemma3"])
@pytest.mark.parametrize("fixed", [33, 50])
def test_a_kept_beginning_changes_nothing(kind: str, fixed: int) -> None:
    model, language_model = computed_by(kind)
    subject = reader(language_model, RawFormat(fixed=fixed))
    for _ in range(2):
        request = raw(60)
        assert written(subject.read(request)) == reference(model, request)
    assert len(language_model._prefixes) == 1


@pytest.mark.parametrize("kind", ["own", "gemma3", "llama"])
def test_a_batch_writes_what_single_readings_write(kind: str) -> None:
    # Rows of very different length, so that padding passes the sliding window; more than one batch; some stop early.
    _, model = computed_by(kind)
    requests = [raw(length, seed=length) for length in (3, 70, 16, 41, 5, 17, 90, 33, 12, 64, 2)]
    everything = [written(reader(model).read(request)) for request in requests]
    stop = max(range(VOCABULARY), key=lambda token: sum(token in one[:-1] for one in everything))
    subject = reader(model, RawFormat(stop=stop))
    done: list[int] = []
    batch = subject.read_batch(requests, done.append)
    singles = [subject.read(request) for request in requests]
    assert [written(reading) for reading in batch] == [written(reading) for reading in singles]
    assert len({reading.new_tokens for reading in batch}) > 2
    for one, other in zip(batch, singles, strict=True):
        assert one.answer_probability == pytest.approx(other.answer_probability, rel=1e-3)
    assert done == [8, 11]
    assert subject.read_batch([]) == []


def test_only_allowed_tokens_are_written() -> None:
    reading = reader(tiny_model(), RawFormat(allowed=(20, 30, 40))).read(raw(10))
    assert set(written(reading)) <= {20, 30, 40}
    assert reading.new_tokens == 24


def test_it_stops_at_its_limit_and_at_the_formats_word() -> None:
    model = tiny_model()
    everything = written(reader(model).read(raw(10)))
    assert written(reader(model, tokens=5).read(raw(10))) == everything[:5]
    stop = everything[3]
    assert (
        written(reader(model, RawFormat(stop=stop)).read(raw(10))) == everything[: everything.index(stop) + 1]
    )


def test_a_listener_hears_each_token_and_can_stop() -> None:
    model = tiny_model()
    listener = Listener()
    everything = written(reader(model, tokens=6).read(raw(10), listener))
    assert listener.heard == [" ".join(map(str, everything[:count])) for count in range(1, 7)]
    stopping = Listener(stop_after=2)
    assert written(reader(model).read(raw(10), stopping)) == everything[:2]
    assert len(stopping.heard) == 2


def first_probabilities(model: Any, request: ReadRequest) -> torch.Tensor:
    ids = torch.tensor([[int(number) for number in request.question.split()]])
    with torch.inference_mode():
        return model(ids).logits[0, -1].softmax(dim=0)


def test_the_probabilities_are_the_models() -> None:
    model, request = tiny_model(), raw(12)
    probabilities = first_probabilities(model, request)
    reading = reader(model, RawFormat(abstain=ABSTAIN), tokens=1).read(request)
    assert reading.abstain_probability == pytest.approx(float(probabilities[ABSTAIN]), rel=1e-4)
    assert reading.answer_probability == pytest.approx(float(probabilities.max()), rel=1e-4)


def test_abstaining_is_weighed_among_what_is_allowed() -> None:
    model, request = tiny_model(), raw(12)
    allowed = (20, 30, ABSTAIN)
    some = first_probabilities(model, request)[list(allowed)]
    reading = reader(model, RawFormat(allowed=allowed, abstain=ABSTAIN), tokens=1).read(request)
    assert reading.abstain_probability == pytest.approx(float(some[2] / some.sum()), rel=1e-4)


@pytest.mark.parametrize(("side", "abstains"), [(-1e-6, True), (1e-6, False)])
def test_the_calibrated_threshold_decides_between_answering_and_abstaining(
    side: float, abstains: bool
) -> None:
    model, request = tiny_model(), raw(12)
    prompt_format = RawFormat(abstain=ABSTAIN)
    probability = reader(model, prompt_format, tokens=1).read(request).abstain_probability
    calibration = Calibration(abstain_threshold=probability + side)
    tokens = written(reader(model, prompt_format, calibration=calibration).read(request))
    assert (tokens[0] == ABSTAIN) == abstains


class NumberCodec(WordCodec):
    """Tokens 20 and 30 are the digits 1 and 2."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join({20: "1", 30: "2"}.get(token, "x") for token in token_ids)


@pytest.mark.parametrize(("languages", "pair"), [(("nl", "en"), "nl"), (("en", "nl"), "across")])
def test_doubt_is_scaled_for_the_language_of_the_passage_that_would_be_cited(
    languages: tuple[str, str], pair: str
) -> None:
    model, prompt_format = tiny_model(), RawFormat(allowed=(20, 30, ABSTAIN), abstain=ABSTAIN)
    request = raw(12)
    allowed = first_probabilities(model, request)[[20, 30]]
    first, second = (
        replace(passage, language=language)
        for passage, language in zip(request.passages, languages, strict=True)
    )
    # The likelier number is that of the passage whose language comes first.
    first, second = (
        (first, second) if allowed[0] > allowed[1] else (replace(first, number=2), replace(second, number=1))
    )
    request = replace(request, passages=(first, second))
    calibration = Calibration(abstain_threshold=2.0, abstain_logits={"nl": -1.0, "across": 2.0})
    limits = ReaderLimits(4096, 1, 1)
    codec = NumberCodec()
    plain = CausalReader(TransformersModel(model), codec, prompt_format, limits).read(request)
    scaled = CausalReader(
        TransformersModel(model), codec, prompt_format, limits, calibration=calibration
    ).read(request)
    expected = calibration.abstaining(plain.abstain_probability, pair)
    assert scaled.abstain_probability == pytest.approx(expected, rel=1e-6)
    assert scaled.abstain_probability != pytest.approx(plain.abstain_probability, rel=1e-3)


def test_counts_of_tokens_are_given() -> None:
    reading = reader(tiny_model(), tokens=4).read(raw(9))
    assert (reading.prompt_tokens, reading.new_tokens) == (9, 4)
    assert 0.0 < reading.answer_probability <= 1.0
    assert math.isfinite(reading.answer_probability)


# The project's own decoder


def forward_in_pieces(decoder: GemmaDecoder, ids: list[int], pieces: Sequence[int]) -> torch.Tensor:
    cache = decoder.new_cache(len(ids))
    states, start = [], 0
    for piece in pieces:
        states.append(decoder.forward(torch.tensor([ids[start : start + piece]]), cache)[0])
        start += piece
    return torch.cat(states)


@pytest.mark.parametrize("pieces", [[90], [1] * 90, [40, 1, 1, 48], [17, 16, 15, 42]])
@pytest.mark.parametrize("query_rows", [256, 7])
def test_the_decoder_computes_what_transformers_does(
    pieces: list[int], query_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.gemma._QUERY_ROWS", query_rows)
    model = tiny_model()
    ids = [int(number) for number in raw(90).question.split()]
    with torch.inference_mode():
        expected = model.model(torch.tensor([ids])).last_hidden_state[0]
        assert torch.allclose(forward_in_pieces(decoder_of(model), ids, pieces), expected, atol=1e-4)


def test_what_was_cut_back_leaves_no_trace() -> None:
    decoder = decoder_of(tiny_model())
    ids = [int(number) for number in raw(60).question.split()]
    with torch.inference_mode():
        cache = decoder.new_cache(80)
        decoder.forward(torch.tensor([ids[:40]]), cache)
        decoder.forward(torch.tensor([[9, 8, 7, 6, 5]]), cache)
        cache.lengths = [40]
        went_on = decoder.forward(torch.tensor([ids[40:]]), cache)[0]
        assert torch.allclose(went_on, forward_in_pieces(decoder, ids, [40, 20])[40:], atol=1e-6)


def test_a_cache_that_is_too_small_is_an_error() -> None:
    decoder = decoder_of(tiny_model())
    with pytest.raises(ModelError, match="12 tokens don't fit a cache for 10"):
        decoder.forward(torch.tensor([list(range(12))]), decoder.new_cache(10))


def test_only_a_session_that_can_be_cut_back_is_given_guesses() -> None:
    request = raw(20)
    prompt = RawFormat().render(request, 4096)
    for kind, is_reversible in (("own", True), ("gemma3", False), ("llama", False)):
        session = computed_by(kind)[1].begin([prompt], 8)
        assert isinstance(session, ReversibleSession) is is_reversible


def own_folder(folder: Path) -> Path:
    """A tiny model with a tokenizer, as an earlier version left it: without a list of writable tokens."""
    tiny_model().save_pretrained(folder)
    vocabulary = {chr(0x3B1 + token) if token % 2 else f"w{token}": token for token in range(VOCABULARY)}
    Tokenizer(BPE(vocabulary, [])).save(str(folder / "tokenizer.json"))
    return folder


def load_own(folder: Path, dtype: torch.dtype = torch.float32) -> GemmaModel:
    shape = read_shape(folder)
    assert shape is not None
    with tokenizer_in_background(folder) as tokenizer:
        return load_gemma(folder, shape, dtype, tokenizer)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_with_a_list_of_writable_tokens_is_read_as_one_without(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    without = load_own(own_folder(tmp_path), dtype)
    save_writable(tmp_path)
    listed = load_own(tmp_path, dtype)
    assert listed._head.ids.tolist() == without._head.ids.tolist() == list(range(0, VOCABULARY, 2))
    requests = [raw(30, seed) for seed in range(4)]
    readings = [[written(reader(model).read(request)) for request in requests] for model in (without, listed)]
    assert readings[0] == readings[1]


def test_what_stays_in_the_file_is_computed_like_what_is_in_memory(tmp_path: Path) -> None:
    own_folder(tmp_path)
    np.save(tmp_path / WRITABLE, np.arange(VOCABULARY))
    request = raw(60)
    in_memory = GemmaModel(decoder_of(tiny_model()), range(VOCABULARY), "own")
    assert written(reader(load_own(tmp_path)).read(request)) == written(reader(in_memory).read(request))


@pytest.mark.parametrize("listed", [[], [3, VOCABULARY]])
def test_a_list_of_other_weights_is_an_error(tmp_path: Path, listed: list[int]) -> None:
    own_folder(tmp_path)
    np.save(tmp_path / WRITABLE, np.array(listed, np.int32))
    with pytest.raises(ModelError, match="aren't those of its weights"):
        load_own(tmp_path)


def test_guessing_changes_only_how_often_the_model_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    without = [
        written(reader(model, tokens=40).read(raw(length, seed)))
        for length, seed in ((30, 1), (60, 2), (90, 3))
    ]
    calls: list[int] = []
    decoder = decoder_of(model)
    forward = decoder.forward
    monkeypatch.setattr(
        decoder,
        "forward",
        lambda ids, *more, **named: calls.append(ids.shape[1]) or forward(ids, *more, **named),
    )
    subject = reader(GemmaModel(decoder, range(VOCABULARY), "own"), tokens=40)
    # The answer itself stands in the prompt, so that many guesses are right; the prompt changes the answer,
    # so the reference is made again for it.
    for answer, (length, seed) in zip(without, ((30, 1), (60, 2), (90, 3)), strict=True):
        request = raw(length, seed)
        question = f"{request.question} {' '.join(map(str, answer))}"
        longer = ReadRequest(question, "nl", request.passages, Style.SHORT)
        assert written(subject.read(longer)) == reference(model, longer, tokens=40)
    assert any(count > 1 for count in calls[1:])


def test_the_last_state_alone_is_that_of_the_whole_pass() -> None:
    decoder = decoder_of(tiny_model())
    window = decoder.shape.window
    for length in (1, window - 1, window + 5, 3 * window):
        ids = torch.randint(3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(length))
        whole, short = decoder.new_cache(length + 2), decoder.new_cache(length + 2)
        with torch.inference_mode():
            every, last = decoder.forward(ids, whole), decoder.forward(ids, short, last_only=True)
            torch.testing.assert_close(last, every[:, -1:])
            torch.testing.assert_close(short.keys[:, :, :length], whole.keys[:, :, :length])
            # What is read after it finds the same beginning.
            more = torch.tensor([[5, 6]])
            torch.testing.assert_close(decoder.forward(more, short), decoder.forward(more, whole))


def test_few_rows_are_multiplied_in_eight_bits_and_many_in_the_weights_own_type() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = (torch.randn(96, 64, generator=generator) * torch.logspace(-3, 1, 96)[:, None]).bfloat16()
    product = Linear(weight)
    rows = torch.randn(32, 64, generator=generator).bfloat16()
    exact = rows.float() @ weight.float().T
    # Half a step of each row's scale for each of 64 numbers, and bfloat16's rounding of the result.
    steps = weight.float().abs().amax(dim=1) / 127
    allowed = 0.51 * steps * rows.float().abs().sum(dim=1, keepdim=True) + exact.abs() / 128
    for count in (1, 5, 8):
        off = (product(rows[:count]).float() - exact[:count]).abs()
        assert (off <= allowed[:count]).all()
        assert off.mean() > 0.1 * (product(rows).float()[:count] - exact[:count]).abs().mean()
    # Rounding to the nearest step is off by a step / √12, as like as not to either side: no coarser, no bias.
    errors = torch.cat([product(rows[at : at + 8]).float() - exact[at : at + 8] for at in range(0, 32, 8)])
    relative = errors / (steps * rows.float().norm(dim=1, keepdim=True))
    assert 0.27 < relative.square().mean().sqrt() < 0.32
    assert relative.mean().abs() < 0.03
    many = product(rows).float()
    assert ((many - exact).abs() <= exact.abs() / 64 + steps * 0.05).all()


def test_products_in_float32_stay_exact_for_few_rows() -> None:
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(4))
    rows = torch.randn(2, 64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(Linear(weight)(rows), rows @ weight.T)


def test_tokens_of_the_prompt_can_be_written_though_the_output_layer_leaves_them_out() -> None:
    model = tiny_model()
    request = raw(30)
    likeliest = written(reader(model, tokens=1).read(request))[0]
    others = [token for token in range(VOCABULARY) if token != likeliest]
    subject = reader(GemmaModel(decoder_of(model), others, "own"), tokens=1)
    assert written(subject.read(request)) != [likeliest] or str(likeliest) in request.question.split()
    # A token that changes next to nothing where it stands: far outside every window but the full layer's.
    ids = [likeliest, *(int(number) for number in request.question.split())]
    beside = ReadRequest(" ".join(map(str, ids)), "nl", request.passages, Style.SHORT)
    assert written(subject.read(beside)) == reference(model, beside, tokens=1)


@pytest.mark.parametrize(
    "changed",
    [
        {"model_type": "llama"},
        {"num_key_value_heads": 2},
        {"attention_bias": True},
        {"final_logit_softcapping": 30.0},
    ],
)
def test_only_a_decoder_that_it_computes_is_taken(changed: dict[str, Any]) -> None:
    config = tiny_model().config.to_dict()
    assert shape_of(config) is not None
    assert shape_of(config | changed) is None


# Loading


def test_a_folder_that_is_not_there_or_no_model_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder .*nowhere"):
        load_reader_folder(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="can't be loaded.*setting 'generator'"):
        load_reader_folder(tmp_path)


# The bundled weights


PASSAGES = passages_of(
    "Het veer over de Rijn vaart elk uur. Een kaartje kost 3 euro. Honden mogen gratis mee.",
    "De kraan is 12 meter hoog. Hij staat sinds 1931 in Delft. De sleutel ligt bij de havenmeester.",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    from index.weights import ensure_generator
    from rag.settings import load_settings

    return ensure_generator(load_settings().home)


@pytest.fixture(scope="module")
def exact(folder: Path) -> CausalReader:
    """In float32, where a sum's order doesn't change which token is the likeliest."""
    return load_reader_folder(folder, dtype="float32")


@pytest.fixture(scope="module")
def transformers_own(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def usual(folder: Path) -> CausalReader:
    return load_reader_folder(folder)


def asked(repeat: int = 1) -> list[ReadRequest]:
    questions = [
        "Wat kost een kaartje?",
        "Hoe hoog is de kraan?",
        "Waar ligt de sleutel?",
        "Wie is de koning?",
    ]
    return [ReadRequest(question, "nl", PASSAGES * repeat, Style.SHORT) for question in questions]


@pytest.mark.model
def test_gemma_writes_what_generate_writes_past_its_sliding_window(
    exact: CausalReader, transformers_own: Any
) -> None:
    text = "De dijk bij het dorp is in 1934 verhoogd, en de sluis kreeg nieuwe deuren. "
    ids = [2, *exact._codec.encode(text * 40)]
    assert len(ids) > 600
    request = ReadRequest(" ".join(map(str, ids)), "nl", PASSAGES, Style.SHORT)
    subject = CausalReader(exact._model, exact._codec, RawFormat(), ReaderLimits(4096, 20, 20))
    assert written(subject.read(request)) == reference(transformers_own, request, tokens=20)


@pytest.mark.model
def test_gemma_reads_a_batch_as_it_reads_one(exact: CausalReader) -> None:
    requests = asked() + asked(repeat=4)[:2]
    singles = [exact.read(request) for request in requests]
    for one, other in zip(exact.read_batch(requests), singles, strict=True):
        assert one.claims == other.claims
        assert one.abstain_probability == pytest.approx(other.abstain_probability, abs=1e-3)
    assert max(reading.prompt_tokens for reading in singles) > 512


@pytest.mark.model
def test_gemma_quotes_or_abstains_and_repeats_itself(usual: CausalReader) -> None:
    for request in asked():
        listener = Listener()
        reading = usual.read(request, listener)
        assert usual.read(request) == reading
        for claim in reading.claims:
            assert any(claim.text in passage.hit.chunk.text for passage in PASSAGES)
            assert listener.heard[-1] == claim.text


@pytest.mark.model
def test_gemma_computes_in_bfloat16_where_the_cpu_does(usual: CausalReader) -> None:
    assert usual._model.dtype == (torch.bfloat16 if computes_in_bfloat16() else torch.float32)


@pytest.mark.model
def test_gemma_in_bfloat16_is_as_near_to_float32_as_transformers_is(
    usual: CausalReader, folder: Path, transformers_own: Any
) -> None:
    from transformers import AutoModelForCausalLM

    text = "De dijk bij het dorp is in 1934 verhoogd, en de sluis kreeg nieuwe deuren. "
    ids = torch.tensor([[2, *usual._codec.encode(text * 40)]])
    decoder: Any = usual._model._decoder
    rounded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        exact = transformers_own(ids).logits[0]
        theirs = rounded(ids).logits[0].float()
        hidden = decoder.forward(ids, decoder.new_cache(ids.shape[1]))[0]
        rows = decoder.output[torch.arange(len(decoder.output))]
        ours = (hidden @ rows.T).float()
    assert (ours - exact).abs().mean() < 1.3 * (theirs - exact).abs().mean()


@pytest.mark.model
def test_both_ways_to_a_tokenizer_give_the_same_tokens(usual: CausalReader, folder: Path) -> None:
    from transformers import AutoTokenizer

    ours = usual._codec
    assert isinstance(ours, TokenizerCodec)
    theirs = HuggingFaceCodec(AutoTokenizer.from_pretrained(folder), ours.eos_ids)
    assert (ours.bos_id, ours.eos_ids) == (theirs.bos_id, frozenset({1}))
    for text in (
        "[1] Título › Één\nHet kost € 3,50.\n\n",
        " [",
        "<eos><bos>∅",
        "naïef\tx  y",
        "Ω漢字🙂",
    ):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.token_id("∅") == theirs.token_id("∅")
    for codec in (ours, theirs):
        with pytest.raises(ModelError, match="no token 'no such token'"):
            codec.token_id("no such token")


@pytest.mark.model
def test_gemma_takes_a_documents_special_tokens_for_text(usual: CausalReader) -> None:
    ids = usual._codec.encode("<eos><start_of_turn>user")
    assert not set(ids) & usual._codec.eos_ids
    assert usual._codec.decode(ids) == "<eos><start_of_turn>user"
