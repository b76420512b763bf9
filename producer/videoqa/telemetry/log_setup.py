"""Log lines of a process of ours: one handler on stderr, one form for our lines and those of libraries.

`configure_logs` is called by entry points alone. All lines, whoever wrote them, go through one chain of processors:
fields of the event and of the job, secrets out, then either JSON, one object a line, or a line for people.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import textwrap
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from videoqa.printable import printable
from videoqa.redaction import redact_secrets
from videoqa.telemetry import log_events
from videoqa.telemetry.log_context import find_texts
from videoqa.telemetry.log_event import LogEvent
from videoqa.telemetry.log_fields import CONTEXT

__all__ = [
    "LogFormat",
    "StderrHandler",
    "adopt_libraries",
    "choose_format",
    "configure_logs",
    "make_formatter",
]

LogFormat = Literal["console", "json"]
HIDDEN = "***"
MOST_FRAMES, MOST_CHARACTERS = 50, 20_000
"""Bounds of a line: frames of a traceback, and characters of one value."""
MOST_VALUES, MOST_DEPTH = 2000, 8
"""Bounds of a line: values in its fields and tracebacks, and how deep they lie in one another."""
LONGEST_SECRET = 4000
"""Characters behind a value's end that are looked at as well, so that no secret is cut in two and not known."""
_OURS = frozenset({"timestamp", "event", "trace_id", "_shown"})
"""Fields whose values nobody else writes."""
_SECRET_NAMES = frozenset(
    {"password", "passwd", "secret", "token", "authorization", "cookie", "api_key", "signature"}
)
_TEXT_NAMES = frozenset({"question", "questions_text", "answer", "prompt", "text"})
_MOST_NUMBER = 1e308
CUT = "..."
_LEAST_TEXT = 4
"""Characters of a question or answer that is looked for in lines; shorter ones would hide words of ours."""
_FIRST = ("timestamp", "level", "event", "message", "logger", *CONTEXT)
_QUIET = ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "botocore", "boto3", "s3transfer")


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that time, so that it never holds a stream that somebody closed."""

    def __init__(self, formatter: logging.Formatter) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(formatter)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The present standard error; one that takes anything where that is closed."""
        # Behind the guard of a command's streams: lines are printable already, and may have colours.
        found = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return io.StringIO() if found is None or found.closed else found

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line; one that cannot be written never ends the work that it tells of."""
        with suppress(Exception):
            self.stream.write(self.format(record) + self.terminator)
            self.flush()


class LineFormatter(ProcessorFormatter):
    """The formatter of all lines; a line that cannot be made is one line that says so, with the job's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - a text with other arguments, an object without a text
            broken = logging.LogRecord(
                record.name, logging.ERROR, record.pathname, record.lineno, "", (), None
            )
            fields = {"place": f"{record.pathname}:{record.lineno}", "reason": type(error).__name__}
            broken.msg, broken.args = log_events.LINE_BROKEN.text, fields
            broken.declared, broken.declared_fields = log_events.LINE_BROKEN, fields
            return super().format(broken)


def choose_format(wanted: LogFormat | None) -> LogFormat:
    """Returns the format that is wanted; unset: for people on a terminal, else JSON."""
    if wanted is not None:
        return wanted
    return "console" if sys.stderr is not None and sys.stderr.isatty() else "json"


def configure_logs(
    level: str, log_format: LogFormat | None = None, *, hide_text: bool = False
) -> LogFormat:
    """Sends all log lines of this process to stderr, those of libraries from WARNING up; returns the format.

    Arguments:
        level: of our own lines.
        hide_text: questions and answers stand in no line.
    """
    chosen = choose_format(log_format)
    root = logging.getLogger()
    root.handlers[:] = [StderrHandler(make_formatter(chosen, hide_text=hide_text))]
    root.setLevel(logging.WARNING)
    for name in ("videoqa", "videoqa_worker"):
        logging.getLogger(name).setLevel(level)
    adopt_libraries()
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    return chosen


