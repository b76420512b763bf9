"""The bound on what a store writes about an error, before boto3 parses it."""

from __future__ import annotations

from typing import Any

__all__ = ["bound_error_bodies"]

_MAX_BYTES = 65_536
_MAX_MARKS = 500
"""An error of S3 has some twenty tags; boto3 recurses into them, and Python's stack ends at 1,000."""


def bound_error_bodies(client: Any) -> None:
    """Has a client of S3 take an error whose XML no store would write by its status alone."""
    client.meta.events.register("before-parse.s3", _drop_strange_body)


def _drop_strange_body(response_dict: dict[str, Any], **_: Any) -> None:
    body = response_dict["body"]
    if response_dict["status_code"] < 300 or not isinstance(body, bytes):
        return
    # A NUL: UTF-16, in which a declaration of entities looks different.
    is_strange = b"<!" in body or b"\0" in body or body.count(b"<") > _MAX_MARKS
    if len(body) > _MAX_BYTES or is_strange:
        response_dict["body"] = b""
