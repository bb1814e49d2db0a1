"""Askers and writers at once on a running service; each response is checked against what must be in."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from corpus.errors import EvaluationError
from eval.load import WORDS
from eval.serving import put

_POLL_S = 0.02


@dataclass(slots=True)
class _Version:
    """A document's content, None where it is deleted, and between which instants it may be seen."""

    text: str | None
    begins: float
    ends: float = float("inf")


@dataclass(slots=True)
class Ledger:
    """What may be in at each instant: a change is possible from its request on, certain from its answer on."""

    _versions: dict[str, list[_Version]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, document: str, text: str | None) -> None:
        """A change was asked for."""
        with self._lock:
            history = self._versions.setdefault(document, [_Version(None, 0.0)])
            history.append(_Version(text, time.monotonic()))

    def end(self, document: str) -> None:
        """The change was acknowledged: what was there before can't be seen by who asks from now on."""
        with self._lock:
            now = time.monotonic()
            for version in self._versions[document][:-1]:
                version.ends = min(version.ends, now)

    def possible(self, document: str, since: float, until: float) -> list[str | None]:
        """What a request between two instants may have seen."""
        with self._lock:
            history = self._versions.get(document, [_Version(None, 0.0)])
            return [each.text for each in history if each.begins <= until and each.ends >= since]


@dataclass(slots=True)
class Consistency:
    """What came of a run; `faults` must be empty."""

    searches: int = 0
    answers: int = 0
    changes: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """For people."""
        counts = (
            f"{self.searches} searches and {self.answers} answers checked during {self.changes} changes, "
            f"{self.refused} refused for load"
        )
        return "\n".join([f"{counts}: {len(self.faults)} faults", *self.faults])


class ConsistencyRun:
    """Askers and writers for so many seconds. Each writer changes documents of its own."""

    def __init__(self, url: str, collection: str, seconds: float, askers: int = 4, writers: int = 2) -> None:
        self._url = url
        self._collection = collection
        self._seconds = seconds
        self._ends = 0.0
        self._askers = askers
        self._writers = writers
        self._documents = [f"writer{writer}/{number}" for writer in range(writers) for number in range(4)]
        self._ledger = Ledger()
        self._outcome = Consistency()
        self._lock = threading.Lock()

    def run(self) -> Consistency:
        """Makes the collection where it isn't there, runs to the end, deletes what it put in, says what was seen."""
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            http.put(f"/v1/collections/{self._collection}").raise_for_status()
            for document in self._documents:
                self._erase(http, document)
            self._run()
            for document in self._documents:
                self._erase(http, document)
        return self._outcome

    def _erase(self, http: httpx.Client, document: str) -> None:
        response = http.delete(f"/v1/collections/{self._collection}/documents/{document}")
        if response.status_code not in (204, 404):
            response.raise_for_status()

    def _run(self) -> None:
        self._ends = time.monotonic() + self._seconds
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(self._writers)]
        threads += [threading.Thread(target=self._ask, args=(number,)) for number in range(self._askers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _guarded(self, step: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            while time.monotonic() < self._ends and len(self._outcome.faults) < 20:
                try:
                    step(http)
                except (httpx.HTTPError, EvaluationError, KeyError) as error:
                    self._fault(f"{type(error).__name__}: {error}")

    def _fault(self, what: str) -> None:
        with self._lock:
            self._outcome.faults.append(what)

    def _count(self, name: str) -> None:
        with self._lock:
            setattr(self._outcome, name, getattr(self._outcome, name) + 1)

    def _write(self, writer: int) -> None:
        generator = random.Random(writer)
        own = [name for name in self._documents if name.startswith(f"writer{writer}/")]
        version = 0

        def step(http: httpx.Client) -> None:
            nonlocal version
            version += 1
            document = generator.choice(own)
            if generator.random() < 0.2:
                self._ledger.begin(document, None)
                self._erase(http, document)
            else:
                text = version_text(document, version, generator)
                self._ledger.begin(document, text)
                put(http, self._collection, [{"id": document, "text": text}])
            self._ledger.end(document)
            self._count("changes")

        self._guarded(step)

    def _ask(self, asker: int) -> None:
        generator = random.Random(100 + asker)

        def step(http: httpx.Client) -> None:
            document = generator.choice(self._documents)
            asking = generator.random() < 0.5
            since = time.monotonic()
            question = f"{' '.join(generator.sample(WORDS, 3))} {_tag(document)}"
            body: dict[str, object] = {
                "question": question,
                "collection": self._collection,
                "filters": {"documents": [document]},
                "top_k": 9 if asking else 100,
            }
            response = http.post("/v1/ask" if asking else "/v1/search", json=body)
            if response.status_code == 503:
                self._count("refused")
                time.sleep(_POLL_S)
                return
            content = response.raise_for_status().json()
            possible = self._ledger.possible(document, since, time.monotonic())
            self._count("answers" if asking else "searches")
            check = check_answer if asking else check_search
            for fault in check(content, document, possible):
                self._fault(f"{document}: {fault}")

        self._guarded(step)


def _tag(document: str) -> str:
    return document.replace("/", "x")


def version_text(document: str, version: int, generator: random.Random) -> str:
    """Several chunks' worth of sentences, each of which names the document and its version."""
    sentences = [
        f"{_tag(document)} versie{version} {' '.join(generator.choices(WORDS, k=10))}."
        for _ in range(generator.randint(20, 60))
    ]
    return " ".join(sentences)


def check_search(
    content: dict[str, list[dict[str, dict[str, dict[str, object]]]]],
    document: str,
    possible: Sequence[str | None],
) -> list[str]:
    """A document is there with all its chunks, in a version that may be there, or not at all."""
    chunks = sorted(
        (each["hit"]["chunk"] for each in content["passages"]), key=lambda each: str(each["start"])
    )
    if not chunks:
        return [] if None in possible else ["nothing was found, and the document was there all the time"]
    if any(chunk["document_id"] != document for chunk in chunks):
        return ["another document passed the filter"]
    for text in possible:
        if text is not None and _covers(chunks, text):
            return []
    return [f"{len(chunks)} chunks are no whole version of the {len(possible)} that may be there"]


def _covers(chunks: Sequence[dict[str, object]], text: str) -> bool:
    """Whether these are all the chunks of this text: consecutive, from its first to its last character."""
    places = sorted(
        (int(str(chunk["start"])), int(str(chunk["end"])), str(chunk["text"])) for chunk in chunks
    )
    ordinals = sorted(int(str(chunk["ordinal"])) for chunk in chunks)
    return (
        all(text[start:end] == slice_ for start, end, slice_ in places)
        and ordinals == list(range(len(chunks)))
        and places[0][0] == 0
        and max(end for _, end, _ in places) == len(text)
    )


def check_answer(
    content: dict[str, list[dict[str, object]]], document: str, possible: Sequence[str | None]
) -> list[str]:
    """Every quote stands in one version that may be there, at its offsets."""
    faults = []
    texts = [text for text in possible if text is not None]
    if not content["passages"] and None not in possible:
        faults.append("an answer without passages, and the document was there all the time")
    for citation in content["citations"]:
        start, end = int(str(citation["source_start"])), int(str(citation["source_end"]))
        if citation["document_id"] != document:
            faults.append("a citation of another document")
        elif not any(text[start:end] == citation["quote"] for text in texts):
            faults.append(f"the quote {str(citation['quote'])[:60]!r} isn't at its offsets in any version")
    return faults
