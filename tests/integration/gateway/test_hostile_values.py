"""Values that break parsers, clocks and encodings: each is refused with its field, and nothing is a fault of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Connect = Callable[..., httpx.Client]

ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}
PART = {"type": "video_url", "video_url": {"url": "https://a.org/x.mp4"}}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": [PART, {"type": "text", "text": "What?"}]}]
}


def spell(body: dict[str, Any], **texts: str) -> str:
    """Returns a body in which some fields are these texts, which Python itself would not write."""
    fields = {name: json.dumps(value) for name, value in body.items()} | texts
    return "{" + ",".join(f'"{name}": {text}' for name, text in fields.items()) + "}"


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("admin")


def post(http: httpx.Client, path: str, body: str) -> tuple[int, str, str | None]:
    answer = http.post(path, content=body.encode(), headers={"content-type": "application/json"})
    found = answer.json()
    error = found.get("error", found)
    assert "Traceback" not in answer.text
    return answer.status_code, error.get("code"), error.get("param")


WRONG = [
    ("start_by", '"9999-12-31T23:59:59-14:00"'),
    ("start_by", '"0001-01-01T00:00:00+14:00"'),
    ("start_by", "0"),
    ("start_by", '"0"'),
    ("stream", '"yes"'),
    ("stream", "1"),
    ("timeout_s", '"60"'),
    ("timeout_s", "1e999"),
    ("timeout_s", "true"),
    ("max_attempts", "3.5"),
    ("generation", '{"seed": "1"}'),
    ("sampling", '{"frames": "8"}'),
    ("webhook", '{"url": "https://a.org", "events": "job.failed"}'),
]
BROKEN = [
    '{"\\ud800": 1}',
    '{"jobs": [{"\\udfff": "\\ud800"}]}',
    '{"seed": ' + "9" * 100_000 + "}",
    '{"a": {"b": 1, "b": 2}}',
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
    '"\\ud83d"',
    "{}\x00",
    "\ufeff{}",
]


def test_a_value_of_another_type_is_refused_with_its_field(http: httpx.Client) -> None:
    for name, text in WRONG:
        status, code, param = post(http, "/v1/jobs", spell(ASKED, **{name: text}))
        assert (status, code) == (400, "invalid_request"), f"{name}: {text}"
        assert str(param).split(".")[0] == name


def test_a_webhook_with_a_list_of_events_is_taken(http: httpx.Client) -> None:
    webhook = '{"url": "https://a.org", "events": ["job.failed"]}'
    assert post(http, "/v1/jobs", spell(ASKED, webhook=webhook))[0] == 202


def test_json_that_breaks_parsers_is_refused(http: httpx.Client) -> None:
    for path in ("/v1/jobs", "/v1/jobs:batch", "/v1/chat/completions"):
        for text in BROKEN:
            status, code, _ = post(http, path, text)
            assert (status, code) == (400, "invalid_request"), f"{path}: {text[:40]}"


def test_half_a_pair_is_refused_and_a_whole_one_is_taken(http: httpx.Client) -> None:
    assert post(http, "/v1/chat/completions", spell(CHAT, model='"\\ud800"'))[0] == 400
    body = spell(ASKED, custom_id='"\\ud83d\\ude00"')
    answer = http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.json()["custom_id"] == "😀"


QUERIES = [
    ("/v1/jobs?since=0.5", "since"),
    ("/v1/jobs?until=2026-11-30", "until"),
    ("/v1/jobs?since=2026-11-30T00:00:00", "since"),
    ("/v1/jobs?limit=ten", "limit"),
    ("/v1/jobs?limit=" + "9" * 10_000, "limit"),
    ("/v1/jobs?cursor=%00", "cursor"),
    ("/v1/usage?to=0", "to"),
    ("/v1/usage?from=2026-11-30T00:00:00", "from"),
]
ODD = (
    "since=0001-01-01T00:00:00%2B14:00", "until=9999-12-31T23:59:59-14:00", "tag=%00", "model=%FF",
)  # fmt: skip


def test_a_query_of_another_type_is_refused(http: httpx.Client) -> None:
    for path, param in QUERIES:
        answer = http.get(path)
        assert (answer.status_code, answer.json()["param"]) == (400, param), answer.text
        assert len(answer.content) < 2_000
    for query in ODD:
        assert http.get(f"/v1/jobs?{query}").status_code == 200, query


def test_a_last_event_id_that_is_none_gets_a_snapshot(http: httpx.Client) -> None:
    job_id = http.post("/v1/jobs", json=ASKED).json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    for after in ("x", "-1", "1-", "$", "9" * 30, "1-" + "9" * 20, "9" * 5_000):
        answer = http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": after})
        assert (answer.status_code, "snapshot" in answer.text) == (200, True), after[:40]


def test_a_message_has_no_control_characters(http: httpx.Client) -> None:
    for name in ("%00", "%0d%0aX:%20y", "%1b%5b31m"):
        detail = http.get(f"/v1/jobs/{name}").json()["detail"]
        assert detail.isprintable(), detail
