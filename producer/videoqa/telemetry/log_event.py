"""LogEvent: a log line that was declared, with its name, level, text, meaning and fields.

An event is written through a logger of `logging`: in another program it is an ordinary line, and where
`configure_logs` was called, its name and fields stand in the line as such.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Level", "LogEvent", "list_events"]

Level = Literal["debug", "info", "warning", "error", "critical"]
_PLACE = re.compile(r"%\((\w+)\)")


@dataclass(frozen=True)
class LogEvent:
    """A declared log line. Its text is for people and may change; its name and fields are for programs."""

    name: str
    level: Level
    text: str
    """The line for people, with `%(field)s` for the fields that it shows."""
    meaning: str
    """The reason for the line, and the next step where one is needed, for the reference."""
    also: tuple[str, ...] = ()
    """Fields that the text does not show."""
    shown: tuple[str, ...] = field(init=False)
    """Fields that the text shows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", tuple(dict.fromkeys(_PLACE.findall(self.text))))

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields, those of the text first."""
        return (*self.shown, *self.also)

    def log(
        self,
        logger: logging.Logger,
        *,
        exc_info: BaseException | bool | None = None,
        **fields: object,
    ) -> None:
        """Writes the line.

        Arguments:
            exc_info: the exception whose traceback belongs to it; True: the one that is being handled.
            fields: each declared one.
        """
        logger.log(
            logging.getLevelNamesMapping()[self.level.upper()],
            self.text,
            *([fields] if fields else []),
            exc_info=exc_info,
            extra={"declared": self, "declared_fields": fields},
            stacklevel=2,
        )


def list_events(*modules: object) -> list[LogEvent]:
    """Lists the events that modules declare.

    Raises:
        ValueError: two have the same name.
    """
    found: dict[str, LogEvent] = {}
    for event in _walk(modules):
        if found.setdefault(event.name, event) is not event:
            raise ValueError(f"event {event.name} is declared twice")
    return list(found.values())


def _walk(modules: Iterable[object]) -> Iterable[LogEvent]:
    for module in modules:
        yield from (each for each in vars(module).values() if isinstance(each, LogEvent))
