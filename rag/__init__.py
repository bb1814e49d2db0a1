"""Questions to cited answers: settings, prompt, reader, citations.

`Answerer` is the facade. The names below are loaded when they are first used, so that importing this package
costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.answerer import Answerer, AnswererConfig
    from rag.answers import Answer, AnswerSentence, Citation, Passage, Style
    from rag.generator import load_reader
    from rag.rendering import answer_to_dict, answer_to_json, render_markers
    from rag.settings import Settings, load_settings

_HOMES = {
    "rag.answerer": ("Answerer", "AnswererConfig"),
    "rag.answers": ("Answer", "AnswerSentence", "Citation", "Passage", "Style"),
    "rag.generator": ("load_reader",),
    "rag.rendering": ("answer_to_dict", "answer_to_json", "render_markers"),
    "rag.settings": ("Settings", "load_settings"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "AnswerSentence",
    "Answerer",
    "AnswererConfig",
    "Citation",
    "Passage",
    "Settings",
    "Style",
    "answer_to_dict",
    "answer_to_json",
    "load_reader",
    "load_settings",
    "render_markers",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
