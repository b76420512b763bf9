"""The parser of the broker's messages, and what it tells of those that it drops."""

from __future__ import annotations

import base64
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


def test_nothing_of_a_message_is_read_but_its_queue(reader: BellReader) -> None:
    message = make_message([[QUEUE], {"a": 1}, {"chain": [1]}], timelimit="x", eta=5)
    assert reader.read_message(message) == QUEUE
    assert reader.dropped == 0


def test_an_item_of_redis_keeps_nothing_but_its_queue(reader: BellReader) -> None:
    body = base64.b64encode(json.dumps([[QUEUE], {"a": 1}, {"chain": [1]}]).encode()).decode()
    found = reader.rewrite_item(
        json.dumps(
            {
                "body": body,
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": {"task": TASK, "timelimit": "x"},
                "properties": {
                    "body_encoding": "base64",
                    "reply_to": "somewhere",
                    "delivery_tag": {},
                },
            }
        ).encode()
    )
    assert found is not None
    item = json.loads(found)
    assert json.loads(base64.b64decode(item["body"])) == [[QUEUE], {}, {}]
    assert item["headers"] == {"task": TASK}
    assert set(item["properties"]) == {
        "body_encoding", "delivery_info", "delivery_mode", "delivery_tag", "priority",
    }  # fmt: skip
    assert item["properties"]["delivery_info"] == {"exchange": "", "routing_key": QUEUE}


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
