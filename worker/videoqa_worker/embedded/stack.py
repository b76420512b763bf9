"""A private Redis and one worker on this machine, for `videoqa up` and `make demo`.

The worker is the production worker in a process of its own; only its settings differ: it may read files
and write results below the user's home and the current folder, and fetch from this machine.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Self

from videoqa.client import Client
from videoqa.errors import ConfigurationError
from videoqa.settings import Settings
from videoqa_worker.embedded.gateway import Gateway
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.settings import DEMO_MODEL, WorkerSettings

__all__ = ["Stack"]

PREFERRED_PORT = 7379
SAMPLE = Path(__file__).parents[1] / "demo/clips/parade.mp4"
"""Video that the page Ask offers to who has none at hand."""
LOAD_TIMEOUT_S = 3600.0
"""Limit of the first start, which may download 15 GB of weights."""

_STATE = re.compile(r'] (.+) \[videoqa_worker\]|"message":"([^"]+)","logger":"videoqa_worker"')
"""A line of the worker's start, for people or as JSON."""


class Stack:
    """A Redis server and a worker; a context manager that starts both and stops them in reverse."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        defaults: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        """Starts nothing yet.

        Arguments:
            environ: the worker's environment, with its VIDEOQA_* settings.
            defaults: settings that `environ` does not have.
            port: preferred port of Redis.
        """
        self.folder = folder
        self.results = folder / "results"
        self.sheets = folder / "sheets"
        self.uploads = folder / "uploads"
        self._environ = environ
        self._defaults = defaults or {}
        self._port = port

    def __enter__(self) -> Self:
        self._lock = _lock_folder(self.folder)
        try:
            self._start()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _start(self) -> None:
        password = self._read_password()
        self.redis = RedisServer(
            self.folder / "redis",
            port=free_port(self._port or PREFERRED_PORT),
            password=password,
            environ=self._environ,
        )
        try:
            self.worker = self._start_worker()
        except BaseException:
            self.redis.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.redis.stop()
        self._lock.close()

    def _read_password(self) -> str | None:
        """Reads the saved password, so that Redis' URL is the same at each start."""
        path = self.folder / "redis" / "password"
        if not path.exists():
            return None
        return path.read_text().strip() or None

    def start_gateway(self) -> Gateway:
        """Starts a gateway before this stack; whoever calls stops it."""
        return Gateway(self.folder, self.settings, self._worker_environment())

    def save_password(self) -> None:
        """Saves Redis' password for the next start."""
        path = self.folder / "redis" / "password"
        path.touch(mode=0o600)
        path.write_text(self.redis.password)

    @property
    def model(self) -> str:
        return self._worker_environment()["VIDEOQA_MODEL"]

    @property
    def settings(self) -> Settings:
        return Settings(redis_url=self.redis.url, sheet_output=self.worker_settings.sheet_output)

    def client(self) -> Client:
        return Client(settings=self.settings)

    @property
    def _own_folders(self) -> tuple[Path, ...]:
        """The user's home, and the current folder where it lies outside of that."""
        home, here = Path.home(), Path.cwd()
        return (home,) if here.is_relative_to(home) else (home, here)

    def _list_read_folders(self) -> tuple[Path, ...]:
        """Returns the user's own folders, and those of uploads and of the sample where they lie outside of them."""
        own = self._own_folders
        others = (self.uploads.absolute(), SAMPLE.parent)
        return (*own, *(one for one in others if not any(map(one.is_relative_to, own))))

    @property
    def worker_settings(self) -> WorkerSettings:
        """The settings that the worker reads from its environment."""
        return WorkerSettings.from_environment(self._worker_environment())

    def _worker_environment(self) -> dict[str, str]:
        given = {
            "VIDEOQA_MODEL": DEMO_MODEL,
            "VIDEOQA_OUTPUT": self.results.absolute().as_uri() + "/{job_id}.json",
            "VIDEOQA_LOG_FORMAT": "console",
            "VIDEOQA_SHEETS": "true",
            "VIDEOQA_SHEET_OUTPUT": self.sheets.absolute().as_uri() + "/{job_id}.jpg",
            "VIDEOQA_GATEWAY_SAMPLE": SAMPLE.as_uri(),
            "VIDEOQA_GATEWAY_FILES": str(self.uploads.absolute()),
            "VIDEOQA_GATEWAY_MEDIA": ",".join(f"{each.as_uri()}/" for each in self._own_folders),
            "VIDEOQA_FILE_ROOTS": os.pathsep.join(map(str, self._list_read_folders())),
            "VIDEOQA_OUTPUT_ROOTS": os.pathsep.join(map(str, self._own_folders)),
            "VIDEOQA_PRIVATE_ADDRESSES": "true",
            # Less than the 10 s after which a server that does not stop is killed.
            "VIDEOQA_DRAIN_GRACE_S": "3",
            **self._defaults,
        }
        return (
            given
            | dict(self._environ)
            | {
                "VIDEOQA_REDIS_URL": self.redis.url,
                "VIDEOQA_BROKER_URL": "",
                "VIDEOQA_PREFIX": "videoqa",
            }
        )

    def _start_worker(self) -> ServerProcess:
        return ServerProcess(
            "the worker",
            # With -P no file of the current folder shadows a library.
            [sys.executable, "-P", "-m", "videoqa_worker"],
            log_path=self.folder / "worker.log",
            env=self._worker_environment(),
        )

    def restart_worker(self) -> None:
        """Starts the worker again after a crash; its jobs continue when their leases end."""
        self.worker.stop()
        self.worker = self._start_worker()

    def wait_until_ready(self, on_state: Callable[[str], None]) -> None:
        """Waits for the worker and reports its state; raises ConfigurationError if it ends."""
        reported = ""
        with self.client() as client:

            def ready() -> bool:
                nonlocal reported
                message = self._read_last_message()
                if message and message != reported:
                    reported = message
                    on_state(message)
                return any(info.ready for info in client.workers())

            self.worker.wait_until(ready, timeout_s=LOAD_TIMEOUT_S, every_s=0.1)

    def _read_last_message(self) -> str:
        """Returns the message of the worker's newest log line."""
        lines = self.worker.log_path.read_text(errors="replace").splitlines()
        found = _STATE.search(lines[-1]) if lines else None
        return (found[1] or found[2]) if found else ""


def _lock_folder(folder: Path) -> IO[str]:
    """Locks the folder until the lock is closed or this process ends.

    Two servers on one append-only file would corrupt it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"can't use {folder}: {error.strerror}; set VIDEOQA_HOME to a folder "
            "that you may write to"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigurationError(
            f"a stack already runs in {folder}; stop it with Ctrl-C, or set VIDEOQA_HOME to "
            "another folder for a second one"
        ) from error
    return lock
