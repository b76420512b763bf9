"""Production workers that are forked from one process with all imports done, and can be killed."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import psutil
import pytest

from support.processes import GENEROUS_S, wait_until
from videoqa.client import Client

__all__ = ["ForkedWorker", "clean_environ", "wait_ready"]

SOCKET_VARIABLE = "TESTS_ZYGOTE"
"""Names the socket of the session's fork server; the lanes inherit the variable."""


def clean_environ() -> dict[str, str]:
    """Returns this process's environment without settings of ours."""
    return {name: text for name, text in os.environ.items() if "VIDEOQA_" not in name}


class ForkedWorker:
    """A production worker in a process group of its own. A context manager; leaving it is SIGTERM."""

    def __init__(
        self, log_path: Path, environ: Mapping[str, str], *, before: str = "", grace_s: float = 30
    ) -> None:
        """
        Arguments:
            before: Python that runs in the worker first, to break something there.
            grace_s: time that `stop` leaves it to end in order.
        """
        self.log_path, self._grace_s = log_path, grace_s
        self._status_path = Path(f"{log_path}.status")
        self.pid = _fork({"log": str(log_path), "before": before, "environ": dict(environ)})

    def running(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def wait_ready(self, client: Client) -> None:
        wait_ready(self, client)

    def log_tail(self, lines: int = 5) -> str:
        return " | ".join(self.log_path.read_text(errors="replace").strip().splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the worker alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = GENEROUS_S) -> int:
        """Waits for its end and returns its exit status, negative for a signal."""
        wait_until(self._status_path.exists, within_s=timeout_s)
        return int(self._status_path.read_text())

    def ends_within(self, timeout_s: float) -> bool:
        try:
            self.wait(timeout_s)
        except AssertionError:
            return False
        return True

    def kill(self) -> None:
        """Sends SIGKILL to the worker alone, as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def kill_group(self) -> None:
        """Sends SIGKILL to the worker and its decoders, as a host that dies."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Ends it in order, or by force after a grace."""
        self.signal(signal.SIGTERM)
        if not self.ends_within(self._grace_s):
            self.kill_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Worker(Protocol):
    """A worker in a process of its own, forked or started."""

    @property
    def pid(self) -> int: ...
    def running(self) -> bool: ...
    def log_tail(self, lines: int = 5) -> str: ...


def wait_ready(worker: Worker, client: Client) -> None:
    """Waits until the worker's heartbeat says that it takes jobs."""

    def ready() -> bool:
        return any(info.ready and info.id.endswith(f":{worker.pid}") for info in client.workers())

    try:
        wait_until(ready, process=worker, every_s=0.05)
    except AssertionError as error:
        raise AssertionError(f"{error}: {worker.log_tail(20)}") from None


class ForkServer:
    """The process that forks workers (`zygote.py`); it ends with the one that started it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zygote-"))
        self.path = str(self._folder / "socket")
        program = Path(__file__).with_name("zygote.py")
        self._process = subprocess.Popen(
            # -P: `redis` beside the program is not the library.
            [sys.executable, "-P", str(program), self.path],
            stdin=subprocess.PIPE,
        )

    def close(self) -> None:
        """Ends the server and its workers."""
        self._process.communicate()
        shutil.rmtree(self._folder)


def _fork(order: Mapping[str, object]) -> int:
    if SOCKET_VARIABLE not in os.environ:
        server = ForkServer()  # a script of the fault matrix has no test session
        atexit.register(server.close)
        os.environ[SOCKET_VARIABLE] = server.path
    path = os.environ[SOCKET_VARIABLE]
    wait_until(Path(path).exists)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(order).encode() + b"\n")
        return int(connection.makefile().read())


_SERVER = pytest.StashKey[ForkServer]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts the fork server in the process that starts the lanes, unless there is one (.ci/run_tests.py)."""
    if not hasattr(config, "workerinput") and SOCKET_VARIABLE not in os.environ:
        config.stash[_SERVER] = server = ForkServer()
        os.environ[SOCKET_VARIABLE] = server.path


def pytest_unconfigure(config: pytest.Config) -> None:
    if (server := config.stash.get(_SERVER, None)) is not None:
        server.close()
