"""Guesses from the prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.lookup import PromptLookup


@pytest.mark.parametrize(
    ("written", "guess"),
    [
        ([9, 3], [4, 5]),
        ([1, 2], [3, 4]),
        ([2, 9], []),
        ([], []),
        # "2 7" stands later than the first 7: the longer run decides.
        ([2, 7], [8]),
        ([8], []),
    ],
)
def test_the_longest_run_decides(written: list[int], guess: list[int]) -> None:
    assert PromptLookup([7, 1, 2, 3, 4, 5, 2, 7, 8]).guess(written, 2) == guess


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=8), st.integers(1, 5))
def test_a_guess_follows_in_the_prompt_what_was_written(
    prompt: list[int], written: list[int], count: int
) -> None:
    guess = PromptLookup(prompt).guess(written, count)
    assert len(guess) <= count
    if guess:
        runs = [written[-length:] + guess for length in (1, 2, 3) if len(written) >= length]
        assert any(prompt[start : start + len(run)] == run for run in runs for start in range(len(prompt)))
