"""Batches by OpenAI's own client: a real gateway and files, and workers that are played through the ledger."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import redis
from openai import OpenAI
from openai.types import Batch
from support.chats import TEXT, VIDEO, ask, list_jobs
from support.node import NodeClient, needs_openai_node
from support.processes import wait_until
from support.worker import result_of

from videoqa.client import Client
from videoqa.contract import Failure
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.batches import batch_loop, parts, runner
from videoqa.gateway.files.files import Files
from videoqa.jobs import Ledger, queue_name
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOOK_S", 0.05)
    monkeypatch.setattr(runner, "RENEW_S", 0.1)
    monkeypatch.setattr(batch_loop, "POLL_S", 0.05)
    monkeypatch.setattr(parts, "LINES", 10)


@pytest.fixture
def ai(gateway: GatewayServer, keys: KeyStore) -> Iterator[OpenAI]:
    key = keys.create("ai", ["submit", "read"], tenant="a").text
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=30) as found:
        yield found


def make_line(number: int, **fields: Any) -> dict[str, Any]:
    body = ask(VIDEO, {"type": "text", "text": f"What is number {number}?"})
    line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions"}
    return {**line, "body": body, **fields}


def write(*lines: Any) -> bytes:
    texts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    return b"".join(text + b"\n" for text in texts)


def start(ai: OpenAI, content: bytes, **fields: Any) -> Batch:
    file = ai.files.create(file=("lines.jsonl", content), purpose="batch")
    return ai.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **fields
    )


def wait(ai: OpenAI, batch: Batch, *states: str) -> Batch:
    def look() -> Batch | None:
        found = ai.batches.retrieve(batch.id)
        return found if found.status in (states or ENDED) else None

    return wait_until(look)


def read(ai: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file by their custom ids, each of which is there once."""
    assert file_id is not None
    lines = [json.loads(line) for line in ai.files.content(file_id).text.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


@contextmanager
def workers(
    ledger: Ledger,
    *,
    fails: Callable[[str], bool] = lambda _: False,
    tenants: tuple[str, ...] = ("a",),
    message: str = "404",
) -> Iterator[Counter[str]]:
    """Workers that answer bulk jobs with their question, and count how often each is asked."""
    stop = threading.Event()
    asked: Counter[str] = Counter()
    queue = queue_name(ledger.keys.prefix, None, "bulk")

    def work() -> None:
        token = 0
        while not stop.is_set():
            token += 1
            claim = ledger.claim([queue], worker="host:1", lease_s=60, token=f"w{token}").claim
            if claim is None:
                stop.wait(0.02)
                continue
            question = claim.request.questions[0].text
            asked[question] += 1
            if fails(question):
                failure = Failure(
                    code="source_not_found", message=message, attempt=1, param="inputs.0.url"
                )
                ledger.fail(claim.job_id, claim.token, failure, delay_s=0)
            else:
                result = result_of(claim, q1=f"answer to {question}")
                ledger.finish(claim.job_id, claim.token, result=result, result_url="u")

    thread = threading.Thread(target=work)
    thread.start()
    yield asked
    stop.set()
    thread.join(60)


def test_a_batch_is_answered_line_by_line(ai: OpenAI, ledger: Ledger) -> None:
    content = write(*(make_line(n) for n in range(25)))
    with workers(ledger, fails=lambda text: "number 7?" in text) as asked:
        made = start(ai, content, metadata={"day": "1"})
        assert (made.object, made.status, made.endpoint) == (
            "batch",
            "validating",
            "/v1/chat/completions",
        )
        assert made.expires_at is not None
        assert made.expires_at - made.created_at == 86_400
        done = wait(ai, made)
    assert (done.status, done.metadata) == ("completed", {"day": "1"})
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 25, "completed": 24, "failed": 1}
    assert done.created_at <= (done.in_progress_at or 0) <= (done.finalizing_at or 0)
    assert (done.finalizing_at or 0) <= (done.completed_at or 0)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.total_tokens) == (24, 48)
    output, errors = read(ai, done.output_file_id), read(ai, done.error_file_id)
    assert output.keys() == {f"c{n}" for n in range(25) if n != 7}
    line = output["c3"]
    assert (line["error"], line["response"]["status_code"]) == (None, 200)
    assert line["id"].startswith("batch_req_")
    body = openai.types.chat.ChatCompletion.model_validate(line["response"]["body"])
    assert body.choices[0].message.content == "answer to What is number 3?"
    assert body.id == f"chatcmpl-{line['response']['request_id']}"
    (failed,) = errors.values()
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("c7", 400)
    error = failed["response"]["body"]["error"]
    assert (error["code"], error["param"]) == (
        "source_not_found",
        "messages.0.content.0.video_url.url",
    )
    assert set(asked.values()) == {1}
    files = [one for one in ai.files.list() if one.purpose == "batch_output"]
    assert {one.id for one in files} == {done.output_file_id, done.error_file_id}


