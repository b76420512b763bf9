"""LocalStack: a JSON file by which `videoqa ask` in one shell finds the `videoqa up` of another.

Only its owner can read it, since it holds the password of the stack's Redis. Only commands write and
read it: `up` of the worker's package, and all that need Redis.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from videoqa.settings import DEFAULT_REDIS_URL, Settings

__all__ = ["LocalStack", "find_settings", "state_folder"]


def find_settings(environ: Mapping[str, str]) -> Settings:
    """Returns settings from VIDEOQA_* variables; VIDEOQA_REDIS_URL defaults to a running `videoqa up`."""
    found = Settings.from_environment(environ)
    if found.redis_url == DEFAULT_REDIS_URL and not environ.get("VIDEOQA_REDIS_URL"):
        stack = LocalStack.find(state_folder(environ))
        if stack is not None:
            return found.model_copy(update={"redis_url": stack.redis_url})
    return found


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

    @staticmethod
    def _path(folder: Path) -> Path:
        return folder / "stack.json"

    def save(self, folder: Path) -> None:
        """Writes the file, once the stack is ready."""
        path = self._path(folder)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(asdict(self), out)

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
