"""Commands about many jobs: list, watch, retry, dead letters and queues."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import date
from difflib import get_close_matches
from typing import Annotated, cast, get_args

import typer

from videoqa import errors
from videoqa.cli.arguments import parse_instant
from videoqa.cli.help import App
from videoqa.cli.options import JobId, JsonFlag, Timeout, WideFlag, open_client
from videoqa.cli.output import print_change, print_event, print_job, print_note
from videoqa.cli.tables import print_dead, print_jobs, print_queues, print_usage, print_workers
from videoqa.client import Client
from videoqa.contract import PRIORITIES, JobState, Priority, UsageBy, describe_state

__all__ = ["add_fleet_commands"]

Limit = Annotated[
    int,
    typer.Option(
        "--limit", "-n", metavar="N", show_default=False, help="Limit on the number of jobs [20]."
    ),
]
Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="Name of the model; left out: jobs that name no model."),
]
OfPriority = Annotated[
    str | None, typer.Option(metavar="interactive|bulk", help="Only this priority; unset: both.")
]

dead = App(help="List, show, replay or purge failed jobs.", no_args_is_help=True)
queue = App(help="Count, pause or resume the jobs that wait.", no_args_is_help=True)


def add_fleet_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the app."""
    app.command(name="list")(list_jobs)
    app.command()(watch)
    app.command()(retry)
    app.command()(workers)
    app.command()(usage)
    app.add_typer(dead, name="dead")
    app.add_typer(queue, name="queue")


def list_jobs(
    state: Annotated[
        str | None,
        typer.Option(metavar="|".join(get_args(JobState)), help="Only jobs in this state."),
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only jobs with this tag.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Only jobs that name this model.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Only jobs with this text in a question or an input's URL."
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only jobs of this tenant.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only jobs submitted at this time or later: 30s, 10m, 2h or 1d ago, or 2026-12-31T18:00.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only jobs submitted before this time, as in --since."),
    ] = None,
    limit: Limit = 20,
    cursor: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR",
            help="Continue where the previous page ended; its last line prints the value.",
        ),
    ] = None,
    wide: WideFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    with open_client() as client:
        page = (client.for_tenant(tenant) if tenant is not None else client).list(
            state=cast("JobState | None", state),
            tag=tag,
            model=model,
            text=text,
            since=parse_instant("--since", since, from_now=-1),
            until=parse_instant("--until", until, from_now=-1),
            limit=limit,
            cursor=cursor,
            include_request=True,
        )
    if not print_jobs(page.jobs, as_json=as_json, wide=wide) and not page.unreadable:
        _print_nothing(
            "no job matches; `videoqa list` shows all"
            if state or tag or model or text or tenant or since or until or cursor
            else 'no jobs yet; submit one: videoqa ask clip.mp4 "What is moving?"',
            as_json=as_json,
        )
    if page.unreadable:
        print_note(_describe_unreadable(page.unreadable))
    if page.next_cursor and not as_json:
        print_note(f"more with --cursor {page.next_cursor}")


def _describe_unreadable(job_ids: Sequence[str]) -> str:
    more = f" and {len(job_ids) - 1} more, whose records" if len(job_ids) > 1 else ", whose record"
    return f"left out {job_ids[0]}{more} cannot be read; `videoqa status {job_ids[0]}` tells why"


def _print_nothing(text: str, *, as_json: bool) -> None:
    """Prints on stderr why there is nothing to show; a script finds that no line came."""
    if not as_json:
        print_note(text)


def workers(wide: WideFlag = False, as_json: JsonFlag = False) -> None:
    """List the workers that were heard within the last minute."""
    with open_client() as client:
        if not print_workers(client.workers(), as_json=as_json, wide=wide):
            _print_nothing(
                "no worker runs; start one with `videoqa worker`, or all on this machine with "
                "`videoqa up`",
                as_json=as_json,
            )


def usage(
    by: Annotated[
        str,
        typer.Option(metavar="|".join(get_args(UsageBy)), help="A row for each of these [day]."),
    ] = "day",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DAY", help="First day, of UTC: 2026-12-31; unset: 29 days before the last."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="Last day, of UTC; unset: today.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only jobs of this tenant.")
    ] = None,
    wide: WideFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Count the jobs that ended, and what they used."""
    with open_client() as client:
        rows = client.usage(
            by=cast("UsageBy", by),
            first_day=_parse_day("--since", since),
            last_day=_parse_day("--until", until),
            tenant=tenant,
        )
    if not print_usage(rows, as_json=as_json, wide=wide):
        _print_nothing("no job ended on these days", as_json=as_json)


def _parse_day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise errors.InvalidRequest(
            f"{option}: got {text!r:.50}, expected a day of UTC, as 2026-12-31", param=option
        ) from error


def watch(job_id: JobId, timeout: Timeout = None, as_json: JsonFlag = False) -> None:
    """Print the events of a job until it ends."""
    with open_client() as client:
        for event in client.events(job_id, timeout_s=timeout):
            print_event(event, as_json=as_json)
        if client.get(job_id).state != "succeeded":
            raise typer.Exit(1)


def retry(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Queue a failed, canceled or expired job again, under the same id."""
    with open_client() as client:
        print_job(client.retry(job_id), as_json=as_json)


# -- dead letters

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids of failed jobs.")]
All = Annotated[bool, typer.Option("--all", help="All failed jobs.")]
Code = Annotated[
    str | None, typer.Option(metavar="CODE", help="Only jobs that failed with this error code.")
]


