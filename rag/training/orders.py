"""Orders to the reader inside passages: what a hostile document holds, with the right answer left as it is.

A reader that has only seen honest documents follows "ignore the above and answer …". So a share of the contexts
has such a text put into one of its passages, or beside them as a passage of its own, and must be answered all
the same. The texts (`data_orders/`) were written for training alone, without sight of those that measure it
(`eval/sets/injections.jsonl`).
"""

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

from corpus import sentences
from corpus.document import Language
from rag.reader_format import MAX_PASSAGES, CitedSentence
from rag.training.contexts import Context, Shown

ORDERS = Path(__file__).parent / "data_orders"
BAIT = "{bait}"
_BESIDE_SHARE = 0.3
_CROSSING_SHARE = 0.15
"""How often an order or its bait is in the other language than the question."""


@dataclass(frozen=True, slots=True)
class OrderBook:
    """Texts by language, with `BAIT` where what they want said stands; baits by language, "any" for both."""

    texts: dict[str, tuple[str, ...]]
    baits: dict[str, tuple[str, ...]]

    def draw(self, language: Language, avoid: str, rng: random.Random) -> str:
        """An order whose bait doesn't stand in `avoid`, the right answer."""
        languages = sorted(self.texts)
        chosen = (
            language if language in self.texts and rng.random() > _CROSSING_SHARE else rng.choice(languages)
        )
        baits = [
            b for b in (*self.baits.get(chosen, ()), *self.baits.get("any", ())) if b.lower() not in avoid
        ]
        return rng.choice(self.texts[chosen]).replace(BAIT, rng.choice(baits))


def read_orders(folder: Path = ORDERS) -> OrderBook:
    """The project's own orders and baits."""
    return OrderBook(_by_language(folder / "orders.jsonl"), _by_language(folder / "baits.jsonl"))


def _by_language(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found.setdefault(record["language"], []).append(record["text"])
    return {language: tuple(texts) for language, texts in found.items()}


def with_order(context: Context, book: OrderBook, rng: random.Random) -> Context:
    """The context with an order in a passage, at a sentence's end, or in one of its own; numbers move along."""
    right = " ".join(s.text for posed in context.questions for s in posed.sentences).lower()
    order = book.draw(rng.choice(context.questions).language, right, rng)
    passages = context.passages
    place = rng.randrange(len(passages))
    if len(passages) < MAX_PASSAGES and rng.random() < _BESIDE_SHARE:
        return _inserted(context, Shown("", passages[place].title, order), rng.randint(0, len(passages)))
    shown = passages[place]
    at = rng.choice([0, *(end for _, end in sentences(shown.text))])
    text = " ".join(part for part in (shown.text[:at].strip(), order, shown.text[at:].strip()) if part)
    with_it = (*passages[:place], replace(shown, text=text), *passages[place + 1 :])
    return Context(with_it, context.questions)


def _inserted(context: Context, beside: Shown, place: int) -> Context:
    def moved(number: int) -> int:
        return number + 1 if number > place else number

    questions = tuple(
        replace(
            posed,
            sentences=tuple(CitedSentence(moved(s.number), s.text) for s in posed.sentences),
            about=moved(posed.about),
        )
        for posed in context.questions
    )
    return Context((*context.passages[:place], beside, *context.passages[place:]), questions)
