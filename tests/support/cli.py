"""The `videoqa` command: in this process, or as the installed script in a process of its own.

A start of Python with the command's imports takes about a second, so tests call the console script's
function in their own process, with streams, arguments and environment of its own. Only what a process
alone can show (its exit, signals, a terminal, closed streams) gets a process.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import videoqa_command

from support.processes import start
from videoqa.settings import Settings

__all__ = ["COMMAND", "Run", "call_command", "clean_environment", "run_command", "start_command"]

COMMAND = Path(sys.executable).parent / "videoqa"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_environment(*prefixes: str, **variables: str) -> dict[str, str]:
    """Returns this process' environment without VIDEOQA_* and the other prefixes."""
    ours = ("VIDEOQA_", *prefixes)
    clean = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return clean | {"NO_COLOR": "1"} | variables


@contextmanager
def _replaced_streams(stdin: str) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Gives `sys` an input, and outputs that are no terminals."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"),
        "stdout": io.TextIOWrapper(out, "utf-8", write_through=True),
        "stderr": io.TextIOWrapper(err, "utf-8", write_through=True),
    }
    with patch.multiple(sys, **streams):
        yield out, err
    for stream in streams.values():
        stream.flush()
        stream.detach()  # else its end would close the bytes


def call_command(
    *args: str | Path, environment: Mapping[str, str], stdin: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the console script's function in this process."""
    texts = [os.fspath(arg) for arg in args]
    before = Path.cwd()
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", [os.fspath(COMMAND), *texts]),
        _replaced_streams(stdin) as (out, err),
    ):
        os.chdir(cwd or before)
        try:
            videoqa_command.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os.chdir(before)
    return _checked(
        subprocess.CompletedProcess(texts, status, out.getvalue().decode(), err.getvalue().decode())
    )


def run_command(
    *args: str | Path, environment: Mapping[str, str], **more: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the installed script in a process of its own; `more` goes to `subprocess.run`."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(
        [COMMAND, *args], env=environment, text=True, timeout=60, check=False, **piped | more
    )
    return _checked(done)


def start_command(
    *args: str | Path, environment: Mapping[str, str], **more: Any
) -> subprocess.Popen[str]:
    """Starts the installed script so that Ctrl-C (SIGINT) ends it, wherever the tests run."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return start([COMMAND, *args], env=environment, **piped | more)


def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert "Traceback" not in (done.stderr or ""), done.stderr
    assert "Exception ignored" not in (done.stderr or ""), done.stderr
    return done


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> dict[str, str]:
    return clean_environment(
        VIDEOQA_REDIS_URL=settings.redis_url,
        VIDEOQA_PREFIX=settings.prefix,
        VIDEOQA_HOME=str(tmp_path / "home"),
    )


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """`run("status", job_id, VIDEOQA_PREFIX="x", stdin="")`, in this process."""

    def run(*args: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return call_command(*args, environment=environment | variables, stdin=stdin)

    return run
