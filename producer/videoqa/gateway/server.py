"""The gateway's process: uvicorn with our settings, until a signal."""

from __future__ import annotations

import logging
import resource
import socket
from typing import Any

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from videoqa.errors import ConfigurationError
from videoqa.gateway.app import make_app
from videoqa.gateway.http.connection import GatewayConnection
from videoqa.gateway.http.prefix import Prefix
from videoqa.gateway.settings import GatewaySettings
from videoqa.net.h11_patterns import make_parser_linear
from videoqa.telemetry import log_events

__all__ = ["GatewayServer"]

log = logging.getLogger(__name__)

OTHER_FILES = 200
"""Files that the process opens besides its callers' connections: those to Redis and the store, uploads."""
make_parser_linear()


class GatewayServer(uvicorn.Server):
    """Serves one app; the port is taken before the server starts, so that its address is known."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Takes the port.

        Raises:
            ConfigurationError: it is taken by another program, or not this user's.
        """
        self._app = make_app(settings)
        self.socket = _bind(settings)
        host, port = self.socket.getsockname()[:2]
        scheme = "https" if settings.gateway_tls_cert else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        super().__init__(
            uvicorn.Config(
                _wrap(self._app, settings),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,  # longer than the balancer's, or it meets a connection that has just closed
                timeout_graceful_shutdown=max(1, round(settings.gateway_drain_s)),
                h11_max_incomplete_event_size=64_000,
                proxy_headers=False,
                ssl_certfile=settings.gateway_tls_cert,
                ssl_keyfile=settings.gateway_tls_key,
                http=_make_protocol(settings),
                loop="asyncio",  # the one that the tests run, also where uvloop is installed
                ws="none",
                lifespan="on",
            )
        )

    def run_until_signal(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        log_events.GATEWAY_LISTENS.log(log, address=self.url)
        self.run(sockets=[self.socket])

    def handle_exit(self, sig: int, frame: object) -> None:
        """Ends streams at once, so that they hold up nobody; then as uvicorn does."""
        resources = getattr(self._app.state, "resources", None)
        if resources is not None:
            resources.stop_soon()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def _wrap(app: Any, settings: GatewaySettings) -> Any:
    """Returns the app behind what proxies say of their callers. `Prefix` is outermost: it needs the proxy's address."""
    inner: Any = ProxyHeadersMiddleware(app, settings.gateway_proxies)
    return Prefix(inner, own=settings.gateway_prefix, proxies=settings.gateway_proxies.split(","))


def _make_protocol(settings: GatewaySettings) -> type[GatewayConnection]:
    """Makes the class of the server's connections, with as many as it may have files open, but a few."""
    files = _raise_file_limit()
    most = min(settings.gateway_connections, max(10, files - OTHER_FILES))
    return type("Connection", (GatewayConnection,), {"most": most})


def _raise_file_limit() -> int:
    """Raises the number of files that this process may open to the most that the system allows it; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 16)
    if soft < hard:
        try:
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
        except (OSError, ValueError):
            return soft
    return hard


def _bind(settings: GatewaySettings) -> socket.socket:
    host, port = settings.gateway_host, settings.gateway_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY: else each answer waits 40 ms for an acknowledgement.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)  # so that callers who read the address at once are not refused
    except OSError as error:
        found.close()
        raise ConfigurationError(
            f"VIDEOQA_GATEWAY_PORT={port}: {host} port {port} cannot be listened at: {error.strerror}; choose another "
            "one, or end the program that has it",
            param="gateway_port",
        ) from error
    found.setblocking(False)
    return found
