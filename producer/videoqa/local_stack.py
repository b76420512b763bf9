"""LocalStack: a JSON file by which commands and clients find the `videoqa up` of another shell.

Only its owner can read it, since it holds the password of the stack's Redis. `up` of the worker's
package writes it as soon as that Redis answers, while the model still loads.

Here is also the advice of messages about Redis: it depends on where its URL came from, which is looked up
when something has gone wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from videoqa.redaction import redact_url
from videoqa.settings import DEFAULT_REDIS_URL, Settings

__all__ = [
    "LocalStack",
    "advise_unreachable",
    "describe_address",
    "find_settings",
    "find_stack",
    "is_stack_for",
    "name_setting",
    "server_address",
    "state_folder",
]

Origin = Literal["variable", "stack", "default", "code"]


def find_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Returns settings from VIDEOQA_* variables; without VIDEOQA_REDIS_URL those of a running `videoqa up`."""
    environ = os.environ if environ is None else environ
    found = Settings.from_environment(environ)
    stack = None if environ.get("VIDEOQA_REDIS_URL") else find_stack(environ)
    if stack is None:
        return found
    # Its worker has its own prefix and no other broker, whatever the variables of this shell are.
    place = {
        "redis_url": stack.redis_url,
        "redis_read_url": None,
        "broker_url": None,
        "prefix": stack.prefix,
        "sheet_output": stack.sheet_output or found.sheet_output,
    }
    return found.model_copy(update=place)


def find_stack(environ: Mapping[str, str] | None = None) -> LocalStack | None:
    """Returns the `videoqa up` of this user that runs now, or None."""
    try:
        return LocalStack.find(state_folder(os.environ if environ is None else environ))
    except RuntimeError:  # this user has no home
        return None


def is_stack_for(url: str, model: str | None) -> bool:
    """Returns True if the URL is that of the `videoqa up` that runs here, and it serves the model."""
    stack = find_stack()
    return stack is not None and stack.redis_url == url and model in (None, stack.model)


def _find_origin(url: str) -> Origin:
    """Returns where a URL came from, as far as it can be told from this process's environment."""
    if os.environ.get("VIDEOQA_REDIS_URL") == url:
        return "variable"
    stack = find_stack()
    if stack is not None and stack.redis_url == url:
        return "stack"
    is_default = url == DEFAULT_REDIS_URL and not os.environ.get("VIDEOQA_REDIS_URL")
    return "default" if is_default else "code"


def describe_address(url: str) -> str:
    """Returns "Redis at HOST:PORT", with the place that the URL came from if nobody named it."""
    origins = {
        "variable": "",
        "stack": " (of the running `videoqa up`)",
        "default": " (the default; VIDEOQA_REDIS_URL is not set)",
        "code": "",
    }
    return f"Redis at {server_address(url)}{origins[_find_origin(url)]}"


def name_setting(url: str) -> str:
    """Returns the name of what has to be changed for another URL."""
    if os.environ.get("VIDEOQA_REDIS_READ_URL") == url != os.environ.get("VIDEOQA_REDIS_URL"):
        return "VIDEOQA_REDIS_READ_URL"
    named = {"variable": "VIDEOQA_REDIS_URL", "default": "VIDEOQA_REDIS_URL"}
    return named.get(_find_origin(url), "the URL of this client")


def advise_unreachable(url: str) -> str:
    """Returns the next step for a Redis that does not answer."""
    stack = find_stack()
    match _find_origin(url):
        case "variable":
            unset = ", or unset it to use the `videoqa up` that runs here" if stack else ""
            return f"start that server, or correct VIDEOQA_REDIS_URL{unset}"
        case "stack":
            pid = stack.pid if stack else "?"
            return f"end `videoqa up` (process {pid}) with Ctrl-C, and start it again"
        case "default" if stack is None:
            return "start the local stack with `videoqa up`, or set VIDEOQA_REDIS_URL"
        case "default":
            return "try again with the `videoqa up` that runs here now: Client.from_environment() finds it"
        case _:
            found = (
                "; Client.from_environment() finds the `videoqa up` that runs here" if stack else ""
            )
            return f"start that server, or correct the URL of this client{found}"


def server_address(url: str) -> str:
    """Returns host and port of a Redis URL, without its password, as messages may show them."""
    if "://" not in url:
        return "no host"
    found = []
    for shown in redact_url(url).split(";"):
        scheme, _, rest = shown.partition("://")
        found.append(rest if scheme == "unix" else rest.partition("/")[0] or "no host")
    return "an unreadable URL" if "***" in found else ", ".join(found)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Returns the folder of a local stack's data: VIDEOQA_HOME, or one in the user's state folder."""
    if environ.get("VIDEOQA_HOME"):
        return Path(environ["VIDEOQA_HOME"])
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "videoqa"


@dataclass(frozen=True)
class LocalStack:
    """Address and model of a running `videoqa up`."""

    redis_url: str
    pid: int
    model: str
    prefix: str = "videoqa"
    gateway_url: str | None = None
    """Address of its gateway; None: it has none."""
    sheet_output: str | None = None
    """URL template of its sheets."""

    @staticmethod
    def _path(folder: Path) -> Path:
        return folder / "stack.json"

    def save(self, folder: Path) -> None:
        """Writes the file, once the stack's Redis answers."""
        path = self._path(folder)
        new = path.with_suffix(
            ".new"
        )  # renamed when it is whole: a command may read it at any moment
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(asdict(self), out)
        new.replace(path)

    @classmethod
    def delete(cls, folder: Path) -> None:
        """Deletes the file, at the end of `videoqa up`."""
        cls._path(folder).unlink(missing_ok=True)

    @classmethod
    def find(cls, folder: Path) -> LocalStack | None:
        """Returns the stack that runs now, or None."""
        try:
            stack = cls(**json.loads(cls._path(folder).read_text()))
            os.kill(stack.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return stack
