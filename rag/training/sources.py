"""What the reader is trained on: passages and the questions that were asked about them.

Four kinds of files become the same two types:

- pairs (`pairs.train.jsonl`): the passage stands in the record, the evidence is verbatim;
- cases (`squad2.train`, `policyqa.train`): DESIGN's form of an evaluation case, with a document of a corpus;
- written pairs (`rag/training/data/*.jsonl`): questions of this project on spans of a corpus, by offsets;
- own passages (`rag/training/data_own/*.jsonl`): passages of this project with their questions.

Offsets are code points into the passage's own text.
"""

import json
import lzma
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from corpus.document import DUTCH, ENGLISH, Language
from corpus.errors import EvalSetError, MissingPathError

WRITTEN = Path(__file__).parent / "data"
OWN = Path(__file__).parent / "data_own"
_DUTCH_WORDS = frozenset(
    ("de", "het", "een", "van", "en", "dat", "voor", "niet", "met", "zijn", "die", "als", "wordt")
)
_CORPUS_FILES = {
    "overheid": "overheid.jsonl.xz",
    "libreoffice": "libreoffice.jsonl.xz",
    "squad2": "squad2.jsonl.xz",
    "policyqa": "policyqa.jsonl.xz",
    "vac": "vac.jsonl",
    "faq": "faq.jsonl",
}


