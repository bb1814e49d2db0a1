"""From passages and questions to contexts: a handful of numbered passages and many questions about them.

A context is drawn anew each time: its distractors are passages that are found for one of its questions or that
are like the first one (by the embedder's vectors), in random order, sometimes cropped; questions whose own
passage is left out become unanswerable. What would be a wrong label is left out: a distractor that overlaps
another passage's text or has the answer of the question that it was found for, an unanswerable question next to
a second passage of its document, a question "without its passage" whose answer stands in the context after all.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corpus import sentences
from corpus.document import UNDETERMINED, Language
from rag.answers import Style
from rag.reader_format import CitedSentence
from rag.training.sources import Asked, Kind, Source, Span

YES_NO = frozenset({"ja", "nee", "yes", "no"})
SHINGLE_WORDS = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage as it stands in one context."""

    key: str
    title: str
    text: str
    language: Language = UNDETERMINED


@dataclass(frozen=True, slots=True)
class Posed:
    """A question in one context; no sentences means that the reader should abstain.

    `about` is the number of the passage that it was asked about, 0 where that isn't among them.
    """

    id: str
    kind: Kind
    question: str
    language: Language
    style: Style
    sentences: tuple[CitedSentence, ...]
    about: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """Passages, numbered from 1 in their order, and the questions that share them."""

    passages: tuple[Shown, ...]
    questions: tuple[Posed, ...]


@dataclass(frozen=True, slots=True)
class DrawConfig:
    """How contexts of one kind of question are drawn; the shares are probabilities.

    `question_share` is how often a distractor is what would be found for a question, instead of a passage like
    the first one. `passage_counts` are the weights of 1, 2, … passages. `style` forces one where a question allows it.
    """

    kind: Kind
    max_questions: int
    keep_unanswerable: float = 1.0
    missing_share: float = 0.12
    outside_share: float = 0.25
    question_share: float = 0.75
    crop_share: float = 0.2
    max_chars: int = 900
    passage_counts: tuple[int, ...] = (5, 8, 20, 42, 17, 8)
    untitled_share: float = 0.06
    style: Style | None = None


PAIRS = DrawConfig(Kind.PAIRS, 16, missing_share=0.12)
WRITTEN = DrawConfig(Kind.WRITTEN, 16, missing_share=0.08)
OWN = DrawConfig(Kind.OWN, 16, missing_share=0.05, outside_share=0.5)
SQUAD = DrawConfig(Kind.SQUAD, 24, keep_unanswerable=0.8, missing_share=0.03, outside_share=0.1)
# Several paragraphs of a policy answer a question about it; those of other policies are no better than any.
POLICY = DrawConfig(Kind.POLICY, 12, missing_share=0.2, outside_share=0.0, question_share=0.0)


def split_sentences(text: str) -> list[Span]:
    """Sentences of a text as spans without the space between them."""
    return [Span(start, end) for start, end in sentences(text)]


def crop(text: str, keep: Span, chars: int, rng: random.Random) -> Span:
    """A run of whole sentences of about `chars` characters that holds `keep`, at a random place around it."""
    parts = split_sentences(text) or [Span(0, len(text))]
    first = max((i for i, s in enumerate(parts) if s.start <= keep.start), default=0)
    last = min(
        (i for i, s in enumerate(parts) if s.end >= keep.end),
        default=len(parts) - 1,
    )
    last = max(first, last)
    while True:
        options = [i for i in (first - 1, last + 1) if 0 <= i < len(parts)]
        if not options:
            break
        chosen = rng.choice(options)
        low, high = min(first, chosen), max(last, chosen)
        if parts[high].end - parts[low].start > chars:
            break
        first, last = low, high
    return Span(min(parts[first].start, keep.start), max(parts[last].end, keep.end))


