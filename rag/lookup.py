"""Guesses of the next tokens by what follows the same words in the prompt.

An answer mostly copies from a passage, so what stands after the last tokens written is often what comes next.
Reading a few guessed tokens at once costs a model on a CPU no more than reading one, since the time goes into
fetching its weights; the loop keeps those that it would have written anyway.
"""

from collections.abc import Sequence

LONGEST = 3


class PromptLookup:
    """Where each run of one to three tokens stands in a prompt."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._ids = token_ids
        self._after: dict[tuple[int, ...], int] = {}
        for length in range(1, LONGEST + 1):
            for end in range(length, len(token_ids)):
                self._after.setdefault(tuple(token_ids[end - length : end]), end)

    def guess(self, written: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens that follow the longest end of `written` which stands in the prompt."""
        for length in range(min(LONGEST, len(written)), 0, -1):
            place = self._after.get(tuple(written[-length:]))
            if place is not None:
                return list(self._ids[place : place + count])
        return []
