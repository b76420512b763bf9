"""The gateway of `videoqa up`: a process on loopback, with a key that its user's programs find in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from videoqa.errors import VideoQAError
from videoqa.jobs import connect
from videoqa.settings import Settings
from videoqa_worker.embedded.process import ServerProcess, free_port

__all__ = ["Gateway", "has_gateway"]

PREFERRED_PORT = 8080
_NEEDED = ("fastapi", "uvicorn", "limits", "python_multipart")
_COMMAND = "import videoqa_command; videoqa_command.main()"


def has_gateway() -> bool:
    """Tells if the extra `videoqa[gateway]` is installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


class Gateway(ServerProcess):
    """A gateway that answers once constructed."""

    def __init__(self, folder: Path, settings: Settings, environ: Mapping[str, str]) -> None:
        """Starts the process.

        Arguments:
            settings: those of the stack's Redis.
            environ: with VIDEOQA_GATEWAY_* settings, which count.

        Raises:
            ConfigurationError: it ends at its start, or does not answer.
        """
        from videoqa.gateway import GatewaySettings

        port = environ.get("VIDEOQA_GATEWAY_PORT") or str(free_port(PREFERRED_PORT))
        own = {**environ, "VIDEOQA_GATEWAY_PORT": port}
        found = GatewaySettings.from_environment(own)
        host = "127.0.0.1" if found.gateway_host == "0.0.0.0" else found.gateway_host
        scheme = "https" if found.gateway_tls_cert else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self.key_path = folder / "gateway.key"
        self._settings = settings
        self._log_begin = 0
        log = folder / "gateway.log"
        if log.exists():
            self._log_begin = log.stat().st_size
        super().__init__(
            "the gateway",
            [sys.executable, "-P", "-c", _COMMAND, "gateway"],
            log_path=log,
            env=own,
        )
        try:
            self.wait_until(self._is_listening, timeout_s=60)
        except BaseException:
            self.stop()
            raise

    def _is_listening(self) -> bool:
        with self.log_path.open(errors="replace") as log:
            log.seek(self._log_begin)
            return "listens at" in log.read()

    def save_key(self) -> str:
        """Writes the key of this stack into its file, unless a right one is there; returns its id."""
        from videoqa.gateway.access.input_scope import EVERYTHING
        from videoqa.gateway.access.keys import KeyStore

        with connect(self._settings) as client:
            store = KeyStore(client, url=self._settings.redis_url, prefix=self._settings.prefix)
            try:
                return store.check(self.key_path.read_text().strip()).id
            except (OSError, ValueError, VideoQAError):
                made = store.create("videoqa up", ["admin"], inputs=EVERYTHING)
        new = self.key_path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(made.text + "\n")
        new.replace(self.key_path)
        return made.key.id

    def make_link(self, key_id: str) -> str:
        """Makes a link that logs a browser in once."""
        from videoqa.gateway.access.sessions import SessionStore

        with connect(self._settings) as client:
            store = SessionStore(client, url=self._settings.redis_url, prefix=self._settings.prefix)
            return f"{self.url}/login?token={store.make_login(key_id)}"
