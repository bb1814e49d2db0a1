"""What the reader does with dev questions: greedy answers, many questions to a context.

For fitting the calibration and for looking at mistakes. The figures that are published are the evaluation
runner's, over the product's own search and prompt.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.document import UNDETERMINED, Chunk, Language
from eval.metrics import answer_f1
from index.hits import Hit
from rag.answers import Passage, Style
from rag.prompts import Prompt, TokenCodec
from rag.reader_format import ReaderFormat
from rag.training.contexts import PAIRS, SQUAD, Context, DrawConfig, Drawer, Posed
from rag.training.packing import Block, Pack, pack
from rag.training.similar import passage_vectors
from rag.training.sources import Kind, Source, read_cases, read_sources

if TYPE_CHECKING:
    import torch

FOUR_PASSAGES = (0, 0, 0, 1)
_NEW_TOKENS = {Style.SHORT: 32, Style.FULL: 110}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer. `number` is the first passage cited and `gold_number` the right one, 0 for none.

    `abstain_probability` is at the first token, `answer_probability` the geometric mean of the best answer's
    tokens: the answer is written even where abstaining is likelier, so that any threshold can be tried.
    """

    id: str
    set: str
    language: Language
    passage_language: Language
    style: Style
    question: str
    gold: tuple[str, ...]
    gold_number: int
    number: int
    text: str
    abstain_probability: float
    answer_probability: float
    f1: float

    @property
    def answerable(self) -> bool:
        return self.gold_number > 0


@dataclass(frozen=True, slots=True)
class DevSet:
    """Dev passages with their questions; all answers that count, and the passage's language, by question."""

    name: str
    contexts: tuple[Context, ...]
    answers: dict[str, tuple[str, ...]]
    languages: dict[str, Language]


def dev_sets(shared: Path, embedder: Path, run: Path, style: Style, limit: int = 10**9) -> list[DevSet]:
    """`pairs.dev` and `squad2.dev` (short only), four similar passages to a context, nothing cropped."""
    pairs = read_sources(shared, split="dev")
    sets = [_dev_set("pairs", pairs, PAIRS, {}, (embedder, run), style, limit)]
    if style is Style.SHORT:
        file = shared / "eval" / "squad2.dev.jsonl"
        squad = read_cases(file, shared / "corpora", Kind.SQUAD)
        with file.open(encoding="utf-8") as lines:
            answers = {r["id"]: tuple(r["answers"]) for r in map(json.loads, lines)}
        sets.append(_dev_set("squad2", squad, SQUAD, answers, (embedder, run), style, limit))
    return sets


def _dev_set(
    name: str,
    sources: list[Source],
    draw: DrawConfig,
    answers: dict[str, tuple[str, ...]],
    folders: tuple[Path, Path],
    style: Style,
    limit: int,
) -> DevSet:
    config = replace(
        draw,
        keep_unanswerable=1.0,
        missing_share=0.0,
        outside_share=0.0,
        crop_share=0.0,
        max_chars=1300,
        untitled_share=0.0,
        passage_counts=FOUR_PASSAGES,
        style=style,
    )
    vectors = passage_vectors(sources, folders[0], folders[1] / "vectors-dev.npz")
    contexts: list[Context] = []
    for context in Drawer(sources, vectors, 0).epoch(0, config):
        if sum(len(c.questions) for c in contexts) >= limit:
            break
        contexts.append(context)
    asked = [(question, source) for source in sources for question in source.asked]
    golds = {q.id: (q.short,) if style is Style.SHORT and q.short else (q.full,) for q, _ in asked}
    return DevSet(name, tuple(contexts), golds | answers, {q.id: s.language for q, s in asked})


def evaluate_set(model: Any, codec: TokenCodec, dev: DevSet) -> Iterator[Outcome]:
    """An outcome for each question, context after context."""
    writer = ContextWriter(model, codec)
    for context in dev.contexts:
        packed = pack(context, codec, 10**6)
        for posed, written in zip(context.questions, writer.write(packed, context.questions), strict=True):
            yield _outcome(posed, written, dev)


