"""Webhooks from end to end: real receivers on loopback, real gateways, and jobs that end in Redis."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis
from openai import OpenAI
from standardwebhooks.webhooks import Webhook as StandardWebhook
from support.cli import call_command, clean_environment
from support.gateway import serve_gateway
from support.processes import wait_until
from support.receiver import Got, Receiver, receiving
from support.worker import begin, fail, finish

from videoqa import Client, Settings, Webhook, verify_webhook
from videoqa.errors import DeliveryNotFound, InvalidRequest
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.webhooks import (
    Delivery,
    DeliveryAttempt,
    DeliveryStore,
    SigningSecrets,
    deliverer,
)
from videoqa.gateway.webhooks.deliveries import Outcome
from videoqa.jobs import Ledger

ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What is it?"]}
QUICK: dict[str, Any] = {
    "webhook_networks": "127.0.0.0/8",
    "webhook_retry_delays_s": ",".join(["0.01"] * 9),
    "webhook_timeout_s": 1.0,
}
Ask = Callable[..., str]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def store(settings: Settings, redis_client: redis.Redis) -> DeliveryStore:
    return DeliveryStore(redis_client, url=settings.redis_url, prefix=settings.prefix)


@pytest.fixture
def secrets(settings: Settings, redis_client: redis.Redis) -> SigningSecrets:
    return SigningSecrets(redis_client, url=settings.redis_url, prefix=settings.prefix)


@pytest.fixture
def end_job(client: Client, ledger: Ledger) -> Ask:
    """Returns a function that submits a job with a webhook, and ends it; it returns the job's id."""

    def end_job(url: str, **fields: Any) -> str:
        job = client.submit({**ASKED, "webhook": url, **fields})
        finish(ledger, begin(ledger), q1="a cat")
        return job.id

    return end_job


@pytest.fixture
def deliver(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., GatewayServer]]:
    """Returns a function that starts another gateway, which retries at once."""
    monkeypatch.setattr(deliverer, "_POLL_S", 0.02)
    monkeypatch.setattr(deliverer, "_AWAY_S", 0.02)
    with ExitStack() as stack:
        yield lambda **fields: stack.enter_context(serve_gateway(settings, **{**QUICK, **fields}))


def wait_for(store: DeliveryStore, status: str, count: int = 1) -> list[Delivery]:
    def find() -> list[Delivery]:
        return store.find(None, status=status, limit=1000).deliveries  # type: ignore[arg-type]

    wait_until(lambda: len(find()) >= count, every_s=0.02)
    return find()


