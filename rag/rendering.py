"""An answer as text with markers for a terminal, and as JSON for a script."""

import json
from collections import defaultdict
from dataclasses import asdict

from rag.answers import Answer

JsonObject = dict[str, object]


def render_markers(answer: Answer) -> str:
    """The answer's text with " [1]" after each part that is cited; several at one place as " [1][3]"."""
    numbers_at: dict[int, list[int]] = defaultdict(list)
    for citation in answer.citations:
        if citation.number not in numbers_at[citation.answer_end]:
            numbers_at[citation.answer_end].append(citation.number)
    text = answer.text
    for end in sorted(numbers_at, reverse=True):
        markers = "".join(f"[{number}]" for number in numbers_at[end])
        text = f"{text[:end]} {markers}{text[end:]}"
    return text


def answer_to_dict(answer: Answer) -> JsonObject:
    """The answer with the field names of its type, down to plain lists, numbers and strings."""
    plain: JsonObject = json.loads(answer_to_json(answer))
    return plain


def answer_to_json(answer: Answer, indent: int | None = None) -> str:
    """`answer_to_dict` as JSON text."""
    return json.dumps(asdict(answer), ensure_ascii=False, indent=indent)
