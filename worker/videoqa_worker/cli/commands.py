"""The commands that `videoqa-worker` adds to `videoqa`: worker, up, demo and frames.

Loaded at every start of the command line, so nothing heavy is imported up here.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from videoqa.cli.arguments import End, Fps, Frames, Keyframes, Start, Times, Tolerance, sampling

if TYPE_CHECKING:
    from videoqa_worker.embedded import Stack

__all__ = ["demo", "frames", "up", "worker"]


def worker() -> None:
    """Run one worker that holds a model and answers jobs, until a signal."""
    from videoqa_worker.__main__ import leave, main

    leave(main())


def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Keep the clips and results in this folder.")
    ] = None,
) -> None:
    """Show the main job end to end with the bundled model, then stop everything."""
    from videoqa_worker.demo.tour import run

    raise typer.Exit(run(keep))


def frames(
    video: Annotated[str, typer.Argument(help="A path, or an s3://, http(s):// or file:// URL.")],
    frames: Frames = None,
    fps: Fps = None,
    times: Times = None,
    keyframes: Keyframes = False,
    tolerance: Tolerance = None,
    start: Start = None,
    end: End = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR",
            help="Write each frame into this folder as a PNG, in place of an earlier run's.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE",
            help="Write all frames with their times into one picture, .jpg or .png.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Show the frames of a video that a model would see.

    Takes them as a worker does, and says what was fetched for them and how long it took. Needs
    no Redis, no worker and no model. Reads any file that you can read and any address that you
    can reach, such as http://localhost:8000/clip.mp4; S3 with your usual credentials.
    """
    from videoqa_worker.cli.frames.command import run

    flags = sampling(frames=frames, fps=fps, times=times, keyframes=keyframes, tolerance=tolerance)
    run(video, flags, start=start, end=end, out=out, sheet=sheet, as_json=as_json)


def up(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of Redis [7379, or a free one].")
    ] = None,
) -> None:
    """Run Redis, a folder as object store and a worker on this machine, until Ctrl-C."""
    from videoqa.cli.local_stack import LocalStack, home
    from videoqa.settings import unknown_variables
    from videoqa_worker.embedded import Stack
    from videoqa_worker.settings import WorkerSettings

    folder = home(os.environ)
    _stop_on_signals()
    console = Console(highlight=False, soft_wrap=True)
    for mistake in unknown_variables(os.environ, WorkerSettings.table()):
        console.print(f"warning: {mistake}")
    with Stack(folder, os.environ, port=port) as stack:
        stack.keep_password()
        try:
            _stay(stack, console)
        except KeyboardInterrupt:
            console.print("stopping")
        finally:
            LocalStack.forget(folder)


def _stop_on_signals() -> None:
    """SIGTERM ends `up` in order, as Ctrl-C does; and Ctrl-C does so too where a shell script
    started us in the background, with SIGINT ignored."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def _stay(stack: Stack, console: Console) -> None:
    """Says where things are, then echoes the worker and restarts it if it dies."""
    console.print(f"data      {stack.folder}")
    console.print(f"redis     127.0.0.1:{stack.redis.port}")
    console.print(f"results   {stack.results}")
    begun = time.monotonic()
    with console.status(f"model     {stack.model}: starting") as line:

        def on_state(state: str) -> None:
            line.update(f"model     {stack.model}: {state}")
            if not console.is_terminal:
                console.print(f"model     {stack.model}: {state}")

        stack.wait_until_ready(on_state)
    console.print(f"model     {stack.model}, ready in {time.monotonic() - begun:.1f} s")
    stack.note().save(stack.folder)
    console.print(
        '\nask in another shell:     videoqa ask clip.mp4 "What is moving?"'
        f"\nfor your backend app:     export VIDEOQA_REDIS_URL={stack.redis.url}"
        "\nCtrl-C stops everything.\n"
    )
    _echo(stack, console)


def _echo(stack: Stack, console: Console) -> None:
    log = stack.worker.log_path
    with log.open(errors="replace") as lines:
        lines.seek(0, os.SEEK_END)
        while True:
            for line in lines:
                console.print(line.rstrip(), markup=False)
            if not stack.redis.running():
                from videoqa.errors import ConfigurationError

                raise ConfigurationError(f"Redis ended: {stack.redis.log_tail()}")
            if not stack.worker.running():
                console.print(f"the worker ended ({stack.worker.log_tail(1)}); starting another")
                time.sleep(1)
                stack.restart_worker()
            time.sleep(0.3)
