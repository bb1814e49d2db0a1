"""The bodies of requests and responses. Answers, passages and hits have the field names of their types.

Offsets are Unicode code points, half-open.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.keys import Role
from index.hits import Filters, SearchMode
from rag.answers import Answer, Passage, Style

MAX_BATCH = 64


class Body(BaseModel):
    """A request's body: what it doesn't know is an error."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """Part of a response, made of one of the types between packages."""

    model_config = ConfigDict(from_attributes=True)


def is_text(text: str) -> str:
    """Raises ValueError for what can't be written down."""
    if "\0" in text:
        raise ValueError("NUL characters aren't text")
    return text


PlainText = Annotated[str, AfterValidator(is_text)]
Question = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000),
    AfterValidator(is_text),
    Field(
        description="What to answer, in Dutch or English.",
        examples=["Wie betaalt de helft van een AI-fabriek?"],
    ),
]
CollectionName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$"),
    Field(description="Which collection.", examples=["default"]),
]
DocumentId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(is_text),
    Field(description="The document's id; may contain '/'.", examples=["reports/2024.pdf"]),
]
AnswerLanguage = Annotated[
    Literal["nl", "en"] | None,
    Field(description="The answer's language; null: the question's.", examples=["nl"]),
]
TimeoutSeconds = Annotated[
    float | None,
    Field(gt=0, le=3600, description="Give up after so many seconds; never longer than the service allows."),
]


# Asking


class FiltersBody(Body):
    """Only documents that fit all of these; an empty field lets everything through."""

    languages: list[Annotated[str, StringConstraints(max_length=16), AfterValidator(is_text)]] = Field(
        default_factory=list, max_length=20, description="Languages of documents.", examples=[["nl"]]
    )
    documents: list[DocumentId] = Field(
        default_factory=list, max_length=1000, description="Ids of documents.", examples=[["memo.docx"]]
    )
    metadata: dict[PlainText, PlainText] = Field(
        default_factory=dict,
        max_length=20,
        description="Exact values of the documents' metadata.",
        examples=[{"department": "finance"}],
    )

    def to_filters(self) -> Filters:
        """As the index takes them."""
        return Filters(frozenset(self.languages), frozenset(self.documents), dict(self.metadata))


class _Asking(Body):
    collection: CollectionName = "default"
    style: Style = Field(Style.FULL, description="`short`: a span; `full`: a sentence or two.")
    language: AnswerLanguage = None
    filters: FiltersBody = Field(default_factory=FiltersBody, description="Which documents may be used.")
    top_k: int | None = Field(
        None, ge=1, le=50, description="Passages offered to the reader; null: the service's own number."
    )
    timeout_s: TimeoutSeconds = None


class AskBody(_Asking):
    """A question."""

    question: Question
    stream: bool = Field(False, description="Answer as server-sent events.")


class AskBatchBody(_Asking):
    """Several questions with the same options."""

    questions: list[Question] = Field(min_length=1, max_length=MAX_BATCH, description="At most 64 questions.")


class SearchBody(Body):
    """What to look for."""

    question: Question
    collection: CollectionName = "default"
    top_k: int = Field(10, ge=1, le=100, description="How many passages.")
    mode: SearchMode = Field(SearchMode.FUSED, description="By meaning, by words, or both.")
    filters: FiltersBody = Field(default_factory=FiltersBody, description="Which documents may be found.")
    timeout_s: TimeoutSeconds = None


class ChunkView(View):
    """A passage of a document: `document.text[start:end] == text`."""

    id: str = Field(examples=["memo.docx#3"])
    document_id: str = Field(examples=["memo.docx"])
    ordinal: int = Field(description="Counts from 0 in its document.")
    start: int
    end: int
    text: str
    heading: str = Field(description="Path of the headings above it, joined by ' › '.")


class HitView(View):
    """A chunk that was found. Ranks count from 1; null where that side didn't find it."""

    chunk: ChunkView
    score: float = Field(description="Orders one list of results and compares with nothing else.")
    dense_rank: int | None
    lexical_rank: int | None


class PassageView(View):
    """A hit with the number that a citation names."""

    number: int = Field(description="Counts from 1.")
    hit: HitView
    title: str
    source: str = Field(description="Where a person finds the document again.")
    language: str


