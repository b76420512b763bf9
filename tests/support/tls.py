"""TLS with certificates of a private authority, made for the test: before a server that has none, or in a Redis.

The Valkey of the tests' wheel is built without TLS, so `TlsFront` plays stunnel. Debian's Redis has TLS of its own;
`.ci/fetch_redis_versions.sh` unpacks it.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import trustme

from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer

__all__ = ["NO_TLS", "Certificates", "TlsFront", "TlsRedisServer", "find_tls_server"]

NO_TLS = (
    "no Redis with TLS is installed; `sh .ci/fetch_redis_versions.sh` unpacks Debian's into .venv/redis-versions "
    "without root, or install redis-server"
)


def find_tls_server() -> str | None:
    """Returns the program of a Redis or Valkey that was built with TLS; None if none is at hand."""
    fetched = sorted(Path(sys.prefix, "redis-versions").glob("*/redis-server"))
    installed = map(shutil.which, ("valkey-server", "redis-server"))
    candidates = [*map(str, fetched), *filter(None, installed)]
    return next((program for program in candidates if _has_tls(program)), None)


def _has_tls(program: str) -> bool:
    """Returns True if the server refuses a made-up directive, and not the one of TLS before it."""
    config = "tls-port 0\nmade-up-directive 1\n"
    refusal = subprocess.run(
        [program, "-"], input=config, capture_output=True, text=True, timeout=20, check=False
    )
    return "made-up-directive" in (refusal.stdout + refusal.stderr).rpartition(">>>")[2]


class Certificates:
    """Files of one authority: a server's certificate for loopback, and a client's."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.certificate, self.key = (folder / name for name in ("ca", "cert", "key"))
        self.server_certificate, self.server_key = folder / "server-cert", folder / "server-key"
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(self.ca)
        self.of_server = self.authority.issue_cert("localhost", "127.0.0.1")
        for issued, certificate, key in (
            (self.authority.issue_cert("client@example.org"), self.certificate, self.key),
            (self.of_server, self.server_certificate, self.server_key),
        ):
            issued.private_key_pem.write_to_path(key)
            issued.cert_chain_pems[0].write_to_path(certificate)

    @property
    def url_options(self) -> str:
        """The options of a URL for a server that asks clients for a certificate."""
        return f"ssl_ca_certs={self.ca}&ssl_certfile={self.certificate}&ssl_keyfile={self.key}"

    def make_redis_config(self, port: int) -> str:
        """Returns the lines of a Redis, or of a Sentinel, that speaks nothing but TLS, to its replicas as well."""
        return (
            f"port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients yes\n"
            f"tls-cert-file {self.server_certificate}\ntls-key-file {self.server_key}\n"
            f"tls-ca-cert-file {self.ca}\n"
        )


class TlsRedisServer(RedisServer):
    """A Redis that takes no connection without TLS and a client's certificate."""

    def __init__(self, folder: Path, certificates: Certificates, **options: Any) -> None:
        """
        Arguments:
            options: those of a `RedisServer`.
        """
        self._certificates = certificates
        port = options.pop("port", None) or free_port()
        extra = certificates.make_redis_config(port) + options.pop("extra", "")
        super().__init__(folder, port=port, extra=extra, **options)

    @property
    def url(self) -> str:
        plain = super().url.replace("redis:", "rediss:", 1)
        return f"{plain}?{self._certificates.url_options}"


class TlsFront:
    """Passes TLS on `port` on to a plain server; asks clients for a certificate of the same authority."""

    def __init__(self, folder: Path, to: int, *, mutual: bool = False) -> None:
        self._to = to
        made = Certificates(folder)
        self.ca, self.certificate, self.key = made.ca, made.certificate, made.key
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.of_server.configure_cert(self._context)
        if mutual:
            made.authority.configure_trust(self._context)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(
            asyncio.start_server(self._pass, "localhost", 0, ssl=self._context)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, coroutine):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.close()
