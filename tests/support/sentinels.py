"""A primary with replicas, and three Sentinels that watch it: real servers on loopback."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis

from support.processes import wait_until
from support.tls import Certificates, TlsRedisServer
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.embedded.redis_server import RedisServer, find_server

__all__ = ["NAME", "Replicated", "Sentinel"]

NAME = "jobs"
"""The name by which the Sentinels know the primary."""


class Sentinel(ServerProcess):
    """One Sentinel, which answers once constructed."""

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        password: str = "",
        certificates: Certificates | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self._password, self._certificates = password, certificates
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sentinel.conf"
        login = f"requirepass {password}\n" if password else ""
        ports = certificates.make_redis_config(self.port) if certificates else f"port {self.port}\n"
        path.write_text(f"bind 127.0.0.1\ndir {folder}\n{ports}{login}{config}")
        command = [find_server(environ or {}), str(path), "--sentinel"]
        super().__init__("a Sentinel", command, log_path=folder / "log")
        with self.connect() as client:
            wait_until(lambda: _answers(client), process=self)

    def connect(self) -> redis.Redis:
        scheme, options = "redis", ""
        if self._certificates:
            scheme, options = "rediss", f"?{self._certificates.url_options}"
        login = f":{self._password}@" if self._password else ""
        return redis.Redis.from_url(f"{scheme}://{login}127.0.0.1:{self.port}{options}")


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


class Replicated:
    """A primary and its replicas, with or without Sentinels. A context manager; all ends with the block."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        sentinels: int = 0,
        sentinel_password: str = "",
        quorum: int = 2,
        down_after_ms: int = 1000,
        extra: str = "",
        certificates: Certificates | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """
        Arguments:
            extra: more lines of the servers' configuration.
            certificates: all servers and Sentinels speak TLS, and nothing else; the server of `environ` has TLS.
            environ: names another program than that of the other tests (VIDEOQA_REDIS_SERVER).
        """
        self._certificates, self._environ = certificates, environ
        self.password = secrets.token_hex(8)
        self._folder = folder
        self._login = f"masterauth {self.password}\nrepl-diskless-sync-delay 0\n{extra}"
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        """The first is the primary at first."""
        self.sentinels: list[Sentinel] = []
        self._sentinel_password = sentinel_password
        try:
            self._start(replicas)
            self._watch(sentinels, sentinel_password, quorum, down_after_ms)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, replicas: int) -> None:
        for number in range(1 + replicas):
            follow = f"replicaof 127.0.0.1 {self.servers[0].port}\n" if self.servers else ""
            self.servers.append(self._start_server(number, follow))
        wait_until(lambda: all(self.is_in_step(server) for server in self.servers[1:]))

    def _start_server(self, number: int, follow: str, *, port: int | None = None) -> RedisServer:
        folder = self._folder / f"server-{number}"
        options: dict[str, Any] = {
            "port": port,
            "password": self.password,
            "extra": self._login + follow,
            "environ": self._environ,
        }
        if self._certificates:
            server: RedisServer = TlsRedisServer(folder, self._certificates, **options)
        else:
            server = RedisServer(folder, **options)
        return self._stack.enter_context(server)

    def _watch(self, count: int, password: str, quorum: int, down_after_ms: int) -> None:
        # No TILT, no long waits between two elections: the tests have no time for them.
        config = (
            f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} {quorum}\n"
            f"sentinel auth-pass {NAME} {self.password}\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} 4000\n"
        )
        if password:
            config += f"sentinel sentinel-pass {password}\n"
        for number in range(count):
            folder = self._folder / f"sentinel-{number}"
            sentinel = Sentinel(
                folder,
                config,
                password=password,
                certificates=self._certificates,
                environ=self._environ,
            )
            self.sentinels.append(self._stack.enter_context(sentinel))
        if count:
            wait_until(lambda: self._is_watched(count))

    def _is_watched(self, count: int) -> bool:
        """Returns True once the Sentinels know each other and the replicas."""
        for sentinel in self.sentinels:
            with sentinel.connect() as client:
                state = client.execute_command("SENTINEL MASTER", NAME)
            if (
                state["num-other-sentinels"] < count - 1
                or state["num-slaves"] < len(self.servers) - 1
            ):
                return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            if server.running():
                os.kill(server.pid, signal.SIGCONT)
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL that names the Sentinels."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        options = [f"sentinel_password={self._sentinel_password}"] * bool(self._sentinel_password)
        scheme = "redis"
        if self._certificates:
            scheme = "rediss"
            options.append(self._certificates.url_options)
        end = f"?{'&'.join(options)}" if options else ""
        return f"{scheme}+sentinel://:{self.password}@{hosts}/{NAME}/0{end}"

    def connect(self, server: RedisServer) -> redis.Redis:
        return redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=2)

    def read_replication(self, server: RedisServer) -> Mapping[str, str]:
        """Returns what a server says of its role; nothing if it does not answer."""
        try:
            with self.connect(server) as client:
                return dict(client.info("replication"))
        except redis.exceptions.RedisError:
            return {}

    def is_in_step(self, server: RedisServer) -> bool:
        """Returns True for a replica that has all that its primary had just before.

        A replica says that its link is up some milliseconds before it gets what was written since its sync began.
        """
        if (primary := self.find_primary(besides=server)) is None:
            return False
        sent = int(self.read_replication(primary).get("master_repl_offset", -1))
        info = self.read_replication(server)
        is_linked = info.get("role") == "slave" and info.get("master_link_status") == "up"
        return is_linked and 0 <= sent <= int(info["slave_repl_offset"])

    def find_primary(self, *, besides: RedisServer | None = None) -> RedisServer | None:
        """Returns the server that says that it is the primary."""
        for server in self.servers:
            if server is not besides and self.read_replication(server).get("role") == "master":
                return server
        return None

    def fail_over(self, old: RedisServer) -> RedisServer:
        """Has a primary hand over to its replica, as for maintenance; returns the new one."""
        with self.connect(old) as client:
            client.execute_command("FAILOVER")
        wait_until(lambda: self.read_replication(old).get("role") == "slave")
        new = self.find_primary(besides=old)
        assert new is not None
        return new

    def fail_over_by_sentinel(self, old: RedisServer) -> RedisServer:
        """Has the Sentinels make the replica the primary; returns it."""
        with self.sentinels[0].connect() as client:
            client.execute_command("SENTINEL FAILOVER", NAME, "COORDINATED")
        return wait_until(lambda: self._find_elected(old))

    def _find_elected(self, old: RedisServer) -> RedisServer | None:
        """Returns the new primary once all Sentinels name it, and the old one has become its replica."""
        new = self.find_primary(besides=old)
        if new is None or self.read_replication(old).get("role") != "slave":
            return None
        return new if self.is_named_by_all(new) else None

    def is_named_by_all(self, server: RedisServer) -> bool:
        """Returns True once all Sentinels name this server as the primary."""
        return all(self._ask(sentinel) == server.port for sentinel in self.sentinels)

    def _ask(self, sentinel: Sentinel) -> int:
        with sentinel.connect() as client:
            return int(client.execute_command("SENTINEL MASTER", NAME)["port"])

    def restart(self, server: RedisServer, *, follow: RedisServer) -> None:
        """Starts a killed server again, as a replica."""
        at = self.servers.index(server)
        replicaof = f"replicaof 127.0.0.1 {follow.port}\n"
        self.servers[at] = self._start_server(at, replicaof, port=server.port)

    def is_whole(self) -> bool:
        """Returns True once all but the primary are replicas in step, and the Sentinels see them all."""
        primary = self.find_primary()
        others = [server for server in self.servers if server is not primary]
        return all(map(self.is_in_step, others)) and all(
            self._sees(sentinel, len(others)) for sentinel in self.sentinels
        )

    def _sees(self, sentinel: Sentinel, count: int) -> bool:
        with sentinel.connect() as client:
            replicas = client.execute_command("SENTINEL SLAVES", NAME)
        bad = "is_sdown", "is_odown", "is_disconnected", "is_master"
        return sum(not any(each[flag] for flag in bad) for each in replicas) == count
