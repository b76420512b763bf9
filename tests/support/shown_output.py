"""Output that a page shows, compared with what a command printed: `...` stands for anything.

JSON may lack fields that were printed. In a text `...` stands for the rest of a line or a part of it, and alone in a
line for any number of lines.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["find_difference"]


def find_difference(language: str, shown: str, printed: str) -> str | None:
    """Returns the first thing that was printed otherwise, or None."""
    if language == "json":
        try:
            found = json.loads(printed)
        except ValueError:
            return f"no JSON was printed: {printed:.500}"
        return _compare(json.loads(shown), found, "the answer")
    pattern = "".join(
        "(?:.*\n)*?"
        if line == "..."
        else ".*".join(re.escape(part) for part in line.split("...")) + "\n"
        for line in shown.splitlines()
    )
    return None if re.fullmatch(pattern, printed) else f"printed: {printed:.2000}"


def _compare(shown: Any, found: Any, where: str) -> str | None:
    if isinstance(shown, dict) and isinstance(found, dict):
        pairs = [
            (found.get(name, "nothing"), each, f"{where}.{name}") for name, each in shown.items()
        ]
    elif isinstance(shown, list) and isinstance(found, list) and len(shown) == len(found):
        pairs = [(found[n], each, f"{where}[{n}]") for n, each in enumerate(shown)]
    elif isinstance(shown, str) and "..." in shown:
        pattern = ".*".join(re.escape(part) for part in shown.split("..."))
        return (
            None if re.fullmatch(pattern, str(found), re.DOTALL) else f"{where} is {found!r:.300}"
        )
    else:
        return None if shown == found else f"{where} is {found!r:.300}, shown {shown!r:.300}"
    return next((each for each in (_compare(b, a, at) for a, b, at in pairs) if each), None)
