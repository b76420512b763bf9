"""Groups of failures: those with one code whose messages are equal, but for the numbers, names and URLs in them."""

from __future__ import annotations

import hashlib
import re

__all__ = ["digest_group"]

_VARIABLE = re.compile(
    r"""\w[\w+.-]*://[^\s'"<>,;]+"""  # a URL
    r"""|'[^']*'|"[^"]*\""""
    r"""|(?<![\w/])/[^\s,;:'"]+"""  # a path
    r"""|[\w.:-]*\d[\w.:-]*"""  # numbers, ids, names of hosts with numbers
)
_LENGTH = 500
"""Characters of a message that are compared."""


def digest_group(code: str, message: str) -> str:
    """Returns eight hexadecimal digits that failures of the same kind share."""
    kind = f"{code}\n{_VARIABLE.sub('*', message[:_LENGTH])}"
    return hashlib.sha256(kind.encode(errors="replace")).hexdigest()[:8]
