"""Commands about one job: ask, submit, status, wait, result and cancel."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from videoqa import errors
from videoqa.cli.arguments import (
    AnswerFlags,
    ClipFlags,
    FrameFlags,
    JobFlags,
    build_inputs,
    check_choice,
    drop_unset,
    expand_flags,
)
from videoqa.cli.options import JobId, JsonFlag, Timeout, open_client
from videoqa.cli.output import (
    StreamedAnswer,
    print_failure,
    print_job,
    print_result,
    print_submitted,
    print_subtitles,
    show_progress,
    warn_of_summary,
)
from videoqa.cli.question import split_question
from videoqa.client import Client
from videoqa.contract import Job, parse_request

__all__ = ["add_job_commands"]


def add_job_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the app."""
    for command in (ask, submit, status, wait, result, cancel):
        app.command()(command)


def _read_json(source: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        data = json.loads(text)
    except OSError as error:
        raise errors.InvalidRequest(f"can't read {source}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"{source} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise errors.InvalidRequest(
            f"{source} holds {type(data).__name__}, expected one JSON object"
        )
    return data


_INPUTS_METAVAR = "INPUT... [QUESTION]"
_INPUTS_HELP = (
    "Videos and images, as paths or s3://, http(s):// or file:// URLs; the last argument is the "
    "question, unless -q gives it."
)
Inputs = Annotated[
    list[str],
    typer.Argument(metavar=_INPUTS_METAVAR, help=_INPUTS_HELP),
]


def _build_request(
    names: list[str],
    questions: list[str] | None,
    clip_flags: ClipFlags,
    frame_flags: FrameFlags,
    answer_flags: AnswerFlags,
    job_flags: JobFlags,
) -> dict[str, Any]:
    """Returns the request of `INPUT... QUESTION`, or of `INPUT...` with --question options."""
    inputs, asked = split_question(names, questions or ())
    return {
        "inputs": build_inputs(inputs, clip_flags.start, clip_flags.end),
        "questions": asked,
        **frame_flags.build(),
        **answer_flags.build(),
        **job_flags.build(),
    }


Questions = Annotated[
    list[str] | None,
    typer.Option(
        "--question",
        "-q",
        metavar="TEXT",
        help="Question about the inputs; may be given several times.",
    ),
]


@expand_flags
def ask(
    inputs: Inputs,
    clip_flags: ClipFlags,
    frame_flags: FrameFlags,
    answer_flags: AnswerFlags,
    job_flags: JobFlags,
    question: Questions = None,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a question, wait for the job and print the answer."""
    fields = _build_request(inputs, question, clip_flags, frame_flags, answer_flags, job_flags)
    # Only a terminal: a retried attempt starts the answer again, which a pipe should not see.
    streams = len(fields["questions"]) == 1 or frame_flags.segments is not None
    streamed = StreamedAnswer() if streams and sys.stdout.isatty() and not as_json else None
    with open_client() as client:
        if frame_flags.summary:
            warn_of_summary(client, answer_flags.model)
        job = client.submit(parse_request(fields | {"stream": streamed is not None}))
        _wait(client, job.id, timeout, as_json, streamed)
        print_result(client.result(job.id), client.get(job.id), as_json=as_json, streamed=streamed)


@expand_flags
def submit(
    clip_flags: ClipFlags,
    frame_flags: FrameFlags,
    answer_flags: AnswerFlags,
    job_flags: JobFlags,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar=f"[{_INPUTS_METAVAR}]", help=_INPUTS_HELP),
    ] = None,
    question: Questions = None,
    request: Annotated[
        str | None,
        typer.Option(
            "--request",
            metavar="FILE",
            help="JSON file with the whole job request, or - for stdin.",
        ),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(
            metavar="interactive|bulk",
            rich_help_panel="Job",
            help="Interactive jobs are served first [interactive].",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            rich_help_panel="Job",
            help="Key of the request: submitted twice, it is one job.",
        ),
    ] = None,
    custom_id: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            rich_help_panel="Job",
            help="Your own id for the job, kept in its result.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel="Job",
            help="URL that a gateway calls when the job ends.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job and print its id."""
    own = drop_unset(
        priority=priority,
        idempotency_key=idempotency_key,
        custom_id=custom_id,
        webhook=webhook,
    )
    groups = (clip_flags, frame_flags, answer_flags, job_flags)
    if request is None:
        fields = _build_request(inputs or [], question, *groups) | own
    elif (
        inputs
        or question
        or own
        or groups != (ClipFlags(), FrameFlags(), AnswerFlags(), JobFlags())
    ):
        raise errors.InvalidRequest(
            "got --request beside other arguments, expected the whole request in its JSON"
        )
    else:
        fields = _read_json(request)
    with open_client() as client:
        job = client.submit(parse_request(fields))
        with suppress(errors.VideoQAError):  # it is recorded, though nobody can tell why it waits
            job = client.get(job.id)
        print_submitted(job, as_json=as_json)


def status(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Print the state of a job, what it was asked, and why it waits."""
    with open_client() as client:
        print_job(client.get(job_id, include_request=True), as_json=as_json)


def wait(job_id: JobId, timeout: Timeout = None, as_json: JsonFlag = False) -> None:
    """Wait until a job ends and print its state."""
    with open_client() as client:
        job = _wait(client, job_id, timeout, as_json)
        print_job(job, as_json=as_json)


def result(
    job_id: JobId,
    as_json: JsonFlag = False,
    follow: Annotated[bool, typer.Option("--wait", help="Wait until the job ends first.")] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="text|json|vtt|srt",
            show_default=False,
            help="Form of the answers; vtt and srt are subtitles of the video [text].",
        ),
    ] = "text",
) -> None:
    """Print a job's answers."""
    chosen: Any = (
        "json" if as_json else check_choice(form, "--format", "text", "json", "vtt", "srt")
    )
    as_json = chosen == "json"
    with open_client() as client:
        if follow:
            _wait(client, job_id, None, as_json)
        job = client.get(job_id)
        if job.final and job.state != "succeeded":
            _exit_failed(job, as_json)
        found = client.result(job_id)
        if chosen in ("vtt", "srt"):
            print_subtitles(found, chosen)
        else:
            print_result(found, job, as_json=as_json)


def cancel(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Cancel a queued or running job."""
    with open_client() as client:
        print_job(client.cancel(job_id), as_json=as_json)


def _wait(
    client: Client,
    job_id: str,
    timeout_s: float | None,
    as_json: bool,
    streamed: StreamedAnswer | None = None,
) -> Job:
    """Waits with progress on stderr; exits with status 1 if the job did not succeed."""
    with show_progress(client, job_id, quiet=as_json, streamed=streamed) as on_event:
        job = client.wait(job_id, timeout_s=timeout_s, on_event=on_event)
    if job.state != "succeeded":
        _exit_failed(job, as_json)
    return job


def _exit_failed(job: Job, as_json: bool) -> NoReturn:
    """Prints the failure and exits with status 1."""
    print_failure(job, as_json=as_json)
    raise typer.Exit(1)
