"""The seam between the reading loop and whatever computes a model.

::

    CausalReader ──begin(prompts)──▶ LanguageModel ──▶ Session
                 ◀── NextToken for each row ──────────┘   │
                 ──extend(tokens)────────────────────────▶│  … until every row is finished
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rag.prompts import Prompt

if TYPE_CHECKING:
    import torch


class Logits(Protocol):
    """What a model says about the token after each of M places."""

    def every(self) -> "tuple[torch.Tensor | None, torch.Tensor]":
        """Ascending or any order of token ids (N,), None where that is 0 … N-1, and logits (M, N), float32."""
        ...

    def among(self, place: int, token_ids: Sequence[int]) -> "torch.Tensor":
        """Logits (len(token_ids),) of these tokens at one place, without computing the others."""
        ...


class NextToken:
    """One place of some `Logits`: which token is likeliest there."""

    def __init__(self, logits: Logits, place: int) -> None:
        self._logits, self._place = logits, place

    def best(self, allowed: Sequence[int] | None, barred: int | None = None) -> tuple[int, float]:
        """The likeliest token and its log-probability among those allowed (None: among all)."""
        if allowed is not None:
            candidates = [token for token in allowed if token != barred] or list(allowed)
            if len(candidates) == 1:
                return candidates[0], 0.0
            scores = self._logits.among(self._place, candidates)
            place = int(scores.argmax())
            return candidates[place], float(scores.log_softmax(dim=0)[place])
        ids, every = self._logits.every()
        scores = every[self._place]
        if barred is not None:
            scores = scores.clone()
            scores[barred if ids is None else ids == barred] = float("-inf")
        place = int(scores.argmax())
        log_probability = float(scores[place] - scores.logsumexp(dim=0))
        return place if ids is None else int(ids[place]), log_probability

    def log_probability(self, token_id: int, allowed: Sequence[int] | None) -> float:
        """That of one token among those allowed (it is one of them), or among all."""
        if allowed is None:
            ids, every = self._logits.every()
            scores = every[self._place]
            place = token_id if ids is None else int((ids == token_id).nonzero()[0])
        else:
            scores = self._logits.among(self._place, allowed)
            place = list(allowed).index(token_id)
        return min(0.0, float(scores[place] - scores.logsumexp(dim=0)))


class Session(Protocol):
    """Some prompts while answers to them are written, one row each."""

    def first(self) -> list[NextToken]:
        """What comes after each prompt."""
        ...

    def extend(self, tokens: Sequence[Sequence[int]]) -> list[list[NextToken]]:
        """Adds tokens to each row, as many to each; what comes after each of them, by row and token."""
        ...

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Goes on with these rows only, in this order."""
        ...


@runtime_checkable
class ReversibleSession(Session, Protocol):
    """A session that can forget, so that several tokens may be tried at once."""

    def cut_back(self, count: int) -> None:
        """Forgets the last tokens of every row."""
        ...


class LanguageModel(Protocol):
    """A model that continues token ids. Safe to use from several threads; its sessions aren't."""

    @property
    def name(self) -> str:
        """Names the weights."""
        ...

    def begin(self, prompts: Sequence[Prompt], new_tokens: int) -> Session:
        """Reads the prompts; the session has room for `new_tokens` more in each."""
        ...
