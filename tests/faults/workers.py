"""Worker: a production worker that can be killed, and the process that forks it."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Worker", "zygote"]


class Worker:
    """A forked production worker in a process group of its own."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log

    def running(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: signal.Signals) -> None:
        """To the worker alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a host that dies."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(10)

    def wait(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self.running() and time.monotonic() < until:
            time.sleep(0.02)
        return not self.running()


class Zygote:
    """One for all rigs of this process: see `zygote.py`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def fork(self, order: dict[str, Any]) -> int:
        """The pid of a new worker."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("zygote.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            atexit.register(self.end)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


zygote = Zygote()