class CitationView(View):
    """Both ends of a claim."""

    number: int = Field(description="Of the passage.")
    chunk_id: str
    document_id: str
    title: str
    source: str
    quote: str = Field(description="`document.text[source_start:source_end]`, to the letter.")
    source_start: int
    source_end: int
    page: int | None = Field(description="Counts from 1; null for a document without pages.")
    answer_start: int = Field(description="Where in the answer's text the supported part begins.")
    answer_end: int


class SentenceView(View):
    """A sentence of the answer."""

    start: int
    end: int
    support: float = Field(description="How well what it cites carries it, 0–1.")
    supported: bool


class AnswerView(View):
    """An answer with all that is needed to check it."""

    question: str
    language: str
    text: str = Field(description="Without markers: `citations` say which part rests on what.")
    sentences: list[SentenceView]
    citations: list[CitationView]
    passages: list[PassageView]
    abstained: bool = Field(description="True: the documents don't say, and `text` says so.")
    confidence: float = Field(description="Estimated probability that the answer is right, 0–1.")
    timings: dict[str, float] = Field(description="Seconds by stage.")

    @classmethod
    def of(cls, answer: Answer) -> "AnswerView":
        """The view of an answer."""
        return cls.model_validate(answer)


class AnswersView(View):
    """Answers in the order of their questions."""

    answers: list[AnswerView]


class SearchView(View):
    """Passages, best first."""

    passages: list[PassageView]
    timings: dict[str, float] = Field(description="Seconds by stage.", examples=[{"embed_s": 0.02}])


class PassagesEvent(View):
    """What the reader was offered."""

    passages: list[PassageView]

    @classmethod
    def of(cls, passages: tuple[Passage, ...]) -> "PassagesEvent":
        """The view of passages."""
        return cls(passages=[PassageView.model_validate(passage) for passage in passages])


class TokenEvent(View):
    """From code point `start` on, the answer so far now reads `text`."""

    start: int
    text: str


class ExamplesView(View):
    """Questions by language that the sample documents answer."""

    collection: str
    questions: dict[str, list[str]]


# Collections and documents


class CollectionBody(Body):
    """A new collection."""

    name: CollectionName


class CollectionView(View):
    """A collection and how much is in it."""

    name: str = Field(examples=["default"])
    documents: int
    chunks: int
    characters: int
    languages: dict[str, int] = Field(description="Documents by language.", examples=[{"nl": 10, "en": 6}])
    disk_bytes: int
    generation: int = Field(description="Raised by every change.")
    embedder: str = Field(description="The embedding model that it is bound to.")
    created_at: datetime


class CollectionsView(View):
    """All collections that the caller may see."""

    collections: list[CollectionView]


class DocumentInfoView(View):
    """A document without its text."""

    id: str
    title: str
    language: str
    source: str
    metadata: dict[str, str]
    sha256: str
    chunks: int
    characters: int
    pages: int = Field(description="0 for a document without pages.")
    ingested_at: datetime
    has_original: bool = Field(description="Whether the uploaded file is kept.")


class DocumentsView(View):
    """A page of documents, by id."""

    documents: list[DocumentInfoView]
    offset: int
    limit: int
    next_offset: int | None = Field(description="Where the next page begins; null on the last.")
    total: int = Field(description="All documents of the collection.")


class DocumentView(View):
    """A document with its text."""

    id: str
    title: str
    language: str
    text: str
    source: str
    metadata: dict[str, str]
    sha256: str
    page_starts: list[int] = Field(description="Where a PDF's pages begin in `text`.")
    has_original: bool


class PlaceView(View):
    """A place in a document: `before + text + after` is `document.text[context_start:context_end]`."""

    document_id: str
    title: str
    source: str
    language: str
    page: int | None
    start: int
    end: int
    text: str
    before: str
    after: str
    context_start: int
    context_end: int


class DocumentBody(Body):
    """A document's content."""

    title: Annotated[str, StringConstraints(max_length=1000), AfterValidator(is_text)] = Field(
        "", examples=["Memo provincies"]
    )
    text: Annotated[str, StringConstraints(min_length=1), AfterValidator(is_text)] = Field(
        examples=["De provincies betalen de helft."]
    )
    language: Literal["nl", "en", "und"] | None = Field(None, description="null: detected.")
    source: Annotated[str, StringConstraints(max_length=2000), AfterValidator(is_text)] = Field(
        "", description="Where a person finds it again.", examples=["https://example.org/memo"]
    )
    metadata: dict[PlainText, PlainText] = Field(default_factory=dict, max_length=100)


