"""Every error that Vraagbaak raises on purpose, and what it means to a caller.

::

    VraagbaakError
    ├── InputError                  the caller's own words are wrong
    │   ├── QuestionError           empty, too long, not text
    │   ├── FilterError             a filter that can match nothing by its form
    │   └── SettingsError           a setting that is unknown or out of range
    ├── DocumentError               one file or document can't go in; the others can
    │   ├── MissingPathError        the path doesn't exist or can't be opened
    │   ├── UnsafePathError         the path leads out of the folder that was named
    │   ├── UnsupportedFormatError  no reader for this kind of file
    │   ├── EmptyDocumentError      nothing to read in it (a scan, an empty file)
    │   ├── BrokenDocumentError     the file isn't what its name says
    │   └── DocumentTooLargeError   past a limit of size, time or memory
    ├── CollectionError
    │   ├── CollectionNotFoundError
    │   ├── CollectionExistsError
    │   ├── DocumentNotFoundError
    │   ├── ModelMismatchError      made with another embedding model
    │   ├── CollectionLockedError   another process is writing
    │   └── CollectionCorruptError  the database itself is damaged
    ├── StorageError                disk full, read-only, no permission
    ├── ModelError                  weights missing, damaged or not loadable
    ├── EvaluationError
    │   ├── EvalSetError            a line of an evaluation set is wrong
    │   └── GateError               a figure is below what was asked for
    └── ServiceError
        ├── UnauthorizedError       no key, or one that isn't known
        ├── ForbiddenError          the key may not do this
        ├── NotFoundError           no such job, evaluation or page
        ├── ConflictError           it is in another state than this needs
        ├── OverloadedError         the queue is full; try again later
        │   └── RateLimitedError    this key asks more often than it may
        ├── ForeignRequestError     another site's page, or a name that isn't the service's
        ├── DeadlineError           it took longer than the caller allows
        └── PayloadTooLargeError    the request body is past its limit

A message says what was wrong, with which value, and what to do about it. `kind_of` is the one table that
turns an error into an HTTP status (RFC 9457) and a process exit code.
"""

from dataclasses import dataclass


class VraagbaakError(Exception):
    """The root: everything raised on purpose derives from it."""


class InputError(VraagbaakError):
    """What the caller asked can't be done as asked."""


class QuestionError(InputError):
    """The question is empty, too long or not text."""


class FilterError(InputError):
    """A filter that is malformed."""


class SettingsError(InputError):
    """A setting that is unknown or out of range."""


class DocumentError(VraagbaakError):
    """One document can't be read. `source` is the file or record as the caller named it."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type["DocumentError"], tuple[str, str]]:
        """Keeps both arguments when the error crosses from the parsing process."""
        return type(self), (self.source, self.reason)


class MissingPathError(DocumentError):
    """The path doesn't exist or can't be opened."""


class UnsafePathError(DocumentError):
    """The path leads out of the folder that was named."""


class UnsupportedFormatError(DocumentError):
    """There is no reader for this kind of file."""


class EmptyDocumentError(DocumentError):
    """There is nothing to read in the file: it is empty, or a scan without text."""


class BrokenDocumentError(DocumentError):
    """The file isn't what its name says, or is damaged."""


class DocumentTooLargeError(DocumentError):
    """Reading it would take more size, time or memory than is allowed."""


class CollectionError(VraagbaakError):
    """Something is wrong with a collection, not with one document."""


class CollectionNotFoundError(CollectionError):
    """There is no collection of that name."""


class CollectionExistsError(CollectionError):
    """There is a collection of that name already."""


class DocumentNotFoundError(CollectionError):
    """There is no such document, passage or original file in the collection."""


class ModelMismatchError(CollectionError):
    """The collection was made with another embedding model or another way of chunking."""


class CollectionLockedError(CollectionError):
    """Another process is writing to the collection."""


class CollectionCorruptError(CollectionError):
    """The database is damaged beyond what can be rebuilt."""


class StorageError(VraagbaakError):
    """The disk is full, read-only or not permitted."""


class ModelError(VraagbaakError):
    """Model weights are missing, damaged or can't be loaded."""


class EvaluationError(VraagbaakError):
    """An evaluation can't be run or compared."""


class EvalSetError(EvaluationError):
    """A line of an evaluation set is wrong; the message names the line and the field."""


class GateError(EvaluationError):
    """A figure is worse than the caller allows."""


class ServiceError(VraagbaakError):
    """The HTTP service refuses the request."""