def test_a_batch_that_fails_in_all_lines_has_no_output_file(ai: OpenAI, ledger: Ledger) -> None:
    with workers(ledger, fails=lambda _: True):
        done = wait(ai, start(ai, write(make_line(0), make_line(1))))
    assert (done.status, done.output_file_id) == ("completed", None)
    assert read(ai, done.error_file_id).keys() == {"c0", "c1"}


BAD: list[tuple[Any, str, str | None]] = [
    (b"{", "invalid_json_line", None),
    (b'\xef\xbb\xbf{"custom_id": "x"}', "invalid_json_line", None),
    (b'{"custom_id": "\xff"}', "invalid_json_line", None),
    (b"[1]", "invalid_json_line", None),
    (b'{"custom_id": NaN}', "invalid_json_line", None),
    (make_line(0, custom_id=None), "missing_custom_id", "custom_id"),
    (make_line(0, custom_id=7), "invalid_custom_id", "custom_id"),
    (make_line(0, custom_id=""), "invalid_custom_id", "custom_id"),
    (make_line(0, custom_id="x" * 257), "invalid_custom_id", "custom_id"),
    (make_line(0), "duplicate_custom_id", "custom_id"),
    (make_line(3, method="GET"), "invalid_method", "method"),
    (make_line(3, url="/v1/embeddings"), "url_mismatch", "url"),
    (make_line(3, body=None), "invalid_body", "body"),
    (make_line(3, extra=1), "unknown_field", "extra"),
    (make_line(3, body=ask(stream=True)), "invalid_request", "body.stream"),
    (make_line(3, body=ask(n=2)), "invalid_request", "body.n"),
    (make_line(3, body=ask(TEXT)), "no_media", "body.messages.0.content"),
    (make_line(3, body=ask(max_tokens=0)), "invalid_request", "body.max_tokens"),
    (make_line(3, body=ask(model="other")), "model_mismatch", "body.model"),
    (
        make_line(4, body=ask({"type": "video_url", "video_url": {"url": "s3://b/x"}}, TEXT)),
        "input_not_allowed",
        "body.messages.0.content.0.video_url.url",
    ),
]  # fmt: skip
"""Lines of a file, their codes, and the fields at fault."""


def test_every_bad_line_is_named(ai: OpenAI, client: Client) -> None:
    lines = [make_line(0), *(line for line, _, _ in BAD), b"  ", make_line(1)]
    failed = wait(ai, start(ai, write(*lines)))
    assert failed.status == "failed"
    assert failed.failed_at is not None
    assert failed.errors is not None
    found = {one.line: one for one in failed.errors.data or []}
    assert list(found) == list(range(2, len(BAD) + 2))
    for number, (_, code, param) in enumerate(BAD, 2):
        assert (found[number].code, found[number].param) == (code, param), found[number]
        assert (found[number].message or "").startswith(f"line {number}: ")
    assert list_jobs(client) == []
    assert failed.output_file_id is failed.error_file_id is None


def test_files_that_are_wrong_as_a_whole_are_refused(ai: OpenAI) -> None:
    for content, code in ((b"\n\n", "empty_file"), (b"{}\n" * 50_001, "too_many_tasks")):
        failed = wait(ai, start(ai, content))
        assert failed.errors is not None
        data = failed.errors.data or []
        codes = [one.code for one in data]
        assert code in codes or codes[-1] == "more_errors"
        assert len(data) <= 1001


def test_what_is_wrong_with_a_request_is_told_at_once(ai: OpenAI, http_a: httpx.Client) -> None:
    video = ai.files.create(file=("a.mp4", b"x"), purpose="user_data")
    lines = ai.files.create(file=("a.jsonl", b"x"), purpose="batch")
    good = {
        "input_file_id": lines.id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    }  # fmt: skip
    for fields, param in (
        ({"input_file_id": "file-x"}, "input_file_id"),
        ({"input_file_id": video.id}, "input_file_id"),
        ({"input_file_id": 1}, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "x")}, "metadata"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
        ),
        ({"other": 1}, "other"),
    ):
        refused = http_a.post("/v1/batches", json=good | fields)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text