class NamedDocumentBody(DocumentBody):
    """A document with its id."""

    id: DocumentId


class DocumentsBody(Body):
    """Documents as JSON."""

    documents: list[NamedDocumentBody] = Field(min_length=1, max_length=1000)


# Jobs


class ProblemView(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["urn:vraagbaak:problem:no-such-document"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What was wrong, with which value, and what to do.")


class FieldErrorView(BaseModel):
    """A field of the request that is wrong."""

    field: str = Field(examples=["filters.languages[0]"])
    message: str


class RequestProblemView(ProblemView):
    """The body of every error response, as application/problem+json."""

    instance: str = Field(description="The path that was asked for.", examples=["/v1/ask"])
    request_id: str
    errors: list[FieldErrorView] | None = Field(None, description="There where fields are wrong.")


class FileState(StrEnum):
    """What became of an uploaded file."""

    WAITING = "waiting"
    READING = "reading"
    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen any more."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class ProgressView(View):
    """How far something is."""

    done: int
    total: int


class FileView(View):
    """One uploaded file's fate."""

    name: str
    state: FileState
    documents: list[str] = Field(description="Ids of the documents in it.")
    chunks: int
    error: ProblemView | None


class JobView(View):
    """An ingest, under way or over."""

    id: str
    kind: Literal["ingest"]
    collection: str
    state: JobState
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressView
    files: list[FileView]
    error: ProblemView | None = Field(description="Why nothing more could be done.")


class JobsView(View):
    """Jobs, newest first."""

    jobs: list[JobView]


# Evaluations


class EvaluationBody(Body):
    """A run of a set that comes with the service (`set`) or of your own (`name` and `jsonl`)."""

    set: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] | None = Field(
        None, description="A set that comes with the service.", examples=["samples"]
    )
    name: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(is_text)] = Field(
        "set", description="What your own set is called."
    )
    jsonl: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="Your own set: a case a line."
    )
    collection: CollectionName = "default"
    style: Style = Field(Style.SHORT, description="How questions are answered.")
    retrieval_only: bool = Field(False, description="Measure the search alone.")
    limit: int | None = Field(None, ge=1, le=100_000, description="Stop after so many cases.")


class EvaluationProgressView(View):
    """How far a run is."""

    done: int
    total: int
    crashed: int
    elapsed_s: float
    remaining_s: float | None


class EvaluationView(View):
    """A run of an evaluation set."""

    id: str
    name: str
    collection: str
    style: Style
    retrieval_only: bool
    state: Literal["waiting", "checking", "running", "done", "cancelled", "failed"]
    created_at: datetime
    progress: EvaluationProgressView
    scores: dict[str, float] = Field(description="Means so far.")
    summary: dict[str, object] | None = Field(description="summary.json, once there is one.")
    error: ProblemView | None


class EvaluationsView(View):
    """Runs, newest first."""

    evaluations: list[EvaluationView]


class DifferenceView(View):
    """`after` less `before` over `n` shared cases, with a 95% interval; `p` for there being no difference."""

    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


class FlipView(View):
    """A case that went from right to wrong or back."""

    id: str
    question: str
    before: float
    after: float
    answer_before: str
    answer_after: str


class ComparisonView(View):
    """Two runs of one set; `differences` are by metric, then by group."""

    before: str
    after: str
    shared: int
    only_before: int
    only_after: int
    differences: dict[str, dict[str, DifferenceView]]
    flips: list[FlipView]


class EvaluationSetView(View):
    """A set that comes with the service."""

    name: str
    cases: int


class EvaluationSetsView(View):
    """The sets that come with the service."""

    sets: list[EvaluationSetView]


# The service itself


class SessionView(View):
    """Who asks."""

    authentication: Literal["off", "key"]
    name: str
    role: Role
    collections: list[str] | None = Field(description="null: all.")


class TicketBody(Body):
    """A path to open without a key."""

    path: Annotated[str, StringConstraints(pattern=r"^/v1/[!-~]+$", max_length=4000)] = Field(
        description="Path and query.", examples=["/v1/evaluations/3f2a/report"]
    )


class TicketView(View):
    """A link that opens one path for a short while."""

    url: str
    expires_in_s: int


class AliveView(View):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyView(View):
    """Whether questions can be answered."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str] = Field(examples=[{"models": "ok", "collection": "ok"}])
