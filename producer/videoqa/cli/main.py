"""The `videoqa` command: submit, follow and read jobs from a shell.

Commands that need the worker (`up`, `worker`, `demo`, `frames`) come from `videoqa-worker` by the
entry point group `videoqa.commands`. Exit codes, for scripts:

    0  success                       4  Redis or gateway does not answer, or is full
    1  the job did not succeed       5  --timeout is over; the job continues
    2  the request or usage is wrong 6  a result can't be read, or an output not be written
    3  unknown or expired job id     130  interrupted

With --json a command prints JSON on stdout, one object per line, and errors of the job, the
request or the system as one object {"error": {code, message, param}} on stderr.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from videoqa import __version__, errors
from videoqa.cli.caption import INTERRUPTED, caption
from videoqa.cli.fleet import add_fleet_commands
from videoqa.cli.gateway import add_gateway_commands
from videoqa.cli.help import App, TopGroup
from videoqa.cli.job_commands import add_job_commands
from videoqa.cli.login import add_login_commands
from videoqa.cli.options import JsonFlag
from videoqa.cli.output import print_checks, print_error
from videoqa.cli.webhooks import webhooks
from videoqa.login import find_client_settings
from videoqa.storage import DISK_FULL
from videoqa.terminal import guard_streams

__all__ = ["app", "main"]

WORKER_COMMANDS = {
    "up": "run Redis and a worker on this machine until Ctrl-C",
    "worker": "run one worker, which answers jobs until a signal ends it",
    "demo": "run some jobs end to end with the bundled model",
    "frames": "show the frames of a video that the model would see",
}


class _Commands(TopGroup):
    """The group of all commands; turns their errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in sys.argv
        try:
            with _interrupted_by_sigterm():
                done = super().invoke(ctx)
            sys.stdout.flush()  # a broken pipe is found here, not while Python shuts down
            return done
        except errors.VideoQAError as error:
            print_error(error.code, error.message, error.param, as_json=as_json)
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt:
            print_error("interrupted", _describe_interrupt(ctx), None, as_json=as_json)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `videoqa ... | head`
            _discard_stdout()
            raise typer.Exit(0) from None
        except OSError as error:  # `videoqa ... > file`
            if error.errno not in DISK_FULL:
                raise
            _discard_stdout()
            message = (
                f"the output can't be written: {error.strerror}; free some space and try again"
            )
            print_error("output_unavailable", message, None, as_json=as_json)
            raise typer.Exit(6) from None


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end a command as Ctrl-C does: with the same words, and what is open closed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _discard_stdout() -> None:
    """Sends the rest of stdout's buffer nowhere: it would fail again while Python shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Opens streams that the shell closed (`>&-`) on /dev/null, before a file of ours gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _describe_interrupt(ctx: Any) -> str:
    if ctx.invoked_subcommand == "caption":
        return INTERRUPTED
    is_local = ctx.invoked_subcommand in (*WORKER_COMMANDS, "gateway")
    return "interrupted" if is_local else "interrupted; a submitted job continues"


app = App(
    name="videoqa",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_versions(wanted: bool) -> None:
    """Prints the versions of both distributions and exits, if that is asked for."""
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
            help="Print the version of videoqa, and of its worker if that is installed.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Ask questions about videos: submit jobs, follow them, read their answers.

    Start with `videoqa up` in another shell.
    """


add_job_commands(app)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check the gateway, or Redis and workers, and settings; print what to correct."""
    from videoqa.cli.doctor import run_checks

    if not print_checks(run_checks(find_client_settings()), as_json=as_json):
        raise typer.Exit(1)


add_fleet_commands(app)
add_gateway_commands(app)
add_login_commands(app)
app.add_typer(webhooks, name="webhooks")
app.command()(caption)

EXIT_CODES: tuple[tuple[type[errors.VideoQAError], int], ...] = (
    (errors.RequestError, 2),
    (errors.ConfigurationError, 2),
    (errors.WrongKey, 2),
    (errors.JobNotFound, 3),
    (errors.JobExpired, 3),
    (errors.Unavailable, 4),
    (errors.QueueFull, 4),
    (errors.RateLimited, 4),
    (errors.WaitTimeout, 5),
    (errors.OutputError, 6),
)


def exit_code(error: errors.VideoQAError) -> int:
    """Returns the exit code of an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _placeholder(name: str) -> Callable[[], None]:
    """Returns a command that asks for the worker's package."""

    def missing() -> None:
        raise errors.ConfigurationError(
            f"`videoqa {name}` needs the worker; install it in your clone: pip install ./worker"
        )

    text = WORKER_COMMANDS[name]
    missing.__doc__ = f"{text[0].upper()}{text[1:]} (needs the worker: pip install ./worker)."
    return missing


@cache
def _add_worker_commands() -> None:
    """Adds the commands of installed packages, and placeholders for those of a missing worker."""
    installed = {point.name: point for point in entry_points(group="videoqa.commands")}
    for name in WORKER_COMMANDS:
        command = installed[name].load() if name in installed else _placeholder(name)
        app.command(name=name)(command)
    for name, point in installed.items():
        if name not in WORKER_COMMANDS:
            app.command(name=name)(point.load())


def main() -> None:
    """Runs the command line; `videoqa_command` is the console script."""
    _open_streams()
    _add_worker_commands()
    with guard_streams():
        app()