def shingles(text: str) -> frozenset[int]:
    """Hashes of all runs of six words, for telling whether two texts overlap."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(hash(tuple(words[i : i + SHINGLE_WORDS])) for i in range(len(words) - SHINGLE_WORDS + 1))


class Drawer:
    """Draws contexts from sources; `vectors` are unit vectors, one row a source.

    `questions` has a unit vector for the text of each question; without it no passage is found for one.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        vectors: NDArray[np.float32],
        seed: int,
        questions: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self._sources = sources
        self._vectors = vectors
        self._question_vectors = questions or {}
        self._similarity = vectors @ vectors.T
        self._shingles = [shingles(source.text) for source in sources]
        self._seed = seed

    def epoch(self, number: int, config: DrawConfig) -> Iterator[Context]:
        """All questions of one kind once, in contexts of similar passages. Deterministic."""
        rng = random.Random(f"{self._seed}/{config.kind}/{number}")
        waiting = {i: self._questions(i, config, rng) for i in range(len(self._sources))}
        waiting = {i: asked for i, asked in waiting.items() if asked}
        order = list(waiting)
        rng.shuffle(order)
        for seed in order:
            while waiting.get(seed):
                yield self._draw(seed, waiting, config, rng)

    def each_alone(self, config: DrawConfig, count: int) -> Iterator[Context]:
        """Each question of one kind by itself, its passage among `count`, the others found for it; whole.

        As `eval run --gold-passages` has it. Deterministic; the sources in random order.
        """
        rng = random.Random(f"{self._seed}/{config.kind}/alone")
        order = list(range(len(self._sources)))
        rng.shuffle(order)
        for index in order:
            for question in self._questions(index, config, rng):
                chosen = self._found_for(question, [index], count - 1)
                place = rng.randint(0, len(chosen))
                chosen.insert(place, index)
                shown = tuple(self._whole(each) for each in chosen)
                yield Context(shown, (pose(question, place + 1, rng, config.style),))

    def _whole(self, index: int) -> Shown:
        source = self._sources[index]
        return Shown(source.key, source.title, source.text, source.language)

    def _found_for(self, question: Asked, chosen: Sequence[int], count: int) -> list[int]:
        """The passages of other documents that are found for a question, best first, and overlap with none."""
        documents = {self._sources[index].document for index in chosen}
        found: list[int] = []
        for index in map(int, np.argsort(-(self._vectors @ self._question_vectors[question.question]))):
            if len(found) == count:
                break
            is_other = self._sources[index].document not in documents
            if is_other and not self._overlaps(index, [*chosen, *found]):
                found.append(index)
        return found

    def _questions(self, index: int, config: DrawConfig, rng: random.Random) -> list[Asked]:
        asked = [question for question in self._sources[index].asked if question.kind is config.kind]
        kept = [q for q in asked if q.answerable or rng.random() < config.keep_unanswerable]
        rng.shuffle(kept)
        return kept

    def _draw(
        self,
        seed: int,
        waiting: dict[int, list[Asked]],
        config: DrawConfig,
        rng: random.Random,
    ) -> Context:
        chosen = self._choose_passages(seed, waiting, config, rng)
        taken = self._take_questions(chosen, waiting, config, rng)
        missing = self._missing(chosen, len(taken), config, rng)
        rng.shuffle(chosen)
        shown, crops = [], {}
        for index in chosen:
            source = self._sources[index]
            crops[index] = self._crop(source, [q for i, q in taken if i == index], config, rng)
            title = "" if rng.random() < config.untitled_share else source.title
            shown.append(
                Shown(
                    source.key,
                    title,
                    source.text[crops[index].start : crops[index].end],
                    source.language,
                )
            )
        numbers = {index: number for number, index in enumerate(chosen, start=1)}
        posed = [
            pose(q, numbers[i], rng, config.style)
            for i, q in taken
            if q.proof is None or _holds(crops[i], q.proof)
        ]
        posed += [replace(pose(q, 1, rng, config.style), sentences=(), about=0) for q in missing]
        rng.shuffle(posed)
        return Context(tuple(shown), tuple(posed))

    def _choose_passages(
        self,
        seed: int,
        waiting: dict[int, list[Asked]],
        config: DrawConfig,
        rng: random.Random,
    ) -> list[int]:
        count = rng.choices(range(1, len(config.passage_counts) + 1), config.passage_counts)[0]
        chosen = [seed]
        ranked = np.argsort(-self._similarity[seed])
        own_group = self._sources[seed].group
        like = [int(i) for i in ranked if self._sources[i].group == own_group]
        asked = [i for i in like if waiting.get(i)]
        outside = [int(i) for i in ranked[:60]]
        while len(chosen) < count:
            if self._question_vectors and rng.random() < config.question_share:
                question = rng.choice(waiting[seed])
                found = [
                    i for i in self._found_for(question, chosen, 3) if not self._answers_too(question, i)
                ]
                if found:
                    chosen.append(rng.choice(found))
                    continue
            pool = outside if rng.random() < config.outside_share else (asked or like)
            options = [i for i in pool[:40] if i not in chosen and not self._overlaps(i, chosen)][:8]
            if not options:
                options = [i for i in like[:80] if i not in chosen and not self._overlaps(i, chosen)][:8]
            if not options:
                break
            chosen.append(rng.choice(options))
        return chosen

    def _answers_too(self, question: Asked, index: int) -> bool:
        """Whether a passage has a question's answer as well; a yes or no can't be looked up."""
        short = question.short.lower().strip()
        return len(short) > 2 and short not in YES_NO and short in self._sources[index].text.lower()

    def _overlaps(self, index: int, chosen: Sequence[int]) -> bool:
        mine = self._shingles[index]
        for other in chosen:
            common = len(mine & self._shingles[other])
            if common > 3 or (common and common > 0.1 * len(mine)):
                return True
        return False

    def _take_questions(
        self,
        chosen: Sequence[int],
        waiting: dict[int, list[Asked]],
        config: DrawConfig,
        rng: random.Random,
    ) -> list[tuple[int, Asked]]:
        documents = [self._sources[i].document for i in chosen]
        taken: list[tuple[int, Asked]] = []
        share = max(2, -(-config.max_questions // len(chosen)))
        for index in chosen:
            queue = waiting.get(index, [])
            alone = documents.count(self._sources[index].document) == 1
            for _ in range(min(share, len(queue), config.max_questions - len(taken))):
                question = queue.pop()
                if question.answerable or alone:
                    taken.append((index, question))
            if not queue:
                waiting.pop(index, None)
        return taken

    def _missing(
        self, chosen: Sequence[int], count: int, config: DrawConfig, rng: random.Random
    ) -> list[Asked]:
        wanted = sum(rng.random() < config.missing_share for _ in range(count))
        if not wanted:
            return []
        documents = {self._sources[i].document for i in chosen}
        text = " ".join(self._sources[i].text for i in chosen).lower()
        near = [int(i) for i in np.argsort(-self._similarity[chosen[0]])[:60]]
        if config.kind is Kind.POLICY:
            near = [i for i in range(len(self._sources)) if self._similarity[chosen, i].max() < 0.85]
        options = [
            question
            for index in near
            if self._sources[index].document not in documents and not self._overlaps(index, chosen)
            for question in self._sources[index].asked
            if question.kind is config.kind and _absent(question, text)
        ]
        rng.shuffle(options)
        if self._question_vectors and config.question_share:
            options = self._nearest(options, chosen)[: 4 * wanted]
            rng.shuffle(options)
        return options[:wanted]

    def _nearest(self, questions: Sequence[Asked], chosen: Sequence[int]) -> list[Asked]:
        """The questions for which these passages would sooner be found, first."""
        if not questions:
            return []
        vectors = np.stack([self._question_vectors[question.question] for question in questions])
        scores = (vectors @ self._vectors[list(chosen)].T).max(axis=1)
        return [questions[place] for place in np.argsort(-scores, kind="stable")]

    def _crop(
        self,
        source: Source,
        asked: Sequence[Asked],
        config: DrawConfig,
        rng: random.Random,
    ) -> Span:
        text = source.text
        if len(text) <= config.max_chars and (len(text) < 450 or rng.random() > config.crop_share):
            return Span(0, len(text))
        proofs = [q.proof for q in asked if q.proof is not None]
        keep = rng.choice(proofs) if proofs else Span(0, 1)
        if len(proofs) > 1:
            hull = Span(min(p.start for p in proofs), max(p.end for p in proofs))
            keep = hull if hull.end - hull.start < config.max_chars else keep
        return crop(text, keep, rng.randint(400, config.max_chars), rng)


def pose(asked: Asked, number: int, rng: random.Random, forced: Style | None = None) -> Posed:
    """The question in one of the two styles, as its answers allow; short six times in ten."""
    style = forced or (Style.SHORT if rng.random() < 0.6 else Style.FULL)
    if asked.answerable:
        if not asked.short:
            style = Style.FULL
        elif not asked.full:
            style = Style.SHORT
    elif asked.kind in {Kind.SQUAD, Kind.POLICY}:
        style = Style.SHORT
    return Posed(
        asked.id,
        asked.kind,
        asked.question,
        asked.language,
        style,
        cited(asked, number, style),
        number,
    )


def cited(asked: Asked, number: int, style: Style) -> tuple[CitedSentence, ...]:
    """What should be answered: nothing, the span, or each sentence of the full answer with its number."""
    if not asked.answerable:
        return ()
    if style is Style.SHORT:
        return (CitedSentence(number, asked.short),)
    spans = split_sentences(asked.full)
    return tuple(CitedSentence(number, asked.full[span.start : span.end]) for span in spans)


def _holds(outer: Span, inner: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _absent(question: Asked, lowered_text: str) -> bool:
    """Whether a question's answer surely doesn't stand in a text; a yes or no can't be looked up."""
    short = question.short.lower().strip()
    return bool(question.answerable and len(short) > 2 and short not in YES_NO and short not in lowered_text)


def endless(
    draw: Callable[[int], Iterator[Context]], epoch: int = 0, skip: int = 0
) -> Iterator[tuple[int, int, Context]]:
    """Contexts epoch after epoch with (epoch, position); starts where a checkpoint left off."""
    while True:
        for position, context in enumerate(draw(epoch)):
            if position >= skip and context.questions:
                yield epoch, position + 1, context
        epoch, skip = epoch + 1, 0
