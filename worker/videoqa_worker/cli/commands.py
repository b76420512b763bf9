"""Commands that `videoqa-worker` adds to `videoqa`: worker, up, demo and frames.

Loaded at every start of the command line, so heavy modules are imported inside the functions.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videoqa.cli.arguments import (
    End,
    Fps,
    Guide,
    Keyframes,
    Start,
    Times,
    Tolerance,
    build_sampling,
)
from videoqa.terminal import PlainConsole, unguard

if TYPE_CHECKING:
    from videoqa_worker.embedded import Gateway, Stack

__all__ = ["demo", "frames", "up", "worker"]


def worker(
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write seconds by stage of the first jobs into this file as JSON, and end; see the guide on metrics.",
        ),
    ] = None,
    profile_jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Jobs of the profile.")
    ] = 50,
) -> None:
    """Run one worker, which answers jobs until a signal ends it."""
    import signal

    from videoqa_worker.__main__ import leave, main

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the worker is ready and hears of it
    # Its log is printable by itself, and the bars of libraries need their carriage returns.
    sys.stdout, sys.stderr = unguard(sys.stdout), unguard(sys.stderr)
    leave(main(profile, profile_jobs))


def demo(
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the clips and results in this folder.")
    ] = None,
) -> None:
    """Run some jobs end to end with the bundled model.

    Starts Redis, file servers and a worker, shows each answer beside the true content of its clip,
    and stops everything.
    """
    from videoqa_worker.demo.tour import run

    raise typer.Exit(run(keep))


def frames(
    video: Annotated[
        str | None,
        typer.Argument(metavar="[VIDEO]", help="A path, or an s3://, http(s):// or file:// URL."),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(
            "--job", metavar="ID",
            help="In place of VIDEO: the frames that the model saw for this job, of all its inputs.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames", "-n", metavar="N", rich_help_panel="Frames", help="Number of frames [8]."
        ),
    ] = None,
    fps: Fps = None,
    times: Times = None,
    keyframes: Keyframes = False,
    guide: Guide = False,
    tolerance: Tolerance = None,
    start: Start = None,
    end: End = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR",
            help="Write each frame into this folder as a PNG; replaces those of an earlier run.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE",
            help="Write all frames with their times into one picture, a .jpg or .png file.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Show the frames of a video that a model would see.

    Takes them as a worker does, and prints how many bytes were fetched and how long it took. Needs
    no worker and no model, and Redis only for --job. Reads any file that you can read and any address that you
    can reach, for example http://localhost:8000/clip.mp4; S3 with your usual credentials.
    """
    from videoqa.errors import InvalidRequest
    from videoqa_worker.cli.frames.command import run, run_past_job

    flags = build_sampling(
        frames=frames, fps=fps, times=times, keyframes=keyframes, guide=guide, tolerance=tolerance
    )
    if job is not None:
        if (video, flags, start, end) != (None, None, None, None):
            raise InvalidRequest(
                "got --job beside a video, a clip or sampling flags, expected --job alone: the job has its own",
                param="job",
            )
        run_past_job(job, out=out, sheet=sheet, as_json=as_json)
        return
    if video is None:
        raise InvalidRequest("got no video, expected: videoqa frames VIDEO, or --job ID")
    run(video, flags, start=start, end=end, out=out, sheet=sheet, as_json=as_json)


def up(
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            metavar="PORT",
            help="Port of Redis [7379, or a free one if that is taken].",
        ),
    ] = None,
) -> None:
    """Run Redis, a worker and a gateway on this machine until Ctrl-C.

    Other commands of the same user find them without a setting. Results are files.
    """
    from videoqa.local_stack import LocalStack, state_folder
    from videoqa.settings import unknown_variables
    from videoqa_worker.embedded import Stack
    from videoqa_worker.settings import WorkerSettings

    folder = state_folder(os.environ)
    _stop_on_signals()
    console = PlainConsole()
    for mistake in unknown_variables(os.environ, WorkerSettings.table()):
        console.print(f"warning: {mistake}")
    with Stack(folder, os.environ, port=port) as stack:
        stack.save_password()
        gateway = None
        try:
            gateway = _start_gateway(stack, console)
            _serve(stack, console, gateway)
        except KeyboardInterrupt:
            console.print("stopping")
        finally:
            LocalStack.delete(folder)
            if gateway is not None:
                gateway.stop()


