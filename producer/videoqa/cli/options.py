"""Options that all commands share, and the client through which they talk to Redis."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from videoqa.client import Client
from videoqa.errors import InvalidRequest

__all__ = ["JobId", "JsonFlag", "Timeout", "WideFlag", "open_client"]


def _check_finite(timeout_s: float | None) -> float | None:
    """Refuses `nan` and `inf` while arguments are parsed, before a job is submitted."""
    if timeout_s is not None and not math.isfinite(timeout_s):
        raise InvalidRequest(
            f"got --timeout {timeout_s}, expected a number of seconds; without it there is no limit",
            param="timeout",
        )
    return timeout_s


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job, as printed by `submit`.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        callback=_check_finite,
        metavar="S",
        help="Give up waiting after S seconds; the job continues.",
    ),
]


def open_client() -> Client:
    """Returns a client, which connects on first use."""
    return Client.from_environment()


WideFlag = Annotated[
    bool,
    typer.Option("--wide", help="Show all columns and whole cells, however wide the table is."),
]
