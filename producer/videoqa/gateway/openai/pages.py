"""Pages of lists, in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["make_page"]


def make_page(data: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Makes a page of described things, of which `last_id` is the `after` of the next one."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
