"""Figures over outcomes, by set and kind of question, as lines to print or to put in a page."""

from collections.abc import Iterator, Sequence

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
