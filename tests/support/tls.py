"""TLS before a server that has none, with certificates of a private authority, made for the test.

The Valkey of the tests' wheel is built without TLS, so this plays stunnel.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import trustme

__all__ = ["TlsFront"]


class TlsFront:
    """Passes TLS on `port` on to a plain server; asks clients for a certificate of the same authority."""

    def __init__(self, folder: Path, to: int, *, mutual: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.ca, self.certificate, self.key = (folder / name for name in ("ca", "cert", "key"))
        authority, self._to = trustme.CA(), to
        authority.cert_pem.write_to_path(self.ca)
        of_client = authority.issue_cert("client@example.org")
        of_client.private_key_pem.write_to_path(self.key)
        of_client.cert_chain_pems[0].write_to_path(self.certificate)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        if mutual:
            authority.configure_trust(self._context)
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
