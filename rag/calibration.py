"""What a trained reader's folder says about itself: `reader.json`, and the calibration in it.

.. code-block:: json

    {"id": "…", "format": "citing-first",
     "calibration": {"threshold": 0.42, "abstain_threshold": 0.55, "points": [[0.0, 0.05], [1.0, 0.97]]}}

Every key may be missing. A base model has no such file; its confidence is then uncalibrated.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corpus.errors import ModelError

CARD = "reader.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a reader's raw confidence to the probability that its answer is right.

    `points` are (raw, probability) pairs, both not decreasing; between them the map is linear, outside them
    constant. An answer whose calibrated confidence is below `threshold` is withheld. The reader abstains
    where its own probability of abstaining is at least `abstain_threshold`; None leaves that to the
    likeliest token.
    """

    threshold: float = 0.0
    points: tuple[tuple[float, float], ...] = ()
    abstain_threshold: float | None = None

    def __post_init__(self) -> None:
        for earlier, later in zip(self.points, self.points[1:], strict=False):
            if later[0] <= earlier[0] or later[1] < earlier[1]:
                raise ValueError(f"calibration points must rise: {earlier} is followed by {later}")

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
    if not isinstance(points, list):
        raise TypeError("'points' isn't a list")
    return Calibration(
        threshold=float(str(content.get("threshold", 0.0))),
        points=tuple((float(raw), float(probability)) for raw, probability in points),
        abstain_threshold=None if abstain is None else float(str(abstain)),
    )