def test_a_receiver_is_told_once_with_all_about_the_job_and_no_answer(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    deliver()
    job_id = end_job(receiver.url, custom_id="order 7", metadata={"a": "ü"}, tags=["t"])
    (delivery,) = wait_for(store, "delivered")
    (got,) = receiver.got
    event = got.event
    assert event["id"] == got.id == delivery.id
    assert (event["object"], event["type"]) == ("event", "job.succeeded")
    assert {"id": job_id, "state": "succeeded", "custom_id": "order 7", "metadata": {"a": "ü"},
            "tags": ["t"], "failure": None}.items() <= event["data"].items()  # fmt: skip
    assert event["data"]["links"]["result"] == f"/v1/jobs/{job_id}/result"
    assert "a cat" not in got.body.decode()
    assert got.headers["content-type"] == "application/json"
    assert (delivery.job_id, delivery.event, delivery.attempts) == (job_id, "job.succeeded", 1)
    assert [one.status for one in delivery.log] == [204]
    time.sleep(0.1)  # a gateway looks again in this time
    assert len(receiver.got) == 1


def test_a_failed_job_is_told_with_its_code(
    receiver: Receiver,
    client: Client,
    ledger: Ledger,
    store: DeliveryStore,
    deliver: Callable[..., GatewayServer],
) -> None:
    client.submit({**ASKED, "webhook": receiver.url})
    fail(ledger)
    deliver()
    wait_for(store, "delivered")
    failure = receiver.got[0].event["data"]["failure"]
    assert (failure["code"], failure["message"]) == ("model_error", "boom")


def test_the_largest_event_is_below_20_kilobytes(
    receiver: Receiver,
    client: Client,
    ledger: Ledger,
    store: DeliveryStore,
    deliver: Callable[..., GatewayServer],
) -> None:
    wide = "\U0001f408"
    client.submit(
        {
            **ASKED,
            "webhook": receiver.url,
            "custom_id": wide * 256,
            "tags": [wide * 60 + str(n) for n in range(8)],
            "metadata": {str(n): wide * 280 for n in range(7)},
            "tenant": wide * 128,
        }
    )
    fail(ledger)
    deliver()
    wait_for(store, "delivered")
    assert 10_000 < len(receiver.got[0].body) < 20_000


def test_standard_libraries_and_openais_client_accept_the_signature(
    receiver: Receiver,
    secrets: SigningSecrets,
    store: DeliveryStore,
    end_job: Ask,
    deliver: Callable[..., GatewayServer],
) -> None:
    deliver()
    job_id = end_job(receiver.url, tenant="a")
    wait_for(store, "delivered")
    (got,) = receiver.got
    secret = secrets.get("a").current
    assert secrets.get("b").current != secret
    assert StandardWebhook(secret).verify(got.body, got.headers)["data"]["id"] == job_id
    unwrapped = OpenAI(api_key="k", webhook_secret=secret).webhooks.unwrap(got.body, got.headers)
    assert (unwrapped.type, unwrapped.data.id) == ("job.succeeded", job_id)  # type: ignore[comparison-overlap]
    assert verify_webhook(got.body, got.headers, secret).data["id"] == job_id


def test_both_secrets_sign_after_a_rotation(
    receiver: Receiver,
    secrets: SigningSecrets,
    store: DeliveryStore,
    end_job: Ask,
    deliver: Callable[..., GatewayServer],
) -> None:
    before = secrets.get(None).current
    after = secrets.rotate(None)
    assert (after.previous, after.current != before) == (before, True)
    assert after.previous_until is not None
    assert 86_300 < (after.previous_until - datetime.now(UTC)).total_seconds() < 86_401
    deliver()
    end_job(receiver.url)
    wait_for(store, "delivered")
    (got,) = receiver.got
    for secret in (before, after.current):
        assert verify_webhook(got.body, got.headers, secret).id == got.id
    assert len(got.headers["webhook-signature"].split()) == 2


@pytest.mark.parametrize("answer", [500, 301, 404, 429, 199, None], ids=str)
def test_only_a_2xx_is_success_and_each_attempt_has_the_same_id_and_body(
    answer: int | None,
    receiver: Receiver,
    store: DeliveryStore,
    end_job: Ask,
    deliver: Callable[..., GatewayServer],
) -> None:
    elsewhere = {"location": receiver.url + "?elsewhere"}
    receiver.answer = lambda got: (
        200 if len(receiver.got) > 2 else answer if answer is None else (answer, elsewhere)
    )
    deliver()
    end_job(receiver.url)
    (delivery,) = wait_for(store, "delivered")
    assert {got.path for got in receiver.got} == {"/hook"}
    assert (len(receiver.got), len({got.id for got in receiver.got})) == (3, 1)
    assert len({got.body for got in receiver.got}) == 1
    expected = None if answer in (None, 199) else answer
    assert [one.status for one in delivery.log] == [expected, expected, 200]


def test_ten_attempts_fail_and_a_replay_makes_it_due_again(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    receiver.answer = lambda got: 500
    deliver()
    end_job(receiver.url)
    (failed,) = wait_for(store, "failed")
    assert (len(receiver.got), failed.attempts, failed.next_at) == (10, 10, None)
    assert [one.error for one in failed.log] == ["HTTP 500"] * 10
    receiver.answer = lambda got: 200
    store.replay(failed.id, None)
    (delivered,) = wait_for(store, "delivered")
    assert delivered.id == failed.id
    assert {got.id for got in receiver.got} == {failed.id}
    assert store.find(None, status="failed").deliveries == []


def test_410_ends_all_calls_of_that_url_until_a_replay(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    receiver.answer = lambda got: 410
    deliver()
    end_job(receiver.url)
    (first,) = wait_for(store, "failed")
    assert (first.attempts, first.log[0].status) == (1, 410)
    end_job(receiver.url)
    newest = wait_for(store, "failed", 2)[0]
    assert "410 before" in newest.log[0].error
    assert len(receiver.got) == 1
    end_job(receiver.url, tenant="b")  # another tenant's calls are its own
    wait_until(lambda: len(receiver.got) == 2)
    receiver.answer = lambda got: 200
    store.replay(newest.id, None)
    wait_for(store, "delivered")
    end_job(receiver.url)
    wait_for(store, "delivered", 2)


def test_retry_after_is_obeyed(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    receiver.answer = lambda got: (
        (503, {"retry-after": "1"}) if len(receiver.got) == 1 else (503, {"retry-after": "999999"})
    )
    deliver()
    end_job(receiver.url)
    wait_until(lambda: len(receiver.got) == 2)
    assert receiver.got[1].at_s - receiver.got[0].at_s >= 1
    wait_until(lambda: len(store.find(None).deliveries[0].log) == 2)
    next_at = store.find(None).deliveries[0].next_at
    assert next_at is not None
    assert 86_300 < (next_at - datetime.now(UTC)).total_seconds() <= 86_401


def test_receivers_that_hang_hold_up_nobody_else(
    store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    """Far more calls hang than there are calls at a time, and each of them for all of its time."""
    with ExitStack() as stack:
        hanging = [stack.enter_context(receiving()) for _ in range(6)]
        good = stack.enter_context(receiving())
        for one in hanging:
            one.answer = lambda got: (time.sleep(2), None)[1]
        deliver(webhook_calls=8, webhook_retry_delays_s="0.2," * 8 + "0.2")
        for _ in range(5):
            for one in hanging:
                end_job(one.url)
        wait_until(lambda: sum(len(one.got) for one in hanging) >= 6)
        for _ in range(10):
            end_job(good.url)
        wait_until(lambda: len(good.got) == 10)
        assert sum(len(one.got) for one in hanging) < 30, "calls that hang are still to come"


def test_one_receiver_gets_few_calls_at_a_time(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    running: list[int] = [0, 0]

    def answer(got: Got) -> int:
        running[0] += 1
        running[1] = max(running)
        time.sleep(0.05)
        running[0] -= 1
        return 200

    receiver.answer = answer
    for _ in range(12):
        end_job(receiver.url)
    deliver(webhook_calls_per_receiver=2)
    deliver(webhook_calls_per_receiver=2)
    wait_for(store, "delivered", 12)
    assert running[1] == 2
    assert len({got.id for got in receiver.got}) == len(receiver.got) == 12


class Gateway:
    """The steps of a gateway, one by one, which may end between any two of them."""

    def __init__(self, store: DeliveryStore, *, lease_s: float = 0.05) -> None:
        self.store, self.lease_s = store, lease_s

    def take(self) -> list[str]:
        taken = self.store.take(10, unproven=5, per_receiver=4, lease_s=self.lease_s)
        return [one.id for one in taken.deliveries]


def test_a_gateway_that_dies_between_two_steps_loses_nothing(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    end_job(receiver.url)
    first = Gateway(store).take()  # it has taken the entry, and dies before its call
    assert len(first) == 1
    assert Gateway(store).take() == []
    time.sleep(0.06)
    assert Gateway(store).take() == first  # another one called, and dies before it notes the end
    time.sleep(0.06)
    deliver()
    (delivery,) = wait_for(store, "delivered")
    assert ([delivery.id], delivery.attempts) == (first, 3)
    late = DeliveryAttempt(at=datetime.now(UTC), error="no answer in 1 s")
    store.settle(delivery.id, Outcome("retry", late), per_receiver=4)
    assert store.get(delivery.id, None).status == "delivered"
    assert Gateway(store).take() == []


def test_a_delivery_that_ends_each_gateway_is_given_up(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    end_job(receiver.url)
    for _ in range(10):
        assert len(Gateway(store, lease_s=0.01).take()) == 1
        time.sleep(0.02)
    deliver()
    (failed,) = wait_for(store, "failed")
    assert "gateways ended" in failed.log[-1].error
    assert receiver.got == []


def test_junk_in_any_key_stops_no_other_delivery(
    receiver: Receiver,
    store: DeliveryStore,
    settings: Settings,
    redis_client: redis.Redis,
    end_job: Ask,
    deliver: Callable[..., GatewayServer],
) -> None:
    end_job(receiver.url)
    Gateway(store, lease_s=2).take()  # a gateway that died then
    keys = sorted(map(str, redis_client.scan_iter(f"{settings.prefix}:hooks:*")))
    kinds = {key.split(":")[2] for key in keys}
    assert {"delivery", "list", "job", "due", "flying", "unproven"} <= kinds
    gateway = deliver()
    junk = random.Random(1)
    done = 0
    for key in [
        *keys,
        f"{settings.prefix}:hooks:unproven",
        f"{settings.prefix}:hooks:proven",
        f"{settings.prefix}:outbox",
    ]:
        for spoil in ("type", "member", "fields"):
            if spoil == "type" or key.endswith("outbox"):
                redis_client.delete(key)
                redis_client.set(key, "x")
            elif redis_client.type(key) == "zset":
                redis_client.zadd(key, {f"junk{junk.random()}": 0.0})
            elif redis_client.type(key) == "hash":
                redis_client.hset(key, mapping={"webhook": "[", "status": "pending", "at": "1"})
            end_job(receiver.url)
            done += 1
            wait_until(lambda: len(receiver.got) >= done, every_s=0.02)  # noqa: B023
    fields = {"job": "job_1", "webhook": '{"url":7}', "at": "x"}
    redis_client.xadd(f"{settings.prefix}:outbox", fields)  # type: ignore[arg-type]
    end_job(receiver.url)
    wait_until(lambda: len(receiver.got) >= done + 1)
    assert gateway.started


@pytest.mark.parametrize("junk", ["nan", "0x10", "1e400", " 1", "1.5", str(2**63 - 1)])
@pytest.mark.parametrize("where", ["at of the entry", "at", "attempts"])
def test_a_number_that_is_none_stops_no_other_delivery(
    store: DeliveryStore,
    settings: Settings,
    redis_client: redis.Redis,
    end_job: Ask,
    where: str,
    junk: str,
) -> None:
    end_job("https://bad.example/")
    if where == "at of the entry":
        outbox = f"{settings.prefix}:outbox"
        ((entry, fields),) = redis_client.xrange(outbox)  # type: ignore[misc]
        redis_client.xdel(outbox, entry)
        redis_client.xadd(outbox, {**fields, "at": junk})
    else:
        store.take(0, unproven=0, per_receiver=1, lease_s=60)
        (key,) = redis_client.keys(f"{settings.prefix}:hooks:delivery:*")  # type: ignore[misc]
        redis_client.hset(key, where, junk)
    good = end_job("https://good.example/")
    taken = store.take(10, unproven=10, per_receiver=1, lease_s=60).deliveries
    assert good.removeprefix("job_") in str([one.id for one in taken])


def test_lists_are_paged_and_filtered(
    receiver: Receiver, store: DeliveryStore, end_job: Ask, deliver: Callable[..., GatewayServer]
) -> None:
    jobs = [end_job(receiver.url, tenant="ab"[n % 2]) for n in range(7)]
    deliver()
    wait_for(store, "delivered", 7)
    found, cursor = [], None
    while True:
        page = store.find("a", cursor=cursor, limit=2)
        found += [one.job_id for one in page.deliveries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == jobs[::2][::-1]
    assert [one.job_id for one in store.find(None, job_id=jobs[1]).deliveries] == [jobs[1]]
    assert store.find("a", job_id=jobs[1]).deliveries == []
    assert store.find(None, status="failed").deliveries == []
    with pytest.raises(InvalidRequest, match="next_cursor"):
        store.find(None, cursor="1-x")
    with pytest.raises(InvalidRequest, match="1 to 1000"):
        store.find(None, limit=0)
    with pytest.raises(DeliveryNotFound):
        store.get("whd_../x", None)


# -- over HTTP


Connect = Callable[..., httpx.Client]


@pytest.fixture
def connect_to(keys: KeyStore) -> Iterator[Connect]:
    """Returns a function that makes a client of a gateway, with a key of its own."""
    with ExitStack() as stack:

        def connect_to(server: GatewayServer, *roles: Any, **fields: Any) -> httpx.Client:
            key = keys.create("test", roles, **fields).text
            http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"})
            return stack.enter_context(http)

        yield connect_to


def test_a_keys_webhook_is_called_unless_the_job_names_its_own(
    receiver: Receiver,
    connect_to: Connect,
    ledger: Ledger,
    store: DeliveryStore,
    deliver: Callable[..., GatewayServer],
) -> None:
    server = deliver()
    http = connect_to(server, "submit", "read", webhook=Webhook(url=receiver.url + "/key?s=1"))
    for webhook in (None, receiver.url + "/own"):
        body = ASKED if webhook is None else {**ASKED, "webhook": webhook}
        assert http.post("/v1/jobs", json=body).status_code == 202
        finish(ledger, begin(ledger), q1="a cat")
    wait_until(lambda: len(receiver.got) == 2)
    assert sorted(got.path for got in receiver.got) == ["/hook/key?s=1", "/hook/own"]


def test_deliveries_are_listed_and_replayed_by_their_tenant_alone(
    receiver: Receiver,
    connect_to: Connect,
    store: DeliveryStore,
    end_job: Ask,
    deliver: Callable[..., GatewayServer],
) -> None:
    server = deliver()
    job_id = end_job(receiver.url + "?token=secret", tenant="a")
    (delivery,) = wait_for(store, "delivered")
    owner, other, everybody = (
        connect_to(server, "submit", "read", tenant=tenant) for tenant in ("a", "b", None)
    )
    for http in (owner, everybody):
        found = http.get("/v1/webhooks/deliveries", params={"job": job_id, "status": "delivered"})
        assert (found.status_code, found.json()["has_more"]) == (200, False)
        (one,) = found.json()["deliveries"]
        assert (one["id"], one["url"], one["log"][0]["status"]) == (delivery.id, receiver.url, 204)
        assert http.get(one["links"]["self"]).json() == one
    assert other.get("/v1/webhooks/deliveries").json()["deliveries"] == []
    unknown = delivery.id[:-1] + str((int(delivery.id[-1]) + 1) % 10)
    for path in ("/v1/webhooks/deliveries/{}", "/v1/webhooks/deliveries/{}/replay"):
        call = other.post if path.endswith("replay") else other.get
        foreign, none = call(path.format(delivery.id)), call(path.format(unknown))
        assert foreign.status_code == none.status_code == 404
        assert foreign.json()["code"] == none.json()["code"] == "delivery_not_found"
    assert len(receiver.got) == 1
    replayed = owner.post(f"/v1/webhooks/deliveries/{delivery.id}/replay")
    assert (replayed.status_code, replayed.json()["id"]) == (202, delivery.id)
    wait_until(lambda: len(receiver.got) == 2)
    assert receiver.got[1].id == delivery.id


def test_an_administrator_sees_and_rotates_the_secret_of_its_tenant(
    connect_to: Connect, secrets: SigningSecrets, deliver: Callable[..., GatewayServer]
) -> None:
    server = deliver()
    own, all_tenants = (connect_to(server, "admin", tenant=tenant) for tenant in ("a", None))
    first = own.get("/v1/webhooks/secret").json()
    assert first == {
        "secret": secrets.get("a").current, "previous": None, "previous_until": None,
    }  # fmt: skip
    assert own.get("/v1/webhooks/secret", params={"tenant": "b"}).status_code == 403
    rotated = all_tenants.post("/v1/webhooks/secret/rotate", params={"tenant": "a"}).json()
    assert (rotated["previous"], rotated["secret"]) == (first["secret"], secrets.get("a").current)
    assert all_tenants.get("/v1/webhooks/secret").json()["secret"] != rotated["secret"]


def test_a_gateway_refuses_plain_http_and_urls_that_it_would_not_call(
    connect_to: Connect, deliver: Callable[..., GatewayServer]
) -> None:
    server = deliver(webhook_networks="")
    http = connect_to(server, "submit", "read")
    for url in ("http://a.org/x", "HTTP://a.org/x", "https://me:pw@a.org/x", "ftp://a.org/x"):
        refused = http.post("/v1/jobs", json={**ASKED, "webhook": {"url": url}})
        assert (refused.status_code, refused.json()["param"]) == (400, "webhook.url"), refused.text
        assert "pw" not in refused.text


# -- the command line


def test_commands_list_replay_and_show_the_secret(
    receiver: Receiver,
    settings: Settings,
    store: DeliveryStore,
    end_job: Ask,
    deliver: Callable[..., GatewayServer],
) -> None:
    environment = clean_environment(
        VIDEOQA_REDIS_URL=settings.redis_url, VIDEOQA_PREFIX=settings.prefix
    )

    def call(*words: str) -> str:
        done = call_command("webhooks", *words, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "no webhook is kept" in call("list")
    receiver.answer = lambda got: 410
    deliver()
    job_id = end_job(receiver.url + "?token=secret", tenant="a")
    (failed,) = wait_for(store, "failed")
    shown = call("list", "--status", "failed", "--job", job_id)
    assert f"{failed.id}  failed  job.succeeded  {receiver.url}  1 attempt  HTTP 410" in shown
    assert json.loads(call("list", "--json"))["id"] == failed.id
    receiver.answer = lambda got: 204
    assert "due again" in call("replay", failed.id)
    wait_for(store, "delivered")
    secret = call("secret", "--tenant", "a").strip()
    assert verify_webhook(receiver.got[-1].body, receiver.got[-1].headers, secret).id == failed.id
    assert secret in call("secret", "--tenant", "a", "--rotate", "--json")
    audit = call_command("keys", "audit", environment=environment).stdout
    assert f"webhooks replay  {failed.id}" in audit
    assert "webhooks secret --rotate  a" in audit
    for words in (("list", "--status", "lost"), ("replay", "whd_0_0_0")):
        done = call_command("webhooks", *words, environment=environment)
        assert (done.returncode != 0, words[-1] in done.stderr) == (True, True)


def test_a_key_is_made_with_a_webhook(settings: Settings, keys: KeyStore) -> None:
    environment = clean_environment(
        VIDEOQA_REDIS_URL=settings.redis_url, VIDEOQA_PREFIX=settings.prefix
    )
    url = "https://app.example.org/hook"
    made = call_command("keys", "create", "a", "--webhook", url, environment=environment)
    webhook = keys.check(made.stdout.strip()).webhook
    assert webhook is not None
    assert webhook.url == url
    refused = call_command("keys", "create", "a", "--webhook", "ftp://x", environment=environment)
    assert "expected https://host/path" in refused.stderr
