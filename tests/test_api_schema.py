"""schemathesis over the whole OpenAPI document: no server error, no undocumented status, no wrong body."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from api.app import create_app
from api.client import Vraagbaak
from api.config import ServiceConfig
from api.service import Engine
from corpus.errors import ModelError
from tests.api_fakes import Live, QuotingReader

schemathesis = pytest.importorskip("schemathesis", reason="the dev extra has schemathesis")

_CASES = 8
_BUSY = (503, 504)
"""Server errors that say "not now"; they are described, and no fault."""


def _document() -> dict[str, Any]:
    def load() -> Engine:
        raise ModelError("none is needed to describe the service")

    return create_app(ServiceConfig(), Path("nowhere"), load).openapi()


DOCUMENT = _document()
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    config = ServiceConfig(queue_length=100, deadline_s=20)
    sets = Path(__file__).parent.parent / "eval" / "sets"
    home = tmp_path_factory.mktemp("home")
    with Live(home, QuotingReader(), config, evaluation_sets=sets).running() as made:
        with Vraagbaak(made.url) as vraagbaak:
            text = "De provincies betalen samen de helft."
            vraagbaak.wait(vraagbaak.put_documents([{"id": "memo.docx", "text": text}]))
        yield made


def test_the_document_is_whole() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            assert operation.get("description"), where
            if path.startswith("/v1"):
                assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"], where
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(_references(DOCUMENT)) <= known
    assert len(OPERATIONS) >= 30


def test_every_field_of_an_answer_is_there_by_its_name() -> None:
    from dataclasses import fields

    from rag.answers import Answer, AnswerSentence, Citation, Passage

    schemas = DOCUMENT["components"]["schemas"]
    for view, made_of in (
        ("AnswerView", Answer),
        ("CitationView", Citation),
        ("SentenceView", AnswerSentence),
        ("PassageView", Passage),
    ):
        assert set(schemas[view]["properties"]) == {field.name for field in fields(made_of)}


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from _references(each)
    elif isinstance(part, list):
        for each in part:
            yield from _references(each)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_route_keeps_to_its_description(live: Live, method: str, path: str) -> None:
    schemathesis.checks.load_all_checks()
    named = schemathesis.checks.CHECKS.get_by_names(
        ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]

    @settings(
        max_examples=_CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        response = case.call(base_url=live.url)
        assert response.status_code < 500 or response.status_code in _BUSY, response.text
        case.validate_response(response, checks=named)

    run()