def _start_gateway(stack: Stack, console: PlainConsole) -> Gateway | None:
    """Starts the gateway; None, with a line that says why, if it cannot be."""
    from videoqa.errors import VideoQAError
    from videoqa_worker.embedded import has_gateway

    if not has_gateway():
        console.print("gateway   none: install it with `pip install 'videoqa[gateway]'` for HTTP")
        return None
    try:
        gateway = stack.start_gateway()
        gateway.save_key()
    except VideoQAError as error:  # jobs go on without it
        console.print(f"gateway   none: {error.message}", markup=False)
        return None
    console.print(f"gateway   {gateway.url}, for programs that have the key in {gateway.key_path}")
    return gateway


def _stop_on_signals() -> None:
    """Turns SIGTERM into KeyboardInterrupt, and SIGINT too where a script in the background ignores it."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def _serve(stack: Stack, console: PlainConsole, gateway: Gateway | None) -> None:
    """Prints what is open, then the worker's log, and restarts the worker if it dies."""
    from videoqa.local_stack import LocalStack

    _print_openings(stack, console)
    # Before the model is loaded: jobs may wait for it.
    LocalStack(
        redis_url=stack.redis.url,
        pid=os.getpid(),
        model=stack.model,
        sheet_output=stack.settings.sheet_output,
        gateway_url=gateway.url if gateway else None,
    ).save(stack.folder)
    begun = time.monotonic()
    with console.status(f"model     {stack.model}: starting") as line:

        def on_state(state: str) -> None:
            line.update(f"model     {stack.model}: {state}")
            if not console.is_terminal:
                console.print(f"model     {stack.model}: {state}")

        stack.wait_until_ready(on_state)
    console.print(f"model     {stack.model}, ready in {time.monotonic() - begun:.1f} s")
    console.print(
        '\nask in another shell:     videoqa ask clip.mp4 "What is moving?"'
        f"\nfor your backend app:     export VIDEOQA_REDIS_URL={stack.redis.url}"
        + (
            f"\nin a browser, once:       {gateway.make_link(gateway.save_key())}"
            if gateway
            else ""
        )
        + "\nCtrl-C stops everything.\n",
        markup=False,
    )
    _follow_worker(stack, console)


def _print_openings(stack: Stack, console: PlainConsole) -> None:
    """Prints what other programs can reach, and what jobs can make the worker read, write and fetch."""
    from videoqa_worker.job.result_object import list_roots

    settings = stack.worker_settings
    written = list_roots(settings.output, settings.output_roots)

    def show(name: str, text: object) -> None:
        console.print(f"{name:<10}{text}")

    show("data", stack.folder)
    show(
        "redis",
        f"127.0.0.1:{stack.redis.port}, for programs of this machine that have the password",
    )
    show("results", settings.output)
    show("sheets", settings.sheet_output if settings.sheets else "none")
    show("reads", ", ".join(map(str, settings.sources.file_roots)) or "no files")
    show("writes", ", ".join(dict.fromkeys(map(str, written))) or "no files")
    private = "and this machine's network" if settings.sources.private_addresses else "alone"
    show("fetches", f"from public addresses {private}")


def _follow_worker(stack: Stack, console: PlainConsole) -> None:
    log = stack.worker.log_path
    with log.open(errors="replace") as lines:
        lines.seek(0, os.SEEK_END)
        while True:
            for line in lines:
                console.print(line.rstrip(), markup=False)
            if not stack.redis.running():
                from videoqa.errors import ConfigurationError

                raise ConfigurationError(
                    f"Redis ended: {stack.redis.log_tail()}; run `videoqa up` again"
                )
            if not stack.worker.running():
                console.print(f"the worker ended ({stack.worker.log_tail(1)}); starting another")
                time.sleep(1)
                stack.restart_worker()
            time.sleep(0.3)