def _outcome(posed: Posed, written: "Written", dev: DevSet) -> Outcome:
    gold = dev.answers[posed.id] if posed.sentences else ()
    return Outcome(
        id=posed.id,
        set=dev.name,
        language=posed.language,
        passage_language=dev.languages[posed.id],
        style=posed.style,
        question=posed.question,
        gold=gold,
        gold_number=posed.sentences[0].number if posed.sentences else 0,
        number=written.number,
        text=written.text,
        abstain_probability=written.abstain_probability,
        answer_probability=written.answer_probability,
        f1=answer_f1(written.text, gold) if gold else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Written:
    """What the reader wrote if it had to answer, and how likely it was to abstain instead."""

    number: int
    text: str
    abstain_probability: float
    answer_probability: float


class ContextWriter:
    """Answers all questions of a context in one batch: the passages are computed once and shared."""

    def __init__(self, model: Any, codec: TokenCodec) -> None:
        self._model, self._codec = model, codec
        self._format = ReaderFormat(codec)
        self._window = int(model.config.sliding_window)
        self._abstain = self._format.abstain_token_id
        self._digits = [codec.encode(str(number))[0] for number in range(1, 10)]

    def write(self, packed: Pack, questions: Sequence[Posed]) -> list[Written]:
        """One `Written` a question, greedily, in their order."""
        import torch

        with torch.inference_mode():
            return self._write(packed, questions)

    def _write(self, packed: Pack, questions: Sequence[Posed]) -> list[Written]:
        import torch

        rows = _Rows(self._model, packed, self._window)
        first = rows.prefill(packed.blocks)
        digits = self._digits[: packed.passages]
        among = first[:, [self._abstain, *digits]].log_softmax(-1)
        abstains = among[:, 0].exp().tolist()
        best = first[:, digits].log_softmax(-1).max(-1)
        answers = [
            _Answering(Prompt((), _numbered(packed.passages), q.language, q.style), [digits[place]], [score])
            for q, place, score in zip(questions, best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        while any(answer.is_live for answer in answers):
            logits = rows.step(torch.tensor([answer.ids[-1] for answer in answers]))
            for answer, row in zip(answers, logits, strict=True):
                self._advance(answer, row)
        return [self._result(answer, abstain) for answer, abstain in zip(answers, abstains, strict=True)]

    def _advance(self, answer: "_Answering", logits: "torch.Tensor") -> None:
        """The likeliest of the tokens that the format allows, as in answering."""
        import torch

        if not answer.is_live:
            return
        allowed = self._format.allowed(answer.prompt, answer.ids)
        candidates = None if allowed is None else torch.tensor(list(allowed))
        score = (logits if candidates is None else logits[candidates]).log_softmax(-1).max(-1)
        place = int(score.indices)
        answer.ids.append(place if candidates is None else int(candidates[place]))
        answer.scores.append(float(score.values))
        full = len(answer.ids) >= _NEW_TOKENS[answer.prompt.style]
        answer.is_live = not (full or self._format.is_finished(answer.prompt, answer.ids))

    def _result(self, answer: "_Answering", abstain: float) -> Written:
        text = self._format.visible_text(answer.prompt, answer.ids)
        mean = math.exp(sum(answer.scores) / len(answer.scores))
        return Written(self._digits.index(answer.ids[0]) + 1, text, abstain, mean)


@dataclass(slots=True)
class _Answering:
    """One answer while it is written; `scores` are its tokens' log-probabilities."""

    prompt: Prompt
    ids: list[int]
    scores: list[float]
    is_live: bool = True


def _numbered(count: int) -> tuple[Passage, ...]:
    """Passages of which only the numbers matter."""
    hit = Hit(Chunk("", "", 0, 0, 0, ""), 0.0)
    return tuple(Passage(number, hit, "", "", UNDETERMINED) for number in range(1, count + 1))


class _Rows:
    """The questions of one context as a batch behind one cache, with masks by position."""

    def __init__(self, model: Any, packed: Pack, window: int) -> None:
        from transformers import DynamicCache

        self._model, self._window = model, window
        # Without the config every layer keeps all of its past, and the masks here do the sliding.
        self._cache = DynamicCache()
        self._context = packed.context_ids
        self._positions: Any = None

    def prefill(self, blocks: Sequence[Block]) -> "torch.Tensor":
        """Logits of shape (rows, vocabulary) for each question's first token."""
        import torch

        length, rows = len(self._context), len(blocks)
        positions = torch.arange(length)[None]
        self._run(torch.tensor([self._context]), positions, positions)
        self._cache.batch_repeat_interleave(rows)
        width = max(len(block.prompt_ids) for block in blocks)
        ids = torch.zeros(rows, width, dtype=torch.long)
        own = torch.full((rows, width), -1)
        for row, block in enumerate(blocks):
            size = len(block.prompt_ids)
            ids[row, width - size :] = torch.tensor(block.prompt_ids)
            own[row, width - size :] = torch.arange(length, length + size)
        self._positions = torch.cat([positions.expand(rows, -1), own], dim=1)
        return self._run(ids, own, self._positions)

    def step(self, tokens: "torch.Tensor") -> "torch.Tensor":
        """Logits of shape (rows, vocabulary) after one more token a row."""
        import torch

        following = self._positions[:, -1:] + 1
        self._positions = torch.cat([self._positions, following], dim=1)
        return self._run(tokens[:, None], following, self._positions)

    def _run(self, ids: "torch.Tensor", queries: "torch.Tensor", keys: "torch.Tensor") -> "torch.Tensor":
        """Positions below 0 are padding: nothing attends to them but themselves."""
        distance = queries[:, :, None] - keys[:, None, :]
        full = ((distance >= 0) & (keys >= 0)[:, None, :]) | ((queries < 0)[:, :, None] & (distance == 0))
        masks = {
            "full_attention": full[:, None],
            "sliding_attention": (full & (distance < self._window))[:, None],
        }
        hidden = self._model.model(
            input_ids=ids,
            position_ids=queries.clamp(min=0),
            attention_mask=masks,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return self._model.lm_head(hidden[:, -1].contiguous()).float()  # type: ignore[no-any-return]


def write_outcomes(outcomes: Iterable[Outcome], path: Path) -> list[Outcome]:
    """Writes them as JSON lines and returns them."""
    kept = []
    with path.open("w", encoding="utf-8") as file:
        for outcome in outcomes:
            kept.append(outcome)
            file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
            file.flush()
    return kept


def read_outcomes(path: Path) -> list[Outcome]:
    """What `write_outcomes` wrote."""
    with path.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [Outcome(**{**r, "style": Style(r["style"]), "gold": tuple(r["gold"])}) for r in records]
