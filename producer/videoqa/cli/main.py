"""The `videoqa` command: submit, follow and read jobs from a shell.

Commands that need the worker (`up`, `worker`, `demo`, `frames`) come from `videoqa-worker` by the
entry point group `videoqa.commands`. Exit codes, for scripts:

    0  done                          4  Redis does not answer, or its queue is full
    1  the job did not succeed       5  --timeout is over; the job goes on
    2  the request or usage is wrong 6  the result can't be read, a file not be written
    3  unknown or expired job id     130  interrupted

With --json a command prints JSON on stdout, one object a line, and errors of the job, the
request or the system as one object {"error": {code, message, param}} on stderr.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from videoqa import __version__, errors
from videoqa.cli import output as show
from videoqa.cli.arguments import (
    Budget,
    End,
    Fps,
    Frames,
    Keyframes,
    MaxTokens,
    Model,
    Overlap,
    Segments,
    Start,
    Summary,
    Times,
    Tolerance,
    given,
    media,
    one_of,
    sampling,
    summary_of,
)
from videoqa.cli.caption import INTERRUPTED, caption
from videoqa.cli.fleet import add_commands
from videoqa.cli.options import JobId, JsonFlag, Timeout, connected, settings
from videoqa.client import Client
from videoqa.contract import Job

__all__ = ["app", "main"]

WORKER_COMMANDS = {
    "up": "run Redis, an object store and a worker on this machine until Ctrl-C",
    "worker": "run one worker that holds a model and answers jobs",
    "demo": "show the main job, end to end, with the bundled model",
    "frames": "show the frames of a video that the model would see",
}


class _Commands(TyperGroup):
    """Ends every command that meets an error of ours with one line and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in sys.argv
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # a broken pipe is met here, not while Python shuts down
            return done
        except errors.VideoQAError as error:
            show.error(error.code, error.message, error.param, as_json=as_json)
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt:
            show.error("interrupted", _interrupted(ctx), None, as_json=as_json)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `videoqa ... | head`
            _print_no_more()
            raise typer.Exit(0) from None
        except OSError as error:  # `videoqa ... > file`
            if error.errno not in FULL:
                raise
            _print_no_more()
            message = f"the output can't be written: {error.strerror}; make room and try again"
            show.error("output_unavailable", message, None, as_json=as_json)
            raise typer.Exit(6) from None


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _print_no_more() -> None:
    """What is left in the buffer would fail once more, and loudly, while Python shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """One that is closed (`>&-`) leads to nowhere: it is no error, and no file of ours gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _interrupted(ctx: Any) -> str:
    if ctx.invoked_subcommand == "caption":
        return INTERRUPTED
    ours = ctx.invoked_subcommand in WORKER_COMMANDS
    return "interrupted" if ours else "interrupted; a submitted job goes on"


app = typer.Typer(
    name="videoqa",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_versions(wanted: bool) -> None:
    if not wanted:
        return
    typer.echo(f"videoqa {__version__}")
    with suppress(metadata.PackageNotFoundError):
        typer.echo(f"videoqa-worker {metadata.version('videoqa-worker')}")
    raise typer.Exit


@app.callback()
def _take_global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_versions, is_eager=True,
            help="Print the version of videoqa, and of its worker where that is installed.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Ask questions about videos."""


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


Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Videos and images (paths or s3://, http(s)://, file:// URLs), then the question."
    ),
]
Output = Annotated[str | None, typer.Option(help="URI template of the result object.")]


def _from_arguments(
    inputs: list[str],
    question: list[str] | None,
    start: float | None,
    end: float | None,
    **fields: Any,
) -> dict[str, Any]:
    """INPUT... QUESTION, or INPUT... with one --question or more."""
    questions = list(question or ())
    if not questions:
        if len(inputs) < 2:
            raise errors.InvalidRequest(
                "got no question, expected: INPUT... QUESTION, or INPUT... --question TEXT"
            )
        *inputs, last = inputs
        questions = [last]
    tokens = fields.pop("max_tokens")
    return given(
        inputs=media(inputs, start, end),
        questions=questions,
        generation={"max_new_tokens": tokens} if tokens is not None else None,
        **fields,
    )


Questions = Annotated[
    list[str] | None,
    typer.Option("--question", "-q", help="A question; may be given several times."),
]


