"""Child processes of tests: started with default signal handlers, and waited for by what they do."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

__all__ = ["GENEROUS_S", "start", "wait_until", "wait_until_holds"]

GENEROUS_S = 90.0
"""Limit of a wait that takes seconds on an idle machine: only a hang reaches it on a busy one."""
EVERY_S = 0.02
State = TypeVar("State")


class Running(Protocol):
    """A process that says whether it runs: a `ServerProcess` or a forked worker."""

    def running(self) -> bool: ...


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Starts a child that heeds SIGINT and SIGQUIT, which a background shell's children ignore.

    Python only installs its own handler, and so raises KeyboardInterrupt, where a signal is not
    ignored at its start.
    """
    return subprocess.Popen(
        [str(word) for word in command],
        text=True,
        preexec_fn=_reset_signals,  # noqa: PLW1509
        **options,
    )


def _reset_signals() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def wait_until(
    state: Callable[[], State],
    *,
    process: subprocess.Popen[Any] | Running | None = None,
    within_s: float = GENEROUS_S,
    every_s: float = EVERY_S,
) -> State:
    """Returns what `state` returns as soon as that is true.

    Fails at once if `process` has ended without it, and after `within_s` otherwise.
    """
    deadline = time.monotonic() + within_s
    while True:
        ended = process is not None and not _runs(process)
        if found := state():
            return found
        assert not ended, f"the process ended before {_name(state)}"
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {_name(state)}"
        time.sleep(every_s)


def wait_until_holds(
    check: Callable[[], None], *, within_s: float = GENEROUS_S, every_s: float = 0.2
) -> None:
    """Repeats a check of what is not there at once, such as counters; raises its last AssertionError."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(every_s)


def _runs(process: subprocess.Popen[Any] | Running) -> bool:
    return process.poll() is None if isinstance(process, subprocess.Popen) else process.running()


def _name(state: Callable[..., object]) -> str:
    return getattr(state, "__qualname__", repr(state)).rpartition(".")[2]
