"""Chats whose gateway is killed: their callers come back to another one, or their jobs are canceled."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from openai import OpenAI
from support.chats import PATH, VIDEO, ask
from support.gateway import GatewayProcess
from support.processes import wait_until
from support.worker import begin, finish

from videoqa.client import Client
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.openai import chat_calls
from videoqa.jobs import Ledger, digest_idempotency_key, queue_name
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

LEASE_S = 2.0
SOONER = (
    "from videoqa.gateway.openai import chat_calls\n"
    f"chat_calls.LEASE_S, chat_calls.RENEW_S = {LEASE_S}, 0.5"
)


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_calls, "LEASE_S", LEASE_S)
    monkeypatch.setattr(chat_calls, "RENEW_S", 0.5)


@pytest.fixture
def victim(settings: Settings, tmp_path: Path, short_leases: None) -> Iterator[GatewayProcess]:
    with GatewayProcess(settings, tmp_path, before=SOONER) as process:
        yield process


@pytest.fixture
def key(keys: KeyStore) -> str:
    return keys.create("ai", ["submit", "read"], tenant="a").text


def wait_for_state(client: Client, *states: str) -> None:
    wait_until(
        lambda: sorted(job.state for job in client.list().jobs) == sorted(states), within_s=30
    )


def call(url: str, key: str, **fields: Any) -> threading.Thread:
    """Asks in a thread, whose caller does not come back if the gateway is killed."""

    def post() -> None:
        headers = {"authorization": f"Bearer {key}"}
        with suppress(httpx.TransportError):
            httpx.post(url + PATH, json=ask(**fields), headers=headers, timeout=60)

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def test_jobs_whose_callers_do_not_come_back_are_canceled(
    victim: GatewayProcess, gateway: GatewayServer, key: str, client: Client, redis_client: redis.Redis,
    settings: Settings,
) -> None:  # fmt: skip
    """Whichever way they were asked; a call at the other gateway goes on."""
    callers = [call(victim.url, key, stream=stream) for stream in (False, True)]
    survivor = call(gateway.url, key)
    wait_for_state(client, "queued", "queued", "queued")
    time.sleep(LEASE_S + 1)  # renewed meanwhile
    wait_for_state(client, "queued", "queued", "queued")
    victim.process.kill()
    for caller in callers:
        caller.join()
    wait_for_state(client, "canceled", "canceled", "queued")
    leases = f"{settings.prefix}:chat:leases"
    wait_until(lambda: redis_client.zcard(leases) == 1)
    (queued,) = [job for job in client.list().jobs if job.state == "queued"]
    client.cancel(queued.id)
    survivor.join()
    wait_until(lambda: redis_client.zcard(leases) == 0)


def test_a_spoiled_lease_keeps_no_other_job_alive(
    short_leases: None, gateway: GatewayServer, client: Client, redis_client: redis.Redis,
    settings: Settings,
) -> None:  # fmt: skip
    job = client.submit(inputs=["s3://b/clip.mp4"], questions=["What?"], idempotency_key="k")
    of = digest_idempotency_key(None, "k")
    leases = f"{settings.prefix}:chat:leases"
    redis_client.set(f"{settings.prefix}:chat:callers:bad", "x")
    redis_client.zadd(leases, {"bad/1": 1.0, "nonsense": 2.0, f"{of}/2": 3.0})
    wait_until(lambda: client.get(job.id).state == "canceled")
    wait_until(lambda: redis_client.zcard(leases) == 0)
    assert gateway.started


@pytest.mark.parametrize("stream", [False, True])
def test_openais_client_comes_back_to_another_gateway_and_joins(
    victim: GatewayProcess, gateway: GatewayServer, key: str, client: Client, ledger: Ledger,
    stream: bool,
) -> None:  # fmt: skip
    found: list[str] = []
    first, second = victim.url, gateway.url

    class Balancer(httpx.BaseTransport):
        """Sends a request to the gateway that lives."""

        def __init__(self) -> None:
            self._to = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            at = first if victim.running() else second
            request.url = httpx.URL(at + request.url.path)
            return self._to.handle_request(request)

    def chat() -> None:
        http = httpx.Client(transport=Balancer())
        with OpenAI(base_url=f"{first}/v1", api_key=key, http_client=http, timeout=30) as ai:
            asked: Any = {**ask(), "model": None, "stream": stream}
            answer: Any = ai.chat.completions.create(**asked)
            parts = [one.choices[0].delta.content for one in answer] if stream else None
            found.append(
                "".join(filter(None, parts)) if parts else answer.choices[0].message.content
            )

    thread = threading.Thread(target=chat)
    thread.start()
    wait_for_state(client, "queued")
    victim.process.kill()
    victim.process.wait()
    time.sleep(LEASE_S + 1)  # the killed call's lease runs out; the job has a caller
    wait_for_state(client, "queued")
    finish(ledger, begin(ledger), q1="a cat")
    thread.join(30)
    assert found == ["a cat"]


def test_a_batch_goes_on_behind_killed_gateways_with_each_line_once(
    settings: Settings, tmp_path: Path, keys: KeyStore, ledger: Ledger, client: Client
) -> None:
    """Killed while lines are checked, and while they are answered; the last gateway ends the batch."""
    sooner = (
        "from videoqa.gateway.batches import batch_loop, parts, runner, store\n"
        "store.LEASE_S, parts.LINES, runner.LOOK_S, batch_loop.POLL_S = 1, 10, 0.05, 0.05"
    )
    files = {"VIDEOQA_GATEWAY_FILES": str(tmp_path / "files")}
    key = keys.create("ai", ["submit", "read"], tenant="a").text
    lines = 120
    content = "".join(
        json.dumps(
            {
                "custom_id": f"c{n}", "method": "POST", "url": PATH,
                "body": ask(VIDEO, {"type": "text", "text": f"What is number {n}?"}),
            }
        )
        + "\n"
        for n in range(lines)
    )  # fmt: skip
    batch_id = ""
    asked: Counter[str] = Counter()
    for n in range(3):
        with (
            GatewayProcess(settings, tmp_path / f"g{n}", before=sooner, **files) as gateway,
            OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as ai,
        ):
            if not batch_id:
                file = ai.files.create(file=("x.jsonl", content.encode()), purpose="batch")
                batch_id = ai.batches.create(
                    input_file_id=file.id, endpoint=PATH, completion_window="24h"
                ).id
            if n < 2:
                answer_some(ledger, asked, 55 * n)
                gateway.process.kill()
                gateway.process.wait()
                continue
            answer_some(ledger, asked, lines)
            done = wait_until(partial(find_ended, ai, batch_id))
            assert done.status == "completed"
            text = ai.files.content(done.output_file_id).text
            found = [json.loads(line)["custom_id"] for line in text.splitlines()]
            assert sorted(found) == sorted(f"c{n}" for n in range(lines))
            assert done.error_file_id is None
            outputs = [one.id for one in ai.files.list(purpose="batch_output")]
            assert outputs == [done.output_file_id]
    assert set(asked.values()) == {1}
    assert len(asked) == lines


def answer_some(ledger: Ledger, asked: Counter[str], count: int) -> None:
    """Answers bulk jobs until `count` are answered in all."""
    queue = queue_name(ledger.keys.prefix, None, "bulk")

    def answer() -> bool:
        while len(asked) < count:
            token = f"t{len(asked)}"
            claim = ledger.claim([queue], worker="host:1", lease_s=60, token=token).claim
            if claim is None:
                return False
            asked[claim.request.questions[0].text] += 1
            finish(ledger, claim, q1="a cat")
        return True

    wait_until(answer)


def find_ended(ai: OpenAI, batch_id: str) -> Any:
    found = ai.batches.retrieve(batch_id)
    return found if found.status in ("completed", "failed", "expired", "cancelled") else None
