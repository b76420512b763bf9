"""Parts: the output of a batch, stored in parts of some hundred lines as they are finished.

Each line of a part begins with `o` or `e`, for the file that it belongs to. A part is written whole or not at all, and
anew by another process it is the same, so that no line is twice in the files that are made of the parts.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from videoqa.gateway.batches.record import BatchRecord, Tally
from videoqa.gateway.batches.store import BatchStore, Part
from videoqa.gateway.files.files import Files

__all__ = ["LINES", "LineOutcome", "OutputParts", "make_outcome"]

LINES = 200
"""Lines of a part."""


@dataclass(frozen=True)
class LineOutcome:
    """The outcome of a line, as its line of the output or the error file."""

    text: bytes
    tally: Tally
    code: str = ""
    """Code of the error, of a line that has failed."""
    message: str = ""

    @property
    def is_completed(self) -> bool:
        return bool(self.tally.completed)


def make_outcome(
    batch_id: str,
    index: int,
    custom_id: str,
    *,
    response: dict[str, Any] | None = None,
    error: dict[str, str] | None = None,
    tokens: tuple[int, int] = (0, 0),
) -> LineOutcome:
    """Makes the outcome of a line.

    Arguments:
        response: what the chat was answered, with its status.
        error: why there was no answer at all.
        tokens: of the prompt and of the answer.
    """
    line = {
        "id": f"batch_req_{batch_id.removeprefix('batch_')}_{index}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    is_completed = response is not None and response["status_code"] == 200
    tally = Tally(int(is_completed), int(not is_completed), *tokens)
    failure = error or ((response or {}).get("body") or {}).get("error") or {}
    code, message = ("", "") if is_completed else (failure.get("code"), failure.get("message"))
    text = json.dumps(line, ensure_ascii=False).encode()
    return LineOutcome(text, tally, code or ("" if is_completed else "unknown"), message or "")


@dataclass
class _Open:
    """A part of which not all lines have their outcome."""

    outcomes: dict[int, LineOutcome] = field(default_factory=dict)


class OutputParts:
    """The parts of one batch; calls block."""

    def __init__(self, record: BatchRecord, total: int, store: BatchStore, files: Files) -> None:
        self._record = record
        self._total = total
        self._store = store
        self._place = files.place
        self._hide = files.urls.hide_bytes
        self._stored = store.read_parts(record.id)
        self._open: dict[int, _Open] = {}
        self.tally = Tally()
        """All lines that have their outcome."""
        for one in self._stored.values():
            self.tally.add(one.tally)

    def has(self, index: int) -> bool:
        """Tells if the part of a line is stored."""
        return index // LINES in self._stored

    def add(self, index: int, outcome: LineOutcome) -> None:
        """Takes a line's outcome; stores its part if it is the last one of it."""
        number = index // LINES
        part = self._open.setdefault(number, _Open())
        part.outcomes[index] = outcome
        self.tally.add(outcome.tally)
        if len(part.outcomes) == min(LINES, self._total - number * LINES):
            self._store_part(number, self._open.pop(number))

    def _store_part(self, number: int, part: _Open) -> None:
        tally, data = Tally(), bytearray()
        for _, outcome in sorted(part.outcomes.items()):
            tally.add(outcome.tally)
            data += (b"o" if outcome.is_completed else b"e") + self._hide(outcome.text) + b"\n"
        # A name of its own, if two processes store the part.
        name = f"part-{number:05}-{secrets.token_hex(8)}"
        writer = self._place.open(self._record.parts_id, name)
        try:
            for start in range(0, len(data), self._place.piece_bytes):
                writer.write(bytes(data[start : start + self._place.piece_bytes]))
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        self._stored[number] = Part(name, tally)
        self._store.add_part(self._record.id, number, self._stored[number])

    def read(self, *, completed: bool) -> Iterator[bytes]:
        """Yields the lines of the output file, or of the error file, a part at a time."""
        mark = b"o" if completed else b"e"
        stored = self._store.read_parts(self._record.id)
        for _, part in sorted(stored.items()):
            if not (part.tally.completed if completed else part.tally.failed):
                continue
            held = b"".join(self._place.read(self._record.parts_id, part.name, 0, 1 << 40))
            lines = held.split(b"\n")
            yield b"".join(line[1:] + b"\n" for line in lines if line[:1] == mark)