@pytest.fixture
def http_a(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


def test_batches_are_listed_and_belong_to_their_tenant(
    ai: OpenAI, connect: Connect, http_a: httpx.Client
) -> None:
    made = [start(ai, write(make_line(0))).id for _ in range(5)]
    assert [one.id for one in ai.batches.list(limit=2)] == made[::-1]
    page = http_a.get("/v1/batches", params={"after": made[2], "limit": 1}).json()
    assert [one["id"] for one in page["data"]] == [made[1]]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, made[1], made[1])
    for query in ("limit=0", "limit=101", "after=x"):
        assert http_a.get(f"/v1/batches?{query}").status_code == 400
    stranger = connect("submit", "read", tenant="b")
    assert stranger.get("/v1/batches").json()["data"] == []
    for batch_id in (made[0], "batch_" + "0" * 24, "x"):
        for method, path in (("GET", ""), ("POST", "/cancel")):
            answer = stranger.request(method, f"/v1/batches/{batch_id}{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "batch_not_found")
    operator = connect("admin")
    assert len(operator.get("/v1/batches").json()["data"]) == 5


def test_a_repeated_call_makes_one_batch(ai: OpenAI, http_a: httpx.Client) -> None:
    file = ai.files.create(file=("lines.jsonl", write(make_line(0))), purpose="batch")
    body = {
        "input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    }  # fmt: skip
    keyed = {"idempotency-key": "k"}
    first = http_a.post("/v1/batches", json=body, headers=keyed).json()
    assert http_a.post("/v1/batches", json=body, headers=keyed).json()["id"] == first["id"]
    other = http_a.post("/v1/batches", json=body | {"metadata": {"a": "b"}}, headers=keyed)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")
    bare = http_a.post("/v1/batches", json=body).json()
    retried = http_a.post("/v1/batches", json=body, headers={"x-stainless-retry-count": "1"}).json()
    again = http_a.post("/v1/batches", json=body, headers={"x-stainless-retry-count": "0"}).json()
    assert retried["id"] == bare["id"]
    assert len({first["id"], bare["id"], again["id"]}) == 3


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_a_batch_that_ends_early_has_what_was_answered(
    ai: OpenAI, ledger: Ledger, client: Client, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "expire":
        monkeypatch.setattr("videoqa.gateway.routes.batches.WINDOW_S", 4)
    done = threading.Event()

    def hold(question: str) -> bool:
        if "number 30?" in question:
            done.wait(30)
        return False

    with workers(ledger, fails=hold):
        made = start(ai, write(*(make_line(n) for n in range(100))))
        wait_until(lambda: (ai.batches.retrieve(made.id).request_counts or made).completed >= 20)
        if how == "cancel":
            assert ai.batches.cancel(made.id).status == "cancelling"
            assert ai.batches.cancel(made.id).status in ("cancelling", "cancelled")
        wait_until(lambda: all(job.state != "queued" for job in list_jobs(client)))
        done.set()
        ended = wait(ai, made)
    assert ended.status == {"cancel": "cancelled", "expire": "expired"}[how]
    output, errors = read(ai, ended.output_file_id), read(ai, ended.error_file_id)
    assert output.keys() | errors.keys() == {f"c{n}" for n in range(100)}
    assert not output.keys() & errors.keys()
    assert len(output) >= 20
    reasons = {(one["response"], one["error"]["code"]) for one in errors.values()}
    assert reasons == {(None, {"cancel": "batch_cancelled", "expire": "batch_expired"}[how])}
    assert {job.state for job in list_jobs(client)} <= {"succeeded", "canceled"}
    late = ai.with_options(max_retries=0)
    if how == "cancel":
        assert late.batches.cancel(made.id).status == "cancelled"
    else:
        with pytest.raises(openai.ConflictError) as caught:
            late.batches.cancel(made.id)
        assert caught.value.code == "batch_ended"
    assert list(ai.files.list(purpose="batch_output").data) != []


def test_a_deleted_input_does_not_end_its_batch(ai: OpenAI, ledger: Ledger) -> None:
    made = start(ai, write(*(make_line(n) for n in range(15))))
    wait(ai, made, "in_progress")
    ai.files.delete(made.input_file_id)
    with workers(ledger):
        assert wait(ai, made).status == "completed"


def test_a_batch_whose_input_is_lost_can_be_cancelled(
    ai: OpenAI, client: Client, files: Files, redis_client: redis.Redis, settings: Settings
) -> None:
    made = start(ai, write(*(make_line(n) for n in range(15))))
    wait_until(lambda: len(list_jobs(client)) == 15)
    files.place.delete(made.input_file_id)
    redis_client.hset(f"{settings.prefix}:batch:{made.id}", "holder", "another")
    ai.batches.cancel(made.id)
    # The next run that takes it reads the input again.
    redis_client.zadd(f"{settings.prefix}:batches:due", {made.id: 0})
    wait_until(lambda: ai.batches.retrieve(made.id).status == "cancelled")
    ended = ai.batches.retrieve(made.id)
    assert ended.errors is not None
    assert [one.code for one in ended.errors.data or []] == ["file_gone"]
    message = (ended.errors.data or [])[0].message or ""
    assert message.startswith("15 lines are in neither file")
    assert {job.state for job in list_jobs(client)} == {"canceled"}


def test_lines_count_for_the_limits_of_their_key(
    gateway: GatewayServer, keys: KeyStore, ledger: Ledger, client: Client
) -> None:
    key = keys.create("ai", ["submit", "read"], tenant="a", jobs_per_day=12).text
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as ai,
        workers(ledger),
    ):
        made = start(ai, write(*(make_line(n) for n in range(30))))
        wait_until(lambda: (ai.batches.retrieve(made.id).request_counts or made).completed == 12)
        assert len(list_jobs(client)) == 12
        ai.batches.cancel(made.id)
        ended = wait(ai, made)
    assert ended.request_counts is not None
    assert ended.request_counts.model_dump() == {"total": 30, "completed": 12, "failed": 18}


def test_batches_that_wait_for_long_starve_no_other(
    gateway: GatewayServer,
    keys: KeyStore,
    ai: OpenAI,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "MOST_RUNNING", 1)
    monkeypatch.setattr(runner, "TURN_S", 0.2)
    key = keys.create("b", ["submit", "read"], tenant="b", jobs_per_day=1).text
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key) as stuck, workers(ledger):
        long = start(stuck, write(*(make_line(n) for n in range(3))))
        wait(stuck, long, "in_progress")
        assert wait(ai, start(ai, write(make_line(4)))).status == "completed"
        assert stuck.batches.retrieve(long.id).status == "in_progress"
        stuck.batches.cancel(long.id)
        ended = wait(stuck, long)
    assert ended.request_counts is not None
    assert ended.request_counts.model_dump() == {"total": 3, "completed": 1, "failed": 2}


@needs_openai_node
def test_openais_client_for_node_makes_batches(
    gateway: GatewayServer, keys: KeyStore, ledger: Ledger
) -> None:
    key = keys.create("ai", ["submit", "read"], tenant="a").text
    with NodeClient(gateway.url, key) as node, workers(ledger):
        lines = write(make_line(0), make_line(1)).decode()
        made = node.call("batch", lines=lines)["ok"]["made"]
        ended = node.call("wait", id=made["id"])["ok"]
    assert ended["batch"]["status"] == "completed"
    assert len(ended["output"].splitlines()) == 2
    assert ended["listed"] == [made["id"]]


def test_nothing_of_an_ended_batch_is_left_but_its_record(
    ai: OpenAI, ledger: Ledger, redis_client: redis.Redis, settings: Settings
) -> None:
    with workers(ledger):
        made = start(ai, write(*(make_line(n) for n in range(25))))
        wait(ai, made)
    wait_until(lambda: not redis_client.exists(f"{settings.prefix}:batch:parts:{made.id}"))
    assert redis_client.zcard(f"{settings.prefix}:batches:due") == 0
    assert 0 < redis_client.ttl(f"{settings.prefix}:batch:{made.id}") <= 30 * 86400


@pytest.mark.parametrize("spoil", ["type", "text", "status"])
def test_a_spoiled_batch_costs_no_other(
    ai: OpenAI, ledger: Ledger, redis_client: redis.Redis, settings: Settings, spoil: str
) -> None:
    bad = start(ai, write(make_line(0)))
    key = f"{settings.prefix}:batch:{bad.id}"
    if spoil == "type":
        redis_client.delete(key)
        redis_client.set(key, "x")
    else:
        redis_client.hset(key, "info" if spoil == "text" else "status", "\xff{")
    redis_client.zadd(f"{settings.prefix}:batches:due", {bad.id: 0, "batch_x": 0, "": 0})
    redis_client.zadd(f"{settings.prefix}:batches:list:=a", {"batch_x": 5})
    with workers(ledger):
        assert wait(ai, start(ai, write(make_line(1)))).status == "completed"
    with pytest.raises(openai.NotFoundError):
        ai.batches.retrieve(bad.id)
    assert len(list(ai.batches.list())) == 1


def test_a_batch_ends_with_its_key(
    gateway: GatewayServer, keys: KeyStore, http_a: httpx.Client, client: Client, ledger: Ledger
) -> None:
    made = keys.create("short", ["submit", "read"], tenant="a")
    watching = keys.create("watch", ["read"], tenant="a").text
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key=made.text, max_retries=0) as ai,
        OpenAI(base_url=f"{gateway.url}/v1", api_key=watching, max_retries=0) as watch,
    ):
        batch = start(ai, write(make_line(1), make_line(2)))
        wait_until(lambda: len(list_jobs(client)) == 2)
        keys.revoke(made.key.id)
        ended = wait(watch, batch)
        assert {line["error"]["code"] for line in read(watch, ended.error_file_id).values()} == {
            "batch_cancelled"
        }
    assert {job.state for job in list_jobs(client)} == {"canceled"}


