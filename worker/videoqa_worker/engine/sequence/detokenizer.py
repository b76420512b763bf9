"""The text of a growing answer, and the stop strings that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Detokenizer", "StopStringBuffer", "count_held_back"]


def count_held_back(text: str, stops: Sequence[str]) -> int:
    """Returns how many of the last characters may be the beginning of a stop string."""
    return max((_match_beginning(text, stop) for stop in stops), default=0)


def _match_beginning(text: str, stop: str) -> int:
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return len(text) - at if at >= 0 else 0


class Detokenizer:
    """Decodes a growing answer in whole characters, new tokens only.

    Tokens are decoded together with a few before them, since the text of a token can depend on
    them (spaces, bytes of one character).
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._text = ""
        self._context = self._decoded = 0
        """Token at which decoding starts, and number of tokens whose text is complete."""

    def add(self, token: int) -> str:
        """Adds a token; returns all text whose characters are complete."""
        self._tokens.append(token)
        known = self._decode(self._tokens[self._context : self._decoded])
        more = self._decode(self._tokens[self._context :])
        if len(more) > len(known) and not more.endswith("\ufffd"):
            self._text += more[len(known) :]
            self._context, self._decoded = self._decoded, len(self._tokens)
        return self._text

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class StopStringBuffer:
    """Buffers text from a model server, holds back possible stop strings, and ends at the first one."""

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], None] | None) -> None:
        self._stops = stops
        self._on_text = on_text
        self._passed: list[str] = []
        self._held = ""
        """The end of the text, which may be the beginning of a stop string."""
        self.stopped = False
        """True once a stop string came; `text` ends before it."""

    def add(self, chunk: str) -> None:
        """Adds text, and passes on what cannot be part of a stop string."""
        text = self._held + chunk
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            text, self.stopped = text[: min(ends)], True
        held = 0 if self.stopped else count_held_back(text, self._stops)
        self._held = text[len(text) - held :]
        self._pass_on(text[: len(text) - held])

    def flush(self) -> None:
        """Passes on what was held back."""
        text, self._held = self._held, ""
        self._pass_on(text)

    @property
    def text(self) -> str:
        """All text before the first stop string."""
        return "".join(self._passed) + self._held

    def _pass_on(self, text: str) -> None:
        if text:
            self._passed.append(text)
            if self._on_text is not None:
                self._on_text(text)
