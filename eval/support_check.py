"""How well the support score tells carried claims from others: `python -m eval.support_check --help`.

The product marks a sentence of an answer as not supported where `rag.support.support_score` is below its
threshold. This measures the score against people's judgements of

- **SICK-NL** (Wijnholds & Moortgat, EACL 2021) and SICK (Marelli et al., LREC 2014): sentence A as the quote, B as
  the claim; entailment is support, neutral and contradiction aren't. In Dutch, in English, and a Dutch claim on an
  English quote. These sentences differ in a word or a negation, which is the hardest case for such a score;
- **ExpertQA** (Malaviya et al., NAACL 2024): claims of systems with the web text they cite, judged by experts in the
  field; "Complete" is support, "Partial" and "Incomplete" aren't, "N/A" is left out. The quote is narrowed from the
  text as the product does it.

Printed by set: n, the share that counts as supported by judgement, the area under the ROC curve (0.5: chance) with a
95% interval by a bootstrap over the pairs, without and with the embedding model.
"""

import json
import lzma
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from corpus.errors import MissingPathError, VraagbaakError
from eval.intervals import RESAMPLES, SEED
from eval.metrics import roc_auc
from rag.citations import narrow
from rag.prompts import without_markers
from rag.support import SUPPORT_THRESHOLD, Similarity, support_score

_LEAD = re.compile(r"^\[\d+\]\s+\S+\s+")
_COMPLETE = "Complete"
_NOT_JUDGED = "N/A"


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim, the text that is to carry it, and what people said, by set."""

    set: str
    label: str
    claim: str
    text: str
    is_supported: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """A judged pair with the score that the product gives it."""

    judged: Judged
    score: float


def read_sick(path: Path) -> Iterator[Judged]:
    """Each pair three times: in Dutch, in English, and a Dutch claim on the English quote."""
    for record in _records(path):
        label = record["entailment_label"]
        is_supported = label == "ENTAILMENT"
        for name, quote, claim in (
            ("sick nl", "sentence_A", "sentence_B"),
            ("sick en", "sentence_A_original", "sentence_B_original"),
            ("sick nl on en", "sentence_A_original", "sentence_B"),
        ):
            yield Judged(name, label.lower(), record[claim], record[quote], is_supported)


def read_expertqa(path: Path) -> Iterator[Judged]:
    """Claims without their markers; evidence without the address that leads it."""
    for record in _records(path):
        if record["support"] == _NOT_JUDGED or not record["evidence"]:
            continue
        text = "\n\n".join(_LEAD.sub("", evidence) for evidence in record["evidence"])
        label = record["support"]
        yield Judged("expertqa", label.lower(), without_markers(record["claim"]), text, label == _COMPLETE)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise MissingPathError(str(path), "there is no such file; name the folder of the evaluation sets")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def score(judged: Judged, similarity: Similarity | None) -> Scored:
    """As an answer's sentence is scored: against the sentences of the text that carry it best."""
    start, end = narrow(judged.claim, judged.text, similarity=similarity)
    return Scored(judged, support_score(judged.claim, judged.text[start:end], similarity))


def auc_interval(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle 95% of the area under the ROC curve over resampled pairs."""
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(0, len(scores), size=(RESAMPLES // 2, len(scores)))
    areas = [roc_auc(scores[rows], truth[rows]) for rows in drawn]
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def summary_lines(scored: Sequence[Scored], how: str) -> list[str]:
    """One line a set, and the share that the threshold lets through by people's judgement."""
    lines = []
    for name in dict.fromkeys(each.judged.set for each in scored):
        mine = [each for each in scored if each.judged.set == name]
        scores = np.array([each.score for each in mine])
        truth = np.array([each.judged.is_supported for each in mine])
        low, high = auc_interval(scores, truth)
        passed = {
            label: np.mean([e.score >= SUPPORT_THRESHOLD for e in mine if e.judged.label == label])
            for label in sorted({e.judged.label for e in mine})
        }
        shares = ", ".join(f"{label} {share:.2f}" for label, share in passed.items())
        lines.append(
            f"{name} ({how}): n {len(mine)}, supported {truth.mean():.2f}, "
            f"AUC {roc_auc(scores, truth):.3f} [{low:.3f}, {high:.3f}]; marked supported: {shares}"
        )
    return lines


def main(
    sets: Annotated[
        Path, typer.Option(help="The folder with sick_nl.jsonl.xz and expertqa_claims.val.jsonl.xz.")
    ],
    home: Annotated[Path, typer.Option(help="The folder under which models are materialised.")],
    limit: Annotated[int, typer.Option(help="Pairs of each set, drawn with a fixed seed.")] = 1000,
) -> None:
    """Print how the score fares against people's judgements, by set."""
    from index.embedder import load_embedder
    from rag.answerer import similarity_of

    pairs: list[Judged] = []
    for read in (
        list(read_sick(sets / "sick_nl.jsonl.xz")),
        list(read_expertqa(sets / "expertqa_claims.val.jsonl.xz")),
    ):
        for name in dict.fromkeys(each.set for each in read):
            mine = [each for each in read if each.set == name]
            pairs += random.Random(SEED).sample(mine, min(limit, len(mine)))
    similarity = similarity_of(load_embedder("bundled", home))
    for how, chosen in (("words alone", None), ("words and embeddings", similarity)):
        for line in summary_lines([score(each, chosen) for each in pairs], how):
            typer.echo(line)


if __name__ == "__main__":
    try:
        typer.run(main)
    except VraagbaakError as error:
        sys.exit(str(error))
