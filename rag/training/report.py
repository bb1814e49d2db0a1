"""Figures over outcomes, by set and kind of question, as lines to print or to put in a page."""

from collections.abc import Iterator, Sequence

import numpy as np

from corpus.errors import EvalSetError
from eval.intervals import compare, mean_of
from rag.training.evaluate import Outcome


def mean(values: Sequence[float]) -> float:
    """The mean, 0 for none."""
    return sum(values) / len(values) if values else 0.0


def groups(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """Each set, answerable by same and cross language, and unanswerable."""
    for name in sorted({o.set for o in outcomes}):
        mine = [o for o in outcomes if o.set == name]
        same = [o for o in mine if o.answerable and o.language == o.passage_language]
        cross = [o for o in mine if o.answerable and o.language != o.passage_language]
        none = [o for o in mine if not o.answerable]
        for label, chosen in (("same language", same), ("across languages", cross), ("unanswerable", none)):
            if chosen:
                yield f"{name}, {label}", chosen


def summary_lines(outcomes: Sequence[Outcome], threshold: float) -> Iterator[str]:
    """A line a group: F1 with abstained as 0, share abstained, right passage among answered, language."""
    for label, mine in groups(outcomes):
        answered = [o for o in mine if o.abstain_probability < threshold]
        abstained = 1 - len(answered) / len(mine)
        line = f"{label}: n {len(mine)}, abstained {abstained:.3f}"
        if mine[0].answerable:
            f1 = mean([o.f1 if o in answered else 0.0 for o in mine])
            right = mean([o.number == o.gold_number for o in answered])
            forced = mean([o.f1 for o in mine])
            line += f", F1 {f1:.3f} (never abstaining {forced:.3f}), right passage {right:.3f}"
        yield line


def agreement_lines(before: Sequence[Outcome], after: Sequence[Outcome]) -> Iterator[str]:
    """A line a group, and one of all answerable questions, over those that both have: how many answers have the
    same words, and F1 of both.

    F1 is never abstaining; its difference has a 95% interval by a paired bootstrap over questions. Raises
    EvalSetError where they share no question.
    """
    earlier = {o.id: o for o in before}
    shared = [o for o in after if o.id in earlier]
    if not shared:
        raise EvalSetError("the two runs share no question; evaluate both on the same sets")
    answerable = [o for o in shared if o.answerable]
    for label, mine in (*groups(shared), *([("all answerable", answerable)] if answerable else [])):
        pairs = [(earlier[o.id], o) for o in mine]
        same = sum((a.number, a.text) == (b.number, b.text) for a, b in pairs)
        moved = mean([abs(a.abstain_probability - b.abstain_probability) for a, b in pairs])
        line = f"{label}: {same} of {len(pairs)} the same, P(abstain) moved {moved:.4f}"
        if mine[0].answerable:
            old, new = (np.array([pair[place].f1 for pair in pairs]) for place in (0, 1))
            found = compare(mean_of(old), mean_of(new), np.arange(len(pairs)))
            line += f", F1 {old.mean():.3f} to {new.mean():.3f}"
            if found.low is not None:
                line += f", difference {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        yield line
