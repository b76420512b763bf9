"""The parser of the broker's messages, and what it tells of those that it drops."""

from __future__ import annotations

import json
import logging

import pytest
from kombu.message import Message

from videoqa.broker import TASK
from videoqa_worker.service.bell_reader import BellReader

QUEUE = "videoqa.default.interactive"


@pytest.fixture
def reader() -> BellReader:
    return BellReader([QUEUE])


def make_message(body: object, **headers: object) -> Message:
    return Message(
        body=json.dumps(body),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": TASK, **headers},
        properties={"reply_to": "somewhere", "delivery_tag": "1"},
    )


def test_a_message_keeps_nothing_but_its_bell(reader: BellReader) -> None:
    message = make_message([["job_1", 2, 3, QUEUE], {"a": 1}, {"chain": [1]}], timelimit="x", eta=5)
    assert reader.rewrite_message(message)
    assert message.decode() == [["job_1", 2, 3, QUEUE], {}, {}]
    assert message.headers == {
        "id": "job_1.2.3",
        "lang": "py",
        "root_id": "job_1.2.3",
        "task": TASK,
    }
    assert message.properties == {"delivery_tag": "1"}


@pytest.mark.parametrize(
    "item",
    [
        b"redis://:hunter2@10.0.0.1/0",
        b'{"aws": "AKIAIOSFODNN7EXAMPLE", "k": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}',
        b"\x1b]0;title\x07\x9b31m\r\n",
        "\u202e\u2066".encode(),
        b"x" * 100_000,
    ],
)
def test_the_log_shows_the_first_bytes_in_print_and_no_secret(
    reader: BellReader, item: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert reader.rewrite_item(item) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert caplog.records[0].levelno == logging.WARNING
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 300
    for secret in ("hunter2", "AKIA", "wJal"):
        assert secret not in line
    assert reader.dropped == 3


def test_a_foreign_message_of_100_kb_is_read_in_no_time(reader: BellReader) -> None:
    item = b'{"properties": {}, "headers": {"task": "' + b"a" * 60_000 + b'"}, "body": ""}'
    assert reader.rewrite_item(item) is None
    assert reader.rewrite_item(b"[" * 100_000) is None
