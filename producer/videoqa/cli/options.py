"""What the commands have in common: options, and the client that they talk through."""

from __future__ import annotations

import math
import os
from typing import Annotated

import typer

from videoqa.cli.local_stack import here
from videoqa.client import Client
from videoqa.errors import InvalidRequest
from videoqa.settings import Settings

__all__ = ["JobId", "JsonFlag", "Timeout", "connected", "settings"]


def _finite(timeout_s: float | None) -> float | None:
    """Here and not where it is waited, so that nothing was submitted."""
    if timeout_s is not None and not math.isfinite(timeout_s):
        raise InvalidRequest(
            f"got --timeout {timeout_s}, expected a number of seconds; without it there is no limit",
            param="timeout",
        )
    return timeout_s


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
JobId = Annotated[str, typer.Argument(help="The job's id, as `submit` printed it.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", callback=_finite, help="Seconds to wait here; the job goes on after them."
    ),
]


def settings() -> Settings:
    """VIDEOQA_* variables; without VIDEOQA_REDIS_URL, a running `videoqa up` of this user."""
    return here(os.environ)


def connected() -> Client:
    return Client(settings=settings())
