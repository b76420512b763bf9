"""Login: the gateway and the API key that `videoqa login` keeps, and the place where a client finds its jobs.

The file is its owner's alone (mode 0600), in the user's folder of settings. A key is sent to the gateway that it was
stored for, and to no other.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from videoqa.contract import DEFAULT_PORTS, split_url
from videoqa.errors import ConfigurationError
from videoqa.local_stack import find_settings, find_stack
from videoqa.redaction import redact_url
from videoqa.settings import Settings

__all__ = [
    "Login",
    "config_folder",
    "find_client_settings",
    "find_key",
    "find_login",
    "find_redis_settings",
    "name_shell_user",
]


def name_shell_user() -> str:
    """Returns the name for the user of the command line, who has no key but Redis' password."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return "shell"


@dataclass(frozen=True)
class Login:
    """A gateway, and the key for it."""

    url: str
    key: str = field(repr=False)

    @staticmethod
    def path(folder: Path) -> Path:
        return folder / "login.json"

    def save(self, folder: Path) -> Path:
        """Writes the file, readable by its owner only; returns its path."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.path(folder)
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump({"url": self.url, "api_key": self.key}, out)
        new.replace(path)
        return path

    @classmethod
    def delete(cls, folder: Path) -> bool:
        """Deletes the file; returns False if there was none."""
        try:
            cls.path(folder).unlink()
        except FileNotFoundError:
            return False
        return True

    @classmethod
    def find(cls, folder: Path) -> Login | None:
        """Returns the login that is kept, or None.

        Raises:
            ConfigurationError: the file is none of ours, or not to be read.
        """
        path = cls.path(folder)
        try:
            found = json.loads(path.read_text())
            return cls(str(found["url"]), str(found["api_key"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"{path} holds no login; run `videoqa login` again, or delete the file"
            ) from error


def config_folder(environ: Mapping[str, str]) -> Path:
    """Returns the user's folder of videoqa's settings."""
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "videoqa"


def find_login(environ: Mapping[str, str] | None = None) -> Login | None:
    """Returns the login of this user, or None."""
    folder = None
    with suppress(RuntimeError):  # this user has no home
        folder = config_folder(os.environ if environ is None else environ)
    return None if folder is None else Login.find(folder)


def find_key(url: str, environ: Mapping[str, str] | None = None) -> SecretStr | None:
    """Returns the key for a gateway: VIDEOQA_API_KEY, or that of a login at the same gateway."""
    environ = os.environ if environ is None else environ
    if given := environ.get("VIDEOQA_API_KEY"):
        return SecretStr(given)
    login = find_login(environ)
    is_same = login is not None and _find_origin(login.url) == _find_origin(url)
    return SecretStr(login.key) if login is not None and is_same else None


def _find_origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = split_url(url)
        return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None


def find_redis_settings(command: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Returns the settings of a command that reads and writes the Redis itself.

    Raises:
        ConfigurationError: this user's jobs are behind a gateway, and no Redis is named; that of a running
            `videoqa up` is another fleet's, unless the gateway is its own.
    """
    environ = os.environ if environ is None else environ
    url = find_client_settings(environ).url
    stack = find_stack(environ)
    is_stacks = (
        url is not None
        and stack is not None
        and stack.gateway_url is not None
        and _find_origin(stack.gateway_url) == _find_origin(url)
    )
    if url is not None and not environ.get("VIDEOQA_REDIS_URL") and not is_stacks:
        raise ConfigurationError(
            f"`videoqa {command}` needs the Redis of the jobs, got the gateway {redact_url(url)} alone; run it where "
            "VIDEOQA_REDIS_URL is set, such as beside the gateway"
        )
    return find_settings(environ)


def find_client_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Returns the settings of a client, from VIDEOQA_* variables and what runs or is kept on this machine.

    The jobs are at VIDEOQA_URL; without it at VIDEOQA_REDIS_URL; without both at the gateway of a login, or in the
    Redis of a running `videoqa up`.
    """
    environ = os.environ if environ is None else environ
    found = find_settings(environ)
    if found.url is None and not environ.get("VIDEOQA_REDIS_URL"):
        login = find_login(environ)
        if login is not None:
            found = found.model_copy(update={"url": login.url})
    if found.url is not None and found.api_key is None:
        found = found.model_copy(update={"api_key": find_key(found.url, environ)})
    return found