def test_a_batch_whose_key_was_revoked_at_once_fails(
    gateway: GatewayServer, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.create("short", ["submit", "read"], tenant="a")
    watching = keys.create("watch", ["read"], tenant="a").text
    taken = threading.Event()
    take = gateway._app.state.resources.batches.take
    monkeypatch.setattr(
        gateway._app.state.resources.batches,
        "take",
        lambda holder: take(holder) if taken.is_set() else None,
    )
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key=made.text, max_retries=0) as ai,
        OpenAI(base_url=f"{gateway.url}/v1", api_key=watching, max_retries=0) as watch,
    ):
        batch = start(ai, write(make_line(1)))
        keys.revoke(made.key.id)
        taken.set()
        ended = wait(watch, batch)
    assert ended.errors is not None
    assert ended.errors.data is not None
    assert [one.code for one in ended.errors.data] == ["wrong_key"]


def test_no_line_of_a_batch_names_the_storage_of_a_file(
    ai: OpenAI, http_a: httpx.Client, ledger: Ledger, files: Files
) -> None:
    video = http_a.post(
        "/v1/files?filename=a.mp4", content=b"x", headers={"content-type": "video/mp4"}
    )
    line = make_line(1)
    line["body"] = ask(
        {"type": "video_url", "video_url": {"url": video.json()["id"]}},
        {"type": "text", "text": "What?"},
    )
    storage = f"{files.place.base}{video.json()['id']}/content.mp4"
    with workers(ledger, fails=lambda _: True, message=f"{storage} is no video"):
        ended = wait(ai, start(ai, write(line)))
    assert ended.error_file_id is not None
    text = ai.files.content(ended.error_file_id).text
    assert f"{video.json()['id']} is no video" in text
    assert "file:" not in text


