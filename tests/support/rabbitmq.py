"""A private RabbitMQ on loopback: own folder, ports, cookie and port mapper; all end with it.

The program is the one in `.venv/rabbitmq` (`.ci/fetch_rabbitmq.sh` puts it there), else an installed one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from amqp import Connection
from amqp.exceptions import NotFound

from support.tls import Certificates
from videoqa_worker.embedded.process import ServerProcess, free_ports

__all__ = ["MISSING", "RabbitServer", "find_rabbitmq"]

MISSING = (
    "RabbitMQ is not installed; `sh .ci/fetch_rabbitmq.sh` unpacks Debian's packages into .venv/rabbitmq "
    "without root, or install rabbitmq-server"
)
PRIVATE = Path(sys.prefix, "rabbitmq")
NODE = "videoqa@localhost"
START_S = 90.0


def _list_candidates() -> Iterator[Path]:
    for root in (PRIVATE, Path("/")):
        yield from root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
    if found := shutil.which("rabbitmq-server"):
        yield Path(found).resolve().parent


def find_rabbitmq() -> Path | None:
    """Returns the folder of RabbitMQ's start scripts; None where it or its Erlang is not installed."""
    for folder in _list_candidates():
        has_erlang = shutil.which("erl", path=_search_path(folder)) and _find_epmd(folder)
        if (folder / "rabbitmq-env").is_file() and has_erlang:
            return folder
    return None


def _search_path(scripts: Path) -> str:
    """Returns the PATH of the server: where it is unpacked privately, its Erlang comes first."""
    path = os.environ.get("PATH", os.defpath)
    if scripts.is_relative_to(PRIVATE):
        return os.pathsep.join((str(PRIVATE / "usr/lib/erlang/bin"), path))
    return path


def _find_epmd(scripts: Path) -> str | None:
    return shutil.which("epmd", path=_search_path(scripts))


class RabbitServer:
    """A RabbitMQ server that takes connections once constructed; a context manager.

    Its queues lie in `folder`, across restarts.
    """

    def __init__(
        self, folder: Path, *, certificates: Certificates | None = None, **options: str
    ) -> None:
        """
        Arguments:
            certificates: clients may speak TLS, on a port of its own (`tls_url`).
            options: lines of `rabbitmq.conf`, with `__` for a dot.
        """
        scripts = find_rabbitmq()
        assert scripts is not None, MISSING
        self._scripts, self.folder, self._certificates = scripts, folder, certificates
        self.port, self._tls_port, distribution, self._mapper_port = free_ports(4)
        self.password = secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700, parents=True)
        self._write_config(options)
        self._environ = self._make_environ(distribution)
        epmd = _find_epmd(scripts)
        assert epmd is not None
        self._mapper = ServerProcess(
            "Erlang's port mapper",
            [epmd, "-address", "127.0.0.1", "-port", str(self._mapper_port)],
            log_path=folder / "epmd.log",
            env=self._environ,
        )
        try:
            self.process = self._start()
        except BaseException:
            self._mapper.stop()
            raise

    def _write_config(self, options: Mapping[str, str]) -> None:
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "default_user": "videoqa",
            "default_pass": self.password,
            "disk_free_limit.absolute": "1MB",
        }
        if found := self._certificates:
            lines |= {
                "listeners.ssl.1": f"127.0.0.1:{self._tls_port}",
                "ssl_options.cacertfile": str(found.ca),
                "ssl_options.certfile": str(found.server_certificate),
                "ssl_options.keyfile": str(found.server_key),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "true",
            }
        lines |= {name.replace("__", "."): value for name, value in options.items()}
        config = self.folder / "rabbitmq.conf"
        config.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        (self.folder / "plugins").write_text("[].")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def _make_environ(self, distribution_port: int) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": _search_path(self._scripts),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "-rabbit channel_tick_interval 500",
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the server, and is not its parent
        }

    def _start(self) -> ServerProcess:
        process = ServerProcess(
            "RabbitMQ",
            [str(self._scripts / "rabbitmq-server")],
            log_path=self.folder / "server.log",
            env=self._environ,
            cwd=self.folder,
        )
        try:
            process.wait_until(self._is_answering, timeout_s=START_S)
        except BaseException:
            process.stop()
            raise
        return process

    def _is_answering(self) -> bool:
        try:
            with self.connect():
                return True
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"amqp://videoqa:{self.password}@127.0.0.1:{self.port}//"

    @property
    def tls_url(self) -> str:
        assert self._certificates is not None
        login = f"videoqa:{self.password}"
        options = self._certificates.url_options
        return f"amqps://{login}@localhost:{self._tls_port}//?{options}"

    def connect(self) -> Connection:
        """Returns a connection to the server; raises OSError where it takes none."""
        return Connection(
            f"127.0.0.1:{self.port}", "videoqa", self.password, connect_timeout=2, read_timeout=5
        )

    def restart(self) -> None:
        """Kills the server with SIGKILL, and starts it again with the same queues on the same port."""
        self.process.kill()
        self.process = self._start()

    def control(self, *arguments: str) -> str:
        """Runs `rabbitmqctl` with these arguments; returns its output."""
        return subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--silent", "-n", NODE, *arguments],
            env=self._environ,
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def count_messages(self, queue: str) -> int:
        """Returns how many messages are ready in a queue; 0 where there is no such queue."""
        with self.connect() as connection, connection.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except NotFound:
                return 0

    def stop(self) -> None:
        self.process.stop()
        self._mapper.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
