"""Looks at files that were uploaded to a gateway."""

from __future__ import annotations

from typing import cast

import httpx

from videoqa.gateway.files.files import Files

__all__ = ["MIB", "code_of", "list_left", "usage"]

MIB = 1 << 20


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error in OpenAI's form."""
    return answer.status_code, answer.json()["error"]["code"]


def list_left(files: Files) -> list[str]:
    """Ids of all files that have bytes in their place."""
    return [file_id for file_id, _ in files.place.list_ids()]


def usage(files: Files) -> dict[str, int]:
    """Bytes that are charged."""
    charged = cast("dict[str, str]", files.index._redis.hgetall(files.index._usage))
    return {name: int(value) for name, value in charged.items() if int(value)}