class Kind(StrEnum):
    """Where a question comes from; decides how often it is trained."""

    PAIRS = "pairs"
    WRITTEN = "written"
    OWN = "own"
    SQUAD = "squad2"
    POLICY = "policyqa"


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open, in the passage's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about one passage.

    `short` and `full` are answers in the question's language, empty where there is none; both empty means
    that the passage doesn't answer it. `proof` is what a crop must keep for the answer to stay right.
    """

    id: str
    kind: Kind
    question: str
    language: Language
    short: str = ""
    full: str = ""
    proof: Span | None = None

    @property
    def answerable(self) -> bool:
        return self.proof is not None


@dataclass(slots=True)
class Source:
    """A passage with all that was asked about it. `group` keeps like with like when distractors are drawn."""

    key: str
    document: str
    group: str
    title: str
    language: Language
    text: str
    asked: list[Asked] = field(default_factory=list)


def read_sources(
    shared: Path, written: Path = WRITTEN, own: Path = OWN, split: str = "train"
) -> list[Source]:
    """Every passage of the training files under `shared` (a folder with `reader/` and `corpora/`).

    With `split="dev"` only `pairs.dev`. Raises MissingPathError and EvalSetError.
    """
    pairs = list(_from_pairs(shared / "reader" / f"pairs.{split}.jsonl"))
    if split != "train":
        return pairs
    corpora = _Corpora(shared / "corpora")
    by_document: dict[str, Source] = {}
    for kind in (Kind.SQUAD, Kind.POLICY):
        _add_cases(
            by_document,
            corpora,
            shared / "reader" / f"{kind.value}.train.jsonl.xz",
            kind,
        )
    by_key: dict[str, Source] = {}
    records = [record for path in sorted(written.glob("*.jsonl")) for record in _records(path)]
    corpora.read_laws({record["document"] for record in records if record["corpus"] == "laws"})
    for record in records:
        _add_written(by_document, by_key, corpora, record)
    return [*pairs, *by_document.values(), *by_key.values(), *read_own(own)]


def read_own(folder: Path = OWN) -> list[Source]:
    """The project's own passages. Raises EvalSetError where an evidence doesn't stand in its passage."""
    return [_own_source(record) for path in sorted(folder.glob("*.jsonl")) for record in _records(path)]


def read_cases(path: Path, corpus: Path, kind: Kind) -> list[Source]:
    """The passages of one file of cases with the questions on each."""
    found: dict[str, Source] = {}
    _add_cases(found, _Corpora(corpus), path, kind)
    return list(found.values())


def guess_language(text: str) -> Language:
    """Dutch where at least one word in ten is a common Dutch one, else English; for passages of training."""
    words = text.lower().split()
    return DUTCH if sum(word in _DUTCH_WORDS for word in words) >= len(words) / 10 else ENGLISH


def _from_pairs(path: Path) -> Iterator[Source]:
    found: dict[tuple[str, str], Source] = {}
    for record in _records(path):
        key = (record["document"], record["passage"])
        source = found.get(key)
        if source is None:
            title = str(record["title"]).replace(" > ", " › ").strip(" ›")
            group = "wiki" if record["source"] == "wikipedia" else "pairs"
            source = found[key] = Source(
                f"pairs/{record['id']}",
                record["document"],
                group,
                title,
                record["passage_language"],
                record["passage"],
            )
        source.asked.append(_asked_of_pair(record, source.text))
    yield from found.values()


def _asked_of_pair(record: dict[str, Any], text: str) -> Asked:
    if not record["answerable"]:
        return Asked(record["id"], Kind.PAIRS, record["question"], record["language"])
    start = text.find(record["evidence"])
    proof = Span(start, start + len(record["evidence"])) if start >= 0 else Span(0, len(text))
    short = record["short"] or ""
    return Asked(
        record["id"],
        Kind.PAIRS,
        record["question"],
        record["language"],
        short,
        record["answer"],
        proof,
    )


def _own_source(record: dict[str, Any]) -> Source:
    title = " › ".join(part for part in (record["title"], record.get("heading", "")) if part)
    source = Source(record["id"], record["id"], "own", title, record["language"], record["text"])
    for number, asked in enumerate(record["questions"]):
        base = (f"{record['id']}/{number}", Kind.OWN, asked["question"], asked["language"])
        if not asked.get("answerable", True):
            source.asked.append(Asked(*base))
            continue
        start = source.text.find(asked["evidence"])
        if start < 0:
            raise EvalSetError(f"{base[0]}: its evidence doesn't stand in its passage; correct it")
        proof = Span(start, start + len(asked["evidence"]))
        source.asked.append(Asked(*base, asked["short"], asked["answer"], proof))
    return source


def _add_cases(found: dict[str, Source], corpora: "_Corpora", path: Path, kind: Kind) -> None:
    for record in _records(path):
        key = record["tags"]["document"]
        if key not in found:
            document = corpora.document(kind.value, key)
            found[key] = Source(key, key, _group_of(key), document["title"], ENGLISH, document["text"])
        found[key].asked.append(_asked_of_case(record, found[key].text, kind))


def _asked_of_case(record: dict[str, Any], text: str, kind: Kind) -> Asked:
    if not record["answerable"]:
        return Asked(record["id"], kind, record["question"], record["language"])
    best = min(record["answers"], key=len) if kind is Kind.POLICY else record["answers"][0]
    relevant = record["relevant"][0]
    proof = Span(relevant["start"], relevant["end"])
    if best not in text[proof.start : proof.end]:
        best = text[proof.start : proof.end]
    return Asked(record["id"], kind, record["question"], record["language"], best, "", proof)


def _add_written(
    by_document: dict[str, Source],
    by_key: dict[str, Source],
    corpora: "_Corpora",
    record: dict[str, Any],
) -> None:
    """Joins the passage of cases on the same document, so that both share their contexts."""
    shared = by_document.get(record["document"])
    if shared is not None:
        shared.asked.append(_asked_of_written(record, shared.text, 0))
        return
    key = f"{record['document']}#{record['start']}-{record['end']}"
    if key not in by_key:
        document = corpora.document(record["corpus"], record["document"])
        text = document["text"][record["start"] : record["end"]]
        by_key[key] = Source(
            key,
            record["document"],
            _group_of(record["document"]),
            document["title"],
            guess_language(text),
            text,
        )
    by_key[key].asked.append(_asked_of_written(record, by_key[key].text, record["start"]))


def _asked_of_written(record: dict[str, Any], text: str, offset: int) -> Asked:
    base = (record["id"], Kind.WRITTEN, record["question"], record["language"])
    if not record["answerable"]:
        return Asked(*base)
    start, end = (position - offset for position in record["evidence"])
    if not 0 <= start < end <= len(text):
        raise EvalSetError(f"{record['id']}: its evidence lies outside its passage; correct its offsets")
    short = record["short_text"] or ""
    if record["short"]:
        short = text[record["short"][0] - offset : record["short"][1] - offset]
    return Asked(*base, short, record["answer"], Span(start, end))


def _group_of(document: str) -> str:
    """The article or website of a paragraph, "pairs" for the rest."""
    parts = document.split("/")
    return "/".join(parts[:2]) if parts[0] in {"squad2", "policyqa"} else "pairs"


class _Corpora:
    """Documents of the corpora by name and id, each file read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, dict[str, dict[str, Any]]] = {}

    def document(self, corpus: str, document_id: str) -> dict[str, Any]:
        if corpus not in self._loaded:
            path = self._folder / _CORPUS_FILES[corpus]
            self._loaded[corpus] = {record["id"]: record for record in _records(path)}
        try:
            return self._loaded[corpus][document_id]
        except KeyError as error:
            raise EvalSetError(f"{document_id}: no such document in the corpus {corpus}") from error

    def read_laws(self, wanted: set[str]) -> None:
        """Reads the laws with these names in one pass: the archive is compressed as a whole."""
        found: dict[str, dict[str, Any]] = {}
        if wanted:
            with tarfile.open(self._folder / "laws.tar.xz") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    opened = archive.extractfile(member) if name in wanted else None
                    if opened is not None:
                        text = opened.read().decode("utf-8")
                        found[name] = {"title": _first_heading(text), "text": text}
        self._loaded["laws"] = found


def _first_heading(text: str) -> str:
    return next(
        (line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")),
        "",
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise MissingPathError(
            str(path),
            "there is no such file; name the folder with reader/ and corpora/",
        )
    lines: Iterable[str]
    with (
        lzma.open(path, "rt", encoding="utf-8")
        if path.suffix == ".xz"
        else path.open(encoding="utf-8") as lines
    ):
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise EvalSetError(
                    f"{path.name}, line {number}: not JSON ({error}); correct the line"
                ) from error
