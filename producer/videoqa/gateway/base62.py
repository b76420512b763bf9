"""Base 62: random text of digits and letters, which sorts as its numbers do."""

from __future__ import annotations

import secrets

__all__ = ["ALPHABET", "draw"]

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def draw(digits: int) -> str:
    """Returns random digits, of 5.95 bits each."""
    return "".join(secrets.choice(ALPHABET) for _ in range(digits))