def test_files_of_a_run_that_ended_before_the_batch_named_them_are_deleted(
    ai: OpenAI, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The move to `completed` fails twice, as if the process had been killed before it."""
    move, failures = runner.BatchRun._move, []

    async def fail_twice(self: Any, before: Any, after: str, fields: Any = None) -> None:
        if after == "completed" and len(failures) < 2:
            failures.append(after)
            raise OSError("killed")
        await move(self, before, after, fields)  # type: ignore[arg-type]

    monkeypatch.setattr(runner.BatchRun, "_move", fail_twice)
    monkeypatch.setattr(runner, "RETRY_S", 0.05)
    with workers(ledger, fails=lambda text: "number 1?" in text):
        done = wait(ai, start(ai, write(*(make_line(n) for n in range(15)))))
    assert len(failures) == 2
    assert read(ai, done.output_file_id).keys() == {f"c{n}" for n in range(15) if n != 1}
    files = {one.id for one in ai.files.list(purpose="batch_output")}
    assert files == {done.output_file_id, done.error_file_id}


def test_a_batch_whose_run_ended_before_it_cleaned_up_is_cleaned_up_later(
    ai: OpenAI,
    ledger: Ledger,
    redis_client: redis.Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run fails after the move to `completed`, as if the process had been killed there."""
    clean_up, failures = runner.BatchRun._clean_up, []

    async def fail_once(self: Any, record: Any) -> None:
        if not failures:
            failures.append(record.id)
            raise OSError("killed")
        await clean_up(self, record)

    monkeypatch.setattr(runner.BatchRun, "_clean_up", fail_once)
    monkeypatch.setattr(runner, "RETRY_S", 0.05)
    with workers(ledger):
        done = wait(ai, start(ai, write(*(make_line(n) for n in range(15)))))
    wait_until(
        lambda: not redis_client.exists(f"{settings.prefix}:batch:parts:{done.id}"), within_s=30
    )
    assert failures == [done.id]
    assert redis_client.zcard(f"{settings.prefix}:batches:due") == 0
    assert ai.batches.retrieve(done.id) == done
