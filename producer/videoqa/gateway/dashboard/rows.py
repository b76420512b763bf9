"""Rows of a page whose data are all at hand: those with a text, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["has_text", "take_rows"]

T = TypeVar("T")


def has_text(text: str, *fields: str | None) -> bool:
    """Tells if one of the fields has a text in it, in any case."""
    return any(text.casefold() in (field or "").casefold() for field in fields)


def take_rows(rows: Sequence[T], start: int, most: int) -> tuple[Sequence[T], int | None]:
    """Returns a page of rows, and the start of the next one; None: there is none."""
    end = start + most
    return rows[start:end], end if len(rows) > end else None