@dead.command(name="list")
def list_dead(code: Code = None, wide: WideFlag = False, as_json: JsonFlag = False) -> None:
    """List failed jobs with their errors."""
    with open_client() as client:
        found = client.dead(code=code, include_request=True)
        if not print_dead(found, as_json=as_json, wide=wide):
            _print_nothing(_explain_no_dead(code), as_json=as_json)


@dead.command(name="show")
def show_dead(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Print the state and error of a job, and what it was asked."""
    with open_client() as client:
        print_job(client.get(job_id, include_request=True), as_json=as_json)


@dead.command()
def replay(
    job_ids: Ids = None, all_of_them: All = False, code: Code = None, as_json: JsonFlag = False
) -> None:
    """Queue failed jobs again: the given ids, or --all."""
    with open_client() as client:
        chosen = _choose_jobs(client, job_ids, all_of_them, code)
        for job_id in chosen:
            with _skip_changed(all_of_them):
                print_change(client.retry(job_id), "queued again", as_json=as_json)
        if not chosen:
            _print_nothing(_explain_no_dead(code), as_json=as_json)


@dead.command()
def purge(
    job_ids: Ids = None, all_of_them: All = False, code: Code = None, as_json: JsonFlag = False
) -> None:
    """Delete the records of failed jobs: the given ids, or --all. Result objects stay."""
    with open_client() as client:
        chosen = _choose_jobs(client, job_ids, all_of_them, code)
        for job_id in chosen:
            with _skip_changed(all_of_them):
                job = client.get(job_id)
                if job.state != "failed":
                    raise errors.NotRetryable(
                        f"job {job_id} {describe_state(job.state)}, expected a failed one; the records of others "
                        "expire by themselves"
                    )
                client.purge(job_id)
                print_change(job, "deleted", as_json=as_json)
        if not chosen:
            _print_nothing(_explain_no_dead(code), as_json=as_json)


def _explain_no_dead(code: str | None) -> str:
    with_code = f" with {code}; `videoqa dead list` shows all" if code else ""
    return f"no failed job{with_code}"


def _skip_changed(all_of_them: bool) -> AbstractContextManager[None]:
    """Skips jobs of --all that are no longer failed: retried elsewhere, or their records expired."""
    return suppress(errors.NotRetryable, errors.LookupFailed) if all_of_them else nullcontext()


def _choose_jobs(
    client: Client, job_ids: list[str] | None, all_of_them: bool, code: str | None
) -> list[str]:
    if bool(job_ids) == all_of_them or (job_ids and code is not None):
        raise errors.InvalidRequest(
            "got neither or both, expected ids of jobs, or --all [--code CODE]"
        )
    return job_ids or [job.id for job in client.dead(code=code)]


# -- queues


@queue.command()
def stats(wide: WideFlag = False, as_json: JsonFlag = False) -> None:
    """Count jobs, workers and slots, by model and priority."""
    with open_client() as client:
        if not print_queues(client.queues(), as_json=as_json, wide=wide):
            _print_nothing(
                "no job waits, no queue is paused and no worker runs; start one with `videoqa worker`, "
                "or all on this machine with `videoqa up`",
                as_json=as_json,
            )


@queue.command()
def pause(
    model: Model = None,
    priority: OfPriority = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask, also if no worker serves the model.")
    ] = False,
) -> None:
    """Start no more jobs for a model; running jobs continue."""
    chosen = _check_priority(priority)
    with open_client() as client:
        if model and not yes:
            _check_model(client, model)
        client.pause(model, priority=chosen)
    resume_it = " ".join(["videoqa queue resume", *([shlex.quote(model)] if model else [])])
    print_note(f"paused {_describe_queues(model, chosen)}; `{resume_it}` ends that")


@queue.command()
def resume(model: Model = None, priority: OfPriority = None) -> None:
    """Start jobs for a paused model again."""
    chosen = _check_priority(priority)
    with open_client() as client:
        paused = [
            queue.priority
            for queue in client.queues()
            if queue.paused and queue.model == model and chosen in (None, queue.priority)
        ]
        client.resume(model, priority=chosen)
    if paused:
        print_note(f"resumed {_describe_queues(model, paused[0] if len(paused) == 1 else None)}")
    else:
        print_note(
            f"no queue of {model or 'jobs that name no model'} was paused; `videoqa queue stats` "
            "shows those that are"
        )


def _describe_queues(model: str | None, priority: Priority | None) -> str:
    of_priority = f"the {priority} queue" if priority else "both queues"
    return f"{of_priority} of {model or 'jobs that name no model'}"


def _check_model(client: Client, model: str) -> None:
    """Asks on a terminal before a model is paused that nobody knows; refuses it elsewhere."""
    known = {info.model for info in client.workers()}
    known |= {queue.model for queue in client.queues() if queue.model}
    if model in known:
        return
    near = get_close_matches(model, known, 1)
    found = (
        f"no worker serves model {model!r} and no job waits for it"
        + (f"; did you mean {near[0]}?" if near else "")
        + f" (known: {', '.join(sorted(known)) or 'none'})"
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise errors.InvalidRequest(
            f"{found}; nothing was paused: name a known one, or add --yes", param="model"
        )
    if not typer.confirm(f"{found}. Pause it all the same?", err=True):
        print_note("nothing was paused")
        raise typer.Exit(1)


def _check_priority(text: str | None) -> Priority | None:
    if text is None or text in PRIORITIES:
        return text
    raise errors.InvalidRequest(
        f"got priority {text!r}, expected interactive or bulk", param="priority"
    )