class UnauthorizedError(ServiceError):
    """There is no API key, or one that isn't known."""


class ForbiddenError(ServiceError):
    """The API key doesn't allow this."""


class NotFoundError(ServiceError):
    """There is no such job, evaluation or page."""


class ConflictError(ServiceError):
    """The thing is in another state than the request needs."""


class OverloadedError(ServiceError):
    """The queue is full. `retry_after_s` is when it makes sense to try again."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(OverloadedError):
    """One caller asks more often than it may; others aren't affected."""


class ForeignRequestError(ServiceError):
    """The request comes from another site's page, or is for a host name that isn't the service's."""


class DeadlineError(ServiceError):
    """The request took longer than it may."""


class PayloadTooLargeError(ServiceError):
    """The request body is larger than the service accepts."""


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How an error looks from outside: `slug` ends the problem type's URI."""

    slug: str
    title: str
    status: int
    exit_code: int


ERROR_KINDS: dict[type[VraagbaakError], ErrorKind] = {
    VraagbaakError: ErrorKind("error", "Something went wrong", 500, 1),
    InputError: ErrorKind("bad-input", "The request can't be done as asked", 422, 2),
    QuestionError: ErrorKind("bad-question", "The question can't be used", 422, 2),
    FilterError: ErrorKind("bad-filter", "The filter can't be used", 422, 2),
    SettingsError: ErrorKind("bad-setting", "A setting is wrong", 422, 2),
    DocumentError: ErrorKind("bad-document", "The document can't be read", 422, 3),
    MissingPathError: ErrorKind("missing-path", "There is no such file", 404, 3),
    UnsafePathError: ErrorKind("unsafe-path", "The path leads out of its folder", 422, 3),
    UnsupportedFormatError: ErrorKind("unsupported-format", "This kind of file can't be read", 415, 3),
    EmptyDocumentError: ErrorKind("empty-document", "There is no text in the document", 422, 3),
    BrokenDocumentError: ErrorKind("broken-document", "The file is damaged", 422, 3),
    DocumentTooLargeError: ErrorKind("document-too-large", "The document is too large", 413, 3),
    CollectionError: ErrorKind("collection", "The collection can't do this", 409, 4),
    CollectionNotFoundError: ErrorKind("no-such-collection", "Not found", 404, 4),
    CollectionExistsError: ErrorKind("collection-exists", "There is one of that name", 409, 4),
    DocumentNotFoundError: ErrorKind("no-such-document", "Not found", 404, 4),
    ModelMismatchError: ErrorKind("model-mismatch", "Made with another model", 409, 4),
    CollectionLockedError: ErrorKind("collection-locked", "Another process is writing", 409, 5),
    CollectionCorruptError: ErrorKind("collection-corrupt", "The collection is damaged", 500, 4),
    StorageError: ErrorKind("storage", "The disk can't be written", 507, 6),
    ModelError: ErrorKind("model", "A model isn't available", 503, 7),
    EvaluationError: ErrorKind("evaluation", "The evaluation can't be done", 422, 8),
    EvalSetError: ErrorKind("bad-evaluation-set", "The evaluation set is wrong", 422, 8),
    GateError: ErrorKind("below-gate", "A figure is below what was asked for", 422, 1),
    ServiceError: ErrorKind("service", "The service refuses the request", 400, 1),
    UnauthorizedError: ErrorKind("unauthorized", "An API key is needed", 401, 9),
    ForbiddenError: ErrorKind("forbidden", "The API key doesn't allow this", 403, 9),
    NotFoundError: ErrorKind("not-found", "Not found", 404, 1),
    ConflictError: ErrorKind("conflict", "Not in this state", 409, 1),
    OverloadedError: ErrorKind("overloaded", "Too many requests at once", 503, 1),
    RateLimitedError: ErrorKind("rate-limited", "Too many requests with this key", 429, 1),
    ForeignRequestError: ErrorKind("foreign-request", "Requests from elsewhere are refused", 403, 9),
    DeadlineError: ErrorKind("deadline", "It took too long", 504, 1),
    PayloadTooLargeError: ErrorKind("payload-too-large", "The request is too large", 413, 1),
}
"""The one table. A class without a line of its own has its nearest ancestor's."""


def kind_of(error: VraagbaakError | type[VraagbaakError]) -> ErrorKind:
    """The line of `ERROR_KINDS` for an error or its class."""
    cls = error if isinstance(error, type) else type(error)
    return next(ERROR_KINDS[base] for base in cls.__mro__ if base in ERROR_KINDS)
