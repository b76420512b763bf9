"""Text that grows, and the strings that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Growing", "may_become"]


def may_become(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters are the beginning of a stop string."""
    return max((_begun(text, stop) for stop in stops), default=0)


def _begun(text: str, stop: str) -> int:
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class Growing:
    """An answer that comes in pieces from elsewhere; ends at the first stop string."""

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], None] | None) -> None:
        self._stops = stops
        self._on_text = on_text
        self._said = 0
        self.text = ""
        self.stopped = False
        """A stop string came; `text` ends before it."""

    def add(self, piece: str) -> None:
        """Tells what surely belongs to the answer."""
        self.text += piece
        ends = [at for stop in self._stops if (at := self.text.find(stop)) >= 0]
        if ends:
            self.text, self.stopped = self.text[: min(ends)], True
        held = 0 if self.stopped else may_become(self.text, self._stops)
        self._tell(len(self.text) - held)

    def end(self) -> None:
        """Tells what was held back."""
        self._tell(len(self.text))

    def _tell(self, until: int) -> None:
        if self._on_text is not None and until > self._said:
            self._on_text(self.text[self._said : until])
            self._said = until
