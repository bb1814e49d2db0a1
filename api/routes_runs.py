"""`/v1/jobs` and `/v1/evaluations`: what runs in the background."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import FileResponse

from api.documentation import errors
from api.evaluations import Evaluation, no_such_evaluation
from api.jobs import Job, no_such_job
from api.schemas import (
    ComparisonView,
    EvaluationBody,
    EvaluationSetsView,
    EvaluationSetView,
    EvaluationsView,
    EvaluationView,
    JobsView,
    JobView,
)
from api.service import key_of, service_of

jobs = APIRouter(prefix="/v1/jobs", tags=["jobs"])
evaluations = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])

Id = Annotated[
    str, Path(max_length=100, description="Its id.", examples=["3f2a9c0d4e5b4c6f8a7b6c5d4e3f2a1b"])
]
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'self'"
)


def _job(request: Request, job_id: str) -> Job:
    job = service_of(request).running.writer.job(job_id)
    if not key_of(request).sees(job.collection):
        raise no_such_job(job_id)
    return job


@jobs.get("", responses=errors(), summary="Recent jobs, newest first")
def list_jobs(
    request: Request,
    collection: Annotated[str, Query(max_length=100, description="Only of this collection.")] = "",
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
) -> JobsView:
    """Of the collections that the key may see."""
    key = key_of(request)
    found = [
        job
        for job in service_of(request).running.writer.jobs()
        if key.sees(job.collection) and collection in ("", job.collection)
    ]
    return JobsView(jobs=[job.view() for job in found[:limit]])


@jobs.get("/{job_id}", responses=errors(404), summary="One job")
def get_job(job_id: Id, request: Request) -> JobView:
    """Its progress, and each file's fate."""
    return _job(request, job_id).view()


@jobs.delete("/{job_id}", status_code=202, responses=errors(404, 409), summary="Cancel a job")
def cancel_job(job_id: Id, request: Request) -> JobView:
    """What is in by then stays."""
    job = _job(request, job_id)
    service_of(request).running.writer.cancel(job)
    return job.view()


def _evaluation(request: Request, identifier: str) -> Evaluation:
    evaluation = service_of(request).running.evaluations.get(identifier)
    if not key_of(request).sees(evaluation.collection):
        raise no_such_evaluation(identifier)
    return evaluation


@evaluations.get("/sets", responses=errors(), summary="The sets that come with the service")
def list_sets(request: Request) -> EvaluationSetsView:
    """With how many cases are in each."""
    sets = service_of(request).running.evaluations.sets()
    return EvaluationSetsView(
        sets=[EvaluationSetView(name=name, cases=count) for name, count in sets.items()]
    )


@evaluations.post(
    "", status_code=202, responses=errors(400, 404, 409, 413, 504, 507), summary="Start an evaluation"
)
def start_evaluation(body: EvaluationBody, request: Request) -> EvaluationView:
    """It waits for the one before it, and gives way to people who ask."""
    service = service_of(request)
    service.check_sees(body.collection, key_of(request))
    return service.running.evaluations.start(body).view()


@evaluations.get("", responses=errors(), summary="Recent evaluations, newest first")
def list_evaluations(request: Request) -> EvaluationsView:
    """Of the collections that the key may see."""
    key = key_of(request)
    found = service_of(request).running.evaluations.all()
    return EvaluationsView(evaluations=[each.view() for each in found if key.sees(each.collection)])


@evaluations.get("/{evaluation_id}", responses=errors(404), summary="One evaluation")
def get_evaluation(evaluation_id: Id, request: Request) -> EvaluationView:
    """Its progress, and its summary once there is one."""
    return _evaluation(request, evaluation_id).view()


@evaluations.delete("/{evaluation_id}", status_code=202, responses=errors(404, 409), summary="Cancel one")
def cancel_evaluation(evaluation_id: Id, request: Request) -> EvaluationView:
    """After the batch that is under way; what was done is summed up."""
    evaluation = _evaluation(request, evaluation_id)
    service_of(request).running.evaluations.cancel(evaluation)
    return evaluation.view()


@evaluations.get(
    "/{evaluation_id}/report",
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **errors(404, 409)},
    response_class=Response,
    summary="The report, a page of its own",
)
def get_report(evaluation_id: Id, request: Request) -> Response:
    """Self-contained; sandboxed, since it quotes documents."""
    service = service_of(request)
    file = service.running.evaluations.report(_evaluation(request, evaluation_id))
    headers = {"Content-Security-Policy": _REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return FileResponse(file, media_type="text/html", headers=headers)


@evaluations.get(
    "/{evaluation_id}/cases",
    responses={200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}, **errors(404, 409)},
    response_class=Response,
    summary="Everything of each case",
)
def get_cases(evaluation_id: Id, request: Request) -> Response:
    """A line a case."""
    service = service_of(request)
    file = service.running.evaluations.cases(_evaluation(request, evaluation_id))
    return FileResponse(file, media_type="application/jsonl", filename="cases.jsonl")


@evaluations.get(
    "/{evaluation_id}/compare/{other_id}", responses=errors(404, 409), summary="Two runs of one set"
)
def compare(evaluation_id: Id, other_id: Id, request: Request) -> ComparisonView:
    """A paired bootstrap over the cases that both have."""
    before, after = _evaluation(request, evaluation_id), _evaluation(request, other_id)
    found = ComparisonView.model_validate(service_of(request).running.evaluations.compare(before, after))
    return found.model_copy(update={"before": before.id, "after": after.id})
