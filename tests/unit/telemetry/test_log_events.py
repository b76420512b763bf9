"""Each log line of the packages is a declared event with its declared fields, and the reference lists it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import videoqa
import videoqa_worker
from videoqa.telemetry import log_events as producer_events
from videoqa.telemetry.log_event import LogEvent, list_events
from videoqa.telemetry.log_fields import CONTEXT, EVERY_LINE, FIELDS
from videoqa_worker import log_events as worker_events

FOLDERS = [Path(str(module.__file__)).parent for module in (videoqa, videoqa_worker)]
EVENTS = {
    name: value
    for module in (producer_events, worker_events)
    for name, value in vars(module).items()
    if isinstance(value, LogEvent)
}
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
ALSO = {"exc_info"}


@cache
def list_calls() -> list[tuple[str, ast.Call, ast.Attribute]]:
    """Lists each call of a method that is named as one of a logger's."""
    return [
        (f"{path}:{node.lineno}", node, node.func)
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        if path.name != "log_event.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
    ]


def find_event(owner: ast.expr) -> LogEvent | None:
    return EVENTS.get(owner.attr) if isinstance(owner, ast.Attribute) else None


def test_no_line_is_written_past_the_declarations() -> None:
    loggers = {"log", "logger", "logging", "_log", "_warning_log", "_uncaught_log"}
    wrong = [
        where
        for where, _, method in list_calls()
        if isinstance(method.value, ast.Name) and method.value.id in loggers
    ]
    assert wrong == [], "declare the line as a LogEvent, and write it by its `log`"


def test_each_line_has_all_fields_of_its_event_and_no_other() -> None:
    used = set()
    for where, call, method in list_calls():
        event = find_event(method.value)
        if event is None or any(keyword.arg is None for keyword in call.keywords):
            used.add(event and event.name)
            continue
        used.add(event.name)
        given = {keyword.arg for keyword in call.keywords} - ALSO
        assert given == set(event.fields), where
    # Some are chosen at run time, and two are made of lines of others.
    chosen = {
        "library_line",
        "line_broken",
        "decoder_printed",
        "decoder_chatter",
        "request",
        "probe",
    }
    assert {event.name for event in EVENTS.values()} - used <= chosen


def test_each_field_has_one_meaning() -> None:
    for event in EVENTS.values():
        assert set(event.fields) <= FIELDS.keys(), event.name
    used = {field for event in EVENTS.values() for field in event.fields}
    assert used == FIELDS.keys()
    assert not FIELDS.keys() & (CONTEXT.keys() | EVERY_LINE.keys())
    assert all(name.islower() for name in FIELDS)


def test_no_two_events_have_one_name() -> None:
    assert len(list_events(producer_events, worker_events)) == len(EVENTS)
    one = LogEvent("ready", "info", "", "")
    with pytest.raises(ValueError, match="ready is declared twice"):
        list_events(worker_events, type("More", (), {"ONE": one}))
