"""A server as a child process with a log file, which is stopped in order and never outlives us."""

from __future__ import annotations

import ctypes
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from videoqa.errors import ConfigurationError

__all__ = ["ServerProcess", "free_port", "free_ports"]

PR_SET_PDEATHSIG = 1
SERVER_PORTS = range(10_000, 32_000)


def free_port(preferred: int = 0) -> int:
    """Returns `preferred` if it is free, else any free port on loopback."""
    try:
        return free_ports(1, preferred)[0]
    except OSError:
        return free_ports(1)[0]


def free_ports(count: int, first: int = 0) -> list[int]:
    """Returns different free ports on loopback, the first one `first` unless that is 0.

    They are below the ports that systems give to outgoing connections. One of those may be taken by
    any connection of this machine between now and the start of the server.
    """
    with ExitStack() as held:
        found = [_hold_port(held, first)] if first else []
        while len(found) < count:
            with suppress(OSError):
                found.append(_hold_port(held, random.choice(SERVER_PORTS)))  # noqa: S311
        return found


def _hold_port(held: ExitStack, port: int) -> int:
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", port))
    return port


def _die_with_parent() -> None:
    """Asks Linux to end the child when we are killed; elsewhere an orphan may remain."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class ServerProcess:
    """A running server process; a context manager.

    `stop` sends SIGTERM, and SIGKILL after a grace period.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._grace_s = grace_s
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if env is None else dict(env),
                cwd=cwd,
                # A group of its own: Ctrl-C in our terminal reaches us alone, and we stop it in order.
                process_group=0,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def running(self) -> bool:
        return self.process.poll() is None

    def wait_until(
        self, ready: Callable[[], bool], *, timeout_s: float, every_s: float = 0.05
    ) -> None:
        """Waits until `ready`; raises ConfigurationError with the end of the log if it is not.

        The process may end before, or take longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running():
                raise ConfigurationError(f"{self.name} ended at its start: {self._read_error()}")
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{self.name} was not ready within {timeout_s:g} s: {self.log_tail()}"
                )
            time.sleep(every_s)

    def log_tail(self, lines: int = 5) -> str:
        text = self.log_path.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:]) or f"its log is empty; see {self.log_path}"

    def _read_error(self) -> str:
        """Returns the last log line without a worker's prefix and error code, which we add too."""
        return re.sub(r"^videoqa worker: | \(\w+\)$", "", self.log_tail(1))

    def stop(self) -> None:
        if not self.running():
            return
        self.process.terminate()
        try:
            self.process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """Kills the process with SIGKILL, like a crash; for fault tests."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
