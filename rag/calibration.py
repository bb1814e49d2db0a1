"""What a trained reader's folder says about itself: `reader.json`, and the calibration in it.

.. code-block:: json

    {"id": "…", "format": "citing-first",
     "calibration": {"threshold": 0.42, "abstain_threshold": 0.5,
                     "abstain_logits": {"en": -1.8, "nl": 0.1, "across": 0.4},
                     "points": [[0.0, 0.05], [1.0, 0.97]]}}

Every key may be missing. A base model has no such file; its confidence is then uncalibrated.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from corpus.document import UNDETERMINED, Language
from corpus.errors import ModelError

CARD = "reader.json"
ACROSS = "across"


def language_pair(question: Language, passage: Language) -> str:
    """The language that a question and a passage share, or `ACROSS`; an undetermined passage shares any."""
    return question if passage in {question, UNDETERMINED} else ACROSS


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a reader's raw confidence to the probability that its answer is right.

    `points` are (raw, probability) pairs, both not decreasing; between them the map is linear, outside them
    constant. An answer whose calibrated confidence is below `threshold` is withheld. The reader abstains
    where its probability of abstaining is at least `abstain_threshold`; None leaves that to the likeliest
    token.

    A reader doesn't doubt alike in all languages, so that probability is first put on one scale: by pair of
    languages, `abstain_logits` has the log odds at which it is as likely as not. A pair that it lacks gets
    those of the most cautious one.
    """

    threshold: float = 0.0
    points: tuple[tuple[float, float], ...] = ()
    abstain_threshold: float | None = None
    abstain_logits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [*chain.from_iterable(self.points), *self.abstain_logits.values(), self.threshold]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"a calibration is made of finite numbers: {self}")
        for earlier, later in zip(self.points, self.points[1:], strict=False):
            if later[0] <= earlier[0] or later[1] < earlier[1]:
                raise ValueError(f"calibration points must rise: {earlier} is followed by {later}")

    def abstaining(self, probability: float, pair: str) -> float:
        """The reader's own probability of abstaining, on the scale that all pairs of languages share."""
        if not self.abstain_logits:
            return probability
        middle = self.abstain_logits.get(pair, min(self.abstain_logits.values()))
        return 1.0 / (1.0 + math.exp(middle - log_odds(probability)))

    def probability(self, raw: float) -> float:
        """The calibrated probability in 0–1; the raw value itself where there are no points."""
        if not self.points:
            return raw
        place = bisect_right(self.points, raw, key=lambda point: point[0])
        if place == 0:
            return self.points[0][1]
        if place == len(self.points):
            return self.points[-1][1]
        (left, low), (right, high) = self.points[place - 1], self.points[place]
        return low + (high - low) * (raw - left) / (right - left)


def log_odds(probability: float) -> float:
    """ln(p / (1 - p)), finite at 0 and 1 as well."""
    kept = min(max(probability, 1e-12), 1.0 - 1e-12)
    return math.log(kept / (1.0 - kept))


@dataclass(frozen=True, slots=True)
class ReaderCard:
    """`reader.json`; `format` is "" where the model's own kind decides."""

    id: str = ""
    format: str = ""
    calibration: Calibration | None = None


def read_card(folder: Path) -> ReaderCard:
    """The card of a model folder, an empty one where it has none. Raises ModelError where it is malformed."""
    path = folder / CARD
    if not path.is_file():
        return ReaderCard()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        calibration = content.get("calibration")
        return ReaderCard(
            id=str(content.get("id", "")),
            format=str(content.get("format", "")),
            calibration=_calibration(calibration) if calibration else None,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelError(f"{path} isn't a reader's card: {error}") from error


def _calibration(content: Mapping[str, object]) -> Calibration:
    points = content.get("points", [])
    abstain = content.get("abstain_threshold")
    logits = content.get("abstain_logits", {})
    if not isinstance(points, list):
        raise TypeError("'points' isn't a list")
    if not isinstance(logits, dict):
        raise TypeError("'abstain_logits' isn't an object")
    return Calibration(
        threshold=float(str(content.get("threshold", 0.0))),
        points=tuple((float(raw), float(probability)) for raw, probability in points),
        abstain_threshold=None if abstain is None else float(str(abstain)),
        abstain_logits={str(pair): float(middle) for pair, middle in logits.items()},
    )
