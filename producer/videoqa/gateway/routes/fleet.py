"""The fleet: models, queues, workers, and the gateway's own health."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa.contract import Stats, StatsSpan
from videoqa.errors import InvalidRequest
from videoqa.gateway.access.caller import FleetReader, NotingOperator, Operator, Reader
from videoqa.gateway.http.bodies import parse_model, read_object
from videoqa.gateway.http.queries import check_query
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.resources import Resources
from videoqa.gateway.routes.answers import ModelList, QueueChoice, QueueList, Status, WorkerList

__all__ = ["describe_choice", "health", "read_choice", "router"]

router = APIRouter(prefix="/v1", tags=["Fleet"], dependencies=[Depends(check_query)])
health = APIRouter(tags=["Health"])


@router.get("/queues")
@document(
    "list_queues",
    answers={200: Answer("The queues.", Content(QueueList, {"queues": [examples.QUEUE]}))},
)
async def list_queues(caller: Reader) -> Response:
    """Lists the queues: what waits, what runs, and who serves them; to a tenant, its own jobs only."""
    return JSONResponse(
        {"queues": [queue.model_dump(mode="json") for queue in await caller.client.queues()]}
    )


@router.post("/queues:pause")
@document(
    "pause_queues",
    body=Content(QueueChoice, {"model": None, "priority": "bulk"}),
    answers={
        200: Answer(
            "The queues that were chosen.",
            Content(QueueChoice, {"model": None, "priority": "bulk"}),
        )
    },
)
async def pause_queues(request: Request, caller: NotingOperator) -> Response:
    """Pauses the queues of a model: no job begins until they are resumed; running jobs go on, and new ones wait."""
    chosen = read_choice(await read_object(request))
    await caller.note(on=describe_choice(chosen), detail=caller.key.name)
    await caller.client.pause(chosen.model, priority=chosen.priority)
    return JSONResponse(chosen.model_dump(mode="json"))


@router.post("/queues:resume")
@document(
    "resume_queues",
    body=Content(QueueChoice, {"model": None, "priority": "bulk"}),
    answers={
        200: Answer(
            "The queues that were chosen.",
            Content(QueueChoice, {"model": None, "priority": "bulk"}),
        )
    },
)
async def resume_queues(request: Request, caller: NotingOperator) -> Response:
    """Resumes the queues of a model."""
    chosen = read_choice(await read_object(request))
    await caller.note(on=describe_choice(chosen), detail=caller.key.name)
    await caller.client.resume(chosen.model, priority=chosen.priority)
    return JSONResponse(chosen.model_dump(mode="json"))


def describe_choice(chosen: QueueChoice) -> str:
    """Returns the name of queues for the audit log."""
    model = "jobs that name no model" if chosen.model is None else chosen.model
    return f"{model}, {chosen.priority or 'both priorities'}"


def read_choice(body: dict[str, Any]) -> QueueChoice:
    """Returns the queues that a body names; raises InvalidRequest."""
    if "model" not in body:  # a body that lacks it by mistake must not stop the jobs of every model
        raise InvalidRequest(
            "model: got none, expected a model's name, or null for jobs that name no model",
            param="model",
        )
    return parse_model(QueueChoice, body)


@router.get("/workers")
@document(
    "list_workers",
    answers={200: Answer("The workers.", Content(WorkerList, {"workers": [examples.WORKER]}))},
)
async def list_workers(caller: Operator) -> Response:
    """Lists the workers that were heard within the last minute."""
    return JSONResponse(
        {"workers": [worker.model_dump(mode="json") for worker in await caller.client.workers()]}
    )


@router.get("/stats")
@document("read_stats", answers={200: Answer("The figures.", Content(Stats, examples.STATS))})
async def read_stats(
    caller: FleetReader,
    span: Annotated[
        StatsSpan,
        Query(description="`hour` by minutes, or `day` by quarters of an hour.", examples=["hour"]),
    ] = "hour",
    model: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=256,
            description="Only this one in `models`.",
            examples=["llava-hf/llava-1.5-7b-hf"],
        ),
    ] = None,
) -> Response:
    """Reads the figures of the fleet by model, their course, and what needs attention.

    They are those of all tenants, so a tenant's key is refused; `GET /v1/usage` and `GET /v1/queues` have its own.
    """
    found = await caller.client.stats(span, model=model)
    return JSONResponse(found.model_dump(mode="json"))


@router.get("/models")
@document("list_models", answers={200: Answer("The models.", Content(ModelList, examples.MODELS))})
async def list_models(caller: Reader) -> Response:
    """Lists the models that ready workers serve, in the form of OpenAI's API."""
    found: dict[str, int] = {}
    for worker in await caller.client.workers():
        if worker.ready:
            found[worker.model] = min(
                found.get(worker.model, 1 << 62), int(worker.started_at.timestamp())
            )
    data: list[dict[str, Any]] = [
        {"id": name, "object": "model", "created": created, "owned_by": "videoqa"}
        for name, created in sorted(found.items())
    ]
    return JSONResponse({"object": "list", "data": data})


@health.get("/livez")
@document(
    "check_liveness",
    answers={200: Answer("It answers.", Content(Status, {"status": "ok"}))},
    is_static=True,
)
async def is_alive() -> Response:
    """Tells that the process answers."""
    return JSONResponse({"status": "ok"})


@health.get("/readyz")
@document(
    "check_readiness", answers={200: Answer("Redis answers.", Content(Status, {"status": "ok"}))}
)
async def is_ready(request: Request) -> Response:
    """Tells that Redis answers; 503 if not."""
    resources = cast(Resources, request.app.state.resources)
    await resources.client.ping()
    return JSONResponse({"status": "ok"})
