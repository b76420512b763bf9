"""A child process that works on one file at a time, and may crash or hang while it does.

The parent sees an answer, a death or silence. Knows nothing of videos.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Child", "Died", "MakeWork", "Silent", "descriptors", "resident_bytes"]

_SPAWN = get_context("spawn")
MakeWork = Callable[[], AbstractContextManager[Callable[[Any], Any]]]


@dataclass(frozen=True)
class Answer:
    """The return value of the work."""

    value: Any


@dataclass(frozen=True)
class Died:
    """The process ended instead of answering, with minus the signal or the exit status."""

    exit_code: int | None


@dataclass(frozen=True)
class Silent:
    """The process gave no answer in time and was killed."""

    after_s: float


class Child:
    """A child process, started at the first question and after each death; a context manager."""

    def __init__(self, make_work: MakeWork) -> None:
        """`make_work` is entered in the child, and left at its end; a function of a module."""
        self._make_work = make_work
        self._process: Any = None
        self._pipe: Connection[Any, Any] | None = None
        self.starts = 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, question: Any) -> None:
        if self._process is None:
            self._start()
        assert self._pipe is not None
        self._pipe.send(question)

    def answer(self, within_s: float) -> Answer | Died | Silent:
        assert self._pipe is not None
        try:
            if self._pipe.poll(within_s):
                return Answer(self._pipe.recv())
        except (EOFError, OSError):
            self._process.join()
            died = Died(self._process.exitcode)
            self._stop()
            return died
        self._stop()
        return Silent(within_s)

    def _start(self) -> None:
        ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._make_work))
        self._process.start()
        theirs.close()
        self._pipe = ours
        self.starts += 1

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()  # an idle child ends by itself then
        if self._process is not None:
            self._process.join(2)
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def _serve(pipe: Connection[Any, Any], make_work: MakeWork) -> None:
    # The libraries print messages about damaged files, which would bury the run's own lines.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    os.close(quiet)
    with make_work() as work, suppress(EOFError):
        while True:
            pipe.send(work(pipe.recv()))


def descriptors(pid: int | None = None) -> int:
    """Counts the open file descriptors of a process."""
    return len(os.listdir(f"/proc/{pid or os.getpid()}/fd"))


def resident_bytes(pid: int | None = None) -> int:
    """Returns the resident memory of a process."""
    pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
