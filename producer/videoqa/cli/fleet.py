"""Commands about many jobs: list, watch, retry, dead letters and queues."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated, cast

import typer

from videoqa import errors
from videoqa.cli import output as show
from videoqa.cli import tables
from videoqa.cli.options import JobId, JsonFlag, Timeout, connected
from videoqa.client import Client
from videoqa.contract import PRIORITIES, JobState, Priority

__all__ = ["add_commands"]

Limit = Annotated[int, typer.Option("--limit", "-n", help="At most so many jobs.")]
Model = Annotated[
    str | None, typer.Argument(help="A model's name; left out: jobs that name no model.")
]
OfPriority = Annotated[str | None, typer.Option(help="interactive or bulk; unset: both.")]

dead = typer.Typer(
    help="Jobs that failed for good: list, show, replay, purge.", no_args_is_help=True
)
queue = typer.Typer(help="Queues: stats, pause, resume.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    app.command(name="list")(list_jobs)
    app.command()(watch)
    app.command()(retry)
    app.add_typer(dead, name="dead")
    app.add_typer(queue, name="queue")


def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    limit: Limit = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Behind this job; the last line says it.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    with connected() as client:
        page = client.list(
            state=cast("JobState | None", state), tag=tag, limit=limit, cursor=cursor
        )
    tables.jobs(page.jobs, as_json=as_json)
    if page.next_cursor and not as_json:
        show.note(f"more with --cursor {page.next_cursor}")


def watch(job_id: JobId, timeout: Timeout = None, as_json: JsonFlag = False) -> None:
    """Print what happens to a job, from its beginning until it is final."""
    with connected() as client:
        for event in client.events(job_id, timeout_s=timeout):
            show.event(event, as_json=as_json)
        if client.get(job_id).state != "succeeded":
            raise typer.Exit(1)


def retry(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Reopen a failed, canceled or expired job under its id."""
    with connected() as client:
        show.job(client.retry(job_id), as_json=as_json)


# -- dead letters

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of failed jobs.")]
All = Annotated[bool, typer.Option("--all", help="All failed jobs.")]
Code = Annotated[str | None, typer.Option(help="Only those that failed with this code.")]


@dead.command(name="list")
def list_dead(code: Code = None, as_json: JsonFlag = False) -> None:
    """List failed jobs with the reason."""
    with connected() as client:
        tables.jobs(client.dead(code=code), as_json=as_json)


@dead.command(name="show")
def show_dead(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Say why a job failed."""
    with connected() as client:
        show.job(client.get(job_id), as_json=as_json)


@dead.command()
def replay(
    job_ids: Ids = None, all_of_them: All = False, code: Code = None, as_json: JsonFlag = False
) -> None:
    """Try failed jobs again: those named, or --all."""
    with connected() as client:
        for job_id in _chosen(client, job_ids, all_of_them, code):
            with _passing_over(all_of_them):
                show.changed(client.retry(job_id), "queued again", as_json=as_json)


@dead.command()
def purge(
    job_ids: Ids = None, all_of_them: All = False, code: Code = None, as_json: JsonFlag = False
) -> None:
    """Forget failed jobs: those named, or --all. Their result objects stay."""
    with connected() as client:
        for job_id in _chosen(client, job_ids, all_of_them, code):
            with _passing_over(all_of_them):
                job = client.get(job_id)
                client.purge(job_id)
                show.changed(job, "forgotten", as_json=as_json)


def _passing_over(all_of_them: bool) -> AbstractContextManager[None]:
    """Of all, some are not failed any more: retried by somebody else, or their records have ended."""
    return suppress(errors.NotRetryable, errors.LookupFailed) if all_of_them else nullcontext()


def _chosen(
    client: Client, job_ids: list[str] | None, all_of_them: bool, code: str | None
) -> list[str]:
    if bool(job_ids) == all_of_them or (job_ids and code is not None):
        raise errors.InvalidRequest(
            "got neither or both, expected ids of jobs, or --all [--code CODE]"
        )
    return job_ids or [job.id for job in client.dead(code=code)]


# -- queues


@queue.command()
def stats(as_json: JsonFlag = False) -> None:
    """Say how many jobs wait, by model and priority."""
    with connected() as client:
        tables.queues(client.queues(), as_json=as_json)


@queue.command()
def pause(model: Model = None, priority: OfPriority = None) -> None:
    """Let no job for a model begin; those that run go on."""
    with connected() as client:
        client.pause(model, priority=_priority(priority))


@queue.command()
def resume(model: Model = None, priority: OfPriority = None) -> None:
    """Let jobs for a model begin again."""
    with connected() as client:
        client.resume(model, priority=_priority(priority))


def _priority(text: str | None) -> Priority | None:
    if text is None or text in PRIORITIES:
        return text
    raise errors.InvalidRequest(
        f"got priority {text!r}, expected interactive or bulk", param="priority"
    )
