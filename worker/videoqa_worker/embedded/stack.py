"""Stack: a private Redis and one worker on this machine, for `videoqa up` and `make demo`.

The worker is the production worker in a process of its own; only its settings differ: it
may read any file of the user's, write results below the user's home and the folder that this
was started in, and fetch from this machine.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Self

from videoqa.cli.local_stack import LocalStack
from videoqa.client import Client
from videoqa.errors import ConfigurationError
from videoqa.settings import Settings
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.settings import DEMO_MODEL

__all__ = ["Stack"]

PREFERRED_PORT = 7379
LOAD_TIMEOUT_S = 3600.0
"""A first start may download 15 GB of weights."""


class Stack:
    """A context manager: entering starts Redis and a worker, leaving stops both, in reverse."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        defaults: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        """`environ`: VIDEOQA_* settings of the worker; `defaults` where it says nothing."""
        self.folder = folder
        self.results = folder / "results"
        self._environ = environ
        self._defaults = defaults or {}
        self._port = port

    def __enter__(self) -> Self:
        self._lock = _locked(self.folder)
        try:
            self._start()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _start(self) -> None:
        password = self._password()
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

    def _password(self) -> str | None:
        """The same at each start, so that a backend app's URL stays right."""
        kept = self.folder / "redis" / "password"
        if not kept.exists():
            return None
        return kept.read_text().strip() or None

    def keep_password(self) -> None:
        kept = self.folder / "redis" / "password"
        kept.touch(mode=0o600)
        kept.write_text(self.redis.password)

    @property
    def model(self) -> str:
        return self._worker_environment()["VIDEOQA_MODEL"]

    @property
    def settings(self) -> Settings:
        return Settings(redis_url=self.redis.url)

    def client(self) -> Client:
        return Client(settings=self.settings)

    def note(self) -> LocalStack:
        return LocalStack(redis_url=self.redis.url, pid=os.getpid(), model=self.model)

    def _worker_environment(self) -> dict[str, str]:
        given = {
            "VIDEOQA_MODEL": DEMO_MODEL,
            "VIDEOQA_OUTPUT": self.results.absolute().as_uri() + "/{job_id}.json",
            "VIDEOQA_FILE_ROOTS": "/",
            "VIDEOQA_OUTPUT_ROOTS": os.pathsep.join(map(str, (Path.home(), Path.cwd()))),
            "VIDEOQA_PRIVATE_ADDRESSES": "true",
            # Below the 10 s after which a server that does not stop is killed.
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
            # -P: a file of the user's folder must not shadow a library.
            [sys.executable, "-P", "-m", "videoqa_worker"],
            log_path=self.folder / "worker.log",
            env=self._worker_environment(),
        )

    def restart_worker(self) -> None:
        """After a crash; its jobs go on when their leases end."""
        self.worker.stop()
        self.worker = self._start_worker()

    def wait_until_ready(self, on_state: Callable[[str], None]) -> None:
        """Waits for the worker, telling what it does; raises ConfigurationError if it dies."""
        told = ""
        with self.client() as client:

            def ready() -> bool:
                nonlocal told
                doing = self._last_word()
                if doing and doing != told:
                    told = doing
                    on_state(doing)
                return any(info.ready for info in client.workers())

            self.worker.wait_until(ready, timeout_s=LOAD_TIMEOUT_S, every_s=0.1)

    def _last_word(self) -> str:
        """The message of the worker's newest log line."""
        lines = self.worker.log_path.read_text(errors="replace").splitlines()
        return lines[-1].partition("videoqa_worker: ")[2] if lines else ""


def _locked(folder: Path) -> IO[str]:
    """The folder's lock, held until it is closed, or this process ends however it may.

    Two servers on one append-only file would spoil it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"can't use {folder}: {error.strerror}; set VIDEOQA_HOME to a folder of yours"
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
