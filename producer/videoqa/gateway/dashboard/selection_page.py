"""Actions on jobs that a reader has picked one by one: asked back first, and then told job by job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import FormData

from videoqa import errors
from videoqa.contract import Job, describe_state
from videoqa.gateway.access.audit import make_fields
from videoqa.gateway.access.caller import Caller, Submitter
from videoqa.gateway.dashboard.frame import PageRouter, leave_page, read_form, show_page
from videoqa.gateway.http.middleware import find_request_id
from videoqa.gateway.http.problems import HttpError

__all__ = ["ACTIONS", "router"]

router = PageRouter()

MOST_PICKED = 500
AT_ONCE = 8
SHOWN = 20


@dataclass(frozen=True)
class Action:
    """A change of many jobs, in words."""

    words: str
    done: str
    effect: str


ACTIONS = {
    "cancel": Action(
        "Cancel", "canceled",
        "Queued jobs end at once, running ones as soon as they can. Jobs that have ended stay."
    ),
    "retry": Action(
        "Retry", "queued again", "Failed, canceled and expired jobs are queued again; others stay."
    ),
    "purge": Action(
        "Delete", "deleted",
        "Records of jobs that have ended go, with their events and the results in them. Objects in storage stay.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """A job that stayed as it was."""

    job_id: str
    reason: str


def _read_ids(form: FormData) -> list[str]:
    """Returns the ids of a form: of its boxes, and those in its field `ids`."""
    given = " ".join(str(one) for one in [*form.getlist("id"), form.get("ids", "")])
    return list(dict.fromkeys(given.split()))


def _read_action(form: FormData) -> str:
    action = str(form.get("action", ""))
    if action not in ACTIONS:
        raise errors.InvalidRequest(
            f"got action {action!r:.50}, expected one of {', '.join(ACTIONS)}", param="action"
        )
    return action


def _check_count(ids: list[str]) -> None:
    if len(ids) > MOST_PICKED:
        raise HttpError(
            400,
            "invalid_request",
            f"got {len(ids):,} jobs, expected at most {MOST_PICKED}; filter the list, and change all that match",
            param="ids",
        )


@router.post("/jobs/selected")
async def ask_back(request: Request, caller: Submitter) -> Response:
    """Shows what an action would change."""
    form = await read_form(request)
    ids, action = _read_ids(form), _read_action(form)
    _check_count(ids)
    if not ids:
        return leave_page(
            request, "/jobs", notice="No job was picked: tick some rows first.", tone="warn"
        )
    found = await caller.client.get_many(ids[:SHOWN])
    return show_page(
        request,
        "selected.html",
        action=ACTIONS[action],
        name=action,
        ids=ids,
        hides_text=caller.resources.settings.hide_text,
        examples=[job for job in found if job is not None],
    )


@router.post("/jobs/selected/run")
async def run(request: Request, caller: Submitter) -> Response:
    """Changes the jobs, and tells which stayed as they were."""
    form = await read_form(request)
    ids, action = _read_ids(form), _read_action(form)
    _check_count(ids)
    await _note(caller, request, action, ids)
    turn = asyncio.Semaphore(AT_ONCE)

    async def change(job_id: str) -> Refusal | None:
        async with turn:
            return await _change(caller, action, job_id)

    found = await asyncio.gather(*(change(job_id) for job_id in ids))
    refusals = [one for one in found if one is not None]
    words = f"{len(ids) - len(refusals):,} of {len(ids):,} jobs were {ACTIONS[action].done}."
    if not refusals:
        return leave_page(request, "/jobs", notice=words)
    return show_page(
        request, "selected_done.html", action=ACTIONS[action], words=words, refusals=refusals
    )


async def _change(caller: Caller, action: str, job_id: str) -> Refusal | None:
    calls: dict[str, Callable[[str], Awaitable[Any]]] = {
        "cancel": caller.client.cancel,
        "retry": caller.retry,
        "purge": caller.client.purge,
    }
    try:
        found = await calls[action](job_id)
    except (
        errors.NotRetryable,
        errors.LookupFailed,
        errors.QueueFull,
        errors.RateLimited,
    ) as error:
        return Refusal(job_id, error.message)
    if (
        action == "cancel"
        and isinstance(found, Job)
        and found.state not in ("canceled", "canceling")
    ):
        return Refusal(job_id, f"it {describe_state(found.state)}")
    return None


async def _note(caller: Caller, request: Request, action: str, ids: list[str]) -> None:
    """Writes the line of the audit log before the change; the route's own path names no job."""
    if caller.key.may("operate"):
        fields = make_fields(
            caller.key.id,
            f"{action} of picked jobs",
            on=" ".join(ids[:20]),
            request_id=find_request_id(request.scope),
            detail=f"{len(ids)} jobs",
        )
        await caller.resources.run(caller.resources.audit.write, fields)
