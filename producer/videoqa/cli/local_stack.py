"""The local stack's note: how `videoqa ask` in one shell finds the `videoqa up` of another.

A JSON file, readable by its owner only, since it holds the password of the stack's Redis.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from videoqa.settings import DEFAULT_REDIS_URL, Settings

__all__ = ["LocalStack", "here", "home"]


def here(environ: Mapping[str, str]) -> Settings:
    """VIDEOQA_* variables; without VIDEOQA_REDIS_URL, a running `videoqa up` of this user."""
    found = Settings.from_environment(environ)
    if found.redis_url == DEFAULT_REDIS_URL and not environ.get("VIDEOQA_REDIS_URL"):
        stack = LocalStack.find(home(environ))
        if stack is not None:
            return found.model_copy(update={"redis_url": stack.redis_url})
    return found


def home(environ: Mapping[str, str]) -> Path:
    """Where a local stack keeps its data: VIDEOQA_HOME, or the user's state folder."""
    if environ.get("VIDEOQA_HOME"):
        return Path(environ["VIDEOQA_HOME"])
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "videoqa"


@dataclass(frozen=True)
class LocalStack:
    """A running `videoqa up`."""

    redis_url: str
    pid: int
    model: str

    @staticmethod
    def _path(folder: Path) -> Path:
        return folder / "stack.json"

    def save(self, folder: Path) -> None:
        path = self._path(folder)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(asdict(self), out)

    @classmethod
    def forget(cls, folder: Path) -> None:
        cls._path(folder).unlink(missing_ok=True)

    @classmethod
    def find(cls, folder: Path) -> LocalStack | None:
        """The stack that runs now, if one does."""
        try:
            stack = cls(**json.loads(cls._path(folder).read_text()))
            os.kill(stack.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return stack
