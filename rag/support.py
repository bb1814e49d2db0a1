"""How well a quote carries a claim, in 0–1 (pure; the embedder is an optional argument).

A score of `SUPPORT_THRESHOLD` or more counts as supported. What goes in:

- the share of the claim's content words that the quote has, in any form, figures counting double;
- a figure that the quote lacks caps the score at `MISSING_NUMBER_CAP`, however well the rest fits, since it
  is what a made-up answer gets wrong;
- a negation on one side only caps it likewise;
- with `similarity` (the cosine of two sentence embeddings), a paraphrase or a translation is believed as
  far as the meaning is near; without it, a claim in other words scores low.
"""

from collections.abc import Callable, Sequence

from rag.matching import Word, find_words, same_figure, same_word, words_of

Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""The cosines (−1 to 1) of a text's embedding with those of others, in their order."""

SUPPORT_THRESHOLD = 0.5
MISSING_NUMBER_CAP = 0.3
NEGATION_CAP = 0.4
_NEAR = 0.94
_FAR = 0.82
"""Cosines of multilingual E5, which are all high: translations near 0.94, unrelated ones below 0.82."""

_NEGATIONS = frozenset(
    ("niet", "geen", "nooit", "niemand", "niets", "not", "no", "never", "nobody", "nothing")
)


def support_score(claim: str, quote: str, similarity: Similarity | None = None) -> float:
    """How well `quote` carries `claim`, in 0–1. 1.0 where the claim stands in the quote word for word, 0.0
    where either has no words.
    """
    claimed, quoted = words_of(claim), words_of(quote)
    if not claimed or not quoted:
        return 0.0
    if find_words(quoted, claimed):
        return 1.0
    score = word_coverage(claimed, quoted)
    cap = _cap(claimed, quoted)
    if similarity and score < SUPPORT_THRESHOLD <= cap:
        score = max(score, nearness(similarity(claim, [quote])[0]))
    return min(score, cap)


def nearness(cosine: float) -> float:
    """How near two meanings are, in 0–1, from the cosine of their embeddings."""
    return min(1.0, max(0.0, (cosine - _FAR) / (_NEAR - _FAR)))


def word_coverage(claimed: list[Word], quoted: list[Word]) -> float:
    """The share of the claim's content words that the quote has; figures count double. All words count where
    none is a content word.
    """
    content = [word for word in claimed if word.is_content] or claimed
    keys = {word.key for word in quoted}
    total = sum(_weight(word) for word in content)
    return sum(_weight(word) for word in content if _stands_in(word, keys)) / total


def _weight(word: Word) -> float:
    return 2.0 if word.is_number else 1.0


def _stands_in(word: Word, keys: set[str]) -> bool:
    return word.key in keys or (word.is_content and any(same_word(word.key, key) for key in keys))


def _cap(claimed: list[Word], quoted: list[Word]) -> float:
    keys = {word.key for word in quoted}
    if any(word.is_number and not any(same_figure(word.key, key) for key in keys) for word in claimed):
        return MISSING_NUMBER_CAP
    is_negated = any(word.key in _NEGATIONS for word in claimed)
    return 1.0 if is_negated == bool(keys & _NEGATIONS) else NEGATION_CAP