def adopt_libraries() -> None:
    """Takes away the handlers that libraries gave themselves, so that their lines reach ours; repeatable.

    transformers, for one, writes to stderr by itself, in its own form.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.handlers:
            if not name.startswith(("pytest", "_pytest")):
                logger.handlers[:] = [each for each in logger.handlers if not _is_console(each)]
            logger.propagate = True
    logging.getLogger("celery.worker.consumer").setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_console(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler or isinstance(handler, logging.NullHandler)


def make_formatter(
    log_format: LogFormat, *, hide_text: bool = False, colors: bool | None = None
) -> ProcessorFormatter:
    """Makes the formatter of all lines.

    Arguments:
        colors: of lines for people; unset: on a terminal.
    """
    chain: list[Processor] = [
        _take_record,
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        ExceptionRendering(as_objects=log_format == "json"),
        Redaction(hide_text=hide_text, escapes=log_format == "console"),
    ]
    if log_format == "json":
        chain += [_order, structlog.processors.JSONRenderer(serializer=_write_json)]
    else:
        on_terminal = sys.stderr is not None and sys.stderr.isatty() if colors is None else colors
        chain += [
            _shorten,
            structlog.dev.ConsoleRenderer(
                colors=on_terminal,
                pad_event_to=0,
                event_key="message",
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    return LineFormatter(processors=chain, foreign_pre_chain=[])


def _take_record(_: WrappedLogger, __: str, found: EventDict) -> EventDict:
    """Takes name, level, text and fields of a line from its record."""
    record: logging.LogRecord = found["_record"]
    declared: LogEvent = getattr(record, "declared", log_events.LIBRARY_LINE)
    return {
        **getattr(record, "declared_fields", {}),
        "level": record.levelname.lower(),
        "event": declared.name,
        "message": found["event"],
        "logger": record.name,
        "exc_info": found.get("exc_info"),
        "_shown": declared.shown,
    }


class ExceptionRendering:
    """A processor that makes an exception either a list of objects or the text of its traceback; no local variables."""

    def __init__(self, *, as_objects: bool) -> None:
        self._as_objects = as_objects
        self._transform = ExceptionDictTransformer(show_locals=False, max_frames=MOST_FRAMES)

    def __call__(self, _: WrappedLogger, __: str, found: EventDict) -> EventDict:
        """Replaces `exc_info` by `exception`."""
        raised = found.pop("exc_info", None)
        if not raised or raised[0] is None:
            return found
        if self._as_objects:
            found["exception"] = self._transform(raised)
        else:
            text = io.StringIO()
            structlog.dev.plain_traceback(text, raised)
            # Behind spaces no line of it can pass for a line of its own.
            found["exception"] = textwrap.indent(text.getvalue().strip("\n"), "    ")
        return found


class Redaction:
    """The one processor that takes secrets out of lines: from messages, fields, tracebacks, whoever wrote them.

    Every text loses the user, password, query and fragment of URLs, and API keys, credentials and signing secrets;
    a field whose name says that it is a secret is hidden as a whole.
    """

    def __init__(self, *, hide_text: bool, escapes: bool) -> None:
        """
        Arguments:
            escapes: control characters become escapes, as JSON has its own.
        """
        self._hide_text, self._escapes = hide_text, escapes

    def __call__(self, _: WrappedLogger, __: str, found: EventDict) -> EventDict:
        """Returns the line without secrets."""
        texts = _list_spellings(find_texts()) if self._hide_text else []
        walk = _Walk(self, texts)
        return {
            name: value if name in _OURS else walk.redact(name, value)
            for name, value in found.items()
        }

    def hides(self, name: str) -> bool:
        """Tells if a field of this name is hidden as a whole."""
        return name.lower() in _SECRET_NAMES or (self._hide_text and name in _TEXT_NAMES)

    def clean(self, text: str, texts: list[str], *, lines: bool = False) -> str:
        """Returns the text without secrets and `texts`, and not longer than a line may have."""
        for each in texts:
            text = text.replace(each, HIDDEN)
        text = redact_secrets(text[: MOST_CHARACTERS + LONGEST_SECRET])[:MOST_CHARACTERS]
        if not text.isascii():  # half a character, which strict parsers of JSON refuse
            text = text.encode("utf-8", "backslashreplace").decode()
        return printable(text, lines=lines) if self._escapes else text


class _Walk:
    """The values of one line on their way through the redaction: JSON can hold what comes out, and it is bounded."""

    def __init__(self, redaction: Redaction, texts: list[str]) -> None:
        self._redaction, self._texts = redaction, texts
        self._left = MOST_VALUES

    def redact(self, name: str, value: object, depth: int = 0) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if abs(value) < _MOST_NUMBER else _describe_number(value)
        if self._redaction.hides(name):
            return HIDDEN
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._redact_all(value, depth + 1)
        return self._redaction.clean(str(value), self._texts, lines=name == "exception")

    def _redact_all(self, value: Any, depth: int) -> Any:
        if depth > MOST_DEPTH:
            return CUT
        is_mapping = isinstance(value, Mapping)
        found: list[tuple[str, Any]] = []
        for each in value.items() if is_mapping else value:
            key, one = each if is_mapping else ("", each)
            if self._left <= 0:
                found.append((CUT, CUT))
                break
            found.append(
                (self._redaction.clean(str(key), self._texts), self.redact(str(key), one, depth))
            )
        return dict(found) if is_mapping else [one for _, one in found]


def _describe_number(value: float) -> str:
    """Returns the text of a number that JSON has not, or that no parser takes."""
    return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else str(value)


def _list_spellings(texts: list[str]) -> list[str]:
    """Lists the texts as they are and as messages quote them, the longest first."""
    found = {
        spelling
        for text in texts
        if len(text) >= _LEAST_TEXT
        for spelling in (text, repr(text)[1:-1], json.dumps(text)[1:-1])
    }
    return sorted(found, key=len, reverse=True)


def _order(_: WrappedLogger, __: str, found: EventDict) -> EventDict:
    """Puts the fields of each line first."""
    del found["_shown"]
    ordered = {name: found[name] for name in _FIRST if name in found}
    for name, value in found.items():
        ordered.setdefault(name, value)
    return ordered


def _shorten(_: WrappedLogger, __: str, found: EventDict) -> EventDict:
    """Leaves out fields that the text shows, and the event's name."""
    hidden = {*found["_shown"], "event"}
    return {name: value for name, value in _order(_, __, found).items() if name not in hidden}


def _write_json(found: Mapping[str, Any], **_: Any) -> str:
    line = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    # A terminal may show the line: what would control it is written as an escape.
    return line if printable(line) == line else json.dumps(found, separators=(",", ":"))


_warning_log = logging.getLogger("py.warnings")
_uncaught_log = logging.getLogger("videoqa.uncaught")


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log_events.PYTHON_WARNING.log(
        _warning_log,
        category=category.__name__,
        place=f"{filename}:{lineno}",
        reason=str(message),
    )


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        log_events.UNCAUGHT_ERROR.log(
            _uncaught_log, thread="the program", error=error, exc_info=error
        )


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = f"thread {args.thread.name}" if args.thread else "a thread"
        log_events.UNCAUGHT_ERROR.log(
            _uncaught_log, thread=name, error=args.exc_value, exc_info=args.exc_value
        )