@app.command()
def ask(
    inputs: Inputs,
    question: Questions = None,
    frames: Frames = None,
    fps: Fps = None,
    times: Times = None,
    keyframes: Keyframes = False,
    tolerance: Tolerance = None,
    budget: Budget = None,
    segments: Segments = None,
    overlap: Overlap = None,
    summary: Summary = False,
    max_tokens: MaxTokens = None,
    model: Model = None,
    start: Start = None,
    end: End = None,
    output: Output = None,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a question, wait, and print the answer."""
    fields = _from_arguments(
        inputs, question, start, end,
        sampling=sampling(
            frames=frames, fps=fps, times=times,
            keyframes=keyframes, tolerance=tolerance, budget=budget,
            segments=segments, overlap=overlap,
        ),
        max_tokens=max_tokens, model=model, output=output, summary=summary_of(summary=summary, segments=segments),
    )  # fmt: skip
    # A pipe gets the answer alone, once it is sure: an attempt that is repeated begins it again.
    alone = len(fields["questions"]) == 1 or segments is not None
    spoken = show.Spoken() if alone and sys.stdout.isatty() and not as_json else None
    with connected() as client:
        job = client.submit(fields | {"stream": spoken is not None})
        _wait(client, job.id, timeout, as_json, spoken)
        show.result(client.result(job.id), client.get(job.id), as_json=as_json, spoken=spoken)


@app.command()
def submit(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Videos and images, then the question.")
    ] = None,
    question: Questions = None,
    request: Annotated[
        str | None, typer.Option("--request", help="A job request as a JSON file, or - for stdin.")
    ] = None,
    frames: Frames = None,
    fps: Fps = None,
    times: Times = None,
    keyframes: Keyframes = False,
    tolerance: Tolerance = None,
    budget: Budget = None,
    segments: Segments = None,
    overlap: Overlap = None,
    summary: Summary = False,
    max_tokens: MaxTokens = None,
    model: Model = None,
    start: Start = None,
    end: End = None,
    output: Output = None,
    priority: Annotated[str | None, typer.Option(help="interactive or bulk.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key twice makes one job.")
    ] = None,
    custom_id: Annotated[str | None, typer.Option(help="Your own id for the job.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job and print its id."""
    flags: dict[str, Any] = {
        "sampling": sampling(
            frames=frames, fps=fps, times=times,
            keyframes=keyframes, tolerance=tolerance, budget=budget,
            segments=segments, overlap=overlap,
        ),
        "summary": summary_of(summary=summary, segments=segments),
        "max_tokens": max_tokens, "model": model, "output": output,
        "priority": priority, "idempotency_key": idempotency_key, "custom_id": custom_id,
    }  # fmt: skip
    if request is None:
        fields = _from_arguments(list(inputs or ()), question, start, end, **flags)
    elif inputs or question or any(value is not None for value in (start, end, *flags.values())):
        raise errors.InvalidRequest(
            "got --request beside other arguments, expected the whole request in its JSON"
        )
    else:
        fields = _read_json(request)
    with connected() as client:
        job = client.submit(fields)
        show.submitted(job, as_json=as_json)


@app.command()
def status(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Say how a job stands."""
    with connected() as client:
        show.job(client.get(job_id), as_json=as_json)


@app.command()
def wait(job_id: JobId, timeout: Timeout = None, as_json: JsonFlag = False) -> None:
    """Wait until a job is final."""
    with connected() as client:
        job = _wait(client, job_id, timeout, as_json)
        show.job(job, as_json=as_json)


@app.command()
def result(
    job_id: JobId,
    as_json: JsonFlag = False,
    follow: Annotated[bool, typer.Option("--wait", help="Wait for the job first.")] = False,
    form: Annotated[
        str, typer.Option("--format", help="text, json, or vtt or srt: subtitles of the video.")
    ] = "text",
) -> None:
    """Print a job's answers."""
    chosen: Any = "json" if as_json else one_of(form, "--format", "text", "json", "vtt", "srt")
    as_json = chosen == "json"
    with connected() as client:
        if follow:
            _wait(client, job_id, None, as_json)
        job = client.get(job_id)
        if job.final and job.state != "succeeded":
            _ended_badly(job, as_json)
        found = client.result(job_id)
        if chosen in ("vtt", "srt"):
            show.subtitles(found, chosen)
        else:
            show.result(found, job, as_json=as_json)


@app.command()
def cancel(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Stop a job, queued or running."""
    with connected() as client:
        show.job(client.cancel(job_id), as_json=as_json)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check Redis, workers and settings, and say what to do."""
    from videoqa.cli import doctor as checks

    if not show.checks(checks.run(settings()), as_json=as_json):
        raise typer.Exit(1)


def _wait(
    client: Client,
    job_id: str,
    timeout_s: float | None,
    as_json: bool,
    spoken: show.Spoken | None = None,
) -> Job:
    """Waits with visible progress; leaves with status 1 where the job did not succeed."""
    with show.progress(client, job_id, quiet=as_json, spoken=spoken) as on_event:
        job = client.wait(job_id, timeout_s=timeout_s, on_event=on_event)
    if job.state != "succeeded":
        _ended_badly(job, as_json)
    return job


def _ended_badly(job: Job, as_json: bool) -> NoReturn:
    show.failed(job, as_json=as_json)
    raise typer.Exit(1)


add_commands(app)
app.command()(caption)

EXIT_CODES: tuple[tuple[type[errors.VideoQAError], int], ...] = (
    (errors.RequestError, 2),
    (errors.ConfigurationError, 2),
    (errors.JobNotFound, 3),
    (errors.JobExpired, 3),
    (errors.RedisUnavailable, 4),
    (errors.QueueFull, 4),
    (errors.WaitTimeout, 5),
    (errors.OutputError, 6),
)


def exit_code(error: errors.VideoQAError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _placeholder(name: str) -> Callable[[], None]:
    def missing() -> None:
        raise errors.ConfigurationError(
            f"`videoqa {name}` needs the worker; install it with: pip install videoqa-worker"
        )

    missing.__doc__ = f"{WORKER_COMMANDS[name].capitalize()} (needs videoqa-worker)."
    return missing


def _add_worker_commands() -> None:
    installed = {point.name: point for point in entry_points(group="videoqa.commands")}
    for name in WORKER_COMMANDS:
        command = installed[name].load() if name in installed else _placeholder(name)
        app.command(name=name)(command)
    for name, point in installed.items():
        if name not in WORKER_COMMANDS:
            app.command(name=name)(point.load())


def main() -> None:
    """What the console script runs: see `videoqa_command`."""
    _open_streams()
    _add_worker_commands()
    app()
