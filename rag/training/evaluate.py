"""What the reader does with dev questions, by the product's own reading loop, with the passages given.

For fitting the calibration and for looking at mistakes. The figures that are published are the evaluation
runner's, over the product's own search and prompt.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path

from corpus.document import UNDETERMINED, Chunk, Language
from corpus.errors import EvalSetError
from eval.metrics import answer_f1
from index.hits import Hit
from rag.answers import Passage, Style
from rag.calibration import Calibration
from rag.generator import CausalReader
from rag.reading import Reading, ReadRequest
from rag.training.contexts import PAIRS, SQUAD, Context, DrawConfig, Drawer, Posed, Shown
from rag.training.similar import passage_vectors, question_vectors
from rag.training.sources import Kind, Source, read_cases, read_sources

PASSAGES = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer. `number` is the first passage cited and `gold_number` the right one, 0 for none;
    `passage_language` is that of the passage asked about, `cited_language` that of the one cited.

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
    cited_language: Language

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
    """`pairs.dev` and `squad2.dev` (short only), each question with its passage and three that are found for it."""
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
    vectors = passage_vectors(sources, folders[0], folders[1] / "vectors-dev.npz")
    questions = question_vectors(sources, folders[0], folders[1] / "vectors-dev-questions.npz")
    drawer = Drawer(sources, vectors, 0, questions)
    alone = drawer.each_alone(replace(draw, keep_unanswerable=1.0, style=style), PASSAGES)
    contexts = list(islice(alone, limit))
    asked = [(question, source) for source in sources for question in source.asked]
    golds = {q.id: (q.short,) if style is Style.SHORT and q.short else (q.full,) for q, _ in asked}
    return DevSet(name, tuple(contexts), golds | answers, {q.id: s.language for q, s in asked})


NEVER_ABSTAINING = Calibration(abstain_threshold=2.0)
"""The answer is written even where abstaining is likelier, so that any threshold can be tried."""


def evaluate_set(reader: CausalReader, dev: DevSet) -> Iterator[Outcome]:
    """An outcome for each question, context after context; sets the reader to answer always."""
    reader.calibration = NEVER_ABSTAINING
    for context in dev.contexts:
        passages = tuple(as_passage(number, shown) for number, shown in enumerate(context.passages, start=1))
        for posed in context.questions:
            reading = reader.read(ReadRequest(posed.question, posed.language, passages, posed.style))
            yield _outcome(posed, reading, dev)


def as_passage(number: int, shown: Shown) -> Passage:
    """A passage of a context as a reader gets it."""
    chunk = Chunk("", shown.key, 0, 0, len(shown.text), shown.text)
    return Passage(number, Hit(chunk, 0.0), shown.title, "", shown.language)


def _outcome(posed: Posed, reading: Reading, dev: DevSet) -> Outcome:
    gold = dev.answers[posed.id] if posed.sentences else ()
    text = " ".join(claim.text for claim in reading.claims)
    number = next((number for claim in reading.claims for number in claim.numbers), 0)
    cited = (passage.language for passage in reading.passages if passage.number == number)
    return Outcome(
        id=posed.id,
        set=dev.name,
        language=posed.language,
        passage_language=dev.languages[posed.id],
        style=posed.style,
        question=posed.question,
        gold=gold,
        gold_number=posed.sentences[0].number if posed.sentences else 0,
        number=number,
        text=text,
        abstain_probability=reading.abstain_probability,
        answer_probability=reading.answer_probability,
        f1=answer_f1(text, gold) if gold else 0.0,
        cited_language=next(cited, UNDETERMINED),
    )


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
    """What `write_outcomes` wrote; raises EvalSetError where an earlier version did."""
    with path.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    lacking = {field.name for field in fields(Outcome)} - set(records[0] if records else ())
    if records and lacking:
        raise EvalSetError(f"{path} is of an earlier version and lacks {sorted(lacking)}; evaluate again")
    return [Outcome(**{**r, "style": Style(r["style"]), "gold": tuple(r["gold"])}) for r in records]
